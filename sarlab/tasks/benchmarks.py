"""The benchmarks of the paper: each one's own format, from the hub or from local files.

A converter takes one row of a benchmark's own files to questions; a row without an answer that
can be checked gives none. The same converters serve the hub and local files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarlab.tasks.answer_line import closing_brace
from sarlab.tasks.rows import Row, as_object, read_rows, text_field
from sarlab.types import Question

Converter = Callable[[Mapping[str, Any], str], list[Question]]

_LETTERS = "ABCDEFGHIJ"
_MATH_SUBJECTS = (
    *("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory"),
    *("prealgebra", "precalculus"),
)


@dataclass(frozen=True)
class HubPart:
    """One split of one configuration of a data set on the hub, and the side it serves."""

    repository: str
    configuration: str | None
    split: str
    side: str  # "train" or "test"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: where it lies on the hub, and how its rows become questions.

    ``for_evaluation`` marks sets of which every question is held out by default.
    """

    name: str
    convert: Converter
    hub: tuple[HubPart, ...]
    for_evaluation: bool = False
    hub_files: tuple[str, ...] = ()  # patterns, where the repository is plain files

    def hub_rows(self) -> Iterator[tuple[str, Row]]:
        """(side, row) of the whole benchmark, downloaded by `datasets` or from its cache."""
        try:
            yield from _files_from_hub(self) if self.hub_files else _splits_from_hub(self)
        except Exception as error:  # of whatever library lies beneath; re-raised with a remedy
            raise ValueError(
                f"Benchmark {self.name!r} cannot be had from the hub as "
                f"{self.hub[0].repository!r} ({type(error).__name__}: {str(error)[:200]}). "
                f"Without a network, give its files: '{self.name}:PATH'."
            ) from error

    def local_rows(self, path: Path) -> Iterator[tuple[str, Row]]:
        """(side, row) of a file or of the files in a folder; the side of a file is ""."""
        if not path.is_dir():
            for row in read_rows(path):
                yield "", row
            return
        files = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
        if not files:
            raise ValueError(
                f"{path} holds no {', '.join(_SUFFIXES)} file. Name a file, or the folder of "
                f"{self.name}'s own files."
            )
        sides = {file: _side_of(file, path) for file in files}
        if any(sides.values()):  # files of neither side are by-products: variants, samples
            files = [file for file in files if sides[file]]
        for file in files:
            for row in read_rows(file):
                yield sides[file], row


_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def _side_of(file: Path, folder: Path) -> str:
    """The side, "train" or "test", from the folder or the end of the file's name, else ""."""
    parts = file.relative_to(folder).parts
    stem = file.stem.split("-0")[0]  # train-00000-of-00001.parquet
    for side in ("train", "test"):
        if side in parts[:-1] or stem == side or stem.endswith((f"_{side}", f"-{side}")):
            return side
    return ""


def _splits_from_hub(benchmark: Benchmark) -> Iterator[tuple[str, Row]]:
    import datasets

    for part in benchmark.hub:
        table = datasets.load_dataset(part.repository, part.configuration, split=part.split)
        for number, row in enumerate(table, start=1):
            yield part.side, (f"{part.repository} {part.split}, row {number}", row)


def _files_from_hub(benchmark: Benchmark) -> Iterator[tuple[str, Row]]:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        benchmark.hub[0].repository, repo_type="dataset", allow_patterns=list(benchmark.hub_files)
    )
    return benchmark.local_rows(Path(folder))


def gold_of_solution(answer: str, where: str) -> str:
    """What follows the last ``####`` of a GSM8K-style answer; the answer itself without one."""
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
    return rest.split("$")[0].split()[0] if rest.split("$")[0].split() else None


def _fields(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}


def _gsm8k(row: Mapping[str, Any], where: str) -> list[Question]:
    text, answer = text_field(row, ("question",), where), text_field(row, ("answer",), where)
    return [Question(text, gold_of_solution(answer, where), "gsm8k", "auto", {"solution": answer})]


def _gsm_symbolic(row: Mapping[str, Any], where: str) -> list[Question]:
    metadata = _fields(row, "id", "instance", "original_id")
    text, answer = text_field(row, ("question",), where), text_field(row, ("answer",), where)
    gold = gold_of_solution(answer, where)
    return [Question(text, gold, "gsm_symbolic_apple", "auto", metadata)]


def _math(row: Mapping[str, Any], where: str) -> list[Question]:
    text = text_field(row, ("problem", "question"), where)
    if row.get("answer"):
        gold: str | None = text_field(row, ("answer",), where)
    else:
        gold = last_boxed(text_field(row, ("solution",), where))
    metadata = _fields(row, "level", "type", "subject")
    return [Question(text, gold, "math", "math", metadata)] if gold else []


def _numinamath(row: Mapping[str, Any], where: str) -> list[Question]:
    if any(
        str(row.get(name, "Yes")) != "Yes" for name in ("problem_is_valid", "solution_is_valid")
    ):
        return []
    gold = str(row.get("answer") or "").strip()
    if row.get("question_type") == "proof" or gold.lower() in ("", "proof", "notfound"):
        return []
    metadata = {
        name: row[name] for name in ("source", "problem_type", "question_type") if name in row
    }
    return [Question(text_field(row, ("problem",), where), gold, "numinamath", "math", metadata)]


def _aime(row: Mapping[str, Any], where: str) -> list[Question]:
    text = text_field(row, ("Question", "question", "problem"), where)
    gold = text_field(row, ("Answer", "answer"), where).strip()
    metadata = _fields(row, "ID", "Year")
    return [Question(text, gold, "aime", "auto", metadata)]


def _logicbench(row: Mapping[str, Any], where: str) -> list[Question]:
    """One document: yes/no questions (``qa_pairs``) or choices, several samples a document."""
    samples = row.get("samples") or row.get("data_samples")
    if not samples or not isinstance(samples, list):
        raise ValueError(f"{where}: no list 'samples'. Expected a LogicBench data_instances.json.")
    metadata = {name: str(row[name]) for name in ("type", "axiom") if name in row}
    questions: list[Question] = []
    for number, sample in enumerate(samples, start=1):
        place = f"{where}, sample {number}"
        sample = as_object(sample, place)
        context = text_field(sample, ("context",), place).strip()
        if "choices" in sample:
            questions.append(_choice(sample, context, metadata, place))
            continue
        for pair in sample.get("qa_pairs", ()):
            question = text_field(pair, ("question",), place).strip()
            gold = text_field(pair, ("answer",), place).strip()
            text = f"{context}\n\n{question} Answer yes or no."
            questions.append(Question(text, gold, "logicbench", "text", metadata))
    return questions


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


def _prontoqa(row: Mapping[str, Any], where: str) -> list[Question]:
    """The hub's rows (context, question, options, answer), or the authors' own documents."""
    if "context" in row:
        context, question = (text_field(row, (name,), where) for name in ("context", "question"))
        gold = text_field(row, ("answer",), where).strip()
        options = [str(option) for option in row.get("options", ("A) True", "B) False"))]
        named = [o.partition(")")[2].strip() for o in options if o.strip().startswith(f"{gold})")]
        if len(named) != 1 or not named[0]:
            raise ValueError(f"{where}: answer {gold!r} is none of the options {options}.")
        return [Question(f"{context}\n\n{question}", named[0], "prontoqa", "text")]
    entries = {"example": row} if "test_example" in row else row
    questions = []
    for key, entry in entries.items():
        place = f"{where}, {key}"
        example = as_object(as_object(entry, place).get("test_example"), f"{place}, test_example")
        facts, query = (text_field(example, (name,), place) for name in ("question", "query"))
        gold = text_field(example, ("answer",), place).strip()
        questions.append(Question(f"{facts}\n\n{query}", gold, "prontoqa", "text"))
    return questions


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "gsm8k",
            _gsm8k,
            tuple(HubPart("openai/gsm8k", "main", side, side) for side in ("train", "test")),
        ),
        Benchmark(
            "math",
            _math,
            tuple(
                HubPart("EleutherAI/hendrycks_math", subject, side, side)
                for subject in _MATH_SUBJECTS
                for side in ("train", "test")
            ),
        ),
        Benchmark("numinamath", _numinamath, (HubPart("AI-MO/NuminaMath-1.5", None, "train", ""),)),
        Benchmark(
            "gsm_symbolic_apple",
            _gsm_symbolic,
            (HubPart("apple/GSM-Symbolic", "main", "test", ""),),
            for_evaluation=True,
        ),
        Benchmark(
            "aime",
            _aime,
            (HubPart("di-zhang-fdu/AIME_1983_2024", None, "train", ""),),
            for_evaluation=True,
        ),
        Benchmark(
            "logicbench",
            _logicbench,
            (HubPart("cogint/LogicBench-v1.0", None, "", ""),),
            for_evaluation=True,
            hub_files=("data/LogicBench(Eval)/*",),
        ),
        Benchmark(
            "prontoqa",
            _prontoqa,
            (HubPart("renma/ProntoQA", None, "validation", ""),),
            for_evaluation=True,
        ),
    )
}
