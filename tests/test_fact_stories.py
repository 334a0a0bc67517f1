"""Stories on which length and information come apart: what a story needs is known exactly."""

from __future__ import annotations

import random

from story_account import account, solution_lines

from sarlab.models import load_policy
from sarlab.prompts import conditioned_ids, encode_answer, standalone_ids
from sarlab.rewards.dependence import line_dependence
from sarlab.scoring import Prefix, answer_block, answer_logps
from sarlab.tasks import load_task, verify
from sarlab.tasks.generated import FACT_RANGE, draw_story


def test_a_solution_reads_one_more_number_per_line() -> None:
    assert solution_lines((18, 21, 17)) == ["18+21=39", "39+17=56"]
    assert solution_lines((18, 21)) == ["18+21=39"]


def test_account_by_hand() -> None:
    answer = "I am calm.\n18+21=39\n25 is not needed.\n39+17=56\nAnswer: 56"
    found = account(answer, (18, 21, 17))
    assert found.needed == ("18+21=39", "39+17=56")
    assert found.excess == ("I am calm.", "25 is not needed.")
    assert found.missing_steps == 0


def test_a_total_stated_at_once_misses_every_step() -> None:
    found = account("Sum: 56\nAnswer: 56", (18, 21, 17))
    assert (found.needed, found.excess, found.missing_steps) == ((), ("Sum: 56",), 2)


def test_order_is_free_and_a_wrong_repeated_or_foreign_sum_is_excess() -> None:
    assert account("17+18=35\n35+21=56\nAnswer: 56", (18, 21, 17)).missing_steps == 0
    assert account("18+21=40\nAnswer: 57", (18, 21, 17)).missing_steps == 2  # wrong sum
    twice = account("18+21=39\n18+21=39\n39+17=56\nAnswer: 56", (18, 21, 17))
    assert (twice.excess, twice.missing_steps) == (("18+21=39",), 0)
    foreign = account("18+21=39\n39+25=64\nAnswer: 64", (18, 21, 17))
    assert (foreign.excess, foreign.missing_steps) == (("39+25=64",), 1)


def test_equal_numbers_are_two_numbers() -> None:
    assert account("18+18=36\nAnswer: 36", (18, 18)).missing_steps == 0
    # The 18 that is there once cannot be added twice.
    assert account("18+21=39\n39+18=57\nAnswer: 57", (18, 21, 17)).missing_steps == 1


def test_every_number_of_a_story_stands_in_it_and_the_unneeded_one_is_no_term() -> None:
    rng = random.Random(0)
    spare = 0
    for _ in range(500):
        story = draw_story(rng)
        terms, unneeded = story.metadata["terms"], story.metadata["unneeded"]
        assert 2 <= len(terms) <= 6 and all(FACT_RANGE[0] <= x <= FACT_RANGE[1] for x in terms)
        numbers = [int(w.strip(".")) for w in story.text.split() if w.strip(".").isdigit()]
        assert sorted(numbers) == sorted([*terms, *filter(None, [unneeded])])
        assert unneeded not in terms
        spare += unneeded is not None
        assert account("\n".join(solution_lines(terms)), terms).missing_steps == 0
    assert 150 < spare < 250  # 40%


def test_the_task_carries_what_it_takes_to_count_steps() -> None:
    question = load_task("fact_stories").heldout(1)[0]
    terms = tuple(question.metadata["terms"])
    text = "\n".join([*solution_lines(terms), f"Answer: {sum(terms)}"])
    assert verify(text, question.gold) and account(text, terms).missing_steps == 0


def test_the_embedded_policy_reads_and_feeds_as_the_lines_are_made() -> None:
    """A needed sum reads and feeds, the spare number is read and not used, filler does neither."""
    policy = load_policy("tiny-facts")
    question = (
        "On Monday Ada sold 18 pens. On Friday Ada sold 21 pens. Ben is 25 years old. "
        "On Sunday Ada sold 17 pens. How many pens did Ada sell?"
    )
    text = "18+21=39\nThere is no need to hurry at all.\n25 is not needed.\n39+17=56\nAnswer: 56"
    block, mask = answer_block([encode_answer(policy.tokenizer, text, policy.end_id)])
    prefix = Prefix(tuple(conditioned_ids(policy.tokenizer, question, policy.prompt)))
    alone = Prefix(tuple(standalone_ids(policy.tokenizer, policy.prompt)))
    logps = answer_logps(policy, prefix, block, mask)
    v = (logps - answer_logps(policy, alone, block, mask))[0]
    lines = line_dependence(policy, [prefix], block, mask, logps)
    read = [v[lines.line_ids[0] == line].sum().item() for line in range(4)]
    feed = lines.nats[0, :4].tolist()
    assert [x > 2 for x in read] == [True, False, True, True]
    assert [x > 5 for x in feed] == [True, False, False, True]
