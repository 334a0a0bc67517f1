"""Answers on the table: where they come from, whether they are right, how they rank. Pure.

The only computation here is a call of the library; see :func:`score_candidates`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sarlab.answers import AnswerScore, score_answers
from sarlab.display.token_view import FOREIGN_PERPLEXITY
from sarlab.models import DATA, Policy
from sarlab.prompts import StandaloneContext
from sarlab.tasks import judge
from sarlab.tasks.rows import read_rows, text_field

EXAMPLES = DATA / "examples" / "answers.jsonl"
LABELS = ("concise", "redundant", "partly_right", "wrong", "no_thought", "off_topic")


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
    standalone: StandaloneContext = StandaloneContext.EMPTY_TURN,
    on_question: Callable[[int, int], None] | None = None,
) -> list[Candidate]:
    """Score drafts, question by question, in their order.

    ``on_question(done, total)`` is called after each question; it may raise to stop.
    """
    scored: dict[int, Candidate] = {}
    places: dict[str, list[int]] = {}
    for place, draft in enumerate(drafts):
        places.setdefault(draft.question, []).append(place)
    for done, (question, indices) in enumerate(places.items(), start=1):
        group = [drafts[i] for i in indices]
        scores = score_answers(policy, question, [d.answer for d in group], standalone=standalone)
        for i, draft, score in zip(indices, group, scores, strict=True):
            correct = is_correct(score.answer, draft.gold)
            scored[i] = Candidate(score, correct, draft.gold, draft.label, draft.truncated)
        if on_question is not None:
            on_question(done, len(places))
    return [scored[i] for i in range(len(drafts))]


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


def out_of_depth(score: AnswerScore) -> bool:
    """Whether the policy finds the answer so unlikely in both contexts that SAR says little."""
    return min(score.ppl_conditioned, score.ppl_standalone) >= FOREIGN_PERPLEXITY


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
    labels = list(dict.fromkeys(c.label for c in candidates))
    of_reference = {c.question: c.score.sar for c in candidates if c.label == reference}
    rows = []
    for label in labels:
        group = [c for c in candidates if c.label == label]
        judged = [c.correct for c in group if c.correct is not None]
        below = None
        if label != reference and of_reference:
            below = sum(of_reference.get(c.question, float("-inf")) > c.score.sar for c in group)
        rows.append(
            LabelRow(
                label=label,
                answers=len(group),
                mean_sar=sum(c.score.sar for c in group) / len(group),
                mean_length=sum(c.score.length for c in group) / len(group),
                share_correct=sum(judged) / len(judged) if judged else None,
                questions_below_concise=below,
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
    by_question: dict[str, Mapping[str, Any]] = {}
    for c in candidates:
        by_question.setdefault(c.question, {})[c.label] = c.score.sar  # type: ignore[index]
    counts = []
    for better, worse in pairs:
        both = [s for s in by_question.values() if better in s and worse in s]
        counts.append(Ordering(better, worse, sum(s[better] > s[worse] for s in both), len(both)))
    return counts
