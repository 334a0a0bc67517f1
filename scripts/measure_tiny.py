"""Measure the embedded policy before any reinforcement learning, and print its card's table.

python scripts/measure_tiny.py --model data/models/tiny --questions 6000
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

import torch
from build_tiny import FILLER
from scipy.stats import bootstrap

from sarlab.models import load_policy
from sarlab.prompts import conditioned_ids
from sarlab.rollout import sample
from sarlab.scoring import Prefix
from sarlab.tasks import verify
from sarlab.tasks.word_problems import draw_problem

COLUMN = re.compile(r"^\d\+\d(\+1)?=\d+$", re.MULTILINE)


def interval(values: torch.Tensor) -> list[float]:
    """95% bootstrap interval of the mean."""
    if len(values) < 2 or values.std() == 0:
        return [values.mean().item()] * 2
    found = bootstrap(
        (values.numpy(),), lambda x, axis: x.mean(axis=axis), n_resamples=2000, rng=0
    ).confidence_interval
    return [round(float(found.low), 4), round(float(found.high), 4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="data/models/tiny")
    parser.add_argument("--questions", type=int, default=6000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    policy = load_policy(args.model)
    rng = random.Random("measure tiny")
    problems = [draw_problem(rng) for _ in range(args.questions)]
    prefixes = [
        Prefix(tuple(conditioned_ids(policy.tokenizer, p.question, policy.prompt)))
        for p in problems
    ]
    rollouts = sample(policy, prefixes, group_size=1, max_answer_tokens=256, seed="measure tiny")
    right = torch.tensor(
        [float(verify(t, p.answer)) for t, p in zip(rollouts.texts, problems, strict=True)]
    )
    lengths = rollouts.lengths.float()
    steps = torch.tensor([bool(COLUMN.search(t)) for t in rollouts.texts])
    filler = torch.tensor([any(s in t for s in FILLER) for t in rollouts.texts])
    rows = {
        "all": torch.ones_like(steps),
        "steps": steps,
        "no steps": ~steps,
        "filler": filler,
        "no filler": ~filler,
        "steps, filler": steps & filler,
        "steps, no filler": steps & ~filler,
        "no steps, filler": ~steps & filler,
        "no steps, no filler": ~steps & ~filler,
    }
    table = {
        name: {
            "answers": int(chosen.sum()),
            "accuracy": round(right[chosen].mean().item(), 4),
            "accuracy_ci95": interval(right[chosen]),
            "mean_length": round(lengths[chosen].mean().item(), 1),
            "mean_length_ci95": interval(lengths[chosen]),
        }
        for name, chosen in rows.items()
        if chosen.any()
    }
    table["truncated"] = round(rollouts.truncated.float().mean().item(), 4)
    print(json.dumps(table, indent=1))
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
