"""The static twin of a workbench: its present state as HTML that needs no kernel."""

from __future__ import annotations

from pathlib import Path

from sarlab.display.text import plain
from sarlab.display.token_view import answer_view
from sarlab.widgets.candidates import judged, ranked
from sarlab.widgets.designs import compare_designs
from sarlab.widgets.export import show_html, show_picture
from sarlab.widgets.html import answer_html, designs_html, pair_html, ranking_html, rows_html
from sarlab.widgets.run_browser import ROW_HEADER, RunBrowser, cells_of
from sarlab.widgets.state import Bench

_ROWS_SHOWN = 12


def workbench_html(bench: Bench, *, with_pair: bool = True) -> str:
    """The question, the ranking, the opened answer, the pinned pair and the reward designs."""
    gold = f" <i>Right answer: {plain(bench.gold)}</i>" if bench.gold else ""
    model = f'<div style="font-size: 13px">Scored by {plain(bench.policy.reference)}</div>'
    parts = [
        f'<div style="white-space: pre-wrap"><b>{plain(bench.question)}</b>{gold}</div>{model}'
    ]
    if bench.answers:
        parts.append(ranking_html(bench.answers))
    if bench.opened is not None:
        label = bench.answers[bench.answer].label if 0 <= bench.answer < len(bench.answers) else ""
        heading = f"{label}, edited" if bench.edited else label
        view = answer_view(bench.opened, *bench.verdict())
        parts.append(answer_html(view, heading=heading))
    pair = bench.pinned_scores() if with_pair else []
    if pair:
        parts.append(pair_html([(label, answer_view(score)) for label, score in pair]))
    group = judged(bench.answers)
    if len(group) > 1:
        chosen = [group[i] for i in ranked(group)]
        designs = compare_designs(chosen, bench.alpha)
        left_out = len(bench.answers) - len(group)
        note = f"; {left_out} not judged and left out" if left_out else ""
        parts.append(f"<p>Group-relative advantages at α = {bench.alpha:.2f}{note}</p>")
        parts.append(designs_html(chosen, designs, "advantage"))
    return f"<div>{''.join(parts)}</div>"


def show_snapshot(bench: Bench, *, png: bool = True) -> None:
    """Display the workbench's present state as static HTML and as a picture.

    The picture goes without the pinned pair, to keep a notebook light.
    """
    bench.wait()
    show_html(workbench_html(bench))
    if png:
        show_picture(workbench_html(bench, with_pair=False), title="Reward workbench")


def run_html(browser: RunBrowser) -> str:
    """What a run browser shows: the rows in its table, and the opened one's tokens."""
    if not browser.shown:
        return f"<p>{browser.message.value}</p>"
    following = browser.mode.value == "follow"
    about = plain(browser.shown[0].question) if following else browser.message.value
    rows = [cells_of(row) for row in browser.shown[:_ROWS_SHOWN]]
    parts = [
        f"<p><b>{plain(Path(browser.run).name)}</b>: {about}</p>",
        rows_html(rows, ROW_HEADER, "rrrrrrll"),
    ]
    if browser.tokens.score is not None:
        row = browser.opened
        heading = f"step {row.step}, {'right' if row.correct else 'wrong'}"
        parts.append(answer_html(answer_view(browser.tokens.score), heading=heading))
    return f"<div>{''.join(parts)}</div>"


def show_run(browser: RunBrowser, *, png: bool = True) -> None:
    """Display what a run browser shows as static HTML and as a picture."""
    show_html(run_html(browser))
    if png and browser.shown:
        show_picture(run_html(browser), title="Run browser")
