"""What a model is made of, as far as its cost is concerned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that decide what it costs. Norms and biases are left out."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = True  # embedding and language-model head are one matrix

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer: query, key, value, output; gate, up, down."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def trunk_parameters(self) -> int:
        """Weights that every token passes through."""
        return self.layers * self.layer_parameters

    @property
    def head_parameters(self) -> int:
        """Weights of the language-model head."""
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.trunk_parameters + self.head_parameters * (1 if self.tied else 2)

    @property
    def kv_floats(self) -> int:
        """Numbers that a token leaves in the key-value cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def activation_floats(self) -> int:
        """Numbers that a token leaves for the backward pass through frozen weights.

        A layer keeps the input and output of both norms, query, key, value and output of
        attention (keys and values repeated for every head), and four tensors of its MLP.
        """
        layer = 4 * self.hidden + 6 * self.heads * self.head_dim + 4 * self.intermediate
        return self.layers * layer

    def adapter_parameters(self, rank: int) -> int:
        """Weights of a LoRA on all linear layers of the trunk: rank · (inputs + outputs)."""
        heads, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * (self.hidden + heads) + 2 * (self.hidden + kv)
        return rank * self.layers * (attention + 3 * (self.hidden + self.intermediate))


# From the models' own config.json.
SHAPES = {
    s.name: s
    for s in (
        Shape("tiny", 4, 128, 384, 4, 4, 32, 670),
        Shape("smollm2-135m", 30, 576, 1536, 9, 3, 64, 49_152),
        Shape("Qwen3-1.7B", 28, 2048, 6144, 16, 8, 128, 151_936),
        Shape("Qwen3-4B", 36, 2560, 9728, 32, 8, 128, 151_936),
        Shape("Qwen3-8B", 36, 4096, 12_288, 32, 8, 128, 151_936, tied=False),
        Shape("Phi-3.5-mini", 32, 3072, 8192, 32, 32, 96, 32_064, tied=False),
        # Its sliding windows are not counted: cache and attention are upper bounds.
        Shape("Gemma3-1B", 26, 1152, 6912, 4, 1, 256, 262_144),
    )
}


def shape_of(model: Any) -> Shape:
    """The shape of a model: a name in ``SHAPES``, a hub id or folder, or a loaded model's config.

    Raises ValueError for a configuration that is no plain decoder.
    """
    if isinstance(model, Shape):
        return model
    if isinstance(model, str) and model in SHAPES:
        return SHAPES[model]
    name = model
    if isinstance(model, str):
        from transformers import AutoConfig

        model = AutoConfig.from_pretrained(model, trust_remote_code=False)
    config = model.get_text_config()
    name = name if isinstance(name, str) else config.model_type
    sizes = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    missing = [size for size in sizes if not isinstance(getattr(config, size, None), int)]
    if missing or getattr(config, "num_experts", None) or getattr(config, "num_local_experts", 0):
        raise ValueError(
            f"The configuration of {name!r} is not that of a plain decoder (missing: {missing}, "
            "or experts). Write its Shape by hand, counting what one token passes through."
        )
    heads = config.num_attention_heads
    return Shape(
        name=name,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=config.vocab_size,
        tied=bool(getattr(config, "tie_word_embeddings", False)),
    )
