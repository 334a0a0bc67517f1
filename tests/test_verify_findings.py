"""Values that were once misjudged, one verdict on both names, and no string right for two golds."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator

import pytest

from sarlab.tasks import judge, judge_all, opens_thought, verify, warm_up
from sarlab.types import Question

SAME_ON_BOTH = ("auto", "math")

HONEST = [
    *(
        ("160", "160 square feet"),
        ("160", "160 sq. ft."),
        ("7200", "7200/year"),
        ("30", "$30/hour"),
    ),
    *(("54", "54$"), ("54", r"54\$"), ("2500", "2500£"), ("46", "46 hours left over")),
    *(("15", "15 more than Tommy"), ("30", "30 years old then"), ("20", "20 pounds over")),
    *(("70", "$70 for three days"), ("9", "9 a.m."), ("2", "$2/kg"), ("980", "980cm³")),
    *(("-5", "(-5)"), ("-5", "–5"), ("-5", "x = –5"), ("5", "(5)"), ("-5", r"\boxed{-5}")),
    *(("3/2", "1 1/2"), ("1.5", "1 1/2 cups"), ("1.5", r"1\frac{1}{2}"), ("3/2", r"1\frac12")),
    *(("-1.5", "-1 1/2"), ("1000", "10^3"), ("1000", r"10^{3} \text{ cm}"), ("0.01", "10^{-2}")),
    *(("1200", r"1.2 \times 10^3"), ("1200", "1.2*10^3"), ("1200", "1.2 × 10^{3}")),
    *(("72", "72\nThe answer is 72."), ("72", "72\nExplanation: 70 + 2 = 72")),
    *(("72", "72\n72"), ("72", "$72\n\n$$70 + 2 = 72$$"), ("x+1", "x+1\n$x+1$")),
    *((r"2\pi", "2pi"), (r"\frac{\pi}{2}", "pi/2"), ("1,2", "x=1, x=2"), ("1,2", "x=1 or x=2")),
    *((r"\frac{1}{2}", r"\frac 1 2"), (r"\sqrt{3}", "sqrt(3)")),
    *(
        ("5 minutes", "5 min"),
        ("5 minutes", "5"),
        (r"12\text{ cm}", "12 cm"),
        ("$18", "18 dollars"),
    ),
]

DISHONEST = [
    *(("72", "7 2"), ("100", "1 0 0"), ("67", r"6\text{ }7"), ("6", r"6 \approx 7")),
    *(("6", r"6 \equiv 7"), ("7", r"6 \equiv 7"), ("6", r"6 \mod 7"), ("6", r"6\bmod 7")),
    *(("1011_2", "1011_3"), ("1011_2", "1011_{3}"), ("1,2", "1,1,2"), (r"\{1,2\}", r"\{1,1,2\}")),
    *((r"12\text{ cm}", r"12\text{ m}"), ("x=3", "y=3"), ("y=2x+1", "z=2x+1"), ("$5", "5 cents")),
    *((r"\sqrt{2}", r"\sqrt{2} \approx \sqrt{3}"), (r"\sqrt{72}", r"\sqrt{7 2}")),
    *(("5 minutes", "5 hours"), ("3", "3 5/2"), ("5.5", "3 5/2"), ("18", "18 square")),
    *(("18", "18 over two"), ("18", "18 in one million"), ("36", "18 square root"), ("16", "2^4")),
    *(("72", "72\n70 + 2 = 73"), ("72", "72\nThe answer is 73."), ("72", "72\n73 or 70 + 2 = 72")),
    *(("72", "72\n73"), ("x+1", "x+1\nx+2"), ("5", "(5"), ("5", "5)"), ("-5", "--5")),
    *(("3", r"\sqrt{9}"), ("18", "18 x 10"), ("18", "18–19"), ("1", r"1\frac{0}{0}")),
]


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm_up()


@pytest.mark.parametrize("verifier", SAME_ON_BOTH)
@pytest.mark.parametrize(("gold", "answer"), HONEST)
def test_an_honest_writing_is_right(gold: str, answer: str, verifier: str) -> None:
    assert judge(f"so\nAnswer: {answer}", gold, verifier).reason == "right"


@pytest.mark.parametrize("verifier", SAME_ON_BOTH)
@pytest.mark.parametrize(("gold", "answer"), DISHONEST)
def test_a_value_that_no_one_would_accept_is_refused(gold: str, answer: str, verifier: str) -> None:
    assert judge(f"so\nAnswer: {answer}", gold, verifier).reason in {
        *("wrong value", "several values", "no value"),
    }


CONNECTORS = [
    *("", " ", ",", ", ", ";", " or ", " and ", "/", " / ", "|", " | ", ":", "-", "–", " to ", "="),
    *(" = ", "+", " + ", "*", "^", "_", "\n", "\n\n", r"\n", "\t", " vs ", " versus ", ".", "..."),
    *(
        r" \approx ",
        r" \equiv ",
        r" \mod ",
        r" \pmod ",
        r" \sim ",
        r" \to ",
        r" \times ",
        r"\cdot ",
    ),
    *(r" \lor ", r" \land ", r" \vee ", r" \wedge ", r" \cup ", r" \cap ", r" \in ", r" \pm "),
    *(r"\quad ", r"\ ", r"\,", r"\;", r"\text{ or }", r"\text{ }", r" \\ ", "&", " & ", "~", "{}"),
    *(r" \le ", r" \neq ", " < ", " > ", " != ", " == ", " => ", "→", " ≈ ", " ≡ ", "±"),
    *(
        "$ $",
        "$, $",
        "$ or $",
        "} or {",
        r"} \boxed{",
        "** **",
        "(",
        ")(",
        "][",
        "%",
        "!",
        "?",
        "#",
    ),
    *(" (or ", " not ", " then ", " over ", " of ", " per ", " square ", " more than ", " x ", "e"),
    *(
        "\nAnswer ",
        "\nThe answer is ",
        "\nSo = ",
        "\n1 + 1 = ",
        "\nor ",
        " times 10^",
        " 10^",
        "\x00",
    ),
]
WRAPPERS = [
    "{}",
    r"\boxed{{{}}}",
    "${}$",
    "({})",
    r"\{{{}\}}",
    "[{}]",
    "**{}**",
    "x = {}",
    "It is {}",
]
NUMBERS = ["6", "7", "67", "72", "1/2", "3/2", "-5", "10", "1000", "0.5", "6.7", "7 apples"]
MATHEMATICS = [
    *((r"\sqrt{2}", r"\pi"), ("1,2", r"\sqrt{2}"), ("x+1", "1,2"), ("1011_2", "x+1")),
    *(("6", r"\sqrt{2}"), (r"\pi", "72"), ("x<3", "6"), ("yes", "no"), ("B", "C")),
]


# The whole search takes some minutes (126,000 texts between numbers); the suite takes every tenth.
STRIDE = 1 if os.environ.get("SARLAB_FULL_SEARCH") else 10


def texts_between(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Two values joined by each connector, in each wrapper."""
    every = itertools.product(pairs, CONNECTORS, WRAPPERS)
    for pair, connector, wrapper in itertools.islice(every, 0, None, STRIDE):
        yield f"Answer: {wrapper.format(connector.join(pair))}", pair


def test_no_string_is_right_for_two_numbers() -> None:
    golds = [gold for gold in NUMBERS if gold not in ("0.5", "7 apples")]  # these equal 1/2 and 7
    for text, _ in texts_between(itertools.permutations(NUMBERS, 2)):
        assert sum(verify(text, gold) for gold in golds) <= 1, text


def test_no_string_is_right_for_two_pieces_of_mathematics() -> None:
    for text, golds in texts_between(MATHEMATICS):
        assert not all(verify(text, gold) for gold in golds), text


def test_a_thought_that_the_template_opened_is_a_thought() -> None:
    unfinished = "Let me guess. Answer: 72\nHmm, but wait, maybe it is"
    assert judge(unfinished, "72").correct
    assert judge(unfinished, "72", in_thought=True).reason == "no marker"
    assert judge(f"{unfinished} 71.</think>\nAnswer: 72", "72", in_thought=True).correct
    assert not judge("Answer: 72</think> so it is 71", "72", in_thought=True).correct
    question = Question("70 + 2?", "72")
    (verdict,) = judge_all([unfinished], [question], in_thought=True)
    assert verdict.reason == "no marker"


@pytest.mark.parametrize(
    ("prompt", "inside"),
    [
        ("<|User|>1 + 1?<|Assistant|><think>\n", True),
        ("<|im_start|>assistant\n<think>\n\n", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("<|im_start|>assistant\n", False),
        ("", False),
    ],
)
def test_a_prompt_that_ends_inside_a_thought(prompt: str, inside: bool) -> None:
    assert opens_thought(prompt) is inside
