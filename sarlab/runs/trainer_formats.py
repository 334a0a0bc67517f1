"""The files of each trainer: where they lie, what a record of theirs is, and its rows."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("step", "group_id", "question", "answer", "gold", "reward", "source")
MAX_LINE_BYTES = 64 << 20

Record = Mapping[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class RolloutFormat:
    """One trainer's files: how its records are recognised and read.

    ``files``: patterns of paths below a folder, the first that matches anything counts (blanks
    stand between them). ``fits``: whether a record of this trainer looks like this one. ``read``:
    the rows of a record (``Row``: any of COLUMNS, ``group`` for whatever names the group, and extra
    columns).
    """

    name: str
    files: str
    fits: Callable[[Record], bool]
    read: Callable[[Record, Path], Iterable[Row]]


# --- files --------------------------------------------------------------------------------------


def recognise(path: Path) -> tuple[RolloutFormat, list[Path]]:
    """The format of a file or folder and the files to read, in order of their steps."""
    if path.is_file():
        first = next(read_records(path, path.name, []), None)
        if first is None:
            raise ValueError(f"{path} is empty.")
        for form in FORMATS:
            if form.fits(first[1]):
                return form, [path]
        raise ValueError(
            f"{first[0]}: unknown format; the record has {field_names(first[1])}. {_LOOKED_FOR}"
        )
    for form in FORMATS:
        for pattern in form.files.split():
            files = sorted((p for p in path.glob(pattern) if p.is_file()), key=_by_step)
            for file in files[:1]:
                first = next(read_records(file, str(file.relative_to(path)), []), None)
                if first and form.fits(first[1]):
                    return form, files
    names = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
    raise ValueError(f"{path}: no answers of a known format in it; it holds {names}. {_LOOKED_FOR}")


def _by_step(path: Path) -> list[tuple[int, int, str]]:
    """Numbers in a path sort as numbers: 2.jsonl before 10.jsonl."""
    parts = re.findall(r"\d+|\D+", str(path))
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]


def read_records(file: Path, label: str, notes: list[str]) -> Iterator[tuple[str, Record]]:
    """The objects of a file, each with its place (``label:line``).

    A last line that was cut off in the middle becomes a note.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        yield from _parquet(file, label)
    elif suffix == ".eval":
        yield from _zipped(file, label)
    elif suffix == ".json":
        yield from _document(file, label, notes)
    else:
        yield from _lines(file, label, notes)


def _lines(file: Path, label: str, notes: list[str]) -> Iterator[tuple[str, Record]]:
    with file.open("rb") as lines:
        number = 0
        while line := lines.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{label}:{number}"
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(
                    f"{where}: longer than {MAX_LINE_BYTES >> 20} MiB. One line holds one record; "
                    "split the file."
                )
            if not line.strip():
                continue
            try:
                yield where, _object(line, where)
            except ValueError:
                if line.endswith(b"\n") or number == 1:
                    raise
                notes.append(f"{label} is cut off in line {number}; the lines before it were read.")


def _document(file: Path, label: str, notes: list[str]) -> Iterator[tuple[str, Record]]:
    """A JSON document: a list of records, one record, or JSON lines with the wrong ending."""
    data = file.read_bytes()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        if b"\n{" not in data:
            raise ValueError(
                f"{label}: not valid JSON, {len(data):,} bytes; was it cut off?"
            ) from None
        yield from _lines(file, label, notes)
        return
    if isinstance(value, dict) and isinstance(value.get("samples"), list):  # Inspect
        for number, sample in enumerate(value["samples"], start=1):
            yield f"{label}:sample {number}", sample
    elif isinstance(value, list):
        for number, record in enumerate(value, start=1):
            where = f"{label}:{number}"
            yield where, _checked(record, where)
    else:
        yield label, _checked(value, label)


def _zipped(file: Path, label: str) -> Iterator[tuple[str, Record]]:
    """Inspect's .eval: a zip whose members samples/*.json are read in memory, never unpacked."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [n for n in archive.namelist() if n.startswith("samples/")]
            for name in sorted(n for n in names if n.endswith(".json")):
                where = f"{label}:{name}"
                if archive.getinfo(name).file_size > MAX_LINE_BYTES:
                    raise ValueError(f"{where}: larger than {MAX_LINE_BYTES >> 20} MiB.")
                yield where, _object(archive.read(name), where)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{label}: not a whole zip file ({error}); was it cut off?") from error


def _parquet(file: Path, label: str) -> Iterator[tuple[str, Record]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        number = 0
        for batch in table.iter_batches(batch_size=4096):
            for record in batch.to_pylist():
                number += 1
                yield f"{label}:{number}", record
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{label} cannot be read as parquet: {error}. A parquet file keeps its index at "
            "its end, so of one cut off nothing can be read."
        ) from error


def _object(raw: bytes, where: str) -> Record:
    try:
        return _checked(json.loads(raw), where)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"{where}: not valid JSON ({str(error)[:80]}): {raw[:40]!r}. One line holds one object."
        ) from error


def _checked(value: object, where: str) -> Record:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: a {type(value).__name__}, expected an object with fields.")
    return value


def field_names(record: Record) -> str:
    """The first fields of a record, for an error message."""
    return ", ".join(map(repr, list(record)[:12])) or "no fields"


# --- records of each trainer --------------------------------------------------------------------

_TRL_REST = {"step", "prompt", "completion", "advantage", "solution", "images"}


def _text(value: object) -> Any:
    """The text of a prompt or completion: a string, or the content of the last message."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        return _content(value[-1].get("content"))
    return value


def _content(content: object) -> Any:
    """A message's content; content in parts is joined, thinking first as the model wrote it."""
    if not isinstance(content, list):
        return content
    parts = [p if isinstance(p, str) else p.get("text") or p.get("reasoning") for p in content]
    return "".join(p for p in parts if isinstance(p, str))


def _asked(prompt: object) -> Row:
    """The prompt of a record: messages give the question, a rendered text waits for a template."""
    if isinstance(prompt, list):
        users = [m for m in prompt if isinstance(m, dict) and m.get("role") == "user"]
        return {"question": _content(users[-1].get("content")) if users else _text(prompt)}
    return {"prompt": prompt, "question": prompt}


def _rest(record: Record, used: set[str]) -> Row:
    """What else a record holds; a column that we use ourselves gets the ending ``_logged``."""
    return {
        f"{key}_logged" if key in COLUMNS else str(key): value
        for key, value in record.items()
        if key not in used
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _trl(record: Record, file: Path) -> Iterator[Row]:
    rest = _rest(record, {"step", "prompt", "completion", "solution"})
    yield {
        "step": record["step"],
        **_asked(record["prompt"]),
        "answer": _text(record["completion"]),
        "gold": record.get("solution"),
        "reward_columns": [k for k, v in rest.items() if k not in _TRL_REST and _is_number(v)],
        **rest,
    }


def _verl(record: Record, file: Path) -> Iterator[Row]:
    gold = record.get("gts")
    yield {
        "step": record.get("step", int(file.stem) if file.stem.isdigit() else None),
        "prompt": record["input"],
        "question": record["input"],
        "answer": record["output"],
        "gold": gold if gold is None or isinstance(gold, str) else json.dumps(gold),
        "reward": record["score"],
        **_rest(record, {"step", "input", "output", "gts", "score"}),
    }


def _openrlhf(record: Record, file: Path) -> Iterator[Row]:
    columns = record["columns"]
    for values in record["data"]:
        row = dict(zip(columns, values, strict=True))
        yield {"step": row["global_step"], "answer": row["text"], "reward": row["reward"]}


def _verifiers(record: Record, file: Path) -> Iterator[Row]:
    gold = record.get("answer")
    yield {
        "group": record["example_id"],
        **_asked(record["prompt"]),
        "answer": _text(record["completion"]),
        "gold": gold if gold != "" else None,
        "reward": record.get("reward"),
        **(record.get("metrics") or {}),
        "truncated": record.get("is_truncated"),
    }


def _episode(record: Record, file: Path) -> Iterator[Row]:
    """verifiers v1 and prime-rl: one episode per line, with a graph of messages per trace."""
    data = record["task"].get("data") or {}
    work = (record.get("run") or {}).get("work") or {}
    for trace in record["traces"]:
        nodes = trace.get("nodes") or []
        sampled = [n for n in nodes if n.get("sampled")]
        scores = {k: v for k, v in (trace.get("rewards") or {}).items() if v is not None}
        weighted = {k: v["score"] * v.get("weight", 1.0) for k, v in scores.items()}
        yield {
            "step": work.get("step"),
            "group": (record.get("group") or {}).get("id") or record["task"].get("key"),
            **_asked([n["message"] for n in nodes if not n.get("sampled")]),
            "answer": _content(sampled[-1]["message"].get("content")) if sampled else None,
            "gold": data.get("answer"),
            "reward": sum(weighted.values()) if weighted else None,
            **{k: v["score"] for k, v in scores.items()},
            **{k: v for k, v in (trace.get("metrics") or {}).items() if k not in COLUMNS},
        }


def _inspect(record: Record, file: Path) -> Iterator[Row]:
    output = (record.get("output") or {}).get("choices") or [{}]
    target = record.get("target")
    scores = {
        name: _INSPECT_VALUES.get(score["value"], score["value"])
        for name, score in (record.get("scores") or {}).items()
        if isinstance(score.get("value"), str | int | float)
    }
    yield {
        "group": record["id"],
        **(_asked(asked) if isinstance(asked := record["input"], list) else {"question": asked}),
        "answer": _content((output[0].get("message") or {}).get("content")),
        "gold": target[0] if isinstance(target, list) and len(target) == 1 else target,
        "reward_columns": [name for name, value in scores.items() if _is_number(value)],
        **scores,
        "epoch": record.get("epoch"),
    }


_INSPECT_VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # Inspect's own value_to_float


def _tinker(record: Record, file: Path) -> Iterator[Row]:
    """tinker's logtree: per attempt a conversation, the response, and a table of the reward."""
    step = re.search(r"iteration_(\d+)", str(file))
    for number, group in enumerate(_sections(record["root"])):
        asked: list[Any] = []
        for node in _walk(group):
            data = node.get("data") or {}
            if data.get("type") == "conversation":
                asked.append(data["messages"])
            cells = [_inner(c) for c in _walk(node) if c.get("tag") == "td"]
            table = dict(zip(cells[::2], cells[1::2], strict=False))
            if node.get("tag") == "table" and "reward" in table and len(asked) > 1:
                yield {
                    "step": int(step[1]) if step else None,
                    "group": number,
                    **_asked(asked[-2]),
                    "answer": _text(asked[-1]),
                    "gold": table.get("reference_answer"),
                    "reward": float(table["reward"]),
                }
                asked = []


def _walk(node: Record) -> Iterator[Record]:
    yield node
    for child in node.get("children", ()):
        if isinstance(child, dict):
            yield from _walk(child)


def _inner(node: Record) -> str:
    children = node.get("children", ())
    return "".join(c if isinstance(c, str) else _inner(c) for c in children)


def _sections(root: Record) -> list[Record]:
    """The sections headed "Group Rollout", or the whole tree where there are none."""

    def heads(node: Record) -> list[str]:
        return [_inner(c).strip() for c in node.get("children", ()) if isinstance(c, dict)]

    return [node for node in _walk(root) if "Group Rollout" in heads(node)] or [root]


def _sarlab(record: Record, file: Path) -> Iterator[Row]:
    yield {
        **{name: record.get(name) for name in ("step", "question", "answer", "gold", "reward")},
        "group": f"{record['split']} {record['group_id']}",
        **{k: v for k, v in record.items() if k not in COLUMNS},
    }


def _plain(record: Record, file: Path) -> Iterator[Row]:
    messages = record.get("messages")
    if isinstance(messages, list) and messages:
        turn = {**_asked(messages[:-1]), "answer": _text(messages)}
    else:
        prompt = next(record[k] for k in _PROMPTS if k in record)
        turn = {**_asked(prompt), "answer": _text(next(record[k] for k in _ANSWERS if k in record))}
        if "question" in record:
            turn = {**turn, "question": record["question"]}
            turn.pop("prompt", None)
    gold = next((record[k] for k in _GOLDS if k in record), None)
    used = {*_PROMPTS, *_ANSWERS, *_GOLDS, "messages", "step", "reward", "group_id"}
    yield {
        "step": record.get("step"),
        "group": record.get("group_id"),
        **turn,
        "gold": str(gold) if _is_number(gold) else gold,
        "reward": record.get("reward"),
        **_rest(record, used),
    }


_PROMPTS = ("question", "prompt", "input")
_ANSWERS = ("completion", "response", "answer", "output")
_GOLDS = ("gold", "ground_truth", "solution", "target")


def _has(names: str) -> Callable[[Record], bool]:
    return lambda record: all(name in record for name in names.split())


def _is_table(record: Record) -> bool:
    return {"global_step", "text", "reward"} <= set(record.get("columns") or ())


def _is_plain(record: Record) -> bool:
    named = (any(name in record for name in names) for names in (_PROMPTS, _ANSWERS))
    return "messages" in record or all(named)


_EPISODES = (
    "rollouts/step_*/train/effective/traces.jsonl rollouts/step_*/train/all/traces.jsonl "
    "traces.jsonl"
)
FORMATS = (
    RolloutFormat(
        "sarlab", "rollouts.parquet/*.parquet", _has("split group_id answer_ids answer"), _sarlab
    ),
    RolloutFormat(
        "TRL completions",
        "completions/completions_*.parquet completions_*.parquet",
        _has("step prompt completion advantage"),
        _trl,
    ),
    RolloutFormat("verl rollout data", "*.jsonl", _has("input output score"), _verl),
    RolloutFormat("prime-rl or verifiers traces", _EPISODES, _has("traces task"), _episode),
    RolloutFormat(
        "verifiers results", "results.jsonl", _has("example_id prompt completion"), _verifiers
    ),
    RolloutFormat(
        "tinker logtree", "iteration_*/train_logtree.json *_logtree.json", _has("root"), _tinker
    ),
    RolloutFormat("Inspect log", "*.eval *.json", _has("id input output"), _inspect),
    RolloutFormat("OpenRLHF samples (W&B table)", "*.table.json", _is_table, _openrlhf),
    RolloutFormat("plain rows", "*.jsonl *.json *.parquet", _is_plain, _plain),
)
_LOOKED_FOR = (
    "Looked for " + ", ".join(form.name for form in FORMATS) + ". Plain rows have messages, or "
    f"one of {', '.join(_PROMPTS)} and one of {', '.join(_ANSWERS)}."
)
