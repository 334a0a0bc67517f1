"""sarlab: a workbench for self-aligned reward (SAR) in reinforcement learning of reasoning models.

The calls that a notebook types, each loaded when it is first used: `import sarlab` itself loads
neither transformers nor PEFT nor SciPy. CONTRIBUTING.md has the map of the modules.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names, for editors and mypy
    # ruff: noqa: F401
    from sarlab import plan
    from sarlab.config import TrainConfig, preset
    from sarlab.evaluation.judge import evaluate_policy, paired_difference, summarise
    from sarlab.job.training import run_training
    from sarlab.job.watchers import LineView
    from sarlab.models import Policy, add_lora, export_policy, load_policy
    from sarlab.plan.calibration import Calibration, check_calibration
    from sarlab.prompts import PromptFormat, StandaloneContext
    from sarlab.rewards import REWARDS, Reward
    from sarlab.rewards.answers import AnswerScore, score_answers
    from sarlab.runs.rollouts import open_rollouts
    from sarlab.tasks import Task, load_task, verify
    from sarlab.types import Question, RewardInputs, Rollouts, StepRecord

__version__ = "0.1.0"

# Threads of OpenMP wait for each other in a busy loop by default. Where another program wants a
# core too, two threads are then 15 times slower than one; with short waits they are as fast
# (benchmarks/threads.py). Read when torch is loaded, so it has to be set here.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"

_MODULE_OF = {
    "plan": "plan",
    **dict.fromkeys(("AnswerScore", "score_answers"), "rewards.answers"),
    **dict.fromkeys(("TrainConfig", "preset"), "config"),
    **dict.fromkeys(("evaluate_policy", "paired_difference", "summarise"), "evaluation.judge"),
    "run_training": "job.training",
    "LineView": "job.watchers",
    "open_rollouts": "runs.rollouts",
    "Policy": "_engine.policy",
    **dict.fromkeys(("add_lora", "export_policy", "load_policy"), "models"),
    **dict.fromkeys(("Calibration", "check_calibration"), "plan.calibration"),
    **dict.fromkeys(("PromptFormat", "StandaloneContext"), "prompts"),
    **dict.fromkeys(("REWARDS", "Reward"), "rewards"),
    **dict.fromkeys(("Task", "load_task", "verify"), "tasks"),
    **dict.fromkeys(("Question", "RewardInputs", "Rollouts", "StepRecord"), "types"),
}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sarlab' has no attribute {name!r}")
    module = importlib.import_module(f"sarlab.{_MODULE_OF[name]}")
    value = module if name == "plan" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
