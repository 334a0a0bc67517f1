"""The main job on the embedded policy: the run folder, resume to the byte, stop, and errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sarlab.config import TrainConfig
from sarlab.job.training import Guard, View, run_training
from sarlab.models import export_policy, load_policy
from sarlab.runs.folder import read_metrics, read_rollouts

CONFIG = TrainConfig(
    steps=4,
    questions=2,
    group_size=3,
    mini_batches=1,
    max_answer_tokens=48,
    eval_every=2,
    eval_questions=6,
    validation_questions=4,
    checkpoint_every=2,
    seed=7,
)


def timeless(folder: Path) -> list[dict]:
    """The log without its timings."""
    return [
        {k: v for k, v in line.items() if not k.startswith("seconds_")}
        for line in read_metrics(folder)
    ]


def table(folder: Path) -> list[dict]:
    return read_rollouts(folder).to_pylist()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_training(CONFIG, folder)
    return folder


def test_the_run_folder_holds_what_the_design_says(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    for who in ("base", "trained"):
        part = summary[who]
        low, high = part["accuracy_ci95"]
        assert 0 <= low <= part["accuracy"] <= high <= 1
        low, high = part["mean_length_ci95"]
        assert low <= part["mean_length"] <= high
    assert summary["train_seconds"] > 0
    run = json.loads((finished / "run.json").read_text())
    assert run["status"] == "finished" and run["seed"] == 7 and run["versions"]["torch"]
    assert json.loads((finished / "config.json").read_text())["alpha"] == 0.2
    assert [m["step"] for m in read_metrics(finished)] == [1, 2, 3, 4]
    assert {r["split"] for r in table(finished)} == {
        *("train", "probe", "validation", "heldout_base", "heldout_trained")
    }
    for name in ("adapter", "best"):
        assert (finished / name / "adapter_model.safetensors").exists()


def test_the_table_has_every_answer_once(finished: Path) -> None:
    rows = table(finished)
    train = [r for r in rows if r["split"] == "train"]
    assert len(train) == 4 * 2 * 3
    heldout = {r["question_id"] for r in rows if r["split"] == "heldout_base"}
    validation = {r["question_id"] for r in rows if r["split"] == "validation"}
    trained_on = {r["question_id"] for r in train}
    assert not heldout & validation and not (heldout | validation) & trained_on


def test_the_same_seed_gives_the_same_log(finished: Path, tmp_path: Path) -> None:
    run_training(CONFIG, tmp_path / "again")
    assert timeless(tmp_path / "again") == timeless(finished)
    run_training(replace(CONFIG, seed=8), tmp_path / "other")
    assert timeless(tmp_path / "other") != timeless(finished)


class StopAfter(View):
    """Presses stop when a step is done."""

    def __init__(self, step: int) -> None:
        self.last, self.seen = step, 0

    def step(self, record) -> None:
        self.seen = record.step

    def wants_stop(self) -> bool:
        return self.seen >= self.last


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_stopped_run_goes_on_to_the_same_end(finished: Path, tmp_path: Path, step: int) -> None:
    folder = tmp_path / "stopped"
    run_training(CONFIG, folder, view=StopAfter(step))
    assert json.loads((folder / "run.json").read_text())["status"] == "stopped"
    assert len(read_metrics(folder)) == step
    run_training(CONFIG, folder, resume=True)
    assert timeless(folder) == timeless(finished)
    adapter = "adapter/adapter_model.safetensors"
    assert (folder / adapter).read_bytes() == (finished / adapter).read_bytes()
    assert table(folder) == table(finished)


class Kill(BaseException):
    """Stands for a kill: nothing catches it in passing."""


class DieAt(View):
    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, record) -> None:
        if record.step == self.at:
            raise Kill


def test_a_run_that_died_between_checkpoints_goes_on_to_the_same_end(
    finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "died"
    with pytest.raises(Kill):
        run_training(CONFIG, folder, view=DieAt(3))  # the last checkpoint is that of step 2
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    run_training(CONFIG, folder, resume=True)
    assert timeless(folder) == timeless(finished)
    assert table(folder) == table(finished)


def test_a_trained_adapter_loads_again_as_policy_and_merged(finished: Path, tmp_path: Path) -> None:
    from sarlab.answers import score_answers

    trained, base = load_policy(finished), load_policy("tiny")
    answers = ["384+297=681\nAnswer: 681"]
    with_adapter = score_answers(trained, "384 and 297?", answers)[0]
    assert with_adapter.logps_conditioned != score_answers(base, "384 and 297?", answers)[0]
    trained.reference = "tiny"
    merged = load_policy(export_policy(trained, tmp_path / "merged", merge=True))
    again = score_answers(merged, "384 and 297?", answers)[0]
    assert again.logps_conditioned == pytest.approx(with_adapter.logps_conditioned, abs=1e-4)


BAD = [
    (replace(CONFIG, model="no-such-model"), "Model 'no-such-model' is not known"),
    (replace(CONFIG, task="no_such_task"), "no_such_task"),
    (replace(CONFIG, max_answer_tokens=1020), "exceeds the context of 'tiny'"),
]


@pytest.mark.parametrize(("config", "message"), BAD, ids=["model", "task", "context"])
def test_what_is_wrong_is_said_before_anything_is_written(config, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        run_training(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_overwritten(finished: Path) -> None:
    before = (finished / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match="exists already"):
        run_training(CONFIG, finished)
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_a_run_is_resumed_with_its_own_parameters_only(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"alpha \(0.2 → 0.1\)"):
        run_training(replace(CONFIG, alpha=0.1), finished, resume=True)
    with pytest.raises(ValueError, match="no run to resume"):
        run_training(CONFIG, tmp_path / "nothing", resume=True)


def test_the_guard_speaks_when_length_and_accuracy_fall_together() -> None:
    guard = Guard()
    assert guard.look(0, {"accuracy": 0.6, "mean_length": 100.0}) == []
    assert guard.look(5, {"accuracy": 0.9, "mean_length": 80.0}) == []
    assert guard.look(10, {"accuracy": 0.88, "mean_length": 60.0}) == []  # within the noise
    assert guard.look(15, {"accuracy": 0.7, "mean_length": 90.0}) == []  # worse, but longer
    (text,) = guard.look(20, {"accuracy": 0.7, "mean_length": 50.0})
    assert text.startswith("shorter_and_worse") and "80 → 50" in text and "90% → 70%" in text


def test_the_guard_speaks_when_accuracy_alone_falls() -> None:
    """A PPO run of the study fell from 93% to half at an unchanged length, and nothing was said."""
    guard = Guard()
    assert guard.look(10, {"accuracy": 0.93, "mean_length": 128.0}) == []
    assert guard.look(20, {"accuracy": 0.80, "mean_length": 129.0}) == []
    (text,) = guard.look(30, {"accuracy": 0.58, "mean_length": 130.0})
    assert text.startswith("less_accurate") and "93% to 58%" in text and "128 → 130" in text
