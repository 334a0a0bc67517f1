"""What each design of :data:`sarlab.rewards.REWARDS` pays on a file of answers, before training.

Two courts: :func:`pairs_court` on labelled answers, :func:`groups_court` on groups that a policy
sampled itself. Both judge the bonus, since correctness beside it is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

from sarlab.audit.claims import Claim, claims_for
from sarlab.audit.failures import FAILURES, MODES
from sarlab.audit.measures import order_shares
from sarlab.audit.records import judged, read_labelled
from sarlab.audit.scoring import is_scored, read_scored, scored_run
from sarlab.config import TrainConfig
from sarlab.display.tables import Column, text_table
from sarlab.evaluation.statistics import CONFIDENCE, Array, holm, mean_interval, sign_flip_p
from sarlab.experience import inputs_of_texts
from sarlab.models import Policy, load_policy
from sarlab.rewards import REWARDS, Reward, answer_bonus, no_bonus
from sarlab.rewards.diagnostics import length_share, slope_per_10_tokens
from sarlab.tasks import judge_all
from sarlab.types import Question, RewardInputs

ALPHA = 0.2
"""α of SAR that other designs are matched to."""
_SAME = ("correct", "sar_alone")  # no bonus; the bonus of sar
_NOTHING = 1e-8  # a difference of rewards below this is no signal
_BLOCKS = 20  # of questions, of which the jackknife leaves out one after the other


def paid_answers(
    source: str | Path, model: str = "tiny", *, budget: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers (``question_id``, ``group``, ``label``, ``correct``, ``length``), and every bonus.

    ``source``: a run folder or a .parquet of scored answers, which hold sums of log-probs and so
    serve the designs that read sums, or a file of labelled answers, which ``model`` scores for all
    designs. ``budget``: of lengths, tokens; 0 for the default of training. Answers that nobody
    judged are left out; ValueError where none is left.
    """
    path = Path(source)
    budget = budget or TrainConfig.max_answer_tokens
    is_run = (path / "run.json").exists()
    if is_run or is_scored(path):
        table = scored_run(path) if is_run else read_scored(path)
        table = table[table["correct"].notna()].reset_index(drop=True)
        parts = [_from_sums(table)] if len(table) else []
    else:
        answers = [a for a in read_labelled(path) if judged(a) is not None and a.gold]
        policy = load_policy(model)
        names = ("question_id", "group", "label", "correct")
        table = pd.DataFrame(
            [(a.question_id, a.group_id, a.label, judged(a)) for a in answers], columns=names
        ).sort_values("group", kind="stable")
        parts = [
            _from_texts(
                policy,
                Question(answers[rows[0]].question, str(answers[rows[0]].gold)),
                [answers[row].answer for row in rows],
            )
            for rows in table.groupby("group").groups.values()
        ]
        table["length"] = [n for part in parts for n in part.lengths.tolist()]
    if table.empty:
        raise ValueError(f"{path}: no answer was judged. Give gold answers.")
    bonuses = [_bonuses(dataclasses.replace(part, budget=budget)) for part in parts]
    return table.reset_index(drop=True), pd.concat(bonuses, ignore_index=True)


def pairs_court(
    answers: pd.DataFrame, bonuses: pd.DataFrame, claims: Sequence[Claim] = ()
) -> pd.DataFrame:
    """One row per claim and design: ``share`` of pairs in order, 95% interval over questions.

    ``share_p``: that the share is one half, ``share_holm``: corrected for all rows. ``claims``: by
    default those known of the labels, the failure modes included.
    """
    given = set(answers["label"])
    tricks = answers["group"].astype(str).str.endswith(f"/{FAILURES}")
    if not claims:
        modes = [c for mode in MODES for c in mode.claims if {c.better, c.worse} <= given]
        plain = answers.loc[~tricks, "label"].tolist()
        claims = [*(claims_for(plain) if plain else ()), *modes]
    questions = pd.factorize(answers["question_id"])[0]
    rows = []
    for claim in claims:
        better, worse = (
            (answers["label"] == side).to_numpy() for side in (claim.better, claim.worse)
        )
        for name, bonus in bonuses.items():
            shares = order_shares(bonus.to_numpy(), better, worse, questions, questions)
            rows.append({"claim": str(claim), "design": name, **_tested(shares, "share")})
    return _holm(pd.DataFrame(rows), "share")


def groups_court(answers: pd.DataFrame, bonuses: pd.DataFrame) -> pd.DataFrame:
    """One row per design, from groups that the policy sampled itself.

    ``auc``: chance that a right answer is paid more than a wrong one of its group, with ``auc_p``
    (that it is one half) and ``auc_holm``; ``length_share`` and ``slope`` per 10 tokens
    (:func:`sarlab.rewards.diagnostics.bonus_diagnostics`); ``signal``: share of groups in which
    rewards at ALPHA differ; ``agreement``: rank correlation with SAR within groups; ``alpha`` at
    which the slope is that of SAR at ALPHA, where a slope is known to be negative. Each with a 95%
    interval over questions.
    """
    questions, groups = (pd.factorize(answers[name])[0] for name in ("question_id", "group"))
    right = answers["correct"].to_numpy(dtype=bool)
    length = answers["length"].to_numpy(dtype=float)
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    question_of = pd.Series([questions[rows[0]] for rows in members])
    blocks = min(_BLOCKS, question_of.nunique())
    agreement = rank_agreement(answers, bonuses)[1]
    rows, slopes = [], {}
    for name, column in bonuses.items():
        x = column.to_numpy(dtype=float)
        reward = pd.Series(ALPHA * x + right * REWARDS[str(name)].verifiable).groupby(groups)
        moved = (reward.max() - reward.min() > _NOTHING).groupby(question_of).mean()
        left = [(x[rows], length[rows], right[rows]) for rows in members]
        drawn = []  # all groups, then without each block of questions
        for block in (-1, *range(blocks)):
            used = [g for g, q in zip(left, question_of, strict=True) if q % blocks != block]
            share = length_share([(b, n) for b, n, _ in used])
            slope = slope_per_10_tokens([(b[c], n[c]) for b, n, c in used])
            drawn.append((share, slope))
        shares, slopes[name] = np.array(drawn, dtype=float).T
        rows.append(
            {
                "design": name,
                **_tested(order_shares(x, right, ~right, questions, groups), "auc"),
                **_jackknife("length_share", shares),
                **_jackknife("slope", slopes[name]),
                **_interval("signal", moved, share=True),
                **_interval("agreement", agreement[name].groupby(question_of).mean().dropna()),
            }
        )
    sar = next(row for row in rows if row["design"] == "sar")
    for row in rows:
        shortens = row["slope_high"] < 0 and sar["slope_high"] < 0  # else no α matches them
        alpha = (
            ALPHA * slopes["sar"] / slopes[row["design"]] if shortens else slopes["sar"] * np.nan
        )
        row |= _jackknife("alpha", alpha)
    return _holm(pd.DataFrame(rows), "auc")


def rank_agreement(
    answers: pd.DataFrame, bonuses: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Spearman's correlation of designs within groups: means [designs, designs], and with SAR.

    The second has a row per group; NaN where a design pays all answers of the group the same.
    """
    groups = pd.factorize(answers["group"])[0]
    apart = bonuses.groupby(groups).rank()
    apart -= apart.groupby(groups).transform("mean")
    norms = np.sqrt((apart**2).groupby(groups).transform("sum"))
    unit = (apart / norms.where(norms > 0)).astype(float)
    spread = unit.groupby(groups).count().gt(0).astype(float)
    mean = unit.fillna(0.0).T @ unit.fillna(0.0) / (spread.T @ spread)
    return mean, unit.mul(unit["sar"], axis=0).groupby(groups).sum(min_count=1)


def pairs_text(table: pd.DataFrame) -> pd.DataFrame:
    """Share of pairs in order (%), a row per design and a column per claim.

    ° marks shares that are not told apart from one half (Holm over the whole table).
    """
    cell = Column("", "share", 0, 100)
    mark = np.where(table["share_holm"] < 1 - CONFIDENCE, "", "°")
    texts = [cell.text(row) for row in table.to_dict("records")]
    shown = table.assign(text=pd.Series(texts, table.index) + mark)
    wide = shown.pivot(index="design", columns="claim", values="text")
    wide = wide.loc[table["design"].unique(), table["claim"].unique()]
    return (
        wide.rename_axis(columns=None).rename(columns=lambda c: c.replace("_", " ")).reset_index()
    )


def groups_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`groups_court` as text."""
    columns = (
        Column("design", "design"),
        Column("AUC, right against wrong", "auc", 2),
        Column("p (½, Holm)", "auc_holm"),
        Column("length share", "length_share", 2),
        Column("slope per 10 tokens", "slope", 3, 1, "+"),
        Column("groups with a signal (%)", "signal", 0, 100),
        Column("rank agreement with SAR", "agreement", 2, 1, "+"),
        Column("α of SAR's strength at 0.2", "alpha", 3),
    )
    return text_table(table, columns)


def _from_sums(table: pd.DataFrame) -> RewardInputs:
    """Sums of log-probs spread evenly over the tokens: right for what reads sums or means."""
    lengths = torch.tensor(table["length"].to_numpy(dtype=int))
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    alone = table["logp_empty_turn"].fillna(table["logp_bare"])
    conditioned, standalone = (
        torch.tensor((sums / table["length"]).to_numpy(dtype="float32"))[:, None] * mask
        for sums in (table["logp_conditioned"], alone)
    )
    correct = torch.tensor(table["correct"].to_numpy(dtype="float32"))
    groups = torch.tensor(pd.factorize(table["group"])[0])
    return RewardInputs(correct, groups, mask, conditioned, standalone)


def _from_texts(policy: Policy, question: Question, texts: Sequence[str]) -> RewardInputs:
    """One group with everything that any design reads."""
    needs = {need for reward in REWARDS.values() for need in reward.needs}
    name = "every need"
    REWARDS[name] = Reward(no_bonus, True, "reads everything", needs=tuple(needs))
    try:
        verdicts = judge_all(texts, [question] * len(texts))
        return inputs_of_texts(policy, question, texts, verdicts, name)
    finally:
        del REWARDS[name]


def _bonuses(inputs: RewardInputs) -> pd.DataFrame:
    """The bonus of every design whose needs are there."""
    return pd.DataFrame(
        {
            name: answer_bonus(inputs, name).tolist()
            for name, reward in REWARDS.items()
            if name not in _SAME and all(getattr(inputs, need) is not None for need in reward.needs)
        }
    )


def _tested(shares: Array, name: str) -> dict[str, Any]:
    """Mean of shares by question, its interval, and the p-value of one half."""
    return {**_interval(name, shares, share=True), f"{name}_p": sign_flip_p(shares - 0.5)}


def _interval(name: str, values: Array, share: bool = False) -> dict[str, float]:
    ends = mean_interval(list(values), share=share) if len(values) else [np.nan] * 2
    mean = float(np.mean(values)) if len(values) else np.nan
    return {name: mean, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def _jackknife(name: str, drawn: Array) -> dict[str, float]:
    """A statistic (first of ``drawn``) and its interval from those without each block."""
    freedom = len(drawn) - 2
    error = np.sqrt(freedom * np.var(drawn[1:]))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error)
    return {name: drawn[0], f"{name}_low": drawn[0] - half, f"{name}_high": drawn[0] + half}


def _holm(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table.assign(**{f"{name}_holm": holm(table[f"{name}_p"].tolist())})
