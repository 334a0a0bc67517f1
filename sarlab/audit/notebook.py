"""What notebook 04 shows: its parameters checked, then one call per cell, tables as static HTML.

Every view takes the :class:`Validity` of :func:`load_validity`, which reads answers and scores
them, or reads scores that were made before (scripts/gsm8k_validity.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from sarlab.audit.claims import (
    Claim,
    claim_table,
    claims_for,
    claims_text,
    group_table,
    groups_text,
    label_table,
    labels_text,
    option_table,
    options_text,
    score_columns,
    scores_text,
)
from sarlab.audit.failures import FAILURES, MODES, failure_answers, proof_answers
from sarlab.audit.plots import shares_figure
from sarlab.audit.scoring import (
    LabelledAnswer,
    Rows,
    by_question,
    is_scored,
    judged,
    read_labelled,
    read_scored,
    score_question,
    scored_run,
    standalone_prefixes,
)
from sarlab.display.figures import show
from sarlab.display.tables import Column, folded, html_table, html_view, text_table
from sarlab.display.text import plain, signed
from sarlab.display.token_view import answer_view
from sarlab.models import DATA, Policy, load_policy
from sarlab.prompts import StandaloneContext
from sarlab.rewards.answers import score_answers
from sarlab.runs.parameters import Settings, project_path
from sarlab.types import Question
from sarlab.widgets.html import answer_html

_SHIPPED = DATA / "validity"
_PROOFS = 20
_PREFERRED = {True: ("concise", "solution"), False: ("wrong", "operations_changed")}


@dataclass(frozen=True)
class ValiditySettings(Settings):
    """The parameters of notebook 04, checked. See the notebook for what each means."""

    answers: str = "data/examples/answers.jsonl"
    model: str = "smollm2-135m"
    claims: str = ""
    questions: int = 0
    standalone: str = "empty_turn"
    end_token: bool = True
    length_tolerance: float = 0.1
    failures: bool = True
    groups: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        contexts = [context.value for context in StandaloneContext]
        if self.standalone not in contexts:
            raise ValueError(
                f"standalone is {self.standalone!r}; choose one of {', '.join(contexts)}."
            )
        if self.questions < 0:
            raise ValueError(f"questions is {self.questions}; it must be 0 (all) or more.")
        if not 0 <= self.length_tolerance < 1:
            raise ValueError(
                f"length_tolerance is {self.length_tolerance}; it is a share of the longer "
                "answer, at least 0 and below 1."
            )
        if not self.models:
            raise ValueError("model is empty; name one, or several separated by commas.")

    @property
    def models(self) -> list[str]:
        """The models that score, the first of which the tables are about."""
        return [name.strip() for name in self.model.split(",") if name.strip()]

    @property
    def options(self) -> dict[str, Any]:
        """Standalone context and end token, as the tables take them."""
        return {"standalone": self.standalone, "end_token": self.end_token}


@dataclass(frozen=True)
class Validity:
    """Scored answers, what is claimed of them, and how far it holds.

    ``table``: rows of :func:`sarlab.audit.scoring.score_question`, those of the failure modes in
    ``failures``, those of sampled groups in ``groups``; ``measured`` is the claim table of the
    first model. ``policy`` is that model where it was loaded.
    """

    settings: ValiditySettings
    table: pd.DataFrame
    claims: Sequence[Claim]
    measured: pd.DataFrame
    failures: pd.DataFrame
    groups: pd.DataFrame
    policy: Policy | None = None

    @property
    def main(self) -> pd.DataFrame:
        """The answers as the first model scored them."""
        return self.table[self.table["model"] == self.table["model"].iloc[0]]


def load_validity(settings: ValiditySettings) -> Validity:
    """Read the answers, score them with a progress bar, and measure every claim.

    A folder or parquet file of scored answers is taken as it is, for the models that scored it.
    """
    path, policy = project_path(settings.answers), None
    if is_scored(path):
        table = read_scored(path)
    else:
        answers = read_labelled(path)
        claims_for([a.label for a in answers], settings.claims)  # refused before the model runs
        chosen = by_question(answers, settings.questions or None)
        if settings.failures:
            given = [answer for group in chosen for answer in group]
            chosen = by_question([*given, *_failures_of(chosen)])
        rows: Rows = []
        for name in settings.models:
            loaded = load_policy(name)
            policy, standalone = policy or loaded, standalone_prefixes(loaded)
            for group in tqdm(chosen, desc=name, unit="question", mininterval=1, leave=False):
                rows += score_question(loaded, group, standalone)
        table = pd.DataFrame(rows)
    first = table["model"] == table["model"].iloc[0]
    tricks = table["group"].str.endswith(f"/{FAILURES}")
    claims = claims_for(table[~tricks]["label"].tolist(), settings.claims)
    scores = score_columns(table[~tricks & first], **settings.options)
    tolerance = settings.length_tolerance
    measured = claim_table(table[~tricks & first], claims, scores, tolerance=tolerance)
    failures, groups = table[tricks & first], _groups(settings.groups)
    return Validity(settings, table[~tricks], claims, measured, failures, groups, policy)


def show_labels(validity: Validity) -> Any:
    """What was scored: one row per label."""
    main = validity.main
    scores = score_columns(main, **validity.settings.options)
    questions, model = main["question_id"].nunique(), main["model"].iloc[0]
    caption = f"{questions} questions, {len(main)} answers, scored by {model}"
    return html_view(html_table(labels_text(label_table(main, scores)), caption))


def show_claims(validity: Validity) -> Any:
    """SAR on every claim: pair share, AUC, effect size, and the first two at equal length."""
    measured, tolerance = validity.measured, validity.settings.length_tolerance
    near = f"pairs whose lengths differ by at most {tolerance:.0%} of the longer answer"
    return html_view(
        html_table(claims_text(measured), "all pairs"),
        html_table(claims_text(measured, equal_length=True), near),
        folded(
            "the same for SAR's log form, log ppl(a) − log ppl(a|q)",
            html_table(claims_text(measured, "log_sar")),
        ),
    )


def show_scores(validity: Validity) -> Any:
    """Every score on every claim: a figure, then the numbers."""
    show(shares_figure(validity.measured))
    more = {"AUC": "auc", "effect size d": "effect", "AUC at equal length": "equal_auc"}
    return html_view(
        html_table(scores_text(validity.measured), "pairs in the claimed order (%)"),
        html_table(scores_text(validity.measured, "equal_share"), "the same at equal length (%)"),
        *(folded(t, html_table(scores_text(validity.measured, n))) for t, n in more.items()),
    )


def show_options(validity: Validity) -> Any:
    """Pairs in the claimed order by model, standalone context, end token and log form."""
    tolerance = validity.settings.length_tolerance
    options = option_table(validity.table, validity.claims, tolerance=tolerance)
    return html_view(html_table(options_text(options), "pairs in the claimed order, SAR (%)"))


def show_groups(validity: Validity) -> Any:
    """Right against wrong within the groups that a policy sampled itself."""
    if validity.groups.empty:
        return html_view(
            "<p><i>No sampled groups were given. Make some with "
            "<code>scripts/gsm8k_validity.py --groups 8 --task …</code>, or name a run of "
            "notebook 02: <code>-p groups runs/NAME</code>.</i></p>"
        )
    tolerance = validity.settings.length_tolerance
    scores = score_columns(validity.groups, **validity.settings.options)
    measured = group_table(validity.groups, scores, tolerance=tolerance)
    show(shares_figure(measured))
    return html_view(html_table(groups_text(measured)))


def show_failures(validity: Validity) -> Any:
    """How often SAR prefers the bad answer, one row per mode and comparison."""
    failures, labels = validity.failures, set(validity.failures["label"])
    claims = {c: m.name for m in MODES for c in m.claims if {c.better, c.worse} <= labels}
    if not claims:
        return html_view("<p><i>No failure modes were scored (failures = False).</i></p>")
    scores = score_columns(failures, **validity.settings.options)[["sar", "tokens"]]
    measured = claim_table(failures, list(claims), scores)
    tokens = failures.groupby("label")["length"].mean()
    rates = measured.assign(
        mode=list(claims.values()),
        bad=[c.worse.replace("_", " ") for c in claims],
        good=[c.better.replace("_", " ") for c in claims],
        rate=1 - measured["share"],
        rate_low=1 - measured["share_high"],
        rate_high=1 - measured["share_low"],
        tokens=[f"{tokens[c.worse]:.0f} against {tokens[c.better]:.0f}" for c in claims],
    )
    columns = (
        Column("mode", "mode"),
        Column("SAR prefers", "bad"),
        Column("to", "good"),
        Column("rate (%)", "rate", 0, 100),
        Column("questions", "questions"),
        Column("mean tokens", "tokens"),
    )
    return html_view(html_table(text_table(rates, columns)))


def show_gallery(validity: Validity) -> Any:
    """For each mode the pair in which SAR prefers the bad answer most, token by token."""
    parts = []
    values = score_columns(validity.failures, **validity.settings.options)
    scored = validity.failures.assign(sar=values["sar"]).drop_duplicates(["label", "group"])
    sides = {label: rows.set_index("group") for label, rows in scored.groupby("label")}
    for mode in MODES:
        body = f"<p>{plain(mode.about)}</p><p><b>What to do:</b> {plain(mode.advice)}</p>"
        claim = mode.claims[0]
        if {claim.better, claim.worse} <= sides.keys():
            good, bad = sides[claim.better], sides[claim.worse]
            margin = (bad["sar"] - good["sar"]).dropna()
            if not margin.empty:
                body += _token_views(validity, good.loc[margin.idxmax()], bad.loc[margin.idxmax()])
        parts.append(f"<h4>{plain(mode.name)}</h4>{body}")
    return html_view(*parts)


def _failures_of(groups: Sequence[Sequence[LabelledAnswer]]) -> list[LabelledAnswer]:
    """Answers of the failure modes to the questions at hand, and the proofs."""
    questions: list[Question] = []
    chosen: dict[bool, dict[str, str]] = {True: {}, False: {}}
    for group in groups:
        if group[0].gold is None:
            continue
        questions.append(Question(group[0].question, group[0].gold))
        for verdict, labels in _PREFERRED.items():  # else the first in the file
            fitting = [a for a in group if judged(a) is verdict]
            fitting.sort(key=lambda a: a.label not in labels)
            chosen[verdict] |= {a.question: a.answer for a in fitting[:1]}
    return [*failure_answers(questions, chosen[True], chosen[False]), *proof_answers(_PROOFS)]


def _token_views(validity: Validity, good: Any, bad: Any) -> str:
    if "question" not in good or validity.policy is None:
        return "<p><i>Token views need the texts and the model: name a file of answers.</i></p>"
    question, label = str(good["question"]), str(bad["label"]).replace("_", " ")
    score = score_answers(
        validity.policy,
        question,
        [str(bad["answer"])],
        standalone=StandaloneContext(validity.settings.standalone),
        append_eos=validity.settings.end_token,
    )[0]
    view = answer_html(answer_view(score), heading=label, legend=False, full=False)
    # The other answer as text: a second coloured view would double what a saved notebook weighs.
    other = f"against {str(good['label']).replace('_', ' ')}, SAR {signed(good['sar'], 2)}"
    text = f'<p style="white-space: pre-wrap">{plain(str(good["answer"]))}</p>'
    return f"<p><i>{plain(question)}</i></p>{view}" + folded(other, text)


def _groups(name: str) -> pd.DataFrame:
    """Sampled groups of the folder or run that was named, or those that ship, or none."""
    if not name:
        shipped = [read_scored(path) for path in sorted(_SHIPPED.glob("groups-*.parquet"))]
        return pd.concat(shipped, ignore_index=True) if shipped else pd.DataFrame()
    path = project_path(name)
    return scored_run(path) if (path / "run.json").exists() else read_scored(path)
