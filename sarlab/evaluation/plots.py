"""Pictures of comparisons: the accuracy-length plane, gains, where tokens went, lengths.

Pure functions from the tables of :mod:`sarlab.evaluation.compare` to plotly figures, in the
looks of :mod:`sarlab.display.figures`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from sarlab.display.figures import BLUE, GREY, ORANGE, style
from sarlab.evaluation.behaviours import what_was_lost
from sarlab.evaluation.judge import Rows

# At least 3:1 on light and dark pages. One symbol more than colours: 72 policies look different.
_COLOURS = (BLUE, ORANGE, "#b8518f", "#00825f", "#8f7500", "#5c6b7a", "#c8334f", "#8254b4")
_SYMBOLS = (
    *("circle", "square", "triangle-up", "triangle-down", "star", "hexagon", "cross", "x"),
    "bowtie",
)
_REMARK = {"x": 0.01, "xref": "paper", "yref": "paper", "showarrow": False, "font_size": 11}
_CROWD = 0.12  # how far below the best accuracy a policy may be to belong to the crowd


def plane_figure(
    table: pd.DataFrame, *, runs: pd.DataFrame | None = None, accuracy_from: float | None = None
) -> go.Figure:
    """Accuracy over mean length with 95% intervals on both axes and the Pareto front.

    ``table``: of :func:`sarlab.evaluation.compare.arm_table` or ``run_table``, of which the first
    task is shown; ``runs``: the single runs as small points behind pooled arms. The front joins the
    points that no other beats in both directions, whatever their intervals. ``accuracy_from``: the
    lower end of the axis (a fraction), for a look at the crowd; policies below it are named in the
    corner.
    """
    chosen, task = _first_task(table)  # with looks: the same in both of two stacked planes
    is_below = chosen["accuracy"] < (accuracy_from or 0.0)
    below, shown = chosen[is_below], chosen[~is_below]
    best = pareto_front(shown["mean_length"].tolist(), shown["accuracy"].tolist())
    front = shown[best].sort_values("mean_length")
    figure = go.Figure()
    figure.add_scatter(
        x=front["mean_length"].tolist(),
        y=front["accuracy"].tolist(),
        mode="lines",
        line={"color": GREY, "width": 1.5, "dash": "dash"},
        name="Pareto front",
        hoverinfo="skip",
    )
    if runs is not None:
        arms = shown[shown["seeds"] > 1].set_index("label")
        single = runs[(runs["task"] == task) & runs["arm"].isin(arms.index)]
        looks = arms.loc[single["arm"]]
        figure.add_scatter(
            x=single["mean_length"].tolist(),
            y=single["accuracy"].tolist(),
            mode="markers",
            marker={"color": looks["colour"], "symbol": looks["symbol"] + "-open", "size": 6},
            showlegend=False,
            text=single["label"].tolist(),
            hovertemplate="%{text}: %{y:.1%}, %{x:.1f} tokens<extra></extra>",
        )
    _add_crosses(figure, shown, "mean_length", "accuracy", "%{y:.1%}, %{x:.1f} tokens")
    figure.update_xaxes(title_text="mean length of an answer (tokens)")
    frame = None if accuracy_from is None else [accuracy_from, 1.01]
    figure.update_yaxes(title_text="accuracy", tickformat=".0%", range=frame)
    if not below.empty:
        gone = below.apply(lambda r: f"{r.label} ({r.accuracy:.0%}, {r.mean_length:.0f} tokens)", 1)
        figure.add_annotation(text=f"below the frame: {', '.join(gone)}", y=0.01, **_REMARK)
    # The parameters of a task would run out of the picture.
    return style(figure, height=420, title=f"Accuracy and length on {task.partition('?')[0]}")


def pareto_front(lengths: Sequence[float], accuracies: Sequence[float]) -> list[bool]:
    """Which points no other one beats: none is as short and as accurate, and better in one."""
    points = list(zip(lengths, accuracies, strict=True))
    return [
        not any(a <= length and b >= accuracy and (a, b) != (length, accuracy) for a, b in points)
        for length, accuracy in points
    ]


def crowd_floor(accuracies: Sequence[float]) -> float | None:
    """Where an axis of accuracy should begin to tell apart the policies that crowd at the top.

    None where those near the best are not more than half, or fewer than three, or where nobody is
    far below them: then the whole axis serves.
    """
    best = max(accuracies)
    crowd = [a for a in accuracies if a >= best - _CROWD]
    if len(crowd) < 3 or 2 * len(crowd) <= len(accuracies) or min(accuracies) > best - 2 * _CROWD:
        return None
    return max(0.0, min(crowd) - _CROWD / 2)


def gains_figure(table: pd.DataFrame) -> go.Figure:
    """Relative change of accuracy over that of length, both against the baseline, first task.

    Bars are 95% intervals. Upper left is shorter and more often right; the baseline is at 0, 0.
    Raises ValueError where no policy has a difference to the baseline.
    """
    chosen, task = _first_task(table)
    compared = chosen.dropna(subset=["gain_length", "gain_accuracy"])
    if compared.empty:
        raise ValueError(
            f"Nothing on {task} can be compared with the baseline: it got nothing right, answered "
            "other questions or stands alone. Choose another baseline."
        )
    figure = go.Figure()
    hover = "%{y:+.1%} accuracy, %{x:+.1%} length"
    _add_crosses(figure, compared, "gain_length", "gain_accuracy", hover)
    figure.add_hline(y=0, line={"color": GREY, "width": 1})
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    names = " / ".join(dict.fromkeys(compared["baseline"]))
    figure.update_xaxes(title_text=f"length against {names}", tickformat="+.0%")
    figure.update_yaxes(title_text=f"accuracy against {names}", tickformat="+.0%")
    look = {"color": GREY, "symbol": "diamond", "size": 11}
    hover = f"{names}<extra></extra>"
    figure.add_scatter(x=[0], y=[0], mode="markers", marker=look, name=names, hovertemplate=hover)
    figure.add_annotation(text="shorter, more often right", y=0.99, **_REMARK)
    return style(figure, height=420, title=f"Gains on {task}")


def token_figure(changes: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Mean tokens of an answer, split into filler and all else, for the base and each policy.

    ``changes``: tables of :func:`sarlab.evaluation.behaviours.behaviour_change` by policy,
    against one base.
    """
    table = pd.DataFrame({name: change["other"] for name, change in changes.items()})
    table.insert(0, "base", next(iter(changes.values()))["base"])
    names = {"other_tokens": "about the question", "filler_tokens": "filler"}
    figure = px.bar(
        table.loc[list(names)].T.rename(columns=names),
        orientation="h",
        color_discrete_sequence=(BLUE, ORANGE),
        text_auto=".0f",
    )
    lost = ["", *(what_was_lost(change) for change in changes.values())]
    figure.update_traces(
        textposition="inside",
        insidetextanchor="middle",
        insidetextfont_color="#111111",
        hovertext=lost,
        hovertemplate="%{fullData.name}: %{x:.1f} tokens<br>%{hovertext}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, title=None)
    figure.update_xaxes(title_text="tokens per answer")
    figure.update_layout(bargap=0.35, legend_traceorder="normal", legend_title_text="")
    figure.update_layout(uniformtext={"minsize": 9, "mode": "hide"})  # no number in a sliver
    return style(figure, height=110 + 34 * table.shape[1], title="Where the tokens went")


def length_figure(base: Rows, other: Rows, *, limit: int | None = None) -> go.Figure:
    """Distribution of answer lengths of two policies; the dotted line is the length limit."""
    lengths = {"base": [r["length"] for r in base], "trained": [r["length"] for r in other]}
    top = max(map(max, lengths.values()))
    size = max(1, round(top / 40))
    bins = {"start": 0, "end": top + size, "size": size}
    figure = go.Figure()
    for (name, values), colour in zip(lengths.items(), (GREY, BLUE), strict=True):
        figure.add_histogram(x=values, xbins=bins, name=name, marker_color=colour, opacity=0.65)
    if limit is not None and limit <= 1.3 * top:
        line = {"color": ORANGE, "dash": "dot", "width": 1.5}
        figure.add_vline(limit, line=line, annotation_text="limit", annotation_position="top left")
    figure.update_layout(barmode="overlay", bargap=0.04)
    figure.update_layout(xaxis_title="length (tokens)", yaxis_title="answers")
    return style(figure, height=280, width=700)


def _first_task(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows of the first task, each with a colour and a symbol; bases are grey diamonds."""
    task = str(table["task"].iloc[0])
    chosen = table[table["task"] == task]
    looks = zip(itertools.cycle(_COLOURS), itertools.cycle(_SYMBOLS), strict=False)
    pairs = [(GREY, "diamond") if is_base else next(looks) for is_base in chosen["is_base"]]
    colours, symbols = zip(*pairs, strict=True)
    return chosen.assign(colour=colours, symbol=symbols, seeds=chosen.get("seeds", 1)), task


def _add_crosses(figure: go.Figure, table: pd.DataFrame, x: str, y: str, hover: str) -> None:
    """A point per row with its interval in both directions."""
    for label, row in table.groupby("label", sort=False):
        colour, symbol, seeds = row[["colour", "symbol", "seeds"]].iloc[0]
        figure.add_scatter(
            x=row[x].tolist(),
            y=row[y].tolist(),
            error_x=interval_bars(row, x, colour),
            error_y=interval_bars(row, y, colour),
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 11},
            name=f"{label} ({seeds} seeds)" if seeds > 1 else str(label),
            hovertemplate=f"{label}: {hover}<extra></extra>",
        )


def interval_bars(table: pd.DataFrame, name: str, colour: str) -> dict[str, Any]:
    """Error bars of a column: its 95% interval in every row."""
    looks = {"type": "data", "symmetric": False, "color": colour, "thickness": 1.3, "width": 4}
    above, below = table[f"{name}_high"] - table[name], table[name] - table[f"{name}_low"]
    return {**looks, "array": above.tolist(), "arrayminus": below.tolist()}
