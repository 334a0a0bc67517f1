"""Runs in processes that kill themselves at a chosen point, for the tests of faults.

    python tests/crash_lab.py     # one JSON request a line comes in, one JSON reply a line goes out

The process that imported everything only forks: each request is run in a child of its own, which a
real SIGKILL ends in the middle of a call, with nothing flushed and nothing tidied up.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sarlab.config import TrainConfig
from sarlab.job import training as job
from sarlab.job.watchers import View
from sarlab.models import load_policy
from sarlab.runs.folder import read_metrics

CONFIG = TrainConfig(
    steps=4,
    questions=2,
    group_size=2,
    mini_batches=1,
    max_answer_tokens=8,
    eval_every=2,
    eval_questions=2,
    validation_questions=2,
    checkpoint_every=2,
    lora_rank=4,
    learning_rate=0.02,
    warmup_steps=0,
    seed=3,
)


def die() -> None:
    """What `kill -9` does, from within."""
    os.kill(os.getpid(), signal.SIGKILL)


def set_trap(folder: Path, trap: dict[str, Any]) -> None:
    """End the process at a call of ``trap["function"]``, once ``trap["lines"]`` steps are logged.

    ``skip`` calls pass first; ``path`` must occur in one of the arguments; ``when`` is before,
    after, or half: the call is made and half of the file it wrote is cut off. ``raises`` stands in
    for the kill: "interrupt" sends SIGINT, "full" is a disk without room.
    """
    module_name, _, name = trap["function"].partition(":")
    owner: Any = importlib.import_module(module_name)
    *parents, last = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real: Callable[..., Any] = getattr(owner, last)
    left = trap.get("skip", 0)

    def trapped(*args: Any, **options: Any) -> Any:
        nonlocal left
        here = len(read_metrics(folder)) >= trap.get("lines", 0)
        here = here and trap.get("path", "") in " ".join(map(str, args))
        if not here:
            return real(*args, **options)
        left -= 1
        if left != -1:  # some calls pass first, and what raises does so once
            return real(*args, **options)
        if trap.get("raises") == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        elif trap.get("raises") == "full":
            raise OSError(28, "No space left on device")
        elif trap.get("when") == "before":
            die()
        result = real(*args, **options)
        if trap.get("when") == "half":
            written = Path(next(a for a in args if isinstance(a, Path)))
            os.truncate(written, written.stat().st_size // 2)
        if not trap.get("raises"):
            die()
        return result

    setattr(owner, last, trapped)


def serve(request: dict[str, Any]) -> None:
    """One run, as asked; the process ends with 0, with 1 and the error, or by a signal."""
    folder = Path(request["folder"])
    if request.get("trap"):
        set_trap(folder, request["trap"])
    try:
        resume = request.get("resume", False)
        job.run_training(CONFIG, folder, resume=resume, view=View())  # stdout holds the protocol
    except BaseException as error:  # noqa: BLE001 - the whole child ends here
        with open(request["errors"], "w") as file:
            file.write(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Serve until the input ends."""
    torch.set_num_threads(1)
    # A shell starts what runs in the background with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job.PROBES = 2  # fewer answers, so that a run takes about a second
    policy = load_policy("tiny", dtype="float32", device="cpu")
    job.load_policy = lambda *_, **__: policy  # each child has a copy of its own
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            serve(json.loads(line))
        status = os.waitpid(pid, 0)[1]
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
