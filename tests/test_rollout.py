"""Sampling is the policy itself: same law, same log-probs, and it ends where answers end."""

from __future__ import annotations

import pytest
import torch
from policies import ARCHITECTURES, random_policy
from scipy import stats

from sarlab._engine.head import draw_tokens
from sarlab.rollout import sample, seed_of
from sarlab.scoring import Prefix, answer_logps

PREFIXES = [Prefix((1, 3, 40, 41, 42, 4)), Prefix((1, 3, 50, 4)), Prefix((1, 3, 60, 61, 62, 63, 4))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_probs_of_sampling_equal_the_scored_ones(architecture: str) -> None:
    policy = random_policy(architecture)
    found = sample(policy, PREFIXES, group_size=5, max_answer_tokens=30, seed="s")
    scored = answer_logps(
        policy, PREFIXES, found.answer_ids, found.answer_mask, prefix_index=found.group_ids
    )
    torch.testing.assert_close(found.logps, scored, atol=1e-4, rtol=0)


def test_on_the_embedded_policy_too(frozen_tiny) -> None:
    found = sample(frozen_tiny, PREFIXES, group_size=8, max_answer_tokens=120, seed="t")
    scored = answer_logps(
        frozen_tiny, PREFIXES, found.answer_ids, found.answer_mask, prefix_index=found.group_ids
    )
    torch.testing.assert_close(found.logps, scored, atol=1e-4, rtol=0)
    assert len(set(found.lengths.tolist())) > 3  # rows did leave the batch at different times


def test_greedy_decoding_equals_generate() -> None:
    policy = random_policy("llama")
    found = sample(policy, PREFIXES, group_size=1, max_answer_tokens=20, seed="s", greedy=True)
    for row, prefix in enumerate(PREFIXES):
        with torch.no_grad():
            whole = policy.model.generate(
                torch.tensor([prefix.ids]),
                attention_mask=torch.ones(1, len(prefix.ids), dtype=torch.long),
                max_new_tokens=20,
                do_sample=False,
                eos_token_id=list(policy.eos_ids),
                pad_token_id=policy.tokenizer.pad_token_id,
            )[0, len(prefix.ids) :]
        n = int(found.lengths[row])
        assert found.answer_ids[row, :n].tolist() == whole[:n].tolist()


def test_draws_follow_the_law_the_whole_of_it() -> None:
    """A chi-square test against known probabilities: nothing is cut off, nothing sharpened."""
    law = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
    generator = torch.Generator().manual_seed(3)
    drawn = draw_tokens(law.log().expand(20_000, -1), generator)
    counts = torch.bincount(drawn, minlength=6).numpy()
    assert (
        stats.chisquare(counts, 20_000 * law.double().numpy() / law.double().sum().item()).pvalue
        > 0.001
    )


@pytest.mark.parametrize("size", [4, 5_000])
def test_impossible_tokens_are_never_drawn(size: int) -> None:
    law = torch.zeros(size)
    law[[1, size - 2]] = 0.5  # in the first and in the last block, both of which end in zeros
    drawn = draw_tokens(law.log().expand(2_000, -1), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {1, size - 2}


def test_a_law_summed_in_blocks_draws_the_same_tokens(monkeypatch) -> None:
    from sarlab._engine import head

    torch.manual_seed(0)
    logps = torch.log_softmax(4 * torch.randn(400, 5_003), dim=-1)  # 39 blocks and a rest of 11
    in_blocks = draw_tokens(logps, torch.Generator().manual_seed(1))
    monkeypatch.setattr(head, "_FLAT_VOCABULARY", 10_000)
    assert torch.equal(draw_tokens(logps, torch.Generator().manual_seed(1)), in_blocks)


def test_the_same_seed_gives_the_same_answers_and_another_seed_others() -> None:
    policy = random_policy("llama")

    def ids(seed: str) -> list[list[int]]:
        found = sample(policy, PREFIXES, group_size=3, max_answer_tokens=12, seed=seed)
        return found.answer_ids.tolist()

    assert ids("7 1 sample") == ids("7 1 sample")
    assert ids("7 1 sample") != ids("7 2 sample")


def test_an_answer_keeps_its_end_token_and_a_cut_one_is_marked() -> None:
    policy = random_policy("llama")
    end = policy.end_id

    def ends_at_third(hidden: torch.Tensor) -> torch.Tensor:
        ends_at_third.calls += 1
        logits = torch.full((len(hidden), len(policy.tokenizer)), -30.0)
        logits[:, end if ends_at_third.calls == 3 else 100] = 30.0
        return logits

    ends_at_third.calls = 0
    policy.logits = ends_at_third
    found = sample(policy, PREFIXES[:1], group_size=2, max_answer_tokens=10, seed="s")
    assert found.answer_ids.tolist() == [[100, 100, end]] * 2
    assert not found.truncated.any()
    ends_at_third.calls = 0
    cut = sample(policy, PREFIXES[:1], group_size=2, max_answer_tokens=2, seed="s")
    assert cut.truncated.all() and cut.lengths.tolist() == [2, 2]


def test_every_end_token_of_the_model_ends_an_answer() -> None:
    policy = random_policy("llama")
    policy.eos_ids = (policy.end_id, 77)
    policy.logits = lambda hidden: (
        torch.nn.functional.one_hot(torch.full((len(hidden),), 77), len(policy.tokenizer)).float()
        * 60
    )
    found = sample(policy, PREFIXES[:1], group_size=1, max_answer_tokens=10, seed="s")
    assert found.answer_ids.tolist() == [[77]] and not found.truncated.any()


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    policy = random_policy("llama")
    with pytest.raises(ValueError, match="600 answer tokens do not fit into the 512"):
        sample(policy, PREFIXES[:1], group_size=1, max_answer_tokens=600, seed="s")


def test_seeds_are_stable_across_processes() -> None:
    # The first 8 bytes of the SHA-256 of "0 1 sample", shifted right by one bit.
    import hashlib

    digest = hashlib.sha256(b"0 1 sample").hexdigest()[:16]
    assert seed_of("0 1 sample") == int(digest, 16) // 2
