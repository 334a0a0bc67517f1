"""What the rest of an answer takes from one of its lines: the other side of SAR's ledger.

d_k = log P(a_>k | q, a_≤k) − log P(a_>k | q, a_<k), nats: the later lines with line k in sight
against the later lines without it. v says what a line reads from the question, d what it feeds to
the rest. Filler does neither; a copy of the question reads and feeds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sarlab.models import Policy
from sarlab.scoring import Prefix, answer_block, answer_logps, compute_prefixes

_CACHED_TOKENS = 16_384  # tokens whose keys and values are held at once


@dataclass(frozen=True)
class LineDependence:
    """Lines of B answers and what the rest takes from each.

    ``line_ids`` [B, T]: each token's line from 0, −1 on padding. ``nats`` and ``rest_tokens``
    [B, L]: d, and the number of tokens after the line; both are 0 for the last line of an answer,
    which nothing follows, and where there is no line.
    """

    line_ids: Tensor
    nats: Tensor
    rest_tokens: Tensor

    @property
    def nats_per_token(self) -> Tensor:
        """d per token of the rest [B, L]; 0 where there is no rest."""
        return self.nats / self.rest_tokens.clamp(min=1)


def lines_of(tokenizer: Any, answer_ids: Tensor, answer_mask: Tensor) -> Tensor:
    """The line of each token [B, T], from 0; −1 on padding.

    A line ends with the token that holds its line break. Empty lines belong to the one before
    them, and an end token after the last line break to the last line.
    """
    used = torch.unique(answer_ids[answer_mask]).tolist()
    pieces = {i: tokenizer.decode([i], skip_special_tokens=True) for i in used}
    lines = torch.full(answer_ids.shape, -1, dtype=torch.long)
    for row in range(len(lines)):
        line, open_break = 0, False
        for position, token in enumerate(answer_ids[row][answer_mask[row]].tolist()):
            piece = pieces[token]
            if open_break and piece.strip():
                line += 1
                open_break = False
            lines[row, position] = line
            open_break = open_break or "\n" in piece
    return lines


def line_dependence(
    policy: Policy,
    prefixes: Sequence[Prefix],
    answer_ids: Tensor,
    answer_mask: Tensor,
    logps: Tensor,
    *,
    prefix_index: Tensor | None = None,
    token_budget: int = 0,
) -> LineDependence:
    """d of every line of B answers [B, T], each on top of its prefix (a question).

    ``logps`` [B, T]: the answers' log-probs on those prefixes under this policy, which give the
    first term; the second takes one pass per line over the tokens after it. The prefixes of all
    lines are cut from one pass over the answer, so 12 lines of equal length cost about six passes.
    """
    index = torch.zeros(len(answer_ids), dtype=torch.long) if prefix_index is None else prefix_index
    lines = lines_of(policy.tokenizer, answer_ids, answer_mask)
    nats = torch.zeros(len(lines), int(lines.max()) + 1)
    rest_tokens = torch.zeros(nats.shape, dtype=torch.long)
    answers = [ids[mask].tolist() for ids, mask in zip(answer_ids, answer_mask, strict=True)]
    whole = [(*prefixes[int(place)].ids, *ids) for place, ids in zip(index, answers, strict=True)]
    together = max(1, _CACHED_TOKENS // max(map(len, whole)))
    for first in range(0, len(answers), together):
        rows = range(first, min(first + together, len(answers)))
        # (row, line, first token, first token after it) of every line that another one follows
        jobs = [
            (row, line, int(at[0]), int(at[-1]) + 1)
            for row in rows
            for line in range(int(lines[row].max()))
            for at in (lines[row] == line).nonzero(as_tuple=True)
        ]
        if not jobs:  # every answer is a single line
            continue
        computed = compute_prefixes(policy, [Prefix(whole[row]) for row in rows])
        before = [len(whole[row]) - len(answers[row]) for row, *_ in jobs]
        cut = [computed[j[0] - first].cut(n + j[2]) for j, n in zip(jobs, before, strict=True)]
        block, mask = answer_block([answers[row][stop:] for row, _, _, stop in jobs])
        places = torch.arange(len(jobs))
        without = answer_logps(
            policy, cut, block, mask, prefix_index=places, token_budget=token_budget
        )
        sums = without.cpu().masked_fill(~mask, 0.0).sum(dim=1)
        for (row, line, _, stop), lost in zip(jobs, sums, strict=True):
            nats[row, line] = logps[row, stop : len(answers[row])].sum() - lost
            rest_tokens[row, line] = len(answers[row]) - stop
    return LineDependence(lines, nats, rest_tokens)
