"""What follows a run: a view that every engine calls, lines for a terminal, and a tracker.

The run folder stays the record. TensorBoard's files lie in it (`tensorboard --logdir runs`).
Weights & Biases writes there too and stays offline unless WANDB_MODE says otherwise (`wandb sync`
uploads); trackio keeps its own local database.
"""

import importlib.util
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sarlab.config import Tracker, TrainConfig
from sarlab.types import StepRecord

QUIET_SECONDS = 30.0  # without a view a run prints a line at most this often
# Columns of a validation that stand in metrics.jsonl, with the prefix ``heldout_``.
VALIDATION_COLUMNS = ("accuracy", "mean_length", "sar", "mean_reward")
_STEP_LINE = (  # metric, title, format
    ("accuracy", "accuracy", ".0%"),
    ("mean_length", "tokens", ".1f"),
    ("sar", "SAR", "+.3f"),
    ("reward", "reward", "+.3f"),
    ("heldout_accuracy", "validation", ".0%"),
)


class RunStopped(Exception):
    """Raised by a view's ``phase``: end the run at once, and drop the phase that is going on."""


class View:
    """Follows a run; this one says nothing and never stops it. Override what you want to see."""

    def begin(self, config: TrainConfig, done: int) -> None:
        """Training starts after ``done`` steps."""

    def phase(self, text: str, done: int, total: int) -> None:
        """After each token: ``done`` of ``total`` answers are written. May raise RunStopped."""

    def step(self, record: StepRecord) -> None:
        """A step is done."""

    def evaluation(self, step: int, summary: dict[str, Any]) -> None:
        """Validation answers were judged."""

    def message(self, text: str) -> None:
        """A warning."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The run has ended. A run that ended at once has no ``trained`` in its summary."""

    def wants_stop(self) -> bool:
        """Whether the run shall end after the present step."""
        return False


class LineView(View):
    """Prints a line per step, or per ``every_seconds``; evaluations one line per 30 s."""

    def __init__(self, every_seconds: float = 0.0) -> None:
        self.every_seconds = every_seconds
        self.steps = 0
        self._printed = time.monotonic()

    def begin(self, config: TrainConfig, done: int) -> None:
        """The first and the last step."""
        self.steps = config.steps
        if not self.every_seconds:
            self.message(f"training from step {done} to {config.steps}")

    def phase(self, text: str, done: int, total: int) -> None:
        """How far a step or an evaluation is."""
        if time.monotonic() - self._printed >= QUIET_SECONDS:
            self.message(f"{text}: {done} of {total} answers")

    def step(self, record: StepRecord) -> None:
        """Accuracy, length, SAR, reward, validation and seconds of a step."""
        if time.monotonic() - self._printed < self.every_seconds:
            return
        metrics = record.metrics
        values = [
            f"{title} {metrics[name]:{form}}"
            for name, title, form in _STEP_LINE
            if metrics.get(name) is not None
        ]
        seconds = sum(v or 0.0 for k, v in metrics.items() if k.startswith("seconds_"))
        self.message("  ".join([f"step {record.step}/{self.steps}", *values, f"{seconds:.1f} s"]))

    def message(self, text: str) -> None:
        """A line, at once."""
        self._printed = time.monotonic()
        print(text, flush=True)


class TrackerLog:
    """The numbers of metrics.jsonl for one of accelerate's trackers; "none" writes nothing.

    ValueError where the tracker's package is not installed.
    """

    def __init__(self, name: Tracker, folder: Path) -> None:
        self.tracker = None
        if name != "none":
            if importlib.util.find_spec(name) is None:
                raise ValueError(
                    f"tracker is {name!r}, and the package {name} is not installed. Install it (pip"
                    f" install {name}), or leave tracker='none': the run folder holds the same log."
                )
            self.tracker = _tracker(name, folder)

    def begin(self, config: TrainConfig) -> None:
        """Start the tracker and hand it the configuration."""
        if self.tracker is not None:
            self.tracker.start()
            # TensorBoard takes no None among the hyperparameters.
            values = {k: "" if v is None else v for k, v in config.to_dict().items()}
            self.tracker.store_init_configuration(values)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Hand on what a tracker can draw: numbers, NumPy's too, neither texts nor gaps."""
        if self.tracker is not None:
            drawn = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
            drawn = {k: v for k, v in drawn.items() if k != "step" and not isinstance(v, bool)}
            self.tracker.log(drawn, step=step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Base against trained on the test, if it was made; the tracker is closed."""
        if self.tracker is not None:
            ends = {
                f"test_{who}_{name}": summary[who][name]
                for who in ("base", "trained")
                if who in summary
                for name in ("accuracy", "mean_length", "sar")
            }
            self.log(summary["steps"], ends)
            self.tracker.finish()


def _tracker(name: Tracker, folder: Path) -> Any:
    from accelerate import PartialState, tracking

    PartialState()  # trackers ask it which process they are
    if name == "tensorboard":
        return tracking.TensorBoardTracker("tensorboard", folder)
    if name == "trackio":
        return tracking.TrackioTracker("sarlab", name=folder.name)
    mode = os.environ.get("WANDB_MODE", "offline")
    return tracking.WandBTracker("sarlab", name=folder.name, dir=str(folder), mode=mode)
