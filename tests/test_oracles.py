"""Agreement with libraries that compute the same quantities: TRL, lm-eval, transformers."""

from __future__ import annotations

import pytest
import torch
from policies import random_policy

from sarlab.losses import kl_estimate, reduce_tokens, surrogate_loss
from sarlab.sar import perplexity
from sarlab.scoring import Prefix, answer_logps

PREFIX = (1, 3, 40, 41, 42, 43, 4)
LENGTHS = (6, 3, 5, 1)


@pytest.fixture(scope="module")
def policy():
    return random_policy("llama")


@pytest.fixture(scope="module")
def answers() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(5, 400, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    return ids * mask, mask


def logps_of(policy, answers) -> torch.Tensor:
    found = answer_logps(policy, Prefix(PREFIX), *answers)
    assert found is not None
    return found


def test_log_probs_agree_with_trl(policy, answers) -> None:
    from trl.trainer.utils import selective_log_softmax

    ids, mask = answers
    whole = torch.cat([torch.tensor([PREFIX]).expand(len(ids), -1), ids], dim=1)
    with torch.no_grad():
        logits = policy.model(input_ids=whole, use_cache=False).logits[:, len(PREFIX) - 1 : -1]
    wanted = selective_log_softmax(logits, ids) * mask
    torch.testing.assert_close(logps_of(policy, answers), wanted, atol=1e-5, rtol=1e-5)


def test_log_likelihood_agrees_with_lm_eval(policy, answers) -> None:
    from lm_eval.models.huggingface import HFLM

    ids, _ = answers
    judge = HFLM(pretrained=policy.model, tokenizer=policy.tokenizer, batch_size=2, device="cpu")
    requests = [
        (("q", f"a{row}"), list(PREFIX), ids[row, :n].tolist()) for row, n in enumerate(LENGTHS)
    ]
    wanted = torch.tensor([total for total, _ in judge._loglikelihood_tokens(requests)])
    torch.testing.assert_close(logps_of(policy, answers).sum(1), wanted, atol=1e-4, rtol=1e-5)


def test_perplexity_agrees_with_the_models_own_loss(policy, answers) -> None:
    ids, mask = answers
    found = perplexity(logps_of(policy, answers), mask)
    for row, n in enumerate(LENGTHS):
        whole = torch.tensor([[*PREFIX, *ids[row, :n].tolist()]])
        labels = whole.clone()
        labels[:, : len(PREFIX)] = -100
        with torch.no_grad():
            wanted = policy.model(input_ids=whole, labels=labels).loss.exp()
        torch.testing.assert_close(found[row], wanted, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("form", ["dr_grpo", "grpo", "dapo"])
def test_grpo_loss_agrees_with_trl(form: str, answers, tmp_path) -> None:
    """Surrogate, clip-higher, dual clip, k3 KL and reduction against a real GRPOTrainer."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    policy = random_policy("llama")
    policy.model.save_pretrained(tmp_path / "base")  # where the trainer finds its reference
    policy.model.config._name_or_path = str(tmp_path / "base")
    ids, mask = answers
    beta, limit = 0.05, 9
    trainer = GRPOTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_dict({"prompt": ["a"] * 4}),
        args=GRPOConfig(
            output_dir=str(tmp_path),
            loss_type=form,
            scale_rewards="none",
            beta=beta,
            epsilon=0.2,
            epsilon_high=0.28,
            delta=3.0,
            use_bias_correction_kl=False,
            max_completion_length=limit,
            per_device_train_batch_size=4,
            num_generations=4,
            report_to=[],
            bf16=False,
            use_cpu=True,
            activation_checkpointing=False,
        ),
    )
    policy.model.eval()
    torch.manual_seed(0)
    new = logps_of(policy, answers)
    old = new + 0.5 * torch.randn_like(new)
    reference = new + 0.3 * torch.randn_like(new)
    advantages = torch.tensor([1.0, -0.5, -1.5, 0.3])
    with torch.no_grad():
        wanted = trainer._compute_loss(
            policy.model,
            {
                "prompt_ids": torch.tensor([PREFIX]).expand(len(ids), -1),
                "prompt_mask": torch.ones(len(ids), len(PREFIX), dtype=torch.long),
                "completion_ids": ids,
                "completion_mask": mask.long(),
                "advantages": advantages,
                "num_items_in_batch": mask.sum(),
                "old_per_token_logps": old,
                "ref_per_token_logps": reference,
            },
        )
    per_token = surrogate_loss(new, old, advantages, clip_low=0.2, clip_high=0.28, dual_clip=3.0)
    per_token = per_token + beta * kl_estimate(new, reference, "k3")
    totals = {
        "total_answers": len(ids),
        "total_tokens": int(mask.sum()),
        "max_answer_tokens": limit,
    }
    found = reduce_tokens(per_token, mask, form, **totals)  # type: ignore[arg-type]
    assert abs(found.item()) > 1e-3
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
