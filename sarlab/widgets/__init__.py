"""The workbench in JupyterLab, and the pure functions that draw its parts.

Needs the extra ``lab`` (ipywidgets, anywidget, plotly). ``text``, ``view``, ``html``, ``designs``,
``candidates`` and ``audit`` are pure; ``workbench`` and the panels are thin ipywidgets over them.
"""

from sarlab.display.token_view import answer_view
from sarlab.widgets.candidates import (
    Candidate,
    Draft,
    kind_rows,
    orderings,
    read_answers,
    read_examples,
    score_candidates,
)
from sarlab.widgets.designs import compare_designs
from sarlab.widgets.figures import designs_figure, kinds_figure, tokens_figure
from sarlab.widgets.html import answer_html, kinds_html, orderings_html, pair_html, ranking_html
from sarlab.widgets.outputs import score_with_progress, show_figure, show_html
from sarlab.widgets.run_browser import RunBrowser
from sarlab.widgets.snapshot import show_run, show_snapshot, workbench_html
from sarlab.widgets.workbench import Workbench

__all__ = [
    "Candidate",
    "Draft",
    "RunBrowser",
    "Workbench",
    "answer_html",
    "answer_view",
    "compare_designs",
    "designs_figure",
    "kind_rows",
    "kinds_figure",
    "kinds_html",
    "orderings",
    "orderings_html",
    "pair_html",
    "ranking_html",
    "read_answers",
    "read_examples",
    "score_candidates",
    "score_with_progress",
    "show_figure",
    "show_html",
    "show_run",
    "show_snapshot",
    "tokens_figure",
    "workbench_html",
]
