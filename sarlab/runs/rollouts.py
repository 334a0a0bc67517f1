"""Open what any trainer wrote: one table of answers with their questions and rewards.

:func:`open_rollouts` reads a file or folder of TRL, verl, OpenRLHF, verifiers, prime-rl, tinker,
Inspect or sarlab, or plain rows with ``messages`` or ``prompt`` and ``completion``. Nothing is
guessed: a column that the file does not hold is null. Files are only parsed, never executed.
"""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2.exceptions import TemplateError

from sarlab.runs.trainer_formats import COLUMNS, Row, recognise, records
from sarlab.tasks.rows import field_names

_BLANK: Row = dict.fromkeys((*COLUMNS, "prompt", "group"))


def open_rollouts(
    path: str | Path, *, tokenizer: Any = None, rewards: Sequence[str] | None = None
) -> pd.DataFrame:
    """The answers of a run, one row each, in the order of the files.

    Columns: ``step``, ``group_id`` (equal for answers to one prompt at one step), ``question``,
    ``answer``, ``gold``, ``reward``, ``source`` (file and line), then whatever else the trainer
    logged. ``reward`` is the file's own total, or else the sum of its reward columns; ``rewards``
    names these columns where a file mixes them with other numbers. With ``tokenizer`` a prompt
    that was logged as rendered text is taken apart by the chat template; without it, or where it
    does not match, ``question`` is the prompt as it stands. ``frame.attrs["format"]`` names the
    format, ``frame.attrs["notes"]`` says in sentences what was read and what is missing.

    Raises ValueError for an unknown format, and for a row that does not fit, with file and line.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist. Name a run folder or a file of answers.")
    form, files = recognise(path)
    root = path if path.is_dir() else path.parent
    notes: list[str] = []
    rows: list[Row] = []
    for file in files:
        for where, record in records(file, str(file.relative_to(root)), notes):
            if not form.fits(record):
                raise ValueError(
                    f"{where}: not a record of {form.name}; it has {field_names(record)}. Move "
                    "files of another kind out of the folder, or name one file."
                )
            try:
                answers = list(form.rows(record, file))
            except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
                raise ValueError(
                    f"{where}: not a whole record of {form.name} "
                    f"({type(error).__name__}: {error}); it has {field_names(record)}."
                ) from error
            for number, answer in enumerate(answers, start=1):
                place = f"{where}, answer {number}" if len(answers) > 1 else where
                _check(answer, place)
                rows.append({**_BLANK, **answer, "source": place})
    if not rows:
        raise ValueError(f"{path} holds no answers ({form.name}, {len(files)} files).")
    frame = pd.DataFrame(rows)
    group = frame["group"].fillna(frame["prompt"]).fillna(frame["question"])
    numbers = frame.groupby(["step", group.astype(str)], sort=False, dropna=False).ngroup()
    frame["group_id"] = numbers.astype("Int64").where(group.notna())
    if rewards is None and frame["reward"].isna().all() and form.adds_rewards:
        rewards = list(dict.fromkeys(c for row in frame["reward_columns"] for c in row))
        if len(rewards) > 1:
            notes.append(
                f"reward is the sum of {', '.join(rewards)}. Name them with rewards= where one of "
                "them is no reward; weights are not in the file."
            )
    if missing := [column for column in rewards or () if column not in frame]:
        raise ValueError(f"No reward columns {missing}; there are {list(frame.columns)}.")
    if rewards:
        frame["reward"] = frame[list(rewards)].astype(float).sum(axis=1, min_count=1)
    rendered = frame["prompt"].notna()
    if rendered.any():
        prompts = frame.loc[rendered, "prompt"]
        questions, note = _questions_of(list(prompts.unique()), tokenizer)
        frame.loc[rendered, "question"] = prompts.map(lambda p: questions.get(p, p))
        notes.append(note)
    frame["step"] = pd.to_numeric(frame["step"]).astype("Int64")
    frame["reward"] = pd.to_numeric(frame["reward"]).astype("float64")
    frame["gold"] = frame["gold"].astype(object).where(frame["gold"].notna(), None)
    frame = frame.drop(columns=["prompt", "group", "reward_columns"], errors="ignore")
    groups, ending = frame["group_id"].nunique(), "" if len(files) == 1 else "s"
    summary = (
        f"{form.name}: {len(frame):,} answers in {groups:,} groups, {len(files)} file{ending}."
    )
    if empty := [column for column in COLUMNS if frame[column].isna().all()]:
        notes.append(f"Not in the file: {', '.join(empty)}.")
    frame.attrs.update(format=form.name, notes=(summary, *notes))
    return frame


def _check(row: Row, place: str) -> None:
    """Raise ValueError, with file and line, for a value of the wrong type."""
    rules = {
        "answer": (str, "a text"),
        "question": (str | None, "a text"),
        "step": (int | None, "a whole number"),
        "reward": (int | float | None, "a number"),
    }
    for name, (kind, rule) in rules.items():
        value = row[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and name == "step"):
            raise ValueError(
                f"{place}: {name} is {value!r:.60} ({type(value).__name__}), expected {rule}. "
                "Mend the row or take it out."
            )


def _questions_of(prompts: Sequence[str], tokenizer: Any) -> tuple[dict[str, str], str]:
    """The questions in prompts that were logged as rendered text, and a sentence on how that went.

    A prompt is matched with what the chat template makes of a system and a user turn, or of a user
    turn alone. Special tokens may be missing: some trainers decode with them, some without.
    """
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        return {}, (
            "Prompts stand as the file holds them, chat markup included; name the model that wrote "
            "them to take them apart."
        )
    marks = {"sarlab-system-text": ".*?", "sarlab-user-text": "(?P<user>.*?)"}
    special = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
    known = {token: f"(?:{re.escape(token)})?" for token in special} | marks
    pieces = re.compile("(" + "|".join(map(re.escape, known)) + ")")
    turns = [{"role": mark.split("-")[1], "content": mark} for mark in marks]
    questions: dict[str, str] = {}
    for messages in (turns[1:], turns):
        with contextlib.suppress(TemplateError):  # this template has no system role
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            parts = [known.get(p, re.escape(p)) for p in pieces.split(text.strip()) if p]
            pattern = re.compile(rf"\s*{''.join(parts)}\s*", re.DOTALL)
            matches = {prompt: pattern.fullmatch(prompt) for prompt in prompts}
            questions |= {p: match["user"].strip() for p, match in matches.items() if match}
    note = f"The chat template took {len(questions)} of {len(prompts)} prompts apart."
    if len(questions) < len(prompts):
        note += " The others stand as the file holds them: another template wrote them."
    return questions, note
