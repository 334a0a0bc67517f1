"""The two browser parts: tokens to look at, select and edit, and a table to choose from.

ipywidgets has neither brushing over words, nor a text box that waits for the kernel before it
sends more, nor a table with rows to click; these two anywidgets (20 kB together) have, and
nothing else. They draw strings that :mod:`sarlab.display.token_view` made, and compute nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from sarlab.answers import AnswerScore
from sarlab.display.token_view import answer_view, legend, payload

_STATIC = Path(__file__).parent / "static"


class TokenPanel(anywidget.AnyWidget):
    """One answer, token by token.

    ``selection`` is ``[]`` or ``[start, stop]``; ``draft`` is what the reader typed last, with a
    number that goes back as ``acknowledged`` when it is answered.
    """

    _esm = _STATIC / "tokens.js"
    _css = _STATIC / "tokens.css"
    view = traitlets.Dict().tag(sync=True)
    legend = traitlets.Dict().tag(sync=True)
    selection = traitlets.List(traitlets.Int()).tag(sync=True)
    span: Any = traitlets.List().tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
    draft = traitlets.Dict().tag(sync=True)
    acknowledged = traitlets.Int(0).tag(sync=True)
    editable = traitlets.Bool(False).tag(sync=True)
    compact = traitlets.Bool(False).tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(legend=legend(), **traits)
        self.score: AnswerScore | None = None

    def show(
        self,
        score: AnswerScore | None,
        seq: int = 0,
        correct: bool | None = None,
        truncated: bool = False,
    ) -> None:
        """Draw a score (None: nothing); ``seq`` says which draft it answers."""
        self.score = score
        shown = {} if score is None else payload(answer_view(score, correct, truncated))
        self.view = {**shown, "seq": seq}


def status(text: str = "") -> widgets.HTML:
    """A line that says what happened; a screen reader speaks it when it changes."""
    line = widgets.HTML(text)
    line.add_class("sarlab-status")
    return line


class Access(anywidget.AnyWidget):
    """Invisible: names sliders, makes status lines live regions, says what a fold does.

    ipywidgets offers no way to set ``aria-`` attributes from Python.
    """

    _esm = _STATIC / "access.js"


class ChoiceTable(anywidget.AnyWidget):
    """Rows of text, one of them opened; with ``pinning`` two of them pinned as A and B."""

    _esm = _STATIC / "table.js"
    _css = _STATIC / "table.css"
    content = traitlets.Dict().tag(sync=True)
    opened = traitlets.Int(-1).tag(sync=True)
    pinned = traitlets.List(traitlets.Int(), default_value=[-1, -1]).tag(sync=True)
    pinning = traitlets.Bool(False).tag(sync=True)
    name = traitlets.Unicode("Answers").tag(sync=True)

    def show(
        self,
        header: Sequence[str],
        align: str,
        rows: Sequence[Sequence[str]],
        keys: Sequence[int] | None = None,
    ) -> None:
        """Draw rows of plain text; ``align`` has a letter per column: l, r, or t (long text)."""
        self.content = {
            "header": list(header),
            "align": align,
            "rows": [list(row) for row in rows],
            "keys": list(keys if keys is not None else range(len(rows))),
        }
