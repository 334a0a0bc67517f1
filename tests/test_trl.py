"""TRL's trainer with sarlab's rewards: its settings, and rewards that look at a whole group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sarlab.config import TrainConfig
from sarlab.launch.trl import SARTrainer, grpo_config, updates_per_step
from sarlab.losses import group_advantages
from sarlab.models import add_lora, load_policy
from sarlab.prompts import conditioned_ids
from sarlab.scoring import Prefix
from sarlab.tasks import load_task
from sarlab.train import start, update_policy

CONFIG = TrainConfig(
    steps=2,
    questions=2,
    group_size=4,
    max_answer_tokens=80,
    reward="o1_pruner",
    alpha=0.2,
    alpha_schedule="linear_up",
)


def test_the_defaults_are_the_authors_form_of_grpo(tmp_path: Path) -> None:
    found = grpo_config(TrainConfig(), tmp_path)
    assert (found.loss_type, found.scale_rewards, found.beta) == ("dr_grpo", "none", 0.001)
    assert (found.epsilon, found.epsilon_high, found.delta) == (0.2, 0.2, 3.0)
    assert not found.use_bias_correction_kl and found.disable_dropout
    assert (found.temperature, found.top_k, found.top_p) == (1.0, 0, 1.0)
    assert (found.num_generations, found.max_completion_length) == (8, 256)
    # 80 steps of two updates; 128 answers a step, 64 an update, 12 of 1,280 tokens at once at most.
    assert found.max_steps == 160 and found.save_steps == 20
    assert found.generation_batch_size == 128
    assert found.per_device_train_batch_size == 8
    assert found.gradient_accumulation_steps == 8 and found.steps_per_generation == 16


def test_processes_share_an_update(tmp_path: Path) -> None:
    found = grpo_config(TrainConfig(epochs=2), tmp_path, processes=4)
    assert found.per_device_train_batch_size * found.gradient_accumulation_steps == 64 / 4
    assert found.num_iterations == 2 and updates_per_step(TrainConfig(epochs=2)) == 4


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"algorithm": "ppo", "group_size": 1}, {}, "TRL has no PPO"),
        ({"kl": "k2"}, {}, "TRL has k3 only"),
        ({"loss": "dapo"}, {}, "loss is 'dapo' with mini_batches=2; TRL divides each update by"),
        ({"questions": 3, "group_size": 3, "mini_batches": 1}, {"processes": 2}, "multiple of"),
        ({}, {"beta": 0.1}, "beta of TRL are set from the run's own"),
        ({}, {"use_vlm": True}, "no field 'use_vlm'"),
    ],
)
def test_what_trl_cannot_follow_is_refused(changes, options, message, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        grpo_config(TrainConfig(**changes), tmp_path, **options)


def test_a_reward_of_a_group_and_a_schedule_reach_trl(tiny, tmp_path: Path) -> None:
    """O1-pruner's −clip((len − mean)/len, −1, 1) by hand, α rising from 0 to half its end."""
    task = load_task("word_problems")
    questions = [q for step in (1, 2) for q in task.train_batch(step, 2, 0)]
    trainer = SARTrainer(tiny, questions, CONFIG, grpo_config(CONFIG, tmp_path))
    trainer.train()
    assert trainer.reward_weights.tolist() == pytest.approx([1.0, 0.1])  # step 2 of 2
    inputs = trainer.batch.inputs
    for group in (0, 1):
        members = inputs.group_ids == group
        lengths = inputs.lengths[members].tolist()
        mean = sum(lengths) / 4
        wanted = [
            correct + 0.1 * -max(-1.0, min(1.0, (length - mean) / length))
            for correct, length in zip(inputs.correct[members].tolist(), lengths, strict=True)
        ]
        assert trainer.rewards[members].tolist() == pytest.approx(wanted, abs=1e-6)
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert logged[1]["reward"] == pytest.approx(trainer.rewards.mean().item(), abs=1e-6)
    assert logged[0]["reward"] == pytest.approx(logged[0]["rewards/correct/mean"], abs=1e-6)
    rates = [e["learning_rate"] for e in trainer.state.log_history if "loss" in e]
    assert rates == pytest.approx([1e-3 / 6, 1e-3 / 6, 2e-3 / 6, 2e-3 / 6])  # per step, above 0
    advantages = trainer.rewards - trainer.rewards.view(2, 4).mean(dim=1).repeat_interleave(4)
    torch.testing.assert_close(torch.tensor(list(trainer._logs["advantages"])), advantages)


@pytest.mark.parametrize("token_budget", [16_384, 3_000], ids=["whole", "accumulated"])
def test_one_update_is_sarlabs_own(token_budget: int, tiny, tmp_path: Path) -> None:
    """The same answers give the same loss and gradient, in one piece and in four."""
    config = TrainConfig(
        steps=1,
        questions=2,
        group_size=4,
        mini_batches=1,
        max_answer_tokens=96,
        token_budget=token_budget,
    )
    questions = load_task("word_problems").train_batch(1, 2, 0)
    args = grpo_config(config, tmp_path)
    assert args.gradient_accumulation_steps == (1 if token_budget > 10_000 else 4)
    trainer = SARTrainer(tiny, questions, config, args)
    trainer.train()
    (logged,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    policy = add_lora(load_policy("tiny", dtype="float32", device="cpu"))
    prefixes = [
        Prefix(tuple(conditioned_ids(policy.tokenizer, q.text, policy.prompt))) for q in questions
    ]
    batch = replace(trainer.batch, prefixes=prefixes)
    found = update_policy(
        start(policy, config),
        1e-6,
        batch,
        torch.arange(8),
        group_advantages(trainer.rewards, batch.inputs.group_ids),
        batch.inputs.logps_conditioned,  # a fresh adapter is its own reference
        config,
    )
    assert logged["loss"] == pytest.approx(found["loss"], rel=1e-4)
    assert logged["grad_norm"] == pytest.approx(found["grad_norm"], rel=1e-4)


def test_completions_that_trl_logs_open_as_rollouts(tiny, tmp_path: Path) -> None:
    """TRL itself writes the file; lengths and rewards are those of its own batch."""
    from sarlab.runs.rollouts import open_rollouts

    questions = load_task("word_problems").train_batch(1, 2, 0)
    config = replace(CONFIG, steps=1, alpha_schedule="constant")
    trainer = SARTrainer(
        tiny, questions, config, grpo_config(config, tmp_path, log_completions=True)
    )
    trainer.train()
    frame = open_rollouts(tmp_path, tokenizer=tiny.tokenizer)
    assert frame.attrs["format"] == "TRL completions"
    assert len(frame) == 16 and frame["group_id"].nunique() == 4  # each of TRL's two updates
    assert set(frame["question"]) == {q.text for q in questions}
    mean = frame.groupby("group_id")[["correct", "o1_pruner"]].transform("mean")
    advantage = (frame[["correct", "o1_pruner"]] - mean) @ [1.0, 0.2]  # as TRL weighs them
    assert advantage.tolist() == pytest.approx(frame["advantage"].tolist(), abs=1e-6)
    assert frame["reward"].tolist() == pytest.approx(
        (frame["correct"] + frame["o1_pruner"]).tolist()
    )
