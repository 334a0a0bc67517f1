"""Files and folders that are whole or absent, whenever the process is killed or the power fails."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SCRATCH = ".writing-"  # prefix of temporary files and folders; a kill may leave some behind


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run folder; ValueError where there is none, or no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path.parent} is not a whole run folder: no {path.name} in it."
        ) from None
    except ValueError as error:
        raise ValueError(
            f"{path} is not JSON ({error}). Bring it back from a copy, or remove it."
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected an object.")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text atomically."""
    replace_file(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))


def replace_file(target: Path, write: Callable[[Path], Any], *, folder: bool = False) -> None:
    """Write to a temporary place through ``write(place)``, sync, then rename it to ``target``.

    With ``folder`` the place is an empty folder; a kill may then leave no target, never half of it.
    """
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=f"{SCRATCH}{target.name}-", ignore_cleanup_errors=True
    ) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        if folder:
            new.mkdir()
        write(new)
        for path in [*new.rglob("*"), new]:
            _sync(path)
        if target.is_dir():
            os.replace(target, old)
        os.replace(new, target)
    _sync(target.parent)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is none."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Return once a file's bytes, or a folder's entries, are on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder, and needs no sync of it
        return
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
