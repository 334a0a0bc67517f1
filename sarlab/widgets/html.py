"""Static HTML of every view, drawn by sarlab/display/views.html. Pure: records in, strings out."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from sarlab.display.tables import MISSING, Column, html_table, number_text, text_table, views
from sarlab.display.text import V_FULL_NATS, number, one_line, signed, tint, visible
from sarlab.display.token_view import AnswerView, share_text
from sarlab.display.token_view import legend as token_scale
from sarlab.widgets.candidates import Candidate, label_rows, orderings, verdict_text
from sarlab.widgets.designs import Design, Measure

# Tables of records: header, side (l, r, or t: long text that a live table may cut), and the text of
# a record (None: its place).
Columns = Sequence[tuple[str, str, Callable[[Any], str] | None]]
RANKING: Columns = (
    ("", "r", None),
    ("label", "l", lambda c: one_line(c.label)),
    ("SAR", "r", lambda c: signed(c.score.sar)),
    ("ppl(a|q)", "r", lambda c: number(c.score.ppl_conditioned)),
    ("ppl(a)", "r", lambda c: number(c.score.ppl_standalone)),
    ("tokens", "r", lambda c: str(c.score.length)),
    ("verdict", "l", lambda c: verdict_text(c.correct, c.truncated)),
    ("answer", "t", lambda c: one_line(c.score.answer)),
)
LOGGED: Columns = (
    ("step", "r", lambda row: str(row.step)),
    ("SAR", "r", lambda row: number_text(row.sar, 3, sign="+")),
    ("ppl(a|q)", "r", lambda row: number(row.ppl_conditioned)),
    ("ppl(a)", "r", lambda row: number(row.ppl_standalone) if row.sar == row.sar else MISSING),
    ("tokens", "r", lambda row: number_text(row.length, 0)),
    ("reward", "r", lambda row: number_text(row.reward, 2, sign="+")),
    (
        "verdict",
        "l",
        lambda row: MISSING if pd.isna(row.correct) else verdict_text(row.correct, row.truncated),
    ),
    ("answer", "t", lambda row: one_line(row.answer, 140)),
)
LABELS = (
    Column("label", "label"),
    Column("answers", "answers"),
    Column("mean SAR", "mean_sar", 3, sign="+"),
    Column("mean tokens", "mean_length", 0),
    Column("right (%)", "share_correct", 0, 100),
    Column("concise is higher on", "below_concise"),
)
ORDERINGS = (
    Column("higher SAR", "better"),
    Column("than", "worse"),
    Column("on questions", "holds"),
    Column("of", "questions"),
)
_FOLD_ABOVE = 400  # tokens; longer answers are folded by step
_CARDS_ABOVE = 1500  # longer ones have no alternatives in their tooltips: pages stay light


def answer_html(
    view: AnswerView, *, heading: str = "", legend: bool = True, full: bool = True
) -> str:
    """One answer: its numbers, its tokens by step, and the scale.

    ``full`` puts the five likeliest tokens of both contexts into the tooltips; very long answers
    go without.
    """
    length = len(view.runs)
    full = full and length <= _CARDS_ABOVE
    titles = [tooltip(card, full) for card in view.cards]
    tokens = [*zip(view.runs, view.tints, view.lines, titles, strict=True)]
    steps = [
        (
            *(signed(s.total_nats, 2), share_text(s), views().tokens(tokens[s.start : s.stop])),
            *(s.stop - s.start, visible(s.opening)),
        )
        for s in view.steps
    ]
    scale = token_scale() if legend else None
    return str(views().answer(view, visible(heading, " "), steps, length > _FOLD_ABOVE, scale))


def labels_html(candidates: Sequence[Candidate]) -> str:
    """Answers by label, and on how many questions labels are in their expected order."""
    rows = label_rows(candidates)
    rows = rows.assign(label=rows["label"].map(one_line))
    tables = (text_table(rows, LABELS), text_table(orderings(candidates), ORDERINGS))
    return "".join(map(html_table, tables))


def table_of(columns: Columns, records: Iterable[Any]) -> tuple[list[str], str, list[list[str]]]:
    """Headers, sides and rows of plain text of records."""
    rows = [
        [str(place) if text is None else text(record) for _, _, text in columns]
        for place, record in enumerate(records, start=1)
    ]
    return [header for header, _, _ in columns], "".join(side for _, side, _ in columns), rows


def records_html(columns: Columns, records: Iterable[Any]) -> str:
    """Records as a table."""
    headers, sides, rows = table_of(columns, records)
    return html_table(pd.DataFrame(rows, columns=headers), align=sides.replace("t", "l"))


def pair_html(pairs: Sequence[tuple[str, AnswerView]]) -> str:
    """Answers side by side on one scale, each under its label."""
    answers = [answer_html(v, heading=label, legend=False, full=False) for label, v in pairs]
    return str(views().pair(answers, token_scale()))


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
    frame = pd.DataFrame(rows, columns=header)
    return html_table(frame, align="llr" + "r" * len(designs), markup=labels)


def page(title: str, body: str) -> str:
    """A whole document without scripts that follows the reader's light or dark setting."""
    return f"{views().page(visible(title, ' '), body)}\n"


def tooltip(card: Sequence[Any], full: bool = True) -> str:
    """A token's card as lines of text; ``full`` with its share and the likeliest five."""
    title, facts, notes, conditioned, standalone = card
    lines = [title, *(notes if full else notes[:1]), "with the question · without it"]
    lines += [f"{what}: {first} · {second}" for what, first, second in facts]
    for name, top in (("with", conditioned), ("without", standalone)):
        if full and top:
            lines.append(f"likeliest {name}: " + ", ".join(f"{t} {p}" for t, p in top))
    # Each is made visible by itself, so that a token adds no line of its own.
    return "\n".join(visible(line, " ") for line in lines)
