"""Pictures of how far a reward's claims hold: pure functions from tables to plotly figures."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sarlab.audit.claims import SCORES
from sarlab.display.figures import BLUE, GREY, GRID, ORANGE, style
from sarlab.evaluation.plots import interval_bars

# Each score has a colour and a symbol; SAR is filled, what it is compared with is open.
_LOOKS = {
    "sar": (BLUE, "circle"),
    "length": (ORANGE, "square-open"),
    "confidence": ("#b8518f", "triangle-up-open"),
    "ppl_standalone": ("#00825f", "diamond-open"),
    "correct": (GREY, "x-thin-open"),
}


def shares_figure(table: pd.DataFrame) -> go.Figure:
    """Share of pairs in order by score: all pairs left, those of equal length right.

    ``table``: of :func:`sarlab.audit.claims.claim_table`, a row per claim, or of ``group_table``, a
    row per policy. Bars are 95% intervals; the line at one half is a score that knows nothing.
    """
    column = "claim" if "claim" in table else "model"
    groups = "" if column == "claim" else " of a group"
    rows = list(dict.fromkeys(table[column]))
    names = [str(row).replace("_", " ") for row in rows]
    titles = (f"all pairs{groups}", "pairs of equal length")
    figure = make_subplots(1, 2, subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.03)
    scores = [s for s in _LOOKS if s in set(table["score"])]
    for panel, name in enumerate(("share", "equal_share"), start=1):
        for place, score in enumerate(scores):
            colour, symbol = _LOOKS[score]
            line = {"color": colour, "width": 2}
            known = table[(table["score"] == score) & table[name].notna()].set_index(column)
            # Side by side within a row, SAR at its top.
            shift = 0.64 * (place / max(1, len(scores) - 1) - 0.5)
            figure.add_scatter(
                x=known[name].tolist(),
                y=[rows.index(row) + shift for row in known.index],
                error_x=interval_bars(known, name, colour),
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 8, "line": line},
                name=SCORES[score],
                legendgroup=score,
                showlegend=panel == 1,
                text=[names[rows.index(row)] for row in known.index],
                hovertemplate=f"{SCORES[score]}: %{{text}}: %{{x:.1%}}<extra></extra>",
                row=1,
                col=panel,
            )
    figure.add_vline(x=0.5, line={"color": GREY, "width": 1, "dash": "dot"})
    for border in range(1, len(rows)):
        figure.add_hline(y=border - 0.5, line={"color": GRID, "width": 1})
    axis = "AUC, right over wrong" if groups else "share of pairs in the claimed order"
    figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%", title_text=axis, nticks=6)
    ends = [len(rows) - 0.4, -0.6]
    figure.update_yaxes(tickvals=[*range(len(rows))], ticktext=names, range=ends, showgrid=False)
    style(figure, height=110 + 46 * len(rows))
    return figure.update_annotations(font_size=13)
