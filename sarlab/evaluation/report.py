"""What is shown of evaluated runs: the views of notebook 03, and one run as one page.

Every view takes the :class:`EvaluatedRuns` of :func:`load_runs`. ``python -m
sarlab.evaluation.report runs/<name>`` writes a run's report.html, a page that opens anywhere: no
script, no network, pictures inside it.
"""

import argparse
import base64
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from sarlab.display.figures import draw, show, training_figure
from sarlab.display.tables import folded, html_table, html_view, markdown_table, views
from sarlab.display.text import plain
from sarlab.evaluation import behaviours, compare, plots
from sarlab.evaluation.judge import Rows
from sarlab.evaluation.policies import Evaluated, fresh, recorded, run_facts, token_texts
from sarlab.models import DATA
from sarlab.runs.atomic import read_json, write_text
from sarlab.runs.folder import find_runs, read_metrics
from sarlab.runs.parameters import Settings, print_or_refuse, project_path

SHIPPED = DATA / "study"  # all rewards on `tiny`, made by scripts/study.py
_PLAN = (  # which pairs of answers are worth a look, most telling first
    ("right before, wrong now", lambda b, o: b["correct"] and not o["correct"]),
    ("wrong before, right now", lambda b, o: not b["correct"] and o["correct"]),
    ("right both times, shortened most", lambda b, o: b["correct"] and o["correct"]),
)


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
    """Evaluated policies, and the tables made of them by :mod:`sarlab.evaluation.compare`."""

    policies: Sequence[Evaluated]
    arms: pd.DataFrame
    runs: pd.DataFrame

    def base_of(self, entry: Evaluated) -> Evaluated | None:
        """The untrained policy of the same model that answered the same questions."""
        alike = [e for e in self.policies if e.is_base and e.model == entry.model]
        return next((e for e in alike if e.asked == entry.asked), None)


def load_runs(settings: EvaluationSettings) -> EvaluatedRuns:
    """Policies recorded or asked anew, and their tables.

    Where nothing was trained yet, the runs that ship with the project; ValueError where a folder
    was named that holds no finished run.
    """
    folder = project_path(settings.runs)
    nothing_trained = settings.runs == EvaluationSettings.runs and not find_runs(folder)
    if nothing_trained and find_runs(SHIPPED):
        print(
            f"No finished run was found in {settings.runs!r}. Train one with notebook 02 or `make "
            "train`. Meanwhile, these are the runs that ship with the project."
        )
        folder = SHIPPED
    if settings.fresh:
        policies = fresh(
            folder,
            tasks=[task.strip() for task in settings.tasks.split(",") if task.strip()],
            questions=settings.questions,
            samples=settings.samples,
            greedy=settings.greedy,
            max_answer_tokens=settings.max_answer_tokens or None,
        )
    else:
        policies = recorded(folder)
    makers = compare.arm_table, compare.run_table
    tables = tqdm(makers, desc="intervals", unit="table", leave=False)
    return EvaluatedRuns(policies, *(make(policies, settings.baseline) for make in tables))


def show_values(study: EvaluatedRuns) -> Any:
    """What each arm scores; then each single run, folded away."""
    return _tables(study, compare.values_table, "")


def show_differences(study: EvaluatedRuns) -> Any:
    """Paired differences to the baseline, seeds pooled; then each single run, folded away."""
    return _tables(study, compare.differences_table, "against ")


def _tables(study: EvaluatedRuns, make: Callable[[pd.DataFrame], pd.DataFrame], to: str) -> Any:
    """A table of arms, below it that of runs; ``to`` stands before the baseline's name."""
    names = " / ".join(dict.fromkeys(study.arms.loc[study.arms["is_baseline"], "label"]))
    head = "; ".join(filter(None, [to and to + names, compare.head_of(study.arms)]))
    single = folded("every single run", html_table(make(study.runs), compare.ONE_SEED))
    return html_view(html_table(make(study.arms), head), single)


def show_plane(study: EvaluatedRuns) -> None:
    """The accuracy-length plane of each task; where most policies crowd at its top, that too."""
    for _, arms in study.arms.groupby("task", sort=False):
        floor = plots.crowd_floor(arms["accuracy"].tolist())
        for accuracy_from in (None,) if floor is None else (None, floor):
            show(plots.plane_figure(arms, runs=study.runs, accuracy_from=accuracy_from))


def show_gains(study: EvaluatedRuns) -> None:
    """Relative gains against the baseline, one figure per task."""
    for _, arms in study.arms.groupby("task", sort=False):
        try:
            show(plots.gains_figure(arms))
        except ValueError as error:  # nothing to compare on this task
            print(error)


def show_behaviours(study: EvaluatedRuns) -> Any:
    """What each arm's answers lost or won against the base: a figure, sentences and tables."""
    arms: dict[str, list[Evaluated]] = {}
    several = study.arms["task"].nunique() > 1
    for entry in study.policies:
        base = study.base_of(entry)
        if base is not None and not entry.is_base:
            arms.setdefault(entry.arm + several * f" on {entry.task}", [base]).append(entry)
    changes, parts = {}, []
    for arm, (base, *seeds) in tqdm(arms.items(), desc="behaviours", unit="arm", leave=False):
        rows, texts = (e.rows for e in seeds), token_texts(seeds[0])
        change = behaviours.behaviour_change(base.rows, *rows, token_text=texts)
        title = f"{arm}: {behaviours.what_was_lost(change)}"
        parts.append(folded(title, html_table(behaviours.behaviour_text(change))))
        changes[arm] = change
    show(plots.token_figure(changes))
    patterns = html_table(behaviours.definitions())
    return html_view(*parts, folded("how behaviours are found", patterns))


def show_answers(study: EvaluatedRuns, run: str = "") -> Any:
    """Answers of the base and one run to the same questions, and one answer for each behaviour.

    ``run``: its name; empty for the last run in the table.
    """
    trained = {e.label: e for e in study.policies if not e.is_base}
    if run and run not in trained:
        raise ValueError(
            f"There is no run {run!r} to take examples from. Choose one of {', '.join(trained)}."
        )
    chosen = trained[run or list(trained)[-1]]
    base = study.base_of(chosen)
    parts = [f"<p>Base against <b>{plain(chosen.label)}</b></p>", behaviours.tint_legend()]
    if base is not None:
        for title, pairs in example_pairs(base.rows, chosen.rows).items():
            shown = "".join(behaviours.tinted_pair(*pair) for pair in pairs[:3])
            parts.append(f"<p><b>{title}</b></p>{shown}")
    for name in behaviours.NAMES:
        rows = [behaviours.example(e.rows, name) for e in filter(None, (base, chosen))]
        shown = "".join(
            f"<p><i>{plain(str(row['question']))}</i></p>{behaviours.tinted_answer(row)}"
            for row in filter(None, rows)
        )
        if shown:
            parts.append(folded(f"{name}: answers that show it", shown))
    return html_view(*parts)


def example_pairs(base: Rows, other: Rows) -> dict[str, list[tuple[Any, Any]]]:
    """Pairs of answers to one question, by what happened to it: three kinds, four pairs each.

    Within a kind the largest change in length comes first; the first answer to each question is
    taken where there are several.
    """
    before, after = ({r["question_id"]: r for r in reversed(rows)} for rows in (base, other))
    first = dict.fromkeys(r["question_id"] for r in base)
    both = [(before[key], after[key]) for key in first if key in after]
    both.sort(key=lambda pair: pair[1]["length"] - pair[0]["length"])
    return {title: [pair for pair in both if belongs(*pair)][:4] for title, belongs in _PLAN}


# --- one run as a page --------------------------------------------------------------------------


def write_report(folder: str | Path) -> Path:
    """Write report.html, and report.md (its tables to paste), into a finished run's folder.

    Returns the page's path. Raises ValueError where the folder is not a finished run.
    """
    folder = Path(folder)
    base, trained = recorded([folder])
    table = compare.run_table([base, trained])
    change = behaviours.behaviour_change(base.rows, trained.rows, token_text=token_texts(trained))
    pair, counts = compare.pair_table(table), behaviours.behaviour_text(change)
    lost = behaviours.what_was_lost(change)
    markdown = (
        f"**{folder.name}** (95% intervals; {compare.ONE_SEED}; differences paired by question)\n",
        markdown_table(pair),
        f"{lost}\n",
        markdown_table(counts),
    )
    write_text(folder / "report.md", "\n".join(markdown))
    run, metrics = read_json(folder / "run.json"), read_metrics(folder)
    names = ["step", "accuracy", "mean_length", "sar", "reward", "kl", "truncated_share"]
    steps = pd.DataFrame(metrics).reindex(columns=names)[:: -max(1, len(metrics) // 9)][::-1]
    steps = steps.map(lambda value: f"{value:.4g}" if pd.notna(value) else None)
    steps.columns = [name.replace("_", " ") for name in names]
    figures = {
        "plane": plots.plane_figure(table),
        "curves": training_figure(metrics),
        "tokens": plots.token_figure({trained.label: change}),
        "lengths": plots.length_figure(base.rows, trained.rows, limit=trained.limit),
    }
    page = views("report.html").page(
        title=f"{folder.name}: {trained.arm}",
        facts=run_facts(folder),
        run=run,
        metrics=metrics,
        warnings=[note for note in dict.fromkeys(table["note"]) if note],
        tables={
            "pair": html_table(pair, compare.head_of(table)),
            "steps": html_table(steps),
            "behaviours": html_table(counts),
            "patterns": html_table(behaviours.definitions()),
        },
        pictures={
            name: (base64.b64encode(draw(figure) or b"").decode("ascii"), figure.layout.width)
            for name, figure in figures.items()
        },
        lost=lost,
        examples={
            title: [behaviours.tinted_pair(*pair) for pair in pairs]
            for title, pairs in example_pairs(base.rows, trained.rows).items()
        },
        records=((folder / "config.json").read_text("utf-8"), json.dumps(run, indent=1)),
    )
    write_text(folder / "report.html", str(page))
    return folder / "report.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 with a message where the input is not right."""
    parser = argparse.ArgumentParser(
        prog="python -m sarlab.evaluation.report",
        description="Write report.html and report.md of a run.",
    )
    parser.add_argument("runs", nargs="+", help="run folders")
    runs = parser.parse_args(arguments).runs
    return print_or_refuse(lambda: "\n".join(str(write_report(run)) for run in runs))


if __name__ == "__main__":
    sys.exit(main())
