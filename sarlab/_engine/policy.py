"""A causal language model with its tokenizer, and the facts that sampling and scoring need."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sarlab._engine.folded_lora import folded
from sarlab.prompts import PromptFormat


@dataclass
class Policy:
    """A causal language model with its tokenizer and the facts that scoring needs."""

    model: Any
    tokenizer: Any
    reference: str
    prompt: PromptFormat
    eos_ids: tuple[int, ...]  # every id that ends an answer
    end_id: int  # the one appended to typed answers
    version: int = 0  # optimiser steps; cached prefixes carry it, so that a stale one is noticed
    memory_first: bool = False  # training with a token budget given by hand
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

    @property
    def _head_extras(self) -> tuple[float | None, ...]:
        """What follows the head's product: divisor (Granite), factor (Cohere), cap (Gemma)."""
        config = self.causal_lm.config.get_text_config()
        names = ("logits_scaling", "logit_scale", "final_logit_softcapping")
        return tuple(getattr(config, name, None) for name in names)

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
        divisor, factor, cap = self._head_extras
        if divisor:
            logits = logits / divisor
        if factor:
            logits = logits * factor
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
        head = self.causal_lm.get_output_embeddings()
        frozen = isinstance(head, nn.Linear) and not head.weight.requires_grad
        return frozen and not any(self._head_extras)

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

        The same policy up to rounding (1e-6 nats) with a third of the matrix products. It takes
        a copy of the adapted weights, so nothing is merged where the policy puts memory first.
        """
        with torch.no_grad(), contextlib.nullcontext() if self.memory_first else folded(self.model):
            yield

    def text(self, ids: list[int]) -> str:
        """Text of answer ids without the special tokens that end it."""
        return self.tokenizer.decode(
            [i for i in ids if i not in self.eos_ids], skip_special_tokens=False
        )
