"""One string names a task.

- ``word_problems``: the embedded stories; ``chain_sum``, ``gsm_symbolic``, ``knights_knaves``,
  ``syllogism``: reasoning-gym, with parameters such as ``chain_sum?max_terms=2&max_digits=1``.
- ``path/to/file.jsonl``: rows with ``question`` and ``answer``, one JSON object per line.
- ``gsm8k``, ``math``, ``numinamath``, ``gsm_symbolic_apple``, ``aime``, ``logicbench``,
  ``prontoqa``: from the hub, or ``gsm8k:PATH`` from local files in the benchmark's own format.
- ``gsm8k+math+numinamath?limit=10000``: several sets of questions as one, each with its options.

Options of files and benchmarks, after ``?``: ``split`` (``own``: the set's own test split;
``hash``: a fifth by the text; ``heldout``: everything is for evaluation), ``overlap=drop`` (leave
training questions out that are also held out), ``limit`` (the first n rows) and ``verifier``,
which generators take as well.
"""

import difflib
import itertools
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from sarlab.tasks.base import GeneratedTask, Task, distinct, split_of
from sarlab.tasks.benchmarks import BENCHMARKS, FOR_EVALUATION, questions_of, rows_of
from sarlab.tasks.generated import GENERATORS, REFUSED, generator
from sarlab.types import Question

_OPTIONS = {  # the pattern of each value, and what an error says
    "split": ("own|hash|heldout", "one of own, hash, heldout"),
    "overlap": ("error|drop", "one of error, drop"),
    "limit": ("0*[1-9][0-9]*", "a number of rows of at least 1"),
    "verifier": (".+", "the name of a verifier"),
}
_Sides = tuple[list[Question], list[Question]]  # training, held out


def task_names() -> list[str]:
    """The names that :func:`load_task` knows, apart from paths of files."""
    return [*GENERATORS, *BENCHMARKS]


def load_task(ref: str, *, heldout_ref: str | None = None) -> Task:
    """The task that a reference names; see the module for what a reference may be.

    With ``heldout_ref`` all questions of the first reference are for training (its own test split
    and the held-out side of a generator excepted), and the second one gives the held-out
    questions. Where the two share a question, a ValueError says so. Of several sets as one, a
    question that one of them holds out is trained on by none.
    """
    several = isinstance(ref, str) and "+" in ref and not Path(ref.partition("?")[0]).exists()
    parts = [_parsed(part) for part in (ref.split("+") if several else [ref])]
    given = None if heldout_ref is None else _parsed(heldout_ref).evaluation()
    name = "+".join(part.canonical for part in parts)
    for part in parts:
        if part.name in GENERATORS and several:
            raise ValueError(
                f"{part.name!r} in {ref!r} is a generator without end. A mixture joins sets of "
                "questions: files and benchmarks."
            )
        if part.name in GENERATORS:
            return GeneratedTask(name, generator(part.name, part.options), given)
    notes: list[str] = []
    sides = [part.sides(notes) if given is None else part.read(notes) for part in parts]
    train = [question for side, _ in sides for question in side]
    heldout = [q for _, side in sides for q in side] if given is None else given
    if several:
        heldout = distinct(heldout, f"{name}, held out", notes, drop=True)
        train = distinct(train, f"{name}, train", notes, drop=True)
    if several or parts[0].options.get("overlap") == "drop":
        held_ids = {question.id for question in heldout}
        remaining = [question for question in train if question.id not in held_ids]
        if train and not remaining:
            raise ValueError(f"Every training question of {name!r} is also held out.")
        if shared := len(train) - len(remaining):
            notes.append(f"{name}: {shared} held-out question(s) left out of training.")
        train = remaining
    return Task(name, train, heldout, notes)


@dataclass(frozen=True)
class _Source:
    """A reference taken apart; ``name`` is that of a generator or benchmark, or "" for a file."""

    name: str
    path: Path | None
    options: dict[str, str]

    @property
    def canonical(self) -> str:
        """The name of the task: a file's stem rather than its path, options in order."""
        name = ":".join(filter(None, (self.name, self.path.stem if self.path else "")))
        query = "&".join(f"{key}={self.options[key]}" for key in sorted(self.options))
        return f"{name}?{query}" if query else name

    def evaluation(self) -> list[Question]:
        """The questions that this reference gives where it stands as ``heldout_ref``."""
        if self.name in GENERATORS:
            return GeneratedTask(self.canonical, generator(self.name, self.options)).heldout()
        if self.options.get("split") == "hash":
            return self.sides([])[1]
        train, test = self.read([])
        return test or train

    def sides(self, notes: list[str]) -> _Sides:
        """Training and held-out questions as ``split`` parts them."""
        train, test = self.read(notes)
        usual = "heldout" if test or self.name in FOR_EVALUATION else "hash"
        split = self.options.get("split") or ("own" if train and test else usual)
        if split == "own":
            if not (train and test):
                raise ValueError(
                    f"Task {self.canonical!r} has no test split of its own. Use 'split=hash' or "
                    "'split=heldout', or give held-out questions by heldout_ref."
                )
            return train, test
        both = distinct([*train, *test], self.canonical, notes, drop=bool(self.name))
        if split == "heldout":
            return [], both
        train, test = ([q for q in both if split_of(q) == side] for side in ("train", "heldout"))
        if not (train and test):
            raise ValueError(
                f"Task {self.canonical!r} has {len(both)} distinct question(s), and the split by "
                f"their text leaves the {'held-out' if train else 'training'} side empty. Add "
                "questions (30 or more make that all but impossible), or give a file of held-out "
                "questions by heldout_ref."
            )
        return train, test

    def read(self, notes: list[str]) -> _Sides:
        """The training side and the test side, each question once on a side."""
        train, test = list[Question](), list[Question]()
        limit, count, empty = self.options.get("limit"), 0, 0
        rows = itertools.islice(rows_of(self.name, self.path), int(limit) if limit else None)
        for side, (where, row) in rows:
            questions = questions_of(self.name or self.canonical, row, where)
            if verifier := self.options.get("verifier"):
                questions = [replace(q, verifier=verifier) for q in questions]
            (test if side == "test" else train).extend(questions)
            count, empty = count + 1, empty + (not questions)
        if not (train or test):
            raise ValueError(f"Task {self.canonical!r} has no question with an answer to check.")
        if empty:
            notes.append(f"{self.canonical}: {empty} of {count} rows have no answer to check.")
        drop = bool(self.name)  # a user can correct a file of their own, but no published set
        train = distinct(train, f"{self.canonical}, train", notes, drop)
        return train, distinct(test, f"{self.canonical}, test", notes, drop)


def _parsed(ref: str) -> _Source:
    known = f"Known: {', '.join(task_names())}, or the path of a .jsonl file with 'question' and "
    known += "'answer'."
    if not isinstance(ref, str) or not ref.strip():
        raise ValueError(f"The task is {ref!r}, expected a name or a path. {known}")
    body, mark, query = ref.strip().partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")] if mark else []
    if not all(key and equals for key, equals, _ in pairs):
        raise ValueError(
            f"Parameters of task {ref!r} cannot be read. Write name?key=value&key=value."
        )
    options = {key: value for key, _, value in pairs}
    if repeated := [key for key, n in Counter(key for key, *_ in pairs).items() if n > 1]:
        raise ValueError(f"Parameter(s) {', '.join(repeated)} occur twice in {ref!r}.")
    name, colon, place = body.partition(":")
    if name in REFUSED:
        raise ValueError(f"Task {name!r} is not offered: {REFUSED[name]}. {known}")
    if name in GENERATORS and not colon:
        return _Source(name, None, options)  # it knows its own parameters
    if name in BENCHMARKS and colon and not place:
        raise ValueError(f"Task {ref!r} names no path after the colon. Write '{name}:PATH'.")
    if name not in BENCHMARKS:
        name, colon, place = "", ":", body
    path = Path(place).expanduser() if colon else None
    if path and not name and not path.exists() and path.suffix.lower() not in (".jsonl", ".json"):
        close = difflib.get_close_matches(body.partition(":")[0], task_names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown task {ref!r}.{hint} {known}")
    for key, value in options.items():
        if key not in _OPTIONS:
            raise ValueError(f"Task {ref!r} has no option {key!r}. Known: {', '.join(_OPTIONS)}.")
        pattern, expected = _OPTIONS[key]
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{key} is {value!r} in {ref!r}, expected {expected}.")
    return _Source(name, path, options)
