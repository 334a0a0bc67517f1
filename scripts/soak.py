"""A run killed with `kill -9` again and again, against the same run left alone; memory over both.

    python scripts/soak.py                      # 500 steps on tiny, a kill about every 50 steps
    python scripts/soak.py --steps 40 --every 10 --out build/soak

Both must leave the same log (timings aside), the same adapter bytes and the same rollout rows.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FLAT = 0.03  # growth of resident memory, last fifth of the steps against the second, at most


def train(folder: Path, steps: int) -> None:
    """The run itself, in a process of its own; a started one is resumed."""
    import torch

    torch.set_num_threads(1)
    from sarlab.config import TrainConfig
    from sarlab.job.training import run_training

    config = TrainConfig(
        steps=steps,
        questions=2,
        group_size=2,
        mini_batches=1,
        max_answer_tokens=32,
        lora_rank=4,
        eval_every=100,
        eval_questions=20,
        validation_questions=4,
        checkpoint_every=20,
        seed=11,
    )
    run_training(config, folder, resume=folder.exists())


def watch(folder: Path, steps: int, kills: list[int], rng: random.Random) -> list[dict[str, Any]]:
    """Start the run until it ends; kill it once as many steps are logged as ``kills`` names.

    Returns resident memory in MB with the steps logged by then, sampled twice a second, and marks
    the samples after which the process was killed.
    """
    samples: list[dict[str, Any]] = []
    start = 0
    while True:
        command = [sys.executable, __file__, "--train", str(folder), "--steps", str(steps)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        start += 1
        while process.poll() is None:
            time.sleep(0.5)
            done, memory = logged(folder), resident_mb(process.pid)
            if memory:
                samples.append({"start": start, "step": done, "mb": memory})
                with open(folder.with_suffix(".memory.jsonl"), "a") as file:
                    file.write(json.dumps(samples[-1]) + "\n")
            if kills and done >= kills[0]:
                time.sleep(rng.uniform(0, 2))  # anywhere in a step, an evaluation, a checkpoint
                process.send_signal(signal.SIGKILL)
                process.wait()
                after = logged(folder)
                print(f"killed with {after} steps logged (wanted {kills[0]})", flush=True)
                kills = [k for k in kills[1:] if k > after]
        if process.returncode == 0:
            return samples
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"The run in {folder} failed with exit status {process.returncode}.")


def logged(folder: Path) -> int:
    """Steps in metrics.jsonl."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB, 0 where it is gone."""
    done = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return int(done.stdout) / 1024 if done.stdout.strip() else 0.0


def growth(samples: list[dict[str, Any]], steps: int) -> tuple[float, float]:
    """Mean resident memory in MB over the second and over the last fifth of the steps."""
    fifth = steps / 5

    def mean(low: float, high: float) -> float:
        found = [s["mb"] for s in samples if low < s["step"] <= high]
        return sum(found) / len(found)

    return mean(fifth, 2 * fifth), mean(4 * fifth, steps)


def differences(one: Path, two: Path) -> list[str]:
    """What differs between the two runs; [] where nothing does."""
    from sarlab.runs.folder import read_metrics, read_rollouts

    def log(folder: Path) -> list[dict[str, Any]]:
        lines = read_metrics(folder)
        return [{k: v for k, v in m.items() if not k.startswith("seconds_")} for m in lines]

    def said(folder: Path) -> list[dict[str, Any]]:
        messages = json.loads((folder / "run.json").read_text())["messages"]
        return [m for m in messages if "at" not in m]

    found = []
    if log(one) != log(two):
        found.append("metrics.jsonl")
    if said(one) != said(two):
        found.append("messages in run.json")
    for name in ("adapter", "best"):
        files = [
            (folder / name / "adapter_model.safetensors").read_bytes() for folder in (one, two)
        ]
        if files[0] != files[1]:
            found.append(f"{name}/adapter_model.safetensors")
    if not read_rollouts(one).equals(read_rollouts(two)):
        found.append("rollouts.parquet")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--every", type=int, default=50, help="steps from kill to kill, about")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--out", default="build/soak", help="a folder that is made anew")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        train(Path(args.train), args.steps)
        return 0
    from sarlab.runs.folder import read_rollouts

    out, rng = Path(args.out), random.Random(args.seed)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    kills = [
        at + rng.randrange(-args.every // 4, args.every // 4)
        for at in range(args.every, args.steps, args.every)
    ]
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:  # a core each
        waiting = [
            pool.submit(watch, out / name, args.steps, at, rng)
            for name, at in (("alone", []), ("killed", kills))
        ]
        alone, killed = (future.result() for future in waiting)
    early, late = growth(alone, args.steps)
    result = {
        "steps": args.steps,
        "kills": max(s["start"] for s in killed) - 1,
        "differences": differences(out / "alone", out / "killed"),
        "rollout_rows": read_rollouts(out / "killed").num_rows,
        "memory_mb": {"second_fifth": round(early, 1), "last_fifth": round(late, 1)},
        "memory_peak_mb": round(max(s["mb"] for s in alone + killed), 1),
        "memory_growth": round(late / early - 1, 4),
        "minutes": round((time.perf_counter() - began) / 60, 1),
    }
    (out / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if result["differences"] or result["memory_growth"] > FLAT:
        print("The killed run differs, or memory grew.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
