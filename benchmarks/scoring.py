"""Scoring sixteen answers of one question under both contexts.

    python benchmarks/scoring.py [--model smollm2-135m] [--rounds 5]

Against the plain loop of 32 forward passes and against lm-evaluation-harness's log-likelihoods, on
lengths like those of GSM8K (question 93 tokens, empty turn 36, answer 60); then the same with
questions of 30 to 1,000 tokens. All three must agree to 1e-3 nats a token.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import common
import torch
from machine import measure_machine
from torch import Tensor

from sarlab import plan
from sarlab.models import Policy, load_policy
from sarlab.scoring import Prefix, answer_logps

ANSWERS, QUESTION, EMPTY_TURN, ANSWER = 16, 93, 36, 60
LENGTHS = (30, 300, 1_000)
PART = 2  # answers that the plain loop and lm-eval run at other lengths; their seconds count × 8
TARGET = 1.8


def ours(policy: Policy, contexts: list[tuple[int, ...]], answers: Tensor) -> list[Tensor]:
    mask = torch.ones_like(answers, dtype=torch.bool)
    found = [answer_logps(policy, Prefix(context), answers, mask) for context in contexts]
    return [f for f in found if f is not None]


def plain(policy: Policy, contexts: list[tuple[int, ...]], answers: Tensor) -> list[Tensor]:
    """One forward pass an answer and context, whole logits, log-softmax, gather."""
    found = []
    with torch.no_grad():
        for context in contexts:
            rows = []
            for answer in answers:
                ids = torch.cat([torch.tensor(context), answer])[None]
                logits = policy.model(input_ids=ids, use_cache=False).logits[0, :-1]
                logps = torch.log_softmax(logits, dim=-1)
                rows.append(logps.gather(-1, ids[0, 1:, None])[len(context) - 1 :, 0])
            found.append(torch.stack(rows))
    return found


def harness(policy: Policy) -> Callable[[list[tuple[int, ...]], Tensor], list[Tensor]]:
    """lm-eval's log-likelihoods, summed over the answer, sixteen requests a batch."""
    from lm_eval.models.huggingface import HFLM

    judge = HFLM(
        pretrained=policy.model, tokenizer=policy.tokenizer, batch_size=ANSWERS, device="cpu"
    )

    def run(contexts: list[tuple[int, ...]], answers: Tensor) -> list[Tensor]:
        requests = [
            ((f"q{c}", f"a{row}"), list(context), answer.tolist())
            for c, context in enumerate(contexts)
            for row, answer in enumerate(answers)
        ]
        found = judge._loglikelihood_tokens(requests, disable_tqdm=True)
        return list(torch.tensor([total for total, _ in found]).split(len(answers)))

    return run


def measure(policy: Policy, length: int, rounds: int, part: int) -> dict[str, Any]:
    """All three ways in turn; the two plain ones with ``part`` of the sixteen answers."""
    answers = common.made_up(policy, ANSWERS, ANSWER)
    contexts = [
        tuple(common.made_up(policy, 1, size, seed=size)[0].tolist())
        for size in (length, EMPTY_TURN)
    ]
    lm_eval = harness(policy)
    kept: dict[str, list[Tensor]] = {}

    def keep(name: str, found: list[Tensor]) -> None:
        kept[name] = found

    seconds = common.interleaved(
        {
            "ours": lambda: keep("ours", ours(policy, contexts, answers)),
            "plain": lambda: keep("plain", plain(policy, contexts, answers[:part])),
            "lm_eval": lambda: keep("lm_eval", lm_eval(contexts, answers[:part])),
        },
        rounds,
        warm_up=False,
    )
    for mine, loop, total in zip(kept["ours"], kept["plain"], kept["lm_eval"], strict=True):
        torch.testing.assert_close(mine[:part], loop, atol=1e-3, rtol=0)
        torch.testing.assert_close(mine[:part].sum(1), total, atol=1e-3 * ANSWER, rtol=0)
    times = ANSWERS // part
    seconds |= {k: [times * s for s in seconds[k]] for k in ("plain", "lm_eval")}
    return {
        "question_tokens": length,
        "answers_of_the_plain_ways": part,
        "seconds": {k: common.spread(v) for k, v in seconds.items()},
        "over_plain": common.ratio(seconds["plain"], seconds["ours"]),
        "over_lm_eval": common.ratio(seconds["lm_eval"], seconds["ours"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="*", default=list(LENGTHS))
    told = parser.parse_args()
    common.quiet()
    policy = load_policy(told.model, dtype="float32", device="cpu")
    found = [measure(policy, QUESTION, told.rounds, ANSWERS)]
    found += [measure(policy, length, told.rounds, PART) for length in told.lengths]
    shape = plan.shape_of(told.model)
    work = plan.Workload(
        questions=2, group_size=ANSWERS, answer_tokens=ANSWER, dtype="float32"
    )  # both contexts
    floor = common.floor(shape, work, measure_machine(clock=common.now))
    lines = [
        f"{told.model}: {ANSWERS} answers of {ANSWER} tokens, empty turn {EMPTY_TURN}; floor of "
        f"the answers' tokens {floor['operations'] / 1e9:.0f} GFLOP, {floor['bytes'] / 1e6:.0f} MB"
    ]
    for row in found:
        target = f" (target {TARGET})" if row["question_tokens"] == QUESTION else ""
        lines.append(
            f"  question {row['question_tokens']:5} tokens: "
            f"{row['seconds']['ours']['median']:.2f} s; plain loop "
            f"{common.said(row['over_plain'])} ×, lm-eval "
            f"{common.said(row['over_lm_eval'])} ×{target}"
        )
    common.keep("scoring", {"model": told.model, "rows": found, "floor": floor, "lines": lines})


if __name__ == "__main__":
    main()
