"""The policy: a model with its tokenizer, loaded from one string, with or without a LoRA.

A model reference is ``tiny``, ``smollm2-135m``, a hub id, a folder, a ``.gguf`` file, a folder
with a PEFT adapter, or a run folder of this project (its base with its trained adapter).
Only safetensors and GGUF are read, and no code that comes with a model is ever run.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from sarlab._engine.folded_lora import folded
from sarlab._engine.weights import DATA, REPOSITORY, load_weights
from sarlab.prompts import PromptFormat, end_token_id

__all__ = [
    "DATA",
    "REPOSITORY",
    "Policy",
    "add_lora",
    "export_policy",
    "load_policy",
    "wrap_policy",
]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Policy:
    """A causal language model with its tokenizer and the facts that scoring needs.

    ``eos_ids``: every id that ends an answer. ``end_id``: the one appended to typed answers.
    ``version`` counts optimiser steps; cached prefixes carry it, so that a stale one is noticed.
    """

    model: Any
    tokenizer: Any
    reference: str
    prompt: PromptFormat
    eos_ids: tuple[int, ...]
    end_id: int
    version: int = 0
    _float_head: Tensor | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the base weights."""
        return self.causal_lm.get_input_embeddings().weight.dtype

    @property
    def causal_lm(self) -> Any:
        """The transformers model, LoRA layers included, without PEFT's wrapper."""
        return self.model.base_model.model if hasattr(self.model, "peft_config") else self.model

    @property
    def trunk(self) -> nn.Module:
        """The model without its language-model head: ids in, final hidden states out."""
        return self.causal_lm.base_model

    @property
    def context_length(self) -> int:
        """Longest sequence in tokens that the model was made for.

        LongRoPE (Phi-3.5) rotates *all* positions by other angles once a sequence is longer than
        ``original_max_position_embeddings``, so that cached keys no longer fit: there that length
        is the limit.
        """
        config = self.model.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            return int(rope["original_max_position_embeddings"])
        return int(getattr(config, "max_position_embeddings", 0) or 2**31)

    @property
    def has_sliding_window(self) -> bool:
        """Whether some layer attends to a window only (padding inside a row would shorten it)."""
        config = self.model.config.get_text_config()
        kinds = getattr(config, "layer_types", None)
        if kinds is not None:
            return any(kind != "full_attention" for kind in kinds)
        window = getattr(config, "sliding_window", None)
        return window is not None and window < self.context_length

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [N, H] to float32 logits [N, V], in float32 also for bfloat16 weights."""
        head = self.causal_lm.get_output_embeddings()
        if head.weight.dtype == torch.float32:
            logits = head(hidden)
        else:
            # Rounding logits to bfloat16 would move log-probs by up to 2^-8 of their size.
            logits = hidden.float() @ self.head_weight.T
            if getattr(head, "bias", None) is not None:
                logits = logits + head.bias.float()
        config = self.causal_lm.config.get_text_config()
        if getattr(config, "logits_scaling", None):  # Granite
            logits = logits / config.logits_scaling
        if getattr(config, "logit_scale", None):  # Cohere
            logits = logits * config.logit_scale
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma
        return torch.tanh(logits / cap) * cap if cap else logits

    @property
    def head_weight(self) -> Tensor:
        """The language-model head [V, H] in float32, without gradient."""
        weight = self.causal_lm.get_output_embeddings().weight.detach()
        if weight.dtype == torch.float32:
            return weight
        if self._float_head is None:
            self._float_head = weight.float()
        return self._float_head

    @property
    def has_linear_head(self) -> bool:
        """Whether logits are the frozen head's product and nothing more (no scale, no cap)."""
        config = self.causal_lm.config.get_text_config()
        extras = ("logits_scaling", "logit_scale", "final_logit_softcapping")
        head = self.causal_lm.get_output_embeddings()
        return (
            isinstance(head, nn.Linear)
            and not head.weight.requires_grad
            and not any(getattr(config, name, None) for name in extras)
        )

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[None]:
        """Within the block the adapter is switched off: the policy before training."""
        if not hasattr(self.model, "disable_adapter"):
            raise ValueError(
                f"Policy {self.reference!r} has no adapter, so switching it off gives no "
                "reference. Call add_lora(policy) first, or set the KL coefficient to 0."
            )
        with self.model.disable_adapter():
            yield

    @contextlib.contextmanager
    def folded(self) -> Iterator[None]:
        """Within the block, without gradients, the adapter is merged into the base weights.

        The same policy up to rounding (1e-6 nats) with a third of the matrix products: sampling
        and scoring with a small model are a quarter faster. Does nothing where the sum would be
        rounded (weights below float32), where the adapter is switched off, or where it is not a
        plain LoRA. With gradients: :func:`sarlab._engine.folded_lora.folded`.
        """
        with torch.no_grad(), folded(self.model):
            yield

    def text(self, ids: list[int]) -> str:
        """Text of answer ids without the special tokens that end it."""
        return self.tokenizer.decode(
            [i for i in ids if i not in self.eos_ids], skip_special_tokens=False
        )


def load_policy(
    reference: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: torch.dtype | str = "auto",
    device: str = "auto",
) -> Policy:
    """Load a policy, ready to score: evaluation mode, dropout off.

    ``dtype="auto"`` is float32 on a CPU and bfloat16 on a GPU; scores are float32 either way.
    ``adapter`` is a PEFT folder put on top. Raises ValueError for an unknown reference, one that
    would need foreign code, or one that ships pickled weights only.
    """
    name = str(reference)
    if not name.strip():
        raise ValueError("The model reference is empty. Name one: 'tiny', 'smollm2-135m', …")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    if isinstance(dtype, str):
        if dtype not in _DTYPES:
            raise ValueError(f"dtype {dtype!r} is unknown. Choose auto, float32 or bfloat16.")
        dtype = _DTYPES[dtype]
    model, tokenizer, folder = load_weights(name, adapter, dtype)
    model.to(device).eval()
    return wrap_policy(model, tokenizer, name, prompt=_prompt_format(folder))


def wrap_policy(
    model: Any, tokenizer: Any, reference: str, prompt: PromptFormat | None = None
) -> Policy:
    """A :class:`Policy` from a loaded transformers model and its tokenizer."""
    eos_ids = _eos_ids(model, tokenizer)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"The tokenizer of {reference!r} has {len(tokenizer)} tokens, the model {rows} "
            "embeddings: they do not belong together. Load both from one folder."
        )
    return Policy(
        model=model,
        tokenizer=tokenizer,
        reference=reference,
        prompt=prompt or PromptFormat(),
        eos_ids=eos_ids,
        end_id=end_token_id(tokenizer, eos_ids),
    )


def add_lora(policy: Policy, *, rank: int = 16, alpha: int = 32, seed: int = 0) -> Policy:
    """Wrap the policy's model with a trainable LoRA on all linear layers; dropout stays 0.

    The same seed gives the same initial adapter. Base weights are frozen.
    """
    from peft import get_peft_model

    if hasattr(policy.model, "peft_config"):
        raise ValueError(f"Policy {policy.reference!r} has an adapter already.")
    devices = [policy.device] if policy.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        # PEFT asks transformers for a property under its old name; nothing that a user can change.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        torch.manual_seed(seed)
        model = get_peft_model(policy.model, lora_config(rank, alpha))
    model.eval()  # no dropout anywhere, in updates either: ratios start at exactly one
    policy.model = model
    return policy


def lora_config(rank: int = 16, alpha: int = 32) -> Any:
    """The LoRA of every engine (a PEFT ``LoraConfig``): all linear layers, no dropout."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def export_policy(policy: Policy, folder: Path, *, merge: bool = False) -> Path:
    """Write the adapter, or the base with the adapter merged into it, for other tools to load."""
    if not hasattr(policy.model, "peft_config"):
        raise ValueError(f"Policy {policy.reference!r} has no adapter to export.")
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty. Export into a new folder.")
    if merge:
        # Merging works in place, so it is done on a second copy of the base.
        base = load_policy(policy.reference, dtype="float32", device="cpu")
        with tempfile.TemporaryDirectory() as scratch:
            policy.model.save_pretrained(scratch, selected_adapters=["default"])
            from peft import PeftModel

            merged = PeftModel.from_pretrained(base.model, scratch).merge_and_unload()
        merged.save_pretrained(folder)
    else:
        policy.model.save_pretrained(folder, selected_adapters=["default"])
    policy.tokenizer.save_pretrained(folder)
    save_prompt_format(policy, folder)
    return folder


def save_prompt_format(policy: Policy, folder: Path) -> None:
    """Write the policy's prompt format beside its weights, where loading looks for it."""
    prompt = {"system": policy.prompt.system, "instruction": policy.prompt.instruction}
    (folder / "sarlab.json").write_text(json.dumps({"prompt": prompt}, indent=1) + "\n")


def _eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every end token that the tokenizer or the model's own configuration names."""
    candidates: list[int | None] = []
    generation = getattr(model, "generation_config", None) or GenerationConfig()
    for value in (tokenizer.eos_token_id, generation.eos_token_id, model.config.eos_token_id):
        candidates += value if isinstance(value, list | tuple) else [value]
    ids = tuple(dict.fromkeys(int(i) for i in candidates if i is not None))
    if not ids:
        raise ValueError(
            "Neither the tokenizer nor the model names an end token, so answers could not end. "
            "Set tokenizer.eos_token."
        )
    return ids


def _prompt_format(folder: str) -> PromptFormat:
    """The prompt format in a model folder's sarlab.json, or the default."""
    path = Path(folder) / "sarlab.json"
    if not path.exists():
        return PromptFormat()
    return PromptFormat(**json.loads(path.read_text())["prompt"])
