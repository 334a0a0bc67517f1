"""The table of docs/SCALE.md: a step of the paper on 1, 8 and 64 H100, by sarlab.plan.

    python scripts/scale_table.py

Arithmetic on data sheets, nothing measured. The paper's step: 128 questions × 6 answers, LoRA 16,
bfloat16, two updates; answers of GRPO's published mean length, the longest at the limit. Sampling
takes as many cache slots at once, and the update as many tokens, as fit into a GPU (activations
are kept: with checkpointing more would fit, and the update take a third longer).
"""

from __future__ import annotations

from dataclasses import replace

from sarlab import plan

PROMPT_TOKENS, LIMIT = 150, 4096
# Published mean lengths of GRPO's answers (Han et al. 2025); Qwen3-8B is not in the paper.
LENGTHS = {
    "Qwen3-1.7B": 763,
    "Qwen3-4B": 1031,
    "Qwen3-8B": 1031,
    "Phi-3.5-mini": 448,
    "Gemma3-1B": 1866,
}


def fitting_budget(model: str, work: plan.Workload, machine: plan.Machine) -> int:
    """The largest power of two as token budget with which the step fits, at most 2^17.

    Raises ValueError where even one row at a time does not fit.
    """
    for exponent in range(17, 7, -1):
        if plan.plan_step(model, replace(work, token_budget=2**exponent), machine).fits:
            return 2**exponent
    smallest = plan.plan_step(model, replace(work, token_budget=1), machine)
    raise ValueError(
        f"{smallest.shape.name} needs {smallest.peak_bytes / 2**30:.0f} GiB on {machine.name} for "
        "one row at a time. Shorten the answers, lower sampling_slots, or take a larger device."
    )


def fitting(model: str, work: plan.Workload, machine: plan.Machine) -> plan.Workload:
    """The workload with the most cache slots, and then the largest token budget, that fit."""
    for exponent in range(20, 12, -1):
        tried = replace(work, sampling_slots=2**exponent, token_budget=2_048)
        if plan.plan_step(model, tried, machine).fits:
            return replace(tried, token_budget=fitting_budget(model, tried, machine))
    raise ValueError(f"{model} does not fit on {machine.name}: take shorter answers.")


def main() -> None:
    """Print the table as Markdown."""
    print("| model | H100 | slots | tokens | peak | a step | sampling | update | SAR's share |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for model, length in LENGTHS.items():
        for devices in (1, 8, 64):
            work = plan.Workload(
                questions=128,
                group_size=6,
                prompt_tokens=PROMPT_TOKENS,
                answer_tokens=length,
                longest_answer=LIMIT - PROMPT_TOKENS if model == "Phi-3.5-mini" else LIMIT,
            )
            machine = plan.MACHINES["H100"].times(devices)
            share = replace(work, questions=128 // devices)  # what one GPU gets decides what fits
            fit = fitting(model, share, plan.MACHINES["H100"])
            work = replace(work, sampling_slots=fit.sampling_slots, token_budget=fit.token_budget)
            found = plan.plan_step(model, work, machine)
            sampling, update = found.seconds["sample"], found.seconds["update"]
            print(
                f"| {model} | {devices} | {work.sampling_slots:,} | {work.token_budget:,} | "
                f"{found.peak_bytes / 2**30:.0f} GiB | {found.total_seconds:.0f} s | "
                f"{sampling / found.total_seconds:.0%} | {update / found.total_seconds:.0%} | "
                f"{found.sar_seconds / found.total_seconds:.1%} |"
            )


if __name__ == "__main__":
    main()
