"""The main job on the embedded policy: the run folder, resume to the byte, stop, and errors."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

import sarlab
from sarlab.config import TrainConfig
from sarlab.experience import collect
from sarlab.job import watchers
from sarlab.job.logbook import Guard
from sarlab.job.training import check_questions_fit, run_training
from sarlab.job.watchers import LineView, RunStopped, View
from sarlab.models import export_policy, load_policy
from sarlab.prompts import conditioned_ids
from sarlab.rewards import REWARDS, Reward
from sarlab.runs.folder import read_metrics, read_rollouts
from sarlab.tasks import load_task
from sarlab.types import StepRecord

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
    from sarlab.rewards.answers import score_answers

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


class StopAt(View):
    """Ends the run at once, in the midst of the answers that are written for ``where``."""

    def __init__(self, where: str) -> None:
        self.where = where

    def phase(self, text: str, done: int, total: int) -> None:
        if text == self.where and done:
            raise RunStopped


PLACES = {
    "test, base policy": (0, 0),  # where, steps done, steps logged
    "validation at step 0": (0, 0),
    "step 1": (0, 0),
    "step 3": (2, 2),
    "validation at step 2": (2, 1),
    "probe questions at step 2": (2, 1),
    "test": (4, 4),
}


@pytest.mark.parametrize("where", PLACES)
def test_a_run_that_ends_at_once_goes_on_to_the_same_end(
    finished: Path, tmp_path: Path, where: str
) -> None:
    folder = tmp_path / "stopped"
    summary = run_training(CONFIG, folder, view=StopAt(where))
    done, logged = PLACES[where]
    assert summary["steps"] == done and "trained" not in summary
    run = json.loads((folder / "run.json").read_text())
    assert (run["status"], run["steps_done"]) == ("stopped", done)
    assert len(read_metrics(folder)) == logged
    assert not (folder / "summary.json").exists()
    run_training(CONFIG, folder, resume=True)
    assert timeless(folder) == timeless(finished)
    adapter = "adapter/adapter_model.safetensors"
    assert (folder / adapter).read_bytes() == (finished / adapter).read_bytes()
    assert table(folder) == table(finished)


def test_the_guard_speaks_when_training_accuracy_alone_falls() -> None:
    """At best 90% over five steps of 20 questions: four standard errors are 20 points."""
    guard = Guard(questions=20)
    steady = [guard.trained(step, 0.9) for step in range(1, 9)]
    assert not any(steady)
    assert not any(guard.trained(step, 0.8) for step in range(9, 14))  # within chance
    texts = [text for step in range(14, 24) for text in guard.trained(step, 0.5)]
    assert len(texts) == 1 and texts[0].startswith("accuracy_fell") and "best 90%" in texts[0]
    assert not any(guard.trained(step, 0.9) for step in range(24, 32))  # recovered: silent
    assert any(guard.trained(step, 0.4) for step in range(32, 40))  # a second fall is said again


def test_the_guard_speaks_when_validation_accuracy_stays_low() -> None:
    guard = Guard()
    guard.look(0, {"accuracy": 0.9, "mean_length": 80.0, "questions": 100})
    assert guard.look(5, {"accuracy": 0.65, "mean_length": 90.0, "questions": 100}) == []
    (text,) = guard.look(10, {"accuracy": 0.65, "mean_length": 90.0, "questions": 100})
    assert text.startswith("accuracy_fell") and "90% → 65%" in text
    assert guard.look(15, {"accuracy": 0.88, "mean_length": 90.0, "questions": 100}) == []


def test_run_json_remembers_the_weights_the_tree_and_custom_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def brevity(inputs):
        return -inputs.answer_mask.sum(1).float() / 100

    monkeypatch.setitem(REWARDS, "brevity", Reward(brevity, False, "shorter is better"))
    config = replace(
        CONFIG,
        reward="brevity",
        steps=1,
        task="chain_sum?verifier=lenient:last_number",
    )
    run_training(config, tmp_path / "run")
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(run["base_weights_sha256"]) == 64
    assert run["git_dirty"] in (True, False, None)
    code = run["custom_code"]
    assert set(code) == {"reward brevity", "verifier lenient:last_number"}
    assert "answer_mask.sum(1)" in code["reward brevity"]["source"]
    assert "findall" in code["verifier lenient:last_number"]["source"]
    (line,) = read_metrics(tmp_path / "run")
    rows = read_rollouts(tmp_path / "run", "train").to_pylist()
    bonus = [r["reward"] - r["correct"] for r in rows]
    assert line["bonus_sd"] == pytest.approx(statistics.pstdev(bonus), abs=1e-5)


def test_a_training_question_that_is_too_long_is_refused_before_the_folder_is_made(
    tmp_path: Path,
) -> None:
    long = {"question": "1 + 1 = ? " + "word " * 1400, "answer": "2"}
    rows = [{"question": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(60)]
    train, heldout = rows[:40], rows[40:]
    for name, content in (("train", [*train, long]), ("heldout", heldout)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in content))
    config = replace(
        CONFIG, task=str(tmp_path / "train.jsonl"), heldout=str(tmp_path / "heldout.jsonl")
    )
    with pytest.raises(ValueError, match=r"1 \+ 1 = \? word.*exceeds the context of 'tiny'"):
        run_training(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_that_a_task_leaves_out_are_said_and_recorded(tmp_path: Path) -> None:
    rows = [{"question": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(60)]
    for name, content in (("train", [*rows[:40], rows[3]]), ("heldout", rows[40:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in content))
    files = {"task": str(tmp_path / "train.jsonl"), "heldout": str(tmp_path / "heldout.jsonl")}
    said: list[str] = []
    view = View()
    view.message = said.append  # type: ignore[method-assign]
    run_training(replace(CONFIG, steps=1, **files), tmp_path / "run", view=view)
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["messages"]
    notes = [m["text"] for m in recorded if m["kind"] == "questions"]
    assert len(notes) == 1 and "1 repeated row(s) left out" in notes[0]
    assert f"questions: {notes[0]}" in said


def test_a_generator_leaves_out_what_is_too_long() -> None:
    policy, task = load_policy("tiny"), load_task("word_problems")
    counts = [
        len(conditioned_ids(policy.tokenizer, q.text, policy.prompt))
        for q in task.train_batch(1, 64, 0)
    ]
    room = sorted(counts)[32]
    config = replace(CONFIG, max_answer_tokens=policy.context_length - room)
    check_questions_fit(policy, task, (), config)
    kept = task.train_batch(1, 64, 0)
    assert len(kept) == 64
    assert all(len(conditioned_ids(policy.tokenizer, q.text, policy.prompt)) <= room for q in kept)


def test_a_run_without_a_view_says_something_every_30_seconds(capsys, monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(watchers.time, "monotonic", lambda: clock[0])
    view = LineView(every_seconds=30.0)
    view.begin(CONFIG, 0)
    view.phase("test", 3, 6)
    assert capsys.readouterr().out == ""
    for step in range(1, 13):
        clock[0] += 10.0
        view.step(StepRecord(step, {"accuracy": 0.5}))
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        *("3/4", "6/4", "9/4", "12/4")
    ]
    clock[0] += 31.0
    view.phase("test", 4, 6)
    assert capsys.readouterr().out == "test: 4 of 6 answers\n"
    assert sarlab.LineView is LineView


def test_an_unfinished_thought_that_the_prompt_opened_earns_nothing() -> None:
    """`tiny` is right half of the time; after ``<think>`` it never closes the thought."""
    policy, task = load_policy("tiny"), load_task("word_problems")
    questions = task.train_batch(1, 8, 0)
    options = {"seed": "0", "group_size": 2, "greedy": True, "standalone": False}
    config = replace(CONFIG, max_answer_tokens=96)
    assert collect(policy, questions, config, **options).inputs.correct.sum() > 0
    template = policy.tokenizer.chat_template
    policy.tokenizer.chat_template = (
        template + "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}"
    )
    try:
        batch = collect(policy, questions, config, **options)
    finally:
        policy.tokenizer.chat_template = template
    assert {verdict.reason for verdict in batch.verdicts} == {"no marker"}
    assert any("Answer:" in text for text in batch.rollouts.texts)
