"""Diagnostics of a bonus on groups whose truth is known, and the alpha of equal strength."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sarlab.rewards import REWARDS, Reward
from sarlab.rewards.diagnostics import (
    bonus_diagnostics,
    length_share,
    matched_alpha,
    reward_inputs,
    slope_per_10_tokens,
)
from sarlab.types import RewardInputs


def inputs(lengths, correct, groups, conditioned=-0.5, standalone=-1.5) -> RewardInputs:
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return RewardInputs(
        correct=torch.tensor(correct, dtype=torch.float32),
        group_ids=torch.tensor(groups),
        answer_mask=mask,
        logps_conditioned=torch.full(mask.shape, conditioned),
        logps_standalone=torch.full(mask.shape, standalone),
    )


def of_groups(groups):
    """Bonus and length of several groups, one behind the other, and the group of each answer."""
    sizes = [len(bonus) for bonus, _ in groups]
    ids = np.repeat(np.arange(len(groups)), sizes)
    return (*map(np.concatenate, zip(*groups, strict=True)), ids)


def test_spread_slope_auc_and_information_by_hand() -> None:
    # Two groups; bonus −n/100. Right: 10, 30 in the first (slope −0.1 per 10 tokens exactly).
    i = inputs([10, 30, 20, 40, 40], [1, 1, 0, 1, 1], [0, 0, 0, 1, 1])
    found = bonus_diagnostics(-i.lengths / 100, i)
    # Squares about the group's mean: 0.1² + 0.1² + 0, over 2 + 1 degrees of freedom.
    assert found["bonus_sd_within"] == pytest.approx((0.02 / 3) ** 0.5)
    assert found["bonus_slope"] == pytest.approx(-0.1)
    assert found["bonus_auc"] == 0.5  # 10 beats the wrong 20, 30 loses to it
    assert found["information_nats"] == pytest.approx((10 + 30 + 20 + 40 + 40) / 5)  # v = 1 nat


def test_signal_is_split_by_what_the_group_holds() -> None:
    # Mixed; all right with unequal pay; all right with equal pay; all wrong with unequal pay.
    i = inputs([1, 2, 1, 2, 3, 3, 1, 2], [1, 0, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 2, 2, 3, 3])
    found = bonus_diagnostics(-i.lengths, i, rewards=i.correct - i.lengths)
    kinds = [found[f"signal_{k}"] for k in ("mixed", "all_right", "all_wrong")]
    assert kinds == [0.25, 0.25, 0.25]
    # Right minus wrong cancels the length here: the mixed group has no signal.
    assert bonus_diagnostics(-i.lengths, i, i.correct + i.lengths)["signal_mixed"] == 0


def test_groups_of_one_say_nothing_instead_of_zero() -> None:
    i = inputs([1, 2], [1, 0], [0, 1])
    found = bonus_diagnostics(-i.lengths, i)
    assert found.pop("information_nats") == pytest.approx(1.5)
    assert set(found.values()) == {None}


def test_a_function_of_length_is_all_length_also_where_it_is_no_line() -> None:
    rng = np.random.default_rng(0)
    groups = []
    for stock in rng.uniform(5, 30, 40):  # another curve in each group
        n = rng.integers(20, 200, 8).astype(float)
        groups.append((1 - np.exp(-stock / n), n))
    assert 0.97 < length_share(*of_groups(groups)) <= 1.0


def test_noise_has_no_length_share_and_half_noise_has_half() -> None:
    rng = np.random.default_rng(0)
    noise, half = [], []
    for _ in range(1000):
        n = rng.permutation(8).astype(float)
        e = rng.normal(size=8)
        noise.append((e, n))
        half.append((e * n.std(ddof=1) - n, n))
    assert length_share(*of_groups(noise)) == pytest.approx(0.0, abs=0.02)
    assert length_share(*of_groups(half)) == pytest.approx(0.5, abs=0.05)


def test_no_share_without_spread_in_length_or_bonus() -> None:
    n = np.array([5.0, 5.0])
    assert length_share(*of_groups([(np.array([0.1, 0.2]), n)])) is None
    assert length_share(*of_groups([(np.array([0.1, 0.1]), np.array([1.0, 2.0]))])) is None
    assert slope_per_10_tokens(*of_groups([(np.array([0.1, 0.2]), n)])) is None


def test_matched_alpha_makes_the_slopes_equal(monkeypatch) -> None:
    i = inputs([10, 30, 20, 40], [1, 1, 1, 1], [0, 0, 1, 1])
    monkeypatch.setitem(REWARDS, "a", Reward(lambda x: -x.lengths / 100, False, ""))
    monkeypatch.setitem(REWARDS, "b", Reward(lambda x: -x.lengths / 1000, False, ""))
    assert matched_alpha("b", i, like=("a", 0.2)) == pytest.approx(2.0)
    assert matched_alpha("a", i, like=("a", 0.2)) == pytest.approx(0.2)
    # By spread: deviations of 10 tokens in both groups, so 1/10 of a's and ten times its alpha.
    assert matched_alpha("b", i, like=("a", 0.2), by="sd") == pytest.approx(2.0)


def test_a_bonus_that_pays_longer_answers_has_no_matching_alpha(monkeypatch) -> None:
    i = inputs([10, 30], [1, 1], [0, 0])
    monkeypatch.setitem(REWARDS, "long", Reward(lambda x: x.lengths, False, ""))
    with pytest.raises(ValueError, match=r"'long' has a slope of 10.0 .* no matching alpha"):
        matched_alpha("long", i, like=("o1_pruner", 0.1))
    # Spread has no sign. Lengths 10 and 30 about 20: o1_pruner pays 1 and −1/3, "long" 10 and 30.
    assert matched_alpha("long", i, like=("o1_pruner", 0.1), by="sd") == pytest.approx(
        0.1 * (1 - -1 / 3) / 20
    )
    monkeypatch.setitem(REWARDS, "same", Reward(lambda x: 0 * x.lengths, False, ""))
    with pytest.raises(ValueError, match="pays all answers of a group the same"):
        matched_alpha("same", i, like=("o1_pruner", 0.1), by="sd")


def test_rows_of_a_rollout_table_become_what_rewards_want() -> None:
    rows = [
        {"question_id": "a", "length": 2, "correct": True, "logps_conditioned": [-1.0, -2.0]},
        {"question_id": "b", "length": 1, "correct": False, "logps_conditioned": [-3.0]},
        {"question_id": "a", "length": 1, "correct": False, "logps_conditioned": [-4.0]},
    ]
    rows = [{**row, "logps_standalone": None} for row in rows]
    found = reward_inputs(rows)
    assert found.group_ids.tolist() == [0, 1, 0] and found.correct.tolist() == [1, 0, 0]
    assert found.logps_conditioned.tolist() == [[-1, -2], [-3, 0], [-4, 0]]
    assert found.lengths.tolist() == [2, 1, 1] and found.logps_standalone is None
    with pytest.raises(ValueError, match="hold no log-probs per token"):
        reward_inputs([{**rows[0], "logps_conditioned": None}])
