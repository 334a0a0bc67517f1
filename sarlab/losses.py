"""Advantages and losses of GRPO and PPO: tensors in, tensors out; no model, no configuration.

Losses return one value per token [B, T]; :func:`reduce_tokens` reduces them to a scalar. Its
totals are those of the whole mini-batch, so that micro-batches add up to the same gradient.
"""

from typing import Literal

import torch
from torch import Tensor

from sarlab.rewards import group_mean, group_std

LossForm = Literal["dr_grpo", "grpo", "dapo"]
KLEstimator = Literal["k1", "k2", "k3"]


def group_advantages(
    rewards: Tensor, group_ids: Tensor, *, divide_by_std: bool = False, epsilon: float = 1e-4
) -> Tensor:
    """Reward minus the mean of the answers to the same question [B].

    Dr. GRPO's form does not divide by the group's standard deviation (the default); GRPO's
    original form does. Raises ValueError for a group of one, whose advantage would always be 0.
    """
    _, counts = torch.unique(group_ids, return_counts=True)
    if bool((counts < 2).any()):
        raise ValueError(
            "A group-relative advantage needs at least 2 answers per question, and some question "
            "has 1. Raise group_size, or use PPO."
        )
    centred = rewards - group_mean(rewards, group_ids)
    return centred / (group_std(rewards, group_ids) + epsilon) if divide_by_std else centred


def share_without_signal(rewards: Tensor, group_ids: Tensor) -> float:
    """Share of groups whose rewards are all equal: no gradient comes from them."""
    groups, index = torch.unique(group_ids, return_inverse=True)
    flat = torch.ones(len(groups))
    flat[index[group_std(rewards, group_ids) > 1e-8]] = 0.0
    return flat.mean().item()


def gae(
    rewards: Tensor, values: Tensor, answer_mask: Tensor, *, gamma: float = 1.0, lam: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over answer tokens: (advantages, returns), [B, T] each.

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γλ A_{t+1}, V = A = 0 after the last token
    (Schulman et al. 2016, Eq. 16); returns are A + V. ``rewards`` and ``values`` [B, T]; answers
    are right-padded and the padding comes back as 0.
    """
    mask = answer_mask.to(values.dtype)
    values, rewards = values * mask, rewards * mask
    advantages = torch.zeros_like(values)
    following = next_value = values.new_zeros(len(values))
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * lam * following) * mask[:, t]
        advantages[:, t] = following
        next_value = values[:, t]
    return advantages, (advantages + values) * mask


def whiten(advantages: Tensor, answer_mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Mean 0 and variance 1 over the answer tokens of the batch [B, T]; padding stays 0."""
    on_answers = advantages[answer_mask]
    if on_answers.numel() < 2:
        raise ValueError("Whitening needs at least 2 answer tokens in the batch.")
    scaled = (advantages - on_answers.mean()) / (on_answers.std() + epsilon)
    return scaled.masked_fill(~answer_mask, 0.0)


def reward_on_last_token(rewards: Tensor, answer_mask: Tensor) -> Tensor:
    """Each answer's reward [B] on its last token [B, T], 0 elsewhere."""
    token_rewards = torch.zeros(answer_mask.shape, dtype=rewards.dtype)
    token_rewards[torch.arange(len(rewards)), answer_mask.sum(dim=1) - 1] = rewards
    return token_rewards


def explained_variance(values: Tensor, returns: Tensor) -> float | None:
    """1 − Var(returns − values) / Var(returns): 1 is perfect, None where all returns are equal."""
    variance = returns.var()
    return None if variance < 1e-12 else (1 - (returns - values).var() / variance).item()


def surrogate_loss(
    logps: Tensor,
    logps_old: Tensor,
    advantages: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
) -> Tensor:
    """Clipped surrogate per token [B, T], to be minimised (Schulman et al. 2017, Eq. 7).

    −min(ρA, clip(ρ, 1−low, 1+high) A) with ρ = exp(logps − logps_old). ``advantages`` is [B] or
    [B, T]. ``clip_high`` above ``clip_low`` is DAPO's clip-higher. ``dual_clip`` bounds ρ from
    above where A < 0, so that one runaway token cannot dominate the gradient (Ye et al. 2020).
    """
    a = advantages if advantages.dim() == logps.dim() else advantages[:, None]
    ratio = torch.exp(logps - logps_old)
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    if dual_clip is not None:
        ratio = ratio.clamp(max=dual_clip)
    return torch.maximum(-ratio * a, -clipped * a)


def clip_fraction(
    logps: Tensor,
    logps_old: Tensor,
    advantages: Tensor,
    answer_mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> float:
    """Share of answer tokens whose surrogate is clipped, hence without a gradient."""
    a = advantages if advantages.dim() == logps.dim() else advantages[:, None]
    ratio = torch.exp(logps - logps_old)
    clipped = ((ratio > 1.0 + clip_high) & (a > 0)) | ((ratio < 1.0 - clip_low) & (a < 0))
    return clipped[answer_mask].float().mean().item()


def kl_estimate(logps: Tensor, logps_reference: Tensor, estimator: KLEstimator = "k3") -> Tensor:
    """Estimate of KL(policy ‖ reference) per token [B, T] from the policy's own samples.

    With d = logps_reference − logps: k1 = −d, k2 = d²/2, k3 = exp(d) − 1 − d
    (Schulman 2020, "Approximating KL divergence"). As values k1 and k3 are unbiased, k2 and k3
    never negative. As a loss k2 has the gradient of the KL in expectation, k3 one of the same
    sign, and k1 none at all: it is for the log only.
    """
    d = logps_reference - logps
    if estimator == "k1":
        return -d
    if estimator == "k2":
        return 0.5 * d.square()
    if estimator == "k3":
        return torch.expm1(d) - d
    raise ValueError(f"Unknown KL estimator {estimator!r}; choose k1, k2 or k3.")


def reduce_tokens(
    per_token: Tensor,
    answer_mask: Tensor,
    form: LossForm = "dr_grpo",
    *,
    total_answers: int,
    total_tokens: int,
    max_answer_tokens: int,
) -> Tensor:
    """Losses per token [B, T] to one scalar. The totals are those of the whole mini-batch.

    ``dr_grpo``: sum of tokens / (answers · max_answer_tokens), no length bias (Liu et al. 2025).
    ``grpo``: mean over answers of the mean over each one's tokens (Shao et al. 2024).
    ``dapo``: sum of tokens / tokens of the mini-batch (Yu et al. 2025); PPO's token mean too.
    """
    per_token = per_token.masked_fill(~answer_mask, 0.0)
    if form == "dr_grpo":
        return per_token.sum() / (total_answers * max_answer_tokens)
    if form == "grpo":
        return (per_token.sum(dim=1) / answer_mask.sum(dim=1)).sum() / total_answers
    if form == "dapo":
        return per_token.sum() / total_tokens
    raise ValueError(f"Unknown loss form {form!r}; choose dr_grpo, grpo or dapo.")


def value_loss(values: Tensor, values_old: Tensor, returns: Tensor, *, clip: float = 0.5) -> Tensor:
    """Clipped value loss per token [B, T]: ½ max((V − R)², (clip(V, V_old ± clip) − R)²)."""
    clipped = torch.maximum(torch.minimum(values, values_old + clip), values_old - clip)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())
