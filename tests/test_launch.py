"""Two processes on a CPU by `accelerate launch`: sarlab's own numbers, and a kill in between."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from sarlab.config import TrainConfig
from sarlab.evaluation.judge import evaluate_policy
from sarlab.evaluation.policies import recorded
from sarlab.job.training import held_out
from sarlab.launch.run import train_distributed
from sarlab.models import REPOSITORY, load_policy
from sarlab.prompts import conditioned_ids, standalone_ids
from sarlab.runs.folder import read_metrics, read_rollouts
from sarlab.runs.parameters import command_parameters
from sarlab.sar import self_aligned_reward
from sarlab.scoring import Prefix, answer_logps
from sarlab.tasks import load_task

CONFIGS = REPOSITORY / "configs" / "accelerate"
TOLD = {
    "steps": 2,
    "questions": 4,
    "group_size": 4,
    "max_answer_tokens": 64,
    "eval_questions": 6,
    "validation_questions": 4,
    "eval_every": 2,
    "checkpoint_every": 1,
    "learning_rate": 3e-3,
}
CONFIG = TrainConfig(**TOLD)


def command(folder: Path, **more) -> list[str]:
    told = {**TOLD, "out": folder.parent, "name": folder.name, **more}
    pairs = [word for name, value in told.items() for word in ("-p", name, str(value))]
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*launcher, "--config_file", str(CONFIGS / "cpu.yaml"), "-m", "sarlab.launch", *pairs]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("launch") / "two"
    done = subprocess.run(
        command(folder), cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "test questions" in done.stdout  # the table at the end, once
    assert done.stdout.count("step 1/2") == 1
    return folder


@pytest.mark.slow
def test_the_sar_of_every_completion_is_sarlabs_own(two: Path) -> None:
    """Step 1 was sampled by the base policy, step 2 by the adapter of the first checkpoint."""
    table = read_rollouts(two, "train").to_pylist()
    assert len(table) == 2 * 16
    for step in (1, 2):
        adapter = two / "checkpoints" / "step-000001" if step == 2 else None
        policy = load_policy("tiny", adapter=adapter, dtype="float32", device="cpu")
        rows = [row for row in table if row["step"] == step]
        width = max(row["length"] for row in rows)
        ids = torch.tensor([r["answer_ids"] + [0] * (width - r["length"]) for r in rows])
        mask = torch.tensor([[j < r["length"] for j in range(width)] for r in rows])
        prefixes = [
            Prefix(tuple(conditioned_ids(policy.tokenizer, r["question"], policy.prompt)))
            for r in rows
        ]
        asked = answer_logps(policy, prefixes, ids, mask, prefix_index=torch.arange(16))
        prefix = Prefix(tuple(standalone_ids(policy.tokenizer, policy.prompt)))
        alone = answer_logps(policy, prefix, ids, mask)
        wanted = self_aligned_reward(asked, alone, mask)
        for row, sar, logps in zip(rows, wanted.tolist(), asked, strict=True):
            assert row["sar"] == pytest.approx(sar, abs=1e-4)
            assert row["logps_conditioned"] == pytest.approx(
                logps[: row["length"]].tolist(), abs=1e-4
            )
            assert row["reward"] == pytest.approx(row["correct"] + 0.2 * row["sar"], abs=1e-6)


@pytest.mark.slow
def test_the_questions_and_advantages_are_sarlabs_own(two: Path) -> None:
    task = load_task("word_problems")
    for step in (1, 2):
        rows = [r for r in read_rollouts(two, "train").to_pylist() if r["step"] == step]
        for group, question in enumerate(task.train_batch(step, 4, 0)):
            members = [row for row in rows if row["group_id"] == group]
            assert [row["question_id"] for row in members] == [question.id] * 4
            mean = sum(row["reward"] for row in members) / 4
            for row in members:
                assert row["advantage"] == pytest.approx(row["reward"] - mean, abs=1e-6)


@pytest.mark.slow
def test_the_run_folder_is_one_that_evaluation_reads(two: Path) -> None:
    told = json.loads((two / "run.json").read_text())
    assert (told["status"], told["processes"], told["steps_done"]) == ("finished", 2, 2)
    assert [m["step"] for m in read_metrics(two)] == [1, 2]
    assert read_metrics(two)[0]["learning_rate"] == pytest.approx(3e-3 / 6)  # warm-up of 5 steps
    base, trained = recorded([two])
    assert base.is_base and trained.arm == "SA-GRPO α=0.2"
    heldout = held_out(load_task("word_problems"), CONFIG)
    assert base.questions == trained.questions == {question.id for question in heldout.test}
    summary = json.loads((two / "summary.json").read_text())
    assert summary["trained"]["answers"] == 6 and summary["processes"] == 2
    assert load_policy(two).model.peft_config["default"].r == CONFIG.lora_rank


def timeless(folder: Path) -> list[dict]:
    """The log without timings."""
    lines = read_metrics(folder)
    return [{k: v for k, v in m.items() if not k.startswith("seconds_")} for m in lines]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_end(two: Path) -> None:
    folder = two.parent / "killed"
    started = subprocess.Popen(
        command(folder), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 400
    while not (folder / "checkpoints" / "step-000001").exists():
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    family = [*psutil.Process(started.pid).children(recursive=True), psutil.Process(started.pid)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=60)
    started.wait()
    assert json.loads((folder / "run.json").read_text())["status"] == "running"
    assert not (folder / "summary.json").exists()
    done = subprocess.run(
        command(folder, resume=True), cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "training from step 1 to 2" in done.stdout
    assert timeless(folder) == timeless(two)
    assert read_rollouts(folder).equals(read_rollouts(two))
    adapter = Path("adapter") / "adapter_model.safetensors"
    assert (folder / adapter).read_bytes() == (two / adapter).read_bytes()
    with pytest.raises(ValueError, match=r"made with 2 process\(es\).*and 1 were launched"):
        train_distributed(CONFIG, folder, resume=True)


@pytest.mark.slow
def test_one_process_starts_from_the_evaluation_that_sarlabs_own_loop_makes(
    tmp_path: Path, frozen_tiny
) -> None:
    config = TrainConfig(**{**TOLD, "steps": 1, "validation_questions": 0})
    summary = train_distributed(config, tmp_path / "one")
    assert summary["processes"] == 1
    wanted = evaluate_policy(
        frozen_tiny,
        held_out(load_task("word_problems"), config).test,
        config,
        split="heldout_base",
        seed="heldout",
    )
    rows = read_rollouts(tmp_path / "one", "heldout_base").to_pylist()
    assert [row["answer_ids"] for row in rows] == [row["answer_ids"] for row in wanted]


LAUNCHED = {
    "cpu": ("MULTI_GPU", 2),
    "one_gpu": ("NO", 1),
    "multi_gpu": ("MULTI_GPU", 8),
    "zero2": ("DEEPSPEED", 8),
    "zero3": ("DEEPSPEED", 8),
    "fsdp2": ("FSDP", 8),
    "multi_node": ("MULTI_GPU", 16),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_accelerate_reads_each_configuration(name: str) -> None:
    """A field that accelerate does not know is an error of its own."""
    found = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert (found.distributed_type.value, found.num_processes) == LAUNCHED[name]
    assert found.use_cpu == (name == "cpu")
    stage = {"zero2": 2, "zero3": 3}.get(name)
    assert found.deepspeed_config.get("zero_stage") == stage


def test_parameters_are_read_as_papermill_reads_them() -> None:
    words = ("alpha 0.1", "model tiny", "steps 3", "resume True", "learning_rate 1e-5")
    assert command_parameters([x for pair in words for x in ("-p", *pair.split())]) == {
        "alpha": 0.1,
        "model": "tiny",
        "steps": 3,
        "resume": True,
        "learning_rate": 1e-5,
    }
    assert command_parameters(["-p", "name", "a-b", "-p", "log_sar", "true"]) == {
        "name": "a-b",
        "log_sar": "true",  # which TrainConfig refuses, as it does from a notebook
    }
    for wrong in (["alpha", "0.1"], ["--alpha"], ["--steps", "3"], ["-p", "alpha"]):
        with pytest.raises(ValueError, match="cannot be read"):
            command_parameters(wrong)


def test_what_is_wrong_is_said_before_anything_is_made(tmp_path: Path) -> None:
    for changes, message in (
        ({"questions": 3, "group_size": 3}, "must be a multiple of processes × mini_batches"),
        ({"model": "no-such-model"}, "is not known"),
        ({"tracker": "wandb"}, "package wandb is not installed"),
    ):
        with pytest.raises(ValueError, match=message):
            train_distributed(TrainConfig(**{**TOLD, **changes}), tmp_path / "run")
        assert not (tmp_path / "run").exists()
