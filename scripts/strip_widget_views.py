"""Take live widgets out of executed notebooks, so that they read well without a kernel.

    python scripts/strip_widget_views.py notebooks/*.ipynb

A recorded widget is an error message in JupyterLab once its kernel is gone ("model not found"), and
its state weighs more than the notebook. Its static twin, which follows it, stays. papermill's
notes, which hold paths of the machine, go as well, and pictures keep at most 256 colours.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

VIEW = "application/vnd.jupyter.widget-view+json"
LIMIT_BYTES = 500_000


def strip(notebook: Any) -> Any:
    """The notebook without live widgets, their state, and papermill's notes."""
    for name in ("widgets", "papermill"):
        notebook.metadata.pop(name, None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if not only_widget(o.get("data", {}))]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(VIEW, None)
            if "image/png" in data:
                data["image/png"] = fewer_colours(data["image/png"])
    return notebook


def only_widget(data: Any) -> bool:
    """Whether an output is a widget and nothing else: its text is only its code's name."""
    bare = VIEW in data and set(data) <= {VIEW, "text/plain"}
    return bare or data.get("text/html") == ""  # what a view leaves where its buttons were


def fewer_colours(png: str) -> str:
    """The picture (base64) with at most 256 colours: text and charts need no more, files shrink."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode == "P":
        return png
    small = io.BytesIO()
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def main(paths: list[str]) -> int:
    """Strip the named notebooks in place; 1 where one stays too large for its readers."""
    failed = 0
    for path in map(Path, paths):
        nbformat.write(strip(nbformat.read(path, 4)), path)
        size = path.stat().st_size
        print(f"{path}: {size:,} bytes")
        if size > LIMIT_BYTES:
            print(f"  more than {LIMIT_BYTES:,}: show less, or smaller pictures")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
