"""The reward workbench: one question, its answers, and what the reward sees in them.

State lives in public traitlets of :class:`Workbench`; panels observe them and draw. All numbers
are the library's. Long work runs in a thread; edits are answered where they arrive.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import traitlets

from sarlab.answers import AnswerScore, Rescorer
from sarlab.models import Policy, load_policy
from sarlab.rollout import sample as sample_answers
from sarlab.widgets.candidates import (
    Candidate,
    Draft,
    group_drafts,
    is_correct,
    rejudged,
    score_candidates,
)
from sarlab.widgets.jobs import JobBar, Report

_SAMPLE_CHUNK = 2  # answers sampled together: what a stop can lose


class Workbench(widgets.VBox):
    """See, token by token, what the reward sees.

    ``policy`` scores; ``question`` is the one looked at and ``answers`` are its scored answers
    (:class:`Candidate`); ``answer`` is the index of the opened one (−1: none) and ``opened`` its
    score, edits included; ``selection`` is a span of tokens ``(start, stop)`` or ``()``;
    ``pinned`` are the indices shown as A and B (−1: none), B under ``policy_b`` where there is
    one; ``alpha`` is the weight of the bonus in the reward designs.
    """

    policy = traitlets.Instance(Policy)
    policy_b = traitlets.Instance(Policy, allow_none=True)
    question = traitlets.Unicode()
    gold = traitlets.Unicode()
    answers: Any = traitlets.Tuple()
    answer = traitlets.Int(-1)
    opened = traitlets.Instance(AnswerScore, allow_none=True)
    edited = traitlets.Bool(False)
    selection: Any = traitlets.Tuple()
    pinned: Any = traitlets.Tuple((-1, -1))
    alpha = traitlets.Float(0.2)

    def __init__(
        self,
        policy: Policy | str,
        answers: Sequence[Candidate | Draft] = (),
        *,
        runs: str | Path = "runs",
    ) -> None:
        if not isinstance(policy, Policy):
            policy = load_policy(policy)
        self._compute = threading.RLock()  # edits arrive on another thread than cells run on
        self._rescorers: dict[tuple[int, str], Rescorer] = {}
        self.drafts: dict[str, list[Draft]] = {}
        self.scored: dict[str, list[Candidate]] = {}
        self.golds: dict[str, str] = {}  # right answers of questions that have no answers yet
        self.job = JobBar()
        self.runs = Path(runs)
        super().__init__(policy=policy)
        self.add_class("sarlab-workbench")
        self.add(answers)
        from sarlab.widgets.panels import build_panels

        self.panels = build_panels(self)
        self.children = self.panels.children
        if self.questions:
            self.open_question(self.questions[0])

    def __repr__(self) -> str:
        return "Reward workbench (live: it needs a running kernel; its static twin stands below)"

    # What there is to look at

    @property
    def questions(self) -> list[str]:
        """All questions with answers, scored or not, in the order in which they came."""
        return list(dict.fromkeys([*self.drafts, *self.scored]))

    def add(self, answers: Sequence[Candidate | Draft]) -> None:
        """Add answers to any number of questions; drafts are scored when their question opens."""
        for found in answers:
            if isinstance(found, Candidate):
                self.scored.setdefault(found.question, []).append(found)
        for question, group in group_drafts(a for a in answers if isinstance(a, Draft)).items():
            self.drafts.setdefault(question, []).extend(group)
        self.notify_change(
            {
                "name": "questions",
                "old": None,
                "new": self.questions,
                "owner": self,
                "type": "change",
            }
        )

    def open_question(self, question: str, *, gold: str | None = None, wait: bool = False) -> None:
        """Look at a question; its answers that are not scored yet are scored now, in a thread."""
        with self.hold_trait_notifications():
            self.selection, self.pinned, self.answer = (), (-1, -1), -1
            self.question = question
            golds = [c.gold for c in self.scored.get(question, ())]
            golds += [d.gold for d in self.drafts.get(question, ())]
            known = [g for g in golds if g] + [self.golds.get(question, "")]
            self.gold = known[0] if gold is None else gold
            self.golds[question] = self.gold
            self.answers = tuple(self.scored.get(question, ()))
        self._open_first()
        if self.drafts.get(question):
            self.score_waiting([question], wait=wait)

    def score_waiting(self, questions: Sequence[str] | None = None, *, wait: bool = False) -> None:
        """Score the drafts of these questions (None: of all), in a thread."""
        todo = [
            q for q in (self.questions if questions is None else questions) if self.drafts.get(q)
        ]

        def work(report: Report) -> None:
            for done, question in enumerate(todo):
                report(done, len(todo), f"Scoring question {done + 1} of {len(todo)} …")
                drafts = self.drafts[question]
                found = score_candidates(self.policy, drafts)
                self.drafts.pop(question)
                self.scored.setdefault(question, []).extend(found)
                if question == self.question:
                    self.answers = tuple(self.scored[question])
                    self._open_first()

        if todo:
            self.job.start("Scoring …", work, wait=wait)

    def add_answers(self, texts: Sequence[str], kind: str = "typed", *, wait: bool = False) -> None:
        """Score texts as answers to the open question and add them."""
        drafts = [Draft(self.question, text, self.gold or None, kind) for text in texts]
        self.drafts.setdefault(self.question, []).extend(drafts)
        self.score_waiting([self.question], wait=wait)

    def sample(
        self, count: int, max_tokens: int = 200, seed: int = 0, *, wait: bool = False
    ) -> None:
        """Sample answers from the policy at temperature 1 and add them as they come."""
        question, gold = self.question, self.gold or None

        def work(report: Report) -> None:
            done = 0
            while done < count:
                size, before = min(_SAMPLE_CHUNK, count - done), done
                position = 0

                def on_token(_: int, __: int, size: int = size, before: int = before) -> None:
                    nonlocal position
                    position += 1
                    report(
                        before * max_tokens + size * position,
                        count * max_tokens,
                        f"Answer {before + 1} to {before + size} of {count}: token {position}",
                    )

                ids = self._sample_ids(question, size, max_tokens, f"{seed} {done}", on_token)
                drafts = [Draft(question, own, gold, "sampled") for own in ids]
                found = score_candidates(self.policy, drafts)
                self.scored.setdefault(question, []).extend(found)
                if question == self.question:
                    self.answers = tuple(self.scored[question])
                    self._open_first()
                done += size

        self.job.start("Sampling …", work, wait=wait)

    def _sample_ids(
        self, question: str, count: int, max_tokens: int, seed: str, on_token: Any
    ) -> list[tuple[int, ...]]:
        prefix = self.rescorer(question).conditioned
        found = sample_answers(
            self.policy,
            [prefix],
            group_size=count,
            max_answer_tokens=max_tokens,
            seed=f"{seed} workbench",
            on_token=on_token,
        )
        pairs = zip(found.answer_ids, found.lengths.tolist(), strict=True)
        return [tuple(ids[:n].tolist()) for ids, n in pairs]

    # The opened answer

    def rescorer(self, question: str, policy: Policy | None = None) -> Rescorer:
        """The scorer of a question that keeps what the last answer left in its cache."""
        policy = policy or self.policy
        key = (id(policy), question)
        with self._compute:
            if key not in self._rescorers:
                # One a policy: caches of long answers are large.
                self._rescorers = {k: r for k, r in self._rescorers.items() if k[0] != key[0]}
                self._rescorers[key] = Rescorer(policy, question)
            return self._rescorers[key]

    def edit(self, text: str) -> AnswerScore:
        """Score an edited text of the opened answer and show it."""
        with self._compute:
            score = self.rescorer(self.question).score(text)
        with self.hold_trait_notifications():
            self.selection, self.opened, self.edited = (), score, True
        return score

    def keep_edit(self) -> None:
        """Add the edited answer to the table and open it."""
        if self.opened is None or not self.edited:
            return
        score = self.opened
        correct = is_correct(score.answer, self.gold)
        found = Candidate(score, correct, self.gold or None, "edited")
        self.scored.setdefault(self.question, []).append(found)
        self.answers = tuple(self.scored[self.question])
        self.answer = len(self.answers) - 1

    def span_numbers(self) -> tuple[float, float] | None:
        """SAR with the span left out of the mean, and with it deleted and the rest scored again.

        None where nothing, or everything, is selected.
        """
        if self.opened is None or not self.selection:
            return None
        start, stop = self.selection
        if stop - start >= self.opened.length:
            return None
        with self._compute:
            scorer = self.rescorer(self.question)
            scorer.score(self.opened.token_ids)  # no forward where it is the last answer still
            return self.opened.sar_without(start, stop), scorer.score_deleted(start, stop).sar

    def pinned_scores(self) -> list[tuple[str, AnswerScore]]:
        """The pinned answers with their labels.

        With a second policy B is scored under it, and is A's own answer where only A is pinned.
        """
        a, b = self.pinned
        policies = (self.policy, self.policy_b or self.policy)
        if self.policy_b is not None and b < 0:
            b = a
        found = []
        for name, index, policy in zip("AB", (a, b), policies, strict=True):
            if 0 <= index < len(self.answers):
                candidate = self.answers[index]
                with self._compute:
                    scorer = Rescorer(policy, self.question)
                    score = replace(
                        scorer.score(candidate.score.token_ids), answer=candidate.score.answer
                    )
                found.append((f"{name}: {candidate.kind}, {policy.reference}", score))
        return found

    # Reactions

    def _open_first(self) -> None:
        if self.answer < 0 and self.answers:
            self.answer = 0

    @traitlets.observe("answer")
    def _show_answer(self, change: Any) -> None:
        self.selection, self.edited = (), False
        if not 0 <= self.answer < len(self.answers):
            self.opened = None
            return
        candidate = self.answers[self.answer]
        with self._compute:
            score = self.rescorer(self.question).score(candidate.score.token_ids)
        # Ids are scored, not their text; the text is the one that was given.
        self.opened = replace(score, answer=candidate.score.answer)

    @traitlets.observe("gold")
    def _judge_again(self, change: Any) -> None:
        if any((c.gold or "") != self.gold for c in self.answers):
            self.scored[self.question] = rejudged(self.answers, self.gold)
            self.answers = tuple(self.scored[self.question])

    @traitlets.observe("policy")
    def _score_again(self, change: Any) -> None:
        if not self.question:
            return
        # Another policy: all answers wait to be scored anew, with the ids that they had only
        # where both share a tokenizer.
        same = change["old"].tokenizer.get_vocab() == change["new"].tokenizer.get_vocab()
        for question, group in self.scored.items():
            self.drafts.setdefault(question, [])[:0] = [
                Draft(question, c.score.token_ids if same else c.score.answer, c.gold, c.kind)
                for c in group
            ]
        self.scored = {}
        self.open_question(self.question, gold=self.gold)
