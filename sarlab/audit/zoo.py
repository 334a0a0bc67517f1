"""What notebook 05 shows: every reward design on one source of answers, one call per cell."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from tqdm.auto import tqdm

from sarlab.audit import courts
from sarlab.audit.failures import MODES
from sarlab.audit.labelled import claims_for
from sarlab.display.figures import BLUE, ORANGE, show, style
from sarlab.display.tables import Column, folded, html_table, html_view, number_text, text_table
from sarlab.display.text import plain
from sarlab.models import DATA
from sarlab.rewards import REWARDS
from sarlab.runs.parameters import Settings, project_path

_SHIPPED = tuple(DATA / "validity" / name for name in ("answers.parquet", "groups-tiny.parquet"))
_READS = {  # the first of a design's needs, in words
    "copied": "which tokens repeat the question",
    "line_ids": "what lines take from each other",
    "entropy": "entropy per token",
    "self_certainty": "self-certainty per token",
    "gold_logps": "log-probs of the reference answer",
    "answer_keys": "the results that answers give",
}
_TRICKS = {claim: mode.name for mode in MODES for claim in mode.claims}


@dataclass(frozen=True)
class ZooSettings(Settings):
    """The parameters of notebook 05, checked. See the notebook for what each means."""

    source: str = ""
    model: str = "tiny"
    claims: str = ""
    budget: int = 0


class Zoo(NamedTuple):
    """Tables of both courts, and the rank agreement of designs within groups."""

    pairs: pd.DataFrame
    groups: pd.DataFrame
    agreement: pd.DataFrame


def load_zoo(settings: ZooSettings) -> Zoo:
    """Both courts on the user's file or run; without one, on the answers that ship."""
    sources = (project_path(settings.source),) if settings.source else _SHIPPED
    with tqdm(total=3, desc="courts", leave=False) as bar:
        paid = [courts.paid_answers(s, settings.model, budget=settings.budget) for s in sources]
        bar.update()
        labels = paid[0][0]["label"].tolist()
        claims = claims_for(labels, settings.claims) if settings.claims else ()
        pairs = courts.pairs_court(*paid[0], claims)
        bar.update()
        return Zoo(pairs, courts.groups_court(*paid[-1]), courts.rank_agreement(*paid[-1]))


def show_map(zoo: Zoo) -> None:
    """Designs over the questions asked: share of pairs in order, and AUC within own groups."""
    shares = zoo.pairs.pivot(index="design", columns="claim", values="share")
    shares = shares.loc[zoo.groups["design"], zoo.pairs["claim"].unique()]
    shares["right > wrong, sampled groups"] = zoo.groups.set_index("design")["auc"]
    shares.columns = shares.columns.str.replace("_", " ")
    _heat_map(100 * shares, "Pairs that the bonus puts in order (%)", 0, 100, "%{z:.0f}")


def show_agreement(zoo: Zoo) -> Any:
    """How far designs rank the answers of a group alike: Spearman's correlation."""
    names = zoo.groups["design"]
    wide = zoo.agreement.pivot(index="design", columns="other", values="agreement")
    _heat_map(wide.loc[names, names], "Rank agreement of designs within groups", -1, 1)
    cell = Column("", "agreement", 2, 1, "+")
    table = html_table(courts.pivot_text(zoo.agreement, cell, "design", "other"))
    return html_view(folded("with 95% intervals over questions", table))


def _heat_map(table: pd.DataFrame, title: str, low: int, high: int, text: str = "") -> None:
    cells = go.Heatmap(
        x=table.columns.tolist(),
        y=table.index.tolist(),
        z=table.to_numpy().round(2).tolist(),
        zmin=low,
        zmax=high,
        colorscale=[[0, ORANGE], [0.5, "#ffffff"], [1, BLUE]],
        texttemplate=text,
        textfont={"color": "#111111"},
        colorbar={"thickness": 12},
        customdata=[[f"{row}, {column}" for column in table] for row in table.index],
        hovertemplate="%{customdata}: %{z}<extra></extra>",
    )
    figure = style(go.Figure(cells), height=300 + 20 * len(table), title=title)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(tickangle=-50, showgrid=False)
    show(figure)


def show_groups(zoo: Zoo) -> Any:
    """The court of sampled groups as a table, and which designs order right above wrong."""
    groups = zoo.groups.set_index("design")
    sure = groups["auc_holm"] < 0.05
    findings = {
        "Right above wrong": sure & (groups["auc"] > 0.5),
        "Wrong above right": sure & (groups["auc"] < 0.5),
        "Length in disguise": groups["length_share_low"] > 0.9,
    }
    lines = [
        f"<p><b>{head}</b>: {', '.join(groups.index[rows]) or 'none'}.</p>"
        for head, rows in findings.items()
    ]
    missing = {n: r.needs[0] for n, r in REWARDS.items() if r.needs and n not in groups.index}
    reads = pd.Series(missing, dtype=str).replace(_READS)
    parts = [
        f"{', '.join(own)} ({what})"
        for what, own in reads.groupby(reads, sort=False).groups.items()
    ]
    left_out = (
        f"<p><b>Left out</b>, since the source does not hold what they read: {'; '.join(parts)}. "
        "A file of texts serves them all.</p>"
    )
    table = html_table(courts.groups_text(zoo.groups))
    return html_view(*lines, table, left_out if parts else "")


def show_cards(zoo: Zoo) -> Any:
    """A card per design: what it pays, what it needs, its alpha, and what tricks it."""
    turned = zoo.pairs[(zoo.pairs["share_high"] < 0.5) & (zoo.pairs["share_holm"] < 0.05)]
    turned = turned.assign(trick=turned["claim"].map(_TRICKS))
    columns = (
        Column("tricked: pays the second more", "claim"),
        Column("in order (%)", "share", 0, 100),
        Column("failure mode", "trick"),
    )
    cards, no_tricks = [], "<p>No claim is turned.</p>"
    for name, alpha in zip(zoo.groups["design"], zoo.groups["alpha"], strict=True):
        reward, lost = REWARDS[name], turned[turned["design"] == name].sort_values("share")
        needs = ["a pass without the question"] if reward.needs_standalone else []
        needs += [need.replace("_", " ") for need in reward.needs]
        facts = {
            "pays": " ".join((reward.bonus.__doc__ or reward.about).split()),
            "costs": f"{', '.join(needs) or 'nothing'} beyond sampling and judging",
            "α for SAR's strength at 0.2": number_text(alpha, 3),
        }
        body = "".join(f"<p><b>{head}</b>: {plain(text)}</p>" for head, text in facts.items())
        body += html_table(text_table(courts.words(lost), columns)) if len(lost) else no_tricks
        cards.append(folded(f"{name}: {reward.about}", body))
    return html_view(*cards)
