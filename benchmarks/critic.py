"""Which critic for PPO: a value head with an adapter of its own, a head alone, or a second model.

    python benchmarks/critic.py            # about five minutes on one core

The answers of the untrained policy `tiny` are a fixed regression problem: predict the return
R = correct + 0.2·SAR before each token. Every critic sees the same batches of 128 answers in the
same order, is asked for its values before it learns from them (so each score is on unseen
questions), and takes two updates a batch as in training. Reported: explained variance over the
last five batches, seconds an update, and what the critic holds beside the policy.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from sarlab._engine.micro_batches import plan_batches
from sarlab.config import preset
from sarlab.experience import Batch, collect
from sarlab.losses import explained_variance
from sarlab.models import Policy, add_lora, load_policy
from sarlab.rewards import total_reward
from sarlab.scoring import answer_states, token_budget_for
from sarlab.tasks import load_task
from sarlab.train import mini_batches

CONFIG = preset("lora", "ppo")


def hidden_states(policy: Policy, batch: Batch, rows: Tensor, grad: bool) -> Tensor:
    """States [B, T, H] that stand before each token of the answers ``rows``."""
    rollouts = batch.rollouts
    width = int(rollouts.lengths[rows].max())
    return answer_states(
        policy,
        batch.prefixes,
        rollouts.answer_ids[rows, :width],
        rollouts.answer_mask[rows, :width],
        prefix_index=rollouts.group_ids[rows],
        grad=grad,
    )


def measure(
    policy: Policy, trained: list[nn.Parameter], learns: bool, rate: float, batches: list[Batch]
) -> tuple[float, float, float]:
    """(explained variance, seconds a batch, MB of weights and optimiser beside the policy)."""
    head = nn.Linear(policy.model.config.hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    parameters = [*trained, *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    scores, seconds = [], []
    for batch in batches:
        mask = batch.rollouts.answer_mask
        rewards = total_reward(batch.inputs, "sar", CONFIG.alpha)
        returns = rewards[:, None].expand(mask.shape)  # γ = λ = 1: the same before every token
        everything = torch.arange(len(mask))
        with torch.no_grad():
            values = head(hidden_states(policy, batch, everything, False))[..., 0]
        found = explained_variance(values[mask], returns[mask])
        scores.append(0.0 if found is None else found)
        began = time.perf_counter()
        for rows in mini_batches(batch.rollouts.group_ids, CONFIG.mini_batches):
            optimizer.zero_grad()
            tokens = int(mask[rows].sum())
            lengths = batch.rollouts.lengths[rows]
            for chosen in plan_batches(lengths + 40, token_budget_for(policy)):
                part = rows[chosen]
                states = hidden_states(policy, batch, part, learns)
                width = states.shape[1]
                error = (head(states)[..., 0] - returns[part, :width]).square()
                (0.5 * error[mask[part, :width]].sum() / tokens).backward()
            torch.nn.utils.clip_grad_norm_(parameters, CONFIG.grad_clip)
            optimizer.step()
        policy.version += 1
        seconds.append(time.perf_counter() - began)
    held = 3 * sum(p.numel() for p in parameters) * 4 / 1e6  # weights and AdamW's two moments
    return statistics.mean(scores[-5:]), statistics.median(seconds), held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    base, task = load_policy("tiny"), load_task("word_problems")
    batches = [
        collect(
            base,
            task.train_batch(step, CONFIG.questions, 0),
            CONFIG,
            seed=f"critic {step}",
            group_size=1,
        )
        for step in range(args.batches)
    ]
    print("| critic | rate | explained variance | s a batch | MB beside the policy |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, rate in (
        ("head alone", 2e-3),
        ("head alone", 2e-2),
        ("head and own adapter", 5e-4),
        ("head and own adapter", 2e-3),
        ("head and own adapter", 5e-3),
        ("second model, all weights", 1e-4),
        ("second model, all weights", 5e-4),
        ("second model, all weights", 2e-3),
    ):
        torch.manual_seed(0)
        policy = load_policy("tiny")
        if name == "head and own adapter":
            add_lora(policy, rank=CONFIG.lora_rank, alpha=CONFIG.lora_alpha)
        trained = [p for p in policy.model.parameters() if p.requires_grad]
        if name == "head alone":
            trained = []
        found, seconds, held = measure(policy, trained, bool(trained), rate, batches)
        print(f"| {name} | {rate:g} | {found:.2f} | {seconds:.2f} | {held:.1f} |", flush=True)


if __name__ == "__main__":
    main()
