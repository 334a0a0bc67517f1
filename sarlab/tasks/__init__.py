"""Questions, splits that cannot leak, and the verifier that judges answers."""

from __future__ import annotations

from sarlab.tasks.base import FiniteTask, GeneratedTask, Task
from sarlab.tasks.extract import MARKER
from sarlab.tasks.load import load_task, task_names
from sarlab.tasks.math_worker import warm_up
from sarlab.tasks.splits import check_disjoint, split_of
from sarlab.tasks.verify import (
    REASONS,
    Verdict,
    count_reasons,
    judge,
    judge_all,
    verify,
)

__all__ = [
    "MARKER",
    "REASONS",
    "FiniteTask",
    "GeneratedTask",
    "Task",
    "Verdict",
    "check_disjoint",
    "count_reasons",
    "judge",
    "judge_all",
    "load_task",
    "split_of",
    "task_names",
    "verify",
    "warm_up",
]
