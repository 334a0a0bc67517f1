"""One run as one page: ``python -m sarlab.evaluation.report runs/<name>`` writes its report.html.

The page opens anywhere: no script, no network, pictures inside it. Beside it lies report.md, the
tables to paste.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sarlab.display.figures import draw_png, training_figure
from sarlab.evaluation.behaviours import behaviour_change, definitions, what_was_lost
from sarlab.evaluation.compare import run_table
from sarlab.evaluation.figures import length_figure, plane_figure, token_figure
from sarlab.evaluation.judge import Rows, per_question
from sarlab.evaluation.policies import Evaluated, recorded, token_texts
from sarlab.evaluation.tables import (
    behaviour_text,
    html_table,
    legend_html,
    markdown_table,
    pair_html,
    pair_table,
)
from sarlab.runs.folder import read_metrics, write_text

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
img { max-width: 100%; height: auto; } .wide { overflow-x: auto; }
details { margin: .4rem 0; } summary { cursor: pointer; }
.note { border-left: 3px solid #e6770b; padding-left: .7rem; }
pre { overflow-x: auto; font-size: 12px; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616; } }
"""
_PLAN = (  # which pairs of answers are worth a look, most telling first
    ("right before, wrong now", lambda b, o: b["correct"] and not o["correct"]),
    ("wrong before, right now", lambda b, o: not b["correct"] and o["correct"]),
    ("right both times, shortened most", lambda b, o: b["correct"] and o["correct"]),
)
_SHOWN = 4  # examples of each kind


def write_report(folder: str | Path) -> Path:
    """Write report.html and report.md into a finished run's folder; returns the page's path.

    Raises ValueError where the folder is not a finished run.
    """
    folder = Path(folder)
    base, trained = _pair(folder)
    table = run_table([base, trained])
    change = behaviour_change(base.rows, trained.rows, token_texts(folder, trained.model))
    write_text(folder / "report.md", report_markdown(folder, table, change))
    page = report_html(folder, base, trained, table, change)
    write_text(folder / "report.html", page)
    return folder / "report.html"


def report_html(
    folder: Path,
    base: Evaluated,
    trained: Evaluated,
    table: pd.DataFrame,
    change: pd.DataFrame,
) -> str:
    """The whole page as text."""
    run = _read(folder / "run.json")
    metrics = read_metrics(folder)
    summary = _read(folder / "summary.json")
    title = f"{folder.name}: {trained.arm}"
    notes = [n for n in dict.fromkeys(table["note"]) if n]
    messages = [f"step {m['step']}: {m['text']}" for m in run.get("messages", [])]
    parts = [
        f"<h1>{_esc(title)}</h1><p>{_esc(_facts(run, summary))}</p>",
        _notes("Mind", notes),
        "<h2>Base against trained</h2>",
        _wide(html_table(pair_table(table))),
        "<p>95% intervals resample the held-out questions; differences are paired by question, "
        "their p-values from a sign-flip permutation test. One run says nothing about other "
        "seeds. Tokens per right answer: of all answers, over the right ones. AES: "
        "accuracy-efficiency score (Luo et al. 2025), 0 is the base, higher is better.</p>",
        _picture(plane_figure(table), "Accuracy over mean length"),
    ]
    if metrics:
        parts += ["<h2>Training</h2>", _picture(training_figure(metrics), "Training curves")]
        parts.append(_last_steps(metrics))
    parts += [
        _notes("Warnings while training", messages),
        "<h2>What shorter answers lost</h2>",
        f"<p>{_esc(what_was_lost(change))}</p>",
        _wide(html_table(behaviour_text(change))),
        _picture(token_figure({trained.label: change}), "Filler and other tokens"),
        _picture(length_figure(base.rows, trained.rows, limit=trained.limit), "Lengths"),
        "<h2>Answers</h2>",
        legend_html(),
        *_examples(base.rows, trained.rows),
        "<h2>How behaviours are found</h2><details><summary>the patterns</summary>",
        _wide(html_table(definitions().reset_index())),
        "</details><h2>Configuration</h2><details><summary>config.json and run.json</summary>",
        f"<pre>{_esc((folder / 'config.json').read_text(encoding='utf-8'))}</pre>",
        f"<pre>{_esc(json.dumps(run, indent=1))}</pre></details>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{_esc(title)}</title><style>{_STYLE}</style></head><body>"
        f"{''.join(parts)}</body></html>\n"
    )


def report_markdown(folder: Path, table: pd.DataFrame, change: pd.DataFrame) -> str:
    """The tables of a run, to paste where Markdown is read."""
    return "\n".join(
        [
            f"**{folder.name}** (95% intervals over questions, differences paired by question)\n",
            markdown_table(pair_table(table)),
            f"{what_was_lost(change)}\n",
            markdown_table(behaviour_text(change)),
        ]
    )


def example_pairs(base: Rows, other: Rows) -> dict[str, list[tuple[Any, Any]]]:
    """Pairs of answers to one question, by what happened to it: three kinds, four pairs each.

    Within a kind the largest change in length comes first; the first answer to each question is
    taken where there are several.
    """
    first: list[dict[str, Mapping[str, Any]]] = [{}, {}]
    for found, rows in zip(first, (base, other), strict=True):
        for row in rows:
            found.setdefault(row["question_id"], row)
    both = [(first[0][key], first[1][key]) for key in first[0] if key in first[1]]
    both.sort(key=lambda pair: pair[1]["length"] - pair[0]["length"])
    return {title: [pair for pair in both if wanted(*pair)][:_SHOWN] for title, wanted in _PLAN}


def _pair(folder: Path) -> tuple[Evaluated, Evaluated]:
    base, trained = recorded([folder])
    if per_question(base.rows, "length").keys() != per_question(trained.rows, "length").keys():
        raise ValueError(
            f"{folder}: base and trained policy answered different questions, so the run's record "
            "is damaged. Evaluate it anew with sarlab.evaluation.policies.fresh."
        )
    return base, trained


def _examples(base: Rows, trained: Rows) -> Iterable[str]:
    for title, pairs in example_pairs(base, trained).items():
        yield f"<h3>{_esc(title.capitalize())}</h3>"
        yield "".join(pair_html(*pair) for pair in pairs) or "<p>none</p>"


def _facts(run: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    versions = run.get("versions", {})
    facts = [
        f"{summary['steps']} steps on {summary['task']} with {summary['model']}, "
        f"seed {summary['seed']}",
        f"{summary['train_seconds'] / 60:.1f} min on {summary['hardware']}",
        f"status {run.get('status')}",
        f"sarlab {versions.get('sarlab')}, torch {versions.get('torch')}",
    ]
    if run.get("git_commit"):
        facts.append(f"commit {run['git_commit'][:9]}")
    return "; ".join(facts) + "."


def _picture(figure: go.Figure, alternative: str) -> str:
    drawn = draw_png(figure)
    if drawn is None:
        return (
            f"<p><i>{_esc(alternative)}: no picture, since no browser was found to draw it.</i></p>"
        )
    data = base64.b64encode(drawn).decode("ascii")
    return (
        f'<p><img alt="{_esc(alternative)}" width="{figure.layout.width}" '
        f'src="data:image/png;base64,{data}"></p>'
    )


def _last_steps(metrics: Sequence[Mapping[str, Any]]) -> str:
    """The curve in numbers: about ten steps, the first and the last among them."""
    every = max(1, len(metrics) // 9)
    chosen = [*metrics[::every], metrics[-1]]
    names = ("step", "accuracy", "mean_length", "sar", "reward", "kl", "truncated_share")
    unique = {m["step"]: m for m in chosen}
    text = pd.DataFrame(
        [
            {n.replace("_", " "): "–" if m.get(n) is None else f"{m[n]:.4g}" for n in names}
            for m in unique.values()
        ]
    )
    return f"<details><summary>in numbers</summary>{_wide(html_table(text))}</details>"


def _notes(title: str, notes: Sequence[str]) -> str:
    if not notes:
        return ""
    lines = "".join(f"<li>{_esc(note)}</li>" for note in notes)
    return f'<div class="note"><b>{title}</b><ul>{lines}</ul></div>'


def _wide(table: str) -> str:
    return f'<div class="wide">{table}</div>'


def _esc(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 with a message where the input is not right."""
    parser = argparse.ArgumentParser(
        prog="python -m sarlab.evaluation.report",
        description="Write report.html and report.md of a run.",
    )
    parser.add_argument("runs", nargs="+", help="run folders")
    given = parser.parse_args(arguments)
    for folder in given.runs:
        try:
            print(write_report(folder))
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
