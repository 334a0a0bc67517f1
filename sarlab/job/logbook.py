"""What every engine of training writes into the run folder, and when the run speaks up."""

import contextlib
import errno
import hashlib
import inspect
import itertools
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sarlab._engine.micro_batches import memory_notes
from sarlab.config import TrainConfig
from sarlab.evaluation.judge import evaluate_policy, paired_difference, summarise
from sarlab.job.watchers import QUIET_SECONDS, VALIDATION_COLUMNS, LineView, TrackerLog, View
from sarlab.models import Policy
from sarlab.rewards import reward_named
from sarlab.runs.atomic import read_json, replace_file, write_json
from sarlab.runs.folder import BEST, Run, read_metrics, read_rollouts
from sarlab.tasks.verify import user_function
from sarlab.train import TrainingError
from sarlab.types import Question, StepRecord

PROBE_SAMPLES = 4
# Seed and name of each evaluation. Base and trained policy draw the same random numbers, in pairs.
EVALUATIONS = {
    "heldout_base": ("heldout", "test, base policy"),
    "heldout_trained": ("heldout", "test"),
    "validation": ("validat", "validation at step {}"),
    "probe": ("probe {}", "probe questions at step {}"),
}
_DROP = 0.05  # fall in accuracy and relative length for "shorter and worse"
_WINDOW = 5  # steps whose mean training accuracy is followed
_CLEAR_DROP = 0.1  # fall in accuracy alone; and beyond what chance explains


class Logbook:
    """Writes what a step leaves into the run folder; every engine of training has one."""

    def __init__(
        self, folder: Path, config: TrainConfig, view: View | None, *, resume: bool, **facts: Any
    ) -> None:
        """Open the run folder, for ``facts`` too. Without a view lines are printed."""
        self.config, self.view = config, view or LineView(every_seconds=QUIET_SECONDS)
        self.tracker = TrackerLog(config.tracker, folder)
        open_run = Run.reopen if resume else Run.create
        self.run = open_run(folder, config.to_dict())
        self._facts = facts
        self.guard = Guard(config.questions)
        self.best: float | None = None  # validation reward of the adapter in best/

    def take_up(self, notes: Sequence[str]) -> tuple[int, Path | None]:
        """Record the facts, and go back to the last good checkpoint: its step and folder.

        (0, None) without one. ``notes`` say which rows of a user's file the task leaves out.
        """
        self.run.update(**self._facts)
        step, checkpoint = self.run.last_good_checkpoint() or (0, None)
        self.run.rewind(step)
        best = self.run.folder / BEST / "validation.json"
        self.best = read_json(best)["mean_reward"] if best.exists() else None
        for note in notes:
            self.event(step, "questions", note)
        return step, checkpoint

    def begin(self, step: int) -> None:
        """Start view and tracker after ``step``; replay what was recorded up to there to them."""
        self.view.begin(self.config, step)
        self.tracker.begin(self.config)
        accuracies = {m["step"]: m["accuracy"] for m in read_metrics(self.run.folder)}
        rows: list[dict[str, Any]] = []
        if self.run.part(0, "validation").exists():
            rows = read_rollouts(self.run.folder, "validation").to_pylist()
        by_step = itertools.groupby(rows, key=lambda row: row["step"])
        validations = {past: summarise(list(group)) for past, group in by_step}
        for past in sorted({*accuracies, *validations}):
            self.guard.trained(past, accuracies.get(past))
            if summary := validations.get(past):
                self.guard.look(past, summary)
                self.view.evaluation(past, summary)
        if base := validations.get(0):
            self.tracker.log(0, {f"heldout_{name}": base[name] for name in VALIDATION_COLUMNS})
        self.memory(step)

    def event(self, step: int, kind: str, text: str) -> None:
        """Record what befell the process, and say it."""
        self.run.event(step, kind, text)
        self.view.message(f"{kind}: {text}")

    def memory(self, step: int) -> None:
        """Record where memory ran out and work went on in smaller batches."""
        for text in memory_notes():
            self.event(step, "out_of_memory", text)

    def judge(
        self, policy: Policy, questions: Sequence[Question], split: str, step: int
    ) -> dict[str, Any] | None:
        """Evaluate a policy and keep its answers; the summary of a validation, else None.

        Probe questions have several answers, so that answers to one question can be followed.
        """
        if not questions:
            return None
        seed, name = (text.format(step) for text in EVALUATIONS[split])
        tell = partial(self.view.phase, name)
        tell(0, len(questions))
        rows = evaluate_policy(
            policy,
            questions,
            self.config,
            split=split,
            step=step,
            samples=PROBE_SAMPLES if split == "probe" else 1,
            seed=seed,
            on_answer=tell,
        )
        self.run.write_rollouts(step, split, rows)
        return summarise(rows) if split == "validation" else None

    def step(
        self, record: StepRecord, validation: dict[str, Any] | None, save: Callable[[Path], Any]
    ) -> None:
        """Log a step with its validation (if there was one), and show the view what was logged.

        ``save(folder)`` writes the adapter; it is called where the validation has the highest
        reward (the run's own objective) so far.
        """
        step, run = record.step, self.run
        self.memory(step)
        run.write_rollouts(step, "train", record.rows)
        metrics: dict[str, Any] = dict(record.metrics)
        messages = [*record.messages, *self.guard.trained(step, metrics.get("accuracy"))]
        if validation is not None:
            metrics |= {f"heldout_{name}": validation[name] for name in VALIDATION_COLUMNS}
            messages += self.guard.look(step, validation)
            self.view.evaluation(step, validation)
            if self.best is None or validation["mean_reward"] > self.best:
                self.best = validation["mean_reward"]

                def write(folder: Path) -> None:
                    save(folder)
                    write_json(folder / "validation.json", {"step": step, **validation})

                replace_file(run.folder / BEST, write, folder=True)
        for text in messages:
            run.message(step, text.split(":", 1)[0], text)
            self.view.message(f"step {step}: {text}")
        metrics["messages"] = messages
        run.log({k: _finite(v) for k, v in metrics.items()})
        self.tracker.log(step, metrics)
        self.view.step(StepRecord(step, metrics, record.rows, tuple(messages)))

    def finish(self, step: int, *, stopped: bool = False, **more: Any) -> dict[str, Any]:
        """Write the summary (``more`` facts on top), and hand it to tracker and view.

        Where the trained policy was not judged there is nothing to compare, and none is written.
        """
        folder = self.run.folder
        logged = (item for line in read_metrics(folder) for item in line.items())
        seconds = round(sum(v or 0.0 for k, v in logged if k.startswith("seconds_")), 1)
        summary = {"steps": step, "train_seconds": seconds, "hardware": hardware()}
        if self.run.part(step, "heldout_trained").exists():
            summary = {**summarise_run(folder, self.config, step, seconds), **more}
            write_json(folder / "summary.json", summary)
        status = "stopped" if stopped else "finished"
        self.run.update(status=status, steps_done=step, train_seconds=seconds)
        self.tracker.finish(summary)
        self.view.finish(summary)
        return summary


class Guard:
    """Speaks up when accuracy falls: alone, or while answers grow shorter.

    ``questions`` is the number of training questions per step; chance is judged by it.
    """

    def __init__(self, questions: int = 0) -> None:
        self._questions = questions
        self._best: tuple[float, float] | None = None  # accuracy and length of a validation
        self._low_validations = 0
        self._recent: list[float] = []
        self._best_window: tuple[float, int] = (0.0, 0)  # mean accuracy, and its last step
        self._spoken = False

    def look(self, step: int, summary: dict[str, Any]) -> list[str]:
        """Compare a validation with the most accurate one so far."""
        accuracy, length = float(summary["accuracy"]), float(summary["mean_length"])
        if self._best is None or accuracy >= self._best[0]:
            self._best, self._low_validations = (accuracy, length), 0
            return []
        best, best_length = self._best
        fall, accuracies = best - accuracy, f"{best:.0%} → {accuracy:.0%}"
        clear = fall > _beyond_chance(best, accuracy, int(summary.get("questions", 0)))
        self._low_validations = self._low_validations + 1 if clear else 0
        if fall > _DROP and length < (1 - _DROP) * best_length:
            return [
                f"shorter_and_worse: at step {step} validation answers are shorter "
                f"({best_length:.0f} → {length:.0f} tokens) and less often right ({accuracies}). "
                "Lower alpha or learning_rate; best/ holds the adapter from before."
            ]
        if self._low_validations == 2:
            return [
                f"accuracy_fell: at step {step} validation answers are less often right than at "
                f"their best ({accuracies}), for the second validation in a row. Lower "
                "learning_rate; best/ holds the adapter from before."
            ]
        return []

    def trained(self, step: int, accuracy: float | None) -> list[str]:
        """Compare the mean training accuracy of the last steps with its best so far."""
        if accuracy is not None:
            self._recent = [*self._recent, accuracy][-_WINDOW:]
        if accuracy is None or len(self._recent) < _WINDOW:
            return []
        mean, (best, at) = sum(self._recent) / _WINDOW, self._best_window
        self._best_window = max(self._best_window, (mean, step))
        fell = best - mean > _beyond_chance(best, mean, _WINDOW * self._questions)
        speaks, self._spoken = fell and not self._spoken, fell
        text = (
            f"accuracy_fell: over the last {_WINDOW} steps {mean:.0%} of the training answers "
            f"were right, at best {best:.0%} (up to step {at}). Lower learning_rate; best/ "
            "holds the adapter with the best validation."
        )
        return [text] if speaks else []


def _beyond_chance(best: float, now: float, questions: int) -> float:
    """A fall larger than this is clear: 4 standard errors, since the best is a lucky one of many.

    Answers to one question count as one: they are right or wrong together.
    """
    share = (best + now) / 2
    error = math.sqrt(2 * share * (1 - share) / questions) if questions else 0.0
    return max(_CLEAR_DROP, 4 * error)


@contextlib.contextmanager
def recording(run: Run, steps_done: Callable[[], int]) -> Iterator[None]:
    """Within the block a failure or an interruption is put into run.json; then the lock goes."""
    try:
        yield
    except KeyboardInterrupt:
        run.update(status="interrupted", steps_done=steps_done())
        raise
    except BaseException as error:
        kind = error.kind if isinstance(error, TrainingError) else type(error).__name__
        text = str(error)
        if getattr(error, "errno", 0) == errno.ENOSPC or "No space left on device" in text:
            kind = "disk_full"
            text += f". Free some room on the disk of {run.folder} and go on with resume=True."
        run.fail(steps_done(), kind, text)
        raise
    finally:
        run.close()


def summarise_run(
    folder: Path, config: TrainConfig, steps: int, train_seconds: float
) -> dict[str, Any]:
    """Base against trained on the test questions, from the run's own rollout table."""
    base, trained = (
        read_rollouts(folder, f"heldout_{who}").to_pylist() for who in ("base", "trained")
    )
    named = ("algorithm", "reward", "alpha", "seed", "model", "task")
    return {
        **{name: getattr(config, name) for name in named},
        "steps": steps,
        "base": summarise(base),
        "trained": summarise(trained),
        "difference": {
            name: paired_difference(base, trained, column)
            for name, column in (("accuracy", "correct"), ("mean_length", "length"))
        },
        "train_seconds": train_seconds,
        "hardware": hardware(),
    }


def hardware() -> str:
    """The machine in a few words, to stand beside a figure."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'' if threads == 1 else 's'}, {platform.machine()}"


def origins(policy: Policy, config: TrainConfig, questions: Iterable[Question]) -> dict[str, Any]:
    """Facts for run.json: a hash of the base weights, the source of custom rewards and verifiers.

    To be called before the adapter is added. ValueError for a verifier that does not exist.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(policy.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    custom: dict[str, Callable[..., Any]] = {}
    bonus = reward_named(config.reward).bonus
    if not bonus.__module__.startswith("sarlab."):
        custom[f"reward {config.reward}"] = bonus
    for verifier in sorted({q.verifier for q in questions if ":" in q.verifier}):
        if not verifier.startswith("reasoning_gym:"):
            custom[f"verifier {verifier}"] = user_function(verifier)
    sources = {}
    for name, function in custom.items():
        try:
            text = inspect.getsource(function)
        except (OSError, TypeError):  # a partial, C code
            sources[name] = {"name": repr(function)}
        else:
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            sources[name] = {"source": text, "sha256": sha256}
    return {"base_weights_sha256": digest.hexdigest(), "custom_code": sources}


def check_resumed(folder: Path, config: TrainConfig) -> None:
    """Raise ValueError where a run cannot go on so: of its parameters only ``steps`` may grow."""
    path = folder / "config.json"
    if not path.exists():
        raise ValueError(f"There is no run to resume at {folder} (no config.json).")
    saved = TrainConfig.from_parameters(read_json(path))
    new, old = config.to_dict(), saved.to_dict()
    changed = [f"{k} ({old[k]!r} → {new[k]!r})" for k in old if k != "steps" and new[k] != old[k]]
    if changed:
        raise ValueError(
            f"{folder} was made with other parameters: {', '.join(changed)}. Resume it with its "
            "own, or start a new run."
        )
    if config.steps < saved.steps:
        raise ValueError(f"steps is {config.steps}, the run has {saved.steps}; it can only grow.")


def save_adapter(policy: Policy, folder: Path) -> None:
    """The adapter alone, in PEFT's layout."""
    policy.model.save_pretrained(folder, selected_adapters=["default"])


def _finite(value: Any) -> Any:
    """A metric as JSON can hold it; NaN and infinity become None, the messages say why."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
