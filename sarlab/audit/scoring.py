"""Labelled answers → one row per answer with its log-probs under every context.

A row holds sums in nats, so that each option (standalone context, end token, log form) is mere
arithmetic later and the model runs once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sarlab.audit.records import LabelledAnswer, judged
from sarlab.models import Policy
from sarlab.prompts import StandaloneContext, conditioned_ids, encode_answer, standalone_ids
from sarlab.runs.atomic import read_json, read_jsonl
from sarlab.runs.folder import read_rollouts
from sarlab.scoring import Prefix, answer_block, answer_logps, compute_prefixes

Rows = list[dict[str, Any]]
CONTEXTS = ("conditioned", *(context.value for context in StandaloneContext))
"""Contexts of a row: ``logp_<context>`` is the sum over the answer's tokens, ``end_<context>`` what
the end token has of it (None where the answer has none)."""
NUMBERS = (
    *("model", "question_id", "group", "label", "correct", "length", "truncated"),
    *(f"{kind}_{context}" for kind in ("logp", "end") for context in CONTEXTS),
)
"""Columns without text: what may be shipped of answers whose text belongs to others."""
FACTS = "facts.json"
"""What a folder of scored parts says about itself (scripts/gsm8k_validity.py writes such)."""
_SPANS = 4  # of a run's steps


def standalone_prefixes(policy: Policy) -> Sequence[Prefix]:
    """The two prefixes without a question, computed once for all answers."""
    ids = [standalone_ids(policy.tokenizer, policy.prompt, c) for c in StandaloneContext]
    return compute_prefixes(policy, [Prefix(tuple(i)) for i in ids])


def score_question(
    policy: Policy, answers: Sequence[LabelledAnswer], standalone: Sequence[Prefix]
) -> Rows:
    """Rows of the answers to one question, on one computed prefix of it.

    ``standalone``: of :func:`standalone_prefixes`. A typed answer gets the end token, ids that were
    sampled are taken as they are. Raises ValueError for answers to several questions.
    """
    question, *others = {a.question for a in answers}
    if others:
        raise ValueError(f"{1 + len(others)} questions at once; score the answers to each apart.")
    ids = [
        a.answer_ids or tuple(encode_answer(policy.tokenizer, a.answer, policy.end_id))
        for a in answers
    ]
    distinct = list(dict.fromkeys(ids))  # an answer that stands twice is scored once
    block, mask = answer_block(distinct)
    first = Prefix(tuple(conditioned_ids(policy.tokenizer, question, policy.prompt)))
    logps = {
        name: answer_logps(policy, prefix, block, mask).double().cpu()
        for name, prefix in zip(CONTEXTS, [first, *standalone], strict=True)
    }
    rows = []
    for answer, answer_ids in zip(answers, ids, strict=True):
        ended = answer_ids[-1] in policy.eos_ids
        row = dict.fromkeys(NUMBERS) | {
            "model": policy.reference,
            "question_id": answer.question_id,
            "group": answer.group_id,
            "label": answer.label,
            "correct": judged(answer),
            "length": len(answer_ids),
            "truncated": answer.answer_ids is not None and not ended,
            "question": question,
            "answer": answer.answer,
            "gold": answer.gold,
        }
        for name in CONTEXTS:
            values = logps[name][distinct.index(answer_ids), : len(answer_ids)]
            row[f"logp_{name}"] = float(values.sum())
            row[f"end_{name}"] = float(values[-1]) if ended else None
        rows.append(row)
    return rows


def is_scored(path: Path) -> bool:
    """Whether a path is a folder of parts, or a table of scored answers (parquet)."""
    return (path / FACTS).exists() or path.suffix == ".parquet"


def read_scored(path: str | Path) -> pd.DataFrame:
    """The rows of a folder of parts, or of a parquet file made of one.

    Raises ValueError where there are none, or where a column is missing.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
    else:
        parts = sorted(path.glob("part-*.jsonl"))
        table = pd.DataFrame([row for part in parts for row in read_jsonl(part)])
    missing = [name for name in NUMBERS if name not in table]
    if missing:
        what = "no scored answers" if table.empty else f"no column {missing[0]!r}"
        raise ValueError(f"{path} has {what}. Make it anew with scripts/gsm8k_validity.py.")
    return table


def scored_run(folder: str | Path, split: str = "") -> pd.DataFrame:
    """Rows of the answers that a training run recorded, groups as they were sampled.

    ``split``: by default the answers that it was trained on, or the probes where a run was shipped
    without those. The policy changes from step to step, so ``model`` names up to four spans of
    steps. Only the run's own standalone context is there; the other's columns are NaN. Raises
    ValueError where the run kept no log-probs.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    context = str(config["standalone"])
    trained_on = any((folder / "rollouts.parquet").glob("train-*.parquet"))
    split = split or ("train" if trained_on else "probe")
    answers = read_rollouts(folder, split).to_pandas()
    columns = {"conditioned": "logps_conditioned", context: "logps_standalone"}
    if answers[list(columns.values())].isna().any(axis=None):
        raise ValueError(
            f"{folder} kept no log-probs of its {split!r} answers (shipped runs come without "
            "them, and log_sar=False leaves one out). Name a run of your own."
        )
    steps, spans = np.unique(answers["step"]), {}
    for part in np.array_split(steps, min(_SPANS, len(steps))):
        name = f"step {part[0]}" if len(part) == 1 else f"steps {part[0]} to {part[-1]}"
        spans.update(dict.fromkeys(part, f"{config['model']}, {name}"))
    table = answers.reindex(columns=[*NUMBERS, "question", "answer", "gold"])
    table["model"] = answers["step"].map(spans)
    table["group"] = answers["step"].astype(str) + "/" + answers["group_id"].astype(str)
    table["label"] = answers["correct"].map({True: "right", False: "wrong"})
    for name, column in columns.items():
        table[f"logp_{name}"] = answers[column].map(lambda logps: np.sum(logps, dtype=float))
        table[f"end_{name}"] = answers[column].str[-1].where(~table["truncated"])
    return table
