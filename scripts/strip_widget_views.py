"""Take live widgets out of executed notebooks, so that they read well without a kernel.

    python scripts/strip_widget_views.py notebooks/*.ipynb

A recorded widget is an error message in JupyterLab once its kernel is gone ("model not found"), and
its state weighs more than the notebook. So it goes, with its line of plain text ("Loading weights:
0%"); the static twin that follows it stays. papermill's notes, which hold paths of the machine, go
as well, pictures keep at most 256 colours, and drawings lose what they say without effect.
"""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

VIEW = "application/vnd.jupyter.widget-view+json"
LIMIT_BYTES = 500_000
# Of plotly's SVG: names for its scripts, and properties that have their initial value.
NO_EFFECT = re.compile(
    r' (?:class|data-[\w-]+)="[^"]*"|(?:(?:stroke-|fill-)?opacity: 1|vector-effect: none'
    r"|font-(?:style|weight|variant): normal|text-decoration-line: none|text-transform: none); ?"
)


def strip(notebook: Any) -> Any:
    """The notebook without live widgets, their state, and papermill's notes."""
    for name in ("widgets", "papermill"):
        notebook.metadata.pop(name, None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        outputs = cell.get("outputs", [])
        for output in outputs:
            data = output.get("data", {})
            if data.pop(VIEW, None) is not None and set(data) <= {"text/plain"}:
                data.clear()
            if data.get("text/html") == "":  # what a view leaves where its buttons were
                data.clear()
            if "image/png" in data:
                data["image/png"] = fewer_colours(data["image/png"])
            if "image/svg+xml" in data:
                data["image/svg+xml"] = NO_EFFECT.sub("", data["image/svg+xml"])
        if outputs:
            cell["outputs"] = [o for o in outputs if o.get("data") != {}]
    return notebook


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
