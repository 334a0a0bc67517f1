"""Judge a policy on questions: accuracy, length, truncation, SAR, each with its 95% interval.

Answers to one question are not independent of each other, so intervals are over *questions*.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sarlab.config import TrainConfig
from sarlab.evaluation.statistics import Array, Interval, named, pooled_function, pooled_interval
from sarlab.experience import answer_rows, collect
from sarlab.models import Policy
from sarlab.rewards import total_reward
from sarlab.types import Question

Rows = Sequence[Mapping[str, Any]]
# Measure, its column in the rollout table, and what its interval has to know.
_MEASURES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("accuracy", "correct", {"share": True}),
    ("mean_length", "length", {"floor": 0.0}),
    ("truncated_share", "truncated", {"share": True}),
    ("sar", "sar", {}),
)


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
    temperature 1, as in training; ``greedy`` takes the likeliest token instead. ValueError without
    questions, and for several greedy answers to a question, which would be copies.
    """
    if not questions:
        raise ValueError(
            "There are no questions to evaluate on. Choose a task that has test questions."
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
    values = pooled_values([rows])
    plain = ("questions", "answers", "median_length", "mean_length_finished")
    summary: dict[str, Any] = {name: values[name] for name in plain}
    summary["mean_reward"] = float(np.mean([r["reward"] for r in rows]))
    for name in (*(measure for measure, _, _ in _MEASURES), "tokens_per_right_answer"):
        known = np.isfinite(values[name])
        summary[name] = values[name] if known else None
        interval = [values[f"{name}_low"], values[f"{name}_high"]]
        summary[f"{name}_ci95"] = interval if known else None
    return summary


def pooled_values(seeds: Sequence[Rows]) -> dict[str, Any]:
    """What the seeds of one policy score: means over seeds and questions.

    ``accuracy`` and ``truncated_share`` (fractions), ``mean_length`` and
    ``tokens_per_right_answer`` (tokens) and ``sar``, each with ``_low`` and ``_high`` (95%), NaN
    where it is not defined.
    """
    answers = [row for rows in seeds for row in rows]
    finished = [row["length"] for row in answers if not row["truncated"]]
    line: dict[str, Any] = {
        "questions": len({row["question_id"] for row in answers}),
        "answers": len(answers),
        "median_length": float(np.median([row["length"] for row in answers])),
        "mean_length_finished": float(np.mean(finished)) if finished else None,
    }
    for name, column, options in _MEASURES:
        by_seed = question_means(seeds, column)
        line |= named(name)
        if by_seed.size:
            line |= named(name, float(by_seed.mean()), pooled_interval(by_seed, **options))
    costs = [[question_means([rows], c)[0] for c in ("length", "correct")] for rows in seeds]
    cost = pooled_function(costs, lambda tokens, right: tokens / right, positive=True)
    return line | named("tokens_per_right_answer", *cost)


def per_question(rows: Rows, column: str) -> pd.Series:
    """Mean of a column over the answers to each question, by id; missing values are left out."""
    ids = [row["question_id"] for row in rows]
    return pd.Series([row[column] for row in rows], ids, float).dropna().groupby(level=0).mean()


def question_means(seeds: Sequence[Rows], column: str) -> Array:
    """Means by seed and question [seeds, questions], of the questions with a value in each."""
    means = [per_question(rows, column) for rows in seeds]
    return pd.concat(means, axis=1, join="inner").to_numpy().T


def paired_difference(base: Rows, other: Rows, column: str) -> dict[str, Any]:
    """Other − base over the questions that both answered: mean, 95% interval, p-value.

    The p-value is that of a sign-flip permutation test on the questions' differences. Raises
    ValueError where the two sets of questions differ: a difference would not be a paired one.
    """
    a, b = (per_question(rows, column).index for rows in (base, other))
    if not a.equals(b):
        raise ValueError(
            f"The two sets of answers share {len(a.intersection(b))} of {len(a)} and {len(b)} "
            "questions. Evaluate both on the same questions."
        )
    if a.empty:
        raise ValueError(f"No answer has a value of {column!r}, so nothing can be compared.")
    difference, (low, high, p_value) = pooled_difference([(base, other)], column)
    ends = {"ci95": [low, high], "p_value": p_value, "questions": len(a)}
    return {"difference": difference, **ends}


def pooled_difference(pairs: Sequence[tuple[Rows, Rows]], column: str) -> tuple[float, Interval]:
    """Other − base, paired by question: the mean over pairs of (base, other), its interval."""
    by_seed = np.array([np.diff(question_means(pair, column), axis=0)[0] for pair in pairs])
    share = column in ("correct", "truncated")
    return float(by_seed.mean()), pooled_interval(by_seed, share=share, difference=True)
