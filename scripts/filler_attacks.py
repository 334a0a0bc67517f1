"""Try to trick `filler_share`: padded answers whose padding the measure should find, or does not.

    python scripts/filler_attacks.py --questions 40

Each row pads the same right solutions of `tiny` in another way. "Padding" is the share of tokens
that nobody needs, by construction; "found" the share that filler_share takes off. A trick works
where the second is far below the first.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable

import torch
from build_tiny import FILLER, column_sum

from sarlab.models import load_policy
from sarlab.prompts import conditioned_ids, encode_answer, standalone_ids
from sarlab.rewards import filler_share
from sarlab.rewards.dependence import line_dependence
from sarlab.scoring import Prefix, answer_block, answer_logps
from sarlab.tasks.word_problems import WordProblem, draw_problem
from sarlab.types import RewardInputs

Pad = Callable[[list[str], WordProblem, random.Random], list[str]]


def plain(lines: list[str], _: WordProblem, rng: random.Random) -> list[str]:
    """Sentences of filler, each on a line."""
    return [*rng.sample(FILLER, 6), *lines]


def joined(lines: list[str], _: WordProblem, rng: random.Random) -> list[str]:
    """The same sentences on the lines of the solution."""
    extra = rng.sample(FILLER, min(6, len(lines)))
    return [f"{e} {line}" for e, line in zip(extra, lines, strict=False)] + lines[len(extra) :]


def twice(lines: list[str], _: WordProblem, rng: random.Random) -> list[str]:
    """Every line of the solution written twice."""
    return [x for line in lines for x in (line, line)]


def again(lines: list[str], _: WordProblem, rng: random.Random) -> list[str]:
    """The whole solution written twice."""
    return [*lines, *lines]


def echo(lines: list[str], _: WordProblem, rng: random.Random) -> list[str]:
    """One sentence of filler six times."""
    return [*[rng.choice(FILLER)] * 6, *lines]


def copied(lines: list[str], problem: WordProblem, rng: random.Random) -> list[str]:
    """The question, sentence by sentence."""
    return [
        *(s.strip() + "." for s in problem.question.rstrip("?").split(".") if s.strip()),
        *lines,
    ]


def chain(lines: list[str], _: WordProblem, rng: random.Random) -> list[str]:
    """A sum of other numbers, worked out in the same way, that leads nowhere."""
    return [*column_sum(rng.randint(101, 799), rng.randint(101, 799)), *lines]


def password(lines: list[str], _: WordProblem, rng: random.Random) -> list[str]:
    """A random number that the next lines repeat."""
    number = rng.randint(10_000, 99_999)
    return [*[f"{number}+{number}"] * 5, *lines]


TRICKS: tuple[Pad, ...] = (plain, joined, twice, again, echo, copied, chain, password)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=40)
    args = parser.parse_args()
    policy, rng = load_policy("tiny"), random.Random("tricks")
    alone = Prefix(tuple(standalone_ids(policy.tokenizer, policy.prompt)))
    problems = [draw_problem(rng) for _ in range(args.questions)]
    print("| trick | padding | found | needed taken for filler |\n| --- | --- | --- | --- |")
    for trick in TRICKS:
        padding, found, lost = 0.0, 0.0, 0.0
        for problem in problems:
            lines, total = [], problem.terms[0]
            for term in problem.terms[1:]:
                lines += column_sum(total, term)
                total += term
            text = "\n".join([*trick(lines, problem, rng), f"Answer: {total}"])
            bare = "\n".join([*lines, f"Answer: {total}"])
            block, mask = answer_block(
                [encode_answer(policy.tokenizer, x, policy.end_id) for x in (text, bare)]
            )
            prefix = Prefix(
                tuple(conditioned_ids(policy.tokenizer, problem.question, policy.prompt))
            )
            logps = answer_logps(policy, prefix, block, mask)
            parts = line_dependence(policy, [prefix], block, mask, logps)
            inputs = RewardInputs(
                torch.ones(2),
                torch.zeros(2, dtype=torch.long),
                mask,
                logps,
                answer_logps(policy, alone, block, mask),
                line_ids=parts.line_ids,
                dependence=parts.nats,
            )
            share, needed = (-filler_share(inputs)).tolist()
            n, m = inputs.lengths.tolist()
            padding += (n - m) / n / len(problems)
            found += share / len(problems)
            lost += needed / len(problems)
        title = (trick.__doc__ or "").splitlines()[0]
        print(f"| {title} | {padding:.0%} | {found:.0%} | {lost:.0%} |", flush=True)


if __name__ == "__main__":
    main()
