"""The main job: load, evaluate the base, train, watch, keep, evaluate again.

What notebook 02 calls in one line, and what the command line calls without a notebook.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sarlab.config import TrainConfig
from sarlab.job.logbook import Logbook, check_resumed, origins, recording, save_adapter
from sarlab.job.watchers import RunStopped, View
from sarlab.models import Policy, add_lora, export_policy, load_policy
from sarlab.prompts import conditioned_ids
from sarlab.runs.atomic import replace_file
from sarlab.runs.folder import Run, holds_nothing, read_metrics, refuse_existing
from sarlab.tasks import Task, load_task
from sarlab.train import TrainState, add_critic, grpo_steps, ppo_steps, start
from sarlab.types import Question, StepRecord

PROBES = 8  # questions whose answers are followed through training
_UNLOGGED = "unlogged.json"  # in a checkpoint: a step whose validation was broken off


class HeldOut(NamedTuple):
    """Held-out questions in three disjoint parts: the test, validation while training, probes."""

    test: Sequence[Question]
    validation: Sequence[Question]
    probes: Sequence[Question]


def run_training(
    config: TrainConfig, folder: str | Path, *, resume: bool = False, view: View | None = None
) -> dict[str, Any]:
    """Train as configured, leave a run folder, return its summary.

    What can be wrong is looked at before the folder is made. With ``resume`` a run goes on from its
    last good checkpoint. Where ``view.wants_stop()`` the run ends after the step and is evaluated;
    where ``view.phase`` raises :class:`RunStopped` it ends at once, without ``trained`` in its
    summary. Without a view a line is printed every 30 seconds.
    """
    folder = Path(folder)
    # What was killed before its run had begun has nothing to go on from: it begins.
    resume = resume and not (folder.is_dir() and holds_nothing(folder))
    if resume:
        check_resumed(folder, config)
    else:
        refuse_existing(folder)
    task, heldout, policy = prepare(config)
    judged = [*itertools.chain(*heldout), *task.train_batch(1, config.questions, 0)]
    facts = origins(policy, config, judged)
    add_lora(policy, rank=config.lora_rank, alpha=config.lora_alpha, seed=config.seed)
    state = start(policy, config)
    if config.algorithm == "ppo":
        add_critic(state, config)
    log = Logbook(folder, config, view, resume=resume, **facts)
    with recording(log.run, lambda: state.step):
        step, checkpoint = log.take_up(task.notes)
        if checkpoint:
            state.load(checkpoint, step)
        return _train_and_judge(log, state, task, heldout)


def prepare(config: TrainConfig) -> tuple[Task, HeldOut, Policy]:
    """Load task and policy, and refuse questions that do not fit into the policy's context."""
    task = load_task(config.task, heldout_ref=config.heldout)
    heldout = held_out(task, config)
    policy = load_policy(config.model, dtype=config.dtype)
    if config.thinking != "auto":
        policy.prompt = replace(policy.prompt, thinking=config.thinking == "on")
    check_questions_fit(policy, task, itertools.chain(*heldout), config)
    return task, heldout, policy


def held_out(task: Task, config: TrainConfig) -> HeldOut:
    """The held-out questions of a task, parted by position; the same for every run."""
    count = config.eval_questions + config.validation_questions + PROBES
    questions = list(task.heldout(count))
    test, probes = config.eval_questions, PROBES
    if len(questions) < count:  # a small file: half to the test, then the probes, then the rest
        test = max(1, len(questions) // 2)
        probes = min(PROBES, (len(questions) - test) // 2)
    end = test + probes
    return HeldOut(questions[:test], questions[end:], questions[test:end])


def check_questions_fit(
    policy: Policy, task: Task, evaluated: Iterable[Question], config: TrainConfig
) -> None:
    """Raise ValueError where a prompt and the longest answer exceed the model's context.

    A generator leaves out what does not fit. A token covers at least one byte, so only long texts
    are tokenised.
    """
    room = policy.context_length - config.max_answer_tokens

    def tokens(text: str) -> int:
        return len(conditioned_ids(policy.tokenizer, text, policy.prompt))

    room_bytes = room - tokens("?")

    def fits(question: Question) -> bool:
        size = len(question.text.encode("utf-8", "surrogatepass"))
        return size <= room_bytes or tokens(question.text) <= room

    task.fits = fits
    for question in [*evaluated, *task.train]:
        if not fits(question):
            raise ValueError(
                f"The question {question.text[:60]!r}… has {tokens(question.text)} tokens; with "
                f"max_answer_tokens={config.max_answer_tokens} it exceeds the context of "
                f"{config.model!r} ({policy.context_length}). Shorten it, or lower "
                "max_answer_tokens."
            )


def _train_and_judge(
    log: Logbook, state: TrainState, task: Task, heldout: HeldOut
) -> dict[str, Any]:
    run, config, view, policy = log.run, log.config, log.view, state.policy
    unlogged: StepRecord | None = None  # a step that is done, but whose validation is not
    try:
        with policy.as_reference():  # the untrained policy, also where a run is resumed
            for split, questions in (
                ("heldout_base", heldout.test),
                ("probe", heldout.probes),
                ("validation", heldout.validation),
            ):
                if not run.part(0, split).exists():
                    log.judge(policy, questions, split, 0)
        log.begin(state.step)
        steps = ppo_steps if config.algorithm == "ppo" else grpo_steps
        drawn = steps(
            state, task, config, lambda *counts: view.phase(f"step {state.step + 1}", *counts)
        )
        records = itertools.chain(_unlogged_step(run, state.step), drawn)
        stopped = view.wants_stop()
        while not stopped and (record := next(records, None)):
            unlogged, step, validation = record, record.step, None
            last = step == config.steps
            if step % config.eval_every == 0 or last:
                validation = log.judge(policy, heldout.validation, "validation", step)
                log.judge(policy, heldout.probes, "probe", step)
            log.step(record, validation, partial(save_adapter, policy))
            unlogged = None
            stopped = view.wants_stop() and not last
            if step % config.checkpoint_every == 0 or last or stopped:
                run.save_checkpoint(step, state.save)
        log.judge(policy, heldout.test, "heldout_trained", state.step)
    except RunStopped:

        def save(folder: Path) -> None:
            state.save(folder)
            if unlogged is not None:
                (folder / _UNLOGGED).write_text(json.dumps(asdict(unlogged)), encoding="utf-8")

        if state.step:
            run.save_checkpoint(state.step, save)
        return log.finish(state.step, stopped=True)
    log.memory(state.step)
    replace_file(run.folder / "adapter", partial(export_policy, policy), folder=True)
    return log.finish(state.step, stopped=stopped)


def _unlogged_step(run: Run, step: int) -> Iterator[StepRecord]:
    """The step that a resumed run starts from, where it was stopped before that step was logged."""
    path = run.checkpoint(step) / _UNLOGGED
    if path.exists() and all(m["step"] != step for m in read_metrics(run.folder)):
        record = json.loads(path.read_text(encoding="utf-8"))
        yield StepRecord(step, record["metrics"], tuple(record["rows"]), tuple(record["messages"]))
