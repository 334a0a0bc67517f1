"""What the batch and the type of the weights do to SAR, measured."""

from __future__ import annotations

import warnings

import pytest
import torch
from policies import random_policy

from sarlab import check_calibration, load_policy, score_answers
from sarlab.tasks import load_task

QUESTIONS = load_task("word_problems").heldout(6)


def test_float32_scores_do_not_depend_on_the_batch(frozen_tiny) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = check_calibration(frozen_tiny, QUESTIONS, compare_weights=False)
    assert found.answers == 12 and found.dtype == "float32"
    assert found.batch_largest <= 1e-4 and found.batch_logp <= 1e-4
    assert found.weights_largest is None


def test_bfloat16_weights_are_measured_from_either_side(frozen_tiny) -> None:
    """The same answers, the float32 policy against its bfloat16 copy and the other way round."""
    answers = [f"The sum is {q.gold}, I think.\nAnswer: {q.gold}" for q in QUESTIONS]
    rough = load_policy("tiny", dtype="bfloat16", device="cpu")
    with pytest.warns(UserWarning, match=r"bfloat16 weights lies up to .* more than 0\.0001"):
        one = check_calibration(frozen_tiny, QUESTIONS, answers, limit=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        two = check_calibration(rough, QUESTIONS, answers)
    by_hand = max(
        abs(
            score_answers(rough, q.text, [a])[0].sar
            - score_answers(frozen_tiny, q.text, [a])[0].sar
        )
        for q, a in zip(QUESTIONS, answers, strict=True)
    )
    assert one.weights_largest == pytest.approx(by_hand, abs=1e-5)
    assert one.batch_largest <= 1e-4 < one.weights_largest
    assert (one.dtype, two.dtype) == ("float32", "bfloat16")
    # tiny's weights are stored as float32, so going to bfloat16 and back loses the same digits.
    assert two.batch_largest >= one.batch_largest
    assert "bfloat16 weights give a SAR that lies up to" in one.text


def test_a_batch_that_moves_sar_is_warned_about(monkeypatch) -> None:
    """A scorer that adds the number of rows to every log-prob of the first context."""
    import sarlab.plan.calibration as module

    real = module.answer_logps

    def leaning(policy, prefixes, ids, mask, **options):
        shift = 0.0 if "prefix_index" not in options else 0.05 * (len(ids) - 1)
        return real(policy, prefixes, ids, mask, **options) + shift

    monkeypatch.setattr(module, "answer_logps", leaning)
    policy = random_policy("llama")
    with pytest.warns(UserWarning, match="The batch moves SAR by up to"):
        found = check_calibration(policy, ["1 + 1?", "2 + 2?"], ["2", "4 I say"])
    assert found.batch_logp == pytest.approx(0.05, abs=1e-5)


def test_questions_and_answers_must_match(frozen_tiny) -> None:
    with pytest.raises(ValueError, match="2 questions and 1 answers were given"):
        check_calibration(frozen_tiny, ["a?", "b?"], ["1"])
    with pytest.raises(ValueError, match="0 questions and none answers"):
        check_calibration(frozen_tiny, [])


def test_the_copy_leaves_the_policy_alone(frozen_tiny) -> None:
    before = frozen_tiny.dtype
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_calibration(frozen_tiny, QUESTIONS[:1], ["Answer: 3"])
    assert frozen_tiny.dtype == before == torch.float32
