"""Long work in a thread, with a progress bar and a stop button."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import traitlets

from sarlab.display.text import plain
from sarlab.widgets.live import status

Report = Callable[[int, int, str], None]
"""``report(done, total, words)``: shows progress; raises :class:`Stopped` once stop was asked."""


class Stopped(Exception):
    """The reader asked to stop."""


class JobBar(widgets.HBox):
    """Runs one piece of work at a time and shows how far it is.

    ``busy`` is True while something runs. The stop button sets an event and nothing else, since
    its callback may run while a cell runs; the work notices at its next report.
    """

    busy = traitlets.Bool(False)

    def __init__(self) -> None:
        self.bar = widgets.IntProgress(0, 0, 1, layout=widgets.Layout(width="220px"))
        self.words = status()
        self.stop_button = widgets.Button(
            description="Stop", icon="stop", layout=widgets.Layout(width="auto")
        )
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._title = ""
        self.closing = ""  # what the last work ended with: "", "Stopped." or an error
        self.error: Exception | None = None
        self.stop_button.on_click(lambda _: self.stop())
        super().__init__([self.bar, self.stop_button, self.words])
        self.add_class("sarlab-job")
        self._idle()

    def start(self, words: str, work: Callable[[Report], Any], *, wait: bool = False) -> None:
        """Run ``work(report)`` in a thread; with ``wait`` return when it is done.

        What it raises is shown beside the bar, and raised again for a caller that waits. Raises
        RuntimeError while other work runs.
        """
        if self.busy:
            raise RuntimeError(
                f"Other work is running ({self._title!r}). Stop it, or wait for its end."
            )
        self._stop.clear()
        self._title = words
        self.error = None
        self.bar.value, self.bar.max = 0, 1
        self.words.value = plain(words)
        self._show(True)
        self.layout.display = None
        self.busy = True
        # The thread takes the caller's context along, so that ipykernel knows whose output it is.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=lambda: context.run(self._run, work), daemon=True)
        self._thread.start()
        if wait:
            self.wait()

    def stop(self) -> None:
        """Ask the work to stop at its next report."""
        self._stop.set()

    def wait(self) -> None:
        """Wait for the end of the work; an interrupt of the kernel stops it."""
        thread = self._thread
        try:
            while thread is not None and thread.is_alive():
                thread.join(0.05)
        except KeyboardInterrupt:
            self.stop()
            if thread is not None:
                thread.join()
        if self.error is not None:
            raise self.error

    def _run(self, work: Callable[[Report], Any]) -> None:
        closing = ""
        try:
            work(self._report)
        except Stopped:
            closing = "Stopped."
        except Exception as error:  # noqa: BLE001 (shown to the reader, raised again by wait)
            self.error = error
            closing = f"{type(error).__name__}: {error}"
        self._idle(closing)

    def _report(self, done: int, total: int, words: str) -> None:
        self.bar.max = max(1, total)
        self.bar.value = done
        self.words.value = plain(words)
        if self._stop.is_set():
            raise Stopped

    def _idle(self, words: str = "") -> None:
        self._show(False)
        self.layout.display = None if words else "none"  # an empty bar would leave a gap
        self.closing = words
        self.words.value = plain(words)
        self.busy = False

    def _show(self, running: bool) -> None:
        for part in (self.bar, self.stop_button):
            part.layout.display = None if running else "none"
