"""Peak memory of a training step against TRL's at the same work, each in a process of its own.

    python benchmarks/memory.py [MODEL ...]

The work is that of against_trl.py, both at the settings that are fastest (this library's own, TRL's
best batch size), and both at the smallest: micro-batches of ``SMALL`` tokens here, there the
smallest of the three batch sizes. Counted are resident bytes at their highest during two steps: the
whole process, and what comes on top of what is resident before the first step (packages and model
loaded).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import common
from against_trl import SIZES, config_of

from sarlab.train import grpo_steps

STEPS = 2
SMALL = 256  # tokens; about two answers with their prompts


def run_here(arm: str, model: str, size: int) -> dict[str, Any]:
    config = config_of(model, STEPS, token_budget=size if arm == "ours" else 0)
    task = common.one_batch(config.questions)
    if arm == "ours":
        steps = grpo_steps(common.fresh_state(model, config), task, config)
        with common.peak_memory() as peak:
            before = common.resident()
            for _ in steps:
                pass
            return {"before": before, "peak": peak()}
    from trl_arm import trainer_of

    trainer, _, _ = trainer_of(config, task.train_batch(1, config.questions, 0), size, STEPS)
    with common.peak_memory() as peak:
        before = common.resident()
        trainer.train()
        return {"before": before, "peak": peak()}


def run_apart(arm: str, model: str, size: int) -> dict[str, Any]:
    command = [sys.executable, __file__, model, "--arm", arm, "--size", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "size": size}


def fastest_batch_size(model: str) -> int:
    """What against_trl.py found, or the middle one where it has not run."""
    path = common.RESULTS / "against_trl.json"
    known = json.loads(path.read_text())["models"] if path.exists() else []
    return next((m["trl_batch_size"] for m in known if m["model"] == model), SIZES[model][3][1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(SIZES))
    parser.add_argument("--arm", choices=("ours", "trl"))
    parser.add_argument("--size", type=int, default=0, help="token budget, TRL's batch size")
    told = parser.parse_args()
    common.quiet()
    if told.arm:
        print(json.dumps(run_here(told.arm, told.models[0], told.size)))
        return
    found, lines = {}, []
    for model in told.models:
        pairs = {"fastest": (0, fastest_batch_size(model)), "smallest": (SMALL, SIZES[model][3][0])}
        found[model] = {
            name: {"ours": run_apart("ours", model, mine), "trl": run_apart("trl", model, theirs)}
            for name, (mine, theirs) in pairs.items()
        }
        for name, pair in found[model].items():
            size = pair["trl"]["size"]
            for arm, what in (("ours", "sarlab"), ("trl", f"TRL, batch size {size}")):
                peak, before = pair[arm]["peak"], pair[arm]["before"]
                lines.append(
                    f"{model}, {name}, {what}: peak {peak / 2**20:.0f} MiB, of these "
                    f"{(peak - before) / 2**20:.0f} MiB during the steps"
                )
    common.keep("memory", {"models": found, "lines": lines})


if __name__ == "__main__":
    main()
