"""GRPO as a flat loop over pure functions, a generator of :class:`StepRecord`.

Deviations from the paper: LoRA instead of full fine-tuning, and rates tuned for it; the
log-probs of sampling serve as old log-probs and as those of ppl(a|q) where weights are float32
(they are one quantity), with bfloat16 they are scored again. Everything else follows it: both
contexts under the current policy, temperature 1, Dr. GRPO, dual clip, k3 KL against the base.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sarlab._engine.folded_lora import folded
from sarlab._engine.micro_batches import run_whole_plan
from sarlab.advantages import group_advantages, share_without_signal
from sarlab.config import TrainConfig
from sarlab.dependence import line_dependence
from sarlab.diagnostics import bonus_diagnostics
from sarlab.losses import clip_fraction, kl_estimate, reduce_tokens, surrogate_loss
from sarlab.models import Policy
from sarlab.prompts import conditioned_ids, standalone_ids
from sarlab.rewards import alpha_at, copied_mask, reward_named, total_reward
from sarlab.rollout import sample
from sarlab.sar import perplexity, self_aligned_reward
from sarlab.scoring import Prefix, compute_prefixes, score, token_budget_for
from sarlab.tasks import Task, Verdict, judge_all
from sarlab.types import Question, RewardInputs, Rollouts, StepRecord

MAX_RATIO = 1e4  # a token's ρ beyond this means that old and new policy have parted


class TrainingError(RuntimeError):
    """Training cannot go on in good order; ``kind`` names the reason for run.json."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass
class TrainState:
    """What a step changes: the policy's adapter, the optimiser, and how many steps are done."""

    policy: Policy
    optimizer: torch.optim.Optimizer
    step: int = 0
    critic: Any = None  # PPO's, with save(folder) and load(folder) of its own

    def save(self, folder: Path) -> None:
        """Adapter (PEFT layout) and optimiser state, both as safetensors."""
        self.policy.model.save_pretrained(folder, selected_adapters=["default"])
        save_optimizer(self.optimizer, folder / "optimizer.safetensors")
        if self.critic is not None:
            self.critic.save(folder)

    def load(self, folder: Path, step: int) -> None:
        """Take up a checkpoint written by :meth:`save` into the present adapter."""
        from peft import set_peft_model_state_dict

        adapter = load_file(folder / "adapter_model.safetensors")
        set_peft_model_state_dict(self.policy.model, adapter)
        load_optimizer(self.optimizer, folder / "optimizer.safetensors")
        if self.critic is not None:
            self.critic.load(folder)
        self.step = step
        self.policy.version += 1


def save_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Write an optimiser's state as safetensors, parameters by their position."""
    tensors = {}
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        for name, value in optimizer.state[parameter].items():
            tensors[f"{index}.{name}"] = value.detach().cpu().contiguous()
    save_file(tensors, path)


def load_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Take up what :func:`save_optimizer` wrote."""
    parameters = optimizer.param_groups[0]["params"]
    for key, value in load_file(path).items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        place = value if name == "step" else value.to(parameter.device)
        optimizer.state[parameter][name] = place


def start(policy: Policy, config: TrainConfig) -> TrainState:
    """Optimiser over the policy's trainable parameters (its adapter)."""
    trainable = [p for p in policy.model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("The policy has no trainable parameters; call add_lora(policy) first.")
    optimizer = torch.optim.AdamW(
        trainable, lr=config.learning_rate, weight_decay=config.weight_decay, fused=False
    )
    return TrainState(policy, optimizer)


@dataclass(frozen=True)
class Batch:
    """One step's answers with all that was found out about them, before the update."""

    questions: Sequence[Question]
    prefixes: Sequence[Prefix]
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
    standalone: bool = True,
    greedy: bool = False,
    on_token: Callable[[int, int], None] | None = None,
) -> Batch:
    """Sample answers, judge them, and score them without the question where that is wanted."""
    clock = Clock()
    prefixes = [
        Prefix(tuple(conditioned_ids(policy.tokenizer, q.text, policy.prompt))) for q in questions
    ]
    with policy.folded():
        prefixes = compute_prefixes(policy, prefixes)
        rollouts = sample(
            policy,
            prefixes,
            group_size=group_size,
            max_answer_tokens=config.max_answer_tokens,
            seed=seed,
            greedy=greedy,
            on_token=on_token,
        )
    clock.lap("sample")
    asked = [questions[i] for i in rollouts.group_ids.tolist()]
    verdicts = judge_all(rollouts.texts, asked)
    clock.lap("verify")
    conditioned = rollouts.logps
    if policy.dtype != torch.float32:
        conditioned = _logps(policy, prefixes, rollouts, rollouts.group_ids, config)
    clock.lap("score_conditioned")
    alone = None
    if standalone:
        ids = tuple(standalone_ids(policy.tokenizer, policy.prompt, config.standalone))
        zero = torch.zeros_like(rollouts.group_ids)
        alone = _logps(policy, [Prefix(ids)], rollouts, zero, config)
    clock.lap("score_standalone")
    extras = reward_extras(policy, config.reward, prefixes, questions, rollouts, conditioned)
    clock.lap("score_lines")
    inputs = RewardInputs(
        correct=torch.tensor([float(v.correct) for v in verdicts]),
        group_ids=rollouts.group_ids,
        answer_mask=rollouts.answer_mask,
        logps_conditioned=conditioned,
        logps_standalone=alone,
        progress=progress,
        **extras,
    )
    return Batch(questions, prefixes, rollouts, verdicts, inputs, clock.seconds)


def reward_extras(
    policy: Policy,
    reward: str,
    prefixes: Sequence[Prefix],
    questions: Sequence[Question],
    rollouts: Rollouts,
    conditioned: Tensor,
) -> dict[str, Tensor]:
    """The optional fields of RewardInputs that the reward declares; {} for most."""
    needs, found = reward_named(reward), {}
    if needs.needs_copied:
        ids = [policy.tokenizer(q.text, add_special_tokens=False).input_ids for q in questions]
        found["copied"] = copied_mask(
            ids, rollouts.group_ids, rollouts.answer_ids, rollouts.answer_mask
        )
    if needs.needs_lines:
        with policy.folded():
            lines = line_dependence(
                policy,
                prefixes,
                rollouts.answer_ids,
                rollouts.answer_mask,
                conditioned,
                prefix_index=rollouts.group_ids,
            )
        found |= {"line_ids": lines.line_ids, "dependence": lines.nats}
    return found


def grpo_steps(state: TrainState, task: Task, config: TrainConfig) -> Iterator[StepRecord]:
    """Run (SA-)GRPO from ``state.step`` to ``config.steps``, one record a step.

    The state may be saved, evaluated or thrown away between two records.
    """
    policy = state.policy
    wants_sar = config.log_sar or reward_named(config.reward).needs_standalone
    while state.step < config.steps:
        step = state.step + 1
        clock = Clock()
        batch = collect(
            policy,
            task.train_batch(step, config.questions, config.seed),
            config,
            seed=f"{config.seed} {step} sample",
            group_size=config.group_size,
            progress=state.step / config.steps,
            standalone=wants_sar,
        )
        rewards = total_reward(batch.inputs, config.reward, config.alpha, config.alpha_schedule)
        advantages = group_advantages(
            rewards, batch.inputs.group_ids, divide_by_std=config.loss == "grpo"
        )
        clock.restart()
        reference = reference_logps(policy, batch, config)
        clock.lap("reference")
        rate = learning_rate(config, step)
        updates = []
        for _ in range(config.epochs):
            for rows in mini_batches(batch.rollouts.group_ids, config.mini_batches):
                loss_inputs = (batch, rows, advantages, reference, config)
                updates.append(update_policy(state, rate, *loss_inputs))
        clock.lap("update")
        state.step = step
        metrics = {
            **step_metrics(step, batch, rewards, config),
            "no_signal_share": share_without_signal(rewards, batch.inputs.group_ids),
            "learning_rate": rate,
            **{k: sum(u[k] for u in updates) / len(updates) for k in updates[0]},
            **{f"seconds_{k}": v for k, v in {**batch.seconds, **clock.seconds}.items()},
        }
        rows_out = tuple(answer_rows(step, "train", batch, rewards, advantages))
        yield StepRecord(step, metrics, rows_out, tuple(step_warnings(metrics)))


def reference_logps(policy: Policy, batch: Batch, config: TrainConfig) -> Tensor | None:
    """Log-probs [B, T] under the base policy for the KL, nats; None where β is 0."""
    if config.beta == 0:
        return None
    # Prefixes computed with the adapter on must not serve the reference.
    plain = [Prefix(p.ids) for p in batch.prefixes]
    with policy.as_reference():
        return _logps(policy, plain, batch.rollouts, batch.rollouts.group_ids, config)


def step_metrics(
    step: int, batch: Batch, rewards: Tensor, config: TrainConfig
) -> dict[str, float | int | None]:
    """Numbers about one step's answers, before the update."""
    inputs, rollouts = batch.inputs, batch.rollouts
    lengths = rollouts.lengths.float()
    sar = _sar(inputs)
    return {
        "step": step,
        "accuracy": inputs.correct.mean().item(),
        "reward": rewards.mean().item(),
        "alpha": alpha_at(config.alpha, config.alpha_schedule, inputs.progress),
        "mean_length": lengths.mean().item(),
        "median_length": lengths.median().item(),
        "truncated_share": rollouts.truncated.float().mean().item(),
        "sar": None if sar is None else sar.mean().item(),
        "ppl_conditioned": _ppl(inputs.logps_conditioned, inputs).median().item(),
        "ppl_standalone": None
        if inputs.logps_standalone is None
        else _ppl(inputs.logps_standalone, inputs).median().item(),
        # −mean log P of the policy's own samples is an unbiased estimate of its entropy.
        "entropy_nats": -inputs.logps_conditioned[inputs.answer_mask].mean().item(),
        "verifier_errors": sum(v.reason.startswith(("error", "timeout")) for v in batch.verdicts),
        **bonus_diagnostics(reward_named(config.reward).bonus(inputs), inputs, rewards),
    }


def answer_rows(
    step: int, split: str, batch: Batch, rewards: Tensor, advantages: Tensor | None
) -> Iterator[dict[str, Any]]:
    """One row of the rollout table an answer."""
    inputs, rollouts = batch.inputs, batch.rollouts
    sar = _sar(inputs)
    conditioned = _ppl(inputs.logps_conditioned, inputs)
    alone = None if inputs.logps_standalone is None else _ppl(inputs.logps_standalone, inputs)
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
            "answer_ids": rollouts.answer_ids[row, :length].tolist(),
            "logps_conditioned": inputs.logps_conditioned[row, :length].tolist(),
            "logps_standalone": None
            if inputs.logps_standalone is None
            else inputs.logps_standalone[row, :length].tolist(),
            "length": length,
            "truncated": bool(rollouts.truncated[row]),
            "correct": batch.verdicts[row].correct,
            "verdict": batch.verdicts[row].reason,
            "ppl_conditioned": conditioned[row].item(),
            "ppl_standalone": None if alone is None else alone[row].item(),
            "sar": None if sar is None else sar[row].item(),
            "reward": rewards[row].item(),
            "advantage": None if advantages is None else advantages[row].item(),
        }


def update_policy(
    state: TrainState,
    rate: float,
    batch: Batch,
    rows: Tensor,
    advantages: Tensor,
    reference: Tensor | None,
    config: TrainConfig,
) -> dict[str, float]:
    """One optimiser step on the answers ``rows``; micro-batches add up to its exact gradient."""
    policy = state.policy
    sums = in_micro_batches(
        policy,
        batch,
        rows,
        config,
        lambda plan: _gradients(state, batch, plan, advantages, reference, config),
    )
    norm = torch.nn.utils.clip_grad_norm_(
        state.optimizer.param_groups[0]["params"], config.grad_clip
    ).item()
    _refuse_broken(sums["loss"], norm, sums["ratio_max"], state.step + 1)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    policy.version += 1
    return {**sums, "grad_norm": norm}


def in_micro_batches(
    policy: Policy,
    batch: Batch,
    rows: Tensor,
    config: TrainConfig,
    gradients: Callable[[list[Tensor]], dict[str, float]],
    kind: str = "update",
) -> dict[str, float]:
    """``gradients(plan)`` with the answers ``rows`` in micro-batches, the adapter folded.

    Where memory runs out it is called again with smaller micro-batches, so it must start its
    gradients anew.
    """
    prefixes = torch.tensor([len(p.ids) for p in batch.prefixes])[batch.rollouts.group_ids[rows]]
    totals = batch.rollouts.lengths[rows] + prefixes
    groups = prefixes if policy.has_sliding_window else None

    def run(plan: list[Tensor]) -> dict[str, float]:
        with folded(policy.model):
            return gradients([rows[chosen] for chosen in plan])

    budget = token_budget_for(policy, config.token_budget)
    return run_whole_plan(policy.device, totals, budget, run, groups, kind=kind)


def _gradients(
    state: TrainState,
    batch: Batch,
    plan: list[Tensor],
    advantages: Tensor,
    reference: Tensor | None,
    config: TrainConfig,
) -> dict[str, float]:
    """The gradient of one mini-batch, its rows by micro-batch in ``plan``, and what was seen."""
    policy, rollouts = state.policy, batch.rollouts
    old = batch.inputs.logps_conditioned
    lengths = rollouts.lengths[torch.cat(plan)]
    totals = {
        "total_answers": len(lengths),
        "total_tokens": int(lengths.sum()),
        "max_answer_tokens": config.max_answer_tokens,
    }
    plain = [Prefix(p.ids) for p in batch.prefixes]  # gradients flow through the prefixes too
    sums = {"loss": 0.0, "kl": 0.0, "clip_fraction": 0.0, "ratio_max": 0.0}
    state.optimizer.zero_grad(set_to_none=True)
    for part in plan:
        width = int(rollouts.lengths[part].max())
        ids, mask = rollouts.answer_ids[part, :width], rollouts.answer_mask[part, :width]
        found = score(
            policy, plain, ids, mask, prefix_index=rollouts.group_ids[part], grad=True
        ).logps
        assert found is not None
        mask, before = mask.to(found.device), old[part, :width].to(found.device)
        gain = advantages[part].to(found.device)
        gain = gain[:, :width] if gain.dim() == found.dim() else gain
        per_token = surrogate_loss(
            found,
            before,
            gain,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            dual_clip=config.dual_clip,
        )
        share = int(mask.sum()) / totals["total_tokens"]
        if reference is not None:
            kl = kl_estimate(found, reference[part, :width].to(found.device), config.kl)
            per_token = per_token + config.beta * kl
            sums["kl"] += kl.detach()[mask].mean().item() * share
        loss = reduce_tokens(per_token, mask, config.loss, **totals)
        loss.backward()
        with torch.no_grad():
            sums["loss"] += loss.item()
            sums["clip_fraction"] += share * clip_fraction(
                found, before, gain, mask, clip_low=config.clip_low, clip_high=config.clip_high
            )
            largest = (found - before)[mask].max().exp().item()
            sums["ratio_max"] = max(sums["ratio_max"], largest)
    return sums


def _refuse_broken(loss: float, norm: float, ratio_max: float, step: int) -> None:
    """Stop before the optimiser takes up numbers that would ruin the adapter."""
    if not all(map(_finite, (loss, norm))):
        raise TrainingError(
            "not_finite",
            f"Step {step}: loss {loss} and gradient norm {norm} must be finite. The adapter was "
            "not changed; go on from the last checkpoint with a lower learning_rate.",
        )
    if not ratio_max < MAX_RATIO:
        raise TrainingError(
            "exploding_ratio",
            f"Step {step}: a token became {ratio_max:.3g} times likelier within one step, the "
            f"limit is {MAX_RATIO:g}. Lower learning_rate, epochs or mini_batches.",
        )


def _finite(x: float) -> bool:
    return abs(x) < float("inf")  # False for NaN too


def step_warnings(metrics: dict[str, Any]) -> Iterator[str]:
    """What a step's numbers give reason to say, each as ``kind: text``."""
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


def _logps(
    policy: Policy,
    prefixes: Sequence[Prefix],
    rollouts: Rollouts,
    prefix_index: Tensor,
    config: TrainConfig,
) -> Tensor:
    with policy.folded():
        found = score(
            policy,
            prefixes,
            rollouts.answer_ids,
            rollouts.answer_mask,
            prefix_index=prefix_index,
            token_budget=config.token_budget,
        ).logps
    assert found is not None
    return found.cpu()


def mini_batches(group_ids: Tensor, count: int) -> Iterator[Tensor]:
    """Row indices of each mini-batch; a group is never torn apart."""
    groups = torch.unique(group_ids)
    for part in torch.tensor_split(groups, count):
        yield torch.isin(group_ids, part).nonzero().flatten()


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then constant."""
    return config.learning_rate * min(1.0, step / (config.warmup_steps + 1))


def _sar(inputs: RewardInputs) -> Tensor | None:
    if inputs.logps_standalone is None:
        return None
    return self_aligned_reward(
        inputs.logps_conditioned, inputs.logps_standalone, inputs.answer_mask
    )


def _ppl(logps: Tensor, inputs: RewardInputs) -> Tensor:
    return perplexity(logps, inputs.answer_mask)


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        """Count from now."""
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Credit the time since the last call to ``phase``."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now
