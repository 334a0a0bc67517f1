"""The GRPO loop: exact gradients, the reference, what it refuses, and that it learns."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

import pytest
import torch
from policies import ARCHITECTURES, logps_of, random_policy

from sarlab.config import TrainConfig
from sarlab.experience import collect
from sarlab.models import add_lora, load_policy
from sarlab.prompts import conditioned_ids
from sarlab.scoring import Prefix, answer_logps
from sarlab.tasks import Verdict, load_task
from sarlab.train import (
    TrainingError,
    add_critic,
    grpo_steps,
    mini_batches,
    ppo_steps,
    start,
    update_policy,
)
from sarlab.types import Question

SMALL = TrainConfig(
    steps=2, questions=4, group_size=3, max_answer_tokens=16, mini_batches=2, warmup_steps=0
)
QUESTIONS = [Question(f"{i} and {i}?", str(2 * i)) for i in (11, 12, 13, 14)]


def batch_of(policy, config: TrainConfig = SMALL):
    return collect(policy, QUESTIONS, config, seed="b", group_size=config.group_size)


@pytest.fixture
def state():
    return start(add_lora(random_policy("llama"), rank=4), SMALL)


def test_the_conditioned_log_probs_of_a_step_are_those_of_a_second_scoring(state) -> None:
    batch = batch_of(state.policy)
    again = answer_logps(
        state.policy,
        [Prefix(p.ids) for p in batch.prefixes],
        batch.rollouts.answer_ids,
        batch.rollouts.answer_mask,
        prefix_index=batch.rollouts.group_ids,
    )
    torch.testing.assert_close(batch.inputs.logps_conditioned, again, atol=1e-4, rtol=0)


def gradient(token_budget: int) -> dict[str, torch.Tensor]:
    """The clipped gradient of one update, seen through an optimiser that does not step."""
    config = replace(SMALL, token_budget=token_budget, beta=0.1)
    state = start(add_lora(random_policy("llama"), rank=4), config)
    for name, parameter in state.policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.02)
    batch = batch_of(state.policy, config)
    reference = batch.inputs.logps_conditioned - 0.3
    advantages = torch.linspace(-1, 1, len(batch.rollouts.texts))
    rows = torch.arange(len(advantages))
    state.optimizer.step = lambda: None  # type: ignore[method-assign]
    update_policy(state, 0.0, batch, rows, advantages, reference, config)
    return {n: p.grad for n, p in state.policy.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_the_gradient_is_taken_three_frames_below_the_loop(algorithm, monkeypatch) -> None:
    """Whoever reads the loop comes to ``loss.backward()`` through two calls."""
    depths = []

    def backward(loss, *args, **options):
        names = [frame.function for frame in inspect.stack()]
        depths.append(names.index(f"{algorithm}_steps"))
        return torch.autograd.backward(loss, *args, **options)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    config = replace(SMALL, algorithm=algorithm, group_size=1 if algorithm == "ppo" else 3)
    state = start(add_lora(random_policy("llama"), rank=4), config)
    if algorithm == "ppo":
        add_critic(state, config)
    next((ppo_steps if algorithm == "ppo" else grpo_steps)(state, _task(), config))
    assert depths and set(depths) == {3}


def test_the_gradient_does_not_depend_on_how_the_batch_is_split() -> None:
    whole, split = gradient(100_000), gradient(64)
    assert whole.keys() == split.keys() and whole
    for name in whole:
        torch.testing.assert_close(whole[name], split[name], atol=1e-5, rtol=1e-3)


def test_mini_batches_keep_groups_whole_and_use_every_answer_once() -> None:
    groups = torch.arange(5).repeat_interleave(3)
    parts = list(mini_batches(groups, 2))
    assert sorted(torch.cat(parts).tolist()) == list(range(15))
    assert [sorted(set(groups[p].tolist())) for p in parts] == [[0, 1, 2], [3, 4]]


def test_the_reference_is_the_policy_before_training(state) -> None:
    policy = state.policy
    batch = batch_of(policy)
    block = (batch.rollouts.answer_ids, batch.rollouts.answer_mask)
    plain = [Prefix(p.ids) for p in batch.prefixes]
    index = batch.rollouts.group_ids
    before = answer_logps(policy, plain, *block, prefix_index=index)
    for _ in grpo_steps(state, _task(), replace(SMALL, learning_rate=0.05)):
        pass
    after = answer_logps(policy, plain, *block, prefix_index=index)
    with policy.as_reference():
        reference = answer_logps(policy, plain, *block, prefix_index=index)
    torch.testing.assert_close(reference, before, atol=1e-5, rtol=0)
    assert (after - before).abs().max() > 0.01


def _task():
    return load_task("word_problems")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_trains(architecture: str) -> None:
    """The first ratio is exactly 1 for each of them, so dropout and LoRA are where they belong."""
    state = start(add_lora(random_policy(architecture), rank=4), SMALL)
    records = list(grpo_steps(state, _task(), replace(SMALL, mini_batches=1)))
    assert [r.step for r in records] == [1, 2]
    for record in records:
        assert record.metrics["ratio_max"] == pytest.approx(1.0, abs=1e-3)
        assert record.metrics["clip_fraction"] == 0
    assert records[0].metrics["kl"] == pytest.approx(0, abs=1e-6)
    # With a random policy nothing is right, so SAR alone is what tells answers apart.
    assert records[0].metrics["accuracy"] == 0 and records[0].metrics["no_signal_share"] == 0
    assert records[1].metrics["kl"] > 0


def test_a_step_makes_good_answers_likelier_than_bad_ones(state) -> None:
    """The sign of it all: Σ advantage · change of the answer's log-prob is above 0."""
    config = replace(SMALL, mini_batches=1, steps=1, beta=0.0)
    (record,) = grpo_steps(state, _task(), config)
    prefixes, gain = {}, 0.0
    for row in record.rows:
        question = Question(row["question"], row["gold"])
        ids = conditioned_ids(state.policy.tokenizer, question.text, state.policy.prompt)
        prefix = prefixes.setdefault(question.id, Prefix(tuple(ids)))
        now = logps_of(state.policy, prefix, row["answer_ids"]).sum().item()
        gain += row["advantage"] * (now - sum(row["logps_conditioned"]))
    assert gain > 1e-4
    assert state.policy.version == 1


def test_a_loss_that_is_not_finite_leaves_the_adapter_alone(state) -> None:
    batch = batch_of(state.policy)
    before = {n: p.detach().clone() for n, p in state.policy.model.named_parameters()}
    advantages = torch.full((len(batch.rollouts.texts),), math.nan)
    rows = torch.arange(len(advantages))
    with pytest.raises(TrainingError, match="must be finite") as error:
        update_policy(state, 1e-3, batch, rows, advantages, None, SMALL)
    assert error.value.kind == "not_finite"
    for name, parameter in state.policy.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_an_exploding_ratio_is_refused(state) -> None:
    batch = batch_of(state.policy)
    strange = replace(batch.inputs, logps_conditioned=batch.inputs.logps_conditioned - 20)
    rows = torch.arange(len(batch.rollouts.texts))
    with pytest.raises(TrainingError, match="times likelier") as error:
        update_policy(state, 1e-3, replace(batch, inputs=strange), rows, rows.float(), None, SMALL)
    assert error.value.kind == "exploding_ratio"


def test_no_signal_and_all_truncated_are_said(state, monkeypatch) -> None:
    import sarlab.experience as module

    monkeypatch.setattr(
        module,
        "judge_all",
        lambda texts, _, **options: [Verdict(False, None, "no marker")] * len(texts),
    )
    state.policy.eos_ids = (10_000,)  # never drawn: every answer runs into the limit
    config = replace(SMALL, reward="correct", steps=1)
    (record,) = grpo_steps(state, _task(), config)
    kinds = {m.split(":")[0] for m in record.messages}
    assert kinds == {"no_signal", "all_truncated"}
    assert record.metrics["truncated_share"] == 1
    assert record.metrics["grad_norm"] < 1e-5  # nothing but the KL of equal policies


def test_without_sar_the_standalone_pass_is_skipped(state) -> None:
    config = replace(SMALL, reward="correct", log_sar=False, steps=1)
    (record,) = grpo_steps(state, _task(), config)
    assert record.metrics["sar"] is None
    assert record.rows[0]["logps_standalone"] is None


def test_rows_hold_what_the_step_used(state) -> None:
    (record,) = grpo_steps(state, _task(), replace(SMALL, steps=1))
    rows = record.rows
    assert len(rows) == 12
    for group in range(4):
        advantages = [r["advantage"] for r in rows if r["group_id"] == group]
        assert sum(advantages) == pytest.approx(0, abs=1e-6)
    for row in rows:
        n = row["length"]
        assert len(row["answer_ids"]) == len(row["logps_conditioned"]) == n
        assert row["ppl_conditioned"] == pytest.approx(
            math.exp(-sum(row["logps_conditioned"]) / n), rel=1e-4
        )
        drop = (row["ppl_standalone"] - row["ppl_conditioned"]) / row["ppl_standalone"]
        assert row["sar"] == pytest.approx(max(-1, drop), abs=1e-4)
        assert row["reward"] == pytest.approx(row["correct"] + 0.2 * row["sar"], abs=1e-5)


@pytest.mark.slow
def test_a_run_ends_with_the_same_bytes_on_two_threads() -> None:
    """Two steps of half the default batch, twice: weights, answers and every logged number."""
    config = TrainConfig(steps=2, seed=7, questions=8)

    def end() -> tuple[bytes, ...]:
        policy = add_lora(load_policy("tiny", dtype="float32", device="cpu"), seed=config.seed)
        state = start(policy, config)
        logged = [
            [record.rows, {k: v for k, v in record.metrics.items() if "seconds" not in k}]
            for record in grpo_steps(state, load_task(config.task), config)
        ]
        weights = [p.detach().numpy().tobytes() for p in policy.model.parameters()]
        return repr(logged).encode(), *weights

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert end() == end()
    finally:
        torch.set_num_threads(threads)


def test_the_gradient_of_shared_prefixes_is_the_same_bytes_on_two_threads() -> None:
    """Several threads added up a gather's gradient at once: another last digit each time."""
    policy = add_lora(random_policy("llama"), rank=4)
    prefix = Prefix(tuple(5 + i % 90 for i in range(200)))
    ids = torch.arange(64 * 6).view(64, 6) % 90 + 5
    trainable = [p for p in policy.model.parameters() if p.requires_grad]

    def gradient() -> bytes:
        policy.model.zero_grad()
        logps = answer_logps(policy, prefix, ids, torch.ones_like(ids, dtype=torch.bool), grad=True)
        (logps * torch.linspace(-1, 1, 64)[:, None]).sum().backward()
        return b"".join(p.grad.numpy().tobytes() for p in trainable)

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert len({gradient() for _ in range(8)}) == 1
    finally:
        torch.set_num_threads(threads)
