"""Training, scoring and loading: threads and how they wait, quiet or busy.

    python benchmarks/threads.py             # as the machine is now
    python benchmarks/threads.py --busy 2    # beside two processes of low priority

``layer``: feed-forward blocks of `tiny` over 1,024 tokens; ``step``: steps of SA-GRPO on `tiny`,
half its batch; ``score``: answers under both contexts by `smollm2-135m`; ``load``: importing sarlab
and loading `tiny`.

Every setting runs in a process of its own, since OpenMP reads its settings when it is loaded; all
in turn in every round, so that whatever else the machine does hits all of them alike.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

SETTINGS = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "all threads, OpenMP's own waiting": {"GOMP_SPINCOUNT": "300000"},  # libgomp's default
    "all threads, spin count 1000 (sarlab)": {"GOMP_SPINCOUNT": "1000"},
    "all threads, passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def layer(seconds: float) -> float:
    """Blocks per second."""
    import torch

    x, up, down = torch.randn(1024, 128), torch.randn(128, 344), torch.randn(344, 128)

    def block() -> None:
        with torch.no_grad():
            torch.nn.functional.layer_norm(torch.relu(x @ up) @ down + x, (128,))

    return _rate(block, seconds)


def step(seconds: float) -> float:
    """Steps per second after the first."""
    from sarlab.config import TrainConfig
    from sarlab.models import add_lora, load_policy
    from sarlab.tasks import load_task
    from sarlab.train import grpo_steps, start

    config = TrainConfig(questions=8, steps=10_000)
    policy = add_lora(load_policy("tiny"))
    steps = grpo_steps(start(policy, config), load_task("word_problems"), config)
    next(steps)
    return _rate(lambda: next(steps), seconds)


def score(seconds: float) -> float:
    """Answers per second, the prefixes of their question included."""
    from sarlab.models import load_policy
    from sarlab.rewards.answers import score_answers

    policy = load_policy("smollm2-135m")
    question = "Ada has 112 coins and gets 205 more. How many coins does Ada have now?"
    answers = [f"{n} + 205 = {n + 205}\nAnswer: {n + 205}" for n in range(112, 118)]
    return len(answers) * _rate(lambda: score_answers(policy, question, answers), seconds)


def load(seconds: float) -> float:
    """1 / seconds of import and load; ``seconds`` is not used."""
    began = time.perf_counter()
    import sarlab

    sarlab.load_policy("tiny")
    return 1 / (time.perf_counter() - began)


def _rate(call: Callable[[], object], seconds: float) -> float:
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        call()
        done += 1
    return done / (time.perf_counter() - began)


WORKS = {f.__name__: f for f in (layer, step, score, load)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, default=0, help="processes of low priority beside it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.child:
        import sarlab  # noqa: F401 it sets how threads wait

        print(WORKS[told.child](told.seconds))
        return
    spin = [sys.executable, "-c", "import os; os.nice(19)\nwhile True: pass"]
    others = [subprocess.Popen(spin) for _ in range(told.busy)]
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    child = [sys.executable, __file__, "--seconds", str(told.seconds), "--child"]
    try:
        rates: dict[tuple[str, str], list[float]] = {}
        for _ in range(told.rounds):
            for work, (name, setting) in itertools.product(told.works, SETTINGS.items()):
                done = subprocess.run(
                    [*child, work],
                    env={**plain, **setting},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                rate = float(done.stdout.splitlines()[-1])
                rates.setdefault((work, name), []).append(rate)
    finally:
        for other in others:
            other.kill()
    median = {key: statistics.median(values) for key, values in rates.items()}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {told.busy} busy processes;")
    print("per second, and times slower than the best of the column")
    print("| setting | " + " | ".join(told.works) + " |")
    print("| --- |" + " ---: |" * len(told.works))
    for name in SETTINGS:
        cells = []
        for work in told.works:
            best = max(median[work, other] for other in SETTINGS)
            cells.append(f"{median[work, name]:.3g} ({best / median[work, name]:.2f} ×)")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
