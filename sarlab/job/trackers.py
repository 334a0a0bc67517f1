"""A copy of a run's log for TensorBoard, Weights & Biases or trackio, by accelerate's trackers.

The run folder stays the record; a tracker only shows it elsewhere. TensorBoard's files lie in the
run folder (`tensorboard --logdir runs`). Weights & Biases writes there too and stays offline unless
WANDB_MODE says otherwise (`wandb sync` uploads); trackio keeps its own local database.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import (
    GeneralTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
)

from sarlab.config import Tracker, TrainConfig
from sarlab.job.view import View
from sarlab.types import StepRecord

PROJECT = "sarlab"


class TrackerView(View):
    """Hands everything on to another view, and the numbers to a tracker of accelerate as well."""

    def __init__(self, view: View, tracker: GeneralTracker) -> None:
        self.view, self.tracker = view, tracker

    def begin(self, config: TrainConfig, done: int) -> None:
        """Start the tracker and tell it the configuration."""
        PartialState()  # accelerate's trackers ask it which process they are
        self.tracker.start()
        # TensorBoard takes no None among the hyperparameters.
        told = {k: "" if v is None else v for k, v in config.to_dict().items()}
        self.tracker.store_init_configuration(told)
        self.view.begin(config, done)

    def phase(self, text: str, done: int, total: int) -> None:
        """Handed on."""
        self.view.phase(text, done, total)

    def step(self, record: StepRecord) -> None:
        """One line of metrics.jsonl."""
        self.tracker.log(_numbers(record.metrics), step=record.step)
        self.view.step(record)

    def evaluation(self, step: int, summary: dict[str, Any]) -> None:
        """The validation before the first step; later ones are in the steps' own lines."""
        if step == 0:
            shown = ("accuracy", "mean_length", "sar", "mean_reward")
            self.tracker.log(_numbers({f"heldout_{name}": summary[name] for name in shown}), step=0)
        self.view.evaluation(step, summary)

    def message(self, text: str) -> None:
        """Handed on."""
        self.view.message(text)

    def finish(self, summary: dict[str, Any]) -> None:
        """Base against trained on the held-out test, if it was made; then the tracker is closed."""
        ends = {
            f"test_{who}_{name}": summary[who][name]
            for who in ("base", "trained")
            if who in summary
            for name in ("accuracy", "mean_length", "sar")
        }
        self.tracker.log(_numbers(ends), step=summary["steps"])
        self.tracker.finish()
        self.view.finish(summary)

    def wants_stop(self) -> bool:
        """Handed on."""
        return self.view.wants_stop()


def tracked(view: View, name: Tracker, folder: Path) -> View:
    """The view, with a tracker beside it where one is named.

    ``folder`` is the run's; it need not exist yet. Raises ValueError where the tracker's package
    is not installed.
    """
    if name == "none":
        return view
    if importlib.util.find_spec(name) is None:
        raise ValueError(
            f"tracker is {name!r}, and the package {name} is not installed. Install it "
            f"(pip install {name}), or leave tracker='none': the run folder holds the same log."
        )
    return TrackerView(view, _tracker(name, folder))


def _tracker(name: Tracker, folder: Path) -> GeneralTracker:
    if name == "tensorboard":
        return TensorBoardTracker("tensorboard", folder)
    if name == "wandb":
        mode = os.environ.get("WANDB_MODE", "offline")
        return WandBTracker(PROJECT, name=folder.name, dir=str(folder), mode=mode)
    return TrackioTracker(PROJECT, name=folder.name)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What a tracker can draw: no texts, no gaps."""
    return {
        k: v
        for k, v in metrics.items()
        if isinstance(v, int | float) and not isinstance(v, bool) and k != "step"
    }
