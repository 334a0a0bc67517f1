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

from sarlab.display.tables import MISSING, html_table
from sarlab.display.text import BLUE_HEX, ORANGE_HEX, SENTENCE_END, plain, signed, visible
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
    gains = None if ledger.gold_nats is None else ledger.gold_nats.tolist()
    header = ["class", "line", "v", "d", "d/token", *([] if gains is None else ["g"])]
    header += ["tokens", "of Σ v", "takes from", "text"]
    rows = []
    steps = split_steps(score.tokens, score.values, ledger.starts)
    for k, (name, step) in enumerate(zip(ledger.classes(*thresholds), steps, strict=True)):
        rest, fed = int(ledger.rest_tokens[k]), float(ledger.fed_nats[k])
        takes = sorted(((x, j) for j, x in enumerate(ledger.taken[k].tolist())), reverse=True)
        sources = [f"{j + 1} ({x:.0f})" for x, j in takes[:2] if x >= _LEAST_ARC_NATS]
        gold = [] if gains is None else [signed(gains[k], 1) if gains[k] == gains[k] else MISSING]
        rows.append(
            [
                f"{CLASS_VIEWS[name][0]} {name}",
                str(k + 1),
                signed(step.total_nats, 1),
                *([signed(fed, 1), signed(fed / rest, 2)] if rest else [MISSING, MISSING]),
                *gold,
                str(step.stop - step.start),
                share_text(step).split(" (")[0],
                ", ".join(sources) or MISSING,
                visible(step.opening, " "),
            ]
        )
    return header, "lr" + "r" * (len(header) - 4) + "lt", rows


def ledger_order(ledger: AnswerDependence, order: str) -> list[int]:
    """The lines in one of :data:`ORDERS`; largest first in all but the first."""
    column = dict(zip(ORDERS[1:], (ledger.read_nats, ledger.fed_nats, ledger.tokens), strict=True))
    places = list(range(len(ledger.starts)))
    return sorted(places, key=lambda k: -float(column[order][k])) if order in column else places


def filler_text(ledger: AnswerDependence, thresholds: Sequence[float]) -> str:
    """The share of filler in one sentence."""
    classes, tokens = ledger.classes(*thresholds), int(ledger.tokens.sum())
    share = ledger.filler_share(*thresholds)
    return (
        f"Filler: {share:.0%} of {tokens} tokens, {classes.count('filler')} of {len(classes)} "
        "lines."
    )


def ledger_html(
    score: AnswerScore, ledger: AnswerDependence, thresholds: Sequence[float], heading: str = ""
) -> str:
    """The static twin: the number, the table and the scale of the thresholds."""
    header, sides, rows = ledger_rows(score, ledger, thresholds)
    for row, name in zip(rows, ledger.classes(*thresholds), strict=True):
        style = f"background-color: {CLASS_VIEWS[name][1]}; padding: 1px 6px; white-space: nowrap"
        row[0] = f'<span style="{style}">{row[0]}</span>'
    table = html_table(
        pd.DataFrame(rows, columns=header), align=sides.replace("t", "l"), markup=["class"]
    )
    limits = f"Reads from v = {thresholds[0]:g} nats on, feeds from d = {thresholds[1]:g} on."
    title = f"<b>{plain(heading)}</b> " if heading else ""
    words = f"<b>{filler_text(ledger, thresholds)}</b> {limits}"
    return f'<div class="sarlab-ledger">{title}{words}{table}</div>'


def arcs_svg(ledger: AnswerDependence, thresholds: Sequence[float], chosen: int = -1) -> str:
    """Question and lines as a row of boxes, an arc for what each takes: the thicker the more nats.

    Arcs of less than a nat, or of less than a twentieth of the thickest, are left out. Those of the
    line ``chosen`` stand out.
    """
    classes = ledger.classes(*thresholds)
    widths = [70.0, *(max(34.0, 4.0 * n) for n in ledger.tokens.tolist())]
    left = [4.0 + sum(widths[:k]) + 6 * k for k in range(len(widths))]
    middle = [x + w / 2 for x, w in zip(left, widths, strict=True)]
    takes = [(0, k + 1, float(v)) for k, v in enumerate(ledger.read_nats)]
    takes += [
        (j + 1, k + 1, float(ledger.taken[k, j])) for k in range(len(classes)) for j in range(k)
    ]
    most = max((nats for *_, nats in takes), default=0.0)
    drawn = [t for t in takes if t[2] >= max(_LEAST_ARC_NATS, most / 20)]
    height = 30 + min(150, max((middle[b] - middle[a]) / 3 for a, b, _ in takes))
    parts = []
    for a, b, nats in sorted(drawn, key=lambda t: t[2]):
        top = height - min(height - 8, 12 + (middle[b] - middle[a]) / 1.6)
        colour, dash = (BLUE_HEX, ' stroke-dasharray="7 4"') if a == 0 else (ORANGE_HEX, "")
        seen = 1 if chosen < 0 or chosen + 1 in (a, b) else 0.15
        parts.append(
            f'<path d="M{middle[a]:.0f} {height:.0f} Q{(middle[a] + middle[b]) / 2:.0f} '
            f'{2 * top - height:.0f} {middle[b]:.0f} {height:.0f}" fill="none" stroke="{colour}" '
            f'stroke-width="{1 + 6 * nats / most:.1f}" opacity="{seen}"{dash}>'
            f"<title>{f'line {a}' if a else 'the question'} → line {b}: {nats:.1f} nats</title>"
            "</path>"
        )
    boxes = [("question", "rgba(0, 114, 178, 0.2)")]
    boxes += [(f"{CLASS_VIEWS[c][0]} {k}", CLASS_VIEWS[c][1]) for k, c in enumerate(classes, 1)]
    for (text, colour), x, w, m in zip(boxes, left, widths, middle, strict=True):
        parts.append(
            f'<rect x="{x:.0f}" y="{height:.0f}" width="{w:.0f}" height="24" fill="{colour}" '
            'stroke="#767676"/>'
            f'<text x="{m:.0f}" y="{height + 16:.0f}" text-anchor="middle" font-size="12" '
            f'fill="currentColor">{text}</text>'
        )
    strongest = [f"{a or 'the question'} to {b}" for a, b, _ in sorted(drawn, key=lambda t: -t[2])]
    label = f"Lines that take most from earlier ones: {', '.join(strongest[:5]) or 'none'}"
    size = f'width="{left[-1] + widths[-1] + 8:.0f}" height="{height + 30:.0f}"'
    words = (
        "Dashed blue: from the question. Orange: from an earlier line. The thicker, the more nats."
    )
    return (
        f'<div style="overflow-x: auto"><svg role="img" aria-label="{label}" {size}>'
        f"{''.join(parts)}</svg></div><div>{words}</div>"
    )


def question_parts(question: str, by: str) -> list[tuple[int, int]]:
    """Sentences or numbers of a question, as ranges of characters."""
    if by == "number":
        return [match.span() for match in _NUMBER.finditer(question)]
    ends = sorted({0, *(match.end() for match in SENTENCE_END.finditer(question)), len(question)})
    return [(a, b) for a, b in itertools.pairwise(ends) if question[a:b].strip()]


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
