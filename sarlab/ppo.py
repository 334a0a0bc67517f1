"""PPO with a critic as a flat loop, a generator of :class:`StepRecord`.

The critic is a value head on the policy's own trunk with an adapter of its own: the frozen base
is shared, the two never pull at the same weights, and value and policy losses stay apart. On
answers of `tiny` it explains as much of the return as a second model would (0.50 against 0.53 of
the variance after 12 batches, 2 MB beside the policy against 11), and a head alone next to nothing
(0.07): `benchmarks/critic.py`.

One answer a question, the reward on its last token, GAE with γ = λ = 1, whitened advantages, a
token-mean loss, no KL (β = 0) unless asked for, as in the paper.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sarlab.advantages import gae, whiten
from sarlab.config import TrainConfig
from sarlab.losses import reduce_tokens, value_loss
from sarlab.models import Policy, lora_config
from sarlab.rewards import reward_named, total_reward
from sarlab.rollout import seed_of
from sarlab.scoring import Prefix, score
from sarlab.tasks import Task
from sarlab.train import (
    Batch,
    Clock,
    TrainingError,
    TrainState,
    answer_rows,
    collect,
    in_micro_batches,
    learning_rate,
    load_optimizer,
    mini_batches,
    reference_logps,
    save_optimizer,
    step_metrics,
    step_warnings,
    update_policy,
)
from sarlab.types import StepRecord

ADAPTER = "critic"


@dataclass
class Critic:
    """A linear value head over the trunk's hidden states, the trunk seen through its adapter."""

    policy: Policy
    head: nn.Linear
    optimizer: torch.optim.Optimizer

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Within the block the critic's adapter is the active one."""
        model = self.policy.model
        model.set_adapter(ADAPTER)
        self.policy.version += 1  # prefixes computed with the other adapter must not be used
        try:
            yield
        finally:
            model.set_adapter("default")
            self.policy.version += 1

    def values(self, hidden: Tensor) -> Tensor:
        """Hidden states [B, T, H] to values [B, T]: the return expected before each token."""
        return self.head(hidden.float())[..., 0]

    def save(self, folder: Path) -> None:
        """Adapter, head and optimiser state as safetensors."""
        tensors = get_peft_model_state_dict(self.policy.model, adapter_name=ADAPTER)
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        save_file(tensors, folder / "critic_adapter.safetensors")
        head = {k: v.detach().cpu().contiguous() for k, v in self.head.state_dict().items()}
        save_file(head, folder / "critic_head.safetensors")
        save_optimizer(self.optimizer, folder / "critic_optimizer.safetensors")

    def load(self, folder: Path) -> None:
        """Take up what :meth:`save` wrote."""
        adapter = load_file(folder / "critic_adapter.safetensors")
        set_peft_model_state_dict(self.policy.model, adapter, adapter_name=ADAPTER)
        self.head.load_state_dict(load_file(folder / "critic_head.safetensors"))
        load_optimizer(self.optimizer, folder / "critic_optimizer.safetensors")


def add_critic(state: TrainState, config: TrainConfig) -> Critic:
    """Give the state's policy a critic: a second LoRA of the same rank and a head of zeros."""
    policy = state.policy
    lora = lora_config(config.lora_rank, config.lora_alpha)
    with torch.random.fork_rng(devices=[policy.device] if policy.device.type == "cuda" else []):
        torch.manual_seed(seed_of(f"{config.seed} critic"))
        policy.model.add_adapter(ADAPTER, lora)
    policy.model.set_adapter(ADAPTER)
    adapter = [p for n, p in policy.model.named_parameters() if f".{ADAPTER}." in n]
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


def ppo_steps(
    state: TrainState,
    task: Task,
    config: TrainConfig,
    on_token: Callable[[int, int], None] | None = None,
) -> Iterator[StepRecord]:
    """Run (SA-)PPO from ``state.step`` to ``config.steps``; ``on_token`` as in ``grpo_steps``."""
    policy, critic = state.policy, state.critic
    if critic is None:
        raise ValueError("PPO needs a critic; call add_critic(state, config) first.")
    wants_sar = config.log_sar or reward_named(config.reward).needs_standalone
    while state.step < config.steps:
        step = state.step + 1
        batch = collect(
            policy,
            task.train_batch(step, config.questions, config.seed),
            config,
            seed=f"{config.seed} {step} sample",
            group_size=1,
            progress=state.step / config.steps,
            standalone=wants_sar,
            on_token=on_token,
        )
        rewards = total_reward(batch.inputs, config.reward, config.alpha, config.alpha_schedule)
        clock = Clock()
        reference = reference_logps(policy, batch, config)
        clock.lap("reference")
        values_old = _values(critic, batch, config)
        clock.lap("values")
        mask = batch.rollouts.answer_mask
        advantages, returns = gae(
            _on_last_token(rewards, mask), values_old, mask, gamma=config.gamma, lam=config.lam
        )
        explained = explained_variance(values_old[mask], returns[mask])
        white = whiten(advantages, mask)
        rate = learning_rate(config, step)
        updates = []
        for _ in range(config.epochs):
            for rows in mini_batches(batch.rollouts.group_ids, config.mini_batches):
                found = update_policy(state, rate, batch, rows, white, reference, config)
                clock.lap("update")
                share = config.critic_learning_rate * rate / config.learning_rate
                found |= _update_critic(state, share, batch, rows, values_old, returns, config)
                clock.lap("update_critic")
                updates.append(found)
        state.step = step
        metrics = {
            **step_metrics(step, batch, rewards, config),
            "no_signal_share": float(rewards.std() < 1e-8),
            "learning_rate": rate,
            "explained_variance": explained,
            **{k: sum(u[k] for u in updates) / len(updates) for k in updates[0]},
            **{f"seconds_{k}": v for k, v in {**batch.seconds, **clock.seconds}.items()},
        }
        per_answer = (white * mask).sum(dim=1) / mask.sum(dim=1)
        rows_out = tuple(answer_rows(step, "train", batch, rewards, per_answer))
        yield StepRecord(step, metrics, rows_out, tuple(step_warnings(metrics)))


def explained_variance(values: Tensor, returns: Tensor) -> float | None:
    """1 − Var(returns − values)/Var(returns): 1 is perfect, None where all returns are equal."""
    spread = returns.var()
    return None if spread < 1e-12 else (1 - (returns - values).var() / spread).item()


def _on_last_token(rewards: Tensor, answer_mask: Tensor) -> Tensor:
    """The answer's reward [B] on its last token [B, T], 0 elsewhere."""
    placed = torch.zeros(answer_mask.shape, dtype=rewards.dtype)
    placed[torch.arange(len(rewards)), answer_mask.sum(dim=1) - 1] = rewards
    return placed


def _values(critic: Critic, batch: Batch, config: TrainConfig) -> Tensor:
    rollouts = batch.rollouts
    with critic.on(), critic.policy.folded():
        hidden = score(
            critic.policy,
            [Prefix(p.ids) for p in batch.prefixes],
            rollouts.answer_ids,
            rollouts.answer_mask,
            prefix_index=rollouts.group_ids,
            outputs=("hidden",),
            token_budget=config.token_budget,
        ).hidden
        assert hidden is not None
        return critic.values(hidden).cpu() * rollouts.answer_mask


def _update_critic(
    state: TrainState,
    rate: float,
    batch: Batch,
    rows: Tensor,
    values_old: Tensor,
    returns: Tensor,
    config: TrainConfig,
) -> dict[str, float]:
    """One step of the critic on the answers ``rows``: clipped value loss, token mean."""
    critic, rollouts = state.critic, batch.rollouts

    def gradients(plan: list[Tensor]) -> dict[str, float]:
        plain = [Prefix(p.ids) for p in batch.prefixes]
        lengths = rollouts.lengths[rows]
        total = 0.0
        critic.optimizer.zero_grad(set_to_none=True)
        for part in plan:
            width = int(rollouts.lengths[part].max())
            ids, mask = rollouts.answer_ids[part, :width], rollouts.answer_mask[part, :width]
            hidden = score(
                critic.policy,
                plain,
                ids,
                mask,
                prefix_index=rollouts.group_ids[part],
                grad=True,
                outputs=("hidden",),
            ).hidden
            assert hidden is not None
            per_token = value_loss(
                critic.values(hidden),
                values_old[part, :width].to(hidden.device),
                returns[part, :width].to(hidden.device),
                clip=config.value_clip,
            )
            loss = reduce_tokens(
                per_token,
                mask.to(hidden.device),
                "dapo",
                total_answers=len(rows),
                total_tokens=int(lengths.sum()),
                max_answer_tokens=config.max_answer_tokens,
            )
            loss.backward()
            total += loss.item()
        return {"value_loss": total}

    with critic.on():
        total = in_micro_batches(
            critic.policy, batch, rows, config, gradients, kind="critic update"
        )["value_loss"]
        norm = torch.nn.utils.clip_grad_norm_(
            critic.optimizer.param_groups[0]["params"], config.grad_clip
        ).item()
    if not abs(total + norm) < float("inf"):
        raise TrainingError(
            "not_finite",
            f"Step {state.step + 1}: value loss {total} and its gradient norm {norm} must be "
            "finite. Lower critic_learning_rate.",
        )
    for group in critic.optimizer.param_groups:
        group["lr"] = rate
    critic.optimizer.step()
    return {"value_loss": total, "value_grad_norm": norm}
