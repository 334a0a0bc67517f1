"""What a training step needs, worked out beforehand: bytes of memory and seconds on a machine.

    from sarlab import plan

    work = plan.Workload(questions=128, group_size=6, prompt_tokens=150, answer_tokens=750)
    print(plan.plan_step("Qwen3-1.7B", work, plan.MACHINES["H100"].times(8)))

A roofline. Matrix products take the longer of their operations (2 per weight and token, as many
again on the way back through frozen weights) and the reading of weights. What happens between them
is bound by bytes and comes on top, as does the call of each layer. `make bench` compares it with
measurements on a CPU; for GPUs it rests on data sheets and nobody has checked it.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self

from sarlab.scoring import default_token_budget

BYTES = {"float32": 4, "bfloat16": 2}
_SLICE_BYTES = 3 * 32 * 2**20  # logits, log-probs and one temporary of the head's slice

# What is resident over what is kept for the backward pass, with glibc's allocator: what was freed
# between kept tensors stays. Seen on smollm2-135m: 611 to 753 MB for 351 MB.
_HOLES = 1.75


@dataclass(frozen=True)
class Machine:
    """One kind of device and how many of them; rates are per device and those really reached.

    ``flops`` are matrix products in float32, ``flops_bf16`` in bfloat16, ``bandwidth`` bytes per
    second from memory, ``memory`` bytes, ``layer_seconds`` what calling one layer costs where
    there is nearly nothing to compute, ``link`` bytes per second between devices.
    """

    name: str
    flops: float
    flops_bf16: float
    bandwidth: float
    memory: float
    layer_seconds: float
    link: float = 0.0
    devices: int = 1
    gpu: bool = True

    def times(self, devices: int) -> Self:
        """As many of these devices, the questions of a step shared among them."""
        if devices < 1 or (devices > 1 and self.link <= 0):
            raise ValueError(
                f"{devices} devices of {self.name!r}: there must be at least 1, and more than 1 "
                "need a link (bytes per second between them)."
            )
        return replace(self, devices=devices)


# Peaks from NVIDIA's data sheets: float32 without TF32 (torch's default), bfloat16 dense, one way
# of NVLink (H100, A100) or PCIe 4.0 ×16 (4090). Assumed, not measured: 40% of the operations and
# 70% of the bandwidths are reached, and a layer costs 0.4 ms (twenty kernels started from Python).
MACHINES = {
    name: Machine(name, 0.4 * flops, 0.4 * bf16, 0.7 * bandwidth, memory, 4e-4, 0.7 * link)
    for name, flops, bf16, bandwidth, memory, link in (
        ("H100", 67e12, 989e12, 3.35e12, 80e9, 450e9),
        ("A100", 19.5e12, 312e12, 2.04e12, 80e9, 300e9),
        ("RTX 4090", 82.6e12, 165e12, 1.01e12, 24e9, 32e9),
    )
}


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that decide what it costs. Norms and biases are left out."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = True  # embedding and language-model head are one matrix

    @property
    def trunk_parameters(self) -> int:
        """Weights that every token passes through: query, key, value, output; gate, up, down."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head_parameters(self) -> int:
        """Weights of the language-model head."""
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.trunk_parameters + self.head_parameters * (1 if self.tied else 2)

    @property
    def kv_floats(self) -> int:
        """Numbers that a token leaves in the key-value cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def activation_floats(self) -> int:
        """Numbers that a token leaves for the backward pass through frozen weights.

        Per layer: in and out of both norms, query, key, value and output of attention (keys and
        values repeated for every head), and four tensors of the MLP.
        """
        layer = 4 * self.hidden + 6 * self.heads * self.head_dim + 4 * self.intermediate
        return self.layers * layer

    def adapter_parameters(self, rank: int) -> int:
        """Weights of a LoRA on all linear layers of the trunk: rank · (inputs + outputs)."""
        attention = 4 * self.hidden + 2 * (self.heads + self.kv_heads) * self.head_dim
        return rank * self.layers * (attention + 3 * (self.hidden + self.intermediate))


# From the models' own config.json.
SHAPES = {
    s.name: s
    for s in (
        Shape("tiny", 4, 128, 384, 4, 4, 32, 670),
        Shape("smollm2-135m", 30, 576, 1536, 9, 3, 64, 49_152),
        Shape("Qwen3-1.7B", 28, 2048, 6144, 16, 8, 128, 151_936),
        Shape("Qwen3-4B", 36, 2560, 9728, 32, 8, 128, 151_936),
        Shape("Qwen3-8B", 36, 4096, 12_288, 32, 8, 128, 151_936, tied=False),
        Shape("Phi-3.5-mini", 32, 3072, 8192, 32, 32, 96, 32_064, tied=False),
        # Its sliding windows are not counted: cache and attention are upper bounds.
        Shape("Gemma3-1B", 26, 1152, 6912, 4, 1, 256, 262_144),
    )
}


def shape_of(model: Any) -> Shape:
    """The shape of a model: a name in ``SHAPES``, a hub id or folder, or a loaded model's config.

    Raises ValueError for a configuration that is no plain decoder.
    """
    if isinstance(model, Shape):
        return model
    name = model if isinstance(model, str) else model.model_type
    if name in SHAPES:
        return SHAPES[name]
    if isinstance(model, str):
        from transformers import AutoConfig

        model = AutoConfig.from_pretrained(model, trust_remote_code=False)
    config = model.get_text_config()
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    sizes: list[Any] = [getattr(config, name, None) for name in names]
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    if experts or not all(isinstance(size, int) for size in sizes):
        raise ValueError(
            f"The configuration of {name!r} is not that of a plain decoder: it has experts, or no "
            f"single number as {', '.join(names)}. Write its Shape by hand, counting what one "
            "token passes through."
        )
    layers, hidden, intermediate, heads = sizes
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    tied = bool(getattr(config, "tie_word_embeddings", False))
    sizes = [layers, hidden, intermediate, heads, kv_heads, head_dim, config.vocab_size, tied]
    return Shape(name, *sizes)


@dataclass(frozen=True)
class Workload:
    """One training step. Lengths in tokens are means; ``longest_answer`` 0 is the mean again.

    ``token_budget`` 0 is the library's own for the device; ``sampling_slots``: rows × (prompt +
    longest answer) of one batch of sampling; ``reference``: whether the KL term needs a pass.
    """

    questions: int = 16
    group_size: int = 8
    prompt_tokens: int = 93
    answer_tokens: int = 60
    longest_answer: int = 0
    standalone_tokens: int = 36
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    lora_rank: int = 16
    algorithm: Literal["grpo", "ppo"] = "grpo"
    mini_batches: int = 2
    epochs: int = 1
    sar: bool = True
    reference: bool = True
    token_budget: int = 0
    sampling_slots: int = 65_536

    def __post_init__(self) -> None:
        choices = {"dtype": tuple(BYTES), "algorithm": ("grpo", "ppo")}
        for name, value in vars(self).items():
            least = 0 if name in ("longest_answer", "token_budget") else 1
            if type(value) is int and value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}.")
            if value not in choices.get(name, (value,)):
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices[name])}.")


@dataclass(frozen=True)
class StepPlan:
    """What one step needs: ``seconds`` by phase; ``memory`` in bytes by part, on one device.

    Several devices share questions, gradients and optimiser states (ZeRO stage 2), hold all weights
    each, and exchange gradients once per update. The fullest one is planned.
    """

    shape: Shape
    work: Workload
    machine: Machine

    @property
    def total_seconds(self) -> float:
        """Seconds of the whole step."""
        return sum(self.seconds.values())

    @property
    def sar_seconds(self) -> float:
        """Seconds that self-aligned reward adds: the pass without the question."""
        return self.seconds.get("score_standalone", 0.0)

    @property
    def sar_ratio(self) -> float:
        """A step with self-aligned reward over the same step without it."""
        return self.total_seconds / (self.total_seconds - self.sar_seconds)

    @property
    def peak_bytes(self) -> float:
        """What stays and the largest of what comes and goes, bytes on one device."""
        passing = [v for k, v in self.memory.items() if k.startswith("while ")]
        return sum(self.memory.values()) - sum(passing) + max(passing)

    @property
    def fits(self) -> bool:
        """Whether the peak stays within nine tenths of a device's memory."""
        return self.peak_bytes <= 0.9 * self.machine.memory

    def __str__(self) -> str:
        gib = {**self.memory, "peak of a device": self.peak_bytes}
        lines = [
            f"{self.shape.name} ({self.shape.parameters / 1e9:.2f}B, LoRA {self.work.lora_rank}, "
            f"{self.work.dtype}) on {self.machine.devices} × {self.machine.name}",
            *(f"  {name:24} {value:10.2f} s" for name, value in self.seconds.items()),
            f"  {'one step':24} {self.total_seconds:10.2f} s   (SAR: × {self.sar_ratio:.3f})",
            *(f"  {name:24} {value / 2**30:10.2f} GiB" for name, value in gib.items()),
        ]
        return "\n".join(lines) + ("" if self.fits else "   does not fit")

    def pass_seconds(
        self, tokens: float, context: float, scored: float, calls: float, backward: bool = False
    ) -> float:
        """Seconds of ``calls`` passes over ``tokens`` in all, each seeing ``context`` tokens.

        ``scored`` tokens go through the language-model head and its log-softmax as well. With
        ``backward`` the gradient's way back is included.
        """
        shape, work, machine = self.shape, self.work, self.machine
        width = BYTES[work.dtype]
        flops = machine.flops if work.dtype == "float32" else machine.flops_bf16
        # The way back through frozen weights costs as much again, through all else twice as much.
        calls, ways, thrice = math.ceil(calls), 2 if backward else 1, 3 if backward else 1
        attention = 4 * shape.layers * shape.heads * shape.head_dim * context
        trunk = tokens * (2 * shape.trunk_parameters * ways + attention * thrice)
        adapter = 6 * tokens * shape.adapter_parameters(work.lora_rank) if backward else 0
        head = scored * 2 * shape.head_parameters * ways  # always in float32
        read = calls * shape.trunk_parameters * width * ways
        head_read = (calls if scored else 0) * shape.head_parameters * 4 * ways
        between = 2 * tokens * shape.activation_floats * width * thrice
        probs = scored * shape.vocabulary * 4 * (6 if backward else 4)
        # A GPU computes while it reads; a CPU's product first rearranges the weights it has read.
        both = max if machine.gpu else lambda computing, reading: computing + reading
        return (
            both((trunk + adapter) / flops, read / machine.bandwidth)
            + both(head / machine.flops, head_read / machine.bandwidth)
            + (between + probs) / machine.bandwidth
            + calls * shape.layers * machine.layer_seconds * thrice
        )

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Seconds by phase of the step."""
        shape, work, machine, run = self.shape, self.work, self.machine, self.pass_seconds
        rows, longest, budget = self._sizes
        answers = rows * work.answer_tokens
        prompts = rows // work.group_size * work.prompt_tokens
        together = max(1, budget // (work.prompt_tokens + work.answer_tokens))  # in a micro-batch
        questions = run(prompts, work.prompt_tokens / 2, 0, prompts / 8_192)
        over = work.prompt_tokens + work.answer_tokens / 2  # what an answer token sees in the mean
        answers_seen = run(answers, over, answers, rows / together)
        # Token by token every call reads all weights and the live rows' keys and values, and
        # drawing a token passes over the vocabulary in float64.
        batch = max(1, work.sampling_slots // (work.prompt_tokens + longest))
        caches = answers * over * shape.kv_floats * BYTES[work.dtype]
        drawn = answers * shape.vocabulary * 8
        decoded = run(answers, over, answers, math.ceil(rows / batch) * longest)
        seconds = {"sample": questions + (caches + drawn) / machine.bandwidth + decoded}
        if work.dtype != "float32":
            seconds["score_conditioned"] = answers_seen
        if work.sar:
            alone = work.standalone_tokens
            passes = rows / max(1, budget // (alone + work.answer_tokens))
            seconds["score_standalone"] = run(alone, alone / 2, 0, 1) + run(
                answers, alone + work.answer_tokens / 2, answers, passes
            )
        if work.reference:
            seconds["reference"] = questions + answers_seen
        batches = work.mini_batches * math.ceil(rows / work.mini_batches / together)
        # A micro-batch runs each of its prompts once; their gradients belong to the update.
        prefixes = batches * math.ceil(min(together, rows) / work.group_size) * work.prompt_tokens
        update = run(answers + prefixes, over, answers, batches, backward=True)
        trained = shape.adapter_parameters(work.lora_rank)
        # AdamW reads weight, gradient and two states, writes three of them: 28 bytes per weight.
        shared = work.mini_batches * trained * 28 / machine.devices / machine.bandwidth
        if machine.devices > 1:  # and gradients are exchanged
            passed = 2 * (machine.devices - 1) / machine.devices * trained * 4
            shared += work.mini_batches * passed / machine.link
        seconds["update"] = work.epochs * (update + shared)
        if work.algorithm == "ppo":
            seconds["values"] = questions + run(answers, over, 0, rows / together)
            critic = run(answers + prefixes, over, 0, batches, backward=True)
            seconds["update_critic"] = work.epochs * (critic + shared)
        return seconds

    @cached_property
    def memory(self) -> dict[str, float]:
        """Bytes by part. Of the parts that start with "while" the largest counts for the peak."""
        shape, work, machine = self.shape, self.work, self.machine
        rows, longest, budget = self._sizes
        width, sequence = BYTES[work.dtype], work.prompt_tokens + longest
        # The policy's adapter, and the critic's: each with its gradient and AdamW's two states.
        adapters = shape.adapter_parameters(work.lora_rank) * (2 if work.algorithm == "ppo" else 1)
        # Merged weights beside the base: not below float32, and not under a budget by hand.
        folded = shape.trunk_parameters * 4 if width == 4 and not work.token_budget else 0
        batch = min(rows, max(1, work.sampling_slots // sequence))
        sampled = batch * (sequence + 64) * shape.kv_floats * width
        logits = batch * shape.vocabulary * (4 + 4 + 8)
        tokens = min(max(budget, sequence), rows * sequence)
        per_token = (shape.kv_floats + 6 * shape.intermediate) * width
        together = min(math.ceil(rows / work.mini_batches), max(1, budget // sequence))
        prompts = math.ceil(together / work.group_size) * work.prompt_tokens
        stored = (together * longest + prompts) * (1.0 if machine.gpu else _HOLES)
        return {
            "weights": shape.parameters * width,
            **({} if width == 4 else {"float32 head": shape.head_parameters * 4}),
            "adapter": adapters * 4,
            "gradients, optimiser": adapters * (4 + 8) / machine.devices,
            "while sampling": folded + sampled + logits,
            "while scoring": folded + tokens * per_token + _SLICE_BYTES,
            "while updating": stored * shape.activation_floats * width + _SLICE_BYTES,
        }

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """Answers on the fullest device, tokens of the longest, tokens of a micro-batch."""
        work = self.work
        rows = math.ceil(work.questions / self.machine.devices) * work.group_size
        budget = work.token_budget or default_token_budget(self.shape.hidden, self.machine.gpu)
        return rows, max(work.longest_answer, work.answer_tokens), budget


def plan_step(model: Any, work: Workload, machine: Machine) -> StepPlan:
    """Memory and seconds of one step; ``model`` as :func:`shape_of` takes it."""
    return StepPlan(shape_of(model), work, machine)
