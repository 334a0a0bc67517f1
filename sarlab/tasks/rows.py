"""Rows of a data file, each with the place that an error about it should name."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands (``file.jsonl, line 7``), and its fields."""
_EXAMPLE = '{"question": "1 + 1 = ?", "answer": "2"}'


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of .csv, .parquet, .json (a list, an object or lines), else of JSON lines.

    A missing file, a folder, a file without rows or a damaged row is a ValueError.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected a file. Name one of the files in it.")
    if not path.is_file():
        raise ValueError(f"{path} does not exist. Check the path; it counts from {Path.cwd()}.")
    readers = {".csv": _read_table, ".parquet": _read_table, ".json": _read_json}
    row = None
    for row in readers.get(path.suffix.lower(), _read_lines)(path):
        yield row
    if row is None:
        raise ValueError(f"{path} is empty. Give it one JSON object per line: {_EXAMPLE}.")


def text_field(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    """The first of ``names`` that the row has, as a string that is not empty.

    Integers and finite floats are taken as their digits; anything else is a ValueError.
    """
    name = next((name for name in names if name in row), None)
    if name is None:
        expected = " or ".join(map(repr, names))
        have = ", ".join(repr(str(name)) for name in list(row)[:12]) or "no fields"
        raise ValueError(f"{where}: no field {expected}; the row has {have}. Expected {_EXAMPLE}.")
    value = row[name]
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        value = repr(value)
    if not isinstance(value, str):
        raise ValueError(
            f"{where}: field {name!r} is {value!r:.80} ({type(value).__name__}), expected "
            "a string or a number."
        )
    if not value.strip():
        raise ValueError(f"{where}: field {name!r} is empty. Fill it in or remove the row.")
    return value


def as_object(value: object, where: str) -> Mapping[str, Any]:
    """A parsed value that has to be a JSON object; anything else is a ValueError."""
    if not isinstance(value, dict):
        raise ValueError(
            f"{where}: a {type(value).__name__}, expected an object, such as {_EXAMPLE}."
        )
    return value


def _read_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                line = raw.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{where}: byte {error.start} ({raw[error.start]:#04x}) is not UTF-8. "
                    "Save the file as UTF-8."
                ) from error
            if line.strip():
                yield where, as_object(_parsed(line, where), where)


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{where}: not valid JSON ({str(error)[:120]}): {line.strip()[:60]!r}. "
            f"Write one whole object per line, such as {_EXAMPLE}."
        ) from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _read_json(path: Path) -> Iterator[Row]:
    try:
        document = json.loads(path.read_text("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        yield from _read_lines(path)  # lines in a .json file, or an error with its line
        return
    for number, entry in enumerate(document if isinstance(document, list) else [document], start=1):
        where = f"{path}, entry {number}"
        yield where, as_object(entry, where)


def _read_table(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        if path.suffix.lower() == ".parquet":
            rows = pyarrow.parquet.read_table(path).to_pylist()
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file, strict=True))
    except (pyarrow.ArrowException, OSError, csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read as {path.suffix[1:]}: {error}. Bring it back from a copy."
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row
