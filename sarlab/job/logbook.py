"""What every engine of training writes into the run folder, and when the run speaks up."""

import contextlib
import errno
import hashlib
import inspect
import itertools
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from sarlab._engine.micro_batches import memory_notes
from sarlab.config import TrainConfig
from sarlab.evaluation.judge import paired_difference, summarise
from sarlab.job.watchers import VALIDATION_COLUMNS, TrackerLog, View
from sarlab.models import Policy
from sarlab.rewards import reward_named
from sarlab.runs.atomic import read_json, replace_folder, write_json
from sarlab.runs.folder import BEST, Run, read_metrics, read_rollouts
from sarlab.tasks.verify import user_function
from sarlab.train import TrainingError
from sarlab.types import Question, StepRecord

_DROP = 0.05  # fall in accuracy and relative length for "shorter and worse"
_WINDOW = 5  # steps whose mean training accuracy is followed
_CLEAR_DROP = 0.1  # fall in accuracy alone; and beyond what chance explains


class Logbook:
    """Writes what a step leaves into the run folder; every engine of training has one."""

    def __init__(self, run: Run, config: TrainConfig, view: View, tracker: TrackerLog) -> None:
        self.run, self.config, self.view, self.tracker = run, config, view, tracker
        self.guard = Guard(config.questions)
        best = run.folder / BEST / "validation.json"
        self.best = read_json(best)["mean_reward"] if best.exists() else None

    def replay(self) -> None:
        """Start the tracker; replay recorded steps and validations to guard, view and tracker."""
        self.tracker.begin(self.config)
        accuracies = {m["step"]: m["accuracy"] for m in read_metrics(self.run.folder)}
        table: list[dict[str, Any]] = []
        if self.run.part(0, "validation").exists():
            table = read_rollouts(self.run.folder, "validation").to_pylist()
        grouped = itertools.groupby(table, key=lambda row: row["step"])
        validations = {step: summarise(list(rows)) for step, rows in grouped}
        for step in sorted({*accuracies, *validations}):
            self.guard.trained(step, accuracies.get(step))
            if summary := validations.get(step):
                self.guard.look(step, summary)
                self.view.evaluation(step, summary)
        if base := validations.get(0):
            self.tracker.log(0, {f"heldout_{name}": base[name] for name in VALIDATION_COLUMNS})

    def left_out(self, step: int, notes: Sequence[str]) -> None:
        """Record and say which rows of a user's file the task leaves out."""
        for note in notes:
            self.run.event(step, "questions", note)
            self.view.message(f"questions: {note}")

    def memory(self, step: int) -> None:
        """Record where memory ran out and work went on in smaller batches."""
        for text in memory_notes():
            self.run.event(step, "out_of_memory", text)
            self.view.message(f"step {step}: {text}")

    def step(
        self, record: StepRecord, validation: dict[str, Any] | None, save: Callable[[Path], Any]
    ) -> StepRecord:
        """Log a step with its validation (if there was one), and return what was logged.

        ``save(folder)`` writes the adapter; it is called where the validation is the best so far.
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
                _keep_best(run, save, step, validation)
        for text in messages:
            run.message(step, text.split(":", 1)[0], text)
            self.view.message(f"step {step}: {text}")
        metrics["messages"] = messages
        run.log({k: _finite(v) for k, v in metrics.items()})
        self.tracker.log(step, metrics)
        return StepRecord(step, metrics, record.rows, tuple(messages))

    def finish(
        self, step: int, seconds: float, *, judged: bool = True, stopped: bool = False, **more: Any
    ) -> dict[str, Any]:
        """Write the summary (``more`` facts on top), and hand it to tracker and view.

        Without ``judged`` there is no trained policy to compare, and nothing is written.
        """
        run, seconds = self.run, round(seconds, 1)
        if judged:
            summary = {**summarise_run(run.folder, self.config, step, seconds), **more}
            write_json(run.folder / "summary.json", summary)
        else:
            summary = {"steps": step, "train_seconds": seconds, "hardware": hardware()}
        timing = {"train_seconds": seconds} if judged else {}
        run.update(status="stopped" if stopped else "finished", steps_done=step, **timing)
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
        accuracies = f"{best:.0%} → {accuracy:.0%}"
        clear = best - accuracy > _beyond_chance(best, accuracy, int(summary.get("questions", 0)))
        self._low_validations = self._low_validations + 1 if clear else 0
        if best - accuracy > _DROP and length < (1 - _DROP) * best_length:
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
        if accuracy is None:
            return []
        self._recent = [*self._recent, accuracy][-_WINDOW:]
        if len(self._recent) < _WINDOW:
            return []
        mean, (best, at) = sum(self._recent) / _WINDOW, self._best_window
        if mean >= best:
            self._best_window = (mean, step)
        clear = best - mean > _beyond_chance(best, mean, _WINDOW * self._questions)
        speaks, self._spoken = clear and not self._spoken, clear
        if not speaks:
            return []
        return [
            f"accuracy_fell: over the last {_WINDOW} steps {mean:.0%} of the training answers "
            f"were right, at best {best:.0%} (up to step {at}). Lower learning_rate; best/ "
            "holds the adapter with the best validation."
        ]


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
        kind, text = type(error).__name__, str(error)
        if isinstance(error, TrainingError):
            kind = error.kind
        elif getattr(error, "errno", 0) == errno.ENOSPC or "No space left on device" in text:
            kind = "disk_full"
            text += f". Free some room on the disk of {run.folder} and go on with resume=True."
        try:
            run.fail(steps_done(), kind, text)
        except OSError as second:
            error.add_note(f"run.json still says 'running', it could not be written: {second}")
        raise
    finally:
        run.close()


def summarise_run(
    folder: Path, config: TrainConfig, steps: int, train_seconds: float
) -> dict[str, Any]:
    """Base against trained on the test questions, from the run's own rollout table."""
    base = read_rollouts(folder, "heldout_base").to_pylist()
    trained = read_rollouts(folder, "heldout_trained").to_pylist()
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
    custom = {}
    bonus = reward_named(config.reward).bonus
    if not bonus.__module__.startswith("sarlab."):
        custom[f"reward {config.reward}"] = _source(bonus)
    for verifier in sorted({q.verifier for q in questions if ":" in q.verifier}):
        if not verifier.startswith("reasoning_gym:"):
            custom[f"verifier {verifier}"] = _source(user_function(verifier))
    return {"base_weights_sha256": digest.hexdigest(), "custom_code": custom}


def _source(function: Callable[..., Any]) -> dict[str, str]:
    """The text of a function and its hash; of a built one (a partial, C code) only its name."""
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        return {"name": repr(function)}
    return {"source": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def seconds_so_far(run: Run) -> float:
    """Seconds of training that the log counts, over all sittings."""
    lines = read_metrics(run.folder)
    return sum((v for m in lines for k, v in m.items() if k.startswith("seconds_")), 0.0)


def resumed_config(folder: Path, config: TrainConfig) -> TrainConfig:
    """A resumed run keeps its configuration; only ``steps`` may grow."""
    path = folder / "config.json"
    if not path.exists():
        raise ValueError(f"There is no run to resume at {folder} (no config.json).")
    saved = TrainConfig.from_parameters(read_json(path))
    new, old = config.to_dict(), saved.to_dict()
    changed = [k for k in old if k != "steps" and new[k] != old[k]]
    if changed:
        named = ", ".join(f"{k} ({old[k]!r} → {new[k]!r})" for k in changed)
        raise ValueError(
            f"{folder} was made with other parameters: {named}. Resume it with its own, or start "
            "a new run."
        )
    if config.steps < saved.steps:
        raise ValueError(f"steps is {config.steps}, the run has {saved.steps}; it can only grow.")
    return config


def save_adapter(policy: Policy, folder: Path) -> None:
    """The adapter alone, in PEFT's layout."""
    policy.model.save_pretrained(folder, selected_adapters=["default"])


def _keep_best(run: Run, save: Callable[[Path], Any], step: int, summary: dict[str, Any]) -> None:
    """Keep the adapter with the highest validation reward (the run's own objective) in best/."""

    def write(folder: Path) -> None:
        save(folder)
        write_json(folder / "validation.json", {"step": step, **summary})

    replace_folder(run.folder / BEST, write)


def _finite(value: Any) -> Any:
    """A metric as JSON can hold it; NaN and infinity become None, the messages say why."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
