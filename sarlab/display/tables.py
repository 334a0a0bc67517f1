"""Tables of numbers as text, and of text as HTML or Markdown: one writer of each.

Styles are inline, so that a table survives an untrusted notebook; its lines are transparent greys,
so that it fits light and dark pages; a table wider than the page scrolls by itself.
"""

import functools
import html
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from sarlab.display.text import BLUE_HEX, ORANGE_HEX, signed

MISSING = "–"
"""What a cell shows that has no value."""

_NUMBER = re.compile(r"[<≈]?\s?[+\-−–]?[$(]?\d|[–—+−✓✗]?$")
_TAG = re.compile(r"<[^>]*>")
_SIDES = {"l": "left", "c": "center", "r": "right"}


@dataclass(frozen=True)
class Column:
    """One column of a table of text: its title, and the column of numbers that it shows.

    A number is multiplied by ``factor`` and written with ``digits`` and ``sign`` ("" or "+"), with
    its 95% interval where ``<name>_low`` and ``<name>_high`` exist. Without ``digits``: text as it
    stands. Columns whose names end in ``_p`` or ``_holm`` are p-values.
    """

    title: str
    name: str
    digits: int | None = None
    factor: float = 1.0
    sign: str = ""

    def text(self, row: Mapping[Any, Any]) -> str:
        """The cell of one row; a dash where the value is not known."""
        value = row[self.name]
        if value is None or value != value or value == "":
            return MISSING
        if self.name.endswith(("_p", "_holm")):
            return p_text(value)
        if self.digits is None:
            return str(value)
        ends = [row.get(f"{self.name}_{end}") for end in ("low", "high")]
        numbers = [number_text(v, self.digits, self.factor, self.sign) for v in (value, *ends)]
        return numbers[0] if ends[0] is None else f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def text_table(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """A table of numbers as a table of text, one column for each of ``columns``."""
    rows = frame.to_dict("records")
    return pd.DataFrame({c.title: [c.text(row) for row in rows] for c in columns})


def number_text(value: float | None, digits: int, factor: float = 1.0, sign: str = "") -> str:
    """A number with a typographic minus; a dash where there is none."""
    if value is None or value != value:
        return MISSING
    return f"{value * factor:{sign}.{digits}f}".replace("-", "−")


def p_text(p: float | None) -> str:
    """A p-value that claims no more than 9,999 permutations can show."""
    if p is None or p != p:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def aligned(text: pd.DataFrame) -> str:
    """A table of text for a terminal: columns in line, text left."""
    rows = [list(map(str, text.columns)), *text.astype(str).to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def markdown_table(text: pd.DataFrame) -> str:
    """A table of text as Markdown to paste, first column left, the others right."""
    rule = ["---", *["---:"] * (len(text.columns) - 1)]
    lines = [text.columns, rule, *text.itertuples(index=False)]
    escaped = ([str(c).replace("|", "\\|").replace("\n", " ") for c in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def html_table(
    frame: pd.DataFrame, caption: str = "", *, align: str = "", markup: Collection[str] = ()
) -> str:
    """A table as HTML without an index; empty cells (None, NaN) show a dash.

    ``align``: one of l, c and r per column; by default numbers stand right and text left.
    Everything is escaped but the cells of the columns named in ``markup``, which hold HTML.
    """
    if align and len(align) != len(frame.columns):
        raise ValueError(
            f"align is {align!r} for {len(frame.columns)} columns; give one of l, c, r for each."
        )
    columns, cells = [], []
    for i, name in enumerate(frame.columns):
        column = [MISSING if v is None or v != v else str(v) for v in frame.iloc[:, i]]
        is_number = i > 0 and all(_NUMBER.match(cell) for cell in column)
        side = _SIDES[align[i] if align else "r" if is_number else "l"]
        # Long text wraps; a number and its interval stay on one line.
        longest = max((len(_TAG.sub("", cell)) for cell in column), default=0)
        wrap = "white-space:nowrap" if longest <= 32 else "min-width:14em"
        columns.append((str(name), side, wrap, name in markup))
        cells.append(column)
    return str(views().table(columns, [*zip(*cells, strict=True)], caption))


@functools.cache
def views(name: str = "views.html") -> Any:
    """The macros of a template; each returns HTML in which all text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True
    )
    environment.globals.update(blue=BLUE_HEX, orange=ORANGE_HEX, signed=signed)
    return environment.get_template(name).module


def folded(summary: str, inner: str) -> str:
    """HTML behind a line to click; ``summary`` is escaped, ``inner`` is HTML."""
    return f"<details><summary>{html.escape(summary)}</summary>{inner}</details>"


def html_view(*parts: str) -> Any:
    """Parts of HTML as what a notebook cell shows."""
    from IPython.display import HTML

    return HTML("".join(parts))
