"""One step's experience: sample answers, judge them, score them; their metrics and table rows."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sarlab.config import TrainConfig
from sarlab.models import Policy
from sarlab.prompts import encode_answer
from sarlab.rewards import Reward, alpha_at, answer_bonus, reward_named
from sarlab.rewards.dependence import reward_extras
from sarlab.rewards.diagnostics import bonus_diagnostics
from sarlab.rollout import sample
from sarlab.sar import perplexity, self_aligned_reward
from sarlab.scoring import Prefix, answer_block, answer_logps, compute_prefixes, prefix_of
from sarlab.tasks import Verdict, judge_all, opens_thought
from sarlab.types import Question, RewardInputs, Rollouts, StepRecord


@dataclass(frozen=True)
class Batch:
    """One step's answers with their verdicts and scores, before the update."""

    questions: Sequence[Question]
    prefixes: Sequence[Prefix]  # per question, not computed: an update runs them with gradients
    rollouts: Rollouts
    verdicts: Sequence[Verdict]
    inputs: RewardInputs
    seconds: dict[str, float] = field(default_factory=dict)


def collect(
    policy: Policy,
    questions: Sequence[Question],
    config: TrainConfig,
    *,
    seed: str,
    group_size: int,
    progress: float = 0.0,
    best_accuracy: float = 0.0,
    standalone: bool = True,
    greedy: bool = False,
    on_token: Callable[[int, int], None] | None = None,
) -> Batch:
    """Sample answers, judge them, and score them with and (if ``standalone``) without the question.

    Sampling's log-probs serve as the conditioned ones. Weights below float32 round, so the two
    differ there, and answers are scored again.
    """
    clock = Clock()
    prefixes = [prefix_of(policy, question.text) for question in questions]
    with policy.folded():
        computed = compute_prefixes(policy, prefixes)
        rollouts = sample(
            policy,
            computed,
            group_size=group_size,
            max_answer_tokens=config.max_answer_tokens,
            seed=seed,
            greedy=greedy,
            on_token=on_token,
        )
    clock.lap("sample")
    in_thought = opens_thought(policy.tokenizer.decode(prefixes[0].ids[-8:]))
    of_answers = [questions[i] for i in rollouts.group_ids.tolist()]
    verdicts = judge_all(rollouts.texts, of_answers, in_thought=in_thought)
    clock.lap("verify")
    logps_conditioned = rollouts.logps
    if policy.dtype != torch.float32:
        logps_conditioned = conditioned_logps(policy, computed, rollouts, config)
    clock.lap("score_conditioned")
    logps_standalone = standalone_logps(policy, rollouts, config) if standalone else None
    clock.lap("score_standalone")
    answers = (questions, prefixes, rollouts, logps_conditioned, verdicts)
    with policy.folded():
        more = reward_extras(policy, config.reward, *answers)
    clock.lap("score_extras")
    more |= {"budget": config.length_budget or config.max_answer_tokens}
    more |= {"progress": progress, "best_accuracy": best_accuracy}
    inputs = reward_inputs(rollouts, verdicts, logps_conditioned, logps_standalone, **more)
    return Batch(questions, prefixes, rollouts, verdicts, inputs, clock.seconds)


def reward_inputs(
    rollouts: Rollouts,
    verdicts: Sequence[Verdict],
    logps_conditioned: Tensor,
    logps_standalone: Tensor | None,
    **more: Any,
) -> RewardInputs:
    """The inputs of a reward from judged and scored answers, ``more`` fields on top."""
    correct = torch.tensor([float(v.correct) for v in verdicts])
    groups, mask = rollouts.group_ids, rollouts.answer_mask
    return RewardInputs(correct, groups, mask, logps_conditioned, logps_standalone, **more)


def inputs_of_texts(
    policy: Policy,
    question: Question,
    texts: Sequence[str],
    verdicts: Sequence[Verdict],
    name: str | Reward,
    *,
    logps: bool = True,
) -> RewardInputs:
    """Typed answers to one question, as the reward ``name`` needs them; NaN without ``logps``."""
    prefix = prefix_of(policy, question.text)
    ids = [encode_answer(policy.tokenizer, text, policy.end_id) for text in texts]
    block, mask = answer_block(ids)
    conditioned, standalone = torch.full(mask.shape, torch.nan), None
    if logps:
        conditioned = answer_logps(policy, prefix, block, mask).cpu()
    if reward_named(name).needs_standalone:
        standalone = answer_logps(policy, prefix_of(policy, None), block, mask).cpu()
    group = torch.zeros(len(texts), dtype=torch.long)
    rollouts = Rollouts(block, mask, conditioned, group, group.bool(), tuple(texts))
    answers = ([question], [prefix], rollouts, conditioned, verdicts)
    with policy.folded():
        extras = reward_extras(policy, name, *answers)
    budget = TrainConfig.max_answer_tokens
    return reward_inputs(rollouts, verdicts, conditioned, standalone, budget=budget, **extras)


def conditioned_logps(
    policy: Policy, prefixes: Sequence[Prefix], rollouts: Rollouts, config: TrainConfig
) -> Tensor:
    """Log-probs of the answers with their questions [B, T], nats."""
    answers = (prefixes, rollouts.answer_ids, rollouts.answer_mask)
    groups, budget = rollouts.group_ids, config.token_budget
    with policy.folded():
        logps = answer_logps(policy, *answers, prefix_index=groups, token_budget=budget)
    return logps.cpu()


def standalone_logps(policy: Policy, rollouts: Rollouts, config: TrainConfig) -> Tensor:
    """Log-probs of the answers without a question [B, T], nats."""
    prefix = prefix_of(policy, None, config.standalone)
    answers = (prefix, rollouts.answer_ids, rollouts.answer_mask)
    with policy.folded():
        return answer_logps(policy, *answers, token_budget=config.token_budget).cpu()


def reference_logps(policy: Policy, batch: Batch, config: TrainConfig) -> Tensor | None:
    """Log-probs [B, T] under the base policy for the KL, nats; None where β is 0."""
    if config.beta == 0:
        return None
    with policy.as_reference():
        return conditioned_logps(policy, batch.prefixes, batch.rollouts, config)


def step_record(
    step: int,
    batch: Batch,
    rewards: Tensor,
    advantages: Tensor,
    config: TrainConfig,
    **more: float | None,
) -> StepRecord:
    """One step's metrics (``more`` of the update), rows, warnings; rewards, advantages [B]."""
    inputs, rollouts = batch.inputs, batch.rollouts
    lengths = rollouts.lengths.float()
    scores = {
        name: None if x is None else (x.mean() if name == "sar" else x.median()).item()
        for name, x in _answer_scores(inputs).items()
    }
    metrics = {
        "step": step,
        "accuracy": inputs.correct.mean().item(),
        "reward": rewards.mean().item(),
        "bonus_sd": (rewards - inputs.correct).std(correction=0).item(),
        "alpha": alpha_at(config.alpha, config.alpha_schedule, inputs.progress),
        "mean_length": lengths.mean().item(),
        "median_length": lengths.median().item(),
        "truncated_share": rollouts.truncated.float().mean().item(),
        **scores,
        # −mean log P of the policy's own samples is an unbiased estimate of its entropy.
        "entropy_nats": -inputs.logps_conditioned[inputs.answer_mask].mean().item(),
        "verifier_errors": sum(v.reason.startswith(("error", "timeout")) for v in batch.verdicts),
        **bonus_diagnostics(answer_bonus(inputs, config.reward), inputs, rewards),
        **{f"seconds_{phase}": seconds for phase, seconds in batch.seconds.items()},
        **more,
    }
    rows = tuple(answer_rows(step, "train", batch, rewards, advantages))
    return StepRecord(step, metrics, rows, tuple(_warnings(metrics)))


def _warnings(metrics: dict[str, Any]) -> Iterator[str]:
    """Each as ``kind: text``."""
    if metrics["no_signal_share"] == 1.0:
        yield (
            "no_signal: all answers to each question earned the same, so this step moved "
            "nothing. The task may be too easy or too hard for this policy."
        )
    if metrics["truncated_share"] == 1.0:
        yield (
            "all_truncated: every answer hit max_answer_tokens. Raise it, or check that the "
            "policy knows its end token."
        )
    if metrics["mean_length"] < 2:
        yield "length_collapse: answers are shorter than 2 tokens on average."
    if metrics["verifier_errors"]:
        yield f"verifier_errors: {metrics['verifier_errors']} answers could not be judged."


def answer_rows(
    step: int, split: str, batch: Batch, rewards: Tensor, advantages: Tensor | None
) -> Iterator[dict[str, Any]]:
    """One row of the rollout table per answer; ``advantages`` [B]."""
    inputs, rollouts = batch.inputs, batch.rollouts
    columns = {**_answer_scores(inputs), "reward": rewards, "advantage": advantages}
    tokens = {
        "answer_ids": rollouts.answer_ids,
        "logps_conditioned": inputs.logps_conditioned,
        "logps_standalone": inputs.logps_standalone,
    }
    for row, length in enumerate(rollouts.lengths.tolist()):
        group = int(rollouts.group_ids[row])
        question = batch.questions[group]
        yield {
            "step": step,
            "split": split,
            "group_id": group,
            "question_id": question.id,
            "question": question.text,
            "gold": question.gold,
            "answer": rollouts.texts[row],
            **{k: None if x is None else x[row, :length].tolist() for k, x in tokens.items()},
            "length": length,
            "truncated": bool(rollouts.truncated[row]),
            "correct": batch.verdicts[row].correct,
            "verdict": batch.verdicts[row].reason,
            **{k: None if column is None else column[row].item() for k, column in columns.items()},
        }


def _answer_scores(inputs: RewardInputs) -> dict[str, Tensor | None]:
    """Both perplexities and SAR per answer [B]; None without the standalone pass."""
    conditioned, alone, mask = inputs.logps_conditioned, inputs.logps_standalone, inputs.answer_mask
    return {
        "ppl_conditioned": perplexity(conditioned, mask),
        "ppl_standalone": None if alone is None else perplexity(alone, mask),
        "sar": None if alone is None else self_aligned_reward(conditioned, alone, mask),
    }


class Clock:
    """Seconds per phase, added up in a dict."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds = {} if seconds is None else seconds
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Credit the time since the last call to ``phase``."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now
