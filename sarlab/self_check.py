"""Does this model give the right numbers here? Scoring and sampling against plain forwards.

Two prefixes of unequal length and a few sampled tokens go through :func:`sarlab.rollout.sample`
and :func:`sarlab.scoring.answer_logps`, and once more row by row through ``model(input_ids)``:
nothing cached, nothing padded. Refused are models whose head is more than the output embedding,
whose positions come from cache slots, or that keep another state than keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sarlab.policy import Policy
from sarlab.rollout import sample
from sarlab.scoring import Prefix, answer_logps, compute_prefixes

LIMIT = 1e-3  # nats, float32 weights; models that are right stay below 1e-4
_PREFIXES = (5, 12)  # tokens: of unequal length, so that one is padded
_COPIES = 8
_SAMPLED = 3
_SCORED = (2, 3)  # of the sampled tokens, so that one answer is padded too
_SAFE = "Take a model with plain attention, such as Llama, Qwen2, Qwen3, Gemma, Mistral or Phi-3."

# What an architecture's own code raises when it is called in a way that it does not know.
_ERRORS = (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
_PARTS = {
    "head": (
        "the head: the model's logits are not its last hidden states times the output embedding "
        "(a layer, a norm or a scale lies between)"
    ),
    "cache": (
        "the cache: a prefix is computed once and its keys and values serve every answer, and "
        "this architecture keeps another state or none"
    ),
    "padding": (
        "positions and padding: prefixes of unequal length share a batch, and this architecture "
        "counts the padding between a prefix and its answer as tokens"
    ),
    "sampling": (
        "sampling: tokens are drawn one by one on a growing cache, which this architecture does "
        "not read as it does its own"
    ),
}
_passed: set[tuple[str, str, str]] = (
    set()
)  # what agreed, by class, configuration and type of weights


def check_policy(policy: Policy) -> None:
    """Raise ValueError where scoring or sampling differ from the model's own plain forward.

    The limit is :data:`LIMIT` with float32 weights, and measured for smaller types
    (:meth:`_Check.limit`). The sentence names the part that differs. An architecture is checked
    once per process, configuration and type of weights.
    """
    kind = type(policy.causal_lm).__name__
    weights = f"{policy.dtype} {policy.device.type} {hasattr(policy.model, 'peft_config')}"
    key = (kind, str(policy.model.config.to_json_string()), weights)
    if key in _passed:
        return
    name = f"Model {policy.reference!r} ({kind})"
    with torch.no_grad():
        try:
            check = _Check(policy)
            limit = check.limit()
        except _ERRORS as error:
            raise ValueError(
                f"{name} does not answer a plain forward of token ids: {_said(error)}. {_SAFE}"
            ) from error
        if _problem(check.whole, limit) is None:
            _passed.add(key)
            return
        for part, difference in check.parts():
            problem = _problem(difference, limit)
            if problem:
                raise ValueError(
                    f"{name} is refused: {problem}. What differs is {_PARTS[part]}. {_SAFE}"
                )
    raise ValueError(
        f"{name} is refused: scores of sampled answers differ by more than {limit:.2g} nats from "
        f"those of a plain forward, each part alone does not. {_SAFE}"
    )


def check_left_padding(policy: Policy) -> None:
    """Raise ValueError where padding on the left, as TRL does it, changes the model's log-probs.

    TRL passes a mask but no positions, so a model with learned absolute positions counts the
    padding.
    """
    with torch.no_grad():
        check = _Check(policy)
        limit, rows = check.limit(), check.rows
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long, device=policy.device)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, width - len(row) :] = torch.tensor(row)
            mask[place, width - len(row) :] = 1
        logits = policy.model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
        largest = 0.0
        for place, row in enumerate(rows):
            padded = torch.log_softmax(logits[place, width - len(row) :], dim=-1)
            largest = max(largest, _largest(padded[:-1], check.plain(row)[:-1], row[1:]))
    if not largest <= limit:
        raise ValueError(
            f"Model {policy.reference!r} ({type(policy.causal_lm).__name__}) cannot be trained by "
            f"TRL, which pads prompts on the left and passes no positions: log-probs move by up "
            f"to {largest:.2g} nats (limit {limit:.2g}). Train it with sarlab's own loop "
            "(notebook 02), or take a model with rotary positions."
        )


class _Check:
    """The comparisons on one policy; each returns its largest difference in nats.

    ``rows``: two prefixes of unequal length, each with as many ids behind it as are sampled.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        generator = torch.Generator().manual_seed(0)
        ids = min(len(policy.tokenizer), policy.model.get_input_embeddings().weight.shape[0])
        self.rows: list[list[int]] = [
            torch.randint(ids, (length + _SAMPLED,), generator=generator).tolist()
            for length in _PREFIXES
        ]
        self.prefixes = [Prefix(tuple(r[:n])) for r, n in zip(self.rows, _PREFIXES, strict=True)]
        self._plain: dict[tuple[int, ...], Tensor] = {}

    def plain(self, row: list[int]) -> Tensor:
        """Log-probs [length, V] of one row, one forward, nothing cached, nothing padded."""
        if tuple(row) not in self._plain:
            ids = torch.tensor([row], device=self.policy.device)
            logits = self.policy.model(input_ids=ids, use_cache=False).logits[0].float()
            self._plain[tuple(row)] = torch.log_softmax(logits, dim=-1)
        return self._plain[tuple(row)]

    def limit(self) -> float:
        """Largest difference in nats that rounding alone explains for these weights.

        float32: :data:`LIMIT`. For smaller types it is measured on the model itself: six times
        the root mean square by which log-probs move when a row runs beside copies of itself
        (another shape, so other sums), plus the rounding of the largest logit.
        """
        policy = self.policy
        if policy.dtype == torch.float32:
            return LIMIT
        moved, logit = 0.0, 0.0
        for row in self.rows:
            ids = torch.tensor([row[:-1]] * _COPIES, device=policy.device)
            logits = policy.model(input_ids=ids, use_cache=False).logits[0].float()
            change = torch.log_softmax(logits, dim=-1) - self.plain(row)[:-1]
            moved = max(moved, change.square().mean().sqrt().item())
            logit = max(logit, logits.abs().max().item())
        return LIMIT + 6 * moved + logit * torch.finfo(policy.dtype).eps

    def whole(self) -> float:
        """Prefixes computed once, tokens sampled on them, then scored: the way of a step."""
        self.prefixes = compute_prefixes(self.policy, self.prefixes)
        difference = self.sampled()
        return max(difference, self.scored(range(len(self.rows))))

    def parts(self) -> Iterator[tuple[str, Callable[[], float]]]:
        """The parts from the simplest on; each one leans on those before it."""
        self.prefixes = [Prefix(prefix.ids) for prefix in self.prefixes]
        yield "head", self.headed
        yield "cache", lambda: self.scored([1])
        yield "padding", lambda: self.scored(range(len(self.rows)))
        yield "sampling", self.sampled

    def headed(self) -> float:
        """The head on the trunk's states against the model's own logits."""
        policy, row = self.policy, self.rows[1]
        ids = torch.tensor([row], device=policy.device)
        hidden = policy.trunk(input_ids=ids, use_cache=False).last_hidden_state[0]
        logps = torch.log_softmax(policy.logits(hidden).float(), dim=-1)
        return _largest(logps[:-1], self.plain(row)[:-1], row[1:])

    def sampled(self) -> float:
        """Sample on both prefixes; the tokens drawn take their place in ``rows``."""
        endless = replace(self.policy, eos_ids=(-1,))  # an end token would end the check early
        drawn = sample(
            endless, self.prefixes, group_size=1, max_answer_tokens=_SAMPLED, seed="self-check"
        )
        ids = drawn.answer_ids.tolist()
        self.rows = [[*p.ids, *answer] for p, answer in zip(self.prefixes, ids, strict=True)]
        return max(self._against_plain(n, drawn.logps[n]) for n in range(len(self.rows)))

    def scored(self, places: Sequence[int]) -> float:
        """Score the answers of these rows as one batch."""
        prefixes = [self.prefixes[n] for n in places]
        ids = torch.tensor([self.rows[n][_PREFIXES[n] :] for n in places])
        lengths = torch.tensor([_SCORED[n] for n in places])
        mask = torch.arange(_SAMPLED)[None] < lengths[:, None]
        index = torch.arange(len(prefixes))
        logps = answer_logps(self.policy, prefixes, ids, mask, prefix_index=index)
        rows = zip(places, logps, strict=True)
        return max(self._against_plain(n, row[: _SCORED[n]]) for n, row in rows)

    def _against_plain(self, place: int, logps: Tensor) -> float:
        """How far the log-probs of a row's first answer tokens lie from the plain forward's."""
        row, start = self.rows[place], _PREFIXES[place]
        end = start + len(logps)
        plain = self.plain(row)[start - 1 : end - 1]
        wanted = plain.gather(-1, torch.tensor(row[start:end], device=plain.device)[:, None])
        return (logps.to(plain.device) - wanted[:, 0]).abs().max().item()


def _largest(one: Tensor, other: Tensor, targets: list[int]) -> float:
    """Largest difference of the targets' log-probs between two blocks [length, V]; NaN stays."""
    index = torch.tensor(targets, device=one.device)[:, None]
    return (one.gather(-1, index) - other.gather(-1, index)).abs().max().item()


def _problem(difference: Callable[[], float], limit: float) -> str | None:
    """What is wrong with a part in words, None where it agrees with the plain forward."""
    try:
        largest = difference()
    except _ERRORS as error:
        return f"its layers do not work as sarlab calls them ({_said(error)})"
    if largest <= limit:
        return None
    return (
        f"log-probs would lie up to {largest:.2g} nats from those of its own plain forward "
        f"(limit {limit:.2g})"
    )


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no text').splitlines()[0][:160]}"
