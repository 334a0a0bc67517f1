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

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarlab.evaluation.statistics import Array, mean_interval, resampled_interval

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]


Estimate = tuple[float, ...]
"""A number and its 95% interval; NaN where nothing can be said."""
_UNKNOWN: Estimate = (float("nan"),) * 3


def contrast(
    values: Array,
    better: Mask,
    worse: Mask,
    questions: Ints,
    *,
    groups: Ints | None = None,
    lengths: Array | None = None,
    tolerance: float | None = None,
) -> dict[str, float]:
    """Compare the ``better`` with the ``worse`` answers, all arrays [answers].

    Returns ``questions`` (those with at least one pair), ``pairs`` (of answers to one question),
    and ``share``, ``auc`` (in [0, 1]) and ``effect`` (standard deviations), each with ``_low`` and
    ``_high`` (95%); NaN where nothing can be said.

    ``values``: the score, higher is better; an answer without one (NaN) is left out. ``questions``:
    a number per question, the unit of resampling. ``groups``: answers that are compared with each
    other in the pair share, by default those to one question. With ``tolerance`` only pairs
    with |a − b| ≤ tolerance · max(a, b) tokens count, for which ``lengths`` are needed; the effect
    size is then left out. Raises ValueError where an answer is on both sides.
    """
    if bool(np.any(better & worse)):
        raise ValueError("An answer is among the better and the worse ones. Let it be on one side.")
    if (tolerance is None) != (lengths is None):
        raise ValueError("Pairs of equal length need both lengths and a tolerance.")
    known = np.isfinite(values)
    b, w = np.flatnonzero(better & known), np.flatnonzero(worse & known)
    difference = values[b][:, None] - values[w][None]
    counted = np.ones(difference.shape)
    if lengths is not None and tolerance is not None:
        one, other = lengths[b][:, None], lengths[w][None]
        # A hair's breadth, so that 9 of 10 tokens count as within a tenth in floating point too.
        limit = tolerance * np.maximum(one, other) * (1 + 1e-9)
        counted = (np.abs(one - other) <= limit).astype(float)
    wins = counted * ((difference > 0) + 0.5 * (difference == 0))
    of_group = questions if groups is None else groups
    i, j = np.nonzero(counted * (of_group[b][:, None] == of_group[w][None]))
    pairs = pd.DataFrame({"question": questions[b[i]], "group": of_group[b[i]], "won": wins[i, j]})
    by_group = pairs.groupby(["question", "group"])["won"].mean()
    shares = by_group.groupby("question").mean()
    names, index = np.unique(questions[np.concatenate([b, w])], return_inverse=True)
    of_b, of_w = np.eye(len(names))[index[: len(b)]], np.eye(len(names))[index[len(b) :]]
    estimates = {"share": _UNKNOWN, "auc": _auc(of_b.T @ wins @ of_w, of_b.T @ counted @ of_w)}
    if len(shares):
        estimates["share"] = (float(shares.mean()), *mean_interval(shares, share=True))
    estimates["effect"] = (
        _cohens_d(values[b], values[w], of_b, of_w) if tolerance is None else _UNKNOWN
    )
    line: dict[str, float] = {"questions": len(shares), "pairs": len(pairs)}
    for name, estimate in estimates.items():
        line |= zip((name, f"{name}_low", f"{name}_high"), estimate, strict=True)
    return line


def _auc(wins: Array, counted: Array) -> Estimate:
    """Share of all pairs in order, from sums by question of either side [questions, questions]."""
    total = counted.sum()
    if total == 0:
        return _UNKNOWN
    value = float(wins.sum() / total)
    if value in (0.0, 1.0):  # resampling would claim certainty; at most Wilson's for as many
        sides = min(int(counted.any(axis=1).sum()), int(counted.any(axis=0).sum()))
        return value, *mean_interval([value] * sides)

    def resampled(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            inner = (weights * (wins @ weights)).sum(axis=0)
            return np.asarray(inner / (weights * (counted @ weights)).sum(axis=0))

    return value, *resampled_interval(len(wins), resampled)


def _cohens_d(better: Array, worse: Array, of_b: Array, of_w: Array) -> Estimate:
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
    return value, *resampled_interval(count, lambda shares: effect(shares * count))
