"""The calculator: sizes and seconds by hand, limits that must hold, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from machine import floor_of_scoring, measure_machine, workload_of
from policies import random_policy
from scale_table import fitting_budget

from sarlab import plan
from sarlab.config import TrainConfig
from sarlab.models import add_lora

# One layer, hidden 4, MLP 8, two heads of 2 with one key-value head, ten words.
SMALL = plan.Shape("small", 1, 4, 8, heads=2, kv_heads=1, head_dim=2, vocabulary=10)
# A machine on which one operation, one byte takes a second, and layers cost nothing to call.
UNIT = plan.Machine("unit", 1, 1, 1, memory=1e9, layer_seconds=0, gpu=False)
FREE_BYTES = replace(UNIT, bandwidth=1e30)
FREE_FLOPS = replace(UNIT, flops=1e30, flops_bf16=1e30)
ONE = plan.Workload(
    questions=1,
    group_size=2,
    prompt_tokens=3,
    answer_tokens=2,
    standalone_tokens=1,
    dtype="float32",
    lora_rank=1,
    mini_batches=1,
)


def test_sizes_by_hand() -> None:
    # Query 4×4, key 4×2, value 4×2, output 4×4 = 48; gate, up, down 3·4×8 = 96.
    assert SMALL.trunk_parameters == 144
    assert SMALL.head_parameters == 40
    assert SMALL.parameters == 184
    assert replace(SMALL, tied=False).parameters == 224
    # Keys and values of one head of 2.
    assert SMALL.kv_floats == 4
    # Rank 1: inputs + outputs of seven matrices: 8 + 6 + 6 + 8 + 12 + 12 + 12.
    assert SMALL.adapter_parameters(1) == 64


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_counts_equal_those_of_a_real_model(architecture: str) -> None:
    policy = random_policy(architecture)
    shape = plan.shape_of(policy.model.config)
    norms = sum(p.numel() for n, p in policy.model.named_parameters() if "norm" in n)
    own_head = policy.model.lm_head.weight is not policy.model.model.embed_tokens.weight
    assert shape.tied is not own_head
    assert shape.parameters + norms == policy.model.num_parameters()
    add_lora(policy, rank=4)
    trained = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
    assert shape.adapter_parameters(4) == trained


def test_the_embedded_model_is_the_one_in_the_table(frozen_tiny) -> None:
    assert replace(plan.shape_of(frozen_tiny.model.config), name="tiny") == plan.SHAPES["tiny"]


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("smollm2-135m", 0.135),
        ("Qwen3-1.7B", 1.72),
        ("Qwen3-4B", 4.02),
        ("Qwen3-8B", 8.19),
        ("Phi-3.5-mini", 3.82),
        ("Gemma3-1B", 1.0),
    ],
)
def test_parameters_are_the_published_ones(name: str, billions: float) -> None:
    assert plan.SHAPES[name].parameters / 1e9 == pytest.approx(billions, rel=0.005)


def test_operations_of_a_pass_by_hand() -> None:
    """Five tokens that see ten each, two of them scored."""

    def run(backward: bool) -> float:
        step = plan.StepPlan(SMALL, ONE, FREE_BYTES)
        return step.pass_seconds(tokens=5, context=10, scored=2, calls=1, backward=backward)

    # Trunk 2·5·144, attention 5·(4·2·2)·10, head 2·2·40.
    assert run(False) == pytest.approx(1440 + 800 + 160)
    # Backward through frozen weights: as much again, attention twice, the adapter's own 6·5·64.
    assert run(True) == pytest.approx(2 * 1440 + 3 * 800 + 2 * 160 + 1920)


def test_bytes_of_a_pass_by_hand() -> None:
    step = plan.StepPlan(SMALL, ONE, FREE_FLOPS)
    seconds = step.pass_seconds(tokens=5, context=10, scored=2, calls=3)
    # Weights (144 + 40)·4 in each of 3 calls; activations kept: 4·4 + 6·4 + 4·8 = 72 numbers a
    # token, written and read; the law of 2 tokens over 10 words passed four times.
    assert seconds == pytest.approx(3 * 184 * 4 + 2 * 5 * 72 * 4 + 2 * 10 * 4 * 4)


def test_the_floor_of_the_second_perplexity_by_hand() -> None:
    operations, moved = floor_of_scoring(SMALL, ONE)
    # 4 answer tokens · 2 · 184, and attention 4 · 16 · 1 over one token in the mean.
    assert operations == 4 * 2 * 184 + 4 * 16
    assert moved == 184 * 4 + 4 * 4 * 4


def test_memory_by_hand() -> None:
    memory = plan.plan_step(SMALL, ONE, UNIT).memory
    assert memory["weights"] == 184 * 4
    assert memory["adapter"] == 64 * 4
    assert memory["gradients, optimiser"] == 64 * 12
    # The adapter folded into a copy of the trunk, two rows of 3 + 2 + 64 slots, logits twice in
    # float32 and once in float64.
    assert memory["while sampling"] == 144 * 4 + 2 * 69 * 4 * 4 + 2 * 10 * 16
    rough = plan.plan_step(SMALL, replace(ONE, dtype="bfloat16"), UNIT).memory
    assert rough["weights"] == 184 * 2
    assert rough["float32 head"] == 160
    assert rough["gradients, optimiser"] == 64 * 12


def test_sar_adds_one_pass_and_nothing_else() -> None:
    machine = plan.MACHINES["H100"]
    work = plan.Workload(questions=128, group_size=6, answer_tokens=1024)
    with_sar = plan.plan_step("Qwen3-4B", work, machine)
    without = plan.plan_step("Qwen3-4B", replace(work, sar=False), machine)
    added = with_sar.total_seconds - without.total_seconds
    assert added == pytest.approx(with_sar.sar_seconds)
    assert with_sar.sar_ratio == pytest.approx(with_sar.total_seconds / without.total_seconds)
    assert without.sar_ratio == 1


def test_no_phase_is_faster_than_its_floor() -> None:
    machine = plan.MACHINES["H100"]
    for name, shape in plan.SHAPES.items():
        work = plan.Workload(questions=64, group_size=8, prompt_tokens=100, answer_tokens=500)
        found = plan.plan_step(name, work, machine)
        operations, moved = floor_of_scoring(shape, work)
        floor = max(operations / machine.flops_bf16, moved / machine.bandwidth)
        assert found.sar_seconds > floor
        # Sampling reads the weights once a token position.
        assert found.seconds["sample"] > 500 * 2 * shape.trunk_parameters / machine.bandwidth


def test_growth_is_near_linear_in_tokens_and_devices_share_the_work() -> None:
    machine = plan.MACHINES["H100"]
    work = plan.Workload(questions=64, answer_tokens=512)
    one = plan.plan_step("Qwen3-1.7B", work, machine)
    double = plan.plan_step("Qwen3-1.7B", replace(work, answer_tokens=1024), machine)
    assert 1.8 < double.seconds["update"] / one.seconds["update"] < 2.3
    eight = plan.plan_step("Qwen3-1.7B", work, machine.times(8))
    assert one.total_seconds / 8 < eight.total_seconds < one.total_seconds
    assert eight.memory["gradients, optimiser"] == one.memory["gradients, optimiser"] / 8
    assert eight.memory["weights"] == one.memory["weights"]


def test_a_budget_that_fits_is_found_or_the_shortage_said() -> None:
    card = plan.MACHINES["RTX 4090"]
    work = plan.Workload(prompt_tokens=150, answer_tokens=900)
    budget = fitting_budget("Qwen3-4B", work, card)
    assert plan.plan_step("Qwen3-4B", replace(work, token_budget=budget), card).fits
    assert not plan.plan_step("Qwen3-4B", replace(work, token_budget=2 * budget), card).fits
    with pytest.raises(ValueError, match=r"Qwen3-8B needs \d+ GiB on RTX 4090"):
        fitting_budget("Qwen3-8B", replace(work, answer_tokens=9_000), card)


def test_a_training_configuration_is_a_workload() -> None:
    config = TrainConfig(questions=4, group_size=6, beta=0, epochs=3, token_budget=512)
    work = workload_of(config, 90, 70, standalone_tokens=20)
    assert (work.questions, work.group_size, work.epochs) == (4, 6, 3)
    assert work.reference is False and work.token_budget == 512
    assert (work.prompt_tokens, work.answer_tokens, work.standalone_tokens) == (90, 70, 20)


def test_ppo_has_values_and_a_critic_and_no_reference() -> None:
    work = plan.Workload(questions=64, group_size=1, algorithm="ppo", reference=False)
    found = plan.plan_step("Qwen3-1.7B", work, plan.MACHINES["A100"])
    assert {"values", "update_critic"} < set(found.seconds) and "reference" not in found.seconds
    grpo = plan.plan_step("Qwen3-1.7B", replace(work, algorithm="grpo"), plan.MACHINES["A100"])
    assert found.memory["adapter"] == 2 * grpo.memory["adapter"]


def test_the_table_names_phases_parts_and_what_does_not_fit() -> None:
    work = plan.Workload(answer_tokens=9_000)
    text = str(plan.plan_step("Qwen3-8B", work, plan.MACHINES["RTX 4090"]))
    assert "8.19B, LoRA 16, bfloat16" in text and "score_standalone" in text
    assert text.endswith("does not fit")


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (lambda: plan.Workload(questions=0), "questions is 0; it must be at least 1"),
        (lambda: plan.Workload(lora_rank=0), "lora_rank is 0; it must be at least 1"),
        (lambda: plan.Workload(token_budget=-1), "token_budget is -1; it must be at least 0"),
        (lambda: plan.Workload(dtype="float16"), "dtype is 'float16'"),
        (lambda: plan.Workload(algorithm="dpo"), "algorithm is 'dpo'"),
        (lambda: UNIT.times(8), "8 devices of 'unit'"),
    ],
)
def test_nonsense_is_refused(broken, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        broken()


def test_a_mixture_of_experts_is_refused() -> None:
    from transformers import MixtralConfig

    with pytest.raises(ValueError, match="not that of a plain decoder"):
        plan.shape_of(MixtralConfig())


def test_a_measured_machine_reaches_what_one_product_reaches() -> None:
    machine = measure_machine(seconds=0.05)
    assert not machine.gpu and machine.devices == 1
    # Any machine that runs this does more than 0.1 GFLOP/s and less than 100 TFLOP/s.
    assert 1e8 < machine.flops < 1e14 and 1e7 < machine.bandwidth < 1e13
    assert 1e-6 < machine.layer_seconds < 1
    assert machine.memory > 2**28
    assert machine.name.startswith(f"CPU, {torch.get_num_threads()} threads")
