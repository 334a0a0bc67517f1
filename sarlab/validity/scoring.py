"""Labelled answers → one row an answer with its log-probs under every context, kept in parts.

A row holds sums in nats, so that each option (standalone context, end token, log form) is mere
arithmetic later and the model runs once. Rows are written a part at a time, and what was killed
goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from sarlab.models import Policy
from sarlab.prompts import StandaloneContext, conditioned_ids, encode_answer, standalone_ids
from sarlab.rollout import sample
from sarlab.runs.atomic import read_json, read_jsonl, write_json, write_text
from sarlab.runs.folder import read_rollouts
from sarlab.scoring import Prefix, answer_block, answer_logps, compute_prefixes
from sarlab.tasks import judge_all
from sarlab.types import Question
from sarlab.validity.records import LabelledAnswer, judged

Rows = list[dict[str, Any]]
Item = TypeVar("Item")
CONTEXTS = ("conditioned", *(context.value for context in StandaloneContext))
"""Contexts of a row: ``logp_<context>`` is the sum over the answer's tokens, ``end_<context>`` what
the end token has of it (None where the answer has none)."""
NUMBERS = (
    *("model", "question_id", "group", "label", "correct", "length", "truncated"),
    *(f"{kind}_{context}" for kind in ("logp", "end") for context in CONTEXTS),
)
"""Columns without text: what may be shipped of answers whose text belongs to others."""
_FACTS = "facts.json"
_SPANS = 4  # of a run's steps


def standalone_prefixes(policy: Policy) -> Sequence[Prefix]:
    """The two prefixes without a question, computed once for all answers."""
    ids = [standalone_ids(policy.tokenizer, policy.prompt, c) for c in StandaloneContext]
    return compute_prefixes(policy, [Prefix(tuple(i)) for i in ids])


def score_question(
    policy: Policy, answers: Sequence[LabelledAnswer], alone: Sequence[Prefix]
) -> Rows:
    """Rows of the answers to one question, on one computed prefix of it.

    ``alone``: of :func:`standalone_prefixes`. A typed answer gets the end token, ids that were
    sampled are taken as they are. Raises ValueError for answers to several questions.
    """
    texts = {a.question for a in answers}
    if len(texts) != 1:
        raise ValueError(f"{len(texts)} questions at once; score the answers to one at a time.")
    question = texts.pop()
    ids = [
        list(a.answer_ids)
        if a.answer_ids is not None
        else encode_answer(policy.tokenizer, a.answer, policy.end_id)
        for a in answers
    ]
    distinct = list(dict.fromkeys(map(tuple, ids)))  # an answer that stands twice is scored once
    place = [distinct.index(tuple(own)) for own in ids]
    block, mask = answer_block(distinct)
    first = Prefix(tuple(conditioned_ids(policy.tokenizer, question, policy.prompt)))
    logps = {}
    for name, prefix in zip(CONTEXTS, [first, *alone], strict=True):
        logps[name] = answer_logps(policy, prefix, block, mask).double().cpu()
    rows = []
    for i, (answer, own) in enumerate(zip(answers, ids, strict=True)):
        ended = own[-1] in policy.eos_ids
        row: dict[str, Any] = {
            "model": policy.reference,
            "question_id": answer.question_id,
            "group": answer.group_id,
            "label": answer.label,
            "correct": judged(answer),
            "length": len(own),
            "truncated": answer.answer_ids is not None and not ended,
        }
        for name in CONTEXTS:
            own_logps = logps[name][place[i], : len(own)]
            row[f"logp_{name}"] = float(own_logps.sum())
            row[f"end_{name}"] = float(own_logps[-1]) if ended else None
        rows.append({**row, "question": question, "answer": answer.answer, "gold": answer.gold})
    return rows


def sample_groups(
    policy: Policy,
    questions: Sequence[Question],
    *,
    group_size: int,
    max_answer_tokens: int,
    seed: int,
    on_token: Callable[[int, int], None] | None = None,
) -> list[list[LabelledAnswer]]:
    """``group_size`` sampled answers to each question, labelled ``right`` or ``wrong``.

    The draw depends on the seed and the questions alone, so a part that is made again is the same.
    """
    prefixes = [
        Prefix(tuple(conditioned_ids(policy.tokenizer, q.text, policy.prompt))) for q in questions
    ]
    rollouts = sample(
        policy,
        prefixes,
        group_size=group_size,
        max_answer_tokens=max_answer_tokens,
        seed=f"validity {seed} {' '.join(q.id for q in questions)}",
        on_token=on_token,
    )
    asked = [questions[i] for i in rollouts.group_ids.tolist()]
    groups: list[list[LabelledAnswer]] = [[] for _ in questions]
    for row, verdict in enumerate(judge_all(rollouts.texts, asked)):
        length = int(rollouts.lengths[row])
        groups[int(rollouts.group_ids[row])].append(
            LabelledAnswer(
                question=asked[row].text,
                answer=rollouts.texts[row],
                label="right" if verdict.correct else "wrong",
                correct=verdict.correct,
                gold=asked[row].gold,
                answer_ids=tuple(rollouts.answer_ids[row, :length].tolist()),
            )
        )
    return groups


def write_parts(
    folder: Path,
    chunks: Sequence[Sequence[Item]],
    facts: Mapping[str, Any],
    make: Callable[[Sequence[Item]], Rows],
) -> Iterator[int]:
    """Make one part a chunk, each whole or absent; yields the items done so far, old ones first.

    ``facts`` describe what is scored and stand in the folder. A folder that was begun goes on where
    the facts are the same, and is refused with ValueError where they are not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = json.loads(json.dumps(facts))
    if (folder / _FACTS).exists():
        before = read_json(folder / _FACTS)
        changed = [k for k in {**before, **told} if before.get(k) != told.get(k)]
        if changed:
            name = changed[0]
            raise ValueError(
                f"{folder} was begun with {name} = {before.get(name)!r:.60}, now it is "
                f"{told.get(name)!r:.60}. Name another folder, or remove this one."
            )
    else:
        write_json(folder / _FACTS, told)
    parts = [folder / f"part-{number:05d}.jsonl" for number in range(len(chunks))]
    done = sum(len(c) for c, p in zip(chunks, parts, strict=True) if p.exists())
    yield done
    for part, chunk in zip(parts, chunks, strict=True):
        if not part.exists():
            lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in make(chunk)]
            write_text(part, "".join(line + "\n" for line in lines))
            done += len(chunk)
            yield done


def is_scored(path: Path) -> bool:
    """Whether a path is a folder of parts, or a table of scored answers (parquet)."""
    return (path / _FACTS).exists() or path.suffix == ".parquet"


def read_scored(path: str | Path) -> pd.DataFrame:
    """The rows of a folder of parts, or of a parquet file made by :func:`ship_scored`.

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


def ship_scored(folder: Path, target: Path) -> None:
    """Write the numbers of scored answers, without their texts, as one parquet file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    read_scored(folder)[list(NUMBERS)].to_parquet(target, index=False, compression="zstd")


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
    answers = read_rollouts(folder, split).to_pylist()
    steps = sorted({int(a["step"]) for a in answers})
    spans = {}
    for part in np.array_split(steps, min(_SPANS, len(steps))):
        name = f"step {part[0]}" if len(part) == 1 else f"steps {part[0]} to {part[-1]}"
        spans.update({int(step): f"{config['model']}, {name}" for step in part})
    rows = []
    for found in answers:
        if found["logps_standalone"] is None or found["logps_conditioned"] is None:
            raise ValueError(
                f"{folder} kept no log-probs of its {split!r} answers (shipped runs come without "
                "them, and log_sar=False leaves one out). Name a run of your own."
            )
        row: dict[str, Any] = dict.fromkeys(NUMBERS)
        row.update(
            model=spans[found["step"]],
            question_id=found["question_id"],
            group=f"{found['step']}/{found['group_id']}",
            label="right" if found["correct"] else "wrong",
            correct=bool(found["correct"]),
            length=found["length"],
            truncated=bool(found["truncated"]),
        )
        for name, column in (("conditioned", "logps_conditioned"), (context, "logps_standalone")):
            logps = torch.tensor(found[column], dtype=torch.float64)
            row[f"logp_{name}"] = float(logps.sum())
            row[f"end_{name}"] = None if found["truncated"] else float(logps[-1])
        texts = {"question": found["question"], "answer": found["answer"], "gold": found["gold"]}
        rows.append({**row, **texts})
    return pd.DataFrame(rows)


def file_digest(path: Path) -> str:
    """The first 16 hex digits of a file's SHA-256: which data were scored."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
