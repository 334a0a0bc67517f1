"""Tables of claims for reading: numbers with their intervals as text."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sarlab.audit.claims import SCORES
from sarlab.display.tables import Column, text_table


def labels_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`sarlab.audit.claims.label_table` as text."""
    columns = (
        Column("label", "label"),
        Column("answers", "answers"),
        Column("right (%)", "right", 0, 100),
        Column("mean tokens", "tokens", 0),
        Column("mean SAR", "sar", 3, 1, "+"),
        Column("log form (nats)", "log_sar", 2, 1, "+"),
        Column("log ppl(a|q)", "log_ppl", 2),
        Column("log ppl(a)", "ppl_standalone", 2),
        Column("at the clip of −1 (%)", "clipped", 0, 100),
    )
    return text_table(_words(table, "label").assign(log_ppl=-table["confidence"]), columns)


def claims_text(
    table: pd.DataFrame, score: str = "sar", *, equal_length: bool = False
) -> pd.DataFrame:
    """How one score does on every claim, as text: of :func:`sarlab.audit.claims.claim_table`."""
    prefix = "equal_" if equal_length else ""
    columns = (
        Column("claim", "claim"),
        Column("number of pairs", f"{prefix}pairs"),
        Column("in order (%)", f"{prefix}share", 1, 100),
        Column("AUC", f"{prefix}auc", 3),
        *(() if equal_length else (Column("effect size d", "effect", 2, 1, "+"),)),
    )
    return text_table(_words(table[table["score"] == score], "claim"), columns)


def scores_text(table: pd.DataFrame, name: str = "share") -> pd.DataFrame:
    """One measure of :func:`sarlab.audit.claims.claim_table` as text, one column per score.

    ``name``: share, auc or effect, or with ``equal_`` before one of the first two; shares in
    percent.
    """
    cell = Column("", name, 0, 100) if name.endswith("share") else Column("", name, 2)
    return pivot_text(table.assign(head=table["score"].map(SCORES)), cell, "claim", "head")


def groups_text(table: pd.DataFrame) -> pd.DataFrame:
    """Right against wrong within groups, as text: of :func:`sarlab.audit.claims.group_table`."""
    mixed = [f"{m} of {n}" for m, n in zip(table["mixed_groups"], table["groups"], strict=True)]
    columns = (
        Column("policy", "model"),
        Column("right (%)", "accuracy", 1, 100),
        Column("groups with both", "mixed"),
        Column("score", "score"),
        Column("AUC within groups", "share", 3),
        Column("effect size d", "effect", 2, 1, "+"),
        Column("number of pairs", "pairs"),
        Column("of equal length", "equal_pairs"),
        Column("AUC, equal length", "equal_share", 3),
    )
    return text_table(table.assign(mixed=mixed, score=table["score"].map(SCORES)), columns)


def options_text(table: pd.DataFrame) -> pd.DataFrame:
    """Share in order (%) by option, as text: of :func:`sarlab.audit.claims.option_table`.

    The log form has one column, that of the defaults: empty turn, with end token.
    """
    default = (table["standalone"] == "empty_turn") & table["end_token"]
    shown = table[(table["score"] == "sar") | default]
    contexts = shown["standalone"].str.replace("_", " ")
    heads = contexts + shown["end_token"].map({True: ", with end token", False: ", no end token"})
    heads = heads.mask(shown["score"] == "log_sar", "log form")
    if shown["model"].nunique() > 1:
        heads = shown["model"] + ": " + heads
    return pivot_text(shown.assign(head=heads), Column("", "share", 0, 100), "claim", "head")


def pivot_text(
    table: pd.DataFrame, cell: Column, row: str, head: str, mark: Any = ""
) -> pd.DataFrame:
    """One cell as text, by two columns of the table and in their order; ``mark`` behind each."""
    shown = _words(table, "claim").assign(text=text_table(table, [cell])[""].to_numpy() + mark)
    wide = shown.pivot(index=row, columns=head, values="text")
    wide = wide.loc[shown[row].unique(), shown[head].unique()]
    return wide.rename_axis(columns=None).reset_index()


def _words(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    words = {c: table[c].astype(str).str.replace("_", " ") for c in columns if c in table}
    return table.assign(**words)
