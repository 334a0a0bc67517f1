"""Try to trick `filler_share`: padded answers whose padding the measure should find, or does not.

    python scripts/filler_attacks.py --questions 40

Each row pads the same right solutions of `tiny` in another way. "Padding" is the share of tokens
that nobody needs, by construction; "found" the share that filler_share takes off. A trick works
where the second is far below the first. A second table, on `tiny-facts`: what SAR does when a right
solution also mentions the number of the story that is not needed.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable

import torch
from build_tiny import FILLER, column_sum
from story_account import solution_lines

from sarlab.models import Policy, load_policy
from sarlab.prompts import conditioned_ids, encode_answer, standalone_ids
from sarlab.rewards import filler_share, sar
from sarlab.rewards.dependence import line_dependence
from sarlab.scoring import Prefix, answer_block, answer_logps
from sarlab.tasks.stories import draw_problem, draw_story
from sarlab.types import Question, RewardInputs

Pad = Callable[[list[str], Question, random.Random], list[str]]


def plain(lines: list[str], _: Question, rng: random.Random) -> list[str]:
    """Sentences of filler, each on a line."""
    return [*rng.sample(FILLER, 6), *lines]


def joined(lines: list[str], _: Question, rng: random.Random) -> list[str]:
    """The same sentences on the lines of the solution."""
    extra = rng.sample(FILLER, min(6, len(lines)))
    return [f"{e} {line}" for e, line in zip(extra, lines, strict=False)] + lines[len(extra) :]


def twice(lines: list[str], _: Question, rng: random.Random) -> list[str]:
    """Every line of the solution written twice."""
    return [x for line in lines for x in (line, line)]


def again(lines: list[str], _: Question, rng: random.Random) -> list[str]:
    """The whole solution written twice."""
    return [*lines, *lines]


def echo(lines: list[str], _: Question, rng: random.Random) -> list[str]:
    """One sentence of filler six times."""
    return [*[rng.choice(FILLER)] * 6, *lines]


def copied(lines: list[str], problem: Question, rng: random.Random) -> list[str]:
    """The question, sentence by sentence."""
    return [
        *(s.strip() + "." for s in problem.text.rstrip("?").split(".") if s.strip()),
        *lines,
    ]


def chain(lines: list[str], _: Question, rng: random.Random) -> list[str]:
    """A sum of other numbers, worked out in the same way, that leads nowhere."""
    return [*column_sum(rng.randint(101, 799), rng.randint(101, 799)), *lines]


def password(lines: list[str], _: Question, rng: random.Random) -> list[str]:
    """A random number that the next lines repeat."""
    number = rng.randint(10_000, 99_999)
    return [*[f"{number}+{number}"] * 5, *lines]


TRICKS: tuple[Pad, ...] = (plain, joined, twice, again, echo, copied, chain, password)


def scored(policy: Policy, question: str, texts: list[str]) -> RewardInputs:
    """Typed answers to one question as rewards want them, lines included."""
    block, mask = answer_block([encode_answer(policy.tokenizer, x, policy.end_id) for x in texts])
    prefix = Prefix(tuple(conditioned_ids(policy.tokenizer, question, policy.prompt)))
    alone = Prefix(tuple(standalone_ids(policy.tokenizer, policy.prompt)))
    logps = answer_logps(policy, prefix, block, mask)
    parts = line_dependence(policy, [prefix], block, mask, logps)
    return RewardInputs(
        torch.ones(len(texts)),
        torch.zeros(len(texts), dtype=torch.long),
        mask,
        logps,
        answer_logps(policy, alone, block, mask),
        line_ids=parts.line_ids,
        dependence=parts.nats,
    )


def tricks(questions: int) -> None:
    """Padding and what filler_share finds of it, by trick."""
    policy, rng = load_policy("tiny"), random.Random("tricks")
    problems = [draw_problem(rng) for _ in range(questions)]
    print("| trick | padding | found | needed taken for filler |\n| --- | --- | --- | --- |")
    for trick in TRICKS:
        padding = found = lost = 0.0
        for problem in problems:
            lines, total = [], problem.metadata["terms"][0]
            for term in problem.metadata["terms"][1:]:
                lines += column_sum(total, term)
                total += term
            text = "\n".join([*trick(lines, problem, rng), f"Answer: {total}"])
            bare = "\n".join([*lines, f"Answer: {total}"])
            inputs = scored(policy, problem.text, [text, bare])
            share, needed = (-filler_share(inputs)).tolist()
            n, m = inputs.lengths.tolist()
            padding += (n - m) / n / questions
            found += share / questions
            lost += needed / questions
        title = (trick.__doc__ or "").splitlines()[0]
        print(f"| {title} | {padding:.0%} | {found:.0%} | {lost:.0%} |", flush=True)


def spare_number(questions: int) -> None:
    """SAR of right solutions with the spare number mentioned, or with filler, against the bare."""
    policy, rng = load_policy("tiny-facts"), random.Random("spare")
    changes: dict[str, list[float]] = {"the spare number": [], "one sentence of filler": []}
    while len(changes["the spare number"]) < questions:
        story = draw_story(rng)
        unneeded = story.metadata["unneeded"]
        if unneeded is None:
            continue
        lines = [*solution_lines(story.metadata["terms"]), f"Answer: {story.gold}"]
        place = rng.randrange(len(lines))
        more = (f"{unneeded} is not needed.", rng.choice(FILLER))
        texts = ["\n".join(lines), *("\n".join([*lines[:place], x, *lines[place:]]) for x in more)]
        values = sar(scored(policy, story.text, texts)).tolist()
        for name, value in zip(changes, values[1:], strict=True):
            changes[name].append(value - values[0])
    print("| a right solution and … | SAR rises in | mean change of SAR |\n| --- | --- | --- |")
    for name, found in changes.items():
        rises = sum(x > 0 for x in found) / len(found)
        print(f"| {name} | {rises:.0%} | {sum(found) / len(found):+.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=20)
    args = parser.parse_args()
    tricks(args.questions)
    print()
    spare_number(5 * args.questions)


if __name__ == "__main__":
    main()
