"""A tracker gets the run's own numbers, and its absence is said before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.tracking import GeneralTracker

import sarlab.job.trackers as trackers
from sarlab.config import TrainConfig
from sarlab.job.trackers import TrackerView, tracked
from sarlab.job.training import run_training
from sarlab.job.view import View
from sarlab.types import StepRecord

SUMMARY = {
    "steps": 2,
    "base": {"accuracy": 0.5, "mean_length": 90.0, "sar": None},
    "trained": {"accuracy": 0.75, "mean_length": 60.0, "sar": 0.25},
}


class Kept(GeneralTracker):
    """A tracker by accelerate's own interface that keeps what it is told."""

    name, requires_logging_directory = "kept", False

    def __init__(self) -> None:
        super().__init__()
        self.told: list = []

    @property
    def tracker(self):
        return self.told

    def store_init_configuration(self, values):
        self.told.append(("configuration", values))

    def log(self, values, step=None, **_):
        self.told.append((step, values))

    def finish(self):
        self.told.append("finished")


class Seen(View):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def step(self, record) -> None:
        self.calls.append(f"step {record.step}")

    def finish(self, summary) -> None:
        self.calls.append("finish")

    def wants_stop(self) -> bool:
        return True


def play(view: View) -> None:
    """What training calls."""
    view.begin(TrainConfig(alpha=0.1), 0)
    view.evaluation(0, {"accuracy": 0.5, "mean_length": 9.0, "sar": None, "mean_reward": 0.6})
    for step in (1, 2):
        metrics = {"step": step, "reward": 0.5 * step, "sar": None, "messages": ["a: b"]}
        view.step(StepRecord(step, metrics))
    view.finish(SUMMARY)


def test_it_is_told_the_configuration_each_step_and_the_end() -> None:
    tracker, seen = Kept(), Seen()
    view = TrackerView(seen, tracker)
    play(view)
    (kind, configuration), *steps = tracker.told
    assert kind == "configuration" and configuration["alpha"] == 0.1
    assert configuration["heldout"] == ""  # None, which TensorBoard refuses
    assert steps == [
        (0, {"heldout_accuracy": 0.5, "heldout_mean_length": 9.0, "heldout_mean_reward": 0.6}),
        (1, {"reward": 0.5}),
        (2, {"reward": 1.0}),
        (
            2,
            {
                "test_base_accuracy": 0.5,
                "test_base_mean_length": 90.0,
                "test_trained_accuracy": 0.75,
                "test_trained_mean_length": 60.0,
                "test_trained_sar": 0.25,
            },
        ),
        "finished",
    ]
    assert seen.calls == ["step 1", "step 2", "finish"] and view.wants_stop()


def test_without_a_tracker_the_view_is_left_alone() -> None:
    view = View()
    assert tracked(view, "none", Path("anywhere")) is view


def test_a_package_that_is_not_there_is_named_before_training(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    config = TrainConfig(tracker="trackio", steps=1)
    with pytest.raises(ValueError, match="package trackio is not installed"):
        run_training(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of none, tensorboard, wandb, trackio"):
        TrainConfig(tracker="mlflow")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_each_tracker_that_is_installed_takes_a_whole_run(name, tmp_path, monkeypatch) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed (none of them is a requirement)")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    play(tracked(View(), name, tmp_path))
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(tmp_path / "tensorboard"))
        found.Reload()
        assert [(e.step, e.value) for e in found.Scalars("reward")] == [(1, 0.5), (2, 1.0)]
    elif name == "wandb":
        assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    else:
        assert list(tmp_path.glob("trackio/*.db"))
