"""Load a policy from one string, add LoRA, switch it off for the reference.

A model reference is ``tiny``, ``smollm2-135m``, a hub id, a folder, a ``.gguf`` file, a folder
with a PEFT adapter, or a run folder of this project (its base with its trained adapter).
Only safetensors and GGUF are read, and no code that comes with a model is ever run.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from sarlab._engine.folded_lora import folded
from sarlab._engine.weights import DATA, REPOSITORY, no_weights, resolve
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

        LongRoPE (Phi-3.5) turns *all* positions by other angles as soon as a sequence is longer
        than ``original_max_position_embeddings``, so keys that were computed before no longer fit:
        there that length is the limit.
        """
        config = self.model.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            return int(rope["original_max_position_embeddings"])
        return int(getattr(config, "max_position_embeddings", 0) or 2**31)

    @property
    def has_sliding_window(self) -> bool:
        """Whether some layer sees a window only (padding inside a row would shorten it)."""
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
    def vocabulary(self) -> int:
        """How many tokens the language-model head knows."""
        return int(self.causal_lm.get_output_embeddings().weight.shape[0])

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
        """Within the block the policy is its own reference: the adapter is switched off."""
        if not hasattr(self.model, "disable_adapter"):
            raise ValueError(
                f"Policy {self.reference!r} has no adapter, so switching it off gives no "
                "reference. Call add_lora(policy) first, or set the KL coefficient to 0."
            )
        with self.model.disable_adapter():
            yield

    @contextlib.contextmanager
    def folded(self) -> Iterator[None]:
        """Within the block, without gradients, the adapter is added into the weights it adapts.

        The same policy up to rounding (1e-6 nats), with a third of the matrix products: sampling
        and scoring with a small model are a quarter faster. Does nothing where the sum would be
        rounded (weights below float32), where the adapter is switched off, or where it is no
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
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    elif isinstance(dtype, str):
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype {dtype!r} is unknown. Choose auto, float32 or bfloat16.")
        dtype = getattr(torch, dtype)
    source, adapter = resolve(name, adapter)
    options: dict[str, Any] = {"trust_remote_code": False}
    folder = source
    if source.endswith(".gguf"):
        folder, options["gguf_file"] = os.path.split(source)
        folder = folder or "."
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # of whatever library lies beneath; re-raised with a remedy
        raise ValueError(_cannot_load(name, error)) from error
    _refuse_made_up(name, report)
    if adapter is not None:
        model = _with_adapter(model, tokenizer, Path(adapter), name)
    model.to(device).eval()
    return wrap_policy(model, tokenizer, name, prompt=_prompt_format(folder))


def wrap_policy(
    model: Any, tokenizer: Any, reference: str, prompt: PromptFormat | None = None
) -> Policy:
    """Make a :class:`Policy` of a loaded transformers model and its tokenizer."""
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
        # PEFT asks transformers for a property under its old name; nothing a user could mend.
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
    """Write how the policy wants to be asked beside its weights, where loading looks for it."""
    prompt = {"system": policy.prompt.system, "instruction": policy.prompt.instruction}
    (folder / "sarlab.json").write_text(json.dumps({"prompt": prompt}, indent=1) + "\n")


def _cannot_load(name: str, error: Exception) -> str:
    said = (str(error).strip() or repr(error)).splitlines()[0][:300]
    if "trust_remote_code" in str(error) or "custom code" in str(error):
        return (
            f"Model {name!r} would run code that comes with it, and sarlab never does "
            "(trust_remote_code stays off). Take a model whose architecture transformers has."
        )
    return (
        f"Model {name!r} could not be loaded. A reference is 'tiny', 'smollm2-135m', a hub "
        f"id, a folder with safetensors, or a .gguf file; without a network only local ones "
        f"work. The loader said: {type(error).__name__}: {said}"
    )


def _refuse_made_up(name: str, report: Any) -> None:
    """A weight that the files lack is filled with random numbers by transformers; not here."""
    missing = sorted(map(str, report["missing_keys"])) + sorted(map(str, report["mismatched_keys"]))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"The files of model {name!r} lack the weights {', '.join(missing[:3])}{more}, which "
            "would be random numbers. Fetch them again, or correct config.json: they are cut, or "
            "not those of a causal language model."
        )


def _with_adapter(model: Any, tokenizer: Any, folder: Path, name: str) -> Any:
    """The model with a PEFT adapter on top; ValueError where the two do not belong together."""
    from peft import PeftModel

    if not (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{folder} holds no adapter (no adapter_config.json). Name a PEFT folder, or a run "
            "that has been trained to its end."
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(no_weights(folder))
    if (folder / "tokenizer.json").is_file():
        try:
            own = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        except Exception as error:  # of whatever library lies beneath; re-raised with a remedy
            raise ValueError(_cannot_load(str(folder), error)) from error
        if own.get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"The adapter {folder} was trained with another vocabulary ({len(own)} tokens) "
                f"than that of {name!r} ({len(tokenizer)}). Put it on the base it was made for."
            )
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            wrapped = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except Exception as error:  # PEFT's, safetensors', torch's; re-raised with a remedy
        text = (str(error).strip() or repr(error)).splitlines()
        raise ValueError(
            f"The adapter {folder} does not fit the model {name!r}, or is damaged. Put it on the "
            f"base it was made for. The loader said: {type(error).__name__}: "
            f"{' '.join(text[:2])[:300]}"
        ) from error
    lacking = [w for w in said if "missing adapter keys" in str(w.message)]
    if lacking:
        raise ValueError(
            f"The adapter {folder} lacks weights for {name!r}: {str(lacking[0].message)[:300]}. "
            "Put it on the base it was made for."
        )
    return wrapped


def _eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every end token that the tokenizer or the model's own configuration names."""
    found: list[int] = []
    generation = getattr(model, "generation_config", None) or GenerationConfig()
    for value in (tokenizer.eos_token_id, generation.eos_token_id, model.config.eos_token_id):
        found += value if isinstance(value, list | tuple) else [value]
    ids = tuple(dict.fromkeys(int(i) for i in found if i is not None))
    if not ids:
        raise ValueError(
            "Neither the tokenizer nor the model names an end token, so answers could not end. "
            "Set tokenizer.eos_token."
        )
    return ids


def _prompt_format(folder: str) -> PromptFormat:
    """How a model wants to be asked: its folder's sarlab.json, or the default."""
    path = Path(folder) / "sarlab.json"
    if not path.exists():
        return PromptFormat()
    return PromptFormat(**json.loads(path.read_text())["prompt"])
