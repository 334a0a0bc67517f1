"""How far SAR can be trusted on a model: what the batch and the type of the weights do to it.

SAR is a function of two perplexities, so it is only as good as they are. With float32 weights an
answer's score hardly depends on the answers beside it; with bfloat16 weights it does, since the
order of the sums in a matrix product depends on its shape.
"""

import copy
import dataclasses
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sarlab.models import Policy
from sarlab.prompts import encode_answer
from sarlab.rollout import sample
from sarlab.sar import self_aligned_reward
from sarlab.scoring import answer_block, answer_logps, prefix_of
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
        """The finding in one or two sentences."""
        text = (
            f"With {self.dtype} weights on {self.device} the batch moves SAR by at most "
            f"{self.batch_largest:.2g} (mean {self.batch_mean:.2g}, {self.answers} answers)."
        )
        if self.weights_largest is not None:
            text += (
                f" bfloat16 weights give a SAR that lies up to {self.weights_largest:.2g} from "
                f"that of float32 weights (mean {self.weights_mean:.2g})."
            )
        return text


def check_calibration(
    policy: Policy,
    questions: Sequence[str | Question],
    answers: Sequence[str | Sequence[int]] | None = None,
    *,
    compare_weights: bool = True,
    limit: float = LIMIT,
) -> Calibration:
    """Measure on this policy how much SAR moves with the batch and with the type of the weights.

    ``answers``: one per question, texts or ids; without them two are drawn per question.
    ``compare_weights`` also scores with a copy of the model in the other type. A UserWarning says
    what moves SAR by more than ``limit``. ValueError where answers and questions do not match.
    """
    texts = [q.text if isinstance(q, Question) else q for q in questions]
    if not texts or (answers is not None and len(answers) != len(texts)):
        given = "none" if answers is None else len(answers)
        raise ValueError(
            f"{len(texts)} questions and {given} answers were given. Give at least one question, "
            "and one answer to each or no answers at all."
        )
    prefixes, alone = [prefix_of(policy, t) for t in texts], prefix_of(policy, None)
    if answers is None:
        drawn = sample(policy, prefixes, group_size=2, max_answer_tokens=128, seed="calibration")
        prefixes = [prefixes[group] for group in drawn.group_ids.tolist()]
        both = zip(drawn.answer_ids, drawn.answer_mask, strict=True)
        answers = [ids[mask].tolist() for ids, mask in both]
    ids = [
        encode_answer(policy.tokenizer, a, policy.end_id) if isinstance(a, str) else list(a)
        for a in answers
    ]

    def scores(policy: Policy, rows: Sequence[int]) -> list[tuple[float, Tensor]]:
        """SAR and both contexts' log-probs [2, n] of these answers, as one batch."""
        block, mask = answer_block([ids[row] for row in rows])
        index, on = torch.arange(len(rows)), [prefixes[row] for row in rows]
        logps = [
            answer_logps(policy, on, block, mask, prefix_index=index, token_budget=_ALL_AT_ONCE),
            answer_logps(policy, alone, block, mask, token_budget=_ALL_AT_ONCE),
        ]
        conditioned, without = (x.cpu() for x in logps)
        sar = self_aligned_reward(conditioned, without, mask).tolist()
        both = torch.stack([conditioned, without], dim=1)
        return [(sar[n], both[n, :, : len(ids[row])]) for n, row in enumerate(rows)]

    everything = range(len(ids))
    single = [scores(policy, [row])[0] for row in everything]
    by_size = sorted(everything, key=lambda row: len(ids[row]))
    unlike = [[a, b] for a, b in zip(by_size, reversed(by_size), strict=True) if a != b]
    sar_moves, logp_moves = [], []
    for rows in [everything, *unlike]:
        for row, (sar, logps) in zip(rows, scores(policy, rows), strict=True):
            sar_moves.append(abs(sar - single[row][0]))
            logp_moves.append((logps - single[row][1]).abs().max().item())
    weights = []
    if compare_weights:
        # As loading does, weights only: rotary frequencies rounded to bfloat16 would be another
        # model, and an adapter stays in float32.
        other = torch.bfloat16 if policy.dtype == torch.float32 else torch.float32
        model = copy.deepcopy(policy.model).eval()
        for name, parameter in model.named_parameters():
            if "lora_" not in name:
                parameter.data = parameter.data.to(other)
        copied = dataclasses.replace(policy, model=model, _float_head=None)
        weights = [abs(scores(copied, [row])[0][0] - single[row][0]) for row in everything]
    for moves, text in (
        (
            sar_moves,
            "The batch moves SAR by up to {:.2g}, more than {:g}. "
            'Load the policy with dtype="float32" where its reward matters to the second digit.',
        ),
        (
            weights,
            "SAR under bfloat16 weights lies up to {:.2g} from that under float32 weights, more "
            "than {:g}. Compare runs of one type only.",
        ),
    ):
        if max(moves, default=0) > limit:
            warnings.warn(text.format(max(moves), limit), stacklevel=2)
    return Calibration(
        dtype=str(policy.dtype).removeprefix("torch."),
        device=str(policy.device),
        answers=len(ids),
        batch_largest=max(sar_moves),
        batch_mean=statistics.fmean(sar_moves),
        batch_logp=max(logp_moves),
        weights_largest=max(weights) if weights else None,
        weights_mean=statistics.fmean(weights) if weights else None,
    )
