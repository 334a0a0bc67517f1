"""Figures of the workbench. Pure: records in, ``plotly`` figures out (never a FigureWidget)."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sarlab.display.figures import INK, style
from sarlab.display.text import BLUE_HEX, GREY_HEX, ORANGE_HEX, one_line, signed
from sarlab.widgets.candidates import Candidate, verdict_text
from sarlab.widgets.designs import Design, LabelMean, Measure, label_means

_COLUMNS = 3  # panels side by side: legible from 500 pixels on
_ZERO = "rgba(128, 128, 128, 0.8)"


def labels_figure(rows: pd.DataFrame) -> go.Figure:
    """Mean SAR by label."""
    means = [LabelMean(row.label, row.mean_sar, 0.0, row.answers) for row in rows.itertuples()]
    figure = go.Figure(_bars(means, "mean SAR"))
    figure.update_xaxes(title="mean SAR over the questions", range=_range(means, 0.16))
    figure.update_yaxes(autorange="reversed")
    return _finished(figure, 70 + 36 * len(rows))


def designs_figure(
    candidates: Sequence[Candidate], designs: Sequence[Design], measure: Measure = "advantage"
) -> go.Figure:
    """One panel per reward design, one bar per label: the paper's analysis.

    Over several questions a bar is the mean of its label, with its 95% interval.
    """
    columns = max(1, min(_COLUMNS, len(designs)))
    rows = -(-len(designs) // columns) or 1
    count = Counter(label for label, _ in {(c.label, c.question) for c in candidates})
    height = 44 + 22 * len(count)
    gaps = {"horizontal_spacing": 0.03, "vertical_spacing": 50 / height / max(rows, 2)}
    titles = [design.label for design in designs]
    figure = make_subplots(rows, columns, shared_yaxes=True, subplot_titles=titles, **gaps)
    several = len(set(count.values())) > 1
    drawn = []
    for index, design in enumerate(designs):
        means = label_means(candidates, design, measure)
        notes = [f" ({count[m.label]})" if several else "" for m in means]
        for trace in _bars(means, f"mean {measure}", notes):
            figure.add_trace(trace, row=index // columns + 1, col=index % columns + 1)
        drawn += means
    questions = len({c.question for c in candidates})
    over = f"mean {measure} over {questions} questions, 95% intervals" if questions > 1 else measure
    if several:
        over = f"mean {measure}, 95% intervals; in brackets: questions with that label"
    figure.update_xaxes(nticks=4, range=_range(drawn, 0.36)).update_yaxes(autorange="reversed")
    figure.update_annotations(font_size=12)
    figure = _finished(figure, 110 + rows * height, over)
    return figure.update_layout(margin_t=62)  # two lines of titles


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
        hovertemplate="step %{x:d}: %{y:d} tokens, %{customdata}<extra></extra>",
    )
    bar = {"title": {"text": f"SAR, ±{end:.2f}", "side": "right"}, "thickness": 10}
    bar["tickvals"] = [-end, 0, end]
    bar["ticktext"] = [signed(-end, 2), "0", signed(end, 2)]  # plotly colours given texts only
    scale = [[0, ORANGE_HEX], [0.5, "#c9c9c9"], [1, BLUE_HEX]]
    figure = go.Figure(marks).update_layout(
        coloraxis={
            "colorscale": scale,
            "cmin": -end,
            "cmax": end,
            "colorbar": bar,
        }
    )
    steps = sorted({row.step for row in rows})
    ticks = {"tickvals": steps, "ticktext": list(map(str, steps))} if len(steps) < 12 else {}
    figure.update_xaxes(title="training step", **ticks)
    figure.update_yaxes(title="tokens (● right, ✕ wrong)", rangemode="tozero")
    return _finished(figure, 250)


def _bars(means: Sequence[LabelMean], what: str, notes: Sequence[str] = ()) -> list[Any]:
    """Bars from zero, their intervals, and the numbers beyond both."""
    notes = notes or [""] * len(means)
    labels = [_label(m.label) + note for m, note in zip(means, notes, strict=True)]
    values, halves = [m.mean for m in means], [m.half_width for m in means]
    above = [v >= 0 for v in values]
    shape = ["" if up else "/" for up in above]  # a second channel beside colour
    hatch = {"shape": shape, "fillmode": "overlay", "fgcolor": "rgba(255, 255, 255, 0.65)"}
    bars = go.Bar(
        x=values,
        y=labels,
        customdata=labels,
        orientation="h",
        marker_color=[BLUE_HEX if up else ORANGE_HEX for up in above],
        marker_pattern={**hatch, "size": 6},
        hovertemplate=f"%{{customdata}}: {what} %{{x:+.3f}}<extra></extra>",
        showlegend=False,
    )
    if any(halves):
        bars.error_x = {"array": halves, "color": GREY_HEX, "thickness": 1, "width": 2}
    numbers = go.Scatter(
        x=[
            m.mean + (m.half_width if up else -m.half_width)
            for m, up in zip(means, above, strict=True)
        ],
        y=labels,
        mode="text",
        text=[f" {signed(v, 2)} " for v in values],
        textposition=["middle right" if up else "middle left" for up in above],
        textfont={"size": 11, "color": INK},
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    return [bars, numbers]


def _range(means: Sequence[LabelMean], room: float) -> list[float]:
    """From the lowest to the highest end, zero included, with room for the numbers."""
    ends = [0.0, *(m.mean + side * m.half_width for m in means for side in (-1, 1))]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0
    return [low - room * span * (low < 0), high + room * span * (high > 0 or low == 0)]


def _finished(figure: go.Figure, height: int, title: str = "") -> go.Figure:
    """The looks of all figures, with a line at zero."""
    style(figure, height=height, width=960, title=title).update_layout(bargap=0.3)
    return figure.update_xaxes(zeroline=True, zerolinecolor=_ZERO)


def _label(label: str) -> str:
    """Plotly reads some tags in labels; a label must not be one."""
    text = one_line(label, 24)
    return text.replace("&", "&amp;").replace("<", "&lt;")
