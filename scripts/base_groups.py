"""Sample groups from an untrained policy and write down what every reward pays, by answer and line.

    python scripts/base_groups.py --model tiny --task word_problems --out data/rewards
    python scripts/base_groups.py --model tiny-facts --task fact_stories --out data/rewards
    python scripts/base_groups.py --model smollm2-135m --group-size 16 --max-tokens 64

With `smollm2-135m` the questions are sums and differences of two or three one-digit numbers, asked
and judged as in scripts/smollm2_study.py. What was sampled is kept in parts, and a killed command
goes on.

Two tables a policy: `answers-MODEL.parquet` (one row per answer: sums of log-probs, each reward's
bonus, excess tokens) and `lines-MODEL.parquet` (one row per line: what it reads, v, and what it
feeds, d, both in nats, and what kind of line it is by construction). No text.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from build_tiny import FILLER
from smollm2_study import SYSTEM
from story_account import account

from sarlab.config import TrainConfig
from sarlab.experience import Batch, collect
from sarlab.models import load_policy
from sarlab.prompts import PromptFormat
from sarlab.rewards import REWARDS
from sarlab.rewards.dependence import reward_extras
from sarlab.tasks import load_task
from sarlab.tasks.generated import generator
from sarlab.types import Question

FROM_TEXT = {
    "carry": re.compile(r"\d\+\d(\+1)?=\d+"),
    "result": re.compile(r"\d{3,}\+\d{3,}=\d+"),
    "statement": re.compile(r"\d{3,}\+\d{3,}"),
    "total": re.compile(r"Sum: \d+"),
    "unneeded": re.compile(r"\d+ is not needed\."),
    "answer": re.compile(r"Answer:.*"),
}
COMPUTED = {"copied", "line_ids", "dependence"}  # of what a reward may need
# One-digit sums and differences of two or three terms.
SUMS = "chain_sum?min_terms=2&max_terms=3&min_digits=1&max_digits=1&verifier=lenient:last_number"
CHUNK = 50  # questions sampled at once


def line_kinds(answer: str, question: Question) -> list[str]:
    """What each line is by construction: needed, filler, unneeded, answer or another kind."""
    needed = set()
    if question.task == "fact_stories":
        needed = set(account(answer, tuple(question.metadata["terms"])).needed)
    found = []
    for line in (x for x in answer.splitlines() if x.strip()):
        if line in needed:
            found.append("needed")
        elif line in FILLER:
            found.append("filler")
        else:
            match = [k for k, pattern in FROM_TEXT.items() if pattern.fullmatch(line)]
            found.append(match[0] if match else "other")
    return found


def answers(batch: Batch, first: int) -> Iterator[dict[str, Any]]:
    """One row per answer."""
    inputs = batch.inputs
    bonuses = {
        name: entry.bonus(inputs)
        for name, entry in REWARDS.items()
        if name not in ("correct", "sar_alone") and set(entry.needs) <= COMPUTED
    }
    for row, group in enumerate(inputs.group_ids.tolist()):
        question, own = batch.questions[group], inputs.answer_mask[row]
        yield {
            "group": first + group,
            "question_id": question.id,
            "terms": len(question.metadata.get("terms", ())),
            "correct": bool(inputs.correct[row]),
            "length": int(own.sum()),
            "logp_conditioned": float(inputs.logps_conditioned[row][own].double().sum()),
            "logp_standalone": float(inputs.logps_standalone[row][own].double().sum()),  # type: ignore[index]
            **{name: float(bonus[row]) for name, bonus in bonuses.items()},
        }


def lines(batch: Batch, first: int) -> Iterator[dict[str, Any]]:
    """One row per line that another one follows."""
    inputs = batch.inputs
    v = inputs.logps_conditioned - inputs.logps_standalone  # type: ignore[operator]
    for row, group in enumerate(inputs.group_ids.tolist()):
        question = batch.questions[group]
        kinds = line_kinds(batch.rollouts.texts[row], question)
        place = inputs.line_ids[row]  # type: ignore[index]
        if len(kinds) != int(place.max()) + 1:  # an end token that stands on a line of its own
            continue
        for line, kind in enumerate(kinds[:-1]):
            tokens = place == line
            yield {
                "group": first + group,
                "answer": row,
                "correct": bool(inputs.correct[row]),
                "kind": kind,
                "line": line,
                "lines": len(kinds),
                "tokens": int(tokens.sum()),
                "rest_tokens": int((place > line).sum()),
                "read_nats": float(v[row][tokens].double().sum()),
                "feed_nats": float(inputs.dependence[row, line]),  # type: ignore[index]
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument(
        "--task", choices=("word_problems", "fact_stories"), default="word_problems"
    )
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("data/rewards"))
    args = parser.parse_args()
    policy = load_policy(args.model)
    if args.model == "smollm2-135m":
        args.task, policy = SUMS, replace(policy, prompt=PromptFormat(SYSTEM))
        asked = load_task(SUMS).train_batch(0, args.questions, seed=0)
    else:
        draw, rng = generator(args.task, {}), random.Random("base groups")
        asked = [draw(rng) for _ in range(args.questions)]
    config = TrainConfig(task=args.task, reward="filler_share", max_answer_tokens=args.max_tokens)
    name, chunk = Path(args.model).name, 10 if args.model == "smollm2-135m" else CHUNK
    parts = args.out / f"parts-{name}"
    parts.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(asked), chunk):
        if (parts / f"lines-{first:05d}.parquet").exists():
            continue
        part = asked[first : first + chunk]
        seed = f"base groups {first}"
        batch = collect(policy, part, config, seed=seed, group_size=args.group_size)
        sampled = (part, batch.prefixes, batch.rollouts, batch.rollouts.logps, batch.verdicts)
        extras = reward_extras(policy, "sar_masked", *sampled)
        batch = replace(batch, inputs=replace(batch.inputs, copied=extras["copied"]))
        for kind, rows in (("answers", answers(batch, first)), ("lines", lines(batch, first))):
            table = pd.DataFrame(rows)
            floats = table.select_dtypes("float64").columns
            table[floats] = table[floats].astype("float32")
            table.to_parquet(parts / f"{kind}-{first:05d}.parquet", index=False)
        print(f"{first + len(part)}/{len(asked)} questions", flush=True)
    for kind in ("answers", "lines"):
        table = pd.concat(map(pd.read_parquet, sorted(parts.glob(f"{kind}-*.parquet"))))
        table.to_parquet(args.out / f"{kind}-{name}.parquet", compression="zstd", index=False)
    shutil.rmtree(parts)


if __name__ == "__main__":
    with torch.no_grad():
        main()
