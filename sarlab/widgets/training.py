"""The live view of a training run: progress with the time left, a stop button, a chart.

The progress line and the chart are plain HTML and plotly figures in updating displays, not
widgets, so that they are still there in a notebook whose kernel is gone.
"""

from __future__ import annotations

import html
import threading
import time
from typing import Any

import ipywidgets
from IPython.display import HTML, DisplayHandle, display

from sarlab.config import TrainConfig
from sarlab.display.figures import show, training_figure
from sarlab.job.training import View
from sarlab.types import StepRecord

_BLUE, _GREY = "#4c8bd6", "rgba(128,128,128,0.25)"
_CHART_SECONDS = 4.0  # the chart is drawn at most this often; a step may take less


class TrainingView(View):
    """Watches :func:`sarlab.job.training.run_training` from a cell; create it and pass it on.

    Pressing stop ends the run after the present step; it is then evaluated and can be resumed.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._total = self._done = self._done_before = 0
        self._began = self._drawn = time.monotonic()
        self._metrics: list[dict[str, Any]] = []
        self._held: dict[str, Any] = {}
        self._messages: list[str] = []
        self._phase = "loading"
        self.button = ipywidgets.Button(
            description="Stop after this step",
            icon="stop",
            tooltip="Ends the run in good order; it can be resumed",
        )
        self.button.add_class("sarlab-stop")
        self.button.on_click(lambda _: self.stop())
        display(self.button)
        self._line: DisplayHandle = display(HTML(self._html()), display_id=True)
        self._chart: DisplayHandle | None = None

    def stop(self) -> None:
        """Ask the run to end after the present step. Safe from any thread."""
        self._stop.set()
        self.button.disabled = True
        self.button.description = "Stopping …"

    def wants_stop(self) -> bool:
        """Whether stop was pressed."""
        return self._stop.is_set()

    def begin(self, config: TrainConfig, done: int) -> None:
        """Training starts, ``done`` steps lie behind it."""
        self._total, self._done, self._done_before = config.steps, done, done
        self._began = time.monotonic()
        self._refresh()

    def phase(self, text: str, done: int, total: int) -> None:
        """Something longer than a step is going on."""
        now = time.monotonic()
        if now - self._drawn > 0.5 or done == total:
            self._phase, self._drawn = f"{text}: {done} of {total} answers", now
            self._refresh()

    def step(self, record: StepRecord) -> None:
        """A step is done."""
        self._done, self._phase = record.step, ""
        self._metrics.append(dict(record.metrics))
        self._refresh()
        self._draw()

    def evaluation(self, step: int, summary: dict[str, Any]) -> None:
        """Held-out answers were judged."""
        self._held = {"step": step, **summary}
        self._refresh()

    def message(self, text: str) -> None:
        """A warning; the last few stay in sight."""
        self._messages = [*self._messages, text][-5:]
        self._refresh()

    def finish(self, summary: dict[str, Any]) -> None:
        """All is done: the chart once more, with its picture."""
        self._phase = "finished" if self._done == self._total else "stopped"
        self.button.disabled = True
        self.button.layout.display = "none"
        self._refresh()
        self._draw(last=True)

    def _draw(self, last: bool = False) -> None:
        now = time.monotonic()
        if not self._metrics or (not last and now - self._drawn_chart < _CHART_SECONDS):
            return
        self._drawn_chart = now
        self._chart = show(training_figure(self._metrics), handle=self._chart, png=last)

    _drawn_chart = 0.0

    def _refresh(self) -> None:
        self._line.update(HTML(self._html()))

    def _html(self) -> str:
        share = self._done / self._total if self._total else 0.0
        bar = (
            f'<div style="background:{_GREY};height:6px;border-radius:3px;max-width:640px">'
            f'<div style="background:{_BLUE};height:6px;border-radius:3px;width:{share:.1%}">'
            "</div></div>"
        )
        lines = [self._progress_text()]
        if self._metrics:
            m = self._metrics[-1]
            sar = "–" if m["sar"] is None else f"{m['sar']:+.2f}"
            lines.append(
                f"this step: {m['accuracy']:.0%} right, {m['mean_length']:.0f} tokens, SAR {sar}"
            )
        if self._held:
            h = self._held
            lines.append(
                f"held out (step {h['step']}): {h['accuracy']:.0%} right, "
                f"{h['mean_length']:.0f} tokens"
            )
        text = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
        warnings = "".join(
            f'<div style="color:#c7762a"><b>!</b> {html.escape(m)}</div>' for m in self._messages
        )
        return f'<div style="line-height:1.6">{text}{bar}{warnings}</div>'

    def _progress_text(self) -> str:
        if not self._total:
            return self._phase or "starting"
        run = self._done - self._done_before
        left = ""
        if run and self._done < self._total:
            seconds = (time.monotonic() - self._began) / run * (self._total - self._done)
            left = f", about {_duration(seconds)} left"
        phase = f" · {self._phase}" if self._phase else ""
        return f"step {self._done} of {self._total}{left}{phase}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
