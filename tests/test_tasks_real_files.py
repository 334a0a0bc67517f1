"""Every row of the real benchmark files: gold against itself, other writings, wrong values."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from writings import authors_ending, intermediate_values, right_writings, wrong_writings

from sarlab.tasks import judge, judge_all, load_task
from sarlab.types import Question


def all_of(ref: str) -> list[Question]:
    return load_task(f"{ref}?split=heldout").heldout()


def _folder() -> Path:
    given = os.environ.get("SARLAB_BENCHMARKS")
    return Path(given) if given else Path(__file__).parents[2] / "shared" / "benchmarks"


real = pytest.mark.skipif(
    not (_folder() / "gsm8k_test.jsonl").is_file(),
    reason=f"no benchmark files in {_folder()}; point SARLAB_BENCHMARKS at them",
)


@real
@pytest.mark.parametrize(
    ("ref", "count"),
    [
        ("gsm8k:gsm8k_test.jsonl", 1319),
        ("gsm8k:gsm8k_test_socratic.jsonl", 1319),
        ("gsm8k:gsm8k_train.jsonl", 7473),
        ("gsm8k:", 8792),
        ("logicbench:logicbench", 220),
    ],
)
def test_every_gold_answer_is_right_against_itself(ref: str, count: int) -> None:
    name, _, file = ref.partition(":")
    questions = all_of(f"{name}:{_folder() / file}")
    assert len(questions) == count
    verdicts = judge_all([f"so\nAnswer: {q.gold}" for q in questions], questions)
    assert Counter(v.reason for v in verdicts) == {"right": count}


@real
def test_the_real_splits_are_disjoint() -> None:
    task = load_task(f"gsm8k:{_folder()}")
    assert (task.size, len(task.heldout())) == (7473, 1319)
    plain, socratic = (f"gsm8k:{_folder()}/gsm8k_test{end}.jsonl" for end in ("", "_socratic"))
    with pytest.raises(ValueError, match="1319 held-out"):
        load_task(plain, heldout_ref=socratic)


@real
def test_every_gsm8k_solution_with_its_gold_in_other_writings() -> None:
    accepted = refused = 0
    for question in all_of(f"gsm8k:{_folder() / 'gsm8k_test.jsonl'}"):
        solution = question.metadata["solution"].rpartition("####")[0]
        for kind, writing in right_writings(question.gold):
            verdict = judge(f"{solution}Answer: {writing}", question.gold)
            assert verdict.correct, (question.gold, kind, verdict)
            accepted += 1
        for kind, writing in wrong_writings(question.gold):
            verdict = judge(f"{solution}Answer: {writing}", question.gold)
            assert not verdict.correct, (question.gold, kind, verdict)
            refused += 1
        assert judge(solution, question.gold).reason == "no marker"
    assert (accepted, refused) == (1319 * 27, 1319 * 43)


@real
def test_intermediate_values_of_the_solutions_are_refused() -> None:
    refused = 0
    for question in all_of(f"gsm8k:{_folder() / 'gsm8k_test.jsonl'}"):
        solution = question.metadata["solution"]
        for value in intermediate_values(solution, question.gold):
            assert not judge(f"{solution}\nAnswer: {value}", question.gold).correct, value
            refused += 1
    assert refused > 2000


@real
def test_the_authors_own_endings_are_accepted() -> None:
    """ "72 clips altogether": 6,838 numbers with their unit of at most three words."""
    count = accepted = 0
    for question in all_of(f"gsm8k:{_folder()}"):
        ending = authors_ending(question.metadata["solution"].rpartition("####")[0], question.gold)
        if ending is not None:
            count += 1
            accepted += judge(f"Answer: {ending}", question.gold).correct
    assert count > 6500 and accepted / count >= 0.995
