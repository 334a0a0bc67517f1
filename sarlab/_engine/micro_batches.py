"""Micro-batches within a token budget, and recovery from out of memory.

Where memory runs out, the work goes on in smaller batches. The smaller budget is remembered per
device and kind of work, and one warning says so.
"""

import ctypes
import itertools
import sys
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

_budgets: dict[tuple[str, str], int] = {}  # per device and kind of work, where memory ran out
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
_notes: list[str] = []  # warnings since the last memory_notes()


def plan_batches(
    lengths: Tensor, token_budget: int, groups: Tensor | None = None
) -> Iterator[Tensor]:
    """Row indices of micro-batches: rows × longest row ≤ ``token_budget``, or a single row.

    ``lengths`` [B] is tokens per row. The longest come first, so that too little memory shows at
    once. Rows of different ``groups`` never share a batch.
    """
    tokens = lengths.tolist()
    kinds = [0] * len(tokens) if groups is None else groups.tolist()
    order = sorted(range(len(tokens)), key=lambda i: (-kinds[i], -tokens[i], i))
    for _, rows in itertools.groupby(order, key=lambda i: kinds[i]):
        batch: list[int] = []
        for i in rows:
            if batch and (len(batch) + 1) * tokens[batch[0]] > token_budget:
                yield torch.tensor(batch)
                batch = []
            batch.append(i)
        yield torch.tensor(batch)


def return_freed_blocks() -> None:
    """Let glibc give freed blocks of 1 MB and more back at once, for the whole process.

    By default it keeps ever larger ones, and the holes of a step of `smollm2-135m` reach 0.4 GB.
    Does nothing with other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(_MMAP_THRESHOLD, 1 << 20)


class Attempt:
    """``with attempt as batches:`` marks running out of memory where a batch can be divided."""

    def __init__(self, batches: list[Tensor]) -> None:
        self.batches = batches
        self.failed = False

    def __enter__(self) -> list[Tensor]:
        return self.batches

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        self.failed = is_out_of_memory(error) and max(map(len, self.batches)) > 1
        return self.failed


def batch_attempts(
    device: torch.device,
    lengths: Tensor,
    token_budget: int,
    groups: Tensor | None = None,
    kind: str = "scoring",
    *,
    together: bool = False,
) -> Iterator[Attempt]:
    """One attempt per micro-batch (a list of its row indices); a failed one comes again, smaller.

    Every row succeeds in exactly one attempt. Too little memory for a single row is an error.
    ``together``: each attempt is at all micro-batches. An update needs that, and must begin by
    clearing the gradients: a backward pass that breaks off leaves some added and others not.
    """
    pending = torch.arange(len(lengths))
    while len(pending):
        budget = min(token_budget, _budgets.get((str(device), kind), token_budget))
        part = None if groups is None else groups[pending]
        plan = [pending[chosen] for chosen in plan_batches(lengths[pending], budget, part)]
        pending = pending[:0]
        for position, batches in enumerate([plan] if together else [[rows] for rows in plan]):
            attempt = Attempt(batches)
            yield attempt
            if attempt.failed:
                tokens = max(len(rows) * int(lengths[rows].max()) for rows in batches)
                _budgets[str(device), kind] = tokens // 2
                torch.cuda.empty_cache()
                _notes.append(
                    f"Out of memory at {tokens} tokens per micro-batch on {device} ({kind}); "
                    f"going on with {tokens // 2}."
                )
                warnings.warn(_notes[-1], stacklevel=2)
                pending = torch.cat(plan[position:])
                break


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
