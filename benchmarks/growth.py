"""How a step grows with the answers' length and the group's size, and what the calculator says.

    python benchmarks/growth.py [--rounds 5]

A Llama of nine million random weights (so that a context of 2,048 tokens is at hand and the whole
table takes minutes) takes steps of SA-GRPO with answers of forced length. Beside the seconds and
the peak of memory above what was resident before stand those of ``sarlab.plan`` for this machine,
measured in the same run. Writes results/growth.svg as well.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import common
import torch
from machine import measure_machine, workload_of
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from sarlab import plan
from sarlab.config import TrainConfig
from sarlab.models import DATA, Policy, add_lora, wrap_policy
from sarlab.prompts import PromptFormat, conditioned_ids, standalone_ids
from sarlab.train import grpo_steps, start

BY_LENGTH = [(8, tokens) for tokens in (32, 64, 128, 256, 512, 1_024)]  # group size, answer tokens
BY_GROUP = [(group, 64) for group in (4, 8, 16, 32, 64)]
QUESTIONS = 2


def small_llama() -> Policy:
    """A random Llama of nine million weights with the embedded tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(DATA / "models" / "tiny")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8_192,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=2_048,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )
    )
    policy = wrap_policy(model.eval(), tokenizer, "small-llama", PromptFormat(None, ""))
    # Ids beyond the tokenizer's have no text; what a step costs does not depend on the text.
    policy.text = lambda ids: ""  # type: ignore[method-assign]
    return common.force_lengths(policy)


def measure(points: list[tuple[int, int]], rounds: int, machine: plan.Machine) -> list[Any]:
    """Every point once a round, so that all of them see the same machine."""
    task = common.one_batch(QUESTIONS)
    runs = {}
    for group, tokens in points:
        policy = add_lora(small_llama(), rank=16)
        config = TrainConfig(
            questions=QUESTIONS, group_size=group, max_answer_tokens=tokens, steps=10_000
        )
        runs[group, tokens] = (policy, config, grpo_steps(start(policy, config), task, config))
    found: dict[tuple[int, int], list[Any]] = {point: [] for point in points}
    for turn in range(rounds + 1):  # the first round warms up and is not counted
        for point, (_, _, steps) in runs.items():
            with common.peak_memory() as peak:
                before = common.resident()
                began = common.now()
                metrics = next(steps).metrics
                seconds = common.now() - began
                if turn:
                    found[point].append((seconds, peak() - before, metrics))
    rows = []
    for (group, tokens), taken in found.items():
        policy, config, _ = runs[group, tokens]
        prompts = [conditioned_ids(policy.tokenizer, q.text, policy.prompt) for q in task.questions]  # type: ignore[attr-defined]
        work = workload_of(
            config,
            round(sum(map(len, prompts)) / len(prompts)),
            tokens,
            standalone_tokens=len(standalone_ids(policy.tokenizer, policy.prompt)),
        )
        shape = plan.shape_of(policy.model.config)
        planned = plan.plan_step(shape, work, machine)
        passing = max(v for k, v in planned.memory.items() if k.startswith("while "))
        seconds = common.spread([t[0] for t in taken])
        memory = common.spread([t[1] for t in taken])
        phases = {
            key: common.spread([t[2][f"seconds_{key}"] for t in taken]) for key in planned.seconds
        }
        rows.append(
            {
                "group_size": group,
                "answer_tokens": tokens,
                "tokens": QUESTIONS * group * tokens,
                "seconds": seconds,
                "memory": memory,
                "phases": phases,
                "planned_seconds": planned.total_seconds,
                "planned_memory": passing,
                "planned_phases": planned.seconds,
                "seconds_error": planned.total_seconds / seconds["median"] - 1,
                "memory_error": passing / memory["median"] - 1,
            }
        )
    return rows


def exponent(rows: list[Any], quantity: str) -> float:
    """Slope of log(quantity) over log(tokens), least squares: 1 is linear growth."""
    x = [math.log(r["tokens"]) for r in rows]
    y = [math.log(r[quantity]["median"]) for r in rows]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return top / sum((a - mx) ** 2 for a in x)


def picture(series: dict[str, list[Any]]) -> str:
    """Seconds a step over answer tokens a step, both logarithmic, as SVG; dashes: the plan."""
    every = [r for rows in series.values() for r in rows]
    times = [r["seconds"]["median"] for r in every] + [r["planned_seconds"] for r in every]
    left, right = (f(r["tokens"] for r in every) for f in (min, max))
    low, high = min(times), max(times)

    def at(tokens: float, seconds: float) -> str:
        x = 60 + 400 * math.log(tokens / left) / math.log(right / left)
        y = 270 - 230 * math.log(seconds / low) / math.log(high / low)
        return f"{x:.1f},{y:.1f}"

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 480 330" font-family="sans-serif" '
        'font-size="12"><rect width="480" height="330" fill="white"/>'
    ]
    for tokens in sorted({r["tokens"] for r in every}):
        x = at(tokens, low).split(",")[0]
        parts.append(f'<text x="{x}" y="290" text-anchor="middle" font-size="9">{tokens}</text>')
    for seconds in (low, math.sqrt(low * high), high):
        y = at(left, seconds).split(",")[1]
        parts.append(f'<text x="52" y="{y}" text-anchor="end">{seconds:.2g}</text>')
        parts.append(f'<line x1="60" x2="460" y1="{y}" y2="{y}" stroke="#ddd"/>')
    for place, (name, rows) in enumerate(series.items()):
        colour = ("#1f6feb", "#b35900")[place]
        for key, dash in (("seconds", ""), ("planned_seconds", ' stroke-dasharray="4 4"')):
            values = [r[key]["median"] if key == "seconds" else r[key] for r in rows]
            path = " ".join(at(r["tokens"], v) for r, v in zip(rows, values, strict=True))
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
            )
        parts.append(f'<text x="70" y="{24 + 16 * place}" fill="{colour}">{name}</text>')
    parts.append('<text x="260" y="315" text-anchor="middle">answer tokens a step</text>')
    parts.append('<text x="70" y="58">seconds a step; dashed: what sarlab.plan says</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=int, default=1_024)
    parser.add_argument("--largest", type=int, default=64)
    told = parser.parse_args()
    common.quiet()
    machine = measure_machine(clock=common.now)
    by_length = [p for p in BY_LENGTH if p[1] <= told.longest]
    by_group = [p for p in BY_GROUP if p[0] <= told.largest]
    points = list(dict.fromkeys([*by_length, *by_group]))
    rows = {(r["group_size"], r["answer_tokens"]): r for r in measure(points, told.rounds, machine)}
    series = {
        "answers of 32 to 1,024 tokens, 8 a question": [rows[p] for p in by_length],
        "4 to 64 answers a question, of 64 tokens": [rows[p] for p in by_group],
    }
    lines = [f"machine: {machine.flops / 1e9:.0f} GFLOP/s, {machine.bandwidth / 1e9:.1f} GB/s"]
    exponents = {
        name: {quantity: exponent(taken, quantity) for quantity in ("seconds", "memory")}
        for name, taken in series.items()
    }
    for name, taken in series.items():
        lines.append(
            f"{name}: seconds grow with tokens^{exponents[name]['seconds']:.2f}, memory with "
            f"tokens^{exponents[name]['memory']:.2f}"
        )
        lines += [
            f"  {r['group_size']:3} × {r['answer_tokens']:5} tokens: "
            f"{common.said(r['seconds'])} s, plan {r['planned_seconds']:.2f} s "
            f"({r['seconds_error']:+.0%}); {r['memory']['median'] / 2**20:.0f} MiB, plan "
            f"{r['planned_memory'] / 2**20:.0f} MiB ({r['memory_error']:+.0%})"
            for r in taken
        ]
    common.keep(
        "growth",
        {
            "machine_measured": vars(machine),
            "series": series,
            "exponents": exponents,
            "lines": lines,
        },
    )
    (common.RESULTS / "growth.svg").write_text(picture(series))


if __name__ == "__main__":
    main()
