"""Static HTML of every view, fit for an untrusted output area. Pure: records in, strings out.

JupyterLab's sanitizer keeps ``style``, ``title``, ``class`` and ``details``, and drops scripts,
style sheets, SVG, ``data-`` and ``aria-`` attributes; colours survive as ``rgba()`` or hex only.
So all style stands in the elements, text inherits the page's colour, and tints are transparent.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from sarlab.display.text import (
    GREY_HEX,
    V_FULL_NATS,
    line_colour,
    line_of,
    number,
    plain,
    shortened,
    signed,
    tint,
    visible,
)
from sarlab.display.token_view import AnswerView, Step, TokenView, share_text
from sarlab.widgets.candidates import Candidate, KindRow, Ordering, ranked
from sarlab.widgets.designs import Design, Measure

FOLD_ABOVE_TOKENS = 400
"""Longer answers are folded by step."""
CARDS_ABOVE_TOKENS = 1500
"""Longer answers leave the five alternatives out of their tooltips: a page has to stay light."""
_OPEN_STEPS = 3

_MONO = "font-family: monospace; font-size: 13px; line-height: 2"
_CELL = "padding: 3px 10px; text-align: {align}; vertical-align: top; border: none"
_RULE = "border-bottom: 1px solid rgba(128, 128, 128, 0.35)"
_MARK = f"color: {GREY_HEX}"


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
        f'<span style="{_MARK}">{label}</span> <b>{value}</b>' for label, value in view.numbers()
    )
    return f'<div style="margin: 2px 0 6px 0">{cells}</div>'


def tokens_html(view: AnswerView, start: int, stop: int, full: bool = True) -> str:
    """Tokens [start, stop), coloured by v, everything else about them in the tooltip."""
    spans = "".join(_token(token, full) for token in view.tokens[start:stop])
    # A bidirectional isolate a step: letters of a right-to-left script turn nothing else around.
    return f'<bdi style="{_MONO}">{spans}</bdi>'


def legend_html() -> str:
    """The scale, the same for every answer."""
    cells = []
    for value in (-V_FULL_NATS, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, V_FULL_NATS):
        sign = {-V_FULL_NATS: "≤ ", V_FULL_NATS: "≥ "}.get(value, "")
        shown = signed(value, 1 if value % 1 else 0) if value else "0"
        cells.append(f'<span style="{token_style(value)}; padding: 1px 7px">{sign}{shown}</span>')
    return (
        f'<div style="margin-top: 8px; font-size: 12px">{"".join(cells)}'
        f'<span style="{_MARK}"> &nbsp;nats: v = log P(token | question, before) − log P(token | '
        "before). Solid line: v ≥ 1, likelier with the question. Dotted: v ≤ −1, less "
        "likely.</span></div>"
    )


def ranking_html(candidates: Sequence[Candidate]) -> str:
    """The answers to one question, highest SAR first."""
    rows = []
    for place, i in enumerate(ranked(candidates), start=1):
        c = candidates[i]
        rows.append(
            [
                str(place),
                plain(c.kind),
                f"<b>{signed(c.score.sar)}</b>",
                number(c.score.ppl_conditioned),
                number(c.score.ppl_standalone),
                str(c.score.length),
                right_or_wrong(c.correct),
                plain(shortened(c.score.answer, 90)),
            ]
        )
    header = ("", "kind", "SAR", "ppl(a|q)", "ppl(a)", "tokens", "", "answer")
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
    """One row an answer, one column a reward design."""
    header = ["kind", "", "tokens", *(design.label for design in designs)]
    rows = []
    for i, c in enumerate(candidates):
        cells = [plain(c.kind), right_or_wrong(c.correct), str(c.score.length)]
        cells += [_shaded(design.numbers(measure)[i]) for design in designs]
        rows.append(cells)
    return table_html(header, rows, "llr" + "r" * len(designs))


def kinds_html(rows: Sequence[KindRow]) -> str:
    """The kinds of answers over all questions."""
    body = [
        [
            plain(row.kind),
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
    header = ("kind", "answers", "mean SAR", "mean tokens", "right", "concise is higher on")
    return table_html(header, body, "lrrrrr")


def orderings_html(found: Sequence[Ordering]) -> str:
    """On how many questions the expected order of two kinds holds."""
    rows = [
        [plain(o.better), "&gt;", plain(o.worse), f"<b>{o.holds}</b> of {o.questions}"]
        for o in found
    ]
    return table_html(("SAR of", "", "SAR of", "questions"), rows, "lclr")


def table_html(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """A plain table; ``align`` has one of l, c, r a column. Cells are HTML, the header is text."""
    sides = [{"l": "left", "c": "center", "r": "right"}[letter] for letter in align]

    def line(cells: Sequence[str], tag: str) -> str:
        # The last column is the one with long text; all others stay on one line.
        wraps = ["; white-space: nowrap"] * (len(cells) - 1) + [""]
        return "".join(
            f'<{tag} style="{_CELL.format(align=side)}; {_RULE}{wrap}">{cell}</{tag}>'
            for cell, side, wrap in zip(cells, sides, wraps, strict=True)
        )

    head = line([html.escape(name) for name in header], "th")
    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    style = "border-collapse: collapse; font-size: 13px; margin: 4px 0"
    return f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def right_or_wrong(correct: bool | None) -> str:
    """A word and a sign, so that no colour is needed."""
    return {True: "✓ right", False: "✗ wrong", None: "–"}[correct]


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


def token_style(value_nats: float) -> str:
    """The colour and the underline of a token with this v."""
    line = line_of(value_nats)
    under = "" if line == "none" else f"; border-bottom: 2px {line} {line_colour(line)}"
    return f"background-color: {tint(value_nats)}{under}"


def _token(token: TokenView, full: bool) -> str:
    text = "".join(
        f'<span style="{_MARK}">{run}</span>' if mark else html.escape(run, quote=True)
        for mark, run in ((i % 2, run) for i, run in enumerate(token.runs))
        if run
    )
    title = html.escape(tooltip(token, full), quote=True).replace("\n", "&#10;")
    # A line may break after any token: spaces are shown as marks, which do not break.
    return f'<span title="{title}" style="{token_style(token.value)}">{text}</span><wbr>'


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
    return table_html(("Σ v, nats", "of all", "tokens, by step"), rows, "rrl")


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
        f'<span style="{_MARK}">{plain(step.opening)}</span>'
    )


def _shaded(value: float) -> str:
    # An advantage of ±1 is as strong as a token of ±4 nats.
    return f'<span style="background-color: {tint(V_FULL_NATS * value)}; padding: 1px 6px">' + (
        f"{signed(value)}</span>"
    )


def _heading(text: str) -> str:
    return f'<div style="font-weight: bold; margin-bottom: 2px">{plain(text)}</div>' if text else ""
