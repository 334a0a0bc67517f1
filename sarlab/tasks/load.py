"""One string names a task.

- ``word_problems``: the embedded stories; ``chain_sum``, ``gsm_symbolic``, ``knights_knaves``,
  ``syllogism``: reasoning-gym, with parameters such as ``chain_sum?max_terms=2&max_digits=1``.
- ``path/to/file.jsonl``: one object per line with ``question`` and ``answer``.
- ``gsm8k``, ``math``, ``numinamath``, ``gsm_symbolic_apple``, ``aime``, ``logicbench``,
  ``prontoqa``: from the hub, or ``gsm8k:PATH`` from local files in the benchmark's own format.
- ``gsm8k+math+numinamath?limit=10000``: several sets of questions as one, each with its options.

Options of files and benchmarks, after ``?``: ``split`` (``own``: the set's own test split;
``hash``: a fifth by the text; ``heldout``: everything is for evaluation), ``overlap=drop`` (leave
training questions out that are also held out), ``limit`` (the first n rows) and ``verifier``,
which generators take as well.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl

from sarlab.tasks.base import FiniteTask, GeneratedTask, Task
from sarlab.tasks.benchmarks import BENCHMARKS, Benchmark, gold_of_solution
from sarlab.tasks.generated import GENERATORS, REFUSED, generator
from sarlab.tasks.rows import Row, read_lines, text_field
from sarlab.tasks.splits import OnConflict, distinct, overlap, split_of_id
from sarlab.types import Question

_OPTIONS = {
    "split": ("own", "hash", "heldout"),
    "overlap": ("error", "drop"),
    "limit": None,
    "verifier": None,
}


def task_names() -> list[str]:
    """The names that :func:`load_task` knows, apart from paths of files."""
    return [*GENERATORS, *BENCHMARKS]


def load_task(ref: str, *, heldout_ref: str | None = None) -> Task:
    """The task that a reference names; see the module for what a reference may be.

    With ``heldout_ref`` all questions of the first reference are for training (its own test split
    and the held-out side of a generator excepted), and the second one gives the held-out
    questions. Where the two share a question, a ValueError says so.
    """
    if isinstance(ref, str) and "+" in ref and not Path(ref.partition("?")[0]).exists():
        return _mixture(ref, heldout_ref)
    main = _Source.parse(ref)
    if heldout_ref is None:
        return main.task()
    heldout = _Source.parse(heldout_ref).evaluation()
    if main.name in GENERATORS:
        return GeneratedTask(main.canonical, generator(main.name, main.options), heldout)
    train, _, notes = main.read()
    return _finite(main, train, heldout, notes)


@dataclasses.dataclass(frozen=True)
class _Source:
    """A reference taken apart."""

    name: str  # of a generator or benchmark, or "" for a JSON-lines file
    path: Path | None
    options: dict[str, str]

    @classmethod
    def parse(cls, ref: str) -> _Source:
        if not isinstance(ref, str) or not ref.strip():
            raise ValueError(f"The task is {ref!r}, expected a name or a path. {_known()}")
        body, mark, query = ref.strip().partition("?")
        options = _options(query, ref) if mark else {}
        name, colon, place = body.partition(":")
        if name in REFUSED:
            raise ValueError(f"Task {name!r} is not offered: {REFUSED[name]}. {_known()}")
        if name in GENERATORS and not colon:
            return cls(name, None, options)
        source = None
        if name in BENCHMARKS:
            if colon and not place:
                raise ValueError(
                    f"Task {ref!r} names no path after the colon. Write '{name}:PATH'."
                )
            source = cls(name, Path(place).expanduser() if colon else None, options)
        elif body.lower().endswith((".jsonl", ".json")) or Path(body).expanduser().exists():
            source = cls("", Path(body).expanduser(), options)
        if source is None:
            close = difflib.get_close_matches(name, task_names(), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"Unknown task {ref!r}.{hint} {_known()}")
        source._check_options(ref)
        return source

    @property
    def canonical(self) -> str:
        """The name of the task: a file's stem rather than its path, options in order."""
        name = self.name or (self.path.stem if self.path else "")
        if self.name and self.path:
            name = f"{self.name}:{self.path.stem}"
        query = "&".join(f"{key}={self.options[key]}" for key in sorted(self.options))
        return f"{name}?{query}" if query else name

    def task(self) -> Task:
        if self.name in GENERATORS:
            return GeneratedTask(self.canonical, generator(self.name, self.options))
        train, test, notes = self.read()
        split = self.options.get("split") or self._usual_split(bool(train), bool(test))
        if split == "own" and not (train and test):
            raise ValueError(
                f"Task {self.canonical!r} has no test split of its own. Use 'split=hash' or "
                "'split=heldout', or give held-out questions by heldout_ref."
            )
        if split == "heldout":
            everything, more = distinct([*train, *test], self.canonical, self._on_conflict)
            return FiniteTask(self.canonical, (), everything, [*notes, *more])
        if split == "hash":
            everything, more = distinct([*train, *test], self.canonical, self._on_conflict)
            return self._hash_split(everything, [*notes, *more])
        return _finite(self, train, test, notes)

    def evaluation(self) -> list[Question]:
        """The questions that this reference gives where it stands as ``heldout_ref``."""
        if self.name in GENERATORS:
            return self.task().heldout()
        train, test, _ = self.read()
        if self.options.get("split") == "hash":
            return self.task().heldout()
        return test or train

    def read(self) -> tuple[list[Question], list[Question], list[str]]:
        """The training side, the test side (both distinct) and notes."""
        sides: dict[str, list[Question]] = {"train": [], "test": []}
        limit, rows, empty = self._limit(), 0, 0
        for side, (where, row) in self._rows():
            if limit is not None and rows >= limit:
                break
            rows += 1
            questions = self._convert((where, row))
            empty += not questions
            sides[side or "train"].extend(questions)
        notes = (
            [f"{self.canonical}: {empty} of {rows} rows have no answer to check."] if empty else []
        )
        for side, questions in sides.items():
            unique, more = distinct(questions, f"{self.canonical}, {side}", self._on_conflict)
            sides[side] = unique
            notes += more
        if not sides["train"] and not sides["test"]:
            raise ValueError(f"Task {self.canonical!r} has no question with an answer to check.")
        return sides["train"], sides["test"], notes

    @property
    def _benchmark(self) -> Benchmark | None:
        return BENCHMARKS.get(self.name)

    @property
    def _on_conflict(self) -> OnConflict:
        # A user can correct a file of their own; the published sets stay as they are.
        return "drop" if self._benchmark else "raise"

    def _rows(self) -> Iterator[tuple[str, Row]]:
        if self._benchmark is None:
            assert self.path is not None
            yield from (("", row) for row in read_lines(self.path))
        elif self.path is None:
            yield from self._benchmark.hub_rows()
        elif not self.path.exists():
            raise ValueError(f"{self.path} does not exist. Give a file or folder of {self.name}.")
        else:
            yield from self._benchmark.local_rows(self.path)

    def _convert(self, row: Row) -> list[Question]:
        where, fields = row
        if self._benchmark:
            questions = self._benchmark.convert(fields, where)
        else:
            gold = gold_of_solution(text_field(fields, ("answer",), where), where)
            questions = [Question(text_field(fields, ("question",), where), gold, self.canonical)]
        verifier = self.options.get("verifier")
        return (
            [dataclasses.replace(q, verifier=verifier) for q in questions]
            if verifier
            else questions
        )

    def _usual_split(self, train: bool, test: bool) -> str:
        if train and test:
            return "own"
        return "heldout" if test or (self._benchmark and self._benchmark.for_evaluation) else "hash"

    def _hash_split(self, questions: list[Question], notes: list[str]) -> Task:
        train = [q for q in questions if split_of_id(q.id) == "train"]
        heldout = [q for q in questions if split_of_id(q.id) == "heldout"]
        if not train or not heldout:
            side = "training" if not train else "held-out"
            raise ValueError(
                f"Task {self.canonical!r} has {len(questions)} distinct question(s), and the split "
                f"by their text leaves the {side} side empty. Add questions (30 or more make that "
                "all but impossible), or give a file of held-out questions by heldout_ref."
            )
        return FiniteTask(self.canonical, train, heldout, notes)

    def _limit(self) -> int | None:
        text = self.options.get("limit")
        if text is None:
            return None
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"limit is {text!r}, expected a number of rows of at least 1.")
        return int(text)

    def _check_options(self, ref: str) -> None:
        for key, value in self.options.items():
            if key not in _OPTIONS:
                raise ValueError(
                    f"Task {ref!r} has no option {key!r}. Known: {', '.join(_OPTIONS)}."
                )
            allowed = _OPTIONS[key]
            if allowed and value not in allowed:
                raise ValueError(f"{key} is {value!r} in {ref!r}, expected one of {allowed}.")


def _finite(
    source: _Source, train: list[Question], heldout: Iterable[Question], notes: list[str]
) -> FiniteTask:
    heldout = list(heldout)
    if source.options.get("overlap") == "drop":
        shared = {question.id for question in overlap(train, heldout)}
        train = [question for question in train if question.id not in shared]
        if shared:
            notes = [
                *notes,
                f"{source.canonical}: {len(shared)} held-out question(s) left out of training.",
            ]
        if not train:
            raise ValueError(f"Every training question of {source.canonical!r} is also held out.")
    return FiniteTask(source.canonical, train, heldout, notes)


def _mixture(ref: str, heldout_ref: str | None) -> FiniteTask:
    """Several sets as one task; a question that one of them holds out is trained on by none."""
    train: list[Question] = []
    heldout: list[Question] = [] if heldout_ref is None else _Source.parse(heldout_ref).evaluation()
    names: list[str] = []
    notes: list[str] = []
    parts = [_Source.parse(part) for part in ref.split("+")]
    for part in parts:
        if part.name in GENERATORS:
            raise ValueError(
                f"{part.name!r} in {ref!r} is a generator without end. A mixture joins sets of "
                "questions: files and benchmarks."
            )
    for part in parts:
        names.append(part.canonical)
        if heldout_ref is None:
            task = part.task()
            assert isinstance(task, FiniteTask)
            train, heldout = [*train, *task.train], [*heldout, *task.heldout()]
            notes += task.notes
        else:
            questions, _, more = part.read()
            train, notes = [*train, *questions], [*notes, *more]
    name = "+".join(names)
    heldout, more = distinct(heldout, f"{name}, held out", "drop")
    train, again = distinct(train, f"{name}, train", "drop")
    held = {question.id for question in heldout}
    remaining = [question for question in train if question.id not in held]
    shared = len(train) - len(remaining)
    if shared:
        again = [*again, f"{name}: {shared} held-out question(s) left out of training."]
    return FiniteTask(name, remaining, heldout, [*notes, *more, *again])


def _options(query: str, ref: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError as error:
        raise ValueError(
            f"Parameters of task {ref!r} cannot be read ({error}). Write name?key=value&key=value."
        ) from error
    keys = [key for key, _ in pairs]
    repeated = {key for key in keys if keys.count(key) > 1}
    if repeated:
        raise ValueError(f"Parameter(s) {', '.join(sorted(repeated))} occur twice in {ref!r}.")
    return dict(pairs)


def _known() -> str:
    return (
        f"Known: {', '.join(task_names())}, or the path of a .jsonl file with 'question' and "
        "'answer'."
    )
