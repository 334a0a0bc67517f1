"""Scores of typed or sampled answers to one question, token by token, also while one is edited."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sarlab.models import Policy
from sarlab.prompts import StandaloneContext, encode_answer
from sarlab.sar import leave_out, perplexity, self_aligned_reward, token_shares, token_values
from sarlab.scoring import (
    ComputedPrefix,
    Prefix,
    TokenReport,
    answer_block,
    answer_logps,
    compute_prefixes,
    extend_prefixes,
    prefix_of,
    report_of_states,
    token_report,
)

_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class TokenAlternatives:
    """One token's rank under a context (1 is the likeliest), and the context's top 5 tokens."""

    rank: int
    top: tuple[tuple[str, float], ...]  # (token, log-prob in nats)


@dataclass(frozen=True)
class AnswerScore:
    """One answer under both contexts. Log-probs in nats, one value per token in each tuple.

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
    entropy: tuple[float, ...] = ()  # nats, with the question

    @property
    def length(self) -> int:
        """Tokens, the end token included."""
        return len(self.token_ids)

    @property
    def values(self) -> tuple[float, ...]:
        """v_j, nats: what the question gave to each token."""
        return tuple(token_values(*self._block()[:2])[0].tolist())

    @property
    def shares(self) -> tuple[float, ...]:
        """v_j / n, nats; together −log(1 − SAR) before the clip."""
        return tuple(token_shares(*self._block())[0].tolist())

    def sar_without(self, start: int, stop: int) -> float:
        """SAR with the tokens [start, stop) left out of the mean, nothing scored again."""
        _refuse_span(start, stop, self.length)
        place = torch.arange(self.length)[None]
        return leave_out(*self._block(), (place >= start) & (place < stop)).item()

    def _block(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both contexts' log-probs and the mask [1, T]."""
        conditioned = torch.tensor([self.logps_conditioned])
        mask = torch.ones_like(conditioned).bool()
        return conditioned, torch.tensor([self.logps_standalone]), mask


def score_answers(
    policy: Policy,
    question: str,
    answers: Sequence[str | Sequence[int]],
    *,
    standalone: StandaloneContext = StandaloneContext.EMPTY_TURN,
    append_eos: bool = True,
    alternatives: bool = False,
) -> list[AnswerScore]:
    """Score answers to one question with it and without it.

    An answer is a text (tokenised alone; the end token is appended if ``append_eos``) or a
    sequence of ids (sampled; taken as they are). ``alternatives`` adds ranks and the five
    likeliest tokens under both contexts. Raises ValueError for an empty question or answer.
    """
    contexts = question_prefixes(policy, question, standalone)
    if not answers:
        return []
    ids = [_encode(policy, answer, append_eos) for answer in answers]
    block = answer_block(ids)
    reports = [token_report(policy, prefix, *block) for prefix in contexts] if alternatives else []
    logps = [r.logps for r in reports] or [answer_logps(policy, p, *block) for p in contexts]
    both = torch.stack(logps, dim=1)
    columns = [torch.stack(pair, dim=1) for pair in zip(*reports, strict=True)]
    return [
        _answer_score(policy, question, answer, ids[row], both[row], [x[row] for x in columns])
        for row, answer in enumerate(answers)
    ]


def question_prefixes(
    policy: Policy, question: str, standalone: StandaloneContext = StandaloneContext.EMPTY_TURN
) -> tuple[Prefix, Prefix]:
    """The two prefixes of a question, conditioned and standalone, not computed yet."""
    if not question.strip():
        raise ValueError(
            f"The question is empty ({question!r}); with nothing to condition on SAR is 0."
        )
    return prefix_of(policy, question), prefix_of(policy, None, standalone)


class Rescorer:
    """Scores answers to one question, each as an edit of the one before it.

    Tokens that an answer shares with the beginning of the last one are not run again. Scores equal
    those of :func:`score_answers` up to float32 rounding.
    """

    def __init__(self, policy: Policy, question: str) -> None:
        self.policy = policy
        self.question = question
        self._prefixes = compute_prefixes(policy, question_prefixes(policy, question))
        self._starts = [len(prefix.ids) for prefix in self._prefixes]
        self._ids: tuple[int, ...] = ()
        self._report: TokenReport | None = None  # [2, T], conditioned and standalone

    @property
    def conditioned(self) -> Prefix:
        """The prefix with the question, computed, without an answer on top."""
        return self._prefixes[0].cut(self._starts[0])

    @property
    def answered(self) -> ComputedPrefix:
        """The prefix with the question, and the last answer on top."""
        return self._prefixes[0]

    def score(self, answer: str | Sequence[int]) -> AnswerScore:
        """Score a text (tokenised alone, end token appended) or ids, and keep it for the next."""
        ids = tuple(_encode(self.policy, answer, append_eos=True))
        self._prefixes, self._report = self._extended(ids)
        self._ids, logps = ids, self._report.logps
        return _answer_score(self.policy, self.question, answer, ids, logps, self._report)

    def score_deleted(self, start: int, stop: int) -> AnswerScore:
        """The last answer with the tokens [start, stop) deleted and those after scored again.

        The other tokens keep their ids: nothing is decoded and encoded again. Raises ValueError
        for a span that leaves nothing, or where no answer was scored yet.
        """
        _refuse_span(start, stop, len(self._ids))
        ids = (*self._ids[:start], *self._ids[stop:])
        report = self._extended(ids)[1]
        return _answer_score(self.policy, self.question, ids, ids, report.logps, report)

    def _extended(self, ids: tuple[int, ...]) -> tuple[list[ComputedPrefix], TokenReport]:
        """Both contexts with the answer on top; the tokens it shares with the last are reused."""
        pairs = enumerate(zip(ids, self._ids, strict=False))
        same = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(self._ids)))
        prefixes = [p.cut(n + same) for p, n in zip(self._prefixes, self._starts, strict=True)]
        new_ids = ids[same:]
        before = self._report and TokenReport(*(block[:, :same] for block in self._report))
        if before is not None and not new_ids:  # nothing is new, or only the end was cut off
            return prefixes, before
        extended = extend_prefixes(self.policy, prefixes, new_ids)
        # The state at a position predicts the next one, so the states start one token earlier.
        states = torch.stack([prefix.hidden[-len(new_ids) - 1 : -1] for prefix in extended])
        targets = torch.tensor([new_ids, new_ids], device=states.device)
        report = report_of_states(self.policy, states, targets, torch.ones_like(targets).bool())
        if before is not None:
            report = TokenReport(*(torch.cat(x, dim=1) for x in zip(before, report, strict=True)))
        return extended, report


def _answer_score(
    policy: Policy,
    question: str,
    answer: str | Sequence[int],
    ids: Sequence[int],
    logps: Tensor,
    columns: Sequence[Tensor],
) -> AnswerScore:
    """The record of one answer from log-probs [2, T] in both contexts, and their report if any."""
    conditioned, alone = logps[:, None, : len(ids)].cpu()
    mask = torch.ones(1, len(ids), dtype=torch.bool)
    alternatives: list[tuple[TokenAlternatives, ...]] = [(), ()]
    entropy: tuple[float, ...] = ()
    if columns:
        report = TokenReport(*(x[:, : len(ids)] for x in columns))
        entropy = tuple(report.entropy[0].tolist())
        names = {i: token_name(policy.tokenizer, i) for i in report.top_ids.unique().tolist()}
        alternatives = [
            tuple(
                TokenAlternatives(rank, tuple((names[i], p) for i, p in zip(*five, strict=True)))
                for rank, *five in zip(*(column.tolist() for column in context), strict=True)
            )
            for context in zip(report.ranks, report.top_ids, report.top_logps, strict=True)
        ]
    return AnswerScore(
        question=question,
        answer=answer if isinstance(answer, str) else policy.text(list(ids)),
        token_ids=tuple(ids),
        tokens=tuple(token_pieces(policy.tokenizer, ids)),
        logps_conditioned=tuple(conditioned[0].tolist()),
        logps_standalone=tuple(alone[0].tolist()),
        sar=self_aligned_reward(conditioned, alone, mask).item(),
        ppl_conditioned=perplexity(conditioned, mask).item(),
        ppl_standalone=perplexity(alone, mask).item(),
        alternatives_conditioned=alternatives[0],
        alternatives_standalone=alternatives[1],
        entropy=entropy,
    )


def _encode(policy: Policy, answer: str | Sequence[int], append_eos: bool) -> list[int]:
    if isinstance(answer, str):
        return encode_answer(policy.tokenizer, answer, policy.end_id, append_eos=append_eos)
    ids = [int(i) for i in answer]
    if not ids:
        raise ValueError("The answer is empty: it has no tokens, so perplexity is undefined.")
    return ids


def _refuse_span(start: int, stop: int, length: int) -> None:
    if not 0 <= start < stop <= length or stop - start >= length:
        raise ValueError(
            f"The span [{start}, {stop}) must lie in an answer of {length} tokens and leave at "
            "least one of them."
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
    """The text of one id by itself, with its leading space.

    An id that holds only a part of a character gives the vocabulary's entry.
    """
    # Decoded alone, an id of SentencePiece's kind loses its space; behind another it keeps it.
    before = tokenizer.decode([token_id], skip_special_tokens=False)
    twice = tokenizer.decode([token_id, token_id], skip_special_tokens=False)
    name = twice[len(before) :] if twice.startswith(before) else before
    if not name or _REPLACEMENT in name:
        return str(tokenizer.convert_ids_to_tokens(token_id))
    return name
