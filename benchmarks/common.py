"""What the benchmarks share: timing side by side, forced lengths, made-up answers, results."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from machine import floor_of_scoring
from torch import Tensor

import sarlab.experience
from sarlab import plan
from sarlab.config import TrainConfig
from sarlab.models import Policy, add_lora, load_policy
from sarlab.tasks import Task, load_task
from sarlab.train import TrainState, start
from sarlab.types import Question

RESULTS = Path(__file__).resolve().parent / "results"
# On a machine that is busy with other work, BENCH_CLOCK=cpu with OMP_NUM_THREADS=1 counts this
# process's CPU seconds instead of wall time; with one thread a quiet machine shows the same.
ON_CPU_TIME = os.environ.get("BENCH_CLOCK") == "cpu"
DEVICE, DTYPE = "cpu", "float32"  # gpu.py sets others


def now() -> float:
    """Seconds; on a GPU all that was asked of it is done first."""
    if DEVICE != "cpu":
        torch.cuda.synchronize()
    return time.process_time() if ON_CPU_TIME else time.perf_counter()


if ON_CPU_TIME:
    sarlab.experience.time = SimpleNamespace(perf_counter=now)  # the seconds by phase of a step
NO_TOKEN = (1_000_000_000,)  # an end token that is in no vocabulary


def interleaved(
    works: Mapping[str, Callable[[], object]], repeats: int = 5, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each work, all in turn in every round; the order turns round each time.

    Whatever else the machine does then hits all of them alike, and a ratio is taken within a round.
    """
    names = list(works)
    if warm_up:
        for name in names:
            works[name]()
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        for name in names if turn % 2 == 0 else reversed(names):
            began = now()
            works[name]()
            found[name].append(now() - began)
    return found


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, smallest and largest of the rounds, and how many there were."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": len(values),
    }


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, Any]:
    """The ratio of two works, round by round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def said(found: Mapping[str, Any], digits: int = 2) -> str:
    """``median (min to max)``."""
    return f"{found['median']:.{digits}f} ({found['min']:.{digits}f} to {found['max']:.{digits}f})"


def force_lengths(policy: Policy) -> Policy:
    """No token ends an answer from here on: every answer runs to ``max_answer_tokens``.

    What is drawn is the policy's own law still, end tokens included; they only do not end.
    """
    policy.eos_ids = NO_TOKEN
    return policy


def fresh_state(model: str, config: TrainConfig) -> TrainState:
    """A policy with an adapter and answers of forced length."""
    policy = load_policy(model, dtype=DTYPE, device=DEVICE)
    add_lora(policy, rank=config.lora_rank, alpha=config.lora_alpha, seed=0)
    return start(force_lengths(policy), config)


class OneBatch:
    """A task that hands out the same questions in every step."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = list(questions)

    def train_batch(self, step: int, count: int, seed: int) -> list[Question]:
        """The first ``count`` of them, whatever the step."""
        return self.questions[:count]


def questions_of(count: int, task: str = "word_problems") -> list[Question]:
    """The first training questions of a task."""
    return list(load_task(task).train_batch(1, count, 0))


def one_batch(count: int) -> Task:
    return OneBatch(questions_of(count))  # type: ignore[return-value]


def made_up(policy: Policy, rows: int, width: int, seed: int = 0) -> Tensor:
    """Random answer ids [rows, width]; what a pass costs does not depend on what they say."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = policy.model.config.get_text_config().vocab_size
    return torch.randint(5, vocabulary, (rows, width), generator=generator)


@contextlib.contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Within the block, a call tells the peak of resident bytes since its beginning (Linux)."""
    with contextlib.suppress(OSError):  # give back what the allocator keeps from before
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    yield lambda: resident("VmHWM")


def resident(field: str = "VmRSS") -> int:
    """Resident bytes of this process, now (VmRSS) or at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}; memory is measured on Linux only.")


def floor(shape: plan.Shape, work: plan.Workload, machine: plan.Machine) -> dict[str, float]:
    """The floor of one forward over the answers' tokens: operations, bytes, and seconds of both."""
    operations, moved = floor_of_scoring(shape, work)
    return {
        "operations": operations,
        "bytes": moved,
        "seconds_operations": operations / machine.flops,
        "seconds_bytes": moved / machine.bandwidth,
    }


def quiet() -> None:
    """No progress bars, no warnings of other packages between the lines of a benchmark."""
    import logging

    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("trl").setLevel(logging.ERROR)


def machine_said() -> str:
    """The machine in a few words, and what ran beside the measurement."""
    load = os.getloadavg()[0]
    return (
        f"CPU {_cpu_name()}, threads: {torch.get_num_threads()}, {platform.machine()}, "
        f"torch {torch.__version__}, load {load:.1f}"
        + (", seconds of CPU time" if ON_CPU_TIME else "")
    )


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def keep(name: str, found: Mapping[str, Any]) -> None:
    """Write a benchmark's figures to results/NAME.json and print its lines."""
    RESULTS.mkdir(exist_ok=True)
    whole = {"machine": machine_said(), **found}
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")
    for line in found["lines"]:
        print(line, flush=True)
