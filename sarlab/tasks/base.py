"""What a task is: questions to train on, and fixed questions to evaluate on.

Training draws depend on the seed and the step alone; the held-out questions on neither, so that
runs with different seeds and rewards are judged on the same questions and can be paired.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from sarlab.tasks.splits import check_disjoint, split_of_id
from sarlab.types import Question

HELDOUT_DEFAULT = 500
"""How many held-out questions a generator gives where no number is asked for."""
_DRAWS_PER_QUESTION = 300  # before a generator is taken for exhausted


class Task(ABC):
    """Questions under a name.

    ``name`` is the reference in a canonical form and part of every random seed. ``notes`` are
    remarks for a log, such as the number of rows left out.
    """

    name: str
    notes: tuple[str, ...] = ()

    @property
    @abstractmethod
    def size(self) -> int | None:
        """The number of training questions, or None for a generator."""

    @property
    def finite(self) -> bool:
        """Whether the training questions are a fixed set, gone through in epochs."""
        return self.size is not None

    @abstractmethod
    def train_batch(self, step: int, count: int, seed: int) -> list[Question]:
        """``count`` distinct training questions, the same for the same step, count and seed."""

    @abstractmethod
    def heldout(self, count: int | None = None) -> list[Question]:
        """At most ``count`` held-out questions, the first of a fixed order; None: see the class."""

    def __repr__(self) -> str:
        kind = "generated" if self.size is None else f"{self.size} training questions"
        return f"<{type(self).__name__} {self.name!r}: {kind}>"


def _check_request(step: int, count: int, seed: int) -> None:
    for name, value, least in (("step", step, 0), ("count", count, 1), ("seed", seed, None)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}, expected an integer.")
        if least is not None and value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}.")


def _first(questions: Sequence[Question], count: int | None) -> list[Question]:
    if count is not None:
        _check_request(0, count, 0)
    return list(questions[:count])


class FiniteTask(Task):
    """A fixed set of questions.

    An epoch is a seeded permutation, cut into whole batches: no question comes twice in one, and
    a rest that fills no batch waits for the next epoch, which is permuted anew. The held-out
    questions come in the order of their ids, so that the first ``count`` are a fair sample.
    """

    def __init__(
        self,
        name: str,
        train: Sequence[Question],
        heldout: Sequence[Question],
        notes: Sequence[str] = (),
    ) -> None:
        check_disjoint(train, heldout)
        self.name = name
        self.notes = tuple(notes)
        self.train = tuple(train)
        self._heldout = tuple(sorted(heldout, key=lambda question: question.id))
        self._epoch: tuple[tuple[int, int], list[int]] | None = None

    @property
    def size(self) -> int:
        """The number of training questions; 0 for a set that is for evaluation only."""
        return len(self.train)

    def train_batch(self, step: int, count: int, seed: int) -> list[Question]:
        """See :class:`Task`; more questions than there are is a ValueError."""
        _check_request(step, count, seed)
        if not self.train:
            raise ValueError(
                f"Task {self.name!r} is for evaluation only. To train on it, add '?split=hash' to "
                "the reference: a fifth of its questions is then held out."
            )
        if count > len(self.train):
            raise ValueError(
                f"Task {self.name!r} has {len(self.train)} training questions, a batch of {count} "
                f"distinct ones was asked for. Ask for at most {len(self.train)} a step."
            )
        batches_per_epoch = len(self.train) // count
        epoch, batch = divmod(step - 1, batches_per_epoch)  # training counts its steps from 1
        order = self._order(seed, epoch)
        return [self.train[index] for index in order[batch * count : (batch + 1) * count]]

    def heldout(self, count: int | None = None) -> list[Question]:
        """See :class:`Task`; None gives all of them, and so does a count beyond them."""
        return _first(self._heldout, count)

    def _order(self, seed: int, epoch: int) -> list[int]:
        if self._epoch is None or self._epoch[0] != (seed, epoch):
            order = list(range(len(self.train)))
            random.Random(f"{self.name} {seed} epoch {epoch}").shuffle(order)
            self._epoch = ((seed, epoch), order)
        return self._epoch[1]


class GeneratedTask(Task):
    """Questions drawn by a function of a random generator, without end.

    Each text falls on the side of :func:`sarlab.tasks.splits.split_of`; training rejects the
    held-out side, and whatever questions ``heldout`` brings from elsewhere.
    """

    def __init__(
        self,
        name: str,
        draw: Callable[[random.Random], Question],
        heldout: Sequence[Question] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.notes = tuple(notes)
        self._draw = draw
        self._given = None if heldout is None else tuple(sorted(heldout, key=lambda q: q.id))
        self._excluded = frozenset(question.id for question in self._given or ())
        self._stream: list[Question] = []
        self.fits: Callable[[Question], bool] = lambda question: True
        """Training leaves out the draws that it refuses, such as those too long for a model."""

    @property
    def size(self) -> None:
        """None: there is no end to the training questions."""
        return None

    def train_batch(self, step: int, count: int, seed: int) -> list[Question]:
        """See :class:`Task`; a generator that has too few distinct questions is a ValueError."""
        _check_request(step, count, seed)
        batch = self._distinct(random.Random(f"{self.name} {seed} {step}"), count, "train")
        if len(batch) < count:
            raise ValueError(
                f"Task {self.name!r} gave only {len(batch)} distinct training questions in a "
                f"batch of {count}. Ask for fewer a step, or widen its parameters."
            )
        return batch

    def heldout(self, count: int | None = None) -> list[Question]:
        """See :class:`Task`; None gives ``HELDOUT_DEFAULT``. A narrow generator may have fewer."""
        if self._given is not None:
            return _first(self._given, count)
        count = HELDOUT_DEFAULT if count is None else count
        _check_request(0, count, 0)
        if len(self._stream) < count:
            # Drawn afresh from the start, so that the first questions are the same for any count.
            rng = random.Random(f"{self.name} heldout")
            self._stream = self._distinct(rng, count, "heldout")
        if not self._stream:
            raise ValueError(
                f"Task {self.name!r} gave no held-out question in {_DRAWS_PER_QUESTION} draws. "
                "Widen its parameters, so that it has more than a few distinct questions."
            )
        return self._stream[:count]

    def _distinct(self, rng: random.Random, count: int, side: str) -> list[Question]:
        drawn: dict[str, Question] = {}
        fruitless = 0
        while len(drawn) < count and fruitless < _DRAWS_PER_QUESTION:
            question = self._draw(rng)
            key = question.id
            refused = key in drawn or key in self._excluded or split_of_id(key) != side
            if refused or (side == "train" and not self.fits(question)):
                fruitless += 1
            else:
                drawn[key] = question
                fruitless = 0
        return list(drawn.values())
