"""Spoilt solutions: goldens by hand on made-up problems, and every row of the real files."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from gsm8k_answers import (
    LABELS,
    gsm8k_answers,
    last_step_cut,
    number_changed,
    operations_changed,
    plain,
    read_solutions,
)

from sarlab.tasks import verify

QUESTION = "Lena packs 12 crates of 40 pears, sells 100 pears, and shares the rest with 2 friends."
SOLUTION = (
    "She packs 12*40 = <<12*40=480>>480 pears.\n"
    "Of these 480 - 100 = <<480-100=380>>380 are left.\n"
    "Each of the 2 gets 380 / 2 = <<380/2=190>>190 pears."
)
RIGHT = {"solution", "socratic", "no_thought"}


def test_marks_are_stripped_and_the_last_step_cut():
    assert plain(SOLUTION).splitlines()[0] == "She packs 12*40 = 480 pears."
    body, value = last_step_cut(SOLUTION)
    assert body == "She packs 12*40 = 480 pears.\nOf these 480 - 100 = 380 are left."
    assert value == "380"
    assert last_step_cut("It is <<1+1=2>>2.") is None


def test_every_operation_is_replaced_and_computed_anew():
    body, value = operations_changed(SOLUTION, QUESTION, "190")
    # 12 / 40 = 0.3; 0.3 + 100 = 100.3; 100.3 × 2 = 200.6
    assert body == (
        "She packs 12/40 = 0.3 pears.\n"
        "Of these 0.3 + 100 = 100.3 are left.\n"
        "Each of the 2 gets 100.3 * 2 = 200.6 pears."
    )
    assert value == "200.6"


def test_one_result_is_off_and_the_rest_builds_on_it():
    seen = set()
    for seed in range(20):
        body, value = number_changed(SOLUTION, QUESTION, "190", random.Random(seed))
        first = body.splitlines()[0]
        seen.add(first)
        if first == "She packs 12*40 = 482 pears.":
            assert "482 - 100 = 382 are left" in body and "382 / 2 = 191 pears" in body
            assert value == "191"
        assert value != "190"
    assert "She packs 12*40 = 482 pears." in seen and "She packs 12*40 = 480 pears." in seen


def test_a_number_that_the_question_states_is_not_taken_for_a_result():
    solution = "He has 5 + 7 = <<5+7=12>>12 eggs in 12 nests.\nThat is 12/12 = <<12/12=1>>1 each."
    body, _ = number_changed(solution, "5 and 7 eggs in 12 nests?", "1", random.Random(1))
    assert "in 12 nests" in body


def test_money_thousands_and_what_is_no_arithmetic():
    first = "It costs 1,200 + 20% = <<1200+20%=1440>>1,440."
    solution = f"{first}\nWith 10 it is $<<1440+10=1450>>1,450."
    body, value = operations_changed(solution, "?", "1450")
    assert body == "It costs 1,200 - 20% = 1,440.\nWith 10 it is $1,430."
    assert value == "1430"
    assert operations_changed("No sums here.", "?", "4") is None


def corpus(count):
    return {
        f"{QUESTION} ({i})": (SOLUTION.replace("100", str(100 + 2 * i)), str(190 - i))
        for i in range(count)
    }


def test_draws_depend_on_the_seed_alone():
    texts = corpus(9)
    assert gsm8k_answers(texts, {}, 4, seed=1) == gsm8k_answers(texts, {}, 4, seed=1)
    assert gsm8k_answers(texts, {}, 4, seed=1) != gsm8k_answers(texts, {}, 4, seed=2)
    with pytest.raises(ValueError, match="the file has 1 to 9"):
        gsm8k_answers(texts, {}, 10)


def test_a_file_of_another_kind_is_refused_by_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": "no mark"}))
    with pytest.raises(ValueError, match="line 1: the answer does not end in '#### X'"):
        read_solutions(path)


def _folder() -> Path:
    given = os.environ.get("SARLAB_BENCHMARKS")
    return Path(given) if given else Path(__file__).parents[3] / "shared" / "benchmarks"


@pytest.mark.skipif(
    not (_folder() / "gsm8k_test.jsonl").is_file(),
    reason=f"no benchmark files in {_folder()}; point SARLAB_BENCHMARKS at them",
)
def test_every_row_of_the_real_files_gives_answers_of_the_claimed_quality():
    files = [_folder() / name for name in ("gsm8k_test.jsonl", "gsm8k_test_socratic.jsonl")]
    solutions, socratic = map(read_solutions, files)
    found = gsm8k_answers(solutions, socratic, 1319)
    counts = {kind: sum(a.label == kind for a in found) for kind in LABELS}
    assert all(counts[kind] == 1319 for kind in (*RIGHT, "off_topic"))
    assert min(counts.values()) > 1150  # some have one step, or sums that are written otherwise
    for answer in found:
        assert answer.answer.splitlines()[-1].startswith("Answer: ")
        assert "<<" not in answer.answer and "**" not in answer.answer
        assert verify(answer.answer, answer.gold) is (answer.label in RIGHT)
    longer = {a.question: len(a.answer) for a in found if a.label == "socratic"}
    assert all(len(a.answer) < longer[a.question] for a in found if a.label == "solution")
