"""Scoring one answer of 1,000 to 16,000 tokens: seconds and memory, each in a process of its own.

    python benchmarks/long_answers.py

A Llama of random weights with the vocabulary of `smollm2-135m` (six layers of width 256, 16 million
weights). Memory is the peak of resident bytes on top of what stood before the call.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import common
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sarlab.models import load_policy, wrap_policy
from sarlab.scoring import answer_logps, prefix_of, token_report

LENGTHS = (1_000, 2_000, 4_000, 8_000, 16_000)
WORKS = {"log-probs": answer_logps, "with ranks and the likeliest five": token_report}


def measure(tokens: int, work: str) -> dict[str, Any]:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
    )
    tokenizer = load_policy("smollm2-135m").tokenizer
    policy = wrap_policy(LlamaForCausalLM(config).eval(), tokenizer, "random-llama")
    answer = common.made_up(policy, 1, tokens)
    prefix, mask = prefix_of(policy, "What is 2 + 2?"), torch.ones_like(answer, dtype=torch.bool)
    with common.peak_memory() as peak:
        before, began = common.resident(), common.now()
        WORKS[work](policy, prefix, answer, mask)
        return {"seconds": common.now() - began, "bytes": peak() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=2, metavar=("TOKENS", "WORK"))
    args = parser.parse_args()
    common.quiet()
    if args.one:
        print(json.dumps(measure(int(args.one[0]), args.one[1])))
        return
    rows = []
    for work in WORKS:
        for tokens in LENGTHS:
            command = [sys.executable, __file__, "--one", str(tokens), work]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(
                {"work": work, "tokens": tokens, **json.loads(done.stdout.splitlines()[-1])}
            )
            time.sleep(1)
    lines = ["| one answer | tokens | seconds | MiB |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {r['work']} | {r['tokens']:,} | {r['seconds']:.1f} | {r['bytes'] / 2**20:.0f} |"
        for r in rows
    ]
    common.keep("long_answers", {"rows": rows, "lines": lines})


if __name__ == "__main__":
    main()
