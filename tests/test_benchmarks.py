"""The GPU's benchmark runs where there is none, so that the first GPU does not meet a typo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_part_of_the_gpu_benchmark_is_measured_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--small"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads((tmp_path / "gpu-cpu.json").read_text())
    assert measured["scores"]["float32, batch"]["max"] < 1e-4
    assert measured["scores"]["bfloat16, batch"]["sar"] < 0.01
    assert measured["train"]["steps"] == measured["vllm"]["steps"] == 2
    assert measured["trl"]["sar_difference"] < 1e-3
    table = (tmp_path / "gpu-cpu.md").read_text()
    assert "not measured" not in table
    assert "a step with SAR over one without" in table
