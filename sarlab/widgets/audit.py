"""What a finished run holds: how answers to one question changed, and which ones look odd. Pure.

The audit that the paper asks for lists answers that are correct, short and have a low SAR: knowing
the question did not make their tokens likelier, so perhaps they were guessed.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sarlab.answers import AnswerScore, token_pieces

_HEAVY = ("answer_ids", "logps_conditioned", "logps_standalone")


@dataclass(frozen=True)
class AuditRow:
    """One logged answer; the fields are the columns of ``rollouts.parquet``.

    Its tokens stay on disk until they are looked at: ``part`` and ``place`` say where.
    """

    step: int
    split: str
    group_id: int
    question_id: str
    question: str
    gold: str
    answer: str
    length: int
    truncated: bool
    correct: bool
    ppl_conditioned: float
    ppl_standalone: float
    sar: float | None  # None where the run's reward needed no pass without the question
    reward: float | None
    advantage: float | None
    part: Path
    place: int


_LIGHT = [field.name for field in fields(AuditRow)][:-2]  # all but part and place


def read_audit(folder: str | Path) -> list[AuditRow]:
    """The logged answers of a run, by step. Raises ValueError where there are none."""
    parts = sorted((Path(folder) / "rollouts.parquet").glob("*.parquet"))
    if not parts:
        raise ValueError(f"{folder} has no rollouts. Choose the folder of a finished run.")
    rows = []
    for part in parts:
        try:
            table = pq.read_table(part, columns=_LIGHT)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{part} cannot be read as a part of a run: {error}.") from error
        if table.column_names != _LIGHT:
            raise ValueError(
                f"{part} has columns of another version of sarlab. Read it with that version."
            )
        records = enumerate(table.to_pylist())
        rows += [AuditRow(**record, part=part, place=place) for place, record in records]
    return sorted(rows, key=lambda row: (row.step, row.group_id))


def questions_of(rows: Sequence[AuditRow]) -> dict[str, str]:
    """Question id to text, those seen at the most steps (the probes) first."""
    texts = {row.question_id: row.question for row in rows}
    seen = Counter(key for key, _ in {(row.question_id, row.step) for row in rows})
    return {key: texts[key] for key in sorted(texts, key=lambda key: -seen[key])}


def steps_of(rows: Sequence[AuditRow], question_id: str) -> list[int]:
    """The steps at which a question was answered."""
    return sorted({row.step for row in rows if row.question_id == question_id})


def short_with_low_sar(rows: Sequence[AuditRow], max_length: int, max_sar: float) -> list[AuditRow]:
    """Correct answers of at most ``max_length`` tokens with a SAR of at most ``max_sar``.

    Lowest SAR first; answers that were truncated, or have no SAR, are left out.
    """
    short = [row for row in auditable(rows) if row.length <= max_length and row.sar <= max_sar]
    return sorted(short, key=lambda row: (row.sar, row.length, row.step))


def auditable(rows: Sequence[AuditRow]) -> list[Any]:
    """Correct answers that ended by themselves and have a SAR."""
    return [row for row in rows if row.correct and not row.truncated and row.sar is not None]


def next_wider(
    rows: Sequence[AuditRow], max_length: int, max_sar: float
) -> tuple[int, float] | None:
    """Thresholds one step wider that list at least one more answer; None where there is none.

    Of all such thresholds the ones that pass the fewest answers of this run, be it by length or by
    SAR: what is short and what is low depends on the run.
    """
    rows = auditable(rows)
    lengths, sars = sorted(row.length for row in rows), sorted(row.sar for row in rows)
    steps = []
    for row in rows:
        if row.length <= max_length and row.sar <= max_sar:
            continue
        length = max(max_length, row.length)
        sar = max(max_sar, math.ceil(20 * row.sar - 1e-9) / 20)  # the slider has steps of 0.05
        passed = (
            bisect_right(lengths, length) - bisect_right(lengths, max_length),
            bisect_right(sars, sar) - bisect_right(sars, max_sar),
        )
        steps.append((max(passed), length, sar))
    if not steps:
        return None
    _, length, sar = min(steps)
    return length, sar


class RunName(NamedTuple):
    """A run folder, its arm and seed as its name says (``sa_grpo_0.2-s1``), and what it logged."""

    path: Path
    arm: str
    seed: str
    has_tokens: bool


def list_runs(paths: Sequence[Path]) -> list[RunName]:
    """Runs, those first whose answers can be shown token by token; else by name."""
    runs = []
    for path in paths:
        arm, _, seed = path.name.rpartition("-s")
        arm, seed = (arm, seed) if arm and seed.isdigit() else (path.name, "–")
        runs.append(RunName(path, arm, seed, has_tokens(path)))
    # Among those with tokens the ones trained with SAR come first: they are what this is about.
    return sorted(
        runs, key=lambda run: (not run.has_tokens, not run.arm.startswith("sa_"), run.path.name)
    )


def has_tokens(folder: Path) -> bool:
    """Whether a run logged the log-probs of each token in both contexts."""
    for part in sorted((folder / "rollouts.parquet").glob("*.parquet"))[:1]:
        try:
            column = pq.read_table(part, columns=["logps_standalone"]).column(0)
        except (pa.ArrowException, OSError):
            return False
        return bool(pc.sum(pc.list_value_length(column)).as_py())
    return False


class Ends(NamedTuple):
    """A question's answers at the first and at the last logged step, as means."""

    right_first: bool
    right: bool  # half right counts as right
    length_first: float
    length: float
    sar: float


# How to order questions, and which to show.
ORDERS: dict[str, Callable[[Ends], float]] = {
    "as logged": lambda q: 0.0,
    "longest": lambda q: -q.length,
    "shortest": lambda q: q.length,
    "highest SAR": lambda q: -q.sar,
    "lowest SAR": lambda q: q.sar,
    "most shortened": lambda q: q.length - q.length_first,
}
FILTERS: dict[str, Callable[[Ends], bool]] = {
    "all": lambda q: True,
    "right at the end": lambda q: q.right,
    "wrong at the end": lambda q: not q.right,
    "became right": lambda q: q.right and not q.right_first,
    "became wrong": lambda q: q.right_first and not q.right,
}


def choose_questions(
    rows: Sequence[AuditRow], search: str = "", shown: str = "all", order: str = "as logged"
) -> dict[str, str]:
    """Question id to text: those that hold ``search`` and pass a filter, in an order.

    "At the end" and lengths are those of the last logged step; half right counts as right.
    """
    texts = questions_of(rows)
    groups: dict[str, list[AuditRow]] = {key: [] for key in texts}
    for row in rows:
        groups[row.question_id].append(row)
    words = search.lower().split()
    chosen = {
        key: _ends(groups[key])
        for key, text in texts.items()
        if all(word in text.lower() for word in words)
    }
    keys = [key for key, ends in chosen.items() if FILTERS[shown](ends)]
    return {key: texts[key] for key in sorted(keys, key=lambda key: ORDERS[order](chosen[key]))}


def _ends(rows: list[AuditRow]) -> Ends:
    first, last = (
        [row for row in rows if row.step == end(r.step for r in rows)] for end in (min, max)
    )
    return Ends(
        right_first=fmean(row.correct for row in first) >= 0.5,
        right=fmean(row.correct for row in last) >= 0.5,
        length_first=fmean(row.length for row in first),
        length=fmean(row.length for row in last),
        sar=fmean(row.sar or 0.0 for row in last),
    )


def row_score(row: AuditRow, tokenizer: Any) -> AnswerScore:
    """The token view's record of a logged answer: the log-probs that training saw, nothing run.

    Raises ValueError for a row whose run did not log both contexts.
    """
    table = pq.read_table(row.part, columns=list(_HEAVY)).slice(row.place, 1)
    ids, conditioned, standalone = (tuple(table.column(name)[0].as_py() or ()) for name in _HEAVY)
    if row.sar is None or len(standalone) != len(ids):
        raise ValueError(
            f"Step {row.step} of this run was logged without the log-probs of each token, so its "
            "tokens have no colours here. Open the answer in the workbench to score it, or choose "
            "a run marked with tokens."
        )
    pieces = tuple(token_pieces(tokenizer, ids))
    if not "".join(pieces).startswith(row.answer):
        raise ValueError(
            f"The ids of this answer of step {row.step} spell another text than the logged one, so "
            "the run's model is no longer the one that it was trained from. Its tokens can't be "
            "shown; the table still holds the logged text and numbers."
        )
    return AnswerScore(
        question=row.question,
        answer=row.answer,
        token_ids=ids,
        tokens=pieces,
        logps_conditioned=conditioned,
        logps_standalone=standalone,
        sar=row.sar,
        ppl_conditioned=row.ppl_conditioned,
        ppl_standalone=row.ppl_standalone,
    )


def run_model(folder: str | Path) -> str:
    """The reference of the model that a run started from."""
    path = Path(folder) / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["model"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} does not name the run's model ({type(error).__name__}: {error}). "
            "Choose a run folder of this project."
        ) from error
