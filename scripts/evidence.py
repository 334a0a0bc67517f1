"""Every table of docs/EVIDENCE.md, recomputed from shipped rows. No code of sarlab is used.

    python scripts/evidence.py              # all tables
    python scripts/evidence.py identity     # one of them; their names are in TABLES
    python scripts/evidence.py --write docs/EVIDENCE.md

numpy and pandas alone, so that a mistake in the library's own statistics would show here.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
DRAWS = 2000  # bootstrap resamples
PAIRS = {  # better, worse
    "solution > Socratic form": ("solution", "socratic"),
    "solution > last step cut": ("solution", "last_step_cut"),
    "solution > operations changed": ("solution", "operations_changed"),
    "solution > one number changed": ("solution", "number_changed"),
    "solution > no thought": ("solution", "no_thought"),
    "solution > off topic": ("solution", "off_topic"),
    "right > copied question": ("right", "copied_question"),
}
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)


# Statistics


def t_cdf(t: float, df: float) -> float:
    """Student's t distribution function, by Simpson's rule on its density."""
    x = np.linspace(0, abs(t), 20_001)
    density = (1 + x * x / df) ** (-(df + 1) / 2)
    norm = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    weights = np.where(np.arange(len(x)) % 2, 4, 2)
    weights[0] = weights[-1] = 1
    half = norm * float(weights @ density) * (x[1] - x[0]) / 3
    return 0.5 + math.copysign(min(half, 0.5), t)


def t_quantile(p: float, df: float) -> float:
    """Where :func:`t_cdf` reaches p, by bisection."""
    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return low


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and t interval."""
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return mean, math.nan, math.nan
    half = t_quantile(0.5 + level / 2, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def t_p(values: np.ndarray) -> float:
    """Two-sided p of a one-sample t test against 0."""
    n, sd = len(values), float(np.std(values, ddof=1))
    return 2 * (1 - t_cdf(abs(float(np.mean(values))) * math.sqrt(n) / sd, n - 1))


def welch(a: np.ndarray, b: np.ndarray, level: float = 0.95) -> tuple[float, float, float, float]:
    """Difference of means a − b, its interval and p, unequal variances."""
    va, vb = np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)
    se = math.sqrt(va + vb)
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    diff = float(np.mean(a) - np.mean(b))
    half = t_quantile(0.5 + level / 2, df) * se
    return diff, diff - half, diff + half, 2 * (1 - t_cdf(abs(diff) / se, df))


def holm(p: list[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    order, adjusted, largest = np.argsort(p), [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def bootstrap(
    parts: np.ndarray, measure: Callable[[np.ndarray], Any], seed: int = 0
) -> tuple[float, float, float]:
    """A measure of summed parts (one row per group) and its 95% interval, groups resampled."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(parts), (DRAWS, len(parts)))
    sums = np.stack([parts[row].sum(axis=0) for row in rows])
    low, high = np.nanquantile(measure(sums), [0.025, 0.975])
    return float(measure(parts.sum(axis=0)[None])[0]), float(low), float(high)


def mean_bootstrap(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """A mean and its 95% percentile interval; ``values`` are independent."""
    rng = np.random.default_rng(seed)
    draws = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


# Scores from sums of log-probs


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """Answers with V, SAR and its relatives, from sums of log-probs and length."""
    standalone = "logp_standalone" if "logp_standalone" in frame else "logp_empty_turn"
    c, s, n = frame["logp_conditioned"], frame[standalone], frame["length"].astype(float)
    return frame.assign(
        V=c - s,
        n=n,
        SAR=(1 - np.exp(-(c - s) / n)).clip(lower=-1),
        confidence=c / n,
        length=n,
        **{f"lambda {x:g}": (c - x * s) / n for x in LAMBDAS},
    )


def groups_of(name: str, *, bonuses: bool = False) -> pd.DataFrame | None:
    """The base answers of a policy, 8 or 16 to a question; ``bonuses``: with all bonuses."""
    paths = [DATA / f"validity/groups-{name}.parquet", DATA / f"rewards/answers-{name}.parquet"]
    for path in reversed(paths) if bonuses else paths:
        if path.exists():
            return scored(pd.read_parquet(path))
    return None


def r2_length(frame: pd.DataFrame) -> tuple[float, float, float]:
    """R² within groups of SAR on 1 − exp(−c/n), c the group's mean V."""
    parts = []
    for _, g in frame.groupby("group"):
        sar, curve = g["SAR"].to_numpy(), 1 - np.exp(-g["V"].mean() / g["n"].to_numpy())
        x, y = sar - sar.mean(), curve - curve.mean()
        parts.append((x @ y, x @ x, y @ y))
    return bootstrap(np.array(parts), lambda s: s[:, 0] ** 2 / (s[:, 1] * s[:, 2]))


def auc(right: np.ndarray, wrong: np.ndarray) -> float:
    """Chance that a right one is above a wrong one; ties count half."""
    apart = right[:, None] - wrong[None]
    return float(((apart > 0) + 0.5 * (apart == 0)).mean())


def identity() -> Iterator[dict[str, Any]]:
    """What V, length and SAR have to do with each other in the policies' own groups."""
    for name in ("tiny", "tiny-facts", "model"):
        frame = groups_of(name)
        if frame is None:
            continue
        right = frame[frame.correct]
        spread = [g.V.std() / g.V.mean() for _, g in right.groupby("group") if len(g) > 1]
        aucs = {
            column: np.mean(
                [
                    auc(g[g.correct][column].to_numpy(), g[~g.correct][column].to_numpy())
                    for _, g in frame.groupby("group")
                    if g.correct.nunique() == 2
                ]
            )
            for column in ("SAR", "confidence")
        }
        yield {
            "policy": {"model": "smollm2-135m, sums"}.get(name, name),
            "groups": frame.group.nunique(),
            "V, nats": f"{frame.V.mean():.1f} (SD {frame.V.std():.1f})",
            "CV of V, right answers of a group": f"{100 * np.mean(spread):.1f}%",
            "R² of SAR on length, all": interval(r2_length(frame), 2),
            "R², right answers": interval(r2_length(right), 2),
            "AUC of SAR": f"{aucs['SAR']:.2f}",
            "AUC of confidence": f"{aucs['confidence']:.2f}",
        }


def interval(triple: tuple[float, float, float], digits: int = 1, scale: float = 1.0) -> str:
    """``value [low, high]``."""
    value, low, high = (f"{scale * x:.{digits}f}".replace("-", "−") for x in triple)
    return value if low == "nan" else f"{value} [{low}, {high}]"


# The study on `tiny` that there was


def study_runs() -> pd.DataFrame:
    """Accuracy and mean length of each run's held-out answers, from the rows themselves."""
    rows = []
    for folder in sorted((DATA / "study").glob("*-s?")):
        arm, _, seed = folder.name.rpartition("-s")
        (part,) = (folder / "rollouts.parquet").glob("heldout_trained-*.parquet")
        held = pd.read_parquet(part, columns=["correct", "length"])
        rows.append((arm, int(seed), held.correct.mean(), held.length.mean()))
    return pd.DataFrame(rows, columns=["arm", "seed", "accuracy", "length"])


def study() -> Iterator[dict[str, Any]]:
    """Every arm against GRPO on the seeds that both have; α is not matched here."""
    runs = study_runs().set_index(["arm", "seed"])
    base = runs.loc["grpo"]
    for arm in runs.index.get_level_values("arm").unique():
        own = runs.loc[arm]
        seeds = own.index.intersection(base.index)
        row: dict[str, Any] = {
            "arm": arm,
            "seeds": len(own),
            "accuracy, %": interval(t_interval(own.accuracy.to_numpy()), 1, 100),
            "tokens": interval(t_interval(own.length.to_numpy())),
        }
        if arm != "grpo":
            tokens = (own.length.loc[seeds] - base.length.loc[seeds]).to_numpy()
            points = 100 * (own.accuracy.loc[seeds] - base.accuracy.loc[seeds]).to_numpy()
            row["tokens − GRPO, same seeds"] = interval(t_interval(tokens))
            row["p"] = f"{t_p(tokens):.3f}"
            row["points − GRPO"] = interval(t_interval(points))
        yield row


def steps() -> Iterator[dict[str, Any]]:
    """SA-GRPO 0.2 against GRPO by step: five-step means of training length, five seeds."""

    def curve(arm: str, seed: int) -> pd.Series:
        lines = (DATA / f"study/{arm}-s{seed}/metrics.jsonl").read_text().splitlines()
        return pd.Series({m["step"]: m["mean_length"] for m in map(json.loads, lines)})

    arms = {
        arm: pd.DataFrame({s: curve(arm, s).rolling(5).mean() for s in range(5)})
        for arm in ("grpo", "sa_grpo_0.2")
    }
    for step in (10, 20, 30, 40, 50, 60):
        grpo, sar = arms["grpo"].loc[step].to_numpy(), arms["sa_grpo_0.2"].loc[step].to_numpy()
        yield {
            "step": step,
            "GRPO, tokens": f"{grpo.mean():.1f}",
            "SA-GRPO 0.2, tokens": f"{sar.mean():.1f}",
            "difference, paired t": interval(t_interval(sar - grpo)),
            "%": f"{100 * (sar.mean() / grpo.mean() - 1):+.0f}".replace("-", "−"),
        }


def earlier() -> Iterator[dict[str, Any]]:
    """The runs of 80 steps that came first and were replaced."""
    runs = pd.read_csv(DATA / "rewards/earlier_80_steps.csv")
    table = runs.pivot(index="seed", columns="arm", values="mean_length")
    grpo, sar = table["grpo"].to_numpy(), table["sa_grpo_0.2"].to_numpy()
    difference, low, high, p = welch(sar, grpo)
    yield {
        "steps": 80,
        "GRPO, tokens by seed": ", ".join(f"{x:.1f}" for x in grpo),
        "SA-GRPO 0.2": ", ".join(f"{x:.1f}" for x in sar),
        "difference, paired t": interval(t_interval(sar - grpo)),
        "p": f"{t_p(sar - grpo):.3f}",
        "Welch": interval((difference, low, high)),
        "p (Welch)": f"{p:.3f}",
    }


def ppo() -> Iterator[dict[str, Any]]:
    """PPO's runs: training accuracy in windows of steps, and the lowest ones after step 20."""
    runs = {}
    for arm in ("ppo", "sa_ppo_0.2"):
        for seed in range(3):
            lines = (DATA / f"study/{arm}-s{seed}/metrics.jsonl").read_text().splitlines()
            metrics = pd.DataFrame(map(json.loads, lines))
            runs[f"{arm}-s{seed}, rate 1e-3"] = metrics.set_index("step").accuracy
    halved = pd.read_parquet(DATA / "rewards/ppo-steps.parquet").set_index("step")
    for (arm, seed), metrics in halved.groupby(["arm", "seed"], sort=False):
        runs[f"{arm.removesuffix('_5e-4')}-s{seed}, rate 5e-4"] = metrics.accuracy
    for name, accuracy in runs.items():
        late = accuracy.loc[20:]
        worst = late.rolling(5).mean()
        yield {
            "run": name,
            "steps 41–49": f"{100 * accuracy.loc[41:49].mean():.0f}%",
            "steps 50–56": f"{100 * accuracy.loc[50:56].mean():.0f}%",
            "steps 57–60": f"{100 * accuracy.loc[57:60].mean():.0f}%",
            "lowest five steps after 20": f"{100 * worst.min():.0f}% at {worst.idxmin()}",
            "lowest step after 20": f"{100 * late.iloc[1:].min():.0f}% at {late.iloc[1:].idxmin()}",
        }


def smollm2() -> Iterator[dict[str, Any]]:
    """SmolLM2's held-out rows by the sign of the result: 18 answers a run."""
    for folder in sorted((DATA / "smollm2").glob("*-s?")):
        (part,) = (folder / "rollouts.parquet").glob("heldout_trained-*.parquet")
        rows = pd.read_parquet(part, columns=["gold", "correct", "length"])
        negative = rows.gold.str.strip().str.startswith("-")
        yield {
            "run": folder.name,
            "right of all": f"{rows.correct.sum()} of {len(rows)}",
            "result not negative": f"{rows[~negative].correct.sum()} of {(~negative).sum()}",
            "result negative": f"{rows[negative].correct.sum()} of {negative.sum()}",
            "tokens": f"{rows.length.mean():.1f}",
        }


# λ


def wins(frame: pd.DataFrame, column: str, better: str, worse: str) -> np.ndarray:
    """1, ½ or 0 for each question that has both kinds: does the better one score higher?"""
    table = frame.pivot_table(index="group", columns="label", values=column, aggfunc="first")
    pair = table[[better, worse]].dropna()
    apart = (pair[better] - pair[worse]).to_numpy()
    return (apart > 0) + 0.5 * (apart == 0)


def halves() -> dict[str, pd.DataFrame]:
    """GSM8K's answers by the parity of the question's id."""
    frame = scored(pd.read_parquet(DATA / "validity/answers.parquet"))
    even = frame.question_id.str[-1].apply(lambda x: int(x, 16) % 2 == 0)
    return {"even": frame[even], "odd": frame[~even]}


def chosen_lambda() -> float:
    """The λ whose lowest share over the pairs (the copy left out) is highest on the even half."""
    half = halves()["even"]
    kinds = [p for p in PAIRS.values() if "copied_question" not in p]
    worst = {x: min(wins(half, f"lambda {x:g}", *p).mean() for p in kinds) for x in LAMBDAS}
    return max(worst, key=lambda x: worst[x])


def lam() -> Iterator[dict[str, Any]]:
    """Share of pairs in order by λ, on the half that chose it and on the other half."""
    for name, half in halves().items():
        for x in LAMBDAS:
            row = {"half": name, "λ": f"{x:g}" + (" (chosen)" if x == chosen_lambda() else "")}
            for kind, pair in PAIRS.items():
                found = wins(half, f"lambda {x:g}", *pair)
                row[kind] = interval(mean_bootstrap(found), 0, 100)
            yield row


def lam_groups() -> Iterator[dict[str, Any]]:
    """Right against wrong within the policies' own groups by λ: mean AUC over mixed groups."""
    for name in ("tiny", "tiny-facts", "model"):
        frame = groups_of(name)
        if frame is None:
            continue
        row = {"policy": {"model": "smollm2-135m, sums"}.get(name, name)}
        mixed = [g for _, g in frame.groupby("group") if g.correct.nunique() == 2]
        for x in LAMBDAS:
            column = f"lambda {x:g}"
            values = np.array(
                [
                    auc(g[g.correct][column].to_numpy(), g[~g.correct][column].to_numpy())
                    for g in mixed
                ]
            )
            row[f"λ = {x:g}"] = interval(mean_bootstrap(values), 2)
        yield row


# Lines


def lines() -> Iterator[dict[str, Any]]:
    """Needed lines against filler in base answers that are right: AUC of what is read and fed."""
    needed = {"tiny": ("carry", "result", "statement"), "tiny-facts": ("needed",)}
    for name, kinds in needed.items():
        path = DATA / f"rewards/lines-{name}.parquet"
        if not path.exists():
            continue
        frame = pd.read_parquet(path)
        frame = frame[frame.correct].assign(
            is_needed=lambda f, kinds=kinds: f.kind.isin(kinds),  # type: ignore[misc]
            feed_rate=lambda f: f.feed_nats / f.rest_tokens,
            read_rate=lambda f: f.read_nats / f.tokens,
        )
        frame = frame[frame.is_needed | (frame.kind == "filler")]
        chose = frame.group < 50 if name == "tiny" else frame.group < 0
        for title, part in (("that gave the thresholds", chose), ("others", ~chose)):
            if not part.any():
                continue
            row: dict[str, Any] = {"policy": name, "questions": title}
            row["needed, filler lines"] = (
                f"{frame[part].is_needed.sum()}, {(~frame[part].is_needed).sum()}"
            )
            for measure, column in (
                ("d (feeds), nats", "feed_nats"),
                ("v (reads), nats", "read_nats"),
                ("v per token", "read_rate"),
            ):
                row[f"AUC of {measure}"] = interval(answer_auc(frame[part], column), 3)
            caught = (frame[part].read_nats < 2) & (frame[part].feed_nats < 5)
            filler = ~frame[part].is_needed
            row["filler found"] = f"{100 * caught[filler].mean():.1f}%"
            row["needed taken for filler"] = f"{100 * caught[~filler].mean():.1f}%"
            yield row


def answer_auc(frame: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """Chance that a needed line is above a line of filler, all pairs; questions resampled."""
    filler = np.sort(frame[~frame.is_needed][column].to_numpy())
    needed = frame[frame.is_needed]
    # How often each needed line beats all filler; ties count half.
    below = np.searchsorted(filler, needed[column], "left")
    ties = np.searchsorted(filler, needed[column], "right") - below
    won = (below + 0.5 * ties) / len(filler)
    table = pd.DataFrame({"group": needed.group.to_numpy(), "won": won})
    parts = table.groupby("group").won.agg(["sum", "size"]).to_numpy(float)
    return bootstrap(parts, lambda s: s[:, 0] / s[:, 1])


def line_kinds() -> Iterator[dict[str, Any]]:
    """What each kind of line reads and feeds: medians with the middle 90%, right base answers."""
    for name in ("tiny", "tiny-facts"):
        path = DATA / f"rewards/lines-{name}.parquet"
        if not path.exists():
            continue
        frame = pd.read_parquet(path)
        for kind, rows in frame[frame.correct].groupby("kind"):
            if len(rows) < 20:
                continue
            yield {
                "policy": name,
                "kind": kind,
                "lines": len(rows),
                "tokens": f"{rows.tokens.mean():.1f}",
                "reads (v), nats": interval(quantiles(rows.read_nats), 1),
                "feeds (d), nats": interval(quantiles(rows.feed_nats), 1),
            }


LINE_SETS = {  # set of data/rewards/ledger-lines.parquet: what needed lines are told from
    "tiny": ("filler",),
    "tiny-facts": ("filler", "unneeded"),
    "gsm8k": ("filler",),
    "copied": ("copied",),
    "redundant": ("filler", "repeated", "copied"),
}
READ_GRID = (0.5, 1, 2, 3, 5, 8)  # nats
FEED_GRID = (0.5, 1, 2, 5, 10, 20)


def ledger_lines() -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Needed lines with each kind that they are told from, and the first cells of the table."""
    path = DATA / "rewards/ledger-lines.parquet"
    if not path.exists():
        return
    frame = pd.read_parquet(path).assign(
        feed_rate=lambda f: f.feed_nats / f.rest_tokens,
        is_needed=lambda f: f.kind == "needed",
        both=lambda f: np.maximum(f.read_nats / 2, f.feed_nats / 5),
    )
    for name, kinds in LINE_SETS.items():
        for kind in kinds:
            part = frame[(frame.set == name) & (frame.is_needed | (frame.kind == kind))]
            if part.is_needed.nunique() < 2:
                continue
            needed = int(part.is_needed.sum())
            row = {"set": name, "needed against": kind, "answers": part.group.nunique()}
            yield {**row, "lines": f"{needed}, {len(part) - needed}"}, part


def ledger() -> Iterator[dict[str, Any]]:
    """AUC of needed lines against others by v, d, g, and by the larger of v/2 and d/5."""
    columns = {
        "v": "read_nats",
        "d": "feed_nats",
        "d per token": "feed_rate",
        "g": "gold_nats",
        "v or d": "both",
    }
    for row, part in ledger_lines():
        for title, column in columns.items():
            row[title] = interval(answer_auc(part.dropna(subset=[column]), column), 2)
        yield row


def ledger_thresholds() -> Iterator[dict[str, Any]]:
    """Thresholds chosen on answers with an even number, and what they do on the odd ones."""
    for row, part in ledger_lines():
        even, odd = part[part.group % 2 == 0], part[part.group % 2 == 1]
        pairs = [(float(v), float(d)) for v in READ_GRID for d in FEED_GRID]
        best = max(pairs, key=lambda pair: told_apart(even, *pair))
        for title, (read, feed) in (("default", (2.0, 5.0)), ("chosen", best)):
            low = (odd.read_nats < read) & (odd.feed_nats < feed)
            cells = {**row, "thresholds v, d": f"{read:g}, {feed:g} ({title})"}
            for name, rows in (
                ("others found, %", ~odd.is_needed),
                ("needed lost, %", odd.is_needed),
            ):
                counts = low[rows].groupby(odd.group[rows]).agg(["sum", "size"]).to_numpy(float)
                cells[name] = interval(bootstrap(counts, lambda s: s[:, 0] / s[:, 1]), 0, 100)
            yield cells


def told_apart(frame: pd.DataFrame, read: float, feed: float) -> float:
    """Share of other lines below both thresholds, minus that of needed lines."""
    low = (frame.read_nats < read) & (frame.feed_nats < feed)
    return float(low[~frame.is_needed].mean() - low[frame.is_needed].mean())


def quantiles(values: pd.Series) -> tuple[float, float, float]:
    """Median, 5% and 95%."""
    return tuple(float(x) for x in values.quantile([0.5, 0.05, 0.95]))  # type: ignore[return-value]


# C: first-order change of accuracy per token saved


def first_order() -> Iterator[dict[str, Any]]:
    """Covariances of each bonus within groups, scaled to one token saved over all groups."""
    for name in ("tiny", "tiny-facts", "model"):
        frame = groups_of(name, bonuses=True)
        if frame is None:
            continue
        share = frame.groupby("group").correct.transform("mean")
        n_mean = frame.groupby("group").n.transform("mean")
        frame = frame.assign(
            kind=np.where(share == 1, "all right", np.where(share == 0, "all wrong", "mixed")),
            length_only=1 - np.exp(-17.2 / frame.n),
            o1_pruner=-((frame.n - n_mean) / frame.n).clip(-1, 1),
        )
        bonuses = ["SAR", "length_only", "o1_pruner", "confidence", "lambda 0.5"]
        bonuses += [b for b in ("sar_right", "filler_share") if b in frame]
        for bonus in bonuses:
            parts = frame.groupby("group")
            b = frame[bonus] - parts[bonus].transform("mean")
            table = pd.DataFrame(
                {
                    "group": frame.group,
                    "kind": frame.kind,
                    "c": b * (frame.correct - share),
                    "n": b * (frame.n - n_mean),
                }
            )
            sums = table.groupby(["group", "kind"])[["c", "n"]].sum().reset_index()
            row: dict[str, Any] = {
                "policy": {"model": "smollm2-135m, sums"}.get(name, name),
                "bonus": bonus,
            }
            if sums.n.sum() >= 0:
                yield {**row, "points per token saved": "does not shorten"}
                continue
            row["points per token saved"] = interval(ratio_interval(sums), 2)
            for kind in ("mixed", "all right", "all wrong"):
                rows = sums[sums.kind == kind]
                part = rows.n.sum() / sums.n.sum() if len(rows) else 0.0
                row[f"saving from {kind}"] = f"{100 * part:.0f}%"
            yield row


def ratio_interval(sums: pd.DataFrame) -> tuple[float, float, float]:
    """Points of accuracy per token saved, groups resampled."""
    rng = np.random.default_rng(0)
    c, n = sums.c.to_numpy(), sums.n.to_numpy()
    rows = rng.integers(0, len(c), (DRAWS, len(c)))
    draws = 100 * c[rows].sum(axis=1) / -n[rows].sum(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return 100 * c.sum() / -n.sum(), float(low), float(high)


# The planned runs


def plan_b() -> Iterator[dict[str, Any]]:
    """B: mean training length over steps 21 to 100, SAR against length alone at equal strength."""
    path = DATA / "rewards/b-steps.parquet"
    if not path.exists():
        return
    rows = pd.read_parquet(path)
    late = rows[rows.step > 20].groupby(["arm", "seed"]).mean_length.mean()
    runs = {arm: late.loc[arm] for arm in late.index.get_level_values("arm").unique()}
    for arm, own in runs.items():
        yield {
            "arm": arm,
            "seeds": len(own),
            "tokens by seed": ", ".join(f"{x:.1f}" for x in own),
            "mean": interval(t_interval(own.to_numpy())),
        }
    if len(runs) == 2 and min(map(len, runs.values())) >= 3:
        found = welch(runs["sar"].to_numpy(), runs["length_only"].to_numpy(), 0.90)
        inside = found[1] > -15 and found[2] < 15
        yield {
            "arm": "sar − length_only, 90%",
            "mean": interval(found[:3]),
            "tokens by seed": "within ±15" if inside else "not within ±15",
        }


STUDY_ARMS = {"grpo": "grpo", "sar": "sa_grpo_0.2"}


def study_lengths(folder: str) -> pd.Series:
    """Mean training length over steps 21 to 60 of a shipped arm, by seed."""
    lengths = {}
    for seed in range(5):
        lines_of = (DATA / f"study/{folder}-s{seed}/metrics.jsonl").read_text().splitlines()
        metrics = pd.DataFrame(map(json.loads, lines_of))
        lengths[seed] = metrics[metrics.step > 20].mean_length.mean()
    return pd.Series(lengths)


def planned(*plans: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """By arm and seed of the plans: means over steps 21 to 60, and means of the answers at 60."""
    paths = [DATA / f"rewards/{p}-steps.parquet" for p in plans]
    if not all(path.exists() for path in paths):
        return pd.DataFrame(), pd.DataFrame()
    keys, numbers = ["arm", "seed"], ["mean_length", "entropy_nats", "alpha"]
    late = pd.concat(rows[rows.step > 20] for rows in map(pd.read_parquet, paths))
    held = pd.concat(pd.read_parquet(DATA / f"rewards/{p}-heldout.parquet") for p in plans)
    ends = held.groupby(keys)[["correct", "length", "filler_tokens"]].mean()
    return late.groupby(keys)[numbers].mean(), ends


def at_the_end(end: pd.DataFrame) -> dict[str, str]:
    """The columns of step 60 from the means by seed."""
    filler = end.get("filler_tokens")
    return {
        "accuracy at 60, %": interval(t_interval(end.correct.to_numpy()), 1, 100),
        "tokens at 60": interval(t_interval(end.length.to_numpy())),
        "of them filler": "" if filler is None else interval(t_interval(filler.to_numpy())),
    }


def corrected(apart: dict[str, np.ndarray]) -> dict[str, str]:
    """p by Holm of each arm's paired differences; arms with fewer than three seeds left out."""
    tested = [arm for arm, x in apart.items() if len(x) >= 3]
    p = holm([t_p(apart[arm]) for arm in tested])
    return {arm: f"{x:.3f}" for arm, x in zip(tested, p, strict=True)}


def plan_f() -> Iterator[dict[str, Any]]:
    """F: `tiny` at equal strength: mean training length over steps 21 to 60, minus SAR by seed."""
    late, ends = planned("f")
    if late.empty:
        return
    by_seed = {arm: study_lengths(folder) for arm, folder in STUDY_ARMS.items()}
    by_seed |= {arm: x.droplevel("arm") for arm, x in late.mean_length.groupby(level="arm")}
    apart = {a: (x - by_seed["sar"]).dropna().to_numpy() for a, x in by_seed.items()}
    adjusted = corrected({a: x for a, x in apart.items() if a not in STUDY_ARMS})
    for arm, lengths in by_seed.items():
        difference = "" if arm == "sar" else "not shown"
        if arm != "sar" and len(apart[arm]) >= 3:
            difference = interval(t_interval(apart[arm]))
        over_length = (lengths - by_seed["length_only"]).dropna().to_numpy()
        row = {
            "arm": arm,
            "seeds": len(lengths),
            "tokens, steps 21–60": ", ".join(f"{x:.1f}" for x in lengths),
            "minus SAR": difference,
            "p (Holm)": adjusted.get(arm, ""),
            "minus length_only": "" if arm == "length_only" else interval(t_interval(over_length)),
        }
        if arm in STUDY_ARMS:
            end = study_runs().set_index("arm").loc[STUDY_ARMS[arm]]
            end = end.rename(columns={"accuracy": "correct"})
            yield row | {"α": {"grpo": "0", "sar": "0.2"}[arm]} | at_the_end(end)
        else:
            own = late.loc[arm]
            row |= {"α": f"{own.alpha.iloc[0]:g}"} | at_the_end(ends.loc[arm])
            yield row | {"entropy, nats": f"{own.entropy_nats.mean():.3f}"}


def plan_g() -> Iterator[dict[str, Any]]:
    """G: twelve designs without a pass, seeds 0 to 2: mean training length minus GRPO's by seed."""
    late, ends = planned("f", "g")
    if late.empty:
        return
    late, ends = (table[table.index.get_level_values("seed") < 3] for table in (late, ends))
    arms = [a for a in late.index.unique("arm") if a not in ("filler_share", "sar_lambda")]
    grpo, accuracy = study_lengths("grpo"), study_runs().set_index(["arm", "seed"]).accuracy["grpo"]
    apart = {a: (late.loc[a].mean_length - grpo).dropna().to_numpy() for a in arms}
    adjusted = corrected(apart)
    for arm in sorted(arms, key=lambda a: apart[a].mean()):
        difference = t_interval(apart[arm])
        right = 100 * (ends.loc[arm].correct - accuracy).dropna().to_numpy()
        shorter = difference[2] < 0 and float(adjusted.get(arm, 1)) < 0.05
        yield {
            "arm": arm,
            "α": f"{late.loc[arm].alpha.iloc[0]:g}",
            "seeds": len(apart[arm]),
            "tokens minus GRPO": interval(difference),
            "p (Holm)": adjusted.get(arm, ""),
            "shortens": "yes" if shorter else "not shown",
            "accuracy at 60 minus GRPO, points": interval(t_interval(right)),
            **at_the_end(ends.loc[arm]),
        }


TABLES: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "identity": identity,
    "study": study,
    "steps": steps,
    "earlier": earlier,
    "ppo": ppo,
    "smollm2": smollm2,
    "lambda": lam,
    "lambda_groups": lam_groups,
    "line_kinds": line_kinds,
    "lines": lines,
    "ledger": ledger,
    "ledger_thresholds": ledger_thresholds,
    "first_order": first_order,
    "plan_b": plan_b,
    "plan_f": plan_f,
    "plan_g": plan_g,
}


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    columns = list(dict.fromkeys(k for row in rows for k in row))
    head = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    body = ["| " + " | ".join(str(r.get(c, "")) for c in columns) + " |" for r in rows]
    return "\n".join([*head, *(re.sub(r"(?<=[ \[(])-(?=\d)", "−", line) for line in body)])


def write_page(page: Path) -> None:
    """Put every table into the page, between the comments that name it."""
    text = page.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        rows = list(table())
        block = markdown(rows) if rows else "No rows yet: not shown."
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text, found = re.subn(
            pattern, lambda m, b=block: m[1] + b + "\n" + m[2], text, flags=re.DOTALL
        )
        if found != 1:
            raise ValueError(f"{page} has {found} places for the table {name!r}, expected one.")
    page.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", help=", ".join(TABLES))
    parser.add_argument("--write", type=Path, help="put all tables into this page")
    args = parser.parse_args()
    if args.write:
        write_page(args.write)
        return
    for name in args.tables or TABLES:
        rows = list(TABLES[name]())
        first = (TABLES[name].__doc__ or "").splitlines()[0]
        print(f"### {name}: {first}\n\n{markdown(rows) if rows else 'No rows yet.'}\n")


if __name__ == "__main__":
    main()
