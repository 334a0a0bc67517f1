"""Log-probs of answers under the policy: the only forward pass of scoring and training.

Answers stand on top of prefixes. All answers share the standalone prefix and a group shares its
question, so each prefix is run through the model once and its keys and values are handed to every
answer on it. The language-model head runs on answer positions only, with log-softmax in float32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sarlab._engine.caches import Cache, cache_of_row, run_trunk, stack_caches
from sarlab._engine.head import slice_rows, target_logps
from sarlab._engine.micro_batches import batch_attempts
from sarlab._engine.policy import Policy
from sarlab.prompts import StandaloneContext, conditioned_ids, standalone_ids


@dataclass(frozen=True)
class Prefix:
    """The token ids that answers stand on."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class ComputedPrefix(Prefix):
    """A prefix that the policy has run: its keys and values, and hidden states [length, H].

    ``version`` is the policy's at that time; once the policy has moved on, the prefix is refused.
    """

    cache: Cache
    hidden: Tensor
    version: int

    def cut(self, length: int) -> Self:
        """The first ``length`` tokens of the prefix, without running anything."""
        if not 1 <= length <= len(self.ids):
            raise ValueError(f"A prefix of {len(self.ids)} tokens cannot be cut to {length}.")
        cache = cache_of_row(self.cache, 0, length)
        return type(self)(self.ids[:length], cache, self.hidden[:length], self.version)


class TokenReport(NamedTuple):
    """What the workbench shows per answer token (nats; 0 on padding)."""

    logps: Tensor  # [B, T]
    entropy: Tensor  # [B, T]
    self_certainty: Tensor  # [B, T] logsumexp(logits) − mean(logits)
    ranks: Tensor  # [B, T] from 1, the likeliest token
    top_ids: Tensor  # [B, T, 5]
    top_logps: Tensor  # [B, T, 5]


def prefix_of(
    policy: Policy,
    question: str | None,
    standalone: StandaloneContext = StandaloneContext.EMPTY_TURN,
) -> Prefix:
    """The prefix of a question, not computed yet; of None the standalone one."""
    if question is None:
        return Prefix(tuple(standalone_ids(policy.tokenizer, policy.prompt, standalone)))
    return Prefix(tuple(conditioned_ids(policy.tokenizer, question, policy.prompt)))


def answer_block(answers: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Right-padded ids [B, T] and their answer_mask. ValueError for an answer without tokens."""
    for row, ids in enumerate(answers):
        if not ids:
            raise ValueError(f"Answer {row} has no tokens; perplexity is undefined.")
    block = pad_sequence([torch.tensor(list(ids)) for ids in answers], batch_first=True)
    lengths = torch.tensor([len(ids) for ids in answers])
    return block, torch.arange(block.shape[1])[None] < lengths[:, None]


# --- answers on prefixes ------------------------------------------------------------------------

Prefixes = Prefix | Sequence[Prefix]


def answer_logps(
    policy: Policy, prefixes: Prefixes, answer_ids: Tensor, answer_mask: Tensor, **options: Any
) -> Tensor:
    """Log-probs of answers under the policy, each on its prefix [B, T], nats; 0 on padding.

    ``prefix_index`` [B] is each answer's prefix (default: the only one). Without ``grad`` the
    answers run in micro-batches of at most ``token_budget`` tokens (0: :func:`token_budget_for`),
    halved where memory runs out. With it all run at once, their prefixes anew, so that gradients
    flow through those too. ValueError for a stale prefix, or a sequence beyond the model's context.
    """
    answers = (prefixes, answer_ids, answer_mask)
    return _measured(policy, *answers, lambda *x: (logps_of_states(policy, *x),), **options)[0]


def answer_states(
    policy: Policy, prefixes: Prefixes, answer_ids: Tensor, answer_mask: Tensor, **options: Any
) -> Tensor:
    """Hidden states that predict each answer token [B, T, H]; see :func:`answer_logps`."""
    answers = (prefixes, answer_ids, answer_mask)
    return _measured(policy, *answers, lambda states, *_: (states,), **options)[0]


def token_report(
    policy: Policy, prefixes: Prefixes, answer_ids: Tensor, answer_mask: Tensor, **options: Any
) -> TokenReport:
    """Log-probs, entropy, ranks and likeliest tokens of answers; see :func:`answer_logps`."""
    answers = (prefixes, answer_ids, answer_mask)
    blocks = _measured(policy, *answers, lambda *x: report_of_states(policy, *x), **options)
    return TokenReport(*blocks)


def _measured(
    policy: Policy,
    prefixes: Prefixes,
    ids: Tensor,
    mask: Tensor,
    measure: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]],
    *,
    prefix_index: Tensor | None = None,
    grad: bool = False,
    token_budget: int = 0,
) -> Sequence[Tensor]:
    """Blocks [B, T, …] of what ``measure(states, ids, mask)`` gives for answers."""
    prefixes = [prefixes] if isinstance(prefixes, Prefix) else list(prefixes)
    if prefix_index is None and len(prefixes) != 1:
        raise ValueError(f"{len(prefixes)} prefixes need a prefix_index for the answers.")
    if not bool(mask.any(dim=1).all()):
        raise ValueError("An answer has no tokens; append the end token or drop it.")
    index = torch.zeros(len(ids), dtype=torch.long) if prefix_index is None else prefix_index
    starts, counts = torch.tensor([len(p.ids) for p in prefixes])[index], mask.sum(dim=1).cpu()
    _refuse_long(policy, int((starts + counts).max()))
    ids, mask = ids.to(policy.device), mask.to(policy.device)
    if grad:
        anew = [Prefix(p.ids) for p in prefixes]
        return measure(_states(policy, anew, index, ids, mask), ids, mask)
    groups = starts if policy.has_sliding_window else None
    budget = token_budget_for(policy, token_budget)
    blocks: list[Tensor] = []
    with torch.no_grad():
        computed = compute_prefixes(policy, prefixes)
        for attempt in batch_attempts(policy.device, starts + counts, budget, groups):
            with attempt as (rows,):
                width = int(counts[rows].max())
                part = (ids[rows, :width], mask[rows, :width])
                pieces = measure(_states(policy, computed, index[rows], *part), *part)
                blocks = blocks or [x.new_zeros(*mask.shape, *x.shape[2:]) for x in pieces]
                for block, piece in zip(blocks, pieces, strict=True):
                    block[rows, :width] = piece
    return blocks


def _refuse_long(policy: Policy, longest: int) -> None:
    if longest > policy.context_length:
        raise ValueError(
            f"A prompt with its answer is {longest} tokens long, {policy.reference!r} takes at "
            f"most {policy.context_length}. Shorten the question or the answer."
        )


def token_budget_for(policy: Policy, token_budget: int = 0) -> int:
    """Tokens per micro-batch: the given number, or (0) what suits the device and the model."""
    hidden = policy.model.config.get_text_config().hidden_size
    return token_budget or default_token_budget(hidden, policy.device.type == "cuda")


def default_token_budget(hidden_size: int, gpu: bool) -> int:
    """Tokens per micro-batch where none are given.

    On a CPU what a layer writes should still be in the cache when the next one reads it, yet every
    micro-batch has its fixed cost. On two cores an update of `tiny` (128 wide) takes 0.23 s with
    4,096 tokens, 0.31 s with 1,024; smollm2-135m (576 wide) is as fast with 512 as with 1,024.
    """
    if gpu:
        return 16_384
    return 4_096 if hidden_size <= 256 else 1_024


# --- from hidden states to numbers --------------------------------------------------------------


def logps_of_states(
    policy: Policy, hidden: Tensor, answer_ids: Tensor, answer_mask: Tensor
) -> Tensor:
    """Log-probs [B, T] of answer tokens from the states [B, T, H] that predict them."""
    logps = target_logps(policy, hidden[answer_mask], answer_ids[answer_mask])
    return _to_block(answer_mask, logps)


@torch.no_grad()
def report_of_states(
    policy: Policy, hidden: Tensor, answer_ids: Tensor, answer_mask: Tensor
) -> TokenReport:
    """The report of answer tokens [B, T] from the hidden states [B, T, H] that predict them."""
    states, targets = hidden[answer_mask], answer_ids[answer_mask]
    rows = slice_rows(policy)
    columns: list[Tensor] = []
    for i in range(0, len(states), rows):
        part = slice(i, i + rows)
        logps = torch.log_softmax(policy.logits(states[part]).float(), dim=-1)
        targets_logps = logps.gather(-1, targets[part, None])
        top = logps.topk(min(5, logps.shape[-1]), dim=-1)
        pieces = TokenReport(
            logps=targets_logps[:, 0],
            entropy=-(logps.exp() * logps).sum(-1),
            self_certainty=-logps.mean(-1),
            ranks=(logps > targets_logps).sum(-1) + 1,
            top_ids=top.indices,
            top_logps=top.values,
        )
        # Into whole blocks: small pieces that outlive the large logits would scatter the heap.
        columns = columns or [x.new_empty(len(states), *x.shape[1:]) for x in pieces]
        for column, piece in zip(columns, pieces, strict=True):
            column[part] = piece
    return TokenReport(*(_to_block(answer_mask, column) for column in columns))


def _to_block(answer_mask: Tensor, column: Tensor) -> Tensor:
    """One value per answer token [N, ...] put where ``answer_mask`` [B, T] is True, 0 elsewhere."""
    block = column.new_zeros(*answer_mask.shape, *column.shape[1:])
    return block.index_put((answer_mask,), column)


# --- the forward passes -------------------------------------------------------------------------


def compute_prefixes(policy: Policy, prefixes: Sequence[Prefix]) -> list[ComputedPrefix]:
    """Run the prefixes that are not computed yet, equal ones once; keep the others as they are."""
    for prefix in prefixes:
        if isinstance(prefix, ComputedPrefix) and prefix.version != policy.version:
            raise ValueError(
                f"This prefix was computed with version {prefix.version} of the policy, which is "
                f"now at {policy.version}. Make a new Prefix from its ids."
            )
    computed: dict[tuple[int, ...], ComputedPrefix] = {}
    todo = list(dict.fromkeys(p.ids for p in prefixes if not isinstance(p, ComputedPrefix)))
    lengths = torch.tensor([len(ids) for ids in todo])
    groups = lengths if policy.has_sliding_window else None
    for attempt in batch_attempts(policy.device, lengths, 8_192, groups, kind="prefixes"):
        with attempt as (rows,), torch.no_grad():
            chosen = [todo[i] for i in rows.tolist()]
            hidden, cache = _run(policy, *answer_block(chosen))
            for row, ids in enumerate(chosen):
                one = cache_of_row(cache, row, len(ids))
                computed[ids] = ComputedPrefix(ids, one, hidden[row, : len(ids)], policy.version)
    return [p if isinstance(p, ComputedPrefix) else computed[p.ids] for p in prefixes]


def extend_prefixes(
    policy: Policy, prefixes: Sequence[Prefix], ids: Sequence[int]
) -> list[ComputedPrefix]:
    """The prefixes, each with the same tokens on top; only the new ones are run, in one forward."""
    computed = compute_prefixes(policy, prefixes)
    if not ids:
        return computed
    if policy.has_sliding_window and len(computed) > 1:
        # Padding between prefix and answer would shorten the window.
        return [extend_prefixes(policy, [prefix], ids)[0] for prefix in computed]
    lengths = [len(prefix.ids) for prefix in computed]
    width = max(lengths)
    _refuse_long(policy, width + len(ids))
    with torch.no_grad():
        cache = tuple(stack_caches([prefix.cache for prefix in computed], width))
        block, mask = answer_block([ids] * len(computed))
        hidden, grown = _run(policy, block, mask, cache, torch.tensor(lengths))
    return [
        ComputedPrefix(
            (*prefix.ids, *ids),
            cache_of_row(grown, row, len(prefix.ids), width),
            torch.cat([prefix.hidden, hidden[row]]),
            policy.version,
        )
        for row, prefix in enumerate(computed)
    ]


def _states(
    policy: Policy, prefixes: Sequence[Prefix], index: Tensor, ids: Tensor, mask: Tensor
) -> Tensor:
    """Hidden states [B, T, H] that predict each answer token; prefixes run if they have not."""
    used, index = torch.unique(index, return_inverse=True)
    chosen = [prefixes[i] for i in used.tolist()]
    lengths = torch.tensor([len(p.ids) for p in chosen])
    computed = [p for p in chosen if isinstance(p, ComputedPrefix)]
    if computed:
        cache = tuple(stack_caches([p.cache for p in computed], int(lengths.max())))
        last = torch.stack([p.hidden[-1] for p in computed])
    else:
        hidden, cache = _run(policy, *answer_block([p.ids for p in chosen]))
        last = hidden[torch.arange(len(chosen)), lengths - 1]
    starts, index = lengths[index], index.to(policy.device)
    # Not last[index]: with several threads its gradient adds up in an order of the moment.
    first = last.index_select(0, index)[:, None]
    if ids.shape[1] == 1:
        return first
    grown = tuple((k.index_select(0, index), v.index_select(0, index)) for k, v in cache)
    hidden, _ = _run(policy, ids[:, :-1], mask[:, :-1], grown, starts)
    return torch.cat([first, hidden], dim=1)


def _run(
    policy: Policy, ids: Tensor, mask: Tensor, cache: Cache = (), starts: Tensor | None = None
) -> tuple[Tensor, Cache]:
    """Hidden states and grown cache of ids [B, T] behind ``starts`` [B] cached tokens."""
    device = policy.device
    ids, mask = ids.to(device), mask.to(device)
    starts = torch.zeros(len(ids), dtype=torch.long) if starts is None else starts
    starts = starts.to(device)[:, None]
    slots = torch.arange(cache[0][0].shape[2] if cache else 0, device=device)
    mask = torch.cat([slots < starts, mask], dim=1).long()
    positions = starts + torch.arange(ids.shape[1], device=device)
    return run_trunk(policy.trunk, ids, mask, positions, cache)
