"""Rewards: pure functions from :class:`RewardInputs` to one value per answer.

R = R_VR + α·bonus, R_VR = 1 for a right answer and 0 for any other. ``REWARDS`` is the table of
all rewards. To add one, write a function and an entry:

    def short(inputs):                       # RewardInputs → Tensor [B]
        return -inputs.lengths / 100

    REWARDS["short"] = Reward(short, needs_standalone=False, about="fewer tokens are better")
    TrainConfig(reward="short", alpha=0.1)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sarlab.rewards import published as by  # by others
from sarlab.rewards.published import given, group_reduce, right_lengths
from sarlab.sar import mean_logp, self_aligned_reward, token_values
from sarlab.types import RewardInputs

AlphaSchedule = Literal["constant", "linear_up", "linear_down"]


@dataclass(frozen=True)
class Reward:
    """A bonus beside (or instead of) correctness, and what it needs to be computed.

    ``bonus`` returns one value per answer [B], or one per token [B, T] (dense credit).
    """

    bonus: Callable[[RewardInputs], Tensor]
    needs_standalone: bool
    about: str
    verifiable: bool = True  # False: the bonus alone, correctness not counted
    needs_group: bool = False  # compares answers to one question, so there must be several
    needs: tuple[str, ...] = ()  # the optional fields of RewardInputs that it reads besides


def group_mean(values: Tensor, group_ids: Tensor) -> Tensor:
    """Each answer's group mean [B]; a group is the answers to one question."""
    return group_reduce(values, group_ids, "mean")


def group_std(values: Tensor, group_ids: Tensor) -> Tensor:
    """Unbiased standard deviation of each answer's group [B]; 0 for a group of one."""
    squares = (values - group_mean(values, group_ids)).square()
    n = group_reduce(torch.ones_like(values), group_ids, "sum")
    return (group_mean(squares, group_ids) * n / (n - 1).clamp(min=1)).sqrt()


def no_bonus(inputs: RewardInputs) -> Tensor:
    """0 [B]: plain GRPO and PPO."""
    return torch.zeros_like(inputs.correct)


def sar(inputs: RewardInputs) -> Tensor:
    """Self-aligned reward in [−1, 1) [B]: the relative drop in perplexity due to the question."""
    return self_aligned_reward(
        inputs.logps_conditioned, given(inputs, "logps_standalone"), inputs.answer_mask
    )


def o1_pruner(inputs: RewardInputs) -> Tensor:
    """−clip((len − group's mean len) / len, −1, 1) [B]: shorter than its siblings is better."""
    lengths = inputs.lengths
    return -((lengths - group_mean(lengths, inputs.group_ids)) / lengths).clamp(-1.0, 1.0)


def efficient_reasoning(inputs: RewardInputs) -> Tensor:
    """ER [B]: −(2σ((len − mean)/std) − 1) among the group's right answers, 0 for all others.

    Mean and (unbiased) standard deviation are over the group's right answers; 0 where at most
    one is right or all have one length.
    """
    mean, sd = right_lengths(inputs)
    bonus = 1.0 - 2.0 * torch.sigmoid((inputs.lengths - mean) / sd)
    return torch.where((inputs.correct > 0) & (sd > 0), bonus, 0.0)


def confidence(inputs: RewardInputs) -> Tensor:
    """−log ppl(a|q) [B], nats: entropy minimisation."""
    return mean_logp(inputs.logps_conditioned, inputs.answer_mask)


LENGTH_ONLY_NATS = 17.2
"""V₀ of :func:`length_only`: the mean of V over `tiny`'s base answers, 300 × 8, in nats."""
READ_NATS = 2.0
"""A line reads the question where the question gives its tokens at least this much together."""
FEED_NATS = 5.0
"""A line feeds the rest where the rest loses at least this much without it."""


def length_only(inputs: RewardInputs) -> Tensor:
    """1 − exp(−V₀/n) in (0, 1) [B]: what SAR would be if all answers held the same information.

    Sees no perplexity. SAR is 1 − exp(−V/n) with V = log P(a|q) − log P(a).
    """
    return 1.0 - torch.exp(-LENGTH_ONLY_NATS / inputs.lengths)


def sar_lambda(inputs: RewardInputs, weight: float = 0.5) -> Tensor:
    """1 − exp(−mean(log P(a|q) − λ log P(a))) in [−1, 1) [B], λ = ``weight``.

    λ = 1 is SAR; λ = 0 is 1 − ppl(a|q), confidence in another form.
    """
    conditioned = mean_logp(inputs.logps_conditioned, inputs.answer_mask)
    standalone = mean_logp(given(inputs, "logps_standalone"), inputs.answer_mask)
    return (1.0 - torch.exp(weight * standalone - conditioned)).clamp(min=-1.0)


def sar_masked(inputs: RewardInputs) -> Tensor:
    """SAR with v = 0 on tokens copied from the question [B]: a copy of the question earns 0."""
    standalone = given(inputs, "logps_standalone")
    standalone = torch.where(given(inputs, "copied"), inputs.logps_conditioned, standalone)
    return self_aligned_reward(inputs.logps_conditioned, standalone, inputs.answer_mask)


def sar_right(inputs: RewardInputs) -> Tensor:
    """SAR for right answers, 0 for all others [B]."""
    return sar(inputs) * inputs.correct


def filler_share(inputs: RewardInputs) -> Tensor:
    """Minus the share of an answer's tokens that stand in filler lines, in [−1, 0] [B].

    A line is filler where it neither reads the question (Σ v over its tokens below
    ``READ_NATS``) nor feeds the lines after it (d below ``FEED_NATS``). The last line, which
    nothing follows, is never filler.
    """
    line_ids, dependence = given(inputs, "line_ids"), given(inputs, "dependence")
    values = token_values(inputs.logps_conditioned, given(inputs, "logps_standalone"))
    place = line_ids.clamp(min=0)
    empty = dependence.new_zeros(dependence.shape)
    read = empty.scatter_add(1, place, values.masked_fill(~inputs.answer_mask, 0.0))
    tokens = empty.scatter_add(1, place, inputs.answer_mask.to(empty.dtype))
    last = line_ids.max(dim=1, keepdim=True).values
    is_last = torch.arange(empty.shape[1], device=empty.device)[None] == last
    filler = (read < READ_NATS) & (dependence < FEED_NATS) & ~is_last
    return -(tokens * filler).sum(dim=1) / inputs.lengths


_GROUP: dict[str, Any] = {"needs_group": True}
_ALONE: dict[str, Any] = {"verifiable": False}
_BUDGET: dict[str, Any] = {"needs": ("budget",)}
_GOLD: dict[str, Any] = {"needs": ("gold_logps", "gold_logps_without", "gold_mask")}
_LINES: dict[str, Any] = {"needs": ("line_ids", "dependence")}
_KEYS: dict[str, Any] = {"needs": ("answer_keys",), **_GROUP, **_ALONE}

REWARDS: dict[str, Reward] = {
    "correct": Reward(no_bonus, False, "right or wrong, nothing else"),
    "sar": Reward(sar, True, "right, and what the question gives to the answer"),
    "o1_pruner": Reward(o1_pruner, False, "right, and shorter than its siblings", **_GROUP),
    "er": Reward(efficient_reasoning, False, "right, and short among the right", **_GROUP),
    "confidence": Reward(confidence, False, "right, and likely (entropy minimisation)"),
    "sar_alone": Reward(sar, True, "the bonus alone; collapses in training", verifiable=False),
    "length_only": Reward(length_only, False, "right, and short, by SAR's formula with constant V"),
    "sar_lambda": Reward(sar_lambda, True, "right, and half SAR, half confidence (λ = 0.5)"),
    "sar_masked": Reward(sar_masked, True, "right, and SAR without copies", needs=("copied",)),
    "sar_right": Reward(sar_right, True, "right, and SAR for right answers only"),
    "filler_share": Reward(filler_share, True, "right, and no lines that serve nothing", **_LINES),
    "kimi": Reward(by.kimi, False, "right, and short within the group (Kimi k1.5)", **_GROUP),
    "shorter_better": Reward(
        by.shorter_better, False, "right, and near the shortest one", **_GROUP
    ),
    "short_rl": Reward(by.short_rl, False, "right, and short while accuracy holds", **_GROUP),
    "laser": Reward(by.laser, False, "right, and within the budget", **_BUDGET),
    "alp": Reward(by.alp, False, "right, and short where the question is easy", **_BUDGET),
    "linear_length": Reward(by.linear_length, False, "right, and short (prime-rl)", **_GROUP),
    "grpo_lambda": Reward(by.grpo_lambda, False, "right, and short where most are", **_GROUP),
    "dast": Reward(by.dast, False, "right, and near a budget set by difficulty", **_BUDGET),
    "cosine": Reward(by.cosine, False, "right and short, wrong and long", **_BUDGET, **_ALONE),
    "soft_overlong": Reward(by.soft_overlong, False, "right, and not near the limit", **_BUDGET),
    "l1_exact": Reward(by.l1_exact, False, "right, and as long as the budget", **_BUDGET),
    "l1_max": Reward(by.l1_max, False, "right and below the budget", **_BUDGET, **_ALONE),
    "entropy": Reward(by.entropy, False, "right, and sure at each token", needs=("entropy",)),
    "intuitor": Reward(
        by.intuitor, False, "right, and far from uniform", needs=("self_certainty",)
    ),
    "pmi": Reward(by.pmi, True, "right, and what the question gives in all, in nats"),
    "verifree": Reward(by.verifree, False, "how likely the gold is then", **_GOLD, **_ALONE),
    "rlpr": Reward(by.rlpr, False, "how much likelier the gold becomes", **_GOLD, **_ALONE),
    "nover": Reward(by.nover, False, "the gold's rank, and brevity", **_GOLD, **_ALONE, **_GROUP),
    "vr_cli": Reward(by.vr_cli, False, "the gold's drop in perplexity", **_GOLD, **_ALONE),
    "latro": Reward(by.latro, False, "log-probability of the gold", **_GOLD, **_ALONE),
    "majority": Reward(by.majority, False, "agrees with most of the group", **_KEYS),
    "empo": Reward(by.empo, False, "share of the group that agrees", **_KEYS),
}


def reward_named(name: str | Reward) -> Reward:
    """The reward of that name; ValueError with the list of names for an unknown one."""
    if isinstance(name, Reward):
        return name
    if name not in REWARDS:
        raise ValueError(
            f"Unknown reward {name!r}. Choose one of {', '.join(REWARDS)}, or add your own to "
            "sarlab.rewards.REWARDS."
        )
    return REWARDS[name]


def alpha_at(alpha: float, schedule: AlphaSchedule, progress: float) -> float:
    """α at ``progress`` (a share of training): constant, rising from 0, or falling to 0."""
    shares = {"constant": 1.0, "linear_up": progress, "linear_down": 1.0 - progress}
    if schedule not in shares:
        raise ValueError(f"Unknown alpha_schedule {schedule!r}; choose {', '.join(shares)}.")
    return alpha * shares[schedule]


def answer_bonus(inputs: RewardInputs, name: str) -> Tensor:
    """The bonus per answer [B]; a dense one [B, T] counts with its mean over the answer."""
    bonus = reward_named(name).bonus(inputs)
    if bonus.shape == inputs.answer_mask.shape and bonus.dim() == 2:
        return mean_logp(bonus, inputs.answer_mask)
    if bonus.shape != inputs.correct.shape:
        raise ValueError(
            f"Reward {name!r} returned shape {tuple(bonus.shape)} for "
            f"{len(inputs.correct)} answers. Return one value per answer [B] or per token [B, T]."
        )
    return bonus


def total_reward(
    inputs: RewardInputs, name: str, alpha: float, schedule: AlphaSchedule = "constant"
) -> Tensor:
    """R = R_VR + α·bonus [B]; for a reward that is not verifiable the bonus alone."""
    bonus = answer_bonus(inputs, name)
    if not reward_named(name).verifiable:
        return bonus
    return inputs.correct + alpha_at(alpha, schedule, inputs.progress) * bonus


def token_credit(
    inputs: RewardInputs, name: str, alpha: float, schedule: AlphaSchedule = "constant"
) -> Tensor | None:
    """α·(b_t − the answer's mean b) [B, T] of a dense bonus, 0 on padding; None for any other.

    Added to an answer's advantage it moves credit between the answer's tokens and leaves their
    mean as it is.
    """
    bonus = reward_named(name).bonus(inputs)
    if bonus.dim() != 2:
        return None
    weight = alpha_at(alpha, schedule, inputs.progress) if reward_named(name).verifiable else 1.0
    apart = bonus - mean_logp(bonus, inputs.answer_mask)[:, None]
    return weight * apart.masked_fill(~inputs.answer_mask, 0.0)
