"""Reasoning behaviours in answers, by documented patterns, and what a shorter answer lost.

An answer is cut into sentences and lines; each may show several behaviours. The four of the table
:data:`BEHAVIOURS` are those that studies of reasoning models count (Gandhi et al. 2025, arXiv
2503.01307; Zeng et al. 2025, arXiv 2503.18892), found here by regular expressions instead of a
language model, so that a count can be repeated and looked up. Patterns are blunt: they see wording,
not thought. Filler is found by a rule, see :func:`is_filler`.
"""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sarlab.display.text import SENTENCE_END
from sarlab.evaluation.judge import Rows
from sarlab.evaluation.statistics import pooled_interval

FILLER = "filler"


@dataclass(frozen=True)
class Behaviour:
    """What a behaviour is, in one line, and the patterns that find it in a sentence or line."""

    definition: str
    patterns: tuple[str, ...]
    needs_content: bool = False  # only where the sentence touches the question or a number


# A number, perhaps with a sign, currency, decimals or a percent sign.
_NUMBER = r"[-−]?[$€£]?\d[\d.,]*%?"
BEHAVIOURS: dict[str, Behaviour] = {
    "backtracking": Behaviour(
        "takes something back or starts anew",
        (
            r"\bwait\b(?! for| until| \d)",
            r"\bhmm+\b",
            r"^(no|oops|actually)\b[,.!—–-]",
            r"\b(that|this|it)('s| is| was| can(no|')t be)? (wrong|incorrect|not right)",
            r"\b(i|we) (made|have made) (a|an) (mistake|error|slip)",
            r"\b(let me|let's|i('ll| will| should)?) (start|begin|try|do (it|this|that)) "
            r"(over|again|anew)",
            r"\b(go|going|step) back\b|\bhold on\b",
            r"\bon second thought",
            r"\binstead,? (let|try|i)\b",
            r"\b(let me|let's) (try|use) (a|an) (other|different)|\btry another\b",
        ),
    ),
    "verification": Behaviour(
        "checks a result that it has",
        (
            r"\b(re-?|double-?)?check(s|ed|ing)?\b(?!ers|out| in\b|book)",
            r"\bverif(y|ies|ied|ying|ication)\b",
            r"\b(let me|let's) (confirm|make sure|be sure)\b|\bto confirm\b",
            r"\bsanity\b",
            r"\b(plug|substitut)\w* .*\b(back|into|in)\b|\bredo\b|\bonce more\b",
            r"\b(matches|agrees? with|they agree|consistent with|satisf(y|ies))\b",
            r"\b(as expected|make sense)\b",
            r"\bindeed\b.*=",
            r"\b(that|this|it|which)('s| is| was| looks| seems) (correct|right)\b|, yes[.!]$",
        ),
    ),
    "sub-goals": Behaviour(
        "carries out or announces one step of several",
        (
            rf"{_NUMBER}\s*([-+*/×÷·−]|x)\s*{_NUMBER}[^=]*=\s*{_NUMBER}",  # 14 * 6 = 84
            r"^(step \d+|first(ly)?|second(ly)?|third(ly)?|next|then|finally|now|lastly)\b",
            r"^(\(?\d{1,2}[.)]|[-*•])\s",  # a numbered or bulleted step
            r"\b(we|i) (first |now |then )?(need|have|want) to (find|compute|calculate|know|work)",
            r"\b(let|denote)\b.*\b(be|by|=)\b",
            r"\b(so far|which gives|this gives|that gives|that leaves|which leaves|in total)\b",
        ),
        needs_content=True,
    ),
    "enumeration": Behaviour(
        "goes through cases or candidates",
        (
            r"\b(case|option|possibility|scenario|candidate) ([a-z\d]|one|two|three|i+)\b",
            r"\b(all|list|consider|there are \w+) (the )?(possible|possibilities|cases|options)\b",
            r"^(if|suppose|assume|try)\b.*(=|\bis\b|\btells\b|\blies\b|\bwere\b)",
            r"\beither\b.*\bor\b",
            r"\bon the (one|other) hand\b",
            r"\b(for each|one by one|in turn)\b",
        ),
    ),
}
NAMES = (*BEHAVIOURS, FILLER)

_COMPILED = {
    name: re.compile("|".join(f"(?:{p})" for p in b.patterns), re.IGNORECASE)
    for name, b in BEHAVIOURS.items()
}
_ANSWER_LINE = re.compile(r"^\W*(final )?answer\W*(is\b|:)|\\boxed", re.IGNORECASE)
_SYMBOL = re.compile(r"[\d=+*/<>×÷%$€£^√∑]|\\[a-z]+|\b[b-hj-z]\b", re.IGNORECASE)
_QUANTITY = re.compile(
    r"\b(zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|"
    r"forty|fifty|hundred|thousand|million|half|twice|double|triple|dozen|plus|minus|times|"
    r"sum|total|product|divide[ds]?|multipl\w+|add(s|ed|ing)?|subtract\w*|carry|carries|"
    r"true|false|knights?|knaves?|implies|contradict\w*)\b",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(r"^(so|therefore|thus|hence)?,?\s*(it is |it's )?(yes|no)[.!]?$", re.I)
_WORD = re.compile(r"[^\W\d_]{3,}")
# Words that any two English texts share, and those that talk about the talking.
_COMMON = frozenset(
    _WORD.findall(
        """
        about after again all also and another any are asked before but can could did does
        done down each easy else even every few find first for from get gets give given goes
        good had has have her here hers him his how into its just kind know last later left
        less let like long look made make makes many may more most much must near need next
        nice not now off once one only other our out over own per problem question quite
        rather right same see she should since small some still such take than that the
        their them then there these they thing things think this those through time today
        together too took true until use used very want was way well were what when where
        whether which while who whole whose why will with work would yet you your answer
        solve step steps says said tell
        """
    )
)


def sentences(answer: str) -> list[tuple[int, int]]:
    """Sentences and lines of an answer as (start, end) in characters, white space left out."""
    cuts = [0, *(m.end() for m in SENTENCE_END.finditer(answer)), len(answer)]
    return [
        (start + len(text) - len(text.lstrip()), start + len(text.rstrip()))
        for start, end in itertools.pairwise(cuts)
        if (text := answer[start:end]).strip()
    ]


def content_words(text: str) -> set[str]:
    """Words of three letters or more that are not everyday ones, in lower case, plurals folded."""
    words = (w.lower() for w in _WORD.findall(text))
    folded = (w[:-1] if w.endswith("s") and len(w) > 3 else w for w in words if w not in _COMMON)
    return set(folded)


def is_filler(sentence: str, question_words: set[str]) -> bool:
    """Whether a sentence says nothing about the question at hand.

    The rule: it has no digit, operator, variable, number word or word of calculation or logic; it
    shares no content word with the question (:func:`content_words`); it shows no backtracking,
    verification or enumeration; and it is neither the answer line nor a bare yes or no.
    """
    return _behaviours_of(sentence, question_words) == (FILLER,)


def _behaviours_of(sentence: str, question_words: set[str]) -> tuple[str, ...]:
    if _ANSWER_LINE.search(sentence):
        return ()
    shown = _SYMBOL.search(sentence) or _QUANTITY.search(sentence)
    content = shown is not None or bool(content_words(sentence) & question_words)
    names = tuple(
        name
        for name, behaviour in BEHAVIOURS.items()
        if _COMPILED[name].search(sentence) and (content or not behaviour.needs_content)
    )
    return names if names or content or _CONCLUSION.match(sentence) else (FILLER,)


def label_sentences(answer: str, question: str) -> list[tuple[int, int, tuple[str, ...]]]:
    """(start, end, behaviours) of each sentence or line; filler stands alone, if at all."""
    words = content_words(question)
    return [(a, b, _behaviours_of(answer[a:b], words)) for a, b in sentences(answer)]


def count_behaviours(answer: str, question: str) -> dict[str, int]:
    """Sentences or lines of the answer that show each behaviour, filler included."""
    labelled = label_sentences(answer, question)
    return {name: sum(name in names for _, _, names in labelled) for name in NAMES}


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


def _by_question(rows: Rows, token_text: Callable[[int], str] | None) -> pd.DataFrame:
    """Means per question: counts of behaviours, and tokens that are filler and that are not."""
    counts = pd.DataFrame([count_behaviours(str(r["answer"]), str(r["question"])) for r in rows])
    filler = np.array([filler_tokens(row, token_text) for row in rows])
    length = np.array([float(row["length"]) for row in rows])
    counts = counts.assign(filler_tokens=filler, other_tokens=length - filler, length=length)
    return counts.groupby([row["question_id"] for row in rows]).mean()


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
    table = pd.DataFrame.from_dict(change, orient="index", columns=columns)
    return table.rename_axis("behaviour")


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
    changed: dict[bool, list[str]] = {True: [], False: []}
    for name in BEHAVIOURS:
        row = change.loc[name]
        if row["high"] < 0 or row["low"] > 0:
            counts = f"{name} ({row['base']:.2f} → {row['other']:.2f} per answer)"
            changed[row["difference"] < 0].append(counts)
    lost, gained = ", ".join(changed[True]), ", ".join(changed[False])
    text += f" Less often: {lost}." if lost else " No behaviour became rarer."
    return f"{text} More often: {gained}." if gained else text


def definitions() -> pd.DataFrame:
    """The table of behaviours: name, definition, patterns."""
    lines = [
        {"behaviour": name, "definition": b.definition, "patterns": "   ".join(b.patterns)}
        for name, b in BEHAVIOURS.items()
    ]
    rule = "says nothing about the question: no number, no operator, no content word of it"
    lines.append({"behaviour": FILLER, "definition": rule, "patterns": "(a rule: is_filler)"})
    return pd.DataFrame(lines).set_index("behaviour")


def examples(rows: Rows, name: str, count: int = 3) -> list[tuple[Mapping[str, Any], str]]:
    """The first answers that show a behaviour, each from another question, with the sentence."""
    if name not in NAMES:
        raise ValueError(f"Unknown behaviour {name!r}. Choose one of {', '.join(NAMES)}.")
    chosen: dict[str, tuple[Mapping[str, Any], str]] = {}
    for row in rows:
        answer = str(row["answer"])
        for start, end, names in label_sentences(answer, str(row["question"])):
            if name in names and len(chosen) < count:
                chosen.setdefault(row["question_id"], (row, answer[start:end]))
    return list(chosen.values())
