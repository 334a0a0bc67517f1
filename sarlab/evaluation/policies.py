"""Where evaluated policies come from: the records of runs, or fresh answers of their adapters.

Both sources give the same :class:`Evaluated`;
:mod:`sarlab.evaluation.compare` makes tables of them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tqdm.auto import tqdm

from sarlab.config import TrainConfig
from sarlab.evaluation.judge import Rows, evaluate_policy
from sarlab.models import DATA, load_policy
from sarlab.rewards import REWARDS
from sarlab.runs.atomic import read_json
from sarlab.runs.folder import find_runs, read_rollouts
from sarlab.tasks import load_task

# Fields that change how a run is watched or split into batches, not what is trained.
_NOT_THE_ARM = {"seed", "eval_every", "checkpoint_every", "token_budget", "log_sar", "tracker"}


@dataclass(frozen=True)
class Evaluated:
    """One policy's answers to the test questions of one task.

    ``rows`` hold at least the columns of the rollout table that
    :func:`sarlab.evaluation.judge.summarise` reads. ``seed`` is None for a base policy, ``folder``
    then that of a run which began with it. ``limit``: longest answer allowed, in tokens.
    """

    label: str
    arm: str
    task: str
    rows: Rows = field(repr=False)
    seed: int | None = None
    limit: int | None = None
    model: str = ""
    decoding: str = "sampled"
    folder: Path = Path()

    @property
    def is_base(self) -> bool:
        """Whether this is an untrained policy."""
        return self.seed is None

    @property
    def questions(self) -> frozenset[str]:
        """Ids of the questions answered."""
        return frozenset(str(row["question_id"]) for row in self.rows)

    @property
    def asked(self) -> tuple[str, str, frozenset[str]]:
        """What two policies that can be compared have in common: task, decoding, questions."""
        return self.task, self.decoding, self.questions


def recorded(runs: str | Path | Sequence[str | Path]) -> list[Evaluated]:
    """What finished runs recorded of themselves and their bases: each base once, then the runs.

    ``runs``: run folders, folders that hold run folders, or one of them. Plain runs come first,
    then SAR by its strength, then other rewards. ValueError where there is no finished run.
    """
    folders = []
    for place in [Path(runs)] if isinstance(runs, str | Path) else map(Path, runs):
        finished = [place] if (place / "summary.json").exists() else find_runs(place)
        if not finished:
            raise ValueError(
                f"{place} is not a finished run, and no folder in it is one (a finished run has a "
                "summary.json). Train one with notebook 02 or `make train`, or name another folder."
            )
        folders += finished
    if not folders:
        raise ValueError("No run was named. Give the folder that holds them, or a list of them.")
    defaults = TrainConfig().to_dict()  # a run of an older version lacks some fields
    pairs = [(folder, {**defaults, **read_json(folder / "config.json")}) for folder in folders]
    pairs.sort(key=lambda pair: _order(*pair))
    done = [{**c, "steps": read_json(folder / "summary.json")["steps"]} for folder, c in pairs]
    bases: dict[Any, Evaluated] = {}
    trained = []
    for (folder, config), arm in zip(pairs, arm_labels(done), strict=True):
        model, limit = config["model"], config["max_answer_tokens"]
        task = config["heldout"] or config["task"]
        before, after = (
            read_rollouts(folder, split)
            .drop_columns(["logps_conditioned", "logps_standalone"])
            .to_pylist()
            for split in ("heldout_base", "heldout_trained")
        )
        same = (task, limit, model, *((r["question_id"], r["answer"]) for r in before))
        number = sum(b.model == model for b in bases.values())
        name = f"base ({model})" + (f" {number + 1}" if number else "")
        base = Evaluated(name, name, task, before, None, limit, model, folder=folder)
        bases.setdefault(same, base)
        seed = int(config["seed"])
        trained.append(Evaluated(folder.name, arm, task, after, seed, limit, model, folder=folder))
    return [*bases.values(), *trained]


def fresh(
    runs: str | Path | Sequence[str | Path],
    *,
    tasks: Sequence[str] = (),
    questions: int = 300,
    samples: int = 1,
    greedy: bool = False,
    max_answer_tokens: int | None = None,
    device: str = "auto",
) -> list[Evaluated]:
    """Answer the test questions of any tasks anew, with every run's policy and its base.

    ``tasks``: references as for training; none means those the runs were made for. ``samples``
    answers per question at temperature 1, or one ``greedy`` one. ``max_answer_tokens``: one limit
    for all, by default the largest among the runs, so that no policy looks shorter for having been
    cut off earlier.
    """
    entries = recorded(runs)
    for folder in dict.fromkeys(e.folder for e in entries):
        if not (folder / "adapter" / "adapter_config.json").exists():
            raise ValueError(
                f"{folder} has no adapter/ to ask anew (shipped results come without). Set "
                "fresh=False to read what it recorded, or train the run again."
            )
    limit = max_answer_tokens or max(e.limit or 0 for e in entries)
    names = tasks or dict.fromkeys(e.task for e in entries)
    test_questions = {task: load_task(task).heldout(questions) for task in names}
    bases = {e.model: e for e in reversed(entries) if e.is_base}
    evaluated = []
    for entry in entries:
        if entry.is_base and entry is not bases[entry.model]:
            continue  # another record of the same policy
        config = {**read_json(entry.folder / "config.json"), "max_answer_tokens": limit}
        if config.get("reward", "correct") not in REWARDS:  # one of the user's that is not loaded
            config["reward"] = "correct"
        settings = TrainConfig.from_parameters(config)
        policy = load_policy(entry.model if entry.is_base else str(entry.folder), device=device)
        for task, drawn in test_questions.items():
            name, answers = f"{entry.label} on {task}", samples * len(drawn)
            with tqdm(desc=name, total=answers, unit="answer", mininterval=2, leave=False) as bar:
                rows = evaluate_policy(
                    policy,
                    drawn,
                    settings,
                    split="fresh",
                    samples=samples,
                    greedy=greedy,
                    seed=f"fresh {task}",
                    on_answer=functools.partial(_advance, bar),
                )
            decoding = "greedy" if greedy else "sampled"
            evaluated.append(
                dataclasses.replace(entry, task=task, rows=rows, limit=limit, decoding=decoding)
            )
    return evaluated


def _advance(bar: Any, done: int, total: int) -> None:
    bar.update(done - bar.n)


def _order(folder: Path, config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Plain runs first, then SAR by its strength, then the other rewards; seeds in order."""
    plain = config["reward"] == "correct" or config["alpha"] == 0
    reward = "" if plain else config["reward"]
    family = {"": 0, "sar": 1}.get(reward, 2)
    return (config["algorithm"], family, reward, config["alpha"], config["seed"], folder.name)


def arm_labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each configuration that says what was trained; equal but for the seed, equal name.

    ``steps`` are those really done: a run stopped early is an arm of its own. Where two different
    configurations would get one name, the fields in which they differ are added.
    """
    plain = [{k: v for k, v in config.items() if k not in _NOT_THE_ARM} for config in configs]
    labels = []
    for config in plain:
        alike = [other for other in plain if _arm_name(other) == _arm_name(config)]
        differing = [k for k in config if any(other.get(k) != config[k] for other in alike)]
        labels.append(", ".join([_arm_name(config), *(f"{k}={config[k]}" for k in differing)]))
    return labels


def _arm_name(config: Mapping[str, Any]) -> str:
    algorithm, reward = str(config["algorithm"]).upper(), str(config["reward"])
    if reward == "sar_alone":
        return f"{algorithm} SAR alone"
    if reward == "correct" or config["alpha"] == 0:
        return algorithm
    schedule = config.get("alpha_schedule", "constant")
    alpha = f"α={config['alpha']:g}" + ("" if schedule == "constant" else f" {schedule}")
    shown = {"o1_pruner": "O1-pruner", "er": "ER"}.get(reward, reward)
    return f"SA-{algorithm} {alpha}" if reward == "sar" else f"{algorithm} + {shown} {alpha}"


def run_facts(folder: str | Path) -> str:
    """One line on a finished run: steps, task, model, seed, minutes and hardware."""
    summary = read_json(Path(folder) / "summary.json")
    return (
        f"{summary['steps']} steps on {summary['task']} with {summary['model']}, "
        f"seed {summary['seed']}, {summary['train_seconds'] / 60:.1f} min ({summary['hardware']})"
    )


def token_texts(entry: Evaluated) -> Callable[[int], str] | None:
    """Token id → its text, by the tokenizer of a policy; None where none lies here."""
    places = entry.folder / "adapter", DATA / "models" / entry.model, Path(entry.model)
    files = [file for place in places if (file := place / "tokenizer.json").is_file()]
    if not files:
        return None
    tokenizer = Tokenizer.from_file(str(files[0]))
    return functools.cache(lambda i: str(tokenizer.decode([i], skip_special_tokens=False)))
