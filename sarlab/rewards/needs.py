"""What a reward asks for beyond correctness and both log-probs, computed only where it asks.

A reward names fields of :class:`RewardInputs` in ``Reward.needs``; :func:`reward_extras` makes
them for sampled answers.
"""

import bisect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sarlab.models import Policy
from sarlab.rewards import Reward, reward_named
from sarlab.rewards.dependence import MARKER, gold_ids, line_dependence
from sarlab.scoring import Prefix, answer_block, answer_logps, token_report
from sarlab.tasks import Verdict
from sarlab.types import Question, Rollouts


def reward_extras(
    policy: Policy,
    reward: str | Reward,
    questions: Sequence[Question],
    prefixes: Sequence[Prefix],
    rollouts: Rollouts,
    logps_conditioned: Tensor,
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    """The optional fields of RewardInputs that a reward declares; {} for most rewards."""
    needs = set(reward_named(reward).needs)
    of_rows = tuple(questions[i] for i in rollouts.group_ids.tolist())
    extras: dict[str, Any] = {}
    with policy.folded():
        if "copied" in needs:
            extras |= _copied(policy, questions, rollouts)
        if needs & {"line_ids", "dependence"}:
            extras |= _lines(policy, prefixes, rollouts, logps_conditioned)
        if needs & {"entropy", "self_certainty"}:
            extras |= _statistics(policy, prefixes, rollouts)
        if needs & {"gold_logps", "gold_logps_without", "gold_mask"}:
            extras |= gold_logps(policy, of_rows, prefixes, rollouts)
    at_hand = {
        "answer_keys": tuple(v.extracted for v in verdicts),
        "texts": tuple(rollouts.texts),
        "questions": of_rows,
    }
    return extras | {name: value for name, value in at_hand.items() if name in needs}


def gold_logps(
    policy: Policy, questions: Sequence[Question], prefixes: Sequence[Prefix], rollouts: Rollouts
) -> dict[str, Any]:
    """Log-probs of each answer's gold value after its reasoning and without it [B, G], nats.

    The reasoning is everything before the last ``Answer:``, or all of an answer that has none. The
    marker itself stands before the value in both contexts and is not counted: any text earns it.
    """
    golds, after, without = [], [], []
    for row, question in enumerate(questions):
        prefix = prefixes[int(rollouts.group_ids[row])].ids
        marker, value = gold_ids(policy, question.gold)
        golds.append(value)
        answer = rollouts.answer_ids[row, rollouts.answer_mask[row]].tolist()
        after.append(Prefix((*prefix, *_reasoning(policy, answer), *marker)))
        without.append(Prefix((*prefix, *marker)))
    ids, mask = answer_block(golds)
    rows = torch.arange(len(golds))
    return {
        "gold_logps": answer_logps(policy, after, ids, mask, prefix_index=rows).cpu(),
        "gold_logps_without": answer_logps(policy, without, ids, mask, prefix_index=rows).cpu(),
        "gold_mask": mask,
    }


def _reasoning(policy: Policy, answer: list[int]) -> list[int]:
    """The ids before the token in which the last marker begins, without an end token."""
    if answer and answer[-1] in policy.eos_ids:
        answer = answer[:-1]

    def text(tokens: int) -> str:
        return policy.tokenizer.decode(answer[:tokens], skip_special_tokens=False)

    start = text(len(answer)).rfind(MARKER)
    if start < 0:
        return answer
    # The most tokens whose text ends before the marker.
    sizes = range(1, len(answer) + 1)
    return answer[: bisect.bisect_right(sizes, start, key=lambda n: len(text(n)))]


def _copied(policy: Policy, questions: Sequence[Question], rollouts: Rollouts) -> dict[str, Any]:
    question_ids = [
        policy.tokenizer(q.text, add_special_tokens=False)["input_ids"] for q in questions
    ]
    copied = torch.zeros_like(rollouts.answer_mask)
    for row, mask in enumerate(rollouts.answer_mask):
        answer = rollouts.answer_ids[row][mask].tolist()
        marks = copied_tokens(question_ids[int(rollouts.group_ids[row])], answer)
        copied[row, : len(answer)] = torch.tensor(marks)
    return {"copied": copied}


def copied_tokens(
    question_ids: Sequence[int], answer_ids: Sequence[int], length: int = 5
) -> list[bool]:
    """Which tokens of an answer lie in an n-gram of ``length`` tokens that the question holds.

    Where the question is shorter than that, the whole of it counts as the n-gram.
    """
    length = min(length, len(question_ids))
    copied = [False] * len(answer_ids)
    grams = {tuple(question_ids[i : i + length]) for i in range(len(question_ids) - length + 1)}
    for i in range(len(answer_ids) - length + 1):
        if tuple(answer_ids[i : i + length]) in grams:
            copied[i : i + length] = [True] * length  # nothing for an empty question
    return copied


def _lines(
    policy: Policy, prefixes: Sequence[Prefix], rollouts: Rollouts, logps: Tensor
) -> dict[str, Any]:
    ids, mask, groups = rollouts.answer_ids, rollouts.answer_mask, rollouts.group_ids
    lines = line_dependence(policy, prefixes, ids, mask, logps, prefix_index=groups)
    return {"line_ids": lines.line_ids, "dependence": lines.nats}


def _statistics(policy: Policy, prefixes: Sequence[Prefix], rollouts: Rollouts) -> dict[str, Any]:
    ids, mask, groups = rollouts.answer_ids, rollouts.answer_mask, rollouts.group_ids
    report = token_report(policy, prefixes, ids, mask, prefix_index=groups)
    return {"entropy": report.entropy.cpu(), "self_certainty": report.self_certainty.cpu()}
