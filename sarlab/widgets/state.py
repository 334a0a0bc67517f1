"""The state of the workbench: one question, its answers, and what is looked at.

Public traitlets hold the state; the panels observe them and draw. All numbers are the library's.
Long work runs in a thread; edits are answered in the thread in which they arrive.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import traitlets
from torch import Tensor

from sarlab.models import Policy, load_policy
from sarlab.prompts import encode_answer
from sarlab.rewards import FEED_NATS, READ_NATS
from sarlab.rewards.answers import AnswerScore, Rescorer
from sarlab.rollout import sample as sample_answers
from sarlab.widgets.candidates import Candidate, Draft, is_correct
from sarlab.widgets.live import JobBar, Report
from sarlab.widgets.stored import stored_scores

_SAMPLE_CHUNK = 2  # answers sampled together: what a stop can lose
_SCORE_STEP = 96  # tokens scored between two reports of progress
_GROW_S = 0.25  # between two looks at answers that are being sampled

OnTokens = Callable[[int, int], None]


@dataclass
class Group:
    """A question's right answer ("": unknown), its scored answers, those pinned as A and B."""

    gold: str = ""
    answers: list[Candidate] = field(default_factory=list)
    pinned: tuple[int, int] = (-1, -1)

    def judge(self, gold: str) -> None:
        """Judge the answers by this right answer."""
        self.gold = gold
        for k, c in enumerate(self.answers):  # in place: a thread may append meanwhile
            self.answers[k] = replace(c, gold=gold or None)


class Bench(widgets.VBox):
    """What the workbench holds, without its panels.

    ``policy`` scores; ``question`` is the open question, ``gold`` its right answer and ``answers``
    its scored answers (:class:`Candidate`); ``answer`` is the index of the opened one (−1: none)
    and ``opened`` its score, edits included; ``selection`` is a span of tokens ``(start, stop)`` or
    ``()``; ``pinned`` are the indices shown as A and B (−1: none), B under ``policy_b`` where there
    is one; ``alpha`` is the weight of the bonus in the reward designs; ``thresholds`` are the nats
    from which a line reads and feeds, ``ledgers`` those on show (label, score, ledger); ``given``
    is what parts of the question give (score, parts, nats [parts, T]); ``growing`` are the texts
    that are being sampled; ``tab`` is the open tab.

    ``groups`` holds what is known of each question, ``drafts`` the answers without a score.
    """

    policy = traitlets.Instance(Policy)
    policy_b = traitlets.Instance(Policy, allow_none=True)
    question = traitlets.Unicode()
    questions: Any = traitlets.Tuple()
    gold = traitlets.Unicode()
    answers: Any = traitlets.Tuple()
    answer = traitlets.Int(-1)
    opened = traitlets.Instance(AnswerScore, allow_none=True)
    edited = traitlets.Bool(False)
    selection: Any = traitlets.Tuple()
    pinned: Any = traitlets.Tuple((-1, -1))
    alpha = traitlets.Float(0.2)
    thresholds: Any = traitlets.Tuple((READ_NATS, FEED_NATS))
    ledgers: Any = traitlets.Tuple()
    given: Any = traitlets.Tuple()
    growing: Any = traitlets.Tuple()
    tab = traitlets.Unicode("Tokens")

    def __init__(self, policy: Policy | str, runs: str | Path = "runs") -> None:
        if not isinstance(policy, Policy):
            policy = load_policy(policy)
        self.compute = threading.RLock()  # edits arrive on another thread than cells run on
        self.groups: dict[str, Group] = {}
        self.drafts: list[Draft] = []
        self._rescorers: dict[int, Rescorer] = {}  # one per policy: long answers' caches are large
        self._detailed: dict[tuple[int, str, tuple[int, ...]], AnswerScore] = {}
        self._show = ""
        self.job, self._details = JobBar(), JobBar(replaces=True)  # the second is not shown
        self.runs = Path(runs)
        super().__init__(policy=policy)
        self.job.observe(self._go_on, "busy")

    # What there is to look at

    def add(self, answers: Sequence[Draft], *, repeats: bool = False) -> str:
        """Add answers to any number of questions and return what came of it, in one sentence.

        Drafts with a stored score take it; others are scored while their question is open. One
        that its question has already is left out; with ``repeats``, for a sampled group, only
        where it has the same label and was there before. An answer without a right answer takes
        the one that is known for its question.
        """

        def key(a: Draft) -> tuple[Any, ...]:
            return (a.question, a.answer, a.label if repeats else "")

        there = [c for group in self.groups.values() for c in group.answers]
        seen = {key(a) for a in [*there, *self.drafts]}
        added: list[Draft] = []
        for new in stored_scores(self.policy, answers):
            group = self.groups.setdefault(new.question, Group())
            group.gold = group.gold or new.gold or ""
            if key(new) not in seen:
                added.append(new)
                seen |= set() if repeats else {key(new)}
                if isinstance(new, Candidate):
                    group.answers.append(new)
                else:
                    self.drafts.append(new)
        for group in (self.groups[question] for question in {a.question for a in answers}):
            group.judge(group.gold)
        self._show_answers()
        if not self.job.busy:  # else when that is done
            self.score_waiting(self.question)
        return self._summary(added, len(answers) - len(added))

    def list_questions(self, golds: dict[str, str]) -> None:
        """Put questions without answers into the list: text to right answer."""
        for question, gold in golds.items():
            self.groups.setdefault(question, Group()).judge(gold)
        self._show_answers()

    def open_question(self, question: str, *, gold: str | None = None, show: str = "") -> None:
        """Look at a question; its answers that are not scored yet are scored now, in a thread.

        The answer ``show`` is opened, once it is scored; by default the first.
        """
        group = self.groups.setdefault(question, Group())
        group.judge(group.gold if gold is None else gold)
        self._show = show
        with self.hold_trait_notifications():
            self.questions = tuple(self.groups)
            self.selection, self.answer, self.answers = (), -1, tuple(group.answers)
            self.question, self.gold, self.pinned = question, group.gold, group.pinned
        self._show_answers()
        if not self.job.busy:
            self.score_waiting(question)

    def score_waiting(self, question: str | None = None, **more: Any) -> None:
        """Score the answers that wait, to one question or to all, in a thread.

        One that cannot be scored is left out, and its error is shown when the others are done.
        ``more`` goes to the job.
        """
        drafts = [draft for draft in self.drafts if question in (None, draft.question)]

        def work(report: Report) -> None:
            errors = []
            for at, draft in enumerate(drafts, start=1):
                on_tokens = counting(report, f"Scoring answer {at} of {len(drafts)}: token")
                try:
                    score = self.score(draft.question, draft.answer, on_tokens=on_tokens)
                except ValueError as error:
                    errors.append(error)
                    self.drafts.remove(draft)
                else:
                    self._put(draft, score)
            if errors:
                left_out = counted(len(errors), "answer")
                raise ValueError(f"{left_out} left out, since not scored: {errors[0]}")

        if drafts:
            self.job.start("Scoring …", work, **more)

    def sample(self, count: int, max_tokens: int = 200, seed: int = 0, **more: Any) -> None:
        """Sample answers from the policy at temperature 1 and add them as they come.

        ``more`` goes to the job.
        """
        question, drawn = self.question, 0.0
        if not question.strip():
            raise ValueError("There is no question to answer. Choose or type one above.")

        def work(report: Report) -> None:
            with self.compute:
                prefix = self.rescorer(question).conditioned
            for done in range(0, count, _SAMPLE_CHUNK):
                size = min(_SAMPLE_CHUNK, count - done)

                def on_draw(ids: Tensor, done: int = done, size: int = size) -> None:
                    nonlocal drawn
                    at = ids.shape[1]
                    words = f"Sampling answers, {done} of {count} are there: token {at}"
                    report(done * max_tokens + size * at, count * max_tokens, words)
                    if time.monotonic() - drawn >= _GROW_S:
                        drawn = time.monotonic()
                        self.growing = tuple(map(self._text_so_far, ids.tolist()))

                rollouts = sample_answers(
                    self.policy,
                    [prefix],
                    group_size=size,
                    max_answer_tokens=max_tokens,
                    seed=f"{seed} {done} workbench",
                    on_draw=on_draw,
                )
                self.growing = ()
                lengths, truncated = rollouts.lengths.tolist(), rollouts.truncated.tolist()
                for ids, n, cut in zip(rollouts.answer_ids, lengths, truncated, strict=True):
                    draft = Draft(question, tuple(ids[:n].tolist()), None, "sampled", bool(cut))
                    self._put(draft, self.score(question, draft.answer))

        self.job.start("Sampling …", work, **more)

    def load(self, reference: str, use: Callable[[Policy], Any], **more: Any) -> None:
        """Load a model in a thread and hand it to ``use``; ``more`` goes to the job."""
        self.job.start(f"Loading {reference} …", lambda _: use(load_policy(reference)), **more)

    # The opened answer

    def rescorer(self, question: str, policy: Policy | None = None) -> Rescorer:
        """The scorer of a question that keeps what the last answer left in its cache."""
        policy = policy or self.policy
        with self.compute:
            kept = self._rescorers.get(id(policy))
            if kept is None or kept.question != question:
                kept = self._rescorers[id(policy)] = Rescorer(policy, question)
            return kept

    def score(
        self,
        question: str,
        answer: str | Sequence[int],
        *,
        policy: Policy | None = None,
        on_tokens: OnTokens | None = None,
    ) -> AnswerScore:
        """Score a text or ids, with ranks and alternatives; once per policy, question and ids.

        ``on_tokens(done, total)`` is called along long answers; it may raise to stop.
        """
        policy = policy or self.policy
        if isinstance(answer, str):
            ids = tuple(encode_answer(policy.tokenizer, answer, policy.end_id))
        else:
            ids = tuple(answer)
        key = (id(policy), question, ids)
        if key not in self._detailed:
            # In steps: each reuses the cache of the one before, and others may come in between.
            stops = [*range(_SCORE_STEP, len(ids), _SCORE_STEP), len(ids)]
            for stop in stops if on_tokens else stops[-1:]:
                with self.compute:
                    score = self.rescorer(question, policy).score(ids[:stop])
                if on_tokens:
                    on_tokens(stop, len(ids))
            self._detailed[key] = score
        score = self._detailed[key]
        # Ids are scored, not their text; the text is the one that was given.
        return replace(score, answer=answer) if isinstance(answer, str) else score

    def edit(self, text: str, *, on_tokens: OnTokens | None = None) -> AnswerScore | None:
        """Score an edited text of the opened answer and show it; an empty one shows nothing."""
        score = self.score(self.question, text, on_tokens=on_tokens) if text.strip() else None
        with self.hold_trait_notifications():
            self.selection, self.opened, self.edited = (), score, True
        return score

    def undo_edit(self) -> None:
        """Show the opened answer as it stands in the table."""
        self._open_answer(None)

    def keep_edit(self) -> None:
        """Add the edited answer to the table and open it."""
        if self.opened is not None and self.edited:
            self._put(Draft(self.question, "", None, "edited"), self.opened)
            self.answer = len(self.answers) - 1

    def verdict(self) -> tuple[bool | None, bool]:
        """Of the opened answer: whether it is right (None: unknown), whether it is truncated."""
        if self.opened is None:
            return None, False
        if self.edited:
            return is_correct(self.opened.answer, self.gold), False
        candidate = self.answers[self.answer]
        return candidate.correct, candidate.truncated

    def span_numbers(self) -> tuple[float, float] | None:
        """SAR with the span left out of the mean, and with it deleted and the rest scored again.

        None where nothing, or everything, is selected.
        """
        if self.opened is None or not self.selection:
            return None
        start, stop = self.selection
        if stop - start >= self.opened.length:
            return None
        with self.compute:
            scorer = self.rescorer(self.question)
            scorer.score(self.opened.token_ids)  # no forward where it is the last answer still
            return self.opened.sar_without(start, stop), scorer.score_deleted(start, stop).sar

    def pinned_scores(self) -> list[tuple[str, AnswerScore]]:
        """The pinned answers with their labels.

        With a second policy B is scored under it, and is A's own answer where only A is pinned.
        """
        a, b = self.pinned
        other = self.policy_b or self.policy
        pairs = []
        for name, index, policy in (
            ("A", a, self.policy),
            ("B", a if self.policy_b and b < 0 else b, other),
        ):
            if 0 <= index < len(self.answers):
                candidate = self.answers[index]
                score = candidate.score
                if policy is not self.policy:
                    again = self.score(self.question, score.token_ids, policy=policy)
                    score = replace(again, answer=score.answer)
                pairs.append((f"{name}: {candidate.label}, {policy.reference}", score))
        return pairs

    def looks_at(self, label: str, score: AnswerScore) -> bool:
        """Whether a score is still that of the opened answer ("") or of the pinned one so named."""
        now = dict(self.pinned_scores()).get(label) if label else self.opened
        if now is None or now.token_ids != score.token_ids:
            return False
        return now.logps_conditioned == score.logps_conditioned

    def wait(self) -> None:
        """Wait for work in threads: scoring, sampling, details of the opened answer."""
        self.job.wait()
        self._details.wait()

    # Inside

    def _put(self, draft: Draft, score: AnswerScore) -> None:
        """A scored answer takes the place of its draft, behind those that were scored before."""
        if draft in self.drafts:
            self.drafts.remove(draft)
        group = self.groups[draft.question]
        group.answers.append(replace(draft, gold=group.gold or None).scored(score))
        self._show_answers()

    def _show_answers(self) -> None:
        """Show what the groups hold; open the answer to be shown once it is there, else the first.

        Without one to be shown an answer that is open stays so.
        """
        self.questions = tuple(self.groups)
        if not self.question:
            return
        group = self.groups[self.question]
        self.gold, self.answers = group.gold, tuple(group.answers)
        texts = [c.score.answer for c in self.answers]
        if self._show in texts:
            self.answer, self._show = texts.index(self._show), ""
        elif self.answer < 0 and self.answers and not self._show:
            self.answer = 0

    def _go_on(self, change: Any) -> None:
        """Other work is done: answers to the question that was opened meanwhile are scored."""
        if not change["new"]:
            self.growing = ()
            if not self.job.closing:
                self.score_waiting(self.question)

    @traitlets.observe("answer")
    def _open_answer(self, _: Any) -> None:
        with self.hold_trait_notifications():
            self.selection, self.edited = (), False
            if not 0 <= self.answer < len(self.answers):
                self.opened = None
                return
            score = self.answers[self.answer].score
            known = self._detailed.get((id(self.policy), self.question, score.token_ids), score)
            self.opened = replace(known, answer=score.answer)
        if not self.opened.alternatives_conditioned:
            self._details.start("", partial(self._add_details, self.opened))

    def _add_details(self, score: AnswerScore, report: Report) -> None:
        """Ranks and alternatives of an answer that was scored without them."""
        detailed = self.score(score.question, score.token_ids)
        report(1, 1, "")  # not if another answer was opened meanwhile
        if self.opened is score:
            self.opened = replace(detailed, answer=score.answer)

    @traitlets.observe("gold")
    def _judge_again(self, _: Any) -> None:
        group = self.groups.get(self.question)
        if group is not None and group.gold != self.gold:
            group.judge(self.gold)
            self._show_answers()

    @traitlets.observe("pinned")
    def _remember_pins(self, _: Any) -> None:
        if self.question:
            self.groups[self.question].pinned = self.pinned

    @traitlets.observe("policy")
    def _score_again(self, change: Any) -> None:
        """Another policy: all answers wait to be scored anew, in their order, so that pins stay."""
        if not self.question:
            return
        # The ids that they had fit where both share a tokenizer.
        same = change["old"].tokenizer.get_vocab() == change["new"].tokenizer.get_vocab()
        self._rescorers, self._detailed = {}, {}
        self.drafts[:0] = [
            Draft(c.question, c.score.token_ids if same else c.answer, c.gold, c.label, c.truncated)
            for group in self.groups.values()
            for c in group.answers
        ]
        for group in self.groups.values():
            group.answers = []
        self.open_question(self.question)

    def _text_so_far(self, ids: Sequence[int]) -> str:
        return self.policy.text(list(takewhile(lambda i: i not in self.policy.eos_ids, ids)))

    def _summary(self, added: Sequence[Draft], duplicates: int) -> str:
        """What was added: counts of answers, questions and labels, and what needs attention."""
        parts = ["No new answer"]
        if added:
            labels = Counter(a.label for a in added).most_common(8)
            questions = counted(len({a.question for a in added}), "question")
            counts = ", ".join(f"{label} {count}" for label, count in labels)
            parts = [f"{counted(len(added), 'answer')} to {questions} ({counts})"]
        if duplicates:
            parts.append(f"{counted(duplicates, 'duplicate')} left out")
        unknown = [a.question for a in added if not self.groups[a.question].gold]
        if unknown:
            places = dict.fromkeys(str(self.questions.index(q) + 1) for q in unknown)
            parts.append(
                f"{len(unknown)} not judged, since no right answer is known: type it above, beside "
                f"question {', '.join(places)}"
            )
        return "; ".join(parts) + "."


def counting(report: Report, words: str) -> OnTokens:
    """Reports ``words``, and how many of all are done."""
    return lambda done, total: report(done, total, f"{words} {done} of {total}")


def counted(number: int, noun: str) -> str:
    """The number with its noun, in the plural where it is not 1."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
