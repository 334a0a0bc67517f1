"""What rewards would have paid in anybody's run: score its answers, then replay the rewards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sarlab.answers import score_answers
from sarlab.losses import group_advantages
from sarlab.models import Policy
from sarlab.prompts import StandaloneContext
from sarlab.rewards import REWARDS, answer_bonus, total_reward
from sarlab.rewards.diagnostics import bonus_diagnostics, reward_inputs
from sarlab.tasks import judge_all
from sarlab.types import Question

_PART = 64  # answers scored between two writes
_FLIP = 1e-6  # an advantage nearer to 0 than this has no sign


def step_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per step: answers, groups, mean reward, mean length, share of equal groups.

    ``length`` is in tokens where the trainer logged it, in characters otherwise (the column's
    name says which). A group of two or more answers is equal where all earned the same.
    """
    tokens = "length" in frame
    length = frame["length"] if tokens else frame["answer"].str.len()
    groups = frame.assign(length=length).groupby(["step", "group_id"], dropna=False)
    spread = groups["reward"].agg(
        lambda r: r.max() - r.min() if len(r) > 1 and r.notna().all() else float("nan")
    )
    equal = (spread < _FLIP).where(spread.notna())
    table = (
        frame.assign(length=length)
        .groupby("step", dropna=False)
        .agg(
            answers=("answer", "size"),
            groups=("group_id", "nunique"),
            reward=("reward", "mean"),
            length=("length", "mean"),
        )
    )
    table["equal_groups"] = equal.groupby("step", dropna=False).mean()
    name = "length_tokens" if tokens else "length_characters"
    return table.rename(columns={"length": name}).reset_index()


def score_rollouts(
    frame: pd.DataFrame,
    policy: Policy,
    store: str | Path,
    *,
    standalone: StandaloneContext = StandaloneContext.EMPTY_TURN,
    on_progress: Callable[[int], object] = lambda answers: None,
) -> pd.DataFrame:
    """The frame with both log-probs of every answer under ``policy``, and what follows from them.

    Adds ``length`` (tokens), ``logps_conditioned`` and ``logps_standalone`` (nats per token),
    ``ppl_conditioned``, ``ppl_standalone``, ``sar``, ``v_nats``, and ``correct`` where a gold
    answer is known. Scores are kept in ``store`` (parquet parts), so a call that was stopped goes
    on. Rows without a question stay null. Another model than the one that wrote the answers gives
    other numbers: SAR is of the model that scores.
    """
    store = Path(store)
    key = f"{policy.reference}|{standalone.value}"
    ids = [
        hashlib.sha256(json.dumps([key, q, a]).encode()).hexdigest()[:24]
        for q, a in zip(frame["question"], frame["answer"], strict=True)
    ]
    known = _stored(store)
    todo = {
        i: (q, a)
        for i, q, a in zip(ids, frame["question"], frame["answer"], strict=True)
        if i not in known and isinstance(q, str) and q.strip() and a.strip()
    }
    on_progress(len(frame) - len(todo))
    fresh: list[dict[str, Any]] = []
    by_question: dict[str, list[str]] = {}
    for i, (question, _) in todo.items():
        by_question.setdefault(question, []).append(i)
    for question, rows in by_question.items():
        for start in range(0, len(rows), _PART):
            part = rows[start : start + _PART]
            answers = [todo[i][1] for i in part]
            for i, scored in zip(
                part,
                score_answers(policy, question, answers, standalone=standalone),
                strict=True,
            ):
                fresh.append(
                    {
                        "id": i,
                        "logps_conditioned": list(scored.logps_conditioned),
                        "logps_standalone": list(scored.logps_standalone),
                        "sar": scored.sar,
                        "ppl_conditioned": scored.ppl_conditioned,
                        "ppl_standalone": scored.ppl_standalone,
                    }
                )
            on_progress(len(part))
            if len(fresh) >= _PART:
                _write_part(store, fresh)
                fresh = []
    _write_part(store, fresh)
    known = _stored(store)
    columns = ("logps_conditioned", "logps_standalone", "sar", "ppl_conditioned", "ppl_standalone")
    scored_frame = frame.copy()
    for column in columns:
        scored_frame[column] = [known[i][column] if i in known else None for i in ids]
    has = scored_frame["sar"].notna()
    scored_frame["length"] = [
        len(x) if isinstance(x, list) else None for x in scored_frame["logps_conditioned"]
    ]
    scored_frame["v_nats"] = [
        sum(c) - sum(s) if ok else None
        for c, s, ok in zip(
            scored_frame["logps_conditioned"], scored_frame["logps_standalone"], has, strict=True
        )
    ]
    if "correct" not in scored_frame:
        scored_frame["correct"] = _judged(scored_frame)
    return scored_frame


def rewards_paid(
    scored: pd.DataFrame, names: Sequence[str] = (), alpha: float = 0.2
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What each reward would have paid: a row per design, and the advantages per answer.

    Only groups count in which every answer is scored and judged. Table: mean bonus, what it pays
    for (:func:`sarlab.rewards.diagnostics.bonus_diagnostics`), and ``flips``, the share of
    answers whose advantage has another sign than under the logged reward. ``names``: default,
    all designs that need nothing beyond both log-probs. Raises ValueError where no group can be
    used.
    """
    usable = scored[scored["sar"].notna() & scored["correct"].notna()]
    whole = usable.groupby("group_id")["answer"].transform("size")
    whole = whole == scored.groupby("group_id")["answer"].transform("size")[usable.index]
    usable = usable[whole & (usable.groupby("group_id")["answer"].transform("size") > 1)]
    if usable.empty:
        raise ValueError(
            "No group has two or more answers that are all scored and judged. Rewards compare "
            "answers to one question; without gold answers nothing can be judged."
        )
    inputs = reward_inputs(usable.to_dict("records"), groups="group_id")
    names = names or [n for n, r in REWARDS.items() if replayable(n)]
    logged = torch.tensor(usable["reward"].to_numpy(dtype=float))
    logged_advantages = group_advantages(logged, inputs.group_ids)
    table, advantages = [], usable[["group_id", "source"]].copy()
    for name in names:
        bonus = answer_bonus(inputs, name)
        paid = total_reward(inputs, name, alpha)
        own = group_advantages(paid.double(), inputs.group_ids)
        advantages[name] = own.tolist()
        both = (own.abs() > _FLIP) & (logged_advantages.abs() > _FLIP)
        flips = ((own.sign() != logged_advantages.sign()) & both).sum() / both.sum().clamp(min=1)
        numbers = bonus_diagnostics(bonus, inputs, paid)
        flips_or_none = None if torch.isnan(logged).any() else float(flips)
        table.append(
            {"reward": name, "mean": float(bonus.mean()), "flips": flips_or_none, **numbers}
        )
    return pd.DataFrame(table), advantages


def replayable(name: str) -> bool:
    """Whether a design needs nothing beyond correctness, lengths and both log-probs."""
    return not REWARDS[name].needs


def _judged(frame: pd.DataFrame) -> list[bool | None]:
    """Verdicts of the built-in verifier where question and gold are known; None elsewhere."""
    known = [
        i
        for i, (q, g) in enumerate(zip(frame["question"], frame["gold"], strict=True))
        if isinstance(q, str) and q.strip() and isinstance(g, str) and g.strip()
    ]
    rows = frame.iloc[known]
    questions = [Question(q, g) for q, g in zip(rows["question"], rows["gold"], strict=True)]
    verdicts = judge_all(list(rows["answer"]), questions)
    judged: list[bool | None] = [None] * len(frame)
    for i, verdict in zip(known, verdicts, strict=True):
        judged[i] = verdict.correct
    return judged


def _stored(store: Path) -> dict[str, dict[str, Any]]:
    """Everything scored so far, by id."""
    parts = sorted(store.glob("part-*.parquet"))
    rows = (row for part in parts for row in pd.read_parquet(part).to_dict("records"))
    arrays = ("logps_conditioned", "logps_standalone")
    return {row["id"]: {**row, **{k: list(row[k]) for k in arrays}} for row in rows}


def _write_part(store: Path, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    store.mkdir(parents=True, exist_ok=True)
    target = store / f"part-{len(list(store.glob('part-*.parquet'))):05d}.parquet"
    scratch = target.with_suffix(".tmp")
    pd.DataFrame(rows).to_parquet(scratch)
    scratch.replace(target)
