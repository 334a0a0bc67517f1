"""Answers on the table: where they come from, whether they are right, how they rank. Pure."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from sarlab.models import DATA, Policy
from sarlab.rewards.answers import AnswerScore, score_answers
from sarlab.tasks import judge
from sarlab.tasks.rows import read_rows, text_field

EXAMPLES = DATA / "examples" / "answers.jsonl"
_LABELS = ("concise", "redundant", "no thought", "off topic")  # the higher SAR is expected first
EXPECTED_ORDER = [*itertools.combinations(_LABELS, 2)][:-1]  # the last two are not compared


@dataclass(frozen=True)
class Draft:
    """An answer that has no score yet: a text, or the ids that were sampled."""

    question: str
    answer: str | tuple[int, ...]
    gold: str | None = None
    label: str = "typed"
    truncated: bool = False  # sampled up to the limit, without an end token

    def scored(self, score: AnswerScore) -> Candidate:
        """The answer with its score."""
        facts = {field.name: getattr(self, field.name) for field in fields(Draft)}
        return Candidate(**{**facts, "answer": score.answer, "score": score})


@dataclass(frozen=True, kw_only=True)
class Candidate(Draft):
    """A scored answer."""

    score: AnswerScore

    @cached_property
    def correct(self) -> bool | None:
        """Whether it ends with the right answer; None where none is known."""
        return is_correct(self.score.answer, self.gold)


def is_correct(answer: str, gold: str | None) -> bool | None:
    """Whether a text ends with the right answer; None where none is known."""
    return None if not gold else judge(answer, gold).correct


def read_answers(path: str | Path) -> list[Draft]:
    """Answers from a .csv, .json, .jsonl or .parquet file.

    Fields: ``question`` and ``answer``; optional ``gold`` and ``label`` (or ``kind``). Raises
    ValueError that names the line where a field is missing.
    """
    return [
        Draft(
            question=text_field(row, ("question", "problem", "prompt"), where),
            answer=text_field(row, ("answer", "response", "completion", "text"), where),
            gold=None if row.get("gold") in (None, "") else text_field(row, ("gold",), where),
            label=str(row.get("label") or row.get("kind") or "file"),
        )
        for where, row in read_rows(Path(path))
    ]


def read_examples(questions: int | None = None) -> list[Draft]:
    """The project's example answers: 33 questions with six labelled answers each.

    ``questions`` takes only so many, spread evenly over the file.
    """
    groups = list(group_drafts(read_answers(EXAMPLES)).values())
    count = len(groups) if questions is None else questions
    if type(count) is not int:
        raise TypeError(f"questions is {questions!r}, expected a number of questions.")
    if not 1 <= count <= len(groups):
        raise ValueError(f"questions is {questions}; the file has 1 to {len(groups)}.")
    chosen = [groups[i * len(groups) // count] for i in range(count)]
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


def score_candidates(policy: Policy, drafts: Sequence[Draft]) -> list[Candidate]:
    """Score drafts, question by question; they come back in their order."""
    scored: dict[Draft, Candidate] = {}
    for question, group in group_drafts(drafts).items():
        scores = score_answers(policy, question, [draft.answer for draft in group])
        scored |= {draft: draft.scored(score) for draft, score in zip(group, scores, strict=True)}
    return [scored[draft] for draft in drafts]


def ranked(candidates: Sequence[Candidate]) -> list[int]:
    """Indices of the candidates, highest SAR first; equal ones in their order."""
    return sorted(range(len(candidates)), key=lambda i: -candidates[i].score.sar)


def judged(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The answers whose question has a right answer: only they have a reward."""
    return [c for c in candidates if c.correct is not None]


def verdict_text(correct: bool | None, truncated: bool = False) -> str:
    """A word and a sign, so that no colour is needed."""
    word = {True: "✓ right", False: "✗ wrong", None: "– not judged"}[correct]
    return f"{word}, truncated" if truncated else word


def label_rows(candidates: Sequence[Candidate]) -> pd.DataFrame:
    """Mean SAR, length and accuracy by label, labels in the order of their first answer.

    ``below_concise``: how many have a *concise* answer to their question with a higher SAR.
    """
    best = {c.question: c.score.sar for c in candidates if c.label == "concise"}
    rows = []
    for label in dict.fromkeys(c.label for c in candidates):
        group = [c for c in candidates if c.label == label]
        below = sum(best.get(c.question, -math.inf) > c.score.sar for c in group)
        facts = ((c.score.sar, c.score.length, c.correct) for c in group)
        means = [
            pd.Series(values, dtype=float).mean()  # None is left out
            for values in zip(*facts, strict=True)
        ]
        shown = f"{below} of {len(group)}" if best and label != "concise" else ""
        rows.append((label, len(group), *means, shown))
    columns = ["label", "answers", "mean_sar", "mean_length", "share_correct", "below_concise"]
    return pd.DataFrame(rows, columns=columns)


def orderings(candidates: Sequence[Candidate]) -> pd.DataFrame:
    """On how many questions a label has the higher SAR, per pair of labels that should differ."""
    sars: dict[str, dict[str, float]] = {}
    for c in candidates:
        sars.setdefault(c.question, {})[c.label] = c.score.sar
    rows = []
    for better, worse in EXPECTED_ORDER:
        higher = [s[better] > s[worse] for s in sars.values() if better in s and worse in s]
        rows.append((better, worse, sum(higher), len(higher)))
    return pd.DataFrame(rows, columns=["better", "worse", "holds", "questions"])
