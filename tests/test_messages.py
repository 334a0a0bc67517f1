"""What goes wrong in training has a message of its own, an entry in run.json, and a way on."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from crash_lab import CONFIG
from policies import random_policy

import sarlab.rollout as rollout
import sarlab.train as update
from sarlab._engine import micro_batches as batches
from sarlab.config import TrainConfig
from sarlab.experience import collect
from sarlab.job import training as job
from sarlab.job.training import run_training
from sarlab.models import Policy, add_lora, load_policy
from sarlab.rollout import sample
from sarlab.runs.folder import read_metrics
from sarlab.scoring import Prefix, answer_logps
from sarlab.tasks import load_task
from sarlab.train import (
    TrainingError,
    add_critic,
    critic_values,
    grpo_steps,
    start,
    update_critic,
    update_policy,
)
from sarlab.types import Question

SHORT = replace(CONFIG, steps=3, checkpoint_every=1, eval_every=3, validation_questions=0)
QUESTIONS = [Question(f"{i} and {i}?", str(2 * i)) for i in (11, 12, 13, 14)]


def facts(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def broken_loss(value: float):
    """The surrogate loss, but one of its entries is ``value`` from the third update on."""
    real, calls = update.surrogate_loss, []

    def loss(*args, **options):
        calls.append(1)
        found = real(*args, **options)
        if len(calls) >= 3:
            found = found * torch.where(torch.arange(found.shape[1]) == 0, value, 1.0)
        return found

    return loss


STOPS = {
    "nan loss": ("surrogate_loss", math.nan, "not_finite", "loss nan .* must be finite"),
    "infinite loss": ("surrogate_loss", math.inf, "not_finite", "must be finite"),
    "exploding ratio": ("MAX_RATIO", 0.5, "exploding_ratio", "times likelier within one step"),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_would_ruin_the_adapter_stops_the_run(name: str, tmp_path: Path, monkeypatch) -> None:
    where, value, kind, text = STOPS[name]
    folder = tmp_path / "run"
    if where == "surrogate_loss":
        monkeypatch.setattr(update, where, broken_loss(value))
    else:
        run_training(replace(SHORT, steps=2), folder)
        monkeypatch.setattr(update, where, value)
    with pytest.raises(TrainingError, match=text) as error:
        run_training(SHORT, folder, resume=folder.exists())
    assert error.value.kind == kind
    found = facts(folder)
    assert found["status"] == "failed" and found["steps_done"] == 2
    assert found["error"].startswith(f"{kind}: Step 3: ")
    (entry,) = [m for m in found["messages"] if "at" in m]
    assert (entry["step"], entry["kind"]) == (2, kind)
    # The state before the bad step is whole and can be used: as a policy, and to go on from.
    load_policy(folder / "checkpoints" / "step-000002")
    monkeypatch.undo()
    run_training(SHORT, folder, resume=True)
    assert [m["step"] for m in read_metrics(folder)] == [1, 2, 3]
    assert facts(folder)["status"] == "finished"


def only_ends(policy: Policy) -> None:
    """A policy that answers with the end token at once."""
    policy.logits = lambda hidden: (  # type: ignore[method-assign]
        torch.nn.functional.one_hot(
            torch.full((len(hidden),), policy.end_id), len(policy.tokenizer)
        ).float()
        * 60
        + hidden.sum() * 0
    )


def never_ends(policy: Policy) -> None:
    """A policy that never stops by itself."""
    policy.eos_ids = (10_000,)


SAID = {
    "every answer cut off": (never_ends, {}, "all_truncated", "Raise it"),
    "answers without tokens": (only_ends, {}, "length_collapse", "shorter than 2 tokens"),
    "nothing to tell answers apart": (
        lambda policy: None,
        {"reward": "correct", "max_answer_tokens": 1},
        "no_signal",
        "too easy or too hard",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_only_strange_is_said_with_each_step(
    name: str, tmp_path: Path, monkeypatch
) -> None:
    change, told, kind, text = SAID[name]
    policy = load_policy("tiny", dtype="float32", device="cpu")
    change(policy)
    monkeypatch.setattr(job, "load_policy", lambda *_, **__: policy)
    run_training(replace(SHORT, steps=2, **told), tmp_path / "run")
    found = facts(tmp_path / "run")
    entries = [m for m in found["messages"] if m["kind"] == kind]
    assert [m["step"] for m in entries] == [1, 2] and text in entries[0]["text"]
    assert found["status"] == "finished"
    logged = read_metrics(tmp_path / "run")[0]["messages"]
    assert any(message.startswith(f"{kind}: ") for message in logged)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()


# --- out of memory ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _fresh_budgets(monkeypatch) -> None:
    monkeypatch.setattr(batches, "_budgets", {})
    monkeypatch.setattr(batches, "_notes", [])


def short_of_memory(real, rows: int, after: int = 0):
    """A function of (…, ids, …) that runs out of memory at more rows, ``after`` good calls."""
    calls = []

    def function(policy, prefixes, ids, *args, **options):
        calls.append(len(ids))
        if len(ids) > rows and len(calls) > after:
            raise torch.OutOfMemoryError("fake")
        return real(policy, prefixes, ids, *args, **options)

    function.calls = calls
    return function


SMALL = TrainConfig(
    steps=2, questions=4, group_size=3, max_answer_tokens=16, mini_batches=1, warmup_steps=0
)


def one_update(budget: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The gradient of an update (the optimiser does not step) and what it logs."""
    config = replace(SMALL, token_budget=budget)
    state = start(add_lora(random_policy("llama"), rank=4), config)
    for name, parameter in state.policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.02)
    batch = collect(state.policy, QUESTIONS, config, seed="b", group_size=3)
    reference = batch.inputs.logps_conditioned - 0.3
    advantages = torch.linspace(-1, 1, 12)
    state.optimizer.step = lambda: None  # type: ignore[method-assign]
    found = update_policy(state, 0.0, batch, torch.arange(12), advantages, reference, config)
    grads = {n: p.grad for n, p in state.policy.model.named_parameters() if p.grad is not None}
    return grads, found


@pytest.mark.parametrize("after", [0, 1], ids=["at once", "with a gradient half added up"])
def test_an_update_short_of_memory_has_the_same_gradient(after: int, monkeypatch) -> None:
    budget = 200 if after else 100_000  # several micro-batches: the first goes well
    wanted, logged = one_update(100_000)
    real = update.answer_logps
    passed = []

    def tight(policy, prefixes, ids, *args, grad=False, **options):
        if grad:
            passed.append(len(ids))
            if len(ids) > 2 and len(passed) > after:
                raise torch.OutOfMemoryError("fake")
        return real(policy, prefixes, ids, *args, grad=grad, **options)

    monkeypatch.setattr(update, "answer_logps", tight)
    with pytest.warns(UserWarning, match=r"Out of memory at \d+ tokens .*\(update\)"):
        found, again = one_update(budget)
    assert passed[0] > 2 and max(passed[-4:]) <= 2
    assert found.keys() == wanted.keys() and wanted
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=1e-3)
    for key in ("loss", "kl", "grad_norm", "ratio_max", "clip_fraction"):
        assert again[key] == pytest.approx(logged[key], rel=1e-3, abs=1e-5)
    with warnings.catch_warnings():  # the smaller size is kept: nothing more to say
        warnings.simplefilter("error")
        one_update(budget)


def test_a_critic_short_of_memory_has_the_same_gradient(monkeypatch) -> None:
    config = replace(SMALL, algorithm="ppo", group_size=1, questions=4, loss="dapo", beta=0.0)

    def gradients() -> list[torch.Tensor]:
        state = start(add_lora(random_policy("llama"), rank=4), config)
        critic = add_critic(state, config)
        torch.nn.init.constant_(critic.head.weight, 0.02)
        batch = collect(state.policy, QUESTIONS, config, seed="b", group_size=1)
        values = critic_values(critic, batch, config)
        critic.optimizer.step = lambda: None  # type: ignore[method-assign]
        rows = torch.arange(4)
        update_critic(state, 0.0, batch, rows, values, values + 1.0, config)
        params = critic.optimizer.param_groups[0]["params"]
        return [p.grad for p in params if p.grad is not None]

    wanted = gradients()
    real = update.answer_states

    def tight(policy, prefixes, ids, *args, grad=False, **options):
        if grad and len(ids) > 1:
            raise torch.OutOfMemoryError("fake")
        return real(policy, prefixes, ids, *args, grad=grad, **options)

    monkeypatch.setattr(update, "answer_states", tight)
    with pytest.warns(UserWarning, match=r"\(critic update\)"):
        found = gradients()
    assert len(found) == len(wanted) > 0
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-3)


def test_sampling_short_of_memory_goes_on_in_smaller_batches(monkeypatch) -> None:
    policy = random_policy("llama")
    prefixes = [Prefix((1, 3, 40, 41, 42, 4)), Prefix((1, 3, 50, 4))]
    real, sizes = rollout._decode, []

    def tight(policy, part, *args):
        sizes.append(len(part))
        if len(part) > 3:
            torch.rand(7, generator=args[1])  # draws that are lost with the batch
            raise torch.OutOfMemoryError("fake")
        return real(policy, part, *args)

    monkeypatch.setattr(rollout, "_decode", tight)
    with pytest.warns(UserWarning, match=r"\(sampling\)") as said:
        found = sample(policy, prefixes, group_size=5, max_answer_tokens=20, seed="s")
    assert len(said) == 2 and sizes[:2] == [10, 5] and max(sizes[2:]) <= 3  # 10, 5, then 2
    assert found.group_ids.tolist() == [0] * 5 + [1] * 5
    scored = answer_logps(
        policy, prefixes, found.answer_ids, found.answer_mask, prefix_index=found.group_ids
    )
    torch.testing.assert_close(found.logps, scored, atol=1e-4, rtol=0)
    assert (found.lengths > 0).all()
    monkeypatch.setattr(batches, "_budgets", {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = sample(policy, prefixes, group_size=5, max_answer_tokens=20, seed="s")
    assert torch.equal(again.answer_ids, found.answer_ids)  # the lost draws leave no trace


@pytest.mark.filterwarnings("ignore:Out of memory")
def test_one_answer_that_does_not_fit_is_an_error(monkeypatch) -> None:
    def never(*args, **options):
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(update, "answer_logps", never)
    state = start(add_lora(random_policy("llama"), rank=4), SMALL)
    steps = grpo_steps(state, load_task("word_problems"), SMALL)
    with pytest.raises(torch.OutOfMemoryError, match="too large"):
        next(steps)


def test_another_runtime_error_is_no_lack_of_memory(monkeypatch) -> None:
    assert batches.is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you"))
    assert not batches.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

    def broken(*args, **options):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(update, "answer_logps", broken)
    state = start(add_lora(random_policy("llama"), rank=4), SMALL)
    with pytest.raises(RuntimeError, match="shapes"):
        next(grpo_steps(state, load_task("word_problems"), SMALL))


def test_memory_that_ran_out_stands_in_run_json(tmp_path: Path, monkeypatch) -> None:
    real = update.answer_logps

    def tight(policy, prefixes, ids, *args, grad=False, **options):
        if grad and len(ids) > 1:
            raise torch.OutOfMemoryError("fake")
        return real(policy, prefixes, ids, *args, grad=grad, **options)

    monkeypatch.setattr(update, "answer_logps", tight)
    with pytest.warns(UserWarning, match="Out of memory"):
        run_training(replace(SHORT, steps=2), tmp_path / "run")
    events = [m for m in facts(tmp_path / "run")["messages"] if "at" in m]
    assert {m["kind"] for m in events} == {"out_of_memory"}
    assert {m["step"] for m in events} == {1}  # the second step has nothing more to say
    assert facts(tmp_path / "run")["status"] == "finished"
