"""Static HTML of every view, fit for an untrusted output area. Pure: records in, strings out.

JupyterLab's sanitizer keeps ``style``, ``title``, ``class`` and ``details``, and drops scripts,
style sheets, SVG, ``data-`` and ``aria-`` attributes; colours survive as ``rgba()`` or hex only.
So all style stands in the elements, text inherits the page's colour, and tints are transparent.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd

from sarlab.display.tables import html_table
from sarlab.display.text import (
    BLUE_HEX,
    ORANGE_HEX,
    TERMS,
    V_FULL_NATS,
    number,
    plain,
    shortened,
    signed,
    tint,
    visible,
)
from sarlab.display.token_view import AnswerView, Step, TokenView, legend, share_text
from sarlab.widgets.candidates import Candidate, LabelRow, Ordering, ranked, verdict_text
from sarlab.widgets.designs import Design, Measure

FOLD_ABOVE_TOKENS = 400
"""Longer answers are folded by step."""
CARDS_ABOVE_TOKENS = 1500
"""Longer answers leave the five alternatives out of their tooltips: a page has to stay light."""
_OPEN_STEPS = 3

_MONO = "font-family: monospace; font-size: 13px; line-height: 2"
_TERM = "padding: 2px 10px; text-align: left; vertical-align: top"
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
    full = full and view.score.length <= CARDS_ABOVE_TOKENS
    parts = [f'<div class="sarlab-static" style="margin: 8px 0 14px 0">{_heading(heading)}']
    parts.append(numbers_html(view))
    if view.warning:
        parts.append(f"<div><b>{view.warning}</b></div>")
    if view.score.length > FOLD_ABOVE_TOKENS:
        parts += [_folded_step(view, i, full) for i in range(len(view.steps))]
    else:
        parts.append(_step_table(view, full))
    if legend:
        parts.append(legend_html())
    return "".join(parts) + "</div>"


def numbers_html(view: AnswerView) -> str:
    """The answer's numbers on one line."""
    cells = " &nbsp; ".join(
        f'<span style="{_SOFT}">{label}</span> <b>{value}</b>' for label, value in view.numbers()
    )
    return f'<div style="margin: 2px 0 6px 0">{cells}</div>'


def tokens_html(view: AnswerView, start: int, stop: int, full: bool = True) -> str:
    """Tokens [start, stop), coloured by Δ log p, everything else about them in the tooltip."""
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
    rows = "".join(
        f'<tr><th style="{_TERM}; white-space: nowrap">{html.escape(term)}</th>'
        f'<td style="{_TERM}">{html.escape(meaning)}</td></tr>'
        for term, meaning in TERMS
    )
    return (
        '<details class="sarlab-terms"><summary>What the terms mean</summary>'
        f'<table style="border-collapse: collapse; font-size: 13px">{rows}</table></details>'
    )


def ranking_html(candidates: Sequence[Candidate]) -> str:
    """The answers to one question, highest SAR first."""
    rows = []
    for place, i in enumerate(ranked(candidates), start=1):
        c = candidates[i]
        rows.append(
            [
                str(place),
                plain(c.label),
                f"<b>{signed(c.score.sar)}</b>",
                number(c.score.ppl_conditioned),
                number(c.score.ppl_standalone),
                str(c.score.length),
                verdict_text(c.correct, c.truncated),
                plain(shortened(c.score.answer, 90)),
            ]
        )
    header = ("", "label", "SAR", "ppl(a|q)", "ppl(a)", "tokens", "", "answer")
    return table_html(header, rows, "llrrrrll")


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
    """One row per answer, one column per reward design."""
    header = ["label", "", "tokens", *(design.label for design in designs)]
    rows = []
    for i, c in enumerate(candidates):
        cells = [plain(c.label), verdict_text(c.correct, c.truncated), str(c.score.length)]
        cells += [_shaded(design.numbers(measure)[i]) for design in designs]
        rows.append(cells)
    return table_html(header, rows, "llr" + "r" * len(designs))


def labels_html(rows: Sequence[LabelRow]) -> str:
    """Answers by label over all questions."""
    body = [
        [
            plain(row.label),
            str(row.answers),
            f"<b>{signed(row.mean_sar)}</b>",
            number(row.mean_length, 0),
            "–" if row.share_correct is None else f"{100 * row.share_correct:.0f} %",
            "–"
            if row.questions_below_concise is None
            else f"{row.questions_below_concise} of {row.answers}",
        ]
        for row in rows
    ]
    header = ("label", "answers", "mean SAR", "mean tokens", "right", "concise is higher on")
    return table_html(header, body, "lrrrrr")


def orderings_html(counts: Sequence[Ordering]) -> str:
    """On how many questions the expected order of two labels holds."""
    rows = [
        [plain(o.better), "&gt;", plain(o.worse), f"<b>{o.holds}</b> of {o.questions}"]
        for o in counts
    ]
    return table_html(("SAR of", "", "SAR of", "questions"), rows, "lclr")


def table_html(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """A table whose cells are HTML already; ``align`` has one of l, c, r per column."""
    return html_table(pd.DataFrame(list(rows), columns=list(header)), align=align, markup=header)


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
        if mark
        else html.escape(run, quote=True)
        for mark, run in ((i % 2, run) for i, run in enumerate(token.runs))
        if run
    )
    title = html.escape(tooltip(token, full), quote=True).replace("\n", "&#10;")
    line = {"none": 0, "solid": 1, "dotted": 2}[token.line]
    style = f"{_BACKGROUND}: {token.tint}{_under(line)}"
    # A line may break after any token: spaces are shown as marks, which do not break.
    return f'<span class="{_LINES[line]}" title="{title}" style="{style}">{text}</span><wbr>'


def tooltip(token: TokenView, full: bool = True) -> str:
    """A token's numbers as lines of text; ``full`` with its share and the likeliest five."""
    notes = token.notes if full else token.notes[:1]
    lines = [token.title, *notes, "with the question · without it"]
    lines += [f"{what}: {first} · {second}" for what, first, second in token.facts]
    if full and token.top_conditioned:
        for name, top in (
            ("with", token.top_conditioned),
            ("without", token.top_standalone),
        ):
            lines.append(f"likeliest {name}: " + ", ".join(f"{t} {p}" for t, p in top))
    return visible_lines(lines)


def visible_lines(lines: Sequence[str]) -> str:
    """Lines of a tooltip, each made visible by itself so that a token adds no line of its own."""
    return "\n".join("".join(c if c == " " else visible(c) for c in line) for line in lines)


def _step_table(view: AnswerView, full: bool) -> str:
    rows = [
        [
            f"<b>{signed(s.total_nats, 2)}</b>",
            share_text(s),
            tokens_html(view, s.start, s.stop, full),
        ]
        for s in view.steps
    ]
    return table_html(("Σ Δ log p, nats", "of all", "tokens, by step"), rows, "rrl")


def _folded_step(view: AnswerView, index: int, full: bool) -> str:
    step = view.steps[index]
    opened = " open" if index < _OPEN_STEPS else ""
    return (
        f'<details{opened}><summary style="font-size: 13px">{_step_summary(index, step)}</summary>'
        '<div style="padding: 2px 0 6px 24px">'
        f"{tokens_html(view, step.start, step.stop, full)}</div></details>"
    )


def _step_summary(index: int, step: Step) -> str:
    return (
        f"step {index + 1} &nbsp; <b>{signed(step.total_nats, 2)}</b> nats, "
        f"{share_text(step)} &nbsp; {step.stop - step.start} tokens &nbsp; "
        f'<span style="{_SOFT}">{plain(step.opening)}</span>'
    )


def _shaded(value: float) -> str:
    # An advantage of ±1 is as strong as a token of ±4 nats.
    return f'<span style="background-color: {tint(V_FULL_NATS * value)}; padding: 1px 6px">' + (
        f"{signed(value)}</span>"
    )


def _heading(text: str) -> str:
    return f'<div style="font-weight: bold; margin-bottom: 2px">{plain(text)}</div>' if text else ""
