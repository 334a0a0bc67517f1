"""Rows of JSON lines, JSON, CSV and parquet, each with the place that an error about it names."""

import contextlib
import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow.parquet import ParquetFile

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands (``file.jsonl, line 7``), and its fields."""
MAX_LINE_BYTES = 64 << 20
_EXAMPLE = '{"question": "1 + 1 = ?", "answer": "2"}'


def read_rows(path: Path) -> Iterator[Row]:
    """:func:`read_records`; a missing file, a folder and a file without rows are ValueErrors."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected a file. Name one of the files in it.")
    if not path.is_file():
        raise ValueError(f"{path} does not exist. Check the path; it counts from {Path.cwd()}.")
    row = None
    for row in read_records(path):
        yield row
    if row is None:
        raise ValueError(f"{path} is empty. Give it one JSON object per line: {_EXAMPLE}.")


def read_records(path: Path, name: str = "", notes: list[str] | None = None) -> Iterator[Row]:
    """The rows of .csv, .parquet, .json (a list, an object or lines), else of JSON lines.

    With ``name`` places are written ``name:7``. A damaged row is a ValueError; where ``notes`` is
    given, a last line that was cut off becomes a note instead.
    """

    def place(kind: str, number: int) -> str:
        return f"{name}:{number}" if name else f"{path}, {kind} {number}"

    suffix = path.suffix.lower()
    kind, entries = ("row", _table(path)) if suffix in (".csv", ".parquet") else ("entry", None)
    if suffix == ".json":
        with contextlib.suppress(ValueError, RecursionError):  # lines, or an error with its line
            document = json.loads(path.read_bytes())
            entries = iter(document if isinstance(document, list) else [document])
    if entries is not None:
        for number, entry in enumerate(entries, start=1):
            where = place(kind, number)
            yield where, as_object(entry, where)
        return
    with path.open("rb") as file:
        lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
        for number, line in enumerate(lines, start=1):
            if not line.strip(b" \t\r\n\xef\xbb\xbf"):
                continue
            where = place("line", number)
            try:
                value = parsed(line, where)
            except ValueError:
                if notes is None or line.endswith(b"\n") or len(line) > MAX_LINE_BYTES:
                    raise
                at = f"{name or path} is cut off in line {number}"
                notes.append(f"{at}; the lines before it were read.")
                return
            yield where, as_object(value, where)


def _table(path: Path) -> Iterator[Any]:
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield from csv.DictReader(file, strict=True)
        else:
            for batch in ParquetFile(path).iter_batches(batch_size=4096):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, ValueError, OSError, csv.Error) as error:
        kind = path.suffix.lower()[1:]
        raise ValueError(
            f"{path} cannot be read as {kind}: {error}. Bring it back from a copy."
        ) from error


def parsed(raw: bytes, where: str) -> Any:
    """The value of a piece of JSON; ValueError where there is none, or it is too long."""
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(
            f"{where}: longer than {MAX_LINE_BYTES >> 20} MiB. One line holds one record; split "
            "the file."
        )
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        at = f"byte {error.start} ({raw[error.start]:#04x})"
        raise ValueError(f"{where}: {at} is not UTF-8. Save the file as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        shown = raw.strip()[:60].decode(errors="replace")
        raise ValueError(
            f"{where}: not valid JSON ({str(error)[:120]}): {shown!r}. "
            f"Repair or remove it; a line holds one whole object, such as {_EXAMPLE}."
        ) from error


def as_object(value: object, where: str) -> Mapping[str, Any]:
    """A parsed value that has to be a JSON object; anything else is a ValueError."""
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise ValueError(f"{where}: a {kind}, expected an object, such as {_EXAMPLE}.")
    return value


def field_names(row: Mapping[str, Any]) -> str:
    """The first fields of a row, for an error message."""
    return ", ".join(repr(str(name)) for name in list(row)[:12]) or "no fields"


def text_field(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    """The first of ``names`` that the row has, as a string that is not empty.

    Integers and finite floats are taken as their digits; anything else is a ValueError.
    """
    name = next((name for name in names if name in row), None)
    if name is None:
        raise ValueError(
            f"{where}: no field {' or '.join(map(repr, names))}; the row has {field_names(row)}. "
            f"Expected {_EXAMPLE}."
        )
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
