"""How often the 95% intervals of the tables hold the truth, by simulation.

    python scripts/interval_coverage.py --draws 1500     # about 15 minutes of one core

Answers are drawn from a known world: each question has its own difficulty and length, each training
seed its own level, and a base policy answers once for all seeds. docs/INTERVALS.md holds the table.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import zlib
from collections.abc import Callable

import numpy as np
import pandas as pd

from sarlab.evaluation.statistics import Array, Interval, pooled_function, pooled_interval

LOGIT, BASE_LOGIT = 2.0, 0.5  # of being right: about 84% trained and 61% base, as on `tiny`
LOG_LENGTH, BASE_LOG_LENGTH = 4.4, 4.6  # nats: about 90 and 110 tokens
Answers = tuple[Array, Array]  # right (0 or 1) and length in tokens, both [seeds, questions]


def draw(
    rng: np.random.Generator, seeds: int, questions: int, spread: float
) -> tuple[Answers, Answers]:
    """Trained answers [seeds, questions], and a base's [1, questions] to the same questions."""
    hard, long = rng.normal(0, 1, questions), rng.normal(0, 0.25, questions)
    level = rng.normal(0, spread, (seeds, 1))
    trained = _answers(rng, LOGIT + hard + level, LOG_LENGTH + long + 0.15 * level)
    base = _answers(rng, BASE_LOGIT + hard[None], BASE_LOG_LENGTH + long[None])
    return trained, base


def _answers(rng: np.random.Generator, logits: Array, log_lengths: Array) -> Answers:
    right = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    return right, np.exp(log_lengths + rng.normal(0, 0.2, logits.shape))


def _share(trained: Answers, base: Answers) -> Interval:
    return pooled_interval(trained[0], share=True)


def _length(trained: Answers, base: Answers) -> Interval:
    return pooled_interval(trained[1], floor=0.0)


def _against_base(trained: Answers, base: Answers) -> Interval:
    return pooled_interval(trained[0] - base[0], share=True, difference=True)


def _length_against_base(trained: Answers, base: Answers) -> Interval:
    return pooled_interval(trained[1] - base[1], difference=True)


def _cost(trained: Answers, base: Answers) -> Interval:
    pairs = list(zip(trained[1], trained[0], strict=True))
    return pooled_function(pairs, lambda tokens, right: tokens / right, positive=True)[1]


def _relative_length(trained: Answers, base: Answers) -> Interval:
    pairs = [(base[1][0], own) for own in trained[1]]
    return pooled_function(pairs, lambda before, after: (after - before) / before)[1]


QUANTITIES: dict[str, Callable[[Answers, Answers], Interval]] = {
    "accuracy": _share,
    "length": _length,
    "tokens per right answer": _cost,
    "accuracy against a shared base": _against_base,
    "length against a shared base": _length_against_base,
    "relative length": _relative_length,
}


@functools.cache
def truth(quantity: str, spread: float) -> float:
    """The quantity over very many seeds and questions."""
    hard = np.random.default_rng(2).normal(0, 1, 2_000_000)
    level = np.random.default_rng(3).normal(0, spread, 2_000_000)
    accuracy = float(np.mean(1 / (1 + np.exp(-(LOGIT + hard + level)))))
    base_accuracy = float(np.mean(1 / (1 + np.exp(-(BASE_LOGIT + hard)))))
    noise = 0.25**2 / 2 + 0.2**2 / 2
    tokens = float(np.exp(LOG_LENGTH + noise + (0.15 * spread) ** 2 / 2))
    base_tokens = float(np.exp(BASE_LOG_LENGTH + noise))
    return {
        "accuracy": accuracy,
        "length": tokens,
        "tokens per right answer": _mean_cost(spread, noise),
        "accuracy against a shared base": accuracy - base_accuracy,
        "length against a shared base": tokens - base_tokens,
        "relative length": tokens / base_tokens - 1,
    }[quantity]


def _mean_cost(spread: float, noise: float) -> float:
    """Mean over seeds of a seed's mean length over its accuracy."""
    level = np.random.default_rng(4).normal(0, spread, (2000, 1))
    hard = np.random.default_rng(5).normal(0, 1, (1, 2000))
    accuracy = (1 / (1 + np.exp(-(LOGIT + hard + level)))).mean(axis=1)
    return float(np.mean(np.exp(LOG_LENGTH + 0.15 * level[:, 0] + noise) / accuracy))


def coverage(quantity: str, seeds: int, questions: int, spread: float, draws: int) -> float:
    """The share of simulated studies whose interval holds the truth."""
    name = f"{quantity} {seeds} {questions} {spread}"
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    known = truth(quantity, 0.0 if seeds == 1 else spread)
    hits = 0
    for _ in range(draws):
        found = QUANTITIES[quantity](*draw(rng, seeds, questions, 0.0 if seeds == 1 else spread))
        hits += found.low <= known <= found.high
    return hits / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1500)
    draws = parser.parse_args().draws
    lines = []
    for seeds, questions in itertools.product((1, 3, 5, 8), (36, 300)):
        for spread in (0.0,) if seeds == 1 else (0.0, 0.3, 0.5):
            line = {"seeds": seeds, "questions": questions, "seed SD (logits)": spread}
            for quantity in QUANTITIES:
                line[quantity] = f"{coverage(quantity, seeds, questions, spread, draws):.3f}"
            lines.append(line)
            print(*line.values(), flush=True)
    print(pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
