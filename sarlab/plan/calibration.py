"""How far SAR can be trusted on a model: what the batch and the type of the weights do to it.

SAR is a function of two perplexities, so it is only as good as they are. With float32 weights an
answer's score hardly depends on the answers beside it; with bfloat16 weights it does, since the
order of the sums in a matrix product depends on its shape.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sarlab.answers import question_prefixes
from sarlab.models import Policy
from sarlab.prompts import StandaloneContext, encode_answer
from sarlab.rollout import sample
from sarlab.sar import self_aligned_reward
from sarlab.scoring import Prefix, answer_block, answer_logps
from sarlab.types import Question

LIMIT = 0.01  # a SAR that moves further than this is warned about
_ALL_AT_ONCE = 1 << 40  # a token budget that splits nothing


@dataclass(frozen=True)
class Calibration:
    """What moved SAR, and by how much: largest and mean change over the answers measured.

    ``batch_*``: an answer scored alone, with all others (padded), and in pairs of unlike length.
    ``weights_*``: these weights against the other type, bfloat16 against float32; None where it
    was not measured. ``batch_logp``: largest change of one token's log-prob by the batch, nats.
    """

    dtype: str
    device: str
    answers: int
    batch_largest: float
    batch_mean: float
    batch_logp: float
    weights_largest: float | None = None
    weights_mean: float | None = None

    @property
    def text(self) -> str:
        """The finding in two sentences."""
        lines = [
            f"With {self.dtype} weights on {self.device} the batch moves SAR by at most "
            f"{self.batch_largest:.2g} (mean {self.batch_mean:.2g}, {self.answers} answers)."
        ]
        if self.weights_largest is not None and self.weights_mean is not None:
            lines.append(
                f"bfloat16 weights give a SAR that lies up to {self.weights_largest:.2g} from that "
                f"of float32 weights (mean {self.weights_mean:.2g})."
            )
        return " ".join(lines)


def check_calibration(
    policy: Policy,
    questions: Sequence[str | Question],
    answers: Sequence[str | Sequence[int]] | None = None,
    *,
    standalone: StandaloneContext = StandaloneContext.EMPTY_TURN,
    compare_weights: bool = True,
    samples: int = 2,
    max_answer_tokens: int = 128,
    limit: float = LIMIT,
) -> Calibration:
    """Measure on this policy how much SAR moves with the batch and with the type of the weights.

    ``answers``: one for each question, texts or ids; without them the policy samples ``samples``
    to each question (seeded). ``compare_weights`` also scores with a copy of the model in the
    other type (bfloat16 for float32 weights, float32 for all others), which needs its memory once
    more. A UserWarning says what moves SAR by more than ``limit``. Raises ValueError without
    questions, or where answers and questions do not match.
    """
    texts = [q.text if isinstance(q, Question) else q for q in questions]
    if not texts or (answers is not None and len(answers) != len(texts)):
        given = "none" if answers is None else len(answers)
        raise ValueError(
            f"{len(texts)} questions and {given} answers were given. Give at least one question, "
            "and one answer to each or no answers at all."
        )
    pairs = [question_prefixes(policy, text, standalone) for text in texts]
    prefixes, alone = [asked for asked, _ in pairs], pairs[0][1]
    if answers is None:
        found = sample(
            policy,
            prefixes,
            group_size=samples,
            max_answer_tokens=max_answer_tokens,
            seed="calibration",
        )
        lengths = found.lengths.tolist()
        ids = [row[:n].tolist() for row, n in zip(found.answer_ids, lengths, strict=True)]
        index = found.group_ids.tolist()
    else:
        ids = [
            encode_answer(policy.tokenizer, a, policy.end_id)
            if isinstance(a, str)
            else [int(i) for i in a]
            for a in answers
        ]
        index = list(range(len(ids)))
    asked = [prefixes[i] for i in index]

    single = [_score(policy, asked, alone, ids, [row]) for row in range(len(ids))]
    by_size = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    unlike = [[a, b] for a, b in zip(by_size, reversed(by_size), strict=True) if a != b]
    groups = [list(range(len(ids))), *unlike]
    sar_moves, logp_moves = [], []
    for rows in groups:
        for row, (sar, logps) in zip(rows, _scores(policy, asked, alone, ids, rows), strict=True):
            sar_moves.append(abs(sar - single[row][0]))
            logp_moves.append((logps - single[row][1]).abs().max().item())
    weights: list[float] = []
    if compare_weights:
        other = _in_other_type(policy)
        weights = [
            abs(_score(other, asked, alone, ids, [row])[0] - single[row][0])
            for row in range(len(ids))
        ]
    result = Calibration(
        dtype=str(policy.dtype).removeprefix("torch."),
        device=str(policy.device),
        answers=len(ids),
        batch_largest=max(sar_moves),
        batch_mean=sum(sar_moves) / len(sar_moves),
        batch_logp=max(logp_moves),
        weights_largest=max(weights) if weights else None,
        weights_mean=sum(weights) / len(weights) if weights else None,
    )
    if result.batch_largest > limit:
        warnings.warn(
            f"The batch moves SAR by up to {result.batch_largest:.2g}, more than {limit:g}. "
            'Load the policy with dtype="float32" where its reward matters to the second digit.',
            stacklevel=2,
        )
    if result.weights_largest is not None and result.weights_largest > limit:
        warnings.warn(
            f"SAR under bfloat16 weights lies up to {result.weights_largest:.2g} from that under "
            f"float32 weights, more than {limit:g}. Compare runs of one type only.",
            stacklevel=2,
        )
    return result


def _score(
    policy: Policy,
    asked: Sequence[Prefix],
    alone: Prefix,
    ids: Sequence[Sequence[int]],
    rows: Sequence[int],
) -> tuple[float, Tensor]:
    return _scores(policy, asked, alone, ids, rows)[0]


def _scores(
    policy: Policy,
    asked: Sequence[Prefix],
    alone: Prefix,
    ids: Sequence[Sequence[int]],
    rows: Sequence[int],
) -> list[tuple[float, Tensor]]:
    """SAR and both contexts' log-probs [2, n] of some answers, scored as one batch."""
    block, mask = answer_block([ids[row] for row in rows])
    with_question = answer_logps(
        policy,
        [asked[row] for row in rows],
        block,
        mask,
        prefix_index=torch.arange(len(rows)),
        token_budget=_ALL_AT_ONCE,
    ).cpu()
    without = answer_logps(policy, alone, block, mask, token_budget=_ALL_AT_ONCE).cpu()
    sar = self_aligned_reward(with_question, without, mask).tolist()
    return [
        (sar[place], torch.stack([with_question[place], without[place]])[:, : len(ids[row])])
        for place, row in enumerate(rows)
    ]


def _in_other_type(policy: Policy) -> Policy:
    """A copy whose weights are bfloat16 where these are float32, and float32 where they are not."""
    wanted = torch.bfloat16 if policy.dtype == torch.float32 else torch.float32
    model = copy.deepcopy(policy.model).eval()
    # As loading does: weights only. Rotary frequencies rounded to bfloat16 would be another model,
    # and an adapter stays in float32.
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.to(wanted)
    return Policy(
        model=model,
        tokenizer=policy.tokenizer,
        reference=policy.reference,
        prompt=policy.prompt,
        eos_ids=policy.eos_ids,
        end_id=policy.end_id,
    )
