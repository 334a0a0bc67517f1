"""What scores and reward designs pay on answers whose order is known, before any training.

Values are a table with a row per answer and a column per design: SAR and simpler scores beside it
(:func:`score_columns`), or the bonuses of all rewards (:func:`paid_answers`), since correctness
beside a bonus is known. Two courts judge them: :func:`pairs_court` on labelled answers,
:func:`policy_table` and :func:`groups_court` on groups that a policy sampled itself.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sarlab.audit import labelled
from sarlab.audit.failures import FAILURES, MODES
from sarlab.audit.measures import contrast, pair_share
from sarlab.config import TrainConfig
from sarlab.display.tables import Column, text_table
from sarlab.evaluation.statistics import CONFIDENCE, Array, holm, named, named_mean
from sarlab.experience import inputs_of_texts
from sarlab.models import load_policy
from sarlab.rewards import REWARDS, Reward, answer_bonus, no_bonus
from sarlab.rewards.diagnostics import length_share, reward_inputs, slope_per_10_tokens
from sarlab.tasks import judge_all
from sarlab.types import Question

TOLERANCE = 0.1
"""Answers count as equally long up to this share of the longer one."""
ALPHA = 0.2
"""α of SAR that other designs are matched to."""
_SAME = ("correct", "sar_alone")  # no bonus; the bonus of sar
_NOTHING = 1e-8  # a difference of rewards below this is no signal
_BLOCKS = 20  # of questions, of which the jackknife leaves out one after the other


def score_columns(
    table: pd.DataFrame, standalone: str = "empty_turn", *, end_token: bool = True
) -> pd.DataFrame:
    """SAR and what it is compared with, higher counting as better; one row per scored answer.

    ``sar``; ``log_sar``, log ppl(a) − log ppl(a|q), which has no clip at −1; ``length``, minus the
    number of tokens; ``confidence``, −log ppl(a|q); ``ppl_standalone``, log ppl(a), the sign it has
    in SAR; ``correct``, 1 for a right final answer, else 0; and the number of ``tokens``.

    ``standalone`` is a :class:`sarlab.prompts.StandaloneContext`; without ``end_token`` it is left
    out of the mean. NaN where a score is not known: correctness without a gold answer, a context
    that was not scored, an answer of the end token alone.
    """
    length, sums = table["length"].astype(float), table.filter(like="logp_").astype(float)
    if not end_token:
        length -= table["end_conditioned"].notna()
        sums -= table[sums.columns.str.replace("logp", "end")].astype(float).fillna(0.0).to_numpy()
    length = length.where(length > 0)
    conditioned, unconditioned = (sums[f"logp_{c}"] / length for c in ("conditioned", standalone))
    log_sar = conditioned - unconditioned
    return pd.DataFrame(
        {
            "sar": np.maximum(-1.0, 1.0 - np.exp(-log_sar)),
            "log_sar": log_sar,
            "length": -length,
            "confidence": conditioned,
            "ppl_standalone": -unconditioned,
            "correct": table["correct"].map({True: 1.0, False: 0.0}).astype(float),
            "tokens": length,
        }
    )


def paid_answers(
    source: str | Path, model: str = "tiny", *, budget: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers (``question_id``, ``group``, ``label``, ``correct``, ``length``), and every bonus.

    ``source``: a run folder or scored answers, which hold sums of log-probs and so serve the
    designs that read sums, or a file of labelled answers, which ``model`` scores for all designs.
    ``budget``: of lengths, tokens; 0 for the default of training. Answers that nobody judged are
    left out; ValueError where none is left.
    """
    path, parts = Path(source), []
    if labelled.is_scored(path):
        table = labelled.read_scored(path)
        table = table[table["correct"].notna()].reset_index(drop=True)
        alone = table["logp_empty_turn"].fillna(table["logp_bare"])
        rows = table.assign(logp_standalone=alone).to_dict("records")
        for row in rows:  # spread evenly: right for designs that read sums or means
            for context in ("conditioned", "standalone"):
                row[f"logps_{context}"] = [row[f"logp_{context}"] / row["length"]] * row["length"]
        parts = [reward_inputs(rows, "group")] if rows else []
    else:
        answers = [a for a in labelled.read_labelled(path) if a.gold and a.is_right is not None]
        answers.sort(key=lambda a: a.group_id)
        policy = load_policy(model)
        needs = tuple({need for reward in REWARDS.values() for need in reward.needs})
        reads_all = Reward(no_bonus, True, "reads everything", needs=needs)
        for _, group in itertools.groupby(answers, lambda a: a.group_id):
            own = list(group)
            question, texts = Question(own[0].question, own[0].gold), [a.answer for a in own]
            verdicts = judge_all(texts, [question] * len(texts))
            parts.append(inputs_of_texts(policy, question, texts, verdicts, reads_all))
        facts = [(a.question_id, a.group_id, a.label, a.is_right) for a in answers]
        table = pd.DataFrame(facts, columns=["question_id", "group", "label", "correct"])
        table["length"] = [n for part in parts for n in part.lengths.tolist()]
    if table.empty:
        raise ValueError(f"{path}: no answer was judged. Give gold answers.")
    budget = budget or TrainConfig.max_answer_tokens
    parts = [dataclasses.replace(part, budget=budget) for part in parts]
    bonuses = {
        name: [bonus for part in parts for bonus in answer_bonus(part, name).tolist()]
        for name, reward in REWARDS.items()
        if name not in _SAME and all(getattr(parts[0], n) is not None for n in reward.needs)
    }
    return table, pd.DataFrame(bonuses)


def pairs_court(
    answers: pd.DataFrame,
    values: pd.DataFrame,
    claims: Sequence[str] = (),
    *,
    within: str = "question_id",
    tolerance: float | None = None,
) -> pd.DataFrame:
    """One row per ``claim`` and ``design``: ``share`` of pairs in order, 95% over questions.

    ``share_p``: that the share is one half, ``share_holm``: corrected for all rows. ``claims``: by
    default those known of the labels, the failure modes included. ``within``: the column that
    answers share which are compared. With ``tolerance`` also AUC and effect size
    (:func:`sarlab.audit.measures.contrast`), and with ``equal_`` the same at equal length.
    """
    labels = answers["label"].to_numpy()
    if not claims:
        tricks = answers["group"].astype(str).str.endswith(f"/{FAILURES}")
        modes = [c for mode in MODES for c in mode.claims if {*c.split(" > ")} <= {*labels}]
        claims = [*(labelled.claims_for(labels[~tricks]) if not tricks.all() else ()), *modes]
    questions, groups = (pd.factorize(answers[name])[0] for name in ("question_id", within))
    lengths = values.get("tokens", answers["length"]).to_numpy(float)
    designs, rows = values.drop(columns="tokens", errors="ignore"), []
    for claim, (design, column) in itertools.product(claims, designs.items()):
        better, worse = (labels == side for side in claim.split(" > "))
        given = (column.to_numpy(float), better, worse, questions)
        if tolerance is None:
            row = pair_share(*given, groups)
        else:
            equal = contrast(*given, groups=groups, lengths=lengths, tolerance=tolerance)
            row = contrast(*given, groups=groups) | {f"equal_{k}": v for k, v in equal.items()}
        rows.append({"claim": claim, "design": design, **row})
    table = pd.DataFrame(rows)
    return table.assign(share_holm=holm(table["share_p"].tolist()))


def option_table(answers: pd.DataFrame, claims: Sequence[str]) -> pd.DataFrame:
    """SAR in :func:`pairs_court` by ``model``, ``standalone`` context and ``end_token``."""
    parts = []
    for model, part in answers.groupby("model", sort=False):
        for standalone, end_token in itertools.product(("empty_turn", "bare"), (True, False)):
            scores = score_columns(part, standalone, end_token=end_token)
            table = pairs_court(part, scores[["sar", "log_sar"]], claims)
            parts.append(table.assign(model=model, standalone=standalone, end_token=end_token))
    return pd.concat(parts, ignore_index=True)


def label_table(answers: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """One row per label: answers, share right, and the means of tokens, SAR and its parts."""
    values = scores.drop(columns="length").rename(columns={"correct": "right"})
    values["clipped"] = values["sar"] <= -1.0
    by_label = values.groupby(answers["label"].to_numpy(), sort=False)
    return by_label.mean().assign(answers=by_label.size()).rename_axis("label").reset_index()


def policy_table(
    answers: pd.DataFrame, scores: pd.DataFrame, tolerance: float = TOLERANCE
) -> pd.DataFrame:
    """Right against wrong answers in :func:`pairs_court` within the groups of each ``model``.

    ``share`` is the AUC within a group, averaged over the questions that have a group with both.
    ``groups``, ``mixed_groups`` (with both), ``accuracy``. Raises ValueError where no answer has
    been judged.
    """
    answers = answers[answers["correct"].notna()]
    if answers.empty:
        raise ValueError(
            "No sampled answer was judged right or wrong. Give gold answers, or a field 'correct'."
        )
    parts = []
    for model, part in answers.groupby("model", sort=False):
        own = scores.loc[part.index].drop(columns="correct")
        table = _right_and_wrong(part, own, tolerance=tolerance)
        shares = part["correct"].astype(float).groupby(part["group"]).mean()
        mixed = int(shares.between(0, 1, inclusive="neither").sum())
        counts = {"groups": len(shares), "mixed_groups": mixed, "accuracy": part["correct"].mean()}
        parts.append(table.assign(model=model, **counts))
    return pd.concat(parts, ignore_index=True)


def _right_and_wrong(answers: pd.DataFrame, values: pd.DataFrame, **more: Any) -> pd.DataFrame:
    labels = np.where(answers["correct"].astype(bool), "right", "wrong")
    answers = answers.assign(label=labels)
    return pairs_court(answers, values, ["right > wrong"], within="group", **more)


def groups_court(answers: pd.DataFrame, bonuses: pd.DataFrame) -> pd.DataFrame:
    """One row per design, from groups that the policy sampled itself; 95% over questions.

    ``auc``: the share of :func:`pairs_court` for right against wrong answers of a group;
    ``length_share`` and ``slope`` per 10 tokens
    (:func:`sarlab.rewards.diagnostics.bonus_diagnostics`); ``signal``: share of groups in which
    rewards at ALPHA differ; ``agreement``: rank correlation with SAR within groups; ``alpha`` at
    which the slope is that of SAR at ALPHA, where a slope is known to be negative.
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
        slopes[name] = drawn(slope_per_10_tokens, x, right)
        rows.append(
            {
                "design": name,
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
    order = _right_and_wrong(answers, bonuses).set_index("design").filter(like="share")
    order = order.rename(columns=lambda name: name.replace("share", "auc"))
    agreement = rank_agreement(answers, bonuses, ["sar"]).drop(columns="other")
    return pd.DataFrame(rows).join(order, on="design").merge(agreement, on="design")


def rank_agreement(
    answers: pd.DataFrame, bonuses: pd.DataFrame, others: Sequence[str] = ()
) -> pd.DataFrame:
    """Spearman's correlation within groups: ``agreement`` of each ``design`` with each ``other``.

    95% intervals over questions; a group to which one of the two pays the same is left out.
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


def _jackknife(name: str, drawn: Array) -> dict[str, float]:
    """A statistic (first of ``drawn``) and its interval from those without each block."""
    freedom = len(drawn) - 2
    error = np.sqrt(freedom * np.var(drawn[1:]))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error)
    return named(name, drawn[0], (drawn[0] - half, drawn[0] + half))


# --- the tables as text ---------------------------------------------------------------------------


def pairs_text(table: pd.DataFrame) -> pd.DataFrame:
    """Share of pairs in order (%), a row per design and a column per claim.

    ° marks shares that are not told apart from one half (Holm over the whole table).
    """
    mark = np.where(table["share_holm"] < 1 - CONFIDENCE, "", "°")
    return pivot_text(table, Column("", "share", 0, 100), "design", "claim", mark)


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


def pivot_text(
    table: pd.DataFrame, cell: Column, row: str, head: str, mark: Any = ""
) -> pd.DataFrame:
    """One cell as text, by two columns of the table and in their order; ``mark`` behind each."""
    shown = words(table).assign(text=text_table(table, [cell])[""].to_numpy() + mark)
    wide = shown.pivot(index=row, columns=head, values="text")
    wide = wide.loc[shown[row].unique(), shown[head].unique()]
    return wide.rename_axis(columns=None).reset_index()


def words(table: pd.DataFrame) -> pd.DataFrame:
    """The table with claims and labels without underscores."""
    names = table.columns.intersection(["claim", "label"])
    return table.assign(**{name: table[name].str.replace("_", " ") for name in names})
