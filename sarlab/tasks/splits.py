"""Splits that cannot leak: a question's own text decides on which side it falls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from sarlab.types import Question

HELDOUT_SHARE = 0.2
"""The share of questions that :func:`split_of` holds out."""

Split = Literal["train", "heldout"]
OnConflict = Literal["raise", "drop"]


def split_of(question_text: str) -> Split:
    """The side on which a question falls, from the SHA-256 of its folded text.

    Case and white space are folded as in ``Question.id``, so copies of a question always fall on
    one side, whatever file they stand in, on every machine and for every seed.
    """
    return split_of_id(Question(text=question_text, gold="-").id)


def split_of_id(question_id: str) -> Split:
    """:func:`split_of` where the id is at hand: 16 hex digits, read as a fraction of 2^64."""
    return "heldout" if int(question_id, 16) / 2**64 < HELDOUT_SHARE else "train"


def overlap(train: Iterable[Question], heldout: Iterable[Question]) -> list[Question]:
    """The held-out questions that also stand in the training questions, case and space folded."""
    seen = {question.id for question in train}
    return [question for question in heldout if question.id in seen]


def check_disjoint(train: Iterable[Question], heldout: Iterable[Question]) -> None:
    """Raise a ValueError where a held-out question is also a training question."""
    shared = overlap(train, heldout)
    if shared:
        raise ValueError(
            f"{len(shared)} held-out question(s) also stand in the training questions, the first "
            f"is {shared[0].text[:120]!r}. An evaluation on them would measure memory: remove them "
            "from one of the files, or add '?overlap=drop' to the task to leave them out of "
            "training."
        )


def distinct(
    questions: Sequence[Question], where: str, on_conflict: OnConflict = "raise"
) -> tuple[list[Question], list[str]]:
    """Each question once, in order, and notes on what was left out.

    A question that occurs again with the same gold answer is a mere copy. With another gold
    answer it has no right answer: a ValueError, or all its copies are dropped.
    """
    golds: dict[str, str] = {}
    conflicts: dict[str, tuple[str, str]] = {}
    for question in questions:
        first = golds.setdefault(question.id, question.gold)
        if first != question.gold:
            if on_conflict == "raise":
                raise ValueError(
                    f"{where}: the question {question.text[:120]!r} occurs with the answers "
                    f"{first!r} and {question.gold!r}. Correct one of the rows."
                )
            conflicts[question.id] = (first, question.gold)
    unique: dict[str, Question] = {}
    for question in questions:
        if question.id not in conflicts:
            unique.setdefault(question.id, question)
    notes = []
    copies = sum(question.id not in conflicts for question in questions) - len(unique)
    if copies:
        notes.append(f"{where}: {copies} repeated row(s) left out.")
    if conflicts:
        first_gold, second_gold = next(iter(conflicts.values()))
        notes.append(
            f"{where}: {len(conflicts)} question(s) left out that occur with different answers, "
            f"the first with {first_gold!r} and {second_gold!r}."
        )
    return list(unique.values()), notes
