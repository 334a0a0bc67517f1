"""What a finished run shows in the training notebook, as static HTML that outlives the kernel."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from IPython.display import HTML

from sarlab.display.figures import BLUE
from sarlab.runs.folder import read_rollouts

_GREY = "rgba(128,128,128,0.25)"
_CELL = "text-align:left;vertical-align:top;padding:4px 16px 4px 0"
_TEXT = "white-space:pre-wrap;font-family:monospace;font-size:12px"


def progress_html(done: int, total: int, lines: Sequence[str], warnings: Sequence[str] = ()) -> str:
    """How far a run is: lines of text, a bar, and warnings below it."""
    share = done / total if total else 0.0
    text = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
    below = "".join(f"<div><b>!</b> {html.escape(m)}</div>" for m in warnings)
    return (
        f'<div class="sarlab-training" style="line-height:1.6">{text}'
        f'<div role="progressbar" aria-label="training steps" aria-valuemin="0" '
        f'aria-valuemax="{total}" aria-valuenow="{done}" style="background:{_GREY};height:6px;'
        f'border-radius:3px;max-width:640px;margin:2px 0 4px"><div style="background:{BLUE};'
        f'height:6px;border-radius:3px;width:{share:.1%}"></div></div>{below}</div>'
    )


def show_summary(summary: Mapping[str, Any]) -> HTML:
    """Base against trained; what to do next where a run was stopped before that was judged."""
    if "trained" in summary:
        return HTML(summary_html(summary))
    return HTML(
        f"<div>The run was stopped after {summary['steps']} steps, before its held-out test. "
        "To go on, set its <code>name</code> and <code>resume = True</code>, and run the notebook "
        "again.</div>"
    )


def show_examples(folder: str | Path, count: int = 3) -> HTML:
    """The first probe questions, answered before training and at its end."""
    if not list(Path(folder).glob("rollouts.parquet/probe-*.parquet")):
        return HTML("<div>No question was answered before the run was stopped.</div>")
    return HTML(examples_html(folder, count))


def summary_html(summary: Mapping[str, Any]) -> str:
    """Base against trained as a table: value, 95% interval, paired difference."""
    base, trained, change = summary["base"], summary["trained"], summary["difference"]
    rows = [
        (
            "accuracy",
            _share(base, "accuracy"),
            _share(trained, "accuracy"),
            _points(change["accuracy"]),
        ),
        (
            "mean length, tokens",
            _tokens(base, "mean_length"),
            _tokens(trained, "mean_length"),
            _relative(change["mean_length"], base["mean_length"]),
        ),
        (
            "cut off at the limit",
            f"{base['truncated_share']:.1%}",
            f"{trained['truncated_share']:.1%}",
            "",
        ),
        ("mean SAR", _number(base["sar"]), _number(trained["sar"]), ""),
        (
            "tokens per right answer",
            _number(base["tokens_per_right_answer"], 1),
            _number(trained["tokens_per_right_answer"], 1),
            "",
        ),
    ]
    body = "".join(
        f'<tr><td style="{_CELL}"><b>{name}</b></td>'
        + "".join(f'<td style="{_CELL}">{html.escape(cell)}</td>' for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    head = "".join(
        f'<th style="{_CELL}">{title}</th>' for title in ("", "base", "trained", "difference")
    )
    note = (
        f"{trained['questions']} held-out questions · {summary['steps']} steps in "
        f"{summary['train_seconds']:.0f} s · {summary['hardware']}"
    )
    return f"<table><tr>{head}</tr>{body}</table><div>{html.escape(note)}</div>"


def examples_html(folder: str | Path, count: int = 3) -> str:
    """The first probe questions with one answer from before training and one from its end."""
    rows = read_rollouts(folder, "probe").to_pylist()
    first, last = min(r["step"] for r in rows), max(r["step"] for r in rows)
    by_question: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by_question[row["question"]].setdefault(row["step"], row)
    parts = []
    for question, steps in list(by_question.items())[:count]:
        cells = "".join(_answer_cell(steps[step], step) for step in (first, last))
        parts.append(
            f'<tr><td colspan="2" style="{_CELL};padding-top:14px"><b>{html.escape(question)}</b>'
            f"</td></tr><tr>{cells}</tr>"
        )
    return f"<table>{''.join(parts)}</table>"


def _answer_cell(row: Mapping[str, Any], step: int) -> str:
    verdict = "right" if row["correct"] else "wrong"
    sar = "" if row["sar"] is None else f", SAR {row['sar']:+.2f}"
    return (
        f'<td style="{_CELL};min-width:280px"><div>step {step}: {verdict}, {row["length"]} '
        f'tokens{sar}</div><div style="{_TEXT}">{html.escape(row["answer"])}</div></td>'
    )


def _share(summary: Mapping[str, Any], name: str) -> str:
    low, high = summary[f"{name}_ci95"]
    return f"{summary[name]:.1%}  [{low:.1%}, {high:.1%}]"


def _tokens(summary: Mapping[str, Any], name: str) -> str:
    low, high = summary[f"{name}_ci95"]
    return f"{summary[name]:.1f}  [{low:.1f}, {high:.1f}]"


def _points(change: Mapping[str, Any]) -> str:
    low, high = (100 * x for x in change["ci95"])
    return f"{100 * change['difference']:+.1f} points  [{low:+.1f}, {high:+.1f}]"


def _relative(change: Mapping[str, Any], base: float) -> str:
    low, high = (x / base for x in change["ci95"])
    return f"{change['difference'] / base:+.1%}  [{low:+.1%}, {high:+.1%}]"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
