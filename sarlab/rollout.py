"""Sampling: G answers a question from the policy itself, at temperature 1, nothing cut off.

The loop is our own since three things are wanted that `generate` does not offer together: each
question's prefix is computed once for its whole group, finished answers leave the batch, and the
log-probs that come back are those of scoring (float32, temperature 1, whole vocabulary), so an
on-policy step need not compute them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from sarlab._engine.micro_batches import run_in_batches
from sarlab.models import Policy
from sarlab.scoring import Prefix, compute_prefixes
from sarlab.types import Rollouts

_BLOCK = 64  # slots by which the cache grows
_FLAT_LAW = 4_096  # up to this vocabulary the law is summed token by token at once
_LAW_BLOCK = 128
_COMPACT_BELOW = 0.8  # finished rows leave once so few are live: each time copies the cache


class _GrowingLayer(DynamicLayer):
    """A cache layer with room ahead, so that a new token does not copy the whole past."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.length = 0
        self._room: tuple[Tensor, Tensor] | None = None
        self.update(keys, values)

    def update(self, key_states, value_states, *args, **kwargs):  # type: ignore[no-untyped-def]
        end = self.length + key_states.shape[2]
        if self._room is None or self._room[0].shape[2] < end:
            shape = (*key_states.shape[:2], end + _BLOCK, key_states.shape[3])
            room = (key_states.new_empty(shape), value_states.new_empty(shape))
            if self._room is not None:
                for new, old in zip(room, self._room, strict=True):
                    new[:, :, : self.length] = old[:, :, : self.length]
            self._room = room
        self._room[0][:, :, self.length : end] = key_states
        self._room[1][:, :, self.length : end] = value_states
        self.length = end
        self.keys, self.values = (x[:, :, :end] for x in self._room)
        return self.keys, self.values

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        assert self._room is not None
        self._room = (self._room[0][rows], self._room[1][rows])
        self.keys, self.values = (x[:, :, : self.length] for x in self._room)


def sample(
    policy: Policy,
    prefixes: Sequence[Prefix],
    *,
    group_size: int,
    max_answer_tokens: int,
    seed: str,
    greedy: bool = False,
    token_budget: int = 65_536,
    on_token: Callable[[int, int], None] | None = None,
) -> Rollouts:
    """Sample ``group_size`` answers on each prefix; rows of a group stand together.

    The same ``seed`` gives the same answers on the same machine. ``greedy=True`` takes the
    likeliest token instead. ``on_token(done, total)`` is called after each token position with
    the answers finished so far, and with ``done == total`` at the end; it may raise to stop.
    Answers are run in batches of at most ``token_budget`` cache slots; a batch that does not fit
    into memory is drawn anew in smaller ones. Raises ValueError where a prompt leaves no room
    for an answer.
    """
    if group_size < 1 or max_answer_tokens < 1:
        raise ValueError(
            f"group_size {group_size} and max_answer_tokens {max_answer_tokens} must be at least 1."
        )
    for prefix in prefixes:
        if len(prefix.ids) + max_answer_tokens > policy.context_length:
            raise ValueError(
                f"A prompt of {len(prefix.ids)} tokens and {max_answer_tokens} answer tokens do "
                f"not fit into the {policy.context_length} of {policy.reference!r}. Shorten the "
                "question or lower max_answer_tokens."
            )
    generator = torch.Generator(device=policy.device)
    generator.manual_seed(seed_of(seed))
    rows = len(prefixes) * group_size
    ids = torch.zeros(rows, max_answer_tokens, dtype=torch.long)
    logps = torch.zeros(rows, max_answer_tokens)
    lengths = torch.zeros(rows, dtype=torch.long)
    ended = torch.zeros(rows, dtype=torch.bool)
    with torch.no_grad():
        computed = compute_prefixes(policy, prefixes)
        prefix_lengths = torch.tensor([len(p.ids) for p in prefixes])
        totals = (prefix_lengths + max_answer_tokens).repeat_interleave(group_size)
        groups = totals if policy.has_sliding_window else None
        finished = 0

        def run(chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            nonlocal finished
            before, state = finished, generator.get_state()

            def report(done: int) -> None:
                if on_token is not None:
                    on_token(before + done, rows)

            part = [computed[i // group_size] for i in chosen.tolist()]
            try:
                found = _decode(policy, part, max_answer_tokens, generator, greedy, report)
            except RuntimeError:
                generator.set_state(state)  # out of memory: the smaller batches draw from here
                raise
            finished += len(chosen)
            return found

        parts = run_in_batches(
            policy.device, totals, token_budget, run, groups=groups, kind="sampling"
        )
        for chosen, found in parts:
            for block, piece in zip((ids, logps, lengths, ended), found, strict=True):
                block[chosen] = piece
    if on_token is not None:
        on_token(rows, rows)  # an answer cut at the limit has not finished by itself
    width = int(lengths.max())
    mask = torch.arange(width)[None] < lengths[:, None]
    return Rollouts(
        answer_ids=ids[:, :width],
        answer_mask=mask,
        logps=logps[:, :width],
        group_ids=torch.arange(len(prefixes)).repeat_interleave(group_size),
        truncated=~ended,
        texts=tuple(
            policy.text(row[:n].tolist()) for row, n in zip(ids, lengths.tolist(), strict=True)
        ),
    )


def seed_of(text: str) -> int:
    """A 63-bit seed from words such as ``"7 3 sample"`` (seed, step, purpose)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _decode(
    policy: Policy,
    prefixes: Sequence[Prefix],
    limit: int,
    generator: torch.Generator,
    greedy: bool,
    report: Callable[[int], None],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids and log-probs [B, limit], lengths [B] and whether the answer ended by itself [B]."""
    device, rows = policy.device, len(prefixes)
    ids = torch.zeros(rows, limit, dtype=torch.long)
    logps = torch.zeros(rows, limit)
    lengths = torch.zeros(rows, dtype=torch.long)
    ended = torch.zeros(rows, dtype=torch.bool)
    starts = torch.tensor([len(p.ids) for p in prefixes], device=device)
    width = int(starts.max())
    cache = _stacked(prefixes, width)
    hidden = torch.stack([p.hidden[-1] for p in prefixes])  # type: ignore[index]
    mask = torch.zeros(rows, width + limit, dtype=torch.long, device=device)
    mask[:, :width] = torch.arange(width, device=device)[None] < starts[:, None]
    mask[:, width:] = 1
    active = torch.arange(rows)  # which answers the rows of the batch belong to
    live = torch.ones(rows, dtype=torch.bool, device=device)  # rows not finished yet
    eos = torch.tensor(policy.eos_ids, device=device)
    for t in range(limit):
        logits = torch.log_softmax(policy.logits(hidden).float(), dim=-1)
        if greedy:
            tokens = logits.argmax(dim=-1)
        else:
            tokens = _draw(logits, generator)
        now = live.cpu()
        ids[active[now], t] = tokens.cpu()[now]
        logps[active[now], t] = logits.gather(-1, tokens[:, None])[:, 0].cpu()[now]
        lengths[active[now]] = t + 1
        live = live & ~torch.isin(tokens, eos)
        ended[active[now & ~live.cpu()]] = True
        report(int(ended.sum()))
        remaining = int(live.sum())
        if not remaining or t + 1 == limit:
            break
        if remaining < _COMPACT_BELOW * len(active):
            go_on = live.nonzero().flatten()
            for layer in cache.layers:
                layer.keep(go_on)
            active, tokens, live = active[go_on.cpu()], tokens[go_on], live[go_on]
            mask, starts = mask[go_on], starts[go_on]
        out = policy.trunk(
            input_ids=tokens[:, None],
            attention_mask=mask[:, : width + t + 1],
            position_ids=(starts + t)[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        hidden = out.last_hidden_state[:, -1]
    return ids, logps, lengths, ended


def _draw(logps: Tensor, generator: torch.Generator) -> Tensor:
    """One token a row [B] from log-probs [B, V]: one random number a row against the summed law.

    Sums are in float64, since 50,000 float32 terms would not add up to 1; several times faster
    than `torch.multinomial`, which draws a number for every entry of the vocabulary. A large
    vocabulary is summed in blocks, and only the block that is hit token by token.
    """
    size = logps.shape[1]
    at = torch.rand(len(logps), 1, generator=generator, device=logps.device, dtype=torch.float64)
    if size <= _FLAT_LAW:
        law = logps.double().exp().cumsum(dim=-1)
        found = torch.searchsorted(law, at * law[:, -1:], right=True)
        return found[:, 0].clamp(max=size - 1)
    law = torch.nn.functional.pad(logps.exp(), (0, -size % _LAW_BLOCK))
    law = law.view(len(law), -1, _LAW_BLOCK)
    blocks = law.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    hit, left = _invert(blocks, at)
    inside = law[torch.arange(len(law), device=law.device), hit[:, 0]].double().cumsum(dim=-1)
    token, _ = _invert(inside, left)
    return (hit * _LAW_BLOCK + token)[:, 0]


def _invert(sums: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Where running sums [B, K] pass the share ``at`` [B, 1] of their total, and how far into it.

    Both are [B, 1], the second a share of the entry in [0, 1]. An entry of 0 is never hit.
    """
    total = sums[:, -1:]
    mark = torch.minimum(at * total, torch.nextafter(total, torch.zeros_like(total)))
    found = torch.searchsorted(sums, mark, right=True)
    before = torch.where(found > 0, sums.gather(1, (found - 1).clamp(min=0)), 0.0)
    return found, ((mark - before) / (sums.gather(1, found) - before)).clamp(0.0, 1.0)


def _stacked(prefixes: Sequence[Prefix], width: int) -> DynamicCache:
    """One growing cache from the prefixes' own, right-padded to ``width``."""
    cache = DynamicCache()
    layers = []
    for depth in range(len(prefixes[0].cache or ())):
        keys, values = (
            torch.cat(
                [
                    torch.nn.functional.pad(p.cache[depth][side], (0, 0, 0, width - len(p.ids)))  # type: ignore[index]
                    for p in prefixes
                ]
            )
            for side in (0, 1)
        )
        layers.append(_GrowingLayer(keys, values))
    cache.layers = layers
    return cache
