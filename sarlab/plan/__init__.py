"""What a training step needs, worked out beforehand: bytes of memory and seconds on a machine.

    from sarlab import plan

    work = plan.Workload(questions=128, group_size=6, prompt_tokens=150, answer_tokens=750)
    print(plan.plan_step("Qwen3-1.7B", work, plan.MACHINES["H100"].times(8)))

The arithmetic is a roofline. A forward pass over n tokens takes 2·n operations a weight, a backward
pass through frozen weights as many again, through trained ones twice as many. Matrix products
take the longer of operations / (operations a second) and weights read / (bytes a second); what
happens between them (norms, activations, attention's keys and values, log-softmax) is bound by
bytes and comes on top, and so does what a layer costs however little there is to compute.
Everything here is pure but :func:`measure_machine`. `make bench` sets them beside
measured ones; for GPUs they rest on data sheets and nobody has checked them.
"""

from sarlab.plan.machines import MACHINES, Machine, data_sheet, measure_machine
from sarlab.plan.shapes import SHAPES, Shape, shape_of
from sarlab.plan.step import (
    StepPlan,
    Workload,
    fitting_budget,
    floor_of_scoring,
    pass_seconds,
    plan_step,
)

__all__ = [
    "MACHINES",
    "SHAPES",
    "Machine",
    "Shape",
    "StepPlan",
    "Workload",
    "data_sheet",
    "fitting_budget",
    "floor_of_scoring",
    "measure_machine",
    "pass_seconds",
    "plan_step",
    "shape_of",
]
