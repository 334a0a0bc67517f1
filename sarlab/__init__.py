"""sarlab: a workbench for self-aligned reward (SAR) in reinforcement learning of reasoning models.

The calls that a notebook types; everything else lives in the modules, in the order in which data
flows through them (see CONTRIBUTING.md).
"""

from sarlab import plan
from sarlab.answers import AnswerScore, score_answers
from sarlab.config import TrainConfig, preset
from sarlab.evaluation.judge import evaluate_policy, paired_difference, summarise
from sarlab.job.training import run_training
from sarlab.models import Policy, add_lora, export_policy, load_policy
from sarlab.plan.calibration import Calibration, check_calibration
from sarlab.prompts import PromptFormat, StandaloneContext
from sarlab.rewards import REWARDS, Reward
from sarlab.tasks import Task, load_task, verify
from sarlab.types import Question, RewardInputs, Rollouts, StepRecord

__version__ = "0.1.0"

__all__ = [
    "REWARDS",
    "AnswerScore",
    "Calibration",
    "Policy",
    "PromptFormat",
    "Question",
    "Reward",
    "RewardInputs",
    "Rollouts",
    "StandaloneContext",
    "StepRecord",
    "Task",
    "TrainConfig",
    "add_lora",
    "check_calibration",
    "evaluate_policy",
    "export_policy",
    "load_policy",
    "load_task",
    "paired_difference",
    "plan",
    "preset",
    "run_training",
    "score_answers",
    "summarise",
    "verify",
]
