"""What counts as which behaviour, on sentences judged by hand."""

import ast
import json
import random
from pathlib import Path

import pytest

from sarlab.evaluation.behaviours import (
    BEHAVIOURS,
    NAMES,
    behaviour_change,
    count_behaviours,
    example,
    filler_tokens,
    label_sentences,
    what_was_lost,
)
from sarlab.tasks.generated import draw_problem

ROOT = Path(__file__).resolve().parents[1]
QUESTION = "A baker packs 14 boxes of 6 muffins and sells 9. How many muffins are left?"

LABELLED = [
    ("Wait, that is wrong.", {"backtracking"}),
    ("Hmm, let me try again.", {"backtracking"}),
    ("I made a mistake in the second box.", {"backtracking"}),
    ("Let me check: 84 - 9 = 75.", {"verification", "sub-goals"}),
    ("To verify, 75 + 9 is 84.", {"verification"}),
    ("Substituting 6 back into the equation works.", {"verification"}),
    ("14 * 6 = 84", {"sub-goals"}),
    ("4+7+1=12", {"sub-goals"}),
    ("Step 2: add the muffins.", {"sub-goals"}),
    ("Next, count the boxes.", {"sub-goals"}),
    ("Let x be the number of muffins.", {"sub-goals"}),
    ("Case 1: all boxes are full.", {"enumeration"}),
    ("Suppose A is a knight.", {"enumeration"}),
    ("Either Ann lies or Bob does.", {"enumeration"}),
    ("He will wait for 5 muffins.", set()),
    ("The baker has a checkbook.", set()),
    ("She sells 9 muffins.", set()),
    ("384+297", set()),  # a sum set down, not carried out
    ("Let me think about this carefully.", {"filler"}),
    ("What a lovely day it is!", {"filler"}),
    ("First, let me look at what is asked.", {"filler"}),  # announces nothing of this question
    ("Answer: 75", set()),
    ("The final answer is 75.", set()),
    ("So no.", set()),
]


@pytest.mark.parametrize(("sentence", "names"), LABELLED)
def test_sentences_judged_by_hand(sentence, names):
    (label,) = label_sentences(sentence, QUESTION)
    assert set(label[2]) == names


def test_an_answer_is_cut_at_sentence_and_line_ends_only():
    answer = "It is 3.5 kg. Now 2 more!\n4+5=9\n\nAnswer: 9"
    pieces = [answer[a:b] for a, b, _ in label_sentences(answer, QUESTION)]
    assert pieces == ["It is 3.5 kg.", "Now 2 more!", "4+5=9", "Answer: 9"]
    assert label_sentences("", QUESTION) == label_sentences(" \n ", QUESTION) == []


def test_filler_depends_on_the_question():
    sentence = "The weather in Lisbon is warm."
    assert label_sentences(sentence, QUESTION) == [(0, len(sentence), ("filler",))]
    assert count_behaviours(sentence, "How warm is Lisbon in May?")["filler"] == 0


def test_everything_that_tiny_was_taught_to_pad_with_is_filler():
    tree = ast.parse((ROOT / "scripts" / "build_tiny.py").read_text("utf-8"))
    (padding,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FILLER"
    )
    rng = random.Random(0)
    for _ in range(100):
        question = draw_problem(rng).text
        found = {names for s in padding for _, _, names in label_sentences(s, question)}
        assert found == {("filler",)}


def test_the_columns_that_tiny_writes_are_sub_goals_and_nothing_is_filler():
    answer = "384+297\n4+7=11\n8+9+1=18\n3+2+1=6\n384+297=681\nAnswer: 681"
    question = "Ada has 384 coins and gets 297 more. How many coins does Ada have now?"
    found = count_behaviours(answer, question)
    assert found == {**dict.fromkeys(NAMES, 0), "sub-goals": 4}


def test_the_six_kinds_of_example_answers_are_told_apart():
    """Written by another hand for another purpose: padded answers check, doubt and chat more."""
    lines = (ROOT / "data" / "examples" / "answers.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    mean = {}
    for kind in {r["kind"] for r in rows}:
        counts = [count_behaviours(r["answer"], r["question"]) for r in rows if r["kind"] == kind]
        mean[kind] = {name: sum(c[name] for c in counts) / len(counts) for name in NAMES}
    for name in ("backtracking", "verification", "filler"):
        assert mean["redundant"][name] > 0.3
        assert mean["concise"][name] < 0.05
    assert mean["concise"]["sub-goals"] > 1 > mean["no_thought"]["sub-goals"]
    assert mean["off_topic"]["filler"] > 1


def row(answer, question_id="q", correct=True):
    ids = [*map(ord, answer), 0]
    return {
        "question_id": question_id,
        "question": QUESTION,
        "answer": answer,
        "answer_ids": ids,
        "length": len(ids),
        "correct": correct,
        "truncated": False,
    }


def test_filler_tokens_are_counted_where_they_stand():
    chat, sums = "What a lovely day it is!", "14 * 6 = 84"
    one = row(f"{chat}\n{sums}")
    assert filler_tokens(one, chr) == len(chat)  # a token a character here
    # Tokens of two characters for the chat and of one for the rest: the share of characters
    # (24 of 36) would give 24.7 of 37 tokens, but it is 12 of 24 that are filler.
    pieces = [chat[i : i + 2] for i in range(0, len(chat), 2)] + list("\n" + sums)
    two = {**one, "answer_ids": list(range(len(pieces))), "length": len(pieces)}
    assert filler_tokens(two, pieces.__getitem__) == 12
    assert filler_tokens(two) == pytest.approx(len(pieces) * 24 / 36)


def test_pieces_that_do_not_make_the_text_fall_back_on_characters():
    one = row("What a lovely day it is!\n14 * 6 = 84")
    assert filler_tokens(one, lambda i: "?") == filler_tokens(one)


def test_a_change_adds_up_and_reverses():
    base = [
        row("What a lovely day it is!\n14 * 6 = 84\nLet me check: 84 - 9 = 75.", str(i))
        for i in range(20)
    ]
    other = [row("14 * 6 = 84", str(i)) for i in range(20)]
    change = behaviour_change(base, other, token_text=chr)
    assert change.loc["filler", "difference"] == -1
    assert change.loc["verification", "difference"] == -1
    assert change.loc["sub-goals", "difference"] == -1
    lost = change["difference"]
    assert lost["filler_tokens"] == -len("What a lovely day it is!")
    assert lost["filler_tokens"] + lost["other_tokens"] == pytest.approx(lost["length"])
    back = behaviour_change(other, base, token_text=chr)["difference"]
    assert (back == -lost).all()
    text = what_was_lost(change)
    assert "lost 52.0 tokens: filler -24.0, all else -28.0" in text
    assert "verification (1.00 → 0.00 per answer)" in text
    assert "No behaviour became rarer" in what_was_lost(
        behaviour_change(base, base, token_text=chr)
    )


def test_rates_are_per_answer_and_their_intervals_cover_seeds_too():
    rows = [row("14 * 6 = 84\n84 - 9 = 75", "a"), row("Answer: 75", "b")]
    none = [row("Answer: 75", "a"), row("Answer: 75", "b")]
    table = behaviour_change(none, rows, none)
    assert table.loc["sub-goals", "base"] == 0.0
    assert table.loc["sub-goals", "other"] == 0.5  # two and none of one seed, none of the other
    assert table.loc["sub-goals", "low"] < 0  # the seeds disagree


def test_other_questions_cannot_be_paired():
    with pytest.raises(ValueError, match="different questions"):
        behaviour_change([row("x", "a")], [row("x", "b")])


def test_the_example_of_a_behaviour_is_the_first_answer_that_shows_it():
    rows = [row("14 * 6 = 84"), row("Wait, that is wrong.", "second"), row("Hmm.", "third")]
    assert example(rows, "backtracking") is rows[1]
    assert example(rows, "enumeration") is None


def test_every_behaviour_has_a_definition_and_patterns():
    assert all(rule["definition"] and rule["patterns"] for rule in BEHAVIOURS.values())
