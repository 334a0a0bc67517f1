"""All five questions in turn, each in a process of its own, and one table of what came out.

    python benchmarks/run.py [--rounds 5] [--only sar_cost against_trl ...]

Writes results/bench.md, which the README quotes, and results/bench.json with everything measured.
With ``--only`` the other figures are taken as they were measured last.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import torch

NAMES = ("sar_cost", "against_trl", "scoring", "memory", "growth")
WITHOUT_ROUNDS = {"memory"}
HEAD = "| what | measured, median (smallest to largest) | target | |\n| --- | --- | --- | --- |"


def run(name: str, rounds: int) -> float:
    began = time.perf_counter()
    command = [sys.executable, str(Path(__file__).with_name(f"{name}.py"))]
    command += [] if name in WITHOUT_ROUNDS else ["--rounds", str(rounds)]
    print(f"--- {name}", flush=True)
    subprocess.run(command, check=True, env={**os.environ, "TQDM_DISABLE": "1"})
    return time.perf_counter() - began


def mark(holds: bool) -> str:
    return "holds" if holds else "**missed**"


def rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """The table's rows: what, measured, target, whether it holds."""
    for m in found["sar_cost"]["models"]:
        floor = m["floor"]
        size = f"`{m['model']}`, {m['questions']} × {m['group_size']} × {m['answer_tokens']} tokens"
        yield (
            f"SAR's second perplexity over its floor ({size}; floor "
            f"{floor['operations'] / 1e9:.0f} GFLOP, {floor['bytes'] / 1e6:.0f} MB)",
            common.said(m["over_floor"]) + " ×",
            "≤ 1.5",
            mark(m["over_floor"]["median"] <= 1.5),
        )
        yield f"a step with SAR over one without ({size})", common.said(m["step_ratio"], 3), "", ""
    for m in found["against_trl"]["models"]:
        size = f"`{m['model']}`, {m['questions']} × {m['group_size']} × {m['answer_tokens']} tokens"
        yield (
            f"steps per second over TRL's at batch size {m['trl_batch_size']} ({size}; "
            f"{m['seconds']['median']:.2f} s against {m['trl_seconds']['median']:.2f} s)",
            common.said(m["ratio"]) + " ×",
            "≥ 2",
            mark(m["ratio"]["median"] >= 2),
        )
    model = found["scoring"]["model"]
    for place, row in enumerate(found["scoring"]["rows"]):
        for key, other in (("over_plain", "plain loop"), ("over_lm_eval", "lm-eval")):
            yield (
                f"16 answers under both contexts over {other} (`{model}`, question of "
                f"{row['question_tokens']} tokens)",
                common.said(row[key]) + " ×",
                "" if place else "≥ 1.8",
                "" if place else mark(row[key]["median"] >= 1.8),
            )
    for model, pairs in found["memory"]["models"].items():
        for name, pair in pairs.items():
            mine, theirs = pair["ours"]["peak"], pair["trl"]["peak"]
            yield (
                f"peak memory of a step over TRL's, both at their {name} setting (`{model}`, TRL "
                f"at batch size {pair['trl']['size']}; {mine / 2**20:.0f} against "
                f"{theirs / 2**20:.0f} MiB)",
                f"{mine / theirs:.2f} ×",
                "≤ 1",
                mark(mine <= theirs),
            )
    for name, points in found["growth"]["series"].items():
        growth = found["growth"]["exponents"][name]
        for quantity in ("seconds", "memory"):
            errors = [p[f"{quantity}_error"] for p in points]
            yield (
                f"{quantity} of a step grow with tokens to the power of ({name}; calculator off by "
                f"{min(errors):+.0%} to {max(errors):+.0%})",
                f"{growth[quantity]:.2f}",
                "near 1",
                mark(growth[quantity] <= 1.15),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=NAMES, default=list(NAMES))
    told = parser.parse_args()
    began = time.perf_counter()
    took = {name: run(name, told.rounds) for name in told.only}
    found = {name: json.loads((common.RESULTS / f"{name}.json").read_text()) for name in NAMES}
    minutes = (time.perf_counter() - began) / 60
    machine = found["sar_cost"]["machine"]
    how = "make bench"
    if set(told.only) != set(NAMES):
        how = f"benchmarks/run.py --only {' '.join(told.only)}"
    text = [
        f"Measured on {datetime.date.today().isoformat()}: {machine}. Ratios are taken side by "
        f"side in one process, {told.rounds} rounds. Made by `{how}` ({minutes:.0f} minutes)"
        + ("." if how == "make bench" else "; the rest is of an earlier call."),
        "",
        HEAD,
        *(f"| {' | '.join(row)} |" for row in rows(found)),
        "",
        "```",
        *(line for name in NAMES for line in found[name]["lines"]),
        "```",
        "",
    ]
    (common.RESULTS / "bench.md").write_text("\n".join(text))
    whole = {"seconds_taken": took, "threads": torch.get_num_threads(), **found}
    (common.RESULTS / "bench.json").write_text(json.dumps(whole, indent=1) + "\n")
    print(f"{common.RESULTS / 'bench.md'}, {minutes:.1f} minutes")


if __name__ == "__main__":
    main()
