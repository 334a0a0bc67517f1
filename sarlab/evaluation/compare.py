"""Tables that compare policies with a baseline, on the same held-out questions.

:func:`run_table` has one row a policy, :func:`arm_table` one row an *arm*: the runs that differ in
nothing but the seed, pooled. Both hold paired differences to a baseline of your choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sarlab.evaluation.judge import per_question
from sarlab.evaluation.policies import Evaluated
from sarlab.evaluation.statistics import (
    Array,
    Interval,
    difference_interval,
    pooled_function,
    pooled_interval,
)

AES_ALPHA, AES_BETA, AES_GAMMA = 1.0, 3.0, 5.0
_SHARES = ("accuracy", "truncated_share")
SHOWN_TRUNCATED = 0.05  # share of cut-off answers from which lengths are called lower bounds


def run_table(found: Sequence[Evaluated], baseline: str = "") -> pd.DataFrame:
    """One row a policy and task: what it scores, and its paired differences to the baseline.

    ``baseline``: the label of a run or an arm; empty for the base policy. Columns: see
    :func:`arm_table`. Intervals rest on questions alone.
    """
    singles = [dataclasses.replace(e, arm=e.label) for e in found]
    names = {e.arm: e.label for e in reversed(found)}  # of an arm, its first run
    known = {e.label for e in found}
    chosen = baseline if baseline in known else names.get(baseline, baseline)
    table = arm_table(singles, chosen)
    by_label = {e.label: e for e in found}
    table.insert(1, "arm", [by_label[label].arm for label in table["label"]])
    table.insert(2, "seed", [by_label[label].seed for label in table["label"]])
    return table.drop(columns=["seeds"])


def arm_table(found: Sequence[Evaluated], baseline: str = "") -> pd.DataFrame:
    """One row an arm and task, seeds pooled, with paired differences to the baseline.

    ``baseline``: the label of an arm or of one of its runs; empty for the base policy of the same
    model. Arms are compared seed by seed where they share seeds (the base has none: every seed is
    compared with it), on the same questions; an arm that answered other questions gets no
    difference. Values, each with ``_low`` and ``_high`` (95%): ``accuracy`` and
    ``truncated_share`` (fractions), ``mean_length`` and ``tokens_per_right_answer`` (tokens),
    ``sar``; ``d_accuracy`` and ``d_length`` (differences to the baseline, with ``_p``);
    ``gain_accuracy``, ``gain_length`` (relative changes, fractions) and ``aes``. ``basis`` says
    what the intervals of accuracy rest on, ``note`` warns. ValueError for an unknown baseline.
    """
    if not found:
        raise ValueError("There are no evaluated policies to compare.")
    groups: dict[tuple[str, str, str], list[Evaluated]] = {}
    for entry in found:
        group = groups.setdefault((entry.task, entry.arm, entry.decoding), [])
        if entry.seed not in [e.seed for e in group]:  # a repeated seed is no second draw
            group.append(entry)
    chosen = _baseline_arm(found, baseline)
    lines = []
    for (task, arm, decoding), entries in groups.items():
        line: dict[str, Any] = {
            "label": arm,
            "task": task,
            "decoding": decoding,
            "model": entries[0].model,
            "is_base": entries[0].is_base,
            "seeds": 0 if entries[0].is_base else len(entries),
        }
        line.update(_own_values(entries))
        reference = _reference(groups, task, decoding, chosen, entries[0])
        line["is_baseline"] = reference is not None and reference[0].arm == arm
        line["baseline"] = reference[0].arm if reference else None
        line.update(_against(entries, reference or []))
        line["note"] = _note(line, entries, reference or [])
        lines.append(line)
    return pd.DataFrame(lines)


def _own_values(entries: Sequence[Evaluated]) -> dict[str, Any]:
    line: dict[str, Any] = {
        "questions": len(entries[0].questions),
        "answers": sum(len(e.rows) for e in entries),
    }
    columns = (
        ("accuracy", "correct"),
        ("mean_length", "length"),
        ("truncated_share", "truncated"),
        ("sar", "sar"),
    )
    for name, column in columns:
        by_seed = _matrix(entries, column)
        interval = pooled_interval(by_seed) if by_seed.size else None
        line[name] = float(by_seed.mean()) if by_seed.size else None
        line[f"{name}_low"] = interval.low if interval else None
        line[f"{name}_high"] = interval.high if interval else None
        if name in _SHARES and interval:  # a t interval does not know that a share ends at 0 and 1
            line[f"{name}_low"], line[f"{name}_high"] = (
                max(0.0, interval.low),
                min(1, interval.high),
            )
        if name == "accuracy" and interval:
            line["basis"] = "questions" if entries[0].is_base else interval.basis
    line["median_length"] = float(np.median([r["length"] for e in entries for r in e.rows]))
    finished = [r["length"] for e in entries for r in e.rows if not r["truncated"]]
    line["mean_length_finished"] = float(np.mean(finished)) if finished else None
    pairs = [[_matrix([e], c)[0] for c in ("length", "correct")] for e in entries]
    cost, interval = pooled_function(pairs, _ratio)
    known = bool(np.isfinite(cost))
    line["tokens_per_right_answer"] = cost if known else None
    line["tokens_per_right_answer_low"] = interval.low if known else None
    line["tokens_per_right_answer_high"] = interval.high if known else None
    return line


def _against(entries: Sequence[Evaluated], reference: Sequence[Evaluated]) -> dict[str, Any]:
    names = ("d_accuracy", "d_length", "d_truncated", "gain_accuracy", "gain_length", "aes")
    line: dict[str, Any] = dict.fromkeys(
        f"{name}{end}" for name in names for end in ("", "_low", "_high")
    )
    line.update(d_accuracy_p=None, d_length_p=None, d_basis=None)
    if not reference or reference[0].arm == entries[0].arm:
        return line
    pairs = _pairs(entries, reference)
    if not pairs:
        return line
    for name, column in zip(names, ("correct", "length", "truncated"), strict=False):
        by_seed = np.array([_matrix([a], column)[0] - _matrix([b], column)[0] for a, b in pairs])
        found = pooled_interval(by_seed, difference=True)
        _put(line, name, float(by_seed.mean()), found)
        if f"{name}_p" in line:
            line[f"{name}_p"] = found.p_value
        line["d_basis"] = found.basis if name == "d_accuracy" else line["d_basis"]
    arrays = [
        [_matrix([e], column)[0] for column in ("correct", "length") for e in (b, a)]
        for a, b in pairs
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, function in _GAINS.items():
            estimate, interval = pooled_function(arrays, function)
            _put(line, name, estimate, interval)
    return line


def accuracy_efficiency_score(
    accuracy_base: Array | float,
    accuracy: Array | float,
    length_base: Array | float,
    length: Array | float,
) -> Array:
    """AES = α·ΔL + β·|ΔA| where accuracy did not fall, α·ΔL − γ·|ΔA| where it did.

    ΔL = (L_base − L) / L_base, ΔA = (A − A_base) / A_base, α = 1, β = 3, γ = 5 (Luo et al. 2025,
    O1-Pruner, arXiv 2501.12570). Higher is better, 0 is the baseline. It weighs a loss of accuracy
    above a gain of the same size; other papers use other weights, so compare within one table.
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
        not any(
            other_length <= length
            and other_accuracy >= accuracy
            and (other_length, other_accuracy) != (length, accuracy)
            for other_length, other_accuracy in points
        )
        for length, accuracy in points
    ]


def _note(
    line: Mapping[str, Any], entries: Sequence[Evaluated], reference: Sequence[Evaluated]
) -> str:
    """Warnings about one line of the table: what its numbers do not show by themselves."""
    notes = []
    if line["truncated_share"] > SHOWN_TRUNCATED:
        notes.append(f"{line['truncated_share']:.0%} cut off: lengths are lower bounds")
    limits = {e.limit for e in [*entries, *reference] if e.limit is not None}
    if len(limits) > 1:
        notes.append(f"answer limits differ ({', '.join(map(str, sorted(limits)))} tokens)")
    if reference and line["d_length"] is not None and line["d_length"] < 0:
        # A cut-off answer counts at the limit, shorter than it would have become.
        if line["d_truncated_low"] > 0 or (len(limits) > 1 and line["d_truncated"] > 0):
            notes.append("more answers are cut off than in the baseline: the drop is overstated")
        if line["d_truncated_high"] < 0 and not _shorter_where_both_finish(entries, reference):
            notes.append("shorter only because fewer answers run into the limit")
    if not reference:
        notes.append("answered other questions than the baseline: not compared")
    elif not line["is_baseline"] and line["d_accuracy"] is None:
        notes.append("no seed in common with the baseline: not compared")
    return "; ".join(notes)


def _reference(
    groups: Mapping[tuple[str, str, str], list[Evaluated]],
    task: str,
    decoding: str,
    chosen: str | None,
    entry: Evaluated,
) -> list[Evaluated] | None:
    """The baseline's entries that answered the same questions; None where there are none."""
    for (other_task, arm, other_decoding), entries in groups.items():
        if (other_task, other_decoding) != (task, decoding):
            continue
        wanted = arm == chosen if chosen else entries[0].is_base and entries[0].model == entry.model
        if wanted and all(e.questions == entry.questions for e in entries):
            return entries
    return None


def _baseline_arm(found: Sequence[Evaluated], baseline: str) -> str | None:
    if not baseline or baseline == "base":
        return None
    for entry in found:
        if baseline in (entry.arm, entry.label):
            return entry.arm
    arms = dict.fromkeys(name for e in found for name in (e.arm, e.label))
    raise ValueError(
        f"The baseline {baseline!r} is not among the policies. Choose one of "
        f"{', '.join(map(repr, arms))}, or leave it empty for the base policy."
    )


def _pairs(
    entries: Sequence[Evaluated], reference: Sequence[Evaluated]
) -> list[tuple[Evaluated, Evaluated]]:
    """Equal seeds together; every seed with a base policy, which has none; single runs as such."""
    if entries[0].is_base or reference[0].is_base or len(entries) == len(reference) == 1:
        return [(a, b) for a in entries for b in reference]
    by_seed = {e.seed: e for e in reference}
    return [(e, by_seed[e.seed]) for e in entries if e.seed in by_seed]


def _matrix(entries: Sequence[Evaluated], column: str) -> Array:
    """Values by seed and question [seeds, questions], questions in the order of their ids."""
    found = [per_question(e.rows, column) for e in entries]
    if any(f.keys() != found[0].keys() for f in found):
        labels = ", ".join(e.label for e in entries)
        raise ValueError(
            f"{labels} are seeds of one arm but answered different questions. Train or evaluate "
            "them with the same held-out questions, or compare them in separate folders."
        )
    return np.array([[f[key] for key in f] for f in found], dtype=float)


def _shorter_where_both_finish(
    entries: Sequence[Evaluated], reference: Sequence[Evaluated]
) -> bool:
    """Whether answers got measurably shorter on questions where neither side was cut off."""
    after, before = (
        per_question([r for e in side for r in e.rows if not r["truncated"]], "length")
        for side in (entries, reference)
    )
    changes = [after[key] - before[key] for key in after if key in before]
    return bool(changes) and difference_interval(changes)[1] < 0


def _put(line: dict[str, Any], name: str, estimate: float, interval: Interval) -> None:
    if np.isfinite(estimate):
        line[name], line[f"{name}_low"], line[f"{name}_high"] = (
            estimate,
            interval.low,
            interval.high,
        )


def _ratio(tokens: Array, right: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(tokens / right)
