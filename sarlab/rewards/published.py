"""Published rewards for short, right or self-taught answers: one pure function per design.

Each takes :class:`RewardInputs` and returns one bonus per answer [B]. n is an answer's length in
tokens, c 1 for a right answer and 0 for any other, p the share of right answers in the group.
Where a paper leaves something open, the docstring says what was chosen ("chosen: …"). α in
R = c + α·bonus is the run's; the authors' own strength stands beside the formula. Designs that
replace correctness are entered with ``verifiable=False`` in the table of ``sarlab.rewards``.
"""

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from sarlab.sar import mean_logp, token_values
from sarlab.types import RewardInputs

TOLERANCE_TOKENS = 10.0
"""Short-RL's τ; the authors take 100 for answers of about 1,000 tokens."""


# --- length -------------------------------------------------------------------------------------


def kimi(inputs: RewardInputs) -> Tensor:
    """λ = ½ − (n − min) / (max − min) for right answers, min(0, λ) for wrong ones.

    min and max over the group; 0 where all lengths are equal. Kimi k1.5 (2501.12599) §2.3.3.
    """
    share = _length_share(inputs, torch.ones_like(inputs.correct))
    return torch.where(inputs.correct > 0, share, share.clamp(max=0.0))


def shorter_better(inputs: RewardInputs) -> Tensor:
    """−|n − n*| / 1,000, n* the shortest right answer of the group, or its mean length.

    ShorterBetter (2504.21370): R = 2c − 0.001·|n − n*|, so α = ½ is the authors' strength.
    """
    shortest = _group(inputs, inputs.lengths.where(inputs.correct > 0, torch.inf), "amin")
    target = shortest.where(shortest.isfinite(), _group(inputs, inputs.lengths, "mean"))
    return -(inputs.lengths - target).abs() / 1000.0


def short_rl(inputs: RewardInputs) -> Tensor:
    """½ for right answers of at most min + τ tokens, Kimi's λ for longer right ones, else 0.

    min and max over the right answers. All 0 while accuracy is more than 0.05 below the best of
    the steps so far. Short-RL (2505.12284); chosen: τ = TOLERANCE_TOKENS.
    """
    if inputs.correct.mean() < inputs.best_accuracy - 0.05:
        return torch.zeros_like(inputs.correct)
    shortest = _group(inputs, inputs.lengths.where(inputs.correct > 0, torch.inf), "amin")
    near = inputs.lengths <= shortest + TOLERANCE_TOKENS
    share = _length_share(inputs, inputs.correct)
    return torch.where(near, torch.full_like(share, 0.5), share) * inputs.correct


def laser(inputs: RewardInputs) -> Tensor:
    """c·[n ≤ L], L the budget. LASER (2505.15612); the authors take α = ½."""
    return inputs.correct * (inputs.lengths <= _budget(inputs))


def alp(inputs: RewardInputs) -> Tensor:
    """−max(p, 1/G)·n/L: easy questions pay more for length. ALP (2506.05256).

    G answers per group. Chosen: L, which scales n, is the budget.
    """
    size = _group(inputs, torch.ones_like(inputs.correct), "sum")
    solved = torch.maximum(_group(inputs, inputs.correct, "mean"), 1.0 / size)
    return -solved * inputs.lengths / _budget(inputs)


def linear_length(inputs: RewardInputs) -> Tensor:
    """−p·n / max n of the group. prime-rl's linear length penalty, weight α."""
    longest = _group(inputs, inputs.lengths, "amax")
    return -_group(inputs, inputs.correct, "mean") * inputs.lengths / longest


def grpo_lambda(inputs: RewardInputs) -> Tensor:
    """−σ((n − mean) / sd) for right answers where p ≥ ½, else 0. GRPO-λ (2505.18086).

    Mean and sd over the group's right answers. Chosen: the threshold ½ (the authors take the
    best groups of a batch), σ(0) where all lengths are equal.
    """
    mean, sd = right_lengths(inputs)
    z = torch.where(sd > 0, (inputs.lengths - mean) / sd, 0.0)
    pays = (inputs.correct > 0) & (_group(inputs, inputs.correct, "mean") >= 0.5)
    return torch.where(pays, -torch.sigmoid(z), 0.0)


def dast(inputs: RewardInputs) -> Tensor:
    """max(½ − ½λ, 0.1) for right answers, min(0.9λ − 0.1, −0.1) for wrong ones.

    λ = n/L − 1, L = p·(mean length of the right) + (1 − p)·(the budget). DAST (2503.04472).
    """
    solved, mean_right = _group(inputs, inputs.correct, "mean"), right_lengths(inputs)[0]
    excess = inputs.lengths / (solved * mean_right + (1.0 - solved) * _budget(inputs)) - 1.0
    right, wrong = (0.5 - 0.5 * excess).clamp(min=0.1), (0.9 * excess - 0.1).clamp(max=-0.1)
    return torch.where(inputs.correct > 0, right, wrong)


def cosine(inputs: RewardInputs) -> Tensor:
    """From 1 (short) to ½ (n = L) for right answers, from −1 to −½ for wrong ones, by a cosine.

    L is the budget. Replaces correctness. Demystifying Long CoT (2502.03373), TRL's bounds.
    """
    wave = (1.0 + torch.cos(math.pi * (inputs.lengths / _budget(inputs)).clamp(max=1.0))) / 2.0
    return torch.where(inputs.correct > 0, 0.5 + 0.5 * wave, -0.5 - 0.5 * wave)


def soft_overlong(inputs: RewardInputs) -> Tensor:
    """0 up to L − buffer, falling to −1 at L. DAPO (2503.14476) Eq. 13, α = 1.

    L is the budget; the buffer is a fifth of it (the authors: 4,096 of 20,480).
    """
    buffer = _budget(inputs) / 5.0
    return ((_budget(inputs) - buffer - inputs.lengths) / buffer).clamp(-1.0, 0.0)


def l1_exact(inputs: RewardInputs) -> Tensor:
    """−|n − L| / 3,000, L the budget that the prompt asks for. L1-Exact (2503.04697), α = 1."""
    return -(inputs.lengths - _budget(inputs)).abs() / 3000.0


def l1_max(inputs: RewardInputs) -> Tensor:
    """c·clip((L − n)/3,000 + ½, 0, 1). Replaces correctness. L1-Max (2503.04697) Eq. 3."""
    return inputs.correct * ((_budget(inputs) - inputs.lengths) / 3000.0 + 0.5).clamp(0.0, 1.0)


# --- the policy's own probabilities -------------------------------------------------------------


def entropy(inputs: RewardInputs) -> Tensor:
    """−mean entropy of the policy over the answer's tokens, nats. RENT (2505.22660)."""
    return -mean_logp(given(inputs, "entropy"), inputs.answer_mask)


def intuitor(inputs: RewardInputs) -> Tensor:
    """Mean of logsumexp(logits) − mean(logits), nats.

    KL(uniform ‖ policy) plus a constant. Self-certainty, Intuitor (2505.19590). The authors use
    it in place of correctness.
    """
    return mean_logp(given(inputs, "self_certainty"), inputs.answer_mask)


def pmi(inputs: RewardInputs) -> Tensor:
    """V = log P(a|q) − log P(a), nats: SAR without the division by length."""
    values = token_values(inputs.logps_conditioned, given(inputs, "logps_standalone"))
    return (values * inputs.answer_mask).sum(dim=1)


# --- the reference answer's probability ---------------------------------------------------------


def verifree(inputs: RewardInputs) -> Tensor:
    """P(gold | question, reasoning). Replaces the verifier. VeriFree (2505.21493)."""
    return (given(inputs, "gold_logps") * given(inputs, "gold_mask")).sum(dim=1).exp()


def rlpr(inputs: RewardInputs) -> Tensor:
    """Mean probability of the gold's tokens after the reasoning minus without it, in [0, 1].

    Replaces the verifier. RLPR (2506.18254) Eq. 4 and 5.
    """
    mask = given(inputs, "gold_mask")
    probabilities = [
        mean_logp(given(inputs, name).exp(), mask) for name in ("gold_logps", "gold_logps_without")
    ]
    return (probabilities[0] - probabilities[1]).clamp(0.0, 1.0)


def nover(inputs: RewardInputs) -> Tensor:
    """Rank of the gold's perplexity in the group, plus the share of siblings longer and worse.

    Perplexity = exp(mean NLL / max(1, 1 + log10 n)); the best of G earns 1, the worst 1/G. Replaces
    the verifier. NOVER (2505.16022); chosen: n is the whole answer, equal weights, ties share
    the better rank.
    """
    nll = -mean_logp(given(inputs, "gold_logps"), given(inputs, "gold_mask"))
    nll = nll / (1.0 + inputs.lengths.log10()).clamp(min=1.0)
    siblings = (inputs.group_ids[:, None] == inputs.group_ids[None]).float()
    size = siblings.sum(dim=1)
    better = (siblings * (nll[None] < nll[:, None])).sum(dim=1)
    longer = inputs.lengths[None] > inputs.lengths[:, None]
    beaten = (siblings * (longer & (nll[None] > nll[:, None]))).sum(dim=1)
    return (size - better) / size + beaten / (size - 1.0).clamp(min=1.0)


def vr_cli(inputs: RewardInputs) -> Tensor:
    """(ppl(gold|q) − ppl(gold|q, reasoning)) / ppl(gold|q), not below −1: SAR's mirror image.

    Replaces the verifier. VR-CLI (2503.22828); chosen: the ratio itself, not the authors' steps.
    """
    mask = given(inputs, "gold_mask")
    gain = mean_logp(given(inputs, "gold_logps") - given(inputs, "gold_logps_without"), mask)
    return (1.0 - torch.exp(-gain)).clamp(min=-1.0)


def latro(inputs: RewardInputs) -> Tensor:
    """log P(gold | question, reasoning), nats. Replaces the verifier. LaTRO (2411.04282)."""
    return (given(inputs, "gold_logps") * given(inputs, "gold_mask")).sum(dim=1)


# --- agreement ----------------------------------------------------------------------------------


def majority(inputs: RewardInputs) -> Tensor:
    """1 where the answer is the group's most frequent one, else 0. TTRL (2504.16084).

    Replaces the verifier. Answers without a value never win; ties go to the one sampled first.
    """
    votes, keys = _votes(inputs), given(inputs, "answer_keys")
    groups = inputs.group_ids.tolist()
    winners: dict[int, int] = {}  # group → row
    for row in sorted(range(len(keys)), key=lambda row: -votes[row]):
        if keys[row] is not None:
            winners.setdefault(groups[row], row)
    won = [g in winners and key == keys[winners[g]] for g, key in zip(groups, keys, strict=True)]
    return inputs.correct.new_tensor(won)


def empo(inputs: RewardInputs) -> Tensor:
    """Share of the group that gave the same answer; 0 without a value, and where all differ.

    Replaces the verifier. EMPO (2504.05812).
    """
    votes = inputs.correct.new_tensor(_votes(inputs))
    size = _group(inputs, torch.ones_like(votes), "sum")
    valued = inputs.correct.new_tensor([key is not None for key in given(inputs, "answer_keys")])
    return votes / size * valued * (_group(inputs, votes, "amax") > 1)


# --- helpers ------------------------------------------------------------------------------------


def group_reduce(values: Tensor, group_ids: Tensor, reduce: str) -> Tensor:
    """Sum, mean, amin or amax of each answer's group [B]: of the answers to one question."""
    place = torch.unique(group_ids, return_inverse=True)[1]
    empty = values.new_zeros(int(place.max()) + 1)
    return empty.scatter_reduce(0, place, values, reduce, include_self=False)[place]


def _group(inputs: RewardInputs, values: Tensor, reduce: str) -> Tensor:
    return group_reduce(values, inputs.group_ids, reduce)


def right_lengths(inputs: RewardInputs) -> tuple[Tensor, Tensor]:
    """Mean and unbiased sd [B] of the lengths of each group's right answers; 0 where none is."""
    count = _group(inputs, inputs.correct, "sum")
    mean = _group(inputs, inputs.lengths * inputs.correct, "sum") / count.clamp(min=1.0)
    squares = _group(inputs, (inputs.lengths - mean) ** 2 * inputs.correct, "sum")
    return mean, (squares / (count - 1.0).clamp(min=1.0)).sqrt()


def _length_share(inputs: RewardInputs, counted: Tensor) -> Tensor:
    """½ − (n − min) / (max − min) [B] over each group's counted answers; 0 if all are equal."""
    shortest = _group(inputs, inputs.lengths.where(counted > 0, torch.inf), "amin")
    longest = _group(inputs, inputs.lengths.where(counted > 0, -torch.inf), "amax")
    span = longest - shortest
    share = 0.5 - (inputs.lengths - shortest) / span.clamp(min=1.0)
    return torch.where(span > 0, share, 0.0)


def given(inputs: RewardInputs, name: str) -> Any:
    """An optional field of the inputs, or a ValueError where the reward did not declare it."""
    value = getattr(inputs, name)
    if value is None:
        field, entry = f"RewardInputs.{name}", f"needs=({name!r},)"
        if name == "logps_standalone":
            field, entry = name, "needs_standalone=True"
        raise ValueError(f"This reward needs {field}. Declare {entry} in its entry.")
    return value


def _budget(inputs: RewardInputs) -> float:
    if inputs.budget is None:
        raise ValueError(
            "This reward compares lengths with a budget in tokens. Set RewardInputs.budget; in "
            "training it is length_budget, or else max_answer_tokens."
        )
    return float(inputs.budget)


def _votes(inputs: RewardInputs) -> list[int]:
    """How many answers of its group gave the value that each answer gave, or none as it did."""
    given_in = list(zip(inputs.group_ids.tolist(), given(inputs, "answer_keys"), strict=True))
    counts = Counter(given_in)
    return [counts[pair] for pair in given_in]
