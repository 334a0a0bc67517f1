"""The main job: load, evaluate the base, train, watch, keep, evaluate again.

What notebook 02 calls in one line, and what the command line calls without a notebook.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sarlab._engine.micro_batches import memory_notes
from sarlab.config import TrainConfig
from sarlab.evaluation.judge import evaluate_policy, paired_difference, summarise
from sarlab.experience import answer_rows, collect
from sarlab.job.trackers import tracked
from sarlab.job.view import View
from sarlab.models import Policy, add_lora, export_policy, load_policy
from sarlab.prompts import conditioned_ids
from sarlab.rewards import total_reward
from sarlab.runs.atomic import read_json, replace_folder, write_json
from sarlab.runs.folder import (
    BEST,
    Run,
    holds_nothing,
    read_metrics,
    read_rollouts,
    refuse_existing,
)
from sarlab.tasks import Task, load_task
from sarlab.train import grpo_steps, ppo_steps
from sarlab.types import Question, StepRecord
from sarlab.update import TrainingError, TrainState, add_critic, start

PROBES = 8  # questions whose answers are followed through training
PROBE_SAMPLES = 4
_FALL = 0.25  # fall in accuracy alone that the guard speaks up at
_DROP = 0.05  # fall in accuracy or relative length that the guard speaks up at


@dataclass(frozen=True)
class HeldOut:
    """Held-out questions in three disjoint parts: the test, validation while training, probes."""

    test: Sequence[Question]
    validation: Sequence[Question]
    probes: Sequence[Question]


def run_training(
    config: TrainConfig, folder: str | Path, *, resume: bool = False, view: View | None = None
) -> dict[str, Any]:
    """Train as configured, leave a run folder, return its summary.

    Everything that can be wrong is looked at before the folder is made. With ``resume`` an
    existing run goes on from its last good checkpoint. ``view.wants_stop()`` is asked between
    steps; a stopped run is evaluated and can be resumed.
    """
    folder = Path(folder)
    view = tracked(view or View(), config.tracker, folder)
    # What was killed before its run had begun has nothing to go on from: it begins.
    resume = resume and not (folder.is_dir() and any(folder.iterdir()) and holds_nothing(folder))
    if resume:
        config = resumed_config(folder, config)
    else:
        refuse_existing(folder)
    task = load_task(config.task, heldout_ref=config.heldout)
    heldout = held_out(task, config)
    policy = load_policy(config.model, dtype=config.dtype)
    check_questions_fit(policy, [*heldout.test, *heldout.validation, *heldout.probes], config)
    add_lora(policy, rank=config.lora_rank, alpha=config.lora_alpha, seed=config.seed)
    state = start(policy, config)
    if config.algorithm == "ppo":
        add_critic(state, config)
    open_run = Run.reopen if resume else Run.create
    run = open_run(folder, config.to_dict())
    with recording(run, lambda: state.step):
        if resume:
            found = run.last_good_checkpoint()
            run.rewind(found[0] if found else 0)
            if found:
                state.load(found[1], found[0])
        return _train_and_judge(run, state, task, heldout, config, view)


@contextlib.contextmanager
def recording(run: Run, steps_done: Callable[[], int]) -> Iterator[None]:
    """Within the block a failure or an interruption is put into run.json; then the lock goes."""
    try:
        yield
    except KeyboardInterrupt:
        run.update(status="interrupted", steps_done=steps_done())
        raise
    except BaseException as error:
        _record_failure(run, steps_done(), error)
        raise
    finally:
        run.close()


def held_out(task: Task, config: TrainConfig) -> HeldOut:
    """The held-out questions of a task, parted by position; the same for every run."""
    validation = config.validation_questions
    wanted = config.eval_questions + validation + PROBES
    found = list(task.heldout(wanted))
    if len(found) < wanted:  # a small file: half to the test, then the probes, then the rest
        test = max(1, len(found) // 2)
        probes = min(PROBES, (len(found) - test) // 2)
        return HeldOut(found[:test], found[test + probes :], found[test : test + probes])
    test, probes = config.eval_questions, PROBES
    return HeldOut(found[:test], found[test + probes :], found[test : test + probes])


def check_questions_fit(policy: Policy, questions: Sequence[Question], config: TrainConfig) -> None:
    """Raise ValueError where a prompt and the longest answer exceed the model's context."""
    for question in questions:
        ids = conditioned_ids(policy.tokenizer, question.text, policy.prompt)
        if len(ids) + config.max_answer_tokens > policy.context_length:
            raise ValueError(
                f"The question {question.text[:60]!r}… has {len(ids)} tokens; with "
                f"max_answer_tokens={config.max_answer_tokens} it exceeds the context of "
                f"{config.model!r} ({policy.context_length}). Shorten it, or lower "
                "max_answer_tokens."
            )


def _train_and_judge(
    run: Run, state: TrainState, task: Task, heldout: HeldOut, config: TrainConfig, view: View
) -> dict[str, Any]:
    policy = state.policy
    with policy.as_reference():  # the untrained policy, also where a run is resumed
        if not run.part(0, "heldout_base").exists():
            _judge(run, policy, heldout.test, config, "heldout_base", 0, view)
        if not run.part(0, "probe").exists():
            probe(run, policy, heldout.probes, config, 0)
    began, before = time.perf_counter(), seconds_so_far(run)
    view.begin(config, state.step)
    if heldout.validation and not run.part(0, "validation").exists():
        with policy.as_reference():
            _judge(run, policy, heldout.validation, config, "validation", 0, view)
    log = Logbook(run, config, view)
    log.replay()
    _tell_memory(run, view, state.step)
    stopped = view.wants_stop()
    steps = ppo_steps if config.algorithm == "ppo" else grpo_steps
    for record in steps(state, task, config) if not stopped else ():
        step = record.step
        last = step == config.steps
        found = None
        if log.evaluates(step):
            if heldout.validation:
                found = _judge(run, policy, heldout.validation, config, "validation", step, view)
            probe(run, policy, heldout.probes, config, step)
        _tell_memory(run, view, step)
        written = log.step(record, found, lambda folder: save_adapter(policy, folder))
        if step % config.checkpoint_every == 0 or last:
            run.save_checkpoint(step, state.save)
        view.step(written)
        if view.wants_stop() and not last:
            run.save_checkpoint(step, state.save)
            stopped = True
            break
    trained_seconds = before + time.perf_counter() - began
    _judge(run, policy, heldout.test, config, "heldout_trained", state.step, view)
    _tell_memory(run, view, state.step)
    replace_folder(run.folder / "adapter", lambda scratch: export_policy(policy, scratch))
    summary = summarise_run(run.folder, config, state.step, trained_seconds)
    write_json(run.folder / "summary.json", summary)
    run.update(
        status="stopped" if stopped else "finished",
        steps_done=state.step,
        train_seconds=round(trained_seconds, 1),
    )
    view.finish(summary)
    return summary


def summarise_run(
    folder: Path, config: TrainConfig, steps: int, train_seconds: float
) -> dict[str, Any]:
    """Base against trained on the held-out test, from the run's own rollout table."""
    base = read_rollouts(folder, "heldout_base").to_pylist()
    trained = read_rollouts(folder, "heldout_trained").to_pylist()
    return {
        "algorithm": config.algorithm,
        "reward": config.reward,
        "alpha": config.alpha,
        "seed": config.seed,
        "model": config.model,
        "task": config.task,
        "steps": steps,
        "base": summarise(base),
        "trained": summarise(trained),
        "difference": {
            name: paired_difference(base, trained, column)
            for name, column in (("accuracy", "correct"), ("mean_length", "length"))
        },
        "train_seconds": round(train_seconds, 1),
        "hardware": hardware(),
    }


def hardware() -> str:
    """The machine in a few words, for standing beside a figure."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"


class Logbook:
    """Writes what a step leaves into the run folder; every engine of training has one."""

    def __init__(self, run: Run, config: TrainConfig, view: View) -> None:
        self.run, self.config, self.view = run, config, view
        self.guard = Guard()
        self.best = _best_so_far(run)

    def replay(self) -> None:
        """Tell guard and view of the validations that the run holds already, the base's first."""
        for step, found in _validations(self.run):
            self.guard.look(step, found)
            self.view.evaluation(step, found)

    def evaluates(self, step: int) -> bool:
        """Whether the validation and the probe questions are answered after this step."""
        return step % self.config.eval_every == 0 or step == self.config.steps

    def step(
        self,
        record: StepRecord,
        validation: dict[str, Any] | None,
        save: Callable[[Path], Any],
    ) -> StepRecord:
        """Log a step with its validation (if there was one); what was logged comes back.

        ``save(folder)`` writes the adapter; it is called where the validation is the best so far.
        """
        step, run = record.step, self.run
        run.write_rollouts(step, "train", record.rows)
        metrics: dict[str, Any] = dict(record.metrics)
        messages = list(record.messages)
        if validation is not None:
            for name in ("accuracy", "mean_length", "sar", "mean_reward"):
                metrics[f"heldout_{name}"] = validation[name]
            messages += self.guard.look(step, validation)
            self.view.evaluation(step, validation)
            if self.best is None or validation["mean_reward"] > self.best:
                self.best = validation["mean_reward"]
                _keep_best(run, save, step, validation)
        for text in messages:
            run.message(step, text.split(":", 1)[0], text)
            self.view.message(f"step {step}: {text}")
        metrics["messages"] = messages
        run.log({k: _plain(v) for k, v in metrics.items()})
        return StepRecord(step, metrics, record.rows, tuple(messages))


class Guard:
    """Speaks up when held-out accuracy falls far, or a little while answers get shorter."""

    def __init__(self) -> None:
        self._best: dict[str, float] | None = None

    def look(self, step: int, summary: dict[str, Any]) -> list[str]:
        """Compare with the most accurate evaluation so far; messages where both fell."""
        now = {k: float(summary[k]) for k in ("accuracy", "mean_length")}
        best = self._best
        if best is None or now["accuracy"] >= best["accuracy"]:
            self._best = now
            return []
        shorter = now["mean_length"] < (1 - _DROP) * best["mean_length"]
        if best["accuracy"] - now["accuracy"] > _DROP and shorter:
            return [
                f"shorter_and_worse: at step {step} held-out answers are shorter "
                f"({best['mean_length']:.0f} → {now['mean_length']:.0f} tokens) and less often "
                f"right ({best['accuracy']:.0%} → {now['accuracy']:.0%}). Lower alpha or "
                "learning_rate; best/ holds the adapter from before."
            ]
        if best["accuracy"] - now["accuracy"] > _FALL:
            return [
                f"less_accurate: at step {step} held-out accuracy has fallen from "
                f"{best['accuracy']:.0%} to {now['accuracy']:.0%} ({best['mean_length']:.0f} → "
                f"{now['mean_length']:.0f} tokens). Lower learning_rate; best/ holds the adapter "
                "from before."
            ]
        return []


def _judge(
    run: Run,
    policy: Policy,
    questions: Sequence[Question],
    config: TrainConfig,
    split: str,
    step: int,
    view: View,
) -> dict[str, Any]:
    label = {"heldout_base": "held-out test, base policy", "heldout_trained": "held-out test"}

    def tell(done: int, total: int) -> None:
        view.phase(label.get(split, f"validation at step {step}"), done, total)

    rows = evaluate_policy(
        policy, questions, config, split=split, step=step, seed=f"{split[:7]}", on_answer=tell
    )
    run.write_rollouts(step, split, rows)
    return summarise(rows)


def probe(
    run: Run, policy: Policy, questions: Sequence[Question], config: TrainConfig, step: int
) -> None:
    """Sample the probe questions, so that answers to one question can be followed."""
    if not questions:
        return
    batch = collect(
        policy, questions, config, seed=f"probe {step}", group_size=PROBE_SAMPLES, progress=1.0
    )
    rewards = total_reward(batch.inputs, config.reward, config.alpha)
    run.write_rollouts(step, "probe", list(answer_rows(step, "probe", batch, rewards, None)))


def save_adapter(policy: Policy, folder: Path) -> None:
    """The adapter alone, in PEFT's layout."""
    policy.model.save_pretrained(folder, selected_adapters=["default"])


def _keep_best(run: Run, save: Callable[[Path], Any], step: int, found: dict[str, Any]) -> None:
    """Keep the adapter with the highest held-out reward (the run's own objective) in best/."""

    def write(folder: Path) -> None:
        save(folder)
        write_json(folder / "validation.json", {"step": step, **found})

    replace_folder(run.folder / BEST, write)


def _validations(run: Run) -> Iterator[tuple[int, dict[str, Any]]]:
    """Step and summary of the evaluations on the validation questions that the run holds."""
    if not run.part(0, "validation").exists():
        return
    table = read_rollouts(run.folder, "validation").to_pylist()
    for step, rows in itertools.groupby(table, key=lambda row: row["step"]):
        yield step, summarise(list(rows))


def _tell_memory(run: Run, view: View, step: int) -> None:
    """Record where memory ran out and work went on in smaller batches."""
    for text in memory_notes():
        run.event(step, "out_of_memory", text)
        view.message(f"step {step}: {text}")


def _record_failure(run: Run, step: int, error: BaseException) -> None:
    """Put kind and reason of the error into run.json, on a full disk too."""
    kind, text = type(error).__name__, str(error)
    if isinstance(error, TrainingError):
        kind = error.kind
    elif getattr(error, "errno", 0) == errno.ENOSPC or "No space left on device" in text:
        kind = "disk_full"
        text += f". Free some room on the disk of {run.folder} and go on with resume=True."
    try:
        run.fail(step, kind, text)
    except OSError as second:
        error.add_note(f"run.json still says 'running', since it could not be written: {second}")


def _best_so_far(run: Run) -> float | None:
    path = run.folder / BEST / "validation.json"
    return read_json(path)["mean_reward"] if path.exists() else None


def seconds_so_far(run: Run) -> float:
    """Seconds of training that the log counts, over all sittings."""
    return float(
        sum(v for m in read_metrics(run.folder) for k, v in m.items() if k.startswith("seconds_"))
    )


def resumed_config(folder: Path, config: TrainConfig) -> TrainConfig:
    """A resumed run keeps its configuration; only ``steps`` may grow."""
    path = folder / "config.json"
    if not path.exists():
        raise ValueError(f"There is no run to resume at {folder} (no config.json).")
    saved = TrainConfig.from_parameters(read_json(path))
    asked, kept = config.to_dict(), saved.to_dict()
    changed = [k for k in kept if k != "steps" and asked[k] != kept[k]]
    if changed:
        named = ", ".join(f"{k} ({kept[k]!r} → {asked[k]!r})" for k in changed)
        raise ValueError(
            f"{folder} was made with other parameters: {named}. Resume it with its own, or start "
            "a new run."
        )
    if config.steps < saved.steps:
        raise ValueError(f"steps is {config.steps}, the run has {saved.steps}; it can only grow.")
    return config


def _plain(value: Any) -> Any:
    """Metrics as JSON can hold them; a NaN says None, and its cause is in the messages."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
