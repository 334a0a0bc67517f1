"""What notebook 05 shows: every reward design on one source of answers, one call per cell."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from tqdm.auto import tqdm

from sarlab.audit.courts import (
    agreement_text,
    groups_court,
    groups_text,
    paid_answers,
    pairs_court,
    rank_agreement,
)
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
_TRICKS = {str(claim): mode.name for mode in MODES for claim in mode.claims}


@dataclass(frozen=True)
class ZooSettings(Settings):
    """The parameters of notebook 05, checked. See the notebook for what each means."""

    source: str = ""
    model: str = "tiny"
    claims: str = ""
    budget: int = 0


@dataclass(frozen=True)
class Zoo:
    """Tables of both courts, and the rank agreement of designs within groups."""

    pairs: pd.DataFrame
    groups: pd.DataFrame
    agreement: pd.DataFrame


def load_zoo(settings: ZooSettings) -> Zoo:
    """Both courts on the user's file or run; without one, on the answers that ship."""
    sources = (project_path(settings.source),) if settings.source else _SHIPPED
    with tqdm(total=3, desc="courts", leave=False) as bar:
        paid = [paid_answers(s, settings.model, budget=settings.budget) for s in sources]
        labelled, own = paid[0], paid[-1]
        bar.update()
        labels = labelled[0]["label"].tolist()
        claims = claims_for(labels, settings.claims) if settings.claims else ()
        pairs = pairs_court(*labelled, claims)
        bar.update()
        return Zoo(pairs, groups_court(*own), rank_agreement(*own))


def show_map(zoo: Zoo) -> None:
    """Designs over the questions asked: share of pairs in order, and AUC within own groups."""
    wide = zoo.pairs.pivot(index="design", columns="claim", values="share")
    wide = wide.loc[zoo.groups["design"], zoo.pairs["claim"].unique()]
    wide["right > wrong, sampled groups"] = zoo.groups.set_index("design")["auc"]
    wide.columns = wide.columns.str.replace("_", " ")
    _heat_map(100 * wide, "Pairs that the bonus puts in order (%)", (0, 100), "%{z:.0f}")


def show_agreement(zoo: Zoo) -> Any:
    """How far designs rank the answers of a group alike: Spearman's correlation."""
    names = zoo.groups["design"]
    wide = zoo.agreement.pivot(index="design", columns="other", values="agreement")
    _heat_map(wide.loc[names, names], "Rank agreement of designs within groups", (-1, 1))
    table = html_table(agreement_text(zoo.agreement))
    return html_view(folded("with 95% intervals over questions", table))


def show_groups(zoo: Zoo) -> Any:
    """The court of sampled groups as a table, and which designs order right above wrong."""
    sure = zoo.groups[zoo.groups["auc_holm"] < 0.05]
    lines = [
        f"<p><b>{head}</b>: {', '.join(names) or 'none'}.</p>"
        for head, names in (
            ("Right above wrong", sure[sure["auc"] > 0.5]["design"]),
            ("Wrong above right", sure[sure["auc"] < 0.5]["design"]),
            ("Length in disguise", zoo.groups[zoo.groups["length_share_low"] > 0.9]["design"]),
        )
    ]
    return html_view(*lines, html_table(groups_text(zoo.groups)), _left_out(zoo))


def _left_out(zoo: Zoo) -> str:
    """Which designs of the table the source cannot serve, by what it lacks."""
    lacking: dict[str, list[str]] = {}
    for name, reward in REWARDS.items():
        if reward.needs and name not in set(zoo.groups["design"]):
            first = reward.needs[0]
            lacking.setdefault(_READS.get(first, first), []).append(name)
    parts = [f"{', '.join(names)} ({what})" for what, names in lacking.items()]
    if not parts:
        return ""
    return (
        f"<p><b>Left out</b>, since the source does not hold what they read: {'; '.join(parts)}. "
        "A file of texts serves them all.</p>"
    )


def show_cards(zoo: Zoo) -> Any:
    """A card per design: what it pays, what it needs, its alpha, and what tricks it."""
    return html_view(*(_card(zoo, name) for name in zoo.groups["design"]))


def _card(zoo: Zoo, name: str) -> str:
    reward, row = REWARDS[name], zoo.groups.set_index("design").loc[name]
    needs = ["a pass without the question"] if reward.needs_standalone else []
    needs += [need.replace("_", " ") for need in reward.needs]
    facts = {
        "pays": " ".join((reward.bonus.__doc__ or reward.about).split()),
        "costs": f"{', '.join(needs) or 'nothing'} beyond sampling and judging",
        "α for SAR's strength at 0.2": number_text(row["alpha"], 3),
    }
    lost = zoo.pairs[(zoo.pairs["design"] == name) & (zoo.pairs["share_high"] < 0.5)]
    lost = lost[lost["share_holm"] < 0.05].sort_values("share")
    lost = lost.assign(claim=lost["claim"].str.replace("_", " "), trick=lost["claim"].map(_TRICKS))
    columns = (
        Column("tricked: pays the second more", "claim"),
        Column("in order (%)", "share", 0, 100),
        Column("failure mode", "trick"),
    )
    table = html_table(text_table(lost, columns)) if len(lost) else "<p>No claim is turned.</p>"
    body = "".join(f"<p><b>{head}</b>: {plain(text)}</p>" for head, text in facts.items())
    return folded(f"{name}: {reward.about}", body + table)


def _heat_map(table: pd.DataFrame, title: str, ends: tuple[int, int], text: str = "") -> None:
    figure = go.Figure(
        go.Heatmap(
            x=table.columns.tolist(),
            y=table.index.tolist(),
            z=table.to_numpy().round(2).tolist(),
            zmin=ends[0],
            zmax=ends[1],
            colorscale=[[0, ORANGE], [0.5, "#ffffff"], [1, BLUE]],
            texttemplate=text,
            textfont={"color": "#111111"},
            colorbar={"thickness": 12},
            customdata=[[f"{row}, {column}" for column in table] for row in table.index],
            hovertemplate="%{customdata}: %{z}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(tickangle=-50, showgrid=False)
    show(style(figure, height=300 + 20 * len(table), title=title))
