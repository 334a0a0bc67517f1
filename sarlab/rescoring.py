"""Score an answer that is being edited: only the tokens after the first change are run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from sarlab.answers import AnswerScore, answer_score, question_prefixes
from sarlab.models import Policy
from sarlab.prompts import StandaloneContext, encode_answer
from sarlab.scoring import (
    Prefix,
    Scores,
    compute_prefixes,
    extend_prefix,
    run_trunk,
    stack_caches,
    token_scores,
)

_OUTPUTS = ("logps", "ranks", "top")


@dataclass(frozen=True)
class _Held:
    """An answer on top of one context: the context with the answer, and the tokens' scores."""

    prefix: Prefix
    scores: Scores | None  # None while there is no answer


class Rescorer:
    """Scores answers to one question, each as an edit of the one before it.

    The key-value caches of both contexts are kept with the last answer on top. An answer that
    shares its first k tokens with the last one costs a forward pass of the others only. Scores
    equal those of :func:`sarlab.score_answers` up to float32 rounding.
    """

    def __init__(
        self,
        policy: Policy,
        question: str,
        *,
        standalone: StandaloneContext = StandaloneContext.EMPTY_TURN,
    ) -> None:
        if not question.strip():
            raise ValueError(
                f"The question is empty ({question!r}); with nothing to condition on SAR is 0."
            )
        self.policy = policy
        self.question = question
        prefixes = compute_prefixes(policy, question_prefixes(policy, question, standalone))
        self._starts = tuple(len(prefix.ids) for prefix in prefixes)
        self._held = tuple(_Held(prefix, None) for prefix in prefixes)
        self._ids: tuple[int, ...] = ()
        self._last: AnswerScore | None = None

    @property
    def conditioned(self) -> Prefix:
        """The prefix with the question, computed, without an answer on top."""
        return self._held[0].prefix.cut(self._starts[0])

    def score(self, answer: str | Sequence[int], *, append_eos: bool = True) -> AnswerScore:
        """Score a text (tokenised alone, end token appended) or ids, and keep it for the next."""
        ids = self._encode(answer, append_eos)
        held = self._extended(ids)
        self._held, self._ids = held, ids
        self._last = self._record(answer, ids, held)
        return self._last

    def score_deleted(self, start: int, stop: int) -> AnswerScore:
        """The last answer with the tokens [start, stop) deleted and those after scored again.

        The other tokens keep their ids: nothing is decoded and encoded again. Raises ValueError
        for a span that leaves nothing, or where no answer was scored yet.
        """
        n = len(self._ids)
        if not 0 <= start < stop <= n or stop - start >= n:
            raise ValueError(
                f"The span [{start}, {stop}) must lie in an answer of {n} tokens and leave at "
                "least one of them."
            )
        ids = (*self._ids[:start], *self._ids[stop:])
        return self._record(ids, ids, self._extended(ids))

    def _encode(self, answer: str | Sequence[int], append_eos: bool) -> tuple[int, ...]:
        if isinstance(answer, str):
            found = encode_answer(
                self.policy.tokenizer, answer, self.policy.end_id, append_eos=append_eos
            )
            ids = tuple(found)
        else:
            ids = tuple(int(i) for i in answer)
        if not ids:
            raise ValueError("The answer has no tokens; perplexity is undefined.")
        longest = max(self._starts) + len(ids)
        if longest > self.policy.context_length:
            raise ValueError(
                f"The question with its answer is {longest} tokens long, "
                f"{self.policy.reference!r} takes at most {self.policy.context_length}. "
                "Shorten the answer."
            )
        return ids

    def _extended(self, ids: tuple[int, ...]) -> tuple[_Held, ...]:
        """The answer on top of both contexts; what it shares with the last one is kept."""
        same = 0
        for old, new in zip(self._ids, ids, strict=False):
            if old != new:
                break
            same += 1
        new_ids = ids[same:]
        kept = [
            held.prefix.cut(base + same)
            for held, base in zip(self._held, self._starts, strict=True)
        ]
        shared = [_tokens(held.scores, same) for held in self._held]
        if not new_ids:  # nothing is new, or only the end was cut off
            return tuple(map(_Held, kept, shared))
        prefixes = _extend_both(self.policy, kept, new_ids)
        # The state at a position predicts the next one, so the states start one token earlier.
        states = torch.stack(
            [
                prefix.hidden[base + same - 1 : base + len(ids) - 1]  # type: ignore[index]
                for prefix, base in zip(prefixes, self._starts, strict=True)
            ]
        )
        targets = torch.tensor([new_ids, new_ids], device=states.device)
        mask = torch.ones_like(targets, dtype=torch.bool)
        with torch.no_grad():
            found = token_scores(self.policy, states, targets, mask, _OUTPUTS)
        return tuple(
            _Held(prefix, _joined(first, _row(found, which)))
            for which, (prefix, first) in enumerate(zip(prefixes, shared, strict=True))
        )

    def _record(
        self, answer: str | Sequence[int], ids: tuple[int, ...], held: tuple[_Held, ...]
    ) -> AnswerScore:
        with_question, without = (h.scores for h in held)
        assert with_question is not None and without is not None
        return answer_score(self.policy, self.question, answer, ids, with_question, without)


def _extend_both(policy: Policy, prefixes: Sequence[Prefix], ids: Sequence[int]) -> list[Prefix]:
    """Both prefixes with the same tokens on top, in one forward.

    Where few tokens are new, reading the weights is what takes the time.
    """
    if policy.has_sliding_window:  # padding between prefix and answer would shorten the window
        return [extend_prefix(policy, prefix, ids) for prefix in prefixes]
    prefixes = compute_prefixes(policy, prefixes)
    device, lengths = policy.device, [len(prefix.ids) for prefix in prefixes]
    width = max(lengths)
    with torch.no_grad():
        cache = stack_caches([prefix.cache for prefix in prefixes], width)  # type: ignore[misc]
        starts = torch.tensor(lengths, device=device)[:, None]
        block = torch.tensor([list(ids)] * len(prefixes), device=device)
        mask = torch.ones(len(prefixes), width + len(ids), dtype=torch.long, device=device)
        mask[:, :width] = torch.arange(width, device=device)[None] < starts
        positions = starts + torch.arange(len(ids), device=device)
        hidden, grown = run_trunk(policy, block, mask, positions, cache)
    found = []
    for row, (prefix, length) in enumerate(zip(prefixes, lengths, strict=True)):
        keys_and_values = tuple(
            (
                _without_padding(k[row : row + 1], length, width),
                _without_padding(v[row : row + 1], length, width),
            )
            for k, v in grown
        )
        states = torch.cat([prefix.hidden, hidden[row]])  # type: ignore[list-item]
        found.append(Prefix((*prefix.ids, *ids), keys_and_values, states, policy.version))
    return found


def _without_padding(block: torch.Tensor, length: int, width: int) -> torch.Tensor:
    """Slots [0, length) and those after ``width`` of keys or values [1, heads, slots, dim]."""
    if length == width:
        return block
    return torch.cat([block[:, :, :length], block[:, :, width:]], dim=2)


def _tokens(scores: Scores | None, stop: int) -> Scores | None:
    """The scores of the first tokens of the answer."""
    if scores is None or stop == 0:
        return None
    return Scores(**{name: block[:, :stop] for name, block in _present(scores)})


def _row(scores: Scores, row: int) -> Scores:
    return Scores(**{name: block[row : row + 1] for name, block in _present(scores)})


def _joined(first: Scores | None, second: Scores) -> Scores:
    if first is None:
        return second
    tails = dict(_present(second))
    return Scores(**{n: torch.cat([block, tails[n]], dim=1) for n, block in _present(first)})


def _present(scores: Scores) -> list[tuple[str, torch.Tensor]]:
    blocks = [(field.name, getattr(scores, field.name)) for field in fields(scores)]
    return [(name, block) for name, block in blocks if block is not None]
