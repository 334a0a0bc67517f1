"""The two costly steps at a large vocabulary: the head's gradient, and drawing a token."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from sarlab._engine.policy import Policy

_HEAD_SLICE = 1 << 23  # logits held at once: 32 MiB in float32
_FLAT_VOCABULARY = 4_096  # up to this size all probabilities are summed at once
_BLOCK = 128


def slice_rows(policy: Policy) -> int:
    """How many tokens go through the policy's head at once."""
    return max(1, _HEAD_SLICE // policy.head_weight.shape[0])


def target_logps(policy: Policy, states: Tensor, targets: Tensor) -> Tensor:
    """Log-probs [N] of ``targets`` [N] from hidden states [N, H], slice by slice."""
    rows = slice_rows(policy)
    needs_grad = torch.is_grad_enabled() and states.requires_grad
    if needs_grad and policy.has_linear_head:
        return _FrozenHeadLogps.apply(states, targets, policy, rows)
    slices = [slice(i, i + rows) for i in range(0, len(states), rows)]
    if not needs_grad:
        # Into one block: small pieces that outlive the large logits would scatter the heap.
        logps = torch.empty(len(states), device=states.device)
        for x in slices:
            logps[x] = _slice_logps(policy, states[x], targets[x])
        return logps
    if len(slices) == 1:
        return _slice_logps(policy, states, targets)
    # Recomputing a slice in the backward pass is cheaper than keeping its logits.
    parts = [(policy, states[x], targets[x]) for x in slices]
    return torch.cat([checkpoint(_slice_logps, *part, use_reentrant=False) for part in parts])


def _slice_logps(policy: Policy, states: Tensor, targets: Tensor) -> Tensor:
    logps = torch.log_softmax(policy.logits(states).float(), dim=-1)
    return logps.gather(-1, targets[:, None])[:, 0]


class _FrozenHeadLogps(torch.autograd.Function):
    """:func:`target_logps` for a head W that is not trained, and nothing but a product.

    d log p(y) / d h = W_y − Σ_v p(v) W_v does not depend on the loss, so the forward pass
    computes it while a slice's logits exist: two products with W instead of three, and no logits
    are stored.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, targets: Tensor, policy: Policy, rows: int) -> Tensor:
        weight = policy.head_weight
        logps = torch.empty(len(states), device=states.device)
        slopes = torch.empty_like(states)
        for i in range(0, len(states), rows):
            part, target = states[i : i + rows], targets[i : i + rows]
            all_logps = torch.log_softmax(policy.logits(part).float(), dim=-1)
            logps[i : i + rows] = all_logps.gather(-1, target[:, None])[:, 0]
            slopes[i : i + rows] = weight[target] - all_logps.exp_() @ weight
        ctx.save_for_backward(slopes)
        return logps

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return upstream[:, None].to(slopes.dtype) * slopes, None, None, None


def draw_tokens(logps: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one token per row [B] from log-probs [B, V] by inverse-CDF sampling.

    One random number per row, several times faster than `torch.multinomial`, which draws one per
    entry of the vocabulary. Sums are in float64, since 50,000 float32 terms would not add up to 1.
    A large vocabulary is summed in blocks, and token by token only within the block drawn.
    """
    uniform = torch.rand(
        len(logps), 1, generator=generator, device=logps.device, dtype=torch.float64
    )
    if logps.shape[1] <= _FLAT_VOCABULARY:
        return _invert(logps.double().exp().cumsum(dim=-1), uniform)[0][:, 0]
    probs = pad(logps.exp(), (0, -logps.shape[1] % _BLOCK))
    probs = probs.view(len(probs), -1, _BLOCK)
    block_cdf = probs.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    block, rest = _invert(block_cdf, uniform)
    rows = torch.arange(len(probs), device=probs.device)
    within, _ = _invert(probs[rows, block[:, 0]].double().cumsum(dim=-1), rest)
    return (block * _BLOCK + within)[:, 0]


def _invert(cdf: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The entry of running sums [B, K] at the share ``uniform`` [B, 1], and the share within it.

    Both are [B, 1], the second in [0, 1]. An entry of probability 0 is never drawn.
    """
    total = cdf[:, -1:]
    mark = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    entry = torch.searchsorted(cdf, mark, right=True)
    before = torch.where(entry > 0, cdf.gather(1, (entry - 1).clamp(min=0)), 0.0)
    return entry, ((mark - before) / (cdf.gather(1, entry) - before)).clamp(0.0, 1.0)
