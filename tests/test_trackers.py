"""A tracker gets the run's own numbers, and its absence is said before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.tracking import GeneralTracker

from sarlab.config import TrainConfig
from sarlab.job import watchers
from sarlab.job.training import run_training
from sarlab.job.watchers import TrackerLog
from sarlab.runs.folder import read_metrics

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


def play(log: TrackerLog) -> None:
    """What the logbook calls."""
    log.begin(TrainConfig(alpha=0.1))
    log.log(0, {"heldout_accuracy": 0.5, "heldout_mean_length": 9.0, "heldout_sar": None})
    for step in (1, 2):
        log.log(step, {"step": step, "reward": 0.5 * step, "sar": None, "messages": ["a: b"]})
    log.finish(SUMMARY)


def test_it_gets_the_configuration_each_step_and_the_end() -> None:
    tracker = Kept()
    log = TrackerLog("none", Path("anywhere"))
    log.tracker = tracker
    play(log)
    (kind, configuration), *steps = tracker.told
    assert kind == "configuration" and configuration["alpha"] == 0.1
    assert configuration["heldout"] == ""  # None, which TensorBoard refuses
    assert steps == [
        (0, {"heldout_accuracy": 0.5, "heldout_mean_length": 9.0}),
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


def test_without_a_tracker_nothing_is_written(tmp_path) -> None:
    play(TrackerLog("none", tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_logbook_hands_on_what_it_logs(tmp_path, monkeypatch) -> None:
    tracker = Kept()
    real = watchers.importlib.util.find_spec
    monkeypatch.setattr(
        watchers.importlib.util,
        "find_spec",
        lambda name, *rest: name == "trackio" or real(name, *rest),
    )
    monkeypatch.setattr(watchers, "_tracker", lambda name, folder: tracker)
    config = TrainConfig(
        tracker="trackio",
        steps=2,
        questions=1,
        group_size=2,
        mini_batches=1,
        max_answer_tokens=8,
        eval_questions=2,
        validation_questions=2,
    )
    run_training(config, tmp_path / "run")
    (_, configuration), *steps, end = tracker.told
    assert configuration["tracker"] == "trackio" and end == "finished"
    assert [step for step, _ in steps] == [0, 1, 2, 2]
    lines = read_metrics(tmp_path / "run")
    for line, (_, values) in zip(lines, steps[1:3], strict=True):
        assert values["reward"] == pytest.approx(line["reward"], abs=1e-6)
    assert "heldout_accuracy" in steps[0][1] and "heldout_accuracy" in steps[2][1]
    assert "test_trained_accuracy" in steps[3][1]


def test_a_package_that_is_not_there_is_named_before_training(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(watchers.importlib.util, "find_spec", lambda name: None)
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
    play(TrackerLog(name, tmp_path))
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(tmp_path / "tensorboard"))
        found.Reload()
        assert [(e.step, e.value) for e in found.Scalars("reward")] == [(1, 0.5), (2, 1.0)]
    elif name == "wandb":
        assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    else:
        assert list(tmp_path.glob("trackio/*.db"))
