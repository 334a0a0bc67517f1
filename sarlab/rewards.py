"""Rewards: pure functions from :class:`RewardInputs` to one value per answer.

R = R_VR + α·bonus, R_VR = 1 for a right answer and 0 for any other. ``REWARDS`` is the table of
all rewards. To add one, write a function and an entry:

    def short(inputs):                       # RewardInputs → Tensor [B]
        return -inputs.lengths / 100

    REWARDS["short"] = Reward(short, needs_standalone=False, about="fewer tokens are better")
    TrainConfig(reward="short", alpha=0.1)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sarlab.sar import mean_logp, self_aligned_reward
from sarlab.types import RewardInputs

AlphaSchedule = Literal["constant", "linear_up", "linear_down"]


@dataclass(frozen=True)
class Reward:
    """A bonus beside (or instead of) correctness, and the inputs that it needs."""

    bonus: Callable[[RewardInputs], Tensor]
    needs_standalone: bool
    about: str
    verifiable: bool = True  # False: the bonus alone, correctness not counted
    needs_group: bool = False  # compares answers to one question, so there must be several


def group_mean(values: Tensor, group_ids: Tensor) -> Tensor:
    """Each answer's group mean [B]; a group is the answers to one question."""
    _, index = torch.unique(group_ids, return_inverse=True)
    size = int(index.max()) + 1
    sums = values.new_zeros(size).index_add_(0, index, values)
    counts = values.new_zeros(size).index_add_(0, index, torch.ones_like(values))
    return (sums / counts)[index]


def group_std(values: Tensor, group_ids: Tensor) -> Tensor:
    """Unbiased standard deviation of each answer's group [B]; 0 for a group of one."""
    squares = (values - group_mean(values, group_ids)).square()
    _, index, counts = torch.unique(group_ids, return_inverse=True, return_counts=True)
    n = counts[index].to(values.dtype)
    return (group_mean(squares, group_ids) * n / (n - 1).clamp(min=1)).sqrt()


def no_bonus(inputs: RewardInputs) -> Tensor:
    """0 [B]: plain GRPO and PPO."""
    return torch.zeros_like(inputs.correct)


def sar(inputs: RewardInputs) -> Tensor:
    """Self-aligned reward in [−1, 1) [B]: the relative drop in perplexity due to the question."""
    if inputs.logps_standalone is None:
        raise ValueError(
            "SAR needs logps_standalone. Declare needs_standalone=True in the reward's entry."
        )
    return self_aligned_reward(
        inputs.logps_conditioned, inputs.logps_standalone, inputs.answer_mask
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
    bonus = torch.zeros_like(inputs.correct)
    right = inputs.correct > 0
    for group in torch.unique(inputs.group_ids[right]):
        members = right & (inputs.group_ids == group)
        lengths = inputs.lengths[members]
        if len(lengths) > 1 and lengths.std() > 0:
            z = (lengths - lengths.mean()) / lengths.std()
            bonus[members] = 1.0 - 2.0 * torch.sigmoid(z)
    return bonus


def confidence(inputs: RewardInputs) -> Tensor:
    """−log ppl(a|q) [B], nats: entropy minimisation."""
    return mean_logp(inputs.logps_conditioned, inputs.answer_mask)


REWARDS: dict[str, Reward] = {
    "correct": Reward(no_bonus, False, "right or wrong, nothing else"),
    "sar": Reward(sar, True, "right, and what the question gives to the answer"),
    "o1_pruner": Reward(o1_pruner, False, "right, and shorter than its siblings", needs_group=True),
    "er": Reward(
        efficient_reasoning, False, "right, and short among the right ones", needs_group=True
    ),
    "confidence": Reward(confidence, False, "right, and likely (entropy minimisation)"),
    "sar_alone": Reward(sar, True, "the bonus alone; collapses in training", verifiable=False),
}


def reward_named(name: str) -> Reward:
    """The reward of that name; ValueError with the list of names for an unknown one."""
    if name not in REWARDS:
        raise ValueError(
            f"Unknown reward {name!r}. Choose one of {', '.join(REWARDS)}, or add your own to "
            "sarlab.rewards.REWARDS."
        )
    return REWARDS[name]


def alpha_at(alpha: float, schedule: AlphaSchedule, progress: float) -> float:
    """α at ``progress`` (a share of training): constant, rising from 0, or falling to 0."""
    if schedule == "constant":
        return alpha
    if schedule == "linear_up":
        return alpha * progress
    if schedule == "linear_down":
        return alpha * (1.0 - progress)
    raise ValueError(
        f"Unknown alpha_schedule {schedule!r}; choose constant, linear_up, linear_down."
    )


def total_reward(
    inputs: RewardInputs, name: str, alpha: float, schedule: AlphaSchedule = "constant"
) -> Tensor:
    """R = R_VR + α·bonus [B]; for a reward that is not verifiable the bonus alone."""
    reward = reward_named(name)
    bonus = reward.bonus(inputs)
    if bonus.shape != inputs.correct.shape:
        raise ValueError(
            f"Reward {name!r} returned shape {tuple(bonus.shape)} for "
            f"{len(inputs.correct)} answers. Return one value per answer."
        )
    if not reward.verifiable:
        return bonus
    return inputs.correct + alpha_at(alpha, schedule, inputs.progress) * bonus
