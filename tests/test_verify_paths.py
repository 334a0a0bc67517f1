"""The marker, thoughts, words, options, mathematics, and verifiers of one's own."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from lenient import last_number

from sarlab.tasks import (
    Verdict,
    judge,
    judge_all,
    load_task,
    verify,
    warm_up,
)
from sarlab.tasks.answer_line import AnswerLine, find_value, is_prose, nesting, unwrap
from sarlab.types import Question


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Answer: 5", "5"),
        ("answer: 5", "5"),
        ("ANSWER : 5", "5"),
        ("Final Answer: 5", "5"),
        ("**Answer:** 5", "5"),
        ("**Answer**: 5", "5"),
        ("**Answer: 5**", "5"),
        ("__Answer:__ 5", "5"),
        ("### Answer: 5", "5"),
        (r"\textbf{Answer:} 5", "5"),
        ("Answer:5", "5"),
        ("Answer:\n\n5\n", "5"),
        ("Answer:\n\\[\n\\boxed{5}\n\\]\n", "5"),
        ("Answer:\n```\n5\n```", "5"),
        ("Answer: 3 Answer: 4", "4"),
        ("Answer: 3Answer: 4", "4"),
        ("Answer: 3\nno: Answer: 4.", "4"),
        ("Answer: 3\n<think>or 4? Answer: 4</think>\nAnswer: 5", "5"),
        ("<think>Answer: 3</think>Answer: 5", "5"),
        ("<THINK>Answer: 3</THINK> so Answer: 5", "5"),
        ("Answer:", ""),
        ("Answer: .", ""),
    ],
)
def test_the_value_after_the_last_marker(text: str, value: str) -> None:
    found = find_value(text)
    assert found is not None
    assert found.value.strip() == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "5",
            "The answer is 5",
            "Answer 5",
            "answers: 5",
            "nswer: 5",
            "Answer - 5",
            "Answer；5",
        ),
        *("<think>Answer: 5", "<think>Answer: 5</think> so it is 5", "Answer: 5</think>"),
        *("<think>a</think><think>Answer: 5", "myanswer: 5", "Answer\n: 5", "Аnswer: 5"),
    ],
)
def test_no_marker_counts(text: str) -> None:
    assert find_value(text) is None
    assert judge(text, "5") == Verdict(False, None, "no marker")


def test_an_answer_followed_by_an_open_thought_is_no_answer() -> None:
    assert not verify("Answer: 5 <think> or 6?", "5")
    assert verify("<think>or 6?</think> Answer: 5", "5")


def test_unwrapping_stops_at_what_carries_meaning() -> None:
    assert unwrap(r"$\boxed{\textbf{x^2}}$.") == "x^2"
    assert unwrap(r"\boxed{3} \boxed{4}") == r"\boxed{3} \boxed{4}"
    assert unwrap("$3$ or $4$") == "$3$ or $4$"
    assert unwrap("...") == "..."
    assert nesting("((a)[b{c}])") == 3


@pytest.mark.parametrize(
    ("rest", "prose"),
    [
        ((), True),
        (("I hope that this helps.",), True),
        (("That is all, thank you.", "Good luck with your homework!"), True),
        (("or 6",), False),
        (("I think six is possible",), False),
        (("Or maybe yes, who knows",), False),
        (("B",), False),
        (("thank you",), False),
        (("so that x = y holds",), False),
        (("see the ６ in the text",), False),
        (("word " * 600,), False),
    ],
)
def test_what_may_follow_the_value(rest: tuple[str, ...], prose: bool) -> None:
    assert is_prose(rest) is prose
    assert verify("\n".join(["Answer: 5", *rest]), "5") is prose


def test_found_is_a_plain_record() -> None:
    assert find_value("Answer: 5\nI hope so too.") == AnswerLine("5", ("I hope so too.",))


@pytest.mark.parametrize(
    ("gold", "answer", "reason"),
    [
        ("yes", "Yes.", "right"),
        ("Yes", "**yes**", "right"),
        ("no", "No", "right"),
        ("no", "yes", "wrong value"),
        ("yes", "yes or no", "several values"),
        ("yes", "yes/no", "several values"),
        ("yes", "yes, no", "several values"),
        ("yes", "Yes\nNo", "several values"),
        ("yes", "", "no value"),
        ("True", "true", "right"),
        ("True", "False", "wrong value"),
        ("Emma", "emma", "right"),
        ("Emma", "Emma and Liam", "several values"),
        ("the red door", "a Red Door!", "right"),
        ("Monday", r"\text{Monday}", "right"),
        (r"\text{Monday}", "monday", "right"),
        ("Emma is a saint, and Noah is a sinner.", "Emma is a saint and Noah is a sinner", "right"),
        (
            "Emma is a saint, and Noah is a sinner.",
            "Emma is a sinner, and Noah is a saint",
            "wrong value",
        ),
        ("B", "B", "right"),
        ("B", "(b)", "right"),
        ("B", "B.", "right"),
        ("B", r"\boxed{\text{B}}", "right"),
        ("(B)", "Option B", "right"),
        ("B", "C", "wrong value"),
        ("B", "A or B", "several values"),
        ("B", "A, B", "several values"),
        ("B", "B\nC", "several values"),
        ("A", "a", "right"),
        ("A", "the", "wrong value"),
    ],
)
def test_words_and_options(gold: str, answer: str, reason: str) -> None:
    assert judge(f"Answer: {answer}", gold).reason == reason


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B", True),
        ("B) a cat", True),
        ("(B) A cat.", True),
        ("B: the cat", True),
        ("a cat", True),
        ("A", False),
        ("A) a cat", False),
        ("B) a dog", False),
        ("a dog", False),
        ("A) a dog B) a cat", False),
    ],
)
def test_an_option_by_its_letter_or_its_own_text(answer: str, right: bool) -> None:
    metadata = {"choices": {"A": "a dog", "B": "a cat"}}
    assert judge(f"Answer: {answer}", "B", "text", metadata).correct is right


@pytest.mark.parametrize(
    ("gold", "answer", "reason"),
    [
        (r"\frac{\pi}{2}", r"\pi/2", "right"),
        (r"2\sqrt{3}", r"$\sqrt{12}$", "right"),
        ("x^2+2x+1", "(x+1)^2", "right"),
        ("x+1", "y+1", "wrong value"),
        (r"\{1,2\}", r"\{2,1\}", "right"),
        ("(1,2)", "(2,1)", "wrong value"),
        ("[0,1)", "[0,1]", "wrong value"),
        ("3, 4", "4, 3", "right"),
        ("x+1", "x+1 or x+2", "several values"),
        ("x+1", "x+1, x+2", "several values"),
        ("x+1", "$x+1$ and $x+2$", "several values"),
        ("x+1", "x+1\nx+2", "several values"),
        ("x+1", "y = x+1", "right"),
        ("x+1", "x = 1 = x+1", "several values"),
        ("1000", "10^3", "right"),
        ("1000", r"10^{3} \text{ cm}", "right"),
        ("18", "9+9", "several values"),
        ("18", r"9 \cdot 2", "several values"),
        ("18", "17+1 = 18", "several values"),
        ("1500", r"1.5 \times 10^3", "right"),
        ("0.5", r"50\%", "wrong value"),
        ("B", "(B)", "right"),
        ("Monday", "monday", "right"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}", "wrong value"),
        ("x^2", "", "no value"),
        ("x^2", "hello there", "wrong value"),
    ],
)
def test_mathematics(gold: str, answer: str, reason: str) -> None:
    assert judge(f"Answer: {answer}", gold, "math").reason == reason


def test_auto_takes_mathematics_where_gold_is_neither_number_nor_words() -> None:
    assert verify(r"Answer: \frac{\sqrt{8}}{2}", r"\sqrt{2}")
    assert not verify(r"Answer: \sqrt{3}", r"\sqrt{2}")
    assert not verify("Answer: 2^5", "32")  # the number path does no sums


def test_dataset_scorer_is_right_only_at_full_score() -> None:
    entry = {"answer": "Emma is a hero, and Noah is a villain."}
    verifier, metadata = "reasoning_gym:knights_knaves", {"entry": entry}
    right = judge(
        "Answer: Noah is a villain and Emma is a hero", entry["answer"], verifier, metadata
    )
    assert right == Verdict(True, "Noah is a villain and Emma is a hero", "right")
    half = judge("Answer: Emma is a hero, and Noah is a hero.", entry["answer"], verifier, metadata)
    assert half.reason == "wrong value"
    none = judge("Emma is a hero, and Noah is a villain.", entry["answer"], verifier, metadata)
    assert none.reason == "no marker"


@pytest.mark.parametrize(
    ("answer", "right"), [("288", True), ("288 or 3", False), ("1,000", False)]
)
def test_dataset_scorer_gets_one_clean_number(answer: str, right: bool) -> None:
    metadata = {"entry": {"answer": "288"}}
    assert (
        judge(f"Answer: {answer}", "288", "reasoning_gym:gsm_symbolic", metadata).correct is right
    )


def test_dataset_scorer_needs_its_entry_and_its_data_set() -> None:
    with pytest.raises(ValueError, match=r"needs metadata\['entry'\].*load_task"):
        judge("Answer: 5", "5", "reasoning_gym:chain_sum")
    with pytest.raises(ValueError, match=r"no data set 'chain_sun'.*chain_sum"):
        judge("Answer: 5", "5", "reasoning_gym:chain_sun", {"entry": {"answer": "5"}})


@pytest.fixture
def own_verifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_verifiers.py").write_text(
        "def ends_well(text, gold):\n    return text.endswith(gold)\n"
        "def number(text, gold):\n    return 1.0\n"
        "def broken(text, gold):\n    raise KeyError('no such key')\n"
        "constant = 5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_verifiers"
    sys.modules.pop("own_verifiers", None)


def test_a_verifier_of_ones_own(own_verifiers: str) -> None:
    assert judge("it ends in 5", "5", f"{own_verifiers}:ends_well") == Verdict(True, None, "right")
    wrong = judge("Answer: 6", "5", f"{own_verifiers}:ends_well")
    assert wrong == Verdict(False, "6", "wrong value")
    broken = judge("Answer: 5", "5", f"{own_verifiers}:broken")
    assert broken.reason == "error: KeyError: 'no such key'"
    with pytest.raises(TypeError, match=r"returned 1\.0 \(float\).*bool\(\)"):
        judge("Answer: 5", "5", f"{own_verifiers}:number")


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ("atuo", "Unknown verifier 'atuo'.*auto, number, text, math"),
        ("own_verifiers:missing", "no function 'missing'"),
        ("own_verifiers:constant", "no function 'constant'"),
        ("no_such_module:f", "module 'no_such_module' cannot be imported"),
        (":f", "Unknown verifier"),
        ("", "Unknown verifier"),
    ],
)
def test_a_verifier_that_cannot_be_found(own_verifiers: str, verifier: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge("Answer: 5", "5", verifier)


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(TypeError, match="text is 5"):
        judge(5, "5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gold is empty"):
        judge("Answer: 5", " ")


def test_a_batch_and_its_reasons() -> None:
    warm_up()
    questions = [Question("1+1?", "2"), Question("1+1?", "2"), Question("x?", r"\sqrt{2}")] * 2
    texts = [
        "Answer: 2",
        "2",
        r"Answer: \sqrt{2}",
        "Answer: 3",
        "Answer: 2 or 3",
        "Answer: 9^{9^{9^9}}",
    ]
    verdicts = judge_all(texts, questions)
    assert [v.reason for v in verdicts] == [
        *("right", "no marker", "right", "wrong value", "several values", "timeout"),
    ]
    assert Counter(v.reason for v in verdicts)["right"] == 2
    with pytest.raises(ValueError, match="1 texts for 6 questions"):
        judge_all(["a"], questions)


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("8 - 3 = 5.", "5", True),
        ("8 - 3", "-3", False),  # a difference that was not worked out
        ("8-3", "3", True),
        ("0 - 5 = -5", "-5", True),
        ("The result is -5, not 5", "-5", False),
        ("It makes 1,200 in all.", "1200", True),
        ("No idea.", "0", False),
    ],
)
def test_the_last_number_counts_for_the_lenient_verifier(text, gold, right) -> None:
    assert last_number(text, gold) is right


def test_a_generator_takes_a_verifier_too() -> None:
    task = load_task("chain_sum?max_terms=2&verifier=lenient:last_number")
    asked = [*task.train_batch(1, 3, 0), *task.heldout(3)]
    assert {q.verifier for q in asked} == {"lenient:last_number"}
    (verdict,) = judge_all([f"It is {asked[0].gold}."], asked[:1])
    assert verdict.correct  # without the marker that the built-in verifier asks for
