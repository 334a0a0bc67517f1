"""What notebook 04 shows: its parameters checked, then one call per cell, tables as static HTML.

Every view takes the :class:`Validity` of :func:`load_validity`, which reads answers and scores
them, or reads scores that were made before (scripts/gsm8k_validity.py).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from tqdm.auto import tqdm

from sarlab.audit import courts, labelled
from sarlab.audit.failures import FAILURES, MODES, failure_answers, proof_answers
from sarlab.audit.labelled import LabelledAnswer
from sarlab.display.figures import BLUE, GREY, GRID, ORANGE, show, style
from sarlab.display.tables import Column, folded, html_table, html_view, text_table
from sarlab.display.text import plain, signed
from sarlab.display.token_view import answer_view
from sarlab.evaluation.plots import interval_bars
from sarlab.models import DATA, Policy, load_policy
from sarlab.prompts import StandaloneContext
from sarlab.rewards.answers import score_answers
from sarlab.runs.parameters import Settings, project_path
from sarlab.types import Question
from sarlab.widgets.html import answer_html

_PROOFS = 20
_PREFERRED = {True: ("concise", "solution"), False: ("wrong", "operations_changed")}
# The scores of score_columns: name, colour and symbol; SAR is filled, the others are open.
_SCORES = {
    "sar": ("SAR", BLUE, "circle"),
    "log_sar": ("SAR, log form", "", ""),  # not drawn
    "length": ("short", ORANGE, "square-open"),
    "confidence": ("confidence", "#b8518f", "triangle-up-open"),
    "ppl_standalone": ("ppl(a)", "#00825f", "diamond-open"),
    "correct": ("correctness", GREY, "x-thin-open"),
}
_NAMES = {score: name for score, (name, _, _) in _SCORES.items()}


@dataclass(frozen=True)
class ValiditySettings(Settings):
    """The parameters of notebook 04, checked. See the notebook for what each means."""

    answers: str = "data/examples/answers.jsonl"
    model: str = "smollm2-135m"
    claims: str = ""
    questions: int = 0
    standalone: str = "empty_turn"
    end_token: bool = True
    length_tolerance: float = courts.TOLERANCE
    failures: bool = True
    groups: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        tolerance, contexts = self.length_tolerance, [c.value for c in StandaloneContext]
        if self.standalone not in contexts:
            names = ", ".join(contexts)
            raise ValueError(f"standalone is {self.standalone!r}; choose one of {names}.")
        if self.questions < 0:
            raise ValueError(f"questions is {self.questions}; it must be 0 (all) or more.")
        if not 0 <= tolerance < 1:
            raise ValueError(
                f"length_tolerance is {tolerance}; it is a share of the longer answer, at least 0 "
                "and below 1."
            )
        if not self.model.strip(" ,"):
            raise ValueError("model is empty; name one, or several separated by commas.")

    def scores(self, answers: pd.DataFrame) -> pd.DataFrame:
        """The answers' scores under the chosen standalone context and end token."""
        return courts.score_columns(answers, self.standalone, end_token=self.end_token)


@dataclass(frozen=True)
class Validity:
    """Rows of :func:`sarlab.audit.labelled.score_question`, and how far what is claimed holds.

    ``answers`` are of all models, ``measured`` (the court of pairs) and ``failures`` (answers of
    the failure modes) of the first, which is the ``policy`` where it was loaded.
    """

    settings: ValiditySettings
    answers: pd.DataFrame
    claims: Sequence[str]
    measured: pd.DataFrame
    failures: pd.DataFrame
    groups: pd.DataFrame
    policy: Policy | None = None


def load_validity(settings: ValiditySettings) -> Validity:
    """Read the answers, score them with a progress bar, and measure every claim.

    A folder or parquet file of scored answers is taken as it is, for the models that scored it.
    """
    path, policies = project_path(settings.answers), []
    if labelled.is_scored(path):
        table = labelled.read_scored(path)
    else:
        given = labelled.read_labelled(path)
        labels = [answer.label for answer in given]
        labelled.claims_for(labels, settings.claims)  # refused before the model runs
        chosen = labelled.by_question(given, settings.questions)
        if settings.failures:
            chosen += labelled.by_question(_failures_of(chosen))
        rows = []
        for name in filter(None, map(str.strip, settings.model.split(","))):
            policies.append(load_policy(name))
            for group in tqdm(chosen, desc=name, unit="question", mininterval=1, leave=False):
                rows += labelled.score_question(policies[-1], group)
        table = pd.DataFrame(rows)
    is_trick = table["group"].str.endswith(f"/{FAILURES}")
    is_first = table["model"] == table["model"].iloc[0]
    answers, first = table[~is_trick], table[~is_trick & is_first]
    claims = labelled.claims_for(answers["label"].tolist(), settings.claims)
    scores, tolerance = settings.scores(first), settings.length_tolerance
    measured = courts.pairs_court(first, scores, claims, tolerance=tolerance)
    shipped = sorted((DATA / "validity").glob("groups-*.parquet"))
    sources = [project_path(settings.groups)] if settings.groups else shipped
    groups = pd.concat(map(labelled.read_scored, sources), ignore_index=True)
    failures = table[is_trick & is_first]
    return Validity(settings, answers, claims, measured, failures, groups, *policies[:1])


def _failures_of(groups: Sequence[Sequence[LabelledAnswer]]) -> list[LabelledAnswer]:
    """Answers of the failure modes to the questions at hand, and the proofs."""
    questions = [Question(group[0].question, group[0].gold) for group in groups if group[0].gold]
    chosen: dict[bool, dict[str, str]] = {True: {}, False: {}}
    for verdict, labels in _PREFERRED.items():  # else the first in the file
        for group in groups:
            fitting = [a for a in group if a.is_right is verdict]
            fitting.sort(key=lambda a: a.label not in labels)
            chosen[verdict] |= {a.question: a.answer for a in fitting[:1]}
    return [*failure_answers(questions, chosen[True], chosen[False]), *proof_answers(_PROOFS)]


def _table(table: pd.DataFrame, columns: Sequence[Column], caption: str = "") -> str:
    return html_table(text_table(courts.words(table), columns), caption)


def show_labels(validity: Validity) -> Any:
    """What was scored: one row per label."""
    answers = validity.answers
    answers = answers[answers["model"] == answers["model"].iloc[0]]
    columns = (
        Column("label", "label"),
        Column("answers", "answers"),
        Column("right (%)", "right", 0, 100),
        Column("mean tokens", "tokens", 0),
        Column("mean SAR", "sar", 3, 1, "+"),
        Column("log form (nats)", "log_sar", 2, 1, "+"),
        Column("log ppl(a|q)", "confidence", 2, -1),
        Column("log ppl(a)", "ppl_standalone", 2),
        Column("at the clip of −1 (%)", "clipped", 0, 100),
    )
    table = courts.label_table(answers, validity.settings.scores(answers))
    questions, model = answers["question_id"].nunique(), answers["model"].iloc[0]
    caption = f"{questions} questions, {len(answers)} answers, scored by {model}"
    return html_view(_table(table, columns, caption))


def show_claims(validity: Validity) -> Any:
    """SAR on every claim: pair share, AUC, effect size, and the first two at equal length."""
    near = f"pairs whose lengths differ by at most {validity.settings.length_tolerance:.0%}"
    tables = []
    for score, prefix, caption in (
        ("sar", "", "all pairs"),
        ("sar", "equal_", f"{near} of the longer answer"),
        ("log_sar", "", ""),
    ):
        columns = [
            Column("claim", "claim"),
            Column("number of pairs", f"{prefix}pairs"),
            Column("in order (%)", f"{prefix}share", 1, 100),
            Column("AUC", f"{prefix}auc", 3),
            Column("effect size d", "effect", 2, 1, "+"),
        ]
        shown = validity.measured[validity.measured["design"] == score]
        tables.append(_table(shown, columns[:4] if prefix else columns, caption))
    log_form = "the same for SAR's log form, log ppl(a) − log ppl(a|q)"
    return html_view(*tables[:2], folded(log_form, tables[2]))


def show_scores(validity: Validity) -> Any:
    """Every score on every claim: a figure, then the numbers."""
    show(shares_figure(validity.measured, "claim"))
    measured = validity.measured.replace({"design": _NAMES})

    def table(title: str, *cell: Any) -> str:
        text = courts.pivot_text(measured, Column("", *cell), "claim", "design")
        return html_table(text, title)

    return html_view(
        table("pairs in the claimed order (%)", "share", 0, 100),
        table("the same at equal length (%)", "equal_share", 0, 100),
        folded("AUC", table("", "auc", 2)),
        folded("effect size d", table("", "effect", 2)),
        folded("AUC at equal length", table("", "equal_auc", 2)),
    )


def show_options(validity: Validity) -> Any:
    """Pairs in the claimed order by model, standalone context, end token and log form."""
    table = courts.option_table(validity.answers, validity.claims)
    default = (table["standalone"] == "empty_turn") & table["end_token"]
    table = table[(table["design"] == "sar") | default]  # the log form once
    ends = table["end_token"].map({True: ", with end token", False: ", no end token"})
    heads = table["standalone"].str.replace("_", " ") + ends
    heads = heads.mask(table["design"] == "log_sar", "log form")
    if table["model"].nunique() > 1:
        heads = table["model"] + ": " + heads
    cell = Column("", "share", 0, 100)
    text = courts.pivot_text(table.assign(head=heads), cell, "claim", "head")
    return html_view(html_table(text, "pairs in the claimed order, SAR (%)"))


def show_groups(validity: Validity) -> Any:
    """Right against wrong within the groups that a policy sampled itself."""
    settings, groups = validity.settings, validity.groups
    table = courts.policy_table(groups, settings.scores(groups), settings.length_tolerance)
    show(shares_figure(table, "model"))
    columns = (
        Column("policy", "model"),
        Column("right (%)", "accuracy", 1, 100),
        Column("groups with both", "mixed"),
        Column("score", "design"),
        Column("AUC within groups", "share", 3),
        Column("effect size d", "effect", 2, 1, "+"),
        Column("number of pairs", "pairs"),
        Column("of equal length", "equal_pairs"),
        Column("AUC, equal length", "equal_share", 3),
    )
    mixed = table["mixed_groups"].astype(str) + " of " + table["groups"].astype(str)
    return html_view(_table(table.assign(mixed=mixed).replace({"design": _NAMES}), columns))


def show_failures(validity: Validity) -> Any:
    """How often SAR prefers the bad answer, one row per mode and comparison."""
    failures = validity.failures
    tokens = failures.groupby("label")["length"].mean()
    modes = {" > ".join(reversed(c.split(" > "))): m.name for m in MODES for c in m.claims}
    modes = {c: name for c, name in modes.items() if {*c.split(" > ")} <= {*tokens.index}}
    if not modes:
        return html_view("<p><i>No failure modes were scored (failures = False).</i></p>")
    scores = validity.settings.scores(failures)[["sar"]]
    table = courts.pairs_court(failures, scores, list(modes))  # of claims turned: bad > good
    sides = table["claim"].str.split(" > ")
    table[["bad", "good"]] = courts.words(table)["claim"].str.split(" > ", expand=True)
    table["mode"] = list(modes.values())
    table["tokens"] = [f"{tokens[bad]:.0f} against {tokens[good]:.0f}" for bad, good in sides]
    columns = (
        Column("mode", "mode"),
        Column("SAR prefers", "bad"),
        Column("to", "good"),
        Column("rate (%)", "share", 0, 100),
        Column("questions", "questions"),
        Column("mean tokens", "tokens"),
    )
    return html_view(_table(table, columns))


def show_gallery(validity: Validity) -> Any:
    """For each mode the pair in which SAR prefers the bad answer most, token by token."""
    sar = validity.settings.scores(validity.failures)["sar"]
    scored = validity.failures.assign(sar=sar).drop_duplicates(["label", "group"])
    sides = {label: rows.set_index("group") for label, rows in scored.groupby("label")}
    parts = []
    for mode in MODES:
        parts.append(f"<h4>{plain(mode.name)}</h4><p>{plain(mode.about)}</p>")
        parts.append(f"<p><b>What to do:</b> {plain(mode.advice)}</p>")
        labels = mode.claims[0].split(" > ")
        if {*labels} <= sides.keys():
            good, bad = (sides[label] for label in labels)
            margin = (bad["sar"] - good["sar"]).dropna()
            if not margin.empty:
                worst = margin.idxmax()
                parts.append(_token_views(validity, good.loc[worst], bad.loc[worst]))
    return html_view(*parts)


def _token_views(validity: Validity, good: Any, bad: Any) -> str:
    if "question" not in good or validity.policy is None:
        return "<p><i>Token views need the texts and the model: name a file of answers.</i></p>"
    settings = validity.settings
    score = score_answers(
        validity.policy,
        good["question"],
        [bad["answer"]],
        standalone=StandaloneContext(settings.standalone),
        append_eos=settings.end_token,
    )[0]
    label = bad["label"].replace("_", " ")
    view = answer_html(answer_view(score), heading=label, legend=False, full=False)
    # The other answer as text: a second coloured view would double what a saved notebook weighs.
    other = f"against {good['label'].replace('_', ' ')}, SAR {signed(good['sar'], 2)}"
    text = f'<p style="white-space: pre-wrap">{plain(good["answer"])}</p>'
    return f"<p><i>{plain(good['question'])}</i></p>{view}" + folded(other, text)


def shares_figure(table: pd.DataFrame, column: str) -> go.Figure:
    """Share of pairs in order by score: all pairs left, those of equal length right.

    ``table``: of :func:`sarlab.audit.courts.pairs_court` or ``policy_table``; each value of
    ``column`` is a row. Bars are 95% intervals; the line at one half is a score that knows nothing.
    """
    of = "" if column == "claim" else " of a group"
    titles = (f"all pairs{of}", "pairs of equal length")
    figure = make_subplots(1, 2, subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.03)
    rows = table[column].unique().tolist()
    drawn = [score for score in _SCORES if _SCORES[score][1] and score in set(table["design"])]
    panels = itertools.product(("share", "equal_share"), enumerate(drawn))
    for measure, (place, score) in panels:
        title, colour, symbol = _SCORES[score]
        known = table[(table["design"] == score) & table[measure].notna()]
        shift = 0.64 * (place / max(1, len(drawn) - 1) - 0.5)  # within a row, SAR at its top
        look = {"color": colour, "symbol": symbol, "size": 8}
        figure.add_scatter(
            x=known[measure].tolist(),
            y=[rows.index(row) + shift for row in known[column]],
            error_x=interval_bars(known, measure, colour),
            mode="markers",
            marker={**look, "line": {"color": colour, "width": 2}},
            name=title,
            legendgroup=score,
            showlegend=measure == "share",
            text=known[column].str.replace("_", " ").tolist(),
            hovertemplate=f"{title}: %{{text}}: %{{x:.1%}}<extra></extra>",
            row=1,
            col=1 if measure == "share" else 2,
        )
    figure.add_vline(x=0.5, line={"color": GREY, "width": 1, "dash": "dot"})
    for border in range(1, len(rows)):
        figure.add_hline(y=border - 0.5, line={"color": GRID, "width": 1})
    axis = "AUC, right over wrong" if of else "share of pairs in the claimed order"
    figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%", title_text=axis, nticks=6)
    ends, names = [len(rows) - 0.4, -0.6], [row.replace("_", " ") for row in rows]
    figure.update_yaxes(tickvals=[*range(len(rows))], ticktext=names, range=ends, showgrid=False)
    return style(figure, height=110 + 46 * len(rows)).update_annotations(font_size=13)
