"""What rewards would have paid in anybody's run: score its answers, then replay the rewards."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sarlab.losses import group_advantages
from sarlab.models import Policy
from sarlab.prompts import StandaloneContext
from sarlab.rewards import REWARDS, answer_bonus, total_reward
from sarlab.rewards.answers import score_answers
from sarlab.rewards.diagnostics import bonus_diagnostics, reward_inputs
from sarlab.runs.atomic import replace_file
from sarlab.tasks import judge

_SCORES = ("logps_conditioned", "logps_standalone", "sar", "ppl_conditioned", "ppl_standalone")
_PART = 64  # answers scored between two writes
_FLIP = 1e-6  # an advantage nearer to 0 than this has no sign


def step_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per step: answers, groups, mean reward, mean length, share of equal groups.

    ``length`` is in tokens where the trainer logged it, in characters otherwise (the column's
    name says which). A group of two or more answers is equal where all earned the same.
    """
    lengths = frame.get("length")
    name = "length_characters" if lengths is None else "length_tokens"
    frame = frame.assign(**{name: frame["answer"].str.len() if lengths is None else lengths})
    rewards = frame.groupby(["step", "group_id"], dropna=False)["reward"]
    spread = (rewards.max() - rewards.min()).where(rewards.count().eq(rewards.size()))
    equal = (spread < _FLIP).where(spread.notna() & rewards.size().gt(1))
    table = frame.groupby("step", dropna=False).agg(
        answers=("answer", "size"),
        groups=("group_id", "nunique"),
        reward=("reward", "mean"),
        **{name: (name, "mean")},
    )
    table["equal_groups"] = equal.groupby("step", dropna=False).mean()
    return table.reset_index()


def score_rollouts(
    frame: pd.DataFrame,
    policy: Policy,
    store: str | Path,
    *,
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
    answers = list(zip(frame["question"], frame["answer"], strict=True))
    key = f"{policy.reference}|{StandaloneContext.EMPTY_TURN.value}"
    ids = [hashlib.sha256(json.dumps([key, *texts]).encode()).hexdigest()[:24] for texts in answers]
    known = _stored(store)
    todo: dict[str, dict[str, str]] = {}  # per question: id and answer
    for i, (question, answer) in zip(ids, answers, strict=True):
        if i not in known and _is_text(question) and _is_text(answer):
            todo.setdefault(question, {})[i] = answer
    on_progress(len(frame) - sum(map(len, todo.values())))
    fresh: list[dict[str, Any]] = []
    for question, texts in todo.items():
        for start in range(0, len(texts), _PART):
            part = list(texts)[start : start + _PART]
            scores = score_answers(policy, question, [texts[i] for i in part])
            fresh += [
                {"id": i, **{name: getattr(score, name) for name in _SCORES}}
                for i, score in zip(part, scores, strict=True)
            ]
            on_progress(len(part))
            if len(fresh) >= _PART:
                _write_part(store, fresh)
                fresh = []
    _write_part(store, fresh)
    known = _stored(store)
    scored = frame.copy()
    for name in _SCORES:
        scored[name] = [known[i][name] if i in known else None for i in ids]
    both = list(zip(scored["logps_conditioned"], scored["logps_standalone"], strict=True))
    scored["length"] = [None if c is None else len(c) for c, _ in both]
    scored["v_nats"] = [None if c is None else sum(c) - sum(s) for c, s in both]
    if "correct" not in scored:
        triples = zip(scored["question"], scored["gold"], scored["answer"], strict=True)
        scored["correct"] = [
            judge(answer, gold).correct if _is_text(question) and _is_text(gold) else None
            for question, gold, answer in triples
        ]
    return scored


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
    sizes = usable.groupby("group_id")["answer"].transform("size")
    whole = sizes == scored.groupby("group_id")["answer"].transform("size")[usable.index]
    usable = usable[whole & (sizes > 1)]
    if usable.empty:
        raise ValueError(
            "No group has two or more answers that are all scored and judged. Rewards compare "
            "answers to one question; without gold answers nothing can be judged."
        )
    inputs = reward_inputs(usable.to_dict("records"), groups="group_id")
    names = names or [name for name, reward in REWARDS.items() if not reward.needs]
    logged = torch.tensor(usable["reward"].to_numpy(dtype=float))
    logged_advantages = group_advantages(logged, inputs.group_ids)
    table, advantages = [], usable[["group_id", "source"]].copy()
    for name in names:
        bonus = answer_bonus(inputs, name)
        paid = total_reward(inputs, name, alpha)
        replayed = group_advantages(paid.double(), inputs.group_ids)
        advantages[name] = replayed.tolist()
        both = (replayed.abs() > _FLIP) & (logged_advantages.abs() > _FLIP)
        flips = (replayed.sign() != logged_advantages.sign())[both].double()
        numbers = bonus_diagnostics(bonus, inputs, paid)
        row = {"reward": name, "mean": float(bonus.mean()), **numbers}
        share = float(flips.mean()) if len(flips) else 0.0
        table.append({**row, "flips": None if torch.isnan(logged).any() else share})
    return pd.DataFrame(table), advantages


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _stored(store: Path) -> dict[str, dict[str, Any]]:
    """Everything scored so far, by id."""
    parts = sorted(store.glob("part-*.parquet"))
    rows = (row for part in parts for row in pd.read_parquet(part).to_dict("records"))
    return {row["id"]: {**row, **{k: list(row[k]) for k in _SCORES[:2]}} for row in rows}


def _write_part(store: Path, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    store.mkdir(parents=True, exist_ok=True)
    number = len(list(store.glob("part-*.parquet")))
    replace_file(store / f"part-{number:05d}.parquet", pd.DataFrame(rows).to_parquet)
