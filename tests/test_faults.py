"""Kill -9, interrupts, full disks and damaged files: what is resumed ends as if nothing had been.

The kills are real: a process of its own sends itself SIGKILL in the middle of a call
(see crash_lab.py). "The same end" is :func:`traces`: the log without its timings, the bytes of the
adapters, every row of the rollout table, the messages and the summary.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash_lab import CONFIG

from sarlab.job.training import run_training
from sarlab.runs.folder import Run, read_metrics, read_rollouts

LAB = Path(__file__).with_name("crash_lab.py")
KILLED = -9


class Lab:
    """The process of crash_lab.py, and what its children ended with."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        self.process = subprocess.Popen(
            [sys.executable, str(LAB)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(LAB.parent.parent), *sys.path])},
        )
        assert self._reply() == {"ready": True}

    def run(self, folder: Path, *, resume: bool = False, **trap: Any) -> int:
        """Exit code of one run (a negative one is a signal)."""
        self.errors.unlink(missing_ok=True)
        told = {"folder": str(folder), "resume": resume, "errors": str(self.errors), "trap": trap}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        return self._reply()["code"]

    def finish(self, folder: Path) -> None:
        """Resume a run and see it end."""
        code = self.run(folder, resume=True)
        assert code == 0, self.errors.read_text()

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab") / "error")
    yield lab
    assert lab.process.stdin is not None
    lab.process.stdin.close()
    lab.process.wait()


@pytest.fixture(scope="module")
def whole(lab: Lab, tmp_path_factory) -> dict[str, Any]:
    """What the run that was never stopped left."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert lab.run(folder) == 0, lab.errors.read_text()
    found = traces(folder)
    assert len(found["metrics"]) == CONFIG.steps and len(found["rows"]) == 50
    assert found["best"]["step"] == 2  # the later evaluation is no better: best/ has to be kept
    return found


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def traces(folder: Path) -> dict[str, Any]:
    """Everything about a finished run that must not depend on how often it was stopped."""
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "status": facts(folder)["status"],
        "steps_done": facts(folder)["steps_done"],
        "messages": [m for m in facts(folder)["messages"] if "at" not in m],
        "metrics": [
            {k: v for k, v in line.items() if not k.startswith("seconds_")}
            for line in read_metrics(folder)
        ],
        "rows": read_rollouts(folder).to_pylist(),
        "summary": {k: v for k, v in summary.items() if k != "train_seconds"},
        "best": json.loads((folder / "best" / "validation.json").read_text()),
        "adapters": [
            (folder / name / "adapter_model.safetensors").read_bytes()
            for name in ("adapter", "best", "checkpoints/step-000004")
        ],
        # No scratch file, no lock that is held, nothing beside what the design names.
        "files": sorted(p.name for p in folder.iterdir()),
        "parts": sorted(p.name for p in (folder / "rollouts.parquet").iterdir()),
        "checkpoints": sorted(p.name for p in (folder / "checkpoints").iterdir()),
    }


# Where the process is killed: function, steps logged by then, calls that pass first, when, and
# what one of the arguments must hold.
KILLS: dict[str, dict[str, Any]] = {
    "before anything is written": {"function": "sarlab.runs.folder:FileLock.acquire"},
    "before config.json": {
        "function": "sarlab.runs.atomic:os.replace",
        "path": "config",
        "skip": 0,
    },
    "run.json half-written": {
        "function": "sarlab.runs.atomic:os.replace",
        "path": "run.json",
        "when": "before",
    },
    "between evaluation and probes of the base": {
        "function": "sarlab.job.logbook:Logbook.judge",
        "path": "probe",
        "when": "before",
    },
    "sampling": {"function": "sarlab.rollout:draw_tokens", "lines": 2, "skip": 5},
    "scoring without the question": {
        "function": "sarlab.experience:standalone_logps",
        "lines": 2,
    },
    "scoring under the reference": {
        "function": "sarlab.experience:conditioned_logps",
        "lines": 2,
    },
    "updating, gradient known": {
        "function": "torch.optim:AdamW.step",
        "lines": 2,
        "when": "before",
    },
    "updating, weights changed": {"function": "torch.optim:AdamW.step", "lines": 2},
    "writing rollouts, half of them": {
        "function": "sarlab.runs.folder:pq.write_table",
        "lines": 2,
        "when": "half",
    },
    "rollouts written, metrics not": {
        "function": "sarlab.runs.folder:Run.log",
        "lines": 2,
        "when": "before",
    },
    "metrics written, checkpoint not": {
        "function": "sarlab.runs.folder:Run.save_checkpoint",
        "lines": 4,
        "when": "before",
    },
    "writing a checkpoint, half of it": {
        "function": "sarlab.train:save_optimizer",
        "lines": 2,
        "when": "half",
    },
    "checkpoint whole, not in its place": {
        "function": "sarlab.runs.atomic:os.replace",
        "lines": 4,
        "path": "checkpoints",
        "skip": 1,  # checksums.json first
        "when": "before",
    },
    "best not in its place": {
        "function": "sarlab.runs.atomic:os.replace",
        "path": "writing-best",
        "when": "before",
    },
    "the adapter half-written": {
        "function": "sarlab.job.training:export_policy",
        "lines": 4,
        "when": "before",
    },
    "between evaluation and summary": {
        "function": "sarlab.job.logbook:summarise_run",
        "when": "before",
    },
    "summary written, status not": {
        "function": "sarlab.runs.atomic:os.replace",
        "path": "summary.json",
    },
}


@pytest.mark.parametrize("where", KILLS)
def test_killed_and_resumed(where: str, lab: Lab, whole: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert lab.run(folder, **KILLS[where]) == KILLED, lab.errors.read_text()
    lab.finish(folder)
    assert traces(folder) == whole


def test_killed_while_metrics_are_written(lab: Lab, whole: dict, tmp_path: Path) -> None:
    """Half a line at the end: what a kill inside write() leaves."""
    folder = tmp_path / "run"
    trap = {"function": "sarlab.runs.folder:Run.log", "lines": 2, "when": "before"}
    assert lab.run(folder, **trap) == KILLED
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "accuracy": 0.0, "rew')
    assert [m["step"] for m in read_metrics(folder)] == [1, 2]
    lab.finish(folder)
    assert traces(folder) == whole


def test_killed_again_while_it_takes_up_where_it_was(lab: Lab, whole: dict, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert lab.run(folder, function="sarlab.experience:standalone_logps", lines=3) == KILLED
    again = {"function": "sarlab.runs.atomic:os.replace", "path": "writing-best", "skip": 1}
    again["when"] = "before"  # the first call moves the old one aside
    assert lab.run(folder, resume=True, **again) == KILLED
    assert not (folder / "best").exists()  # moved aside, its successor not yet in place
    lab.finish(folder)
    assert traces(folder) == whole


def test_an_interrupt_from_the_keyboard(lab: Lab, whole: dict, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trap = {"function": "sarlab.rollout:draw_tokens", "lines": 2, "skip": 5, "raises": "interrupt"}
    assert lab.run(folder, **trap) == 1
    assert lab.errors.read_text().startswith("KeyboardInterrupt")
    assert facts(folder)["status"] == "interrupted" and facts(folder)["steps_done"] == 2
    lab.finish(folder)
    assert traces(folder) == whole


FULL = {
    "metrics": {"function": "sarlab.runs.folder:os.fsync", "lines": 3, "path": ""},
    "rollouts": {"function": "sarlab.runs.folder:pq.write_table", "lines": 2},
    "checkpoint": {"function": "sarlab.train:save_optimizer", "lines": 4},
    "best": {"function": "sarlab.job.logbook:replace_file", "lines": 1},
}


@pytest.mark.parametrize("what", FULL)
def test_no_room_for(what: str, lab: Lab, whole: dict, tmp_path: Path) -> None:
    """ENOSPC, raised where the bytes would be written."""
    folder = tmp_path / "run"
    assert lab.run(folder, **FULL[what], raises="full") == 1
    assert "No space left on device" in lab.errors.read_text()
    assert facts(folder)["status"] == "failed"
    assert facts(folder)["error"].startswith("disk_full: ") and "resume" in facts(folder)["error"]
    assert not list(folder.rglob(".writing-*"))
    lab.finish(folder)
    assert traces(folder) == whole
    assert [m["kind"] for m in facts(folder)["messages"] if "at" in m] == ["disk_full"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1.5 MB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    told = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(place)]
    if (
        shutil.which("mount") is None
        or subprocess.run(told, check=False, capture_output=True).returncode
    ):
        pytest.skip("no right to mount a small tmpfs; test_no_room_for stands in for it")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path, lab: Lab, whole: dict) -> None:
    folder = small_disk / "run"
    assert lab.run(folder) == 1
    assert "No space left on device" in lab.errors.read_text()
    assert facts(folder)["status"] == "failed"
    assert facts(folder)["error"].startswith("disk_full: ")
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    lab.finish(folder)
    assert traces(folder) == whole


@pytest.mark.parametrize("harm", ["half", "flipped byte", "missing file"])
def test_a_damaged_checkpoint_is_named_and_passed_over(
    harm: str, lab: Lab, whole: dict, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    trap = {"function": "sarlab.job.logbook:summarise_run", "when": "before"}
    assert lab.run(folder, **trap) == KILLED
    file = folder / "checkpoints" / "step-000004" / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    if harm == "half":
        file.write_bytes(content[: len(content) // 2])
    elif harm == "flipped byte":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    lab.finish(folder)
    (event,) = [m for m in facts(folder)["messages"] if "at" in m]
    assert event["kind"] == "damaged_checkpoint"
    assert "step-000004" in event["text"] and "adapter_model.safetensors" in event["text"]
    assert traces(folder) == whole


def test_a_second_process_on_one_folder_is_refused(lab: Lab, whole: dict, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", CONFIG.to_dict())
    before = facts(run.folder)
    assert lab.run(run.folder, resume=True) == 1
    assert "is in use by another process" in lab.errors.read_text()
    assert facts(run.folder) == before
    run.close()
    lab.finish(run.folder)
    assert traces(run.folder) == whole


def test_a_folder_left_by_a_killed_making_is_taken_but_no_other(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    for name in (".lock", ".reserve", "run.json", ".writing-abc"):
        (left / name).write_text("{}")
    Run.create(left, {"seed": 1}).close()
    assert sorted(p.name for p in left.iterdir()) == [".lock", "config.json", "run.json"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("all I have")
    with pytest.raises(ValueError, match="exists already"):
        run_training(CONFIG, other)
    assert (other / "thesis.txt").read_text() == "all I have"


def test_steps_that_were_added_stay_added(tmp_path: Path) -> None:
    from dataclasses import replace

    Run.create(tmp_path / "run", CONFIG.to_dict()).close()
    longer = replace(CONFIG, steps=9)
    Run.reopen(tmp_path / "run", longer.to_dict()).close()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["steps"] == 9
    with pytest.raises(ValueError, match="the run has 9; it can only grow"):
        run_training(CONFIG, tmp_path / "run", resume=True)
