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


def existing_file(path: Path) -> Path:
    """The path, once it is sure to be a file; a missing one or a folder is a ValueError."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected a file. Name one of the files in it.")
    if not path.is_file():
        raise ValueError(f"{path} does not exist. Check the path; it counts from {Path.cwd()}.")
    return path


def read_lines(path: Path) -> Iterator[Row]:
    """The objects of a JSON-lines file; blank lines are skipped, an empty file is a ValueError."""
    existing_file(path)
    empty = True
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            where = f"{path}, line {number}"
            line = _decoded(raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw, where)
            if line.strip():
                empty = False
                yield where, _object(line, where)
    if empty:
        raise ValueError(f"{path} is empty. Give it one JSON object per line: {_EXAMPLE}.")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a benchmark's file: .jsonl, .json (list, object or lines), .csv, .parquet."""
    existing_file(path)
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".json": _read_json}
    return readers.get(path.suffix.lower(), read_lines)(path)


def text_field(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    """The first of ``names`` that the row has, as a string that is not empty.

    Integers and finite floats are taken as their digits; anything else is a ValueError.
    """
    for name in names:
        if name in row:
            value = row[name]
            if _is_int(value) or (isinstance(value, float) and math.isfinite(value)):
                value = repr(value)
            if not isinstance(value, str):
                raise ValueError(
                    f"{where}: field {name!r} is {value!r:.80} ({type(value).__name__}), expected "
                    "a string or a number."
                )
            if not value.strip():
                raise ValueError(f"{where}: field {name!r} is empty. Fill it in or remove the row.")
            return value
    expected = " or ".join(repr(name) for name in names)
    have = ", ".join(repr(str(name)) for name in list(row)[:12]) or "no fields"
    raise ValueError(f"{where}: no field {expected}; the row has {have}. Expected {_EXAMPLE}.")


_EXAMPLE = '{"question": "1 + 1 = ?", "answer": "2"}'


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: byte {error.start} ({raw[error.start]:#04x}) is not UTF-8. "
            "Save the file as UTF-8."
        ) from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{where}: not valid JSON ({str(error)[:120]}): {text.strip()[:60]!r}. "
            f"Write one whole object per line, such as {_EXAMPLE}."
        ) from error


def _object(line: str, where: str) -> Mapping[str, Any]:
    return as_object(_parse(line, where), where)


def as_object(value: object, where: str) -> Mapping[str, Any]:
    """A parsed value that has to be a JSON object; anything else is a ValueError."""
    if not isinstance(value, dict):
        raise ValueError(
            f"{where}: a {type(value).__name__}, expected an object, such as {_EXAMPLE}."
        )
    return value


def _read_json(path: Path) -> Iterator[Row]:
    text = _decoded(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), str(path))
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        yield from read_lines(path)  # lines in a .json file, or an error with its line
        return
    for number, row in enumerate(document if isinstance(document, list) else [document], start=1):
        where = f"{path}, entry {number}" if isinstance(document, list) else str(path)
        yield where, as_object(row, where)


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                yield f"{path}, line {reader.line_num}", row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, after line {reader.line_num}: {error}.") from error


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {error}.") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path}, row {number}", row
