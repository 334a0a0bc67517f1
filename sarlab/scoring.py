"""Log-probs of answers under the policy: the only forward pass of scoring and training.

Answers stand on top of prefixes. All answers share the standalone prefix and a group shares its
question, so each prefix is run through the model once and its keys and values are handed to every
answer on it. The language-model head runs on answer positions only, with log-softmax in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sarlab._engine.caches import Cache, cache_of_row, run_trunk, stack_caches
from sarlab._engine.head import slice_rows, target_logps
from sarlab._engine.micro_batches import batch_attempts
from sarlab._engine.policy import Policy
from sarlab.prompts import StandaloneContext, conditioned_ids, standalone_ids

TOP = 5


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

    def cut(self, length: int) -> ComputedPrefix:
        """The first ``length`` tokens of the prefix, without running anything."""
        if not 1 <= length <= len(self.ids):
            raise ValueError(f"A prefix of {len(self.ids)} tokens cannot be cut to {length}.")
        cache = cache_of_row(self.cache, 0, length)
        return ComputedPrefix(self.ids[:length], cache, self.hidden[:length], self.version)


class TokenReport(NamedTuple):
    """What the workbench shows per answer token, [B, T] each (nats; 0 on padding).

    ``self_certainty`` is logsumexp(logits) − mean(logits).
    ``ranks`` count from 1, the likeliest token; ``top_ids`` and ``top_logps`` are [B, T, 5].
    """

    logps: Tensor
    entropy: Tensor
    self_certainty: Tensor
    ranks: Tensor
    top_ids: Tensor
    top_logps: Tensor


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
    return _padded(answers)


def answer_logps(
    policy: Policy,
    prefixes: Prefix | Sequence[Prefix],
    answer_ids: Tensor,
    answer_mask: Tensor,
    *,
    prefix_index: Tensor | None = None,
    grad: bool = False,
    token_budget: int = 0,
) -> Tensor:
    """Log-probs of answers under the policy, each on its prefix [B, T], nats; 0 on padding.

    ``prefix_index`` [B] is each answer's prefix (default: the only one). Without gradients the
    answers run in micro-batches of at most ``token_budget`` tokens (0: :func:`token_budget_for`),
    halved where memory runs out. With ``grad=True`` all run at once, their prefixes anew, so that
    gradients flow through those too. Raises ValueError for a stale prefix, or a sequence longer
    than the model's context.
    """
    answers = _checked(policy, prefixes, answer_ids, answer_mask, prefix_index)
    if grad:
        states = _states_with_gradient(policy, answers)
        return logps_of_states(policy, states, answers.ids, answers.mask)
    (logps,) = _in_micro_batches(
        policy, answers, token_budget, lambda *part: (logps_of_states(policy, *part),)
    )
    return logps


def answer_states(
    policy: Policy,
    prefixes: Prefix | Sequence[Prefix],
    answer_ids: Tensor,
    answer_mask: Tensor,
    *,
    prefix_index: Tensor | None = None,
    grad: bool = False,
    token_budget: int = 0,
) -> Tensor:
    """Hidden states that predict each answer token [B, T, H]; see :func:`answer_logps`."""
    answers = _checked(policy, prefixes, answer_ids, answer_mask, prefix_index)
    if grad:
        return _states_with_gradient(policy, answers)
    (states,) = _in_micro_batches(policy, answers, token_budget, lambda *part: part[:1])
    return states


def token_report(
    policy: Policy,
    prefixes: Prefix | Sequence[Prefix],
    answer_ids: Tensor,
    answer_mask: Tensor,
    *,
    prefix_index: Tensor | None = None,
) -> TokenReport:
    """Log-probs, entropy, ranks and likeliest tokens of answers; see :func:`answer_logps`."""
    answers = _checked(policy, prefixes, answer_ids, answer_mask, prefix_index)
    columns = _in_micro_batches(policy, answers, 0, lambda *part: report_of_states(policy, *part))
    return TokenReport(*columns)


@torch.no_grad()
def report_of_states(
    policy: Policy, hidden: Tensor, answer_ids: Tensor, answer_mask: Tensor
) -> TokenReport:
    """The report of answer tokens [B, T] from the hidden states [B, T, H] that predict them."""
    states, targets = hidden[answer_mask], answer_ids[answer_mask]
    rows = slice_rows(policy.head_weight)
    parts = []
    for i in range(0, len(states), rows):
        logps = torch.log_softmax(policy.logits(states[i : i + rows]).float(), dim=-1)
        targets_logps = logps.gather(-1, targets[i : i + rows, None])
        top = logps.topk(min(TOP, logps.shape[-1]), dim=-1)
        parts.append(
            TokenReport(
                logps=targets_logps[:, 0],
                entropy=-(logps.exp() * logps).sum(-1),
                self_certainty=-logps.mean(-1),
                ranks=(logps > targets_logps).sum(-1) + 1,
                top_ids=top.indices,
                top_logps=top.values,
            )
        )
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    return TokenReport(*(_to_block(answer_mask, column) for column in columns))


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
        with attempt as rows, torch.no_grad():
            chosen = [todo[i] for i in rows.tolist()]
            hidden, cache = _run_prefixes(policy, chosen)
            for row, ids in enumerate(chosen):
                end = len(ids)
                one = cache_of_row(cache, row, end)
                computed[ids] = ComputedPrefix(ids, one, hidden[row, :end], policy.version)
    return [p if isinstance(p, ComputedPrefix) else computed[p.ids] for p in prefixes]


def extend_prefixes(
    policy: Policy, prefixes: Sequence[Prefix], ids: Sequence[int]
) -> list[ComputedPrefix]:
    """The prefixes, each with the same tokens on top; only the new ones are run.

    All in one forward, since where few tokens are new reading the weights takes the time.
    """
    computed = compute_prefixes(policy, prefixes)
    if not ids:
        return computed
    if policy.has_sliding_window and len(computed) > 1:
        # Padding between prefix and answer would shorten the window.
        return [extend_prefixes(policy, [prefix], ids)[0] for prefix in computed]
    device, lengths = policy.device, [len(prefix.ids) for prefix in computed]
    width = max(lengths)
    starts = torch.tensor(lengths, device=device)[:, None]
    block = torch.tensor([list(ids)] * len(computed), device=device)
    mask = torch.ones(len(computed), width + len(ids), dtype=torch.long, device=device)
    mask[:, :width] = torch.arange(width, device=device)[None] < starts
    positions = starts + torch.arange(len(ids), device=device)
    with torch.no_grad():
        cache = tuple(stack_caches([prefix.cache for prefix in computed], width))
        hidden, grown = run_trunk(policy.trunk, block, mask, positions, cache)
        extended = []
        for row, (prefix, length) in enumerate(zip(computed, lengths, strict=True)):
            states = torch.cat([prefix.hidden, hidden[row]])
            one = cache_of_row(grown, row, length, width)
            extended.append(ComputedPrefix((*prefix.ids, *ids), one, states, policy.version))
    return extended


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


@dataclass(frozen=True)
class _Answers:
    """Answers on their prefixes, checked and on the policy's device."""

    prefixes: Sequence[Any]  # Prefix, or ComputedPrefix once they have run
    index: Tensor  # [B], on the CPU: which prefix each answer stands on
    ids: Tensor  # [B, T]
    mask: Tensor  # [B, T]

    @property
    def prefix_lengths(self) -> Tensor:
        return torch.tensor([len(p.ids) for p in self.prefixes])[self.index]

    def part(self, rows: Tensor) -> _Answers:
        """Some of the answers, without padding beyond the longest of them."""
        width = int(self.mask[rows].sum(dim=1).max())
        ids, mask = self.ids[rows, :width], self.mask[rows, :width]
        return _Answers(self.prefixes, self.index[rows], ids, mask)


def _checked(
    policy: Policy,
    prefixes: Prefix | Sequence[Prefix],
    answer_ids: Tensor,
    answer_mask: Tensor,
    prefix_index: Tensor | None,
) -> _Answers:
    prefixes = [prefixes] if isinstance(prefixes, Prefix) else list(prefixes)
    if prefix_index is None:
        prefix_index = torch.zeros(len(answer_ids), dtype=torch.long)
        if len(prefixes) != 1:
            raise ValueError(f"{len(prefixes)} prefixes need a prefix_index for the answers.")
    if not bool(answer_mask.any(dim=1).all()):
        raise ValueError("An answer has no tokens; append the end token or drop it.")
    device = policy.device
    answers = _Answers(prefixes, prefix_index, answer_ids.to(device), answer_mask.to(device))
    longest = int((answer_mask.sum(dim=1).cpu() + answers.prefix_lengths).max())
    if longest > policy.context_length:
        raise ValueError(
            f"A prompt with its answer is {longest} tokens long, {policy.reference!r} takes at "
            f"most {policy.context_length}. Shorten the question or the answer."
        )
    return answers


@torch.no_grad()
def _in_micro_batches(
    policy: Policy,
    answers: _Answers,
    token_budget: int,
    measure: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]],
) -> list[Tensor]:
    """Blocks [B, T, …] of what ``measure(states, ids, mask)`` gives for each micro-batch."""
    computed = replace(answers, prefixes=compute_prefixes(policy, answers.prefixes))
    lengths = answers.mask.sum(dim=1).cpu() + answers.prefix_lengths
    groups = answers.prefix_lengths if policy.has_sliding_window else None
    budget = token_budget_for(policy, token_budget)
    blocks: list[Tensor] = []
    for attempt in batch_attempts(policy.device, lengths, budget, groups):
        with attempt as rows:
            part = computed.part(rows)
            pieces = measure(_states(policy, part), part.ids, part.mask)
            blocks = blocks or [x.new_zeros(*answers.mask.shape, *x.shape[2:]) for x in pieces]
            for block, piece in zip(blocks, pieces, strict=True):
                block[rows, : piece.shape[1]] = piece
    return blocks


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Right-padded ids [B, T] and a mask of the same shape, True on ids."""
    block = pad_sequence([torch.tensor(list(row)) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return block, torch.arange(block.shape[1])[None] < lengths[:, None]


def _run_prefixes(policy: Policy, batch: Sequence[tuple[int, ...]]) -> tuple[Tensor, Cache]:
    """Run a right-padded block of prefixes from nothing."""
    block, mask = _padded(batch)
    positions = torch.arange(block.shape[1])[None].expand(len(batch), -1)
    device = policy.device
    return run_trunk(
        policy.trunk, block.to(device), mask.long().to(device), positions.to(device), None
    )


def _states(policy: Policy, answers: _Answers) -> Tensor:
    """Hidden states [B, T, H] that predict each answer token, on computed prefixes."""
    used, index = torch.unique(answers.index, return_inverse=True)
    prefixes = [answers.prefixes[i] for i in used.tolist()]
    cache = tuple(stack_caches([p.cache for p in prefixes], max(len(p.ids) for p in prefixes)))
    last = torch.stack([p.hidden[-1] for p in prefixes])
    return _states_on_cache(policy, answers, index, last, cache)


def _states_with_gradient(policy: Policy, answers: _Answers) -> Tensor:
    """The same with the prefixes run anew, gradients as the caller set them."""
    used, index = torch.unique(answers.index, return_inverse=True)
    prefixes = [answers.prefixes[i].ids for i in used.tolist()]
    hidden, cache = _run_prefixes(policy, prefixes)
    ends = torch.tensor([len(ids) - 1 for ids in prefixes], device=hidden.device)
    last = hidden[torch.arange(len(prefixes), device=hidden.device), ends]
    return _states_on_cache(policy, answers, index, last, cache)


def _states_on_cache(
    policy: Policy, answers: _Answers, index: Tensor, last: Tensor, cache: Cache
) -> Tensor:
    """States of answers whose prefix is row ``index`` [B] of ``cache``, with last states [P, H]."""
    device = policy.device
    index, lengths = index.to(device), answers.prefix_lengths.to(device)
    # Not last[index]: with several threads its gradient adds up in an order of the moment.
    first = last.index_select(0, index)[:, None]
    if answers.ids.shape[1] == 1:
        return first
    slots = torch.arange(cache[0][0].shape[2], device=device)[None]
    prefix_mask = (slots < lengths[:, None]).long()
    mask = torch.cat([prefix_mask, answers.mask[:, :-1].long()], dim=1)
    positions = lengths[:, None] + torch.arange(answers.ids.shape[1] - 1, device=device)
    grown = tuple((k.index_select(0, index), v.index_select(0, index)) for k, v in cache)
    hidden, _ = run_trunk(policy.trunk, answers.ids[:, :-1], mask, positions, grown)
    return torch.cat([first, hidden], dim=1)


def logps_of_states(
    policy: Policy, hidden: Tensor, answer_ids: Tensor, answer_mask: Tensor
) -> Tensor:
    """Log-probs [B, T] of answer tokens from the states [B, T, H] that predict them."""
    logps = target_logps(
        hidden[answer_mask],
        answer_ids[answer_mask],
        policy.logits,
        policy.head_weight,
        frozen_head=policy.has_linear_head,
    )
    return _to_block(answer_mask, logps)


def _to_block(answer_mask: Tensor, column: Tensor) -> Tensor:
    """One value per answer token [N, ...] put where ``answer_mask`` [B, T] is True, 0 elsewhere."""
    block = column.new_zeros(*answer_mask.shape, *column.shape[1:])
    mask = answer_mask.reshape(*answer_mask.shape, *(1,) * (block.dim() - 2)).expand_as(block)
    return block.masked_scatter(mask, column)
