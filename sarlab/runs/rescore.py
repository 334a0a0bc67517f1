"""What rewards would have paid in anybody's run: score its answers, then replay the rewards."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

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
_PART = 64  # answers scored at once, and written
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
    store.mkdir(parents=True, exist_ok=True)
    texts = list(zip(frame["question"], frame["answer"], strict=True))
    key = f"{policy.reference}|{StandaloneContext.EMPTY_TURN.value}"
    ids = [hashlib.sha256(json.dumps([key, *pair]).encode()).hexdigest()[:24] for pair in texts]
    parts = sorted(store.glob("part-*.parquet"))
    known = {row["id"]: row for part in parts for row in pd.read_parquet(part).to_dict("records")}
    todo: dict[str, dict[str, str]] = {}  # per question: id and answer
    for i, (question, answer) in zip(ids, texts, strict=True):
        if i not in known and _is_text(question) and _is_text(answer):
            todo.setdefault(question, {})[i] = answer
    on_progress(len(frame) - sum(map(len, todo.values())))
    for question, answers in todo.items():
        for start in range(0, len(answers), _PART):
            part_ids = list(answers)[start : start + _PART]
            scores = score_answers(policy, question, [answers[i] for i in part_ids])
            rows = [
                {"id": i, **{name: getattr(score, name) for name in _SCORES}}
                for i, score in zip(part_ids, scores, strict=True)
            ]
            path = store / f"part-{len(parts):05d}.parquet"
            replace_file(path, pd.DataFrame(rows).to_parquet)
            parts.append(path)
            known |= {row["id"]: row for row in rows}
            on_progress(len(rows))
    scored = frame.copy()
    for name in _SCORES:
        scored[name] = [known.get(i, {}).get(name) for i in ids]
    conditioned, standalone = scored["logps_conditioned"], scored["logps_standalone"]
    scored["length"] = conditioned.str.len()
    scored["v_nats"] = conditioned.map(sum, "ignore") - standalone.map(sum, "ignore")
    if "correct" not in scored:
        triples = zip(scored["question"], scored["gold"], scored["answer"], strict=True)
        scored["correct"] = [
            judge(answer, gold).correct if _is_text(question) and _is_text(gold) else None
            for question, gold, answer in triples
        ]
    return scored


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


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
