"""The tables of docs/EVIDENCE.md: the statistics behind them, and that the page prints them."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sarlab.models import REPOSITORY
from sarlab.rewards import REWARDS

sys.path.insert(0, str(REPOSITORY / "scripts"))
SPEC = importlib.util.spec_from_file_location("evidence", REPOSITORY / "scripts" / "evidence.py")
evidence = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(evidence)

PAGE = (REPOSITORY / "docs" / "EVIDENCE.md").read_text(encoding="utf-8")
QUICK = ("identity", "study", "steps", "earlier", "ppo", "smollm2", "lambda_groups")


def test_students_t_agrees_with_scipy() -> None:
    for t, df in ((0.0, 3), (1.3, 4), (-2.776, 4), (4.1, 2.7)):
        assert evidence.t_cdf(t, df) == pytest.approx(stats.t.cdf(t, df), abs=1e-7)
    assert evidence.t_quantile(0.975, 4) == pytest.approx(2.776445, abs=1e-5)


def test_differences_agree_with_scipy() -> None:
    a, b = np.array([76.6, 85.0, 111.5, 100.9, 79.1]), np.array([110.5, 101.6, 121.1, 131.7, 123.5])
    expected = stats.ttest_ind(a, b, equal_var=False)
    difference, low, high, p = evidence.welch(a, b)
    inside = expected.confidence_interval(0.95)
    assert (difference, p) == pytest.approx((a.mean() - b.mean(), expected.pvalue), abs=1e-6)
    assert (low, high) == pytest.approx((inside.low, inside.high), abs=1e-3)
    assert evidence.t_p(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=1e-6)


def test_holm_by_hand() -> None:
    # Sorted 0.01 · 3, 0.02 · 2, 0.04 · 1; never below the one before.
    assert evidence.holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])


def test_an_interval_over_groups_covers_what_it_should() -> None:
    # The mean of 400 groups' sums over their sizes: the normal interval is ±1.96 · SD / 20.
    values = np.random.default_rng(1).normal(5, 2, 400)
    parts = np.stack([values, np.ones(400)], axis=1)
    mean, low, high = evidence.bootstrap(parts, lambda s: s[:, 0] / s[:, 1])
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((mean - 0.196, mean + 0.196), abs=0.03)


def test_sar_is_all_length_where_answers_hold_the_same_information_and_not_elsewhere() -> None:
    rng = np.random.default_rng(0)
    n = rng.integers(20, 200, 800).astype(float)
    frame = pd.DataFrame({"group": np.repeat(range(100), 8), "n": n, "V": 17.0})
    frame["SAR"] = 1 - np.exp(-frame["V"] / n)
    assert evidence.r2_length(frame)[0] == pytest.approx(1.0)
    frame["V"] = n * rng.uniform(0.05, 0.3, 800)  # longer answers hold more
    frame["SAR"] = 1 - np.exp(-frame["V"] / n)
    assert evidence.r2_length(frame)[0] < 0.1


def test_every_table_is_on_the_page_with_its_command() -> None:
    for name in evidence.TABLES:
        assert f"scripts/evidence.py {name}" in PAGE, name


@pytest.mark.parametrize("name", QUICK)
def test_the_page_prints_what_the_shipped_rows_give(name) -> None:
    assert evidence.markdown(list(evidence.TABLES[name]())) in PAGE


def test_rewards_in_the_script_are_those_of_the_library() -> None:
    """The script has formulas of its own; on one answer both must say the same."""
    import torch

    from sarlab.types import RewardInputs

    frame = pd.DataFrame({"logp_conditioned": [-6.0], "logp_standalone": [-20.0], "length": [10]})
    row = evidence.scored(frame).iloc[0]
    inputs = RewardInputs(
        torch.ones(1),
        torch.zeros(1, dtype=torch.long),
        torch.ones(1, 10, dtype=torch.bool),
        torch.full((1, 10), -0.6),
        torch.full((1, 10), -2.0),
    )
    ours = {
        name: REWARDS[name].bonus(inputs).item() for name in ("sar", "confidence", "sar_lambda")
    }
    assert row["SAR"] == pytest.approx(ours["sar"], abs=1e-6)
    assert row["confidence"] == pytest.approx(ours["confidence"], abs=1e-6)
    assert 1 - np.exp(-row["lambda 0.5"]) == pytest.approx(ours["sar_lambda"], abs=1e-6)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs" / "rewards").glob("*.json")))
def test_every_planned_arm_is_a_run_that_can_be_made_and_stands_in_the_plan(path) -> None:
    from study import read_plan

    from sarlab.config import TrainConfig

    plan = (REPOSITORY / "docs" / "PLAN.md").read_text(encoding="utf-8")
    assert f"configs/rewards/{path.name}" in plan
    arms, steps = read_plan(path)
    for name, parameters in arms.items():
        config = TrainConfig.from_parameters({**parameters, "steps": steps, "seed": 0})
        assert f"`{name}`" in plan and (config.alpha == 0 or f"{config.alpha:g}" in plan)
