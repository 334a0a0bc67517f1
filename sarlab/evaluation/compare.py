"""Tables that compare policies with a baseline on the same test questions, and their text.

:func:`run_table` has one row per policy, :func:`arm_table` one per *arm*: the runs that differ in
nothing but the seed, pooled. Both hold paired differences to a baseline of your choice; the other
tables are made of them, as text that :mod:`sarlab.display.tables` writes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sarlab.display.tables import Column, text_table
from sarlab.evaluation.judge import pooled_difference, pooled_values, question_means
from sarlab.evaluation.policies import Evaluated
from sarlab.evaluation.statistics import Array, holm, named, pooled_function, pooled_interval

SHOWN_TRUNCATED = 0.05  # share of truncated answers from which lengths are lower bounds
ONE_SEED = "one seed per run: intervals cover the questions, not other seeds"
_DIFFERENCES = {"d_accuracy": "correct", "d_length": "length", "d_truncated": "truncated"}
# Columns of numbers and their titles in tables of text: what a policy scores, how it differs from
# another; digits, and factor.
_SHOWN = (
    ("accuracy", "accuracy (%)", "d_accuracy", "Δ accuracy (points)", 1, 100),
    ("mean_length", "mean length (tokens)", "d_length", "Δ length (tokens)", 1, 1),
    ("median_length", "median", "", "", 0, 1),
    ("", "", "gain_length", "Δ length (%)", 1, 100),
    ("truncated_share", "truncated (%)", "d_truncated", "Δ truncated (points)", 1, 100),
    ("sar", "SAR", "", "", 3, 1),
    ("tokens_per_right_answer", "tokens per right answer", "", "", 1, 1),
    ("", "", "aes", "AES", 2, 1),
)


def accuracy_efficiency_score(
    accuracy_base: Array | float,
    accuracy: Array | float,
    length_base: Array | float,
    length: Array | float,
) -> Array:
    """AES = ΔL + 3·|ΔA| where accuracy did not fall, ΔL − 5·|ΔA| where it did.

    ΔL = (L_base − L) / L_base, ΔA = (A − A_base) / A_base (Luo et al. 2025, O1-Pruner, arXiv
    2501.12570). Higher is better, 0 is the baseline. A loss of accuracy weighs more than a gain, so
    noise alone pulls the score of an equal policy below 0: by about 0.06 at 36 questions and 0.03
    at 300 (accuracy 80%). Other papers use other weights: compare within one table.
    """
    better = (np.asarray(accuracy) - accuracy_base) / accuracy_base
    shorter = (np.asarray(length_base) - length) / length_base
    return np.asarray(shorter + np.where(better >= 0, 3.0, 5.0) * better)


_GAINS: dict[str, Callable[..., Array]] = {
    "gain_accuracy": lambda a0, a1, l0, l1: (a1 - a0) / a0,
    "gain_length": lambda a0, a1, l0, l1: (l1 - l0) / l0,
    "aes": accuracy_efficiency_score,
}


def run_table(policies: Sequence[Evaluated], baseline: str = "") -> pd.DataFrame:
    """One row per policy and task: what it scores, and its paired differences to the baseline.

    ``baseline``: the label of a run, or an arm (then its first run); empty for the base policy.
    Columns: those of :func:`arm_table`, and ``arm`` and ``seed``. Intervals cover questions, not
    seeds, and there is no p-value between two runs: one seed each cannot tell arms apart.
    """
    return _table(policies, baseline, "label").drop(columns=["seeds"])


def arm_table(policies: Sequence[Evaluated], baseline: str = "") -> pd.DataFrame:
    """One row per arm and task, pooled over seeds, with paired differences to the baseline.

    ``baseline``: the label of an arm or of one of its runs; empty for the base policy of the same
    model. Arms are compared seed by seed where they share seeds (the base has none: every seed is
    compared with it), on the same questions; an arm that answered other questions gets no
    difference (NaN). Values, each with ``_low`` and ``_high`` (95%): ``accuracy`` and
    ``truncated_share`` (fractions), ``mean_length`` and ``tokens_per_right_answer`` (tokens),
    ``sar``; ``d_accuracy`` and ``d_length`` (differences to the baseline, with ``_p``, and
    ``_holm`` corrected for the number of rows); ``gain_accuracy``, ``gain_length`` (relative
    changes, fractions) and ``aes``. ``basis`` says what the intervals of accuracy cover, ``note``
    warns. ValueError for an unknown baseline.
    """
    return _table(policies, baseline, "arm").drop(columns=["arm", "seed"])


def _table(policies: Sequence[Evaluated], baseline: str, name_of: str) -> pd.DataFrame:
    """One row per task and name, the ``arm`` or the ``label`` of policies."""
    if not policies:
        raise ValueError("There are no evaluated policies to compare.")
    chosen = {getattr(e, name_of) for e in policies if baseline in (e.label, e.arm)}
    to_base = baseline in ("", "base")
    if not (chosen or to_base):
        names = dict.fromkeys(repr(name) for e in policies for name in (e.arm, e.label))
        raise ValueError(
            f"The baseline {baseline!r} is not among the policies. Choose one of "
            f"{', '.join(names)}, or leave it empty for the base policy."
        )
    by_seed: dict[tuple[str, str, str], dict[int | None, Evaluated]] = {}
    for entry in policies:
        place = (entry.task, entry.decoding, getattr(entry, name_of))
        by_seed.setdefault(place, {}).setdefault(entry.seed, entry)  # a seed run twice counts once
    groups = [[*entries.values()] for entries in by_seed.values()]
    lines = []
    for entries in groups:
        first = entries[0]
        if any(e.questions != first.questions for e in entries):
            labels = ", ".join(e.label for e in entries)
            raise ValueError(
                f"{labels} are seeds of one arm but answered different questions. Train or "
                "evaluate them with the same test questions, or compare them in separate "
                "folders."
            )
        alike = [group for group in groups if group[0].asked == first.asked]
        if to_base:
            alike = [group for group in alike if group[0].is_base and group[0].model == first.model]
        else:
            alike = [group for group in alike if getattr(group[0], name_of) in chosen]
        reference = alike[0] if alike else []
        is_baseline = reference is entries
        line: dict[str, Any] = {
            "label": getattr(first, name_of),
            "arm": first.arm,
            "seed": first.seed,
            "task": first.task,
            "decoding": first.decoding,
            "model": first.model,
            "is_base": first.is_base,
            "seeds": 0 if first.is_base else len(entries),
            **pooled_values([e.rows for e in entries]),
            "basis": "questions" if first.is_base else _basis(entries),
            "is_baseline": is_baseline,
            "baseline": getattr(reference[0], name_of) if reference else None,
            **_differences(entries, [] if is_baseline else reference),
        }
        lines.append({**line, "note": _note(line, entries, reference)})
    table = pd.DataFrame(lines)
    for name in ("d_accuracy", "d_length"):
        table[f"{name}_holm"] = holm(table[f"{name}_p"].tolist())
    return table


def _differences(entries: Sequence[Evaluated], reference: Sequence[Evaluated]) -> dict[str, Any]:
    """Paired differences to the reference; all NaN where there is no pair.

    Equal seeds make a pair; so does every seed with a base policy, which has none, and two runs.
    """
    single = len(entries) == len(reference) == 1
    pairs = [
        (before.rows, after.rows)
        for after in entries
        for before in reference
        if single or after.is_base or before.is_base or after.seed == before.seed
    ]
    line: dict[str, Any] = {"d_accuracy_p": np.nan, "d_length_p": np.nan, "d_basis": None}
    if not pairs:
        return {k: v for name in (*_DIFFERENCES, *_GAINS) for k, v in named(name).items()} | line
    line["d_basis"] = _basis(pairs)
    tells_arms_apart = len(pairs) > 1 or entries[0].is_base or reference[0].is_base
    for name, column in _DIFFERENCES.items():
        difference, interval = pooled_difference(pairs, column)
        line |= named(name, difference, interval)
        if f"{name}_p" in line and tells_arms_apart:
            line[f"{name}_p"] = interval.p_value
    means = [
        [side for column in ("correct", "length") for side in question_means(pair, column)]
        for pair in pairs
    ]
    for name, function in _GAINS.items():
        floor = -1.0 if name != "aes" else -np.inf  # nothing falls by more than all of it
        line |= named(name, *pooled_function(means, function, floor=floor))
    return line


def _basis(seeds: Sequence[Any]) -> str:
    """What intervals over these seeds, or pairs of seeds, cover."""
    return "questions, 1 seed" if len(seeds) == 1 else f"questions and {len(seeds)} seeds"


def _note(
    line: Mapping[str, Any], entries: Sequence[Evaluated], reference: Sequence[Evaluated]
) -> str:
    """Warnings about one line of the table: what its numbers do not show by themselves."""
    notes = []
    if line["truncated_share"] > SHOWN_TRUNCATED:
        notes.append(f"{line['truncated_share']:.0%} truncated: lengths are lower bounds")
    limits = {e.limit for e in [*entries, *reference] if e.limit is not None}
    if len(limits) > 1:
        notes.append(f"answer limits differ ({', '.join(map(str, sorted(limits)))} tokens)")
    if line["d_length"] < 0:
        # A truncated answer counts at the limit, shorter than it would have become.
        if line["d_truncated_low"] > 0 or (len(limits) > 1 and line["d_truncated"] > 0):
            notes.append("more answers are truncated than in the baseline: the drop is overstated")
        if line["d_truncated_high"] < 0:
            finished = [
                [row for e in side for row in e.rows if not row["truncated"]]
                for side in (reference, entries)
            ]
            changes = np.diff(question_means(finished, "length"), axis=0)
            if not changes.size or pooled_interval(changes).high >= 0:
                notes.append("shorter only because fewer answers run into the limit")
    if not reference:
        notes.append("answered other questions than the baseline: not compared")
    elif not line["is_baseline"] and np.isnan(line["d_accuracy"]):
        notes.append("no seed in common with the baseline: not compared")
    return "; ".join(notes)


# --- tables as text -----------------------------------------------------------------------------


def values_table(table: pd.DataFrame) -> pd.DataFrame:
    """What each policy scores, as text; ``table``: of :func:`arm_table` or :func:`run_table`."""
    shown = table.drop(columns=["truncated_share_low", "truncated_share_high"])
    columns = _policy_columns(table)
    if "seeds" in table:
        shown["seeds"] = [str(s) if s else None for s in table["seeds"]]
        columns.append(Column("seeds", "seeds"))
    for name, title, _, _, digits, factor in _SHOWN:
        columns += [Column(title, name, digits, factor)] if name else []
    return text_table(shown, [*columns, Column("intervals cover", "basis")])


def differences_table(table: pd.DataFrame) -> pd.DataFrame:
    """How each policy differs from the baseline, paired, as text; the baseline itself left out.

    The baseline and the note have a column only where they say different things, or anything;
    p-values corrected for the number of rows only where there are several.
    """
    rest = table[~table["is_baseline"]].drop(columns=["d_truncated_low", "d_truncated_high"])
    several = rest[["d_length_p", "d_accuracy_p"]].notna().any(axis=1).sum() > 1
    columns = _policy_columns(table)
    if rest["baseline"].nunique(dropna=False) > 1:
        columns.append(Column("baseline", "baseline"))
    for _, _, name, title, digits, factor in _SHOWN:
        columns += [Column(title, name, digits, factor, "+")] if name else []
        if f"{name}_p" in rest and rest[f"{name}_p"].notna().any():
            columns.append(Column(f"p ({name[2:]})", f"{name}_p"))
            columns += [Column(f"p ({name[2:]}, Holm)", f"{name}_holm")] if several else []
    columns.append(Column("intervals cover", "d_basis"))
    columns += [Column("note", "note")] if any(rest["note"]) else []
    return text_table(rest, columns)


def pair_table(table: pd.DataFrame) -> pd.DataFrame:
    """Base against one trained policy, as text: one row per quantity. ``table``: two rows."""
    base, trained = table.to_dict("records")
    ps = holm([trained["d_accuracy_p"], trained["d_length_p"]])
    trained |= {"d_accuracy_holm": ps[0], "d_length_holm": ps[1]}
    lines = []
    for name, title, change, change_title, digits, factor in _SHOWN:
        line = {"quantity": title or change_title}
        for head, row, column, sign in (
            ("base", base, name, ""),
            ("trained", trained, name, ""),
            ("difference", trained, change, "+"),
            ("p", trained, f"{change}_p", ""),
            ("p (Holm)", trained, f"{change}_holm", ""),
        ):
            cell = Column(head, column, digits, factor, sign)
            line[head] = cell.text(row) if column in row else ""
        lines.append(line)
    return pd.DataFrame(lines)


def _policy_columns(table: pd.DataFrame) -> list[Column]:
    several = table["task"].nunique() > 1
    return [Column("policy", "label"), *([Column("task", "task")] if several else [])]


def head_of(table: pd.DataFrame) -> str:
    """What must stand above a table: that seeds are not covered where each row is one run."""
    return "" if "seeds" in table and (table["seeds"] > 1).any() else ONE_SEED
