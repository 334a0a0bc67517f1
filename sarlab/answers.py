"""Score typed or sampled answers to one question, token by token: what the workbench looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sarlab.models import Policy
from sarlab.prompts import StandaloneContext, conditioned_ids, encode_answer, standalone_ids
from sarlab.sar import leave_out, perplexity, self_aligned_reward, token_shares, token_values
from sarlab.scoring import Prefix, Scores, score

_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class TokenAlternatives:
    """What a context would rather have seen at one token: rank from 1, and the likeliest five."""

    rank: int
    top: tuple[tuple[str, float], ...]  # (token, log-prob in nats)


@dataclass(frozen=True)
class AnswerScore:
    """One answer under both contexts. Log-probs in nats, one number a token in each tuple.

    ``tokens`` are the pieces of text that the ids stand for; joined they are the answer. A
    character that takes several ids stands with the last of them, the others are "".
    """

    question: str
    answer: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    logps_conditioned: tuple[float, ...]
    logps_standalone: tuple[float, ...]
    sar: float
    ppl_conditioned: float
    ppl_standalone: float
    alternatives_conditioned: tuple[TokenAlternatives, ...] = ()
    alternatives_standalone: tuple[TokenAlternatives, ...] = ()

    @property
    def length(self) -> int:
        """Tokens, the end token included."""
        return len(self.token_ids)

    @property
    def values(self) -> tuple[float, ...]:
        """v_j, nats: what the question gave to each token."""
        return tuple(token_values(*self._logps())[0].tolist())

    @property
    def shares(self) -> tuple[float, ...]:
        """v_j / n, nats; together −log(1 − SAR) before the clip."""
        return tuple(token_shares(*self._logps(), self._mask())[0].tolist())

    def sar_without(self, start: int, stop: int) -> float:
        """SAR with the tokens [start, stop) left out of the mean, nothing scored again."""
        if not 0 <= start < stop <= self.length or stop - start >= self.length:
            raise ValueError(
                f"The span [{start}, {stop}) must lie in an answer of {self.length} tokens and "
                "leave at least one of them."
            )
        span = torch.zeros(1, self.length, dtype=torch.bool)
        span[0, start:stop] = True
        return leave_out(*self._logps(), self._mask(), span).item()

    def _logps(self) -> tuple[Tensor, Tensor]:
        return torch.tensor([self.logps_conditioned]), torch.tensor([self.logps_standalone])

    def _mask(self) -> Tensor:
        return torch.ones(1, self.length, dtype=torch.bool)


def score_answers(
    policy: Policy,
    question: str,
    answers: Sequence[str | Sequence[int]],
    *,
    standalone: StandaloneContext = StandaloneContext.EMPTY_TURN,
    append_eos: bool = True,
    alternatives: bool = False,
    prefixes: tuple[Prefix, Prefix] | None = None,
) -> list[AnswerScore]:
    """Score answers to one question with it and without it.

    An answer is a text (tokenised alone; the end token is appended if ``append_eos``) or a
    sequence of ids (sampled; taken as it is). ``alternatives`` adds ranks and the five likeliest
    tokens under both contexts. ``prefixes`` (conditioned, standalone) saves their forward pass
    when they were computed before. Raises ValueError for an empty question or answer.
    """
    if not question.strip():
        raise ValueError(
            f"The question is empty ({question!r}); with nothing to condition on SAR is 0."
        )
    if not answers:
        return []
    conditioned, alone = prefixes or question_prefixes(policy, question, standalone)
    ids = [
        encode_answer(policy.tokenizer, a, policy.end_id, append_eos=append_eos)
        if isinstance(a, str)
        else [int(i) for i in a]
        for a in answers
    ]
    block, mask = answer_block(ids)
    outputs = ("logps", "ranks", "top") if alternatives else ("logps",)
    with_question = score(policy, conditioned, block, mask, outputs=outputs)
    without = score(policy, alone, block, mask, outputs=outputs)
    return [
        answer_score(policy, question, answer, own, with_question, without, row)
        for row, (answer, own) in enumerate(zip(answers, ids, strict=True))
    ]


def answer_score(
    policy: Policy,
    question: str,
    answer: str | Sequence[int],
    ids: Sequence[int],
    with_question: Scores,
    without: Scores,
    row: int = 0,
) -> AnswerScore:
    """The record of one answer, from a row of both contexts' scores."""
    assert with_question.logps is not None and without.logps is not None
    n = len(ids)
    logps = with_question.logps[row : row + 1, :n].cpu()
    logps_alone = without.logps[row : row + 1, :n].cpu()
    mask = torch.ones(1, n, dtype=torch.bool)
    return AnswerScore(
        question=question,
        answer=answer if isinstance(answer, str) else policy.text(list(ids)),
        token_ids=tuple(ids),
        tokens=tuple(token_pieces(policy.tokenizer, ids)),
        logps_conditioned=tuple(logps[0].tolist()),
        logps_standalone=tuple(logps_alone[0].tolist()),
        sar=self_aligned_reward(logps, logps_alone, mask).item(),
        ppl_conditioned=perplexity(logps, mask).item(),
        ppl_standalone=perplexity(logps_alone, mask).item(),
        alternatives_conditioned=_alternatives(policy, with_question, row, n),
        alternatives_standalone=_alternatives(policy, without, row, n),
    )


def question_prefixes(
    policy: Policy,
    question: str,
    standalone: StandaloneContext = StandaloneContext.EMPTY_TURN,
) -> tuple[Prefix, Prefix]:
    """The two prefixes of a question, conditioned and standalone, not computed yet."""
    return (
        Prefix(tuple(conditioned_ids(policy.tokenizer, question, policy.prompt))),
        Prefix(tuple(standalone_ids(policy.tokenizer, policy.prompt, standalone))),
    )


def token_pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each id, such that the pieces joined are the text of all ids.

    Decoding ids one by one loses leading spaces and breaks characters that span several ids, so
    each piece is what an id *adds* to a window before it. Ids of an unfinished character get "".
    """
    pieces: list[str] = []
    start, read = 0, 0  # the window decoded so far is ids[start:read]
    for end in range(1, len(ids) + 1):
        before = tokenizer.decode(ids[start:read], skip_special_tokens=False)
        now = tokenizer.decode(ids[start:end], skip_special_tokens=False)
        if now.endswith(_REPLACEMENT) and end < len(ids) and end - read < 4:
            pieces.append("")  # perhaps the first bytes of a character
            continue
        pieces.append(now[len(before) :])
        start, read = (read, end) if end - start > 8 else (start, end)
    return pieces


def token_name(tokenizer: Any, token_id: int) -> str:
    """The text of one id by itself, its leading space kept.

    An id that holds only a part of a character gives the vocabulary's own entry.
    """
    # Decoded alone, an id of SentencePiece's kind loses its space; behind another it keeps it.
    before = tokenizer.decode([token_id], skip_special_tokens=False)
    twice = tokenizer.decode([token_id, token_id], skip_special_tokens=False)
    name = twice[len(before) :] if twice.startswith(before) else before
    if not name or _REPLACEMENT in name:
        return str(tokenizer.convert_ids_to_tokens(token_id))
    return name


def _alternatives(
    policy: Policy, scores: Scores, row: int, length: int
) -> tuple[TokenAlternatives, ...]:
    if scores.ranks is None or scores.top_ids is None or scores.top_logps is None:
        return ()
    ranks = scores.ranks[row, :length].tolist()
    ids = scores.top_ids[row, :length].tolist()
    logps = scores.top_logps[row, :length].tolist()
    names = {i: token_name(policy.tokenizer, i) for i in {i for five in ids for i in five}}
    return tuple(
        TokenAlternatives(rank, tuple((names[i], p) for i, p in zip(five, values, strict=True)))
        for rank, five, values in zip(ranks, ids, logps, strict=True)
    )


def answer_block(ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Right-padded ids [B, T] and their answer_mask. ValueError for an answer without tokens."""
    for row, answer in enumerate(ids):
        if not answer:
            raise ValueError(f"Answer {row} has no tokens; perplexity is undefined.")
    width = max(map(len, ids))
    block = torch.zeros(len(ids), width, dtype=torch.long)
    mask = torch.zeros(len(ids), width, dtype=torch.bool)
    for row, answer in enumerate(ids):
        block[row, : len(answer)] = torch.tensor(list(answer))
        mask[row, : len(answer)] = True
    return block, mask
