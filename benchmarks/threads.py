"""Products per second of a small model's layer: threads and how they wait, quiet or busy.

    python benchmarks/threads.py             # as the machine is now
    python benchmarks/threads.py --busy 2    # beside two processes of low priority

Every setting runs in a process of its own, since OpenMP reads its settings when it is loaded; all
in turn in every round, so that whatever else the machine does hits all of them alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

SETTINGS = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "all threads, OpenMP's own waiting": {},
    "all threads, spin count 1000 (sarlab)": {"GOMP_SPINCOUNT": "1000"},
    "all threads, passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def work(seconds: float) -> float:
    """Feed-forward blocks of `tiny` per second over 1,024 tokens."""
    import torch

    x, up, down = torch.randn(1024, 128), torch.randn(128, 344), torch.randn(344, 128)
    done, began = 0, time.perf_counter()
    with torch.no_grad():
        while time.perf_counter() - began < seconds:
            torch.nn.functional.layer_norm(torch.relu(x @ up) @ down + x, (128,))
            done += 1
    return done / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, default=0, help="processes of low priority beside it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.work:
        print(work(told.seconds))
        return
    spin = [sys.executable, "-c", "import os; os.nice(19)\nwhile True: pass"]
    others = [subprocess.Popen(spin) for _ in range(told.busy)]
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    child = [sys.executable, __file__, "--work", "--seconds", str(told.seconds)]
    try:
        rates: dict[str, list[float]] = {name: [] for name in SETTINGS}
        for _ in range(told.rounds):
            for name, setting in SETTINGS.items():
                done = subprocess.run(
                    child, env={**plain, **setting}, capture_output=True, text=True, check=True
                )
                rates[name].append(float(done.stdout))
    finally:
        for other in others:
            other.kill()
    best = max(statistics.median(values) for values in rates.values())
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {told.busy} busy processes")
    print("| setting | blocks per second | times slower than the best |\n| --- | ---: | ---: |")
    for name, values in rates.items():
        rate = statistics.median(values)
        print(f"| {name} | {rate:.0f} | {best / rate:.2f} |")


if __name__ == "__main__":
    main()
