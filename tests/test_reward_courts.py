"""Courts (a) and (b) on answers whose order is known, as commands and as notebook 05."""

from __future__ import annotations

import numpy as np
import pandas as pd
import papermill
import pytest
from made_run import labelled_rows, write_rows

from sarlab import load_policy
from sarlab.audit.__main__ import main
from sarlab.audit.courts import groups_court, paid_answers, pairs_court, rank_agreement
from sarlab.experience import inputs_of_texts
from sarlab.models import DATA, REPOSITORY
from sarlab.rewards import REWARDS, answer_bonus
from sarlab.rewards.diagnostics import matched_alpha, reward_inputs
from sarlab.tasks import judge_all
from sarlab.types import Question

NOTEBOOK = REPOSITORY / "notebooks" / "05_reward_zoo.ipynb"
SHIPPED = DATA / "validity" / "groups-tiny.parquet"
ROWS = labelled_rows("right", "wrong")


@pytest.fixture
def mine(tmp_path):
    return write_rows(tmp_path / "mine.jsonl", ROWS)


@pytest.fixture
def table():
    """60 questions with two right answers of 10 and 30 tokens and a wrong one of 20."""
    return pd.DataFrame(
        [
            {"question_id": q, "group": q, "correct": length != 20, "length": length}
            | {"label": "wrong" if length == 20 else "right"}
            for q in range(60)
            for length in (10, 20, 30)
        ]
    )


def test_pairs_by_hand(table):
    """−length puts one right answer above the wrong one and one below; correctness both."""
    paid = pd.DataFrame({"alp": -table["length"], "sar": table["correct"] * 1.0})
    found = pairs_court(table, paid, ["right > wrong"]).set_index("design")
    assert found["share"].tolist() == [0.5, 1.0]
    assert found.loc["alp", "share_holm"] == 1.0
    # 60 of 60: 9,999 random flips never reach it, times two rows.
    assert found.loc["sar", "share_holm"] == pytest.approx(2e-4)
    assert found.loc["sar", "share_low"] == pytest.approx(60 / (60 + 1.959964**2), abs=1e-4)


def test_groups_by_hand(table):
    noise = np.random.default_rng(0).normal(0, 1e-4, len(table))
    paid = pd.DataFrame(
        {
            "sar": -table["length"] / 100 + noise,
            "alp": -table["length"] / 1000,
            "l1_exact": table["length"] / 1000,
            "cosine": table["correct"] * 1.0,
        }
    )
    found = groups_court(table, paid).set_index("design")
    assert found["auc"].tolist() == [0.5, 0.5, 0.5, 1.0]
    assert found["slope"].tolist() == pytest.approx([-0.1, -0.01, 0.01, 0.0], abs=1e-4)
    assert found["alpha"][:2].tolist() == pytest.approx([0.2, 2.0], rel=1e-2)
    assert np.isnan(found["alpha"][2:]).all()  # it does not pay shorter answers more
    assert found["length_share"][:3].tolist() == pytest.approx([1.0] * 3, abs=1e-3)
    assert found["agreement"].tolist() == pytest.approx([1.0, 1.0, -1.0, 0.0])
    assert found["signal"].tolist() == [1.0] * 4
    # Half of 60 is Wilson's [0.377, 0.623].
    assert found.loc["alp", ["auc_low", "auc_high"]].tolist() == pytest.approx([0.377, 0.623], 1e-2)


def test_agreement_is_spearmans_within_groups():
    answers, paid = paid_answers(SHIPPED)
    first = answers["group"] == answers["group"].iloc[0]
    spearman = paid[first].corr(method="spearman").loc["sar", "confidence"]
    names = ["design", "other"]
    one = rank_agreement(answers[first], paid[first]).set_index(names)["agreement"]
    assert one["confidence", "sar"] == one["sar", "confidence"] == pytest.approx(spearman)


def test_agreement_by_hand():
    """Three groups agree fully, not at all and by ½; the fourth has no order of one of them."""
    a = [1, 2, 3] * 4
    b = [1, 2, 3, 3, 2, 1, 1, 3, 2, 5, 5, 5]
    answers = pd.DataFrame({"question_id": np.repeat(range(4), 3), "group": np.repeat(range(4), 3)})
    paid = pd.DataFrame({"sar": a, "alp": b})
    found = rank_agreement(answers, paid, ["sar"]).set_index("design").loc["alp"]
    assert found["agreement"] == pytest.approx((1 - 1 + 0.5) / 3)
    # t(0.975, 2) = 4.30265; the standard deviation of 1, −1 and ½ is 1.04083.
    half = 4.30265 * 1.04083 / 3**0.5
    assert found["agreement_high"] - found["agreement"] == pytest.approx(half, rel=1e-4)


def test_sums_serve_as_well_as_tokens():
    """Bonuses from a run's sums are those from its log-probs per token; so is α."""
    folder = DATA / "study" / "sa_grpo_0.2-s0"
    answers, paid = paid_answers(folder)
    from sarlab.runs.folder import read_rollouts

    rows = read_rollouts(folder, "probe").to_pylist()
    rows = [{**row, "group": f"{row['step']}/{row['group_id']}"} for row in rows]
    given = reward_inputs(rows, "group")
    for name in ("sar", "confidence", "pmi", "kimi", "er"):
        expected = answer_bonus(given, name).numpy()
        np.testing.assert_allclose(paid[name], expected, rtol=1e-3, atol=1e-4)
    found = groups_court(answers, paid).set_index("design")
    assert found.loc["o1_pruner", "alpha"] == pytest.approx(matched_alpha("o1_pruner", given), 1e-3)


def test_texts_are_paid_by_every_design_as_each_pays_alone(mine):
    answers, paid = paid_answers(mine, "tiny")
    assert set(paid) == set(REWARDS) - {"correct", "sar_alone"}
    policy = load_policy("tiny")
    for group, part in answers.groupby("group"):
        rows = [r for r in ROWS if Question(r["question"], "?").id == group]
        question, texts = (
            Question(rows[0]["question"], rows[0]["gold"]),
            [r["answer"] for r in rows],
        )
        verdicts = judge_all(texts, [question] * len(texts))
        for name in ("verifree", "entropy", "filler_share", "majority", "sar_masked"):
            alone = inputs_of_texts(policy, question, texts, verdicts, name)
            expected = answer_bonus(alone, name).tolist()
            assert paid.loc[part.index, name].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_commands_print_a_row_per_design(mine, capsys):
    assert main(["groups", mine]) == 0
    assert main(["pairs", mine]) == 0
    text = capsys.readouterr().out
    assert text.count("verifree") == 2 and "right > wrong" in text and "Holm" in text
    assert main(["pairs", "missing.jsonl"]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_the_notebook_runs_on_what_ships_and_on_a_users_file(mine, own, tmp_path):
    executed = papermill.execute_notebook(
        str(NOTEBOOK),
        str(tmp_path / "out.ipynb"),
        parameters={"source": mine} if own else {},
        cwd=str(REPOSITORY),
        kernel_name="python3",
        progress_bar=False,
    )
    bundles = [o["data"] for c in executed.cells for o in c.get("outputs", []) if "data" in o]
    text = "".join(data.get("text/html", "") for data in bundles)
    assert sum("application/vnd.plotly.v1+json" in data for data in bundles) == 2
    assert "<b>costs</b>" in text and "<script" not in text
    assert (">verifree</td>" in text) is own
    assert ("<b>Left out</b>" in text) is not own
    if not own:
        assert "verifree" in text[text.index("<b>Left out</b>") :]
        assert "right &gt; copied question" in text and "the question copied" in text
