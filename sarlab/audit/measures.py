"""How well a score tells better answers from worse ones, with 95% intervals over questions. Pure.

- *pair share*: of the pairs of a better and a worse answer to one question, the share in which the
  better one scores higher; ties count half. It is the AUC within a question, averaged over them,
  and what training can use: advantages compare answers of one group only.
- *AUC*: the same over pairs from any two questions: would one threshold serve for all?
- *effect size*: Cohen's d, the difference of means in pooled standard deviations. Cliff's delta
  would be 2·AUC − 1, the same number twice; a policy gradient is proportional to the distance.

At equal length only pairs count whose lengths differ by at most a share of the longer one, so that
a score which merely prefers short (or long) answers falls back to one half.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarlab.evaluation.statistics import (
    Array,
    mean_interval,
    named,
    named_mean,
    resampled_interval,
    sign_flip_p,
)

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
_UNKNOWN = (np.nan, (np.nan, np.nan))  # where nothing can be said


def contrast(
    values: Array,
    better: Mask,
    worse: Mask,
    questions: Ints,
    *,
    groups: Ints | None = None,
    lengths: Array | None = None,
    tolerance: float = 1.0,
) -> dict[str, Any]:
    """Compare the ``better`` with the ``worse`` answers, all arrays [answers].

    :func:`pair_share`, and ``auc`` (in [0, 1]) and ``effect`` (standard deviations), each with
    ``_low`` and ``_high`` (95%); NaN where nothing can be said. With ``lengths`` only pairs of
    equal length count, without effect size. ValueError where an answer is on both sides.
    """
    if bool(np.any(better & worse)):
        raise ValueError("An answer is among the better and the worse ones. Let it be on one side.")
    sizes = np.zeros(len(values)) if lengths is None else lengths
    line = pair_share(values, better, worse, questions, groups, sizes, tolerance)
    better, worse = (side & np.isfinite(values) for side in (better, worse))
    apart = values[better][:, None] - values[worse][None]
    counted = _near(sizes[better][:, None], sizes[worse][None], tolerance).astype(float)
    wins = counted * ((apart > 0) + 0.5 * (apart == 0))
    names = np.unique(questions[better | worse])
    of_b, of_w = (1.0 * (questions[side][:, None] == names) for side in (better, worse))
    line |= named("auc", *_auc(of_b.T @ wins @ of_w, of_b.T @ counted @ of_w))
    if lengths is None:
        line |= named("effect", *_cohens_d(values[better], values[worse], of_b, of_w))
    return line


def pair_share(
    values: Array,
    better: Mask,
    worse: Mask,
    questions: Ints,
    groups: Ints | None = None,
    lengths: Any = 0.0,
    tolerance: float = 1.0,
) -> dict[str, Any]:
    """``share`` of pairs in order, its 95% interval, and ``share_p``, that it is one half.

    ``values``: higher is better; an answer without one (NaN) is left out. ``questions``: a number
    per question, the unit of resampling. ``groups``: answers that are compared with each other, by
    default those to one question; |a − b| ≤ ``tolerance`` · max(a, b) of their ``lengths``.
    ``questions`` and ``pairs`` of the result: how many there are with, and of, such pairs.
    """
    columns = {"question": questions, "group": questions if groups is None else groups}
    answers, known = pd.DataFrame(columns).assign(value=values, length=lengths), np.isfinite(values)
    pairs = answers[better & known].merge(answers[worse & known], on=["question", "group"])
    pairs = pairs[_near(pairs["length_x"], pairs["length_y"], tolerance)]
    won = (pairs["value_x"] > pairs["value_y"]) + 0.5 * (pairs["value_x"] == pairs["value_y"])
    by_group = won.groupby([pairs["question"], pairs["group"]]).mean()
    shares = by_group.groupby("question").mean().to_numpy()
    p_value = sign_flip_p(shares - 0.5) if len(shares) else np.nan
    counts = {"questions": len(shares), "pairs": len(pairs)}
    return {**counts, **named_mean("share", shares, share=True), "share_p": p_value}


def _near(one: Any, other: Any, tolerance: float) -> Any:
    # A hair's breadth, so that 9 of 10 tokens count as within a tenth in floating point too.
    return np.abs(one - other) <= tolerance * np.maximum(one, other) * (1 + 1e-9)


@np.errstate(invalid="ignore", divide="ignore")
def _auc(wins: Array, counted: Array) -> tuple[float, Any]:
    """Share of all pairs in order, from sums by question of either side [questions, questions]."""
    if not counted.any():
        return _UNKNOWN
    value = float(wins.sum() / counted.sum())
    if value in (0.0, 1.0):  # resampling would claim certainty; at most Wilson's for as many
        sides = min(int(counted.any(axis=axis).sum()) for axis in (0, 1))
        return value, mean_interval([value] * sides)

    def resampled(weights: Array) -> Array:
        in_order, pairs = ((weights * (table @ weights)).sum(axis=0) for table in (wins, counted))
        return np.asarray(in_order / pairs)

    return value, resampled_interval(len(wins), resampled)


@np.errstate(invalid="ignore", divide="ignore")
def _cohens_d(better: Array, worse: Array, of_b: Array, of_w: Array) -> tuple[float, Any]:
    """(mean − mean) / pooled standard deviation; undefined where neither side has a spread.

    ``of_b`` and ``of_w`` [answers, questions]: 1 at the question of each answer.
    """
    count, middle = of_b.shape[1], better.mean() if len(better) else 0.0
    sides = (better - middle, of_b), (worse - middle, of_w)
    moments = np.array([[values**power @ of for values, of in sides] for power in (0, 1, 2)])

    def effect(weights: Array) -> Array:
        n, total, squares = moments @ weights  # each [2, R]
        spread = squares - total**2 / n
        spread = np.where(spread > 1e-9 * squares, spread, 0.0).sum(axis=0)  # less is rounding
        pooled = np.sqrt(np.where(spread > 0, spread, np.nan) / (n.sum(axis=0) - 2))
        d = (total[0] / n[0] - total[1] / n[1]) / pooled
        return np.asarray(np.where((n >= 2).all(axis=0), d, np.nan))

    # Weights are shares, moments counts: ones times the number of questions is the sample itself.
    value = float(effect(np.ones((count, 1)))[0]) if count else np.nan
    if not np.isfinite(value):
        return _UNKNOWN
    return value, resampled_interval(count, lambda shares: effect(shares * count))
