"""What self-aligned reward adds to a step of GRPO.

    python benchmarks/sar_cost.py [MODEL ...] [--rounds 5]

Two policies take the same steps in turn, one with the pass without the question, one without it;
answers have a forced length. Between them one forward pass over the same number of answer tokens
is timed, trunk and head, with no prefix at all: the floor of any second perplexity. Added seconds
may be at most 1.5 times that floor.
"""

from __future__ import annotations

import argparse
from typing import Any

import common
import torch
from machine import measure_machine, workload_of

from sarlab import plan
from sarlab.config import TrainConfig
from sarlab.prompts import conditioned_ids, standalone_ids
from sarlab.train import grpo_steps

SIZES = {"tiny": (16, 8, 64), "smollm2-135m": (2, 8, 48)}  # questions, answers each, tokens each
TARGET = 1.5
FLOOR_TOKENS = 2_048  # a floor that is itself quick: as many tokens a call as scoring takes


def measure(model: str, rounds: int) -> dict[str, Any]:
    questions, group, tokens = SIZES[model]
    told: dict[str, Any] = {
        "model": model,
        "questions": questions,
        "group_size": group,
        "max_answer_tokens": tokens,
        "steps": 10_000,
    }
    arms = {
        "sar": TrainConfig(**told),
        "grpo": TrainConfig(**told, reward="correct", alpha=0.0, log_sar=False),
    }
    task = common.one_batch(questions)
    states = {name: common.fresh_state(model, config) for name, config in arms.items()}
    steps = {name: grpo_steps(states[name], task, config) for name, config in arms.items()}
    records: dict[str, list[Any]] = {name: [] for name in arms}
    policy = states["sar"].policy
    answers = common.made_up(policy, questions * group, tokens)
    rows = max(1, FLOOR_TOKENS // tokens)

    def forward() -> None:
        with torch.no_grad(), policy.folded():
            for part in answers.split(rows):
                logits = policy.causal_lm(input_ids=part, use_cache=False).logits
                torch.log_softmax(logits, dim=-1).gather(-1, part[..., None])

    def step(name: str) -> None:
        records[name].append(next(steps[name]))

    seconds = common.interleaved(
        {"sar": lambda: step("sar"), "floor": forward, "grpo": lambda: step("grpo")}, rounds
    )
    for record in records["sar"] + records["grpo"]:
        assert record.metrics["mean_length"] == tokens
    alone = [r.metrics["seconds_score_standalone"] for r in records["sar"]][1:]
    phases = {
        name: {
            key: common.spread([r.metrics[key] for r in records[name]][1:])
            for key in records[name][0].metrics
            if key.startswith("seconds_")
        }
        for name in arms
    }
    shape = plan.shape_of(model)
    prompts = [conditioned_ids(policy.tokenizer, q.text, policy.prompt) for q in task.questions]  # type: ignore[attr-defined]
    work = workload_of(
        arms["sar"],
        round(sum(map(len, prompts)) / len(prompts)),
        tokens,
        standalone_tokens=len(standalone_ids(policy.tokenizer, policy.prompt)),
    )
    machine = measure_machine(clock=common.now)
    planned = plan.plan_step(shape, work, machine)
    added = [a - b for a, b in zip(seconds["sar"], seconds["grpo"], strict=True)]
    return {
        "model": model,
        "questions": questions,
        "group_size": group,
        "answer_tokens": tokens,
        "seconds": {k: common.spread(v) for k, v in seconds.items()},
        "added_seconds": common.spread(added),
        "standalone_seconds": common.spread(alone),
        "over_floor": common.ratio(alone, seconds["floor"]),
        "difference_over_floor": common.ratio(added, seconds["floor"]),
        "step_ratio": common.ratio(seconds["sar"], seconds["grpo"]),
        "floor": common.floor(shape, work, machine),
        "phases": phases,
        "planned": {"seconds": planned.seconds, "total": planned.total_seconds},
    }


def lines(found: dict[str, Any]) -> list[str]:
    floor = found["floor"]
    return [
        f"{found['model']}: {found['questions']} × {found['group_size']} answers of "
        f"{found['answer_tokens']} tokens; a step {common.said(found['seconds']['sar'])} s with "
        f"SAR, {common.said(found['seconds']['grpo'])} s without",
        f"  the pass without the question {common.said(found['standalone_seconds'], 3)} s, floor "
        f"{common.said(found['seconds']['floor'], 3)} s ({floor['operations'] / 1e9:.0f} GFLOP, "
        f"{floor['bytes'] / 1e6:.0f} MB): {common.said(found['over_floor'])} × (target {TARGET})",
        f"  the difference of whole steps {common.said(found['added_seconds'])} s: "
        f"{common.said(found['difference_over_floor'])} × the floor; ratio of steps "
        f"{common.said(found['step_ratio'], 3)}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    common.quiet()
    found = [measure(model, told.rounds) for model in told.models]
    common.keep("sar_cost", {"models": found, "lines": [x for f in found for x in lines(f)]})


if __name__ == "__main__":
    main()
