"""The run folder: whole or absent, one writer, nothing twice."""

from __future__ import annotations

import json
import math

import pytest

from sarlab.runs.folder import Run, find_runs, read_metrics, read_rollouts, write_text

ROW = {
    "step": 1,
    "split": "train",
    "group_id": 0,
    "question_id": "q",
    "question": "1+1?",
    "gold": "2",
    "answer": "Answer: 2",
    "answer_ids": [5, 2],
    "logps_conditioned": [-0.5, -0.25],
    "logps_standalone": None,
    "length": 2,
    "truncated": False,
    "correct": True,
    "verdict": "right",
    "ppl_conditioned": 1.45,
    "ppl_standalone": None,
    "sar": None,
    "reward": 1.0,
    "advantage": 0.5,
}


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "r", {"seed": 7})
    yield run
    run.close()


def test_a_folder_that_exists_is_not_overwritten(run) -> None:
    with pytest.raises(ValueError, match="exists already"):
        Run.create(run.folder, {"seed": 8})
    assert json.loads((run.folder / "config.json").read_text()) == {"seed": 7}


def test_a_second_writer_is_refused_until_the_first_is_done(run) -> None:
    with pytest.raises(ValueError, match="in use by another process"):
        Run.reopen(run.folder)
    run.close()
    Run.reopen(run.folder).close()


def test_a_run_that_could_not_begin_gives_its_lock_back(tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("sarlab.runs.folder.write_json", full)
    with pytest.raises(OSError) as error:  # holds the run, as a notebook's last error does
        Run.create(tmp_path / "r", {"seed": 7})
    monkeypatch.undo()
    Run.create(tmp_path / "r", {"seed": 7}).close()
    assert "No space" in str(error.value)


def test_rows_come_back_as_they_went_in(run) -> None:
    run.write_rollouts(2, "train", [{**ROW, "step": 2}])
    run.write_rollouts(1, "train", [ROW])
    found = read_rollouts(run.folder, "train").to_pylist()
    assert [r["step"] for r in found] == [1, 2]
    assert found[0] == ROW
    with pytest.raises(ValueError, match="no rollouts of split 'probe'"):
        read_rollouts(run.folder, "probe")


def test_writing_a_part_again_replaces_it(run) -> None:
    run.write_rollouts(1, "train", [ROW, ROW])
    run.write_rollouts(1, "train", [ROW])
    assert read_rollouts(run.folder).num_rows == 1


def test_rewinding_forgets_what_came_after_the_checkpoint(run) -> None:
    for step in (1, 2, 3):
        run.log({"step": step})
        run.write_rollouts(step, "train", [{**ROW, "step": step}])
    run.save_checkpoint(2, lambda folder: (folder / "a").write_text("2"))
    run.save_checkpoint(3, lambda folder: (folder / "a").write_text("3"))
    (run.folder / "rollouts.parquet" / ".train-000004.tmp").write_bytes(b"half a part")
    run.rewind(2)
    assert [m["step"] for m in read_metrics(run.folder)] == [1, 2]
    assert [r["step"] for r in read_rollouts(run.folder).to_pylist()] == [1, 2]
    assert run.last_good_checkpoint()[0] == 2
    assert not list((run.folder / "rollouts.parquet").glob(".*"))


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "no_sums"])
def test_a_damaged_checkpoint_is_named_and_passed_over(run, harm: str) -> None:
    for step in (1, 2):
        run.save_checkpoint(step, lambda folder: (folder / "weights").write_bytes(bytes(100)))
    file = run.folder / "checkpoints" / "step-000002" / "weights"
    if harm == "flip":
        file.write_bytes(b"\x01" + bytes(99))
    elif harm == "cut":
        file.write_bytes(bytes(50))
    elif harm == "remove":
        file.unlink()
    else:
        (file.parent / "checksums.json").write_text("{")
    assert run.last_good_checkpoint()[0] == 1
    (message,) = json.loads((run.folder / "run.json").read_text())["messages"]
    assert message["kind"] == "damaged_checkpoint" and "step-000002" in message["text"]


def test_a_checkpoint_that_fails_while_it_is_written_leaves_nothing(run) -> None:
    def full_disk(folder) -> None:
        (folder / "weights").write_bytes(bytes(10))
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        run.save_checkpoint(1, full_disk)
    assert run.last_good_checkpoint() is None
    assert list((run.folder / "checkpoints").iterdir()) == []


def test_a_line_cut_off_by_a_kill_is_left_out_but_a_broken_one_inside_is_an_error(run) -> None:
    run.log({"step": 1})
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "accu')
    assert read_metrics(run.folder) == [{"step": 1}]
    write_text(run.folder / "metrics.jsonl", '{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2: not valid JSON"):
        read_metrics(run.folder)


def test_a_nan_never_reaches_the_log(run) -> None:
    with pytest.raises(ValueError):
        run.log({"step": 1, "loss": math.nan})


def test_runs_are_found_by_their_summary(run, tmp_path) -> None:
    assert find_runs(tmp_path) == []
    write_text(run.folder / "summary.json", "{}")
    assert find_runs(tmp_path) == [run.folder]
