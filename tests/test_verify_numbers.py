"""The number path of the verifier: what is accepted, what is refused, and that it is exact."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarlab.tasks import judge, verify
from sarlab.tasks.answer_line import Refused
from sarlab.tasks.plain_numbers import canonical, is_number, parse_number

ACCEPTED_AS_18 = [
    *("18", "18.", " 18 ", "+18", "018", "18.0", "18.00", "$18", "$18.00", "€18", "18%", "18 %"),
    *("36/2", "36 / 2", r"\frac{36}{2}", r"\dfrac{36}{2}", r"\tfrac{36}{2}"),
    *(r"\boxed{18}", r"$\boxed{18}$", r"\boxed{\$18}", r"\(18\)", r"\[18\]", "$18$", "$$18$$"),
    *("**18**", "*18*", "`18`", '"18"', "'18'", "__18__", r"\textbf{18}", r"\text{18}", r"\$18"),
    *("18 dollars", "18 apples.", "18 km/h", "18 cm^2", "18 cm²", "18cm", "18dollars", "18 (eggs)"),
    *(r"18\text{ dollars}", r"18\ \text{cm}", r"18\,\mathrm{km}", r"\boxed{18} dollars", "18 in."),
    *(r"18^\circ", r"18^{\circ}", "18°", r"18\%", "1.8e1", "180e-1", "x = 18", "= 18", "x=18"),
    *("The answer is 18", "The answer is: 18.", "She makes $18 every day at the farmers' market."),
    *("Janet has 18 eggs in all", "18 miles per hour", "18 of them", "\u200b18", "18\u00a0eggs"),
]
REFUSED_FOR_18 = [
    # another value
    *("19", "17", "-18", "−18", "$-18", "18.01", "1.8", "180", "81", "18e1", "0", "1/18", "18/2"),
    # several values
    *(
        "18 or 19",
        "18 and 19",
        "18, 19",
        "18 19",
        "17-18",
        "18–19",
        "17 to 18",
        "18/19/20",
        "18:00",
    ),
    *("9+9", "9 + 9 = 18", "2*9", "18 = 18", r"\boxed{18}\boxed{19}", "$18$ $19$", "18 1/2", "1 8"),
    *(r"9 \times 2", "18 dollars 19 cents", "between 17 and 19", "18(19)", "18|19", "18\n19"),
    *("18\nno, nineteen is right", "18\nno", "18\nActually it is 19", "18\nx = 4", "18\nyes"),
    # malformed
    *(
        "1,8",
        "1,80,0",
        "18,",
        "18,,0",
        "1.8.0",
        "--18",
        "+-18",
        "18-",
        "/18",
        "18/",
        "18/0",
        ".",
        "-",
    ),
    *(
        r"\frac{18}{0}",
        r"\frac{18}",
        r"\frac{18}{}",
        r"\boxed{}",
        r"\boxed{18",
        "18}",
        "{18",
        "(18",
    ),
    *("18x", "18xy", "2xy", "x", "18k", "18 k", "18M", "18 million", "18 thousand", "18 dozen"),
    *("half of 36", "a third of 54", "eighteen", "Eighteen eggs", "about 18", "~18", "≈18", "<18"),
    *("18+", ">18", "18!", "√324", "18²", "3²+9", "18^2", "18th", "not 18", "18 is wrong", "18?"),
    *("more than 18", "at least 18", "maybe 18", "minus 18", "negative 18", "twice 18", "18 or so"),
    *("0x12", "0b10010", "1_8", "18L", "18e", "18e999999999", "1e9999", "nan", "inf", "NaN", "∞"),
    *("１８", "१८", "١٨", "①⑧", "¹⁸", "Ⅻ", "十八", "\u202e81", "1\u200b8"),
    *("", " ", "\n", ".", "**", "$$", "$", r"\boxed{}", "N/A", "None", "<think> 18", "18 <eos>"),
    *("18;", "18 # no", "'; DROP TABLE --18", "__import__('os')", "{{18}}x", "ANSWER", "?", "18\\"),
]


@pytest.mark.parametrize("writing", ACCEPTED_AS_18)
def test_accepted_writings_of_18(writing: str) -> None:
    verdict = judge(f"She makes 9 * 2.\nAnswer: {writing}", "18")
    assert verdict.reason == "right", verdict
    assert verdict.correct
    assert not verify(f"She makes 9 * 2.\nAnswer: {writing}", "19")


@pytest.mark.parametrize("writing", REFUSED_FOR_18)
def test_refused_for_18(writing: str) -> None:
    verdict = judge(f"She makes 18 dollars.\nAnswer: {writing}", "18")
    assert not verdict.correct
    assert verdict.reason in {"wrong value", "no value", "several values", "too long"}


@pytest.mark.parametrize(
    ("writing", "reason"),
    [
        ("19", "wrong value"),
        ("", "no value"),
        ("eighteen", "no value"),
        ("3 or 4", "several values"),
        ("3 and 4", "several values"),
        ("3, 4", "several values"),
        ("3\n4", "several values"),
        ("9" * 401, "too long"),
        ("9" * 1_000_000, "too long"),
        ("1e101", "too long"),
    ],
)
def test_reasons(writing: str, reason: str) -> None:
    assert judge(f"Answer: {writing}", "18").reason == reason


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("1,000", Fraction(1000)),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("-3", Fraction(-3)),
        ("-$5", Fraction(-5)),
        (".5", Fraction(1, 2)),
        ("1/3", Fraction(1, 3)),
        (r"-\frac{3}{4}", Fraction(-3, 4)),
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        (r"\frac12", Fraction(1, 2)),
        ("1{,}000", Fraction(1000)),
        (r"1,\!000", Fraction(1000)),
        ("50%", Fraction(50)),
        ("2.5e-3", Fraction(1, 400)),
        ("1" + "0" * 399, Fraction(10) ** 399),
    ],
)
def test_values_worked_by_hand(value: str, number: Fraction) -> None:
    assert parse_number(value) == number


def test_a_third_is_not_its_decimals() -> None:
    assert verify("Answer: 1/3", "1/3")
    assert verify(r"Answer: \frac{2}{6}", "1/3")
    assert not verify("Answer: 0.3333333333", "1/3")


def test_a_gold_answer_is_no_sentence() -> None:
    with pytest.raises(Refused):
        parse_number("Room 12")
    assert parse_number("Room 12", sentence=True) == 12
    assert not is_number("Room 12")
    assert is_number("12 rooms")


def test_number_verifier_refuses_other_gold() -> None:
    with pytest.raises(ValueError, match=r"'x\+1' is no plain number.*'auto'"):
        judge("Answer: 2", "x+1", "number")


numbers = st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**4)


@settings(max_examples=60, deadline=None)
@given(numbers)
def test_canonical_writing_is_read_back(number: Fraction) -> None:
    assert parse_number(canonical(number)) == number


@settings(max_examples=60, deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_only_equal_integers_are_right(answer: int, gold: int) -> None:
    assert verify(f"Answer: {answer}", str(gold)) == (answer == gold)
    assert verify(f"Answer: {answer:,}", str(answer))
    assert verify(f"Answer: ${answer:,}.00", f"{answer:,}")


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["18", "1/3", "-2.5"]))
def test_no_text_raises_and_none_is_right_without_the_number(tail: str, gold: str) -> None:
    verdict = judge(f"so\nAnswer: {tail}", gold)
    if verdict.correct:
        assert any(char.isdigit() for char in tail)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="0123456789.,/+-eE$% \\{}fracboxed\n*x=", max_size=40))
def test_number_like_noise_is_judged(tail: str) -> None:
    assert judge(f"Answer: {tail}", "18").reason in {
        *("right", "wrong value", "no value", "several values", "too long", "no marker"),
    }
