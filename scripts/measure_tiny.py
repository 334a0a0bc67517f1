"""Measure an embedded policy before any reinforcement learning: its card's tables, its criteria.

python scripts/measure_tiny.py --model tiny --questions 8000
python scripts/measure_tiny.py --model tiny-facts --task fact_stories --out base_criteria.json
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from build_tiny import FILLER
from scipy.stats import bootstrap
from story_account import account

from sarlab.config import TrainConfig
from sarlab.experience import collect
from sarlab.models import load_policy
from sarlab.rewards.diagnostics import bonus_diagnostics
from sarlab.sar import self_aligned_reward
from sarlab.tasks.generated import generator

COLUMN = re.compile(r"^\d\+\d(\+1)?=\d+$", re.MULTILINE)
CHUNK = 500  # questions sampled at once


def interval(values: torch.Tensor) -> list[float]:
    """95% bootstrap interval of the mean."""
    if len(values) < 2 or values.std() == 0:
        return [values.mean().item()] * 2
    found = bootstrap(
        (values.numpy(),), lambda x, axis: x.mean(axis=axis), n_resamples=2000, rng=0
    ).confidence_interval
    return [round(float(found.low), 4), round(float(found.high), 4)]


def kinds(task: str, texts: list[str], terms: list[list[int]]) -> dict[str, torch.Tensor]:
    """Which answers spell out all their steps, and which none."""
    if task == "word_problems":
        steps = torch.tensor([bool(COLUMN.search(t)) for t in texts])
        return {"steps": steps, "no steps": ~steps}
    accounts = [account(t, tuple(x)) for t, x in zip(texts, terms, strict=True)]
    steps = torch.tensor([a.missing_steps == 0 for a in accounts])
    none = torch.tensor([not a.needed for a in accounts])
    found = {"steps": steps, "no steps": none, "some steps": ~steps & ~none}
    count = torch.tensor([len(x) for x in terms])
    for k in sorted(set(count.tolist())):
        found[f"{k} terms"] = count == k
        found[f"{k} terms, steps"] = steps & (count == k)
        found[f"{k} terms, no steps"] = none & (count == k)
    return found


def accuracy_table(policy: Any, task: str, questions: int, config: TrainConfig) -> dict[str, Any]:
    """Accuracy and length of fresh single answers, by what they hold."""
    draw, rng = generator(task, {}), random.Random("measure tiny")
    asked = [draw(rng) for _ in range(questions)]
    right, lengths, texts, cut = [], [], [], []
    for start in range(0, questions, CHUNK):
        part = asked[start : start + CHUNK]
        seed = f"measure tiny {start}"
        batch = collect(policy, part, config, seed=seed, group_size=1, standalone=False)
        right.append(batch.inputs.correct)
        lengths.append(batch.rollouts.lengths.float())
        cut.append(batch.rollouts.truncated.float())
        texts += batch.rollouts.texts
    correct, length = torch.cat(right), torch.cat(lengths)
    filler = torch.tensor([any(s in t for s in FILLER) for t in texts])
    rows = {"all": torch.ones_like(filler), "filler": filler, "no filler": ~filler}
    for name, chosen in kinds(task, texts, [q.metadata["terms"] for q in asked]).items():
        rows |= {name: chosen}
        if "terms" not in name:
            rows |= {f"{name}, filler": chosen & filler, f"{name}, no filler": chosen & ~filler}
    table: dict[str, Any] = {
        name: {
            "answers": int(chosen.sum()),
            "accuracy": round(correct[chosen].mean().item(), 4),
            "accuracy_ci95": interval(correct[chosen]),
            "mean_length": round(length[chosen].mean().item(), 1),
            "mean_length_ci95": interval(length[chosen]),
        }
        for name, chosen in rows.items()
        if chosen.any()
    }
    table["truncated"] = round(torch.cat(cut).mean().item(), 4)
    return table


def group_table(policy: Any, task: str, groups: int, config: TrainConfig) -> dict[str, Any]:
    """V and SAR within groups of eight answers: do length and information come apart?"""
    draw, rng = generator(task, {}), random.Random("measure groups")
    batch = collect(
        policy, [draw(rng) for _ in range(groups)], config, seed="measure groups", group_size=8
    )
    inputs = batch.inputs
    assert inputs.logps_standalone is not None
    v = (inputs.logps_conditioned - inputs.logps_standalone).masked_fill(~inputs.answer_mask, 0)
    information = v.sum(dim=1).double().numpy()
    sar = self_aligned_reward(inputs.logps_conditioned, inputs.logps_standalone, inputs.answer_mask)
    n, right = inputs.lengths.double().numpy(), inputs.correct.numpy() > 0
    ids, bonus = inputs.group_ids.numpy(), sar.double().numpy()
    spread = [
        information[chosen].std(ddof=1) / information[chosen].mean()
        for g in np.unique(ids)
        if (chosen := (ids == g) & right).sum() > 1
    ]
    diagnostics = bonus_diagnostics(sar, inputs)
    return {
        "groups": groups,
        "information_nats": round(float(information.mean()), 2),
        "cv_information_right": round(float(np.mean(spread)), 4),
        "r2_sar_on_length": round(length_r2(bonus, information, n, ids, right | True), 4),
        "r2_sar_on_length_right": round(length_r2(bonus, information, n, ids, right), 4),
        **{k: None if x is None else round(x, 4) for k, x in diagnostics.items()},
    }


def length_r2(
    bonus: np.ndarray, information: np.ndarray, n: np.ndarray, ids: np.ndarray, chosen: np.ndarray
) -> float:
    """Squared correlation of SAR and 1 − exp(−c/n) within groups, c the group's mean V."""
    ours, curve = [], []
    for g in np.unique(ids):
        rows = (ids == g) & chosen
        if rows.sum() > 1:
            fit = 1 - np.exp(-information[rows].mean() / n[rows])
            ours.append(bonus[rows] - bonus[rows].mean())
            curve.append(fit - fit.mean())
    return float(np.corrcoef(np.concatenate(ours), np.concatenate(curve))[0, 1] ** 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument(
        "--task", choices=("word_problems", "fact_stories"), default="word_problems"
    )
    parser.add_argument("--questions", type=int, default=8000)
    parser.add_argument("--groups", type=int, default=300)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    policy = load_policy(args.model)
    config = TrainConfig(task=args.task, max_answer_tokens=256)
    table = {
        **accuracy_table(policy, args.task, args.questions, config),
        "within_groups": group_table(policy, args.task, args.groups, config),
    }
    print(json.dumps(table, indent=1))
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
