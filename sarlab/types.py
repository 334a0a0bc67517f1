"""Frozen records that pass between the stages. Shapes are checked when a record is made.

B answers of at most T tokens form one right-padded block; ``answer_mask`` [B, T] is True on
answer tokens and is the only mask in the project.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Question:
    """One problem: its text, the gold answer, and the name of the verifier that judges answers."""

    text: str
    gold: str
    task: str = "custom"
    verifier: str = "auto"
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name in ("text", "gold"):
            if not getattr(self, name).strip():
                raise ValueError(
                    f"A question needs a non-empty {name}, got {getattr(self, name)!r} "
                    f"(task {self.task!r}). Remove the row or fill it in."
                )

    @property
    def id(self) -> str:
        """Sixteen hex digits of the SHA-256 of the text, white space and case folded."""
        folded = " ".join(self.text.lower().split())
        return hashlib.sha256(folded.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _check(record: object, names: str, shape: tuple[int, ...]) -> None:
    for name in names.split():
        value = getattr(record, name)
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(
                f"{type(record).__name__}.{name} has shape {tuple(value.shape)}, expected {shape}. "
                "All fields of one record describe the same answers."
            )


@dataclass(frozen=True)
class Rollouts:
    """Sampled answers as token ids; they are never decoded and encoded again.

    ``answer_ids`` [B, T] right-padded, ``answer_mask`` [B, T], ``logps`` [B, T] nats under the
    policy that sampled them (0 on padding), ``group_ids`` [B] index into the questions of the
    batch, ``truncated`` [B] True where the length limit cut the answer off. An answer that ended
    by itself carries its end token as its last answer token.
    """

    answer_ids: Tensor
    answer_mask: Tensor
    logps: Tensor
    group_ids: Tensor
    truncated: Tensor
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        rows, width = self.answer_ids.shape
        _check(self, "answer_mask logps", (rows, width))
        _check(self, "group_ids truncated", (rows,))
        if len(self.texts) != rows:
            raise ValueError(f"Rollouts.texts has {len(self.texts)} entries for {rows} answers.")
        if self.answer_mask.dtype != torch.bool:
            raise ValueError(f"answer_mask must be bool, got {self.answer_mask.dtype}.")

    @property
    def lengths(self) -> Tensor:
        """Tokens per answer [B], the end token included."""
        return self.answer_mask.sum(dim=1)


@dataclass(frozen=True)
class RewardInputs:
    """Everything a reward may use, for B answers.

    ``correct`` [B] float 0 or 1, ``group_ids`` [B] equal for answers to one question,
    ``logps_conditioned`` and ``logps_standalone`` [B, T] nats, ``answer_mask`` [B, T],
    ``progress`` in [0, 1]: the share of training done, ``budget`` in tokens, ``best_accuracy`` of
    the steps so far. The rest is None where the reward in use does not declare that it needs it:
    ``logps_standalone``; ``copied`` [B, T], True on tokens of n-grams copied from the question;
    ``line_ids`` [B, T], each token's line from 0, −1 on padding; ``dependence`` [B, L], what the
    rest of the answer takes from each line, nats; ``entropy`` and ``self_certainty`` [B, T] of the
    policy at each token, nats; ``gold_logps`` and ``gold_logps_without`` [B, G], the reference
    answer's tokens after the reasoning and without it, with ``gold_mask``; ``answer_keys``, the
    value that each answer gave, None where it gave none; ``texts`` and ``questions`` of the
    answers, for a reward that reads them.
    """

    correct: Tensor
    group_ids: Tensor
    answer_mask: Tensor
    logps_conditioned: Tensor
    logps_standalone: Tensor | None = None
    progress: float = 0.0
    copied: Tensor | None = None
    line_ids: Tensor | None = None
    dependence: Tensor | None = None
    entropy: Tensor | None = None
    self_certainty: Tensor | None = None
    gold_logps: Tensor | None = None
    gold_logps_without: Tensor | None = None
    gold_mask: Tensor | None = None
    answer_keys: tuple[str | None, ...] | None = None
    texts: tuple[str, ...] | None = None
    questions: tuple[Question, ...] | None = None
    budget: int | None = None
    best_accuracy: float = 0.0

    def __post_init__(self) -> None:
        rows, width = self.answer_mask.shape
        _check(self, "correct group_ids", (rows,))
        _check(self, "logps_conditioned logps_standalone copied line_ids", (rows, width))
        _check(self, "entropy self_certainty", (rows, width))
        if self.gold_mask is not None:
            _check(self, "gold_logps gold_logps_without", tuple(self.gold_mask.shape))
        if not bool(self.answer_mask.any(dim=1).all()):
            empty = (~self.answer_mask.any(dim=1)).nonzero().flatten().tolist()
            raise ValueError(
                f"Answers {empty} have no tokens; perplexity is undefined there. "
                "Drop them, or append the end token."
            )
        if not 0.0 <= self.progress <= 1.0:
            raise ValueError(f"progress is {self.progress}, expected a share in [0, 1].")

    @property
    def lengths(self) -> Tensor:
        """Tokens per answer [B], as float."""
        return self.answer_mask.sum(dim=1).float()


@dataclass(frozen=True)
class StepRecord:
    """One training step's metrics for the log and rows for the rollout table."""

    step: int
    metrics: Mapping[str, float | int | None]
    rows: tuple[Mapping[str, Any], ...] = ()
    messages: tuple[str, ...] = ()
