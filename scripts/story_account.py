"""An answer to a fact story against what the story needs: how many sums is known exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SUM = re.compile(r"(\d+)\+(\d+)=(\d+)")


@dataclass(frozen=True)
class Account:
    """An answer against what its story needs: lines by kind, and the sums left out.

    ``needed``: right sums that each add one more number of the question to the running total;
    ``excess``: every other line but the last one with the marker.
    """

    needed: tuple[str, ...]
    excess: tuple[str, ...]
    missing_steps: int


def account(answer: str, terms: tuple[int, ...]) -> Account:
    """Which lines of an answer its story needs, and how many sums are missing."""
    left, total = list(terms), None
    needed, excess = [], []
    for line in answer.splitlines():
        match = _SUM.fullmatch(line.strip())
        if match and _uses(match, left, total):
            x, y, z = map(int, match.groups())
            for number in (y,) if total is not None else (x, y):
                left.remove(number)
            total = z
            needed.append(line)
        elif line.strip() and not line.startswith("Answer:"):
            excess.append(line)
    return Account(tuple(needed), tuple(excess), len(terms) - 1 - len(needed))


def _uses(match: re.Match[str], left: list[int], total: int | None) -> bool:
    """Whether a right sum adds a number not yet used to the total so far."""
    x, y, z = map(int, match.groups())
    if x + y != z or y not in left:
        return False
    rest = list(left)
    rest.remove(y)
    return x == total if total is not None else x in rest


def solution_lines(terms: tuple[int, ...]) -> list[str]:
    """The needed lines: one new number of the question each, with the running total."""
    lines, total = [], terms[0]
    for term in terms[1:]:
        lines.append(f"{total}+{term}={total + term}")
        total += term
    return lines
