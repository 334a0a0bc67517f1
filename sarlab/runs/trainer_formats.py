"""The files of each trainer: where they lie, what a record of theirs is, and its rows."""

import functools
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarlab.tasks.rows import MAX_LINE_BYTES, as_object, field_names, parsed, read_records

COLUMNS = ("step", "group_id", "question", "answer", "gold", "reward", "source")
_OURS = ("step", "group", "question", "prompt", "answer", "gold", "reward")
Record = Mapping[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class RolloutFormat:
    """One trainer's files: how its records are recognised and read.

    ``files``: patterns of paths below a folder, the first that matches anything counts. ``needs``:
    fields that a record of this trainer has; ``a|b`` is either, ``or`` parts whole lists. ``flat``
    turns a nested record into flat ones. ``renamed``: its names of our fields, as in
    ``answer=completion``; ``group`` is whatever names the group, and ``prompt`` becomes the
    question. All else is kept; numbers in it are rewards where ``adds_rewards``.
    """

    name: str
    files: str
    needs: str
    renamed: str = ""
    flat: Callable[[Record, Path], Iterable[Record]] = lambda record, file: (record,)
    adds_rewards: bool = False

    def fits(self, record: Record) -> bool:
        """Whether a record of this trainer looks like this one."""
        return any(
            all(not record.keys().isdisjoint(field.split("|")) for field in fields.split())
            for fields in self.needs.split(" or ")
        )

    def rows(self, record: Record, file: Path) -> Iterator[Row]:
        """The answers of a record."""
        names = {name: name for name in _OURS}
        for ours, _, theirs in (column.partition("=") for column in self.renamed.split()):
            names[ours] = theirs
        if self.adds_rewards:
            names["reward"] = ""  # a column of that name is one of several
        for flat in map(dict, self.flat(record, file)):
            row: Row = {}
            for ours, theirs in names.items():
                name = next((n for n in theirs.split("|") if n in flat), theirs)
                row[ours] = flat.pop(name, None)
            prompt = row.pop("prompt")
            if row["question"] is None and isinstance(prompt, list):
                users = [m for m in prompt if isinstance(m, dict) and m.get("role") == "user"]
                row["question"] = _text(users or prompt)
            elif row["question"] is None:
                row |= {"prompt": prompt, "question": prompt}  # rendered: waits for a template
            row |= {"answer": _text(row["answer"]), "gold": _gold(row["gold"])}
            rest = {f"{k}_logged" if k in COLUMNS else str(k): v for k, v in flat.items()}
            if self.adds_rewards:
                numbers = [key for key, value in rest.items() if _is_number(value)]
                row["reward_columns"] = [n for n in numbers if n not in ("advantage", "epoch")]
            yield {**rest, **row}


def recognise(path: Path) -> tuple[RolloutFormat, list[Path]]:
    """The format of a file or folder and the files to read, in order of their steps."""
    root = path if path.is_dir() else path.parent

    @functools.cache
    def first_record(file: Path) -> tuple[str, Record] | None:
        return next(records(file, str(file.relative_to(root)), []), None)

    for form in FORMATS:
        for pattern in form.files.split():
            files = [path]
            if path.is_dir():
                files = sorted((p for p in path.glob(pattern) if p.is_file()), key=_by_step)
            first = first_record(files[0]) if files else None
            if first and form.fits(first[1]):
                return form, files
    if path.is_dir():
        names = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        what = f"{path}: no answers of a known format in it; it holds {names}."
    elif first := first_record(path):
        what = f"{first[0]}: unknown format; the record has {field_names(first[1])}."
    else:
        raise ValueError(f"{path} is empty, or cut off in its first record.")
    raise ValueError(f"{what} {_LOOKED_FOR}")


def _by_step(path: Path) -> str:
    """Numbers in a path sort as numbers: 2.jsonl before 10.jsonl."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), str(path))


def records(file: Path, name: str, notes: list[str]) -> Iterator[tuple[str, Record]]:
    """The objects of a file, each with its place; see :func:`sarlab.tasks.rows.read_records`.

    Inspect's .eval is a zip whose members samples/*.json are read in memory, never unpacked.
    """
    if file.suffix.lower() != ".eval":
        yield from read_records(file, name, notes)
        return
    try:
        with zipfile.ZipFile(file) as archive:
            for member in sorted(archive.namelist()):
                if member.startswith("samples/") and member.endswith(".json"):
                    where = f"{name}:{member}"
                    with archive.open(member) as part:
                        yield where, as_object(parsed(part.read(MAX_LINE_BYTES + 1), where), where)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{name}: not a whole zip file ({error}); was it cut off?") from error


# --- fields of a record ---------------------------------------------------------------------------


def _text(value: object) -> Any:
    """The text of a prompt or completion: a string, or the content of the last message.

    Content in parts is joined, thinking first as the model wrote it.
    """
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
        if isinstance(value, list):
            parts = [
                p if isinstance(p, str) else p.get("text") or p.get("reasoning") for p in value
            ]
            return "".join(p for p in parts if isinstance(p, str))
    return value


def _gold(value: object) -> object:
    """A gold answer as text; what is neither text nor number stays as it is, and judges nothing."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return str(value) if _is_number(value) else None if value == "" else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- nested records, made flat --------------------------------------------------------------------


def _sarlab(record: Record, file: Path) -> Iterator[Row]:
    row = {**record, "group": f"{record['split']} {record['group_id']}"}
    del row["group_id"]
    yield row


def _verl(record: Record, file: Path) -> Iterator[Row]:
    yield {"step": int(file.stem) if file.stem.isdigit() else None, **record}


def _openrlhf(record: Record, file: Path) -> Iterator[Row]:
    for values in record["data"]:
        row = dict(zip(record["columns"], values, strict=True))
        yield {"step": row["global_step"], "answer": row["text"], "reward": row["reward"]}


def _verifiers(record: Record, file: Path) -> Iterator[Row]:
    row = dict(record)
    yield {**(row.pop("metrics", None) or {}), **row}


def _episode(record: Record, file: Path) -> Iterator[Row]:
    """verifiers v1 and prime-rl: one episode per line, with a graph of messages per trace."""
    work = (record.get("run") or {}).get("work") or {}
    for trace in record["traces"]:
        nodes = trace.get("nodes") or []
        scores = {k: v for k, v in (trace.get("rewards") or {}).items() if v is not None}
        weighted = [v["score"] * v.get("weight", 1.0) for v in scores.values()]
        yield {
            **(trace.get("metrics") or {}),
            **{k: v["score"] for k, v in scores.items()},
            "step": work.get("step"),
            "group": (record.get("group") or {}).get("id") or record["task"].get("key"),
            "prompt": [n["message"] for n in nodes if not n.get("sampled")],
            "answer": [n["message"] for n in nodes if n.get("sampled")] or None,
            "gold": (record["task"].get("data") or {}).get("answer"),
            "reward": sum(weighted) if weighted else None,
        }


# Inspect's own value_to_float.
_INSPECT_VALUES: dict[Any, float] = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}


def _inspect(record: Record, file: Path) -> Iterator[Row]:
    for sample in record.get("samples", [record]):
        scores = {k: score.get("value") for k, score in (sample.get("scores") or {}).items()}
        output = (sample.get("output") or {}).get("choices") or [{}]
        yield {
            **{
                k: _INSPECT_VALUES.get(v, v)
                for k, v in scores.items()
                if isinstance(v, str | int | float)
            },
            "epoch": sample.get("epoch"),
            "group": sample["id"],
            "prompt" if isinstance(sample["input"], list) else "question": sample["input"],
            "answer": [output[0].get("message") or {}],
            "gold": sample.get("target"),
        }


def _tinker(record: Record, file: Path) -> Iterator[Row]:
    """tinker's logtree: per attempt a conversation, the response, and a table of the reward.

    A group is a section headed "Group Rollout", or the whole tree where there are none.
    """
    step = re.search(r"iteration_(\d+)", str(file))
    headed = [
        node
        for node in _walk(record["root"])
        if any(_inner(c).strip() == "Group Rollout" for c in node.get("children", ()))
    ]
    for number, group in enumerate(headed or [record["root"]]):
        turns: list[Any] = []  # each the messages of a conversation
        for node in _walk(group):
            data = node.get("data") or {}
            if data.get("type") == "conversation":
                turns.append(data["messages"])
            cells = [_inner(c) for c in _walk(node) if c.get("tag") == "td"]
            table = dict(zip(cells[::2], cells[1::2], strict=False))
            if node.get("tag") == "table" and "reward" in table and len(turns) > 1:
                yield {
                    "step": int(step[1]) if step else None,
                    "group": number,
                    "prompt": turns[-2],
                    "answer": turns[-1],
                    "gold": table.get("reference_answer"),
                    "reward": float(table["reward"]),
                }
                turns = []


def _walk(node: Record | str) -> Iterator[Record]:
    """A node of the tree and all below it; texts are left out."""
    if isinstance(node, dict):
        yield node
        for child in node.get("children", ()):
            yield from _walk(child)


def _inner(node: Record | str) -> str:
    """The text in a node."""
    return node if isinstance(node, str) else "".join(map(_inner, node.get("children", ())))


def _plain(record: Record, file: Path) -> Iterator[Record]:
    row = dict(record)
    if messages := row.pop("messages", None):
        row |= {"prompt": messages[:-1], "completion": messages}
    yield row


# --- the table ------------------------------------------------------------------------------------

_PROMPTS, _ANSWERS = "question|prompt|input", "completion|response|answer|output"
_EPISODES = "rollouts/step_*/train/{}/traces.jsonl"
FORMATS = (
    RolloutFormat(
        "sarlab", "rollouts.parquet/*.parquet", "split group_id answer_ids answer", flat=_sarlab
    ),
    RolloutFormat(
        "TRL completions",
        "completions/completions_*.parquet completions_*.parquet",
        "step prompt completion advantage",
        "answer=completion gold=solution",
        adds_rewards=True,
    ),
    RolloutFormat(
        "verl rollout data",
        "*.jsonl",
        "input output score",
        "prompt=input answer=output gold=gts reward=score",
        _verl,
    ),
    RolloutFormat(
        "prime-rl or verifiers traces",
        f"{_EPISODES.format('effective')} {_EPISODES.format('all')} traces.jsonl",
        "traces task",
        flat=_episode,
    ),
    RolloutFormat(
        "verifiers results",
        "results.jsonl",
        "example_id prompt completion",
        "group=example_id answer=completion gold=answer truncated=is_truncated",
        _verifiers,
    ),
    RolloutFormat(
        "tinker logtree", "iteration_*/train_logtree.json *_logtree.json", "root", flat=_tinker
    ),
    RolloutFormat(
        "Inspect log",
        "*.eval *.json",
        "samples or id input output",
        flat=_inspect,
        adds_rewards=True,
    ),
    RolloutFormat("OpenRLHF samples (W&B table)", "*.table.json", "columns data", flat=_openrlhf),
    RolloutFormat(
        "plain rows",
        "*.jsonl *.json *.parquet",
        f"messages or {_PROMPTS} {_ANSWERS}",
        f"group=group_id prompt=prompt|input answer={_ANSWERS} "
        "gold=gold|ground_truth|solution|target",
        _plain,
    ),
)
_LOOKED_FOR = (
    f"Looked for {', '.join(form.name for form in FORMATS)}. Plain rows have messages, or one of "
    f"{_PROMPTS.replace('|', ', ')} and one of {_ANSWERS.replace('|', ', ')}."
)
