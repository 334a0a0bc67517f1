"""Summaries by hand, and the embedded policy evaluated for real."""

import pytest

from sarlab.config import TrainConfig
from sarlab.evaluation.judge import evaluate_policy, paired_difference, per_question, summarise
from sarlab.types import Question

QUESTIONS = [
    Question("Ada has 123 coins and gets 321 more. How many coins does Ada have now?", "444"),
    Question(
        "A shop sold 210 pens on Monday and 405 on Tuesday. How many pens did it sell?", "615"
    ),
    Question("There are 111 eggs in one box and 222 eggs in another. How many in all?", "333"),
]
CONFIG = TrainConfig(max_answer_tokens=48)


def row(question, correct, length, truncated=False, sar=0.5):
    return {
        "question_id": question,
        "correct": correct,
        "length": length,
        "truncated": truncated,
        "sar": sar,
        "reward": float(correct),
    }


ROWS = [
    row("a", True, 10, sar=0.4),
    row("a", False, 30, sar=None),
    row("b", True, 20, sar=0.6),
    row("b", True, 100, truncated=True, sar=0.8),
]


def test_a_summary_by_hand():
    found = summarise(ROWS)
    assert (found["questions"], found["answers"]) == (2, 4)
    assert found["accuracy"] == 0.75  # mean of 1/2 and 1
    assert found["mean_length"] == 40.0  # mean of 20 and 60
    assert found["median_length"] == 25.0  # of 10, 20, 30, 100
    assert found["mean_length_finished"] == 20.0  # of 10, 30, 20
    assert found["truncated_share"] == 0.25
    assert found["sar"] == pytest.approx(0.55)  # mean of 0.4 and (0.6 + 0.8) / 2
    assert found["tokens_per_right_answer"] == pytest.approx(160 / 3)


def test_questions_count_alike_however_often_they_were_asked():
    # Question a is right once of one, b never of three: half of the questions, not a quarter.
    rows = [row("a", True, 10), *[row("b", False, 50)] * 3]
    assert summarise(rows)["accuracy"] == 0.5
    assert summarise(rows)["mean_length"] == 30.0


def test_no_right_answer_has_no_price_and_no_rows_no_summary():
    found = summarise([row("a", False, 10), row("b", False, 20)])
    assert found["tokens_per_right_answer"] is None
    with pytest.raises(ValueError, match="no answers"):
        summarise([])


def test_a_paired_difference_by_hand():
    base = [row("a", False, 30), row("b", True, 20), row("c", False, 40)]
    other = [row("c", True, 10), row("b", True, 20), row("a", True, 10)]
    found = paired_difference(base, other, "correct")
    assert found["difference"] == pytest.approx(2 / 3)  # +1, 0, +1
    assert found["p_value"] == 0.5  # ++ and −− of the four patterns of two differences
    assert paired_difference(base, other, "length")["difference"] == pytest.approx(-50 / 3)
    assert paired_difference(other, base, "correct")["difference"] == pytest.approx(-2 / 3)


def test_a_policy_does_not_differ_from_itself():
    found = paired_difference(ROWS, ROWS, "length")
    assert (found["difference"], found["ci95"], found["p_value"]) == (0.0, [0.0, 0.0], 1.0)


def test_other_questions_cannot_be_paired():
    with pytest.raises(ValueError, match="share 1 of 2 and 2"):
        paired_difference([row("a", 1, 1), row("b", 1, 1)], [row("b", 1, 1), row("c", 1, 1)], "sar")


def test_rows_of_one_question_are_averaged_and_missing_values_left_out():
    assert per_question(ROWS, "length").to_dict() == {"a": 20.0, "b": 60.0}
    assert per_question(ROWS, "sar").to_dict() == {"a": 0.4, "b": pytest.approx(0.7)}


def test_greedy_answers_do_not_depend_on_the_seed_and_sampled_ones_do(frozen_tiny):
    def answers(**options):
        rows = evaluate_policy(frozen_tiny, QUESTIONS, CONFIG, split="test", **options)
        return [r["answer"] for r in rows]

    assert answers(greedy=True, seed="x") == answers(greedy=True, seed="y")
    assert answers(seed="x") == answers(seed="x")
    assert answers(seed="x") != answers(seed="y")


def test_samples_ask_every_question_as_often(frozen_tiny):
    rows = evaluate_policy(frozen_tiny, QUESTIONS, CONFIG, split="test", samples=2)
    assert sorted(r["question_id"] for r in rows) == sorted([q.id for q in QUESTIONS] * 2)
    assert all(r["length"] <= 48 and (r["length"] == 48 or not r["truncated"]) for r in rows)


@pytest.mark.parametrize("options", [{"samples": 0}, {"samples": 2, "greedy": True}])
def test_senseless_numbers_of_samples_are_refused(options):
    with pytest.raises(ValueError, match="samples is"):
        evaluate_policy(None, QUESTIONS, CONFIG, split="test", **options)
