"""What this machine reaches, and what a second perplexity must at least cost on it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from sarlab import plan
from sarlab.config import TrainConfig

_LAYERS = 8  # of the model that tells what calling a layer costs


def workload_of(
    config: TrainConfig, prompt_tokens: int, answer_tokens: int, **more: Any
) -> plan.Workload:
    """A configuration's step with answers of this mean length; ``more`` fields on top."""
    same = "questions group_size lora_rank algorithm mini_batches epochs token_budget"
    fields: dict[str, Any] = {name: getattr(config, name) for name in same.split()}
    fields["dtype"] = "bfloat16" if config.dtype == "bfloat16" else "float32"
    fields["reference"] = config.beta > 0
    lengths = {"prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens}
    return plan.Workload(**{**fields, **lengths, **more})


def floor_of_scoring(shape: plan.Shape, work: plan.Workload) -> tuple[float, float]:
    """Operations and bytes of one forward pass over the answers' tokens, trunk and head, no prefix.

    What any second perplexity must at least do: the weights are read once, the answers' keys and
    values written once.
    """
    tokens = work.questions * work.group_size * work.answer_tokens
    width = plan.BYTES[work.dtype]
    attention = 4 * shape.layers * shape.heads * shape.head_dim * work.answer_tokens / 2
    weights = shape.trunk_parameters + shape.head_parameters
    operations = tokens * (2 * weights + attention)
    return operations, weights * width + tokens * shape.kv_floats * width


def measure_machine(
    seconds: float = 1.0, clock: Callable[[], float] = time.perf_counter
) -> plan.Machine:
    """This machine's CPU, measured for about ``seconds`` three times (matrix, memory, layers).

    ``flops``: products of the size of a small model's layers. ``bandwidth``: a matrix too large
    for the caches times four rows, as in sampling. ``layer_seconds``: a narrow layer, one token of
    each of 16 rows. ``clock`` tells seconds (`time.process_time` on a machine that is busy).
    """
    with torch.no_grad():
        a, b = torch.randn(512, 576), torch.randn(576, 1536)
        product = _seconds_of(lambda: a @ b, seconds, clock)
        large, rows = torch.randn(8_192, 4_096), torch.randn(4, 4_096)
        reading = _seconds_of(lambda: torch.nn.functional.linear(rows, large), seconds, clock)
        layer = _seconds_of(_narrow_decoding(), seconds, clock) / _LAYERS
    flops = 2 * 512 * 576 * 1536 / product
    return plan.Machine(
        name=f"CPU, {torch.get_num_threads()} threads, measured",
        flops=flops,
        flops_bf16=flops,
        bandwidth=large.numel() * 4 / reading,
        memory=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        layer_seconds=layer,
        gpu=False,
    )


def _narrow_decoding() -> Callable[[], object]:
    """One token more for 16 rows of 64 tokens, by a model of ``_LAYERS`` narrow layers."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=8,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=_LAYERS,
        num_attention_heads=2,
    )
    model = LlamaModel(config).eval()
    past = model(input_ids=torch.zeros(16, 64, dtype=torch.long), use_cache=True).past_key_values
    mask = torch.ones(16, 65, dtype=torch.long)
    mask[0, 0] = 0  # padding, as prompts of several lengths have it

    def step() -> None:
        model(
            input_ids=torch.zeros(16, 1, dtype=torch.long),
            attention_mask=mask,
            position_ids=torch.full((16, 1), 64),
            past_key_values=past,
            use_cache=True,
        )
        past.crop(-1)

    return step


def _seconds_of(work: Callable[[], object], limit: float, clock: Callable[[], float]) -> float:
    """Median seconds of one call, calls repeated for ``limit`` seconds."""
    found: list[float] = []
    work()
    end = clock() + limit
    while clock() < end or len(found) < 3:
        began = clock()
        work()
        found.append(clock() - began)
    return statistics.median(found)
