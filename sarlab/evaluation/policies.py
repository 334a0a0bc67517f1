"""Where evaluated policies come from: the records of runs, or fresh answers of their adapters.

Both sources give the same :class:`Evaluated`;
:mod:`sarlab.evaluation.compare` makes tables of them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sarlab.config import TrainConfig
from sarlab.evaluation.judge import Rows, evaluate_policy
from sarlab.models import DATA, load_policy
from sarlab.rewards import REWARDS
from sarlab.runs.atomic import read_json
from sarlab.runs.folder import find_runs, read_rollouts
from sarlab.tasks import load_task

_COLUMNS = [
    *("question_id", "question", "gold", "answer", "answer_ids", "length"),
    *("truncated", "correct", "verdict", "sar", "reward"),
]
# Fields that change how a run is watched or split into batches, not what is trained.
_NOT_THE_ARM = {"seed", "eval_every", "checkpoint_every", "token_budget", "log_sar", "tracker"}


@dataclass(frozen=True)
class Evaluated:
    """One policy's answers to the held-out questions of one task.

    ``rows`` hold at least the columns of the rollout table that
    :func:`sarlab.evaluation.judge.summarise` reads. ``seed`` is None for a base policy.
    ``limit``: longest answer allowed, in tokens.
    """

    label: str
    arm: str
    task: str
    rows: Rows = field(repr=False)
    seed: int | None = None
    limit: int | None = None
    model: str = ""
    decoding: str = "sampled"
    folder: Path | None = None

    @property
    def is_base(self) -> bool:
        """Whether this is an untrained policy."""
        return self.seed is None

    @property
    def questions(self) -> frozenset[str]:
        """Ids of the questions answered."""
        return frozenset(str(row["question_id"]) for row in self.rows)

    @property
    def held_out(self) -> tuple[str, str, str, frozenset[str]]:
        """What a trained policy and its base have in common."""
        return self.task, self.model, self.decoding, self.questions


def recorded(runs: str | Path | Sequence[str | Path]) -> list[Evaluated]:
    """What finished runs recorded of themselves and their bases: each base once, then the runs.

    ``runs``: a folder that holds run folders, or a list of run folders. ValueError where there is
    none.
    """
    bases: dict[Any, Evaluated] = {}
    trained = []
    for folder, config, arm in _runs(runs):
        model, limit = config["model"], config["max_answer_tokens"]
        task = config["heldout"] or config["task"]
        before, after = (
            list(read_rollouts(folder, f"heldout_{split}").select(_COLUMNS).to_pylist())
            for split in ("base", "trained")
        )
        same = (task, limit, model, *((r["question_id"], r["answer"]) for r in before))
        if same not in bases:
            number = sum(b.model == model for b in bases.values())
            name = f"base ({model})" + (f" {number + 1}" if number else "")
            bases[same] = Evaluated(name, name, task, before, None, limit, model, folder=folder)
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
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Evaluated]:
    """Answer the held-out questions of any tasks anew, with every run's policy and its base.

    ``tasks``: references as for training; none means those the runs were made for. ``samples``
    answers per question at temperature 1, or one ``greedy`` one. ``max_answer_tokens``: one limit
    for all, by default the largest among the runs, so that no policy looks shorter for having been
    cut off earlier. ``progress(label, done, total)`` is called while answers are made.
    """
    trained = _runs(runs)
    for folder, _, _ in trained:
        if not (folder / "adapter" / "adapter_config.json").exists():
            raise ValueError(
                f"{folder} has no adapter/ to ask anew (shipped results come without). Set "
                "fresh=False to read what it recorded, or train the run again."
            )
    configs = [config for _, config, _ in trained]
    limit = max_answer_tokens or max(int(c["max_answer_tokens"]) for c in configs)
    names = list(tasks) or list(dict.fromkeys(c["heldout"] or c["task"] for c in configs))
    held_out = {task: load_task(task).heldout(questions) for task in names}
    bases: dict[str, tuple[None, dict[str, Any], str]] = {}
    for config in configs:
        bases.setdefault(config["model"], (None, config, f"base ({config['model']})"))
    evaluated = []
    for run, config, arm in [*bases.values(), *trained]:
        model, label = str(config["model"]), run.name if run else arm
        seed, decoding = int(config["seed"]) if run else None, "greedy" if greedy else "sampled"
        policy = load_policy(str(run or model), device=device)
        reward = config["reward"] if config["reward"] in REWARDS else "correct"
        changed = {"max_answer_tokens": limit, "reward": reward}
        for task, drawn in held_out.items():
            rows = evaluate_policy(
                policy,
                drawn,
                TrainConfig.from_parameters({**config, **changed}),
                split="fresh",
                samples=samples,
                greedy=greedy,
                seed=f"fresh {task}",
                on_answer=functools.partial(progress, f"{label} on {task}") if progress else None,
            )
            evaluated.append(Evaluated(label, arm, task, rows, seed, limit, model, decoding, run))
    return evaluated


def arm_labels(
    configs: Sequence[Mapping[str, Any]], steps: Sequence[int | None] | None = None
) -> list[str]:
    """A name for each configuration that says what was trained; equal but for the seed, equal name.

    ``steps``: how many were really done; a run stopped early is an arm of its own. Where two
    different configurations would get one name, the fields in which they differ are added.
    """
    plain = [
        {k: v for k, v in {**c, "steps": s or c.get("steps")}.items() if k not in _NOT_THE_ARM}
        for c, s in zip(configs, steps or [None] * len(configs), strict=True)
    ]
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


def _runs(runs: str | Path | Sequence[str | Path]) -> list[tuple[Path, dict[str, Any], str]]:
    """Folder, configuration and arm of each finished run, in the order of the tables.

    A configuration is completed with today's defaults; it may name a reward that is not loaded.
    """
    defaults = TrainConfig().to_dict()
    pairs = [(f, {**defaults, **read_json(f / "config.json")}) for f in _run_folders(runs)]
    folders, configs = zip(*sorted(pairs, key=_order), strict=True)
    steps = [read_json(folder / "summary.json").get("steps") for folder in folders]
    return list(zip(folders, configs, arm_labels(configs, steps), strict=True))


def _run_folders(runs: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(runs, str | Path):
        folder = Path(runs)
        folders = [folder] if (folder / "summary.json").exists() else find_runs(folder)
        if not folders:
            raise ValueError(
                f"No finished run was found in {runs} (a run folder has a summary.json). Train "
                "one with notebook 02 or `make train`, or name another folder."
            )
        return folders
    if not runs:
        raise ValueError("No run was named. Give the folder that holds them, or a list of them.")
    for run in runs:
        if not (Path(run) / "summary.json").exists():
            raise ValueError(
                f"{run} is not a finished run (it has no summary.json). Name run folders, or "
                "the folder that holds them."
            )
    return [Path(run) for run in runs]


def _order(run: tuple[Path, dict[str, Any]]) -> tuple[Any, ...]:
    """Plain runs first, then SAR by its strength, then the other rewards; seeds in order."""
    folder, config = run
    plain = config["reward"] == "correct" or config["alpha"] == 0
    reward = "" if plain else config["reward"]
    family = {"": 0, "sar": 1}.get(reward, 2)
    return (config["algorithm"], family, reward, config["alpha"], config["seed"], folder.name)


def run_facts(folder: str | Path) -> str:
    """One line on a finished run: steps, task, model, seed, minutes and hardware."""
    summary = read_json(Path(folder) / "summary.json")
    return (
        f"{summary['steps']} steps on {summary['task']} with {summary['model']}, "
        f"seed {summary['seed']}, {summary['train_seconds'] / 60:.1f} min ({summary['hardware']})"
    )


def token_texts(entry: Evaluated) -> Callable[[int], str] | None:
    """Token id → its text, by the tokenizer of a policy; None where none lies here."""
    adapter, model = (entry.folder or Path()) / "adapter", Path(entry.model)
    for place in (adapter, DATA / "models" / model, model):
        if (place / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
            decode = functools.partial(tokenizer.decode, skip_special_tokens=False)
            return functools.cache(lambda i, decode=decode: str(decode([i])))
    return None
