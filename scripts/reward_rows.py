"""What the runs of a plan leave: steps, and answers at the checkpoint that the plan asks for.

    python scripts/reward_rows.py runs/rewards_a --base-length 61.8 --out data/rewards/a

Writes `OUT-steps.parquet` (each step's numbers of every finished run), `OUT-heldout.parquet` (its
held-out answers: right or not, tokens, tokens of filler) and, for stories whose needed length is
known, `OUT-answers.parquet`: fresh answers to held-out stories at the first checkpoint after the
mean training length of five steps fell below 75% of the base's, and at the last one. A checkpoint
that was answered before is not answered again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from build_tiny import FILLER

from sarlab.config import TrainConfig
from sarlab.experience import collect
from sarlab.models import load_policy
from sarlab.tasks import load_task
from sarlab.tasks.fact_stories import account
from sarlab.types import Question

HARD = 5  # terms; the primary quantity looks at stories with as many or more
ALL, HARD_OF = 1000, 3000  # all of the first stories, the hard ones of three times as many
SHARE, WINDOW, CHUNK = 0.75, 5, 500


def finished(out: Path) -> Iterator[tuple[str, int, Path]]:
    """Arm, seed and folder of each finished run."""
    for path in sorted(out.glob("*/run.json")):
        if json.loads(path.read_text())["status"] == "finished":
            arm, _, seed = path.parent.name.rpartition("-s")
            yield arm, int(seed), path.parent


def steps_table(out: Path) -> pd.DataFrame:
    """One row per step of every finished run, numbers only."""
    rows = []
    for arm, seed, folder in finished(out):
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            step = json.loads(line)
            numbers = {k: v for k, v in step.items() if not isinstance(v, (list, str))}
            rows.append({"arm": arm, "seed": seed, **numbers})
    return pd.DataFrame(rows)


def heldout_table(out: Path) -> pd.DataFrame:
    """One row per held-out answer of every finished run, without text."""
    tables = []
    for arm, seed, folder in finished(out):
        model = json.loads((folder / "config.json").read_text())["model"]
        tokenizer = load_policy(model).tokenizer
        (part,) = (folder / "rollouts.parquet").glob("heldout_trained-*.parquet")
        held = pd.read_parquet(part, columns=["question_id", "answer", "correct", "length"])
        padding = ["".join(f"{s}\n" for s in a.splitlines() if s in FILLER) for a in held.answer]
        ids = [tokenizer(text, add_special_tokens=False).input_ids for text in padding]
        held = held.drop(columns="answer").assign(arm=arm, seed=seed)
        tables.append(held.assign(filler_tokens=list(map(len, ids))))
    return pd.concat(tables) if tables else pd.DataFrame()


def crossing(lengths: pd.Series, limit: float, every: int) -> int | None:
    """The first checkpoint at or after the step whose five-step mean is below the limit."""
    below = lengths.rolling(WINDOW).mean() < limit
    if not below.any():
        return None
    step = int(below.idxmax())
    return -(-step // every) * every


def heldout(task: str) -> list[Question]:
    """The stories that are answered: the first 1,000, and the hard ones up to 3,000."""
    asked = list(load_task(task).heldout(HARD_OF))
    return asked[:ALL] + [q for q in asked[ALL:] if len(q.metadata["terms"]) >= HARD]


def answer_rows(checkpoint: Path, config: TrainConfig) -> list[dict[str, Any]]:
    """One answer to each held-out story; what it needed and what it spent."""
    policy, rows = load_policy(str(checkpoint)), []
    asked = heldout(config.task)
    for start in range(0, len(asked), CHUNK):
        part = asked[start : start + CHUNK]
        batch = collect(policy, part, config, seed=f"plan {start}", group_size=1, standalone=False)
        for row, (question, text) in enumerate(zip(part, batch.rollouts.texts, strict=True)):
            needed = account(text, tuple(question.metadata["terms"]))
            ids = policy.tokenizer("\n".join(needed.excess), add_special_tokens=False).input_ids
            rows.append(
                {
                    "story": start + row,
                    "terms": len(question.metadata["terms"]),
                    "correct": bool(batch.inputs.correct[row]),
                    "length": int(batch.rollouts.lengths[row]),
                    # A line break follows each line in excess.
                    "excess_tokens": len(ids) + bool(needed.excess),
                    "missing_steps": needed.missing_steps,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--base-length", type=float, help="mean tokens per answer of the base")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    steps = steps_table(args.runs)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    steps.to_parquet(f"{args.out}-steps.parquet", compression="zstd", index=False)
    held = heldout_table(args.runs)
    held.to_parquet(f"{args.out}-heldout.parquet", compression="zstd", index=False)
    if args.base_length is None:
        return
    target = Path(f"{args.out}-answers.parquet")
    tables = [pd.read_parquet(target)] if target.exists() else []
    done = {tuple(x) for t in tables for x in t[["arm", "seed", "at"]].drop_duplicates().values}
    for arm, seed, folder in finished(args.runs):
        saved = json.loads((folder / "config.json").read_text())
        config = TrainConfig.from_parameters({**saved, "reward": "correct", "alpha": 0.0})
        own = steps[(steps.arm == arm) & (steps.seed == seed)].set_index("step")["mean_length"]
        at = crossing(own, SHARE * args.base_length, config.checkpoint_every)
        for name, step in (("crossing", at), ("end", config.steps)):
            if step is None or (arm, seed, name) in done:
                continue
            rows = answer_rows(folder / "checkpoints" / f"step-{step:06d}", config)
            head = {"arm": arm, "seed": seed, "at": name, "step": step}
            tables.append(pd.DataFrame([{**head, **row} for row in rows]))
            pd.concat(tables).to_parquet(target, compression="zstd", index=False)
            print(arm, seed, name, step, flush=True)


if __name__ == "__main__":
    main()
