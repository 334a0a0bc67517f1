"""The live view of a training run: progress with the time left, two stop buttons, a chart.

The progress line and the chart are plain HTML and a plotly figure in updating displays, not
widgets, so that they are still there in a notebook whose kernel is gone.
"""

import asyncio
import html
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, DisplayHandle, display

from sarlab.config import TrainConfig
from sarlab.display.figures import show, training_figure
from sarlab.display.tables import folded, html_table, views
from sarlab.display.text import signed
from sarlab.evaluation.behaviours import tint_legend, tinted_answer
from sarlab.evaluation.compare import ONE_SEED, pair_table, run_table
from sarlab.evaluation.policies import recorded, run_facts
from sarlab.job.training import run_training
from sarlab.job.watchers import RunStopped, View
from sarlab.runs.atomic import read_json
from sarlab.types import StepRecord
from sarlab.widgets.live import Access, button, row, status

_CHART_SECONDS = 2.0  # the chart is drawn at most this often; a step may take less
_LINE_SECONDS = 0.5
_STOP = "Ends the run: an unfinished step or evaluation is dropped. It can be resumed."
_STOP_AND_TEST = "Ends training after this step, then judges the test. It can be resumed."
_AES = (
    "AES, accuracy-efficiency score: the relative saving of tokens, plus 3 times the relative "
    "gain in accuracy or minus 5 times its loss. 0 is the base, higher is better."
)


async def watch_training(
    config: TrainConfig, folder: str | Path, *, resume: bool = False
) -> dict[str, Any]:
    """:func:`sarlab.job.training.run_training` with a live view; ``await`` it in a notebook cell.

    Both buttons work while it runs, and an interrupt of the kernel does what Stop does.
    """
    # Training runs in a thread and the cell awaits it, so that the kernel's own thread is free to
    # read the buttons: ipykernel (from 7.4) handles widget messages while a cell awaits. A subshell
    # would not do: ipykernel hands a message to the shell that last wrote to the widget.
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
        await asyncio.sleep(0.5)  # the last news is spoken
        # Without a kernel a notebook could only show an error in the place of the buttons.
        view.controls.update(HTML(""))


class TrainingView(View):
    """Watches a run from a notebook cell: what :func:`watch_training` makes."""

    def __init__(self) -> None:
        # Held while a button is read and while the run asks for it: what a button then says is
        # what happens, and stands on the page before the run can end.
        self._lock = threading.Lock()
        self._pressed = ""  # "stop" or "test"
        self._total = self._done = self._charted = 0
        self._ends_after = 0  # the step after which training ends if that is asked for now
        self._doing, self._writing = "loading the model", False  # Stop breaks off what is written
        self._phase, self._ending, self._held = self._doing, "", ""
        self._began = self._stepped = time.monotonic()
        self._drawn = self._drawn_chart = -math.inf
        self._metrics: list[dict[str, Any]] = []
        self._base: dict[str, Any] | None = None
        self._messages: list[str] = []
        self.button = button("Stop", action=self.stop, tooltip=_STOP)
        self.button_test = button(
            "Stop and test", action=self.stop_and_test, tooltip=_STOP_AND_TEST
        )
        self.news = status("Starting: the model is loaded, then tested before training.")
        for part, name in ((self.button, "stop"), (self.button_test, "stop"), (self.news, "news")):
            part.add_class(f"sarlab-{name}")
        box = row(self.button, self.button_test, self.news, Access()).add_class("sarlab-controls")
        box.layout.align_items = "center"
        self.controls: DisplayHandle = display(box, display_id=True)
        self._line: DisplayHandle = display(HTML(""), display_id=True)
        self._chart: DisplayHandle | None = None
        self._draw()

    def stop(self) -> None:
        """End the run: what is half done is dropped, nothing more is judged. From any thread."""
        with self._lock:
            self._pressed = "stop"
            self.button.disabled = self.button_test.disabled = True
            self._ending = f"{self._doing} is dropped" if self._writing else f"after {self._doing}"
            self.button.description = f"Stopping: {self._ending}"
            self.news.value = "No test follows; the run can be resumed."

    def stop_and_test(self) -> None:
        """End training after the present step, then judge the test. From any thread."""
        with self._lock:
            self._pressed, self.button_test.disabled = self._pressed or "test", True
            when = f"after step {self._ends_after}" if self._ends_after else "before step 1"
            self.button_test.description = f"Stopping {when}"
            self.news.value = f"Training ends {when}, then the test is judged."

    def wants_stop(self) -> bool:
        """Whether a button was pressed; if not, the next step begins."""
        with self._lock:
            if not self._pressed and self._done < self._total:
                self._ends_after = self._done + 1
                self._doing, self._writing = f"step {self._ends_after}", True
            return bool(self._pressed)

    def begin(self, config: TrainConfig, done: int) -> None:
        """Training starts, ``done`` steps lie behind it."""
        self._total, self._done, self._ends_after = config.steps, done, done
        self._began = self._stepped = time.monotonic()
        self.news.value = f"Training, {config.steps - done} steps."
        self._draw()

    def phase(self, text: str, done: int, total: int) -> None:
        """Answers are being written; raises RunStopped once Stop was pressed."""
        with self._lock:
            if self._pressed == "stop":
                raise RunStopped
            self._doing, self._writing = text, done < total
        written = f"{done} of {total} answers written"
        self._phase = f"{text}: {written if self._writing else 'answers written, now scored'}"
        if not self._writing or time.monotonic() - self._drawn > _LINE_SECONDS:
            self._draw()

    def step(self, record: StepRecord) -> None:
        """A step is done."""
        with self._lock:
            self._done, self._doing, self._writing = record.step, f"step {record.step}", False
            self.button_test.disabled |= record.step == self._total
        self._phase, self._stepped = "", time.monotonic()
        self._metrics.append(dict(record.metrics))
        self._draw()

    def evaluation(self, step: int, summary: dict[str, Any]) -> None:
        """Validation questions were answered and judged."""
        self._base = self._base if step else summary
        self._held = f"validation after step {step}: {_scores(summary)}"
        right = f"{summary['accuracy']:.0%} of validation questions right"
        self.news.value = f"{right} after step {step}."
        self._draw()

    def message(self, text: str) -> None:
        """A warning; the last few stay in sight."""
        self._messages = [*self._messages, text][-5:]
        self.news.value = "A warning, see below."
        self._draw()

    def finish(self, summary: dict[str, Any]) -> None:
        """The run has ended: the chart once more, with its picture."""
        self._done = summary["steps"]
        if "trained" in summary:
            self._phase = "finished" if self._done == self._total else "stopped, then tested"
            if self._pressed == "stop":  # after the last moment to drop the test
                self._phase += "; the test was done when Stop was pressed"
            start, end = _scores(summary["base"]), _scores(summary["trained"])
            self._held = f"test questions: {start} before training, {end} after step {self._done}"
        else:
            self._phase = f"stopped, {self._ending}; no test followed; resume = True goes on"
        self.news.value = html.escape(self._progress())
        self._draw(last=True)

    def _draw(self, *, last: bool = False) -> None:
        """Draw lines of text, a bar and warnings; the chart in its turn, if it has new points."""
        self._drawn = time.monotonic()
        lines = [self._progress(), self._held]
        for last_step in self._metrics[-1:]:
            sar = "" if last_step["sar"] is None else f", SAR {signed(last_step['sar'], 2)}"
            lines.insert(1, f"step {last_step['step']}: {_scores(last_step)}{sar}")
        shown = views().progress(lines, self._messages, self._done, self._total)
        self._line.update(HTML(str(shown)))
        due = self._drawn - self._drawn_chart > _CHART_SECONDS
        if (due and len(self._metrics) > self._charted) or (last and self._metrics):
            self._charted, self._drawn_chart = len(self._metrics), self._drawn
            figure = training_figure(self._metrics, baseline=self._base, steps=self._total)
            self._chart = show(figure, handle=self._chart, picture=last)

    def _progress(self) -> str:
        """Steps done, the time left from the mean of a step, and what goes on."""
        if not self._total:
            return self._phase
        left, steps = "", len(self._metrics)
        if steps and self._done < self._total and not self._pressed:
            mean = (self._stepped - self._began) / steps
            since = min(mean, time.monotonic() - self._stepped)
            minutes, rest = divmod(round(mean * (self._total - self._done) - since), 60)
            left = f", about {f'{minutes} min ' if minutes else ''}{rest} s left"
        phase = f" · {self._phase}" if self._phase else ""
        return f"{self._done} of {self._total} steps{left}{phase}"


def _scores(summary: Mapping[str, Any]) -> str:
    return f"{summary['accuracy']:.0%} right, {summary['mean_length']:.0f} tokens"


def _lines(*lines: str) -> str:
    return "".join(f"<div>{html.escape(line)}</div>" for line in lines if line)


def show_request(config: TrainConfig, folder: Path) -> HTML:
    """What will be trained and where it is kept; every parameter behind a line to click."""
    reward = f"{config.reward}, α = {config.alpha:g}" if config.alpha else "correctness alone"
    lines = _lines(
        f"{config.algorithm.upper()} with the reward {reward}: {config.model} on {config.task}",
        f"{config.steps} steps, {config.questions} questions each, {config.group_size} answers to "
        f"each question, up to {config.max_answer_tokens} tokens each",
        f"the run is kept in {folder.parent.name}/{folder.name}",
    )
    values = [(name, str(value)) for name, value in config.to_dict().items()]
    table = html_table(pd.DataFrame(values, columns=["parameter", "value"]), align="ll")
    return HTML(lines + folded(f"all {len(values)} parameters", table))


def show_summary(folder: str | Path) -> HTML:
    """Base against trained; what to do next where a run was stopped before that was judged."""
    folder = Path(folder)
    if (folder / "summary.json").exists():
        table = run_table(recorded([folder]))
        head = f"{table.iloc[1]['questions']} test questions, 95% intervals; {ONE_SEED}"
        return HTML(html_table(pair_table(table), head) + _lines(run_facts(folder), _AES))
    return HTML(
        f"<div>The run was stopped after {read_json(folder / 'run.json')['steps_done']} steps, "
        "before its test. To go on, set "
        f"<code>name = {html.escape(repr(folder.name))}</code> and <code>resume = True</code>, "
        "and run the notebook again.</div>"
    )


def show_examples(folder: str | Path, count: int = 3) -> HTML:
    """Test questions answered before and after training, those first whose verdict changed."""
    if not (Path(folder) / "summary.json").exists():
        return HTML("<div>The run was stopped before its test: no answers to compare.</div>")
    base, trained = recorded([folder])
    answers = {row["question_id"]: row for row in trained.rows}
    pairs = [(row, answers[row["question_id"]]) for row in base.rows]
    pairs.sort(key=lambda pair: pair[0]["correct"] == pair[1]["correct"])
    after = f"after step {read_json(Path(folder) / 'summary.json')['steps']}"
    frame = pd.DataFrame(
        {"question": b["question"], "before training": tinted_answer(b), after: tinted_answer(t)}
        for b, t in pairs[:count]
    )
    return HTML(tint_legend() + html_table(frame, markup=frame.columns[1:]))
