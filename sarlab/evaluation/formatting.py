"""Comparisons for reading: their tables as text, and answers tinted by behaviour as HTML.

One frame of numbers (:mod:`sarlab.evaluation.compare`) gives one frame of text, which
:func:`sarlab.display.tables.html_table`, ``markdown_table`` or ``to_string`` then write.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sarlab.display.tables import Column, html_table, text_table, views
from sarlab.display.text import plain, shortened
from sarlab.evaluation.behaviours import label_sentences
from sarlab.evaluation.compare import run_table
from sarlab.evaluation.policies import recorded
from sarlab.evaluation.statistics import holm

ONE_SEED = "one seed per run: intervals cover the questions, not other seeds"
_VALUES = (
    Column("accuracy (%)", "accuracy", 1, 100),
    Column("mean length (tokens)", "mean_length", 1),
    Column("median", "median_length", 0),
    Column("truncated (%)", "truncated", 1, 100),
    Column("SAR", "sar", 3),
    Column("tokens per right answer", "tokens_per_right_answer", 1),
    Column("intervals cover", "basis"),
)
_TEMPLATE = "report.html"


def values_table(table: pd.DataFrame) -> pd.DataFrame:
    """What each policy scores, as text; ``table``: of ``compare.arm_table`` or ``run_table``."""
    columns = _policy_columns(table)
    shown = table.assign(truncated=table["truncated_share"])
    if "seeds" in table:
        columns.append(Column("seeds", "seeds"))
        shown["seeds"] = [str(s) if s else None for s in table["seeds"]]
    return text_table(shown, [*columns, *_VALUES])


def differences_table(table: pd.DataFrame) -> pd.DataFrame:
    """How each policy differs from the baseline, paired, as text; the baseline itself left out.

    The baseline and the note have a column only where they say different things, or anything;
    p-values corrected for the number of rows only where there are several.
    """
    rest = table[~table["is_baseline"]]
    several = (rest["d_length_p"].notna() | rest["d_accuracy_p"].notna()).sum() > 1
    columns = _policy_columns(table)
    if rest["baseline"].nunique(dropna=False) > 1:
        columns.append(Column("baseline", "baseline"))
    for name, unit, factor in (("accuracy", "points", 100.0), ("length", "tokens", 1.0)):
        columns.append(Column(f"Δ {name} ({unit})", f"d_{name}", 1, factor, "+"))
        if rest[f"d_{name}_p"].notna().any():
            columns.append(Column(f"p ({name})", f"d_{name}_p"))
            if several:
                columns.append(Column(f"p ({name}, Holm)", f"d_{name}_holm"))
    columns += [
        Column("Δ length (%)", "gain_length", 1, 100, "+"),
        Column("Δ truncated (points)", "truncated", 1, 100, "+"),
        Column("AES", "aes", 2, 1, "+"),
        Column("intervals cover", "d_basis"),
    ]
    if any(rest["note"]):
        columns.append(Column("note", "note"))
    return text_table(rest.assign(truncated=rest["d_truncated"]), columns)


def _policy_columns(table: pd.DataFrame) -> list[Column]:
    several = table["task"].nunique() > 1
    return [Column("policy", "label"), *([Column("task", "task")] if several else [])]


def head_of(table: pd.DataFrame) -> str:
    """What must stand above a table: that seeds are not covered where each row is one run."""
    return "" if "seeds" in table and (table["seeds"] > 1).any() else ONE_SEED


def run_summary(folder: str | Path) -> pd.DataFrame:
    """Base and trained policy of one finished run: the two rows of a ``run_table``.

    Raises ValueError where the folder is not a finished run, or its record is damaged.
    """
    base, trained = recorded([folder])
    if base.questions != trained.questions:
        raise ValueError(
            f"{folder}: base and trained policy answered different questions, so the run's record "
            "is damaged. Evaluate it anew with sarlab.evaluation.policies.fresh."
        )
    return run_table([base, trained])


def pair_table(table: pd.DataFrame) -> pd.DataFrame:
    """Base against one trained policy, as text: one row per quantity. ``table``: two rows."""
    base, trained = table.to_dict("records")
    ps = holm([trained["d_accuracy_p"], trained["d_length_p"]])
    trained |= {"d_accuracy_holm": ps[0], "d_length_holm": ps[1]}
    lines = []
    for title, name, digits, factor, change in (
        ("accuracy (%)", "accuracy", 1, 100, "d_accuracy"),
        ("mean length (tokens)", "mean_length", 1, 1, "d_length"),
        ("change of length (%)", "", 1, 100, "gain_length"),
        ("median length (tokens)", "median_length", 0, 1, ""),
        ("truncated (%)", "truncated_share", 1, 100, "d_truncated"),
        ("self-aligned reward", "sar", 3, 1, ""),
        ("tokens per right answer", "tokens_per_right_answer", 1, 1, ""),
        ("AES", "", 2, 1, "aes"),
    ):
        line = {"quantity": title}
        for head, row, key, sign in (
            ("base", base, name, ""),
            ("trained", trained, name, ""),
            ("difference", trained, change, "+"),
            ("p", trained, f"{change}_p", ""),
            ("p (Holm)", trained, f"{change}_holm", ""),
        ):
            line[head] = Column("", key, digits, factor, sign).text(row) if key in row else ""
        lines.append(line)
    return pd.DataFrame(lines)


def behaviour_text(change: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`sarlab.evaluation.behaviours.behaviour_change` as text."""
    names = [str(name).replace("_", " ") for name in change.index]
    shown = change.assign(name=names, difference_low=change["low"], difference_high=change["high"])
    columns = (
        Column("per answer", "name"),
        Column("base", "base", 2),
        Column("trained", "other", 2),
        Column("difference", "difference", 2, 1, "+"),
    )
    return text_table(shown, columns)


def tinted_answer(row: Mapping[str, Any]) -> str:
    """One answer as HTML, its sentences tinted by behaviour; all of its text is escaped."""
    answer, parts, position = str(row["answer"]), [], 0
    for start, end, names in label_sentences(answer, str(row["question"])):
        parts += [(_lines(answer[position:start]), ()), (_lines(answer[start:end]), names)]
        position = end
    return str(views(_TEMPLATE).answer(row, [*parts, (_lines(answer[position:]), ())]))


def tinted_pair(base: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """A question with the answers of two policies side by side, folded away."""
    question = str(base["question"])
    answers = pd.DataFrame({"base": [tinted_answer(base)], "trained": [tinted_answer(other)]})
    side_by_side = html_table(answers, markup=tuple(answers))
    opening = shortened(question, 90)
    return str(views(_TEMPLATE).pair(base, other, opening, _lines(question), side_by_side))


def tint_legend() -> str:
    """What the tints of :func:`tinted_answer` mean."""
    return str(views(_TEMPLATE).legend())


def _lines(text: str) -> str:
    return plain(text).replace("\n", "<br>")
