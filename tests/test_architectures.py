"""The paper's four models, as tiny random ones of the same class, through both engines.

Saved to a folder and loaded from there as a downloaded model would be: LoRA, chat template,
several end tokens, scores against one plain forward, one SA-GRPO step, the adapter saved and
loaded.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from policies import (
    ARCHITECTURES,
    EOS_IDS,
    PAPER_MODELS,
    TEMPLATES,
    THINKING,
    logps_of,
    random_policy,
    save_paper_model,
)

from sarlab.config import PRESETS, TrainConfig, preset
from sarlab.experience import collect
from sarlab.job.logbook import save_adapter
from sarlab.job.training import run_training
from sarlab.launch.trl import SARTrainer, grpo_config
from sarlab.models import (
    LIMIT,
    Policy,
    add_lora,
    check_left_padding,
    difference_of,
    load_policy,
    rounding_limit,
    wrap_policy,
)
from sarlab.prompts import PromptFormat, chat_turns, conditioned_ids, end_token_id, standalone_ids
from sarlab.scoring import Prefix, answer_logps
from sarlab.tasks import load_task
from sarlab.train import grpo_steps, start

LINEAR = {
    "qwen3": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
}
LINEAR["gemma3"] = LINEAR["qwen3"]
CONFIG = TrainConfig(
    steps=1,
    questions=2,
    group_size=3,
    mini_batches=1,
    max_answer_tokens=8,
    warmup_steps=0,
    learning_rate=1e-3,
    lora_rank=4,
)
PROMPT = PromptFormat("Be brief.", "")
paper_models = pytest.mark.parametrize("name", PAPER_MODELS)


@pytest.fixture(params=PAPER_MODELS)
def folder(request, tmp_path: Path) -> Path:
    return save_paper_model(request.param, tmp_path / request.param)


def loaded(folder: Path) -> Policy:
    policy = load_policy(folder, dtype="float32", device="cpu")
    policy.prompt = PROMPT
    return policy


def plain_logps(policy: Policy, prefix: list[int], answer: list[int]) -> torch.Tensor:
    """One row, one forward, nothing cached."""
    ids = torch.tensor([prefix + answer])
    with torch.no_grad():
        logits = policy.model(input_ids=ids).logits[0].float()
    logps = torch.log_softmax(logits, dim=-1)[len(prefix) - 1 : -1]
    return logps.gather(-1, torch.tensor(answer)[:, None])[:, 0]


def plain_sar(policy: Policy, question: str, answer: list[int]) -> float:
    """Eq. 8 of the paper from two plain forwards."""
    asked = plain_logps(policy, conditioned_ids(policy.tokenizer, question, PROMPT), answer)
    alone = plain_logps(policy, standalone_ids(policy.tokenizer, PROMPT), answer)
    ppl_asked, ppl_alone = (torch.exp(-x.double().mean()).item() for x in (asked, alone))
    return max(-1.0, (ppl_alone - ppl_asked) / ppl_alone)


def gain(before: Policy, after: Policy, rows) -> float:
    """Σ advantage · change of the answer's log-prob: what a step of policy gradient must raise."""
    total = 0.0
    for row in rows:
        prefix = conditioned_ids(before.tokenizer, row["question"], PROMPT)
        change = plain_logps(after, prefix, row["answer_ids"]) - plain_logps(
            before, prefix, row["answer_ids"]
        )
        total += row["advantage"] * change.sum().item()
    return total


def test_the_presets_are_these_models_with_the_papers_data_and_alpha() -> None:
    assert set(PAPER_MODELS) == set(PRESETS) - {"paper", "lora"}
    for name in PAPER_MODELS:
        config = preset(name)
        assert (config.alpha, config.questions, config.group_size) == (0.2, 128, 6)
        assert config.task == "gsm8k+math+numinamath?limit=10000"
    assert preset("phi-3.5-mini").max_answer_tokens + 1024 == 4096
    assert preset("qwen3-4b", "ppo").model == "Qwen/Qwen3-4B-Base"


def test_it_loads_with_its_end_tokens_and_scores_as_one_plain_forward_does(folder: Path) -> None:
    policy = loaded(folder)
    assert policy.eos_ids == tuple(EOS_IDS)
    assert policy.end_id == 2
    answers = torch.tensor([[50, 51, 52, 60, 2], [70, 71, 77, 0, 0]])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    prompts = [conditioned_ids(policy.tokenizer, q, PROMPT) for q in ("3 and 4?", "And 5, then 6?")]
    found = answer_logps(
        policy,
        [Prefix(tuple(ids)) for ids in prompts],
        answers,
        mask,
        prefix_index=torch.tensor([0, 1]),
    )
    for row, prompt in enumerate(prompts):
        ids = answers[row][mask[row]].tolist()
        torch.testing.assert_close(
            found[row, : len(ids)], plain_logps(policy, prompt, ids), atol=1e-5, rtol=1e-5
        )


def test_a_long_rope_model_is_limited_to_where_its_angles_change(tmp_path: Path) -> None:
    policy = loaded(save_paper_model("phi-3.5-mini", tmp_path / "phi"))
    assert policy.context_length == 256  # of 512; a cache filled below does not fit above
    assert not policy.has_sliding_window  # its window is longer than that
    prefix, answer = [5] * 250, [30, 31, 32, 33, 34, 35]
    torch.testing.assert_close(
        logps_of(policy, Prefix(tuple(prefix)), answer),
        plain_logps(policy, prefix, answer),
        atol=1e-5,
        rtol=1e-5,
    )
    with pytest.raises(ValueError, match="at most 256"):
        logps_of(policy, Prefix(tuple(prefix)), [*answer, 36])


def test_the_workbench_takes_one_step_and_keeps_it(folder: Path, tmp_path: Path) -> None:
    base, policy = loaded(folder), add_lora(loaded(folder), rank=CONFIG.lora_rank)
    targets = {
        n.split(".lora_A")[0].split(".")[-1]
        for n, _ in policy.model.named_parameters()
        if "lora_A" in n
    }
    assert targets == LINEAR[PAPER_MODELS[folder.name][0]]
    (record,) = grpo_steps(start(policy, CONFIG), load_task("word_problems"), CONFIG)
    for row in record.rows:
        assert row["sar"] == pytest.approx(
            plain_sar(base, row["question"], row["answer_ids"]), abs=1e-4
        )
    assert gain(base, policy, record.rows) > 0
    save_adapter(policy, tmp_path / "adapter")
    again = load_policy(tmp_path / "adapter", dtype="float32", device="cpu")
    prefix = Prefix(tuple(standalone_ids(policy.tokenizer, PROMPT)))
    for one, other in ((again, policy), (base, policy)):
        near = torch.allclose(
            logps_of(one, prefix, [50, 51, 2]), logps_of(other, prefix, [50, 51, 2])
        )
        assert near == (one is again)


def test_trl_takes_one_step_and_keeps_it(folder: Path, tmp_path: Path) -> None:
    base, twin = loaded(folder), add_lora(loaded(folder), rank=CONFIG.lora_rank)
    questions = load_task("word_problems").train_batch(1, CONFIG.questions, CONFIG.seed)
    trainer = SARTrainer(loaded(folder), questions, CONFIG, grpo_config(CONFIG, tmp_path / "out"))
    theirs = dict(trainer.model.named_parameters())
    for parameter_name, parameter in twin.model.named_parameters():
        assert torch.equal(parameter, theirs[parameter_name]), parameter_name
    assert trainer.eos_token_ids == EOS_IDS
    trainer.train()
    batch, rewards = trainer.batch, trainer.rewards
    lengths = batch.rollouts.lengths.tolist()
    answers = [row[:n].tolist() for row, n in zip(batch.rollouts.answer_ids, lengths, strict=True)]
    # The model's own generation_config says top_k=1, with which a group would be three copies.
    assert len({tuple(ids) for ids in answers}) > CONFIG.questions
    rows = []
    for index, ids in enumerate(answers):
        question = questions[index // CONFIG.group_size]
        advantage = trainer._logs["advantages"][index]
        rows.append({"question": question.text, "answer_ids": ids, "advantage": advantage})
        # Every answer is wrong, so its reward is α · SAR.
        wanted = 0.2 * plain_sar(base, question.text, ids)
        assert rewards[index].item() == pytest.approx(wanted, abs=2e-5)
    trainer.model.eval()
    live = replace(trainer.policy, model=trainer.accelerator.unwrap_model(trainer.model))
    assert gain(base, live, rows) > 0
    trainer.save_model(str(tmp_path / "adapter"))
    again = load_policy(tmp_path / "adapter", dtype="float32", device="cpu")
    prefix = Prefix(tuple(standalone_ids(base.tokenizer, PROMPT)))
    torch.testing.assert_close(
        logps_of(again, prefix, [50, 51, 2]), logps_of(live, prefix, [50, 51, 2])
    )


@pytest.mark.parametrize(
    ("template", "turns", "rendered"),
    [
        ("role", ["system", "user"], "<|begin|>Be brief.<|end|><|user|>3 + 4?<|end|><|assistant|>"),
        ("folds", ["system", "user"], "<|begin|><|user|>Be brief.\n\n3 + 4?<|end|><|assistant|>"),
        ("refuses", ["user"], "<|begin|><|user|>Be brief.\n\n3 + 4?<|end|><|assistant|>"),
        ("none", ["system", "user"], "<|begin|>Be brief.\n\nUser: 3 + 4?\n\nAssistant:\n"),
    ],
)
def test_a_system_text_reaches_the_prompt_whatever_the_template_knows(
    template: str, turns: list[str], rendered: str, tmp_path: Path
) -> None:
    """Golden texts; and TRL asks the same token ids."""
    policy = loaded(save_paper_model("qwen3-1.7b", tmp_path / "model"))
    policy.tokenizer.chat_template = TEMPLATES[template]
    ids = conditioned_ids(policy.tokenizer, "3 + 4?", PROMPT)
    assert policy.tokenizer.decode(ids) == rendered
    questions = load_task("word_problems").train_batch(1, CONFIG.questions, 0)
    wanted = [conditioned_ids(policy.tokenizer, q.text, PROMPT) for q in questions]
    trainer = SARTrainer(policy, questions, CONFIG, grpo_config(CONFIG, tmp_path / "out"))
    assert trainer._tokenize_prompts(list(trainer.train_dataset["prompt"]))[0] == wanted
    if template != "none":
        messages = chat_turns(policy.tokenizer, "3 + 4?", "Be brief.")
        assert [turn["role"] for turn in messages] == turns
    assert chat_turns(policy.tokenizer, "x", None) == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize("name", PAPER_MODELS)
@pytest.mark.parametrize(
    ("shape", "thinking", "end"),
    [
        ("switch", None, "<|assistant|>"),
        ("switch", True, "<|assistant|>"),
        ("switch", False, "<|assistant|><think>\n\n</think>\n\n"),
        ("opens", None, "<|assistant|><think>\n"),
        ("strips", None, "<|assistant|>"),
    ],
)
def test_a_reasoning_template_begins_the_answer_where_it_says(
    name: str, shape: str, thinking: bool | None, end: str, tmp_path: Path
) -> None:
    """Both prefixes end alike; a sampled answer ends at a turn's end, never at a thought's."""
    policy = loaded(save_paper_model(name, tmp_path / name))
    policy.tokenizer.chat_template = THINKING[shape]
    policy.prompt = PromptFormat("Be brief.", "", thinking)
    decode = policy.tokenizer.decode
    asked = conditioned_ids(policy.tokenizer, "3 + 4?", policy.prompt)
    alone = standalone_ids(policy.tokenizer, policy.prompt)
    begin = "<|begin|>Be brief.<|end|><|user|>"
    assert decode(asked) == f"{begin}3 + 4?<|end|>{end}"
    assert decode(alone) == f"{begin}<|end|>{end}"
    assert end_token_id(policy.tokenizer, policy.eos_ids) == 2
    config = replace(CONFIG, max_answer_tokens=160)
    batch = collect(
        policy, load_task("word_problems").train_batch(1, 2, 0), config, seed="0", group_size=3
    )
    for ids, length, cut in zip(
        batch.rollouts.answer_ids, batch.inputs.lengths, batch.rollouts.truncated, strict=True
    ):
        own = ids[: int(length)].tolist()
        assert not set(own[:-1]) & set(EOS_IDS)
        assert cut == (own[-1] not in EOS_IDS)


def test_thinking_without_a_template_for_it_is_refused(tmp_path: Path) -> None:
    tokenizer = random_policy("llama").tokenizer
    with pytest.raises(ValueError, match=r"thinking is False.*no enable_thinking.*'auto'"):
        conditioned_ids(tokenizer, "3 + 4?", PromptFormat(None, "", False))
    with pytest.raises(ValueError, match="thinking is 'maybe'; choose one of auto, on, off"):
        TrainConfig(thinking="maybe")
    with pytest.raises(ValueError, match="no enable_thinking"):
        run_training(replace(CONFIG, thinking="off"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("thinking", ["off", "auto"])
def test_trl_gets_the_same_thought(thinking: str, tmp_path: Path) -> None:
    """Also where the policy's stored format decides, as after training with thinking off."""
    policy = loaded(save_paper_model("qwen3-1.7b", tmp_path / "model"))
    policy.tokenizer.chat_template = THINKING["switch"]
    policy.prompt = PromptFormat("Be brief.", "", False)
    config = replace(CONFIG, thinking=thinking)
    questions = load_task("word_problems").train_batch(1, CONFIG.questions, 0)
    trainer = SARTrainer(policy, questions, config, grpo_config(config, tmp_path / "out"))
    ids = trainer._tokenize_prompts(list(trainer.train_dataset["prompt"]))[0]
    assert policy.tokenizer.decode(ids[0]).endswith("<|assistant|><think>\n\n</think>\n\n")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_thought_of_1200_tokens_is_scored_as_one_plain_forward_does(architecture: str) -> None:
    """It is longer than a chunk of the trunk (1,024 tokens); Gemma's window slides over it."""
    policy = random_policy(architecture, max_position_embeddings=2048)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, len(policy.tokenizer), (1200,), generator=generator).tolist()
    prefix = Prefix(tuple(conditioned_ids(policy.tokenizer, "3 + 4?", policy.prompt)))
    torch.testing.assert_close(
        logps_of(policy, prefix, ids),
        plain_logps(policy, list(prefix.ids), ids),
        atol=1e-4,
        rtol=1e-5,
    )


SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
}
LINEAR_ATTENTION = {
    "num_hidden_layers": 4,
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
PARTS = ("head", "cache", "padding", "sampling")
# class and configuration of transformers, fields beside SHAPE, the part that the refusal names
REFUSED: dict[str, tuple[str, str, dict, str]] = {
    "modernbert-decoder": (
        "ModernBertDecoderForCausalLM",
        "ModernBertDecoderConfig",
        {"cls_token_id": 1, "sep_token_id": 2},
        "the head",
    ),
    "recurrentgemma": (
        "RecurrentGemmaForCausalLM",
        "RecurrentGemmaConfig",
        {"num_hidden_layers": 3, "lru_width": 32, "head_dim": 8},
        "the head",
    ),
    "llama-4": (
        "Llama4ForCausalLM",
        "Llama4TextConfig",
        {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 64},
        "the head",
    ),
    "mpt": (
        "MptForCausalLM",
        "MptConfig",
        {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512, "expansion_ratio": 2},
        "positions and padding",
    ),
    "mamba": ("MambaForCausalLM", "MambaConfig", {"state_size": 8}, "the cache"),
    "rwkv": ("RwkvForCausalLM", "RwkvConfig", {"context_length": 512}, "the cache"),
    "qwen3-next": (
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        {
            **LINEAR_ATTENTION,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
        "the cache",
    ),
    "qwen3.5": ("Qwen3_5ForCausalLM", "Qwen3_5TextConfig", LINEAR_ATTENTION, "the cache"),
    "jamba": (
        "JambaForCausalLM",
        "JambaConfig",
        {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 8},
        "the cache",
    ),
    "falcon-h1": (
        "FalconH1ForCausalLM",
        "FalconH1Config",
        {"head_dim": 8, "mamba_d_ssm": 64, **MAMBA},
        "the cache",
    ),
    "bamba": ("BambaForCausalLM", "BambaConfig", {"attn_layer_indices": [1], **MAMBA}, "the cache"),
    "lfm2": (
        "Lfm2ForCausalLM",
        "Lfm2Config",
        {"layer_types": ["conv", "full_attention"]},
        "the cache",
    ),
}


def random_model(class_name: str, config_name: str, changes: dict, vocabulary: int):
    """A small random model of any class of transformers, its logits spread as a trained one's."""
    shape = {} if "d_model" in changes else SHAPE
    config = getattr(transformers, config_name)(
        **{"eos_token_id": 2, "vocab_size": vocabulary, **shape, **changes}
    )
    torch.manual_seed(0)
    model = getattr(transformers, class_name)(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3.0)
    return model.eval()


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_would_give_other_numbers_is_refused_and_told_why(name: str) -> None:
    *made_of, part = REFUSED[name]
    tokenizer = random_policy("llama").tokenizer
    model = random_model(*made_of, len(tokenizer))
    with pytest.raises(
        ValueError, match=f"(?s){name}.*is refused: .*What differs is {part}"
    ) as told:
        wrap_policy(model, tokenizer, name)
    assert "Take a model with plain attention, such as Llama" in str(told.value)


def test_positions_that_count_padding_are_refused_on_the_trl_path_only(tmp_path: Path) -> None:
    """GPT-2's own path is right to 1e-6; TRL pads on the left without positions: 0.6 nats off."""
    tokenizer = random_policy("llama").tokenizer
    model = random_model("GPT2LMHeadModel", "GPT2Config", {}, len(tokenizer))
    policy = wrap_policy(model, tokenizer, "gpt2")
    assert max(difference_of(policy, part) for part in PARTS) < 1e-5
    questions = load_task("word_problems").train_batch(1, CONFIG.questions, 0)
    with pytest.raises(ValueError, match=r"cannot be trained by TRL.*move by up to 0\.[0-9]+ nats"):
        SARTrainer(policy, questions, CONFIG, grpo_config(CONFIG, tmp_path / "out"))
    check_left_padding(random_policy("llama"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@paper_models
def test_the_papers_models_pass_by_a_wide_margin(name: str, dtype: torch.dtype) -> None:
    """Rounding stays below a hundredth of the limit in float32, a half of its own in bfloat16."""
    architecture, changes, _ = PAPER_MODELS[name]
    policy = random_policy(architecture, **changes)
    policy.model.to(dtype)
    limit = rounding_limit(policy)
    difference = max(difference_of(policy, part) for part in PARTS)
    assert (limit == LIMIT) == (dtype == torch.float32)
    assert difference < limit * (0.01 if dtype == torch.float32 else 0.5)


def test_a_wrong_head_is_refused_in_bfloat16_as_well() -> None:
    *made_of, part = REFUSED["modernbert-decoder"]
    tokenizer = random_policy("llama").tokenizer
    model = random_model(*made_of, len(tokenizer)).to(torch.bfloat16)
    with pytest.raises(ValueError, match=f"What differs is {part}"):
        wrap_policy(model, tokenizer, "modernbert-decoder")
