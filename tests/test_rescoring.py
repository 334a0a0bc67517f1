"""Scores of edited answers equal those of answers scored from nothing."""

from __future__ import annotations

import pytest
import torch
from policies import random_policy

from sarlab import score_answers
from sarlab.rewards.answers import AnswerScore, Rescorer

QUESTION = "Ann has 12 pens and buys 30 more. How many pens does she have?"
EDITS = [
    "First 12 + 30 = 42. So she has 42 pens. Answer: 42",
    "First 12 + 30 = 42. So she has 42 pens. Answer: 43",  # at the end
    "First 12 + 30 = 42. So she has 42 pens.",  # cut off
    "First 12 + 30 = 42. So she has 42 red and blue pens.",  # in the middle
    "Then 12 + 30 = 42. So she has 42 red and blue pens.",  # at the start
    "Then 12 + 30 = 42. So she has 42 red and blue pens.",  # not at all
    "7",
]


def assert_same(one: AnswerScore, other: AnswerScore, within: float = 1e-4) -> None:
    assert one.token_ids == other.token_ids and one.tokens == other.tokens
    assert one.logps_conditioned == pytest.approx(other.logps_conditioned, abs=within)
    assert one.logps_standalone == pytest.approx(other.logps_standalone, abs=within)
    assert one.sar == pytest.approx(other.sar, abs=within)
    for a, b in zip(
        (*one.alternatives_conditioned, *one.alternatives_standalone),
        (*other.alternatives_conditioned, *other.alternatives_standalone),
        strict=True,
    ):
        assert [p for _, p in a.top] == pytest.approx([p for _, p in b.top], abs=within)
        assert abs(a.rank - b.rank) <= 1  # equal up to rounding of ties


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3"])
def test_every_edit_equals_a_score_from_nothing(architecture: str) -> None:
    policy = random_policy(architecture)
    rescorer = Rescorer(policy, QUESTION)
    for text in EDITS:
        (fresh,) = score_answers(policy, QUESTION, [text], alternatives=True)
        assert_same(rescorer.score(text), fresh)


def test_deleting_a_span_scores_the_rest_again(frozen_tiny) -> None:
    rescorer = Rescorer(frozen_tiny, QUESTION)
    score = rescorer.score(EDITS[0])
    ids = score.token_ids
    deleted = rescorer.score_deleted(3, 9)
    (fresh,) = score_answers(frozen_tiny, QUESTION, [[*ids[:3], *ids[9:]]], alternatives=True)
    assert_same(deleted, fresh)
    assert deleted.sar != pytest.approx(score.sar_without(3, 9), abs=1e-3)  # two numbers
    assert_same(rescorer.score(EDITS[0]), score)  # and the answer is still held


def test_only_the_tokens_after_the_change_are_run(frozen_tiny, monkeypatch) -> None:
    rescorer = Rescorer(frozen_tiny, QUESTION)
    rescorer.score(EDITS[0])
    run: list[int] = []
    trunk = frozen_tiny.trunk
    handle = trunk.register_forward_pre_hook(
        lambda _, __, given: run.append(given["input_ids"].numel()), with_kwargs=True
    )
    try:
        changed = rescorer.score(EDITS[1])
        rescorer.score(EDITS[1])
    finally:
        handle.remove()
    # One forward for both contexts, of two or three tokens each; the second score costs nothing.
    assert len(run) == 1 and run[0] <= 2 * 3 < 2 * changed.length


def test_mistakes_are_told() -> None:
    policy = random_policy("llama")
    with pytest.raises(ValueError, match="The question is empty"):
        Rescorer(policy, "  ")
    rescorer = Rescorer(policy, QUESTION)
    with pytest.raises(ValueError, match="The answer is empty"):
        rescorer.score(" ")
    with pytest.raises(ValueError, match=r"span \[0, 1\) must lie in an answer of 0 tokens"):
        rescorer.score_deleted(0, 1)
    with pytest.raises(ValueError, match="takes at most 512"):
        rescorer.score("word " * 600)
    policy.version += 1
    with pytest.raises(ValueError, match="Make a new Prefix"):
        rescorer.score("Answer: 42")


def test_a_lone_surrogate_is_scored_as_a_replacement_character(frozen_tiny) -> None:
    score = Rescorer(frozen_tiny, QUESTION).score("a \ud83d b")
    assert "".join(score.tokens[:-1]) == "a \ufffd b"
    assert torch.isfinite(torch.tensor(score.logps_conditioned)).all()
