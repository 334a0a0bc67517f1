"""Tables as static HTML: the one writer for notebooks, the workbench, and pages of their own.

Styles are inline, so that a table survives an untrusted notebook; its lines are transparent greys,
so that it fits light and dark pages; a table wider than the page scrolls by itself.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection
from typing import Any

import pandas as pd

MISSING = "–"
"""What a cell shows that has no value."""

_NUMBER = re.compile(r"[<≈]?\s?[+\-−–]?[$(]?\d|[–—+−✓✗]?$")
_SIDES = {"l": "left", "c": "center", "r": "right"}
_LINE = "border-bottom:1px solid rgba(128,128,128,0.35)"


def html_table(
    frame: pd.DataFrame, caption: str = "", *, align: str = "", markup: Collection[str] = ()
) -> str:
    """A table as HTML without an index; empty cells (None, NaN) show a dash.

    ``align``: one of l, c and r per column; by default numbers stand right and text left.
    Everything is escaped but the cells of the columns named in ``markup``, which hold HTML.
    """
    columns = [[_cell(v) for v in frame.iloc[:, i]] for i in range(len(frame.columns))]
    if align and len(align) != len(columns):
        raise ValueError(
            f"align is {align!r} for {len(columns)} columns; give one of l, c, r for each."
        )
    sides = [_SIDES[a] for a in align] or [_side(i, cells) for i, cells in enumerate(columns)]
    raw = [name in markup for name in frame.columns]
    space = [f"padding:3px 10px;text-align:{side}" for side in sides]
    styles = [
        f"{start};vertical-align:top;{_wrap(cells)}"
        for start, cells in zip(space, columns, strict=True)
    ]
    head = "".join(
        f'<th style="{start};vertical-align:bottom;{_LINE}">{html.escape(str(name))}</th>'
        for start, name in zip(space, frame.columns, strict=True)
    )
    lines = []
    for row in zip(*columns, strict=True):
        cells = "".join(
            f'<td style="{style}">{cell if is_raw else html.escape(cell, quote=True)}</td>'
            for cell, style, is_raw in zip(row, styles, raw, strict=True)
        )
        lines.append(f"<tr>{cells}</tr>")
    title = f'<caption style="text-align:left;padding:4px 10px">{html.escape(caption)}</caption>'
    return (
        '<div style="overflow-x:auto;max-width:100%"><table style="border-collapse:collapse;'
        f'font-size:13px;margin:8px 0">{title if caption else ""}'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    return MISSING if value is None or value != value else str(value)


def _side(index: int, cells: Collection[str]) -> str:
    """Right where every cell is a number (with unit or interval), in any column but the first."""
    return "right" if index and all(_NUMBER.match(cell) for cell in cells) else "left"


def _wrap(cells: Collection[str]) -> str:
    """Long text wraps; a number and its interval stay on one line."""
    longest = max((len(cell) for cell in cells), default=0)
    return "white-space:nowrap" if longest <= 32 else "min-width:14em"
