"""Try to trick `filler_share`: padded answers whose padding the measure should find, or does not.

    python scripts/filler_attacks.py --questions 40

Each row pads the same right solutions of `tiny` in another way. "Padding" is the share of tokens
that nobody needs, by construction; "found" the share that filler_share takes off. A trick works
where the second is far below the first. Further tables: what SAR pays where a story holds a number
that is not needed, and a right solution mentions it, or a wrong one adds it.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable

import torch
from build_tiny import FILLER, column_sum
from story_account import solution_lines

from sarlab.display.ledger import question_parts
from sarlab.models import Policy, load_policy
from sarlab.prompts import conditioned_ids, encode_answer, standalone_ids
from sarlab.rewards import filler_share
from sarlab.rewards.answers import score_answers
from sarlab.rewards.dependence import line_dependence, question_dependence
from sarlab.scoring import Prefix, answer_block, answer_logps
from sarlab.tasks.generated import draw_problem, draw_story
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


def spare_number(questions: int, model: str) -> None:
    """What SAR pays a right solution that mentions the spare number, or a wrong one that adds it.

    And what the sentence with the spare number gives to the answer, with that sentence left out.
    """
    policy, rng = load_policy(model), random.Random("spare")
    changes: dict[str, list[tuple[float, float]]] = {}
    for _ in range(questions):
        story = draw_story(rng)
        while story.metadata["unneeded"] in (None, *story.metadata["terms"]):
            story = draw_story(rng)
        terms, unneeded = list(story.metadata["terms"]), story.metadata["unneeded"]
        lines = [*solution_lines(terms), f"Answer: {story.gold}"]
        place = rng.randrange(len(lines))
        texts = {"bare": lines, "the spare number mentioned": list(lines), "filler": list(lines)}
        texts["the spare number mentioned"].insert(place, f"{unneeded} is not needed.")
        texts["filler"].insert(place, rng.choice(FILLER))
        added = [*terms, unneeded]
        texts["the spare number added (wrong)"] = [
            *solution_lines(added),
            f"Answer: {sum(added)}",
        ]
        scores = score_answers(policy, story.text, ["\n".join(x) for x in texts.values()])
        (span,) = [
            span
            for span in question_parts(story.text, "sentence")
            if re.search(rf"\b{unneeded}\b", story.text[slice(*span)])
        ]
        for name, score in zip(texts, scores, strict=True):
            logps = torch.tensor(score.logps_conditioned)
            spare = question_dependence(policy, story.text, [span], score.token_ids, logps)
            pair = (score.sar - scores[0].sar, float(spare.sum()))
            changes.setdefault(name, []).append(pair)
    print(
        f"{model}, {questions} stories\n\n| solution | SAR above the bare one's in | mean change | "
        "the spare sentence gives |\n| --- | --- | --- | --- |"
    )
    for name, pairs in changes.items():
        sars, nats = zip(*pairs, strict=True)
        rises = f"{sum(x > 0 for x in sars)} of {len(sars)}" if name != "bare" else ""
        mean = f"{sum(sars) / len(sars):+.3f}" if name != "bare" else ""
        given = f"{sum(nats) / len(nats):+.1f} nats"
        print(f"| {name} | {rises} | {mean} | {given} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=20)
    args = parser.parse_args()
    tricks(args.questions)
    for model, stories in (("tiny-facts", 5 * args.questions), ("smollm2-135m", 24)):
        print()
        spare_number(stories, model)


if __name__ == "__main__":
    main()
