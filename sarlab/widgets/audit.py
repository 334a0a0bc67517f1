"""What a finished run holds: how answers to one question changed, and which ones look odd. Pure.

The audit that the paper asks for lists answers that are correct, short and have a low SAR: knowing
the question did not make their tokens likelier, so perhaps they were guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
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

    Whichever is nearer is widened: tokens as a share of ``max_length``, SAR on its scale of 1.
    """
    steps = []
    for row in auditable(rows):
        if row.length <= max_length and row.sar <= max_sar:
            continue
        length = max(max_length, row.length)
        sar = max(max_sar, math.ceil(20 * row.sar - 1e-9) / 20)  # the slider has steps of 0.05
        steps.append(((length / max_length - 1) + (sar - max_sar), length, sar))
    if not steps:
        return None
    _, length, sar = min(steps)
    return length, sar


@dataclass(frozen=True)
class RunName:
    """A run folder, its arm and seed as its name says (``sa_grpo_0.2-s1``), and what it logged."""

    path: Path
    arm: str
    seed: str
    has_tokens: bool


def list_runs(paths: Sequence[Path]) -> list[RunName]:
    """Runs, those first whose answers can be shown token by token; else by name."""
    runs = []
    for path in paths:
        arm, mark, seed = path.name.rpartition("-s")
        named = bool(mark) and seed.isdigit()
        runs.append(
            RunName(path, arm if named else path.name, seed if named else "–", has_tokens(path))
        )
    # Among those with tokens the ones trained with SAR come first: they are what this is about.
    return sorted(
        runs, key=lambda run: (not run.has_tokens, not run.arm.startswith("sa_"), run.path.name)
    )


def has_tokens(folder: Path) -> bool:
    """Whether a run logged the log-probs of each token in both contexts (read from a footer)."""
    for part in sorted((folder / "rollouts.parquet").glob("*.parquet"))[:1]:
        try:
            metadata = pq.read_metadata(part)
        except (pa.ArrowException, OSError):
            return False
        if not metadata.num_row_groups:
            return False
        group = metadata.row_group(0)
        columns = [group.column(i) for i in range(group.num_columns)]
        values = [c.num_values for c in columns if c.path_in_schema.startswith(_HEAVY[-1])]
        return bool(values) and values[0] > group.num_rows
    return False


# How to order questions, and which to show: name to a function of a question's rows.
ORDERS: dict[str, Callable[[list[AuditRow]], float]] = {
    "as logged": lambda rows: 0.0,
    "longest": lambda rows: -_mean([r.length for r in _last(rows)]),
    "shortest": lambda rows: _mean([r.length for r in _last(rows)]),
    "highest SAR": lambda rows: -_mean([r.sar or 0.0 for r in _last(rows)]),
    "lowest SAR": lambda rows: _mean([r.sar or 0.0 for r in _last(rows)]),
    "most shortened": lambda rows: (
        _mean([r.length for r in _last(rows)]) - _mean([r.length for r in _first(rows)])
    ),
}
FILTERS: dict[str, Callable[[list[AuditRow]], bool]] = {
    "all": lambda rows: True,
    "right at the end": lambda rows: _mean([r.correct for r in _last(rows)]) >= 0.5,
    "wrong at the end": lambda rows: _mean([r.correct for r in _last(rows)]) < 0.5,
    "became right": lambda rows: (
        _mean([r.correct for r in _first(rows)]) < 0.5 <= _mean([r.correct for r in _last(rows)])
    ),
    "became wrong": lambda rows: (
        _mean([r.correct for r in _last(rows)]) < 0.5 <= _mean([r.correct for r in _first(rows)])
    ),
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
    keys = [
        key
        for key, text in texts.items()
        if all(word in text.lower() for word in words) and FILTERS[shown](groups[key])
    ]
    return {key: texts[key] for key in sorted(keys, key=lambda key: ORDERS[order](groups[key]))}


def _first(rows: list[AuditRow]) -> list[AuditRow]:
    return [row for row in rows if row.step == min(r.step for r in rows)]


def _last(rows: list[AuditRow]) -> list[AuditRow]:
    return [row for row in rows if row.step == max(r.step for r in rows)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


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
