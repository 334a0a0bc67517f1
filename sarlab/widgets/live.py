"""What panels are made of: tokens, tables, status lines, buttons, figures, work in a thread.

ipywidgets has neither brushing over words, nor a text box that waits for the kernel before it
sends more, nor a table with rows to click; two anywidgets have (:class:`TokenPanel` and
:class:`ChoiceTable`, 20 kB together). They draw strings and compute nothing.
"""

import contextlib
import contextvars
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import plotly.graph_objects as go
import traitlets

from sarlab.display.figures import blank, mimebundle
from sarlab.display.text import plain
from sarlab.display.token_view import (
    COLOURS,
    V_NAME,
    answer_view,
    coloured,
    full_at,
    legend,
    payload,
    token_quantities,
)
from sarlab.rewards.answers import AnswerScore

_STATIC = Path(__file__).parent / "static"


class TokenPanel(anywidget.AnyWidget):
    """One answer, token by token.

    ``selection`` is ``[]`` or ``[start, stop]``; ``draft`` is what the reader typed last, with a
    number that goes back as ``acknowledged`` when it is answered. ``colour`` is the reader's
    choice among ``colours``: pairs of a name and, where it can't be chosen, the reason.
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
    colour = traitlets.Unicode(V_NAME).tag(sync=True)
    colours: Any = traitlets.List().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(legend=legend(), **traits)
        self.score: AnswerScore | None = None
        self.show_again: Callable[[], None] = lambda: None
        self.observe(lambda _: self.show_again(), "colour")

    def show(
        self,
        score: AnswerScore | None,
        seq: int = 0,
        correct: bool | None = None,
        truncated: bool = False,
        **more: Any,
    ) -> None:
        """Draw a score (None: nothing); ``seq`` says which draft it answers.

        ``more``: what :func:`token_quantities` takes. A colour without values is Δ log p.
        """
        self.score = score
        self.show_again = lambda: self.show(score, seq, correct, truncated, **more)
        if score is None:
            self.view = {"seq": seq}
            return
        view, name = answer_view(score, correct, truncated), self.colour
        quantities = token_quantities(score, **more)
        values = quantities[name]
        if isinstance(values, str):
            name, values = V_NAME, score.values
        if name != V_NAME:
            view = coloured(view, score.tokens, name, values)
        self.colours = [[n, x if isinstance(x, str) else ""] for n, x in quantities.items()]
        self.legend = legend(COLOURS[name][0], full_at(name, values))
        self.view = {**payload(view), "seq": seq, "colour": name}


def status(text: str = "") -> widgets.HTML:
    """A line that says what happened; a screen reader speaks it when it changes."""
    return widgets.HTML(text).add_class("sarlab-status")


def button(text: str, icon: str = "", action: Callable[[], Any] | None = None, **more: Any) -> Any:
    """A button as wide as its text; ``action`` is called without arguments."""
    layout = widgets.Layout(width="auto", flex="0 0 auto", align_self="flex-start")
    made = widgets.Button(description=text, icon=icon, layout=layout, **more)
    if action is not None:
        made.on_click(lambda _: action())
    return made


def row(*parts: widgets.Widget) -> widgets.HBox:
    """Parts beside each other, on a new line where the page is narrow."""
    return widgets.HBox(parts, layout=widgets.Layout(flex_flow="row wrap"))


def show(part: widgets.Widget, visible: bool) -> None:
    """Show or hide a part."""
    part.layout.display = None if visible else "none"


def choices(names: Mapping[str, str], *tooltips: str) -> widgets.ToggleButtons:
    """Buttons of which one is pressed: text to value."""
    style = {"button_width": "auto"}
    return widgets.ToggleButtons(options=list(names.items()), tooltips=tooltips, style=style)


def fill(box: Any, options: Sequence[Any], chosen: Any, handler: Callable[[Any], Any]) -> None:
    """Give a box other options; ``handler``, which observes its value, is not called.

    ``chosen`` is the value where it is one of them, the first option where not.
    """
    with contextlib.suppress(ValueError):  # not observed yet
        box.unobserve(handler, "value")
    box.options = options
    values = [option[1] if isinstance(option, tuple) else option for option in options]
    box.value = chosen if chosen in values else next(iter(values), None)
    box.observe(handler, "value")


def attempt(line: widgets.HTML, action: Callable[[], Any]) -> bool:
    """Do it, and whether it was done; a mistake of the reader is shown in a status line."""
    line.value = ""
    try:
        action()
    except (ValueError, RuntimeError, OSError) as error:
        line.value = f"<b>{type(error).__name__}</b>: {plain(str(error))}"
        return False
    return True


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
        rows: list[list[str]],
        keys: Sequence[int] = (),
        tints: Sequence[str] = (),
    ) -> None:
        """Draw rows of plain text; ``align`` has a letter per column: l, r, or t (long text).

        ``tints``: the ground of each row's first cell.
        """
        content = {"header": header, "align": align, "rows": rows, "tints": tints}
        self.content = {**content, "keys": list(keys or range(len(rows)))}


def put_figure(output: widgets.Output, figure: go.Figure | None) -> None:
    """Show a figure in an Output widget.

    Its ``outputs`` are assigned, not captured: capturing is unsafe off the main thread.
    """
    if figure is None:
        output.outputs = ()
        return
    for data in (blank(figure), mimebundle(figure, picture=False)):
        output.outputs = ({"output_type": "display_data", "metadata": {}, "data": data},)


Report = Callable[[int, int, str], None]
"""``report(done, total, words)``: shows progress; raises :class:`Stopped` once stop was asked."""


class Stopped(Exception):
    """The reader asked to stop."""


class JobBar(widgets.HBox):
    """Runs one piece of work at a time in a thread and shows how far it is.

    ``busy`` is True while something runs; ``closing`` is what the last work ended with: "",
    "Stopped." or an error. A bar that ``replaces`` ends what runs when other work starts; any
    other refuses to start. The stop button sets an event and nothing else, since its callback may
    run while a cell runs; the work notices at its next report.
    """

    busy = traitlets.Bool(False)

    def __init__(self, *, replaces: bool = False) -> None:
        self.replaces = replaces
        self.bar = widgets.IntProgress(0, 0, 1, layout={"width": "220px"})
        self.words = status()
        self.stop_button = button("Stop", "stop", self.stop)
        self._stop, self._thread = threading.Event(), threading.Thread()
        self.error: Exception | None = None
        super().__init__([self.bar, self.stop_button, self.words])
        self.add_class("sarlab-job")
        self._end("")

    def start(
        self,
        words: str,
        work: Callable[[Report], Any],
        *,
        wait: bool = False,
        then: Callable[[], Any] = lambda: None,
    ) -> None:
        """Run ``work(report)`` in a thread, then ``then()``; with ``wait`` return when it is done.

        What it raises is shown beside the bar, and raised again for a caller that waits. Work that
        was replaced shows nothing and ends without ``then()``.
        """
        if self.busy and not self.replaces:
            raise RuntimeError(
                f"Other work is running ({self.words.value}). Stop it, or wait for its end."
            )
        self._stop.set()
        stop = self._stop = threading.Event()
        self.error = None

        def report(done: int, total: int, words: str) -> None:
            if stop.is_set():
                raise Stopped
            self.bar.max, self.bar.value = max(1, total), done
            self.words.value = plain(words)

        def run() -> None:
            closing, failure = "", None
            try:
                work(report)
            except Stopped:
                closing = "Stopped."
            except Exception as error:  # noqa: BLE001 (shown to the reader, raised again by wait)
                closing, failure = f"{type(error).__name__}: {error}", error
            if stop is self._stop:
                self.error = failure
                self._end(closing)
                then()

        for part in (self, self.bar, self.stop_button):
            show(part, True)
        report(0, 1, words)
        self.busy = True
        # The caller's context tells ipykernel whose output it is.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(run,), daemon=True)
        self._thread.start()
        if wait:
            self.wait()

    def stop(self) -> None:
        """Ask the work to stop at its next report."""
        self._stop.set()

    def wait(self) -> None:
        """Wait for the end of the work; an interrupt of the kernel stops it."""
        while self._thread.is_alive():
            try:
                self._thread.join(0.05)
            except KeyboardInterrupt:
                self.stop()
        if self.error is not None:
            raise self.error

    def _end(self, closing: str) -> None:
        for part in (self.bar, self.stop_button):
            show(part, False)
        show(self, bool(closing))  # an empty bar would leave a gap
        self.closing, self.words.value = closing, plain(closing)
        self.busy = False
