"""The workbench in JupyterLab, and the pure functions that draw its parts.

Needs the extra ``lab`` (ipywidgets, anywidget, plotly). Notebooks take all of it as one name:
``from sarlab import widgets as views``.
"""

from sarlab.display.token_view import answer_view
from sarlab.widgets.candidates import (
    Candidate,
    Draft,
    label_rows,
    orderings,
    read_answers,
    read_examples,
    score_candidates,
)
from sarlab.widgets.designs import compare_designs
from sarlab.widgets.figures import designs_figure, labels_figure
from sarlab.widgets.html import answer_html, labels_html, orderings_html, pair_html, ranking_html
from sarlab.widgets.notebook import InspectionSettings, score_with_progress, show_example
from sarlab.widgets.outputs import show_figure, show_html
from sarlab.widgets.run_browser import RunBrowser
from sarlab.widgets.snapshot import show_run, show_snapshot, workbench_html
from sarlab.widgets.workbench import Workbench

__all__ = [
    "Candidate",
    "Draft",
    "InspectionSettings",
    "RunBrowser",
    "Workbench",
    "answer_html",
    "answer_view",
    "compare_designs",
    "designs_figure",
    "label_rows",
    "labels_figure",
    "labels_html",
    "orderings",
    "orderings_html",
    "pair_html",
    "ranking_html",
    "read_answers",
    "read_examples",
    "score_candidates",
    "score_with_progress",
    "show_example",
    "show_figure",
    "show_html",
    "show_run",
    "show_snapshot",
    "workbench_html",
]
