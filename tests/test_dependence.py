"""What the rest of an answer takes from a line: against plain forwards, and where it is known."""

from __future__ import annotations

import itertools

import pytest
import torch

from sarlab.models import load_policy
from sarlab.prompts import conditioned_ids, encode_answer
from sarlab.rewards.dependence import line_dependence, lines_of
from sarlab.scoring import Prefix, answer_block, answer_logps

QUESTION = "Ada has 384 coins and gets 297 more. How many coins does Ada have now?"
ANSWERS = (
    "384+297\n4+7=11\n8+9+1=18\n3+2+1=6\n384+297=681\nThat was not too hard, I would say.\n"
    "Answer: 681",
    "384+297=681\nAnswer: 681",
    "Answer: 681",
)


@pytest.fixture(scope="module")
def policy():
    return load_policy("tiny")


def answer_of(policy, text: str) -> list[int]:
    return encode_answer(policy.tokenizer, text, policy.end_id)


def plain_logps(policy, ids: list[int]) -> torch.Tensor:
    """log P of each token but the first, by one forward of the whole model."""
    with torch.no_grad():
        logits = policy.model(torch.tensor([ids])).logits[0].double()
    return torch.log_softmax(logits, -1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]


def dependence(policy, answers):
    prefix = Prefix(tuple(conditioned_ids(policy.tokenizer, QUESTION, policy.prompt)))
    block, mask = answer_block([answer_of(policy, a) for a in answers])
    logps = answer_logps(policy, prefix, block, mask)
    return line_dependence(policy, [prefix], block, mask, logps)


def test_every_line_agrees_with_plain_forwards(policy) -> None:
    found = dependence(policy, ANSWERS)
    question = conditioned_ids(policy.tokenizer, QUESTION, policy.prompt)
    compared = 0
    for row, text in enumerate(ANSWERS):
        ids = answer_of(policy, text)
        breaks = [i for i, t in enumerate(ids) if "\n" in policy.tokenizer.decode([t])]
        starts = [0, *(b + 1 for b in breaks)]
        for line, (start, stop) in enumerate(itertools.pairwise(starts)):
            rest = len(ids) - stop
            seen = plain_logps(policy, [*question, *ids])[-rest:].sum()
            unseen = plain_logps(policy, [*question, *ids[:start], *ids[stop:]])[-rest:].sum()
            assert found.nats[row, line].item() == pytest.approx((seen - unseen).item(), abs=1e-4)
            assert found.rest_tokens[row, line] == rest
            compared += 1
    assert compared == 7


def test_a_needed_line_feeds_the_rest_and_filler_does_not(policy) -> None:
    # Lines 1 to 3 are the columns with their carries, line 5 is filler.
    nats = dependence(policy, ANSWERS[:1]).nats[0]
    assert (nats[1:5] > 10).all() and nats[5] < 2


def test_the_last_line_and_an_answer_of_one_line_have_no_rest(policy) -> None:
    found = dependence(policy, ANSWERS)
    assert found.nats[2].tolist() == [0] * 7 and found.rest_tokens[2].tolist() == [0] * 7
    assert found.nats[0, 6] == 0 and found.nats_per_token[0, 6] == 0


def test_batching_with_other_answers_changes_nothing(policy) -> None:
    together, alone = dependence(policy, ANSWERS), dependence(policy, ANSWERS[1:2])
    torch.testing.assert_close(together.nats[1:2, :2], alone.nats, atol=1e-4, rtol=0)


def test_empty_lines_belong_to_the_line_before_and_the_end_token_to_the_last(policy) -> None:
    block, mask = answer_block([answer_of(policy, "1+1=2\n\n\nAnswer: 2\n")])
    lines = lines_of(policy.tokenizer, block, mask)[0].tolist()
    assert lines == [0] * 8 + [1] * (len(lines) - 8)  # 1 + 1 = 2 and three line breaks


def test_of_two_equal_lines_the_first_gives_more_by_what_it_makes_its_copy_likelier(policy) -> None:
    # Without one of them the answer reads the same, so d_0 − d_1 = log P(l | q, l) − log P(l | q).
    text = "384+297=681\n384+297=681\nAnswer: 681"
    nats = dependence(policy, [text]).nats[0]
    ids, start = answer_of(policy, text), conditioned_ids(policy.tokenizer, QUESTION, policy.prompt)
    logps = plain_logps(policy, [*start, *ids])[len(start) - 1 :]
    line = len(ids) - len(answer_of(policy, "384+297=681\nAnswer: 681"))
    copy, first = logps[line : 2 * line].sum(), logps[:line].sum()
    assert (nats[0] - nats[1]).item() == pytest.approx((copy - first).item(), abs=1e-3)
