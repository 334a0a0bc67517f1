"""Figures of the workbench. Pure: records in, ``plotly`` figures out (never a FigureWidget)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sarlab.display.figures import INK, style
from sarlab.display.text import BLUE_HEX, GREY_HEX, ORANGE_HEX, one_line, signed
from sarlab.widgets.candidates import Candidate, LabelRow, verdict_text
from sarlab.widgets.designs import Design, Measure, label_means

_COLUMNS = 3  # panels side by side: legible from 500 pixels on
_ZERO = "rgba(128, 128, 128, 0.8)"


def labels_figure(rows: Sequence[LabelRow]) -> go.Figure:
    """Mean SAR by label."""
    labels = [_label(row.label) for row in rows]
    values = [row.mean_sar for row in rows]
    figure = go.Figure(_bars(labels, values, "%{y}: mean SAR %{x:+.3f}"))
    figure.update_xaxes(title="mean SAR over the questions", range=_range(values, 0.16))
    return _finished(figure, height=70 + 36 * len(rows))


def designs_figure(
    candidates: Sequence[Candidate], designs: Sequence[Design], measure: Measure = "advantage"
) -> go.Figure:
    """One panel per reward design, one bar per label: the paper's analysis.

    Over several questions a bar is the mean of its label, with its 95% interval.
    """
    columns = max(1, min(_COLUMNS, len(designs)))
    rows = -(-len(designs) // columns)
    bars = len({c.label for c in candidates})
    figure = make_subplots(
        rows=rows or 1,
        cols=columns,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=50 / (44 + 22 * bars) / max(rows, 2),
        subplot_titles=[design.label for design in designs],
    )
    extents = []
    count = Counter(label for label, _ in {(c.label, c.question) for c in candidates})
    several = len(set(count.values())) > 1
    for index, design in enumerate(designs):
        means = label_means(candidates, design, measure)
        for trace in _bars(
            [_label(m.label) + (f" ({count[m.label]})" if several else "") for m in means],
            [m.mean for m in means],
            f"%{{y}}: mean {measure} %{{x:+.3f}}",
            [m.half_width for m in means],
        ):
            figure.add_trace(trace, row=index // columns + 1, col=index % columns + 1)
        extents += [m.mean + side * m.half_width for m in means for side in (-1, 1)]
    questions = len({c.question for c in candidates})
    over = f"mean {measure} over {questions} questions, 95% intervals" if questions > 1 else measure
    if several:
        over = f"mean {measure}, 95% intervals; in brackets: questions with that label"
    figure.update_xaxes(nticks=4, range=_range(extents, 0.36))
    figure.update_annotations(font_size=12)
    figure = _finished(figure, height=110 + rows * (44 + 22 * bars))
    figure.add_annotation(
        text=over, xref="paper", yref="paper", x=0.5, y=0, yshift=-44, showarrow=False, font_size=12
    )
    figure.update_layout(margin_b=56)
    return figure


def history_figure(rows: Sequence[Any]) -> go.Figure:
    """Answers to one question over training: length by step, right and wrong, coloured by SAR."""
    rows = [row for row in rows if row.sar is not None]
    # Colours fit the answers shown, zero in the middle: SAR of one question differs by a tenth.
    end = max((math.ceil(20 * abs(row.sar or 0.0)) / 20 for row in rows), default=0.0) or 0.05
    marks = go.Scatter(
        x=[row.step for row in rows],
        y=[row.length for row in rows],
        mode="markers",
        marker={
            "symbol": ["circle" if row.correct else "x" for row in rows],
            "color": [row.sar for row in rows],
            "coloraxis": "coloraxis",
            "size": 9,
            "line": {"width": 0.5, "color": GREY_HEX},
        },
        customdata=[
            f"{verdict_text(row.correct, row.truncated)}, SAR {signed(row.sar or 0.0)}"
            for row in rows
        ],
        hovertemplate="step %{x}: %{y} tokens, %{customdata}<extra></extra>",
    )
    bar = {"title": f"SAR, ±{end:.2f}", "thickness": 10, "tickvals": [-end, 0, end]}
    scale = [[0, ORANGE_HEX], [0.5, "#c9c9c9"], [1, BLUE_HEX]]
    figure = go.Figure(marks).update_layout(
        coloraxis={
            "colorscale": scale,
            "cmin": -end,
            "cmax": end,
            "colorbar": {**bar, "tickformat": "+.2f"},
        }
    )
    steps = sorted({row.step for row in rows})
    figure.update_xaxes(title="training step", tickvals=steps if len(steps) < 12 else None)
    figure.update_yaxes(title="tokens (● right, ✕ wrong)", rangemode="tozero")
    return _finished(figure, height=250)


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
        # Blue above zero; orange and hatched below: a second channel beside colour.
        marker={
            "color": [BLUE_HEX if v >= 0 else ORANGE_HEX for v in values],
            "pattern": {
                "shape": ["" if v >= 0 else "/" for v in values],
                "fillmode": "overlay",
                "fgcolor": "rgba(255, 255, 255, 0.65)",
                "size": 6,
            },
        },
        hovertemplate=f"{hover}<extra></extra>",
        showlegend=False,
    )
    if any(halves):
        bars.error_x = {"array": halves, "color": GREY_HEX, "thickness": 1, "width": 2}
    numbers = go.Scatter(
        x=ends,
        y=labels,
        mode="text",
        text=[f" {signed(v, 2)} " for v in values],
        textposition=["middle right" if v >= 0 else "middle left" for v in values],
        textfont={"size": 11, "color": INK},
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    return [bars, numbers]


def _range(values: Sequence[float], room: float) -> list[float]:
    """Limits that hold zero and all values, with room for the numbers at the bars' ends."""
    low, high = min([0.0, *values]), max([0.0, *values])
    span = (high - low) or 1.0
    return [low - room * span * (low < 0), high + room * span * (high > 0 or low == 0)]


def _finished(figure: go.Figure, height: int) -> go.Figure:
    """The looks of all figures, as wide as the page, bars from top to bottom."""
    bars = any(trace.orientation == "h" for trace in figure.data)
    style(figure, width=960, height=height).update_layout(
        width=None, margin={"l": 10, "r": 14, "t": 34, "b": 44}, bargap=0.3
    )
    figure.update_xaxes(zeroline=True, zerolinecolor=_ZERO)
    if bars:
        figure.update_yaxes(autorange="reversed")
    return figure


def _label(label: str) -> str:
    """Plotly reads some tags in labels; a label must not be one."""
    text = one_line(label, 24)
    return text.replace("&", "&amp;").replace("<", "&lt;")
