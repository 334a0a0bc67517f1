"""What is claimed of a score, and tables that say whether it holds. Pure: tables in, tables out."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sarlab.audit.measures import Mask, contrast
from sarlab.display.tables import Column, text_table

SCORES: dict[str, str] = {
    "sar": "SAR",
    "log_sar": "SAR, log form",
    "length": "short",
    "confidence": "confidence",
    "ppl_standalone": "ppl(a)",
    "correct": "correctness",
}
"""Scores that are compared, higher counting as better, and their names in tables and figures.

Self-aligned reward; log ppl(a) − log ppl(a|q), which has no clip at −1; minus the number of tokens;
−log ppl(a|q); log ppl(a), the sign it has in SAR; 1 for a right final answer, else 0.
"""
TOLERANCE = 0.1
MAX_LEVELS = 6


@dataclass(frozen=True)
class Claim:
    """Answers labelled ``better`` should score above those labelled ``worse``."""

    better: str
    worse: str

    def __str__(self) -> str:
        return f"{self.better} > {self.worse}"


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


def claims_for(labels: Sequence[str], text: str = "") -> list[Claim]:
    """The claims that a table of answers with these labels is held to.

    ``text``: ``"a > b; c > d"``. Empty: numbers as labels, higher above lower; else those of
    :data:`KNOWN_CLAIMS` whose labels both occur. Raises ValueError for text that cannot be read, a
    label that does not occur, or where nothing is known of the labels.
    """
    present = list(dict.fromkeys(labels))
    names = ", ".join(map(repr, present[:12]))
    if text.strip():
        claims = _read_claims(text)
        for claim in claims:
            for side in (claim.better, claim.worse):
                if side not in present:
                    raise ValueError(f"The claim '{claim}' names {side!r}; the labels are {names}.")
        return claims
    numbers = pd.to_numeric(pd.Series(present), errors="coerce")
    if len(present) > 1 and np.isfinite(numbers).all():
        levels = sorted(present, key=float)
        if len(levels) > MAX_LEVELS:
            raise ValueError(
                f"The labels are {len(levels)} different numbers; at most {MAX_LEVELS} are "
                "compared each with each. Round them, or name claims such as '1 > 0'."
            )
        return [Claim(better, worse) for worse, better in itertools.combinations(levels, 2)]
    known = [c for c in _read_claims(KNOWN_CLAIMS) if c.better in present and c.worse in present]
    if not known:
        raise ValueError(
            f"Nothing is claimed of the labels {names}. Say what should score higher, such as "
            f"claims = '{present[0]} > {present[-1]}'."
        )
    return known


def _read_claims(text: str) -> list[Claim]:
    claims = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        sides = [side.strip() for side in part.split(">")]
        if len(sides) != 2 or not all(sides) or sides[0] == sides[1]:
            raise ValueError(
                f"The claim {part!r} cannot be read. Write claims as 'better > worse', "
                "separated by semicolons."
            )
        claims.append(Claim(*sides))
    return claims


def score_columns(
    table: pd.DataFrame, standalone: str = "empty_turn", *, end_token: bool = True
) -> pd.DataFrame:
    """The scores of :data:`SCORES` and ``tokens``, one row per answer, from the rows of scoring.

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


def claim_table(
    table: pd.DataFrame,
    claims: Sequence[Claim],
    scores: pd.DataFrame | None = None,
    *,
    tolerance: float = TOLERANCE,
) -> pd.DataFrame:
    """One row per claim and score; answers to one question are compared whatever their group.

    ``scores``: of :func:`score_columns`, or some of its columns with ``tokens``. Columns: those of
    :func:`sarlab.audit.measures.contrast`, and with ``equal_`` the same at equal length.
    """
    scores, labels = score_columns(table) if scores is None else scores, table["label"].to_numpy()
    sides = {str(c): (labels == c.better, labels == c.worse) for c in claims}
    return _compared(table["question_id"], table["question_id"], scores, "claim", sides, tolerance)


def group_table(
    table: pd.DataFrame, scores: pd.DataFrame | None = None, *, tolerance: float = TOLERANCE
) -> pd.DataFrame:
    """Right against wrong answers within sampled groups, one row per model and score.

    Columns as in :func:`claim_table` with ``model`` for ``claim``: ``share`` is the AUC within a
    group, averaged over the questions that have a group with both; ``groups``, ``mixed_groups``
    (with both), ``accuracy``. Raises ValueError where no answer has been judged.
    """
    table = table[table["correct"].notna()]
    if table.empty:
        raise ValueError(
            "No sampled answer was judged right or wrong. Give gold answers, or a field 'correct'."
        )
    scores = (score_columns(table) if scores is None else scores).drop(columns="correct")
    parts = []
    for model, part in table.groupby("model", sort=False):
        right, shares = part["correct"].astype(bool), part.groupby("group")["correct"].mean()
        sides = {str(model): (right.to_numpy(), ~right.to_numpy())}
        measured = _compared(
            part["question_id"], part["group"], scores.loc[part.index], "model", sides, tolerance
        )
        mixed = int(shares.between(0, 1, inclusive="neither").sum())
        parts.append(measured.assign(groups=len(shares), mixed_groups=mixed, accuracy=right.mean()))
    return pd.concat(parts, ignore_index=True)


def option_table(
    table: pd.DataFrame, claims: Sequence[Claim], *, tolerance: float = TOLERANCE
) -> pd.DataFrame:
    """SAR under every option: one row per claim, model, standalone context and end token in or out.

    Columns as in :func:`claim_table`, with ``model``, ``standalone`` and ``end_token``.
    """
    parts = []
    for model, part in table.groupby("model", sort=False):
        for standalone, end_token in itertools.product(("empty_turn", "bare"), (True, False)):
            scores = score_columns(part, standalone, end_token=end_token)
            chosen = scores[["sar", "log_sar", "tokens"]]
            measured = claim_table(part, claims, chosen, tolerance=tolerance)
            parts.append(measured.assign(model=model, standalone=standalone, end_token=end_token))
    return pd.concat(parts, ignore_index=True)


def label_table(table: pd.DataFrame, scores: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per label: answers, share right, and the means of tokens, SAR and its parts."""
    values = (score_columns(table) if scores is None else scores).drop(columns="length")
    values = values.rename(columns={"correct": "right"}).assign(clipped=values["sar"] <= -1.0)
    by_label = values.groupby(table["label"].to_numpy(), sort=False)
    means = by_label.mean().assign(answers=by_label.size())
    return means.rename_axis("label").reset_index()


def _compared(
    questions: pd.Series,
    groups: pd.Series,
    scores: pd.DataFrame,
    column: str,
    sides: Mapping[str, tuple[Mask, Mask]],
    tolerance: float,
) -> pd.DataFrame:
    """A row per pair of sides and score: all pairs, and those of equal length."""
    columns = scores.astype(float)
    of_question, of_group = (pd.factorize(of)[0] for of in (questions, groups))
    lengths, rows = columns.pop("tokens").to_numpy(), []
    for (name, (better, worse)), score in itertools.product(sides.items(), columns):
        given = (columns[score].to_numpy(), better, worse, of_question)
        whole = contrast(*given, groups=of_group)
        equal = contrast(*given, groups=of_group, lengths=lengths, tolerance=tolerance)
        equal = {f"equal_{k}": v for k, v in equal.items()}
        rows.append({column: name, "score": score, **whole, **equal})
    return pd.DataFrame(rows)


# --- the tables as text ---------------------------------------------------------------------------


def labels_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`label_table` as text."""
    columns = (
        Column("label", "label"),
        Column("answers", "answers"),
        Column("right (%)", "right", 0, 100),
        Column("mean tokens", "tokens", 0),
        Column("mean SAR", "sar", 3, 1, "+"),
        Column("log form (nats)", "log_sar", 2, 1, "+"),
        Column("log ppl(a|q)", "log_ppl", 2),
        Column("log ppl(a)", "ppl_standalone", 2),
        Column("at the clip of −1 (%)", "clipped", 0, 100),
    )
    return text_table(_words(table).assign(log_ppl=-table["confidence"]), columns)


def claims_text(
    table: pd.DataFrame, score: str = "sar", *, equal_length: bool = False
) -> pd.DataFrame:
    """How one score does on every claim, as text: of :func:`claim_table`."""
    prefix = "equal_" if equal_length else ""
    columns = (
        Column("claim", "claim"),
        Column("number of pairs", f"{prefix}pairs"),
        Column("in order (%)", f"{prefix}share", 1, 100),
        Column("AUC", f"{prefix}auc", 3),
        *(() if equal_length else (Column("effect size d", "effect", 2, 1, "+"),)),
    )
    return text_table(_words(table[table["score"] == score]), columns)


def scores_text(table: pd.DataFrame, name: str = "share") -> pd.DataFrame:
    """One measure of :func:`claim_table` as text, one column per score.

    ``name``: share, auc or effect, or with ``equal_`` before one of the first two; shares in
    percent.
    """
    cell = Column("", name, 0, 100) if name.endswith("share") else Column("", name, 2)
    return pivot_text(table.assign(head=table["score"].map(SCORES)), cell, "claim", "head")


def groups_text(table: pd.DataFrame) -> pd.DataFrame:
    """Right against wrong within groups, as text: of :func:`group_table`."""
    mixed = [f"{m} of {n}" for m, n in zip(table["mixed_groups"], table["groups"], strict=True)]
    columns = (
        Column("policy", "model"),
        Column("right (%)", "accuracy", 1, 100),
        Column("groups with both", "mixed"),
        Column("score", "score"),
        Column("AUC within groups", "share", 3),
        Column("effect size d", "effect", 2, 1, "+"),
        Column("number of pairs", "pairs"),
        Column("of equal length", "equal_pairs"),
        Column("AUC, equal length", "equal_share", 3),
    )
    return text_table(table.assign(mixed=mixed, score=table["score"].map(SCORES)), columns)


def options_text(table: pd.DataFrame) -> pd.DataFrame:
    """Share in order (%) by option, as text: of :func:`option_table`.

    The log form has one column, that of the defaults: empty turn, with end token.
    """
    default = (table["standalone"] == "empty_turn") & table["end_token"]
    shown = table[(table["score"] == "sar") | default]
    contexts = shown["standalone"].str.replace("_", " ")
    heads = contexts + shown["end_token"].map({True: ", with end token", False: ", no end token"})
    heads = heads.mask(shown["score"] == "log_sar", "log form")
    if shown["model"].nunique() > 1:
        heads = shown["model"] + ": " + heads
    return pivot_text(shown.assign(head=heads), Column("", "share", 0, 100), "claim", "head")


def pivot_text(
    table: pd.DataFrame, cell: Column, row: str, head: str, mark: Any = ""
) -> pd.DataFrame:
    """One cell as text, by two columns of the table and in their order; ``mark`` behind each."""
    shown = _words(table).assign(text=text_table(table, [cell])[""].to_numpy() + mark)
    wide = shown.pivot(index=row, columns=head, values="text")
    wide = wide.loc[shown[row].unique(), shown[head].unique()]
    return wide.rename_axis(columns=None).reset_index()


def _words(table: pd.DataFrame) -> pd.DataFrame:
    names = table.columns.intersection(["claim", "label"])
    return table.assign(**{n: table[n].astype(str).str.replace("_", " ") for n in names})
