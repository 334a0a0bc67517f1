"""Which claims are made, and the scores they are made of: goldens by hand."""

import math

import pandas as pd
import pytest

from sarlab.audit.courts import option_table, pairs_court, policy_table, score_columns
from sarlab.audit.labelled import claims_for


def rows(*answers):
    """(question, label, correct, length, Σ log-prob with the question, Σ without) → a table.

    The end token has half a nat with the question and one without it; the bare context has
    twice the sum of the empty turn.
    """
    return pd.DataFrame(
        [
            {
                "model": "m",
                "question_id": question,
                "group": question,
                "label": label,
                "correct": correct,
                "length": length,
                "logp_conditioned": conditioned,
                "logp_empty_turn": alone,
                "logp_bare": 2 * alone,
                "end_conditioned": -0.5,
                "end_empty_turn": -1.0,
                "end_bare": -1.0,
            }
            for question, label, correct, length, conditioned, alone in answers
        ]
    )


def test_scores_by_hand():
    table = rows(("q", "right", True, 4, -2.0, -6.0), ("q", "wrong", False, 2, -8.0, -1.0))
    found = score_columns(table)
    # mean v = (−2 + 6) / 4 = 1: SAR = 1 − 1/e. For the other (−8 + 1) / 2 = −3.5: clipped.
    assert found["sar"].tolist() == pytest.approx([1 - math.exp(-1), -1.0])
    assert found["log_sar"].tolist() == pytest.approx([1.0, -3.5])
    assert found["length"].tolist() == [-4, -2]
    assert found["confidence"].tolist() == pytest.approx([-0.5, -4.0])
    assert found["ppl_standalone"].tolist() == pytest.approx([1.5, 0.5])
    assert found["correct"].tolist() == [1, 0]
    # Without the end token: (−1.5 + 5) / 3; in the bare context (−2 + 12) / 4.
    assert score_columns(table, end_token=False)["log_sar"][0] == pytest.approx(3.5 / 3)
    assert score_columns(table, "bare")["log_sar"][0] == pytest.approx(2.5)


def test_an_answer_of_the_end_token_alone_has_no_score_without_it():
    found = score_columns(rows(("q", "a", None, 1, -0.5, -1.0)), end_token=False)
    assert found[["sar", "length", "correct"]].isna().all(axis=None)


def test_claims_are_those_asked_for_or_known_or_the_order_of_numbers():
    assert claims_for(["b", "a", "b"], "a > b; b>a") == ["a > b", "b > a"]
    assert claims_for(["wrong", "concise", "redundant"]) == [
        "concise > redundant",
        "concise > wrong",
    ]
    assert claims_for(["0", "1", "0.5"]) == ["0.5 > 0", "1 > 0", "1 > 0.5"]
    for labels, text, message in (
        (["a", "b"], "a > c", "names 'c'; the labels are 'a', 'b'"),
        (["a", "b"], "a b", "better > worse"),
        (["a", "b"], "a > a", "better > worse"),
        (["good", "bad"], "", "claims = 'good > bad'"),
        ([str(i) for i in range(9)], "", "9 different numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            claims_for(labels, text)


def test_tables_say_how_many_pairs_are_left_and_leave_out_what_is_unknown():
    table = rows(
        ("q", "right", True, 10, -5.0, -15.0),
        ("q", "wrong", False, 10, -5.0, -5.0),
        ("r", "right", True, 40, -40.0, -60.0),
        ("r", "wrong", None, 10, -5.0, -15.0),
    )
    scores, claims = score_columns(table), claims_for(table["label"])
    found = pairs_court(table, scores, claims, tolerance=0.1).set_index("design")
    sar, correct = found.loc["sar"], found.loc["correct"]
    assert (sar["pairs"], sar["share"], sar["equal_pairs"], sar["equal_share"]) == (2, 0.5, 1, 1.0)
    assert (correct["pairs"], correct["share"]) == (1, 1.0)
    options = option_table(table, claims)
    assert len(options) == 1 * 2 * 2 * 2  # claims, contexts, end token, SAR and its log form
    within = policy_table(table, scores).set_index("design")
    assert within.loc["sar", ["groups", "mixed_groups", "pairs"]].tolist() == [2, 1, 1]
    assert within.loc["sar", "accuracy"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="judged right or wrong"):
        policy_table(table.assign(correct=None), scores)
