"""Everything to measure on a GPU, in one command: right numbers, speed, a training run, TRL.

    make gpu                                            # nine minutes, smollm2-135m
    python benchmarks/gpu.py --device cpu --small       # the same parts on any machine, `tiny`

Parts: ``scores`` (single rows, batches, bfloat16 and tf32 against float32), ``step`` (a step with
SAR over one without; tokens per second of sampling), ``trl`` (steps per second over TRL's),
``train`` (SA-GRPO, 100 steps), ``vllm`` (the same through TRL with vLLM, where it is installed).
A part for which no time is left, or that fails, is written down with its reason. Writes
results/gpu-DEVICE.json and .md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import against_trl
import common
import torch

from sarlab.config import TrainConfig
from sarlab.models import load_policy
from sarlab.rollout import sample
from sarlab.runs.folder import read_metrics
from sarlab.sar import self_aligned_reward
from sarlab.scoring import answer_logps, prefix_of
from sarlab.train import grpo_steps

Row = tuple[str, str]  # what, measured


def scores(model: str, small: bool) -> tuple[dict[str, Any], list[Row]]:
    """Largest and mean |difference| of log-probs (nats) and of SAR to float32, row by row."""
    question = common.questions_of(1)[0].text
    policy = common.force_lengths(load_policy(model, dtype="float32", device=common.DEVICE))
    tokens = 24 if small else 512
    prefix = prefix_of(policy, question)
    rollouts = sample(policy, [prefix], group_size=8, max_answer_tokens=tokens, seed="gpu")
    answers = rollouts.answer_ids.cpu()
    mask = torch.ones_like(answers, dtype=torch.bool)
    mask[1::2, tokens // 2 :] = False  # padding in every other row

    def measure(dtype: str, *, together: bool, tf32: bool = False) -> list[torch.Tensor]:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        policy = load_policy(model, dtype=dtype, device=common.DEVICE)
        parts = [slice(None)] if together else [slice(i, i + 1) for i in range(len(answers))]
        return [
            torch.cat(
                [
                    answer_logps(policy, prefix_of(policy, text), answers[p], mask[p]).float().cpu()
                    for p in parts
                ]
            )
            for text in (question, None)
        ]

    exact = measure("float32", together=False)
    ways = {
        "float32, batch": {"dtype": "float32", "together": True},
        "bfloat16, row by row": {"dtype": "bfloat16", "together": False},
        "bfloat16, batch": {"dtype": "bfloat16", "together": True},
    }
    if common.DEVICE != "cpu":
        ways["tf32, batch"] = {"dtype": "float32", "together": True, "tf32": True}
    sar = self_aligned_reward(*exact, mask)
    measured, rows = {}, []
    for name, how in ways.items():
        logps = measure(**how)
        off = torch.stack([(a - b).abs()[mask] for a, b in zip(logps, exact, strict=True)])
        difference = (self_aligned_reward(*logps, mask) - sar).abs().max().item()
        measured[name] = {"max": off.max().item(), "mean": off.mean().item(), "sar": difference}
        text = f"{off.max():.1e} at most, {off.mean():.1e} in the mean; SAR {difference:.1e}"
        rows.append((f"nats off float32: {name}", text))
    torch.backends.cuda.matmul.allow_tf32 = False
    return measured, rows


def step(model: str, small: bool) -> tuple[dict[str, Any], list[Row]]:
    """Seconds of steps with and without the standalone pass, answers of forced length."""
    measured, rows = {}, []
    for questions, group, tokens in [(2, 2, 16)] if small else [(8, 8, 256), (8, 8, 1024)]:
        shape: dict[str, Any] = {
            "model": model,
            "questions": questions,
            "group_size": group,
            "max_answer_tokens": tokens,
            "mini_batches": 1,
            "steps": 10_000,
            "dtype": common.DTYPE,
        }
        arms = {
            "sar": TrainConfig(**shape),
            "grpo": TrainConfig(**shape, reward="correct", alpha=0.0, log_sar=False),
        }
        task = common.one_batch(questions)
        steps = {
            name: grpo_steps(common.fresh_state(model, config), task, config)
            for name, config in arms.items()
        }
        records: list[dict[str, float]] = []

        def take(name: str, steps: Any = steps, records: Any = records) -> None:
            records.append(next(steps[name]).metrics)

        works = {name: (lambda name=name, take=take: take(name)) for name in arms}
        seconds = common.interleaved(works, repeats=2 if small else 3)
        sampled = questions * group * tokens
        speed = common.spread([sampled / m["seconds_sample"] for m in records])
        share = common.ratio(seconds["sar"], seconds["grpo"])
        size = f"{questions} × {group} × {tokens} tokens"
        measured[size] = {"seconds": seconds, "tokens_per_second": speed, "share": share}
        rows += [
            (f"a step with SAR over one without, {size} (aim 1.03)", common.said(share, 3)),
            (f"sampling, tokens per second, {size}", common.said(speed, 0)),
        ]
    return measured, rows


def trl(model: str, small: bool) -> tuple[dict[str, Any], list[Row]]:
    """Steps per second over TRL's, transformers sampling on both sides."""
    size = (2, 2, 16, (1, 2)) if small else (4, 8, 256, (8, 16))
    against_trl.SIZES[model] = size
    measured = against_trl.measure(model, 1 if small else 3)
    name = f"{size[0]} × {size[1]} × {size[2]} tokens"
    return measured, [(f"steps per second over TRL's, {name}", common.said(measured["ratio"]))]


def train(model: str, small: bool) -> tuple[dict[str, Any], list[Row]]:
    """SA-GRPO of the README's command, with its log read at both ends."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        steps = 2 if small else 100
        return _run([sys.executable, "-m", "sarlab.job.command", "train"], run, model, steps, small)


def vllm(model: str, small: bool) -> tuple[dict[str, Any], list[Row]]:
    """The same through TRL with vLLM's sampling."""
    if not small and importlib.util.find_spec("vllm") is None:
        raise RuntimeError("vllm is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        use = [] if small else ["-p", "trl_use_vllm", "True", "-p", "trl_vllm_mode", "colocate"]
        command = [sys.executable, "-m", "sarlab.launch", *use]
        return _run(command, Path(scratch) / "run", model, 2 if small else 30, small)


def _run(
    command: list[str], run: Path, model: str, steps: int, small: bool
) -> tuple[dict[str, Any], list[Row]]:
    size = {"questions": 2, "group_size": 2, "max_answer_tokens": 16} if small else {}
    held = {"eval_questions": 4 if small else 100, "validation_questions": 4 if small else 50}
    parameters = {"model": model, "steps": steps, "name": run.name, "out": run.parent}
    pairs = {**parameters, **held, **size}.items()
    began = time.perf_counter()
    done = subprocess.run(
        [*command, *(part for k, v in pairs for part in ("-p", k, str(v)))],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-1500:]}")
    seconds = time.perf_counter() - began
    steps_logged = [m for m in read_metrics(run) if m["step"] > 0]
    summary = json.loads((run / "summary.json").read_text())
    base, trained = summary["base"], summary["trained"]
    text = (
        f"{base['accuracy']:.1%} at {base['mean_length']:.0f} tokens → {trained['accuracy']:.1%} "
        f"at {trained['mean_length']:.0f} in {seconds / 60:.1f} min, evaluation included"
    )
    measured = {"seconds": seconds, "summary": summary, "steps": len(steps_logged)}
    return measured, [(f"{len(steps_logged)} steps of SA-GRPO, one seed", text)]


PARTS: dict[str, Callable[[str, bool], tuple[dict[str, Any], list[Row]]]] = {
    p.__name__: p for p in (scores, step, trl, train, vllm)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="default: smollm2-135m, tiny with --small")
    parser.add_argument("--minutes", type=float, default=9.0, help="no part begins after these")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="everything small: does it run?")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; try --device cpu --small")
    common.quiet()
    on_gpu = args.device == "cuda"
    common.DEVICE, common.DTYPE = args.device, "bfloat16" if on_gpu else "float32"
    device = torch.cuda.get_device_name() if on_gpu else "cpu"
    model = args.model or ("tiny" if args.small else "smollm2-135m")
    began = time.perf_counter()
    results: dict[str, Any] = {}
    rows: list[Row] = []
    for name in args.parts:
        print(f"--- {name}", flush=True)
        try:
            if time.perf_counter() - began > 60 * args.minutes:
                raise TimeoutError(f"no time left after {args.minutes:g} minutes")
            results[name], lines = PARTS[name](model, args.small)
        except Exception as error:  # noqa: BLE001 the other parts are still worth their time on a lent machine
            results[name] = {"failed": traceback.format_exc()}
            lines = [(name, f"not measured: {type(error).__name__} {error}".splitlines()[0])]
        rows += lines
        for line in lines:
            print(": ".join(line), flush=True)
    machine = f"{device}, torch {torch.__version__}, Python {platform.python_version()}"
    text = [f"`{model}`, {common.DTYPE}, on {machine}, {time.strftime('%Y-%m-%d')}.", ""]
    text += ["| what | measured, median (smallest to largest) |", "| --- | --- |"]
    text += [f"| {what} | {value} |" for what, value in rows]
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"gpu-{device.replace(' ', '-').lower()}"
    path.with_suffix(".json").write_text(
        json.dumps({"machine": machine, "model": model, **results}, indent=1, default=str) + "\n"
    )
    path.with_suffix(".md").write_text("\n".join(text) + "\n")
    return 1 if any("failed" in r for r in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
