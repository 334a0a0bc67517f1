"""Sampling: G answers per question from the policy itself, at temperature 1, without truncation.

`generate` is not used: here each question's prefix is computed once for its whole group, finished
answers leave the batch, and the log-probs are those of scoring (float32, temperature 1, whole
vocabulary), so an on-policy step need not compute them again.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sarlab._engine.caches import growing_cache
from sarlab._engine.head import draw_tokens
from sarlab._engine.micro_batches import batch_attempts
from sarlab._engine.policy import Policy
from sarlab.scoring import ComputedPrefix, Prefix, compute_prefixes
from sarlab.types import Rollouts

_CACHE_SLOTS = 65_536  # at most so many in a batch
_COMPACT_BELOW = 0.8  # finished rows leave once so few are live: each time copies the cache
OnToken = Callable[[int, int], None]  # (answers finished, answers in all)
OnDraw = Callable[[Tensor], None]  # (ids drawn so far [B, t])


def sample(
    policy: Policy,
    prefixes: Sequence[Prefix],
    *,
    group_size: int,
    max_answer_tokens: int,
    seed: str,
    greedy: bool = False,
    on_token: OnToken | None = None,
    on_draw: OnDraw | None = None,
) -> Rollouts:
    """Sample ``group_size`` answers on each prefix; rows of a group stand together.

    The same ``seed`` gives the same answers on the same machine; ``greedy`` takes the likeliest
    token. After each position ``on_draw`` gets the ids of a batch so far, then ``on_token`` the
    counts, which it also gets at the end; both may raise to stop. Batches hold at most 65,536
    cache slots, fewer where memory runs out. ValueError where a prompt leaves no room to answer.
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
    generator_state = generator.get_state()
    rows = len(prefixes) * group_size
    ids = torch.zeros(rows, max_answer_tokens, dtype=torch.long)
    logps, lengths = torch.zeros(ids.shape), torch.zeros(rows, dtype=torch.long)
    ended = torch.zeros(rows, dtype=torch.bool)
    drawn = (ids, logps, lengths, ended)
    with torch.no_grad():
        computed = compute_prefixes(policy, prefixes)
        totals = torch.tensor([len(p.ids) + max_answer_tokens for p in prefixes])
        totals = totals.repeat_interleave(group_size)
        groups = totals if policy.has_sliding_window else None
        for attempt in batch_attempts(policy.device, totals, _CACHE_SLOTS, groups, kind="sampling"):
            generator.set_state(generator_state)  # a smaller batch draws what the failed one drew
            with attempt as (chosen,):
                part = [computed[i // group_size] for i in chosen.tolist()]
                _decode(policy, part, chosen, generator, drawn, greedy, on_token, on_draw)
                generator_state = generator.get_state()
    if on_token is not None:
        on_token(rows, rows)  # an answer cut at the limit has not finished by itself
    width = int(lengths.max())
    return Rollouts(
        answer_ids=ids[:, :width],
        answer_mask=torch.arange(width)[None] < lengths[:, None],
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
    prefixes: Sequence[ComputedPrefix],
    rows: Tensor,
    generator: torch.Generator,
    drawn: tuple[Tensor, Tensor, Tensor, Tensor],
    greedy: bool,
    on_token: OnToken | None,
    on_draw: OnDraw | None,
) -> None:
    """Fill the ``rows`` of ``drawn``: ids, log-probs [B, limit], lengths, ended by itself [B]."""
    for block in drawn:
        block[rows] = 0  # an attempt that failed may have left something
    ids, logps, lengths, ended = drawn
    device, limit = policy.device, ids.shape[1]
    starts = torch.tensor([len(p.ids) for p in prefixes], device=device)
    width = int(starts.max())
    cache = growing_cache([p.cache for p in prefixes], width)
    hidden = torch.stack([p.hidden[-1] for p in prefixes])
    mask = torch.ones(len(rows), width + limit, dtype=torch.long, device=device)
    mask[:, :width] = torch.arange(width, device=device)[None] < starts[:, None]
    active = rows  # which answers the rows of the batch belong to
    live = torch.ones(len(rows), dtype=torch.bool, device=device)  # rows not finished yet
    eos = torch.tensor(policy.eos_ids, device=device)
    for t in range(limit):
        all_logps = torch.log_softmax(policy.logits(hidden).float(), dim=-1)
        tokens = all_logps.argmax(dim=-1) if greedy else draw_tokens(all_logps, generator)
        now = live.cpu()
        ids[active[now], t] = tokens.cpu()[now]
        logps[active[now], t] = all_logps.gather(-1, tokens[:, None])[:, 0].cpu()[now]
        lengths[active[now]] = t + 1
        live = live & ~torch.isin(tokens, eos)
        ended[active[now & ~live.cpu()]] = True
        if on_draw is not None:
            on_draw(ids[rows, : t + 1])
        if on_token is not None:
            on_token(int((ended | (lengths == limit)).sum()), len(ended))
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
