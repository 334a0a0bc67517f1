"""The benchmarks of the paper: each one's own format, from the hub or from local files.

One row of the table below per benchmark; the hub and local files are read alike. A row without an
answer that can be checked gives no question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarlab.tasks.answer_line import closing_brace
from sarlab.tasks.rows import Row, as_object, read_rows, text_field
from sarlab.types import Question

_LETTERS = "ABCDEFGHIJ"
_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_MATH_SUBJECTS = (
    *("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory"),
    *("prealgebra", "precalculus"),
)


# --- gold answers: the text that was checked, or None where there is none -------------------------


def gold_of_solution(row: Mapping[str, Any], where: str) -> str:
    """What follows the last ``####`` of a GSM8K-style answer; the answer itself without one."""
    answer = text_field(row, ("answer",), where)
    _, mark, gold = answer.rpartition("####")
    if mark and not gold.strip():
        raise ValueError(
            f"{where}: nothing follows '####' in the answer. Put the final answer there."
        )
    return gold.strip() if mark else answer.strip()


def last_boxed(solution: str) -> str | None:
    r"""The content of the last ``\boxed{}`` (or ``\fbox{}``, ``\boxed 5``) of a solution."""
    start = max(solution.rfind("\\boxed"), solution.rfind("\\fbox"))
    if start < 0:
        return None
    rest = solution[start:].removeprefix("\\boxed").removeprefix("\\fbox")
    if rest.startswith("{"):
        end = closing_brace(rest, 0)
        return rest[1:end].strip() if end > 0 else None
    return next(iter(rest.split("$")[0].split()), None)


def _answer_or_box(row: Mapping[str, Any], where: str) -> str | None:
    if row.get("answer"):
        return text_field(row, ("answer",), where)
    return last_boxed(text_field(row, ("solution",), where))


def _checkable(row: Mapping[str, Any], where: str) -> str | None:
    valid = (str(row.get(name, "Yes")) for name in ("problem_is_valid", "solution_is_valid"))
    gold = str(row.get("answer") or "").strip()
    proof = row.get("question_type") == "proof" or gold.lower() in ("", "proof", "notfound")
    return None if proof or any(word != "Yes" for word in valid) else gold


def _answer(row: Mapping[str, Any], where: str) -> str:
    return text_field(row, ("Answer", "answer"), where).strip()


# --- documents that hold several questions --------------------------------------------------------


def _logicbench(row: Mapping[str, Any], where: str) -> Iterator[Question]:
    """Yes/no questions (``qa_pairs``) or choices, several samples per document."""
    samples = row.get("samples") or row.get("data_samples")
    if not samples or not isinstance(samples, list):
        raise ValueError(f"{where}: no list 'samples'. Expected a LogicBench data_instances.json.")
    metadata = {name: str(row[name]) for name in ("type", "axiom") if name in row}
    for number, sample in enumerate(samples, start=1):
        place = f"{where}, sample {number}"
        context = text_field(as_object(sample, place), ("context",), place).strip()
        if "choices" in sample:
            yield _choice(sample, context, metadata, place)
            continue
        for pair in sample.get("qa_pairs", ()):
            question, gold = (text_field(pair, (n,), place).strip() for n in ("question", "answer"))
            text = f"{context}\n\n{question} Answer yes or no."
            yield Question(text, gold, "logicbench", "text", metadata)


def _choice(
    sample: Mapping[str, Any], context: str, metadata: Mapping[str, str], where: str
) -> Question:
    options, gold = sample["choices"], text_field(sample, ("answer",), where)
    if not isinstance(options, dict) or not str(options.get(gold) or "").strip():
        raise ValueError(f"{where}: answer {gold!r} is none of the choices {options!r:.120}.")
    # The hub's files have an empty option here and there: it is no choice and gets no letter.
    filled = {key: str(text).strip() for key, text in options.items() if str(text or "").strip()}
    letters = dict(zip(filled, _LETTERS, strict=False))
    choices = {letters[key]: text for key, text in filled.items()}
    lines = [f"{letter}) {text}" for letter, text in choices.items()]
    question = text_field(sample, ("question",), where).strip()
    text = "\n".join([context, "", question, *lines, "Answer with the letter of the right option."])
    return Question(text, letters[gold], "logicbench", "text", {**metadata, "choices": choices})


def _prontoqa(row: Mapping[str, Any], where: str) -> Iterator[Question]:
    """The hub's rows (context, question, options, answer), or the authors' own documents."""
    if "context" in row:
        context, question = (text_field(row, (name,), where) for name in ("context", "question"))
        gold = _answer(row, where)
        options = [str(option) for option in row.get("options", ("A) True", "B) False"))]
        named = [o.partition(")")[2].strip() for o in options if o.strip().startswith(f"{gold})")]
        if len(named) != 1 or not named[0]:
            raise ValueError(f"{where}: answer {gold!r} is none of the options {options}.")
        yield Question(f"{context}\n\n{question}", named[0], "prontoqa", "text")
        return
    for key, entry in ({"example": row} if "test_example" in row else row).items():
        place = f"{where}, {key}"
        example = as_object(as_object(entry, place).get("test_example"), f"{place}, test_example")
        facts, query = (text_field(example, (name,), place) for name in ("question", "query"))
        yield Question(f"{facts}\n\n{query}", _answer(example, place), "prontoqa", "text")


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: where it lies on the hub, and how its rows become questions.

    ``parts``: (configuration, split, side) on the hub, side "train", "test" or "" for neither; or
    ``files``: patterns, where the repository is plain files. A row is one question: the first
    column of ``text`` that it has, ``gold(row, place)``, and ``metadata`` (name, column); unless
    ``document`` gives the questions. Of ``for_evaluation`` every question is held out by default.
    """

    name: str
    repository: str
    parts: tuple[tuple[str | None, str, str], ...] = ()
    text: tuple[str, ...] = ("question",)
    gold: Callable[[Mapping[str, Any], str], str | None] = gold_of_solution
    verifier: str = "auto"
    metadata: tuple[tuple[str, str], ...] = ()
    document: Callable[[Mapping[str, Any], str], Iterator[Question]] | None = None
    for_evaluation: bool = False
    files: tuple[str, ...] = ()

    def questions(self, row: Mapping[str, Any], where: str) -> list[Question]:
        """The questions of one row; none where it has no answer that can be checked."""
        if self.document:
            return list(self.document(row, where))
        gold = self.gold(row, where)
        if not gold:
            return []
        metadata = {name: row[column] for name, column in self.metadata if column in row}
        text = text_field(row, self.text, where)
        return [Question(text, gold, self.name, self.verifier, metadata)]

    def hub_rows(self) -> Iterator[tuple[str, Row]]:
        """(side, row) of the whole benchmark, downloaded by `datasets` or from its cache."""
        try:
            if self.files:
                from huggingface_hub import snapshot_download

                patterns = list(self.files)
                folder = snapshot_download(
                    self.repository, repo_type="dataset", allow_patterns=patterns
                )
                yield from self.local_rows(Path(folder))
            for configuration, split, side in self.parts:
                import datasets

                table = datasets.load_dataset(self.repository, configuration, split=split)
                for number, row in enumerate(table, start=1):
                    yield side, (f"{self.repository} {split}, row {number}", row)
        except Exception as error:  # of whatever library lies beneath; re-raised with a remedy
            raise ValueError(
                f"Benchmark {self.name!r} cannot be had from the hub as {self.repository!r} "
                f"({type(error).__name__}: {str(error)[:200]}). "
                f"Without a network, give its files: '{self.name}:PATH'."
            ) from error

    def local_rows(self, path: Path) -> Iterator[tuple[str, Row]]:
        """(side, row) of a file or of the files in a folder; the side of a file is ""."""
        sides = {path: ""}
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
            sides = {file: _side_of(file, path) for file in files}
        if not sides:
            raise ValueError(
                f"{path} holds no {', '.join(_SUFFIXES)} file. Name a file, or the folder of "
                f"{self.name}'s own files."
            )
        for file, side in sides.items():
            # Beside files of a side, those of none are by-products: variants, samples.
            if side or not any(sides.values()):
                yield from ((side, row) for row in read_rows(file))


def _side_of(file: Path, folder: Path) -> str:
    """The side, "train" or "test", from the folder or the end of the file's name, else ""."""
    stem = file.stem.split("-0")[0]  # train-00000-of-00001.parquet
    for side in ("train", "test"):
        if side in file.relative_to(folder).parts[:-1] or stem.endswith((f"_{side}", f"-{side}")):
            return side
    return stem if stem in ("train", "test") else ""


def _names(names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, name) for name in names.split())


_BOTH = ("train", "test")
_ROWS = (
    Benchmark(
        "gsm8k",
        "openai/gsm8k",
        parts=tuple(("main", side, side) for side in _BOTH),
        metadata=(("solution", "answer"),),
    ),
    Benchmark(
        "math",
        "EleutherAI/hendrycks_math",
        parts=tuple((subject, side, side) for subject in _MATH_SUBJECTS for side in _BOTH),
        text=("problem", "question"),
        gold=_answer_or_box,
        verifier="math",
        metadata=_names("level type subject"),
    ),
    Benchmark(
        "numinamath",
        "AI-MO/NuminaMath-1.5",
        parts=((None, "train", ""),),
        text=("problem",),
        gold=_checkable,
        verifier="math",
        metadata=_names("source problem_type question_type"),
    ),
    Benchmark(
        "gsm_symbolic_apple",
        "apple/GSM-Symbolic",
        parts=(("main", "test", ""),),
        metadata=_names("id instance original_id"),
        for_evaluation=True,
    ),
    Benchmark(
        "aime",
        "di-zhang-fdu/AIME_1983_2024",
        parts=((None, "train", ""),),
        text=("Question", "question", "problem"),
        gold=_answer,
        metadata=_names("ID Year"),
        for_evaluation=True,
    ),
    Benchmark(
        "logicbench",
        "cogint/LogicBench-v1.0",
        document=_logicbench,
        for_evaluation=True,
        files=("data/LogicBench(Eval)/*",),
    ),
    Benchmark(
        "prontoqa",
        "renma/ProntoQA",
        parts=((None, "validation", ""),),
        document=_prontoqa,
        for_evaluation=True,
    ),
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in _ROWS}
