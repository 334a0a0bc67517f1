"""Answers on the table: where they come from, whether they are right, how they rank. Pure.

The only computation here is a call of the library; see :func:`score_candidates`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from sarlab.models import DATA, Policy
from sarlab.rewards.answers import AnswerScore, score_answers
from sarlab.tasks import judge
from sarlab.tasks.rows import read_rows, text_field

EXAMPLES = DATA / "examples" / "answers.jsonl"
EXPECTED_ORDER = (
    ("concise", "redundant"),
    ("concise", "no thought"),
    ("concise", "off topic"),
    ("redundant", "no thought"),
    ("redundant", "off topic"),
)


@dataclass(frozen=True)
class Draft:
    """An answer: a text, or the ids that were sampled."""

    question: str
    answer: str | tuple[int, ...]
    gold: str | None = None
    label: str = "typed"
    truncated: bool = False  # sampled up to the limit, without an end token

    def judged(self, gold: str | None) -> Draft:
        """The answer with another right answer."""
        return replace(self, gold=gold or None)

    def scored(self, score: AnswerScore) -> Candidate:
        """The answer with its score, judged by its right answer."""
        facts = {**vars(self), "answer": score.answer, "score": score}
        return Candidate(**facts).judged(self.gold)


@dataclass(frozen=True, kw_only=True)
class Candidate(Draft):
    """A scored answer; ``correct`` is None where no right answer is known."""

    score: AnswerScore
    correct: bool | None = None

    def judged(self, gold: str | None) -> Candidate:
        """The answer judged by another right answer; its score stays."""
        return replace(self, gold=gold or None, correct=is_correct(self.score.answer, gold))


def read_answers(path: str | Path) -> list[Draft]:
    """Answers from a .csv, .json, .jsonl or .parquet file.

    Fields: ``question`` and ``answer``; optional ``gold`` and ``label`` (or ``kind``). Raises
    ValueError that names the line where a field is missing.
    """
    drafts = []
    for where, row in read_rows(Path(path)):
        gold = row.get("gold")
        drafts.append(
            Draft(
                question=text_field(row, ("question", "problem", "prompt"), where),
                answer=text_field(row, ("answer", "response", "completion", "text"), where),
                gold=text_field(row, ("gold",), where) if gold not in (None, "") else None,
                label=str(row.get("label") or row.get("kind") or "file"),
            )
        )
    return drafts


def read_examples(questions: int | None = None, path: Path = EXAMPLES) -> list[Draft]:
    """The project's example answers: 33 questions with six labelled answers each.

    ``questions`` takes only so many, spread evenly over the file.
    """
    groups = list(group_drafts(read_answers(path)).values())
    if questions is None:
        questions = len(groups)
    if isinstance(questions, bool) or not isinstance(questions, int):
        raise TypeError(f"questions is {questions!r}, expected a number of questions.")
    if not 1 <= questions <= len(groups):
        raise ValueError(f"questions is {questions}; the file has 1 to {len(groups)}.")
    chosen = [groups[i * len(groups) // questions] for i in range(questions)]
    return [replace(d, label=d.label.replace("_", " ")) for group in chosen for d in group]


def pasted_answers(text: str) -> list[str]:
    """Answers from a text box, separated by lines that hold three or more dashes only."""
    parts = re.split(r"^[ \t]*-{3,}[ \t]*$", text, flags=re.M)
    return [part.strip("\n") for part in parts if part.strip()]


def group_drafts(drafts: Iterable[Draft]) -> dict[str, list[Draft]]:
    """Drafts by question, questions in the order of their first answer."""
    groups: dict[str, list[Draft]] = {}
    for draft in drafts:
        groups.setdefault(draft.question, []).append(draft)
    return groups


def is_correct(answer: str, gold: str | None) -> bool | None:
    """Whether an answer ends with the gold value; None where there is none."""
    return None if not gold else judge(answer, gold).correct


def score_candidates(
    policy: Policy,
    drafts: Sequence[Draft],
    *,
    on_question: Callable[[int, int], None] | None = None,
) -> list[Candidate]:
    """Score drafts, question by question, in their order.

    ``on_question(done, total)`` is called after each question; it may raise to stop.
    """
    scored: dict[Draft, Candidate] = {}
    groups = group_drafts(drafts)
    for done, (question, group) in enumerate(groups.items(), start=1):
        scores = score_answers(policy, question, [draft.answer for draft in group])
        scored.update(
            (draft, draft.scored(score)) for draft, score in zip(group, scores, strict=True)
        )
        if on_question is not None:
            on_question(done, len(groups))
    return [scored[draft] for draft in drafts]


def ranked(candidates: Sequence[Candidate]) -> list[int]:
    """Indices of the candidates, highest SAR first; equal ones in their order."""
    return sorted(range(len(candidates)), key=lambda i: (-candidates[i].score.sar, i))


def verdict_text(correct: bool | None, truncated: bool = False) -> str:
    """A word and a sign, so that no colour is needed."""
    word = {True: "✓ right", False: "✗ wrong", None: "– not judged"}[correct]
    return f"{word}, truncated" if truncated else word


def judged(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The answers whose question has a right answer: only they have a reward."""
    return [c for c in candidates if c.correct is not None]


class LabelRow(NamedTuple):
    """Answers of one label over many questions."""

    label: str
    answers: int
    mean_sar: float
    mean_length: float
    share_correct: float | None
    below_concise: str  # "2 of 3" questions on which ``concise`` has the higher SAR, or ""


def label_rows(candidates: Sequence[Candidate]) -> list[LabelRow]:
    """Mean SAR, length and accuracy by label, labels in the order of their first answer."""
    best = {c.question: c.score.sar for c in candidates if c.label == "concise"}
    rows = []
    for label in dict.fromkeys(c.label for c in candidates):
        group = [c for c in candidates if c.label == label]
        verdicts = [bool(c.correct) for c in judged(group)]
        below = sum(best.get(c.question, -math.inf) > c.score.sar for c in group)
        rows.append(
            LabelRow(
                label,
                len(group),
                fmean(c.score.sar for c in group),
                fmean(c.score.length for c in group),
                fmean(verdicts) if verdicts else None,
                f"{below} of {len(group)}" if best and label != "concise" else "",
            )
        )
    return rows


class Ordering(NamedTuple):
    """On how many questions answers of one label have a higher SAR than another."""

    better: str
    worse: str
    holds: int
    questions: int


def orderings(candidates: Sequence[Candidate]) -> list[Ordering]:
    """Count, for each pair of labels that should differ, where the first has the higher SAR."""
    sars: dict[str, dict[str, float]] = {}
    for c in candidates:
        sars.setdefault(c.question, {})[c.label] = c.score.sar
    counts = []
    for better, worse in EXPECTED_ORDER:
        both = [s for s in sars.values() if better in s and worse in s]
        counts.append(Ordering(better, worse, sum(s[better] > s[worse] for s in both), len(both)))
    return counts
