"""Runs compared: goldens, pairing, honesty about seeds and truncation; fresh evaluation."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from sarlab.evaluation.compare import accuracy_efficiency_score, arm_table, run_table
from sarlab.evaluation.plots import pareto_front
from sarlab.evaluation.policies import Evaluated, arm_labels, fresh, recorded
from sarlab.models import add_lora, export_policy, load_policy


def evaluated(label, rows, *, arm=None, seed=0, limit=400):
    return Evaluated(label, arm or label, "sums", rows, seed=seed, limit=limit, model="m")


def line(table, label):
    return table[table["label"] == label].iloc[0]


# --- formulas -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "other", "score"),
    [
        # A +20%, L −20%: 0.2 + 3 · 0.2
        ((0.5, 100), (0.6, 80), 0.8),
        # A −20%, L −20%: 0.2 − 5 · 0.2
        ((0.5, 100), (0.4, 80), -0.8),
        # A the same, L +50%
        ((0.5, 100), (0.5, 150), -0.5),
        ((0.5, 100), (0.5, 100), 0.0),
    ],
)
def test_accuracy_efficiency_score_by_hand(base, other, score):
    found = accuracy_efficiency_score(base[0], other[0], base[1], other[1])
    assert float(found) == pytest.approx(score)


def test_noise_alone_makes_the_efficiency_score_negative():
    """Equal policies of accuracy 0.8 and length 100: a gain counts 3, a loss of the same size 5."""
    rng = np.random.default_rng(0)
    means = {}
    for questions in (36, 300):
        before, after = rng.binomial(questions, 0.8, (2, 20_000)) / questions
        means[questions] = accuracy_efficiency_score(before, after, 100.0, 100.0).mean()
    assert means[36] == pytest.approx(-0.06, abs=0.01)
    assert means[300] == pytest.approx(-0.03, abs=0.01)


def test_pareto_front_by_hand():
    lengths, accuracies = [50, 60, 60, 90, 100], [0.7, 0.8, 0.75, 0.8, 0.9]
    assert pareto_front(lengths, accuracies) == [True, True, False, False, True]
    assert pareto_front([10, 10], [0.5, 0.5]) == [True, True]  # equal points do not beat each other


# --- arms ---------------------------------------------------------------------------------------


def test_arms_are_named_by_what_was_trained():
    common = {"algorithm": "grpo", "reward": "sar", "alpha": 0.2, "seed": 0, "steps": 60}
    labels = arm_labels(
        [
            common,
            {**common, "seed": 1},
            {**common, "alpha": 0.0},
            {**common, "algorithm": "ppo"},
            {**common, "reward": "er"},
            {**common, "reward": "sar_alone"},
        ]
    )
    expected = ["SA-GRPO α=0.2", "SA-GRPO α=0.2", "GRPO", "SA-PPO α=0.2", "GRPO + ER α=0.2"]
    assert labels == [*expected, "GRPO SAR alone"]


def test_configurations_that_differ_elsewhere_or_stopped_early_are_other_arms():
    common = {"algorithm": "grpo", "reward": "sar", "alpha": 0.2, "seed": 0, "steps": 60, "beta": 0}
    other = {**common, "beta": 0.1}
    assert arm_labels([common, other]) == ["SA-GRPO α=0.2, beta=0", "SA-GRPO α=0.2, beta=0.1"]
    stopped = arm_labels([common, {**common, "seed": 1, "steps": 20}])
    assert stopped == ["SA-GRPO α=0.2, steps=60", "SA-GRPO α=0.2, steps=20"]


# --- recorded runs ------------------------------------------------------------------------------


def test_recorded_runs_share_one_base_and_pool_their_seeds(study):
    found = recorded(study)
    assert [e.label for e in found if e.is_base] == ["base (tiny)"]
    table = arm_table(found)
    assert table["label"].tolist() == ["base (tiny)", "GRPO", "SA-GRPO α=0.2"]
    assert table["seeds"].tolist() == [0, 3, 2]
    summaries = [json.loads((study / f"grpo-s{s}/summary.json").read_text()) for s in (0, 1, 2)]
    grpo = line(table, "GRPO")
    assert grpo["accuracy"] == pytest.approx(np.mean([s["trained"]["accuracy"] for s in summaries]))
    differences = [s["difference"]["mean_length"]["difference"] for s in summaries]
    assert grpo["d_length"] == pytest.approx(np.mean(differences))
    assert grpo["gain_length"] < 0 < grpo["aes"]
    assert table["basis"].tolist() == [
        "questions",
        "questions and 3 seeds",
        "questions and 2 seeds",
    ]
    assert set(run_table(found)["basis"][1:]) == {"questions, 1 seed"}


def test_a_run_row_says_what_its_own_summary_says(study):
    table = run_table(recorded(study))
    for name in ("grpo-s1", "sa-grpo-s0"):
        summary = json.loads((study / name / "summary.json").read_text())
        row = line(table, name)
        for which, prefix in (("accuracy", "accuracy"), ("mean_length", "mean_length")):
            assert row[which] == pytest.approx(summary["trained"][which])
            assert [row[f"{prefix}_low"], row[f"{prefix}_high"]] == pytest.approx(
                summary["trained"][f"{which}_ci95"]
            )
        change = summary["difference"]["accuracy"]
        assert row["d_accuracy"] == pytest.approx(change["difference"])
        assert row["d_accuracy_p"] == pytest.approx(change["p_value"])


def test_any_run_or_arm_can_be_the_baseline(study):
    found = recorded(study)
    base = line(arm_table(found), "SA-GRPO α=0.2")
    against = line(arm_table(found, "GRPO"), "SA-GRPO α=0.2")
    assert against["baseline"] == "GRPO"
    assert against["d_length"] > base["d_length"]  # GRPO shortened too
    swapped = line(arm_table(found, "SA-GRPO α=0.2"), "GRPO")
    assert swapped["d_length"] == pytest.approx(-against["d_length"])
    assert line(run_table(found, "grpo-s1"), "sa-grpo-s0")["baseline"] == "grpo-s1"
    with pytest.raises(ValueError, match=r"'gpro' is not among .*'GRPO'"):
        arm_table(found, "gpro")


def test_pairing_equal_seeds_removes_what_a_seed_does_to_both_arms(make_rows):
    def seed(arm, number, chatter):
        # Both arms get the same answers for a seed, right or wrong: only the chatter differs.
        rows = make_rows("x", seed=number, accuracy=0.5 + 0.2 * number, chatter=chatter)
        return evaluated(f"{arm}{number}", rows, arm=arm, seed=number)

    found = [seed("long", n, 4) for n in (0, 1, 2)] + [seed("short", n, 1) for n in (0, 1, 2)]
    row = line(arm_table(found, "long"), "short")
    assert row["accuracy_high"] - row["accuracy_low"] > 0.3  # seeds lie far apart
    assert row["d_accuracy"] == 0.0
    assert row["d_accuracy_high"] - row["d_accuracy_low"] < 0.15  # and yet: no difference
    assert row["d_accuracy_p"] == 1.0


def test_arms_without_a_common_seed_are_not_compared(make_rows):
    found = [
        evaluated(f"{arm}{n}", make_rows("x", seed=n), arm=arm, seed=n)
        for arm, seeds in (("a", (0, 1)), ("b", (2, 3)))
        for n in seeds
    ]
    row = line(arm_table(found, "a"), "b")
    assert pd.isna(row["d_accuracy"])
    assert "no seed in common" in row["note"]


def test_a_seed_that_was_run_twice_counts_once(make_rows):
    one = evaluated("a", make_rows("x", seed=0), arm="arm")
    table = arm_table([one, dataclasses.replace(one, label="again")])
    assert line(table, "arm")["seeds"] == 1


def test_other_questions_get_no_difference(make_rows):
    base = evaluated("base", make_rows("x", seed=0), seed=None)
    other = evaluated("run", make_rows("x", seed=0, questions=40))
    row = line(arm_table([base, other]), "run")
    assert pd.isna(row["d_accuracy"])
    assert "answered other questions" in row["note"]


# --- truncation ---------------------------------------------------------------------------------


def test_a_length_drop_with_more_truncation_is_flagged(make_rows):
    base = evaluated("base", make_rows("x", seed=0, chatter=4), seed=None)
    honest = evaluated("honest", make_rows("y", seed=0, chatter=1))
    cut = evaluated("cut", make_rows("y", seed=0, chatter=0, cut_off=0.25))
    table = arm_table([base, honest, cut])
    assert line(table, "honest")["note"] == ""
    assert line(table, "cut")["d_length"] < 0
    assert "more answers are truncated" in line(table, "cut")["note"]
    assert "lower bounds" in line(table, "cut")["note"]


def test_other_length_limits_and_vanished_runaways_are_flagged(make_rows):
    base = evaluated("base", make_rows("x", seed=0, chatter=2, cut_off=0.4), seed=None)
    tamed = evaluated("tamed", make_rows("y", seed=0, chatter=2))
    assert "fewer answers run into the limit" in line(arm_table([base, tamed]), "tamed")["note"]
    short = evaluated("short", make_rows("y", seed=0, chatter=2), limit=200)
    assert "limits differ (200, 400" in line(arm_table([base, short]), "short")["note"]


# --- where runs come from -----------------------------------------------------------------------


def test_what_is_not_a_run_is_named_with_a_remedy(tmp_path, study):
    with pytest.raises(ValueError, match="no folder in it is one"):
        recorded(tmp_path)
    with pytest.raises(ValueError, match="not a finished run"):
        recorded([tmp_path / "x"])
    with pytest.raises(ValueError, match="no adapter"):
        fresh(study)


def test_an_untrained_adapter_answers_as_its_base(tmp_path, make_run, capsys):
    """A new LoRA changes nothing, so base and run must agree answer by answer."""
    config = {"max_answer_tokens": 40, "lora_rank": 2, "alpha": 0.0}
    folder = make_run(tmp_path / "run", trained={}, base={"shift": -0.2}, **config)
    policy = add_lora(load_policy("tiny", dtype="float32", device="cpu"), rank=2)
    export_policy(policy, folder / "adapter")
    base, run = fresh(folder, questions=6, device="cpu")
    assert len(run.questions) == 6
    assert [r["answer"] for r in base.rows] == [r["answer"] for r in run.rows]
    assert "base (tiny) on word_problems" in capsys.readouterr().err
    row = line(arm_table([base, run]), "GRPO")
    assert (row["d_accuracy"], row["d_length"], row["gain_length"]) == (0.0, 0.0, 0.0)
    assert row["d_accuracy_p"] == 1.0
