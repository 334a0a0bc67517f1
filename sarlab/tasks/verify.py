r"""The verifier: is the final answer of a text right?

The last `Answer:` outside a thought counts, with exactly one value after it. No marker, no value or
several values are wrong, each with its own reason, and whatever goes wrong in a comparison is a
reason too: no error becomes a silent 0. After the value's line there may follow prose that names no
value, and lines that come to the same value again, ``70 + 2 = 72`` (where gold is text: nothing).
Verifiers, by name:

- ``auto``, or ``math``: ``number`` where gold is a plain number, ``text`` where it is words, else
  math-verify in a process that is killed at the time limit; there floats match to 6 decimals.
- ``number``: exact comparison of plain numbers, see :mod:`sarlab.tasks.plain_numbers`. A unit is
  compared only where gold has one too. ``12+60`` and ``\sqrt{9}`` are no finished numbers.
- ``text``: the same words, or the letter or the text of the same option.
- ``reasoning_gym:<dataset>``: that data set's own ``score_answer`` on the value, with the entry in
  ``metadata["entry"]``; right only where the score is exactly 1.0, partial credit is wrong.
- ``module:function``: your own, called with (text, gold), returning True or False. It has no time
  limit and sees the whole text.
"""

import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from sarlab.tasks import math_judge
from sarlab.tasks.answer_line import (
    MAX_VALUE_CHARS,
    TRUTH_WORDS,
    AnswerLine,
    Refused,
    find_value,
    is_prose,
    nesting,
    unwrap,
    words,
)
from sarlab.tasks.generated import reasoning_gym_factory
from sarlab.tasks.plain_numbers import canonical, is_number, parse_number, parse_quantity
from sarlab.types import Question

MAX_NESTING = 40
_BUILT_IN = ("auto", "number", "text", "math")


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, the value that was read, and why.

    Reasons: "right", "wrong value", "no marker", "no value", "several values", "too long" (longer
    or nested deeper than any answer), "timeout", and "error: " with the exception.
    """

    correct: bool
    extracted: str | None
    reason: str


def verify(text: str, gold: str, verifier: str = "auto") -> bool:
    """Whether the final answer of a text is right. :func:`judge` also says why not."""
    return judge(text, gold, verifier).correct


def judge(
    text: str,
    gold: str,
    verifier: str = "auto",
    metadata: Mapping[str, Any] | None = None,
    *,
    in_thought: bool = False,
) -> Verdict:
    """Judge the final answer of a text against gold.

    ``in_thought`` says that the prompt ends with ``<think>``: the text is judged as if it began
    with it, so that a thought that is never closed holds no answer.
    ``metadata`` is that of the question: ``choices`` (letter to text) for ``text``, ``entry`` for
    ``reasoning_gym:...``. Nothing in the text makes this raise; a verifier that does not exist, a
    gold answer that the verifier cannot use, or a user's function that returns no bool does.
    """
    for name, argument in (("text", text), ("gold", gold), ("verifier", verifier)):
        if not isinstance(argument, str):
            raise TypeError(f"{name} is {argument!r}, expected a string.")
    if not gold.strip():
        raise ValueError("gold is empty; an answer can only be judged against something.")
    line = find_value(f"<think>{text}" if in_thought else text)
    try:
        if verifier in _BUILT_IN or verifier.startswith("reasoning_gym:"):
            correct = _is_right(line, gold, verifier, metadata or {})
        else:
            correct = _called(user_function(verifier), text, gold)
            if not isinstance(correct, bool):
                raise TypeError(
                    f"Verifier {verifier!r} returned {correct!r} ({type(correct).__name__}), "
                    "expected True or False. Wrap its result in bool()."
                )
        reason = "right" if correct else "wrong value"
    except Refused as refusal:
        reason = refusal.reason
    shown = line.value if line else None
    if shown and len(shown) > 200:
        shown = f"{shown[:199]}…"
    return Verdict(reason == "right", shown, reason)


def judge_all(
    texts: Sequence[str], questions: Sequence[Question], *, in_thought: bool = False
) -> list[Verdict]:
    """One verdict per text; ``questions[i]`` is the question that ``texts[i]`` answers."""
    if len(texts) != len(questions):
        raise ValueError(
            f"{len(texts)} texts for {len(questions)} questions. "
            "Give each answer its question, repeated for a group of answers."
        )
    return [
        judge(text, question.gold, question.verifier, question.metadata, in_thought=in_thought)
        for text, question in zip(texts, questions, strict=True)
    ]


def _refuse_if(condition: object, reason: str = "several values") -> None:
    if condition:
        raise Refused(reason)


def _is_right(
    line: AnswerLine | None, gold: str, verifier: str, metadata: Mapping[str, Any]
) -> bool:
    if line is None:
        raise Refused("no marker")
    _refuse_if(not line.value.strip(), "no value")
    _refuse_if(len(line.value) > MAX_VALUE_CHARS, "too long")
    expected, dataset = unwrap(gold), verifier.removeprefix("reasoning_gym:")
    number = is_number(expected)
    if dataset != verifier:
        return _full_score(line, number, dataset, metadata)
    if verifier == "number" and not number:
        raise ValueError(
            f"gold {gold!r} is no plain number, but the verifier is 'number'. Use 'auto' or 'text'."
        )
    if verifier == "text" or (verifier != "number" and _is_text(expected)):
        _refuse_if(line.rest)
        choices = metadata.get("choices")
        return _same_text(line.value, expected, choices if isinstance(choices, Mapping) else {})
    if number:
        return _same_number(line, expected)
    value = "".join(line.value.split())
    _refuse_if(not is_prose([rest for rest in line.rest if "".join(unwrap(rest).split()) != value]))
    return _same_mathematics(line.value, expected)


# --- numbers --------------------------------------------------------------------------------------

_ASSIGNMENT = re.compile(r"\s*([A-Za-z]\w{0,8}(?:\([^()=]{0,20}\))?)\s*=([^=]+)", re.ASCII)
_DERIVATION = re.compile(r"(?:[A-Za-z]+:)?[\s0-9.,$€£%()+*/×÷·=-]*[+*/×÷·-][^=]*=([^=]+)", re.ASCII)


def _same_number(line: AnswerLine, expected: str) -> bool:
    assigned, gold_assigned = (_ASSIGNMENT.fullmatch(value) for value in (line.value, expected))
    value = assigned[2].strip() if assigned else line.value
    number, unit = parse_quantity(value, sentence=True)
    gold, gold_unit = parse_quantity(expected)
    _refuse_if(not is_prose([rest for rest in line.rest if not _comes_to(rest, number)]))
    other_name = assigned and gold_assigned and assigned[1] != gold_assigned[1]
    other_unit = unit and gold_unit and unit != gold_unit
    return number == gold and not other_name and not other_unit


def _comes_to(line: str, number: Fraction) -> bool:
    """Whether a line repeats a number: alone, in a sentence, or as the end of a calculation."""
    value = unwrap(line)
    derivation = _DERIVATION.fullmatch(value)
    try:
        return number == parse_number(unwrap(derivation[1] if derivation else value), sentence=True)
    except Refused:
        return False


# --- words: yes and no, names, sentences, and the letters of options ------------------------------

_LETTER = re.compile(r"(?:(?:option|choice|answer)\s+)?\(?([a-z])\)?[.):]?", re.IGNORECASE)
_LETTER_AND_TEXT = re.compile(r"\(?([a-z])\)?\s?[.):-]?\s+(.+)", re.IGNORECASE | re.DOTALL)
_LIST = re.compile(r"\s(?:or|and)\s|[,;/&]", re.IGNORECASE)
_LONG_WORD = re.compile(r"[^\W\d_]{3,}")
_NOT_WORDS = re.compile(r"[0-9\\^_{}=<>+*/|]")
_MATH_NAMES = words("sin cos tan cot sec csc log exp sqrt mod lim max min gcd lcm det")


def _is_text(expected: str) -> bool:
    """Whether a gold answer is words (or the capital letter of an option), not mathematics."""
    if expected.casefold() in TRUTH_WORDS or re.fullmatch(r"\(?[A-Z]\)?", expected):
        return True
    long = {word.casefold() for word in _LONG_WORD.findall(expected)}
    return bool(long) and not _NOT_WORDS.search(expected) and not long & _MATH_NAMES


def _fold(text: str) -> str:
    """Words only: case, punctuation, articles and runs of white space folded away."""
    every = re.sub(r"[^\w\s]|_", " ", text.casefold()).split()
    return " ".join([word for word in every if word not in ("a", "an", "the")] or every)


def _same_text(value: str, expected: str, choices: Mapping[str, str]) -> bool:
    """Whether two unwrapped values are the same words; Refused where the first names several.

    Where gold is the letter of an option, the letter may also be followed by that option's own
    text, or be replaced by it; this needs ``choices``, letter to text.
    """
    letter, given = (_LETTER.fullmatch(text.strip()) for text in (expected, value))
    if letter is None and _fold(value) == _fold(expected):
        return True
    if letter and given and letter[1].upper() == given[1].upper():
        return True
    if letter and letter[1].upper() in choices:
        right = letter[1].upper()
        both = _LETTER_AND_TEXT.fullmatch(value)
        if both and both[1].upper() == right and _fold(both[2]) == _fold(choices[right]):
            return True
        # The option's text alone, behind no other letter and no other option's as well.
        alone = [key for key, text in choices.items() if _fold(text) == _fold(value)] == [right]
        if alone and not re.match(r"\(?[a-z][.):]", value, re.IGNORECASE):
            return True
    several = _LIST.search(value) and not _LIST.search(expected)
    _refuse_if(several and len({_fold(part) for part in _LIST.split(value)} - {""}) > 1)
    return False


# --- mathematics: what math-verify would be too lenient with, and then math-verify ----------------

_EQUALS = re.compile(r"(?<![<>!:])=")
_WORD_BETWEEN = re.compile(r"(?<![A-Za-z\\])(?:or|and)(?![A-Za-z])|\\(?:lor|land|vee|wedge)\b")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", re.ASCII)
# math-verify takes one of the two sides, or ignores what stands between them.
_RELATION = re.compile(
    r"\\(?:approx|equiv|cong|sim|simeq|doteq|propto|[bp]?mod|to|rightarrow|Rightarrow|iff|implies)"
    r"(?![A-Za-z])|[≈≡≅∼→⇒]"
)
_DIGITS_APART = re.compile(r"[0-9](?:\s|~|\\[ ,;:]|\\q?quad|\\text\{\s*\}|\{\s*\})+[0-9]", re.ASCII)
_BASE = re.compile(r"(?<=[0-9])_\{?([0-9]+)\}?", re.ASCII)
_BARE = (  # names and fractions that are no LaTeX yet: 2pi, sqrt(2), \frac 1 2
    (re.compile(r"\\[dt]?frac\s*([0-9])\s+([0-9])(?![0-9])", re.ASCII), r"\\frac{\1}{\2}"),
    (re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])|π"), r"\\pi "),
    (re.compile(r"(?<![A-Za-z\\])sqrt\(([^()]*)\)"), r"\\sqrt{\1}"),
)


def _same_mathematics(value: str, expected: str) -> bool:
    for pattern, latex in _BARE:
        value, expected = pattern.sub(latex, value), pattern.sub(latex, expected)
    _refuse_if(_DIGITS_APART.search(value) and not _DIGITS_APART.search(expected))
    if "".join(value.split()) == "".join(expected.split()):
        return True
    _refuse_if(nesting(value) > MAX_NESTING or len(value) > 4 * len(expected) + 200, "too long")
    parts, expected_parts = _listed(value), _listed(expected)
    _refuse_if(len(parts) > 1 and len(expected_parts) == 1)
    _refuse_if(_RELATION.search(value) and not _RELATION.search(expected))
    if len(expected_parts) > 1 and len(parts) > 1 and len(parts) != len(expected_parts):
        return False
    bases, expected_bases = _BASE.findall(value), _BASE.findall(expected)
    if bases and expected_bases and bases != expected_bases:
        return False
    if _EQUALS.search(value):
        assigned = [_ASSIGNMENT.fullmatch(part) for part in parts]
        names = {match[1] for match in assigned if match}
        if _EQUALS.search(expected):
            gold_assigned = _ASSIGNMENT.fullmatch(expected)
            if gold_assigned and names and names != {gold_assigned[1]}:
                return False
        else:  # 3 = 5, or a chain of which any end might be meant
            _refuse_if(None in assigned or len(names) > 1)
            value = ", ".join(match[2].strip() for match in assigned if match)
    _refuse_if("$" in value.replace("\\$", ""))  # two formulas, or prose around one
    outcome = math_judge.compare(expected, value)
    _refuse_if(outcome not in ("right", "wrong value"), outcome)
    return outcome == "right"


def _listed(value: str) -> list[str]:
    """The parts of a value at its top level, or of the one set that it is."""
    value = _THOUSANDS.sub("", value.strip())
    inner = re.fullmatch(r"\\\{(.*)\\\}", value, re.DOTALL)
    value = _WORD_BETWEEN.sub(",", inner[1] if inner else value)
    parts, depth = [""], 0
    for char in value:
        depth += (char in "([{") - (char in ")]}")
        if char in ",;" and depth <= 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


# --- verifiers of others --------------------------------------------------------------------------


def _full_score(line: AnswerLine, number: bool, dataset: str, metadata: Mapping[str, Any]) -> bool:
    score_answer, entry = _dataset_scorer(dataset), metadata.get("entry")
    if not isinstance(entry, Mapping) or "answer" not in entry:
        raise ValueError(
            f"Verifier 'reasoning_gym:{dataset}' needs metadata['entry'] with an 'answer', got "
            f"{entry!r}. Load the question by load_task, or use 'auto'."
        )
    _refuse_if(line.rest)
    # Some of the scorers read "288 or 3" as 288, and "1,000" as 1: they get one clean number.
    value = canonical(parse_number(line.value, sentence=True)) if number else line.value
    return _called(score_answer, value, dict(entry)) == 1.0


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # counted and shown; it must not end a run
        raise Refused(f"error: {type(error).__name__}: {str(error)[:200]}") from error


@lru_cache
def _dataset_scorer(dataset: str) -> Callable[[str, dict[str, Any]], float]:
    factory = reasoning_gym_factory()
    if dataset not in factory.DATASETS:
        raise ValueError(
            f"reasoning-gym has no data set {dataset!r} to score answers. It has: "
            f"{', '.join(sorted(factory.DATASETS))}."
        )
    return factory.get_score_answer_fn(dataset)


@lru_cache
def user_function(verifier: str) -> Callable[[str, str], bool]:
    """The function that ``module:function`` names; ValueError where there is none."""
    module, _, name = verifier.partition(":")
    if not (module and name):
        raise ValueError(
            f"Unknown verifier {verifier!r}. Known: {', '.join(_BUILT_IN)}, "
            "reasoning_gym:<dataset>, or module:function for one of your own."
        )
    try:
        function = pkgutil.resolve_name(verifier)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"Verifier {verifier!r}: module {module!r} cannot be imported ({error}). "
            "Put its folder on the Python path, or install it."
        ) from error
    except AttributeError:
        function = None
    if not callable(function):
        raise ValueError(
            f"Verifier {verifier!r}: {module!r} has no function {name!r}. "
            "Define it there as a function of (text, gold) that returns True or False."
        )
    return function
