"""The only scoring and training forward: answers on top of prefixes, each prefix computed once.

All answers share the standalone prefix and a group shares its question, so a prefix is run
through the trunk once; its keys and values are then handed to every answer that stands on it.
The language-model head runs on answer positions only, in slices, with log-softmax in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from sarlab._engine.micro_batches import run_in_batches
from sarlab.policy import Policy

Cache = tuple[tuple[Tensor, Tensor], ...]  # keys and values [rows, heads, length, dim] per layer
OUTPUTS = ("logps", "entropy", "ranks", "top")
TOP = 5
_HEAD_SLICE = 1 << 23  # logits held at once: 32 MiB in float32


@dataclass(frozen=True)
class Prefix:
    """What answers stand on: its ids and, once computed, its keys, values and hidden states.

    ``hidden`` [length, H]. ``version`` is the policy's at the time of computing; a prefix that is
    older than the policy is refused.
    """

    ids: tuple[int, ...]
    cache: Cache | None = None
    hidden: Tensor | None = None
    version: int | None = None

    def cut(self, length: int) -> Prefix:
        """The same prefix up to ``length`` tokens, without computing anything again."""
        if not 1 <= length <= len(self.ids):
            raise ValueError(f"A prefix of {len(self.ids)} tokens cannot be cut to {length}.")
        cache = self.cache and tuple((k[:, :, :length], v[:, :, :length]) for k, v in self.cache)
        hidden = None if self.hidden is None else self.hidden[:length]
        return Prefix(self.ids[:length], cache, hidden, self.version)


@dataclass(frozen=True)
class Scores:
    """What one scoring pass found, [B, T] each (nats; 0 on padding), None where not asked for.

    ``ranks`` counts from 1, the likeliest token; ``top_ids`` and ``top_logps`` are [B, T, 5];
    ``hidden`` [B, T, H] holds the states that predict each answer token.
    """

    logps: Tensor | None = None
    entropy: Tensor | None = None
    ranks: Tensor | None = None
    top_ids: Tensor | None = None
    top_logps: Tensor | None = None
    hidden: Tensor | None = None


def score(
    policy: Policy,
    prefixes: Prefix | Sequence[Prefix],
    answer_ids: Tensor,
    answer_mask: Tensor,
    *,
    prefix_index: Tensor | None = None,
    grad: bool = False,
    outputs: Sequence[str] = ("logps",),
    token_budget: int = 0,
) -> Scores:
    """Score answers [B, T] under the policy, each on top of its prefix.

    ``prefix_index`` [B] says which prefix each answer stands on (default: the only one). Without
    gradients the answers are sorted by length and run in micro-batches of at most
    ``token_budget`` tokens (0: :func:`token_budget_for`), halved when memory runs out. With
    ``grad=True`` all run at once:
    plan micro-batches with :func:`plan_batches`. Raises ValueError for a stale prefix, an
    unknown output, or a sequence longer than the model's context.
    """
    prefixes = [prefixes] if isinstance(prefixes, Prefix) else list(prefixes)
    rows, width = answer_ids.shape
    if prefix_index is None:
        prefix_index = torch.zeros(rows, dtype=torch.long)
        if len(prefixes) != 1:
            raise ValueError(f"{len(prefixes)} prefixes need a prefix_index for the answers.")
    unknown = set(outputs) - {*OUTPUTS, "hidden"}
    if unknown:
        raise ValueError(f"Unknown outputs {sorted(unknown)}; choose from {OUTPUTS}.")
    _check_lengths(policy, prefixes, answer_mask, prefix_index)
    device = policy.device
    answer_ids, answer_mask = answer_ids.to(device), answer_mask.to(device)
    if grad:
        hidden = _answer_hidden(policy, prefixes, prefix_index, answer_ids, answer_mask)
        return token_scores(policy, hidden, answer_ids, answer_mask, outputs)

    with torch.no_grad():
        prefixes = compute_prefixes(policy, prefixes)
        lengths = [len(prefixes[i].ids) for i in prefix_index.tolist()]
        totals = answer_mask.sum(dim=1).cpu() + torch.tensor(lengths)
        groups = torch.tensor(lengths) if policy.has_sliding_window else None

        def run(chosen: Tensor) -> Scores:
            keep = int(answer_mask[chosen].sum(dim=1).max())
            ids, mask = answer_ids[chosen, :keep], answer_mask[chosen, :keep]
            hidden = _answer_hidden(policy, prefixes, prefix_index[chosen], ids, mask)
            return token_scores(policy, hidden, ids, mask, outputs)

        budget = token_budget_for(policy, token_budget)
        parts = run_in_batches(policy.device, totals, budget, run, groups=groups)
        return _gather(parts, rows, width)


def score_ids(policy: Policy, prefix: Prefix, ids: Sequence[int], **options: object) -> Scores:
    """Score one answer given as a list of ids; the result has B = 1."""
    block = torch.tensor([list(ids)])
    return score(policy, prefix, block, torch.ones_like(block, dtype=torch.bool), **options)  # type: ignore[arg-type]


def compute_prefixes(policy: Policy, prefixes: Sequence[Prefix]) -> list[Prefix]:
    """Run the prefixes that are not computed yet, equal ones once; keep the others as they are."""
    for prefix in prefixes:
        if prefix.version is not None and prefix.version != policy.version:
            raise ValueError(
                f"This prefix was computed with version {prefix.version} of the policy, which is "
                f"now at {policy.version}. Make a new Prefix from its ids."
            )
    todo = list(dict.fromkeys(p.ids for p in prefixes if p.cache is None))
    done: dict[tuple[int, ...], Prefix] = {}
    if todo:
        lengths = torch.tensor([len(ids) for ids in todo])
        groups = lengths if policy.has_sliding_window else None
        with torch.no_grad():

            def run(chosen: Tensor) -> tuple[Tensor, Cache]:
                return _run_prefixes(policy, [todo[i] for i in chosen.tolist()])

            parts = run_in_batches(
                policy.device, lengths, 8_192, run, groups=groups, kind="prefixes"
            )
            for chosen, (hidden, cache) in parts:
                for row, ids in enumerate(todo[i] for i in chosen.tolist()):
                    end = len(ids)
                    rows = tuple(
                        (k[row : row + 1, :, :end], v[row : row + 1, :, :end]) for k, v in cache
                    )
                    done[ids] = Prefix(ids, rows, hidden[row, :end], policy.version)
    return [p if p.cache is not None else done[p.ids] for p in prefixes]


def extend_prefix(policy: Policy, prefix: Prefix, ids: Sequence[int]) -> Prefix:
    """The prefix with more tokens on top; only the new ones are run."""
    if not ids:
        return prefix
    (prefix,) = compute_prefixes(policy, [prefix])
    assert prefix.cache is not None and prefix.hidden is not None
    with torch.no_grad():
        new = torch.tensor([list(ids)], device=policy.device)
        start = len(prefix.ids)
        positions = torch.arange(start, start + new.shape[1], device=policy.device)[None]
        mask = torch.ones(1, start + new.shape[1], dtype=torch.long, device=policy.device)
        hidden, cache = run_trunk(policy, new, mask, positions, prefix.cache)
    joined = torch.cat([prefix.hidden, hidden[0]])
    return Prefix((*prefix.ids, *ids), cache, joined, policy.version)


def token_budget_for(policy: Policy, wanted: int = 0) -> int:
    """Tokens in one micro-batch: what is wanted, or (0) what suits the device and the model."""
    hidden = policy.model.config.get_text_config().hidden_size
    return wanted or default_token_budget(hidden, policy.device.type == "cuda")


def default_token_budget(hidden_size: int, gpu: bool) -> int:
    """Tokens in one micro-batch where nobody asked for a number.

    On a CPU what a layer writes should still be in the cache when the next one reads it, yet every
    micro-batch has its fixed cost. On two cores an update of `tiny` (128 wide) takes 0.23 s with
    4,096 tokens, 0.31 s with 1,024; smollm2-135m (576 wide) is as fast with 512 as with 1,024.
    """
    if gpu:
        return 16_384
    return 4_096 if hidden_size <= 256 else 1_024


def _check_lengths(
    policy: Policy, prefixes: list[Prefix], answer_mask: Tensor, prefix_index: Tensor
) -> None:
    if not bool(answer_mask.any(dim=1).all()):
        raise ValueError("An answer has no tokens; append the end token or drop it.")
    prefix_lengths = torch.tensor([len(p.ids) for p in prefixes])[prefix_index]
    longest = int((answer_mask.sum(dim=1).cpu() + prefix_lengths).max())
    if longest > policy.context_length:
        raise ValueError(
            f"A prompt with its answer is {longest} tokens long, {policy.reference!r} takes at "
            f"most {policy.context_length}. Shorten the question or the answer."
        )


def run_trunk(
    policy: Policy, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache | None
) -> tuple[Tensor, Cache]:
    """One forward of the trunk: final hidden states [rows, length, H] and the grown cache."""
    # Without a config every layer keeps its whole past; masks still apply sliding windows.
    past = DynamicCache(ddp_cache_data=cache) if cache is not None else DynamicCache()
    out = policy.trunk(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=past,
        use_cache=True,
    )
    return out.last_hidden_state, tuple((layer.keys, layer.values) for layer in past.layers)


def _run_prefixes(policy: Policy, batch: Sequence[tuple[int, ...]]) -> tuple[Tensor, Cache]:
    """Run a right-padded block of prefixes from nothing."""
    width = max(len(ids) for ids in batch)
    block = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros(len(batch), width, dtype=torch.long)
    for row, ids in enumerate(batch):
        block[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
    positions = torch.arange(width)[None].expand(len(batch), -1)
    device = policy.device
    return run_trunk(policy, block.to(device), mask.to(device), positions.to(device), None)


def _answer_hidden(
    policy: Policy,
    prefixes: Sequence[Prefix],
    prefix_index: Tensor,
    answer_ids: Tensor,
    answer_mask: Tensor,
) -> Tensor:
    """Hidden states [B, T, H] that predict each answer token, gradients as the caller set them."""
    device = policy.device
    used, index = torch.unique(prefix_index, return_inverse=True)
    chosen = [prefixes[i] for i in used.tolist()]
    lengths = torch.tensor([len(p.ids) for p in chosen], device=device)
    index = index.to(device)
    if any(p.cache is None for p in chosen):
        hidden, cache = _run_prefixes(policy, [p.ids for p in chosen])
        last = hidden[torch.arange(len(chosen), device=device), lengths - 1]
    else:
        width = int(lengths.max())
        last = torch.stack([p.hidden[-1] for p in chosen])
        cache = stack_caches([p.cache for p in chosen], width)
    first = last[index][:, None]
    if answer_ids.shape[1] == 1:
        return first
    width = cache[0][0].shape[2]
    slots = torch.arange(width, device=device)[None]
    prefix_mask = (slots < lengths[index][:, None]).long()
    mask = torch.cat([prefix_mask, answer_mask[:, :-1].long()], dim=1)
    positions = lengths[index][:, None] + torch.arange(answer_ids.shape[1] - 1, device=device)
    grown = tuple((k[index], v[index]) for k, v in cache)
    hidden, _ = run_trunk(policy, answer_ids[:, :-1], mask, positions, grown)
    return torch.cat([first, hidden], dim=1)


def stack_caches(caches: Sequence[Cache], width: int) -> Cache:
    """Caches of one row each, right-padded with zeros to a block."""

    def pad(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (0, 0, 0, width - x.shape[2]))

    if len(caches) == 1:
        return caches[0]
    return tuple(
        (torch.cat([pad(k) for k, _ in layer]), torch.cat([pad(v) for _, v in layer]))
        for layer in zip(*caches, strict=True)
    )


def token_scores(
    policy: Policy,
    hidden: Tensor,
    answer_ids: Tensor,
    answer_mask: Tensor,
    outputs: Sequence[str],
) -> Scores:
    """Log-probs and friends of the answer tokens, the head applied to those positions only."""
    if set(outputs) == {"hidden"}:
        return Scores(hidden=hidden)
    states, targets = hidden[answer_mask], answer_ids[answer_mask]
    vocabulary = policy.causal_lm.get_output_embeddings().weight.shape[0]
    rows = max(1, _HEAD_SLICE // vocabulary)
    with_grad = torch.is_grad_enabled() and states.requires_grad
    if with_grad and set(outputs) == {"logps"} and policy.has_linear_head:
        own = _HeadLogps.apply(states, targets, policy, rows)
        block = own.new_zeros(answer_mask.shape)
        return Scores(logps=block.masked_scatter(answer_mask, own))
    needs_grad = with_grad and len(states) > rows

    def one(part: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        logits = policy.logits(part).float()
        logps = torch.log_softmax(logits, dim=-1)
        own = logps.gather(-1, target[:, None])
        found: list[Tensor] = []
        if "logps" in outputs:
            found.append(own[:, 0])
        if "entropy" in outputs:
            found.append(-(logps.exp() * logps).sum(-1))
        if "ranks" in outputs:
            found.append((logps > own).sum(-1) + 1)
        if "top" in outputs:
            top = logps.topk(min(TOP, logps.shape[-1]), dim=-1)
            found += [top.indices, top.values]
        return tuple(found)

    parts = [
        # Recomputing a slice in the backward pass is cheaper than keeping its logits.
        checkpoint(one, states[i : i + rows], targets[i : i + rows], use_reentrant=False)
        if needs_grad
        else one(states[i : i + rows], targets[i : i + rows])
        for i in range(0, len(states), rows)
    ]
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    names = [n for n in OUTPUTS if n in outputs]
    if "top" in names:
        names[names.index("top") :] = ["top_ids", "top_logps"]
    found = {}
    for name, column in zip(names, columns, strict=True):
        block = column.new_zeros(*answer_mask.shape, *column.shape[1:])
        found[name] = block.masked_scatter(_like(answer_mask, block), column)
    if "hidden" in outputs:
        found["hidden"] = hidden
    return Scores(**found)


class _HeadLogps(torch.autograd.Function):
    """Log-probs [N] of the targets from hidden states [N, H], slice by slice.

    d log p(y) / d h = W_y − Σ_v p(v) W_v does not depend on what follows, so the forward pass
    works it out while a slice's logits are there: two products with the head instead of three,
    and no logits are kept.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, targets: Tensor, policy: Policy, rows: int) -> Tensor:
        weight = policy.head_weight
        logps = torch.empty(len(states), device=states.device)
        slopes = torch.empty_like(states)
        for i in range(0, len(states), rows):
            part, target = states[i : i + rows], targets[i : i + rows]
            law = torch.log_softmax(policy.logits(part).float(), dim=-1)
            logps[i : i + rows] = law.gather(-1, target[:, None])[:, 0]
            slopes[i : i + rows] = weight[target] - law.exp_() @ weight
        ctx.save_for_backward(slopes)
        return logps

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return upstream[:, None].to(slopes.dtype) * slopes, None, None, None


def _like(mask: Tensor, block: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *(1,) * (block.dim() - 2)).expand_as(block)


def _gather(parts: list[tuple[Tensor, Scores]], rows: int, width: int) -> Scores:
    """Put micro-batches back into one block in the callers' order."""
    whole = Scores()
    first = parts[0][1]
    for name in Scores.__dataclass_fields__:
        sample = getattr(first, name)
        if sample is None:
            continue
        block = sample.new_zeros(rows, width, *sample.shape[2:])
        for chosen, scores in parts:
            piece = getattr(scores, name)
            block[chosen.to(block.device), : piece.shape[1]] = piece
        whole = replace(whole, **{name: block})
    return whole
