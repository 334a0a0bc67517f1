"""One optimiser step of the policy, and of PPO's critic.

The critic is a value head on the policy's trunk, seen through a second adapter: the frozen base is
shared, the two never change the same weights, and value and policy losses stay apart. On answers of
`tiny` it explains as much of the return as a second model would (0.50 against 0.53 of the variance
after 12 batches, 2 MB beside the policy against 11); a head alone explains 0.07
(`benchmarks/critic.py`).
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sarlab._engine.folded_lora import folded
from sarlab._engine.micro_batches import Attempt, plan_attempts
from sarlab.config import TrainConfig
from sarlab.experience import Batch
from sarlab.losses import clip_fraction, kl_estimate, reduce_tokens, surrogate_loss, value_loss
from sarlab.models import Policy, lora_config
from sarlab.rollout import seed_of
from sarlab.scoring import answer_logps, answer_states, token_budget_for

MAX_RATIO = 1e4  # a token's ρ beyond this means that old and new policy have parted
_CRITIC = "critic"  # the name of its adapter


class TrainingError(RuntimeError):
    """Training cannot go on; ``kind`` names the reason for run.json."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass
class Critic:
    """A linear value head over the trunk's hidden states, the trunk seen through its adapter."""

    policy: Policy
    head: nn.Linear
    optimizer: torch.optim.Optimizer

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Within the block the critic's adapter is the active one."""
        model = self.policy.model
        model.set_adapter(_CRITIC)
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
        """Write adapter, head and optimiser state as safetensors."""
        from peft import get_peft_model_state_dict

        adapter = get_peft_model_state_dict(self.policy.model, adapter_name=_CRITIC)
        for name, tensors in (("adapter", adapter), ("head", self.head.state_dict())):
            tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
            save_file(tensors, folder / f"critic_{name}.safetensors")
        save_optimizer(self.optimizer, folder / "critic_optimizer.safetensors")

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote."""
        from peft import set_peft_model_state_dict

        adapter = load_file(folder / "critic_adapter.safetensors")
        set_peft_model_state_dict(self.policy.model, adapter, adapter_name=_CRITIC)
        self.head.load_state_dict(load_file(folder / "critic_head.safetensors"))
        load_optimizer(self.optimizer, folder / "critic_optimizer.safetensors")


@dataclass
class TrainState:
    """What a step changes: the policy's adapter, the optimiser, the number of steps done."""

    policy: Policy
    optimizer: torch.optim.Optimizer
    step: int = 0
    critic: Critic | None = None  # PPO's
    best_accuracy: float = 0.0  # of a step's answers so far, which some rewards look at

    def save(self, folder: Path) -> None:
        """Write adapter (PEFT layout) and optimiser state, both as safetensors."""
        self.policy.model.save_pretrained(folder, selected_adapters=["default"])
        save_optimizer(self.optimizer, folder / "optimizer.safetensors")
        (folder / "best_accuracy.json").write_text(json.dumps(self.best_accuracy))
        if self.critic is not None:
            self.critic.save(folder)

    def load(self, folder: Path, step: int) -> None:
        """Read a checkpoint written by :meth:`save` into the present adapter."""
        from peft import set_peft_model_state_dict

        adapter = load_file(folder / "adapter_model.safetensors")
        set_peft_model_state_dict(self.policy.model, adapter)
        load_optimizer(self.optimizer, folder / "optimizer.safetensors")
        best = folder / "best_accuracy.json"
        self.best_accuracy = json.loads(best.read_text()) if best.exists() else 0.0
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
    """Read what :func:`save_optimizer` wrote."""
    parameters = optimizer.param_groups[0]["params"]
    for key, value in load_file(path).items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        place = value if name == "step" else value.to(parameter.device)
        optimizer.state[parameter][name] = place


def start(policy: Policy, config: TrainConfig) -> TrainState:
    """A training state with an optimiser over the policy's trainable parameters (its adapter)."""
    trainable = [p for p in policy.model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("The policy has no trainable parameters; call add_lora(policy) first.")
    optimizer = torch.optim.AdamW(
        trainable, lr=config.learning_rate, weight_decay=config.weight_decay, fused=False
    )
    return TrainState(policy, optimizer)


def add_critic(state: TrainState, config: TrainConfig) -> Critic:
    """Give the state's policy a critic: a second LoRA of the same rank and a head of zeros."""
    policy = state.policy
    lora = lora_config(config.lora_rank, config.lora_alpha)
    with torch.random.fork_rng(devices=[policy.device] if policy.device.type == "cuda" else []):
        torch.manual_seed(seed_of(f"{config.seed} critic"))
        policy.model.add_adapter(_CRITIC, lora)
    policy.model.set_adapter(_CRITIC)
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


def critic_of(state: TrainState) -> Critic:
    """The state's critic, or a ValueError where :func:`add_critic` was not called."""
    if state.critic is None:
        raise ValueError("PPO needs a critic; call add_critic(state, config) first.")
    return state.critic


def mini_batches(group_ids: Tensor, count: int) -> Iterator[Tensor]:
    """Row indices of each mini-batch; a group is never split."""
    groups = torch.unique(group_ids)
    for part in torch.tensor_split(groups, count):
        yield torch.isin(group_ids, part).nonzero().flatten()


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then constant."""
    return config.learning_rate * min(1.0, step / (config.warmup_steps + 1))


def update_policy(
    state: TrainState,
    rate: float,
    batch: Batch,
    rows: Tensor,
    advantages: Tensor,
    logps_reference: Tensor | None,
    config: TrainConfig,
) -> dict[str, float]:
    """One optimiser step on the answers ``rows``; micro-batches add up to its exact gradient.

    ``advantages`` is [B] or [B, T], ``logps_reference`` [B, T] (None: no KL). Returns the numbers
    of the step. Raises TrainingError where they would ruin the adapter, which stays as it was.
    """
    policy = state.policy
    parts: list[dict[str, float]] = []
    for attempt in _plan_attempts(policy, batch, rows, config, "update"):
        with attempt as plan, folded(policy.model):
            state.optimizer.zero_grad(set_to_none=True)
            parts = []
            for part in plan:
                parts.append(
                    policy_gradient(policy, batch, rows, part, advantages, logps_reference, config)
                )
    numbers = {name: sum(p[name] for p in parts) for name in ("loss", "kl", "clip_fraction")}
    numbers["ratio_max"] = max(p["ratio_max"] for p in parts)
    numbers["grad_norm"] = _clip_gradients(state.optimizer, config)
    _refuse_broken(numbers, state.step + 1)
    _step_optimizer(state.optimizer, rate)
    policy.version += 1
    return numbers


def policy_gradient(
    policy: Policy,
    batch: Batch,
    rows: Tensor,
    part: Tensor,
    advantages: Tensor,
    logps_reference: Tensor | None,
    config: TrainConfig,
) -> dict[str, float]:
    """Add the gradient of the micro-batch ``part`` of the mini-batch ``rows``; its numbers."""
    rollouts = batch.rollouts
    width, total_tokens = int(rollouts.lengths[part].max()), int(rollouts.lengths[rows].sum())
    logps = answer_logps(
        policy,
        batch.prefixes,
        rollouts.answer_ids[part, :width],
        rollouts.answer_mask[part, :width],
        prefix_index=rollouts.group_ids[part],
        grad=True,
    )
    mask = rollouts.answer_mask[part, :width].to(logps.device)
    logps_old = batch.inputs.logps_conditioned[part, :width].to(logps.device)
    advantages = advantages[part].to(logps.device)
    if advantages.dim() == 2:
        advantages = advantages[:, :width]

    per_token = surrogate_loss(
        logps,
        logps_old,
        advantages,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=config.dual_clip,
    )
    share, kl_mean = int(mask.sum()) / total_tokens, 0.0
    if logps_reference is not None:
        logps_reference = logps_reference[part, :width].to(logps.device)
        kl = kl_estimate(logps, logps_reference, config.kl)
        per_token = per_token + config.beta * kl
        kl_mean = kl.detach()[mask].mean().item()
    loss = reduce_tokens(
        per_token,
        mask,
        config.loss,
        total_answers=len(rows),
        total_tokens=total_tokens,
        max_answer_tokens=config.max_answer_tokens,
    )
    loss.backward()

    with torch.no_grad():
        clipped = clip_fraction(
            logps,
            logps_old,
            advantages,
            mask,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
        )
        return {
            "loss": loss.item(),
            "kl": kl_mean * share,
            "clip_fraction": clipped * share,
            "ratio_max": (logps - logps_old)[mask].max().exp().item(),
        }


def critic_values(critic: Critic, batch: Batch, config: TrainConfig) -> Tensor:
    """The critic's values before each answer token [B, T]; 0 on padding."""
    rollouts = batch.rollouts
    with critic.active(), critic.policy.folded():
        hidden = answer_states(
            critic.policy,
            batch.prefixes,
            rollouts.answer_ids,
            rollouts.answer_mask,
            prefix_index=rollouts.group_ids,
            token_budget=config.token_budget,
        )
        return critic.values(hidden).cpu() * rollouts.answer_mask


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
    critic = critic_of(state)
    total = 0.0
    with critic.active():
        for attempt in _plan_attempts(critic.policy, batch, rows, config, "critic update"):
            with attempt as plan, folded(critic.policy.model):
                critic.optimizer.zero_grad(set_to_none=True)
                total = 0.0
                for part in plan:
                    total += critic_gradient(critic, batch, rows, part, values_old, returns, config)
        norm = _clip_gradients(critic.optimizer, config)
    if not math.isfinite(total + norm):
        raise TrainingError(
            "not_finite",
            f"Step {state.step + 1}: value loss {total} and its gradient norm {norm} must be "
            "finite. Lower critic_learning_rate.",
        )
    _step_optimizer(critic.optimizer, rate)
    return {"value_loss": total, "value_grad_norm": norm}


def critic_gradient(
    critic: Critic,
    batch: Batch,
    rows: Tensor,
    part: Tensor,
    values_old: Tensor,
    returns: Tensor,
    config: TrainConfig,
) -> float:
    """Add the gradient of the micro-batch ``part`` of the mini-batch ``rows``; its loss."""
    rollouts = batch.rollouts
    width, total_tokens = int(rollouts.lengths[part].max()), int(rollouts.lengths[rows].sum())
    hidden = answer_states(
        critic.policy,
        batch.prefixes,
        rollouts.answer_ids[part, :width],
        rollouts.answer_mask[part, :width],
        prefix_index=rollouts.group_ids[part],
        grad=True,
    )
    per_token = value_loss(
        critic.values(hidden),
        values_old[part, :width].to(hidden.device),
        returns[part, :width].to(hidden.device),
        clip=config.value_clip,
    )
    loss = reduce_tokens(
        per_token,
        rollouts.answer_mask[part, :width].to(hidden.device),
        "dapo",
        total_answers=len(rows),
        total_tokens=total_tokens,
        max_answer_tokens=config.max_answer_tokens,
    )
    loss.backward()
    return loss.item()


def _plan_attempts(
    policy: Policy, batch: Batch, rows: Tensor, config: TrainConfig, kind: str
) -> Iterator[Attempt[list[Tensor]]]:
    """Attempts at the micro-batches of ``rows``: a second one where memory ran out in the first."""
    prefixes = torch.tensor([len(p.ids) for p in batch.prefixes])[batch.rollouts.group_ids[rows]]
    lengths = batch.rollouts.lengths[rows] + prefixes
    groups = prefixes if policy.has_sliding_window else None
    budget = token_budget_for(policy, config.token_budget)
    return plan_attempts(policy.device, rows, lengths, budget, groups, kind=kind)


def _clip_gradients(optimizer: torch.optim.Optimizer, config: TrainConfig) -> float:
    """Clip the gradient's norm to ``grad_clip``; the norm before."""
    parameters = optimizer.param_groups[0]["params"]
    return torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip).item()


def _step_optimizer(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def _refuse_broken(numbers: dict[str, float], step: int) -> None:
    """Stop before the optimiser takes up numbers that would ruin the adapter."""
    loss, norm, ratio_max = (numbers[name] for name in ("loss", "grad_norm", "ratio_max"))
    if not (math.isfinite(loss) and math.isfinite(norm)):
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
