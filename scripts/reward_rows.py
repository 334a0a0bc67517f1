"""What the runs of a plan leave for docs/EVIDENCE.md: steps and held-out answers, no text.

    python scripts/reward_rows.py runs/rewards_f --out data/rewards/f

Writes `OUT-steps.parquet` (each step's numbers of every finished run) and `OUT-heldout.parquet`
(its held-out answers: right or not, tokens, tokens of filler).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from build_tiny import FILLER

from sarlab.models import load_policy


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    steps = steps_table(args.runs)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    steps.to_parquet(f"{args.out}-steps.parquet", compression="zstd", index=False)
    held = heldout_table(args.runs)
    held.to_parquet(f"{args.out}-heldout.parquet", compression="zstd", index=False)


if __name__ == "__main__":
    main()
