"""Reward designs on the same answers: as rewards, and as the advantages that training would use.

Pure; the rewards and advantages are the library's own, the very functions that training calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from sarlab.losses import group_advantages
from sarlab.rewards import REWARDS, total_reward
from sarlab.types import RewardInputs
from sarlab.widgets.candidates import Candidate

Measure = Literal["advantage", "reward"]
DESIGNS = ("correct", "o1_pruner", "er", "confidence", "sar_alone", "sar")
_LABELS = {
    "correct": "correctness",
    "o1_pruner": "+ α·O1-pruner",
    "er": "+ α·ER",
    "confidence": "+ α·confidence",
    "sar_alone": "SAR alone",
    "sar": "+ α·SAR",
}


@dataclass(frozen=True)
class Design:
    """One reward design on a set of answers, one number an answer in their order."""

    name: str
    label: str
    rewards: tuple[float, ...]
    advantages: tuple[float, ...]

    def numbers(self, measure: Measure) -> tuple[float, ...]:
        """The rewards or the advantages."""
        return self.rewards if measure == "reward" else self.advantages


def design_label(name: str) -> str:
    """What a design is called in tables: its bonus on top of correctness."""
    return _LABELS.get(name, f"+ α·{name}")


def design_names() -> list[str]:
    """The designs on offer: those of the paper, then whatever a user added to REWARDS."""
    return [*DESIGNS, *(name for name in REWARDS if name not in DESIGNS)]


def reward_inputs(candidates: Sequence[Candidate]) -> RewardInputs:
    """The answers as rewards want them.

    A group is a question; an answer that was not judged counts as wrong.
    """
    questions = {q: i for i, q in enumerate(dict.fromkeys(c.question for c in candidates))}
    width = max(c.score.length for c in candidates)
    mask = torch.zeros(len(candidates), width, dtype=torch.bool)
    conditioned, standalone = torch.zeros(mask.shape), torch.zeros(mask.shape)
    for row, c in enumerate(candidates):
        n = c.score.length
        mask[row, :n] = True
        conditioned[row, :n] = torch.tensor(c.score.logps_conditioned)
        standalone[row, :n] = torch.tensor(c.score.logps_standalone)
    return RewardInputs(
        correct=torch.tensor([float(bool(c.correct)) for c in candidates]),
        group_ids=torch.tensor([questions[c.question] for c in candidates]),
        answer_mask=mask,
        logps_conditioned=conditioned,
        logps_standalone=standalone,
    )


def compare_designs(
    candidates: Sequence[Candidate], alpha: float, names: Sequence[str] | None = None
) -> list[Design]:
    """Every design on the answers. Raises ValueError for a question with one answer only."""
    if not candidates:
        return []
    inputs = reward_inputs(candidates)
    found = []
    for name in names or design_names():
        rewards = total_reward(inputs, name, alpha)
        advantages = group_advantages(rewards, inputs.group_ids)
        found.append(
            Design(name, design_label(name), tuple(rewards.tolist()), tuple(advantages.tolist()))
        )
    return found


@dataclass(frozen=True)
class KindMean:
    """Mean of a design's numbers over one kind of answer, with half of its 95% interval."""

    kind: str
    mean: float
    half_width: float
    answers: int


def kind_means(
    candidates: Sequence[Candidate], design: Design, measure: Measure = "advantage"
) -> list[KindMean]:
    """The paper's analysis of answer types: one mean a kind, kinds in order of appearance."""
    numbers = design.numbers(measure)
    found = []
    for kind in dict.fromkeys(c.kind for c in candidates):
        mine = [x for x, c in zip(numbers, candidates, strict=True) if c.kind == kind]
        n, mean = len(mine), math.fsum(mine) / len(mine)
        spread = math.sqrt(math.fsum((x - mean) ** 2 for x in mine) / (n - 1)) if n > 1 else 0.0
        found.append(KindMean(kind, mean, 1.96 * spread / math.sqrt(n), n))
    return found
