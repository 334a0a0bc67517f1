"""Intervals and p-values: goldens worked by hand, other libraries, and simulated coverage."""

import numpy as np
import pytest
from interval_coverage import coverage
from scipy import stats

from sarlab.evaluation.statistics import (
    holm,
    mean_interval,
    pooled_function,
    pooled_interval,
    sign_flip_p,
)


def test_all_right_gets_wilsons_interval_instead_of_certainty():
    # Wilson for k = n = 10: the lower end is n / (n + z²) = 10 / (10 + 1.959964²) = 0.72247.
    assert mean_interval([1.0] * 10) == pytest.approx([0.72247, 1.0], abs=1e-5)
    assert mean_interval([0.0] * 10) == pytest.approx([0.0, 0.27753], abs=1e-5)


def test_no_difference_in_100_pairs_is_not_certainty_either():
    # The upper end of Wilson for 0 of 100: z² / (n + z²) = 3.84146 / 103.84146 = 0.036994.
    found = pooled_interval(np.zeros((1, 100)), share=True, difference=True)
    assert found[:2] == pytest.approx((-0.036994, 0.036994), abs=1e-6)


def test_the_interval_of_a_mean_is_near_the_normal_one_and_ignores_the_order():
    x = np.random.default_rng(3).normal(50, 12, 400)
    half = 1.96 * x.std(ddof=1) / 20
    found = mean_interval(x.tolist())
    assert found == pytest.approx([x.mean() - half, x.mean() + half], abs=0.12 * half)
    assert mean_interval(x[::-1].tolist()) == pytest.approx(found, rel=1e-12)


def test_a_mean_over_questions_has_scipys_t_interval_and_a_share_wilsons():
    x = np.random.default_rng(4).lognormal(4, 0.5, 36)
    other = stats.ttest_1samp(x, 0).confidence_interval()
    assert mean_interval(x.tolist()) == pytest.approx([other.low, other.high])
    right = [1.0] * 33 + [0.0] * 3
    other = stats.binomtest(33, 36).proportion_ci(0.95, "wilson")
    assert mean_interval(right) == pytest.approx([other.low, other.high])


def test_no_values_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])


def test_sign_flips_of_few_differences_are_enumerated():
    # |1+1+1| = 3 is reached by +++ and −−− alone: 2 of 8.
    assert sign_flip_p([1, 1, 1]) == 0.25
    # 3+2−1 = 4: of the 8 patterns ±3±2±1 those with |sum| ≥ 4 are ±6 and ±4.
    assert sign_flip_p([3, 2, -1]) == 0.5
    assert sign_flip_p([0, 0, 0]) == 1.0


@pytest.mark.parametrize("count", [12, 13, 14, 300])
def test_sign_flips_agree_with_scipy(count):
    x = np.random.default_rng(count).normal(0.15, 1, count)
    other = stats.permutation_test(
        (x, np.zeros(count)),
        lambda a, b, axis: (a - b).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=1,
    ).pvalue
    spread = 4 * np.sqrt(other * (1 - other) / 9999)
    assert sign_flip_p(x) == pytest.approx(other, abs=spread + 1e-4)


def test_zeros_and_scale_do_not_change_a_p_value():
    x = np.random.default_rng(5).normal(0.3, 1, 11)
    assert sign_flip_p(x * 1000) == sign_flip_p(x) == sign_flip_p([*x, 0.0, 0.0])
    assert sign_flip_p(-x) == sign_flip_p(x)


def test_seeds_alone_give_scipys_t_interval_and_p_value():
    # Nothing varies within a seed: mean 2, s = 1, s/√3 = 0.57735, t(0.975, 2) = 4.30265.
    x = np.repeat([[1.0], [2.0], [3.0]], 40, axis=1)
    found = pooled_interval(x, difference=True)
    assert (found.low, found.high) == pytest.approx((-0.48414, 4.48414), abs=1e-5)
    assert found.p_value == pytest.approx(stats.ttest_rel([2, 4, 6], [1, 2, 3]).pvalue)


def test_questions_alone_give_the_same_interval_however_many_seeds_agree():
    one = (np.random.default_rng(0).random((1, 200)) < 0.8).astype(float)
    same = pooled_interval(np.repeat(one, 3, axis=0), share=True)  # seeds agree by chance
    assert [same.low, same.high] == pytest.approx(mean_interval(one[0].tolist()))


def test_the_variance_over_both_by_hand():
    # Seed effects −.3, 0, .3, question effects ±2. V_seeds = .09 / 3, V_questions = 4 · 4/3 / 4.
    x = np.array([[-0.3], [0.0], [0.3]]) + np.array([[-2.0, 2.0, -2.0, 2.0]])
    found = pooled_interval(x)
    variance = 0.03 + 4 / 3
    freedom = 1 / ((0.03 / variance) / 2 + (4 / 3 / variance) / 3)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert (found.low, found.high) == pytest.approx((-half, half))


def test_it_is_never_narrower_than_the_t_interval_over_seeds():
    rng = np.random.default_rng(6)
    for _ in range(50):
        x = rng.normal(0, 0.3, (3, 1)) + rng.normal(0, 1, 60) + rng.normal(0, 1, (3, 60))
        found = pooled_interval(x)
        seeds = stats.ttest_1samp(x.mean(axis=1), 0).confidence_interval()
        assert found.low <= seeds.low + 1e-12 and found.high >= seeds.high - 1e-12


def test_a_length_is_not_below_0_and_equal_lengths_differ_by_0():
    x = np.repeat([[2.0], [4.0], [15.0]], 30, axis=1)
    assert pooled_interval(x, floor=0.0).low == 0.0
    assert pooled_interval(np.zeros((1, 50)), difference=True)[:2] == (0.0, 0.0)


def test_holms_correction_by_hand():
    # Sorted .01, .03, .04: 3 · .01, 2 · .03, then not below the one before.
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_a_ratio_of_means_agrees_with_scipys_paired_bootstrap():
    rng = np.random.default_rng(2)
    right = (rng.random(250) < 0.7).astype(float)
    tokens = rng.normal(60, 15, 250) + 20 * (1 - right)
    value, interval = pooled_function([[tokens, right]], lambda t, r: t / r, positive=True)
    assert value == pytest.approx(tokens.mean() / right.mean())
    other = stats.bootstrap(
        (tokens, right),
        lambda t, r, axis: t.mean(axis=axis) / r.mean(axis=axis),
        paired=True,
        n_resamples=4000,
        method="percentile",
        rng=9,
    ).confidence_interval
    assert (interval.low, interval.high) == pytest.approx((other.low, other.high), rel=0.01)


# --- coverage -----------------------------------------------------------------------------------
# Each simulation knows the truth and counts how often the interval holds it. With 400 draws the
# standard error of a coverage of 95% is 1.1 points.


@pytest.mark.parametrize("kind", ["accuracy", "length"])
def test_question_bootstrap_covers_about_95_percent(kind):
    rng, hits, draws = np.random.default_rng(11), 0, 400
    truth = 0.8 if kind == "accuracy" else float(np.exp(4 + 0.5**2 / 2))  # mean of a log-normal
    for _ in range(draws):
        x = rng.random(300) < 0.8 if kind == "accuracy" else rng.lognormal(4, 0.5, 300)
        low, high = mean_interval(x.astype(float).tolist())
        hits += low <= truth <= high
    assert 0.92 <= hits / draws <= 0.98


def seeds_that_dominate(rng, seeds, questions=100):
    """Accuracy by seed and question [seeds, questions]; truth 0.8, seeds vary by 0.08."""
    means = np.clip(rng.normal(0.8, 0.08, (seeds, 1)), 0, 1)
    return (rng.random((seeds, questions)) < means).astype(float)


def two_level_bootstrap(x, rng, resamples=300):
    """What is *not* used here: resample seeds, then questions within each."""
    seeds, questions = x.shape
    chosen = rng.integers(0, seeds, (resamples, seeds, 1))
    asked = rng.integers(0, questions, (resamples, seeds, questions))
    return np.percentile(x[chosen, asked].mean(axis=(1, 2)), [2.5, 97.5])


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_over_seeds_cover_about_95_percent(seeds):
    rng, hits, draws = np.random.default_rng(12), 0, 2000
    for _ in range(draws):
        found = pooled_interval(seeds_that_dominate(rng, seeds), share=True)
        hits += found.low <= 0.8 <= found.high
    assert 0.93 <= hits / draws <= 0.97


@pytest.mark.parametrize("case", ["3 seeds", "5 seeds", "8 seeds"])
def test_a_base_that_all_seeds_share_is_covered_too(case):
    """The wider of two intervals covered 90 to 93%. All cases: scripts/interval_coverage.py."""
    found = coverage("accuracy against a shared base", int(case[0]), 300, 0.5, draws=600)
    assert 0.93 <= found <= 0.98  # 94 to 97% ± 1 point


@pytest.mark.parametrize("quantity", ["length", "tokens per right answer", "relative length"])
def test_other_quantities_of_a_table_are_covered(quantity):
    assert 0.925 <= coverage(quantity, 5, 36, 0.5, draws=400) <= 0.985


def test_two_level_bootstrap_of_three_seeds_covers_far_less_than_it_claims():
    rng, hits, draws = np.random.default_rng(13), 0, 400
    for _ in range(draws):
        low, high = two_level_bootstrap(seeds_that_dominate(rng, 3), rng)
        hits += low <= 0.8 <= high
    assert 0.70 <= hits / draws <= 0.87  # about 80%, where the t interval has 95%


def test_pooled_difference_of_equal_arms_is_significant_in_about_5_percent():
    rng, found, draws = np.random.default_rng(14), 0, 150
    for _ in range(draws):
        difference = seeds_that_dominate(rng, 5) - seeds_that_dominate(rng, 5)
        found += pooled_interval(difference, difference=True).p_value < 0.05
    assert found / draws <= 0.10  # 5% ± 2 standard errors; the wider interval may make it fewer
