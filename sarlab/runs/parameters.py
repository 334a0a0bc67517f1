"""Parameters of a notebook or a command line, checked.

Papermill only warns about a parameter that the notebook does not know, and a run with a misspelt
name would train with defaults. So the second cell reads back the assignments that were made.
"""

import ast
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from sarlab.config import TrainConfig, refuse_unknown
from sarlab.models import REPOSITORY
from sarlab.runs.atomic import read_json, write_json
from sarlab.runs.folder import check_run_name, now

_INJECTED = "# Parameters"  # first line of the cell that papermill adds


def notebook_parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Names and values set by the ``parameters`` cell and by papermill's cell after it.

    ``namespace`` is the notebook's ``globals()``. The first cell of plain assignments of constants
    counts, as it was last run (known again by a name that it still sets), and every one that
    papermill injected. Raises ValueError where none has been run.
    """
    parameters: dict[str, Any] = {}
    first: set[str] = set()
    for cell in map(str, namespace.get("In", [])):
        names = {name: namespace[name] for name in _assigned(cell) if name in namespace}
        if cell.lstrip().startswith(_INJECTED):
            parameters |= names
        elif names and (not first or first & names.keys()):
            first, parameters = first or set(names), names
    if not parameters:
        raise ValueError("No parameters cell has been run. Run the notebook from its first cell.")
    return parameters


def _assigned(cell: str) -> list[str]:
    """Names that a cell of plain constant assignments sets; [] for any other cell."""
    try:
        nodes: list[Any] = ast.parse(cell).body
        for node in nodes:
            ast.literal_eval(node.value)
        targets: list[Any] = [
            node.target if isinstance(node, ast.AnnAssign) else node.targets[0] for node in nodes
        ]
        return [target.id for target in targets]
    except (SyntaxError, ValueError, AttributeError):  # a magic, a computed value, no assignment
        return []


class Settings:
    """Base of a frozen dataclass of a notebook's parameters: names and types are checked.

    Raises ValueError for an unknown name, and for a value that is not of its default's type:
    papermill reads ``-p flag true`` as a text. A whole number is also a number.
    """

    def __post_init__(self) -> None:
        rules = {bool: "True or False, capital first", int: "a whole number", float: "a number"}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, kind = getattr(self, field.name), type(field.default)
            if type(value) is not kind and not (kind is float and type(value) is int):
                rule = rules.get(kind, "a text")
                raise ValueError(f"{field.name} is {value!r}; it must be {rule}.")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Settings from parameters by name."""
        refuse_unknown(parameters, [f.name for f in dataclasses.fields(cls)])  # type: ignore[arg-type]
        return cls(**parameters)


def project_path(name: str) -> Path:
    """A path as it stands, or where it exists in the project's folder or beside what ships."""
    places = (Path(name), _project_folder() / name, REPOSITORY / name)
    return next((place for place in places if place.exists()), places[0])


def _project_folder() -> Path:
    """Where relative paths start: the current folder, or the one above ``notebooks``."""
    here = Path.cwd()
    return here.parent if here.name == "notebooks" else here


def run_request(parameters: Mapping[str, Any]) -> tuple[TrainConfig, Path, bool]:
    """(configuration, run folder, whether to resume) from parameters by name.

    Beside TrainConfig's own: ``name``, ``out`` (the folder of runs; relative to the current folder,
    or to the one above ``notebooks``), ``resume``.
    """
    parameters = {"name": "", "out": "", "resume": False, **parameters}
    name, out, resume = (parameters.pop(key) for key in ("name", "out", "resume"))
    config = TrainConfig.from_parameters(parameters)
    if resume not in (True, False):
        raise ValueError(f"resume is {resume!r}; it must be True or False (capital first).")
    if name != "":
        check_run_name(name)
    elif resume:
        raise ValueError("resume=True needs the name of the run to go on with.")
    else:
        name = f"{config.algorithm}-{config.reward}-{config.alpha:g}-s{config.seed}"
        name += time.strftime("-%Y%m%d-%H%M%S")
    return config, _project_folder() / (str(out) or "runs") / name, resume


def training_request(namespace: Mapping[str, Any]) -> tuple[TrainConfig, Path, bool]:
    """Parameters of the training notebook, as :func:`run_request` returns them."""
    config, folder, resume = run_request(notebook_parameters(namespace))
    if any(str(cell).lstrip().startswith(_INJECTED) for cell in namespace.get("In", [])):
        record_failing_cells(folder)  # nobody sits before a notebook that papermill runs
    return config, folder, resume


def record_failing_cells(folder: Path) -> None:
    """From now on, put number, first line and error of a failing cell into the run's run.json."""
    from IPython import get_ipython

    path = folder / "run.json"

    def after_cell(result: Any) -> None:
        error = result.error_in_exec or result.error_before_exec
        if error is not None and path.exists():
            failure = {
                "cell": result.execution_count,
                "first_line": str(result.info.raw_cell).strip().split("\n")[0][:120],
                "error": f"{type(error).__name__}: {error}",
                "at": now(),
            }
            write_json(path, {**read_json(path), "notebook_failure": failure})

    if (shell := get_ipython()) is not None:
        shell.events.register("post_run_cell", after_cell)


def command_parameters(arguments: Sequence[str]) -> dict[str, Any]:
    """``-p name value`` …, as papermill reads them: numbers, True or False, else text."""
    if len(arguments) % 3 or set(arguments[::3]) - {"-p"}:
        shown = " ".join(arguments)
        raise ValueError(
            f"{shown!r} cannot be read. Write -p NAME VALUE for each parameter, -p steps 20."
        )
    parameters: dict[str, Any] = {}
    for name, text in zip(arguments[1::3], arguments[2::3], strict=True):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        parameters[name] = value if isinstance(value, bool | int | float) else text
    return parameters


def print_or_refuse(text: Callable[[], str]) -> int:
    """A command's exit code: 0 after printing ``text()``, 2 after the message of its ValueError."""
    try:
        print(text())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
