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
        for name, value in (("text", self.text), ("gold", self.gold)):
            if not value.strip():
                raise ValueError(
                    f"A question needs a non-empty {name}, got {value!r} "
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

    An answer that ended by itself carries its end token as its last answer token.
    """

    answer_ids: Tensor  # [B, T] right-padded
    answer_mask: Tensor  # [B, T]
    logps: Tensor  # [B, T] nats under the policy that sampled them, 0 on padding
    group_ids: Tensor  # [B] index into the questions of the batch
    truncated: Tensor  # [B] True where the length limit cut the answer off
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
    """Everything a reward may use, for B answers. Log-probs and entropies are in nats.

    What may be None is None where the reward in use does not declare that it needs it.
    """

    correct: Tensor  # [B] float 0 or 1
    group_ids: Tensor  # [B] equal for answers to one question
    answer_mask: Tensor  # [B, T]
    logps_conditioned: Tensor  # [B, T] with the question
    logps_standalone: Tensor | None = None  # [B, T] without it
    progress: float = 0.0  # the share of training done, in [0, 1]
    copied: Tensor | None = None  # [B, T] True on tokens of n-grams copied from the question
    line_ids: Tensor | None = None  # [B, T] each token's line from 0, −1 on padding
    dependence: Tensor | None = None  # [B, L] what the rest of the answer takes from each line
    entropy: Tensor | None = None  # [B, T] of the policy at each token
    self_certainty: Tensor | None = None  # [B, T] logsumexp(logits) − mean(logits)
    gold_logps: Tensor | None = None  # [B, G] the gold answer's tokens after the reasoning
    gold_logps_without: Tensor | None = None  # [B, G] and without it
    gold_mask: Tensor | None = None  # [B, G]
    answer_keys: tuple[str | None, ...] | None = None  # the value that each answer gave, if any
    texts: tuple[str, ...] | None = None  # of the answers
    questions: tuple[Question, ...] | None = None  # of the answers, one each
    budget: int | None = None  # tokens
    best_accuracy: float = 0.0  # of the steps so far

    def __post_init__(self) -> None:
        rows, width = self.answer_mask.shape
        _check(self, "correct group_ids", (rows,))
        tokens = "logps_conditioned logps_standalone copied line_ids entropy self_certainty"
        _check(self, tokens, (rows, width))
        if self.gold_mask is not None:
            _check(self, "gold_logps gold_logps_without", tuple(self.gold_mask.shape))
        empty = (~self.answer_mask.any(dim=1)).nonzero().flatten().tolist()
        if empty:
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
