"""Static HTML of every view, fit for an untrusted output area. Pure: records in, strings out.

JupyterLab's sanitizer keeps ``style``, ``title``, ``class`` and ``details``, and drops scripts,
style sheets, SVG, ``data-`` and ``aria-`` attributes; colours survive as ``rgba()`` or hex only.
So all style stands in the elements, text inherits the page's colour, and tints are transparent.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd

from sarlab.display.tables import MISSING, folded, html_table
from sarlab.display.text import (
    BLUE_HEX,
    ORANGE_HEX,
    TERMS,
    V_FULL_NATS,
    number,
    one_line,
    plain,
    signed,
    tint,
    visible,
)
from sarlab.display.token_view import AnswerView, TokenView, legend, share_text
from sarlab.widgets.candidates import Candidate, LabelRow, Ordering, ranked, verdict_text
from sarlab.widgets.designs import Design, Measure

RANKING_HEADER = ("", "label", "SAR", "ppl(a|q)", "ppl(a)", "tokens", "verdict", "answer")
_FOLD_ABOVE = 400  # tokens; longer answers are folded by step
_CARDS_ABOVE = 1500  # longer ones have no alternatives in their tooltips: pages stay light
_OPEN_STEPS = 3

_MONO = "font-family: monospace; font-size: 13px; line-height: 2"
_SOFT = "opacity: 0.8"  # one grey cannot have 4.5:1 on white and on black
_BACKGROUND = "background-color"
_LINES = ("sarlab-token", "sarlab-token sarlab-solid", "sarlab-token sarlab-dotted")


def answer_html(
    view: AnswerView, *, heading: str = "", legend: bool = True, full: bool = True
) -> str:
    """One answer: its numbers, its tokens by step, and the scale.

    ``full`` puts the five likeliest tokens of both contexts into the tooltips; very long answers
    go without.
    """
    full = full and view.score.length <= _CARDS_ABOVE
    numbers = " &nbsp; ".join(
        f'<span style="{_SOFT}">{label}</span> <b>{value}</b>' for label, value in view.numbers()
    )
    folds = view.score.length > _FOLD_ABOVE
    return (
        '<div class="sarlab-static" style="margin: 8px 0 14px 0">'
        + (f'<div style="margin-bottom: 2px"><b>{plain(heading)}</b></div>' if heading else "")
        + f'<div style="margin: 2px 0 6px 0">{numbers}</div>'
        + (f"<div><b>{view.warning}</b></div>" if view.warning else "")
        + (_folded_steps(view, full) if folds else _step_table(view, full))
        + (legend_html() if legend else "")
        + "</div>"
    )


def _tokens(view: AnswerView, start: int, stop: int, full: bool) -> str:
    spans = "".join(_token(token, full) for token in view.tokens[start:stop])
    # A bidirectional isolate a step: letters of a right-to-left script turn nothing else around.
    return f'<bdi style="{_MONO}">{spans}</bdi>'


def legend_html() -> str:
    """The scale, the same for every answer."""
    scale = legend()
    cells = "".join(
        f'<span class="{_LINES[line]}" style="{_BACKGROUND}: {colour}{_under(line)}; '
        f'padding: 1px 7px">{label}</span>'
        for label, colour, line in scale["cells"]
    )
    text = f'<span class="sarlab-label" style="{_SOFT}"> {html.escape(scale["text"])}</span>'
    style = "margin-top: 8px; font-size: 12px"
    return f'<div class="sarlab-legend" style="{style}">{cells}{text}</div>'


def terms_html() -> str:
    """The terms of the views, one click away."""
    table = html_table(pd.DataFrame(TERMS, columns=["term", "meaning"]))
    return f'<div class="sarlab-terms">{folded("What the terms mean", table)}</div>'


def ranking_rows(candidates: Sequence[Candidate]) -> list[list[str]]:
    """The answers to one question as rows of text under ``RANKING_HEADER``, highest SAR first."""
    return [
        [
            str(place),
            one_line(c.label),
            signed(c.score.sar),
            number(c.score.ppl_conditioned),
            number(c.score.ppl_standalone),
            str(c.score.length),
            verdict_text(c.correct, c.truncated),
            one_line(c.score.answer),
        ]
        for place, c in enumerate((candidates[i] for i in ranked(candidates)), start=1)
    ]


def ranking_html(candidates: Sequence[Candidate]) -> str:
    """The answers to one question, highest SAR first."""
    return rows_html(ranking_rows(candidates), RANKING_HEADER, "rlrrrrll")


def pair_html(views: Sequence[tuple[str, AnswerView]]) -> str:
    """Answers side by side on one scale, each under its label."""
    width = 100 // max(1, len(views))
    cells = "".join(
        f'<td style="width: {width}%; vertical-align: top; text-align: left; padding: 4px 12px">'
        f"{answer_html(view, heading=label, legend=False, full=False)}</td>"
        for label, view in views
    )
    style = "width: 100%; table-layout: fixed; border-collapse: collapse"
    table = f'<table style="{style}"><tr>{cells}</tr></table>'
    return f"<div>{table}{legend_html()}</div>"


def designs_html(
    candidates: Sequence[Candidate], designs: Sequence[Design], measure: Measure
) -> str:
    """One row per answer, one column per reward design, shaded by its number."""
    rows = []
    for i, c in enumerate(candidates):
        cells = [one_line(c.label), verdict_text(c.correct, c.truncated), str(c.score.length)]
        for value in (design.numbers(measure)[i] for design in designs):
            # An advantage of ±1 is as strong as a token of ±4 nats.
            style = f"{_BACKGROUND}: {tint(V_FULL_NATS * value)}; padding: 1px 6px"
            cells.append(f'<span style="{style}">{signed(value)}</span>')
        rows.append(cells)
    labels = [design.label for design in designs]
    header = ["label", "verdict", "tokens", *labels]
    return rows_html(rows, header, "llr" + "r" * len(designs), markup=labels)


def labels_html(rows: Sequence[LabelRow]) -> str:
    """Answers by label over all questions."""
    header = ("label", "answers", "mean SAR", "mean tokens", "right", "concise is higher on")
    cells = []
    for row in rows:
        below = row.questions_below_concise
        cells.append(
            [
                one_line(row.label),
                str(row.answers),
                signed(row.mean_sar),
                number(row.mean_length, 0),
                MISSING if row.share_correct is None else f"{100 * row.share_correct:.0f} %",
                MISSING if below is None else f"{below} of {row.answers}",
            ]
        )
    return rows_html(cells, header, "lrrrrr")


def orderings_html(counts: Sequence[Ordering]) -> str:
    """On how many questions the expected order of two labels holds."""
    rows = [
        [one_line(o.better), ">", one_line(o.worse), f"<b>{o.holds}</b> of {o.questions}"]
        for o in counts
    ]
    return rows_html(rows, ("SAR of", "", "SAR of ", "questions"), "lclr", markup=("questions",))


def rows_html(
    rows: Sequence[Sequence[str]], header: Sequence[str], align: str, markup: Sequence[str] = ()
) -> str:
    """Rows of text as a table; the columns in ``markup`` are HTML already."""
    return html_table(pd.DataFrame(rows, columns=list(header)), align=align, markup=markup)


def page(title: str, body: str) -> str:
    """A whole document without scripts that follows the reader's light or dark setting."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{plain(title)}</title>"
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        "<style>:root { color-scheme: light dark } body { font: 14px/1.5 system-ui, sans-serif; "
        "margin: 24px auto; max-width: 1080px; padding: 0 16px }</style></head>"
        f"<body>{body}</body></html>\n"
    )


def _under(line: int) -> str:
    # Browsers paint a background below the border too; clipped, the line stands on the page.
    if not line:
        return ""
    kind, colour = (("solid", BLUE_HEX), ("dotted", ORANGE_HEX))[line - 1]
    return f"; background-clip: padding-box; border-bottom: 2px {kind} {colour}"


def _token(token: TokenView, full: bool) -> str:
    text = "".join(
        f'<span class="sarlab-mark" style="{_SOFT}">{run}</span>'
        if mark % 2
        else html.escape(run, quote=True)
        for mark, run in enumerate(token.runs)
        if run
    )
    title = html.escape(tooltip(token, full), quote=True).replace("\n", "&#10;")
    style = f"{_BACKGROUND}: {token.tint}{_under(token.line)}"
    # A line may break after any token: spaces are shown as marks, which do not break.
    return f'<span class="{_LINES[token.line]}" title="{title}" style="{style}">{text}</span><wbr>'


def tooltip(token: TokenView, full: bool = True) -> str:
    """A token's numbers as lines of text; ``full`` with its share and the likeliest five."""
    notes = token.notes if full else token.notes[:1]
    lines = [token.title, *notes, "with the question · without it"]
    lines += [f"{what}: {first} · {second}" for what, first, second in token.facts]
    for name, top in (("with", token.top_conditioned), ("without", token.top_standalone)):
        if full and top:
            lines.append(f"likeliest {name}: " + ", ".join(f"{t} {p}" for t, p in top))
    # Each is made visible by itself, so that a token adds no line of its own.
    return "\n".join(visible(line, " ") for line in lines)


def _step_table(view: AnswerView, full: bool) -> str:
    rows = [
        [signed(s.total_nats, 2), share_text(s), _tokens(view, s.start, s.stop, full)]
        for s in view.steps
    ]
    header = ("Σ Δ log p, nats", "of all", "tokens, by step")
    return rows_html(rows, header, "rrl", markup=header[2:])


def _folded_steps(view: AnswerView, full: bool) -> str:
    return "".join(
        f'<details{" open" if k < _OPEN_STEPS else ""}><summary style="font-size: 13px">'
        f"step {k + 1} &nbsp; <b>{signed(s.total_nats, 2)}</b> nats; of all: {share_text(s)} "
        f'&nbsp; {s.stop - s.start} tokens &nbsp; <span style="{_SOFT}">{plain(s.opening)}</span>'
        '</summary><div style="padding: 2px 0 6px 24px">'
        f"{_tokens(view, s.start, s.stop, full)}</div></details>"
        for k, s in enumerate(view.steps)
    )
