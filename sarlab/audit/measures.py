"""How well a score tells better answers from worse ones, with 95% intervals. Pure.

Three measures of one contrast, each resampled over questions:

- *pair share*: of the pairs of a better and a worse answer to one question, the share in which the
  better one has the higher score; ties count half. It is the AUC within a question, averaged over
  questions, and what training can use: advantages compare answers of one group only.
- *AUC*: the same over pairs from any two questions: would one threshold serve for all?
- *effect size*: Cohen's d, the difference of means in pooled standard deviations. Cliff's delta
  would be 2·AUC − 1, the same number twice; d says how far apart, and a policy gradient is
  proportional to that distance, not to the order.

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
_UNKNOWN = (float("nan"), (float("nan"),) * 2)  # where nothing can be said


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

    Returns what :func:`in_order` does, and ``auc`` (in [0, 1]) and ``effect`` (standard
    deviations), each with ``_low`` and ``_high`` (95%); NaN where nothing can be said.

    ``values``: the score, higher is better; an answer without one (NaN) is left out. ``questions``:
    a number per question, the unit of resampling. ``groups``: answers that are compared with each
    other in the pair share, by default those to one question. With ``lengths`` only pairs with
    |a − b| ≤ tolerance · max(a, b) tokens count, and there is no effect size. Raises ValueError
    where an answer is on both sides.
    """
    if bool(np.any(better & worse)):
        raise ValueError("An answer is among the better and the worse ones. Let it be on one side.")
    sizes = np.zeros(len(values)) if lengths is None else lengths
    groups = questions if groups is None else groups
    line = in_order(values, better, worse, questions, groups, sizes, tolerance)
    known = np.isfinite(values)
    better, worse = better & known, worse & known
    difference = values[better][:, None] - values[worse][None]
    counted = _near(sizes[better][:, None], sizes[worse][None], tolerance).astype(float)
    wins = counted * ((difference > 0) + 0.5 * (difference == 0))
    names = np.unique(questions[better | worse])
    of_b, of_w = (1.0 * (questions[side][:, None] == names) for side in (better, worse))
    line |= named("auc", *_auc(of_b.T @ wins @ of_w, of_b.T @ counted @ of_w))
    if lengths is None:
        line |= named("effect", *_cohens_d(values[better], values[worse], of_b, of_w))
    return line


def in_order(
    values: Array,
    better: Mask,
    worse: Mask,
    questions: Ints,
    groups: Ints,
    lengths: Any = 0.0,
    tolerance: float = 1.0,
) -> dict[str, Any]:
    """``share`` of pairs in order, its 95% interval, and ``share_p``, that it is one half.

    ``questions`` and ``pairs``: how many there are with, and of, a pair within a group.
    """
    columns = {"question": questions, "group": groups, "value": values, "length": lengths}
    answers, known = pd.DataFrame(columns), np.isfinite(values)
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


def _auc(wins: Array, counted: Array) -> tuple[float, Any]:
    """Share of all pairs in order, from sums by question of either side [questions, questions]."""
    total = counted.sum()
    if total == 0:
        return _UNKNOWN
    value = float(wins.sum() / total)
    if value in (0.0, 1.0):  # resampling would claim certainty; at most Wilson's for as many
        sides = min(int(counted.any(axis=1).sum()), int(counted.any(axis=0).sum()))
        return value, mean_interval([value] * sides)

    def resampled(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            inner = (weights * (wins @ weights)).sum(axis=0)
            return np.asarray(inner / (weights * (counted @ weights)).sum(axis=0))

    return value, resampled_interval(len(wins), resampled)


def _cohens_d(better: Array, worse: Array, of_b: Array, of_w: Array) -> tuple[float, Any]:
    """(mean − mean) / pooled standard deviation; undefined where neither side has a spread.

    ``of_b`` and ``of_w`` [answers, questions]: 1 at the question of each answer.
    """
    count, middle = of_b.shape[1], better.mean() if len(better) else 0.0
    sides = [
        [(values - middle) ** power @ of for power in (0, 1, 2)]
        for values, of in ((better, of_b), (worse, of_w))
    ]

    def effect(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            n, total, squares = np.swapaxes(np.array(sides) @ weights, 0, 1)  # each [2, R]
            spread = np.maximum(squares - total**2 / n, 0.0).sum(axis=0)
            pooled = np.sqrt(spread / (n.sum(axis=0) - 2))
            means = total / n
            d = (means[0] - means[1]) / np.where(pooled > 1e-12, pooled, np.nan)
            return np.asarray(np.where((n >= 2).all(axis=0), d, np.nan))

    # Weights are shares, moments counts: ones times the number of questions is the sample itself.
    value = float(effect(np.ones((count, 1)))[0]) if count else float("nan")
    if not np.isfinite(value):
        return _UNKNOWN
    return value, resampled_interval(count, lambda shares: effect(shares * count))
