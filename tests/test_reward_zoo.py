"""Published rewards on groups worked by hand from their formulas, or against TRL's own code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_rewards import inputs

from sarlab.rewards import REWARDS, reward_named, total_reward

LIMIT = 100


def bonus(name: str, lengths: list[int], correct: list[float], **more: Any) -> list[float]:
    return REWARDS[name].bonus(inputs(lengths, correct, **{"budget": LIMIT, **more})).tolist()


# One group per row: lengths, correct, expected, each worked by hand from the formula beside it.
LENGTH_CASES = {
    # ½ − (n − 10)/40 = ½, ¼, −½; the wrong one keeps only what is negative.
    "kimi": [
        ([10, 20, 50], [1, 1, 1], [0.5, 0.25, -0.5]),
        ([10, 20, 50], [0, 0, 0], [0.0, 0.0, -0.5]),
        ([10, 20, 50], [0, 1, 1], [0.0, 0.25, -0.5]),
        ([10, 20, 50], [1, 1, 0], [0.5, 0.25, -0.5]),
        ([30, 30, 30], [1, 0, 1], [0.0, 0.0, 0.0]),
        ([30], [1], [0.0]),
    ],
    # n* = 20 (shortest right) or the mean: −|n − n*|/1000.
    "shorter_better": [
        ([10, 20, 50], [0, 1, 1], [-0.01, 0.0, -0.03]),
        ([10, 20, 60], [0, 0, 0], [-0.02, -0.01, -0.03]),
        ([10, 20, 50], [1, 1, 1], [0.0, -0.01, -0.04]),
        ([10, 20, 50], [0, 0, 1], [-0.04, -0.03, 0.0]),
        ([30, 30, 30], [1, 0, 1], [0.0, 0.0, 0.0]),
        ([30], [0], [0.0]),
    ],
    # right ones: min 10, max 50; within 10 tokens of the shortest: ½.
    "short_rl": [
        ([10, 20, 50], [1, 1, 1], [0.5, 0.5, -0.5]),
        ([10, 30, 50], [1, 1, 1], [0.5, 0.0, -0.5]),
        ([10, 20, 50], [0, 1, 1], [0.0, 0.5, -0.5]),
        ([10, 20, 50], [0, 0, 0], [0.0, 0.0, 0.0]),
        ([30, 30, 30], [1, 0, 1], [0.5, 0.0, 0.5]),
        ([30], [1], [0.5]),
    ],
    "laser": [  # budget 100
        ([50, 100, 101], [1, 1, 1], [1, 1, 0]),
        ([50, 100, 101], [0, 0, 0], [0, 0, 0]),
        ([50, 100, 101], [0, 1, 1], [0, 1, 0]),
        ([100, 100], [1, 0], [1, 0]),
        ([101], [1], [0]),
        ([1], [1], [1]),
    ],
    # −max(p, 1/G)·n/100
    "alp": [
        ([10, 20], [1, 1], [-0.1, -0.2]),
        ([10, 20], [0, 0], [-0.05, -0.1]),  # p = 0, so 1/2
        ([10, 20], [1, 0], [-0.05, -0.1]),
        ([10, 20, 50, 80], [1, 1, 1, 0], [-0.075, -0.15, -0.375, -0.6]),
        ([40, 40, 40, 40], [0, 0, 0, 1], [-0.1] * 4),
        ([50], [0], [-0.5]),
    ],
    # −p·n/max n
    "linear_length": [
        ([10, 20, 40], [1, 1, 1], [-0.25, -0.5, -1.0]),
        ([10, 20, 40], [0, 0, 0], [0.0, 0.0, 0.0]),
        ([10, 20, 40, 40], [1, 0, 1, 0], [-0.125, -0.25, -0.5, -0.5]),
        ([30, 30], [1, 1], [-1.0, -1.0]),
        ([30], [1], [-1.0]),
        ([30], [0], [0.0]),
    ],
    # right ones 10 and 30: mean 20, sd √200, z = ∓0.70711, σ = 0.330238, 0.669762
    "grpo_lambda": [
        ([10, 30], [1, 1], [-0.330238, -0.669762]),
        ([10, 50, 30], [1, 0, 1], [-0.330238, 0.0, -0.669762]),
        ([10, 50, 30, 70, 90], [1, 0, 1, 0, 0], [0.0] * 5),  # p = 0.4
        ([10, 20], [0, 0], [0.0, 0.0]),
        ([30, 30], [1, 1], [-0.5, -0.5]),
        ([30], [1], [-0.5]),
    ],
    # p = ½: L = ½·20 + ½·100 = 60; λ = −⅔, 0, ½ …
    "dast": [
        ([20, 60], [1, 0], [0.5 + 1 / 3, -0.1]),
        ([20, 90], [1, 0], [0.5 + 1 / 3, -0.1]),  # 0.9·½ − 0.1 = 0.35, not above −0.1
        ([20, 30], [1, 0], [0.5 + 1 / 3, -0.55]),  # 0.9·(−½) − 0.1
        ([50, 50], [1, 1], [0.5, 0.5]),  # L = 50
        ([10, 40], [1, 1], [0.8, 0.2]),  # L = 25: λ = −0.6, 0.6
        ([50], [0], [-0.55]),  # L = 100: λ = −½
    ],
    # −|n − 100|/3000
    "l1_exact": [
        ([100, 70, 130], [1, 1, 1], [0.0, -0.01, -0.01]),
        ([100, 70, 130], [0, 0, 0], [0.0, -0.01, -0.01]),
        ([1, 100], [1, 0], [-0.033, 0.0]),
        ([40, 40], [0, 1], [-0.02, -0.02]),
        ([100], [1], [0.0]),
        ([400], [1], [-0.1]),
    ],
    # c·clip((100 − n)/3000 + ½, 0, 1)
    "l1_max": [
        ([100, 70, 130], [1, 1, 1], [0.5, 0.51, 0.49]),
        ([100, 70, 130], [0, 0, 0], [0.0, 0.0, 0.0]),
        ([1, 100], [1, 0], [0.533, 0.0]),
        ([40, 40], [0, 1], [0.0, 0.52]),
        ([1600], [1], [0.0]),
        ([2000], [1], [0.0]),
    ],
}


@pytest.mark.parametrize(
    ("name", "lengths", "correct", "expected"),
    [(name, *case) for name, cases in LENGTH_CASES.items() for case in cases],
)
def test_length_rewards_by_hand(name, lengths, correct, expected) -> None:
    assert bonus(name, lengths, correct) == pytest.approx(expected, abs=1e-5)


def test_short_rl_stops_paying_while_accuracy_is_below_its_best() -> None:
    assert bonus("short_rl", [10, 50], [1, 0], best_accuracy=0.56) == [0.0, 0.0]  # ½ < 0.56 − 0.05
    assert bonus("short_rl", [10, 50], [1, 0], best_accuracy=0.54) == [0.5, 0.0]


@pytest.mark.parametrize("length", [1, 60, 80, 90, 99, 100, 101, 250])
def test_soft_overlong_is_trls(length: int) -> None:
    from trl.rewards import get_soft_overlong_punishment

    theirs = get_soft_overlong_punishment(max_completion_len=LIMIT, soft_punish_cache=LIMIT // 5)
    assert bonus("soft_overlong", [length], [1]) == pytest.approx(theirs([[0] * length]))


@pytest.mark.parametrize("length", [1, 25, 50, 75, 100, 250])
@pytest.mark.parametrize("right", [0, 1])
def test_cosine_is_trls(length: int, right: int) -> None:
    from trl.rewards import get_cosine_scaled_reward

    theirs = get_cosine_scaled_reward(max_len=LIMIT)
    said = [[{"role": "assistant", "content": r"\boxed{2}" if right else r"\boxed{3}"}]]
    wanted = theirs(said, solution=[r"\boxed{2}"], completion_ids=[[0] * length])
    assert bonus("cosine", [length], [right]) == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["entropy", "intuitor"])
def test_per_token_statistics_are_averaged_over_the_answer(name: str) -> None:
    field = {"entropy": "entropy", "intuitor": "self_certainty"}[name]
    sign = -1 if name == "entropy" else 1
    values = torch.tensor([[1.0, 2.0, 99.0, 99.0], [4.0, 0.0, 2.0, 6.0]])
    found = bonus(name, [2, 4], [1, 0], **{field: values})
    assert found == pytest.approx([sign * 1.5, sign * 3.0])


def test_self_certainty_is_the_kl_from_the_uniform_distribution_up_to_a_constant() -> None:
    """logsumexp(x) − mean(x) − log V = KL(uniform ‖ policy), by hand for two tokens of ¾ and ¼."""
    logits = torch.tensor([0.75, 0.25]).log() + 3.0
    certainty = torch.logsumexp(logits, 0) - logits.mean()
    by_hand = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(certainty) - math.log(2) == pytest.approx(by_hand, abs=1e-6)


def test_pmi_is_the_sum_over_tokens() -> None:
    assert bonus("pmi", [2, 4], [1, 0]) == pytest.approx([2.0, 4.0])  # −0.5 against −1.5 nats


def gold(after: list[list[float]], without: list[list[float]] | None = None) -> dict[str, Any]:
    """Probabilities of the reference answer's tokens; shorter rows are padded."""
    width = max(map(len, after))

    def block(rows: list[list[float]]) -> torch.Tensor:
        return torch.tensor([[*row, *[0.123] * (width - len(row))] for row in rows]).log()

    mask = torch.arange(width)[None] < torch.tensor([len(row) for row in after])[:, None]
    more = {} if without is None else {"gold_logps_without": block(without)}
    return {"gold_logps": block(after), "gold_mask": mask, **more}


GOLD_CASES = [
    # after, without, verifree, rlpr, vr_cli, latro
    ([[0.5, 0.5]], [[0.25, 0.25]], [0.25], [0.25], [0.5], [math.log(0.25)]),
    ([[0.2, 0.8]], [[0.2, 0.8]], [0.16], [0.0], [0.0], [math.log(0.16)]),
    ([[0.5]], [[1.0]], [0.5], [0.0], [-1.0], [math.log(0.5)]),  # worse with the reasoning
    ([[0.1]], [[1.0]], [0.1], [0.0], [-1.0], [math.log(0.1)]),  # 1 − 10, not below −1
    ([[1.0], [0.5]], [[0.5], [0.5]], [1.0, 0.5], [0.5, 0.0], [0.5, 0.0], [0.0, math.log(0.5)]),
    (
        [[0.5, 0.5], [0.4]],
        [[0.5, 0.125], [0.1]],
        [0.25, 0.4],
        [0.1875, 0.3],
        [0.5, 0.75],  # 1 − √(1/4), 1 − 1/4
        [math.log(0.25), math.log(0.4)],
    ),
]


@pytest.mark.parametrize(("after", "without", "verifree", "rlpr", "vr_cli", "latro"), GOLD_CASES)
def test_rewards_of_the_golds_probability_by_hand(
    after, without, verifree, rlpr, vr_cli, latro
) -> None:
    n = len(after)
    expected = {"verifree": verifree, "rlpr": rlpr, "vr_cli": vr_cli, "latro": latro}
    for name, values in expected.items():
        found = bonus(name, [5] * n, [0] * n, **gold(after, without))
        assert found == pytest.approx(values, abs=1e-6), name


@pytest.mark.parametrize(
    ("lengths", "probabilities", "expected"),
    [
        # n = 10 halves the exponent (1 + log10 10 = 2), n = 1 leaves it.
        ([10, 10], [0.5, 0.25], [1.0, 0.5]),  # equal lengths: rank alone
        ([10, 100], [0.5, 0.001], [2.0, 0.5]),  # nll 0.347 against 2.303: better and shorter
        ([100, 10], [0.5, 0.001], [1.0, 0.5]),  # better but longer
        ([10, 10], [0.5, 0.5], [1.0, 1.0]),  # ties share the better rank
        ([1, 10], [0.5, 0.25], [1.0, 1.0]),  # log 2 / 1 = log 4 / 2: a tie after the division
        ([10, 20, 30], [0.8, 0.2, 0.1], [2.0, 2 / 3 + 0.5, 1 / 3]),
        ([10], [0.5], [1.0]),
    ],
)
def test_nover_by_hand(lengths, probabilities, expected) -> None:
    n = len(lengths)
    found = bonus("nover", lengths, [0] * n, **gold([[p] for p in probabilities]))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("keys", "majority", "empo"),
    [
        (["7", "7", "8"], [1, 1, 0], [2 / 3, 2 / 3, 1 / 3]),
        (["7", "8", "9"], [1, 0, 0], [0, 0, 0]),  # all differ: the first one counts as majority
        (["8", "7", "7", "8"], [1, 0, 0, 1], [0.5] * 4),
        ([None, None, "7"], [0, 0, 1], [0, 0, 1 / 3]),
        ([None, None], [0, 0], [0, 0]),
        (["7", "7"], [1, 1], [1, 1]),
        (["7"], [1], [0]),
    ],
)
def test_agreement_by_hand(keys, majority, empo) -> None:
    n = len(keys)
    more = {"answer_keys": tuple(keys)}
    assert bonus("majority", [5] * n, [0] * n, **more) == pytest.approx(majority)
    assert bonus("empo", [5] * n, [0] * n, **more) == pytest.approx(empo)


EVERYTHING = {
    "budget": LIMIT,
    "entropy": torch.rand(6, 50, generator=torch.Generator().manual_seed(0)),
    "self_certainty": torch.rand(6, 50, generator=torch.Generator().manual_seed(1)),
    "copied": torch.zeros(6, 50, dtype=torch.bool),
    "line_ids": torch.zeros(6, 50, dtype=torch.long),
    "dependence": torch.zeros(6, 1),
    "answer_keys": ("7", "8", "7", None, "9", "9"),
    **gold([[0.5], [0.2], [0.3], [0.9], [0.1], [0.6]], [[0.2]] * 6),
}
LENGTHS, CORRECT, GROUPS = [10, 20, 50, 7, 7, 30], [1, 0, 1, 0, 0, 1], [3, 3, 3, 8, 8, 8]


@pytest.mark.parametrize("name", REWARDS)
def test_no_reward_depends_on_the_order_of_answers_or_on_other_groups(name: str) -> None:
    whole = REWARDS[name].bonus(inputs(LENGTHS, CORRECT, GROUPS, **EVERYTHING))
    order = [4, 0, 5, 2, 3, 1]

    def rows(value: Any, at: list[int]) -> Any:
        if isinstance(value, torch.Tensor):
            return value[at]
        return tuple(value[i] for i in at) if isinstance(value, tuple) else value

    def pick(at: list[int]) -> torch.Tensor:
        more = {key: rows(value, at) for key, value in EVERYTHING.items()}
        chosen = inputs(LENGTHS, CORRECT, GROUPS, **EVERYTHING)
        more |= {
            "logps_conditioned": chosen.logps_conditioned[at],
            "logps_standalone": chosen.logps_standalone[at],
            "answer_mask": chosen.answer_mask[at],
        }
        return REWARDS[name].bonus(
            inputs([50] * len(at), [CORRECT[i] for i in at], [GROUPS[i] for i in at], **more)
        )

    torch.testing.assert_close(pick(order), whole[order])
    if name != "short_rl":  # looks at the batch's accuracy
        torch.testing.assert_close(pick([0, 1, 2]), whole[:3])


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_that_lacks_what_it_declares_says_so(name: str) -> None:
    reward = reward_named(name)
    if not reward.needs:
        total_reward(inputs(LENGTHS, CORRECT, GROUPS, **EVERYTHING), name, 0.2)
        return
    missing = {**EVERYTHING, **dict.fromkeys(reward.needs)}
    with pytest.raises(ValueError, match=r"RewardInputs\.(\w+)"):
        reward.bonus(inputs(LENGTHS, CORRECT, GROUPS, **missing))


def test_there_are_at_least_25_designs() -> None:
    assert len(REWARDS) >= 25
    assert all(reward.about for reward in REWARDS.values())


def dense(inputs_: Any) -> torch.Tensor:
    """v per token: the plainest dense bonus."""
    return inputs_.logps_conditioned - inputs_.logps_standalone


def test_a_dense_bonus_moves_credit_within_an_answer_only(monkeypatch) -> None:
    from sarlab.rewards import Reward, token_credit

    monkeypatch.setitem(REWARDS, "dense", Reward(dense, True, "v per token"))
    conditioned = torch.tensor([[-1.0, -3.0, -2.0], [-1.0, -2.0, 99.0]])
    given = inputs(
        [3, 2],
        [1, 0],
        logps_conditioned=conditioned,
        logps_standalone=torch.full_like(conditioned, -2.0),
    )
    # v = 1, −1, 0 (mean 0) and 1, 0 (mean ½).
    assert total_reward(given, "dense", 0.5).tolist() == [1.0, 0.25]
    credit = token_credit(given, "dense", 0.5)
    assert credit is not None
    assert credit.tolist() == [[0.5, -0.5, 0.0], [0.25, -0.25, 0.0]]
    assert token_credit(given, "sar", 0.5) is None


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_both_loops_train_on_a_dense_bonus(algorithm, monkeypatch) -> None:
    """A dense bonus that is equal on all tokens is the same run as one value per answer."""
    from sarlab import add_lora, load_policy, load_task
    from sarlab.config import preset
    from sarlab.rewards import Reward
    from sarlab.train import add_critic, grpo_steps, ppo_steps, start

    def per_answer(given: Any) -> torch.Tensor:
        return -given.lengths / 100

    def per_token(given: Any) -> torch.Tensor:
        return per_answer(given)[:, None].expand(given.answer_mask.shape)

    monkeypatch.setitem(REWARDS, "per_answer", Reward(per_answer, False, "short"))
    monkeypatch.setitem(REWARDS, "per_token", Reward(per_token, False, "short"))
    ends = []
    for reward in ("per_answer", "per_token"):
        size = {"group_size": 4, "questions": 2} if algorithm == "grpo" else {"questions": 8}
        config = preset("lora", algorithm=algorithm, reward=reward, steps=2, **size)
        state = start(add_lora(load_policy("tiny"), rank=config.lora_rank), config)
        if algorithm == "ppo":
            add_critic(state, config)
        loop = grpo_steps if algorithm == "grpo" else ppo_steps
        records = list(loop(state, load_task("word_problems"), config))
        ends.append([r.metrics["loss"] for r in records])
    assert ends[0] == pytest.approx(ends[1], rel=1e-5)


def test_a_reward_pays_only_for_its_own_passes(tiny, monkeypatch) -> None:
    """Each reward's fields are there, and nothing that it does not declare is computed."""
    import sarlab.rewards.dependence as module
    from sarlab import TrainConfig, load_task
    from sarlab.experience import collect

    calls: list[str] = []
    for name in ("_copied", "line_dependence", "token_report", "gold_logps"):
        real = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda *a, real=real, name=name, **k: (calls.append(name), real(*a, **k))[1],
        )
    expected = {
        "sar": [],
        "kimi": [],
        "majority": [],
        "sar_masked": ["_copied"],
        "entropy": ["token_report"],
        "intuitor": ["token_report"],
        "rlpr": ["gold_logps"],
        "filler_share": ["line_dependence"],
    }
    for reward, passes in expected.items():
        calls.clear()
        config = TrainConfig(reward=reward, max_answer_tokens=64)
        questions = load_task("word_problems").train_batch(1, 1, 0)
        batch = collect(tiny, questions, config, seed="x", group_size=2)
        assert calls == passes, reward
        assert total_reward(batch.inputs, reward, 0.2).isfinite().all()


def test_the_golds_probability_is_that_of_a_plain_forward(tiny) -> None:
    """After the reasoning and without it, row by row, the marker not counted."""
    from sarlab import TrainConfig, load_task
    from sarlab.experience import collect

    config = TrainConfig(reward="latro", max_answer_tokens=120)
    questions = load_task("word_problems").train_batch(1, 2, 0)
    batch = collect(tiny, questions, config, seed="x", group_size=2)
    marker = tiny.tokenizer("Answer:", add_special_tokens=False)["input_ids"]
    for row, text in enumerate(batch.rollouts.texts):
        question = questions[int(batch.rollouts.group_ids[row])]
        prefix = list(batch.prefixes[int(batch.rollouts.group_ids[row])].ids)
        whole = tiny.tokenizer(f"Answer: {question.gold}", add_special_tokens=False)["input_ids"]
        value = [*whole[len(marker) :], tiny.end_id]
        answer = batch.rollouts.answer_ids[row, batch.rollouts.answer_mask[row]].tolist()
        position = next(
            (i for i in range(len(answer)) if answer[i : i + len(marker)] == marker), None
        )
        if position is None:
            continue
        assert text.count("Answer:") == 1
        for field, context in (
            ("gold_logps", [*prefix, *answer[:position], *marker]),
            ("gold_logps_without", [*prefix, *marker]),
        ):
            logits = tiny.model(torch.tensor([context + value])).logits[0].log_softmax(-1)
            plain = [float(logits[len(context) - 1 + i, token]) for i, token in enumerate(value)]
            mask = batch.inputs.gold_mask[row]
            found = getattr(batch.inputs, field)[row][mask].tolist()
            assert found == pytest.approx(plain, abs=1e-4)
