"""Every reward on small groups worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sarlab.rewards import (
    REWARDS,
    Reward,
    alpha_at,
    reward_named,
    sar_lambda,
    total_reward,
)
from sarlab.rewards.dependence import copied_tokens
from sarlab.types import RewardInputs


def inputs(
    lengths: list[int], correct: list[float], groups: list[int] | None = None, **more
) -> RewardInputs:
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    values = {
        "correct": torch.tensor(correct, dtype=torch.float32),
        "group_ids": torch.tensor(groups or [0] * len(lengths)),
        "answer_mask": mask,
        "logps_conditioned": torch.full(mask.shape, -0.5),
        "logps_standalone": torch.full(mask.shape, -1.5),
    }
    return RewardInputs(**{**values, **more})


def test_o1_pruner_by_hand() -> None:
    # Lengths 10, 20, 60, mean 30: −(10−30)/10 = 2 → 1; −(20−30)/20 = 0.5; −(60−30)/60 = −0.5.
    found = REWARDS["o1_pruner"].bonus(inputs([10, 20, 60], [1, 0, 1]))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5, -0.5]))


def test_er_by_hand() -> None:
    # Right ones: 10 and 30, mean 20, unbiased std √200; z = ∓10/√200 = ∓0.70711.
    # 1 − 2σ(z) = tanh(−z/2): ±tanh(0.353553) = ±0.339525. The wrong one gets 0.
    found = REWARDS["er"].bonus(inputs([10, 50, 30], [1, 0, 1]))
    torch.testing.assert_close(found, torch.tensor([0.339525, 0.0, -0.339525]), atol=1e-5, rtol=0)


def test_er_is_nothing_where_at_most_one_is_right_or_all_are_equally_long() -> None:
    assert REWARDS["er"].bonus(inputs([10, 50, 30], [1, 0, 0])).tolist() == [0, 0, 0]
    assert REWARDS["er"].bonus(inputs([10, 10], [1, 1])).tolist() == [0, 0]


def test_groups_do_not_see_each_other() -> None:
    both = REWARDS["o1_pruner"].bonus(inputs([10, 20, 5, 5], [1, 1, 1, 1], [0, 0, 7, 7]))
    alone = REWARDS["o1_pruner"].bonus(inputs([10, 20], [1, 1]))
    torch.testing.assert_close(both[:2], alone)
    assert both[2:].tolist() == [0, 0]


def test_confidence_is_minus_log_perplexity() -> None:
    found = REWARDS["confidence"].bonus(inputs([2, 4], [1, 0]))
    torch.testing.assert_close(found, torch.tensor([-0.5, -0.5]))


def test_sar_reward_and_total() -> None:
    # v = 1 nat a token, so SAR = 1 − 1/e for every length.
    sar = 1 - math.exp(-1)
    found = total_reward(inputs([2, 4], [1, 0]), "sar", 0.2)
    torch.testing.assert_close(found, torch.tensor([1 + 0.2 * sar, 0.2 * sar]))
    alone = total_reward(inputs([2, 4], [1, 0]), "sar_alone", 0.2)
    torch.testing.assert_close(alone, torch.tensor([sar, sar]))
    plain = total_reward(inputs([2, 4], [1, 0], logps_standalone=None), "correct", 0.2)
    assert plain.tolist() == [1, 0]


def test_sar_without_its_pass_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="needs logps_standalone"):
        total_reward(inputs([2], [1], logps_standalone=None), "sar", 0.2)


def test_alpha_schedules() -> None:
    assert [alpha_at(0.2, "linear_up", p) for p in (0.0, 0.5, 1.0)] == [0, 0.1, 0.2]
    assert [alpha_at(0.2, "linear_down", p) for p in (0.0, 0.5, 1.0)] == [0.2, 0.1, 0]
    assert alpha_at(0.2, "constant", 0.3) == 0.2
    with pytest.raises(ValueError, match="Unknown alpha_schedule 'step'"):
        alpha_at(0.2, "step", 0.3)  # type: ignore[arg-type]


def test_a_reward_of_ones_own_is_one_entry(monkeypatch) -> None:
    own = Reward(lambda i: -i.lengths / 100, needs_standalone=False, about="short")
    monkeypatch.setitem(REWARDS, "short", own)
    found = total_reward(inputs([10, 50], [1, 1]), "short", 0.5)
    torch.testing.assert_close(found, torch.tensor([0.95, 0.75]))


def test_a_reward_of_the_wrong_shape_is_refused(monkeypatch) -> None:
    own = Reward(lambda i: i.lengths.sum(), needs_standalone=False, about="one number")
    monkeypatch.setitem(REWARDS, "sum", own)
    with pytest.raises(ValueError, match=r"shape \(\) for 2 answers"):
        total_reward(inputs([10, 50], [1, 1]), "sum", 0.5)


def test_an_unknown_reward_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"Unknown reward 'length'.*o1_pruner"):
        reward_named("length")


def test_length_only_by_hand() -> None:
    # 1 − exp(−17.2/10) and 1 − exp(−17.2/100); log-probs and correctness play no part.
    found = REWARDS["length_only"].bonus(inputs([10, 100], [1, 0], logps_standalone=None))
    torch.testing.assert_close(found, torch.tensor([0.820934, 0.158021]), atol=1e-6, rtol=0)


def test_sar_lambda_by_hand_and_at_its_ends() -> None:
    # −0.5 − 0.5·(−1.5) = 0.25 nats a token: 1 − exp(−0.25).
    found = REWARDS["sar_lambda"].bonus(inputs([2, 4], [1, 0]))
    torch.testing.assert_close(found, torch.tensor([0.221199] * 2), atol=1e-6, rtol=0)
    given = inputs([2, 4], [1, 0])
    torch.testing.assert_close(sar_lambda(given, 1.0), REWARDS["sar"].bonus(given))
    # λ = 0: 1 − ppl(a|q), a monotone function of confidence.
    expected = 1 - torch.exp(-REWARDS["confidence"].bonus(given))
    torch.testing.assert_close(sar_lambda(given, 0.0), expected)


def test_sar_masked_counts_copied_tokens_as_nothing() -> None:
    # v = 1 nat on each of 4 tokens; 3 of them copied: mean v = 1/4.
    copied = torch.tensor([[True, True, True, False], [False] * 4, [True] * 4])
    found = REWARDS["sar_masked"].bonus(inputs([4, 4, 4], [1, 1, 1], copied=copied))
    expected = torch.tensor([1 - math.exp(-0.25), 1 - math.exp(-1), 0.0])
    torch.testing.assert_close(found, expected)


def test_copied_tokens_are_those_of_whole_n_grams() -> None:
    question = [1, 2, 3, 4, 5, 6, 7]
    assert copied_tokens(question, [9, 2, 3, 4, 5, 6, 9], 5) == [False, *[True] * 5, False]
    assert copied_tokens(question, [2, 3, 4, 5, 9, 6], 5) == [False] * 6  # only four in a row
    assert copied_tokens(question, question, 5) == [True] * 7
    assert copied_tokens([1, 2], [1, 2, 3], 5) == [True, True, False]  # a short question
    assert copied_tokens([], [1, 2], 5) == [False, False]


def test_sar_right_pays_right_answers_only() -> None:
    found = REWARDS["sar_right"].bonus(inputs([2, 4], [1, 0]))
    torch.testing.assert_close(found, torch.tensor([1 - math.exp(-1), 0.0]))


def test_filler_share_by_hand() -> None:
    # Ten tokens in five lines of two. v by line: 0, 6, 0, 6, 0; d by line: 9, 0, 1, 9, 0.
    # Line 0 feeds, line 1 reads, line 2 does neither, line 3 both, line 4 is the last: 2/10.
    lines = torch.tensor([[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]])
    conditioned = torch.full((1, 10), -1.0)
    standalone = torch.tensor([[-1.0, -1, -4, -4, -1, -1, -4, -4, -1, -1]])
    found = REWARDS["filler_share"].bonus(
        inputs(
            [10],
            [1],
            logps_conditioned=conditioned,
            logps_standalone=standalone,
            line_ids=lines,
            dependence=torch.tensor([[9.0, 0, 1, 9, 0]]),
        )
    )
    torch.testing.assert_close(found, torch.tensor([-0.2]))


def test_filler_share_ignores_padding_and_spares_an_answer_of_one_line() -> None:
    # The first answer has one line of two tokens, the second three lines of one, filler first.
    lines = torch.tensor([[0, 0, -1], [0, 1, 2]])
    found = REWARDS["filler_share"].bonus(
        inputs(
            [2, 3],
            [1, 1],
            logps_standalone=torch.full((2, 3), -0.5),
            line_ids=lines,
            dependence=torch.tensor([[0.0, 0, 0], [0.0, 9, 0]]),
        )
    )
    torch.testing.assert_close(found, torch.tensor([0.0, -1 / 3]))


@pytest.mark.parametrize("name", ["sar_masked", "filler_share", "sar_lambda", "sar_right"])
def test_a_reward_without_what_it_needs_is_an_error_not_a_zero(name) -> None:
    with pytest.raises(ValueError, match=r"[Nn]eeds"):
        REWARDS[name].bonus(inputs([2], [1], logps_standalone=None))
