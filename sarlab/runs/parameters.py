"""Parameters of a notebook or a command line, checked.

Papermill only warns about a parameter that the notebook does not know, and a run with a misspelt
name would train with defaults. So the second cell reads back the assignments that were made.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sarlab.config import TrainConfig
from sarlab.runs.atomic import read_json, write_json
from sarlab.runs.folder import check_run_name, now, stamp

_INJECTED = "# Parameters"  # first line of the cell that papermill adds


def notebook_parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Names and values set by the ``parameters`` cell and by papermill's cell after it.

    ``namespace`` is the notebook's ``globals()``. A parameters cell holds plain assignments of
    constants and nothing else; the first such cell counts, and every one that papermill injected.
    Raises ValueError where none has been run.
    """
    cells = [c for c in namespace.get("In", []) if isinstance(c, str)]
    parameters: dict[str, Any] = {}
    for cell in cells:
        names = _assigned(cell)
        if names and (not parameters or cell.lstrip().startswith(_INJECTED)):
            parameters.update({name: namespace[name] for name in names if name in namespace})
    if not parameters:
        raise ValueError("No parameters cell has been run. Run the notebook from its first cell.")
    return parameters


def check_types(settings: Any) -> None:
    """Raise ValueError for a field of a dataclass whose value is not of its default's type.

    Papermill reads ``-p flag true`` as a text; a whole number is also a number.
    """
    rules = {
        bool: "True or False, capital first",
        int: "a whole number",
        float: "a number",
        str: "a text",
    }
    for field in dataclasses.fields(settings):
        value, kind = getattr(settings, field.name), type(field.default)
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{field.name} is {value!r}; it must be {rules[kind]}.")


def training_request(namespace: Mapping[str, Any]) -> tuple[TrainConfig, Path, bool]:
    """Parameters of the training notebook: (configuration, run folder, whether to resume).

    ``out`` is relative to :func:`project_folder`. Raises ValueError for an unknown or senseless
    parameter, before anything is made.
    """
    config, folder, resume = run_request(notebook_parameters(namespace))
    if any(str(cell).lstrip().startswith(_INJECTED) for cell in namespace.get("In", [])):
        record_failing_cells(folder)  # nobody sits before a notebook that papermill runs
    return config, folder, resume


def project_folder() -> Path:
    """The folder that relative paths of a notebook start from, wherever sarlab is installed.

    JupyterLab runs a kernel in its notebook's folder: where that is called ``notebooks`` it is the
    folder above. A batch runs where it is started, and so does a command.
    """
    here = Path.cwd()
    return here.parent if here.name == "notebooks" else here


def run_request(parameters: Mapping[str, Any]) -> tuple[TrainConfig, Path, bool]:
    """The same from parameters by name: ``name``, ``out``, ``resume`` and TrainConfig's own."""
    parameters = dict(parameters)
    name, out, resume = (
        parameters.pop("name", ""),
        parameters.pop("out", ""),
        parameters.pop("resume", False),
    )
    config = TrainConfig.from_parameters(parameters)
    if resume not in (True, False):
        raise ValueError(f"resume is {resume!r}; it must be True or False (capital first).")
    name = check_run_name(name) if name != "" else ""
    if resume and not name:
        raise ValueError("resume=True needs the name of the run to go on with.")
    name = name or f"{config.algorithm}-{config.reward}-{config.alpha:g}-s{config.seed}-{stamp()}"
    return config, project_folder() / (str(out) or "runs") / name, resume


def record_failing_cells(folder: Path) -> None:
    """From now on, put number, first line and error of a failing cell into the run's run.json.

    Papermill's exit code says that a notebook failed, and the executed copy says where; this says
    it beside the run too. Outside a notebook, or before the run folder is made, nothing happens.
    """
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    if shell is None:
        return

    def after_cell(result: Any) -> None:
        error = result.error_in_exec or result.error_before_exec
        path = folder / "run.json"
        if error is not None and path.exists():
            failure = {
                "cell": result.execution_count,
                "first_line": str(result.info.raw_cell).strip().split("\n")[0][:120],
                "error": f"{type(error).__name__}: {error}",
                "at": now(),
            }
            write_json(path, {**read_json(path), "notebook_failure": failure})

    shell.events.register("post_run_cell", after_cell)


def command_parameters(arguments: Sequence[str]) -> dict[str, Any]:
    """``-p name value`` or ``--name value``, as papermill reads them: numbers, True, else text."""
    parser = argparse.ArgumentParser(
        description="Parameters of a run: -p name value, or --name value.", allow_abbrev=False
    )
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    known, rest = parser.parse_known_args(arguments)
    if len(rest) % 2 or not all(name.startswith("--") for name in rest[::2]):
        raise ValueError(f"{rest} cannot be read. Write -p name value, or --name value.")
    pairs = [*known.p, *((n[2:], v) for n, v in zip(rest[::2], rest[1::2], strict=True))]
    return {name: _constant(text) for name, text in pairs}


def _constant(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, bool | int | float) else text


def _assigned(cell: str) -> list[str]:
    """Names that a cell of plain constant assignments sets; [] for any other cell."""
    try:
        tree = ast.parse(cell)
    except SyntaxError:  # a cell with magics is not a parameters cell
        return []
    names = []
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names.append(name)
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                names.append(name)
            case ast.Expr(value=ast.Constant(value=str())):
                continue
            case _:
                return []
        try:
            ast.literal_eval(value)
        except ValueError:
            return []
    return names
