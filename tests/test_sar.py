"""SAR against numbers worked by hand, another definition, and what it must not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sarlab.rewards.answers import score_answers
from sarlab.sar import (
    leave_out,
    mean_logp,
    perplexity,
    self_aligned_reward,
    token_shares,
    token_values,
)

LN2 = math.log(2)


def mask_of(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]


def test_perplexity_by_hand() -> None:
    # P = 1/2, 1/8: the mean of −log2 P is (1 + 3)/2 = 2 bits, so ppl = 2² = 4. Second: 1/2 → 2.
    logps = torch.tensor([[-LN2, -3 * LN2], [-LN2, -99.0]])
    torch.testing.assert_close(perplexity(logps, mask_of(2, 1)), torch.tensor([4.0, 2.0]))


def test_sar_by_hand() -> None:
    # ppl(a) = 8 and ppl(a|q) = 2: SAR = (8 − 2)/8 = 0.75.
    # ppl(a) = 2 and ppl(a|q) = 2: 0.
    # ppl(a) = 4 and ppl(a|q) = 6: (4 − 6)/4 = −0.5.
    # ppl(a) = 2 and ppl(a|q) = 16: (2 − 16)/2 = −7, clipped to −1.
    conditioned = -torch.tensor([[2.0], [2.0], [6.0], [16.0]]).log()
    standalone = -torch.tensor([[8.0], [2.0], [4.0], [2.0]]).log()
    found = self_aligned_reward(conditioned, standalone, mask_of(1, 1, 1, 1))
    torch.testing.assert_close(found, torch.tensor([0.75, 0.0, -0.5, -1.0]))


def test_token_shares_add_up_to_the_log_of_one_minus_sar() -> None:
    conditioned = torch.tensor([[-0.1, -0.7, -2.0]])
    standalone = torch.tensor([[-1.1, -0.2, -4.0]])
    mask = mask_of(3)
    values = token_values(conditioned, standalone)
    torch.testing.assert_close(values, torch.tensor([[1.0, -0.5, 2.0]]))
    shares = token_shares(conditioned, standalone, mask)
    torch.testing.assert_close(shares, torch.tensor([[1 / 3, -0.5 / 3, 2 / 3]]))
    sar = self_aligned_reward(conditioned, standalone, mask)
    torch.testing.assert_close(shares.sum(1), -torch.log(1 - sar))


def test_leaving_a_span_out_of_the_mean() -> None:
    conditioned = torch.tensor([[-0.1, -0.7, -2.0]])
    standalone = torch.tensor([[-1.1, -0.2, -4.0]])
    span = torch.tensor([[False, True, False]])
    # The values left are 1 and 2 nats, their mean 1.5.
    found = leave_out(conditioned, standalone, mask_of(3), span)
    torch.testing.assert_close(found, torch.tensor([1 - math.exp(-1.5)]))


def test_an_answer_without_tokens_has_no_perplexity() -> None:
    with pytest.raises(ValueError, match=r"Answers \[1\] have no tokens"):
        mean_logp(torch.zeros(2, 3), torch.tensor([[True] * 3, [False] * 3]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-20, -1e-3), st.floats(-20, -1e-3)), min_size=1, max_size=30))
def test_sar_is_the_clipped_relative_drop_of_perplexity(pairs: list[tuple[float, float]]) -> None:
    both = torch.tensor(pairs, dtype=torch.float64)
    conditioned, standalone = both[:, 0][None], both[:, 1][None]
    mask = mask_of(len(pairs))
    with_q = math.exp(-sum(c for c, _ in pairs) / len(pairs))
    without = math.exp(-sum(s for _, s in pairs) / len(pairs))
    wanted = max(-1.0, min(1.0, (without - with_q) / without))
    found = self_aligned_reward(conditioned, standalone, mask).item()
    assert found == pytest.approx(wanted, abs=1e-9)
    assert -1.0 <= found < 1.0


def test_padding_and_what_stands_on_it_change_nothing() -> None:
    conditioned, standalone = torch.randn(2, 3), torch.randn(2, 3)
    mask = mask_of(3, 2)
    wide = torch.nn.functional.pad(conditioned, (0, 4), value=7.0)
    wide_alone = torch.nn.functional.pad(standalone, (0, 4), value=-5.0)
    wide_mask = torch.nn.functional.pad(mask, (0, 4))
    torch.testing.assert_close(
        self_aligned_reward(wide, wide_alone, wide_mask),
        self_aligned_reward(conditioned, standalone, mask),
    )


def test_an_empty_turn_as_question_earns_exactly_nothing(frozen_tiny, monkeypatch) -> None:
    """Both contexts are then the same ids, so SAR is 0, not merely near it."""
    import sarlab.rewards.answers as module

    _, alone = module.question_prefixes(frozen_tiny, "anything")
    monkeypatch.setattr(module, "question_prefixes", lambda *_: (alone, alone))
    (score,) = score_answers(frozen_tiny, "(empty)", ["384+297=681\nAnswer: 681"])
    assert score.sar == 0.0
    assert set(score.values) == {0.0}
