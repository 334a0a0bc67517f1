"""Texts that nobody thought of: hypothesis over extraction, plain numbers and the verifier.

The search is the same on every run (derandomised) and short; for a long one there is
fuzz/fuzz_verify.py, with the same rules.
"""

from __future__ import annotations

import threading
from fractions import Fraction

import pytest
from fuzz_rules import GOLDS, check, check_number
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sarlab.tasks import judge, warm_up
from sarlab.tasks.answer_line import closing_brace, find_value, unwrap
from sarlab.tasks.plain_numbers import canonical, parse_number

SHORT = settings(
    derandomize=True,
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
# What answers are made of, so that the search meets the grammar and not only noise.
PIECES = st.sampled_from(
    [
        *("Answer:", "answer :", "**Answer:**", "<think>", "</think>", "\n", " ", "  ", "."),
        *("18", "-18", "1,000", "1,00", "0.5", ".5", "1/3", "1/0", r"\frac{1}{3}", r"\frac12"),
        *("yes", "no", "B", "(B)", "Emma", "and", "or", "not", "about", "eighteen", "dollars"),
        *("$", "$$", r"\(", r"\)", r"\boxed{", "{", "}", "**", "`", '"', r"\text{", r"\sqrt{2}"),
        *("^", "_", "=", "+", "x", "9**9**9", "1e999", "%", "°", "１８", "१८", "²", "\u202e", "\0"),
    ]
)
TEXTS = st.one_of(
    st.text(max_size=80),
    st.lists(PIECES, max_size=14).map("".join),
    st.lists(PIECES, max_size=10).map(lambda parts: "so\nAnswer: " + "".join(parts)),
)


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm_up()


@SHORT
@given(text=TEXTS, gold=st.sampled_from(GOLDS))
def test_every_text_gets_a_verdict_in_time(text: str, gold: str) -> None:
    check(text, gold)


@SHORT
@given(text=TEXTS)
def test_every_value_is_a_number_or_is_refused(text: str) -> None:
    check_number(unwrap(text))
    closing_brace(text, 0)


@SHORT
@given(number=st.fractions(), before=st.text(max_size=40), unit=st.sampled_from(["", " cm", "%"]))
def test_the_right_number_is_right_whatever_stands_before_it(
    number: Fraction, before: str, unit: str
) -> None:
    gold = canonical(number)
    if "<think>" in before.lower():
        return
    assert judge(f"{before}\nAnswer: {gold}{unit}", gold).correct
    assert not judge(f"{before}\nAnswer: {canonical(number + 1)}{unit}", gold).correct


@SHORT
@given(first=st.integers(-999, 999), second=st.integers(-999, 999), gap=TEXTS)
def test_of_two_answers_the_last_counts(first: int, second: int, gap: str) -> None:
    """Whatever stands between them, unless it opens a thought that is not closed."""
    text = f"Answer: {first}\n{gap}\nAnswer: {second}"
    found = find_value(text)
    if "<think>" in gap.lower():
        return
    assert found is not None and parse_number(found.value) == second
    assert judge(text, str(second)).correct
    assert judge(text, str(first)).correct == (first == second)


@settings(SHORT, max_examples=30)
@given(text=TEXTS, gold=st.sampled_from(GOLDS))
def test_another_thread_gets_the_same_verdict(text: str, gold: str) -> None:
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(judge(text, gold)))
    thread.start()
    thread.join(5)
    assert verdicts == [judge(text, gold)]
