"""Answers that try to trick a reward, made on purpose. Pure and deterministic.

:func:`attacks` is the gallery of wrong answers that any reward can be tried on. The modes of
notebook 04 pair a *good* answer with a *bad* one, some of them from that gallery. Bad answers end
in a wrong value, so a verifier refuses them: what is measured is where SAR by itself would lead.
(German against English is the exception: both are right, one half is fair.)
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sarlab.audit.labelled import LabelledAnswer
from sarlab.tasks import verify
from sarlab.types import Question

FAILURES = "failure modes"
"""The group that answers of these modes belong to."""


@dataclass(frozen=True)
class Mode:
    """One way to fool the reward: what is compared, what it is, and what to do about it."""

    name: str
    claims: tuple[str, ...]
    about: str
    advice: str


MODES = (
    Mode(
        "the question copied",
        ("right > copied_question", "honest_wrong > copied_question"),
        "The answer repeats the question word for word, then gives a wrong value: with the "
        "question in view every word is likely, without it hardly one.",
        "Keep SAR beside correctness (never sar_alone) with α at most ½: then no wrong answer "
        "earns more than a right one. In groups that are wrong throughout SAR is the only signal: "
        "let α rise (linear_up), or leave out questions that are never solved.",
    ),
    Mode(
        "a rare phrase repeated",
        ("right > rare_phrase", "honest_wrong > rare_phrase"),
        "The rarest words of the question, eight times over, then a wrong value.",
        "As above. Open the answers with the highest SAR in the token view: a copy is blue from "
        "end to end. After its first turn a repetition predicts itself in both contexts, which "
        "pulls Δ log p towards 0 and ppl(a) far down.",
    ),
    Mode(
        "a very short answer",
        ("right > very_short", "honest_wrong > very_short"),
        "One sentence with a wrong value and no step towards it.",
        "Keep the instruction `Answer: X` in the system turn, where it stands in both contexts; in "
        "the user turn the bare line scores highest of all. Follow the mean length of wrong "
        "answers, not of all answers alone.",
    ),
    Mode(
        "another language",
        ("german > english_wrong", "english > german"),
        "The same right calculations in a German and in an English template of sentences; the "
        "wrong one is the English template with every result off by one.",
        "Expect another scale in each language: ppl(a) of a language that the model knows less is "
        "high. Don't mix languages within a group, and don't compare SAR across them.",
    ),
    Mode(
        "a proof that needs its length",
        ("proof > shortcut",),
        "Is N a prime number? A division by every prime up to √N, against one sentence with the "
        "wrong verdict. Made here; N has three digits.",
        "Raise α only as far as accuracy on long problems holds: evaluate questions that need many "
        "steps apart from the rest, and compare lengths of right answers only.",
    ),
)
"""The failure modes, in the order of the gallery."""

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_EQUATION = re.compile(
    r"[$(]*[0-9][0-9.,%$]*(?:\s*[-+*/x×÷]\s*[$(]*[0-9.][0-9.,%]*\)*)+\s*=\s*\$?[0-9.,]*[0-9]"
)
_RESULT = re.compile(r"[0-9][0-9.,]*$")
_REPEATS = 8
_FILLER = "Let me think about this carefully. That is a good question. Now we can go on. "
_ENGLISH = ("First I calculate", "Then I calculate", "So the result is")
_GERMAN = ("Zuerst rechne ich", "Danach rechne ich", "Das Ergebnis ist also")
_UNANSWERED = ("cut-off reasoning", "format only")  # attacks without a value
_LABELLED = ("copied question", "rare phrase", "very short")  # attacks that are modes too


def attacks(question: Question, right: str, words: Mapping[str, int]) -> dict[str, str]:
    """Wrong answers to one question, each written to be paid.

    ``right``: a right answer, whose steps some repeat; ``words``: of :func:`word_counts`.
    """
    value, lines = wrong_value(question.gold), right.strip().split("\n")
    steps = lines[:-1] or lines
    texts = {
        "copied question": question.text,
        "rare phrase": ", ".join([rare_phrase(question.text, words)] * _REPEATS) + ".",
        "very short": f"It is {value}.",
        "bare answer": "",
        "one step repeated": "\n".join(steps[:1] * _REPEATS),
        "cut-off reasoning": "\n".join(steps),
        "padding": _FILLER * 6 + "\n".join(steps),
        "other language": "Zuerst rechne ich. Danach rechne ich. Das ist alles.",
        "format only": "Answer:\nAnswer:\nAnswer:",
        "every number": " ".join(map(str, range(1, 40))),
        "the gold named, not given": f"It is not {question.gold}.",
    }
    return {n: text if n in _UNANSWERED else ended(text, value) for n, text in texts.items()}


def word_counts(questions: Sequence[Question]) -> Counter[str]:
    """How often each word occurs in the questions, in lower case."""
    return Counter(w.lower() for q in questions for w in _WORD.findall(q.text))


def failure_answers(
    questions: Sequence[Question], right: Mapping[str, str], wrong: Mapping[str, str]
) -> list[LabelledAnswer]:
    """Good and bad answers of every mode but the proofs, to given questions.

    ``right`` and ``wrong``: by question text, a right answer and an honest wrong attempt; a
    question that lacks either is left out. Another language needs two calculations or more.
    """
    words = word_counts(questions)
    answers = []
    for question in questions:
        if question.text in right and question.text in wrong:
            good = right[question.text]
            gallery = attacks(question, good, words)
            texts = {"right": good, "honest_wrong": wrong[question.text]}
            texts |= {name.replace(" ", "_"): gallery[name] for name in _LABELLED}
            texts |= _translated(good, question.gold)
            answers += _labelled(question.text, question.gold, texts)
    return answers


def _translated(answer: str, gold: str) -> dict[str, str]:
    """The calculations of a right answer in English, in German, and in English with slips."""
    steps = equations(answer)
    if len(steps) < 2:
        return {}
    slipped = [_RESULT.sub(lambda m: wrong_value(m.group()), step) for step in steps]
    texts = {}
    for label, shown, value in (
        ("english", steps, gold),
        ("german", steps, gold),
        ("english_wrong", slipped, wrong_value(gold)),
    ):
        first, then, last = _GERMAN if label == "german" else _ENGLISH
        sentences = [f"{first if i == 0 else then} {step}." for i, step in enumerate(shown)]
        texts[label] = ended(" ".join([*sentences, f"{last} {value}."]), value)
    return texts


def proof_answers(count: int = 30, seed: int = 0) -> list[LabelledAnswer]:
    """``count`` questions whether a number is prime, each with its proof and a wrong shortcut.

    Half are; the others are products of two primes from 11 on. ValueError for more than there are.
    """
    small = [p for p in range(2, 1000) if all(p % d for d in range(2, int(p**0.5) + 1))]
    primes = [p for p in small if p > 200]
    products = sorted({p * q for p in small for q in small if 11 <= p <= q and 200 < p * q < 1000})
    half, limit = count // 2, 2 * min(len(primes), len(products))
    if not 2 <= count <= limit:
        raise ValueError(f"count is {count}; there are 2 to {limit} such questions.")
    rng = random.Random(f"proofs {seed}")
    answers = []
    for number in rng.sample(primes, count - half) + rng.sample(products, half):
        gold, reason = "no", "is odd and does not end in 5, so it is prime."
        if number in primes:
            gold, reason = "yes", "looks like a product of two primes, so it is not prime."
        shortcut = ended(f"{number} {reason}", wrong_value(gold))
        texts = {"proof": ended(_proof(number, small), gold), "shortcut": shortcut}
        answers += _labelled(f"Is {number} a prime number? Answer yes or no.", gold, texts)
    return answers


def _proof(number: int, primes: Sequence[int]) -> str:
    """A division by each prime up to the root, until one leaves nothing."""
    lines = [
        f"A divisor of {number} other than 1 and {number} would have a prime factor of at most "
        f"{int(number**0.5)}, so I divide by the primes up to there."
    ]
    for p in (p for p in primes if p * p <= number):
        quotient, rest = divmod(number, p)
        if rest == 0:
            return "\n".join([*lines, f"{p} * {quotient} = {number}, so it is not prime."])
        lines.append(f"{p} * {quotient} = {p * quotient}, which leaves {rest}.")
    return "\n".join([*lines, f"None divides {number}, so it is prime."])


def _labelled(question: str, gold: str, texts: Mapping[str, str]) -> list[LabelledAnswer]:
    return [
        LabelledAnswer(question, text, label, FAILURES, verify(text, gold), gold)
        for label, text in texts.items()
    ]


def ended(body: str, value: str) -> str:
    """The text with its line ``Answer: X`` at the end."""
    return f"{body}\nAnswer: {value}" if body else f"Answer: {value}"


def wrong_value(gold: str) -> str:
    """A value near the right one that is not it: one more, the other of yes and no, or "none"."""
    other = {"yes": "no", "no": "yes", "true": "false", "false": "true"}.get(gold.strip().lower())
    try:
        raised = Fraction(gold.replace(",", "").strip().lstrip("$")) + 1
    except (ValueError, ZeroDivisionError):
        return other or "none"
    return str(raised.numerator) if raised.denominator == 1 else f"{float(raised):.10g}"


def rare_phrase(question: str, words: Mapping[str, int]) -> str:
    """Three neighbouring words that are rarest by ``words``; a text of fewer is taken whole."""
    in_order = _WORD.findall(question)
    windows = [in_order[i : i + 3] for i in range(max(1, len(in_order) - 2))]
    rarest = max(windows, key=lambda window: sum(1 / words.get(w.lower(), 1) for w in window))
    return " ".join(rarest) or question.strip()


def equations(text: str) -> list[str]:
    """The calculations that a text writes out, such as ``14 * 6 = 84``."""
    return [match.group().strip() for match in _EQUATION.finditer(text)]
