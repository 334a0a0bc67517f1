"""What a finished run holds: how answers to one question changed, and which ones look odd. Pure.

The audit that the paper asks for: an answer that is right, short and has a low SAR was perhaps
not thought through, since knowing the question did not make its tokens likelier.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sarlab.answers import AnswerScore, token_pieces

_LIGHT = (
    *("step", "split", "group_id", "question_id", "question", "gold", "answer", "length"),
    *("truncated", "correct", "ppl_conditioned", "ppl_standalone", "sar", "reward", "advantage"),
)
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


def read_audit(folder: str | Path) -> list[AuditRow]:
    """The logged answers of a run, by step. Raises ValueError where there are none."""
    parts = sorted((Path(folder) / "rollouts.parquet").glob("*.parquet"))
    if not parts:
        raise ValueError(f"{folder} has no rollouts. Choose the folder of a finished run.")
    rows = []
    for part in parts:
        try:
            table = pq.read_table(part, columns=list(_LIGHT))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{part} cannot be read as a part of a run: {error}.") from error
        if table.column_names != list(_LIGHT):
            raise ValueError(
                f"{part} has columns of another version of sarlab. Read it with that version."
            )
        records = enumerate(table.to_pylist())
        rows += [AuditRow(**record, part=part, place=place) for place, record in records]
    return sorted(rows, key=lambda row: (row.step, row.group_id))


def questions_of(rows: Sequence[AuditRow]) -> dict[str, str]:
    """Question id to text, those seen at the most steps (the probes) first."""
    steps: dict[str, set[int]] = {}
    texts = {}
    for row in rows:
        steps.setdefault(row.question_id, set()).add(row.step)
        texts[row.question_id] = row.question
    order = sorted(steps, key=lambda key: -len(steps[key]))
    return {key: texts[key] for key in order}


def steps_of(rows: Sequence[AuditRow], question_id: str) -> list[int]:
    """The steps at which a question was answered."""
    return sorted({row.step for row in rows if row.question_id == question_id})


def right_without_a_thought(
    rows: Sequence[AuditRow], max_length: int, max_sar: float
) -> list[AuditRow]:
    """Right answers of at most ``max_length`` tokens with a SAR of at most ``max_sar``.

    Lowest SAR first; answers that were cut off, or have no SAR, are left out.
    """
    found = [
        row
        for row in rows
        if row.correct
        and not row.truncated
        and row.length <= max_length
        and row.sar is not None
        and row.sar <= max_sar
    ]
    return sorted(found, key=lambda row: (row.sar, row.length, row.step))


def row_score(row: AuditRow, tokenizer: Any) -> AnswerScore:
    """The token view's record of a logged answer: the log-probs that training saw, nothing run.

    Raises ValueError for a row whose run did not log both contexts.
    """
    table = pq.read_table(row.part, columns=list(_HEAVY)).slice(row.place, 1)
    ids, conditioned, standalone = (tuple(table.column(name)[0].as_py() or ()) for name in _HEAVY)
    if row.sar is None or len(standalone) != len(ids):
        raise ValueError(
            f"The answer of step {row.step} stands here without its log-probs lacking the "
            "question (the run's reward did not need them, or they were left out to save room). "
            "Score it in the workbench instead."
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
