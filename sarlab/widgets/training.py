"""The live view of a training run: progress with the time left, two stop buttons, a chart.

The progress line and the chart are plain HTML and a plotly figure in updating displays, not
widgets, so that they are still there in a notebook whose kernel is gone.
"""

from __future__ import annotations

import asyncio
import html
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, DisplayHandle, display

from sarlab.config import TrainConfig
from sarlab.display.figures import BLUE, show, training_figure
from sarlab.display.tables import html_table
from sarlab.display.text import signed
from sarlab.evaluation.formatting import ONE_SEED, pair_table, run_summary
from sarlab.evaluation.policies import run_facts
from sarlab.job.training import run_training
from sarlab.job.watchers import RunStopped, View
from sarlab.runs.atomic import read_json
from sarlab.runs.folder import read_rollouts
from sarlab.runs.parameters import training_request
from sarlab.types import StepRecord
from sarlab.widgets.candidates import verdict_text
from sarlab.widgets.live import Access, button, row, status

__all__ = ["TrainingView", "show_examples", "show_summary", "training_request", "watch_training"]

_CHART_SECONDS = 3.0  # the chart is drawn at most this often; a step may take less
_LINE_SECONDS = 0.5
_TRACK = "rgba(128,128,128,0.1)"  # the bar has 3:1 on it
_TEXT = "white-space:pre-wrap;font-family:monospace;font-size:12px"


async def watch_training(
    config: TrainConfig, folder: str | Path, *, resume: bool = False
) -> dict[str, Any]:
    """:func:`sarlab.job.training.run_training` with a live view; ``await`` it in a notebook cell.

    Both buttons work while it runs, and an interrupt of the kernel does what Stop does.
    """
    # Training runs in a thread and the cell awaits it, so that the kernel's own thread is free to
    # read the buttons: ipykernel (from 7.4) handles widget messages while a cell awaits. Leaving
    # training on the kernel's thread and reading the buttons on a subshell does not work, although
    # JupyterLab sends its messages there: ipykernel hands a message to the shell that last wrote
    # to the widget, and that is the cell's.
    view = TrainingView()
    work = asyncio.ensure_future(
        asyncio.to_thread(run_training, config, folder, resume=resume, view=view)
    )
    try:
        while not work.done():
            try:
                # ipykernel notices an interrupt only when its loop wakes up.
                await asyncio.wait([work], timeout=0.2)
            except asyncio.CancelledError:  # the kernel was interrupted
                view.stop()
        return work.result()
    finally:
        await view.close()


class TrainingView(View):
    """Watches a run from a notebook cell: what :func:`watch_training` makes."""

    def __init__(self) -> None:
        self._stop, self._stop_and_test = threading.Event(), threading.Event()
        self._lock = threading.Lock()  # a button's words and what then happens must agree
        self._total = self._done = 0
        self._began = self._drawn = self._drawn_chart = time.monotonic()
        self._seconds: list[float] = []  # of each step, with what was evaluated after the last
        self._metrics: list[dict[str, Any]] = []
        self._new_points = False
        self._held = ""
        self._messages: list[str] = []
        self._doing, self._phase = "loading the model", "loading the model"
        self._writing = False  # whether answers are being written, which Stop breaks off
        self.button = button("Stop", action=self.stop)
        self.button.tooltip = (
            "Ends the run: an unfinished step or evaluation is dropped. It can be resumed."
        )
        self.button_test = button("Stop and test", action=self.stop_and_test)
        self.button_test.tooltip = (
            "Ends training after this step, then judges the held-out test. It can be resumed."
        )
        self.news = status("Starting: the model is loaded, then judged before training.")
        for part, name in ((self.button, "stop"), (self.button_test, "stop"), (self.news, "news")):
            part.add_class(f"sarlab-{name}")
        box = row(self.button, self.button_test, self.news, Access()).add_class("sarlab-controls")
        box.layout.align_items = "center"
        self._controls: DisplayHandle = display(box, display_id=True)
        self._line: DisplayHandle = display(HTML(self._html()), display_id=True)
        self._chart: DisplayHandle | None = None

    def stop(self) -> None:
        """End the run: what is half done is dropped, nothing more is judged. From any thread."""
        with self._lock:
            self._stop.set()
            what = f"{self._doing} is dropped" if self._writing else f"after {self._doing}"
        self.button.disabled = self.button_test.disabled = True
        self.button.description = f"Stopping: {what}"
        self.news.value = "No held-out test follows; the run can be resumed."

    def stop_and_test(self) -> None:
        """End training after the present step, then judge the held-out test. From any thread."""
        self._stop_and_test.set()
        training = self._seconds or self._doing.startswith("step")
        when = f"after step {self._done + 1}" if training else f"before step {self._done + 1}"
        self.button_test.disabled = True
        self.button_test.description = f"Stopping {when}"
        self.news.value = f"Training ends {when}, then the held-out test is judged."

    def wants_stop(self) -> bool:
        """Whether a button was pressed."""
        return self._stop.is_set() or self._stop_and_test.is_set()

    def begin(self, config: TrainConfig, done: int) -> None:
        """Training starts, ``done`` steps lie behind it."""
        self._total, self._done = config.steps, done
        self._began = time.monotonic()
        self.news.value = f"Training, {config.steps - done} steps."
        self._refresh()

    def phase(self, text: str, done: int, total: int) -> None:
        """Answers are being written; raises RunStopped once Stop was pressed."""
        with self._lock:
            if self._stop.is_set():
                raise RunStopped
            self._doing, self._writing = text, done < total
        written = f"{done} of {total} answers written"
        self._phase = f"{text}: {written if self._writing else 'answers written, now scored'}"
        if time.monotonic() - self._drawn > _LINE_SECONDS or not self._writing:
            self._refresh()
        self._draw_when_due()

    def step(self, record: StepRecord) -> None:
        """A step is done."""
        self._done, self._doing, self._phase = record.step, f"step {record.step}", ""
        self._seconds.append(time.monotonic() - self._began)
        self._began = time.monotonic()
        self._metrics.append(dict(record.metrics))
        self._new_points = True
        self._refresh()
        self._draw_when_due()

    def evaluation(self, step: int, summary: dict[str, Any]) -> None:
        """Held-out answers were judged."""
        self._held = (
            f"held-out questions after step {step}: {summary['accuracy']:.0%} right, "
            f"{summary['mean_length']:.0f} tokens"
        )
        self.news.value = (
            f"{summary['accuracy']:.0%} of held-out questions right after step {step}."
        )
        self._refresh()

    def message(self, text: str) -> None:
        """A warning; the last few stay in sight."""
        self._messages = [*self._messages, text][-5:]
        kind = text.split(": ", 2)[-2].replace("_", " ")
        self.news.value = f"Warning: {html.escape(kind)}, see below."
        self._refresh()

    def finish(self, summary: dict[str, Any]) -> None:
        """The run has ended: the chart once more, with its picture."""
        self._done = summary["steps"]
        self._phase = "finished" if self._done == self._total else "stopped"
        if "trained" not in summary:
            self._phase = "stopped, without the held-out test; resume = True goes on"
        self.news.value = html.escape(self._progress_text())
        self._refresh()
        if self._metrics:
            self._draw(last=True)

    async def close(self) -> None:
        """Take the buttons away: without a kernel a notebook could only show an error there."""
        await asyncio.sleep(0.5)  # the last news is spoken
        self._controls.update(HTML(""))

    def _draw_when_due(self) -> None:
        waited = time.monotonic() - self._drawn_chart
        if self._new_points and (waited > _CHART_SECONDS or self._chart is None):
            self._draw()

    def _draw(self, last: bool = False) -> None:
        self._new_points, self._drawn_chart = False, time.monotonic()
        figure = training_figure(self._metrics, steps=self._total)
        self._chart = show(figure, handle=self._chart, png=last)

    def _refresh(self) -> None:
        self._drawn = time.monotonic()
        self._line.update(HTML(self._html()))

    def _html(self) -> str:
        lines = [self._progress_text()]
        if self._metrics:
            m = self._metrics[-1]
            sar = "–" if m["sar"] is None else f"{m['sar']:+.2f}"
            lines.append(
                f"step {m['step']}: {m['accuracy']:.0%} right, {m['mean_length']:.0f} tokens, "
                f"SAR {sar}"
            )
        lines += [self._held] if self._held else []
        return progress_html(self._done, self._total, lines, self._messages)

    def _progress_text(self) -> str:
        if not self._total:
            return self._phase
        left = ""
        if self._seconds and self._done < self._total and not self.wants_stop():
            mean = sum(self._seconds) / len(self._seconds)
            since = min(mean, time.monotonic() - self._began)
            left = f", about {_duration(mean * (self._total - self._done) - since)} left"
        phase = f" · {self._phase}" if self._phase else ""
        return f"{self._done} of {self._total} steps{left}{phase}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def progress_html(done: int, total: int, lines: Sequence[str], warnings: Sequence[str] = ()) -> str:
    """How far a run is: lines of text, a bar, and warnings below it."""
    share = done / total if total else 0.0
    text = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
    below = "".join(f"<div><b>!</b> {html.escape(m)}</div>" for m in warnings)
    return (
        f'<div class="sarlab-training" style="line-height:1.6">{text}'
        f'<div role="progressbar" aria-label="training steps" aria-valuemin="0" '
        f'aria-valuemax="{total}" aria-valuenow="{done}" style="background:{_TRACK};height:6px;'
        f'border-radius:3px;max-width:640px;margin:2px 0 4px"><div style="background:{BLUE};'
        f'height:6px;border-radius:3px;width:{share:.1%}"></div></div>{below}</div>'
    )


def show_summary(folder: str | Path) -> HTML:
    """Base against trained; what to do next where a run was stopped before that was judged."""
    folder = Path(folder)
    if (folder / "summary.json").exists():
        table = run_summary(folder)
        questions = f"{table.iloc[1]['questions']} held-out questions, 95% intervals"
        caption = f"{questions}; {ONE_SEED}"
        facts = f"<div>{html.escape(run_facts(folder))}</div>"
        return HTML(html_table(pair_table(table), caption) + facts)
    steps = read_json(folder / "run.json")["steps_done"]
    return HTML(
        f"<div>The run was stopped after {steps} steps, before its held-out test. To go on, set "
        f"<code>name = {html.escape(repr(folder.name))}</code> and <code>resume = True</code>, "
        "and run the notebook again.</div>"
    )


def show_examples(folder: str | Path, count: int = 3) -> HTML:
    """The first probe questions, each answered before training and at its end."""
    if not list(Path(folder).glob("rollouts.parquet/probe-*.parquet")):
        return HTML("<div>No question was answered before the run was stopped.</div>")
    rows = read_rollouts(folder, "probe").to_pylist()
    steps = sorted({min(r["step"] for r in rows), max(r["step"] for r in rows)})
    answers: dict[str, dict[str, str]] = {}
    for r in rows:
        if r["step"] in steps:
            sar = "" if r["sar"] is None else f", SAR {signed(r['sar'], 2)}"
            answers.setdefault(r["question"], {}).setdefault(
                f"step {r['step']}",
                f"<b>{verdict_text(r['correct'], r['truncated'])}</b>, {r['length']} tokens{sar}"
                f'<div style="{_TEXT}">{html.escape(r["answer"])}</div>',
            )
    frame = pd.DataFrame([{"question": q, **cells} for q, cells in list(answers.items())[:count]])
    return HTML(html_table(frame, markup=[f"step {step}" for step in steps]))
