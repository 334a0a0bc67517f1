"""What a task is: questions to train on, and fixed questions to evaluate on.

Training draws depend on the seed and the step alone; the held-out questions on neither, so that
runs with different seeds and rewards are judged on the same questions and can be paired. Splits
cannot leak: a question's own text decides on which side it falls.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Literal

from sarlab.types import Question

HELDOUT_SHARE = 0.2
HELDOUT_DEFAULT = 500  # held-out questions of a generator where no number is asked for
_DRAWS_PER_QUESTION = 300  # before a generator is taken for exhausted


def split_of(question: Question) -> Literal["train", "heldout"]:
    """The side on which a question falls, from its id: a SHA-256, read as a fraction of 2^64.

    Case and white space are folded in ``Question.id``, so copies of a question always fall on one
    side, whatever file they stand in, on every machine and for every seed.
    """
    return "heldout" if int(question.id, 16) / 2**64 < HELDOUT_SHARE else "train"


def check_disjoint(train: Iterable[Question], heldout: Iterable[Question]) -> None:
    """Raise a ValueError where a held-out question is also a training question."""
    seen = {question.id for question in train}
    shared = [question for question in heldout if question.id in seen]
    if shared:
        raise ValueError(
            f"{len(shared)} held-out question(s) also stand in the training questions, the first "
            f"is {shared[0].text[:120]!r}. An evaluation on them would measure memory: remove them "
            "from one of the files, or add '?overlap=drop' to the task to leave them out of "
            "training."
        )


def distinct(
    questions: Iterable[Question], where: str, notes: list[str], drop: bool = False
) -> list[Question]:
    """Each question once, in order; ``notes`` get a line on what was left out.

    A question that occurs again with the same gold answer is a mere copy. With another gold
    answer it has no right answer: a ValueError, or with ``drop`` all its copies are left out.
    """
    copies: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        copies[question.id].append(question)
    agreeing = [same for same in copies.values() if len({q.gold for q in same}) == 1]
    conflicts = [same for same in copies.values() if len({q.gold for q in same}) > 1]
    if repeated := sum(map(len, agreeing)) - len(agreeing):
        notes.append(f"{where}: {repeated} repeated row(s) left out.")
    if conflicts:
        answers = " and ".join(dict.fromkeys(repr(q.gold) for q in conflicts[0]))
        if not drop:
            raise ValueError(
                f"{where}: the question {conflicts[0][0].text[:120]!r} occurs with the answers "
                f"{answers}. Correct one of the rows."
            )
        notes.append(
            f"{where}: {len(conflicts)} question(s) left out that occur with different answers, "
            f"the first with {answers}."
        )
    return [same[0] for same in agreeing]


class Task:
    """A fixed set of questions under a name; without ``train`` it is for evaluation only.

    ``name`` is the reference in a canonical form and part of every random seed. ``notes`` are
    remarks for a log, such as the number of rows left out. ``size`` is the number of training
    questions, None where they are drawn without end. Then ``fits`` says which of them to take, such
    as those that are short enough for a model.

    An epoch is a seeded permutation, cut into whole batches: no question comes twice in one, and
    a rest that fills no batch waits for the next epoch, which is permuted anew. The held-out
    questions come in the order of their ids, so that the first ``count`` are a fair sample.
    """

    fits: Callable[[Question], bool] = staticmethod(lambda question: True)

    def __init__(
        self,
        name: str,
        train: Iterable[Question] = (),
        heldout: Iterable[Question] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.name, self.train, self.notes = name, tuple(train), tuple(notes)
        self.size: int | None = len(self.train)
        self._heldout = sorted(heldout, key=lambda question: question.id)
        check_disjoint(self.train, self._heldout)

    def train_batch(self, step: int, count: int, seed: int) -> list[Question]:
        """``count`` distinct training questions, the same for the same step, count and seed.

        ValueError where there are fewer than ``count``. Training counts its steps from 1.
        """
        _check_request(step, count, seed)
        size = len(self.train)
        if not size:
            raise ValueError(
                f"Task {self.name!r} is for evaluation only. To train on it, add '?split=hash' to "
                "the reference: a fifth of its questions is then held out."
            )
        if count > size:
            raise ValueError(
                f"Task {self.name!r} has {size} training questions, a batch of {count} distinct "
                f"ones was asked for. Ask for at most {size} per step."
            )
        epoch, batch = divmod(step - 1, size // count)
        order = _permutation(size, f"{self.name} {seed} epoch {epoch}")
        return [self.train[i] for i in order[batch * count : (batch + 1) * count]]

    def heldout(self, count: int | None = None) -> list[Question]:
        """At most ``count`` held-out questions, the first of a fixed order; None: all of them."""
        _check_request(0, 1 if count is None else count, 0)
        return self._heldout[:count]

    def __repr__(self) -> str:
        kind = "generated" if self.size is None else f"{self.size} training questions"
        return f"<{type(self).__name__} {self.name!r}: {kind}>"


def _check_request(step: int, count: int, seed: int) -> None:
    for name, value, least in (("step", step, 0), ("count", count, 1), ("seed", seed, None)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}, expected an integer.")
        if least is not None and value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}.")


@lru_cache(maxsize=4)
def _permutation(size: int, seed: str) -> list[int]:
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return order


class GeneratedTask(Task):
    """Questions drawn without end; training rejects the held-out side and those of ``heldout``.

    Without ``heldout`` its held-out questions are drawn too, ``HELDOUT_DEFAULT`` where no number is
    asked for. A narrow generator may have fewer.
    """

    def __init__(
        self,
        name: str,
        draw: Callable[[random.Random], Question],
        heldout: Sequence[Question] | None = None,
    ) -> None:
        super().__init__(name, heldout=heldout or ())
        self.size = None
        self._draw, self._draws_heldout = draw, heldout is None
        self._excluded = {question.id for question in self._heldout}

    def train_batch(self, step: int, count: int, seed: int) -> list[Question]:
        """See :class:`Task`."""
        _check_request(step, count, seed)
        batch = self._distinct(random.Random(f"{self.name} {seed} {step}"), count, "train")
        if len(batch) < count:
            raise ValueError(
                f"Task {self.name!r} gave only {len(batch)} distinct training questions in a "
                f"batch of {count}. Ask for fewer per step, or widen its parameters."
            )
        return batch

    def heldout(self, count: int | None = None) -> list[Question]:
        """See :class:`Task`."""
        if self._draws_heldout:
            count = HELDOUT_DEFAULT if count is None else count
            if len(self._heldout) < count:
                # Drawn afresh from the start: the first questions are the same for any count.
                rng = random.Random(f"{self.name} heldout")
                self._heldout = self._distinct(rng, count, "heldout")
            if not self._heldout:
                raise ValueError(
                    f"Task {self.name!r} gave no held-out question in {_DRAWS_PER_QUESTION} "
                    "draws. Widen its parameters, so that it has more than a few distinct ones."
                )
        return super().heldout(count)

    def _distinct(self, rng: random.Random, count: int, side: str) -> list[Question]:
        drawn: dict[str, Question] = {}
        fruitless = 0
        while len(drawn) < count and fruitless < _DRAWS_PER_QUESTION:
            question = self._draw(rng)
            fruitless += 1
            if question.id in drawn or question.id in self._excluded or split_of(question) != side:
                continue
            if side == "heldout" or self.fits(question):
                drawn[question.id], fruitless = question, 0
        return list(drawn.values())
