"""The main job: load, evaluate the base, train, watch, keep, evaluate again.

What notebook 02 calls in one line, and what the command line calls without a notebook.
"""

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sarlab.config import TrainConfig
from sarlab.evaluation.judge import evaluate_policy, summarise
from sarlab.experience import answer_rows, collect
from sarlab.job.logbook import (
    Logbook,
    origins,
    recording,
    resumed_config,
    save_adapter,
    seconds_so_far,
)
from sarlab.job.watchers import QUIET_SECONDS, LineView, RunStopped, TrackerLog, View
from sarlab.models import Policy, add_lora, export_policy, load_policy
from sarlab.prompts import conditioned_ids
from sarlab.rewards import total_reward
from sarlab.runs.atomic import replace_folder
from sarlab.runs.folder import Run, holds_nothing, read_metrics, refuse_existing
from sarlab.tasks import Task, load_task
from sarlab.train import TrainState, add_critic, grpo_steps, ppo_steps, start
from sarlab.types import Question, StepRecord

PROBES = 8  # questions whose answers are followed through training
PROBE_SAMPLES = 4
_UNLOGGED = "unlogged.json"  # in a checkpoint: a step whose validation was broken off
SEED_OF_SPLIT = {"heldout_base": "heldout", "heldout_trained": "heldout", "validation": "validat"}
"""Seeds of the evaluations: base and trained policy draw the same random numbers, in pairs."""


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
    view = view or LineView(every_seconds=QUIET_SECONDS)
    tracker = TrackerLog(config.tracker, folder)
    # What was killed before its run had begun has nothing to go on from: it begins.
    resume = resume and not (folder.is_dir() and any(folder.iterdir()) and holds_nothing(folder))
    if resume:
        config = resumed_config(folder, config)
    else:
        refuse_existing(folder)
    task, heldout, policy = prepare(config)
    judged = [*itertools.chain(*heldout), *task.train_batch(1, config.questions, 0)]
    facts = origins(policy, config, judged)
    add_lora(policy, rank=config.lora_rank, alpha=config.lora_alpha, seed=config.seed)
    state = start(policy, config)
    if config.algorithm == "ppo":
        add_critic(state, config)
    open_run = Run.reopen if resume else Run.create
    run = open_run(folder, config.to_dict())
    with recording(run, lambda: state.step):
        if resume:
            checkpoint = run.last_good_checkpoint()
            run.rewind(checkpoint[0] if checkpoint else 0)
            if checkpoint:
                state.load(checkpoint[1], checkpoint[0])
        run.update(**facts)
        log = Logbook(run, config, view, tracker)
        log.left_out(state.step, task.notes)
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
    run, policy = log.run, state.policy
    try:
        with policy.as_reference():  # the untrained policy, also where a run is resumed
            if not run.part(0, "heldout_base").exists():
                _judge(log, policy, heldout.test, "heldout_base", 0)
            if not run.part(0, "probe").exists():
                probe(log, policy, heldout.probes, 0)
            if heldout.validation and not run.part(0, "validation").exists():
                _judge(log, policy, heldout.validation, "validation", 0)
        seconds, stopped = _train(log, state, task, heldout)
        _judge(log, policy, heldout.test, "heldout_trained", state.step)
    except RunStopped:
        return log.finish(state.step, seconds_so_far(run), judged=False, stopped=True)
    log.memory(state.step)
    replace_folder(run.folder / "adapter", lambda scratch: export_policy(policy, scratch))
    return log.finish(state.step, seconds, stopped=stopped)


def _train(log: Logbook, state: TrainState, task: Task, heldout: HeldOut) -> tuple[float, bool]:
    """All steps with log, validations and checkpoints: their seconds, whether it was stopped."""
    run, config, view, policy = log.run, log.config, log.view, state.policy
    began, before = time.perf_counter(), seconds_so_far(run)
    view.begin(config, state.step)
    log.replay()
    log.memory(state.step)
    steps = ppo_steps if config.algorithm == "ppo" else grpo_steps
    unlogged = None  # a step that is done, but whose validation is not
    stopped = view.wants_stop()
    drawn = steps(
        state, task, config, lambda *counts: view.phase(f"step {state.step + 1}", *counts)
    )
    records = itertools.chain(_unlogged(run, state.step), drawn)
    try:
        for record in records if not stopped else ():
            unlogged, step = record, record.step
            last = step == config.steps
            validation = None
            if step % config.eval_every == 0 or last:
                if heldout.validation:
                    validation = _judge(log, policy, heldout.validation, "validation", step)
                probe(log, policy, heldout.probes, step)
            written = log.step(record, validation, partial(save_adapter, policy))
            unlogged = None
            view.step(written)
            stopped = view.wants_stop() and not last
            if step % config.checkpoint_every == 0 or last or stopped:
                run.save_checkpoint(step, state.save)
            if stopped:
                break
    except RunStopped:

        def save_midway(folder: Path) -> None:
            state.save(folder)
            if unlogged is not None:
                text = json.dumps(asdict(unlogged))
                (folder / _UNLOGGED).write_text(text, encoding="utf-8")

        if state.step:
            run.save_checkpoint(state.step, save_midway)
        raise
    return before + time.perf_counter() - began, stopped


def _unlogged(run: Run, step: int) -> Iterator[StepRecord]:
    """The step that a resumed run starts from, where it was stopped before that step was logged."""
    path = run.folder / "checkpoints" / f"step-{step:06d}" / _UNLOGGED
    if path.exists() and all(m["step"] != step for m in read_metrics(run.folder)):
        found = json.loads(path.read_text(encoding="utf-8"))
        yield StepRecord(step, found["metrics"], tuple(found["rows"]), tuple(found["messages"]))


def _judge(
    log: Logbook, policy: Policy, questions: Sequence[Question], split: str, step: int
) -> dict[str, Any]:
    label = {"heldout_base": "test, base policy", "heldout_trained": "test"}
    tell = partial(log.view.phase, label.get(split, f"validation at step {step}"))
    tell(0, len(questions))
    seed = SEED_OF_SPLIT[split]
    rows = evaluate_policy(
        policy, questions, log.config, split=split, step=step, seed=seed, on_answer=tell
    )
    log.run.write_rollouts(step, split, rows)
    return summarise(rows)


def probe(log: Logbook, policy: Policy, questions: Sequence[Question], step: int) -> None:
    """Sample the probe questions, so that answers to one question can be followed."""
    if not questions:
        return
    batch = collect(
        policy,
        questions,
        log.config,
        seed=f"probe {step}",
        group_size=PROBE_SAMPLES,
        progress=1.0,
        on_token=partial(log.view.phase, f"probe questions at step {step}"),
    )
    rewards = total_reward(batch.inputs, log.config.reward, log.config.alpha)
    log.run.write_rollouts(step, "probe", list(answer_rows(step, "probe", batch, rewards, None)))
