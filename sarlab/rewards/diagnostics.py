"""What a bonus pays for, from the groups that it is paid to. Pure.

Right answers of one question compete with each other, so all numbers are within groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sarlab.rewards import answer_bonus
from sarlab.sar import token_values
from sarlab.types import RewardInputs

Numbers = np.ndarray[Any, np.dtype[np.float64]]
_NOTHING = 1e-8  # a spread below this is no signal
_ROUNDS = 8  # of fitting the curve and its shift and stretch in turn


def bonus_diagnostics(
    bonus: Tensor, inputs: RewardInputs, rewards: Tensor | None = None
) -> dict[str, float | None]:
    """What a bonus [B] pays for in these groups; None where the groups cannot say.

    - ``bonus_sd_within``: standard deviation within groups (pooled, unbiased).
    - ``bonus_slope``: change per 10 tokens among the right answers of a group.
    - ``bonus_length_share``: R² within groups of the bonus on its best monotone function of length
      (:func:`length_share`): 1 for a function of length, about 0 for a bonus that ignores it.
    - ``bonus_auc``: chance that a right answer is paid more than a wrong one of its group.
    - ``signal_mixed``, ``signal_all_right``, ``signal_all_wrong``: shares of all groups in which
      ``rewards`` [B] (default: the bonus) differ, by the groups' answers; they add up to the
      share of groups with a signal.
    - ``information_nats``: mean of V = log P(a|q) − log P(a).
    """
    paid = bonus if rewards is None else rewards
    ids = inputs.group_ids.cpu().numpy()
    columns = [
        t.detach().double().cpu().numpy() for t in (bonus, inputs.correct, inputs.lengths, paid)
    ]
    groups = [[column[ids == group] for column in columns] for group in np.unique(ids)]
    alone, information = inputs.logps_standalone, None
    if alone is not None:
        values = token_values(inputs.logps_conditioned, alone)
        information = values.masked_fill(~inputs.answer_mask, 0.0).sum(dim=1).mean().item()
    several = [(b, c, n, r) for b, c, n, r in groups if len(b) > 1]
    signals: dict[str, list[bool]] = {"mixed": [], "all_right": [], "all_wrong": []}
    for _, c, _, r in several:
        kind = "all_wrong" if (c == 0).all() else "all_right" if (c > 0).all() else "mixed"
        for name, moved in signals.items():
            moved.append(name == kind and bool(np.ptp(r) > _NOTHING))
    return {
        "bonus_sd_within": _sd([b for b, _, _, _ in several]),
        "bonus_slope": slope_per_10_tokens([(b[c > 0], n[c > 0]) for b, c, n, _ in several]),
        "bonus_length_share": length_share([(b, n) for b, _, n, _ in several]),
        "bonus_auc": _auc([(b, c) for b, c, _, _ in several]),
        **{f"signal_{k}": float(np.mean(v)) if v else None for k, v in signals.items()},
        "information_nats": information,
    }


def length_share(groups: Sequence[tuple[Numbers, Numbers]]) -> float | None:
    """Share of the bonus's variance within groups that length explains: adjusted R².

    ``groups``: (bonus, length) each. One monotone curve over length relative to the group's mean
    serves all groups, shifted and stretched for each: bonus = a_g + b_g · f(n / mean n). A curve
    of its own for each group would follow the noise of its few answers.
    """
    from scipy.optimize import isotonic_regression

    several = [(b, n / n.mean()) for b, n in groups if len(b) > 1]
    spread = sum(float(np.square(b - b.mean()).sum()) for b, _ in several)
    slopes = sum(np.ptp(x) > 0 for _, x in several)
    freedom = sum(len(b) - 1 for b, _ in several)
    if spread <= _NOTHING or not slopes or freedom <= slopes:
        return None
    lengths = np.concatenate([x for _, x in several])
    bonus = np.concatenate([b for b, _ in several])
    sizes = np.array([len(b) for b, _ in several])
    of_group = np.repeat(np.arange(len(sizes)), sizes)
    order = np.argsort(lengths, kind="stable")
    curve, least = -lengths, np.inf
    for _ in range(_ROUNDS):
        middle, paid = ((np.bincount(of_group, v) / sizes)[of_group] for v in (curve, bonus))
        apart = curve - middle
        product, squares = (np.bincount(of_group, apart * v) for v in (bonus, apart))
        slope = np.divide(product, squares, out=np.zeros(len(sizes)), where=squares > _NOTHING)
        stretch = slope[of_group]
        shift = paid - stretch * middle
        least = min(least, float(np.square(bonus - shift - stretch * curve).sum()))
        weights = np.square(stretch).clip(min=1e-12)
        aims = np.divide(bonus - shift, stretch, out=curve.copy(), where=np.abs(stretch) > 1e-6)
        fitted = isotonic_regression(aims[order], weights=weights[order], increasing=False).x
        # One value per length: the mean of those that equal lengths were given.
        _, place, counts = np.unique(lengths[order], return_inverse=True, return_counts=True)
        means = np.bincount(place, fitted) / counts
        curve = means[place][np.argsort(order, kind="stable")]
    return float(1.0 - (least / (freedom - slopes)) / (spread / freedom))


def slope_per_10_tokens(groups: Sequence[tuple[Numbers, Numbers]]) -> float | None:
    """Least-squares slope of (bonus, length) within groups, per 10 tokens."""
    product = squares = 0.0
    for bonus, length in groups:
        if len(bonus) > 1:
            apart = length - length.mean()
            product += float(apart @ bonus)
            squares += float(apart @ apart)
    return 10 * product / squares if squares else None


def matched_alpha(
    reward: str,
    inputs: RewardInputs,
    like: tuple[str, float] = ("sar", 0.2),
    by: Literal["slope", "sd"] = "slope",
) -> float:
    """The α at which a reward pulls as strongly as ``like`` = (reward, α).

    Measured on ``inputs``, the answers of the policy before training. Strength is the slope of
    α·bonus per token among the right answers of a group, or (``by="sd"``) its standard deviation
    within groups. Raises ValueError where a slope is not negative, since no α matches it then.
    """
    strengths = []
    for name in (like[0], reward):
        numbers = bonus_diagnostics(answer_bonus(inputs, name), inputs)
        slope, sd = numbers["bonus_slope"], numbers["bonus_sd_within"]
        if by == "sd":
            strengths.append(sd or 0.0)
        elif slope is None or slope >= 0:
            raise ValueError(
                f"Reward {name!r} has a slope of {slope} per 10 tokens among right answers, so it "
                "does not pay shorter ones more and has no matching alpha. Match it by its spread "
                "(by='sd') and say so."
            )
        else:
            strengths.append(slope)
    if strengths[1] == 0:
        raise ValueError(f"Reward {reward!r} pays all answers of a group the same; no alpha helps.")
    return like[1] * strengths[0] / strengths[1]


def reward_inputs(rows: Sequence[Mapping[str, Any]], groups: str = "question_id") -> RewardInputs:
    """Rows of a rollout table (with log-probs per token) as rewards want them.

    ``groups``: the column that answers to one question share. Raises ValueError where a row was
    stored without its log-probs.
    """
    if any(row["logps_conditioned"] is None for row in rows):
        raise ValueError(
            "These rows hold no log-probs per token, which rewards need. Take the run's own "
            "rollouts; shipped runs may leave them out."
        )
    lengths = torch.tensor([row["length"] for row in rows])
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    names = {name: i for i, name in enumerate(dict.fromkeys(row[groups] for row in rows))}

    def block(column: str) -> Tensor:
        values = [x for row in rows for x in row[column]]
        return torch.zeros(mask.shape).masked_scatter(
            mask, torch.tensor(values, dtype=torch.float32)
        )

    alone = all(row["logps_standalone"] is not None for row in rows)
    return RewardInputs(
        correct=torch.tensor([float(row["correct"]) for row in rows]),
        group_ids=torch.tensor([names[row[groups]] for row in rows]),
        answer_mask=mask,
        logps_conditioned=block("logps_conditioned"),
        logps_standalone=block("logps_standalone") if alone else None,
    )


def _sd(groups: Sequence[Numbers]) -> float | None:
    if not groups:
        return None
    squares = sum(float(np.square(b - b.mean()).sum()) for b in groups)
    return float(np.sqrt(squares / sum(len(b) - 1 for b in groups)))


def _auc(groups: Sequence[tuple[Numbers, Numbers]]) -> float | None:
    """Mean over the groups that hold right and wrong answers; a tie counts half."""
    chances = []
    for bonus, correct in groups:
        if (correct > 0).any() and (correct == 0).any():
            apart = bonus[correct > 0][:, None] - bonus[correct == 0][None]
            chances.append(((apart > 0) + 0.5 * (apart == 0)).mean())
    return float(np.mean(chances)) if chances else None
