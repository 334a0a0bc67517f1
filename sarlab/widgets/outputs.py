"""Ways to put a figure or a table where it stays."""

from __future__ import annotations

import ipywidgets as widgets
import plotly.graph_objects as go
from IPython.display import HTML, Image, display

from sarlab.display.figures import mimebundle
from sarlab.widgets.export import picture


def put_figure(output: widgets.Output, figure: go.Figure | None) -> None:
    """Show a figure in an Output widget.

    Its ``outputs`` are assigned, not captured: capturing is unsafe off the main thread.
    """
    shown = {"output_type": "display_data", "metadata": {}}
    output.outputs = () if figure is None else ({**shown, "data": mimebundle(figure, png=False)},)


def show_figure(figure: go.Figure, *, width: int = 900) -> None:
    """Display a figure: interactive in JupyterLab, with a PNG ``width`` pixels wide elsewhere."""
    bundle = mimebundle(figure, png=False)
    wide = go.Figure(figure).update_layout(width=width)
    display({**mimebundle(wide), **bundle}, raw=True)


def show_html(body: str) -> None:
    """Display static HTML."""
    display(HTML(body))


def show_picture(body: str, *, title: str = "sarlab", width: int = 900) -> None:
    """Display a picture of static HTML, for readers whose page drops styles.

    Without a browser to take the picture a line says so.
    """
    try:
        display(Image(picture(title, body, width=width, scale=1), width=width))
    except RuntimeError as error:
        print(f"No picture of this view: {error}")
