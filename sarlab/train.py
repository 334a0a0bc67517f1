"""The training loops, GRPO and PPO: flat generators of one :class:`StepRecord` per step.

Deviations from the paper: LoRA instead of full fine-tuning, and rates tuned for it; the log-probs
of sampling serve as old log-probs and as those of ppl(a|q) (with weights below float32 they are
scored again). Everything else follows it: both contexts under the current policy, temperature 1;
GRPO in its Dr. GRPO form with dual clip and k3 KL against the base; PPO with one answer per
question, the reward on its last token, GAE with γ = λ = 1, whitened advantages, a token-mean loss
and no KL unless β is set.

The critic is a value head on the policy's trunk, seen through a second adapter. On answers of
`tiny` it explains as much of the return as a second model would (0.50 against 0.53 of the variance
after 12 batches, 2 MB beside the policy against 11); a head alone explains 0.07
(`benchmarks/critic.py`).
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sarlab import losses
from sarlab._engine.folded_lora import folded
from sarlab._engine.micro_batches import batch_attempts, return_freed_blocks
from sarlab.config import TrainConfig
from sarlab.experience import Batch, Clock, collect, reference_logps, step_record
from sarlab.losses import clip_fraction, kl_estimate, reduce_tokens, surrogate_loss, value_loss
from sarlab.models import Policy, lora_config
from sarlab.rewards import reward_named, token_credit, total_reward
from sarlab.rollout import OnToken, seed_of
from sarlab.scoring import answer_logps, answer_states, token_budget_for
from sarlab.tasks import Task
from sarlab.types import StepRecord

MAX_RATIO = 1e4  # a token's ρ beyond this means that old and new policy have parted
_CRITIC = "critic"  # the name of its adapter


class TrainingError(RuntimeError):
    """Training cannot go on; ``kind`` names the reason for run.json."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


# --- the two loops ------------------------------------------------------------------------------


@dataclass
class Critic:
    """A linear value head over the trunk's hidden states, the trunk seen through its adapter."""

    policy: Policy
    head: nn.Linear
    optimizer: torch.optim.Optimizer

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Within the block the critic's adapter is the active one."""
        self.policy.model.set_adapter(_CRITIC)
        self.policy.version += 1  # prefixes computed with the other adapter must not be used
        try:
            yield
        finally:
            self.policy.model.set_adapter("default")
            self.policy.version += 1

    def values(self, hidden: Tensor) -> Tensor:
        """Hidden states [B, T, H] to values [B, T]: the return expected before each token."""
        return self.head(hidden.float())[..., 0]


@dataclass
class TrainState:
    """What a step changes: the policy's adapter, optimisers, the number of steps done."""

    policy: Policy
    optimizer: torch.optim.Optimizer
    step: int = 0
    critic: Critic | None = None  # PPO's
    best_accuracy: float = 0.0  # of a step's answers so far, which some rewards look at

    def save(self, folder: Path) -> None:
        """Write adapter (PEFT layout), critic and optimisers, all as safetensors."""
        from peft import get_peft_model_state_dict

        model, critic = self.policy.model, self.critic
        model.save_pretrained(folder, selected_adapters=["default"])
        save_optimizer(self.optimizer, folder / "optimizer.safetensors")
        (folder / "best_accuracy.json").write_text(json.dumps(self.best_accuracy))
        if critic is not None:
            adapter = get_peft_model_state_dict(model, adapter_name=_CRITIC)
            _write(adapter, folder / "critic_adapter.safetensors")
            _write(critic.head.state_dict(), folder / "critic_head.safetensors")
            save_optimizer(critic.optimizer, folder / "critic_optimizer.safetensors")

    def load(self, folder: Path, step: int) -> None:
        """Read a checkpoint written by :meth:`save` into the present adapters."""
        from peft import set_peft_model_state_dict

        model, critic = self.policy.model, self.critic
        set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
        load_optimizer(self.optimizer, folder / "optimizer.safetensors")
        best = folder / "best_accuracy.json"
        self.best_accuracy = json.loads(best.read_text()) if best.exists() else 0.0
        if critic is not None:
            adapter = load_file(folder / "critic_adapter.safetensors")
            set_peft_model_state_dict(model, adapter, adapter_name=_CRITIC)
            critic.head.load_state_dict(load_file(folder / "critic_head.safetensors"))
            load_optimizer(critic.optimizer, folder / "critic_optimizer.safetensors")
        self.step = step
        self.policy.version += 1


def grpo_steps(
    state: TrainState, task: Task, config: TrainConfig, on_token: OnToken | None = None
) -> Iterator[StepRecord]:
    """Run (SA-)GRPO from ``state.step`` to ``config.steps``, one record per step.

    The state may be saved, evaluated or thrown away between two records. ``on_token`` is that of
    :func:`sarlab.rollout.sample`; where it raises, the state is that of the step before.
    """
    reward = (config.reward, config.alpha, config.alpha_schedule)
    while state.step < config.steps:
        batch = _collect(state, task, config, on_token)
        group_ids = batch.rollouts.group_ids
        rewards = total_reward(batch.inputs, *reward)
        advantages = losses.group_advantages(
            rewards, group_ids, divide_by_std=config.loss == "grpo"
        )
        credit = token_credit(batch.inputs, *reward)
        token_advantages = advantages if credit is None else advantages[:, None] + credit
        clock = Clock(batch.seconds)
        logps_reference = reference_logps(state.policy, batch, config)
        clock.lap("reference")
        rate = learning_rate(config, state.step + 1)
        updates = []
        for _ in range(config.epochs):
            for rows in mini_batches(group_ids, config.mini_batches):
                numbers = update_policy(
                    state, rate, batch, rows, token_advantages, logps_reference, config
                )
                updates.append(numbers)
        clock.lap("update")
        signal = losses.share_without_signal(rewards, group_ids)
        more = {"no_signal_share": signal, "learning_rate": rate}
        yield _record(state, batch, rewards, advantages, config, more, updates)


def ppo_steps(
    state: TrainState, task: Task, config: TrainConfig, on_token: OnToken | None = None
) -> Iterator[StepRecord]:
    """Run (SA-)PPO from ``state.step`` to ``config.steps``; as :func:`grpo_steps`."""
    if state.critic is None:
        raise ValueError("PPO needs a critic; call add_critic(state, config) first.")
    reward = (config.reward, config.alpha, config.alpha_schedule)
    while state.step < config.steps:
        batch = _collect(state, task, config, on_token)
        mask = batch.rollouts.answer_mask
        rewards = total_reward(batch.inputs, *reward)
        clock = Clock(batch.seconds)
        logps_reference = reference_logps(state.policy, batch, config)
        clock.lap("reference")
        values_old = critic_values(state.critic, batch, config)
        clock.lap("values")
        token_rewards = losses.reward_on_last_token(rewards, mask)
        credit = token_credit(batch.inputs, *reward)
        if credit is not None:
            token_rewards = token_rewards + credit / mask.sum(dim=1, keepdim=True)
        advantages, returns = losses.gae(
            token_rewards, values_old, mask, gamma=config.gamma, lam=config.lam
        )
        advantages = losses.whiten(advantages, mask)
        rate = learning_rate(config, state.step + 1)
        critic_rate = config.critic_learning_rate * rate / config.learning_rate
        updates = []
        for _ in range(config.epochs):
            for rows in mini_batches(batch.rollouts.group_ids, config.mini_batches):
                numbers = update_policy(
                    state, rate, batch, rows, advantages, logps_reference, config
                )
                clock.lap("update")
                numbers |= update_critic(
                    state, critic_rate, batch, rows, values_old, returns, config
                )
                clock.lap("update_critic")
                updates.append(numbers)
        answer_advantages = (advantages * mask).sum(dim=1) / mask.sum(dim=1)
        explained = losses.explained_variance(values_old[mask], returns[mask])
        signal = float(rewards.std() < 1e-8)
        more = {"no_signal_share": signal, "learning_rate": rate, "explained_variance": explained}
        yield _record(state, batch, rewards, answer_advantages, config, more, updates)


def _collect(state: TrainState, task: Task, config: TrainConfig, on_token: OnToken | None) -> Batch:
    """The answers of the next step."""
    step = state.step + 1
    return collect(
        state.policy,
        task.train_batch(step, config.questions, config.seed),
        config,
        seed=f"{config.seed} {step} sample",
        group_size=config.group_size,
        progress=state.step / config.steps,
        best_accuracy=state.best_accuracy,
        standalone=config.log_sar or reward_named(config.reward).needs_standalone,
        on_token=on_token,
    )


def _record(
    state: TrainState,
    batch: Batch,
    rewards: Tensor,
    advantages: Tensor,
    config: TrainConfig,
    more: Mapping[str, float | None],
    updates: Sequence[Mapping[str, float]],
) -> StepRecord:
    """Count the step; its record, with the mean of the numbers of its updates."""
    state.step += 1
    state.best_accuracy = max(state.best_accuracy, float(batch.inputs.correct.mean()))
    means = {k: sum(u[k] for u in updates) / len(updates) for k in updates[0]}
    return step_record(state.step, batch, rewards, advantages, config, **more, **means)


def mini_batches(group_ids: Tensor, count: int) -> Iterator[Tensor]:
    """Row indices of each mini-batch; a group is never split."""
    for part in torch.tensor_split(torch.unique(group_ids), count):
        yield torch.isin(group_ids, part).nonzero().flatten()


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then constant."""
    return config.learning_rate * min(1.0, step / (config.warmup_steps + 1))


# --- one optimiser step -------------------------------------------------------------------------


@dataclass(frozen=True)
class MicroBatch:
    """The answers ``rows`` [b] of a step's batch; ``totals`` of the mini-batch for the loss."""

    batch: Batch
    rows: Tensor
    device: torch.device
    totals: dict[str, int]

    def of(self, block: Tensor) -> Tensor:
        """Their rows of a block [B] or [B, T], unneeded padding cut off, on the device."""
        width = int(self.batch.rollouts.lengths[self.rows].max())
        rows = block[self.rows].to(self.device)
        return rows[:, :width] if rows.dim() > 1 else rows

    @property
    def mask(self) -> Tensor:
        """True on answer tokens [b, t]."""
        return self.of(self.batch.rollouts.answer_mask)

    def run(self, score: Callable[..., Tensor], policy: Policy, **options: Any) -> Tensor:
        """``answer_logps`` or ``answer_states`` of these answers."""
        rollouts, prefixes = self.batch.rollouts, self.batch.prefixes
        ids, index = self.of(rollouts.answer_ids), rollouts.group_ids[self.rows]
        return score(policy, prefixes, ids, self.mask, prefix_index=index, **options)


def update_policy(
    state: TrainState,
    rate: float,
    batch: Batch,
    rows: Tensor,
    advantages: Tensor,
    logps_reference: Tensor | None,
    config: TrainConfig,
) -> dict[str, float]:
    """One optimiser step on the answers ``rows``; returns its numbers.

    ``advantages`` is [B] or [B, T], ``logps_reference`` [B, T] (None: no KL). Raises TrainingError
    where the numbers would ruin the adapter, which stays as it was.
    """
    changes = (advantages, logps_reference, config)
    parts, norm = _optimise(
        state, None, rate, batch, rows, config, lambda x: policy_loss(state, x, *changes)
    )
    state.policy.version += 1
    numbers = {name: sum(p[name] for p in parts) for name in ("loss", "kl", "clip_fraction")}
    return {**numbers, "ratio_max": max(p["ratio_max"] for p in parts), "grad_norm": norm}


def policy_loss(
    state: TrainState,
    part: MicroBatch,
    advantages: Tensor,
    logps_reference: Tensor | None,
    config: TrainConfig,
) -> tuple[Tensor, dict[str, float]]:
    """A micro-batch's share of the loss, and of the numbers that are logged."""
    mask, clips = part.mask, {"clip_low": config.clip_low, "clip_high": config.clip_high}
    logps = part.run(answer_logps, state.policy, grad=True)
    logps_old = part.of(part.batch.inputs.logps_conditioned)
    advantages = part.of(advantages)
    per_token = surrogate_loss(logps, logps_old, advantages, dual_clip=config.dual_clip, **clips)
    kl = torch.zeros_like(per_token)
    if logps_reference is not None:
        kl = kl_estimate(logps, part.of(logps_reference), config.kl)
        per_token = per_token + config.beta * kl
    with torch.no_grad():
        share = int(mask.sum()) / part.totals["total_tokens"]
        numbers = {
            "kl": kl[mask].mean().item() * share,
            "clip_fraction": clip_fraction(logps, logps_old, advantages, mask, **clips) * share,
            "ratio_max": (logps - logps_old)[mask].max().exp().item(),
        }
    if numbers["ratio_max"] >= MAX_RATIO:
        raise TrainingError(
            "exploding_ratio",
            f"Step {state.step + 1}: a token became {numbers['ratio_max']:.3g} times likelier "
            f"within one step, the limit is {MAX_RATIO:g}. Lower learning_rate, epochs or "
            "mini_batches.",
        )
    return reduce_tokens(per_token, mask, config.loss, **part.totals), numbers


def update_critic(
    state: TrainState,
    rate: float,
    batch: Batch,
    rows: Tensor,
    values_old: Tensor,
    returns: Tensor,
    config: TrainConfig,
) -> dict[str, float]:
    """One optimiser step of the critic on the answers ``rows``: clipped value loss, token mean."""
    critic = state.critic
    assert critic is not None  # ppo_steps has checked it

    def loss_of(part: MicroBatch) -> tuple[Tensor, dict[str, float]]:
        values = critic.values(part.run(answer_states, critic.policy, grad=True))
        per_token = value_loss(
            values, part.of(values_old), part.of(returns), clip=config.value_clip
        )
        return reduce_tokens(per_token, part.mask, "dapo", **part.totals), {}

    with critic.active():
        parts, norm = _optimise(state, critic, rate, batch, rows, config, loss_of)
    return {"value_loss": sum(part["loss"] for part in parts), "value_grad_norm": norm}


def critic_values(critic: Critic, batch: Batch, config: TrainConfig) -> Tensor:
    """The critic's values before each answer token [B, T]; 0 on padding."""
    policy, mask = critic.policy, batch.rollouts.answer_mask
    everything = MicroBatch(batch, torch.arange(len(mask)), policy.device, {})
    with critic.active(), policy.folded():
        hidden = everything.run(answer_states, policy, token_budget=config.token_budget)
        return critic.values(hidden).cpu() * mask


def _optimise(
    state: TrainState,
    critic: Critic | None,
    rate: float,
    batch: Batch,
    rows: Tensor,
    config: TrainConfig,
    loss_of: Callable[[MicroBatch], tuple[Tensor, dict[str, float]]],
) -> tuple[list[dict[str, float]], float]:
    """One optimiser step of the policy, or of the critic: numbers per micro-batch, gradient norm.

    Where memory runs out, all begins anew in smaller micro-batches.
    """
    policy, optimizer = state.policy, (critic or state).optimizer
    kind, remedy = "update", "learning_rate"
    if critic is not None:
        kind, remedy = "critic update", "critic_learning_rate"
    lengths = batch.rollouts.lengths[rows]
    prefixes = torch.tensor([len(p.ids) for p in batch.prefixes])[batch.rollouts.group_ids[rows]]
    totals = {"total_answers": len(rows), "total_tokens": int(lengths.sum())}
    totals["max_answer_tokens"] = config.max_answer_tokens
    parts: list[dict[str, float]] = []
    sizes = (lengths + prefixes, token_budget_for(policy, config.token_budget))
    groups = prefixes if policy.has_sliding_window else None
    for attempt in batch_attempts(policy.device, *sizes, groups, kind, together=True):
        with attempt as plan, folded(policy.model):
            optimizer.zero_grad(set_to_none=True)
            parts = []
            for part in plan:
                loss, numbers = loss_of(MicroBatch(batch, rows[part], policy.device, totals))
                loss.backward()
                parts.append({"loss": loss.item(), **numbers})
    parameters = optimizer.param_groups[0]["params"]
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip).item()
    total = sum(part["loss"] for part in parts)
    if not math.isfinite(total + norm):
        raise TrainingError(
            "not_finite",
            f"Step {state.step + 1}: loss {total} and gradient norm {norm} of the {kind} must be "
            f"finite. It was not made; go on from the last checkpoint with a lower {remedy}.",
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return parts, norm


# --- a state: made, written, read ---------------------------------------------------------------


def start(policy: Policy, config: TrainConfig) -> TrainState:
    """A training state with an optimiser over the policy's trainable parameters (its adapter)."""
    trainable = [p for p in policy.model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("The policy has no trainable parameters; call add_lora(policy) first.")
    policy.memory_first = config.token_budget > 0
    if policy.memory_first:
        return_freed_blocks()
    optimizer = torch.optim.AdamW(
        trainable, lr=config.learning_rate, weight_decay=config.weight_decay, fused=False
    )
    return TrainState(policy, optimizer)


def add_critic(state: TrainState, config: TrainConfig) -> Critic:
    """Give the state's policy a critic: a second LoRA of the same rank and a head of zeros."""
    policy = state.policy
    with torch.random.fork_rng(devices=[policy.device] if policy.device.type == "cuda" else []):
        torch.manual_seed(seed_of(f"{config.seed} critic"))
        policy.model.add_adapter(_CRITIC, lora_config(config.lora_rank, config.lora_alpha))
    adapter = [p for n, p in policy.model.named_parameters() if f".{_CRITIC}." in n]
    policy.model.set_adapter("default")
    policy.model.eval()
    head = nn.Linear(policy.causal_lm.get_output_embeddings().weight.shape[1], 1).to(policy.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(
        [*adapter, *head.parameters()], lr=config.critic_learning_rate, weight_decay=0.0
    )
    state.critic = Critic(policy, head, optimizer)
    return state.critic


def save_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Write an optimiser's state as safetensors, parameters by their position."""
    states = optimizer.state_dict()["state"]
    _write({f"{i}.{k}": value for i, state in states.items() for k, value in state.items()}, path)


def load_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Read what :func:`save_optimizer` wrote."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(path).items():
        index, name = key.split(".", 1)
        states.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def _write(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path)
