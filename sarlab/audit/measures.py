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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarlab.evaluation.statistics import Array, mean_interval, resampled_interval

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval; all None where nothing can be said."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Contrast:
    """Better against worse answers under one score.

    ``questions``: those with at least one pair, ``pairs``: pairs of answers to one question;
    ``share`` and ``auc`` lie in [0, 1], ``effect`` is in standard deviations.
    """

    questions: int
    pairs: int
    share: Estimate
    auc: Estimate
    effect: Estimate


def contrast(
    values: Array,
    better: Mask,
    worse: Mask,
    questions: Ints,
    *,
    groups: Ints | None = None,
    lengths: Array | None = None,
    tolerance: float | None = None,
) -> Contrast:
    """Compare the ``better`` with the ``worse`` answers, all arrays [answers].

    ``values``: the score, higher is better; an answer without one (NaN) is left out. ``questions``:
    a number a question, the unit of resampling. ``groups``: answers that are compared with each
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
    of_group = questions if groups is None else groups
    by_question: dict[int, list[float]] = {}
    pairs = 0
    for group in np.intersect1d(of_group[b], of_group[w]):
        better_here, worse_here = b[of_group[b] == group], w[of_group[w] == group]
        wins, counted = _compare(values, better_here, worse_here, lengths, tolerance)
        if counted.any():
            share = float(wins.sum() / counted.sum())
            by_question.setdefault(int(questions[better_here[0]]), []).append(share)
            pairs += int(counted.sum())
    shares = [float(np.mean(group_shares)) for group_shares in by_question.values()]
    return Contrast(
        questions=len(shares),
        pairs=pairs,
        share=_mean(shares),
        auc=_auc(values, b, w, questions, lengths, tolerance),
        effect=Estimate() if tolerance is not None else _cohens_d(values, b, w, questions),
    )


def _compare(
    values: Array, b: Ints, w: Ints, lengths: Array | None, tolerance: float | None
) -> tuple[Array, Array]:
    """Wins of ``b`` over ``w`` (1, ½ or 0) and which pairs count, both [len(b), len(w)]."""
    difference = values[b][:, None] - values[w][None]
    counted = np.ones(difference.shape)
    if lengths is not None and tolerance is not None:
        one, other = lengths[b][:, None], lengths[w][None]
        longest = np.maximum(one, other)
        # A hair's breadth, so that 9 of 10 tokens count as within a tenth in floating point too.
        counted = (np.abs(one - other) <= tolerance * longest * (1 + 1e-9)).astype(float)
    return counted * ((difference > 0) + 0.5 * (difference == 0)), counted


def _mean(shares: list[float]) -> Estimate:
    if not shares:
        return Estimate()
    low, high = mean_interval(shares, share=True)
    return Estimate(float(np.mean(shares)), low, high)


def _auc(
    values: Array,
    b: Ints,
    w: Ints,
    questions: Ints,
    lengths: Array | None,
    tolerance: float | None,
) -> Estimate:
    """Share of all (better, worse) pairs in order, whichever questions they belong to."""
    names, index = np.unique(questions[np.concatenate([b, w])], return_inverse=True)
    count = len(names)
    of_b, of_w = index[: len(b)], index[len(b) :]
    wins, counted = np.zeros((count, count)), np.zeros((count, count))  # by pair of questions
    for q in range(count):
        rows = b[of_b == q]
        if len(rows):
            won, valid = _compare(values, rows, w, lengths, tolerance)
            wins[q] = np.bincount(of_w, won.sum(axis=0), count)
            counted[q] = np.bincount(of_w, valid.sum(axis=0), count)
    total = counted.sum()
    if total == 0:
        return Estimate()
    value = float(wins.sum() / total)
    if value in (0.0, 1.0):  # resampling would claim certainty; at most Wilson's for as many
        sides = min(int(counted.any(axis=1).sum()), int(counted.any(axis=0).sum()))
        return Estimate(value, *mean_interval([value] * sides))

    def resampled(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            inner = (weights * (wins @ weights)).sum(axis=0)
            return np.asarray(inner / (weights * (counted @ weights)).sum(axis=0))

    return Estimate(value, *resampled_interval(count, resampled))


def _cohens_d(values: Array, b: Ints, w: Ints, questions: Ints) -> Estimate:
    """(mean − mean) / pooled standard deviation; undefined where neither side has a spread."""
    names, index = np.unique(questions[np.concatenate([b, w])], return_inverse=True)
    count = len(names)
    sides = []
    for rows, of in ((b, index[: len(b)]), (w, index[len(b) :])):
        centred = values[rows] - values[b].mean() if len(b) else values[rows]
        sides.append([np.bincount(of, power, count) for power in (centred**0, centred, centred**2)])

    def effect(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            (n1, mean1, squares1), (n2, mean2, squares2) = (
                _moments(*(moment @ weights for moment in side)) for side in sides
            )
            pooled = np.sqrt((squares1 + squares2) / (n1 + n2 - 2))
            d = (mean1 - mean2) / np.where(pooled > 1e-12, pooled, np.nan)
            return np.asarray(np.where((n1 >= 2) & (n2 >= 2), d, np.nan))

    # Weights are shares, moments counts: ones times the number of questions is the sample itself.
    value = float(effect(np.ones((count, 1)))[0]) if count else float("nan")
    if not np.isfinite(value):
        return Estimate()
    return Estimate(value, *resampled_interval(count, lambda shares: effect(shares * count)))


def _moments(n: Array, total: Array, squares: Array) -> tuple[Array, Array, Array]:
    """Count, mean and sum of squared deviations."""
    mean = total / n
    return n, mean, np.maximum(squares - n * mean**2, 0.0)
