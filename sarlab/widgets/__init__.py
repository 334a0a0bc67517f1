"""The workbench in JupyterLab, and the pure functions that draw its parts.

Needs the extra ``lab`` (ipywidgets, anywidget, plotly). Notebooks take all of it as one name:
``from sarlab import widgets as views``.
"""

from sarlab.widgets.candidates import label_rows, read_examples
from sarlab.widgets.designs import compare_designs
from sarlab.widgets.export import show_figure, show_run, show_snapshot, workbench_html
from sarlab.widgets.figures import designs_figure, labels_figure
from sarlab.widgets.notebook import InspectionSettings, score_with_progress, show_example
from sarlab.widgets.run_browser import RunBrowser
from sarlab.widgets.workbench import Workbench

__all__ = [
    "InspectionSettings",
    "RunBrowser",
    "Workbench",
    "compare_designs",
    "designs_figure",
    "label_rows",
    "labels_figure",
    "read_examples",
    "score_with_progress",
    "show_example",
    "show_figure",
    "show_run",
    "show_snapshot",
    "workbench_html",
]
