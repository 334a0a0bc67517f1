"""One run as one page: ``python -m sarlab.evaluation.report runs/<name>`` writes its report.html.

The page opens anywhere: no script, no network, pictures inside it. Beside it lies report.md, the
tables to paste.
"""

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
from sarlab.display.tables import html_table, markdown_table, views
from sarlab.evaluation.behaviours import behaviour_change, definitions, what_was_lost
from sarlab.evaluation.formatting import (
    ONE_SEED,
    behaviour_text,
    head_of,
    pair_table,
    run_summary,
    tinted_pair,
)
from sarlab.evaluation.judge import Rows
from sarlab.evaluation.plots import length_figure, plane_figure, token_figure
from sarlab.evaluation.policies import Evaluated, recorded, run_facts, token_texts
from sarlab.runs.atomic import read_json, write_text
from sarlab.runs.folder import read_metrics
from sarlab.runs.parameters import print_or_refuse

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
    versions = run.get("versions", {})
    pictures = {
        "plane": _picture(plane_figure(table)),
        "curves": _picture(training_figure(metrics)) if metrics else None,
        "tokens": _picture(token_figure({trained.label: change})),
        "lengths": _picture(length_figure(base.rows, trained.rows, limit=trained.limit)),
    }
    tables = {
        "pair": html_table(pair_table(table), head_of(table)),
        "steps": html_table(_some_steps(metrics)) if metrics else "",
        "behaviours": html_table(behaviour_text(change)),
        "patterns": html_table(definitions().reset_index()),
    }
    examples = {
        heading: [tinted_pair(*pair) for pair in pairs]
        for heading, pairs in example_pairs(base.rows, trained.rows).items()
    }
    page = views("report.html").page(
        title=f"{folder.name}: {trained.arm}",
        facts=f"{run_facts(folder)}; status {run.get('status')}; sarlab {versions.get('sarlab')}, "
        f"torch {versions.get('torch')}; commit {str(run.get('git_commit') or 'unknown')[:9]}.",
        warnings=[note for note in dict.fromkeys(table["note"]) if note],
        messages=[f"step {m['step']}: {m['text']}" for m in run.get("messages", [])],
        tables=tables,
        pictures=pictures,
        lost=what_was_lost(change),
        examples=examples,
        records=(
            (folder / "config.json").read_text(encoding="utf-8"),
            json.dumps(run, indent=1),
        ),
    )
    return str(page)


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


def _picture(figure: go.Figure) -> dict[str, Any]:
    """Data and width of a picture; no data where no browser draws it."""
    data = base64.b64encode(draw(figure) or b"").decode("ascii")
    return {"data": data, "width": figure.layout.width}


def _some_steps(metrics: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The curve in numbers: about ten steps, the first and the last among them."""
    names = ["step", "accuracy", "mean_length", "sar", "reward", "kl", "truncated_share"]
    steps = pd.DataFrame(list(metrics)).reindex(columns=names)
    shown = pd.concat([steps[:: max(1, len(steps) // 9)], steps[-1:]]).drop_duplicates("step")
    text = shown.map(lambda v: None if v is None or v != v else f"{v:.4g}")
    return text.rename(columns=lambda name: name.replace("_", " "))


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
