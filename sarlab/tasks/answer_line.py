"""Find the answer in a text: the last `Answer:` and the one value that must follow it.

The text is written by a policy that is paid to please the verifier, so everything here is linear
in the length of the text, bounded, and never executed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

MAX_VALUE_CHARS = 1000  # a longer value is refused unread: no gold answer comes near it
MAX_REST_CHARS = 2000  # longer text after the value is never taken for closing prose
_NEAR_CHARS = 2 * (MAX_VALUE_CHARS + MAX_REST_CHARS)

_MARKER = re.compile(
    r"(?<![a-z])answer(?:\*\*|__)?[ \t]{0,8}:(?:\*\*|__)?", re.IGNORECASE | re.ASCII
)
_THINK_OPEN = re.compile(r"<think>", re.IGNORECASE | re.ASCII)
_THINK_CLOSE = re.compile(r"</think>", re.IGNORECASE | re.ASCII)

# Lines that carry nothing but an opened or closed display, fence or emphasis.
_DECORATION = frozenset({"$$", "\\[", "\\]", "```", "**", "__", "\\)", "\\("})
# Wrappers that say nothing about the value: (opening, closing), the longest first.
_PAIRS = (
    *(("**", "**"), ("__", "__"), ("$$", "$$"), ("\\(", "\\)"), ("\\[", "\\]")),
    *(("$", "$"), ("`", "`"), ('"', '"'), ("\u201c", "\u201d"), ("'", "'"), ("*", "*")),
)
_COMMAND = re.compile(r"\\(?:boxed|fbox|mbox|text(?:bf|it|rm)?|math(?:rm|bf)|displaystyle)\{")


def words(text: str) -> frozenset[str]:
    """The words of a text as a set: tables of words stay readable."""
    return frozenset(text.split())


NUMBER_WORDS = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty "
    "ninety hundred thousand million billion trillion dozen half third quarter"
)
TRUTH_WORDS = words("yes no true false")
_VALUE_WORDS = NUMBER_WORDS | TRUTH_WORDS
_WORD = re.compile(r"[^\W\d_]+")
_VALUE_SIGNS = frozenset("\\$=^_{}<>|+*/")


class Refused(ValueError):
    """A value that is not judged right or wrong; ``reason`` is one of the verdict's reasons."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class AnswerLine:
    """What follows the last marker: the unwrapped value, and the lines after its own."""

    value: str
    rest: tuple[str, ...]


def opens_thought(prompt: str) -> bool:
    """Whether a rendered prompt ends inside a thought, as DeepSeek-R1's template does."""
    return prompt.rstrip().lower().endswith("<think>")


def find_value(text: str) -> AnswerLine | None:
    r"""The value after the last marker, or None where no marker counts.

    The marker may be written in any case, in bold, and with blanks before its colon. It does not
    count inside a thought: neither before the last ``</think>`` nor after a ``<think>`` that is
    never closed. The value is the first line after it that holds more than decoration; it comes
    back without emphasis, quotes, dollar signs, ``\boxed{}`` and its full stop, and is empty where
    nothing follows.
    """
    start = max((closing.end() for closing in _THINK_CLOSE.finditer(text)), default=0)
    opening = _THINK_OPEN.search(text, start)
    markers = list(_MARKER.finditer(text, start, opening.start() if opening else len(text)))
    if not markers:
        return None
    tail = text[markers[-1].end() :].strip()
    # Megabytes are not split into lines: what lies far behind the value stays in one piece.
    near, far = tail[:_NEAR_CHARS], tail[_NEAR_CHARS:]
    lines = [line.strip() for line in [*near.splitlines(), far]]
    lines = [line for line in lines if line and line not in _DECORATION]
    return AnswerLine(unwrap(lines[0]), tuple(lines[1:])) if lines else AnswerLine("", ())


def unwrap(value: str) -> str:
    r"""Take off emphasis, quotes, math delimiters, ``\boxed{}`` and full stops, outermost first."""
    if len(value) > MAX_VALUE_CHARS:
        return value
    for _ in range(12):  # deeper wrapping than this is no honest writing
        before = value
        value = value.strip().strip("\u200b\ufeff")
        if value.startswith("}") and value.count("{") < value.count("}"):
            value = value[1:]  # the end of \textbf{Answer:}
        if value.endswith(".") and not value.endswith(".."):
            value = value[:-1]
        value = _unpair(value.strip())
        if value == before:
            break
    return value


def _unpair(value: str) -> str:
    for opening, closing in _PAIRS:
        long_enough = len(value) > len(opening) + len(closing)
        if long_enough and value.startswith(opening) and value.endswith(closing):
            inner = value[len(opening) : -len(closing)]
            if opening not in inner and closing not in inner:
                return inner
    command = _COMMAND.match(value)
    if command and closing_brace(value, command.end() - 1) == len(value) - 1:
        return value[command.end() : -1]
    # Half of a pair, where the other half stands before the marker: **Answer: 5**
    for mark in ("**", "__", "`"):
        if value.count(mark) == 1:
            return value.removeprefix(mark).removesuffix(mark)
    return value


def closing_brace(value: str, opening: int) -> int:
    """The index of the brace that closes the one at ``opening``, or -1."""
    depths = accumulate((char == "{") - (char == "}") for char in value[opening:])
    return next((opening + index for index, depth in enumerate(depths) if depth == 0), -1)


def nesting(value: str) -> int:
    """The greatest depth of brackets of any kind in a value."""
    return max(accumulate(((c in "([{") - (c in ")]}") for c in value), initial=0))


def is_prose(rest: Sequence[str]) -> bool:
    """Whether the lines after a value are mere prose that names no second value.

    Prose is lines of at least three words each, without digits (of any script), number words,
    yes, no, true, false, LaTeX or signs of arithmetic. No lines at all are prose too.
    """
    if sum(map(len, rest)) > MAX_REST_CHARS:
        return False
    for line in rest:
        words_here = [word.casefold() for word in _WORD.findall(line)]
        if len(words_here) < 3 or not _VALUE_WORDS.isdisjoint(words_here):
            return False
        if any(char.isnumeric() or char in _VALUE_SIGNS for char in line):
            return False
    return True
