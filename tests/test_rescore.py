"""Rewards replayed on somebody's answers: what was logged comes out again; stops lose nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

import sarlab.runs.rescore as module
from sarlab.inspect import main
from sarlab.runs.rescore import rewards_paid, score_rollouts, step_table
from sarlab.runs.rollouts import open_rollouts

STUDY = Path(__file__).resolve().parents[1] / "data" / "study"


def some_groups(run: str, groups: int) -> pd.DataFrame:
    """The first groups of several answers that a run logged: of the base, where it has any."""
    frame = open_rollouts(STUDY / run)
    frame = frame[frame.groupby("group_id")["step"].transform("size") > 1].sort_values(
        "step", kind="stable"
    )
    return frame[frame["group_id"].isin(frame["group_id"].unique()[:groups])]


def test_a_logged_reward_of_correctness_is_reproduced(tiny, tmp_path) -> None:
    frame = some_groups("grpo-s0", 2)
    scored = score_rollouts(frame, tiny, tmp_path)
    assert scored["length"].tolist() == frame["length"].tolist()  # tokenised again, to the same
    table, advantages = rewards_paid(scored, ["correct"], 0.0)
    logged = frame["reward"] - frame.groupby("group_id")["reward"].transform("mean")
    assert advantages["correct"].tolist() == pytest.approx(logged.tolist(), abs=1e-6)
    assert table["flips"].tolist() == [0.0]


def test_a_logged_reward_of_lengths_is_reproduced(tiny, tmp_path) -> None:
    """O1-pruner beside correctness: −clip((n − mean) / n, −1, 1), worked out apart."""
    frame = some_groups("grpo-s0", 2)
    mean = frame.groupby("group_id")["length"].transform("mean")
    short = -((frame["length"] - mean) / frame["length"]).clip(-1, 1)
    frame = frame.assign(reward=frame["correct"].astype(float) + 0.2 * short)
    _, advantages = rewards_paid(score_rollouts(frame, tiny, tmp_path), ["o1_pruner"], 0.2)
    logged = frame["reward"] - frame.groupby("group_id")["reward"].transform("mean")
    assert advantages["o1_pruner"].tolist() == pytest.approx(logged.tolist(), abs=1e-6)


def test_sar_of_the_base_is_what_the_run_logged(tiny, tmp_path) -> None:
    frame = some_groups("sa_grpo_0.2-s0", 1)
    scored = score_rollouts(frame, tiny, tmp_path)
    assert scored["sar"].tolist() == pytest.approx(frame["sar"].tolist(), abs=1e-4)
    from_nats = [
        1 - math.exp(-v / n) for v, n in zip(scored["v_nats"], scored["length"], strict=True)
    ]
    assert scored["sar"].tolist() == pytest.approx(from_nats, abs=1e-5)  # the identity


def test_a_call_that_was_stopped_goes_on_without_scoring_twice(tiny, tmp_path, monkeypatch) -> None:
    frame = some_groups("grpo-s0", 3)
    monkeypatch.setattr(module, "_PART", 4)
    seen: list[int] = []
    real = module.score_answers

    def counting(policy, question, answers, **options):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(answers))
        return real(policy, question, answers, **options)

    monkeypatch.setattr(module, "score_answers", counting)
    with pytest.raises(KeyboardInterrupt):
        score_rollouts(frame, tiny, tmp_path)
    kept = sum(seen)
    monkeypatch.setattr(module, "score_answers", real)
    progress: list[int] = []
    whole = score_rollouts(frame, tiny, tmp_path, on_progress=progress.append)
    assert progress[0] == kept and sum(progress) == len(frame)
    again = score_rollouts(frame, tiny, tmp_path)
    assert again["sar"].tolist() == whole["sar"].tolist()


def test_whose_advantage_flips_by_hand(tiny, tmp_path) -> None:
    """Right and long against right and short: correctness says nothing, length pays the second."""
    rows = [
        ("2 + 2?", "2 + 2 = 4. Yes, that is so.\nAnswer: 4", 1.0),
        ("2 + 2?", "2 + 2 = 4\nAnswer: 4", 0.5),  # the trainer preferred the long one
    ]
    frame = pd.DataFrame(rows, columns=["question", "answer", "reward"])
    frame = frame.assign(step=1, group_id=0, gold="4", source=["a:1", "a:2"])
    scored = score_rollouts(frame, tiny, tmp_path)
    assert scored["correct"].tolist() == [True, True]
    table, advantages = rewards_paid(scored, ["correct", "o1_pruner"])
    assert table.set_index("reward")["flips"].to_dict() == {"correct": 0.0, "o1_pruner": 1.0}
    assert advantages["o1_pruner"][0] < 0 < advantages["o1_pruner"][1]


def test_rewards_need_groups_that_are_judged(tiny, tmp_path) -> None:
    frame = pd.DataFrame(
        {"question": ["2 + 2?"] * 2, "answer": ["4", "5"], "reward": [1.0, 0.0], "gold": None}
    ).assign(step=1, group_id=0, source=["a:1", "a:2"])
    with pytest.raises(ValueError, match="without gold answers nothing can be judged"):
        rewards_paid(score_rollouts(frame, tiny, tmp_path))


def test_steps_by_hand() -> None:
    frame = pd.DataFrame(
        {
            "step": [1, 1, 1, 1, 2, 2],
            "group_id": [0, 0, 1, 1, 2, 2],
            "answer": ["ab", "abcd", "a", "a", "abc", "abc"],
            "reward": [1.0, 1.0, 0.0, 1.0, 0.5, 0.5],
        }
    )
    table = step_table(frame)
    assert table["groups"].tolist() == [2, 1] and table["reward"].tolist() == [0.75, 0.5]
    assert table["length_characters"].tolist() == [2.0, 3.0]
    assert table["equal_groups"].tolist() == [0.5, 1.0]


def test_the_command_prints_steps_and_refuses_an_unknown_file(tmp_path, capsys) -> None:
    assert main([str(STUDY / "grpo-s0")]) == 0
    printed = capsys.readouterr().out
    assert "sarlab: 8" in printed and "equal_groups" in printed
    (tmp_path / "notes.txt").write_text("hello")
    assert main([str(tmp_path)]) == 2
    assert "Looked for sarlab, TRL" in capsys.readouterr().err
