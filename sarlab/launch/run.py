"""SA-GRPO on several GPUs or machines: TRL's engine, sarlab's run folder, which all must see."""

import dataclasses
import math
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from transformers import PrinterCallback, TrainerCallback

from sarlab.config import TrainConfig
from sarlab.evaluation.judge import evaluate_policy, summarise
from sarlab.experience import step_record
from sarlab.job.logbook import (
    EVALUATIONS,
    Logbook,
    check_resumed,
    hardware,
    origins,
    recording,
    save_adapter,
)
from sarlab.job.training import HeldOut, prepare
from sarlab.job.watchers import View
from sarlab.launch.trl import SARTrainer, grpo_config, updates_per_step
from sarlab.losses import group_advantages, share_without_signal
from sarlab.models import Policy, load_policy, save_prompt_format
from sarlab.runs.atomic import read_json, replace_file
from sarlab.train import TrainingError, learning_rate
from sarlab.types import Question

_ENGINE = f"trl {version('trl')}"
_LOGGED = {  # our columns, TRL's names
    "loss": "loss",
    "kl": "kl",
    "grad_norm": "grad_norm",
    "clip_fraction": "clip_ratio/region_mean",
}


def train_distributed(
    config: TrainConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    view: View | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Train as configured on every process that was launched; the run's summary.

    To be called by all processes alike. ``changes`` are further fields of TRL's GRPOConfig. With
    ``resume`` a run goes on from its last whole checkpoint, with as many processes as it had.
    """
    state = PartialState(cpu=not torch.cuda.is_available())
    folder = Path(_shared(str(folder)))
    args = grpo_config(config, folder / "checkpoints", processes=state.num_processes, **changes)
    # The run's dtype decides, not the launcher's file: one source for what a score is made of.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if args.bf16 else "no"
    if resume:
        check_resumed(folder, config)
        had = read_json(folder / "run.json").get("processes")
        if had != state.num_processes:
            raise ValueError(
                f"{folder} was made with {had or 'sarlab’s own loop, not by'} process(es) of this "
                f"engine, and {state.num_processes} were launched. Resume it with what it was "
                "started with."
            )
    with state.main_process_first():  # one download of a hub's files
        task, heldout, policy = prepare(config)
    questions = [
        question
        for step in range(1, config.steps + 1)
        for question in task.train_batch(step, config.questions, config.seed)
    ]
    log: Logbook | None = None
    if state.is_main_process:
        facts = origins(policy, config, [*heldout.test, *questions])
        facts |= {"engine": _ENGINE, "processes": state.num_processes, "engine_options": changes}
        log = Logbook(folder, config, view, resume=resume, **facts)
    state.wait_for_everyone()
    job = _Job(log, config, heldout)
    with recording(log.run, lambda: job.step) if log else nullcontext():
        job.step, checkpoint = _shared(log and log.take_up(task.notes))
        return job.train(policy, questions, args, checkpoint)


class _Job(TrainerCallback):
    """One process's part of a run; ``log`` is there on the first process alone."""

    def __init__(self, log: Logbook | None, config: TrainConfig, heldout: HeldOut) -> None:
        self.log, self.config, self.heldout = log, config, heldout
        self.state, self.step, self.updates = PartialState(), 0, updates_per_step(config)
        self.trainer: Any = None
        self.began = time.perf_counter()  # of a step

    def train(
        self, policy: Policy, questions: Sequence[Question], args: Any, checkpoint: Path | None
    ) -> dict[str, Any]:
        """Base evaluation, training, trained evaluation."""
        log, heldout = self.log, self.heldout
        for split, part in (("heldout_base", heldout.test), ("validation", heldout.validation)):
            if _shared(log is not None and not log.run.part(0, split).exists()):
                self.judge(policy, part, split, 0)
        if log is not None and not log.run.part(0, "probe").exists():
            log.judge(policy, heldout.probes, "probe", 0)
        self.trainer = trainer = SARTrainer(policy, questions, self.config, args)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)
        if log is not None:
            log.begin(self.step)
            if not whole_weights(trainer):
                log.event(
                    self.step,
                    "no_validation",
                    "The weights are spread over the processes, so nothing is evaluated between "
                    "the steps; the test before and after is.",
                )
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        folder = Path(args.output_dir).parent
        self._export(trainer, policy, folder)
        trainer.accelerator.free_memory()
        self.trainer = None
        del trainer, policy
        # Loaded anew: that works however the weights were spread, and judges what was saved.
        trained = load_policy(folder, dtype=self.config.dtype)
        self.judge(trained, heldout.test, "heldout_trained", self.step)
        summary = None
        if log is not None:
            count = self.state.num_processes
            machines = f"{count} processes, each {hardware()}" if count > 1 else hardware()
            summary = log.finish(self.step, engine=_ENGINE, processes=count, hardware=machines)
        return dict(_shared(summary))

    def judge(
        self, policy: Policy, questions: Sequence[Question], split: str, step: int
    ) -> dict[str, Any] | None:
        """Each process answers its share; the first writes all rows. None without questions."""
        if not questions:
            return None
        rank, count = self.state.process_index, self.state.num_processes
        rows = []
        if share := list(questions)[rank::count]:
            # With one process the seed, and so every answer, is that of sarlab's own loop.
            seed = EVALUATIONS[split][0] + (f" {rank} of {count}" if count > 1 else "")
            rows = evaluate_policy(policy, share, self.config, split=split, step=step, seed=seed)
        placed = [{**row, "group_id": row["group_id"] * count + rank} for row in rows]
        rows = sorted(gather_object(placed), key=lambda row: row["group_id"])
        if self.log is not None:
            self.log.run.write_rollouts(step, split, rows)
        return summarise(rows)

    def _export(self, trainer: SARTrainer, policy: Policy, folder: Path) -> None:
        """The trained adapter in PEFT's layout, gathered by the trainer where it is spread."""
        scratch = folder / ".adapter-gathered"
        trainer.save_model(str(scratch))
        self.state.wait_for_everyone()
        if self.log is not None:
            (scratch / "training_args.bin").unlink(missing_ok=True)  # a pickle, read by nobody
            save_prompt_format(policy, scratch)
            replace_file(folder / "adapter", partial(_move_all, scratch), folder=True)
        self.state.wait_for_everyone()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.updates == 0:
            self.began = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """After each of sarlab's steps: a line of the log, its answers, a validation."""
        step, rest = divmod(state.global_step, self.updates)
        if rest or "loss" not in logs:  # the step goes on, or these are the totals at the end
            return
        trainer, config = self.trainer, self.config
        updates = [entry for entry in state.log_history if "loss" in entry][-self.updates :]
        for name in ("loss", "grad_norm"):
            values = [float(entry[name]) for entry in updates]
            if not all(map(math.isfinite, values)):
                raise TrainingError(
                    "not_finite",
                    f"Step {step}: {name} is {values}; it must be finite. Go on from the last "
                    "checkpoint with a lower learning_rate.",
                )
        batch, rewards = trainer.batch, trainer.rewards
        groups = batch.inputs.group_ids
        seconds = time.perf_counter() - self.began - sum(batch.seconds.values())
        metrics = {
            "no_signal_share": share_without_signal(rewards, groups),
            "learning_rate": learning_rate(config, step),
            "seconds_engine": seconds,
        }
        for ours, theirs in _LOGGED.items():
            if values := [float(u[theirs]) for u in updates if u.get(theirs) is not None]:
                metrics[ours] = sum(values) / len(values)
        advantages = group_advantages(rewards, groups, divide_by_std=config.loss == "grpo")
        record = step_record(step, batch, rewards, advantages, config, **metrics)
        self.step, validation = step, None
        model = trainer.accelerator.unwrap_model(trainer.model)
        live = dataclasses.replace(trainer.policy, model=model, version=state.global_step)
        if (step % config.eval_every == 0 or step == config.steps) and whole_weights(trainer):
            was_training = trainer.model.training
            trainer.model.eval()
            validation = self.judge(live, self.heldout.validation, "validation", step)
            if self.log is not None:
                self.log.judge(live, self.heldout.probes, "probe", step)
            trainer.model.train(was_training)
        if self.log is not None:
            self.log.step(record, validation, partial(save_adapter, live))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put TRL's checkpoint where resuming looks for one, whole and with checksums."""
        self.state.wait_for_everyone()  # every process writes files of its own into it
        if self.log is not None:
            written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            step = state.global_step // self.updates
            self.log.run.save_checkpoint(step, partial(_move_all, written))


def whole_weights(trainer: SARTrainer) -> bool:
    """Whether each process holds all weights: not so with FSDP and ZeRO-3."""
    accelerator = trainer.accelerator
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return int(accelerator.state.deepspeed_plugin.zero_stage) < 3
    return accelerator.distributed_type != DistributedType.FSDP


def _move_all(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir()):
        shutil.move(path, target / path.name)
    source.rmdir()


def _shared(value: Any) -> Any:
    """The first process's value, on every process."""
    return broadcast_object_list([value])[0]
