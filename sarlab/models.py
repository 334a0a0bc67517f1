"""The policy: a model with its tokenizer, loaded from one string, with or without a LoRA.

A model reference is ``tiny``, ``smollm2-135m``, a hub id, a folder, a ``.gguf`` file, a folder
with a PEFT adapter, or a run folder of this project (its base with its trained adapter).
Only safetensors and GGUF are read, and no code that comes with a model is ever run.
"""

import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import GenerationConfig

from sarlab._engine.policy import Policy
from sarlab._engine.weights import DATA, REPOSITORY, load_weights
from sarlab.prompts import PromptFormat, end_token_id, fix_date
from sarlab.rollout import sample
from sarlab.scoring import Prefix, answer_block, answer_logps

__all__ = ["DATA", "REPOSITORY", "Policy", "add_lora", "export_policy", "load_policy"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
    stored = Path(folder) / "sarlab.json"
    prompt = PromptFormat(**json.loads(stored.read_text())["prompt"]) if stored.exists() else None
    return wrap_policy(model, tokenizer, name, prompt)


def wrap_policy(
    model: Any, tokenizer: Any, reference: str, prompt: PromptFormat | None = None
) -> Policy:
    """A :class:`Policy` from a loaded transformers model and its tokenizer, checked."""
    fix_date(tokenizer)
    # Every end token that the tokenizer or the model's own configuration names.
    generation = getattr(model, "generation_config", None) or GenerationConfig()
    named = (tokenizer.eos_token_id, generation.eos_token_id, model.config.eos_token_id)
    lists = (value if isinstance(value, list | tuple) else [value] for value in named)
    eos_ids = tuple(dict.fromkeys(int(i) for some in lists for i in some if i is not None))
    if not eos_ids:
        raise ValueError(
            "Neither the tokenizer nor the model names an end token, so answers could not end. "
            "Set tokenizer.eos_token."
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"The tokenizer of {reference!r} has {len(tokenizer)} tokens, the model {rows} "
            "embeddings: they do not belong together. Load both from one folder."
        )
    end_id = end_token_id(tokenizer, eos_ids)
    policy = Policy(model, tokenizer, reference, prompt or PromptFormat(), eos_ids, end_id)
    check_policy(policy)
    return policy


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

    return LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def export_policy(policy: Policy, folder: Path, *, merge: bool = False) -> Path:
    """Write the adapter, or the base with the adapter merged into it, for other tools to load."""
    if not hasattr(policy.model, "peft_config"):
        raise ValueError(f"Policy {policy.reference!r} has no adapter to export.")
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty. Export into a new folder.")
    if merge:
        # Merging works in place, so it is done on a second copy of the base.
        from peft import PeftModel

        base = load_policy(policy.reference, dtype="float32", device="cpu")
        with tempfile.TemporaryDirectory() as scratch:
            policy.model.save_pretrained(scratch, selected_adapters=["default"])
            merged = PeftModel.from_pretrained(base.model, scratch).merge_and_unload()
        merged.save_pretrained(folder)
    else:
        policy.model.save_pretrained(folder, selected_adapters=["default"])
    policy.tokenizer.save_pretrained(folder)
    save_prompt_format(policy, folder)
    return folder


def save_prompt_format(policy: Policy, folder: Path) -> None:
    """Write the policy's prompt format beside its weights, where loading looks for it."""
    text = json.dumps({"prompt": asdict(policy.prompt)}, indent=1)
    (folder / "sarlab.json").write_text(text + "\n")


# --- the self-check: does this model give the right numbers here? ---------------------------------
#
# Two prefixes of unequal length, with a few tokens each, go through sampling and scoring, and once
# more row by row through ``model(input_ids)``: nothing cached, nothing padded.

LIMIT = 1e-3  # nats, float32 weights; models that are right stay below 1e-4
_PREFIXES = (5, 12)  # tokens: of unequal length, so that one is padded
_SAMPLED = 3  # tokens behind each prefix
_SAFE = "Take a model with plain attention, such as Llama, Qwen2, Qwen3, Gemma, Mistral or Phi-3."
# What an architecture's own code raises when it is called in a way that it does not know.
_ERRORS = (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
# From the simplest part on; each one leans on those before it.
_PARTS = {
    "head": "the head: logits are not the last hidden states times the output embedding",
    "cache": "the cache: this architecture keeps another state than keys and values, or none",
    "padding": "positions and padding: this architecture counts the padding between a prefix and "
    "its answer as tokens",
    "sampling": "sampling: this architecture does not read a growing cache as it does its own",
}
_passed: set[tuple[str, ...]] = set()  # class, configuration and type of weights that agreed


def check_policy(policy: Policy) -> None:
    """Raise ValueError where scoring or sampling differ from the model's own plain forward.

    The limit is that of :func:`rounding_limit`. The sentence names the part that differs. An
    architecture is checked once per process, configuration and type of weights.
    """
    kind = type(policy.causal_lm).__name__
    weights = f"{policy.dtype} {policy.device.type} {hasattr(policy.model, 'peft_config')}"
    key = (kind, str(policy.model.config.to_json_string()), weights)
    if key in _passed:
        return
    name = f"Model {policy.reference!r} ({kind})"

    def said(error: Exception) -> str:
        text = (str(error).strip() or "no text").splitlines()[0][:160]
        return f"{type(error).__name__}: {text}"

    try:
        limit = rounding_limit(policy)
    except _ERRORS as error:
        raise ValueError(
            f"{name} does not answer a plain forward of token ids: {said(error)}. {_SAFE}"
        ) from error

    def problem(part: str) -> str | None:
        try:
            largest = difference_of(policy, part)
        except _ERRORS as error:
            return f"its layers do not work as sarlab calls them ({said(error)})"
        if largest <= limit:
            return None
        return (
            f"log-probs would lie up to {largest:.2g} nats from those of its own plain forward "
            f"(limit {limit:.2g})"
        )

    if problem("sampling") or problem("padding"):  # the way of a step; the rest only explains it
        for part, reason in _PARTS.items():
            if text := problem(part):
                raise ValueError(f"{name} is refused: {text}. What differs is {reason}. {_SAFE}")
    _passed.add(key)


def check_left_padding(policy: Policy) -> None:
    """Raise ValueError where padding on the left, as TRL does it, changes the model's log-probs.

    TRL passes a mask and no positions; a model with learned positions then counts the padding.
    """
    limit, largest = rounding_limit(policy), difference_of(policy, "left padding")
    if not largest <= limit:
        raise ValueError(
            f"Model {policy.reference!r} ({type(policy.causal_lm).__name__}) cannot be trained by "
            f"TRL, which pads prompts on the left and passes no positions: log-probs move by up "
            f"to {largest:.2g} nats (limit {limit:.2g}). Train it with sarlab's own loop "
            "(notebook 02), or take a model with rotary positions."
        )


@torch.no_grad()
def difference_of(policy: Policy, part: str) -> float:
    """How far log-probs of a part of :data:`_PARTS` lie from the plain forward's, nats."""
    rows = _check_rows(policy)
    starts: Sequence[int] = (1, 1) if part in ("head", "left padding") else _PREFIXES
    prefixes = [Prefix(row[:n]) for row, n in zip(rows, _PREFIXES, strict=True)]
    if part == "sampling":
        endless = replace(policy, eos_ids=(-1,))  # an end token would end the check early
        drawn = sample(
            endless, prefixes, group_size=1, max_answer_tokens=_SAMPLED, seed="self-check"
        )
        rows = [(*p.ids, *ids) for p, ids in zip(prefixes, drawn.answer_ids.tolist(), strict=True)]
        logps = list(drawn.logps)
    elif part in ("cache", "padding"):  # one answer of three tokens, and one of two beside it
        both = part == "padding"
        rows, starts = ([rows[0][:-1], rows[1]], starts) if both else (rows[1:], starts[1:])
        block = answer_block([row[n:] for row, n in zip(rows, starts, strict=True)])
        index = torch.arange(len(rows))
        logps = list(answer_logps(policy, prefixes[-len(rows) :], *block, prefix_index=index))
    elif part == "head":
        rows = rows[1:]
        ids = torch.tensor(rows, device=policy.device)
        hidden = policy.trunk(input_ids=ids, use_cache=False).last_hidden_state[0, :-1]
        logps = [_of_targets(policy.logits(hidden), rows[0][1:])]
    else:  # left padding
        short, long = (torch.tensor(row, device=policy.device) for row in rows)
        missing = len(long) - len(short)
        ids = torch.stack([pad(short, (missing, 0)), long])
        mask = torch.ones_like(ids)
        mask[0, :missing] = 0
        logits = policy.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        logps = [_of_targets(logits[n, -len(row) : -1], row[1:]) for n, row in enumerate(rows)]
    differences = []
    for row, start, found in zip(rows, starts, logps, strict=False):
        plain = _of_targets(_plain_logits(policy, [row])[0, start - 1 : -1], row[start:])
        differences.append((found[: len(plain)].to(plain.device) - plain).abs().max().item())
    return float(torch.tensor(differences).max())  # NaN stays


@torch.no_grad()
def rounding_limit(policy: Policy) -> float:
    """Largest difference in nats that rounding alone explains for a policy's weights.

    float32: :data:`LIMIT`. For smaller types it is measured on the model itself: six times the
    root mean square by which log-probs move when a row runs beside copies of itself (another
    shape, so other sums), plus the rounding of the largest logit.
    """
    moved, largest = 0.0, 0.0
    for row in _check_rows(policy):
        plain = _plain_logits(policy, [row])[0]
        if policy.dtype == torch.float32:
            return LIMIT
        logits = _plain_logits(policy, [row] * 8)[0]
        change = torch.log_softmax(logits, dim=-1) - torch.log_softmax(plain, dim=-1)
        moved = max(moved, change.square().mean().sqrt().item())
        largest = max(largest, logits.abs().max().item())
    return LIMIT + 6 * moved + largest * torch.finfo(policy.dtype).eps


def _check_rows(policy: Policy) -> list[tuple[int, ...]]:
    """Two prefixes of unequal length, each with as many ids behind it as are sampled."""
    generator = torch.Generator().manual_seed(0)
    ids = min(len(policy.tokenizer), policy.model.get_input_embeddings().weight.shape[0])
    sizes = [length + _SAMPLED for length in _PREFIXES]
    return [tuple(torch.randint(ids, (n,), generator=generator).tolist()) for n in sizes]


def _plain_logits(policy: Policy, rows: list[tuple[int, ...]]) -> Tensor:
    """Float32 logits [B, T, V] of rows of one length: one forward, nothing cached or padded."""
    ids = torch.tensor(rows, device=policy.device)
    return policy.model(input_ids=ids, use_cache=False).logits.float()


def _of_targets(logits: Tensor, targets: Sequence[int]) -> Tensor:
    """Log-probs [N] of the targets from logits [N, V]; NaN stays."""
    logps = torch.log_softmax(logits.float(), dim=-1)
    return logps.gather(-1, torch.tensor(targets, device=logits.device)[:, None])[:, 0]
