"""What each reward design adds to a step of GRPO: a step with it over one with correctness alone.

    OMP_NUM_THREADS=1 python benchmarks/design_cost.py [--rounds 5]

On `tiny`, 8 × 8 answers to word problems, as long as they come. Each design and correctness take
the same steps in turn; a learning rate near 0 keeps the two policies equal, so that both sample the
same answers. Writes results/design_cost.json, which `scripts/reward_table.py` puts into
docs/REWARDS.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import common

from sarlab.config import TrainConfig
from sarlab.models import add_lora, load_policy
from sarlab.rewards import REWARDS
from sarlab.train import grpo_steps, start

QUESTIONS, GROUP, RATE = 8, 8, 1e-12
PASSES = ("seconds_score_standalone", "seconds_score_extras")


def steps_with(reward: str) -> Iterator[Any]:
    """A step of GRPO after the other on one batch of questions."""
    config = TrainConfig(
        model="tiny",
        reward=reward,
        questions=QUESTIONS,
        group_size=GROUP,
        learning_rate=RATE,
        log_sar=False,
        steps=10_000,
    )
    policy = add_lora(load_policy("tiny"), rank=config.lora_rank, alpha=config.lora_alpha)
    return grpo_steps(start(policy, config), common.one_batch(QUESTIONS), config)


def measure(design: str, rounds: int) -> dict[str, Any]:
    """Seconds of a step, those of its extra passes, and the step's ratio to correctness alone."""
    steps = {"correct": steps_with("correct"), "design": steps_with(design)}
    records: dict[str, list[Any]] = {name: [] for name in steps}

    def step(name: str) -> None:
        records[name].append(next(steps[name]).metrics)

    works = {"correct": lambda: step("correct"), "design": lambda: step("design")}
    seconds = common.interleaved(works, rounds)
    lengths = [[of["mean_length"] for of in records[name]] for name in steps]
    assert lengths[0] == lengths[1], "the two sampled different answers: nothing to compare"
    return {
        "seconds": common.spread(seconds["design"]),
        "extra_seconds": common.spread(
            [sum(of[p] for p in PASSES) for of in records["design"][1:]]
        ),
        "step_ratio": common.ratio(seconds["design"], seconds["correct"]),
        "mean_length": sum(lengths[0]) / len(lengths[0]),
    }


def line(design: str, found: dict[str, Any]) -> str:
    return (
        f"{design}: {common.said(found['step_ratio'])} ×, extra passes "
        f"{common.said(found['extra_seconds'], 3)} s of {common.said(found['seconds'])} s"
    )


def main() -> None:
    """Measure all designs and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    common.quiet()
    found = {name: measure(name, rounds) for name in REWARDS if name != "correct"}
    facts = {"questions": QUESTIONS, "group_size": GROUP, "rounds": rounds}
    lines = [line(name, of) for name, of in found.items()]
    common.keep("design_cost", {**facts, "designs": found, "lines": lines})


if __name__ == "__main__":
    main()
