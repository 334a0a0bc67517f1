"""Train SmolLM2-135M with GRPO and with SA-GRPO on one-digit sums, and compare.

    python scripts/smollm2_study.py                       # 2 arms × 2 seeds, into runs/smollm2
    python scripts/smollm2_study.py --ship data/smollm2   # afterwards: what a reader needs of it

Each run is notebook 02 in batch (papermill). A run that is done is not done again, one that was
killed goes on from its last checkpoint; run the same command again. Answers are short and few
(8 questions × 4 answers a step). --processes 2 trains two runs side by side, one thread each.

A policy has to start between 20% and 60%, or groups have nothing to compare. As the library asks
by default SmolLM2 starts at 0%: it does not write `Answer:`. Asked with ``SYSTEM`` and judged by
its last number (lenient.py) it was right 21 times in 100 on 40 questions, 4 answers each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from study import ship_run, ship_tables, state, write_study

from sarlab.display.tables import markdown_table
from sarlab.evaluation.compare import differences_table, run_table, values_table
from sarlab.evaluation.policies import fresh
from sarlab.models import REPOSITORY, load_policy, save_prompt_format
from sarlab.prompts import PromptFormat
from sarlab.runs.parameters import command_parameters

NOTEBOOK = REPOSITORY / "notebooks" / "02_train_sa_grpo.ipynb"
# One-digit sums and differences as reasoning-gym's chain_sum asks for them.
TASK = "chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1&verifier=lenient:last_number"
SYSTEM = "You are good at arithmetic. End with the result."
SAMPLES = 8  # answers a held-out question in the comparison
ARMS: dict[str, dict[str, Any]] = {
    "grpo": {"reward": "correct", "alpha": 0.0},
    "sa_grpo_0.2": {"reward": "sar", "alpha": 0.2},
}
COMMON: dict[str, Any] = {
    "task": TASK,
    "questions": 8,
    "group_size": 4,
    "max_answer_tokens": 64,
    "learning_rate": 3e-4,
    "eval_questions": 100,
    "validation_questions": 24,
    "eval_every": 20,
    "checkpoint_every": 5,
}


def model_folder(out: Path) -> Path:
    """A copy of the embedded model that is asked with ``SYSTEM``."""
    folder = out / "model"
    if not (folder / "sarlab.json").exists():
        policy = load_policy("smollm2-135m", dtype="float32", device="cpu")
        policy.model.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
        save_prompt_format(replace(policy, prompt=PromptFormat(SYSTEM)), folder)
    return folder


def train(name: str, parameters: dict[str, Any], out: Path) -> int:
    """One run of the notebook, resumed where it was begun; papermill's exit status."""
    resume = (out / name / "config.json").exists()
    told = {**COMMON, **parameters, "name": name, "out": str(out), "resume": resume}
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), str(out / f"{name}.ipynb")]
    command += ["-k", "python3", "--no-progress-bar"]
    for key, value in told.items():
        command += ["-r" if isinstance(value, str) else "-p", key, str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # where the verifier is
    environment.setdefault("HF_HUB_OFFLINE", "1")
    with (out / f"{name}.log").open("a") as log:
        return subprocess.run(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False
        ).returncode


def compare(done: list[Path], out: Path) -> None:
    """All policies answer the held-out questions anew, ``SAMPLES`` times each; tables and figure.

    There are few one-digit sums: about forty are held out, and those that the runs themselves
    leave for their last test are fewer still.
    """
    limit = COMMON["max_answer_tokens"]
    policies = fresh(done, samples=SAMPLES, max_answer_tokens=limit, device="cpu")
    seeds = len(done) // len(ARMS)
    count = len(policies[0].questions)
    write_study(
        out,
        policies,
        [
            "# SmolLM2-135M on one-digit sums and differences",
            f"{len(done)} runs ({seeds} seeds per arm), the policy after its last step; {count} "
            f"held-out questions, {SAMPLES} answers each at temperature 1. "
            "Made by `scripts/smollm2_study.py`.",
        ],
        single_runs=True,
    )
    parts = ["## Every run", markdown_table(values_table(run_table(policies)))]
    for seed in range(seeds):
        pair = run_table([p for p in policies if p.seed == seed], f"grpo-s{seed}")
        parts += [f"## Seed {seed}, paired by question", markdown_table(differences_table(pair))]
    with (out / "study.md").open("a", encoding="utf-8") as file:
        file.write("\n\n" + "\n\n".join(parts) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2"))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--ship", type=Path, help="copy the results (without weights) to a folder")
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="as notebook 02"
    )
    args = parser.parse_args()
    changes = command_parameters([word for pair in args.p for word in ("-p", *pair)])
    args.out.mkdir(parents=True, exist_ok=True)
    model = str(model_folder(args.out))
    # Seed by seed, so that a study that is stopped has both arms of the first.
    jobs = {
        f"{arm}-s{seed}": {
            **ARMS[arm],
            "model": model,
            "seed": seed,
            "steps": args.steps,
            **changes,
        }
        for seed in range(args.seeds)
        for arm in args.arms
    }
    todo = {n: p for n, p in jobs.items() if state(args.out / n) != "finished"}
    print(f"{len(jobs)} runs, {len(jobs) - len(todo)} finished before", flush=True)

    def one(name: str) -> None:
        began = time.perf_counter()
        status = train(name, todo[name], args.out)
        minutes = (time.perf_counter() - began) / 60
        ended = "finished" if status == 0 else f"stopped, see {args.out / name}.log"
        print(f"{name}: {ended} ({minutes:.1f} min)", flush=True)

    with ThreadPoolExecutor(args.processes) as pool:
        list(pool.map(one, todo))
    left = [name for name in jobs if state(args.out / name) != "finished"]
    if not left:
        compare([args.out / name for name in jobs], args.out)
    if args.ship and not left:
        for name in jobs:
            ship_run(args.out / name, args.ship / name)
        ship_tables(args.out, args.ship)
    if left:
        print(f"Not finished: {', '.join(left)}. Run the command again.", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
