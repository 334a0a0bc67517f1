"""Random small policies of every architecture, with the embedded tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sarlab.models import DATA, Policy, wrap_policy
from sarlab.prompts import PromptFormat
from sarlab.scoring import Prefix, answer_block, answer_logps

ARCHITECTURES = ("llama", "qwen3", "phi3", "gemma3")


def random_policy(architecture: str, seed: int = 0, **changes) -> Policy:
    """A randomly initialised model of a real architecture, with the embedded tokenizer.

    ``changes`` are further fields of its configuration.
    """
    tokenizer = AutoTokenizer.from_pretrained(DATA / "models" / "tiny")
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **changes,
    }
    torch.manual_seed(seed)
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape))
    elif architecture == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**shape))
    elif architecture == "phi3":
        shape.pop("head_dim")  # it has no field of that name
        model = Phi3ForCausalLM(Phi3Config(**shape))
    else:
        # A window shorter than the sequences, so that it takes effect in the tests.
        model = Gemma3ForCausalLM(Gemma3TextConfig(**{"sliding_window": 8, **shape}))
    for parameter in model.parameters():  # spread the logits, so that orderings are clear
        if parameter.dim() > 1:
            parameter.data.mul_(3.0)
    return wrap_policy(model.eval(), tokenizer, architecture, PromptFormat(None, ""))


def logps_of(policy: Policy, prefix: Prefix, ids: Sequence[int], **options) -> torch.Tensor:
    """Log-probs [T] of one answer, given as a list of ids, on a prefix."""
    block, mask = answer_block([ids])
    return answer_logps(policy, prefix, block, mask, **options)[0]


# How chat templates treat a system turn, written with the embedded tokenizer's special tokens.
_ASKED = "<|user|>{{ system + m['content'] }}<|end|>"
_ANSWERED = "<|assistant|>{{ m['content'] }}<|end|>"
_TURNS = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}" + _ASKED + "{% elif m['role'] == 'assistant' %}" + _ANSWERED
)
_END = "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
_FIRST = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\\n\\n' %}"
    "{% else %}{% set system = '' %}{% endif %}"
)
TEMPLATES: dict[str, str | None] = {
    # Qwen3, Phi-3.5: a role of its own.
    "role": "{% set system = '' %}" + _TURNS + "{% else %}{{ m['content'] }}<|end|>" + _END,
    # Gemma 3: put before the first user turn.
    "folds": _FIRST + _TURNS + _END,
    # Gemma 2: an error.
    "refuses": "{% set system = '' %}" + _TURNS + "{% else %}{{ raise_exception('no') }}" + _END,
    # A base model's tokenizer.
    "none": None,
}
# The shapes of published reasoning templates: a thought that the model opens unless told not to
# (Qwen3), one that the prompt opens (DeepSeek-R1, QwQ), a thought that past turns lose.
_BEGIN = "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>"
_ROLE = "{% set system = '' %}" + _TURNS + "{% else %}{{ m['content'] }}<|end|>"
THINKING = {
    "switch": _ROLE + _BEGIN + "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}",
    "opens": _ROLE + _BEGIN + "{{ '<think>\\n' }}{% endif %}",
    "strips": _ROLE.replace(
        "{{ m['content'] }}<|end|>{% else", "{{ m['content'].split('</think>')[-1] }}<|end|>{% else"
    )
    + _BEGIN
    + "{% endif %}",
}
# preset: class of transformers, what its configuration has beside the usual, its template
PAPER_MODELS: dict[str, tuple[str, dict, str]] = {
    "qwen3-1.7b": ("qwen3", {"tie_word_embeddings": True}, "role"),
    "qwen3-4b": ("qwen3", {"tie_word_embeddings": True, "head_dim": 12}, "none"),
    "phi-3.5-mini": (
        "phi3",
        {
            "tie_word_embeddings": False,
            "original_max_position_embeddings": 256,
            "rope_scaling": {
                "rope_type": "longrope",
                "short_factor": [1.0, 1.1, 1.2, 1.3],
                "long_factor": [2.0, 4.0, 8.0, 16.0],
            },
            "sliding_window": 262_144,
        },
        "role",
    ),
    "gemma3-1b": ("gemma3", {"query_pre_attn_scalar": 16}, "folds"),
}
EOS_IDS = [2, 77]  # several, as Phi-3.5 and Gemma 3 have; 2 ends a turn


def save_paper_model(name: str, folder: Path, seed: int = 0) -> Path:
    """A folder such as the hub's, of the same class as one of the paper's models, but tiny."""
    architecture, changes, template = PAPER_MODELS[name]
    policy = random_policy(architecture, seed, **changes)
    policy.tokenizer.chat_template = TEMPLATES[template]
    # What the published generation_config.json hold: several end tokens, and a sampling that must
    # not be taken over.
    policy.model.generation_config.update(eos_token_id=EOS_IDS, do_sample=True, top_k=1)
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder
