"""Static HTML of every view, drawn by sarlab/display/views.html. Pure: records in, strings out."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sarlab.display.tables import MISSING, folded, html_table, views
from sarlab.display.text import TERMS, V_FULL_NATS, number, one_line, plain, signed, tint, visible
from sarlab.display.token_view import AnswerView, TokenView, legend, share_text
from sarlab.widgets.candidates import Candidate, LabelRow, Ordering, ranked, verdict_text
from sarlab.widgets.designs import Design, Measure

RANKING_HEADER = ("", "label", "SAR", "ppl(a|q)", "ppl(a)", "tokens", "verdict", "answer")
_FOLD_ABOVE = 400  # tokens; longer answers are folded by step
_CARDS_ABOVE = 1500  # longer ones have no alternatives in their tooltips: pages stay light


def answer_html(
    view: AnswerView, *, heading: str = "", legend: bool = True, full: bool = True
) -> str:
    """One answer: its numbers, its tokens by step, and the scale.

    ``full`` puts the five likeliest tokens of both contexts into the tooltips; very long answers
    go without.
    """
    full = full and view.score.length <= _CARDS_ABOVE
    steps = []
    for step in view.steps:
        shown = [(token, tooltip(token, full)) for token in view.tokens[step.start : step.stop]]
        facts = (step.stop - step.start, visible(step.opening))
        steps.append((signed(step.total_nats, 2), share_text(step), views().tokens(shown), *facts))
    folds, scale = view.score.length > _FOLD_ABOVE, _scale() if legend else None
    return str(views().answer(view, visible(heading, " "), steps, folds, scale))


def legend_html() -> str:
    """The scale, the same for every answer."""
    return str(views().legend(_scale()))


_scale = legend


def terms_html() -> str:
    """The terms of the views, one click away."""
    table = html_table(pd.DataFrame(TERMS, columns=["term", "meaning"]))
    return f'<div class="sarlab-terms">{folded("What the terms mean", table)}</div>'


def growing_html(texts: Sequence[str]) -> str:
    """Answers that are being sampled."""
    return "".join(f'<div class="sarlab-growing">{plain(text)}</div>' for text in texts)


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


def pair_html(pairs: Sequence[tuple[str, AnswerView]]) -> str:
    """Answers side by side on one scale, each under its label."""
    answers = [answer_html(v, heading=label, legend=False, full=False) for label, v in pairs]
    return str(views().pair(answers, legend()))


def designs_html(
    candidates: Sequence[Candidate], designs: Sequence[Design], measure: Measure
) -> str:
    """One row per answer, one column per reward design, shaded by its number."""
    rows = []
    for i, c in enumerate(candidates):
        cells = [one_line(c.label), verdict_text(c.correct, c.truncated), str(c.score.length)]
        for value in (design.numbers(measure)[i] for design in designs):
            # An advantage of ±1 is as strong as a token of ±4 nats.
            style = f"background-color: {tint(V_FULL_NATS * value)}; padding: 1px 6px"
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
    return f"{views().page(visible(title, ' '), body)}\n"


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
