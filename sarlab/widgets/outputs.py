"""Ways to put a figure or a table where it stays."""

from __future__ import annotations

import base64
import json

import ipywidgets as widgets
import plotly.graph_objects as go
from IPython.display import HTML, Image, display

from sarlab.display.figures import draw_png, mimebundle
from sarlab.widgets.export import picture

_PLOTLY = "application/vnd.plotly.v1+json"


def put_figure(output: widgets.Output, figure: go.Figure | None) -> None:
    """Show a figure in an Output widget.

    Its ``outputs`` are assigned, not captured: capturing is unsafe off the main thread.
    """
    if figure is None:
        output.outputs = ()
        return
    data = {_PLOTLY: {**json.loads(figure.to_json()), "config": {"displayModeBar": False}}}
    output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)


def show_figure(figure: go.Figure, *, width: int = 900) -> None:
    """Display a figure: interactive where plotly's renderer is, and a PNG beneath it elsewhere.

    One output with both forms, so that a reader on a code-hosting page sees the picture.
    """
    bundle = mimebundle(figure, png=False)
    bundle[_PLOTLY]["config"] = {"displayModeBar": False}
    image = draw_png(go.Figure(figure).update_layout(width=width))
    if image is not None:
        bundle["image/png"] = base64.b64encode(image).decode("ascii")
    display(bundle, raw=True)


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
