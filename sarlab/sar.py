"""Self-aligned reward: log-probs → perplexities → SAR, per answer and per token. Pure.

All functions take log-probs [B, T] in nats and ``answer_mask`` [B, T] (True on answer tokens;
every answer has at least one). "Conditioned" is with the question, "standalone" without it.
Source: Han et al. 2025, arXiv 2509.05489, Eq. 8.
"""

import torch
from torch import Tensor


def mean_logp(logps: Tensor, answer_mask: Tensor) -> Tensor:
    """Mean log-prob of each answer's tokens [B], nats."""
    counts = answer_mask.sum(dim=1)
    if not bool((counts > 0).all()):
        raise ValueError(
            f"Answers {(counts == 0).nonzero().flatten().tolist()} have no tokens, so their "
            "perplexity is undefined. Append the end token or drop them."
        )
    return logps.masked_fill(~answer_mask, 0.0).sum(dim=1) / counts


def perplexity(logps: Tensor, answer_mask: Tensor) -> Tensor:
    """ppl = exp(−mean log-prob) [B]; 1 is certainty."""
    return torch.exp(-mean_logp(logps, answer_mask))


def token_values(logps_conditioned: Tensor, logps_standalone: Tensor) -> Tensor:
    """v_j = log P(a_j | q, a_<j) − log P(a_j | a_<j) [B, T], nats: what the question gave it."""
    return logps_conditioned - logps_standalone


def self_aligned_reward(
    logps_conditioned: Tensor, logps_standalone: Tensor, answer_mask: Tensor
) -> Tensor:
    """R_SA = clip((ppl(a) − ppl(a|q)) / ppl(a), −1, 1) [B] (Eq. 8).

    Computed as 1 − exp(−mean v), the same number without a quotient of two large perplexities.
    The upper clip can never bind.
    """
    v = mean_logp(token_values(logps_conditioned, logps_standalone), answer_mask)
    return (1.0 - torch.exp(-v)).clamp(min=-1.0)


def token_shares(
    logps_conditioned: Tensor, logps_standalone: Tensor, answer_mask: Tensor
) -> Tensor:
    """Each token's share of the mean, v_j / n [B, T], nats; they add up to −log(1 − SAR)."""
    v = token_values(logps_conditioned, logps_standalone).masked_fill(~answer_mask, 0.0)
    return v / answer_mask.sum(dim=1, keepdim=True)


def leave_out(
    logps_conditioned: Tensor, logps_standalone: Tensor, answer_mask: Tensor, span: Tensor
) -> Tensor:
    """SAR [B] with the tokens of ``span`` [B, T] left out of the mean, nothing scored again.

    Deleting the span is another number: the tokens after it would be read in another context.
    """
    return self_aligned_reward(logps_conditioned, logps_standalone, answer_mask & ~span)
