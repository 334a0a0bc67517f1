"""Answers of known quality made from GSM8K's solutions, which nobody here wrote.

A solution carries its calculations as marks, ``16 - 3 - 4 = $<<16-3-4=9>>9``: an expression, its
result, and the number in the text that follows. So a calculation can be spoilt and what rests on
it computed anew, and the text stays fluent. Everything is deterministic by seed.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from sarlab.audit.failures import ended
from sarlab.audit.labelled import LabelledAnswer
from sarlab.tasks import verify
from sarlab.tasks.rows import read_rows, text_field
from sarlab.types import Question

LABELS: dict[str, str] = {
    "solution": "the data set's own solution: concise and right",
    "socratic": "its Socratic twin, each step after its sub-question: longer, also right",
    "last_step_cut": "the solution without its last step: partly right, no final answer reached",
    "number_changed": "one calculation comes out wrong and the rest builds on it: partly right",
    "operations_changed": "every + is −, every × is ÷ and the reverse: about the question, wrong",
    "off_topic": "the solution of another question",
    "no_thought": "only the answer line: right, without a thought",
}
"""The labels of the answers that are made, and what each is."""

_MARK = re.compile(r"<<([^<>=]*)=([^<>=]*)>>")
_NUMBER = re.compile(r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+")
_OPERATOR = re.compile(r"(?<=[0-9)%])(\s*)([-+*/x×÷])(?=\s*[($]*[0-9.])|(\s)([-+*/×÷])(?=\s)")
_SWAPPED = {"+": "-", "-": "+", "*": "/", "/": "*", "x": "/", "×": "÷", "÷": "×"}
_MAX_DIGITS = 9  # a spoilt chain of products may not grow without bound
Change = Callable[[int, str, Fraction], Fraction]


def read_solutions(path: str | Path) -> dict[str, tuple[str, str]]:
    """Question → (solution with its marks, final answer) of a GSM8K file, in its order.

    Raises ValueError that names the line where the answer does not end in ``#### X``.
    """
    found = {}
    for where, row in read_rows(Path(path)):
        question = text_field(row, ("question",), where)
        body, mark, gold = text_field(row, ("answer",), where).rpartition("####")
        if not mark or not gold.strip() or not body.strip():
            raise ValueError(
                f"{where}: the answer does not end in '#### X' after a solution. Give GSM8K's own "
                "file, test.jsonl or its Socratic form."
            )
        found[question] = (body.strip(), gold.strip())
    return found


def gsm8k_answers(
    solutions: Mapping[str, tuple[str, str]],
    socratic: Mapping[str, tuple[str, str]],
    questions: int,
    seed: int = 0,
) -> list[LabelledAnswer]:
    """Up to seven answers each (:data:`LABELS`) to ``questions`` questions drawn by seed.

    A label that a solution does not allow is left out: no last step to cut, no calculation to
    spoil, no Socratic twin, or a spoilt answer that is right all the same. Raises ValueError for
    more questions than there are.
    """
    names = list(solutions)
    if not 1 <= questions <= len(names):
        raise ValueError(f"questions is {questions}; the file has 1 to {len(names)} of them.")
    if len(names) < 2:
        raise ValueError("One question has no other whose solution is off topic. Give more.")
    chosen = random.Random(f"gsm8k {seed}").sample(names, questions)
    return [a for name in chosen for a in _answers_to(name, names, solutions, socratic, seed)]


def plain(solution: str) -> str:
    """A solution without its calculation marks."""
    return _MARK.sub("", solution)


def last_step_cut(solution: str) -> tuple[str, str] | None:
    """The solution without its last step, and the last result so far; None for a single step."""
    lines = [line for line in solution.split("\n") if line.strip()]
    kept = "\n".join(lines[:-1])
    results = _NUMBER.findall(plain(kept))
    return (plain(kept), results[-1]) if results else None


def number_changed(
    solution: str, question: str, gold: str, rng: random.Random
) -> tuple[str, str] | None:
    """The solution with one result off, what rests on it computed anew, and the new final answer.

    None where no single change reaches the final answer.
    """
    count = len(_MARK.findall(solution))
    for chosen in rng.sample(range(count), count):
        amount = rng.choice([1, 2, 3, 5, 10])

        def slip(
            index: int, _: str, value: Fraction, chosen: int = chosen, amount: int = amount
        ) -> Fraction:
            return value + amount if index == chosen else value

        body, results = recomputed(solution, question, slip)
        value = _final(results, gold)
        if value is not None and value != _written(_value(gold), gold):
            return body, value
    return None


def operations_changed(solution: str, question: str, gold: str) -> tuple[str, str] | None:
    """The solution with every operation replaced, computed anew, and the new final answer.

    None where there is no calculation, or where the final answer stays.
    """

    def swap(_: int, expression: str, value: Fraction) -> Fraction:
        other = _evaluate(_swap_operators(expression))
        return value if other is None else other

    body, results = recomputed(solution, question, swap, rewrite=_swap_operators)
    value = _final(results, gold)
    return None if value is None or value == _written(_value(gold), gold) else (body, value)


def recomputed(
    solution: str,
    question: str,
    change: Change,
    rewrite: Callable[[str], str] = str,
) -> tuple[str, list[tuple[Fraction | None, Fraction]]]:
    """The solution with its calculations done anew, marks gone, and each (old, new) result.

    ``change(index, expression, value)`` gives the result of a calculation whose operands are those
    of the text so far; ``rewrite`` changes what stands before it in the text. A result that differs
    replaces the old one from there on, unless the question itself states that number.
    """
    given = {_value(n) for n in _NUMBER.findall(question)}
    carried: dict[Fraction, Fraction] = {}
    pieces = _MARK.split(solution)
    text = [rewrite(pieces[0])]
    results: list[tuple[Fraction | None, Fraction]] = []
    for index, (expression, result, after) in enumerate(
        zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True)
    ):
        old = _value(result)
        own = _replace_numbers(expression, carried)
        value = _evaluate(own)
        if value is None or old is None:  # "20%*50", "2 apples": left as it stands
            text.append(rewrite(_replace_numbers(after, carried)))
            continue
        new = _rounded(change(index, own, value))
        results.append((old, new))
        if new != old and old not in given:
            carried[old] = new
        head = _NUMBER.match(after)
        if head is not None and _value(head.group()) == old:
            rest = after[head.end() :]
            text.append(_written(new, head.group()) + rewrite(_replace_numbers(rest, carried)))
        else:
            text.append(rewrite(_replace_numbers(after, carried)))
    return "".join(text), results


def _answers_to(
    name: str,
    names: Sequence[str],
    solutions: Mapping[str, tuple[str, str]],
    socratic: Mapping[str, tuple[str, str]],
    seed: int,
) -> list[LabelledAnswer]:
    solution, gold = solutions[name]
    rng = random.Random(f"gsm8k {seed} {Question(name, gold).id}")
    other, other_gold = solutions[_another(name, names, solutions, rng)]
    twin = socratic.get(name)
    made: dict[str, tuple[str, str] | None] = {
        "solution": (plain(solution), gold),
        "socratic": None if twin is None else (plain(twin[0]).replace(" ** ", " "), gold),
        "last_step_cut": last_step_cut(solution),
        "number_changed": number_changed(solution, name, gold, rng),
        "operations_changed": operations_changed(solution, name, gold),
        "off_topic": (plain(other), other_gold),
        "no_thought": ("", gold),
    }
    found = []
    for label, answer in made.items():
        if answer is None:
            continue
        text = ended(*answer)
        right = verify(text, gold)
        if right == (label in ("solution", "socratic", "no_thought")):
            found.append(LabelledAnswer(name, text, label, correct=right, gold=gold))
    return found


def _another(
    name: str,
    names: Sequence[str],
    solutions: Mapping[str, tuple[str, str]],
    rng: random.Random,
) -> str:
    """Another question, with another final answer where one of a hundred draws has it."""
    other = name
    for _ in range(100):
        other = rng.choice(names)
        if other != name and solutions[other][1] != solutions[name][1]:
            break
    return other


def _final(results: Sequence[tuple[Fraction | None, Fraction]], gold: str) -> str | None:
    """The new final answer: what became of the last result that was the final answer."""
    final = _value(gold)
    for old, new in reversed(results):
        if old == final:
            return _written(new, gold)
    return None


def _swap_operators(text: str) -> str:
    return _OPERATOR.sub(
        lambda m: (m[1] or m[3] or "") + _SWAPPED[m[2] or m[4]],
        text,
    )


def _replace_numbers(text: str, carried: Mapping[Fraction, Fraction]) -> str:
    def one(match: re.Match[str]) -> str:
        old = _value(match.group())
        new = None if old is None else carried.get(old)
        return match.group() if new is None else _written(new, match.group())

    return _NUMBER.sub(one, text) if carried else text


def _value(text: str) -> Fraction | None:
    """The number that a text is, or None where it is more than one."""
    text = text.strip().lstrip("$").replace(",", "")
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def _written(value: Fraction | None, like: str) -> str:
    """A number as text: no needless decimals, commas between thousands where ``like`` has them."""
    if value is None:
        return like.strip()
    commas = "," in like or (abs(value) >= 10_000 and len(like) < 4)
    shown = f"{float(value):,.2f}".rstrip("0").rstrip(".")
    return shown if commas else shown.replace(",", "")


def _rounded(value: Fraction) -> Fraction:
    return Fraction(round(value * 100), 100)


def _evaluate(expression: str) -> Fraction | None:
    """The value of an expression of numbers, + − * / and brackets; None for anything else."""
    try:
        tree = ast.parse(expression.replace(",", "").replace("$", "").strip(), mode="eval")
        value = _node(tree.body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None
    return value if abs(value) < 10**_MAX_DIGITS else None


def _node(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_node(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = _node(node.left), _node(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            return left / right
    raise ValueError(f"{ast.dump(node):.40} is no arithmetic of numbers.")
