"""Answers of known quality: what a line of their file must hold, and their log-probs.

A line is a JSON object with ``question``, ``answer`` and ``label`` (or ``kind``). Optional:
``group`` (answers that are compared with each other; default: those to one question), ``gold``
(the verifier then says which answers are right) or ``correct`` (true or false, as judged
elsewhere), and ``answer_ids`` (a sampled answer's own tokens, taken as they are).

Scored, an answer is a row with the sums of its log-probs under every context in nats, so that each
option (standalone context, end token, log form) is mere arithmetic later and the model runs once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sarlab.models import Policy
from sarlab.prompts import StandaloneContext, conditioned_ids, encode_answer, standalone_ids
from sarlab.runs.atomic import read_json
from sarlab.runs.folder import read_rollouts
from sarlab.scoring import Prefix, answer_block, answer_logps, compute_prefixes
from sarlab.tasks import judge
from sarlab.tasks.rows import read_records, read_rows, text_field
from sarlab.types import Question

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
EXAMPLE = '{"question": "1 + 1 = ?", "answer": "Answer: 2", "label": "right", "gold": "2"}'


@dataclass(frozen=True)
class LabelledAnswer:
    """One answer and its label. ``group`` is empty where all answers to the question are one."""

    question: str
    answer: str
    label: str
    group: str = ""
    correct: bool | None = None
    gold: str | None = None
    answer_ids: tuple[int, ...] | None = None

    @property
    def question_id(self) -> str:
        """The id that :class:`sarlab.types.Question` gives to this text."""
        return Question(self.question, "?").id

    @property
    def group_id(self) -> str:
        """Question and group: the answers that are compared with each other."""
        return f"{self.question_id}/{self.group}" if self.group else self.question_id


def read_labelled(path: str | Path) -> list[LabelledAnswer]:
    """The answers of a .jsonl, .json, .csv or .parquet file, in its order.

    A label may be a word, a number (higher is better) or true and false, which become ``right``
    and ``wrong``. Raises ValueError that names the line, the rule and the remedy: a missing or
    empty field, a label or ``correct`` of another type, fewer than two labels in all, or no
    question with two answers.
    """
    path = Path(path)
    answers = [_answer(row, where) for where, row in read_rows(path)]
    labels = sorted({a.label for a in answers})
    if len(labels) < 2:
        raise ValueError(
            f"{path}: all {len(answers)} answers have the label {labels[0]!r}. Give answers of at "
            "least two qualities, such as right and wrong."
        )
    if max(Counter(a.group_id for a in answers).values()) < 2:
        raise ValueError(
            f"{path}: no question (or group) has two answers, so nothing can be compared. Give "
            "each question several answers, a line each, with the same question text."
        )
    return answers


def by_question(
    answers: Sequence[LabelledAnswer], limit: int | None = None
) -> list[list[LabelledAnswer]]:
    """Answers by question, in the order of first answers; ``limit`` spreads evenly over them."""
    groups: dict[str, list[LabelledAnswer]] = {}
    for answer in answers:
        groups.setdefault(answer.question_id, []).append(answer)
    all_groups = list(groups.values())
    if limit is None or limit >= len(all_groups):
        return all_groups
    if limit < 1:
        raise ValueError(f"questions is {limit}; it must be at least 1, or 0 for all of them.")
    return [all_groups[i * len(all_groups) // limit] for i in range(limit)]


def judged(answer: LabelledAnswer) -> bool | None:
    """Whether the answer is right: as the file says, else as its gold answer says, else None."""
    if answer.correct is not None or answer.gold is None:
        return answer.correct
    return judge(answer.answer, answer.gold).correct


def _answer(row: Mapping[str, Any], where: str) -> LabelledAnswer:
    name = "label" if "label" in row else "kind"
    if name not in row:
        raise ValueError(
            f"{where}: no field 'label', the quality of the answer. A line looks like {EXAMPLE}."
        )
    named = ("right" if row[name] else "wrong") if isinstance(row[name], bool) else ""
    correct, ids = row.get("correct"), row.get("answer_ids")
    if correct not in (None, 0, 1):
        raise ValueError(
            f"{where}: correct is {correct!r}; it must be true or false, or be left out where a "
            "gold answer says it."
        )
    if ids is not None and not (
        isinstance(ids, list) and ids and all(type(i) is int and i >= 0 for i in ids)
    ):
        raise ValueError(
            f"{where}: answer_ids is {ids!r:.60}; it must be a list of token ids, or be left out "
            "for an answer that is typed text."
        )
    group, gold = (
        None if row.get(field) in (None, "") else text_field(row, (field,), where)
        for field in ("group", "gold")
    )
    return LabelledAnswer(
        question=text_field(row, ("question", "problem", "prompt"), where),
        answer=text_field(row, ("answer", "response", "completion"), where),
        label=named or text_field(row, (name,), where).strip(),
        group=group or "",
        correct=None if correct is None else bool(correct),
        gold=gold,
        answer_ids=None if ids is None else tuple(ids),
    )


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
        table = pd.DataFrame([row for part in parts for _, row in read_records(part)])
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
