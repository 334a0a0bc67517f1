"""Micro-batches within a budget of tokens, and what happens when memory runs out all the same.

Out of memory is not the end: the failed part is run again in smaller batches, the smaller budget
is kept for that kind of work on that device, and it is said once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Found = TypeVar("Found")
_budgets: dict[tuple[str, str], int] = {}  # by device and kind of work, where memory ran out
_notes: list[str] = []  # what was said about it and not yet fetched by memory_notes()


def plan_batches(
    lengths: Tensor, token_budget: int, groups: Tensor | None = None
) -> Iterator[Tensor]:
    """Row indices in micro-batches: longest first, rows × longest row ≤ ``token_budget``.

    ``lengths`` [B] tokens a row. The longest come first, so that memory that does not suffice
    shows at once. Rows of different ``groups`` never share a batch. A single row longer than the
    budget gets a batch of its own.
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


def run_in_batches(
    device: torch.device,
    lengths: Tensor,
    token_budget: int,
    run: Callable[[Tensor], Found],
    groups: Tensor | None = None,
    kind: str = "scoring",
) -> list[tuple[Tensor, Found]]:
    """``[(indices, run(indices)), …]`` over micro-batches; out of memory halves the budget.

    The smaller budget is kept for this kind of work on the device and said once. A single row
    that does not fit is an error that nothing here can mend, and is raised.
    """
    results: list[tuple[Tensor, Found]] = []
    pending = torch.arange(len(lengths))
    while len(pending):
        budget = _budget(device, kind, token_budget)
        part = None if groups is None else groups[pending]
        plan = [pending[chosen] for chosen in plan_batches(lengths[pending], budget, part)]
        for position, chosen in enumerate(plan):
            try:
                results.append((chosen, run(chosen)))
                continue
            except RuntimeError as error:
                if not is_out_of_memory(error) or len(chosen) == 1:
                    raise
            # Outside the handler, whose traceback holds on to the tensors of the failed batch.
            _halve(device, kind, len(chosen) * int(lengths[chosen].max()))
            pending = torch.cat(plan[position:])
            break
        else:
            pending = pending[:0]
    return results


def run_whole_plan(
    device: torch.device,
    lengths: Tensor,
    token_budget: int,
    run: Callable[[list[Tensor]], Found],
    groups: Tensor | None = None,
    kind: str = "update",
) -> Found:
    """``run(plan)`` on all micro-batches; out of memory starts it afresh with half the budget.

    For an update: a backward pass that breaks off leaves some gradients added and others not, so
    none of them is kept. ``run`` must begin by clearing what it adds up.
    """
    while True:
        plan = list(plan_batches(lengths, _budget(device, kind, token_budget), groups))
        try:
            return run(plan)
        except RuntimeError as error:
            if not is_out_of_memory(error) or max(map(len, plan)) == 1:
                raise
        _halve(device, kind, max(len(rows) * int(lengths[rows].max()) for rows in plan))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch had no memory left: on a GPU a type of its own, on a CPU only a text."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def memory_notes() -> list[str]:
    """What was said about batches that did not fit since the last call, for a run's record."""
    notes = list(_notes)
    _notes.clear()
    return notes


def _budget(device: torch.device, kind: str, wanted: int) -> int:
    return min(wanted, _budgets.get((str(device), kind), wanted))


def _halve(device: torch.device, kind: str, failed: int) -> None:
    """Go on with half of the ``failed`` tokens that did not fit, and say so."""
    torch.cuda.empty_cache()
    _budgets[str(device), kind] = failed // 2
    text = (
        f"Out of memory at {failed} tokens a micro-batch on {device} ({kind}); going on "
        f"with {failed // 2}."
    )
    _notes.append(text)
    warnings.warn(text, stacklevel=3)
