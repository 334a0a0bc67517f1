"""PPO: where the reward lands, what the critic learns, and that both adapters stay apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from policies import logps_of, random_policy

from sarlab.config import TrainConfig, preset
from sarlab.job.training import run_training
from sarlab.losses import explained_variance, reward_on_last_token
from sarlab.models import add_lora
from sarlab.runs.folder import read_metrics, read_rollouts
from sarlab.tasks import load_task
from sarlab.train import add_critic, ppo_steps, start

SMALL = preset(
    "lora", "ppo", steps=2, questions=6, max_answer_tokens=12, mini_batches=2, warmup_steps=0
)


@pytest.fixture
def state():
    state = start(add_lora(random_policy("llama"), rank=4), SMALL)
    add_critic(state, SMALL)
    return state


def adapter(state, name: str) -> dict[str, torch.Tensor]:
    return {
        n: p.detach().clone() for n, p in state.policy.model.named_parameters() if f".{name}." in n
    }


def test_the_reward_stands_on_the_last_token() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True], [True, False, False]])
    found = reward_on_last_token(torch.tensor([1.0, 2.0, 3.0]), mask)
    assert found.tolist() == [[0, 1, 0], [0, 0, 2], [3, 0, 0]]


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(torch.zeros(3), returns) == 0
    # Residuals 1, 0, −1 … of values 0, 2, 4: variance 1 against 1, so 0.
    assert explained_variance(torch.tensor([0.0, 2.0, 4.0]), returns) == 0
    assert explained_variance(returns, torch.ones(3)) is None


def test_the_form_of_the_loss_changes_only_how_tokens_add_up() -> None:
    """With dr_grpo it is the token mean times a share of tokens; grpo weighs answers alike."""

    def first_step(form: str):
        config = replace(SMALL, loss=form, mini_batches=1, steps=1, max_answer_tokens=40)
        policy = add_lora(random_policy("llama"), rank=4)
        policy.eos_ids = tuple(range(10))  # so that answers end, at unequal lengths
        state = start(policy, config)
        add_critic(state, config)
        return next(ppo_steps(state, load_task("word_problems"), config))

    dapo, dr_grpo, grpo = map(first_step, ("dapo", "dr_grpo", "grpo"))
    lengths = [row["length"] for row in dapo.rows]
    assert len(set(lengths)) > 1
    share = sum(lengths) / len(lengths) / 40
    norm = dapo.metrics["grad_norm"] * share
    assert dr_grpo.metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    # Before the first update every ratio is 1: the loss is minus the mean of what it weighs alike.
    advantages = [row["advantage"] for row in dapo.rows]
    by_token = sum(a * n for a, n in zip(advantages, lengths, strict=True)) / sum(lengths)
    by_answer = sum(advantages) / len(advantages)
    assert dapo.metrics["loss"] == pytest.approx(-by_token, abs=1e-6)
    assert grpo.metrics["loss"] == pytest.approx(-by_answer, abs=1e-6)
    assert abs(by_token - by_answer) > 1e-4
    for record in (dr_grpo, grpo):
        assert record.metrics["value_loss"] == dapo.metrics["value_loss"]


def test_policy_and_critic_do_not_touch_each_others_weights(state) -> None:
    before = {name: adapter(state, name) for name in ("default", "critic")}
    idle_critic = replace(SMALL, critic_learning_rate=1e-12, steps=1)
    next(ppo_steps(state, load_task("word_problems"), idle_critic))
    moved = {
        name: max((adapter(state, name)[n] - p).abs().max().item() for n, p in before[name].items())
        for name in before
    }
    assert moved["default"] > 1e-4 and moved["critic"] < 1e-9
    # The policy's gradient is back on after the critic's turn, and the base is frozen throughout.
    for name, parameter in state.policy.model.named_parameters():
        assert parameter.requires_grad == (".default." in name)


def test_the_critic_learns_a_constant_return(state) -> None:
    """With every answer worth 1, values go to 1 and the value loss to 0."""
    from sarlab.rewards import REWARDS, Reward

    one = Reward(lambda i: torch.ones_like(i.correct), False, "always 1", verifiable=False)
    REWARDS["one"] = one
    try:
        config = replace(SMALL, reward="one", steps=30, critic_learning_rate=0.01)
        losses = [
            r.metrics["value_loss"] for r in ppo_steps(state, load_task("word_problems"), config)
        ]
    finally:
        del REWARDS["one"]
    assert losses[0] == pytest.approx(0.5, abs=0.1)  # ½(0 − 1)²
    assert sum(losses[-3:]) / 3 < 0.02


def test_a_reference_and_the_critic_leave_the_policy_as_it_was(state) -> None:
    from sarlab.scoring import Prefix

    policy, prefix = state.policy, Prefix((1, 3, 40, 4))
    for parameter in (p for n, p in policy.model.named_parameters() if "lora_B" in n):
        torch.nn.init.normal_(parameter, std=0.05)
    before = logps_of(policy, prefix, [50, 51, 2])
    with state.critic.active():
        other = logps_of(policy, prefix, [50, 51, 2])
    after = logps_of(policy, Prefix(prefix.ids), [50, 51, 2])
    assert torch.equal(before, after)
    assert (before - other).abs().max() > 1e-4


def test_ppo_pays_for_a_kl_only_where_beta_asks_for_it(state) -> None:
    config = replace(SMALL, steps=4, beta=0.1, learning_rate=0.01, mini_batches=1)
    kl = [r.metrics["kl"] for r in ppo_steps(state, load_task("word_problems"), config)]
    assert kl[0] == pytest.approx(0.0, abs=1e-6)  # before the first update policy and base are one
    assert kl[-1] > 1e-5
    (record,) = ppo_steps(state, load_task("word_problems"), replace(config, steps=5, beta=0.0))
    assert record.metrics["kl"] == 0.0


def test_ppo_takes_one_answer_and_no_reward_that_compares() -> None:
    with pytest.raises(ValueError, match="must be 1 for PPO"):
        TrainConfig(algorithm="ppo", group_size=4)
    with pytest.raises(ValueError, match="compares the answers to one question"):
        TrainConfig(algorithm="ppo", group_size=1, reward="er")


def test_a_ppo_run_stops_and_goes_on_to_the_same_end(tmp_path: Path) -> None:
    from test_job import StopAfter

    config = replace(
        SMALL,
        questions=4,
        steps=3,
        eval_every=3,
        eval_questions=4,
        validation_questions=2,
        checkpoint_every=2,
        max_answer_tokens=40,
    )
    run_training(config, tmp_path / "whole")
    run_training(config, tmp_path / "stopped", view=StopAfter(1))
    run_training(config, tmp_path / "stopped", resume=True)
    timeless = [
        [
            {k: v for k, v in line.items() if not k.startswith("seconds_")}
            for line in read_metrics(tmp_path / name)
        ]
        for name in ("whole", "stopped")
    ]
    assert timeless[0] == timeless[1]
    assert {"value_loss", "explained_variance", "loss"} <= timeless[0][0].keys()
    tables = [read_rollouts(tmp_path / name).to_pylist() for name in ("whole", "stopped")]
    assert tables[0] == tables[1]
