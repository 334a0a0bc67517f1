"""Micro-batches within a token budget, and recovery from out of memory.

Where memory runs out, the work goes on in smaller batches. The smaller budget is remembered per
device and kind of work, and one warning says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

import torch
from torch import Tensor

Work = TypeVar("Work")
_budgets: dict[tuple[str, str], int] = {}  # per device and kind of work, where memory ran out
_notes: list[str] = []  # warnings since the last memory_notes()


def plan_batches(
    lengths: Tensor, token_budget: int, groups: Tensor | None = None
) -> Iterator[Tensor]:
    """Row indices of micro-batches: longest first, rows × longest row ≤ ``token_budget``.

    ``lengths`` [B] is tokens per row. The longest come first, so that too little memory shows at
    once. Rows of different ``groups`` never share a batch. A single row longer than the budget
    gets a batch of its own.
    """
    order = sorted(
        range(len(lengths)),
        key=lambda i: (-int(groups[i]) if groups is not None else 0, -int(lengths[i]), i),
    )
    batch: list[int] = []
    for i in order:
        head = batch[0] if batch else i
        other_group = groups is not None and int(groups[i]) != int(groups[head])
        if batch and (other_group or (len(batch) + 1) * int(lengths[head]) > token_budget):
            yield torch.tensor(batch)
            batch = []
        batch.append(i)
    if batch:
        yield torch.tensor(batch)


class Attempt(AbstractContextManager[Work], Generic[Work]):
    """``with attempt as work:`` runs one piece of work; running out of memory only marks it.

    Any other error passes through, and so does out of memory where the work cannot be divided.
    """

    def __init__(self, work: Work, *, can_divide: bool) -> None:
        self.work: Work = work
        self.can_divide = can_divide
        self.failed = False

    def __enter__(self) -> Work:
        return self.work

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        self.failed = is_out_of_memory(error) and self.can_divide
        return self.failed


def batch_attempts(
    device: torch.device,
    lengths: Tensor,
    token_budget: int,
    groups: Tensor | None = None,
    kind: str = "scoring",
) -> Iterator[Attempt[Tensor]]:
    """One attempt per micro-batch, its work the row indices; a failed one comes again, smaller.

    Every row succeeds in exactly one attempt. Too little memory for a single row is an error.
    """
    pending = torch.arange(len(lengths))
    while len(pending):
        budget = _budget(device, kind, token_budget)
        part = None if groups is None else groups[pending]
        plan = [pending[chosen] for chosen in plan_batches(lengths[pending], budget, part)]
        pending = pending[:0]
        for position, rows in enumerate(plan):
            attempt = Attempt(rows, can_divide=len(rows) > 1)
            yield attempt
            if attempt.failed:
                _halve(device, kind, len(rows) * int(lengths[rows].max()))
                pending = torch.cat(plan[position:])
                break


def plan_attempts(
    device: torch.device,
    rows: Tensor,
    lengths: Tensor,
    token_budget: int,
    groups: Tensor | None = None,
    kind: str = "update",
) -> Iterator[Attempt[list[Tensor]]]:
    """Attempts at all micro-batches of ``rows`` [B] together, each smaller, until one succeeds.

    For an update: a backward pass that breaks off leaves some gradients added and others not, so
    each attempt must begin by clearing them.
    """
    while True:
        plan = list(plan_batches(lengths, _budget(device, kind, token_budget), groups))
        attempt = Attempt([rows[part] for part in plan], can_divide=max(map(len, plan)) > 1)
        yield attempt
        if not attempt.failed:
            return
        _halve(device, kind, max(len(part) * int(lengths[part].max()) for part in plan))


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether torch ran out of memory: on a GPU a type of its own, on a CPU only a text."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def memory_notes() -> list[str]:
    """The warnings about memory since the last call, for a run's record."""
    notes = list(_notes)
    _notes.clear()
    return notes


def _budget(device: torch.device, kind: str, token_budget: int) -> int:
    return min(token_budget, _budgets.get((str(device), kind), token_budget))


def _halve(device: torch.device, kind: str, failed_tokens: int) -> None:
    torch.cuda.empty_cache()
    _budgets[str(device), kind] = failed_tokens // 2
    text = (
        f"Out of memory at {failed_tokens} tokens per micro-batch on {device} ({kind}); going on "
        f"with {failed_tokens // 2}."
    )
    _notes.append(text)
    warnings.warn(text, stacklevel=3)
