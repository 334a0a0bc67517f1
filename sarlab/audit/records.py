"""Answers of known quality: what a line of the file must hold, and what is said where it does not.

A line is a JSON object with ``question``, ``answer`` and ``label`` (or ``kind``). Optional:
``group`` (answers that are compared with each other; default: those to one question), ``gold``
(the verifier then says which answers are right) or ``correct`` (true or false, as judged
elsewhere), and ``answer_ids`` (a sampled answer's own tokens, taken as they are).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarlab.tasks import judge
from sarlab.tasks.rows import read_rows, text_field
from sarlab.types import Question

EXAMPLE = '{"question": "1 + 1 = ?", "answer": "Answer: 2", "label": "right", "gold": "2"}'


@dataclass(frozen=True)
class LabelledAnswer:
    """One answer and its label. ``group`` is empty where all answers to the question are one."""

    question: str
    answer: str
    label: str
    group: str = ""
    correct: bool | None = None
    gold: str | None = None
    answer_ids: tuple[int, ...] | None = None

    @property
    def question_id(self) -> str:
        """The id that :class:`sarlab.types.Question` gives to this text."""
        return Question(self.question, "?").id

    @property
    def group_id(self) -> str:
        """Question and group: the answers that are compared with each other."""
        return f"{self.question_id}/{self.group}" if self.group else self.question_id


def read_labelled(path: str | Path) -> list[LabelledAnswer]:
    """The answers of a .jsonl, .json, .csv or .parquet file, in its order.

    A label may be a word, a number (higher is better) or true and false, which become ``right``
    and ``wrong``. Raises ValueError that names the line, the rule and the remedy: a missing or
    empty field, a label or ``correct`` of another type, fewer than two labels in all, or no
    question with two answers.
    """
    path = Path(path)
    answers = [_answer(row, where) for where, row in read_rows(path)]
    labels = sorted({a.label for a in answers})
    if len(labels) < 2:
        raise ValueError(
            f"{path}: all {len(answers)} answers have the label {labels[0]!r}. Give answers of at "
            "least two qualities, such as right and wrong."
        )
    if max(Counter(a.group_id for a in answers).values()) < 2:
        raise ValueError(
            f"{path}: no question (or group) has two answers, so nothing can be compared. Give "
            "each question several answers, a line each, with the same question text."
        )
    return answers


def by_question(
    answers: Sequence[LabelledAnswer], limit: int | None = None
) -> list[list[LabelledAnswer]]:
    """Answers by question, in the order of first answers; ``limit`` spreads evenly over them."""
    groups: dict[str, list[LabelledAnswer]] = {}
    for answer in answers:
        groups.setdefault(answer.question_id, []).append(answer)
    all_groups = list(groups.values())
    if limit is None or limit >= len(all_groups):
        return all_groups
    if limit < 1:
        raise ValueError(f"questions is {limit}; it must be at least 1, or 0 for all of them.")
    return [all_groups[i * len(all_groups) // limit] for i in range(limit)]


def judged(answer: LabelledAnswer) -> bool | None:
    """Whether the answer is right: as the file says, else as its gold answer says, else None."""
    if answer.correct is not None or answer.gold is None:
        return answer.correct
    return judge(answer.answer, answer.gold).correct


def _answer(row: Mapping[str, Any], where: str) -> LabelledAnswer:
    name = "label" if "label" in row else "kind"
    if name not in row:
        raise ValueError(
            f"{where}: no field 'label', the quality of the answer. A line looks like {EXAMPLE}."
        )
    named = ("right" if row[name] else "wrong") if isinstance(row[name], bool) else ""
    correct, ids = row.get("correct"), row.get("answer_ids")
    if correct not in (None, 0, 1):
        raise ValueError(
            f"{where}: correct is {correct!r}; it must be true or false, or be left out where a "
            "gold answer says it."
        )
    if ids is not None and not (
        isinstance(ids, list) and ids and all(type(i) is int and i >= 0 for i in ids)
    ):
        raise ValueError(
            f"{where}: answer_ids is {ids!r:.60}; it must be a list of token ids, or be left out "
            "for an answer that is typed text."
        )
    group, gold = (
        None if row.get(field) in (None, "") else text_field(row, (field,), where)
        for field in ("group", "gold")
    )
    return LabelledAnswer(
        question=text_field(row, ("question", "problem", "prompt"), where),
        answer=text_field(row, ("answer", "response", "completion"), where),
        label=named or text_field(row, (name,), where).strip(),
        group=group or "",
        correct=None if correct is None else bool(correct),
        gold=gold,
        answer_ids=None if ids is None else tuple(ids),
    )
