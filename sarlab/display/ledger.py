"""The two-sided ledger of an answer as text, HTML and SVG. Pure: the library's records in.

What each line reads from the question (v), and what it feeds to the rest (d).
"""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pandas as pd
from torch import Tensor

from sarlab.display.tables import MISSING, html_table, number_text, views
from sarlab.display.text import (
    SENTENCE_END,
    V_FULL_NATS,
    one_line,
    plain,
    signed,
    tint,
    visible,
)
from sarlab.display.token_view import share_text, split_steps
from sarlab.rewards.answers import AnswerScore
from sarlab.rewards.dependence import AnswerDependence

# Each class by a glyph, a word and a ground, which is transparent so that text keeps its contrast.
CLASS_VIEWS = {
    "read and used": ("◆", "rgba(0, 114, 178, 0.34)"),
    "worked out": ("●", "rgba(0, 158, 115, 0.34)"),
    "copied": ("◇", "rgba(230, 159, 0, 0.34)"),
    "filler": ("□", "rgba(128, 128, 128, 0.34)"),
    "last": ("▪", "transparent"),
}
ORDERS = ("as written", "reads (v)", "feeds (d)", "tokens")
ABOUT = (
    "v: nats that a line reads from the question. d: nats that the rest of the answer takes from "
    "it, log P(rest | with the line) − log P(rest | without it). v misses steps that follow from "
    "the text before them; d can't see whether what later lines take leads to the answer. g: what "
    "the line adds to log P(right answer). Line 3 “takes from 1 (38)”: it loses 38 nats where line "
    "1 is left out."
)
_LEAST_ARC_NATS = 1.0
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def ledger_rows(
    score: AnswerScore, ledger: AnswerDependence, thresholds: Sequence[float]
) -> tuple[list[str], str, list[list[str]]]:
    """Headers, sides and one row of plain text per line, in the answer's order."""
    gains = [] if ledger.gold_nats is None else ledger.gold_nats.tolist()
    header = ["class", "line", "v", "d", "d/token", *(["g"] if gains else [])]
    header += ["tokens", "of Σ v", "takes from", "text"]
    rows = []
    steps = split_steps(score.tokens, score.values, ledger.starts)
    for k, (name, step) in enumerate(zip(ledger.classes(*thresholds), steps, strict=True)):
        rest, fed = int(ledger.rest_tokens[k]), float(ledger.fed_nats[k])
        feeds = [signed(fed, 1), signed(fed / rest, 2)] if rest else [MISSING, MISSING]
        gold = [number_text(gains[k], 1, sign="+")] if gains else []
        takes = sorted(((x, j) for j, x in enumerate(ledger.taken[k].tolist(), 1)), reverse=True)
        sources = [f"{j} ({x:.0f})" for x, j in takes[:2] if x >= _LEAST_ARC_NATS]
        row = [f"{CLASS_VIEWS[name][0]} {name}", str(k + 1), signed(step.total_nats, 1)]
        row += [*feeds, *gold, str(step.stop - step.start), share_text(step).split(" (")[0]]
        rows.append([*row, ", ".join(sources) or MISSING, visible(step.opening, " ")])
    return header, "lr" + "r" * (len(header) - 4) + "lt", rows


def ledger_order(ledger: AnswerDependence, order: str) -> list[int]:
    """The lines in one of :data:`ORDERS`; largest first in all but the first."""
    if order == ORDERS[0]:
        return list(range(len(ledger.starts)))
    columns = (ledger.read_nats, ledger.fed_nats, ledger.tokens)
    column = columns[ORDERS.index(order) - 1]
    return column.argsort(descending=True, stable=True).tolist()


def filler_text(ledger: AnswerDependence, thresholds: Sequence[float]) -> str:
    """The share of filler in one sentence."""
    classes, share = ledger.classes(*thresholds), ledger.filler_share(*thresholds)
    lines = f"{classes.count('filler')} of {len(classes)} lines"
    return f"Filler: {share:.0%} of {int(ledger.tokens.sum())} tokens, {lines}."


def filler_rows(
    ledgers: Sequence[tuple[str, AnswerScore, AnswerDependence]],
    thresholds: Sequence[float],
    least: float,
) -> tuple[list[str], str, list[list[str]], list[int]]:
    """Answers with a share of filler of at least ``least``, the largest first, and their places."""
    shares = [ledger.filler_share(*thresholds) for _, _, ledger in ledgers]
    places = [k for k, share in enumerate(shares) if share >= least]
    places.sort(key=lambda k: -shares[k])
    rows = []
    for k in places:
        label, score, ledger = ledgers[k]
        classes = ledger.classes(*thresholds)
        lines = f"{classes.count('filler')} of {len(classes)}"
        rows.append(
            [
                *(f"{shares[k]:.0%}", lines, str(score.length), signed(score.sar), one_line(label)),
                *(one_line(score.question, 140), one_line(score.answer, 140)),
            ]
        )
    header = ["filler", "filler lines", "tokens", "SAR", "label", "question", "answer"]
    return header, "rrrrltt", rows, places


def filler_found(
    count: int, total: int, thresholds: Sequence[float], least: float, waiting: int = 0
) -> str:
    """What :func:`filler_rows` looked for, and in how many answers; ``waiting`` have no score."""
    left_out = f" Not scored yet, so left out: {waiting}." if waiting else ""
    return (
        f"<b>{count} of {total} right answers</b> have at least {least:.0%} of their tokens in "
        f"lines that read and feed nothing: v below {thresholds[0]:g} and d below "
        f"{thresholds[1]:g} nats.{left_out}"
    )


def ledger_html(
    score: AnswerScore, ledger: AnswerDependence, thresholds: Sequence[float], heading: str = ""
) -> str:
    """The static twin: the number, the table and the scale of the thresholds."""
    header, sides, rows = ledger_rows(score, ledger, thresholds)
    for row, name in zip(rows, ledger.classes(*thresholds), strict=True):
        style = f"background-color: {CLASS_VIEWS[name][1]}; padding: 1px 6px; white-space: nowrap"
        row[0] = f'<span style="{style}">{row[0]}</span>'
    frame = pd.DataFrame(rows, columns=header)
    table = html_table(frame, align=sides.replace("t", "l"), markup=["class"])
    title = f"<b>{plain(heading)}</b> " if heading else ""
    words = f"<b>{filler_text(ledger, thresholds)}</b> "
    words += f"Reads from v = {thresholds[0]:g} nats on, feeds from d = {thresholds[1]:g} on."
    return f'<div class="sarlab-ledger">{title}{words}{table}</div>'


def arcs_svg(ledger: AnswerDependence, thresholds: Sequence[float], chosen: int = -1) -> str:
    """Question and lines as a row of boxes, an arc for what each takes: the thicker the more nats.

    Arcs of less than a nat, or of less than a twentieth of the thickest, are left out. Those of the
    line ``chosen`` stand out.
    """
    looks = [CLASS_VIEWS[name] for name in ledger.classes(*thresholds)]
    texts = ["question", *(f"{glyph} {k}" for k, (glyph, _) in enumerate(looks, 1))]
    grounds = ["rgba(0, 114, 178, 0.2)", *(ground for _, ground in looks)]
    widths = [70.0, *(max(34.0, 4.0 * n) for n in ledger.tokens.tolist())]
    left = list(itertools.accumulate((width + 6 for width in widths), initial=4.0))
    middle = [x + width / 2 for x, width in zip(left, widths, strict=False)]
    # Box 0 is the question: what line b takes from it is v.
    from_all = zip(ledger.read_nats.tolist(), ledger.taken.tolist(), strict=True)
    takes = [
        (nats, a, b)
        for b, (v, lines) in enumerate(from_all, 1)
        for a, nats in enumerate([v, *lines[: b - 1]])
    ]
    most = max(takes)[0]
    drawn = sorted(take for take in takes if take[0] >= max(_LEAST_ARC_NATS, most / 20))
    height = 30 + min(150, max(middle[b] - middle[a] for _, a, b in takes) / 3)
    arcs = []
    for nats, a, b in drawn:
        rise = min(height - 8, 12 + (middle[b] - middle[a]) / 1.6)
        peak = f"{(middle[a] + middle[b]) / 2:.0f} {height - 2 * rise:.0f}"
        curve = f"M{middle[a]:.0f} {height:.0f} Q{peak} {middle[b]:.0f} {height:.0f}"
        opacity = 1 if chosen < 0 or chosen + 1 in (a, b) else 0.15
        arcs.append((curve, a, b, nats, 1 + 6 * nats / most, opacity))
    strongest = [f"{a or 'the question'} to {b}" for _, a, b in drawn[:-6:-1]]
    boxes = [*zip(texts, grounds, left, widths, strict=False)]
    return str(views().arcs(arcs, boxes, ", ".join(strongest) or "none", left[-1] + 2, height))


def question_parts(question: str, by: str) -> list[tuple[int, int]]:
    """Sentences or numbers of a question, as ranges of characters."""
    if by == "number":
        return [match.span() for match in _NUMBER.finditer(question)]
    ends = sorted({0, *(match.end() for match in SENTENCE_END.finditer(question)), len(question)})
    return [(a, b) for a, b in itertools.pairwise(ends) if question[a:b].strip()]


def parts_rows(
    score: AnswerScore,
    parts: Sequence[tuple[int, int]],
    given: Tensor,
    selection: Sequence[int] = (),
) -> tuple[list[str], str, list[list[str]], list[str]]:
    """Headers, sides, rows and tints of what each part of the question gives.

    ``given`` [parts, T] in nats; ``selection``: the chosen tokens [start, stop), all by default.
    """
    start, stop = selection or (0, score.length)
    sums = given.sum(dim=1).tolist()
    chosen = given[:, start:stop].sum(dim=1).tolist()
    rows = [
        [signed(total, 1), signed(part, 1), one_line(score.question[slice(*span)], 300)]
        for total, part, span in zip(sums, chosen, parts, strict=True)
    ]
    header = ["nats to the answer", "to the selected tokens", "part of the question"]
    strongest = max(map(abs, sums)) or 1.0
    return header, "rrt", rows, [tint(V_FULL_NATS * total / strongest) for total in sums]


def parts_html(score: AnswerScore, parts: Sequence[tuple[int, int]], given: Tensor) -> str:
    """The static twin of what each part of the question gives to the whole answer."""
    header, _, rows, tints = parts_rows(score, parts, given)
    cells = [
        [f'<span style="background-color: {ground}; padding: 1px 6px">{nats}</span>', text]
        for (nats, _, text), ground in zip(rows, tints, strict=True)
    ]
    frame = pd.DataFrame(cells, columns=[header[0], header[2]])
    return f'<div class="sarlab-parts">{html_table(frame, align="rl", markup=header[:1])}</div>'


def against(score: AnswerScore, logps: Sequence[float]) -> AnswerScore:
    """The answer with log-probs of another context in place of the standalone one."""
    values = [a - b for a, b in zip(score.logps_conditioned, logps, strict=True)]
    return replace(
        score,
        logps_standalone=tuple(logps),
        sar=max(-1.0, -math.expm1(-fmean(values))),
        ppl_standalone=math.exp(-fmean(logps)),
        alternatives_conditioned=(),
        alternatives_standalone=(),
    )
