"""Intervals and p-values. Pure functions on numbers; every random draw is seeded.

Two things vary: which questions were asked, and which seed a policy was trained with. Resampling
questions says how far a result carries over to other questions; it knows nothing of seeds. With
three seeds, resampling seeds (a two-level bootstrap) covers the truth about 80% of the time where
it claims 95%, so seeds are pooled by a t interval over their means instead
(tests/test_statistics.py simulates all of this).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 4000
_DEFINED = 0.9  # share of resamples in which a statistic must be defined
_EXACT_UP_TO = 13  # differences whose 2^n sign patterns are all tried


@dataclass(frozen=True)
class Interval:
    """A 95% interval, the p-value of "the mean is 0" where asked for, and what they rest on."""

    low: float
    high: float
    basis: str
    p_value: float | None = None


def mean_interval(values: Sequence[float]) -> list[float]:
    """95% interval [low, high] of a mean over questions by percentile bootstrap.

    Where all values are 0 or all are 1 resampling would claim certainty; there it is Wilson's
    interval of a share. A single value that is neither has no spread to learn from: [x, x]. The
    order of the values does not matter. Raises ValueError without values.
    """
    x = np.sort(np.asarray(values, dtype=float))  # resampling draws by position
    if len(x) == 0:
        raise ValueError("An interval needs at least one value; there is none.")
    if np.all(x == x[0]):
        if x[0] in (0.0, 1.0):
            found = stats.binomtest(int(x.sum()), len(x)).proportion_ci(CONFIDENCE, "wilson")
            return [float(found.low), float(found.high)]
        return [float(x[0])] * 2
    found = stats.bootstrap(
        (x,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0, batch=500
    ).confidence_interval
    return [float(found.low), float(found.high)]


def difference_interval(differences: Sequence[float]) -> list[float]:
    """95% interval of a mean of paired differences over questions.

    As :func:`mean_interval`, but where no question differs, [0, 0] would claim certainty: n equal
    pairs only say that the share of unequal ones is below Wilson's bound w for 0 of n. A difference
    of shares then lies in [−w, w].
    """
    x = np.asarray(differences, dtype=float)
    if len(x) and not np.any(x):
        bound = mean_interval(x.tolist())[1]
        return [-bound, bound]
    if len(x) and np.all(x == x[0]):
        return [float(x[0])] * 2
    return mean_interval(x.tolist())


def sign_flip_p(differences: Sequence[float] | Array, permutations: int = 9999) -> float:
    """Two-sided p-value of "paired differences are symmetric about 0" by flipping their signs.

    Exact for up to 13 differences that are not 0; beyond that (1 + hits) / (1 + permutations) over
    seeded random flips, which is never below 1 / (1 + permutations).
    """
    x = np.asarray(differences, dtype=float)
    x = x[x != 0]  # a zero stays a zero under any sign
    observed = abs(x.sum()) * (1 - 1e-12)  # equal sums must count as equal in floating point
    if len(x) <= _EXACT_UP_TO:
        patterns = np.indices((2,) * len(x)).reshape(len(x), -1) if len(x) else np.zeros((0, 1))
        return float(np.mean(np.abs((1 - 2 * patterns.T) @ x) >= observed))
    rng, hits, left = np.random.default_rng(0), 0, permutations
    while left:
        rows = min(left, max(1, 2_000_000 // len(x)))  # bounds memory for thousands of questions
        signs = 1.0 - 2.0 * rng.integers(0, 2, size=(rows, len(x)))
        hits += int(np.sum(np.abs(signs @ x) >= observed))
        left -= rows
    return (1 + hits) / (1 + permutations)


def t_interval(seed_means: Sequence[float]) -> list[float]:
    """95% interval [low, high] of the mean over training seeds: mean ± t(0.975, n − 1)·s/√n.

    Raises ValueError for fewer than two seeds, whose spread is unknown.
    """
    if len(seed_means) < 2:
        raise ValueError(
            f"A t interval over seeds needs at least two of them, got {len(seed_means)}. Train "
            "another seed, or use mean_interval over questions."
        )
    x = np.asarray(seed_means, dtype=float)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 1) * stats.sem(x)
    return [float(x.mean() - half), float(x.mean() + half)]


def t_test_p(seed_means: Sequence[float]) -> float:
    """Two-sided p-value of Student's t-test of "the mean over seeds is 0"; 1 where all are 0."""
    x = np.asarray(seed_means, dtype=float)
    if np.ptp(x) == 0:
        return 1.0 if x[0] == 0 else 0.0
    return float(stats.ttest_1samp(x, 0.0).pvalue)


def pooled_interval(by_seed: Array, *, difference: bool = False) -> Interval:
    """95% interval of the mean of ``by_seed`` [seeds, questions], honest about both.

    One seed: bootstrap over questions, labelled so, since nothing is known about other seeds. Two
    or more: the t interval over seed means ("t, 3 seeds"), or the bootstrap over questions of the
    mean over seeds ("questions, 3 seeds") where that is wider, as happens where a few seeds agree
    by chance. ``difference``: the values are paired differences, and a p-value is given, of the
    same basis.
    """
    x = np.asarray(by_seed, dtype=float)
    over_questions = x.mean(axis=0)
    low, high = (difference_interval if difference else mean_interval)(over_questions.tolist())
    by_question = Interval(
        low, high, "questions", sign_flip_p(over_questions) if difference else None
    )
    means = x.mean(axis=1).tolist()
    p_value = t_test_p(means) if difference and len(means) > 1 else None
    return _wider(by_question, means, p_value)


def pooled_function(
    by_seed: Sequence[Sequence[Array]], function: Callable[..., Array]
) -> tuple[float, Interval]:
    """A function of means, such as a ratio, and its interval as in :func:`pooled_interval`.

    ``by_seed``: for each seed the same number of arrays [questions]; ``function`` takes their means
    (each of shape [R], R resamples) and returns [R]. The estimate is the mean over seeds of the
    function. Questions are resampled together in all arrays.
    """
    arrays = np.asarray(by_seed, dtype=float)  # [seeds, arrays, questions]
    questions = arrays.shape[2]
    values = [float(function(*row[:, None])[0]) for row in arrays.mean(axis=2)]
    means = arrays @ _resampling_weights(questions)  # [seeds, arrays, R]
    resampled = np.mean([function(*row) for row in means], axis=0)
    resampled = resampled[np.isfinite(resampled)]
    if len(resampled) == 0:
        return float("nan"), Interval(float("nan"), float("nan"), "undefined")
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    estimate = float(np.mean(values))
    return estimate, _wider(Interval(float(low), float(high), "questions"), values, None)


def resampled_interval(questions: int, function: Callable[[Array], Array]) -> list[float]:
    """95% interval [low, high] of a statistic of all questions at once, such as an AUC.

    ``function`` takes weights [questions, R], how often each question was drawn in each of R
    resamples as a share, and returns [R]. Resamples in which it is not defined (NaN) are left out;
    [nan, nan] where they are more than a tenth: too few questions to say how far it varies.
    """
    drawn = np.asarray(function(_resampling_weights(questions)))
    found = drawn[np.isfinite(drawn)]
    if len(found) < _DEFINED * len(drawn):
        return [float("nan")] * 2
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return [float(low), float(high)]


@functools.lru_cache(maxsize=4)
def _resampling_weights(questions: int) -> Array:
    """How often each question is drawn in each resample, as shares [questions, R]."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(questions, np.full(questions, 1 / questions), RESAMPLES // 2)
    return np.ascontiguousarray(counts.T / questions)


def _wider(by_question: Interval, means: Sequence[float], p_value: float | None) -> Interval:
    if len(means) < 2:
        return Interval(by_question.low, by_question.high, "questions, 1 seed", by_question.p_value)
    low, high = t_interval(means)
    if high - low >= by_question.high - by_question.low:
        return Interval(low, high, f"t, {len(means)} seeds", p_value)
    return Interval(
        by_question.low,
        by_question.high,
        f"questions, {len(means)} seeds",
        by_question.p_value,
    )
