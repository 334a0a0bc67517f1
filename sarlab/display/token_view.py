"""One scored answer as what a reader sees: tokens with their numbers, steps with their sums. Pure.

:func:`answer_view` is the one place where an :class:`sarlab.AnswerScore` becomes strings; the live
view and its static twin draw the same record, so they cannot differ.
"""

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from sarlab.display.text import (
    LEGEND,
    V_FULL_NATS,
    line_of,
    number,
    segments,
    shortened,
    signed,
    tint,
    visible,
)
from sarlab.rewards.answers import AnswerScore

V_NAME = "Δ log p"
COLOURS = {
    V_NAME: (LEGEND, V_FULL_NATS),
    "entropy": ("Entropy of the next token with the question, nats: 0 where one is certain.", 4.0),
    "advantage": ("The answer's advantage, as its run logged it: the same for each token.", 1.0),
    "log ratio": ("log P(token) under this model − under the other one, nats.", 0.0),
}
"""What tokens can be coloured by: a sentence, and where the colour is full (0: at the largest)."""

_STEP_END = re.compile(r"[.!?]['\")\]]*(?:[ \t]*\n+|(?=\s))|\n+")
_FOREIGN_PERPLEXITY = 1000.0  # from here on a policy was never trained on such text
_WARNING = (
    "Perplexities in the thousands: the model was not trained on such text, and its SAR says "
    "little."
)
_LEAST_NET = 0.2  # |Σ v| / Σ |v|: below, shares of the sum would run into the hundreds
_NO_SHARE = "– (ups and downs nearly cancel)"
_STEP_MAX_TOKENS = 120  # a text without sentences is cut too, or folding would not help


class Step(NamedTuple):
    """A sentence or line: tokens [start, stop), their Σ Δ log p in nats, its share of all."""

    start: int
    stop: int
    total_nats: float
    share: float | None  # None where ups and downs nearly cancel: see _LEAST_NET
    opening: str


class AnswerView(NamedTuple):
    """An answer with all that is shown of it; each list has one entry per token.

    ``quantity``: what the steps' sums are. ``runs``: its text (see ``segments``). ``cards``:
    title, facts as [what, with the question, without it], notes, and the likeliest tokens with
    and without the question.
    """

    numbers: list[list[str]]
    warning: str
    runs: list[list[str]]
    tints: list[str]
    lines: list[int]
    cards: list[list[Any]]
    steps: tuple[Step, ...]
    quantity: str = "Σ Δ log p, nats"


def out_of_depth(score: AnswerScore) -> bool:
    """Whether the policy finds the answer so unlikely in both contexts that SAR says little."""
    return min(score.ppl_conditioned, score.ppl_standalone) >= _FOREIGN_PERPLEXITY


def answer_view(
    score: AnswerScore, correct: bool | None = None, truncated: bool = False
) -> AnswerView:
    """Everything that is shown of a scored answer; ``correct`` is None where it is not judged."""
    values, n, total = score.values, score.length, math.fsum(score.values)
    numbers = [
        ["SAR", signed(score.sar)],
        ["ppl(a|q)", number(score.ppl_conditioned)],
        ["ppl(a)", number(score.ppl_standalone)],
        ["mean Δ log p", f"{signed(total / n)} nats"],
        ["tokens", str(n)],
    ]
    verdict = {True: "✓ right", False: "✗ wrong", None: ""}[correct]
    words = ", ".join(filter(None, [verdict, "truncated at the limit" * truncated]))
    numbers += [["answer", words]] if words else []
    return AnswerView(
        numbers=numbers,
        warning=_WARNING if out_of_depth(score) else "",
        runs=[segments(piece) for piece in score.tokens],
        tints=[tint(v) for v in values],
        lines=[line_of(v) for v in values],
        cards=[_card(score, j, v, total - v) for j, v in enumerate(values)],
        steps=split_steps(score.tokens, values),
    )


def bonus_view(score: AnswerScore, values: Sequence[float]) -> AnswerView:
    """The answer with the colours and sums of a dense reward's bonus, one value per token."""
    view = coloured(answer_view(score), score.tokens, "bonus", values)
    return view._replace(numbers=view.numbers[-2:])


def coloured(
    view: AnswerView, pieces: Sequence[str], name: str, values: Sequence[float]
) -> AnswerView:
    """The view with the colours and sums of another quantity, one value per token.

    What has no scale in :data:`COLOURS` is full at the largest of this answer.
    """
    full = full_at(name, values)
    scaled = [V_FULL_NATS * value / full for value in values]
    for card, value in zip(view.cards, values, strict=True):
        card[2].insert(0, f"{name} = {signed(value)}")
    return view._replace(
        quantity=f"Σ {name}",
        numbers=[
            *view.numbers,
            [f"mean {name}", signed(math.fsum(values) / len(values))],
            ["colour is full at", f"±{number(full, 3)}"],
        ],
        tints=[tint(value) for value in scaled],
        lines=[line_of(value) for value in scaled],
        steps=split_steps(pieces, values),
    )


def full_at(name: str, values: Sequence[float]) -> float:
    """The value at which a quantity's colour is strongest."""
    return COLOURS.get(name, ("", 0.0))[1] or max(map(abs, values)) or 1.0


def token_quantities(
    score: AnswerScore, advantage: float | None = None, other: AnswerScore | None = None
) -> dict[str, Sequence[float] | str]:
    """Each of :data:`COLOURS`: one value per token, or why there is none.

    ``advantage``: the answer's own, as its run logged it; ``other``: the same tokens under another
    policy.
    """
    ratio: Sequence[float] | str = "needs one answer under two models: pin it, name Model for B"
    if other is not None and other.token_ids == score.token_ids:
        pairs = zip(score.logps_conditioned, other.logps_conditioned, strict=True)
        ratio = [here - there for here, there in pairs]
    return {
        V_NAME: score.values,
        "entropy": score.entropy or "no entropies were logged: open the answer in the workbench",
        "advantage": "only a run's log has one: see the tab Runs"
        if advantage is None or advantage != advantage
        else [advantage] * score.length,
        "log ratio": ratio,
    }


def split_steps(
    pieces: Sequence[str], values: Sequence[float], starts: Sequence[int] = ()
) -> tuple[Step, ...]:
    """Sentences and lines, as ranges of tokens that cover the answer; sums of v in nats.

    ``starts``: the first tokens of other parts than :func:`step_starts`.
    """
    bounds = [*(starts or step_starts(pieces)), len(pieces)]
    total = math.fsum(values)
    has_shares = abs(total) > _LEAST_NET * math.fsum(map(abs, values))
    steps = []
    for start, stop in itertools.pairwise(bounds):
        nats, text = math.fsum(values[start:stop]), "".join(pieces[start:stop])
        share = nats / total if has_shares else None
        steps.append(Step(start, stop, nats, share, shortened(text, 60)))
    return tuple(steps)


def step_starts(pieces: Sequence[str]) -> list[int]:
    """The first token of each sentence or line.

    A step ends with the token in which a sentence or a line ends. The end token, when it stands
    alone, belongs to the step before it.
    """
    ends = {match.end() for match in _STEP_END.finditer("".join(pieces))}
    bounds, position = [0], 0
    for j, piece in enumerate(pieces[:-2], 1):
        inside = range(position + 1, position + len(piece) + 1)
        position += len(piece)
        if not ends.isdisjoint(inside) or j - bounds[-1] >= _STEP_MAX_TOKENS:
            bounds.append(j)
    return bounds


def legend(text: str = LEGEND, full: float = V_FULL_NATS) -> dict[str, Any]:
    """The scale that all token views share: cells (number, tint, line) and a sentence."""
    cells = []
    for value in (-V_FULL_NATS, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, V_FULL_NATS):
        sign = {-V_FULL_NATS: "≤ ", V_FULL_NATS: "≥ "}.get(value, "")
        number_here = value * full / V_FULL_NATS
        digits = 3 if full < 1 else 2 if full < V_FULL_NATS else 1 if value % 1 else 0
        shown = signed(number_here, digits) if value else "0"
        cells.append([f"{sign}{shown}", tint(value), line_of(value)])
    return {"cells": cells, "text": text}


def payload(view: AnswerView) -> dict[str, Any]:
    """The view as JSON for the browser, which computes nothing of its own."""
    steps = [
        [s.start, s.stop, signed(s.total_nats, 2), share_text(s), visible(s.opening)]
        for s in view.steps
    ]
    return {**view._asdict(), "steps": steps}


def share_text(step: Step) -> str:
    """A step's share of the whole sum in per cent, or why there is none."""
    return _NO_SHARE if step.share is None else f"{signed(100 * step.share, 0)} %"


def _card(score: AnswerScore, j: int, v: float, others: float) -> list[Any]:
    """What is said of token j: see :class:`AnswerView`; ``others``: Σ v of all other tokens."""
    n = score.length
    logps = (score.logps_conditioned[j], score.logps_standalone[j])
    facts = [["log p (nats)", *(signed(p, 2) for p in logps)]]
    facts.append(["p", *(f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}" for p in map(math.exp, logps))])
    tops: list[list[list[str]]] = [[], []]
    if score.alternatives_conditioned:
        both = (score.alternatives_conditioned[j], score.alternatives_standalone[j])
        facts.append(["rank", *(f"{token.rank:,}" for token in both)])
        tops = [[[visible(name), signed(p, 2)] for name, p in token.top] for token in both]
    direction = "likelier" if v >= 0 else "less likely"
    notes = [
        f"Δ log p = {signed(v)} nats: {direction} with the question",
        f"share of the mean: Δ log p / n = {signed(v / n, 4)} nats",
    ]
    if n > 1:
        without = max(-1.0, -math.expm1(-others / (n - 1)))
        notes.append(f"SAR without this token: {signed(without)} ({signed(without - score.sar)})")
    if not score.tokens[j]:
        notes.append("holds a part of a character; the last of its tokens shows it whole")
    if j == 0:
        notes.append("the first token: without the question nothing of the answer precedes it")
    shown = visible(score.tokens[j]) or "part of a character"
    return [f"token {j + 1} of {n}: {shown}", facts, notes, *tops]
