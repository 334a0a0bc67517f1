"""Judge a policy on questions: accuracy, length, truncation, SAR, each with its 95% interval.

Answers to one question are not independent of each other, so intervals resample *questions*.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sarlab.config import TrainConfig
from sarlab.evaluation.statistics import (
    Array,
    Interval,
    named,
    pooled_function,
    pooled_interval,
)
from sarlab.experience import answer_rows, collect
from sarlab.models import Policy
from sarlab.rewards import total_reward
from sarlab.types import Question

Rows = Sequence[Mapping[str, Any]]
_MEASURES = {
    "accuracy": "correct",
    "mean_length": "length",
    "truncated_share": "truncated",
    "sar": "sar",
}
_SHARES = ("correct", "truncated")  # columns of shares


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
    values = pooled_values([rows])
    plain = ("questions", "answers", "median_length", "mean_length_finished")
    summary: dict[str, Any] = {name: values[name] for name in plain}
    summary["mean_reward"] = float(np.mean([r["reward"] for r in rows]))
    for name in (*_MEASURES, "tokens_per_right_answer"):
        interval = [values[f"{name}_low"], values[f"{name}_high"]]
        summary[name] = values[name]
        summary[f"{name}_ci95"] = None if values[name] is None else interval
    return summary


def pooled_values(seeds: Sequence[Rows]) -> dict[str, Any]:
    """What the seeds of one policy score: means over seeds and questions.

    ``accuracy`` and ``truncated_share`` (fractions), ``mean_length`` and
    ``tokens_per_right_answer`` (tokens) and ``sar``, each with ``_low`` and ``_high`` (95%) and
    None where it is not defined; ``basis``: what the interval of accuracy covers.
    """
    answers = [row for rows in seeds for row in rows]
    finished = [row["length"] for row in answers if not row["truncated"]]
    line: dict[str, Any] = {
        "questions": len({row["question_id"] for row in answers}),
        "answers": len(answers),
        "median_length": float(np.median([row["length"] for row in answers])),
        "mean_length_finished": float(np.mean(finished)) if finished else None,
    }
    for name, column in _MEASURES.items():
        by_seed = question_means(seeds, column)
        if by_seed.size:
            least = 0.0 if column == "length" else -np.inf
            interval = pooled_interval(by_seed, share=column in _SHARES, floor=least)
            line |= known(name, float(by_seed.mean()), interval)
            line.setdefault("basis", interval.basis)  # that of accuracy
        else:
            line |= named(name)
    costs = [[question_means([rows], c)[0] for c in ("length", "correct")] for rows in seeds]
    return line | known("tokens_per_right_answer", *tokens_per_right(costs))


def known(name: str, estimate: float, interval: Interval) -> dict[str, Any]:
    """A value and its interval as columns; None where the value is not defined."""
    return named(name, estimate, interval) if np.isfinite(estimate) else named(name)


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
    difference, interval = pooled_difference([(base, other)], column)
    return {
        "difference": difference,
        "ci95": [interval.low, interval.high],
        "p_value": interval.p_value,
        "questions": len(a),
    }


def pooled_difference(pairs: Sequence[tuple[Rows, Rows]], column: str) -> tuple[float, Interval]:
    """Other − base, paired by question: the mean over pairs of (base, other), its interval."""
    by_seed = np.array([np.diff(question_means(pair, column), axis=0)[0] for pair in pairs])
    interval = pooled_interval(by_seed, share=column in _SHARES, difference=True)
    return float(by_seed.mean()), interval


def tokens_per_right(by_seed: Sequence[Sequence[Array]]) -> tuple[float, Interval]:
    """Tokens of all answers per right one; for each seed lengths and verdicts [questions]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return pooled_function(by_seed, lambda tokens, right: tokens / right, positive=True)
