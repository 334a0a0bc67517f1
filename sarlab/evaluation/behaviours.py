"""Reasoning behaviours in answers, by documented patterns, and what a shorter answer lost.

An answer is cut into sentences and lines; each may show several behaviours. The four of
behaviours.toml are those that studies of reasoning models count (Gandhi et al. 2025, arXiv
2503.01307; Zeng et al. 2025, arXiv 2503.18892), found here by regular expressions instead of a
language model, so that a count can be repeated and looked up. Patterns are blunt: they see wording,
not thought. Filler is found by a rule, see :func:`label_sentences`.
"""

import itertools
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sarlab.display.tables import Column, html_table, text_table, views
from sarlab.display.text import SENTENCE_END, plain, shortened
from sarlab.evaluation.judge import Rows
from sarlab.evaluation.statistics import pooled_interval

FILLER = "filler"
_RULES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
BEHAVIOURS: dict[str, dict[str, str]] = _RULES["behaviours"]
"""By name: its ``definition``, and the ``patterns`` that find it, one a line."""
NAMES = (*BEHAVIOURS, FILLER)

_COMPILED = {
    name: re.compile("|".join(f"(?:{p})" for p in rule["patterns"].splitlines()), re.IGNORECASE)
    for name, rule in BEHAVIOURS.items()
}
_ANSWER_LINE = re.compile(r"^\W*(final )?answer\W*(is\b|:)|\\boxed", re.IGNORECASE)
_SYMBOL = re.compile(r"[\d=+*/<>×÷%$€£^√∑]|\\[a-z]+|\b[b-hj-z]\b", re.IGNORECASE)
_QUANTITY = re.compile(rf"\b({'|'.join(_RULES[FILLER]['quantities'].split())})\b", re.IGNORECASE)
_CONCLUSION = re.compile(r"^(so|therefore|thus|hence)?,?\s*(it is |it's )?(yes|no)[.!]?$", re.I)
_WORD = re.compile(r"[^\W\d_]{3,}")
_EVERYDAY = frozenset(_RULES[FILLER]["everyday"].split())


def content_words(text: str) -> set[str]:
    """Words of three letters or more that are not everyday ones, in lower case, plurals folded."""
    words = {w.lower() for w in _WORD.findall(text)} - _EVERYDAY
    return {w[:-1] if w.endswith("s") and len(w) > 3 else w for w in words}


def label_sentences(answer: str, question: str) -> list[tuple[int, int, tuple[str, ...]]]:
    """(start, end, behaviours) of each sentence or line; filler stands alone, if at all.

    Filler says nothing about the question at hand: it has no digit, operator, variable, number word
    or word of calculation or logic; it shares no content word with the question
    (:func:`content_words`); it shows no backtracking, verification or enumeration; and it is
    neither the answer line nor a bare yes or no.
    """
    words = content_words(question)
    cuts = [0, *(m.end() for m in SENTENCE_END.finditer(answer)), len(answer)]
    labelled = []
    for start, end in itertools.pairwise(cuts):
        if sentence := answer[start:end].strip():
            begin = answer.index(sentence, start)
            labelled.append((begin, begin + len(sentence), _behaviours_of(sentence, words)))
    return labelled


def _behaviours_of(sentence: str, question_words: set[str]) -> tuple[str, ...]:
    if _ANSWER_LINE.search(sentence):
        return ()
    shown = _SYMBOL.search(sentence) or _QUANTITY.search(sentence)
    content = shown is not None or bool(content_words(sentence) & question_words)
    # "First, let me look" announces no step of this question.
    names = tuple(
        name
        for name, pattern in _COMPILED.items()
        if pattern.search(sentence) and (content or name != "sub-goals")
    )
    return names if names or content or _CONCLUSION.match(sentence) else (FILLER,)


def count_behaviours(answer: str, question: str) -> dict[str, int]:
    """Sentences or lines of the answer that show each behaviour, filler included."""
    labelled = label_sentences(answer, question)
    return {name: sum(name in names for _, _, names in labelled) for name in NAMES}


def example(rows: Rows, name: str) -> Mapping[str, Any] | None:
    """The first answer that shows a behaviour."""
    counts = ((row, count_behaviours(str(row["answer"]), str(row["question"]))) for row in rows)
    return next((row for row, count in counts if count[name]), None)


def filler_tokens(row: Mapping[str, Any], token_text: Callable[[int], str] | None = None) -> float:
    """Tokens of one answer that are filler.

    With ``token_text`` (:func:`sarlab.evaluation.policies.token_texts`) each token is placed in
    the text and counts where it begins. Without it, or where the pieces do not join to the
    text, the answer's tokens are shared out by characters: an estimate, since words and digits
    make tokens of different sizes.
    """
    answer = str(row["answer"])
    spans = [(a, b) for a, b, n in label_sentences(answer, str(row["question"])) if FILLER in n]
    pieces = [token_text(i) for i in row.get("answer_ids") or []] if token_text else []
    if pieces and "".join(pieces).startswith(answer):
        # Byte-level tokens carry the space before a word; it is part of what follows.
        begins = np.cumsum([0, *map(len, pieces[:-1])]) + [len(p) - len(p.lstrip()) for p in pieces]
        return float(sum(int(np.sum((begins >= a) & (begins < b))) for a, b in spans))
    return float(row["length"]) * sum(b - a for a, b in spans) / max(1, len(answer))


def behaviour_change(
    base: Rows, *seeds: Rows, token_text: Callable[[int], str] | None = None
) -> pd.DataFrame:
    """What changed from a base to a policy, paired by question: one row per behaviour.

    ``seeds``: the answers of each training seed. Columns ``base``, ``other``, ``difference``,
    ``low``, ``high``: per answer, with 95% intervals over questions and seeds. The rows
    ``filler_tokens`` and ``other_tokens`` add up to ``length``.
    """
    before, *after = (_by_question(rows, token_text) for rows in (base, *seeds))
    for b in after:
        if not b.index.equals(before.index):
            raise ValueError(
                f"The two policies answered different questions ({len(before)} and {len(b)}, "
                f"{len(before.index.intersection(b.index))} in common). Evaluate both on the same "
                "ones."
            )
    change = {}
    for name in before:
        other = np.array([b[name] for b in after])
        difference = other - before[name].to_numpy()
        ends = pooled_interval(difference)[:2]
        change[name] = (before[name].mean(), other.mean(), difference.mean(), *ends)
    columns = ["base", "other", "difference", "low", "high"]
    return pd.DataFrame.from_dict(change, orient="index", columns=columns).rename_axis("behaviour")


def _by_question(rows: Rows, token_text: Callable[[int], str] | None) -> pd.DataFrame:
    """Means per question: counts of behaviours, and tokens that are filler and that are not."""
    table = pd.DataFrame([count_behaviours(str(r["answer"]), str(r["question"])) for r in rows])
    table["filler_tokens"] = [filler_tokens(row, token_text) for row in rows]
    table["other_tokens"] = [float(row["length"]) for row in rows] - table["filler_tokens"]
    table["length"] = [float(row["length"]) for row in rows]
    return table.groupby([row["question_id"] for row in rows]).mean()


def what_was_lost(change: pd.DataFrame) -> str:
    """One sentence on a table of :func:`behaviour_change`: did answers lose behaviour or filler?"""
    length = change.loc["length"]
    parts = (
        f"filler {change.loc['filler_tokens', 'difference']:+.1f}, "
        f"all else {change.loc['other_tokens', 'difference']:+.1f}"
    )
    if length["low"] <= 0 <= length["high"]:
        text = f"Length did not change measurably ({length['difference']:+.1f} tokens: {parts})."
    else:
        verb = "grew by" if length["difference"] > 0 else "lost"
        text = f"Answers {verb} {abs(length['difference']):.1f} tokens: {parts}."
    counted = change.loc[list(BEHAVIOURS)]
    lost, gained = (
        ", ".join(f"{r.Index} ({r.base:.2f} → {r.other:.2f} per answer)" for r in side.itertuples())
        for side in (counted[counted["high"] < 0], counted[counted["low"] > 0])
    )
    text += f" Less often: {lost}." if lost else " No behaviour became rarer."
    return f"{text} More often: {gained}." if gained else text


def behaviour_text(change: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`behaviour_change` as text."""
    names = [str(name).replace("_", " ") for name in change.index]
    shown = change.assign(name=names, difference_low=change["low"], difference_high=change["high"])
    columns = (
        Column("per answer", "name"),
        Column("base", "base", 2),
        Column("trained", "other", 2),
        Column("difference", "difference", 2, 1, "+"),
    )
    return text_table(shown, columns)


def definitions() -> pd.DataFrame:
    """The table of behaviours: name, definition, patterns."""
    lines = [
        (name, rule["definition"], "   ".join(rule["patterns"].splitlines()))
        for name, rule in BEHAVIOURS.items()
    ]
    rule = "says nothing about the question: no number, no operator, no content word of it"
    lines.append((FILLER, rule, "(a rule: label_sentences)"))
    return pd.DataFrame(lines, columns=["behaviour", "definition", "patterns"])


def tinted_answer(row: Mapping[str, Any]) -> str:
    """One answer as HTML, its sentences tinted by behaviour; all of its text is escaped."""
    answer, position = str(row["answer"]), 0
    parts: list[tuple[str, tuple[str, ...]]] = []
    for start, end, names in label_sentences(answer, str(row["question"])):
        parts += [(plain(answer[position:start]), ()), (plain(answer[start:end]), names)]
        position = end
    return str(views("report.html").answer(row, [*parts, (plain(answer[position:]), ())]))


def tinted_pair(base: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """A question with the answers of two policies side by side, folded away."""
    question = str(base["question"])
    answers = pd.DataFrame({"base": [tinted_answer(base)], "trained": [tinted_answer(other)]})
    texts = shortened(question, 90), plain(question), html_table(answers, markup=tuple(answers))
    return str(views("report.html").pair(base, other, *texts))


def tint_legend() -> str:
    """What the tints of :func:`tinted_answer` mean."""
    return str(views("report.html").legend())
