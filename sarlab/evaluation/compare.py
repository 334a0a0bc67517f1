"""Tables that compare policies with a baseline, on the same test questions.

:func:`run_table` has one row per policy, :func:`arm_table` one per *arm*: the runs that differ in
nothing but the seed, pooled. Both hold paired differences to a baseline of your choice.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from sarlab.evaluation.judge import (
    known,
    per_question,
    pooled_difference,
    pooled_values,
    question_means,
)
from sarlab.evaluation.policies import Evaluated
from sarlab.evaluation.statistics import Array, holm, named, pooled_function, pooled_interval

AES_ALPHA, AES_BETA, AES_GAMMA = 1.0, 3.0, 5.0
SHOWN_TRUNCATED = 0.05  # share of truncated answers from which lengths are lower bounds
Name = Literal["arm", "label"]
_DIFFERENCES = {"d_accuracy": "correct", "d_length": "length", "d_truncated": "truncated"}


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
    difference. Values, each with ``_low`` and ``_high`` (95%): ``accuracy`` and
    ``truncated_share`` (fractions), ``mean_length`` and ``tokens_per_right_answer`` (tokens),
    ``sar``; ``d_accuracy`` and ``d_length`` (differences to the baseline, with ``_p``, and
    ``_holm`` corrected for the number of rows); ``gain_accuracy``, ``gain_length`` (relative
    changes, fractions) and ``aes``. ``basis`` says what the intervals of accuracy cover, ``note``
    warns. ValueError for an unknown baseline.
    """
    return _table(policies, baseline, "arm").drop(columns=["arm", "seed"])


def _table(policies: Sequence[Evaluated], baseline: str, name_of: Name) -> pd.DataFrame:
    """One row per task and name, the ``arm`` or the ``label`` of policies."""
    if not policies:
        raise ValueError("There are no evaluated policies to compare.")
    chosen = _baseline(policies, baseline, name_of)
    groups: dict[tuple[str, str, str], list[Evaluated]] = {}
    for entry in policies:
        group = groups.setdefault((entry.task, getattr(entry, name_of), entry.decoding), [])
        if entry.seed not in [e.seed for e in group]:  # a repeated seed is no second draw
            group.append(entry)
    lines = []
    for (task, name, decoding), entries in groups.items():
        if len({e.questions for e in entries}) > 1:
            labels = ", ".join(e.label for e in entries)
            raise ValueError(
                f"{labels} are seeds of one arm but answered different questions. Train or "
                "evaluate them with the same test questions, or compare them in separate "
                "folders."
            )
        first = entries[0]
        other = _reference(groups, (task, decoding), chosen, first)
        reference = groups.get((task, str(other), decoding), [])
        line: dict[str, Any] = {
            "label": name,
            "arm": first.arm,
            "seed": first.seed,
            "task": task,
            "decoding": decoding,
            "model": first.model,
            "is_base": first.is_base,
            "seeds": 0 if first.is_base else len(entries),
            **pooled_values([e.rows for e in entries]),
            **({"basis": "questions"} if first.is_base else {}),
            "is_baseline": other == name,
            "baseline": other,
            **_differences(entries, [] if other == name else reference),
        }
        lines.append({**line, "note": _note(line, entries, reference)})
    table = pd.DataFrame(lines)
    for name in ("d_accuracy", "d_length"):
        place = int(table.columns.get_loc(f"{name}_p")) + 1
        table.insert(place, f"{name}_holm", holm(table[f"{name}_p"].tolist()))
    return table


def _differences(entries: Sequence[Evaluated], reference: Sequence[Evaluated]) -> dict[str, Any]:
    """Paired differences to the reference; all None where there is no pair."""
    pairs = _pairs(entries, reference) if reference else []
    between_runs = len(pairs) == 1 and not (entries[0].is_base or reference[0].is_base)
    rows = [(b.rows, a.rows) for a, b in pairs]
    line: dict[str, Any] = {"d_accuracy_p": None, "d_length_p": None, "d_basis": None}
    if not rows:
        return {k: v for name in (*_DIFFERENCES, *_GAINS) for k, v in named(name).items()} | line
    for name, column in _DIFFERENCES.items():
        difference, interval = pooled_difference(rows, column)
        line |= known(name, difference, interval)
        line["d_basis"] = line["d_basis"] or interval.basis  # that of accuracy
        if f"{name}_p" in line and not between_runs:
            line[f"{name}_p"] = interval.p_value
    arrays = [
        [values for column in ("correct", "length") for values in question_means(pair, column)]
        for pair in rows
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, function in _GAINS.items():
            floor = -1.0 if name != "aes" else -np.inf  # nothing falls by more than all of it
            line |= known(name, *pooled_function(arrays, function, floor=floor))
    return line


def accuracy_efficiency_score(
    accuracy_base: Array | float,
    accuracy: Array | float,
    length_base: Array | float,
    length: Array | float,
) -> Array:
    """AES = α·ΔL + β·|ΔA| where accuracy did not fall, α·ΔL − γ·|ΔA| where it did.

    ΔL = (L_base − L) / L_base, ΔA = (A − A_base) / A_base, α = 1, β = 3, γ = 5 (Luo et al. 2025,
    O1-Pruner, arXiv 2501.12570). Higher is better, 0 is the baseline. A loss of accuracy weighs
    more than a gain, so noise alone pulls the score of an equal policy below 0: by about 0.06 at 36
    questions and 0.03 at 300 (accuracy 80%). Other papers use other weights: compare within one
    table.
    """
    a0, a1, l0, l1 = map(np.asarray, (accuracy_base, accuracy, length_base, length))
    shorter, better = (l0 - l1) / l0, (a1 - a0) / a0
    return np.asarray(AES_ALPHA * shorter + np.where(better >= 0, AES_BETA, AES_GAMMA) * better)


_GAINS: dict[str, Callable[..., Array]] = {
    "gain_accuracy": lambda a0, a1, l0, l1: (a1 - a0) / a0,
    "gain_length": lambda a0, a1, l0, l1: (l1 - l0) / l0,
    "aes": accuracy_efficiency_score,
}


def pareto_front(lengths: Sequence[float], accuracies: Sequence[float]) -> list[bool]:
    """Which points no other one beats: none is as short and as accurate, and better in one."""
    points = list(zip(lengths, accuracies, strict=True))
    return [
        not any(a <= length and b >= accuracy and (a, b) != (length, accuracy) for a, b in points)
        for length, accuracy in points
    ]


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
    if reference and line["d_length"] is not None and line["d_length"] < 0:
        # A truncated answer counts at the limit, shorter than it would have become.
        if line["d_truncated_low"] > 0 or (len(limits) > 1 and line["d_truncated"] > 0):
            notes.append("more answers are truncated than in the baseline: the drop is overstated")
        if line["d_truncated_high"] < 0 and not _shorter_where_both_finish(entries, reference):
            notes.append("shorter only because fewer answers run into the limit")
    if not reference:
        notes.append("answered other questions than the baseline: not compared")
    elif not line["is_baseline"] and line["d_accuracy"] is None:
        notes.append("no seed in common with the baseline: not compared")
    return "; ".join(notes)


def _reference(
    groups: Mapping[tuple[str, str, str], Sequence[Evaluated]],
    place: tuple[str, str],
    chosen: str | None,
    entry: Evaluated,
) -> str | None:
    """The name of the baseline that answered the same questions as the entry, if there is one."""
    for (task, name, decoding), (first, *_) in groups.items():
        is_it = name == chosen if chosen else first.is_base and first.model == entry.model
        if is_it and (task, decoding) == place and first.questions == entry.questions:
            return name
    return None


def _baseline(policies: Sequence[Evaluated], baseline: str, name_of: Name) -> str | None:
    """The name in the table that a run or an arm given as baseline has; None for the base."""
    if not baseline or baseline == "base":
        return None
    kinds = ("label", "arm", name_of)  # the last kind and the first policy go before the others
    names = {getattr(e, kind): getattr(e, name_of) for kind in kinds for e in reversed(policies)}
    if baseline not in names:
        raise ValueError(
            f"The baseline {baseline!r} is not among the policies. Choose one of "
            f"{', '.join(map(repr, names))}, or leave it empty for the base policy."
        )
    return str(names[baseline])


def _pairs(
    entries: Sequence[Evaluated], reference: Sequence[Evaluated]
) -> list[tuple[Evaluated, Evaluated]]:
    """Equal seeds together; every seed with a base policy, which has none; single runs as such."""
    if entries[0].is_base or reference[0].is_base or len(entries) == len(reference) == 1:
        return [(a, b) for a in entries for b in reference]
    by_seed = {e.seed: e for e in reference}
    return [(e, by_seed[e.seed]) for e in entries if e.seed in by_seed]


def _shorter_where_both_finish(
    entries: Sequence[Evaluated], reference: Sequence[Evaluated]
) -> bool:
    """Whether answers got measurably shorter on questions where neither side was truncated."""
    after, before = (
        per_question([r for e in side for r in e.rows if not r["truncated"]], "length")
        for side in (entries, reference)
    )
    changes = (after - before).dropna().to_numpy()
    return len(changes) > 0 and pooled_interval(changes[None]).high < 0
