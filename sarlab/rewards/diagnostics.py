"""What a bonus pays for, from the groups that it is paid to. Pure.

Right answers of one question compete with each other, so all numbers are within groups.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
    - ``bonus_length_share``: see :func:`length_share`; about 0 for a bonus that ignores length.
    - ``bonus_auc``: chance that a right answer is paid more than a wrong one of its group.
    - ``signal_mixed``, ``signal_all_right``, ``signal_all_wrong``: shares of all groups in which
      ``rewards`` [B] (default: the bonus) differ, by the groups' answers.
    - ``information_nats``: mean of V = log P(a|q) − log P(a).
    """
    x, correct, lengths, paid = (
        t.detach().double().cpu().numpy()
        for t in (bonus, inputs.correct, inputs.lengths, bonus if rewards is None else rewards)
    )
    alone, information = inputs.logps_standalone, None
    if alone is not None:
        values = token_values(inputs.logps_conditioned, alone)
        information = values.masked_fill(~inputs.answer_mask, 0.0).sum(dim=1).mean().item()
    ids, right = inputs.group_ids.cpu().numpy(), correct > 0
    signals = {"mixed": 0, "all_right": 0, "all_wrong": 0}
    groups = [ids == group for group in np.unique(ids)]
    groups = [members for members in groups if members.sum() > 1]
    chances = []
    for members in groups:
        better, worse = x[members & right], x[members & ~right]
        kind = "all_wrong" if not len(better) else "mixed" if len(worse) else "all_right"
        signals[kind] += int(np.ptp(paid[members]) > _NOTHING)
        if kind == "mixed":  # a tie counts half
            apart = better[:, None] - worse[None]
            chances.append(((apart > 0) + 0.5 * (apart == 0)).mean())
    apart, freedom = _within(x, ids), len(x) - len(np.unique(ids))
    return {
        "bonus_sd_within": float(np.sqrt(apart @ apart / freedom)) if freedom else None,
        "bonus_slope": slope_per_10_tokens(x[right], lengths[right], ids[right]),
        "bonus_length_share": length_share(x, lengths, ids),
        "bonus_auc": float(np.mean(chances)) if chances else None,
        **{f"signal_{k}": n / len(groups) if groups else None for k, n in signals.items()},
        "information_nats": information,
    }


def length_share(bonus: Numbers, lengths: Numbers, groups: Any) -> float | None:
    """Share of the bonus's variance within groups that length explains: adjusted R². Arrays [B].

    One monotone curve over length relative to the group's mean serves all groups, shifted and
    stretched for each: bonus = a_g + b_g · f(n / mean n). A curve of its own for each group would
    follow the noise of its few answers.
    """
    from scipy.optimize import isotonic_regression

    _, of_group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    several = sizes[of_group] > 1
    bonus, lengths = bonus[several], lengths[several]
    _, of_group, sizes = np.unique(of_group[several], return_inverse=True, return_counts=True)
    lengths = lengths / (lengths - _within(lengths, of_group))
    spread = float(np.square(_within(bonus, of_group)).sum())
    varied = np.bincount(of_group, np.abs(_within(lengths, of_group)) > _NOTHING)
    slopes, freedom = int((varied > 0).sum()), len(bonus) - len(sizes)
    if spread <= _NOTHING or not slopes or freedom <= slopes:
        return None
    order = np.argsort(lengths, kind="stable")
    curve, least = -lengths, np.inf
    for _ in range(_ROUNDS):
        apart, paid = _within(curve, of_group), bonus - _within(bonus, of_group)
        product, squares = (np.bincount(of_group, apart * v) for v in (bonus, apart))
        slope = np.divide(product, squares, out=np.zeros(len(sizes)), where=squares > _NOTHING)
        stretch = slope[of_group]
        shift = paid - stretch * (curve - apart)
        least = min(least, float(np.square(bonus - shift - stretch * curve).sum()))
        weights = np.square(stretch).clip(min=1e-12)
        aims = np.divide(bonus - shift, stretch, out=curve.copy(), where=np.abs(stretch) > 1e-6)
        fitted = isotonic_regression(aims[order], weights=weights[order], increasing=False).x
        # One value per length: the mean of those that equal lengths were given.
        _, place = np.unique(lengths, return_inverse=True)
        curve = (np.bincount(place[order], fitted) / np.bincount(place))[place]
    return float(1.0 - (least / (freedom - slopes)) / (spread / freedom))


def slope_per_10_tokens(bonus: Numbers, lengths: Numbers, groups: Any) -> float | None:
    """Least-squares slope of bonus on length within groups, per 10 tokens. Arrays [B]."""
    apart = _within(lengths, groups)
    squares = float(apart @ apart)
    return 10 * float(apart @ bonus) / squares if squares else None


def _within(values: Numbers, groups: Any) -> Numbers:
    """Values [B] minus the mean of their group."""
    _, of_group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(values - (np.bincount(of_group, values) / sizes)[of_group])


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
        strength = numbers["bonus_slope" if by == "slope" else "bonus_sd_within"]
        if by == "slope" and (strength is None or strength >= 0):
            raise ValueError(
                f"Reward {name!r} has a slope of {strength} per 10 tokens among right answers, so "
                "it does not pay shorter ones more and has no matching alpha. Match it by its "
                "spread (by='sd') and say so."
            )
        strengths.append(strength or 0.0)
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
    lengths = torch.tensor([len(row["logps_conditioned"]) for row in rows])
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    names = {name: i for i, name in enumerate(dict.fromkeys(row[groups] for row in rows))}

    def block(column: str) -> Tensor:
        values = [torch.tensor(row[column], dtype=torch.float32) for row in rows]
        return pad_sequence(values, batch_first=True)

    alone = all(row["logps_standalone"] is not None for row in rows)
    return RewardInputs(
        correct=torch.tensor([float(row["correct"]) for row in rows]),
        group_ids=torch.tensor([names[row[groups]] for row in rows]),
        answer_mask=mask,
        logps_conditioned=block("logps_conditioned"),
        logps_standalone=block("logps_standalone") if alone else None,
    )
