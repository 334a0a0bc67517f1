"""The training loops, GRPO and PPO: flat generators of one :class:`StepRecord` per step.

Deviations from the paper: LoRA instead of full fine-tuning, and rates tuned for it; the log-probs
of sampling serve as old log-probs and as those of ppl(a|q) (with weights below float32 they are
scored again). Everything else follows it: both contexts under the current policy, temperature 1;
GRPO in its Dr. GRPO form with dual clip and k3 KL against the base; PPO with one answer per
question, the reward on its last token, GAE with γ = λ = 1, whitened advantages, a token-mean loss
and no KL unless β is set.
"""

from collections.abc import Iterator

from sarlab import losses
from sarlab.config import TrainConfig
from sarlab.experience import Batch, Clock, collect, reference_logps, step_record
from sarlab.rewards import reward_named, token_credit, total_reward
from sarlab.rollout import OnToken
from sarlab.tasks import Task
from sarlab.types import StepRecord
from sarlab.update import (
    TrainState,
    critic_of,
    critic_values,
    learning_rate,
    mini_batches,
    update_critic,
    update_policy,
)


def grpo_steps(
    state: TrainState, task: Task, config: TrainConfig, on_token: OnToken | None = None
) -> Iterator[StepRecord]:
    """Run (SA-)GRPO from ``state.step`` to ``config.steps``, one record per step.

    The state may be saved, evaluated or thrown away between two records. ``on_token`` is that of
    :func:`sarlab.rollout.sample`; where it raises, the state is that of the step before.
    """
    while state.step < config.steps:
        batch = _collect(state, task, config, on_token)
        group_ids = batch.rollouts.group_ids
        reward = (config.reward, config.alpha, config.alpha_schedule)
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
        state.step += 1
        state.best_accuracy = max(state.best_accuracy, float(batch.inputs.correct.mean()))
        yield step_record(
            state.step,
            batch,
            rewards,
            advantages,
            config,
            no_signal_share=losses.share_without_signal(rewards, group_ids),
            learning_rate=rate,
            **{k: sum(u[k] for u in updates) / len(updates) for k in updates[0]},
        )


def ppo_steps(
    state: TrainState, task: Task, config: TrainConfig, on_token: OnToken | None = None
) -> Iterator[StepRecord]:
    """Run (SA-)PPO from ``state.step`` to ``config.steps``; as :func:`grpo_steps`."""
    critic = critic_of(state)
    while state.step < config.steps:
        batch = _collect(state, task, config, on_token)
        mask = batch.rollouts.answer_mask
        reward = (config.reward, config.alpha, config.alpha_schedule)
        rewards = total_reward(batch.inputs, *reward)
        clock = Clock(batch.seconds)
        logps_reference = reference_logps(state.policy, batch, config)
        clock.lap("reference")
        values_old = critic_values(critic, batch, config)
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
        state.step += 1
        state.best_accuracy = max(state.best_accuracy, float(batch.inputs.correct.mean()))
        yield step_record(
            state.step,
            batch,
            rewards,
            answer_advantages,
            config,
            no_signal_share=float(rewards.std() < 1e-8),
            learning_rate=rate,
            explained_variance=losses.explained_variance(values_old[mask], returns[mask]),
            **{k: sum(u[k] for u in updates) / len(updates) for k in updates[0]},
        )


def _collect(state: TrainState, task: Task, config: TrainConfig, on_token: OnToken | None) -> Batch:
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
