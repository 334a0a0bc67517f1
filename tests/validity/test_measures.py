"""Pair share, AUC and effect size: goldens by hand, scipy as oracle, invariances, coverage."""

import numpy as np
import pytest
from scipy import stats

from sarlab.audit.measures import contrast
from sarlab.evaluation.statistics import mean_interval


def sides(better, worse):
    """Values and masks of better answers before worse ones; answer i is to question i."""
    values = np.array([*better, *worse], dtype=float)
    mask = np.arange(len(values)) < len(better)
    questions = np.concatenate([np.arange(len(better)), np.arange(len(worse))])
    return values, mask, ~mask, questions


def random_answers(seed, questions=40, each=6, shift=0.5):
    """Answers with an effect of the question, better ones ``shift`` higher."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(questions), each)
    better = rng.random(len(of)) < 0.5
    values = rng.normal(0, 1, questions)[of] + rng.normal(0, 1, len(of)) + shift * better
    return values, better, ~better, of


def test_pair_share_by_hand_counts_ties_as_half_and_averages_over_questions():
    # Question 0: 3 beats 1 and ties with 3: (1 + ½) / 2. Question 1: 2 loses to 5: 0.
    values = np.array([3.0, 1.0, 3.0, 2.0, 5.0])
    better = np.array([True, False, False, True, False])
    found = contrast(values, better, ~better, np.array([0, 0, 0, 1, 1]))
    assert found["share"] == pytest.approx((0.75 + 0) / 2)
    assert (found["questions"], found["pairs"]) == (2, 3)
    # The AUC takes all six pairs: 3 > 1, 3 = 3, 3 < 5, 2 > 1, 2 < 3, 2 < 5.
    assert found["auc"] == pytest.approx(2.5 / 6)


@pytest.mark.parametrize("decimals", [0, 6], ids=["with ties", "without ties"])
def test_auc_is_mann_whitneys_u_over_the_number_of_pairs(decimals):
    values, better, worse, questions = random_answers(1)
    values = values.round(decimals)
    u = stats.mannwhitneyu(values[better], values[worse]).statistic
    found = contrast(values, better, worse, questions)
    assert found["auc"] == pytest.approx(u / (better.sum() * worse.sum()))
    assert found["auc_low"] < found["auc"] < found["auc_high"]


def test_effect_size_is_students_t_without_its_sample_size():
    values, better, worse, questions = random_answers(2)
    t = stats.ttest_ind(values[better], values[worse]).statistic
    d = contrast(values, better, worse, questions)
    assert d["effect"] == pytest.approx(t * np.sqrt(1 / better.sum() + 1 / worse.sum()))
    assert d["effect_low"] < d["effect"] < d["effect_high"]


def test_order_scale_and_side_change_what_they_should_and_nothing_else():
    values, better, worse, questions = random_answers(3)
    found = contrast(values, better, worse, questions)
    shuffled = np.random.default_rng(0).permutation(len(values))
    again = contrast(values[shuffled], better[shuffled], worse[shuffled], questions[shuffled])
    assert again["share"] == found["share"]
    assert again["auc"] == pytest.approx(found["auc"])
    grown = contrast(np.exp(values), better, worse, questions)  # any rising function
    assert all(grown[n] == found[n] for n in found if n.startswith(("share", "auc")))
    assert grown["effect"] != pytest.approx(found["effect"], rel=0.01)
    turned = contrast(values, worse, better, questions)
    assert turned["share"] == pytest.approx(1 - found["share"])
    assert turned["auc"] == pytest.approx(1 - found["auc"])
    assert turned["effect"] == pytest.approx(-found["effect"])


def test_equal_length_takes_pairs_within_a_share_of_the_longer_answer():
    # Better answers of 10 and 20 tokens to questions 0 and 1, worse ones of 9 and 17.
    values, better, worse, questions = sides([5.0, 1.0], [4.0, 2.0])
    lengths = np.array([10.0, 20.0, 9.0, 17.0])
    found = contrast(values, better, worse, questions, lengths=lengths, tolerance=0.1)
    assert (found["questions"], found["pairs"]) == (
        1,
        1,
    )  # 1 of 10 is within a tenth, 3 of 20 is not
    assert found["share"] == found["auc"] == 1.0
    assert "effect" not in found
    wider = contrast(values, better, worse, questions, lengths=lengths, tolerance=0.15)
    assert (wider["pairs"], wider["share"]) == (2, 0.5)


def test_auc_at_equal_length_is_that_of_the_matched_pairs_counted_one_by_one():
    values, better, worse, questions = random_answers(4)
    lengths = np.random.default_rng(4).integers(20, 60, len(values)).astype(float)
    pairs = [
        float(values[i] > values[j])
        for i in np.flatnonzero(better)
        for j in np.flatnonzero(worse)
        if abs(lengths[i] - lengths[j]) <= 0.2 * max(lengths[i], lengths[j])
    ]
    found = contrast(values, better, worse, questions, lengths=lengths, tolerance=0.2)
    assert found["auc"] == pytest.approx(np.mean(pairs))


def test_a_score_that_only_sees_length_knows_nothing_at_equal_length():
    _, better, worse, questions = random_answers(5)
    lengths = np.random.default_rng(5).integers(5, 9, len(better)) + 3.0 * worse
    whole = contrast(-lengths, better, worse, questions)
    equal = contrast(-lengths, better, worse, questions, lengths=lengths, tolerance=0.0)
    assert whole["share"] > 0.9
    assert equal["share"] == equal["auc"] == 0.5


def test_groups_are_compared_within_and_questions_resampled():
    # One question, two groups: in the first the better answer wins, in the second it loses.
    values = np.array([2.0, 1.0, 5.0, 6.0])
    better = np.array([True, False, True, False])
    groups = np.array([0, 0, 1, 1])
    found = contrast(values, better, ~better, np.zeros(4, dtype=int), groups=groups)
    assert (found["share"], found["pairs"], found["questions"]) == (0.5, 2, 1)


def test_a_perfect_order_is_not_certainty():
    found = contrast(*sides(np.arange(10, 22), np.arange(12) - 5.0))
    # Wilson for 12 of 12: 12 / (12 + 1.959964²) = 0.757.
    for name in ("share", "auc"):
        assert (found[name], found[f"{name}_high"]) == (1.0, 1.0)
        assert (
            found[f"{name}_low"] == pytest.approx(0.757, abs=1e-3) == mean_interval([1.0] * 12)[0]
        )


def test_two_questions_do_not_say_how_far_an_effect_varies():
    # Every resample that draws one question twice has no spread: half of them.
    found = contrast(*sides([2.0, 3.0], [0.0, 1.0]))
    # Means 2.5 and 0.5, both variances ½: 2 / √½.
    assert found["effect"] == pytest.approx(2 / np.sqrt(0.5))
    assert np.isnan([found["effect_low"], found["effect_high"]]).all()


def test_nothing_to_compare_is_said_and_not_a_half():
    values = np.array([1.0, np.nan, 2.0])
    better = np.array([True, False, True])
    found = contrast(values, better, ~better, np.zeros(3, dtype=int))
    assert (found["questions"], found["pairs"]) == (0, 0)
    assert np.isnan([found[name] for name in ("share", "auc", "effect")]).all()
    same = contrast(*sides([1.0, 1.0], [0.0, 0.0]))  # no spread to measure the distance in
    assert np.isnan(same["effect"])
    with pytest.raises(ValueError, match="on one side"):
        contrast(values, better, better, np.zeros(3, dtype=int))


def test_interval_of_the_auc_covers_the_truth_in_about_95_percent():
    # Questions differ by a normal of sd 1, answers by another, better ones are 1 higher: answers
    # to two questions differ by a normal of mean 1 and sd 2, so the AUC is Φ(1 / 2).
    truth = stats.norm.cdf(0.5)
    hits, draws = 0, 120
    for draw in range(draws):
        rng = np.random.default_rng(100 + draw)
        level = rng.normal(0, 1, (80, 1))
        made = level + rng.normal(0, 1, (80, 2)) + np.array([1.0, 0.0])
        found = contrast(*sides(made[:, 0], made[:, 1]))
        hits += found["auc_low"] <= truth <= found["auc_high"]
    assert 0.88 <= hits / draws <= 0.99  # the standard error is 2 points
