"""Intervals and p-values of means over questions and training seeds. Pure functions on numbers.

For values ``x[s, q]`` of S seeds on the same Q questions the variance of the mean is V = V_seeds +
V_questions: what seeds and their sampled answers do, and what all seeds have in common on a
question. The interval is mean ± t(0.975, df) · √V, and never narrower than the t interval over the
seeds' means alone. docs/INTERVALS.md has the formulas, and how often it covers the truth (94 to
97%; a two-level bootstrap: about 80%).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
CONFIDENCE = 0.95
_RESAMPLES = 2000
_EXACT_UP_TO = 13  # differences whose 2^n sign patterns are all tried
_FLIPS, _ROUNDS = 1111, 9  # random sign patterns beyond that, in rounds to bound memory
_STEP = 1e-6  # of the numeric derivative of a function of means


class Interval(NamedTuple):
    """A 95% interval, and for differences the p-value of "the mean is 0"."""

    low: float
    high: float
    p_value: float | None = None


def pooled_interval(
    by_seed: Array, *, share: bool = False, difference: bool = False, floor: float = -np.inf
) -> Interval:
    """95% interval of the mean of ``by_seed`` [seeds, questions], over seeds and questions both.

    One seed: over questions alone. ``share``: values in [0, 1], Wilson's interval at the sample
    size that has the variance V. ``difference``: paired differences, with a p-value (sign flips of
    the questions for one seed, else the t-test that belongs to the interval); where no question
    differs at all, differences of shares get ± Wilson's bound for 0 of Q. ``floor``: the least
    possible mean, such as 0 for a length.
    """
    x = np.asarray(by_seed, dtype=float)
    seeds, questions = x.shape
    mean, (variance, freedom) = float(x.mean()), _variance(x)
    if share and not difference:
        return Interval(*_wilson(mean, variance, questions, freedom))
    half, p_value = _half(variance, freedom), None
    if difference and seeds == 1:
        p_value = sign_flip_p(x[0])
    elif difference:
        t_test = 2 * stats.t.sf(abs(mean) / np.sqrt(variance), freedom) if variance else mean == 0
        p_value = float(t_test)
    if share and not x.any():
        half = _wilson(0.0, 0.0, questions, np.inf)[1]
    return Interval(max(mean - half, floor), mean + half, p_value)


def mean_interval(values: Sequence[float] | Array, *, share: bool = False) -> list[float]:
    """95% interval [low, high] of a mean over questions: a t interval; Wilson's for shares.

    Values that are all 0 or 1 are a share. A single other value has no spread to learn from:
    [x, x]. Raises ValueError without values.
    """
    x = np.asarray(values, dtype=float)
    if len(x) == 0:
        raise ValueError("An interval needs at least one value; there is none.")
    interval = pooled_interval(x[None], share=share or bool(np.isin(x, (0, 1)).all()))
    return [interval.low, interval.high]


def named(name: str, value: Any = np.nan, ends: Sequence[Any] = (np.nan,) * 2) -> dict[str, Any]:
    """A value and its interval as the three columns of a table that belong to it."""
    return {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def named_mean(name: str, values: Any, *, share: bool = False) -> dict[str, Any]:
    """A mean and its :func:`mean_interval` as columns; NaN without values."""
    if not len(values):
        return named(name)
    return named(name, float(np.mean(values)), mean_interval(values, share=share))


def sign_flip_p(differences: Sequence[float] | Array) -> float:
    """Two-sided p-value of "paired differences are symmetric about 0" by flipping their signs.

    Exact for up to 13 differences that are not 0; beyond that over 9,999 seeded random flips, and
    never below 1 / 10,000.
    """
    x = np.asarray(differences, dtype=float)
    x = x[x != 0]  # a zero stays a zero under any sign
    observed = abs(x.sum()) * (1 - 1e-12)  # equal sums must count as equal in floating point
    if len(x) <= _EXACT_UP_TO:
        patterns = np.indices((2,) * len(x)).reshape(len(x), 2 ** len(x))
        return float(np.mean(np.abs(x @ (1 - 2 * patterns)) >= observed))
    # scipy.stats.permutation_test agrees and takes several times as long.
    rng = np.random.default_rng(0)
    sums = (x @ (1 - 2 * rng.integers(0, 2, (_FLIPS, len(x))).T) for _ in range(_ROUNDS))
    hits = sum(int(np.sum(np.abs(flipped) >= observed)) for flipped in sums)
    return (1 + hits) / (1 + _FLIPS * _ROUNDS)


def pooled_function(
    by_seed: Sequence[Sequence[Array]],
    function: Callable[..., Array],
    *,
    positive: bool = False,
    floor: float = -np.inf,
) -> tuple[float, Interval]:
    """A function of means, such as a ratio, and its interval as in :func:`pooled_interval`.

    ``by_seed``: for each seed the same number of arrays [questions]; ``function`` takes their
    means, and is at least ``floor``. The estimate is the mean over seeds of the function. The
    interval is that of the function made linear at the means (delta method); ``positive``: on the
    scale of its logarithm, since a ratio with few right answers is far from symmetric. NaN where
    the function is not defined.
    """
    arrays = np.moveaxis(np.asarray(by_seed, dtype=float), 1, 0)  # [arrays, seeds, questions]
    means = arrays.mean(axis=2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.asarray(function(*means))  # [seeds, 1]
        # How far each question moves the function, as the derivative in its direction.
        up, down = (np.asarray(function(*(means + s * (arrays - means)))) for s in (_STEP, -_STEP))
        linear = values + (up - down) / (2 * _STEP)
    estimate = float(values.mean())
    if not np.isfinite(estimate):
        return np.nan, Interval(np.nan, np.nan)
    interval = pooled_interval(linear, floor=floor)
    if positive and estimate > 0:
        width = float(np.exp((interval.high - interval.low) / 2 / estimate))
        interval = Interval(estimate / width, estimate * width)
    return estimate, interval


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number (Holm 1979): the chance of any false claim is at most 5%.

    Those that are None or NaN are left as None and not counted.
    """
    known = pd.Series(p_values, dtype=float).dropna().sort_values()
    corrected = (known * np.arange(len(known), 0, -1)).clip(upper=1.0).cummax()
    return [float(corrected[i]) if i in corrected else None for i in range(len(p_values))]


def resampled_interval(questions: int, function: Callable[[Array], Array]) -> list[float]:
    """95% interval [low, high] of a statistic of all questions at once, such as an AUC.

    ``function`` takes weights [questions, R], how often each question was drawn in each of R
    resamples as a share, and returns [R]. Resamples in which it is not defined (NaN) are left out;
    [nan, nan] where they are more than a tenth: too few questions to say how far it varies.
    """
    drawn = np.asarray(function(_resampling_weights(questions)))
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < 0.9 * len(drawn):
        return [np.nan] * 2
    tail = 100 * (1 - CONFIDENCE) / 2
    return [float(end) for end in np.percentile(defined, [tail, 100 - tail])]


@functools.lru_cache(maxsize=4)
def _resampling_weights(questions: int) -> Array:
    rng = np.random.default_rng(0)
    counts = rng.multinomial(questions, np.full(questions, 1 / questions), _RESAMPLES)
    return np.ascontiguousarray(counts.T / questions)


def _variance(x: Array) -> tuple[float, float]:
    """The variance of the mean of x [seeds, questions], and its degrees of freedom."""
    seeds, questions = x.shape
    if questions < 2:
        return 0.0, np.inf
    over_questions = float(x.mean(axis=0).var(ddof=1)) / questions
    if seeds == 1:
        return over_questions, questions - 1
    of_seeds = float(x.mean(axis=1).var(ddof=1)) / seeds
    within = float(x.var(axis=1, ddof=1).mean()) / questions
    both = of_seeds + max(0.0, (seeds * over_questions - within) / (seeds - 1))
    part = of_seeds / both if both else 0.0
    freedom = 1 / (part / (seeds - 1) + (1 - part) / (questions - 1))
    return max(((both, freedom), (of_seeds, seeds - 1)), key=lambda pair: _half(*pair))


def _half(variance: float, freedom: float) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variance))


def _wilson(share: float, variance: float, questions: int, freedom: float) -> tuple[float, float]:
    """Wilson's score interval at the number of independent answers that has this variance."""
    spread = share * (1 - share)
    n = spread / variance * questions / (questions - 1) if variance and spread else questions
    # With one seed the degrees of freedom are those of the questions, where Wilson takes z.
    z = stats.t.ppf((1 + CONFIDENCE) / 2, np.inf if freedom >= questions - 1 else freedom)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(spread / n + z * z / (4 * n * n))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))
