"""Answers on the table: where they come from, whether they are right, how they rank. Pure.

The only computation here is a call of the library; see :func:`score_candidates`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from sarlab.answers import AnswerScore, score_answers
from sarlab.models import DATA, Policy
from sarlab.tasks import judge
from sarlab.tasks.rows import read_rows, text_field

EXAMPLES = DATA / "examples" / "answers.jsonl"


@dataclass(frozen=True)
class Draft:
    """An answer before it is scored: a text, or the ids that were sampled."""

    question: str
    answer: str | tuple[int, ...]
    gold: str | None = None
    label: str = "typed"
    truncated: bool = False  # sampled up to the limit, without an end token


@dataclass(frozen=True)
class Candidate:
    """A scored answer; ``correct`` is None where no right answer is known."""

    score: AnswerScore
    correct: bool | None
    gold: str | None = None
    label: str = "typed"
    truncated: bool = False

    @property
    def question(self) -> str:
        """The question that it answers."""
        return self.score.question


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
    return [draft for group in chosen for draft in group]


def pasted_answers(text: str) -> list[str]:
    """Answers from a text box, separated by lines that hold three or more dashes only."""
    answers, lines = [], list[str]()
    for line in [*text.splitlines(), "---"]:
        bare = line.strip()
        if len(bare) >= 3 and not bare.strip("-"):
            if "\n".join(lines).strip():
                answers.append("\n".join(lines).strip("\n"))
            lines = []
        else:
            lines.append(line)
    return answers


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
    scored: dict[int, Candidate] = {}
    questions = list(dict.fromkeys(draft.question for draft in drafts))
    for done, question in enumerate(questions, start=1):
        group = {i: draft for i, draft in enumerate(drafts) if draft.question == question}
        texts = [draft.answer for draft in group.values()]
        scores = score_answers(policy, question, texts)
        pairs = zip(scores, group.values(), strict=True)
        scored.update(zip(group, (judged_score(*pair) for pair in pairs), strict=True))
        if on_question is not None:
            on_question(done, len(questions))
    return [scored[i] for i in range(len(drafts))]


def judged_score(score: AnswerScore, draft: Draft) -> Candidate:
    """A draft with its score, judged by its right answer."""
    correct = is_correct(score.answer, draft.gold)
    return Candidate(score, correct, draft.gold, draft.label, draft.truncated)


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


def rejudged(candidates: Sequence[Candidate], gold: str | None) -> list[Candidate]:
    """The candidates judged against another gold answer; their scores stay."""
    gold = gold or None
    return [replace(c, gold=gold, correct=is_correct(c.score.answer, gold)) for c in candidates]


@dataclass(frozen=True)
class LabelRow:
    """Answers of one label over many questions."""

    label: str
    answers: int
    mean_sar: float
    mean_length: float
    share_correct: float | None
    questions_below_concise: int | None  # questions on which ``concise`` has the higher SAR


def label_rows(candidates: Sequence[Candidate], reference: str = "concise") -> list[LabelRow]:
    """Mean SAR, length and accuracy by label, labels in the order of their first answer."""
    best = {c.question: c.score.sar for c in candidates if c.label == reference}
    rows = []
    for label in dict.fromkeys(c.label for c in candidates):
        group = [c for c in candidates if c.label == label]
        verdicts = [c.correct for c in judged(group)]
        below = sum(best.get(c.question, -math.inf) > c.score.sar for c in group)
        rows.append(
            LabelRow(
                label=label,
                answers=len(group),
                mean_sar=fmean(c.score.sar for c in group),
                mean_length=fmean(c.score.length for c in group),
                share_correct=fmean(map(bool, verdicts)) if verdicts else None,
                questions_below_concise=below if best and label != reference else None,
            )
        )
    return rows


@dataclass(frozen=True)
class Ordering:
    """On how many questions answers of one label have a higher SAR than another."""

    better: str
    worse: str
    holds: int
    questions: int


EXPECTED_ORDER = (
    ("concise", "redundant"),
    ("concise", "no_thought"),
    ("concise", "off_topic"),
    ("redundant", "no_thought"),
    ("redundant", "off_topic"),
)


def orderings(
    candidates: Sequence[Candidate], pairs: Sequence[tuple[str, str]] = EXPECTED_ORDER
) -> list[Ordering]:
    """Count, for each pair of labels, the questions on which the first has the higher SAR."""
    sars: dict[str, dict[str, float]] = {}
    for c in candidates:
        sars.setdefault(c.question, {})[c.label] = c.score.sar
    counts = []
    for better, worse in pairs:
        both = [s for s in sars.values() if better in s and worse in s]
        counts.append(Ordering(better, worse, sum(s[better] > s[worse] for s in both), len(both)))
    return counts
