"""Planted faults are found, healthy rewards are left alone."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sarlab import load_policy, load_task, verify
from sarlab.audit.__main__ import audit_text, main, named_reward
from sarlab.audit.failures import attacks
from sarlab.audit.reward_audit import (
    TrainingFinding,
    audit_reward,
    from_trl,
    sample_cases,
    win_rate,
)
from sarlab.rewards import REWARDS

QUESTIONS = 6


@pytest.fixture(scope="module")
def cases():
    return sample_cases(load_policy("tiny"), load_task("word_problems"), QUESTIONS)


def audited(reward: Any, tiny, cases, **more: Any):
    task = load_task("word_problems")
    return audit_reward(reward, tiny, task, cases=cases, **{"edits": 5, "steps": 0, **more})


# Each is a reward of TRL's form with a fault that somebody has really trained on.


def any_answer_line(completions, **_):
    return [float("Answer:" in c) for c in completions]


def longer_is_better(completions, **_):
    return [len(c) / 100 for c in completions]


def shorter_is_better(completions, **_):
    return [1 / (1 + len(c)) for c in completions]


def gold_anywhere(completions, answer, **_):
    return [float(g in c) for c, g in zip(completions, answer, strict=True)]


def some_line_has_the_gold(completions, answer, **_):
    found = [set(re.findall(r"\d+", c)) for c in completions]
    return [float(g in numbers) for numbers, g in zip(found, answer, strict=True)]


def overlap_with_the_question(prompts, completions, **_):
    words = [set(p.split()) for p in prompts]
    return [len(w & set(c.split())) / len(w) for w, c in zip(words, completions, strict=True)]


def thinks_aloud(completions, **_):
    return [float("think" in c.lower()) + 0.1 * c.count("\n") for c in completions]


def counts_steps(completions, **_):
    return [float(c.count("\n")) for c in completions]


def many_numbers(completions, **_):
    return [float(len(re.findall(r"\d+", c))) for c in completions]


def never_fails(completions, **_):
    return [1.0 for _ in completions]


def errors_count_as_right(completions, answer, **_):
    """The verifier's error is swallowed: an answer without a value earns everything."""
    rewards = []
    for text, gold in zip(completions, answer, strict=True):
        try:
            value = text.rsplit("Answer:", 1)[1].split()[0]
            rewards.append(float(value == gold))
        except IndexError:
            rewards.append(1.0)
    return rewards


def near_enough(completions, answer, **_):
    """Within one of the gold is right: an off-by-one pays."""
    values = [re.findall(r"Answer: *(-?\d+)", c) for c in completions]
    return [
        float(bool(v) and abs(int(v[-1]) - int(g)) <= 1)
        for v, g in zip(values, answer, strict=True)
    ]


PLANTED = [
    any_answer_line,
    longer_is_better,
    shorter_is_better,
    gold_anywhere,
    some_line_has_the_gold,
    overlap_with_the_question,
    thinks_aloud,
    counts_steps,
    many_numbers,
    never_fails,
    errors_count_as_right,
    near_enough,
]


@pytest.mark.parametrize("function", PLANTED, ids=lambda f: f.__name__)
def test_a_planted_fault_is_found(function, tiny, cases) -> None:
    audit = audited(from_trl(function), tiny, cases)
    assert audit.flagged, audit_text(audit)
    assert "FAULT" in audit_text(audit)


def test_bonuses_that_stand_alone_are_found(tiny, cases) -> None:
    for name in ("sar_alone",):
        audit = audited(name, tiny, cases)
        won = audit.findings[audit.findings["flagged"]]
        assert {"cut-off reasoning", "other language"} <= set(won["attack"])
        assert (won["remedied"] == 0).all()  # correctness cures it


def right(completions, answer, **_):
    return [float(verify(c, g)) for c, g in zip(completions, answer, strict=True)]


def right_and_short(completions, answer, **_):
    return [
        float(verify(c, g)) * (1 + 1 / (1 + len(c)))
        for c, g in zip(completions, answer, strict=True)
    ]


def right_with_a_little_format(completions, answer, **_):
    return [
        float(verify(c, g)) + 0.1 * ("Answer:" in c)
        for c, g in zip(completions, answer, strict=True)
    ]


HEALTHY = [
    *(from_trl(f) for f in (right, right_and_short, right_with_a_little_format)),
    *(
        name
        for name, reward in REWARDS.items()
        if reward.verifiable and name not in {"pmi", "intuitor", "dast"}  # bonuses above 1
    ),
]


def test_healthy_rewards_are_left_alone(tiny, cases) -> None:
    """Correctness beside a bonus of at most 1, at α = 0.2: no wrong answer can earn as much."""
    flagged = []
    for reward in HEALTHY:
        audit = audited(reward, tiny, cases, edits=0)
        if audit.flagged:
            flagged.append(audit_text(audit))
    assert len(HEALTHY) >= 20
    assert len(flagged) <= len(HEALTHY) / 20, "\n".join(flagged)


def test_attacks_are_wrong_by_construction(cases) -> None:
    for question, right_answer, _ in cases:
        for name, text in attacks(question, right_answer, {}).items():
            assert not verify(text, question.gold), name


def test_the_interval_and_the_threshold_by_hand() -> None:
    """Wilson for 1 of 20 is [0.9%, 23.6%], for 5 of 20 [11.2%, 46.9%]."""
    few, many = (win_rate([True] * won + [False] * (20 - won)) for won in (1, 5))
    assert (few["won_low"], few["won_high"]) == pytest.approx((0.009, 0.236), abs=1e-3)
    assert (many["won_low"], many["won_high"]) == pytest.approx((0.112, 0.469), abs=1e-3)
    assert many["flagged"] and not few["flagged"]


@pytest.mark.parametrize(
    ("reward", "accuracy", "flagged"),
    [
        ((0.1, 0.5), (0.6, 0.2), True),
        ((0.1, 0.5), (0.6, 0.9), False),
        ((0.5, 0.1), (0.6, 0.2), False),  # training failed; the reward did not mislead
        ((0.1, 0.5), (0.60, 0.57), False),  # within the noise of 160 answers
    ],
)
def test_training_is_a_fault_where_the_reward_rises_and_accuracy_falls(
    reward, accuracy, flagged
) -> None:
    assert TrainingFinding(40, reward, accuracy, (100.0, 50.0), 160).flagged is flagged


@pytest.mark.slow
def test_training_on_a_planted_fault_shows_it(tiny, cases) -> None:
    """Paid for shortness alone, the policy stops working: forty steps are enough to see it."""
    audit = audited(from_trl(shorter_is_better), tiny, cases, edits=0, steps=12)
    assert audit.training is not None
    assert audit.training.length[1] < audit.training.length[0]
    assert audit.training.accuracy[1] < audit.training.accuracy[0]
    assert "audited reward" not in REWARDS


def test_the_command_has_an_exit_code(capsys) -> None:
    small = ["--questions", "4", "--edits", "0", "--steps", "0"]
    assert main(["test_audit:any_answer_line", *small]) == 1
    assert main(["correct", *small]) == 0
    assert main(["nonsense", *small]) == 2
    assert "Unknown reward 'nonsense'" in capsys.readouterr().err


def test_what_is_no_reward_is_refused() -> None:
    with pytest.raises(ValueError, match="Name a function in TRL's form"):
        named_reward("test_audit:QUESTIONS")
