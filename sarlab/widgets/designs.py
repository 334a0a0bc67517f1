"""Reward designs on the same answers: as rewards, and as the advantages that training would use.

Pure; the rewards and advantages are the library's own, the very functions that training calls.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence

from sarlab.losses import group_advantages
from sarlab.rewards import REWARDS, total_reward
from sarlab.types import RewardInputs
from sarlab.widgets.candidates import Candidate, judged

Measure = Literal["advantage", "reward"]
_LABELS = {
    "correct": "correctness",
    "o1_pruner": "+ α·O1-pruner",
    "er": "+ α·ER",
    "confidence": "+ α·confidence",
    "sar_alone": "SAR alone",
    "sar": "+ α·SAR",
}
DESIGNS = tuple(_LABELS)


class Design(NamedTuple):
    """One reward design on a set of answers, one number per answer in their order.

    ``tokens``: the bonus per token of each answer where the design is dense, else empty.
    """

    name: str
    label: str
    rewards: tuple[float, ...]
    advantages: tuple[float, ...]
    tokens: tuple[tuple[float, ...], ...] = ()

    def numbers(self, measure: Measure) -> tuple[float, ...]:
        """The rewards or the advantages."""
        return self.rewards if measure == "reward" else self.advantages


def design_names(every: bool = False) -> list[str]:
    """The designs of the paper, then a user's that need no more than both log-probs.

    With ``every`` all that need no more.
    """
    free = {name: r.bonus.__module__ for name, r in REWARDS.items() if not r.needs}
    added = [name for name, home in free.items() if every or not home.startswith("sarlab.")]
    return list(dict.fromkeys([*DESIGNS, *added]))


def design_label(name: str) -> str:
    """What a design is called on the page."""
    alone = not REWARDS[name].verifiable
    return _LABELS.get(name) or (f"{name} alone" if alone else f"+ α·{name}")


def reward_inputs(candidates: Sequence[Candidate]) -> RewardInputs:
    """The answers as the input of a reward.

    A group is a question. Raises ValueError for an answer that was not judged.
    """
    unjudged = len(candidates) - len(judged(candidates))
    if unjudged:
        raise ValueError(
            f"{unjudged} of {len(candidates)} answers have no right answer to be judged by, so "
            "they have no reward. Leave them out, or say what the right answer is."
        )
    scores = [c.score for c in candidates]
    conditioned, standalone, mask = (
        pad_sequence(list(map(torch.tensor, rows)), batch_first=True)
        for rows in (
            [s.logps_conditioned for s in scores],
            [s.logps_standalone for s in scores],
            [[True] * s.length for s in scores],
        )
    )
    return RewardInputs(
        correct=torch.tensor([float(bool(c.correct)) for c in candidates]),
        group_ids=torch.from_numpy(pd.factorize(np.array([c.question for c in candidates]))[0]),
        answer_mask=mask,
        logps_conditioned=conditioned,
        logps_standalone=standalone,
    )


def compare_designs(
    candidates: Sequence[Candidate], alpha: float, names: Sequence[str] | None = None
) -> list[Design]:
    """The designs (all where ``names`` is None); ValueError for a question with one answer."""
    if not candidates:
        return []
    inputs = reward_inputs(candidates)
    designs = []
    for name in names or design_names():
        rewards = total_reward(inputs, name, alpha)
        advantages = group_advantages(rewards, inputs.group_ids)
        bonus = REWARDS[name].bonus(inputs)
        pairs = zip(bonus, inputs.answer_mask, strict=True) if bonus.dim() == 2 else ()
        tokens = tuple(tuple(row[mask].tolist()) for row, mask in pairs)
        numbers = tuple(rewards.tolist()), tuple(advantages.tolist())
        designs.append(Design(name, design_label(name), *numbers, tokens))
    return designs


class LabelMean(NamedTuple):
    """Mean of a design's numbers over answers of one label, with half of its 95% interval."""

    label: str
    mean: float
    half_width: float
    answers: int


def label_means(
    candidates: Sequence[Candidate], design: Design, measure: Measure = "advantage"
) -> list[LabelMean]:
    """The paper's analysis of answer types: one mean per label, in order of appearance."""
    labels = [candidate.label for candidate in candidates]
    values = pd.Series(design.numbers(measure), dtype=float).groupby(labels, sort=False)
    table = values.agg(["mean", "sem", "size"]).fillna(0.0)
    return [LabelMean(row.Index, row.mean, 1.96 * row.sem, row.size) for row in table.itertuples()]
