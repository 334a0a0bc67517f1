"""Steps per second against TRL's GRPOTrainer with the same reward on the same work.

    python benchmarks/against_trl.py [MODEL ...] [--rounds 5]

Three trainers of TRL, one a per-device batch size, do a step each; the fastest goes on, and its
steps and this library's alternate in one process. Before that it is checked that both do the same:
the prompts' ids, the answers' lengths, the trained parameters, the optimiser steps, and the values
of self-aligned reward on TRL's own answers, to 1e-3.
"""

from __future__ import annotations

import argparse
from typing import Any

import common
import torch
from trl_arm import trainer_of

from sarlab.config import TrainConfig
from sarlab.prompts import conditioned_ids
from sarlab.sar import self_aligned_reward
from sarlab.scoring import Prefix, answer_logps
from sarlab.train import grpo_steps

# Questions, answers each, tokens each, and the three per-device batch sizes offered to TRL.
SIZES = {"tiny": (8, 8, 64, (8, 16, 32)), "smollm2-135m": (2, 4, 48, (1, 2, 4))}
TARGET = 2.0
PHASES = ("sample", "verify", "score_standalone", "reference", "update")


def config_of(model: str, steps: int, token_budget: int = 0) -> TrainConfig:
    """What both sides are told."""
    questions, group, tokens, _ = SIZES[model]
    return TrainConfig(
        model=model,
        questions=questions,
        group_size=group,
        max_answer_tokens=tokens,
        warmup_steps=0,
        steps=steps,
        token_budget=token_budget,
    )


def measure(model: str, rounds: int) -> dict[str, Any]:
    questions, group, tokens, sizes = SIZES[model]
    config = config_of(model, 10_000)
    task = common.one_batch(questions)
    asked = task.train_batch(1, questions, 0)
    state = common.fresh_state(model, config)
    steps = grpo_steps(state, task, config)
    records: list[Any] = []
    tried = {}
    for size in sizes:
        trainer, reward, watch = trainer_of(config, asked, size, 1)
        trainer.train()
        tried[size] = watch.seconds[0]
        difference = check(state.policy, config, asked, reward.last)
        trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        assert trained == sum(p.numel() for p in state.policy.model.parameters() if p.requires_grad)
        assert trainer.state.global_step == config.mini_batches
    best = min(tried, key=lambda size: tried[size])
    next(steps)  # warm
    trainer, reward, watch = trainer_of(
        config, asked, best, rounds, between=lambda: records.append(next(steps))
    )
    trainer.train()
    assert trainer.state.global_step == rounds * config.mini_batches
    ours = [sum(v for k, v in r.metrics.items() if k.startswith("seconds_")) for r in records]
    return {
        "model": model,
        "questions": questions,
        "group_size": group,
        "answer_tokens": tokens,
        "trl_batch_sizes": tried,
        "trl_batch_size": best,
        "trl_seconds": common.spread(watch.seconds),
        "trl_reward_seconds": common.spread(reward.seconds),
        "seconds": common.spread(ours),
        "phases": {k: common.spread([r.metrics[f"seconds_{k}"] for r in records]) for k in PHASES},
        "ratio": common.ratio(watch.seconds, ours),
        "sar_difference": difference,
    }


def check(policy: Any, config: TrainConfig, asked: list[Any], seen: dict[str, Any]) -> float:
    """Largest difference in SAR on TRL's answers; prompts and lengths must be the same."""
    wanted = [conditioned_ids(policy.tokenizer, q.text, policy.prompt) for q in asked]
    assert sorted(seen["prompts"]) == sorted(w for w in wanted for _ in range(config.group_size))
    assert all(len(a) == config.max_answer_tokens for a in seen["answers"])
    ids = torch.tensor(seen["answers"])
    mask = torch.ones_like(ids, dtype=torch.bool)
    prefixes = [Prefix(tuple(p)) for p in seen["prompts"]]
    conditioned = answer_logps(policy, prefixes, ids, mask, prefix_index=torch.arange(len(ids)))
    alone = answer_logps(policy, Prefix(tuple(seen["alone"])), ids, mask)
    assert conditioned is not None and alone is not None
    difference = (self_aligned_reward(conditioned, alone, mask) - seen["sar"]).abs().max().item()
    assert difference < 1e-3, f"the two rewards differ by {difference}"
    return difference


def lines(found: dict[str, Any]) -> list[str]:
    tried = ", ".join(f"{size}: {s:.1f} s" for size, s in found["trl_batch_sizes"].items())
    phases = ", ".join(f"{k} {v['median']:.2f}" for k, v in found["phases"].items())
    return [
        f"{found['model']}: {found['questions']} × {found['group_size']} answers of "
        f"{found['answer_tokens']} tokens; a step {common.said(found['seconds'])} s, TRL "
        f"{common.said(found['trl_seconds'])} s at batch size {found['trl_batch_size']} ({tried})",
        f"  steps per second over TRL's: {common.said(found['ratio'])} (target {TARGET}); SAR "
        f"differs by at most {found['sar_difference']:.1e}",
        f"  of a step: {phases}; TRL's reward {found['trl_reward_seconds']['median']:.2f} s",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    common.quiet()
    found = [measure(model, told.rounds) for model in told.models]
    common.keep("against_trl", {"models": found, "lines": [x for f in found for x in lines(f)]})


if __name__ == "__main__":
    main()
