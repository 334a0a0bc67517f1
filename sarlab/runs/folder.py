"""The run folder: configuration, log, rollout table, checkpoints, lock.

    runs/<name>/
      config.json         the configuration; written last when a run is made
      run.json            status, seed, versions, git commit, timings, messages, what failed
      metrics.jsonl       one line per step
      rollouts.parquet/   one part per step: every answer with its log-probs, reward, advantage
      checkpoints/        step-000010/ … with checksums
      best/               the adapter with the highest validation reward so far
      adapter/            the trained adapter (PEFT)
      summary.json        base against trained
      annotations.jsonl   readers' notes on answers, written by the run browser

Each part is written to a temporary place, synced and renamed, so that it is whole or absent.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from sarlab.runs.atomic import SCRATCH, read_json, remove, replace_file, write_json, write_text
from sarlab.tasks.rows import read_records

_COLUMNS = (
    ("step", pa.int32()),
    ("split", pa.string()),  # train, probe, validation, heldout_base, heldout_trained
    ("group_id", pa.int32()),
    ("question_id question gold answer", pa.string()),
    ("answer_ids", pa.list_(pa.int32())),
    ("logps_conditioned logps_standalone", pa.list_(pa.float32())),
    ("length", pa.int32()),
    ("truncated correct", pa.bool_()),
    ("verdict", pa.string()),
    ("ppl_conditioned ppl_standalone sar reward advantage", pa.float64()),
)
ROLLOUT_SCHEMA = pa.schema(
    [(name, kind) for names, kind in _COLUMNS for name in names.split()],
    metadata={"sarlab_schema": "1"},
)
_SUMS = "checksums.json"
BEST = "best"  # checkpoints carry a copy of it
_RESERVE = ".reserve"  # room in which a full disk can still be recorded in run.json
_MAX_NAME_BYTES = 120  # of a run; file systems allow 255, and reports add to it
_PACKAGES = ("sarlab", "torch", "transformers", "peft", "tokenizers", "math-verify")


class Run:
    """One run folder, locked by :meth:`create` or :meth:`reopen` until :meth:`close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"{folder} is in use by another process. Wait for it, or choose another name."
            ) from None
        with self._closed_on_error():
            for place in (".", "checkpoints", "rollouts.parquet"):
                for scratch in (folder / place).glob(f"{SCRATCH}*"):  # a kill left it half-written
                    remove(scratch)
            (folder / _RESERVE).write_bytes(os.urandom(1 << 18))

    @classmethod
    def create(cls, folder: str | Path, config: Mapping[str, Any]) -> Self:
        """A new run folder. Raises ValueError where something is there already."""
        folder = Path(folder)
        refuse_existing(folder)
        folder.mkdir(parents=True, exist_ok=True)
        run = cls(folder)
        with run._closed_on_error():
            run.update(
                status="running",
                started=now(),
                seed=config.get("seed"),
                versions=_versions(),
                python=platform.python_version(),
                platform=platform.platform(),
                **_git_state(),
                messages=[],
            )
            write_json(folder / "config.json", config)
        return run

    @classmethod
    def reopen(cls, folder: str | Path, config: Mapping[str, Any] | None = None) -> Self:
        """An existing run, to go on with; ``config`` replaces its own."""
        path = Path(folder) / "run.json"
        facts = read_json(path) if path.exists() else {}  # before anything is written
        run = cls(Path(folder))
        versions = _versions()
        before = facts.get("versions") or versions
        changes = [
            f"{name} {before.get(name)} → {new}"
            for name, new in versions.items()
            if before.get(name) != new
        ]
        with run._closed_on_error():
            run.update(status="running", resumed=now(), versions=versions)
            if changes:
                text = f"Resumed with other versions than before: {', '.join(changes)}."
                run.event(0, "other_versions", text)
            if config is not None:
                write_json(run.folder / "config.json", config)
        return run

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """A notebook keeps its last error, and with it a run that nobody could close."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the lock back."""
        remove(self.folder / _RESERVE)
        self._lock.release()

    def facts(self) -> dict[str, Any]:
        """What run.json holds; {} where there is none."""
        return read_json(path) if (path := self.folder / "run.json").exists() else {}

    def update(self, **facts: Any) -> None:
        """Put facts into run.json."""
        write_json(self.folder / "run.json", {**self.facts(), **facts})

    def message(self, step: int, kind: str, text: str, **at: str) -> None:
        """Record what a step gave reason to say; a rewind forgets it with its step."""
        messages = self.facts().get("messages", [])
        self.update(messages=[*messages, {"step": step, "kind": kind, "text": text, **at}])

    def event(self, step: int, kind: str, text: str) -> None:
        """Record what befell the process, with its time: no rewind makes that undone."""
        self.message(step, kind, text, at=now())

    def fail(self, step: int, kind: str, text: str) -> None:
        """Record the error that ends the run, on a full disk too."""
        remove(self.folder / _RESERVE)
        self.update(status="failed", steps_done=step, error=f"{kind}: {text}")
        self.event(step, kind, text)

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl, on disk when this returns."""
        line = json.dumps(metrics, allow_nan=False)
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_rollouts(self, step: int, split: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one part of the rollout table; writing it again replaces it."""
        if not rows:
            return
        part = self.part(step, split)
        part.parent.mkdir(exist_ok=True)
        table = pa.Table.from_pylist(list(rows), schema=ROLLOUT_SCHEMA)
        options = {"compression": "zstd", "write_page_checksum": True}
        replace_file(part, lambda scratch: pq.write_table(table, scratch, **options))

    def part(self, step: int, split: str) -> Path:
        """Where :meth:`write_rollouts` puts a part."""
        return self.folder / "rollouts.parquet" / f"{split}-{step:06d}.parquet"

    def checkpoint(self, step: int) -> Path:
        """Where :meth:`save_checkpoint` puts a checkpoint."""
        return self.folder / "checkpoints" / f"step-{step:06d}"

    def save_checkpoint(self, step: int, write: Callable[[Path], Any]) -> None:
        """Write a checkpoint through ``write(folder)``, with checksums and a copy of ``best/``."""
        target = self.checkpoint(step)
        target.parent.mkdir(exist_ok=True)

        def write_all(scratch: Path) -> None:
            write(scratch)
            if (self.folder / BEST).exists():
                shutil.copytree(self.folder / BEST, scratch / BEST)
            write_json(scratch / _SUMS, _checksums(scratch))

        replace_file(target, write_all, folder=True)

    def last_good_checkpoint(self) -> tuple[int, Path] | None:
        """The newest checkpoint whose checksums hold; damaged ones are named and passed over."""
        for path in sorted(self.folder.glob("checkpoints/step-*"), reverse=True):
            fault = _fault(path)
            if fault is None:
                return _step_of(path), path
            text = f"{path.name} is passed over: {fault}"
            self.event(_step_of(path), "damaged_checkpoint", text)
        return None

    def rewind(self, step: int) -> None:
        """Forget what came after ``step``, and the summary and evaluation of a stopped run.

        ``best/`` becomes what it was at that checkpoint.
        """
        remove(self.folder / "summary.json")
        lines = [m for m in read_metrics(self.folder) if m["step"] <= step]
        write_text(self.folder / "metrics.jsonl", "".join(json.dumps(m) + "\n" for m in lines))
        messages = self.facts().get("messages", [])
        self.update(messages=[m for m in messages if m["step"] <= step or "at" in m])
        for path in self.folder.glob("rollouts.parquet/*-*"):
            if _step_of(path) > step or path.name.startswith("heldout_trained"):
                path.unlink()
        for path in self.folder.glob("checkpoints/step-*"):
            if _step_of(path) > step:
                remove(path)
        best = self.checkpoint(step) / BEST
        if best.exists():
            copy = partial(shutil.copytree, best, dirs_exist_ok=True)
            replace_file(self.folder / BEST, copy, folder=True)
        else:
            remove(self.folder / BEST)


def _step_of(path: Path) -> int:
    """The number at the end of the name of a part or checkpoint."""
    return int(path.stem.rsplit("-", 1)[1])


def refuse_existing(folder: Path) -> None:
    """Raise ValueError where a folder holds something; what a killed making left is nothing."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, and a run needs a folder. Choose another name.")
    if not holds_nothing(folder):
        raise ValueError(
            f"The run folder {folder} exists already. Choose another name, continue it with "
            "resume=True, or remove it."
        )


def holds_nothing(folder: Path) -> bool:
    """Whether a folder is absent, empty, or left behind by a kill before its run had begun."""
    known = {".lock", _RESERVE, "run.json"}
    return not folder.exists() or all(
        path.name in known or path.name.startswith(SCRATCH) for path in folder.iterdir()
    )


def check_run_name(name: object) -> None:
    """Raise ValueError for a run name that is not one plain folder, or hidden, or too long."""
    known = isinstance(name, str) and re.fullmatch(r"\w([\w .,=+@()-]*[\w.,=+@()-])?", name)
    if not known or len(str(name).encode()) > _MAX_NAME_BYTES:
        raise ValueError(
            f"name is {name!r:.80}; it must be a plain folder name without slashes, of at most "
            f"{_MAX_NAME_BYTES} bytes: a letter or digit first, then letters, digits, blanks (none "
            "at the end) and any of . , = + @ ( ) _ -"
        )


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a checkpoint but the list of them."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _SUMS
    }


def _fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint folder, None where its checksums hold."""
    try:
        expected = read_json(checkpoint / _SUMS)
    except ValueError as error:
        return f"its checksums cannot be read ({error})"
    sums = _checksums(checkpoint)
    wrong = [name for name in expected if sums.get(name) != expected[name]]
    return f"{wrong[0]} is missing or does not match its checksum" if wrong else None


def read_rollouts(folder: str | Path, split: str | None = None) -> pa.Table:
    """The rollout table of a run, of one split or of all, in the order of steps."""
    parts = sorted((Path(folder) / "rollouts.parquet").glob(f"{split or '*'}-*.parquet"))
    if not parts:
        raise ValueError(f"{folder} has no rollouts{f' of split {split!r}' if split else ''}.")
    tables = []
    for part in parts:
        try:
            table = pq.read_table(part, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{part} is damaged ({str(error)[:160]}). Bring it back from a copy; or remove "
                "it, and the run can be resumed but lacks these rows."
            ) from error
        if not table.schema.equals(ROLLOUT_SCHEMA, check_metadata=False):
            names = set(table.schema.names) ^ set(ROLLOUT_SCHEMA.names)
            raise ValueError(
                f"{part} has columns of another version of sarlab (they differ in "
                f"{', '.join(sorted(names)) or 'type'}). Read it with that version."
            )
        tables.append(table)
    return pa.concat_tables(tables).sort_by([("step", "ascending"), ("group_id", "ascending")])


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line cut off by a kill is left out."""
    path = Path(folder) / "metrics.jsonl"
    return [dict(line) for _, line in read_records(path, notes=[])] if path.exists() else []


def find_runs(folder: str | Path) -> list[Path]:
    """Run folders below a folder that have a summary, by name."""
    return sorted(path.parent for path in Path(folder).glob("*/summary.json"))


def now() -> str:
    """The time, as run.json writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    """Of the installed packages; where one stands twice on the path, the first, as Python does."""
    return {
        name: installed.version
        for name in _PACKAGES
        for installed in [*distributions(name=name)][:1]
    }


def _git_state() -> dict[str, Any]:
    """The commit of the working tree and whether tracked files differ; None outside a checkout."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+"]
    try:
        commit = subprocess.check_output(
            command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL, text=True
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit, "git_dirty": commit.endswith("+")}
