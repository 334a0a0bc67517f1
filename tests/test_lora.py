"""A folded adapter is the same policy: values and gradients against PEFT's own layers."""

from __future__ import annotations

import pytest
import torch
from policies import ARCHITECTURES, random_policy

from sarlab._engine.folded_lora import folded
from sarlab.models import add_lora

IDS = torch.tensor([[1, 3, 40, 41, 42, 4, 70, 71], [1, 3, 50, 4, 80, 81, 82, 83]])


def adapted(architecture: str = "llama"):
    policy = add_lora(random_policy(architecture), rank=4)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return policy


def values_and_gradients(policy, inside: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    policy.model.zero_grad()
    weights = torch.linspace(-1, 1, IDS.numel()).view_as(IDS)
    context = folded(policy.model) if inside else torch.enable_grad()
    with context:
        logits = policy.model(input_ids=IDS, use_cache=False).logits
        logps = torch.log_softmax(logits[:, :-1], -1).gather(-1, IDS[:, 1:, None])[..., 0]
        (logps * weights[:, 1:]).sum().backward()
    found = {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}
    return logps.detach(), found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_values_and_gradients_are_those_of_peft(architecture: str) -> None:
    policy = adapted(architecture)
    wanted, slow = values_and_gradients(policy, inside=False)
    found, fast = values_and_gradients(policy, inside=True)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert fast.keys() == slow.keys() and len(fast) >= 2 * 2 * 4  # layers × (A, B) × matrices
    for name in slow:
        torch.testing.assert_close(fast[name], slow[name], atol=1e-5, rtol=1e-4)
    again, _ = values_and_gradients(policy, inside=False)
    assert torch.equal(again, wanted)  # afterwards all is as it was


def test_a_second_fold_inside_and_a_switched_off_adapter_change_nothing() -> None:
    policy = adapted()
    with torch.no_grad():
        with policy.as_reference():
            base = policy.model(input_ids=IDS).logits
        with policy.folded():
            once = policy.model(input_ids=IDS).logits
            with policy.folded():
                assert torch.equal(policy.model(input_ids=IDS).logits, once)
            with policy.as_reference():
                assert torch.equal(policy.model(input_ids=IDS).logits, base)
            assert torch.equal(policy.model(input_ids=IDS).logits, once)
        with policy.as_reference(), policy.folded():
            assert torch.equal(policy.model(input_ids=IDS).logits, base)
    assert (once - base).abs().max() > 0.01


def test_what_cannot_be_folded_exactly_is_left_alone() -> None:
    policy = adapted()
    policy.model.to(torch.bfloat16)
    with torch.no_grad():
        wanted = policy.model(input_ids=IDS).logits
        with folded(policy.model):
            assert torch.equal(policy.model(input_ids=IDS).logits, wanted)
            assert not any("forward" in vars(m) for m in policy.model.modules())


def test_where_memory_comes_first_no_weights_are_merged_and_the_policy_is_the_same() -> None:
    policy = adapted()
    with policy.folded():
        wanted = policy.model(input_ids=IDS).logits
    policy.memory_first = True
    with policy.folded():
        assert not any("forward" in vars(m) for m in policy.model.modules())
        torch.testing.assert_close(policy.model(input_ids=IDS).logits, wanted, atol=1e-5, rtol=1e-5)


def test_an_error_inside_leaves_the_layers_as_they_were() -> None:
    policy = adapted()
    with pytest.raises(RuntimeError, match="stop"), folded(policy.model):
        raise RuntimeError("stop")
    assert not any("forward" in vars(m) for m in policy.model.modules())
