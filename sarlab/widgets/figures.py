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
    figure = go.Figure(_bars(means, [_label(label) for label in rows["label"]], "mean SAR"))
    figure.update_xaxes(title="mean SAR over the questions")
    return _finished(figure, means, height=70 + 36 * len(rows), room=0.16)


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
    uneven = len(set(count.values())) > 1
    drawn: list[LabelMean] = []
    for index, design in enumerate(designs):
        means = label_means(candidates, design, measure)
        labels = [_label(m.label) + f" ({count[m.label]})" * uneven for m in means]
        for trace in _bars(means, labels, f"mean {measure}"):
            figure.add_trace(trace, row=index // columns + 1, col=index % columns + 1)
        drawn += means
    questions = len({c.question for c in candidates})
    title = (
        f"mean {measure} over {questions} questions, 95% intervals" if questions > 1 else measure
    )
    if uneven:
        title = f"mean {measure}, 95% intervals; in brackets: questions with that label"
    figure.update_xaxes(nticks=4).update_annotations(font_size=12)
    figure = _finished(figure, drawn, height=110 + rows * height, room=0.36, title=title)
    return figure.update_layout(margin_t=62)  # two lines of titles


def history_figure(rows: Sequence[Any]) -> go.Figure:
    """Answers to one question over training: length by step, right and wrong, coloured by SAR."""
    rows = [row for row in rows if row.sar is not None]
    # Colours fit the answers shown, zero in the middle: SAR of one question differs by a tenth.
    end = math.ceil(20 * max((abs(row.sar) for row in rows), default=0.0)) / 20 or 0.05
    verdicts = [
        f"{verdict_text(row.correct, row.truncated)}, SAR {signed(row.sar)}" for row in rows
    ]
    figure = go.Figure(
        go.Scatter(
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
            customdata=verdicts,
            hovertemplate="step %{x:d}: %{y:d} tokens, %{customdata}<extra></extra>",
        )
    )
    bar = {"title": {"text": f"SAR, ±{end:.2f}", "side": "right"}, "thickness": 10}
    bar["tickvals"] = [-end, 0, end]
    bar["ticktext"] = [signed(-end, 2), "0", signed(end, 2)]  # plotly colours given texts only
    scale = [[0, ORANGE_HEX], [0.5, "#c9c9c9"], [1, BLUE_HEX]]
    figure.update_layout(
        coloraxis={"colorscale": scale, "cmin": -end, "cmax": end, "colorbar": bar}
    )
    steps = sorted({row.step for row in rows})
    ticks = {"tickvals": steps, "ticktext": list(map(str, steps))} if len(steps) < 12 else {}
    figure.update_xaxes(title="training step", **ticks)
    figure.update_yaxes(title="tokens (● right, ✕ wrong)", rangemode="tozero")
    return style(figure, height=250, width=960)


def _bars(means: Sequence[LabelMean], labels: Sequence[str], what: str) -> list[Any]:
    """Bars from zero, their intervals, and the numbers beyond both."""
    above = [m.mean >= 0 for m in means]
    shape = ["" if up else "/" for up in above]  # a second channel beside colour
    hatch = {"shape": shape, "fillmode": "overlay", "fgcolor": "rgba(255, 255, 255, 0.65)"}
    bars = go.Bar(
        x=[m.mean for m in means],
        y=labels,
        customdata=labels,
        orientation="h",
        marker_color=[BLUE_HEX if up else ORANGE_HEX for up in above],
        marker_pattern={**hatch, "size": 6},
        hovertemplate=f"%{{customdata}}: {what} %{{x:+.3f}}<extra></extra>",
        showlegend=False,
    )
    halves = [m.half_width for m in means]
    if any(halves):
        bars.error_x = {"array": halves, "color": GREY_HEX, "thickness": 1, "width": 2}
    numbers = go.Scatter(
        x=[m.mean + math.copysign(m.half_width, m.mean) for m in means],
        y=labels,
        mode="text",
        text=[f" {signed(m.mean, 2)} " for m in means],
        textposition=["middle right" if up else "middle left" for up in above],
        textfont={"size": 11, "color": INK},
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    return [bars, numbers]


def _finished(
    figure: go.Figure, means: Sequence[LabelMean], height: int, room: float, title: str = ""
) -> go.Figure:
    """A figure of bars with a line at zero and ``room`` for the numbers, a share of the width."""
    ends = [0.0, *(m.mean + side * m.half_width for m in means for side in (-1, 1))]
    low, high = min(ends), max(ends)
    room *= (high - low) or 1.0
    low, high = low - room * (low < 0), high + room * (high > 0 or low == 0)
    style(figure, height=height, width=960, title=title).update_layout(bargap=0.3)
    figure.update_yaxes(autorange="reversed")
    return figure.update_xaxes(range=[low, high], zeroline=True, zerolinecolor=_ZERO)


def _label(label: str) -> str:
    """A label as text: Plotly reads some tags in it."""
    return one_line(label, 24).replace("&", "&amp;").replace("<", "&lt;")
