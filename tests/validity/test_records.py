"""What a file of labelled answers must hold, and what is said where it does not."""

import json

import pytest

from sarlab.audit.labelled import by_question, read_labelled

GOOD = [
    {"question": "1 + 1 = ?", "answer": "Answer: 2", "label": "right", "gold": "2"},
    {"question": "1 + 1 = ?", "answer": "Answer: 3", "label": "wrong", "gold": "2"},
]


def written(tmp_path, rows):
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


def test_fields_are_read_and_right_answers_judged(tmp_path):
    rows = [
        *GOOD,
        {"question": "2 + 2 = ?", "answer": "x", "kind": "bad", "group": 7, "correct": False},
        {"question": "2 + 2 = ?", "answer": "y", "label": 3, "answer_ids": [5, 2], "gold": ""},
        {"question": "2 + 2 = ?", "answer": "y", "label": True},
    ]
    found = read_labelled(written(tmp_path, rows))
    assert [a.label for a in found] == ["right", "wrong", "bad", "3", "right"]
    assert [a.is_right for a in found] == [True, False, False, None, None]
    assert found[2].group_id == f"{found[2].question_id}/7"
    assert found[3].group_id == found[3].question_id
    assert found[3].answer_ids == (5, 2)
    assert [len(own) for own in by_question(found)] == [2, 3]
    assert by_question(found, 1) == [found[:2]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"question": "q", "answer": "a"}, "line 3: no field 'label'"),
        ({"question": "q", "label": "right"}, "line 3: no field 'answer'"),
        ({"question": " ", "answer": "a", "label": "x"}, "line 3: field 'question' is empty"),
        ({"question": "q", "answer": "a", "label": ["x"]}, "line 3: field 'label' is"),
        ({**GOOD[0], "correct": "yes"}, "line 3: correct is 'yes'; it must be true or false"),
        ({**GOOD[0], "answer_ids": [1, -2]}, "line 3: answer_ids is"),
        ({**GOOD[0], "answer_ids": []}, "line 3: answer_ids is"),
        ("{", "line 3: not valid JSON"),
        ("[1]", "line 3: a list, expected an object"),
    ],
)
def test_errors_name_the_line_and_the_rule(line, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_labelled(written(tmp_path, [*GOOD, line]))


def test_answers_that_cannot_be_compared_are_refused(tmp_path):
    with pytest.raises(ValueError, match="all 1 answers have the label 'right'"):
        read_labelled(written(tmp_path, GOOD[:1]))
    apart = [GOOD[0], {**GOOD[1], "question": "another"}]
    with pytest.raises(ValueError, match=r"no question .* has two answers"):
        read_labelled(written(tmp_path, apart))
    with pytest.raises(ValueError, match="does not exist"):
        read_labelled(tmp_path / "missing.jsonl")
