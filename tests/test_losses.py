"""Losses and advantages: goldens worked by hand, agreement with TRL and torchrl, invariances."""

from __future__ import annotations

import math

import pytest
import torch

from sarlab.losses import (
    clip_fraction,
    gae,
    group_advantages,
    kl_estimate,
    reduce_tokens,
    share_without_signal,
    surrogate_loss,
    value_loss,
    whiten,
)
from sarlab.rewards import group_std

MASK = torch.tensor([[True, True, False], [True, True, True]])
TOTALS = {"total_answers": 2, "total_tokens": 5, "max_answer_tokens": 10}


def log(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


def test_surrogate_by_hand() -> None:
    # Ratios 1.1, 1.5, 0.5, 4 with old probability 0.1.
    new, old = log([0.11, 0.15, 0.05, 0.4]), log([0.1, 0.1, 0.1, 0.1])
    up = surrogate_loss(new, old, torch.tensor([2.0]))
    # A = 2: −min(ρA, clip(ρ)A) = −2.2, −2.4 (1.5 is clipped to 1.2), −1.0, −2.4.
    torch.testing.assert_close(up, torch.tensor([[-2.2, -2.4, -1.0, -2.4]]))
    down = surrogate_loss(new, old, torch.tensor([-2.0]))
    # A = −2: 2.2, 3.0, 1.6 (0.5 is clipped to 0.8), and 4 is bounded by the dual clip: 3·2 = 6.
    torch.testing.assert_close(down, torch.tensor([[2.2, 3.0, 1.6, 6.0]]))
    loose = surrogate_loss(new, old, torch.tensor([2.0]), clip_high=0.6, dual_clip=None)
    torch.testing.assert_close(loose, torch.tensor([[-2.2, -3.0, -1.0, -3.2]]))
    unbounded = surrogate_loss(new, old, torch.tensor([-2.0]), dual_clip=None)
    assert unbounded[0, 3].item() == pytest.approx(8.0)


def test_clip_fraction_counts_tokens_without_gradient() -> None:
    new, old = log([0.15, 0.05, 0.1]), log([0.1, 0.1, 0.1])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert clip_fraction(new, old, torch.tensor([1.0]), mask) == pytest.approx(1 / 3)
    assert clip_fraction(new, old, torch.tensor([-1.0]), mask) == pytest.approx(1 / 3)
    assert clip_fraction(new, old, torch.tensor([-1.0]), mask[:, :1].repeat(1, 3)) > 0


def test_kl_estimators_by_hand() -> None:
    # d = log(ref/new) = log 2: k1 = −0.6931, k2 = 0.2402, k3 = 2 − 1 − 0.6931 = 0.3069.
    new, ref = log([0.2]), log([0.4])
    ln2 = math.log(2)
    assert kl_estimate(new, ref, "k1").item() == pytest.approx(-ln2)
    assert kl_estimate(new, ref, "k2").item() == pytest.approx(ln2**2 / 2)
    assert kl_estimate(new, ref, "k3").item() == pytest.approx(1 - ln2, abs=1e-6)
    with pytest.raises(ValueError, match="k4"):
        kl_estimate(new, ref, "k4")  # type: ignore[arg-type]


def test_k1_as_a_loss_has_no_gradient_and_k2_that_of_the_divergence() -> None:
    """Exact expectation over a 6-way softmax; k3 is biased, yet points the same way."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, generator=generator, dtype=torch.double)
    reference = torch.randn(6, generator=generator, dtype=torch.double).log_softmax(-1)

    def gradient(per_outcome) -> torch.Tensor:
        x = logits.clone().requires_grad_()
        logps = x.log_softmax(-1)
        per_outcome(logps).backward()
        return x.grad

    weights = logits.softmax(-1)  # the samples' law, which a loss does not differentiate
    truth = gradient(lambda logps: (logps.exp() * (logps - reference)).sum())
    found = {
        name: gradient(
            lambda logps, name=name: (weights * kl_estimate(logps, reference, name)).sum()
        )
        for name in ("k1", "k2", "k3")
    }
    assert found["k1"].abs().max() < 1e-12 < truth.abs().max()
    torch.testing.assert_close(found["k2"], truth)
    assert torch.cosine_similarity(found["k3"], truth, dim=0) > 0.5


def test_kl_estimators_average_to_the_divergence() -> None:
    """Over all outcomes weighted by the policy, k1 and k3 give KL(policy ‖ reference) exactly."""
    policy = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    reference = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    kl = torch.nn.functional.kl_div(reference.log(), policy, reduction="sum").item()
    for name in ("k1", "k3"):
        found = (policy * kl_estimate(policy.log(), reference.log(), name)).sum().item()
        assert found == pytest.approx(kl, abs=1e-12)


def test_reduction_forms_by_hand() -> None:
    per_token = torch.tensor([[1.0, 3.0, 99.0], [2.0, 2.0, 5.0]])
    # dr_grpo: 13/(2·10); grpo: (4/2 + 9/3)/2; dapo: 13/5. The 99 stands on padding.
    for form, wanted in (("dr_grpo", 0.65), ("grpo", 2.5), ("dapo", 2.6)):
        assert reduce_tokens(per_token, MASK, form, **TOTALS).item() == pytest.approx(wanted)
    with pytest.raises(ValueError, match="Unknown loss form 'sum'"):
        reduce_tokens(per_token, MASK, "sum", **TOTALS)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["dr_grpo", "grpo", "dapo"])
def test_micro_batches_add_up(form: str) -> None:
    per_token = torch.randn(2, 3)
    whole = reduce_tokens(per_token, MASK, form, **TOTALS)
    parts = sum(
        reduce_tokens(per_token[i : i + 1], MASK[i : i + 1], form, **TOTALS) for i in range(2)
    )
    torch.testing.assert_close(parts, whole)


def test_group_advantages_by_hand() -> None:
    rewards, groups = torch.tensor([1.0, 0.0, 0.5, 0.5]), torch.tensor([3, 3, 8, 8])
    torch.testing.assert_close(
        group_advantages(rewards, groups), torch.tensor([0.5, -0.5, 0.0, 0.0])
    )
    # Unbiased std of (1, 0) is √0.5 = 0.70711; 0.5/(0.70711 + 1e-4) = 0.70701.
    divided = group_advantages(rewards, groups, divide_by_std=True)
    torch.testing.assert_close(divided[:2], torch.tensor([0.70701, -0.70701]), atol=1e-5, rtol=0)
    assert share_without_signal(rewards, groups) == 0.5
    with pytest.raises(ValueError, match="at least 2 answers"):
        group_advantages(rewards, torch.tensor([3, 3, 8, 9]))


def test_group_std_is_the_unbiased_one() -> None:
    values, groups = torch.randn(12), torch.tensor([0, 1, 2] * 4)
    found = group_std(values, groups)
    for g in range(3):
        torch.testing.assert_close(found[groups == g], values[groups == g].std().expand(4))


def test_value_loss_by_hand() -> None:
    # V = 2, old 1, clip 0.5 → 1.5. R = 3: max(1, 2.25)/2 = 1.125. R = 0: max(4, 2.25)/2 = 2.
    values, old = torch.tensor([[2.0, 2.0]]), torch.tensor([[1.0, 1.0]])
    found = value_loss(values, old, torch.tensor([[3.0, 0.0]]), clip=0.5)
    torch.testing.assert_close(found, torch.tensor([[1.125, 2.0]]))


def test_whitening_leaves_padding_alone() -> None:
    found = whiten(torch.tensor([[1.0, 2.0, 50.0], [3.0, 4.0, 5.0]]), MASK)
    assert found[0, 2] == 0
    assert found[MASK].mean().item() == pytest.approx(0, abs=1e-6)
    assert found[MASK].std().item() == pytest.approx(1, abs=1e-5)


def test_gae_by_hand() -> None:
    # γ = 0.5, λ = 0.5, r = 0, 0, 1 and V = 1, 2, 3.
    # δ = 0 + 1 − 1, 0 + 1.5 − 2, 1 − 3 = 0, −0.5, −2.
    # A_3 = −2; A_2 = −0.5 − 0.5 = −1; A_1 = 0 − 0.25 = −0.25. Returns: 0.75, 1, 1.
    mask = torch.ones(1, 3, dtype=torch.bool)
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    advantages, returns = gae(rewards, values, mask, gamma=0.5, lam=0.5)
    torch.testing.assert_close(advantages, torch.tensor([[-0.25, -1.0, -2.0]]))
    torch.testing.assert_close(returns, torch.tensor([[0.75, 1.0, 1.0]]))


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.99, 0.95), (0.9, 0.0)])
def test_gae_agrees_with_torchrl(gamma: float, lam: float) -> None:
    functional = pytest.importorskip("torchrl.objectives.value.functional")
    torch.manual_seed(1)
    lengths = torch.tensor([7, 4, 1])
    mask = torch.arange(7)[None] < lengths[:, None]
    rewards, values = torch.randn(3, 7), torch.randn(3, 7)
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam)
    for row, n in enumerate(lengths.tolist()):
        done = torch.zeros(1, n, 1, dtype=torch.bool)
        done[0, -1] = True
        following = torch.cat([values[row, 1:n], torch.zeros(1)])
        wanted, wanted_returns = functional.generalized_advantage_estimate(
            gamma,
            lam,
            values[row, :n].reshape(1, n, 1),
            following.reshape(1, n, 1),
            rewards[row, :n].reshape(1, n, 1),
            done,
            done,
        )
        torch.testing.assert_close(advantages[row, :n], wanted[0, :, 0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(returns[row, :n], wanted_returns[0, :, 0], atol=1e-5, rtol=1e-5)
        assert (advantages[row, n:] == 0).all()
