"""Scoring with shared prefixes equals one plain forward a row, gradients included."""

from __future__ import annotations

import pytest
import torch
from policies import ARCHITECTURES, logps_of, random_policy

from sarlab._engine.micro_batches import plan_batches
from sarlab.models import add_lora
from sarlab.scoring import (
    Prefix,
    answer_block,
    answer_logps,
    compute_prefixes,
    extend_prefixes,
    logps_of_states,
    token_report,
)

PREFIXES = [(1, 3, 40, 41, 42, 4), (1, 3, 50, 4), (1, 3, 60, 61, 62, 63, 64, 65, 66, 4)]
ANSWERS = [[70, 71, 72, 2], [80, 2], [90, 91, 92, 93, 94, 95, 2], [70, 99], [100]]
INDEX = [0, 0, 1, 2, 2]


def block(answers: list[list[int]], width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    width = width or max(map(len, answers))
    ids = torch.zeros(len(answers), width, dtype=torch.long)
    mask = torch.zeros(len(answers), width, dtype=torch.bool)
    for row, answer in enumerate(answers):
        ids[row, : len(answer)] = torch.tensor(answer)
        mask[row, : len(answer)] = True
    return ids, mask


def plain_logps(policy, prefix: tuple[int, ...], answer: list[int]) -> torch.Tensor:
    """One row, no padding, no cache: the model's own forward."""
    ids = torch.tensor([[*prefix, *answer]])
    logits = policy.model(input_ids=ids, use_cache=False).logits[0].float()
    logps = torch.log_softmax(logits[len(prefix) - 1 : -1], dim=-1)
    return logps.gather(-1, torch.tensor(answer)[:, None])[:, 0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_one_plain_forward_per_row(architecture: str) -> None:
    policy = random_policy(architecture)
    ids, mask = block(ANSWERS)
    found = answer_logps(
        policy, [Prefix(p) for p in PREFIXES], ids, mask, prefix_index=torch.tensor(INDEX)
    )
    for row, answer in enumerate(ANSWERS):
        with torch.no_grad():
            wanted = plain_logps(policy, PREFIXES[INDEX[row]], answer)
        torch.testing.assert_close(found[row, : len(answer)], wanted, atol=1e-5, rtol=1e-5)
        assert (found[row, len(answer) :] == 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_equals_that_of_plain_forwards(architecture: str) -> None:
    policy = add_lora(random_policy(architecture), rank=4)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:  # zero at the start, and then lora_A would have no gradient
            torch.nn.init.normal_(parameter, std=0.1)
    weights = torch.linspace(-1, 1, len(ANSWERS))
    ids, mask = block(ANSWERS)
    groups = torch.tensor([len(PREFIXES[i]) for i in INDEX])
    lengths = mask.sum(1) + groups
    policy.model.zero_grad()
    windowed = groups if policy.has_sliding_window else None
    for chosen in plan_batches(lengths, 24, windowed):  # several micro-batches
        part = answer_logps(
            policy,
            [Prefix(p) for p in PREFIXES],
            ids[chosen],
            mask[chosen],
            prefix_index=torch.tensor(INDEX)[chosen],
            grad=True,
        )
        (part.sum(1) * weights[chosen]).sum().backward()
    fast = {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad()
    for row, answer in enumerate(ANSWERS):
        (plain_logps(policy, PREFIXES[INDEX[row]], answer).sum() * weights[row]).backward()
    slow = {n: p.grad for n, p in policy.model.named_parameters() if p.grad is not None}
    assert fast.keys() == slow.keys() and len(fast) > 0
    for name, wanted in slow.items():
        torch.testing.assert_close(fast[name], wanted, atol=1e-4, rtol=1e-4)


def test_score_does_not_move_with_batch_padding_or_order() -> None:
    policy = random_policy("llama")
    ids, mask = block(ANSWERS, width=20)
    index = torch.tensor(INDEX)
    prefixes = [Prefix(p) for p in PREFIXES]
    whole = answer_logps(policy, prefixes, ids, mask, prefix_index=index)
    small = answer_logps(policy, prefixes, ids, mask, prefix_index=index, token_budget=12)
    order = torch.tensor([3, 1, 4, 0, 2])
    mixed = answer_logps(policy, prefixes, ids[order], mask[order], prefix_index=index[order])
    torch.testing.assert_close(small, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed, whole[order], atol=1e-5, rtol=0)


def test_what_stands_on_padded_positions_does_not_matter() -> None:
    policy = random_policy("llama")
    ids, mask = block(ANSWERS)
    noisy = torch.where(mask, ids, torch.full_like(ids, 123))
    prefixes, index = [Prefix(p) for p in PREFIXES], torch.tensor(INDEX)
    a = answer_logps(policy, prefixes, ids, mask, prefix_index=index)
    b = answer_logps(policy, prefixes, noisy, mask, prefix_index=index)
    torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_a_cut_and_extended_prefix_scores_the_rest_alike() -> None:
    policy = random_policy("llama")
    answer = [70, 71, 72, 73, 2]
    whole = logps_of(policy, Prefix(PREFIXES[0]), answer)
    (grown,) = extend_prefixes(policy, [Prefix(PREFIXES[0])], [70, 71, 99, 98])
    kept = grown.cut(len(PREFIXES[0]) + 2)  # the edit keeps 70 and 71
    rest = logps_of(policy, kept, answer[2:])
    torch.testing.assert_close(rest, whole[2:], atol=1e-5, rtol=0)


def test_a_stale_prefix_is_refused() -> None:
    policy = random_policy("llama")
    (prefix,) = compute_prefixes(policy, [Prefix(PREFIXES[0])])
    policy.version += 1
    with pytest.raises(ValueError, match="version 0 of the policy, which is now at 1"):
        logps_of(policy, prefix, [70, 2])


def test_too_long_a_sequence_is_refused() -> None:
    policy = random_policy("llama")
    with pytest.raises(ValueError, match=r"516 tokens long.*at most 512"):
        logps_of(policy, Prefix(PREFIXES[0]), [70] * 510)


def test_an_answer_without_tokens_is_refused() -> None:
    policy = random_policy("llama")
    ids, mask = block([[70, 2], []])
    with pytest.raises(ValueError, match="no tokens"):
        answer_logps(policy, Prefix(PREFIXES[0]), ids, mask)


class TestKnownLogits:
    """A fake policy whose next-token distribution is the same everywhere and known by heart."""

    PROBABILITIES = torch.tensor([0.5, 0.25, 0.125, 0.125])

    @pytest.fixture
    def policy(self):
        policy = random_policy("llama")
        policy.logits = lambda hidden: self.PROBABILITIES.log().expand(len(hidden), 4)
        return policy

    def test_log_probs_ranks_entropy_and_alternatives(self, policy) -> None:
        found = token_report(policy, Prefix((1, 3, 4)), *answer_block([[0, 1, 3]]))
        ln2 = 0.6931472
        torch.testing.assert_close(found.logps[0], torch.tensor([-ln2, -2 * ln2, -3 * ln2]))
        assert found.ranks[0].tolist() == [1, 2, 3]
        # 1/2·1 + 1/4·2 + 2·(1/8·3) = 1.75 bits
        torch.testing.assert_close(found.entropy[0], torch.full((3,), 1.75 * ln2))
        assert found.top_ids[0, 0, :2].tolist() == [0, 1]


def test_micro_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = torch.tensor([5, 90, 17, 3, 3, 41, 60])
    plan = list(plan_batches(lengths, 100))
    assert sorted(torch.cat(plan).tolist()) == list(range(7))
    assert plan[0].tolist() == [1]  # the longest first: memory that is too small shows at once
    assert all(len(b) * int(lengths[b].max()) <= 100 for b in plan)


def test_out_of_memory_halves_the_budget_and_says_so(monkeypatch) -> None:
    import sarlab.scoring as module
    from sarlab._engine import micro_batches as batches

    policy = random_policy("llama")
    ids, mask = block(ANSWERS)
    wanted = answer_logps(
        policy, [Prefix(p) for p in PREFIXES], ids, mask, prefix_index=torch.tensor(INDEX)
    )
    real, sizes = module._states, []

    def small_memory(policy, answers):
        sizes.append(len(answers.ids))
        if len(answers.ids) > 2:
            raise torch.OutOfMemoryError("fake")
        return real(policy, answers)

    monkeypatch.setattr(module, "_states", small_memory)
    monkeypatch.setattr(batches, "_budgets", {})
    with pytest.warns(UserWarning, match=r"Out of memory at \d+ tokens.*\(scoring\)"):
        found = answer_logps(
            policy,
            [Prefix(p) for p in PREFIXES],
            ids,
            mask,
            prefix_index=torch.tensor(INDEX),
            token_budget=100,
        )
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert max(sizes) > 2 and sizes[-1] <= 2


@pytest.mark.parametrize("cap", [None, 5.0])
def test_gradients_of_the_head_are_those_of_plain_log_softmax(cap, monkeypatch) -> None:
    """Slice by slice, for a plain head (worked out in the forward pass) and a capped one."""
    from sarlab._engine import head

    policy = random_policy("llama")
    policy.model.requires_grad_(False)
    policy.model.config.final_logit_softcapping = cap
    monkeypatch.setattr(head, "_HEAD_SLICE", 3 * len(policy.tokenizer))  # slices of 3 tokens
    ids, mask = block(ANSWERS)
    torch.manual_seed(1)
    hidden = torch.randn(*ids.shape, 32)
    weights = torch.randn(ids.shape) * mask
    slopes = []
    for fast in (True, False):
        states = hidden.clone().requires_grad_()
        if fast:
            found = logps_of_states(policy, states, ids, mask)
        else:
            logps = torch.log_softmax(policy.logits(states), dim=-1)
            found = logps.gather(-1, ids[..., None])[..., 0] * mask
        (found * weights).sum().backward()
        slopes.append((found.detach(), states.grad))
    assert policy.has_linear_head is (cap is None)
    for mine, plain in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-4)
    assert (slopes[0][1][~mask] == 0).all() and slopes[0][1].abs().max() > 0.1


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_long_rows_run_in_chunks_score_the_same(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = random_policy(architecture)
    ids = torch.randint(5, 60, (3, 40), generator=torch.Generator().manual_seed(3))
    mask = torch.arange(40)[None] < torch.tensor([40, 23, 31])[:, None]
    prefixes, index = [Prefix(tuple(range(5, 25))), Prefix((7, 8, 9))], torch.tensor([0, 1, 1])
    whole = answer_logps(policy, prefixes, ids, mask, prefix_index=index)
    monkeypatch.setattr("sarlab._engine.caches._CHUNK", 7)
    chunked = answer_logps(policy, prefixes, ids, mask, prefix_index=index)
    torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=0)
