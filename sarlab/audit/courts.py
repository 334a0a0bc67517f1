"""What each design of :data:`sarlab.rewards.REWARDS` pays on a file of answers, before training.

Two courts: :func:`pairs_court` on labelled answers, :func:`groups_court` on groups that a policy
sampled itself. Both judge the bonus, since correctness beside it is known.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sarlab.audit.claims import Claim, claims_for, pivot_text
from sarlab.audit.failures import FAILURES, MODES
from sarlab.audit.measures import in_order
from sarlab.audit.scoring import (
    LabelledAnswer,
    is_scored,
    judged,
    read_labelled,
    read_scored,
    scored_run,
)
from sarlab.config import TrainConfig
from sarlab.display.tables import Column, text_table
from sarlab.evaluation.statistics import CONFIDENCE, Array, holm, named, named_mean
from sarlab.experience import inputs_of_texts
from sarlab.models import Policy, load_policy
from sarlab.rewards import REWARDS, Reward, answer_bonus, no_bonus
from sarlab.rewards.diagnostics import length_share, reward_inputs, slope_per_10_tokens
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
        answers.sort(key=lambda a: a.group_id)
        policy = load_policy(model)
        groups = [list(group) for _, group in itertools.groupby(answers, lambda a: a.group_id)]
        parts = [_from_texts(policy, group) for group in groups]
        names = ("question_id", "group", "label", "correct")
        rows = [(a.question_id, a.group_id, a.label, judged(a)) for a in answers]
        lengths = [n for part in parts for n in part.lengths.tolist()]
        table = pd.DataFrame(rows, columns=names).assign(length=lengths)
    if table.empty:
        raise ValueError(f"{path}: no answer was judged. Give gold answers.")
    bonuses = [_bonuses(dataclasses.replace(part, budget=budget)) for part in parts]
    return table, pd.concat(bonuses, ignore_index=True)


def pairs_court(
    answers: pd.DataFrame, bonuses: pd.DataFrame, claims: Sequence[Claim] = ()
) -> pd.DataFrame:
    """One row per claim and design: ``share`` of pairs in order, 95% interval over questions.

    ``share_p``: that the share is one half, ``share_holm``: corrected for all rows. ``claims``: by
    default those known of the labels, the failure modes included.
    """
    tricks = answers["group"].astype(str).str.endswith(f"/{FAILURES}")
    labels = answers["label"].to_numpy()
    if not claims:
        modes = [c for mode in MODES for c in mode.claims if {c.better, c.worse} <= {*labels}]
        claims = [*(claims_for(labels[~tricks]) if not tricks.all() else ()), *modes]
    questions = pd.factorize(answers["question_id"])[0]
    rows = []
    for claim, (name, bonus) in itertools.product(claims, bonuses.items()):
        sides = labels == claim.better, labels == claim.worse
        order = in_order(bonus.to_numpy(), *sides, questions, questions)
        rows.append({"claim": str(claim), "design": name, **order})
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
    right, length = answers["correct"].to_numpy(bool), answers["length"].to_numpy(float)
    question_of = pd.Series(questions).groupby(groups).first()
    blocks = min(_BLOCKS, len(set(questions)))

    def drawn(statistic: Callable[..., float | None], x: Array, among: Any) -> Array:
        """Of all these answers, then without each block of questions."""
        used = [among, *(among & (questions % blocks != block) for block in range(blocks))]
        return np.array([statistic(x[u], length[u], groups[u]) for u in used], dtype=float)

    rows, slopes = [], {}
    for name, column in bonuses.items():
        x = column.to_numpy(float)
        reward = pd.Series(ALPHA * x + right * REWARDS[str(name)].verifiable).groupby(groups)
        moved = (reward.max() - reward.min() > _NOTHING).groupby(question_of).mean()
        order = in_order(x, right, ~right, questions, groups)
        slopes[name] = drawn(slope_per_10_tokens, x, right)
        rows.append(
            {
                "design": name,
                **{k.replace("share", "auc"): v for k, v in order.items() if "share" in k},
                **_jackknife("length_share", drawn(length_share, x, right | ~right)),
                **_jackknife("slope", slopes[name]),
                **named_mean("signal", moved, share=True),
            }
        )
    sar = next(row for row in rows if row["design"] == "sar")
    for row in rows:
        shorter = row["slope_high"] < 0 and sar["slope_high"] < 0  # else no α matches them
        strength = slopes["sar"] / slopes[row["design"]] if shorter else slopes["sar"] * np.nan
        row |= _jackknife("alpha", ALPHA * strength)
    agreement = rank_agreement(answers, bonuses, ["sar"]).drop(columns="other")
    return _holm(pd.DataFrame(rows).merge(agreement, on="design"), "auc")


def rank_agreement(
    answers: pd.DataFrame, bonuses: pd.DataFrame, others: Sequence[str] = ()
) -> pd.DataFrame:
    """Spearman's correlation within groups: ``agreement`` of each ``design`` with each ``other``.

    95% intervals over questions. A group in which one of the two pays all answers the same is left
    out. ``others``: by default all designs.
    """
    groups = pd.factorize(answers["group"])[0]
    apart = bonuses.groupby(groups).rank()
    apart -= apart.groupby(groups).transform("mean")
    norms = np.sqrt((apart**2).groupby(groups).transform("sum"))
    unit = (apart / norms.where(norms > 0)).astype(float)
    question_of = answers["question_id"].groupby(groups).first()
    rows = []
    for other in others or unit:
        by_group = unit.mul(unit[other], axis=0).groupby(groups).sum(min_count=1)
        by_question = by_group.groupby(question_of).mean()
        rows += [
            {"design": name, "other": other, **named_mean("agreement", values.dropna())}
            for name, values in by_question.items()
        ]
    return pd.DataFrame(rows)


def pairs_text(table: pd.DataFrame) -> pd.DataFrame:
    """Share of pairs in order (%), a row per design and a column per claim.

    ° marks shares that are not told apart from one half (Holm over the whole table).
    """
    mark = np.where(table["share_holm"] < 1 - CONFIDENCE, "", "°")
    return pivot_text(table, Column("", "share", 0, 100), "design", "claim", mark)


def agreement_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`rank_agreement` as text, designs over designs."""
    return pivot_text(table, Column("", "agreement", 2, 1, "+"), "design", "other")


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
    alone = table["logp_empty_turn"].fillna(table["logp_bare"])
    conditioned, standalone = (
        [[total / n] * n for total, n in zip(sums, table["length"], strict=True)]
        for sums in (table["logp_conditioned"], alone)
    )
    rows = table.assign(logps_conditioned=conditioned, logps_standalone=standalone)
    return reward_inputs(rows.to_dict("records"), "group")


def _from_texts(policy: Policy, group: Sequence[LabelledAnswer]) -> RewardInputs:
    """One group with everything that any design reads."""
    question, texts = Question(group[0].question, str(group[0].gold)), [a.answer for a in group]
    needs = tuple({need for reward in REWARDS.values() for need in reward.needs})
    verdicts = judge_all(texts, [question] * len(texts))
    reads_all = Reward(no_bonus, True, "reads everything", needs=needs)
    return inputs_of_texts(policy, question, texts, verdicts, reads_all)


def _bonuses(inputs: RewardInputs) -> pd.DataFrame:
    """The bonus of every design whose needs are there."""
    return pd.DataFrame(
        {
            name: answer_bonus(inputs, name).tolist()
            for name, reward in REWARDS.items()
            if name not in _SAME and all(getattr(inputs, need) is not None for need in reward.needs)
        }
    )


def _jackknife(name: str, drawn: Array) -> dict[str, float]:
    """A statistic (first of ``drawn``) and its interval from those without each block."""
    freedom = len(drawn) - 2
    error = np.sqrt(freedom * np.var(drawn[1:]))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error)
    return named(name, drawn[0], (drawn[0] - half, drawn[0] + half))


def _holm(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table.assign(**{f"{name}_holm": holm(table[f"{name}_p"].tolist())})
