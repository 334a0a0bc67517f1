"""What a finished run holds: how answers to one question changed, and which ones look odd. Pure.

Answers are rows of a table with the columns of ``rollouts.parquet``. Their tokens stay on disk
until they are looked at: the columns ``part`` and ``place`` say where.

The audit that the paper asks for lists answers that are correct, short and have a low SAR: knowing
the question did not make their tokens likelier, so perhaps they were guessed.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sarlab.rewards.answers import AnswerScore, token_pieces
from sarlab.runs.atomic import read_json
from sarlab.runs.folder import now
from sarlab.runs.rollouts import open_rollouts
from sarlab.runs.trainer_formats import COLUMNS
from sarlab.tasks.rows import read_records

_HEAVY = ("answer_ids", "logps_conditioned", "logps_standalone")
_LIGHT = [
    *("step", "split", "group_id", "question_id", "question", "gold", "answer", "length"),
    *("truncated", "correct", "ppl_conditioned", "ppl_standalone", "sar", "reward", "advantage"),
]
# How to order questions, and which to show: columns of _question_ends.
ORDERS = {
    "as logged": ("steps", False),
    "longest": ("length", False),
    "shortest": ("length", True),
    "highest SAR": ("sar", False),
    "lowest SAR": ("sar", True),
    "most shortened": ("change", True),
}
FILTERS = {
    "all": "steps > 0",
    "right at the end": "right",
    "wrong at the end": "not right",
    "became right": "right and not right_first",
    "became wrong": "right_first and not right",
}

JUMPS = ("most spread", "all wrong", "all right")
NOTES = "annotations.jsonl"
_NOTED = ("step", "question_id", "answer")


def read_audit(folder: str | Path, tokenizer: Any = None) -> pd.DataFrame:
    """The logged answers of a run, by step. Raises ValueError where there are none.

    ``sar`` is missing where the run's reward needed no pass without the question. What another
    trainer wrote (:func:`sarlab.open_rollouts`, which takes the ``tokenizer``) has questions,
    answers and rewards; ``attrs["about"]`` says what was read and what is not in the file.
    """
    parts = sorted((Path(folder) / "rollouts.parquet").glob("*.parquet"))
    if not parts:
        frame = open_rollouts(folder, tokenizer=tokenizer)
        if frame["question"].isna().all():
            raise ValueError(f"No row of {folder} has a question, so nothing can be scored.")
        missing = [name for name in _LIGHT if name not in COLUMNS and name != "group_id"]
        rows = frame.dropna(subset="question").assign(**dict.fromkeys(missing, math.nan))
        rows["question_id"], rows["truncated"] = rows["question"], False
        rows["step"] = rows["step"].fillna(0).astype(int)
        rows.attrs["about"] = " ".join(frame.attrs["notes"])
        return rows.sort_values("step", kind="stable", ignore_index=True)
    frames = []
    for part in parts:
        try:
            table = pq.read_table(part, columns=_LIGHT)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{part} cannot be read as a part of a run: {error}.") from error
        if table.column_names != _LIGHT:
            raise ValueError(
                f"{part} has columns of another version of sarlab. Read it with that version."
            )
        frames.append(table.to_pandas().assign(part=part, place=range(len(table))))
    rows = pd.concat(frames).astype({"sar": float, "reward": float, "advantage": float})
    return rows.sort_values(["step", "group_id"], kind="stable", ignore_index=True)


def groups_like(rows: pd.DataFrame, kind: str) -> list[tuple[str, int]]:
    """Groups of two or more answers as (question id, step) of one of :data:`JUMPS`.

    Those with the widest spread of rewards come first; the others in the order of steps.
    """
    if rows.empty:
        return []
    groups = rows.astype({"correct": float}).groupby(["question_id", "step"])
    columns = {"answers": ("answer", "size"), "spread": ("reward", "std")}
    table = groups.agg(right=("correct", "mean"), **columns)
    table = table.sort_values("spread", ascending=False, kind="stable")
    if kind != JUMPS[0]:
        table = table.sort_index(level="step", kind="stable", sort_remaining=False)
    wanted = {JUMPS[0]: "spread > 0", JUMPS[1]: "right == 0", JUMPS[2]: "right == 1"}[kind]
    return [*table.query(f"answers > 1 and {wanted}").index]


def read_notes(folder: str | Path) -> dict[tuple[Any, ...], str]:
    """What readers noted on answers of a run, by :func:`note_key`; "" where it was taken back."""
    path = Path(folder) / NOTES
    lines = read_records(path, notes=[]) if path.exists() else ()
    return {tuple(map(line.get, _NOTED)): str(line.get("note", "")) for _, line in lines}


def note_key(row: Any) -> tuple[Any, ...]:
    """What a note belongs to: a step, a question, a text."""
    return tuple(getattr(row, name) for name in _NOTED)


def write_note(folder: str | Path, row: Any, note: str) -> None:
    """Keep a note on an answer beside its run: a line per change in ``annotations.jsonl``."""
    line = {**dict(zip(_NOTED, note_key(row), strict=True)), "note": note, "when": now()}
    with (Path(folder) / NOTES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _question_ends(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per question: means at its first and last logged step; half right counts as right."""
    means = rows.groupby(["question_id", "step"])[["correct", "length", "sar"]].mean()
    ends = means.reset_index("step").groupby("question_id")
    first, last = ends.nth(0), ends.nth(-1)
    return pd.DataFrame(
        {
            "question": rows.groupby("question_id")["question"].first(),
            "steps": ends.size(),
            "right_first": first["correct"] >= 0.5,
            "right": last["correct"] >= 0.5,
            "length": last["length"],
            "change": last["length"] - first["length"],
            "sar": last["sar"],
        }
    ).reindex(rows["question_id"].unique())


def choose_questions(
    rows: pd.DataFrame, search: str = "", shown: str = "all", order: str = "as logged"
) -> dict[str, str]:
    """Question id to text: those that hold ``search`` and pass a filter, in an order.

    "As logged" has those first that were answered at the most steps (the probes).
    """
    if rows.empty:
        return {}
    column, ascending = ORDERS[order]
    words = search.lower().split()
    ends = _question_ends(rows).sort_values("steps", ascending=False, kind="stable")
    ends = ends.query(FILTERS[shown]).sort_values(column, ascending=ascending, kind="stable")
    texts = ends["question"].to_dict()
    return {key: text for key, text in texts.items() if all(w in text.lower() for w in words)}


def steps_of(rows: pd.DataFrame, question_id: str) -> list[int]:
    """The steps at which a question was answered."""
    return sorted(rows["step"][rows["question_id"] == question_id].unique().tolist())


def short_with_low_sar(rows: pd.DataFrame, max_length: int, max_sar: float) -> pd.DataFrame:
    """Correct answers of at most ``max_length`` tokens with a SAR of at most ``max_sar``.

    Lowest SAR first; answers that were truncated, or have no SAR, are left out.
    """
    listed = auditable(rows).query("length <= @max_length and sar <= @max_sar")
    return listed.sort_values(["sar", "length", "step"], kind="stable")


def auditable(rows: pd.DataFrame) -> pd.DataFrame:
    """Correct answers that ended by themselves and have a SAR."""
    return rows[rows["correct"] & ~rows["truncated"] & rows["sar"].notna()]


def next_wider(rows: pd.DataFrame, max_length: int, max_sar: float) -> tuple[int, float] | None:
    """Thresholds one step wider that list at least one more answer; None where there is none.

    Of all such thresholds the ones that pass the fewest answers of this run, be it by length or by
    SAR: what is short and what is low depends on the run.
    """
    rows = auditable(rows)
    outside = rows.query("length > @max_length or sar > @max_sar")
    limits = pd.DataFrame(
        {
            "length": outside["length"].clip(lower=max_length),
            "sar": (np.ceil(20 * outside["sar"] - 1e-9) / 20).clip(lower=max_sar),  # slider's steps
        }
    )
    if limits.empty:
        return None
    passed = [
        rows[name].sort_values().searchsorted(limits[name], "right") - rows[name].le(low).sum()
        for name, low in (("length", max_length), ("sar", max_sar))
    ]
    limits["passed"] = np.maximum(*passed)
    best = limits.sort_values(["passed", "length", "sar"]).iloc[0]
    return int(best["length"]), float(best["sar"])


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
    return sorted(runs, key=lambda r: (not r.has_tokens, not r.arm.startswith("sa_"), r.path.name))


def has_tokens(folder: Path) -> bool:
    """Whether a run logged the log-probs of each token in both contexts."""
    for part in sorted((folder / "rollouts.parquet").glob("*.parquet"))[:1]:
        try:
            column = pq.read_table(part, columns=["logps_standalone"]).column(0)
        except (pa.ArrowException, OSError):
            return False
        return bool(pc.sum(pc.list_value_length(column)).as_py())
    return False


def row_score(row: Any, tokenizer: Any) -> AnswerScore:
    """The token view's record of a logged answer: the log-probs that training saw, nothing run.

    Raises ValueError for a row whose run did not log both contexts.
    """
    ids: tuple[int, ...] = ()
    if not pd.isna(row.sar):
        logged = pq.read_table(row.part, columns=list(_HEAVY)).slice(row.place, 1).to_pylist()[0]
        ids, conditioned, standalone = (tuple(logged[name] or ()) for name in _HEAVY)
    if not ids or len(standalone) != len(ids):
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
    config = Path(folder) / "config.json"
    model = read_json(config).get("model")
    if model is None:
        raise ValueError(f"{config} does not name the run's model. Choose a run folder of sarlab.")
    return str(model)
