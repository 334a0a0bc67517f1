"""Pictures of training and evaluation: pure functions to plotly figures, and how to show them.

In JupyterLab plotly draws a figure from its JSON, with or without a kernel: on the page's own
ground, texts in the page's colour, as wide as the page. Elsewhere an SVG on a light ground shows.
Blue and orange are those of the token views, apart for colour-blind readers.
"""

import atexit
import functools
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sarlab.display.text import BLUE_HEX, GREY_HEX, ORANGE_HEX

BLUE, ORANGE, GREY = BLUE_HEX, ORANGE_HEX, GREY_HEX
GROUND, INK, GRID = "#fafafa", "#444444", "rgba(128,128,128,0.22)"
_CLEAR = "rgba(0,0,0,0)"
# No single grey has 4.5:1 on white and on JupyterLab's dark page, and plotly takes no CSS variable
# as a colour, but it passes the style of a span on. Elsewhere: a grey with 4:1 on both.
_PAGE_TEXT = '<span style="color:var(--jp-content-font-color1,#7a7a7a)">'
PICTURE_SECONDS = 40  # a browser that takes longer than this to draw is given up
PICTURE_SCALE = 1.5  # PNG pixels per figure pixel, in files

# title, column of metrics.jsonl, the same in a summary of validation answers, format of the axis
_PANELS = (
    ("Accuracy", "accuracy", "accuracy", ".0%"),
    ("Mean length (tokens)", "mean_length", "mean_length", None),
    ("Self-aligned reward", "sar", "sar", None),
    ("Reward", "reward", "mean_reward", None),
    ("KL to the base (nats per token)", "kl", "kl", None),
    ("Truncated", "truncated_share", "truncated_share", ".0%"),
)
_SMOOTH_FROM = 12  # steps from which a running mean helps to see the trend


def training_figure(
    metrics: Sequence[Mapping[str, Any]],
    *,
    baseline: Mapping[str, Any] | None = None,
    steps: int | None = None,
) -> go.Figure:
    """Accuracy, length, SAR, reward, KL and truncation over training steps, a panel each.

    ``metrics``: the lines of metrics.jsonl; a missing or null value is a gap. Thin line: the
    answers of each step; thick line: their mean over up to five steps before (from 12 steps on);
    diamonds: validation questions, where a line has ``heldout_<name>``. ``baseline``: such a
    summary of the untrained policy (:func:`sarlab.evaluation.judge.summarise`), drawn at step 0.
    ``steps`` fixes the right end of the axis, so that a live chart does not rescale. Dotted
    verticals: steps with a warning.
    """
    titles = [title for title, *_ in _PANELS]
    gaps = {"vertical_spacing": 0.19, "horizontal_spacing": 0.09}
    figure = make_subplots(2, 3, subplot_titles=titles, **gaps)
    many = len(metrics) >= _SMOOTH_FROM
    for index, (_, column, summary_column, form) in enumerate(_PANELS):
        place = {"row": index // 3 + 1, "col": index % 3 + 1}
        each = {m["step"]: m.get(column) for m in metrics}
        thin = {"mode": "lines" if many else "lines+markers", "line_width": 1 if many else 2}
        drawn: list[Any] = [("each step", each, {**thin, "line_color": BLUE})]
        if many:
            trend = dict(zip(each, running_mean([*each.values()], 5), strict=True))
            thick = {"mode": "lines", "line": {"color": BLUE, "width": 3}}
            drawn.append(("mean of 5 steps", trend, thick))
        judged = {0: (baseline or {}).get(summary_column)}
        judged |= {m["step"]: m.get(f"heldout_{summary_column}") for m in metrics}
        judged = {step: value for step, value in judged.items() if value is not None}
        if judged:
            dotted = {"color": ORANGE, "width": 1.5, "dash": "dot"}
            diamonds = {"color": ORANGE, "size": 8, "symbol": "diamond"}
            looks = {"mode": "lines+markers", "line": dotted, "marker": diamonds}
            drawn.append(("validation questions", judged, looks))
        for name, points, looks in drawn:
            figure.add_scatter(
                x=list(points),
                y=list(points.values()),
                name=name,
                legendgroup=name,
                showlegend=index == 0,
                hovertemplate=f"{name}, step %{{x:d}}: %{{y:.4~g}}<extra></extra>",
                **looks,
                **place,
            )
        ends = {"range": [-0.02, 1.04]} if form == ".0%" else {}
        figure.update_yaxes(tickformat=form, nticks=4, rangemode="tozero", **ends, **place)
    figure.update_xaxes(title_text="step", title_standoff=4, row=2)
    line = {"color": GREY, "width": 1.5, "dash": "dot"}
    warned = [m["step"] for m in metrics if m.get("messages")]
    for step in warned:
        figure.add_vline(x=step, line=line)
    if warned:  # a line across all panels is no trace, so its legend entry is an empty one
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name="warning")
    logged = [int(m["step"]) for m in metrics]
    start = 0 if baseline or 0 in logged else 1
    end = max(steps or 0, start + 1, *logged)
    ticks = {"dtick": 1} if end - start < 6 else {"nticks": 6}  # steps are whole numbers
    figure.update_xaxes(range=[start - 0.02 * end, end * 1.02], tickformat="d", **ticks)
    figure.update_annotations(font_size=13)
    return style(figure, height=430)


def position_figure(
    groups: Mapping[str, Sequence[Sequence[float]]], name: str, *, relative: bool = True
) -> go.Figure:
    """A quantity's mean over answers against the place in the answer, a line per group.

    ``groups``: one value per token of each answer, by name. Bands: ± one standard deviation between
    the answers of a group. ``relative``: in twentieths of an answer's length; else by token, over
    the answers that are so long.
    """
    figure = go.Figure()
    colours = zip(groups.items(), (BLUE, ORANGE, GREY), ("solid", "dash", "dot"), strict=False)
    for (label, answers), colour, dash in colours:
        tokens = pd.DataFrame(
            [
                (row, 5 * (20 * j // len(values)) + 2.5 if relative else j + 1, value)
                for row, values in enumerate(answers)
                for j, value in enumerate(values)
            ],
            columns=["answer", "place", "value"],
        )
        each = tokens.groupby(["answer", "place"])["value"].mean()
        places = each.groupby("place").agg(["mean", "std", "size"]).fillna(0)
        ends = [*(places["mean"] + places["std"]), *(places["mean"] - places["std"])[::-1]]
        red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
        band = {"fill": "toself", "fillcolor": f"rgba({red}, {green}, {blue}, 0.15)"}
        figure.add_scatter(
            x=[*places.index, *places.index[::-1]], y=ends, mode="none", hoverinfo="skip", **band
        )
        figure.data[-1].showlegend = False
        figure.add_scatter(
            x=[*places.index],
            y=[*places["mean"]],
            mode="lines",
            line={"color": colour, "width": 2.5, "dash": dash},
            name=f"{label} ({len(answers)})",
            customdata=[*places["size"]],
            hovertemplate=f"{label}, %{{x}}: %{{y:+.3f}} (mean of %{{customdata}})<extra></extra>",
        )
    place = "place in the answer (% of its tokens)" if relative else "token of the answer"
    style(figure, height=300).update_xaxes(title=place)
    if relative:
        figure.update_xaxes(range=[0, 100], dtick=10)
    zero = {"zeroline": True, "zerolinecolor": GREY, "zerolinewidth": 1}
    return figure.update_yaxes(title=f"{name} (nats), mean ± sd", **zero)


def running_mean(values: Sequence[float | None], width: int) -> list[float | None]:
    """Mean of each value and those up to ``width`` − 1 before it; gaps stay gaps."""
    series = pd.Series(values, dtype=float)
    means = series.rolling(width, min_periods=1).mean().where(series.notna())
    return [None if mean != mean else mean for mean in means]


def style(figure: go.Figure, *, height: int, width: int = 800, title: str = "") -> go.Figure:
    """The looks that all figures share; changes the figure and returns it. Sizes in pixels.

    ``width`` is that of pictures; ``height`` grows by the rows of the legend, which stands below.
    """
    names = [t.name for t in figure.data if t.name and t.showlegend is not False]
    per_row = max(1, width // (50 + 7 * max(map(len, names), default=0)))
    rows = -(-len(names) // per_row) if len(names) > 1 else 0
    figure.update_layout(
        template="none",
        width=width,
        height=height + 20 * rows,
        paper_bgcolor=GROUND,
        plot_bgcolor=GROUND,
        font={"color": INK, "size": 12, "family": "system-ui, sans-serif"},
        margin={"l": 10, "r": 14, "t": 40 if title or figure.layout.annotations else 14, "b": 16},
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        hoverlabel={"bgcolor": "#333333", "font": {"color": "#ffffff"}},
        title={"text": title, "font": {"size": 14}, "x": 0.5, "y": 1, "yref": "container"}
        | {"yanchor": "top", "pad": {"t": 10}},
    )
    axis = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "automargin": True}
    axis["exponentformat"] = "power"  # 3×10⁻⁶, where plotly's own choice is 3μ
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def draw(figure: go.Figure, form: str = "png") -> bytes | None:
    """The figure as a PNG or SVG; None where no Chrome or Chromium is there, or it fails."""
    import kaleido

    if not _browser_is_ready():
        return None
    size = {"width": figure.layout.width or 700, "height": figure.layout.height or 450}
    options = {"format": form, "scale": PICTURE_SCALE if form == "png" else 1, **size}
    try:
        return bytes(kaleido.calc_fig_sync(json.loads(figure.to_json()), opts=options))
    except (RuntimeError, OSError, TimeoutError, ValueError) as error:
        print(f"No picture could be drawn ({type(error).__name__}: {error}).", file=sys.stderr)
        return None


def mimebundle(figure: go.Figure, *, picture: bool = True) -> dict[str, Any]:
    """What a notebook stores of a figure: plotly JSON, text, and an SVG where one can be drawn."""
    plot = _on_page(json.loads(figure.to_json()))
    plot["layout"] |= {"paper_bgcolor": _CLEAR, "plot_bgcolor": _CLEAR, "autosize": True}
    plot["layout"].pop("width", None)
    plot["config"] = {"displayModeBar": False}
    panels = "; ".join(a.text for a in figure.layout.annotations if a.text)
    caption = f"Figure: {figure.layout.title.text or panels}"
    bundle = {"application/vnd.plotly.v1+json": plot, "text/plain": caption}
    # Not a PNG: JupyterLab would show that until the pointer comes.
    drawn = draw(figure, "svg") if picture else None
    return bundle if drawn is None else {**bundle, "image/svg+xml": drawn.decode()}


def _on_page(node: Any, key: str = "") -> Any:
    """A part of a figure's JSON: texts in the page's colour, numbers with six digits."""
    if isinstance(node, float):
        return float(f"{node:.6g}")
    if isinstance(node, list):
        return [_on_page(part, key if key == "ticktext" else "") for part in node]
    if not isinstance(node, dict):
        is_text = node and key in ("text", "name", "ticktext")
        return f"{_PAGE_TEXT}{node}</span>" if is_text else node
    part = {name: _on_page(value, name) for name, value in node.items()}
    if key.startswith(("xaxis", "yaxis", "colorbar")):
        part |= {"tickprefix": _PAGE_TEXT, "ticksuffix": "</span>"}
    if part.get("mode") == "text":
        part["texttemplate"] = f"{_PAGE_TEXT}%{{text}}</span>"
    return part


def show(figure: go.Figure, *, picture: bool = True, handle: Any = None) -> Any:
    """Display a figure in the notebook; returns a handle, given back to replace the picture.

    A live chart passes ``picture=False`` between steps and ``picture=True`` at the end, so that
    the SVG is drawn once. Outside IPython nothing is displayed and None is returned.
    """
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        return None
    bundle = mimebundle(figure, picture=picture)
    if handle is None:
        return display(bundle, raw=True, display_id=True)
    handle.update(blank(figure), raw=True)
    handle.update(bundle, raw=True)
    return handle


def blank(figure: go.Figure) -> dict[str, str]:
    """What stands in a figure's place before it is drawn again.

    JupyterLab's plotly renderer ignores every update of a figure that it has drawn. Another type of
    output in between, of the same height, makes JupyterLab draw it anew.
    """
    room = f'<div style="height:{figure.layout.height or 450}px"></div>'
    return {"text/html": room, "text/plain": ""}


@functools.cache
def _browser_is_ready() -> bool:
    """Whether a browser is there; the first call starts the process that draws all pictures.

    Kaleido without a browser can wait for minutes, so it is looked for first.
    """
    import kaleido
    from choreographer.browsers.chromium import Chromium

    if not Chromium.find_browser(skip_local=False):
        print(
            "No Chrome or Chromium was found, so figures come without a picture (PNG). Install "
            "one, run `plotly_get_chrome`, or set BROWSER_PATH.",
            file=sys.stderr,
        )
        return False
    # One browser for all figures: 0.2 s each instead of 3 s. MathJax would come from the network.
    kaleido.start_sync_server(silence_warnings=True, mathjax=False, timeout=PICTURE_SECONDS)
    atexit.register(kaleido.stop_sync_server, silence_warnings=True)
    return True
