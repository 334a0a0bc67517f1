"""Peak memory of a training step against TRL's at the same work, each in a process of its own.

    python benchmarks/memory.py [MODEL ...]

The work is that of against_trl.py, TRL at the smallest of its batch sizes (where it needs least)
and at the one that was fastest. Counted are resident bytes at their highest during two steps: the
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
from against_trl import SIZES

from sarlab.config import TrainConfig
from sarlab.train import grpo_steps

STEPS = 2


def run_here(arm: str, model: str, batch_size: int) -> dict[str, Any]:
    questions, group, tokens, _ = SIZES[model]
    config = TrainConfig(
        model=model,
        questions=questions,
        group_size=group,
        max_answer_tokens=tokens,
        warmup_steps=0,
        steps=STEPS,
    )
    task = common.one_batch(questions)
    if arm == "ours":
        steps = grpo_steps(common.fresh_state(model, config), task, config)
        with common.peak_memory() as peak:
            before = common.resident()
            for _ in steps:
                pass
            return {"before": before, "peak": peak()}
    from trl_arm import trainer_of

    trainer, _, _ = trainer_of(config, task.train_batch(1, questions, 0), batch_size, STEPS)
    with common.peak_memory() as peak:
        before = common.resident()
        trainer.train()
        return {"before": before, "peak": peak()}


def run_apart(arm: str, model: str, batch_size: int = 0) -> dict[str, Any]:
    command = [sys.executable, __file__, model, "--arm", arm, "--batch-size", str(batch_size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "batch_size": batch_size}


def fastest_batch_size(model: str) -> int:
    """What against_trl.py found, or the middle one where it has not run."""
    path = common.RESULTS / "against_trl.json"
    known = json.loads(path.read_text())["models"] if path.exists() else []
    return next((m["trl_batch_size"] for m in known if m["model"] == model), SIZES[model][3][1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(SIZES))
    parser.add_argument("--arm", choices=("ours", "trl"))
    parser.add_argument("--batch-size", type=int, default=0)
    told = parser.parse_args()
    common.quiet()
    if told.arm:
        print(json.dumps(run_here(told.arm, told.models[0], told.batch_size)))
        return
    found, lines = {}, []
    for model in told.models:
        sizes = sorted({SIZES[model][3][0], fastest_batch_size(model)})
        arms = {"sarlab": run_apart("ours", model)}
        arms |= {f"TRL, batch size {size}": run_apart("trl", model, size) for size in sizes}
        found[model] = arms
        for name, row in arms.items():
            above = (row["peak"] - row["before"]) / 2**20
            lines.append(
                f"{model}, {name}: peak {row['peak'] / 2**20:.0f} MiB, of these {above:.0f} MiB "
                "during the steps"
            )
    common.keep("memory", {"models": found, "lines": lines})


if __name__ == "__main__":
    main()
