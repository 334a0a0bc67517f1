"""Stories of two to six two-digit numbers, on which length and information come apart.

Every fact stands in a sentence of its own. A solution that reads the facts one after the other is
longer and says more about the question than one that states the total at once. How many sums a
story needs is known exactly, so :func:`account` can count missing steps and tokens in excess.
The embedded policy `tiny-facts` learnt them from ``scripts/build_tiny.py``.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from sarlab.tasks.word_problems import NAMES, THINGS

LOW, HIGH = 11, 29  # every number in a story lies in this range, ends included
TERMS = {2: 0.30, 3: 0.25, 4: 0.15, 5: 0.15, 6: 0.15}  # numbers to be added, and their shares
SHARE_UNNEEDED = 0.4  # stories that hold one number more than the sum needs

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
COLOURS = ("red", "blue", "green", "white", "black", "grey", "brown", "pink")
UNNEEDED = (
    "{m} is {x} years old.",
    "The walk takes {x} minutes.",
    "Each of the {t} costs {x} cents.",
    "{m} lives at number {x}.",
    "The bag weighs {x} grams.",
)
_SUM = re.compile(r"(\d+)\+(\d+)=(\d+)")


@dataclass(frozen=True)
class FactStory:
    """One story: its text, the numbers to be added in order, and the one that is not needed."""

    question: str
    terms: tuple[int, ...]
    unneeded: int | None = None

    @property
    def answer(self) -> str:
        """The sum of the terms, in digits."""
        return str(sum(self.terms))


def draw_story(rng: random.Random) -> FactStory:
    """Draw one story of two to six terms."""
    (count,) = rng.choices(list(TERMS), list(TERMS.values()))
    terms = tuple(rng.randint(LOW, HIGH) for _ in range(count))
    thing, (name, other) = rng.choice(THINGS), rng.sample(NAMES, 2)
    kind = rng.choice(("people", "days", "boxes"))
    if kind == "people":
        people = rng.sample(NAMES, len(terms))
        facts = [f"{n} has {x} {thing}." for n, x in zip(people, terms, strict=True)]
        asks = f"How many {thing} do they have together?"
    elif kind == "days":
        days = rng.sample(DAYS, len(terms))
        facts = [f"On {d} {name} sold {x} {thing}." for d, x in zip(days, terms, strict=True)]
        asks = f"How many {thing} did {name} sell?"
    else:
        boxes = rng.sample(COLOURS, len(terms))
        facts = [f"The {c} box holds {x} {thing}." for c, x in zip(boxes, terms, strict=True)]
        asks = f"How many {thing} are there in all?"
    unneeded = None
    if rng.random() < SHARE_UNNEEDED:
        unneeded = rng.choice([x for x in range(LOW, HIGH + 1) if x not in terms])
        sentence = rng.choice(UNNEEDED).format(m=other, t=thing, x=unneeded)
        facts.insert(rng.randint(0, len(facts)), sentence)
    return FactStory(" ".join([*facts, asks]), terms, unneeded)


def solution_lines(terms: tuple[int, ...]) -> list[str]:
    """The needed lines: one new number of the question each, with the running total."""
    lines, total = [], terms[0]
    for term in terms[1:]:
        lines.append(f"{total}+{term}={total + term}")
        total += term
    return lines


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
