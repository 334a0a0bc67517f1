"""Train arms × seeds on `tiny`, compare them, and draw accuracy over length with intervals.

    python scripts/study.py                             # every arm, all seeds, into runs/study
    python scripts/study.py --arms grpo sa_grpo_0.2     # some of them
    python scripts/study.py --ship data/study           # afterwards: what a reader needs of it
    python scripts/study.py --plan configs/rewards/a.json --out runs/rewards_a   # other arms

A run that is done is not done again, one that was killed goes on from its last checkpoint. Runs
are independent, so they share the machine best as one process a core, one thread each. What went
wrong in one run stands in its run.json, is told at the end, and does not stop the others.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

# Arms whose reward is not SAR skip its pass in training (log_sar); evaluation takes it for all.
_PLAIN: dict[str, Any] = {"log_sar": False}
ARMS: dict[str, dict[str, Any]] = {
    "grpo": {"reward": "correct", "alpha": 0.0, **_PLAIN},
    "sa_grpo_0.2": {"reward": "sar", "alpha": 0.2},
    "sa_grpo_0.1": {"reward": "sar", "alpha": 0.1},
    "sa_grpo_0.3": {"reward": "sar", "alpha": 0.3},
    # At the rate that was the preset's when they ran.
    "sa_ppo_0.2": {"algorithm": "ppo", "reward": "sar", "alpha": 0.2, "learning_rate": 1e-3},
    "ppo": {"algorithm": "ppo", "alpha": 0.0, "reward": "correct", "learning_rate": 1e-3, **_PLAIN},
    "o1_pruner_0.1": {"reward": "o1_pruner", "alpha": 0.1, **_PLAIN},
    "o1_pruner_0.2": {"reward": "o1_pruner", "alpha": 0.2, **_PLAIN},
    "er_0.1": {"reward": "er", "alpha": 0.1, **_PLAIN},
    "er_0.2": {"reward": "er", "alpha": 0.2, **_PLAIN},
    "confidence_0.1": {"reward": "confidence", "alpha": 0.1, **_PLAIN},
    "confidence_0.2": {"reward": "confidence", "alpha": 0.2, **_PLAIN},
    "sar_alone": {"reward": "sar_alone", "alpha": 0.2},
}
HEADLINE = ("grpo", "sa_grpo_0.2")  # the comparison of the README: more seeds
WHOLE = ("grpo-s0", "sa_grpo_0.2-s0")  # shipped with log-probs and the answers that were followed


def run_one(
    arm: str, seed: int, out: str, parameters: dict[str, Any], changes: dict[str, Any]
) -> dict[str, Any]:
    """One run, in a process of its own; a started one is resumed."""
    import torch

    torch.set_num_threads(1)
    _end_with_parent()
    from sarlab.config import TrainConfig
    from sarlab.job.training import run_training

    folder = Path(out) / f"{arm}-s{seed}"
    config = TrainConfig.from_parameters({**parameters, "seed": seed, **changes})
    return run_training(config, folder, resume=(folder / "config.json").exists())


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: a killed study leaves no locks."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def state(folder: Path) -> str:
    """The run's status, or "new"."""
    path = folder / "run.json"
    return str(json.loads(path.read_text())["status"]) if path.exists() else "new"


def train_all(
    jobs: list[tuple[str, int]],
    arms: dict[str, dict[str, Any]],
    out: str,
    steps: int,
    processes: int,
) -> None:
    """Run the jobs, a few at a time and in their order, and tell how each ended."""
    os.environ["OMP_NUM_THREADS"] = "1"
    began = time.perf_counter()
    print(f"{len(jobs)} runs to do, {processes} at a time", flush=True)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        changes = {"steps": steps}
        waiting = {pool.submit(run_one, *job, out, arms[job[0]], changes): job for job in jobs}
        for done, future in enumerate(as_completed(waiting), start=1):
            arm, seed = waiting[future]
            error = future.exception()
            if error is None:
                trained = future.result()["trained"]
                text = f"{trained['accuracy']:.1%} at {trained['mean_length']:.1f} tokens"
            else:
                text = f"failed, {type(error).__name__}: {error}"
            minutes = (time.perf_counter() - began) / 60
            print(f"{done}/{len(jobs)} {arm} seed {seed}: {text} ({minutes:.1f} min)", flush=True)


def compare(out: Path) -> None:
    """Tables and figure of what the runs recorded."""
    from sarlab.evaluation.policies import recorded

    write_study(out, recorded(out), ["# Study: rewards on `tiny`", _facts(out)])


def write_study(
    out: Path, policies: Sequence[Any], head: list[str], *, single_runs: bool = False
) -> None:
    """Tables (Markdown) and the accuracy-length plane (HTML, and PNG where a browser is).

    ``single_runs``: the plane shows runs with intervals over questions, not arms: intervals over
    two seeds would hide everything.
    """
    from sarlab.display.figures import draw
    from sarlab.display.tables import markdown_table
    from sarlab.evaluation.compare import arm_table, differences_table, run_table, values_table
    from sarlab.evaluation.plots import crowd_floor, plane_figure

    arms = arm_table(policies, "GRPO")
    text = [
        *head,
        "## What each arm scores",
        markdown_table(values_table(arms)),
        "## Against GRPO, paired by question and seed",
        markdown_table(differences_table(arms)),
        "## Against the untrained policy",
        markdown_table(differences_table(arm_table(policies))),
    ]
    (out / "study.md").write_text("\n\n".join(text), encoding="utf-8")
    arms.to_json(out / "study.json", orient="records", indent=1)
    runs, floor = run_table(policies), crowd_floor(arms["accuracy"].tolist())
    if single_runs:
        figure = plane_figure(runs, accuracy_from=floor)
    else:
        figure = plane_figure(arms, runs=runs, accuracy_from=floor)
    figure.write_html(out / "accuracy_length.html", include_plotlyjs="cdn")
    picture = draw(figure)
    if picture is not None:
        (out / "accuracy_length.png").write_bytes(picture)
    print(f"{out / 'study.md'}, {out / 'accuracy_length.html'}")


def _facts(out: Path) -> str:
    """Runs, their machine and their time, from the runs' own records."""
    folders = sorted(p.parent for p in out.glob("*/summary.json"))
    summaries = [json.loads((f / "summary.json").read_text()) for f in folders]
    seconds = [s["train_seconds"] for s in summaries]
    machines = ", ".join(sorted({s["hardware"] for s in summaries}))
    steps = ", ".join(sorted({str(s["steps"]) for s in summaries}))
    failed = [p.parent.name for p in sorted(out.glob("*/run.json")) if state(p.parent) == "failed"]
    return (
        f"{len(folders)} runs of {steps} steps (16 × 8 answers per step, PPO 128 × 1), "
        f"{sum(seconds) / 3600:.1f} hours of training in all, {min(seconds) / 60:.1f} to "
        f"{max(seconds) / 60:.1f} minutes per run ({machines}). "
        f"Failed: {', '.join(failed) or 'none'}. Made by `make study`."
    )


def ship(out: Path, target: Path) -> None:
    """Copy what notebook 03 and the README's figures need: no weights, no log-probs per token."""
    for summary in sorted(out.glob("*/summary.json")):
        source, folder = summary.parent, target / summary.parent.name
        ship_run(source, folder, logps=source.name in WHOLE)
        if source.name in WHOLE:
            for part in sorted((source / "rollouts.parquet").glob("probe-*.parquet")):
                shutil.copy(part, folder / "rollouts.parquet" / part.name)
    ship_tables(out, target)


def ship_tables(out: Path, target: Path) -> None:
    """Copy what :func:`write_study` made."""
    for made in ("study.md", "study.json", "accuracy_length.png"):
        if (out / made).exists():  # the picture needs a browser
            shutil.copy(out / made, target / made)


def ship_run(source: Path, folder: Path, *, logps: bool = False) -> None:
    """Copy one run: its records and held-out answers, no weights, log-probs on request."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "rollouts.parquet").mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "run.json", "metrics.jsonl", "summary.json"):
        shutil.copy(source / name, folder / name)
    for part in sorted((source / "rollouts.parquet").glob("heldout_*.parquet")):
        table = pq.read_table(part)
        for name in () if logps else ("logps_conditioned", "logps_standalone"):
            at = table.schema.get_field_index(name)
            nothing = pa.nulls(len(table), table.schema.field(at).type)
            table = table.set_column(at, table.schema.field(at), nothing)
        pq.write_table(table, folder / "rollouts.parquet" / part.name, compression="zstd")


def read_plan(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Arms with what they have in common, and the steps, of a JSON file that plans a study."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    return {n: {**plan["common"], **arm} for n, arm in plan["arms"].items()}, plan["steps"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", type=Path, help="a JSON file with arms, common and steps")
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--headline-seeds", type=int, default=5, help="for grpo and sa_grpo_0.2")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--ship", type=Path, help="copy the results (without weights) to a folder")
    args = parser.parse_args()
    arms, steps = read_plan(args.plan) if args.plan else (ARMS, 60)
    chosen = args.arms or list(arms)
    if unknown := sorted(set(chosen) - set(arms)):
        parser.error(f"unknown arms {', '.join(unknown)}; there are {', '.join(arms)}")
    headline = () if args.plan else HEADLINE
    most = max(args.seeds, args.headline_seeds if headline else 0)
    jobs = [
        (arm, seed)
        for seed in range(args.first_seed, most)
        for arm in chosen
        if seed < (args.headline_seeds if arm in headline else args.seeds)
    ]
    todo = [job for job in jobs if state(args.out / f"{job[0]}-s{job[1]}") != "finished"]
    if todo:
        train_all(todo, arms, str(args.out), args.steps or steps, args.processes)
    if not args.plan:
        compare(args.out)
    if args.ship:
        ship(args.out, args.ship)
    left = [f"{a}-s{s}" for a, s in jobs if state(args.out / f"{a}-s{s}") != "finished"]
    if left:
        print(f"Not finished: {', '.join(left)}. Run the command again.", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
