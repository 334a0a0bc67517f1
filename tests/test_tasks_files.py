"""References and data files: what they give, and a clear error for each way to be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sarlab.tasks import judge_all, load_task, split_of


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def sums(count: int, first: int = 0) -> list[dict[str, str]]:
    return [{"question": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(first, first + count)]


@pytest.fixture
def sums_file(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text(lines(*sums(60)))
    return path


def test_a_file_is_split_by_the_text_of_its_questions(sums_file: Path) -> None:
    task = load_task(str(sums_file))
    assert task.size is not None
    assert task.name == "sums"
    assert task.size is not None
    heldout = task.heldout()
    assert len(task.train) + len(heldout) == 60
    assert {split_of(q) for q in task.train} == {"train"}
    assert {split_of(q) for q in heldout} == {"heldout"}
    assert all(v.correct for v in judge_all([f"Answer: {q.gold}" for q in heldout], heldout))
    moved = sums_file.parent / "elsewhere" / "sums.jsonl"
    moved.parent.mkdir()
    sums_file.rename(moved)
    assert load_task(str(moved)).train_batch(2, 5, 9) == task.train_batch(2, 5, 9)


def test_writings_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(
        b"\xef\xbb\xbf"
        + lines(
            {"question": "a?", "answer": "6 eggs <<2*3=6>>\n#### 6", "extra": [1]},
            {"question": "b?", "answer": 7},
            {"question": "c?", "answer": 2.5},
            {"question": "d? é 中", "answer": "#### 1,000"},
        ).encode()
        + b"\n  \n"
    )
    task = load_task(f"{path}?split=heldout")
    assert {q.text: q.gold for q in task.heldout()} == {
        "a?": "6",
        "b?": "7",
        "c?": "2.5",
        "d? é 中": "1,000",
    }


def test_a_held_out_file(sums_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "test.jsonl"
    other.write_text(lines(*sums(10, first=100)))
    task = load_task(str(sums_file), heldout_ref=str(other))
    assert (task.size, len(task.heldout())) == (60, 10)
    other.write_text(lines(*sums(10, first=55)))
    with pytest.raises(ValueError, match=r"5 held-out.*'5. \+ 1 = \?'.*overlap=drop"):
        load_task(str(sums_file), heldout_ref=str(other))
    dropped = load_task(f"{sums_file}?overlap=drop", heldout_ref=str(other))
    assert (dropped.size, len(dropped.heldout())) == (55, 10)
    assert dropped.notes == ("sums?overlap=drop: 5 held-out question(s) left out of training.",)
    with pytest.raises(ValueError, match=r"Every training question .* also held out"):
        load_task(f"{sums_file}?overlap=drop", heldout_ref=str(sums_file))


def test_a_generator_with_held_out_questions_from_elsewhere(tmp_path: Path) -> None:
    narrow = load_task("chain_sum?min_terms=1&max_terms=1&max_digits=1")
    drawn = narrow.train_batch(0, 3, 0)
    path = tmp_path / "given.jsonl"
    path.write_text(lines(*({"question": q.text, "answer": q.gold} for q in drawn)))
    task = load_task(narrow.name, heldout_ref=str(path))
    assert {q.id for q in task.heldout()} == {q.id for q in drawn}
    seen = {q.id for step in range(20) for q in task.train_batch(step, 3, 0)}
    assert not seen & {q.id for q in drawn}
    longer = load_task("chain_sum?max_terms=2", heldout_ref="chain_sum?min_terms=5")
    assert all(q.metadata["entry"]["metadata"]["num_terms"] >= 5 for q in longer.heldout(20))


def test_options_of_files(sums_file: Path) -> None:
    limited = load_task(f"{sums_file}?limit=40")
    assert limited.size is not None
    assert limited.size + len(limited.heldout()) == 40
    assert load_task(f"{sums_file}?split=heldout").size == 0
    task = load_task(f"{sums_file}?verifier=math")
    assert {q.verifier for q in [*task.train_batch(0, 5, 0), *task.heldout()]} == {"math"}
    assert task.name == "sums?verifier=math"


BAD_FILES = {
    "broken line": ('{"question": "a?", "answer": "1"}\n{"question": ', r"line 2: not valid JSON"),
    "two objects": ('{"question": "a?"} {"answer": "1"}\n', r"line 1: not valid JSON"),
    "plain text": ("hello\n", r"line 1: not valid JSON"),
    "a list": ('[{"question": "a?", "answer": "1"}]\n', "line 1: a list, expected an object"),
    "a list over lines": ('[\n{"question": "a?", "answer": "1"}\n]\n', "line 1: not valid JSON"),
    "a number": ("5\n", "line 1: a int, expected an object"),
    "no answer": (lines({"question": "a?"}), "line 1: no field 'answer'; the row has 'question'"),
    "no question": (lines({"answer": "1"}), "line 1: no field 'question'"),
    "no fields": ("{}\n", "line 1: no field 'answer'; the row has no fields"),
    "empty question": (lines({"question": " ", "answer": "1"}), "field 'question' is empty"),
    "empty answer": (lines({"question": "a?", "answer": ""}), "field 'answer' is empty"),
    "nothing after the mark": (
        lines({"question": "a?", "answer": "b ####"}),
        "nothing follows '####'",
    ),
    "a list as answer": (lines({"question": "a?", "answer": [1]}), r"'answer' is \[1\] \(list\)"),
    "null": (lines({"question": None, "answer": "1"}), r"'question' is None \(NoneType\)"),
    "true": (lines({"question": "a?", "answer": True}), r"'answer' is True \(bool\)"),
    "NaN": ('{"question": "a?", "answer": NaN}\n', r"line 1: field 'answer' is nan \(float\)"),
    "empty file": ("", "is empty. Give it one JSON object per line"),
    "blank lines": ("\n \n\n", "is empty"),
    "one question": (
        lines({"question": "a?", "answer": "1"}),
        "leaves the (training|held-out) side empty",
    ),
    "contradiction": (
        lines({"question": "a?", "answer": "1"}, {"question": "A?", "answer": "2"}),
        "occurs with the answers '1' and '2'",
    ),
    "too deep": ("[" * 100_000 + "\n", "line 1: not valid JSON"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(name: str, tmp_path: Path) -> None:
    text, message = BAD_FILES[name]
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_task(str(path))
    assert "bad" in str(caught.value)


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(
        lines(*sums(2)).encode() + '{"question": "é?", "answer": "1"}'.encode("latin-1")
    )
    with pytest.raises(ValueError, match=r"latin\.jsonl, line 3: byte 14 \(0xe9\) is not UTF-8"):
        load_task(str(path))


def test_an_error_names_the_line_even_after_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    path.write_text("\n\n" + lines(*sums(3)) + "{}\n")
    with pytest.raises(ValueError, match="line 6: no field"):
        load_task(str(path))


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("", "The task is ''.*Known: word_problems"),
        ("word_problem", "Did you mean 'word_problems'"),
        ("gsm8", "Did you mean 'gsm8k'.*logicbench"),
        ("xyzzy", "Unknown task 'xyzzy'. Known:"),
        ("propositional_logic", "scorer gives its own answers 0"),
        ("missing.jsonl", r"missing\.jsonl does not exist"),
        ("chain_sum?max_term=2", "no parameter 'max_term'.*max_terms=6.*max_digits=4"),
        ("chain_sum?max_terms=two", r"chain_sum\?max_terms is 'two', expected a int such as 6"),
        ("chain_sum?max_terms=2.5", "expected a int"),
        ("chain_sum?allow_negation=maybe", "expected a bool such as False"),
        ("chain_sum?min_terms=9", r"'chain_sum\?min_terms=9' is refused.*max_terms must be >="),
        ("chain_sum?seed=1", "no parameter 'seed'"),
        ("chain_sum?size=1", "no parameter 'size'"),
        ("chain_sum?max_terms", "cannot be read.*name.key=value"),
        ("chain_sum?max_terms=2&max_terms=3", "max_terms occur twice"),
        ("word_problems?low=1", "takes no parameters, got low"),
        ("word_problems:x", "Unknown task 'word_problems:x'"),
        ("gsm8k:", "names no path after the colon.*'gsm8k:PATH'"),
        ("gsm8k:missing", "missing does not exist"),
        ("missing.jsonl?spilt=own", "no option 'spilt'. Known: split, overlap, limit, verifier"),
        ("missing.jsonl?split=half", "split is 'half'.*expected one of"),
        ("missing.jsonl?overlap=keep", "overlap is 'keep'"),
    ],
)
def test_bad_references(ref: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_task(ref)


def test_a_folder_where_a_file_is_expected(tmp_path: Path, sums_file: Path) -> None:
    with pytest.raises(ValueError, match="is a folder, expected a file"):
        load_task(str(tmp_path))
    for limit in ("0", "-1", "many", "1.5"):
        with pytest.raises(ValueError, match=f"limit is '{limit}'"):
            load_task(f"{sums_file}?limit={limit}")
    with pytest.raises(ValueError, match="has no test split of its own"):
        load_task(f"{sums_file}?split=own")


def test_a_bad_held_out_reference(sums_file: Path) -> None:
    with pytest.raises(ValueError, match="Unknown task 'nothing'"):
        load_task(str(sums_file), heldout_ref="nothing")
