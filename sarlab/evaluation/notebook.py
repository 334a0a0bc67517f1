"""What notebook 03 shows: its parameters checked, then one call a cell, tables as static HTML.

Every view takes the :class:`Comparison` of :func:`load_comparison`. One without runs says what to
do, so that the notebook comes to its end in an empty folder too.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sarlab.config import refuse_unknown
from sarlab.display.figures import show
from sarlab.evaluation.behaviours import (
    NAMES,
    behaviour_change,
    definitions,
    examples,
    what_was_lost,
)
from sarlab.evaluation.compare import arm_table, run_table
from sarlab.evaluation.figures import crowd_floor, gains_figure, plane_figure, token_figure
from sarlab.evaluation.policies import Evaluated, fresh, recorded, token_texts
from sarlab.evaluation.report import example_pairs
from sarlab.evaluation.tables import (
    answer_html,
    behaviour_text,
    differences_table,
    html_table,
    legend_html,
    pair_html,
    values_table,
)
from sarlab.models import DATA, REPOSITORY
from sarlab.runs.folder import find_runs
from sarlab.runs.parameters import check_types

SHIPPED = DATA / "study"  # all rewards on `tiny`, made by scripts/study.py


@dataclass(frozen=True)
class EvaluationSettings:
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
        check_types(self)
        for name, least in (("questions", 1), ("samples", 1), ("max_answer_tokens", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if self.tasks and not self.fresh:
            raise ValueError(
                f"tasks is {self.tasks!r}, but recorded answers are to the runs' own held-out "
                "questions. Set fresh=True to ask other tasks, or leave tasks empty."
            )

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> EvaluationSettings:
        """Settings from a notebook's parameters; an unknown name is an error."""
        refuse_unknown(parameters, [field.name for field in dataclasses.fields(cls)])
        return cls(**parameters)


@dataclass(frozen=True)
class Comparison:
    """Evaluated policies and the tables made of them; all empty where no run was found."""

    found: Sequence[Evaluated] = ()
    arms: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    runs: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)

    @property
    def tasks(self) -> list[str]:
        """Tasks that were evaluated, in the order found."""
        return list(dict.fromkeys(entry.task for entry in self.found))


def load_comparison(settings: EvaluationSettings) -> Comparison:
    """Policies recorded or asked afresh, and their tables; where none is, says what to do."""
    folder = Path(settings.runs)
    if not folder.exists():  # Lab's kernels run in notebooks/, a batch at the root
        folder = REPOSITORY / folder
    if not (folder / "summary.json").exists() and not find_runs(folder):
        lack = (
            f"No finished run was found in {settings.runs!r}. Train one with notebook 02 or "
            "`make train`, then run this notebook again"
        )
        if settings.runs != EvaluationSettings.runs or not find_runs(SHIPPED):
            print(f"{lack}; or set runs to a folder of runs.")
            return Comparison()
        print(f"{lack}. Meanwhile, these are the runs that ship with the project.")
        folder = SHIPPED
    found = _ask(folder, settings) if settings.fresh else recorded(folder)
    baseline = settings.baseline
    return Comparison(found, arm_table(found, baseline), run_table(found, baseline))


def values_view(comparison: Comparison) -> Any:
    """What each arm scores; then each single run, folded away."""
    if not comparison.found:
        return _nothing()
    single = html_table(values_table(comparison.runs))
    return _html(html_table(values_table(comparison.arms)), _folded("every single run", single))


def differences_view(comparison: Comparison) -> Any:
    """Paired differences to the baseline, seeds pooled; then each single run, folded away."""
    if not comparison.found:
        return _nothing()
    arms = comparison.arms
    names = " / ".join(dict.fromkeys(arms.loc[arms["is_baseline"], "label"]))
    single = html_table(differences_table(comparison.runs))
    return _html(
        html_table(differences_table(arms), f"against {names}"),
        _folded("every single run", single),
    )


def plane_view(comparison: Comparison) -> None:
    """The accuracy-length plane of each task; where most policies crowd at its top, that too."""
    for task in comparison.tasks:
        arms = comparison.arms[comparison.arms["task"] == task]
        floor = crowd_floor(arms["accuracy"].tolist())
        for accuracy_from in (None, floor) if floor is not None else (None,):
            show(plane_figure(arms, runs=comparison.runs, task=task, accuracy_from=accuracy_from))


def gains_view(comparison: Comparison) -> None:
    """Relative gains against the baseline, a figure a task."""
    for task in comparison.tasks:
        arms = comparison.arms[comparison.arms["task"] == task]
        if arms["gain_accuracy"].notna().any():
            show(gains_figure(arms, task=task))
        else:
            print(f"No relative gains on {task}: the baseline got nothing right, or stands alone.")


def behaviours_view(comparison: Comparison) -> Any:
    """What each arm's answers lost or won against the base: a figure, sentences and tables."""
    changes = _changes(comparison.found)
    if not changes:
        return _nothing()
    show(token_figure(changes))
    parts = [
        f"<p><b>{html.escape(label)}</b>: {html.escape(what_was_lost(change))}</p>"
        + _folded("behaviours", html_table(behaviour_text(change)))
        for label, change in changes.items()
    ]
    parts.append(_folded("how behaviours are found", html_table(definitions().reset_index())))
    return _html(*parts)


def examples_view(comparison: Comparison, run: str = "") -> Any:
    """Answers of the base and one run to the same questions, and one answer for each behaviour.

    ``run``: its name; empty for the last run in the table.
    """
    trained = [e for e in comparison.found if not e.is_base]
    if not trained:
        return _nothing()
    chosen = next((e for e in trained if e.label == run), None)
    if run and chosen is None:
        names = ", ".join(e.label for e in trained)
        raise ValueError(f"There is no run {run!r} to take examples from. Choose one of {names}.")
    chosen = chosen or trained[-1]
    base = _base_of(chosen, comparison.found)
    parts = [f"<p>Base against <b>{html.escape(chosen.label)}</b></p>", legend_html()]
    if base is not None:
        for title, pairs in example_pairs(base.rows, chosen.rows).items():
            parts.append(f"<p><b>{title}</b></p>" + "".join(pair_html(*p) for p in pairs[:3]))
    for name in NAMES:
        shown = [
            f"<p><i>{html.escape(str(row['question']))}</i></p>{answer_html(row)}"
            for e in (base, chosen)
            if e is not None
            for row, _ in examples(e.rows, name, 1)
        ]
        if shown:
            parts.append(_folded(f"{name}: answers that show it", "".join(shown)))
    return _html(*parts)


def _ask(folder: Path, settings: EvaluationSettings) -> list[Evaluated]:
    from tqdm.auto import tqdm

    with tqdm(total=1, unit="answer", mininterval=2, leave=False) as bar:

        def tell(label: str, done: int, total: int) -> None:
            bar.set_description(label, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        return fresh(
            folder,
            tasks=[task.strip() for task in settings.tasks.split(",") if task.strip()],
            questions=settings.questions,
            samples=settings.samples,
            greedy=settings.greedy,
            max_answer_tokens=settings.max_answer_tokens or None,
            progress=tell,
        )


def _changes(found: Sequence[Evaluated]) -> dict[str, pd.DataFrame]:
    """Change of behaviour from the base to each arm, the answers of all its seeds together."""
    arms: dict[str, list[Evaluated]] = {}
    several = len({e.task for e in found}) > 1
    for entry in found:
        if not entry.is_base and _base_of(entry, found) is not None:
            arms.setdefault(f"{entry.arm} on {entry.task}" if several else entry.arm, []).append(
                entry
            )
    changes = {}
    for label, entries in arms.items():
        base = _base_of(entries[0], found)
        assert base is not None
        rows = [row for entry in entries for row in entry.rows]
        texts = token_texts(entries[0].folder or Path(), entries[0].model)
        changes[label] = behaviour_change(base.rows, rows, texts)
    return changes


def _base_of(entry: Evaluated, found: Sequence[Evaluated]) -> Evaluated | None:
    for other in found:
        same = (other.task, other.model, other.decoding) == (
            entry.task,
            entry.model,
            entry.decoding,
        )
        if other.is_base and same and other.questions == entry.questions:
            return other
    return None


def _folded(summary: str, inner: str) -> str:
    return f"<details><summary>{html.escape(summary)}</summary>{inner}</details>"


def _nothing() -> Any:
    return _html("<p><i>Nothing to show yet: no finished run was found.</i></p>")


def _html(*parts: str) -> Any:
    from IPython.display import HTML

    return HTML("".join(parts))
