"""One run as one page: ``python -m sarlab.evaluation.report runs/<name>`` writes its report.html.

The page opens anywhere: no script, no network, pictures inside it. Beside it lies report.md, the
tables to paste.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sarlab.display.figures import draw, training_figure
from sarlab.display.tables import folded, html_table, markdown_table
from sarlab.display.text import plain
from sarlab.evaluation.behaviours import behaviour_change, definitions, what_was_lost
from sarlab.evaluation.formatting import (
    ONE_SEED,
    behaviour_text,
    head_of,
    pair_table,
    run_summary,
    tint_legend,
    tinted_pair,
)
from sarlab.evaluation.judge import Rows
from sarlab.evaluation.plots import length_figure, plane_figure, token_figure
from sarlab.evaluation.policies import Evaluated, recorded, run_facts, token_texts
from sarlab.runs.atomic import read_json, write_text
from sarlab.runs.folder import read_metrics
from sarlab.runs.parameters import print_or_refuse

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
img { max-width: 100%; height: auto; }
details { margin: .4rem 0; } summary { cursor: pointer; }
.note { border-left: 3px solid #e6770b; padding-left: .7rem; }
pre { overflow-x: auto; font-size: 12px; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616; } }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{style}</style></head><body>{body}</body></html>
"""
_METHOD = (
    "<p>95% intervals; differences are paired by question, their p-values from a sign-flip "
    "permutation test, corrected for the two of them by Holm's method. Tokens per right answer: of "
    "all answers, over the right ones. AES: accuracy-efficiency score (Luo et al. 2025), 0 is the "
    "base, higher is better.</p>"
)
_PLAN = (  # which pairs of answers are worth a look, most telling first
    ("right before, wrong now", lambda b, o: b["correct"] and not o["correct"]),
    ("wrong before, right now", lambda b, o: not b["correct"] and o["correct"]),
    ("right both times, shortened most", lambda b, o: b["correct"] and o["correct"]),
)
_SHOWN = 4  # examples of each


def write_report(folder: str | Path) -> Path:
    """Write report.html and report.md into a finished run's folder; returns the page's path.

    Raises ValueError where the folder is not a finished run.
    """
    folder = Path(folder)
    table = run_summary(folder)
    base, trained = recorded([folder])
    texts = token_texts(trained)
    change = behaviour_change(base.rows, trained.rows, token_text=texts)
    tables = (
        f"**{folder.name}** (95% intervals; {ONE_SEED}; differences paired by question)\n",
        markdown_table(pair_table(table)),
        f"{what_was_lost(change)}\n",
        markdown_table(behaviour_text(change)),
    )
    write_text(folder / "report.md", "\n".join(tables))
    write_text(folder / "report.html", _page(folder, base, trained, table, change))
    return folder / "report.html"


def _page(
    folder: Path, base: Evaluated, trained: Evaluated, table: pd.DataFrame, change: pd.DataFrame
) -> str:
    run, metrics = read_json(folder / "run.json"), read_metrics(folder)
    title, versions = f"{folder.name}: {trained.arm}", run.get("versions", {})
    facts = (
        f"{run_facts(folder)}; status {run.get('status')}; sarlab {versions.get('sarlab')}, torch "
        f"{versions.get('torch')}; commit {str(run.get('git_commit') or 'unknown')[:9]}."
    )
    messages = [f"step {m['step']}: {m['text']}" for m in run.get("messages", [])]
    examples = []
    for heading, pairs in example_pairs(base.rows, trained.rows).items():
        shown = "".join(tinted_pair(*pair) for pair in pairs) or "<p>none</p>"
        examples.append(f"<h3>{heading.capitalize()}</h3>{shown}")
    settings = (folder / "config.json").read_text(encoding="utf-8")
    records = f"<pre>{plain(settings)}</pre><pre>{plain(json.dumps(run, indent=1))}</pre>"
    sections = {
        "Base against trained": (
            html_table(pair_table(table), head_of(table)),
            _METHOD,
            _picture(plane_figure(table), "Accuracy over mean length"),
        ),
        "Training": (
            _picture(training_figure(metrics), "Training curves"),
            folded("in numbers", html_table(_some_steps(metrics))),
        )
        if metrics
        else (),
        "What shorter answers lost": (
            f"<p>{plain(what_was_lost(change))}</p>",
            html_table(behaviour_text(change)),
            _picture(token_figure({trained.label: change}), "Filler and other tokens"),
            _picture(length_figure(base.rows, trained.rows, limit=trained.limit), "Lengths"),
        ),
        "Answers": (tint_legend(), *examples),
        "How behaviours are found": (
            folded("the patterns", html_table(definitions().reset_index())),
        ),
        "Configuration": (folded("config.json and run.json", records),),
    }
    notes = _notes("Mind", [n for n in dict.fromkeys(table["note"]) if n])
    notes += _notes("Warnings while training", messages)
    body = "".join(f"<h2>{h}</h2>{''.join(parts)}" for h, parts in sections.items() if parts)
    head = f"<h1>{plain(title)}</h1><p>{plain(facts)}</p>{notes}"
    return _PAGE.format(title=plain(title), style=_STYLE, body=head + body)


def example_pairs(base: Rows, other: Rows) -> dict[str, list[tuple[Any, Any]]]:
    """Pairs of answers to one question, by what happened to it: three kinds, four pairs each.

    Within a kind the largest change in length comes first; the first answer to each question is
    taken where there are several.
    """
    before, after = ({r["question_id"]: r for r in reversed(rows)} for rows in (base, other))
    first = dict.fromkeys(r["question_id"] for r in base)
    both = [(before[key], after[key]) for key in first if key in after]
    both.sort(key=lambda pair: pair[1]["length"] - pair[0]["length"])
    return {title: [pair for pair in both if belongs(*pair)][:_SHOWN] for title, belongs in _PLAN}


def _picture(figure: go.Figure, alternative: str) -> str:
    drawn = draw(figure)
    if drawn is None:
        return f"<p><i>{alternative}: no picture, since no browser was found to draw it.</i></p>"
    data = base64.b64encode(drawn).decode("ascii")
    return (
        f'<p><img alt="{alternative}" width="{figure.layout.width}" '
        f'src="data:image/png;base64,{data}"></p>'
    )


def _some_steps(metrics: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The curve in numbers: about ten steps, the first and the last among them."""
    names = ["step", "accuracy", "mean_length", "sar", "reward", "kl", "truncated_share"]
    steps = pd.DataFrame(list(metrics)).reindex(columns=names)
    shown = pd.concat([steps[:: max(1, len(steps) // 9)], steps[-1:]]).drop_duplicates("step")
    text = shown.map(lambda v: None if v is None or v != v else f"{v:.4g}")
    return text.rename(columns=lambda name: name.replace("_", " "))


def _notes(title: str, notes: Sequence[str]) -> str:
    lines = "".join(f"<li>{plain(note)}</li>" for note in notes)
    return f'<div class="note"><b>{title}</b><ul>{lines}</ul></div>' if notes else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 with a message where the input is not right."""
    parser = argparse.ArgumentParser(
        prog="python -m sarlab.evaluation.report",
        description="Write report.html and report.md of a run.",
    )
    parser.add_argument("runs", nargs="+", help="run folders")
    runs = parser.parse_args(arguments).runs
    return print_or_refuse(lambda: "\n".join(str(write_report(run)) for run in runs))


if __name__ == "__main__":
    sys.exit(main())
