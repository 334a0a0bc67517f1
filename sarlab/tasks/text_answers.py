"""Answers in words: yes and no, names, sentences, and the letters of options."""

import re
from collections.abc import Mapping

from sarlab.tasks.answer_line import TRUTH_WORDS, Refused, unwrap, words

_ARTICLES = words("a an the")
_LETTER = re.compile(r"(?:(?:option|choice|answer)\s+)?\(?([a-z])\)?[.):]?", re.IGNORECASE)
_LETTER_AND_TEXT = re.compile(r"\(?([a-z])\)?\s?[.):-]?\s+(.+)", re.IGNORECASE | re.DOTALL)
_LIST = re.compile(r"\s(?:or|and)\s|[,;/&]", re.IGNORECASE)
_LONG_WORD = re.compile(r"[^\W\d_]{3,}")
_NOT_WORDS = re.compile(r"[0-9\\^_{}=<>+*/|]")
_MATH_NAMES = words("sin cos tan cot sec csc log exp sqrt mod lim max min gcd lcm det")


def fold(text: str) -> str:
    """Words only: case, punctuation, articles and runs of white space folded away."""
    words_here = re.sub(r"[^\w\s]|_", " ", text.casefold()).split()
    return " ".join([word for word in words_here if word not in _ARTICLES] or words_here)


def option_letter(value: str) -> str | None:
    """``B`` for an unwrapped ``B``, ``(b)``, ``B.`` or ``Option B``; None for anything else."""
    match = _LETTER.fullmatch(value.strip())
    return match[1].upper() if match else None


def is_text(gold: str) -> bool:
    """Whether a gold answer is words (or the capital letter of an option), not mathematics."""
    value = unwrap(gold)
    if value.casefold() in TRUTH_WORDS or re.fullmatch(r"\(?[A-Z]\)?", value):
        return True
    words_here = [word.casefold() for word in _LONG_WORD.findall(value)]
    return bool(words_here) and not _NOT_WORDS.search(value) and _MATH_NAMES.isdisjoint(words_here)


def same_text(value: str, gold: str, choices: Mapping[str, str]) -> bool:
    """Whether an unwrapped value is the same words as gold; Refused where it names several.

    Where gold is the letter of an option, the letter may also be followed by that option's own
    text, or be replaced by it; this needs ``choices``, letter to text.
    """
    expected = unwrap(gold)
    letter = option_letter(expected)
    if letter is not None and (option_letter(value) == letter or _names(value, letter, choices)):
        return True
    if letter is None and fold(value) == fold(expected):
        return True
    several = _LIST.search(value) and not _LIST.search(expected)
    if several and len({fold(part) for part in _LIST.split(value) if fold(part)}) > 1:
        raise Refused("several values")
    return False


def _names(value: str, letter: str, choices: Mapping[str, str]) -> bool:
    """Whether a value spells out the option that a letter stands for, and no other letter."""
    if letter not in choices:
        return False
    match = _LETTER_AND_TEXT.fullmatch(value)
    if match and match[1].upper() == letter and fold(match[2]) == fold(choices[letter]):
        return True
    if re.match(r"\(?[a-z][.):]", value, re.IGNORECASE):  # another letter, whatever its text
        return False
    return [key for key, text in choices.items() if fold(text) == fold(value)] == [letter]
