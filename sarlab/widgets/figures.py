"""Figures of the workbench. Pure: records in, ``plotly`` figures out (never a FigureWidget).

Backgrounds are transparent and text is mid-grey, so that one picture serves both themes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sarlab.display.text import BLUE_HEX, GREY_HEX, ORANGE_HEX, shortened, signed, visible
from sarlab.display.token_view import AnswerView
from sarlab.widgets.audit import AuditRow
from sarlab.widgets.candidates import Candidate, KindRow
from sarlab.widgets.designs import Design, Measure, kind_means

_GRID = "rgba(128, 128, 128, 0.25)"
_ZERO = "rgba(128, 128, 128, 0.8)"


def kinds_figure(rows: Sequence[KindRow]) -> go.Figure:
    """Mean SAR by kind of answer."""
    labels = [_kind(row.kind) for row in rows]
    values = [row.mean_sar for row in rows]
    figure = go.Figure(_bars(labels, values, "%{y}: mean SAR %{x:+.3f}"))
    figure.update_xaxes(title="mean SAR over the questions", range=_range(values, 0.16))
    return _finished(figure, height=70 + 36 * len(rows))


def designs_figure(
    candidates: Sequence[Candidate], designs: Sequence[Design], measure: Measure = "advantage"
) -> go.Figure:
    """One panel a reward design, one bar a kind of answer: the paper's analysis.

    Over several questions a bar is the mean of its kind, with its 95% interval.
    """
    figure = make_subplots(
        rows=1,
        cols=len(designs),
        shared_yaxes=True,
        horizontal_spacing=0.022,
        subplot_titles=[design.label for design in designs],
    )
    extents = []
    for column, design in enumerate(designs, start=1):
        means = kind_means(candidates, design, measure)
        for trace in _bars(
            [_kind(m.kind) for m in means],
            [m.mean for m in means],
            f"%{{y}}: mean {measure} %{{x:+.3f}}",
            [m.half_width for m in means],
        ):
            figure.add_trace(trace, row=1, col=column)
        extents += [m.mean + side * m.half_width for m in means for side in (-1, 1)]
    questions = len({c.question for c in candidates})
    over = f"mean {measure} over {questions} questions, 95% intervals" if questions > 1 else measure
    figure.update_xaxes(nticks=4, range=_range(extents, 0.36))
    figure.update_annotations(font_size=12)
    kinds = len({c.kind for c in candidates})
    figure = _finished(figure, height=110 + 34 * kinds)
    figure.add_annotation(
        text=over,
        xref="paper",
        yref="paper",
        x=0.5,
        y=0,
        yshift=-44,
        showarrow=False,
        font_size=12,
    )
    figure.update_layout(margin_b=56)
    return figure


def tokens_figure(view: AnswerView) -> go.Figure:
    """v token by token, steps set apart by lines."""
    values = [token.value for token in view.tokens]
    figure = go.Figure(
        go.Bar(
            x=list(range(1, len(values) + 1)),
            y=values,
            marker=_marker(values),
            customdata=[_safe("".join(token.runs)) for token in view.tokens],
            hovertemplate="token %{x} “%{customdata}”: v = %{y:+.2f} nats<extra></extra>",
        )
    )
    for step in view.steps[1:]:
        figure.add_vline(x=step.start + 0.5, line_color=_GRID, line_width=1)
    figure.update_xaxes(title="token", showgrid=False)
    figure.update_yaxes(title="v, nats")
    return _finished(figure, height=220)


def history_figure(rows: Sequence[AuditRow]) -> go.Figure:
    """Answers to one question over training: length by step, right and wrong, coloured by SAR."""
    figure = go.Figure()
    for correct, name, symbol in ((True, "right", "circle"), (False, "wrong", "x")):
        mine = [row for row in rows if row.correct is correct and row.sar is not None]
        figure.add_trace(
            go.Scatter(
                x=[row.step for row in mine],
                y=[row.length for row in mine],
                mode="markers",
                name=name,
                marker={
                    "symbol": symbol,
                    "size": 9,
                    "color": [row.sar for row in mine],
                    "coloraxis": "coloraxis",
                    "line": {"width": 0.5, "color": GREY_HEX},
                },
                customdata=[signed(row.sar or 0.0) for row in mine],
                hovertemplate=f"step %{{x}}, {name}: %{{y}} tokens, SAR %{{customdata}}"
                "<extra></extra>",
            )
        )
    figure.update_layout(
        coloraxis={
            "colorscale": [[0, ORANGE_HEX], [0.5, "#c9c9c9"], [1, BLUE_HEX]],
            "cmin": -1,
            "cmax": 1,
            "colorbar": {"title": "SAR", "thickness": 10},
        },
        legend={"orientation": "h", "y": 1.14, "x": 0},
    )
    figure.update_xaxes(title="training step")
    figure.update_yaxes(title="tokens", rangemode="tozero")
    return _finished(figure, height=280)


def _bars(
    labels: list[str], values: list[float], hover: str, half_widths: list[float] | None = None
) -> list[go.Bar | go.Scatter]:
    """Bars from zero, their intervals, and the numbers beyond both."""
    halves = half_widths or [0.0] * len(values)
    ends = [v + h if v >= 0 else v - h for v, h in zip(values, halves, strict=True)]
    bars = go.Bar(
        x=values,
        y=labels,
        orientation="h",
        marker=_marker(values),
        hovertemplate=f"{hover}<extra></extra>",
        showlegend=False,
    )
    if any(halves):
        bars.error_x = {
            "type": "data",
            "array": halves,
            "color": GREY_HEX,
            "thickness": 1,
            "width": 2,
        }
    numbers = go.Scatter(
        x=ends,
        y=labels,
        mode="text",
        text=[f" {signed(v, 2)} " for v in values],
        textposition=["middle right" if v >= 0 else "middle left" for v in values],
        textfont={"size": 11, "color": GREY_HEX},
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    return [bars, numbers]


def _marker(values: Sequence[float]) -> dict[str, Any]:
    """Blue above zero; orange and hatched below: a second channel beside colour."""
    return {
        "color": [BLUE_HEX if v >= 0 else ORANGE_HEX for v in values],
        "line": {"width": 0},
        "pattern": {
            "shape": ["" if v >= 0 else "/" for v in values],
            "fillmode": "overlay",
            "fgcolor": "rgba(255, 255, 255, 0.65)",
            "size": 6,
        },
    }


def _range(values: Sequence[float], room: float) -> list[float]:
    """Limits that hold zero and all values, with room for the numbers at the bars' ends."""
    low, high = min([0.0, *values]), max([0.0, *values])
    span = (high - low) or 1.0
    return [low - room * span * (low < 0), high + room * span * (high > 0 or low == 0)]


def _finished(figure: go.Figure, height: int) -> go.Figure:
    axis: dict[str, Any] = {"gridcolor": _GRID, "zerolinecolor": _ZERO, "automargin": True}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    for bar in figure.data:
        if bar.orientation == "h":
            figure.update_yaxes(autorange="reversed")
    figure.update_layout(
        template="none",
        height=height,
        font={"color": GREY_HEX, "size": 12},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        margin={"l": 10, "r": 14, "t": 34, "b": 44},
        bargap=0.3,
        hoverlabel={"font": {"color": "#222222"}, "bgcolor": "#f4f4f4"},
    )
    return figure


def _kind(kind: str) -> str:
    return _safe(shortened(kind.replace("_", " "), 24))


def _safe(text: str) -> str:
    """Plotly reads some tags in labels; a model's text must not be one."""
    return visible(text).replace("␣", " ").replace("&", "&amp;").replace("<", "&lt;")
