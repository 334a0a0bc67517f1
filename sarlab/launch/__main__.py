"""SA-GRPO on several GPUs or machines: notebook 02's parameters, TRL's engine, the same run folder.

    accelerate launch --config_file configs/accelerate/multi_gpu.yaml -m sarlab.launch \
        -p preset qwen3-1.7b -p name my_run

Every field of TrainConfig may be set, and ``name``, ``out``, ``resume``; ``trl_<field>`` sets a
further field of TRL's GRPOConfig (``-p trl_use_vllm True``). The first process alone writes into
the run folder, which all machines must see.
"""

import os
import sys

import torch

from sarlab.job.watchers import LineView
from sarlab.launch.run import train_distributed
from sarlab.runs.parameters import command_parameters, run_request
from sarlab.summary import summary_text


def main() -> int:
    """The command line; 0, or 2 with a message where a parameter is not right."""
    first = os.environ.get("RANK", "0") == "0"
    try:
        parameters = command_parameters(sys.argv[1:])
        prefixed = [key for key in parameters if key.startswith("trl_")]
        changes = {key.removeprefix("trl_"): parameters.pop(key) for key in prefixed}
        config, folder, resume = run_request(parameters)
    except ValueError as error:
        if first:
            print(error, file=sys.stderr)
        return 2
    train_distributed(config, folder, resume=resume, view=LineView(), **changes)
    if first:
        print(f"\n{summary_text(folder)}", flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
