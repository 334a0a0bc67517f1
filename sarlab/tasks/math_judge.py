"""Compare two pieces of mathematics with math-verify, under a hard time limit, from any thread.

One server process imports math-verify and warms it up once. It forks a child that compares; at the
time limit the kernel ends the child, and the next one is warm from its first breath. The importing
process gets no signal handler and no alarm: it works in a Jupyter kernel and off the main thread.

This file is both sides: the library imports it, and the server runs it as a script, without torch.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import wait

TIME_LIMIT_S = 0.75  # wall-clock, of one comparison; longer is the outcome "timeout"
STARTUP_LIMIT_S = 120.0  # to import math-verify and warm up, once per program
MEMORY_LIMIT_BYTES = 1 << 30  # address space of a comparison; beyond it, it gets a MemoryError
COMPARISONS_PER_CHILD = 2000  # then it is replaced: sympy's caches would grow without end
_NO_MORE = 3  # exit status of a child whose input has ended
_GRACE_S = 1.0  # beyond the time limit, before the server itself is taken for stuck
_CACHE_SIZE = 4096
_lock = threading.Lock()
_server: subprocess.Popen[str] | None = None
_settled: dict[tuple[str, str], str] = {}


def warm_up() -> None:
    """Start the server and wait until it is warm (a few seconds the first time, then nothing)."""
    with _lock:
        _warm_server()


def compare(gold: str, value: str) -> str:
    """Compare two pieces of LaTeX: "right", "wrong value", "timeout" or "error: " and the error.

    The time to start the server is not counted. Raises RuntimeError where it cannot start.
    """
    with _lock:
        if (gold, value) in _settled:
            return _settled[gold, value]
        outcome = _ask(_warm_server(), gold, value, TIME_LIMIT_S + _GRACE_S)
        if outcome in ("right", "wrong value"):  # a time-out or an error may pass
            if len(_settled) >= _CACHE_SIZE:
                _settled.clear()
            _settled[gold, value] = outcome
        return outcome


def shut_down() -> None:
    """End the server; the next comparison starts another."""
    with _lock:
        if _server is not None:
            _end(_server)
        _settled.clear()


def _warm_server() -> subprocess.Popen[str]:
    """The running server, warm; the lock must be held."""
    global _server
    if _server is not None:
        return _server
    if not hasattr(os, "fork"):
        raise RuntimeError(
            "Comparing mathematics needs fork and resource limits, which this system "
            f"({sys.platform}) lacks. Use Linux, macOS or WSL, or tasks whose answers are plain "
            "numbers."
        )
    server = subprocess.Popen(
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
    outcome = _ask(server, "1", "1", STARTUP_LIMIT_S)
    if outcome != "right":
        _end(server)
        raise RuntimeError(
            f"The process that compares mathematics cannot start: {outcome}. Run `python -m pip "
            f"install math-verify` with the interpreter of this program, {sys.executable}, or use "
            "tasks whose answers are plain numbers."
        )
    _server = server
    return server


def _ask(server: subprocess.Popen[str], gold: str, value: str, patience_s: float) -> str:
    """The server's outcome; a server that is silent for ``patience_s`` seconds is killed."""
    assert server.stdin is not None and server.stdout is not None
    line = ""
    try:
        with contextlib.suppress(OSError):  # a dead server has no reply: see below
            server.stdin.write(json.dumps([gold, value]) + "\n")
            server.stdin.flush()
        silent = not wait([server.stdout.fileno()], patience_s)
        line = "" if silent else server.stdout.readline()
    finally:
        if not line:  # also on an interrupt: a late reply must not answer the next job
            _end(server)
    if line or silent:
        return json.loads(line) if line else "timeout"
    return f"error: the comparing process ended with status {server.returncode}"


def _end(server: subprocess.Popen[str]) -> None:
    """Kill the server and its child, which share a process group of their own."""
    global _server
    _server = None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _forget_after_fork() -> None:
    global _server, _lock
    _lock = threading.Lock()  # the parent's other threads may have held it
    _server = None


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
    both = [parse(f"${x}$", [LatexExtractionConfig()], parsing_timeout=None) for x in (gold, value)]
    return bool(verify(*both, timeout_seconds=None, raise_on_error=True))


def _serve() -> None:
    """Serve comparisons on standard input and output, one line of JSON each, to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a stop button is meant for the client
    replies = os.dup(1)  # libraries may print: the protocol keeps its own copy
    os.dup2(2, 1)
    with contextlib.suppress(ImportError):  # the first comparison reports it
        for gold, value in _WARM_UP:
            _same(gold, value)
    while True:
        child = os.fork()
        if child == 0:
            _work(replies)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
            _reply(replies, "timeout")
        elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == _NO_MORE:
            return
        elif status:
            _reply(replies, f"error: the comparing child died, wait status {status}")


def _work(replies: int) -> None:
    """The child: SIGALRM has no handler here, so the kernel ends a comparison that is too slow."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in (sys.stdin.readline() for _ in range(COMPARISONS_PER_CHILD)):
        if not line:
            os._exit(_NO_MORE)
        signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT_S)
        try:
            outcome = "right" if _same(*json.loads(line)) else "wrong value"
        except Exception as error:  # noqa: BLE001 - counted and shown by the client
            outcome = f"error: {type(error).__name__}: {str(error)[:200]}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        _reply(replies, outcome)
    os._exit(0)


def _reply(replies: int, outcome: str) -> None:
    os.write(replies, json.dumps(outcome).encode() + b"\n")  # whole or absent, being short


if __name__ == "__main__":
    _serve()
else:
    os.register_at_fork(after_in_child=_forget_after_fork)
    atexit.register(shut_down)
