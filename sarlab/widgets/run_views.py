"""What a run shows in the training notebook, as static HTML that outlives the kernel."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from IPython.display import HTML

from sarlab.display.figures import BLUE
from sarlab.display.tables import html_table
from sarlab.evaluation.formatting import ONE_SEED, pair_table, run_summary
from sarlab.evaluation.policies import run_facts
from sarlab.runs.atomic import read_json
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


def show_summary(folder: str | Path) -> HTML:
    """Base against trained; what to do next where a run was stopped before that was judged."""
    folder = Path(folder)
    if (folder / "summary.json").exists():
        table = run_summary(folder)
        questions = f"{table.iloc[1]['questions']} held-out questions, 95% intervals"
        caption = f"{questions}; {ONE_SEED}"
        facts = f"<div>{html.escape(run_facts(folder))}</div>"
        return HTML(html_table(pair_table(table), caption) + facts)
    steps = read_json(folder / "run.json")["steps_done"]
    return HTML(
        f"<div>The run was stopped after {steps} steps, before its held-out test. To go on, set "
        f"<code>name = {html.escape(repr(folder.name))}</code> and <code>resume = True</code>, "
        "and run the notebook again.</div>"
    )


def show_examples(folder: str | Path, count: int = 3) -> HTML:
    """The first probe questions, each answered before training and at its end."""
    if not list(Path(folder).glob("rollouts.parquet/probe-*.parquet")):
        return HTML("<div>No question was answered before the run was stopped.</div>")
    rows = read_rollouts(folder, "probe").to_pylist()
    steps = sorted({min(r["step"] for r in rows), max(r["step"] for r in rows)})
    by_question: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by_question[row["question"]].setdefault(row["step"], row)
    parts = []
    for question, answers in list(by_question.items())[:count]:
        cells = "".join(_answer_cell(answers[step], step) for step in steps)
        parts.append(
            f'<tr><td colspan="2" style="{_CELL};padding-top:14px"><b>{html.escape(question)}</b>'
            f"</td></tr><tr>{cells}</tr>"
        )
    return HTML(f"<table>{''.join(parts)}</table>")


def _answer_cell(row: Mapping[str, Any], step: int) -> str:
    verdict = "right" if row["correct"] else "wrong"
    sar = "" if row["sar"] is None else f", SAR {row['sar']:+.2f}"
    return (
        f'<td style="{_CELL};min-width:280px"><div>step {step}: {verdict}, {row["length"]} '
        f'tokens{sar}</div><div style="{_TEXT}">{html.escape(row["answer"])}</div></td>'
    )
