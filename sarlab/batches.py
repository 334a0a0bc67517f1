"""Micro-batches under a budget of tokens, which halves itself where memory runs out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from sarlab.models import Policy

Found = TypeVar("Found")
_BUDGET_CPU, _BUDGET_GPU = 2_048, 16_384  # on a CPU activations should stay in its caches
_budgets: dict[str, int] = {}  # token budget per device, halved when memory ran out


def token_budget_for(policy: Policy, wanted: int = 0) -> int:
    """Tokens in one micro-batch: what is wanted, or (0) what suits the device.

    On two CPU cores 2,048 tokens take two thirds of the time that 16,384 take, for `tiny`: rows of
    like length share a batch, and what a layer writes is still in the cache when the next reads it.
    Never more than what :func:`halve_budget` left.
    """
    wanted = wanted or (_BUDGET_GPU if policy.device.type == "cuda" else _BUDGET_CPU)
    return min(wanted, _budgets.get(str(policy.device), wanted))


def halve_budget(policy: Policy, budget: int) -> None:
    """Memory ran out at ``budget`` tokens: from now on at most half of it, said once."""
    torch.cuda.empty_cache()
    _budgets[str(policy.device)] = budget // 2
    warnings.warn(
        f"Out of memory at {budget} tokens a micro-batch on {policy.device}; going on with "
        f"{budget // 2}.",
        stacklevel=3,
    )


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
    policy: Policy,
    lengths: Tensor,
    token_budget: int,
    run: Callable[[Tensor], Found],
    groups: Tensor | None = None,
) -> list[tuple[Tensor, Found]]:
    """``[(indices, run(indices)), …]`` over micro-batches; out of memory halves the budget.

    ``token_budget`` as :func:`token_budget_for` takes it. The smaller budget is kept for the
    device and said once. A single row that does not fit is an error that nothing here can mend,
    and is raised.
    """
    results: list[tuple[Tensor, Found]] = []
    pending = torch.arange(len(lengths))
    while len(pending):
        budget = token_budget_for(policy, token_budget)
        part = None if groups is None else groups[pending]
        plan = [pending[chosen] for chosen in plan_batches(lengths[pending], budget, part)]
        for position, chosen in enumerate(plan):
            try:
                results.append((chosen, run(chosen)))
            except torch.OutOfMemoryError:
                if len(chosen) == 1:
                    raise
                halve_budget(policy, budget)
                pending = torch.cat(plan[position:])
                break
        else:
            pending = pending[:0]
    return results


def run_with_budget(
    policy: Policy, token_budget: int, longest: int, run: Callable[[int], dict[str, float]]
) -> dict[str, float]:
    """``run(budget)``, from its beginning again with half the budget where memory runs out.

    For work whose parts add up, as gradients do. ``longest`` is the tokens of the longest row: at
    that budget rows run one by one, and the error is raised.
    """
    while True:
        budget = token_budget_for(policy, token_budget)
        try:
            return run(budget)
        except torch.OutOfMemoryError:
            if budget <= longest:
                raise
        halve_budget(policy, budget)  # outside of the handler, which holds on to the failed pass
