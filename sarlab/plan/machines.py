"""What a machine can do: from its data sheet, or measured."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

_LAYERS = 8  # of the model that tells what calling a layer costs


@dataclass(frozen=True)
class Machine:
    """One kind of device and how many of them; rates are per device and those really reached.

    ``flops`` are matrix products in float32, ``flops_bf16`` in bfloat16, ``bandwidth`` bytes a
    second from memory, ``memory`` bytes, ``layer_seconds`` what calling one layer costs where
    there is nearly nothing to compute, ``link`` bytes a second between devices.
    """

    name: str
    flops: float
    flops_bf16: float
    bandwidth: float
    memory: float
    layer_seconds: float
    link: float = 0.0
    devices: int = 1
    gpu: bool = True

    def times(self, devices: int) -> Machine:
        """As many of these devices, the questions of a step shared among them."""
        if devices < 1 or (devices > 1 and self.link <= 0):
            raise ValueError(
                f"{devices} devices of {self.name!r}: there must be at least 1, and more than 1 "
                "need a link (bytes a second between them)."
            )
        return replace(self, devices=devices)


def data_sheet(
    name: str,
    *,
    flops: float,
    flops_bf16: float,
    bandwidth: float,
    memory: float,
    link: float,
    reached: float = 0.4,
    reached_bandwidth: float = 0.7,
    layer_seconds: float = 4e-4,
) -> Machine:
    """A machine from its data sheet's peaks (dense) and the share of them that is reached.

    The shares and the seconds a layer (some twenty kernels started from Python) are assumptions.
    """
    return Machine(
        name=name,
        flops=reached * flops,
        flops_bf16=reached * flops_bf16,
        bandwidth=reached_bandwidth * bandwidth,
        memory=memory,
        layer_seconds=layer_seconds,
        link=reached_bandwidth * link,
    )


# Peaks from NVIDIA's data sheets: float32 without TF32 (torch's default), bfloat16 dense, one way
# of NVLink (H100, A100) or PCIe 4.0 ×16 (4090). Not measured here.
MACHINES = {
    m.name: m
    for m in (
        data_sheet(
            "H100", flops=67e12, flops_bf16=989e12, bandwidth=3.35e12, memory=80e9, link=450e9
        ),
        data_sheet(
            "A100", flops=19.5e12, flops_bf16=312e12, bandwidth=2.04e12, memory=80e9, link=300e9
        ),
        data_sheet(
            "RTX 4090", flops=82.6e12, flops_bf16=165e12, bandwidth=1.01e12, memory=24e9, link=32e9
        ),
    )
}


def measure_machine(
    seconds: float = 1.0, clock: Callable[[], float] = time.perf_counter
) -> Machine:
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
    return Machine(
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
