"""Synthetic run folders with known properties, written as training writes them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sarlab.config import TrainConfig
from sarlab.job.logbook import summarise_run
from sarlab.runs.folder import Run, write_json
from sarlab.tasks.generated import draw_problem

CHATTER = (
    "Let me think about this carefully.",
    "There is no need to hurry at all.",
    "That was not too hard, I would say.",
    "It always helps to stay calm and tidy.",
)
LIMIT = 400


def answer_rows(
    split: str,
    *,
    seed: int,
    questions: int = 60,
    accuracy: float = 0.7,
    chatter: int = 4,
    cut_off: float = 0.0,
    shift: float = 0.0,
) -> list[dict[str, Any]]:
    """Answers with ``chatter`` filler lines each; token ids are code points, 0 ends an answer."""
    asked, rng = random.Random("questions"), random.Random(f"{seed} {split}")
    talk = random.Random("chatter")  # apart, so that chatter does not change who is right
    rows = []
    for group in range(questions):
        question = draw_problem(asked)
        correct = rng.random() < min(1.0, accuracy + shift)
        total = int(question.gold) + (0 if correct else 1)
        first, *rest = question.metadata["terms"]
        lines, running = [], first
        for term in rest:
            lines += [f"{running}+{term}", f"{running}+{term}={running + term}"]
            running += term
        lines = [*talk.sample(CHATTER, chatter), *lines, f"Answer: {total}"]
        answer = "\n".join(lines)
        truncated = rng.random() < cut_off
        if truncated:
            answer = (answer * 9)[:LIMIT]
        ids = [ord(c) for c in answer] + ([] if truncated else [0])
        correct = correct and not truncated
        rows.append(
            {
                "step": 0 if split == "heldout_base" else 10,
                "split": split,
                "group_id": group,
                "question_id": question.id,
                "question": question.text,
                "gold": question.gold,
                "answer": answer,
                "answer_ids": ids,
                "logps_conditioned": [-0.1] * len(ids),
                "logps_standalone": [-0.5] * len(ids),
                "length": len(ids),
                "truncated": truncated,
                "correct": correct,
                "verdict": "right" if correct else "wrong",
                "ppl_conditioned": 1.1,
                "ppl_standalone": 1.6,
                "sar": rng.gauss(0.3, 0.05),
                "reward": float(correct),
                "advantage": None,
            }
        )
    return rows


def write_run(
    folder: Path, *, trained: dict[str, Any], base: dict[str, Any], **config: Any
) -> Path:
    """A finished run whose held-out answers were made by :func:`answer_rows`."""
    settings = TrainConfig(**{"steps": 20, "max_answer_tokens": LIMIT, **config})
    run = Run.create(folder, settings.to_dict())
    before = answer_rows("heldout_base", seed=0, **base)
    after = answer_rows("heldout_trained", seed=settings.seed, **trained)
    run.write_rollouts(0, "heldout_base", before)
    run.write_rollouts(settings.steps, "heldout_trained", after)
    rng = random.Random(settings.seed)
    for step in range(1, settings.steps + 1):
        done = step / settings.steps
        run.log(
            {
                "step": step,
                "accuracy": min(1.0, 0.7 + 0.2 * done + rng.gauss(0, 0.03)),
                "mean_length": 250 - 100 * done + rng.gauss(0, 6),
                "sar": 0.3 + 0.2 * done,
                "reward": 0.8 + 0.3 * done,
                "kl": 0.01 * done,
                "truncated_share": 0.0,
                "messages": ["no_signal: all alike"] if step == 3 else [],
                **({"heldout_accuracy": 0.7 + 0.2 * done} if step % 10 == 0 else {}),
            }
        )
    write_json(folder / "summary.json", summarise_run(folder, settings, settings.steps, 61.0))
    run.update(status="finished", steps_done=settings.steps)
    run.close()
    return folder


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    return write_run


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[dict[str, Any]]]:
    return answer_rows


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms: GRPO with three seeds, and SA-GRPO at α = 0.2 with two; one base."""
    folder = tmp_path_factory.mktemp("study")
    base = {"accuracy": 0.7, "chatter": 4}
    for seed in (0, 1, 2):
        trained = {"accuracy": 0.85, "chatter": 3, "shift": 0.02 * seed}
        write_run(folder / f"grpo-s{seed}", trained=trained, base=base, alpha=0.0, seed=seed)
    for seed in (0, 1):
        trained = {"accuracy": 0.85, "chatter": 1, "shift": 0.02 * seed}
        write_run(folder / f"sa-grpo-s{seed}", trained=trained, base=base, alpha=0.2, seed=seed)
    return folder
