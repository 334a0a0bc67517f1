"""What watches a run: every engine calls it, a notebook, a log or a tracker fills it."""

from __future__ import annotations

from typing import Any

from sarlab.config import TrainConfig
from sarlab.types import StepRecord


class RunStopped(Exception):
    """Raised by a view's ``phase``: end the run at once, and drop the phase that is going on."""


class View:
    """What watches a run; this one says nothing and never stops. Override what you want to see."""

    def begin(self, config: TrainConfig, done: int) -> None:
        """Training starts, ``done`` steps lie behind it."""

    def phase(self, text: str, done: int, total: int) -> None:
        """Answers are being written, ``done`` of ``total`` are complete; after each token.

        It may raise :class:`RunStopped`.
        """

    def step(self, record: StepRecord) -> None:
        """A step is done."""

    def evaluation(self, step: int, summary: dict[str, Any]) -> None:
        """Held-out answers were judged."""

    def message(self, text: str) -> None:
        """A warning."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The run has ended. A run that ended at once has no ``trained`` in its summary."""

    def wants_stop(self) -> bool:
        """Whether somebody asked the run to end after the present step."""
        return False


class LineView(View):
    """A line a step, for a terminal or a batch system's log."""

    def begin(self, config: TrainConfig, done: int) -> None:
        """Where it starts."""
        self.steps = config.steps
        self._say(f"training from step {done} to {config.steps}")

    def step(self, record: StepRecord) -> None:
        """The numbers that one looks at first."""
        found = record.metrics
        parts = [f"step {record.step}/{self.steps}"]
        for name, title, form in (
            ("accuracy", "accuracy", "{:.0%}"),
            ("mean_length", "tokens", "{:.1f}"),
            ("sar", "SAR", "{:+.3f}"),
            ("reward", "reward", "{:+.3f}"),
            ("heldout_accuracy", "validation", "{:.0%}"),
        ):
            value = found.get(name)
            if value is not None:
                parts.append(f"{title} {form.format(value)}")
        seconds = sum(v or 0.0 for k, v in found.items() if k.startswith("seconds_"))
        self._say("  ".join([*parts, f"{seconds:.1f} s"]))

    def message(self, text: str) -> None:
        """A warning."""
        self._say(text)

    def _say(self, text: str) -> None:
        print(text, flush=True)
