"""The benchmarks of the paper: each one's own format, from the hub or from local files alike."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sarlab.tasks.answer_line import closing_brace
from sarlab.tasks.rows import Row, as_object, read_rows, text_field
from sarlab.types import Question

_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
# The side of a file: its folder, or the end of its name: gsm8k_test, train-00000-of-00001.
_SIDE = re.compile(r"(?<![^/])(?:train|test)(?=/)|(?<![^/_-])(?:train|test)(?=(-0[^/]*)?\.\w+$)")
_MATH_SUBJECTS = (
    *("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory"),
    *("prealgebra", "precalculus"),
)


# --- gold answers: the text that was checked, or None where there is none -------------------------


def _answer(row: Mapping[str, Any], where: str) -> str:
    return text_field(row, ("Answer", "answer"), where).strip()


def _after_mark(row: Mapping[str, Any], where: str) -> str:
    """What follows the last ``####`` of a GSM8K-style answer; the answer itself without one."""
    gold = text_field(row, ("answer",), where).rpartition("####")[2].strip()
    if not gold:
        raise ValueError(
            f"{where}: nothing follows '####' in the answer. Put the final answer there."
        )
    return gold


def last_boxed(solution: str) -> str | None:
    r"""The content of the last ``\boxed{}`` (or ``\fbox{}``, ``\boxed 5``) of a solution."""
    _, mark, rest = re.sub(r"\\fbox", r"\\boxed", solution).rpartition(r"\boxed")
    if mark and rest.startswith("{"):
        end = closing_brace(rest, 0)
        return rest[1:end].strip() if end > 0 else None
    return next(iter(rest.split("$")[0].split()), None) if mark else None


def _answer_or_box(row: Mapping[str, Any], where: str) -> str | None:
    if row.get("answer"):
        return text_field(row, ("answer",), where)
    return last_boxed(text_field(row, ("solution",), where))


def _checkable(row: Mapping[str, Any], where: str) -> str | None:
    valid = (str(row.get(name, "Yes")) for name in ("problem_is_valid", "solution_is_valid"))
    gold = str(row.get("answer") or "").strip()
    proof = row.get("question_type") == "proof" or gold.lower() in ("", "proof", "notfound")
    return None if proof or any(word != "Yes" for word in valid) else gold


# --- documents that hold several questions --------------------------------------------------------


def _logicbench(row: Mapping[str, Any], where: str) -> Iterator[Question]:
    """Yes/no questions (``qa_pairs``) or choices, several samples per document.

    The hub's files have an empty option here and there: it is no choice and gets no letter.
    """
    samples = row.get("samples") or row.get("data_samples")
    if not samples or not isinstance(samples, list):
        raise ValueError(f"{where}: no list 'samples'. Expected a LogicBench data_instances.json.")
    metadata: dict[str, Any] = {name: str(row[name]) for name in ("type", "axiom") if name in row}
    for number, sample in enumerate(samples, start=1):
        place = f"{where}, sample {number}"
        context = text_field(as_object(sample, place), ("context",), place).strip()
        choice, options = "choices" in sample, sample.get("choices")
        for pair in [sample] if choice else sample.get("qa_pairs", ()):
            question, gold = (text_field(pair, (n,), place).strip() for n in ("question", "answer"))
            text, more = f"{context}\n\n{question}", metadata
            if not choice:
                yield Question(f"{text} Answer yes or no.", gold, "logicbench", "text", more)
                continue
            if not isinstance(options, dict) or not str(options.get(gold) or "").strip():
                raise ValueError(
                    f"{place}: answer {gold!r} is none of the choices {options!r:.120}."
                )
            filled = {key: str(o).strip() for key, o in options.items() if str(o or "").strip()}
            letters = dict(zip(filled, "ABCDEFGHIJ", strict=False))
            lines = [f"{letters[key]}) {option}" for key, option in filled.items()]
            text = "\n".join([text, *lines, "Answer with the letter of the right option."])
            more = {**metadata, "choices": {letters[key]: o for key, o in filled.items()}}
            yield Question(text, letters[gold], "logicbench", "text", more)


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


# --- the tables -----------------------------------------------------------------------------------

# Where each one lies on the hub: repository, configurations, splits (its sides where there are two;
# or a pattern of files, where the repository is plain files).
BENCHMARKS: dict[str, tuple[str, tuple[str | None, ...], str]] = {
    "gsm8k": ("openai/gsm8k", ("main",), "train test"),
    "math": ("EleutherAI/hendrycks_math", _MATH_SUBJECTS, "train test"),
    "numinamath": ("AI-MO/NuminaMath-1.5", (None,), "train"),
    "gsm_symbolic_apple": ("apple/GSM-Symbolic", ("main",), "test"),
    "aime": ("di-zhang-fdu/AIME_1983_2024", (None,), "train"),
    "logicbench": ("cogint/LogicBench-v1.0", (), "data/LogicBench(Eval)/*"),
    "prontoqa": ("renma/ProntoQA", (None,), "validation"),
}
FOR_EVALUATION = {"gsm_symbolic_apple", "aime", "logicbench", "prontoqa"}  # held out by default
_DOCUMENTS = {"logicbench": _logicbench, "prontoqa": _prontoqa}
# The others, and every file of a user: columns that may hold the question, the rule for the gold
# answer, columns that become metadata (``name=column`` for another name), the verifier.
_FILE = ("question", _after_mark, "", "auto")
_COLUMNS: dict[str, tuple[str, Callable[[Mapping[str, Any], str], str | None], str, str]] = {
    "gsm8k": ("question", _after_mark, "solution=answer", "auto"),
    "math": ("problem question", _answer_or_box, "level type subject", "math"),
    "numinamath": ("problem", _checkable, "source problem_type question_type", "math"),
    "gsm_symbolic_apple": ("question", _after_mark, "id instance original_id", "auto"),
    "aime": ("Question question problem", _answer, "ID Year", "auto"),
}


def questions_of(name: str, row: Mapping[str, Any], where: str) -> list[Question]:
    """The questions of one row; none where it has no answer that can be checked."""
    if name in _DOCUMENTS:
        return list(_DOCUMENTS[name](row, where))
    texts, gold_of, columns, verifier = _COLUMNS.get(name, _FILE)
    gold = gold_of(row, where)
    if not gold:
        return []
    pairs = (column.rpartition("=") for column in columns.split())
    metadata = {ours or column: row[column] for ours, _, column in pairs if column in row}
    return [Question(text_field(row, tuple(texts.split()), where), gold, name, verifier, metadata)]


def rows_of(name: str, path: Path | None) -> Iterator[tuple[str, Row]]:
    """(side, row) of a benchmark, or of a user's file where ``name`` is ""; side "" is neither.

    From a file, from the files in a benchmark's folder, or where ``path`` is None from the hub
    (by `datasets`, downloaded or from its cache).
    """
    if path is not None:
        yield from _file_rows(name, path)
        return
    repository, configurations, splits = BENCHMARKS[name]
    try:
        import datasets
        import huggingface_hub

        if not configurations:
            folder = huggingface_hub.snapshot_download(
                repository, repo_type="dataset", allow_patterns=[splits]
            )
            yield from _file_rows(name, Path(folder))
        for configuration, split in itertools.product(configurations, splits.split()):
            table = datasets.load_dataset(repository, configuration, split=split)
            for number, row in enumerate(table, start=1):
                where = f"{repository} {split}, row {number}"
                yield split if " " in splits else "", (where, row)
    except Exception as error:  # of whatever library lies beneath; re-raised with a remedy
        raise ValueError(
            f"Benchmark {name!r} cannot be had from the hub as {repository!r} "
            f"({type(error).__name__}: {str(error)[:200]}). "
            f"Without a network, give its files: '{name}:PATH'."
        ) from error


def _file_rows(name: str, path: Path) -> Iterator[tuple[str, Row]]:
    files = [path]
    if name and path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
        if not files:
            raise ValueError(
                f"{path} holds no {', '.join(_SUFFIXES)} file. Name a file, or the folder of "
                f"{name}'s own files."
            )
    matches = ((file, _SIDE.search(file.relative_to(path).as_posix())) for file in files)
    sides = {file: match[0] if match else "" for file, match in matches}
    for file, side in sides.items():
        # Beside files of a side, those of none are by-products: variants, samples.
        if side or not any(sides.values()):
            yield from ((side, row) for row in read_rows(file))
