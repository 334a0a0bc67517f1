"""What watches a run: every engine calls it, a notebook, a log or a tracker fills it."""

from __future__ import annotations

from typing import Any

from sarlab.config import TrainConfig
from sarlab.types import StepRecord


class View:
    """What watches a run; this one says nothing and never stops. Override what you want to see."""

    def begin(self, config: TrainConfig, done: int) -> None:
        """Training starts, ``done`` steps lie behind it."""

    def phase(self, text: str, done: int, total: int) -> None:
        """Something longer than a step is going on."""

    def step(self, record: StepRecord) -> None:
        """A step is done."""

    def evaluation(self, step: int, summary: dict[str, Any]) -> None:
        """Held-out answers were judged."""

    def message(self, text: str) -> None:
        """A warning."""

    def finish(self, summary: dict[str, Any]) -> None:
        """All is done."""

    def wants_stop(self) -> bool:
        """Whether somebody asked the run to end after the present step."""
        return False
