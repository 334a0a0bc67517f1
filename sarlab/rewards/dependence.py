"""What the rest of an answer takes from one of its lines: the other side of SAR's ledger.

d_k = log P(a_>k | q, a_≤k) − log P(a_>k | q, a_<k), nats: the later lines with line k in sight
against the later lines without it. v says what a line reads from the question, d what it feeds to
the rest. Filler does neither; a copy of the question reads and feeds nothing.
"""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sarlab.models import Policy
from sarlab.rewards import FEED_NATS, READ_NATS, Reward, reward_named
from sarlab.rewards.answers import Rescorer
from sarlab.scoring import (
    ComputedPrefix,
    Prefix,
    answer_block,
    answer_logps,
    compute_prefixes,
    prefix_of,
    token_report,
)
from sarlab.tasks import Verdict
from sarlab.types import Question, Rollouts

MARKER = "Answer:"
"""What stands between an answer's reasoning and its value."""
CLASSES = ("read and used", "worked out", "copied", "filler", "last")
"""A line reads the question or not, and feeds the rest or not; nothing follows the last one."""
_CACHED_TOKENS = 16_384  # tokens whose keys and values are held at once
_REPORTED_LINES = 3  # lines run between two reports of progress

OnLines = Callable[[int, int], None]  # (lines done, lines in all)


@dataclass(frozen=True)
class LineDependence:
    """Lines of B answers and what the rest takes from each; 0 for an answer's last line."""

    line_ids: Tensor  # [B, T] each token's line from 0, −1 on padding
    taken: Tensor  # [B, later line, earlier line] nats that the later takes from the earlier
    rest_tokens: Tensor  # [B, L] tokens after the line

    @property
    def nats(self) -> Tensor:
        """d [B, L]: what all later lines take from each line."""
        return self.taken.sum(dim=1)


@dataclass(frozen=True)
class AnswerDependence:
    """The ledger of one answer of L lines: what each reads from the question, and what it feeds."""

    starts: tuple[int, ...]  # the first token of each line
    tokens: Tensor  # [L]
    read_nats: Tensor  # [L] v
    fed_nats: Tensor  # [L] d
    rest_tokens: Tensor  # [L]
    taken: Tensor  # [L, L] as in LineDependence
    # [L] g, by how much the line raises log P(gold); nan from the line with "Answer:" on.
    gold_nats: Tensor | None = None

    def classes(self, read_nats: float = READ_NATS, feed_nats: float = FEED_NATS) -> list[str]:
        """One of :data:`CLASSES` per line; a line reads or feeds from the thresholds on.

        The defaults are those of ``filler_share``, read off answers of `tiny` (docs/PLAN.md).
        """
        pairs = zip(self.read_nats.tolist(), self.fed_nats.tolist(), strict=True)
        classes = [CLASSES[(v < read_nats) + 2 * (d < feed_nats)] for v, d in pairs]
        return [*classes[:-1], CLASSES[-1]]

    def filler_share(self, read_nats: float = READ_NATS, feed_nats: float = FEED_NATS) -> float:
        """Tokens in lines of filler over all tokens."""
        pairs = zip(self.classes(read_nats, feed_nats), self.tokens.tolist(), strict=True)
        return sum(n for name, n in pairs if name == "filler") / int(self.tokens.sum())


def answer_dependence(
    policy: Policy, question: str, answer: str | Sequence[int], **options: Any
) -> AnswerDependence:
    """Both sides of the ledger for an answer (a text, or the ids that were sampled).

    ``options`` are those of :func:`dependence_of`. ValueError for an empty question or answer.
    """
    rescorer = Rescorer(policy, question)
    score = rescorer.score(answer)
    logps = map(torch.tensor, (score.logps_conditioned, score.logps_standalone))
    return dependence_of(policy, rescorer.answered, *logps, **options)


def dependence_of(
    policy: Policy,
    answered: Prefix,
    logps_conditioned: Tensor,
    logps_standalone: Tensor,
    *,
    by: Literal["line"] | Sequence[int] = "line",
    gold: str | None = None,
    on_lines: OnLines | None = None,
) -> AnswerDependence:
    """The ledger of an answer that is scored already.

    ``answered``: the question's prefix with the answer on top; log-probs [T] of both contexts.
    ``by``: "line", or the tokens at which other parts begin, such as those of sentences
    (:func:`sarlab.display.token_view.step_starts`) or a span's two ends. ``gold`` adds g.
    ``on_lines`` may raise to stop. 12 lines of equal length cost 5.5 passes over the answer. Of
    lines that repeat, each feeds what the others leave: without one of two copies the rest hardly
    changes.
    """
    length = len(logps_conditioned)
    start = len(answered.ids) - length
    block, mask = answer_block([answered.ids[start:]])
    if isinstance(by, str):
        line_ids = lines_of(policy.tokenizer, block, mask)
    else:
        inside = sorted({0, *by} - {length})
        if inside[0] < 0 or inside[-1] > length:
            raise ValueError(f"by is {list(by)}; parts of {length} tokens begin at 0 to {length}.")
        cuts = torch.zeros(length, dtype=torch.long)
        cuts[inside[1:]] = 1
        line_ids = cuts.cumsum(0)[None]
    (computed,) = compute_prefixes(policy, [answered])
    lines = line_dependence(
        policy,
        [Prefix(answered.ids[:start])],
        *(block, mask, logps_conditioned[None]),
        line_ids=line_ids,
        answered=[computed],
        on_lines=on_lines,
    )
    counts = torch.bincount(line_ids[0])
    starts = (counts.cumsum(0) - counts).tolist()
    values = (logps_conditioned - logps_standalone).double()
    return AnswerDependence(
        tuple(starts),
        counts,
        torch.zeros(len(counts)).double().index_add(0, line_ids[0], values).float(),
        lines.nats[0],
        lines.rest_tokens[0],
        lines.taken[0],
        _gold_gains(policy, computed, start, starts, gold) if gold else None,
    )


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
    line_ids: Tensor | None = None,
    answered: Sequence[Prefix] = (),
    prefix_index: Tensor | None = None,
    on_lines: OnLines | None = None,
) -> LineDependence:
    """What the rest takes from every line of B answers [B, T], each on top of its prefix.

    ``logps`` [B, T]: the answers' log-probs on those prefixes under this policy, which give the
    first term; the second takes one pass per line over the tokens after it. The prefixes of all
    lines are cut from one pass over the answer (or from ``answered``, its result). ``line_ids``
    [B, T]: other parts than :func:`lines_of`.
    """
    index = torch.zeros(len(answer_ids), dtype=torch.long) if prefix_index is None else prefix_index
    lines = lines_of(policy.tokenizer, answer_ids, answer_mask) if line_ids is None else line_ids
    count = int(lines.max()) + 1
    taken = torch.zeros(len(lines), count, count)
    rest_tokens = torch.zeros(taken.shape[:2], dtype=torch.long)
    answers = [ids[mask].tolist() for ids, mask in zip(answer_ids, answer_mask, strict=True)]
    starts = [len(prefixes[int(place)].ids) for place in index]
    whole = list(answered) or [
        Prefix((*prefixes[int(place)].ids, *ids)) for place, ids in zip(index, answers, strict=True)
    ]
    together = max(1, _CACHED_TOKENS // max(len(prefix.ids) for prefix in whole))
    for first in range(0, len(answers), together):
        rows = range(first, min(first + together, len(answers)))
        # (row, line, first token, first token after it) of every line that another one follows
        jobs = [
            (row, line, int(at[0]), int(at[-1]) + 1)
            for row in rows
            for line in range(int(lines[row].max()))
            for at in (lines[row] == line).nonzero(as_tuple=True)
        ]
        computed = compute_prefixes(policy, [whole[row] for row in rows]) if jobs else []
        size = _REPORTED_LINES if on_lines else max(1, len(jobs))
        for done in range(0, len(jobs), size):
            part = jobs[done : done + size]
            cut = [computed[row - first].cut(starts[row] + start) for row, _, start, _ in part]
            block, mask = answer_block([answers[row][stop:] for row, _, _, stop in part])
            of_cut = torch.arange(len(part))
            without = answer_logps(policy, cut, block, mask, prefix_index=of_cut).cpu()
            for (row, line, _, stop), unseen in zip(part, without, strict=True):
                rest = len(answers[row]) - stop
                gains = (logps[row, stop : stop + rest].cpu() - unseen[:rest]).double()
                sums = torch.zeros(count).double()
                taken[row, :, line] = sums.index_add(0, lines[row, stop : stop + rest], gains)
                rest_tokens[row, line] = rest
            if on_lines:
                on_lines(done + len(part), len(jobs))
    return LineDependence(lines, taken, rest_tokens)


def gold_ids(policy: Policy, gold: str) -> tuple[list[int], list[int]]:
    """The ids of the marker, and of the right value behind it with the end token."""

    def encode(text: str) -> list[int]:
        return list(policy.tokenizer(text, add_special_tokens=False)["input_ids"])

    marker, both = encode(MARKER), encode(f"{MARKER} {gold}")
    same = both[: len(marker)] == marker
    return marker, [*(both[len(marker) :] if same else encode(gold)), policy.end_id]


def _gold_gains(
    policy: Policy, answered: ComputedPrefix, start: int, starts: Sequence[int], gold: str
) -> Tensor:
    """By how much each line raises log P(gold) where the marker follows it at once [L]."""
    text = policy.tokenizer.decode(answered.ids[start:])
    bounds = [*starts, len(answered.ids) - start]
    heads = [policy.tokenizer.decode(answered.ids[start : start + b]) for b in bounds]
    last = text.rfind(MARKER)
    lines = sum(len(head) <= last for head in heads[1:]) if last >= 0 else len(starts)
    marker, value = gold_ids(policy, gold)
    block, mask = answer_block([[*marker, *value]] * (lines + 1))
    cut = [answered.cut(start + bound) for bound in bounds[: lines + 1]]
    logps = answer_logps(policy, cut, block, mask, prefix_index=torch.arange(lines + 1)).cpu()
    gains = logps[:, len(marker) :].sum(dim=1).diff()
    return torch.cat([gains, torch.full((len(starts) - lines,), torch.nan)])


def question_dependence(
    policy: Policy,
    question: str,
    spans: Sequence[tuple[int, int]],
    answer_ids: Sequence[int],
    logps_conditioned: Tensor,
    *,
    on_spans: OnLines | None = None,
) -> Tensor:
    """What each part of the question gives to each token of an answer [P, T], nats.

    log P(a_t | q, a_<t) − log P(a_t | q without the part, a_<t). ``spans``: the first character of
    each part and the one after its last. One pass over question and answer per part; a part that
    is all of the question gives v. ``logps_conditioned`` [T] is the first term.
    """
    block, mask = answer_block([answer_ids])
    given = torch.zeros(len(spans), len(answer_ids))
    for row, (start, stop) in enumerate(spans):
        rest = (question[:start] + question[stop:]).strip()
        without = answer_logps(policy, prefix_of(policy, rest or None), block, mask)
        given[row] = logps_conditioned - without[0].cpu()
        if on_spans:
            on_spans(row + 1, len(spans))
    return given


# --- the fields that a reward asks for ----------------------------------------------------------


def reward_extras(
    policy: Policy,
    reward: str | Reward,
    questions: Sequence[Question],
    prefixes: Sequence[Prefix],
    rollouts: Rollouts,
    logps_conditioned: Tensor,
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    """The optional fields of RewardInputs that a reward declares; {} for most rewards."""
    needs = set(reward_named(reward).needs)
    of_rows = tuple(questions[i] for i in rollouts.group_ids.tolist())
    answers, groups = (prefixes, rollouts.answer_ids, rollouts.answer_mask), rollouts.group_ids
    at_hand = {
        "answer_keys": tuple(v.extracted for v in verdicts),
        "texts": tuple(rollouts.texts),
        "questions": of_rows,
    }
    extras: dict[str, Any] = {name: x for name, x in at_hand.items() if name in needs}
    if "copied" in needs:
        extras["copied"] = _copied(policy, questions, rollouts)
    if needs & {"line_ids", "dependence"}:
        lines = line_dependence(policy, *answers, logps_conditioned, prefix_index=groups)
        extras |= {"line_ids": lines.line_ids, "dependence": lines.nats}
    if needs & {"entropy", "self_certainty"}:
        report = token_report(policy, *answers, prefix_index=groups)
        extras["entropy"] = report.entropy.cpu()
        extras["self_certainty"] = report.self_certainty.cpu()
    if needs & {"gold_logps", "gold_logps_without", "gold_mask"}:
        extras |= gold_logps(policy, of_rows, prefixes, rollouts)
    return extras


def gold_logps(
    policy: Policy, questions: Sequence[Question], prefixes: Sequence[Prefix], rollouts: Rollouts
) -> dict[str, Any]:
    """Log-probs of each answer's gold value after its reasoning and without it [B, G], nats.

    The reasoning is everything before the last ``Answer:``, or all of an answer that has none. The
    marker itself stands before the value in both contexts and is not counted: any text earns it.
    """
    golds, after, without = [], [], []
    for row, question in enumerate(questions):
        prefix = prefixes[int(rollouts.group_ids[row])].ids
        marker, value = gold_ids(policy, question.gold)
        golds.append(value)
        answer = rollouts.answer_ids[row, rollouts.answer_mask[row]].tolist()
        after.append(Prefix((*prefix, *_reasoning(policy, answer), *marker)))
        without.append(Prefix((*prefix, *marker)))
    ids, mask = answer_block(golds)
    rows = torch.arange(len(golds))
    return {
        "gold_logps": answer_logps(policy, after, ids, mask, prefix_index=rows).cpu(),
        "gold_logps_without": answer_logps(policy, without, ids, mask, prefix_index=rows).cpu(),
        "gold_mask": mask,
    }


def _reasoning(policy: Policy, answer: list[int]) -> list[int]:
    """The ids before the token in which the last marker begins, without an end token."""
    if answer and answer[-1] in policy.eos_ids:
        answer = answer[:-1]

    def text(tokens: int) -> str:
        return policy.tokenizer.decode(answer[:tokens], skip_special_tokens=False)

    start = text(len(answer)).rfind(MARKER)
    if start < 0:
        return answer
    # The most tokens whose text ends before the marker.
    sizes = range(1, len(answer) + 1)
    return answer[: bisect.bisect_right(sizes, start, key=lambda n: len(text(n)))]


def _copied(policy: Policy, questions: Sequence[Question], rollouts: Rollouts) -> Tensor:
    """True on tokens of answers that are copied from their question [B, T]."""
    question_ids = [
        policy.tokenizer(q.text, add_special_tokens=False)["input_ids"] for q in questions
    ]
    copied = torch.zeros_like(rollouts.answer_mask)
    for row, mask in enumerate(rollouts.answer_mask):
        answer = rollouts.answer_ids[row][mask].tolist()
        marks = copied_tokens(question_ids[int(rollouts.group_ids[row])], answer)
        copied[row, : len(answer)] = torch.tensor(marks)
    return copied


def copied_tokens(
    question_ids: Sequence[int], answer_ids: Sequence[int], length: int = 5
) -> list[bool]:
    """Which tokens of an answer lie in an n-gram of ``length`` tokens that the question holds.

    Where the question is shorter than that, the whole of it counts as the n-gram.
    """
    length = min(length, len(question_ids))
    copied = [False] * len(answer_ids)
    grams = {tuple(question_ids[i : i + length]) for i in range(len(question_ids) - length + 1)}
    for i in range(len(answer_ids) - length + 1):
        if tuple(answer_ids[i : i + length]) in grams:
            copied[i : i + length] = [True] * length  # nothing for an empty question
    return copied
