"""What notebook 03 shows: its parameters checked, then one call per cell, tables as static HTML.

Every view takes the :class:`EvaluatedRuns` of :func:`load_runs`. Without runs each says so, so that
the notebook comes to its end in an empty folder too.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from sarlab.display.figures import show
from sarlab.display.tables import folded, html_table, html_view
from sarlab.display.text import plain
from sarlab.evaluation.behaviours import (
    NAMES,
    behaviour_change,
    definitions,
    examples,
    what_was_lost,
)
from sarlab.evaluation.compare import arm_table, run_table
from sarlab.evaluation.formatting import (
    ONE_SEED,
    behaviour_text,
    differences_table,
    head_of,
    tint_legend,
    tinted_answer,
    tinted_pair,
    values_table,
)
from sarlab.evaluation.plots import crowd_floor, gains_figure, plane_figure, token_figure
from sarlab.evaluation.policies import Evaluated, fresh, recorded, token_texts
from sarlab.evaluation.report import example_pairs
from sarlab.models import DATA
from sarlab.runs.folder import find_runs
from sarlab.runs.parameters import Settings, project_path

SHIPPED = DATA / "study"  # all rewards on `tiny`, made by scripts/study.py


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """The parameters of notebook 03, checked. See the notebook for what each means."""

    runs: str = "runs"
    baseline: str = ""
    fresh: bool = False
    tasks: str = ""
    questions: int = 300
    samples: int = 1
    greedy: bool = False
    max_answer_tokens: int = 0
    example_run: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("questions", 1), ("samples", 1), ("max_answer_tokens", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if self.tasks and not self.fresh:
            raise ValueError(
                f"tasks is {self.tasks!r}, but recorded answers are to the runs' own test "
                "questions. Set fresh=True to ask other tasks, or leave tasks empty."
            )


@dataclass(frozen=True)
class EvaluatedRuns:
    """Evaluated policies and the tables made of them; all empty where no run was found."""

    policies: Sequence[Evaluated] = ()
    arms: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    runs: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)

    @property
    def by_task(self) -> dict[str, pd.DataFrame]:
        """The table of arms, a part for each task."""
        return {} if self.arms.empty else dict(iter(self.arms.groupby("task", sort=False)))


def load_runs(settings: EvaluationSettings) -> EvaluatedRuns:
    """Policies recorded or asked anew, and their tables; where there is none, says what to do."""
    folder = project_path(settings.runs)
    if not (folder / "summary.json").exists() and not find_runs(folder):
        lack = (
            f"No finished run was found in {settings.runs!r}. Train one with notebook 02 or "
            "`make train`, then run this notebook again"
        )
        if settings.runs != EvaluationSettings.runs or not find_runs(SHIPPED):
            print(f"{lack}; or set runs to a folder of runs.")
            return EvaluatedRuns()
        print(f"{lack}. Meanwhile, these are the runs that ship with the project.")
        folder = SHIPPED
    policies = _ask(folder, settings) if settings.fresh else recorded(folder)
    tables = tqdm((arm_table, run_table), desc="intervals", unit="table", leave=False)
    return EvaluatedRuns(policies, *(make(policies, settings.baseline) for make in tables))


def show_values(study: EvaluatedRuns) -> Any:
    """What each arm scores; then each single run, folded away."""
    return _tables(study, values_table, "")


def show_differences(study: EvaluatedRuns) -> Any:
    """Paired differences to the baseline, seeds pooled; then each single run, folded away."""
    return _tables(study, differences_table, "against ")


def _tables(study: EvaluatedRuns, make: Callable[[pd.DataFrame], pd.DataFrame], to: str) -> Any:
    """A table of arms, below it that of runs; ``to`` stands before the baseline's name."""
    if not study.policies:
        return _nothing()
    names = " / ".join(dict.fromkeys(study.arms.loc[study.arms["is_baseline"], "label"]))
    head = "; ".join(filter(None, [to and to + names, head_of(study.arms)]))
    single = folded("every single run", html_table(make(study.runs), ONE_SEED))
    return html_view(html_table(make(study.arms), head), single)


def show_plane(study: EvaluatedRuns) -> None:
    """The accuracy-length plane of each task; where most policies crowd at its top, that too."""
    for task, arms in study.by_task.items():
        floor = crowd_floor(arms["accuracy"].tolist())
        for accuracy_from in (None, floor) if floor is not None else (None,):
            show(plane_figure(arms, runs=study.runs, task=task, accuracy_from=accuracy_from))


def show_gains(study: EvaluatedRuns) -> None:
    """Relative gains against the baseline, one figure per task."""
    for task, arms in study.by_task.items():
        if arms["gain_accuracy"].notna().any():
            show(gains_figure(arms, task=task))
        else:
            print(f"No relative gains on {task}: the baseline got nothing right, or stands alone.")


def show_behaviours(study: EvaluatedRuns) -> Any:
    """What each arm's answers lost or won against the base: a figure, sentences and tables."""
    changes = _changes(study.policies)
    if not changes:
        return _nothing()
    show(token_figure(changes))
    tables = {f"{k}: {what_was_lost(c)}": behaviour_text(c) for k, c in changes.items()}
    tables["how behaviours are found"] = definitions().reset_index()
    return html_view(*(folded(title, html_table(table)) for title, table in tables.items()))


def show_answers(study: EvaluatedRuns, run: str = "") -> Any:
    """Answers of the base and one run to the same questions, and one answer for each behaviour.

    ``run``: its name; empty for the last run in the table.
    """
    trained = {e.label: e for e in study.policies if not e.is_base}
    if not trained:
        return _nothing()
    if run and run not in trained:
        raise ValueError(
            f"There is no run {run!r} to take examples from. Choose one of {', '.join(trained)}."
        )
    chosen = trained[run or list(trained)[-1]]
    base = _bases(study.policies).get(chosen.held_out)
    parts = [f"<p>Base against <b>{plain(chosen.label)}</b></p>", tint_legend()]
    if base is not None:
        for title, pairs in example_pairs(base.rows, chosen.rows).items():
            parts.append(f"<p><b>{title}</b></p>" + "".join(tinted_pair(*p) for p in pairs[:3]))
    for name in NAMES:
        shown = [
            f"<p><i>{plain(str(row['question']))}</i></p>{tinted_answer(row)}"
            for e in filter(None, (base, chosen))
            for row, _ in examples(e.rows, name, 1)
        ]
        if shown:
            parts.append(folded(f"{name}: answers that show it", "".join(shown)))
    return html_view(*parts)


def _ask(folder: Path, settings: EvaluationSettings) -> list[Evaluated]:
    with tqdm(total=1, unit="answer", mininterval=2, leave=False) as bar:

        def report(label: str, done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.set_description(label)

        return fresh(
            folder,
            tasks=[task.strip() for task in settings.tasks.split(",") if task.strip()],
            questions=settings.questions,
            samples=settings.samples,
            greedy=settings.greedy,
            max_answer_tokens=settings.max_answer_tokens or None,
            progress=report,
        )


def _changes(policies: Sequence[Evaluated]) -> dict[str, pd.DataFrame]:
    """Change of behaviour from the base to each arm, over all its seeds."""
    arms: dict[str, list[Evaluated]] = {}
    bases, several = _bases(policies), len({e.task for e in policies}) > 1
    for entry in policies:
        if not entry.is_base and entry.held_out in bases:
            arms.setdefault(entry.arm + several * f" on {entry.task}", []).append(entry)
    changes = {}
    for label, entries in tqdm(arms.items(), desc="behaviours", unit="arm", leave=False):
        base, texts = bases[entries[0].held_out], token_texts(entries[0])
        changes[label] = behaviour_change(base.rows, *(e.rows for e in entries), token_text=texts)
    return changes


def _bases(policies: Sequence[Evaluated]) -> dict[Any, Evaluated]:
    """The untrained policies by what they answered."""
    return {e.held_out: e for e in reversed(policies) if e.is_base}


def _nothing() -> Any:
    return html_view("<p><i>Nothing to show yet: no finished run was found.</i></p>")
