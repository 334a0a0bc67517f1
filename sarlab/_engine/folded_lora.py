"""Merge a LoRA into its base weights for a block of code: one matrix product instead of three.

PEFT computes Wx + s·B(Ax) with three products and two passes over the output. For a fixed adapter
that is W'x with W' = W + s·BA. The gradient to x goes through W', those to A and B through
products with a thin side. W' is exact up to float32 rounding, so it is used only where everything
is float32 and the adapter is a plain LoRA.

Without gradients W' is cached for the block, since sampling needs it for every token. With
gradients each layer computes it in its forward and again in its backward pass: that costs as much
as r more tokens, and a second copy of all weights is never held beside the activations.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def folded(model: Any) -> Iterator[None]:
    """Within the block every adapted layer of ``model`` is one product; gradients still flow.

    The adapter must not change inside the block: leave it before the optimiser steps. Does
    nothing where a layer cannot be folded (see :func:`foldable`).
    """
    layers = [m for m in model.modules() if hasattr(m, "lora_A")]
    if not layers or not all(map(foldable, layers)):
        yield
        return
    try:
        for layer in layers:
            name = layer.active_adapters[0]
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            parts = (layer.base_layer.weight, a, b, layer.scaling[name])
            weight = functools.cache(functools.partial(_sum, *parts))
            layer.forward = functools.partial(_forward, layer, parts, weight)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def foldable(layer: Any) -> bool:
    """Whether merging this layer's adapter into its weight is exact up to float32 rounding."""
    if "forward" in vars(layer):  # folded already
        return False
    base = getattr(layer, "base_layer", None)
    if not isinstance(base, nn.Linear) or layer.disable_adapters or layer.merged:
        return False
    active = layer.active_adapters
    if len(active) != 1 or active[0] not in layer.lora_A or layer.lora_variant:
        return False  # none, several, or DoRA and others that scale the sum as well
    a, b = layer.lora_A[active[0]], layer.lora_B[active[0]]
    return (
        {base.weight.dtype, a.weight.dtype, b.weight.dtype} == {torch.float32}
        and b.bias is None
        and isinstance(layer.lora_dropout[active[0]], nn.Identity)
    )


@torch.no_grad()
def _sum(weight: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """W + s·BA [out, in]."""
    return torch.addmm(weight, b, a, alpha=scaling)


def _forward(layer: Any, parts: Sequence[Any], weight: Callable[[], Tensor], x: Tensor) -> Tensor:
    base = layer.base_layer
    if layer.disable_adapters:
        return base(x)
    if not torch.is_grad_enabled():
        return nn.functional.linear(x, weight(), base.bias)
    return _FoldedLinear.apply(x, base.bias, *parts)


class _FoldedLinear(torch.autograd.Function):
    """W'x + bias [..., out] with gradients to x [..., in], A [r, in] and B [out, r]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, weight: Tensor, a: Tensor, b: Tensor, s: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, a, b)
        ctx.scaling = s
        return nn.functional.linear(x, _sum(weight, a, b, s), bias)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        to_x = upstream @ _sum(weight, a, b, ctx.scaling) if ctx.needs_input_grad[0] else None
        to_a = to_b = None
        if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
            flat, out = x.flatten(0, -2), upstream.flatten(0, -2)
            to_a = ctx.scaling * ((out @ b).T @ flat)
            to_b = ctx.scaling * (out.T @ (flat @ a.T))
        return to_x, None, None, to_a, to_b, None
