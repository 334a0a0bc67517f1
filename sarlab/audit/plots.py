"""Pictures of how far a reward's claims hold: pure functions from tables to plotly figures."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sarlab.audit.claims import SCORES
from sarlab.display.figures import BLUE, GREY, GRID, ORANGE, style

# Each score has a colour and a symbol; SAR is filled, what it is compared with is open.
_LOOKS = {
    "sar": (BLUE, "circle"),
    "length": (ORANGE, "square-open"),
    "confidence": ("#b8518f", "triangle-up-open"),
    "ppl_standalone": ("#00825f", "diamond-open"),
    "correct": (GREY, "x-thin-open"),
}
_ROW = 46  # pixels per claim


def claims_figure(table: pd.DataFrame) -> go.Figure:
    """Share of pairs in the claimed order by score: all pairs left, equal length right.

    ``table``: of :func:`sarlab.audit.claims.claim_table`. Bars are 95% intervals; the line
    at one half is a score that knows nothing.
    """
    claims = list(dict.fromkeys(table["claim"]))
    return _shares(
        table,
        "claim",
        claims,
        ("share", "equal_share"),
        ("all pairs", "pairs of equal length"),
        "share of pairs in the claimed order",
    )


def groups_figure(table: pd.DataFrame) -> go.Figure:
    """AUC of right against wrong answers within groups by policy and score, as the figure above.

    ``table``: of :func:`sarlab.audit.claims.group_table`.
    """
    models = list(dict.fromkeys(table["model"]))
    return _shares(
        table,
        "model",
        models,
        ("share", "equal_share"),
        ("all pairs of a group", "pairs of equal length"),
        "AUC of right against wrong within groups",
    )


def _shares(
    table: pd.DataFrame,
    column: str,
    rows: Sequence[str],
    names: Sequence[str],
    titles: Sequence[str],
    axis: str,
) -> go.Figure:
    figure = make_subplots(
        rows=1, cols=len(names), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03
    )
    scores = [s for s in _LOOKS if s in set(table["score"])]
    for panel, name in enumerate(names, start=1):
        for place, score in enumerate(scores):
            colour, symbol = _LOOKS[score]
            part = table[table["score"] == score].set_index(column).reindex(rows)
            known = part[part[name].notna()]
            # Side by side within a row, SAR at its top.
            shift = 0.64 * (place / max(1, len(scores) - 1) - 0.5)
            figure.add_scatter(
                x=known[name].tolist(),
                y=[rows.index(row) + shift for row in known.index],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": (known[f"{name}_high"] - known[name]).tolist(),
                    "arrayminus": (known[name] - known[f"{name}_low"]).tolist(),
                    "color": colour,
                    "thickness": 1.2,
                    "width": 3,
                },
                mode="markers",
                marker={
                    "color": colour,
                    "symbol": symbol,
                    "size": 9 if score == "sar" else 8,
                    "line": {"width": 2, "color": colour},
                },
                name=SCORES[score],
                legendgroup=score,
                showlegend=panel == 1,
                text=[str(row).replace("_", " ") for row in known.index],
                hovertemplate=f"{SCORES[score]}: %{{text}}: %{{x:.1%}}<extra></extra>",
                row=1,
                col=panel,
            )
        figure.add_vline(x=0.5, line={"color": GREY, "width": 1, "dash": "dot"}, row=1, col=panel)
        for border in range(1, len(rows)):
            figure.add_hline(y=border - 0.5, line={"color": GRID, "width": 1}, row=1, col=panel)
    style(figure, width=960, height=130 + _ROW * len(rows))
    figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%", title_text=axis, nticks=6)
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[str(row).replace("_", " ") for row in rows],
        range=[len(rows) - 0.4, -0.6],
        showgrid=False,
    )
    figure.update_annotations(font_size=13)
    top = 1 + 44 / (_ROW * len(rows))  # above the panels' titles, whatever their height
    return figure.update_layout(legend={"orientation": "h", "x": 0, "y": top, "yanchor": "bottom"})
