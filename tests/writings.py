"""How an answer can be written: right ones to accept, wrong and malformed ones to refuse.

Each function yields (kind, what stands after "Answer:") for one gold number. Used by the test over
every row of GSM8K and by scripts/verifier_table.py, which counts the kinds for the documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sarlab.tasks.answer_line import Refused
from sarlab.tasks.plain_numbers import canonical, parse_number

_DEVANAGARI = {48 + n: 0x0966 + n for n in range(10)}


def right_writings(gold: str) -> Iterator[tuple[str, str]]:
    """The gold number in other writings."""
    number = parse_number(gold)
    digits = canonical(number)
    whole = number.denominator == 1
    grouped = f"{int(number):,}" if whole else digits
    top, bottom = 2 * number.numerator, 2 * number.denominator
    yield "as in the file", gold
    yield "plain digits", digits
    yield "grouped: 1,000", grouped
    yield "dollars: $1,000", f"${grouped}"
    yield "dollars and cents: $18.00", f"${digits}.00" if whole else digits
    yield "trailing zero: 18.0", f"{digits}.0" if whole else f"{digits}0"
    yield "full stop: 18.", f"{digits}."
    yield "unit: 18 apples", f"{digits} apples"
    yield "unit: 1,000 dollars", f"{grouped} dollars"
    yield "per cent: 18%", f"{digits}%"
    yield "bold: **18**", f"**{digits}**"
    yield r"boxed: \boxed{18}", rf"\boxed{{{digits}}}"
    yield "LaTeX: $18$", f"${digits}$"
    yield r"LaTeX, boxed, grouped: $\boxed{1,000}$", rf"$\boxed{{{grouped}}}$"
    yield "fraction: 36/2", f"{top}/{bottom}"
    yield r"LaTeX fraction: \frac{36}{2}", rf"\frac{{{top}}}{{{bottom}}}"
    yield "on the next line", f"\n{digits}"
    yield "equation: x = 18", f"x = {digits}"
    yield "sentence: The answer is 18.", f"The answer is {digits}."
    yield "unit: 18 square feet", f"{digits} square feet"
    yield "rate: 18/hour", f"{digits}/hour"
    yield "currency at the end: 18$", f"{digits}$"
    yield "remainder: 18 cents left over", f"{digits} cents left over"
    yield "in brackets: (18)", f"({digits})"
    yield r"power of ten: 1.8 \times 10^1", rf"{canonical(number / 10)} \times 10^1"
    yield "said again: 18, The answer is 18.", f"{digits}\nThe answer is {digits}."
    yield "derived again: 18, 9 + 9 = 18", f"{digits}\n1 + {canonical(number - 1)} = {digits}"


def wrong_writings(gold: str) -> Iterator[tuple[str, str]]:
    """Other numbers, several answers, and texts that hold the gold number but are no answer."""
    number = parse_number(gold)
    digits = canonical(number)
    above, below = canonical(number + 1), canonical(number - 1)
    yield "gold + 1", above
    yield "gold + 1, dollars", f"${above}"
    yield "gold + 1, boxed", rf"\boxed{{{above}}}"
    yield "gold − 1", below
    yield "gold − 1, dollars", f"${below}"
    yield "gold − 1, boxed", rf"\boxed{{{below}}}"
    yield "two answers: 18 or 19", f"{digits} or {above}"
    yield "two answers: 18, 19", f"{digits}, {above}"
    yield "two answers: 18 and 187", f"{digits} and {digits}7"
    yield "two answers on two lines", f"{digits}\n{below}"
    yield "two answers: 18, 1 + 18 = 19", f"{digits}\n1 + {digits} = {above}"
    yield r"two answers: 18 \approx 19", rf"{digits} \approx {above}"
    yield r"two answers: 19 \equiv 18", rf"{above} \equiv {digits}"
    yield "a remainder not worked out: 18 mod 19", rf"{digits} \mod {above}"
    yield "digits apart: 1 18", f"1 {digits}"
    yield "another power: 18 x 10^2", rf"{digits} \times 10^2" if number else "1"
    yield "a mixed number: 18 1/2", f"{digits} 1/2"
    yield "nothing", ""
    yield "a question mark", "?"
    yield "a full stop", "."
    yield "a word: many", "many"
    yield "comma at the end: 18,", f"{digits},"
    yield "decimal comma: 18,5", f"{digits},5"
    yield "letter at the end: 18x", f"{digits}x"
    yield "unfinished sum: 18 + 0", f"{digits} + 0"
    yield "unfinished sum: 0 + 18", f"0 + {digits}"
    yield "two signs: --18", f"--{digits}"
    yield "scale: 18 million", f"{digits} million"
    yield "scale: 18 k", f"{digits} k"
    yield "hedged: about 18", f"about {digits}"
    yield "denied: not 18", f"not {digits}"
    yield "factorial: 18!", f"{digits}!"
    yield "open bracket: (18", f"({digits}"
    yield "division by zero: 18/0", f"{digits}/0"
    yield r"division by zero: \frac{18}{0}", rf"\frac{{{digits}}}{{0}}"
    yield r"open brace: \boxed{18", rf"\boxed{{{digits}"
    yield "huge exponent: 18e999999", f"{digits}e999999"
    yield "two full stops: 18..", f"{digits}.."
    yield "range: 18-18", f"{digits}-{digits}"
    yield "markup: <think>18</think>", f"<think>{digits}</think>"
    yield "digits of another script", digits.translate(_DEVANAGARI)
    yield "power: 18²", f"{digits}²"
    yield "false equation: 18 = 0", f"{digits} = 0"


def authors_ending(solution: str, gold: str) -> str | None:
    """The last number of a GSM8K solution with its unit of at most three words, as it was written.

    None where the last line ends otherwise, or in another number than gold.
    """
    last = re.sub(r"<<[^<>]*>>", "", solution.strip().splitlines()[-1])
    match = re.search(r"(?:=|^|\s)\s*(-?\$?-?[\d.,]*\d)([^\d=]*)$", last)
    unit = match[2].rstrip('. "?') if match else ""
    if match is None or len(re.findall(r"[^\s/]+", unit)) > 3:
        return None
    try:
        same = parse_number(match[1].rstrip(".,")) == parse_number(gold)
    except Refused:
        return None
    return match[1] + unit if same else None


def intermediate_values(solution: str, gold: str) -> Iterator[str]:
    """Values that a GSM8K solution computes on the way (its <<calc=value>> marks), not the gold."""
    for value in re.findall(r"<<[^<>]*=([^<>=]+)>>", solution):
        try:
            if parse_number(value) != parse_number(gold):
                yield value
        except Refused:
            yield value
