"""What must hold for every text that is judged: for hypothesis and for atheris alike."""

from __future__ import annotations

import time

from sarlab.tasks import judge
from sarlab.tasks.answer_line import Refused, find_value, is_prose, nesting, unwrap
from sarlab.tasks.plain_numbers import canonical, parse_number
from sarlab.tasks.verify import Verdict

LIMIT_S = 1.0
GOLDS = ("18", "-0.5", "1/3", "yes", "B", "Emma and Liam", r"\frac{\sqrt{2}}{2}", "x^2+1", "(1,2)")
REASONS = {"right", "wrong value", "no marker", "no value", "several values", "too long", "timeout"}


def check(text: str, gold: str, limit_s: float = LIMIT_S) -> Verdict:
    """Judge a text, and see that the verdict is one of the known ones, in time and repeatable."""
    start = time.perf_counter()
    verdict = judge(text, gold)
    assert time.perf_counter() - start < limit_s
    assert verdict.correct == (verdict.reason == "right")
    assert verdict.reason in REASONS or verdict.reason.startswith("error: ")
    if verdict.reason != "timeout":
        assert judge(text, gold) == verdict
    found = find_value(text)
    if found is None:
        assert verdict == Verdict(False, None, "no marker")
        return verdict
    if verdict.correct:
        # Only one value can be right, and only where nothing after it names a second one.
        for line in found.rest:
            assert is_prose((line,)) or judge(f"Answer: {line.rpartition('=')[2]}", gold).correct
        assert not judge(f"{text}\nAnswer: none of these", gold).correct
        assert not judge(text.replace("nswer", "nsver").replace("NSWER", "NSVER"), gold).correct
    assert len(unwrap(found.value)) <= len(found.value)
    assert 0 <= nesting(found.value) <= len(found.value)
    check_number(found.value)
    return verdict


def check_number(value: str) -> None:
    """A value that is read as a number is read as the same number once it is written out."""
    reason = None
    try:
        number = parse_number(value)
    except Refused as error:
        reason = error.reason
    if reason is not None:
        assert reason in {"no value", "several values", "too long"}
        return
    assert any(c in "0123456789" for c in value)
    assert parse_number(canonical(number)) == number
