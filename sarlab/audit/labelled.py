"""Answers of known quality: their file, what is claimed of their labels, and their log-probs.

A line of the file is a JSON object with ``question``, ``answer`` and ``label`` (or ``kind``).
Optional: ``group`` (answers that were sampled together; default: those to one question), ``gold``
(the verifier then says which answers are right) or ``correct`` (true or false, as judged
elsewhere), and ``answer_ids`` (a sampled answer's own tokens, taken as they are).

Scored, an answer is a row with sums of log-probs under every context in nats: each option (context,
end token, log form) is mere arithmetic later and the model runs once.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sarlab.models import Policy
from sarlab.prompts import StandaloneContext, encode_answer
from sarlab.runs.atomic import read_json
from sarlab.runs.folder import read_rollouts
from sarlab.scoring import answer_block, answer_logps, prefix_of
from sarlab.tasks import judge
from sarlab.tasks.rows import field_names, read_records, read_rows, text_field
from sarlab.types import Question

Rows = list[dict[str, Any]]
NUMBERS = (
    *("model", "question_id", "group", "label", "correct", "length", "truncated"),
    *("logp_conditioned", "logp_empty_turn", "logp_bare"),
    *("end_conditioned", "end_empty_turn", "end_bare"),
)
"""A scored answer's columns without text, which may be shipped where the text belongs to others.

``logp_<context>``: the sum over the answer's tokens; ``end_<context>``: the end token's part of it.
"""
_SPANS = 4  # of a run's steps
_MAX_LEVELS = 6  # of labels that are numbers


@dataclass(frozen=True)
class LabelledAnswer:
    """One answer and its label; ``group`` and ``gold`` are empty where none was given."""

    question: str
    answer: str
    label: str
    group: str = ""
    correct: bool | None = None
    gold: str = ""
    answer_ids: tuple[int, ...] | None = None

    @property
    def question_id(self) -> str:
        """The id that :class:`sarlab.types.Question` gives to this text."""
        return Question(self.question, "?").id

    @property
    def group_id(self) -> str:
        """Question and group."""
        return f"{self.question_id}/{self.group}" if self.group else self.question_id

    @property
    def is_right(self) -> bool | None:
        """As the file says, else as the gold answer says, else None."""
        if self.correct is not None or not self.gold:
            return self.correct
        return judge(self.answer, self.gold).correct


KNOWN_CLAIMS = (
    # data/examples: concise above redundant, partly right above wrong, all above no thought
    "concise > redundant; concise > partly_right; concise > wrong; partly_right > wrong; "
    "concise > no_thought; redundant > no_thought; partly_right > no_thought; "
    "wrong > no_thought; concise > off_topic; partly_right > off_topic; "
    # GSM8K
    "solution > socratic; solution > last_step_cut; solution > number_changed; "
    "solution > operations_changed; last_step_cut > operations_changed; "
    "number_changed > operations_changed; solution > no_thought; socratic > no_thought; "
    "last_step_cut > no_thought; number_changed > no_thought; operations_changed > no_thought; "
    "solution > off_topic; last_step_cut > off_topic; number_changed > off_topic; "
    "right > wrong"
)
"""The paper's claims in the words of the two corpora; a file with these labels is held to them."""


def claims_for(labels: Sequence[str], text: str = "") -> list[str]:
    """The claims ``better > worse`` that answers with these labels are held to.

    ``text``: ``"a > b; c > d"``. Empty: numbers as labels, higher above lower; else those of
    :data:`KNOWN_CLAIMS` whose labels both occur. Raises ValueError for text that cannot be read, a
    label that does not occur, or where nothing is known of the labels.
    """
    present = list(dict.fromkeys(labels))
    names = ", ".join(map(repr, present[:12]))
    numbers = pd.to_numeric(pd.Series(present), errors="coerce")
    if not text.strip() and len(present) > 1 and np.isfinite(numbers).all():
        if len(present) > _MAX_LEVELS:
            raise ValueError(
                f"The labels are {len(present)} different numbers; at most {_MAX_LEVELS} are "
                "compared each with each. Round them, or name claims such as '1 > 0'."
            )
        levels = sorted(present, key=float)
        return [f"{better} > {worse}" for worse, better in itertools.combinations(levels, 2)]
    claims = []
    for part in filter(None, map(str.strip, (text.strip() or KNOWN_CLAIMS).split(";"))):
        sides = [side.strip() for side in part.split(">")]
        if len(sides) != 2 or not all(sides) or sides[0] == sides[1]:
            raise ValueError(
                f"The claim {part!r} cannot be read. Write claims as 'better > worse', "
                "separated by semicolons."
            )
        unknown = [side for side in sides if side not in present]
        if unknown and text.strip():
            raise ValueError(f"The claim '{part}' names {unknown[0]!r}; the labels are {names}.")
        claims += [] if unknown else [" > ".join(sides)]
    if not claims:
        raise ValueError(
            f"Nothing is claimed of the labels {names}. Say what should score higher, such as "
            f"claims = '{present[0]} > {present[-1]}'."
        )
    return claims


def read_labelled(path: str | Path) -> list[LabelledAnswer]:
    """The answers of a .jsonl, .json or .csv file, in its order.

    A label may be a word, a number (higher is better) or true and false, which become ``right``
    and ``wrong``. Raises ValueError that names the line, the rule and the remedy.
    """
    answers = [_answer(row, where) for where, row in read_rows(Path(path))]
    if len({a.label for a in answers}) < 2:
        raise ValueError(
            f"{path}: all {len(answers)} answers have the label {answers[0].label!r}. Give answers "
            "of at least two qualities, such as right and wrong."
        )
    if max(Counter(a.group_id for a in answers).values()) < 2:
        raise ValueError(
            f"{path}: no question (or group) has two answers, so nothing can be compared. Give "
            "each question several answers, a line each, with the same question text."
        )
    return answers


def _answer(row: Mapping[str, Any], where: str) -> LabelledAnswer:
    if "label" not in row and "kind" not in row:
        raise ValueError(
            f"{where}: no field 'label', the quality of the answer; the row has "
            f'{field_names(row)}. Give each row one, such as "label": "right".'
        )
    correct, ids = row.get("correct"), row.get("answer_ids")
    if correct not in (None, 0, 1):
        raise ValueError(
            f"{where}: correct is {correct!r}; it must be true or false, or be left out where a "
            "gold answer says it."
        )
    are_ids = isinstance(ids, list) and ids and all(type(i) is int and i >= 0 for i in ids)
    if ids is not None and not are_ids:
        raise ValueError(
            f"{where}: answer_ids is {ids!r:.60}; it must be a list of token ids, or be left out "
            "for an answer that is typed text."
        )
    if isinstance(row.get("label"), bool):
        row = {**row, "label": "right" if row["label"] else "wrong"}
    optional = {
        field: text_field(row, (field,), where)
        for field in ("group", "gold")
        if row.get(field) not in (None, "")
    }
    return LabelledAnswer(
        question=text_field(row, ("question", "problem", "prompt"), where),
        answer=text_field(row, ("answer", "response", "completion"), where),
        label=text_field(row, ("label", "kind"), where).strip(),
        correct=None if correct is None else bool(correct),
        answer_ids=ids and tuple(ids),
        **optional,
    )


def by_question(answers: Sequence[LabelledAnswer], limit: int = 0) -> list[list[LabelledAnswer]]:
    """Answers by question, in the order of first answers; ``limit`` spreads evenly over them."""
    groups: dict[str, list[LabelledAnswer]] = {}
    for answer in answers:
        groups.setdefault(answer.question_id, []).append(answer)
    chosen = list(groups.values())
    count = min(limit, len(chosen)) or len(chosen)
    return [chosen[i * len(chosen) // count] for i in range(count)]


def score_question(policy: Policy, answers: Sequence[LabelledAnswer]) -> Rows:
    """Rows of the answers to one question; typed ones get the end token.

    Raises ValueError for answers to several questions.
    """
    question, *others = {a.question for a in answers}
    if others:
        raise ValueError(f"{1 + len(others)} questions at once; score the answers to each apart.")
    ids = [
        a.answer_ids or encode_answer(policy.tokenizer, a.answer, policy.end_id) for a in answers
    ]
    block = answer_block(ids)
    prefixes = {context.value: prefix_of(policy, None, context) for context in StandaloneContext}
    prefixes = {"conditioned": prefix_of(policy, question), **prefixes}
    logps = {
        context: answer_logps(policy, prefix, *block).double().cpu()
        for context, prefix in prefixes.items()
    }
    rows = []
    for place, (answer, own) in enumerate(zip(answers, ids, strict=True)):
        ended = own[-1] in policy.eos_ids
        row: dict[str, Any] = {
            "model": policy.reference,
            "question_id": answer.question_id,
            "group": answer.group_id,
            "label": answer.label,
            "correct": answer.is_right,
            "length": len(own),
            "truncated": answer.answer_ids is not None and not ended,
            "question": question,
            "answer": answer.answer,
            "gold": answer.gold,
        }
        for context, values in logps.items():
            row[f"logp_{context}"] = values[place, : len(own)].sum().item()
            row[f"end_{context}"] = values[place, len(own) - 1].item() if ended else None
        rows.append(row)
    return rows


def is_scored(path: Path) -> bool:
    """Whether a path is a folder (of parts, or of a run), or a parquet table of scored answers."""
    return path.is_dir() or path.suffix == ".parquet"


def read_scored(path: str | Path) -> pd.DataFrame:
    """The rows of a folder of parts, of a parquet file made of one, or of a run.

    Raises ValueError where there are none, or where a column is missing.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist. Check the path; it counts from {Path.cwd()}.")
    if (path / "run.json").exists():
        return _scored_run(path)
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
    else:
        parts = sorted(path.glob("part-*.jsonl"))
        table = pd.DataFrame([row for part in parts for _, row in read_records(part)])
    missing = [name for name in NUMBERS if name not in table]
    if missing:
        what = "no scored answers" if table.empty else f"no column {missing[0]!r}"
        raise ValueError(
            f"{path} has {what}. Name a run or a file of answers, or make it anew with "
            "scripts/gsm8k_validity.py."
        )
    return table


def _scored_run(folder: Path) -> pd.DataFrame:
    """The answers that a run was trained on, or its probes where it was shipped without those.

    The policy changes from step to step, so ``model`` names spans of steps. NaN where the run did
    not score a context.
    """
    config = read_json(folder / "config.json")
    trained_on = any((folder / "rollouts.parquet").glob("train-*.parquet"))
    answers = read_rollouts(folder, "train" if trained_on else "probe").to_pandas()
    columns = {"conditioned": "logps_conditioned", config["standalone"]: "logps_standalone"}
    if answers[list(columns.values())].isna().any(axis=None):
        raise ValueError(
            f"{folder} holds answers without their log-probs (shipped runs come without them, and "
            "log_sar=False leaves one out). Name a run of your own."
        )
    steps, spans = np.unique(answers["step"]), {}
    for part in np.array_split(steps, min(_SPANS, len(steps))):
        name = f"step {part[0]}" if len(part) == 1 else f"steps {part[0]} to {part[-1]}"
        spans.update(dict.fromkeys(part, f"{config['model']}, {name}"))
    table = answers.reindex(columns=[*NUMBERS, "question", "answer", "gold"])
    table["model"] = answers["step"].map(spans)
    table["group"] = answers["step"].astype(str) + "/" + answers["group_id"].astype(str)
    table["label"] = answers["correct"].map({True: "right", False: "wrong"})
    for context, column in columns.items():
        table[f"logp_{context}"] = answers[column].map(lambda logps: np.sum(logps, dtype=float))
        table[f"end_{context}"] = answers[column].str[-1].where(~table["truncated"])
    return table
