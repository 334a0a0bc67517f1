"""Compare two pieces of mathematics with math-verify, under a hard time limit, from any thread.

One server process imports math-verify and warms it up once. It forks a child that compares; at the
time limit the kernel ends the child, and the next one is warm from its first breath.
Where there is no fork (Windows) the server compares in place and is itself killed when too slow.

This file is both sides: the library imports it, and the server runs it as a script. It imports
nothing of sarlab, so that the server starts without torch. No signal handler and no alarm is set in
the importing process: it works off the main thread, in a Jupyter kernel and under papermill.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any, TextIO

TIME_LIMIT_S = 0.75
"""Wall-clock seconds that one comparison may take; longer is the outcome "timeout"."""
STARTUP_LIMIT_S = 120.0
"""Seconds that the server may take to import math-verify and warm up, once per program."""
MEMORY_LIMIT_BYTES = 1 << 30
"""Address space of a comparison; beyond it, it gets a MemoryError."""
COMPARISONS_PER_CHILD = 2000
"""A child is replaced after this many, so that the caches of sympy do not grow without end."""
_GRACE_S = 1.0  # beyond the time limit, before the server itself is taken for stuck
_CACHE_SIZE = 4096
_NO_MORE = 3  # exit status of a child whose input has ended
_CANNOT_START = "The process that compares mathematics cannot start:"


@dataclass(frozen=True)
class Comparison:
    """The outcome of one comparison, "right", "wrong", "timeout" or "error", and the error."""

    outcome: str
    detail: str = ""


class _Worker:
    """The client's end of one server process."""

    def __init__(self) -> None:
        self.owner_pid = os.getpid()
        self.process = subprocess.Popen(
            # -P keeps this folder off the server's path: its files are no top-level modules.
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            env={**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # an interrupt meant for this program does not reach it
        )

    def wait_until_warm(self) -> None:
        """Read the server's first line; raise RuntimeError where it cannot start."""
        reply = self._next_line(STARTUP_LIMIT_S)
        if reply.outcome != "ready":
            reason = reply.detail or f"not warm after {STARTUP_LIMIT_S:g} s"
            raise RuntimeError(
                f"{_CANNOT_START} {reason}. Run `python -m pip install math-verify` with the "
                f"interpreter of this program, {sys.executable}, or use tasks whose answers are "
                "plain numbers."
            )

    def compare(self, gold: str, value: str, limit_s: float) -> Comparison:
        assert self.process.stdin is not None
        try:
            json.dump({"gold": gold, "value": value, "limit_s": limit_s}, self.process.stdin)
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except OSError as error:
            self.kill()
            return Comparison("error", str(error))
        return self._next_line(limit_s + _GRACE_S)

    def _next_line(self, limit_s: float) -> Comparison:
        """The next reply; a server that is silent for ``limit_s`` seconds is killed."""
        assert self.process.stdout is not None
        too_slow = threading.Event()

        def kill() -> None:
            too_slow.set()
            self._kill_group()

        watchdog = threading.Timer(limit_s, kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        if line:
            return Comparison(**json.loads(line))
        status = self.process.wait()
        if too_slow.is_set():
            return Comparison("timeout")
        return Comparison("error", f"the comparing process ended with exit status {status}")

    def kill(self) -> None:
        if self.owner_pid == os.getpid():  # a forked copy of this program does not own it
            self._kill_group()
            self.process.wait()

    def _kill_group(self) -> None:
        """End the server and its child, which share a process group of their own."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()


_lock = threading.Lock()
_worker: _Worker | None = None
_settled: dict[tuple[str, str], Comparison] = {}


def warm_up() -> None:
    """Start the server and wait until it is warm (a few seconds the first time, then nothing)."""
    with _lock:
        _warm_worker()


def compare(gold: str, value: str, limit_s: float | None = None) -> Comparison:
    """Compare two pieces of LaTeX within ``limit_s`` seconds (None: ``TIME_LIMIT_S``).

    The time to start the server is not counted. Raises RuntimeError where it cannot start.
    """
    global _worker
    with _lock:
        if (gold, value) in _settled:
            return _settled[gold, value]
        worker = _warm_worker()
        comparison = None
        try:
            comparison = worker.compare(gold, value, TIME_LIMIT_S if limit_s is None else limit_s)
        finally:
            # Also on an interrupt from the keyboard: a late reply must not answer the next job.
            if comparison is None or worker.process.poll() is not None:
                worker.kill()
                _worker = None
        if comparison.outcome in ("right", "wrong"):  # a time-out or an error may pass
            if len(_settled) >= _CACHE_SIZE:
                _settled.clear()
            _settled[gold, value] = comparison
        return comparison


def shut_down() -> None:
    """End the server; the next comparison starts another."""
    global _worker
    with _lock:
        if _worker is not None:
            _worker.kill()
        _worker = None
        _settled.clear()


def _warm_worker() -> _Worker:
    """The running server, warm; the lock must be held."""
    global _worker
    if _worker is None:
        worker = _Worker()
        try:
            worker.wait_until_warm()
        except BaseException:  # an interrupt too: a server that is half started serves nobody
            worker.kill()
            raise
        _worker = worker
    return _worker


def _forget_after_fork() -> None:
    global _worker, _lock
    _lock = threading.Lock()  # the parent's other threads may have held it
    _worker = None


# --- the server -----------------------------------------------------------------------------------

_WARM_UP = (
    *((r"\frac{1}{2}", "0.5"), (r"x^2+2x+1", r"(x+1)^2"), (r"\{1,2\}", r"\{2,1\}")),
    *((r"[0,1)", r"[0,1)"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"x=3", "3"), (r"\pi", "3.14")),
    *((r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"), ("10^3", "1")),
)


def _same(gold: str, value: str) -> bool:
    """Whether math-verify takes two pieces of LaTeX for the same mathematics."""
    from math_verify import LatexExtractionConfig, parse, verify

    # Its own time limit rests on signal.alarm, counts whole seconds and is not needed here.
    config = [LatexExtractionConfig()]
    parsed_gold = parse(f"${gold}$", config, parsing_timeout=None)
    parsed_value = parse(f"${value}$", config, parsing_timeout=None)
    return bool(verify(parsed_gold, parsed_value, timeout_seconds=None, raise_on_error=True))


def _outcome(job: dict[str, Any]) -> tuple[str, str]:
    try:
        return ("right" if _same(job["gold"], job["value"]) else "wrong"), ""
    except Exception as error:  # noqa: BLE001 - counted and shown by the client
        return "error", f"{type(error).__name__}: {str(error)[:200]}"


def _serve_by_children(replies: TextIO) -> None:
    """Compare in a forked child. SIGALRM has no handler there, so the kernel ends it in time.

    The child reads the jobs itself, one at a time; where it ends, the next one is as warm.
    """
    import resource

    while True:
        pid = os.fork()
        if pid == 0:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for _ in range(COMPARISONS_PER_CHILD):
                line = sys.stdin.readline()
                if not line:
                    os._exit(_NO_MORE)
                job = json.loads(line)
                signal.setitimer(signal.ITIMER_REAL, job["limit_s"])
                outcome = _outcome(job)
                signal.setitimer(signal.ITIMER_REAL, 0)
                _reply(replies, *outcome)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
            _reply(replies, "timeout")
        elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == _NO_MORE:
            return
        elif status:
            _reply(replies, "error", f"the comparing child died, wait status {status}")


def _reply(replies: TextIO, outcome: str, detail: str = "") -> None:
    # One short write: whole or absent, also where the writer is killed.
    replies.write(json.dumps({"outcome": outcome, "detail": detail}) + "\n")
    replies.flush()


def _serve() -> None:
    """Serve comparisons on standard input and output, one JSON object per line, to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a stop button is meant for the client
    replies = os.fdopen(os.dup(1), "w")  # libraries may print: the protocol keeps its own copy
    os.dup2(2, 1)
    try:
        for gold, value in _WARM_UP:
            _same(gold, value)
    except ImportError as error:
        _reply(replies, "error", str(error))
        return
    _reply(replies, "ready")
    if hasattr(os, "fork"):
        _serve_by_children(replies)
    else:
        for line in sys.stdin:
            _reply(replies, *_outcome(json.loads(line)))


if __name__ == "__main__":
    _serve()
else:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget_after_fork)
    atexit.register(shut_down)
