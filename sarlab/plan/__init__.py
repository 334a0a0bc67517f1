"""What a training step needs, worked out beforehand: bytes of memory and seconds on a machine.

    from sarlab import plan

    work = plan.Workload(questions=128, group_size=6, prompt_tokens=150, answer_tokens=750)
    print(plan.plan_step("Qwen3-1.7B", work, plan.MACHINES["H100"].times(8)))

The arithmetic is a roofline. A forward pass over n tokens takes 2·n operations per weight, a
backward pass through frozen weights as many again. Matrix products take the longer of operations
and weights read; what happens between them (norms, activations, attention's keys and values,
log-softmax) is bound by bytes and comes on top, and so does what a layer costs however little there
is to compute. All of it is pure. `make bench` compares it with measurements on a CPU; for GPUs it
rests on data sheets and nobody has checked it.
"""

from sarlab.plan.machines import MACHINES, Machine, data_sheet
from sarlab.plan.shapes import SHAPES, Shape, shape_of
from sarlab.plan.step import BYTES, StepPlan, Workload, fitting_budget, pass_seconds, plan_step

__all__ = [
    "BYTES",
    "MACHINES",
    "SHAPES",
    "Machine",
    "Shape",
    "StepPlan",
    "Workload",
    "data_sheet",
    "fitting_budget",
    "pass_seconds",
    "plan_step",
    "shape_of",
]
