"""Judge a policy on questions: accuracy, length, truncation, SAR, each with its 95% interval.

Answers to one question are not independent of each other, so intervals resample *questions*.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sarlab.config import TrainConfig
from sarlab.evaluation.statistics import (
    Array,
    Interval,
    mean_interval,
    pooled_function,
    pooled_interval,
)
from sarlab.experience import answer_rows, collect
from sarlab.models import Policy
from sarlab.rewards import total_reward
from sarlab.types import Question

Rows = Sequence[Mapping[str, Any]]


def evaluate_policy(
    policy: Policy,
    questions: Sequence[Question],
    config: TrainConfig,
    *,
    split: str,
    step: int = 0,
    samples: int = 1,
    greedy: bool = False,
    seed: str = "evaluation",
    on_answer: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Answer every question ``samples`` times; one row of the rollout table per answer.

    The same ``seed`` for two policies makes their comparison a paired one. Sampling is at
    temperature 1, as in training; ``greedy`` takes the likeliest token instead, and then more
    than one answer per question would be copies: a ValueError.
    """
    if not questions:
        raise ValueError(
            "There are no questions to evaluate on. Choose a task that has held-out questions."
        )
    if samples < 1 or (greedy and samples > 1):
        raise ValueError(
            f"samples is {samples} with greedy={greedy}; it must be at least 1, and 1 where "
            "decoding is greedy, since all greedy answers to a question are the same."
        )
    batch = collect(
        policy,
        questions,
        config,
        seed=seed,
        group_size=samples,
        greedy=greedy,
        progress=1.0,
        on_token=on_answer,
    )
    rewards = total_reward(batch.inputs, config.reward, config.alpha)
    return list(answer_rows(step, split, batch, rewards, None))


def summarise(rows: Rows) -> dict[str, Any]:
    """Accuracy (a fraction), lengths (tokens) and the rest of a set of answers, with intervals.

    ``tokens_per_right_answer`` is the tokens of all answers over the number of right ones: what a
    right answer costs (None where there is none). ``mean_length_finished`` leaves out truncated
    answers. Intervals cover questions. ValueError without rows.
    """
    if not rows:
        raise ValueError("There are no answers to summarise. Evaluate a policy first.")
    summary: dict[str, Any] = {
        "questions": len({row["question_id"] for row in rows}),
        "answers": len(rows),
        "median_length": float(np.median([r["length"] for r in rows])),
        "mean_reward": float(np.mean([r["reward"] for r in rows])),
    }
    for name, column in (("accuracy", "correct"), ("mean_length", "length"), ("sar", "sar")):
        values = list(per_question(rows, column).values())
        summary[name] = float(np.mean(values)) if values else None
        summary[f"{name}_ci95"] = (
            mean_interval(values, share=column == "correct") if values else None
        )
    summary["truncated_share"] = float(np.mean([r["truncated"] for r in rows]))
    summary["truncated_share_ci95"] = mean_interval(
        list(per_question(rows, "truncated").values()), share=True
    )
    finished = [r["length"] for r in rows if not r["truncated"]]
    summary["mean_length_finished"] = float(np.mean(finished)) if finished else None
    columns = [np.array(list(per_question(rows, c).values())) for c in ("length", "correct")]
    cost, interval = tokens_per_right([columns])
    known = bool(np.isfinite(cost))
    summary["tokens_per_right_answer"] = cost if known else None
    summary["tokens_per_right_answer_ci95"] = [interval.low, interval.high] if known else None
    return summary


def per_question(rows: Rows, column: str) -> dict[str, float]:
    """Mean of a column over the answers to each question, in the order of question ids.

    A missing value (None) is left out.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row[column] is not None:
            values[row["question_id"]].append(float(row[column]))
    return {key: float(np.mean(values[key])) for key in sorted(values)}


def paired_difference(base: Rows, other: Rows, column: str) -> dict[str, Any]:
    """Other − base over the questions that both answered: mean, 95% interval, p-value.

    The p-value is that of a sign-flip permutation test on the questions' differences. Raises
    ValueError where the two sets of questions differ: a difference would not be a paired one.
    """
    a, b = per_question(base, column), per_question(other, column)
    if a.keys() != b.keys():
        raise ValueError(
            f"The two sets of answers share {len(a.keys() & b.keys())} of {len(a)} and {len(b)} "
            "questions. Evaluate both on the same questions."
        )
    if not a:
        raise ValueError(f"No answer has a value of {column!r}, so nothing can be compared.")
    difference = np.array([[b[key] - a[key] for key in a]])
    share = column in ("correct", "truncated")
    interval = pooled_interval(difference, share=share, difference=True)
    return {
        "difference": float(difference.mean()),
        "ci95": [interval.low, interval.high],
        "p_value": interval.p_value,
        "questions": difference.shape[1],
    }


def tokens_per_right(by_seed: Sequence[Sequence[Array]]) -> tuple[float, Interval]:
    """Tokens of all answers per right one; for each seed lengths and verdicts [questions]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return pooled_function(by_seed, lambda tokens, right: tokens / right, positive=True)
