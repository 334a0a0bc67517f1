"""Questions, splits that cannot leak, and the verifier that judges answers."""

from sarlab.tasks.answer_line import opens_thought
from sarlab.tasks.base import GeneratedTask, Task, check_disjoint, split_of
from sarlab.tasks.load import load_task, task_names
from sarlab.tasks.math_judge import warm_up
from sarlab.tasks.verify import Verdict, judge, judge_all, verify

__all__ = [
    "GeneratedTask",
    "Task",
    "Verdict",
    "check_disjoint",
    "judge",
    "judge_all",
    "load_task",
    "opens_thought",
    "split_of",
    "task_names",
    "verify",
    "warm_up",
]
