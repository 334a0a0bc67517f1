"""The state of the workbench: one question, its answers, and what is looked at.

Public traitlets hold the state; the panels observe them and draw. All numbers are the library's.
Long work runs in a thread; edits are answered in the thread in which they arrive.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from sarlab.widgets.live import JobBar, Report, in_thread
from sarlab.widgets.stored import stored_scores

_SAMPLE_CHUNK = 2  # answers sampled together: what a stop can lose
_SCORE_STEP = 96  # tokens scored between two reports of progress
_GROW_S = 0.25  # between two looks at answers that are being sampled

OnTokens = Callable[[int, int], None]


class Bench(widgets.VBox):
    """What the workbench holds, without its panels.

    ``policy`` scores; ``question`` is the open question, ``gold`` its right answer and ``answers``
    its scored answers (:class:`Candidate`); ``answer`` is the index of the opened one (−1: none)
    and ``opened`` its score, edits included; ``selection`` is a span of tokens ``(start, stop)`` or
    ``()``; ``pinned`` are the indices shown as A and B (−1: none), B under ``policy_b`` where there
    is one; ``alpha`` is the weight of the bonus in the reward designs; ``thresholds`` are the nats
    from which a line reads and feeds, ``ledgers`` those on show (label, score, ledger); ``growing``
    are the texts that are being sampled.
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
    growing: Any = traitlets.Tuple()

    def __init__(self, policy: Policy | str, runs: str | Path = "runs") -> None:
        if not isinstance(policy, Policy):
            policy = load_policy(policy)
        self.compute = threading.RLock()  # edits arrive on another thread than cells run on
        self._rescorers: dict[tuple[int, str], Rescorer] = {}
        self._detailed: dict[tuple[int, str, tuple[int, ...]], AnswerScore] = {}
        self._details: threading.Thread | None = None
        self._pins: dict[str, tuple[int, int]] = {}
        self._show = ""
        self.groups: dict[str, list[Draft]] = {}  # answers by question, those with a score first
        self.golds: dict[str, str] = {}
        self.job = JobBar()
        self.runs = Path(runs)
        super().__init__(policy=policy)
        self.job.observe(self._go_on, "busy")

    # What there is to look at

    def add(self, answers: Sequence[Draft], *, repeats: bool = False) -> str:
        """Add answers to any number of questions and return what came of it, in one sentence.

        Drafts with a stored score take it; others are scored when their question opens. An answer
        that its question has already is left out; with ``repeats``, for a sampled group, only
        where it has the same label and was there before. An answer without a right answer takes
        the one that is known for its question.
        """

        def key(a: Draft) -> tuple[Any, ...]:
            return (a.question, a.answer, a.label if repeats else "")

        added: list[Draft] = []
        seen = {key(a) for group in self.groups.values() for a in group}
        for new in stored_scores(self.policy, answers):
            if new.gold and not self.golds.get(new.question):
                self.golds[new.question] = new.gold
            if key(new) not in seen:
                _insert(self.groups.setdefault(new.question, []), new)
                added.append(new)
                seen |= set() if repeats else {key(new)}
        self.questions = tuple(dict.fromkeys([*self.questions, *(a.question for a in added)]))
        for question in {a.question for a in added}:
            self._update(question)
        return self._summary(added, len(answers) - len(added))

    def list_questions(self, golds: dict[str, str]) -> None:
        """Put questions without answers into the list: text to right answer."""
        self.golds.update(golds)
        self.questions = tuple(dict.fromkeys([*self.questions, *golds]))

    def open_question(
        self, question: str, *, gold: str | None = None, show: str = "", wait: bool = False
    ) -> None:
        """Look at a question; its answers that are not scored yet are scored now, in a thread.

        The answer ``show`` is opened, once it is scored; by default the first.
        """
        if gold is not None:
            self.golds[question] = gold
        self._show = show
        with self.hold_trait_notifications():
            self.questions = tuple(dict.fromkeys([*self.questions, question]))
            self.selection, self.answer, self.answers = (), -1, ()
            self.question = question
            self.gold = self.golds.get(question, "")
            self.pinned = self._pins.get(question, (-1, -1))
            self._update(question, open_one=False)
        self._open_first()
        if not self.job.busy:  # else when that is done
            self.score_waiting([question], wait=wait)

    def waiting(self, questions: Sequence[str] | None = None) -> list[Draft]:
        """The answers to these questions (None: to all) that have no score yet."""
        chosen = self.groups if questions is None else questions
        return [a for q in chosen for a in self.groups.get(q, ()) if not isinstance(a, Candidate)]

    def score_waiting(self, questions: Sequence[str] | None = None, *, wait: bool = False) -> None:
        """Score the answers that wait, in a thread.

        One that cannot be scored is left out, and its error is shown when the others are done.
        """
        drafts = self.waiting(questions)

        def work(report: Report) -> None:
            errors = []
            for at, draft in enumerate(drafts, start=1):
                words = f"Scoring answer {at} of {len(drafts)}: token"

                def on_tokens(done: int, total: int, words: str = words) -> None:
                    report(done, total, f"{words} {done} of {total}")

                try:
                    score = self.score(draft.question, draft.answer, on_tokens=on_tokens)
                except ValueError as error:
                    errors.append(error)
                    self._take_out(draft)
                else:
                    self._put(draft, score)
            if errors:
                left_out = counted(len(errors), "answer")
                raise ValueError(f"{left_out} left out, since not scored: {errors[0]}")

        if drafts:
            self.job.start("Scoring …", work, wait=wait)

    def add_answers(self, texts: Sequence[str], label: str = "typed", *, wait: bool = False) -> str:
        """Score texts as answers to the open question and add them; returns a summary."""
        if self.job.busy:
            raise RuntimeError("Other work is running. Stop it, or wait for its end.")
        summary = self.add([Draft(self.question, text, self.gold or None, label) for text in texts])
        self.score_waiting([self.question], wait=wait)
        return summary

    def sample(
        self,
        count: int,
        max_tokens: int = 200,
        seed: int = 0,
        *,
        wait: bool = False,
        then: Callable[[], Any] = lambda: None,
    ) -> None:
        """Sample answers from the policy at temperature 1 and add them as they come.

        ``then()`` is called at the end, or when it was stopped.
        """
        question, gold = self.question, self.gold or None
        if not question.strip():
            raise ValueError("There is no question to answer. Choose or type one above.")

        def work(report: Report) -> None:
            with self.compute:
                prefix = self.rescorer(question).conditioned
            shown = 0.0
            for done in range(0, count, _SAMPLE_CHUNK):
                size = min(_SAMPLE_CHUNK, count - done)
                which = f"{done + 1} to {done + size}" if size > 1 else f"{done + 1}"

                def on_draw(
                    ids: Tensor, done: int = done, size: int = size, which: str = which
                ) -> None:
                    nonlocal shown
                    at = ids.shape[1]
                    words = f"Sampling answer {which} of {count}: token {at}"
                    report(done * max_tokens + size * at, count * max_tokens, words)
                    if time.monotonic() - shown >= _GROW_S:
                        shown = time.monotonic()
                        ended = partial(takewhile, lambda i: i not in self.policy.eos_ids)
                        rows = map(ended, ids.tolist())
                        self.growing = tuple(self.policy.text(list(row)) for row in rows)

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
                    draft = Draft(question, tuple(ids[:n].tolist()), gold, "sampled", bool(cut))
                    self._put(draft, self.score(question, draft.answer))

        def ended() -> None:
            self.growing = ()
            then()

        self.job.start("Sampling …", work, wait=wait, then=ended)

    # The opened answer

    def rescorer(self, question: str, policy: Policy | None = None) -> Rescorer:
        """The scorer of a question that keeps what the last answer left in its cache."""
        policy = policy or self.policy
        key = (id(policy), question)
        with self.compute:
            if key not in self._rescorers:
                # One per policy: caches of long answers are large.
                self._rescorers = {k: r for k, r in self._rescorers.items() if k[0] != key[0]}
                self._rescorers[key] = Rescorer(policy, question)
            return self._rescorers[key]

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
            for stop in range(_SCORE_STEP, len(ids), _SCORE_STEP) if on_tokens else ():
                with self.compute:
                    self.rescorer(question, policy).score(ids[:stop])
                on_tokens(stop, len(ids))  # type: ignore[misc]
            with self.compute:
                self._detailed[key] = self.rescorer(question, policy).score(ids)
            if on_tokens:
                on_tokens(len(ids), len(ids))
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
        self._show_answer(None)

    def keep_edit(self) -> None:
        """Add the edited answer to the table and open it."""
        if self.opened is None or not self.edited:
            return
        self._put(Draft(self.question, "", self.gold or None, "edited"), self.opened)
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
        if self.policy_b is not None and b < 0:
            b = a
        pairs = []
        for name, index, policy in zip("AB", (a, b), (None, self.policy_b), strict=True):
            if not 0 <= index < len(self.answers):
                continue
            candidate = self.answers[index]
            score = candidate.score
            if policy is not None:
                score = self.score(self.question, score.token_ids, policy=policy)
                score = replace(score, answer=candidate.score.answer)
            reference = (policy or self.policy).reference
            pairs.append((f"{name}: {candidate.label}, {reference}", score))
        return pairs

    def wait(self) -> None:
        """Wait for work in threads: scoring, sampling, details of the opened answer."""
        self.job.wait()
        if self._details is not None:
            self._details.join()

    # Inside

    def _put(self, draft: Draft, score: AnswerScore) -> None:
        """A scored answer takes the place of its draft, behind those that were scored before."""
        self._take_out(draft)
        _insert(self.groups.setdefault(draft.question, []), draft.scored(score))
        self._update(draft.question)

    def _take_out(self, draft: Draft) -> None:
        group = self.groups.get(draft.question, [])
        same = [a for a in self.waiting([draft.question]) if a.answer == draft.answer]
        if same:
            group.remove(same[0])

    def _update(self, question: str, open_one: bool = True) -> None:
        """Judge the answers to a question by its right answer; show them where it is open."""
        gold = self.golds.get(question)
        group = self.groups.get(question, [])
        if gold is not None:
            group[:] = [a if (a.gold or "") == gold else a.judged(gold) for a in group]
        if question == self.question:
            self.answers = tuple(a for a in group if isinstance(a, Candidate))
            if open_one:
                self._open_first()

    def _go_on(self, change: Any) -> None:
        """Other work is done: answers to the question that was opened meanwhile are scored."""
        if not change["new"] and not self.job.closing:
            self.score_waiting([self.question])

    def _open_first(self) -> None:
        """Open the answer to be shown, once it is there; without one the first."""
        texts = [c.score.answer for c in self.answers]
        if self._show in texts:
            self.answer, self._show = texts.index(self._show), ""
        elif self.answer < 0 and self.answers and not self._show:
            self.answer = 0

    @traitlets.observe("answer")
    def _show_answer(self, _: Any) -> None:
        with self.hold_trait_notifications():
            self.selection, self.edited = (), False
            if not 0 <= self.answer < len(self.answers):
                self.opened = None
                return
            score = self.answers[self.answer].score
            key = (id(self.policy), self.question, score.token_ids)
            known = self._detailed.get(key)
            self.opened = score if known is None else replace(known, answer=score.answer)
        if not self.opened.alternatives_conditioned:
            self._add_details(self.policy, self.opened)

    def _add_details(self, policy: Policy, score: AnswerScore) -> None:
        """Ranks and alternatives of an answer that was scored without them, in a thread."""

        def work() -> None:
            detailed = self.score(score.question, score.token_ids, policy=policy)
            if self.opened is score and self.policy is policy:
                self.opened = replace(detailed, answer=score.answer)

        self._details = in_thread(work)

    @traitlets.observe("gold")
    def _judge_again(self, _: Any) -> None:
        if self.question and self.golds.get(self.question, "") != self.gold:
            self.golds[self.question] = self.gold
            self._update(self.question)

    @traitlets.observe("pinned")
    def _remember_pins(self, _: Any) -> None:
        if self.question:
            self._pins[self.question] = self.pinned

    @traitlets.observe("policy")
    def _score_again(self, change: Any) -> None:
        if not self.question:
            return
        # Another policy: all answers wait to be scored anew, with the ids that they had only
        # where both share a tokenizer. Their order stays, so pins stay too.
        same = change["old"].tokenizer.get_vocab() == change["new"].tokenizer.get_vocab()
        self._detailed = {}
        for group in self.groups.values():
            group[:] = [
                Draft(a.question, ids if same else a.answer, a.gold, a.label, a.truncated)
                for a in group
                for ids in [a.score.token_ids if isinstance(a, Candidate) else a.answer]
            ]
        self.open_question(self.question)

    def _summary(self, added: Sequence[Draft], duplicates: int) -> str:
        """What was added: counts of answers, questions and labels, and what needs attention."""
        labels = Counter(a.label for a in added)
        counts = ", ".join(f"{label} {count}" for label, count in labels.most_common(8))
        questions = counted(len({a.question for a in added}), "question")
        parts = [f"{counted(len(added), 'answer')} to {questions} ({counts})"]
        if not added:
            parts = ["No new answer"]
        if duplicates:
            parts.append(f"{counted(duplicates, 'duplicate')} left out")
        unknown = [a.question for a in added if not self.golds.get(a.question)]
        if unknown:
            places = [self.questions.index(question) + 1 for question in dict.fromkeys(unknown)]
            parts.append(
                f"{len(unknown)} not judged, since no right answer is known: type it above, beside "
                f"question {', '.join(map(str, places))}"
            )
        return "; ".join(parts) + "."


def _insert(group: list[Draft], answer: Draft) -> None:
    scored = sum(isinstance(a, Candidate) for a in group)
    group.insert(scored if isinstance(answer, Candidate) else len(group), answer)


def counted(number: int, noun: str) -> str:
    """The number with its noun, in the plural where it is not 1."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
