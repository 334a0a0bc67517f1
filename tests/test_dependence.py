"""What the rest of an answer takes from a line: against plain forwards, and where it is known."""

from __future__ import annotations

import itertools

import pytest
import torch

import sarlab.rewards.dependence as dependence_module
from sarlab import scoring
from sarlab.models import load_policy
from sarlab.prompts import conditioned_ids, encode_answer, standalone_ids
from sarlab.rewards.dependence import (
    AnswerDependence,
    answer_dependence,
    dependence_of,
    gold_ids,
    line_dependence,
    lines_of,
)
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
    assert found.nats[0, 6] == 0


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


# The ledger of one answer

LONG = ANSWERS[0]


@pytest.fixture(scope="module")
def ledger(policy):
    return answer_dependence(policy, QUESTION, LONG, gold="681")


def plain_sums(policy, question: list[int], ids: list[int], parts) -> list[float]:
    logps = plain_logps(policy, [*question, *ids])[len(question) - 1 :]
    return [logps[a:b].sum().item() for a, b in parts]


def test_the_ledger_agrees_with_plain_forwards_line_by_line_and_pair_by_pair(policy, ledger):
    question = conditioned_ids(policy.tokenizer, QUESTION, policy.prompt)
    alone = standalone_ids(policy.tokenizer, policy.prompt)
    ids = answer_of(policy, LONG)
    parts = list(itertools.pairwise([*ledger.starts, len(ids)]))
    seen = plain_sums(policy, question, ids, parts)
    read = [a - b for a, b in zip(seen, plain_sums(policy, alone, ids, parts), strict=True)]
    assert ledger.read_nats.tolist() == pytest.approx(read, abs=1e-4)
    assert ledger.tokens.tolist() == [b - a for a, b in parts]
    for k, (start, stop) in enumerate(parts[:-1]):
        later = [(a - (stop - start), b - (stop - start)) for a, b in parts[k + 1 :]]
        without = plain_sums(policy, question, ids[:start] + ids[stop:], later)
        expected = [a - b for a, b in zip(seen[k + 1 :], without, strict=True)]
        assert ledger.taken[k + 1 :, k].tolist() == pytest.approx(expected, abs=1e-4)
        assert not ledger.taken[: k + 1, k].any()
    assert ledger.fed_nats.tolist() == pytest.approx(ledger.taken.sum(0).tolist(), abs=1e-4)


def test_g_is_what_each_line_adds_to_log_p_of_the_gold_value(policy, ledger) -> None:
    question = conditioned_ids(policy.tokenizer, QUESTION, policy.prompt)
    marker, value = gold_ids(policy, "681")
    assert policy.tokenizer.decode(value[:-1]).strip() == "681"
    heads = [[*question, *answer_of(policy, LONG)[:n]] for n in ledger.starts]
    golds = [plain_logps(policy, [*h, *marker, *value])[-len(value) :].sum() for h in heads]
    expected = [(b - a).item() for a, b in itertools.pairwise(golds)]
    assert ledger.gold_nats[:-1].tolist() == pytest.approx(expected, abs=1e-3)
    assert ledger.gold_nats[-1].isnan()  # the marker stands in it
    assert answer_dependence(policy, QUESTION, LONG).gold_nats is None


def test_lines_are_classed_by_both_sides_and_the_last_by_neither() -> None:
    made = AnswerDependence(
        starts=(0, 2, 4, 6, 9),
        tokens=torch.tensor([2, 2, 2, 3, 1]),
        read_nats=torch.tensor([2.0, 0.0, 9.0, 1.9, 0.0]),
        fed_nats=torch.tensor([5.0, 7.0, 4.9, -1.0, 0.0]),
        rest_tokens=torch.tensor([8, 6, 4, 1, 0]),
        taken=torch.zeros(5, 5),
    )
    assert made.classes() == ["read and used", "worked out", "copied", "filler", "last"]
    assert made.filler_share() == pytest.approx(3 / 10)
    assert made.classes(0.0, 6.0)[:4] == ["copied", "read and used", "copied", "copied"]
    assert made.filler_share(read_nats=10) == pytest.approx(5 / 10)


def test_other_parts_than_lines_and_a_span_by_hand(policy, ledger) -> None:
    span = (ledger.starts[1], ledger.starts[3])
    made = answer_dependence(policy, QUESTION, LONG, by=span)
    assert made.starts == (0, *span)
    ids = answer_of(policy, LONG)
    question = conditioned_ids(policy.tokenizer, QUESTION, policy.prompt)
    rest = len(ids) - span[1]
    seen = plain_logps(policy, [*question, *ids])[-rest:].sum()
    unseen = plain_logps(policy, [*question, *ids[: span[0]], *ids[span[1] :]])[-rest:].sum()
    assert made.fed_nats[1].item() == pytest.approx((seen - unseen).item(), abs=1e-4)
    with pytest.raises(ValueError, match="begin at 0 to"):
        answer_dependence(policy, QUESTION, LONG, by=[len(ids) + 1])
    with pytest.raises(ValueError, match="empty"):
        answer_dependence(policy, QUESTION, [])


def test_an_answer_of_one_line_has_a_ledger_too(policy) -> None:
    made = answer_dependence(policy, QUESTION, "Answer: 681", gold="681")
    assert made.classes() == ["last"] and made.filler_share() == 0
    assert made.fed_nats.tolist() == [0] and made.gold_nats.isnan().all()


def test_twelve_lines_cost_at_most_six_passes_over_the_answer(policy, monkeypatch) -> None:
    text = "\n".join(["384+297=681"] * 11 + ["Answer:681"])
    run, tokens = scoring._run, []

    def counting(policy, ids, mask, *rest):
        tokens.append(int(mask.sum()))
        return run(policy, ids, mask, *rest)

    monkeypatch.setattr(scoring, "_run", counting)
    told = []
    ids = answer_of(policy, text)
    made = answer_dependence(policy, QUESTION, ids, on_lines=lambda *x: told.append(x))
    assert len(made.starts) == 12
    question = len(conditioned_ids(policy.tokenizer, QUESTION, policy.prompt))
    prefixes = question + len(standalone_ids(policy.tokenizer, policy.prompt))
    scored = 2 * len(ids) + prefixes
    assert sum(tokens) - scored <= 5.5 * len(ids)
    assert told == [(3, 11), (6, 11), (9, 11), (11, 11)]


def test_a_fake_with_known_log_probs_gives_the_nats_by_hand(policy, monkeypatch) -> None:
    # Lines of two tokens. Behind k lines in sight a token of the rest has log-prob −(4 − k).
    ids = answer_of(policy, "1\n2\n3\n4")
    assert lines_of(policy.tokenizer, *answer_block([ids]))[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]

    def fake(policy, prefixes, block, mask, **_):
        lines = torch.tensor([(len(p.ids) - 3) // 2 for p in prefixes])
        behind = torch.arange(block.shape[1])[None] // 2 + lines[:, None]
        return (behind - 4.0).masked_fill(~mask, 0)

    monkeypatch.setattr(dependence_module, "answer_logps", fake)
    answered = Prefix((7, 8, 9, *ids))
    seen = torch.tensor([-4.0, -4, -3, -3, -2, -2, -1, -1])
    made = dependence_of(policy, answered, seen, seen - 0.5)
    # Each later line loses one nat per token with any line before it.
    assert made.taken.tolist() == [[0, 0, 0, 0], [2, 0, 0, 0], [2, 2, 0, 0], [2, 2, 2, 0]]
    assert made.fed_nats.tolist() == [6, 4, 2, 0] and made.rest_tokens.tolist() == [6, 4, 2, 0]
    assert made.read_nats.tolist() == [1, 1, 1, 1]
