"""What notebook 01 calls: its parameters, an answer to look at first, and tables that grow."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from IPython.display import HTML, DisplayHandle, display

from sarlab.display.text import plain
from sarlab.display.token_view import answer_view
from sarlab.models import REPOSITORY, Policy
from sarlab.runs.parameters import check_types
from sarlab.widgets.candidates import (
    Candidate,
    Draft,
    group_drafts,
    label_rows,
    orderings,
    read_examples,
    score_candidates,
)
from sarlab.widgets.html import answer_html, labels_html, orderings_html
from sarlab.widgets.stored import stored_example, stored_scores

_REDRAW_SECONDS = 1.0


@dataclass(frozen=True)
class InspectionSettings:
    """The parameters of notebook 01. Raises ValueError for a value of the wrong type or range."""

    model: str = "smollm2-135m"
    questions: int = 33
    alpha: float = 0.2
    runs: str = "data/study"

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}; the workbench takes 0 to 1.")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> InspectionSettings:
        """Settings by name. Raises ValueError for a name that the notebook does not know."""
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(parameters) - set(names))
        if unknown:
            raise ValueError(f"Unknown parameter {unknown[0]!r}. There are: {', '.join(names)}.")
        return cls(**parameters)

    @property
    def run_folder(self) -> Path:
        """The folder of the runs; a relative one counts from the repository."""
        return REPOSITORY / self.runs


def show_example() -> None:
    """Display one scored example answer, without loading a model."""
    candidate = stored_example(read_examples(1)[0])
    score = candidate.score
    question = f'<div style="margin-top: 4px">{plain(score.question)}</div>'
    view = answer_view(score, candidate.correct)
    display(HTML(question + answer_html(view, heading="")))


def score_with_progress(policy: Policy, drafts: Sequence[Draft]) -> list[Candidate]:
    """Score drafts; progress and the tables of labels grow while it runs.

    Stored scores are taken as they are. An interrupt of the kernel ends the scoring and returns
    what there is; the workbench scores the rest when its question opens.
    """
    began = time.monotonic()
    line, table = DisplayHandle(), DisplayHandle()
    line.display(HTML("Looking for stored scores …"))
    table.display(HTML(""))
    mixed = stored_scores(policy, drafts)
    scored = [a for a in mixed if isinstance(a, Candidate)]
    groups = list(group_drafts(a for a in mixed if isinstance(a, Draft)).values())
    stored, drawn = len(scored), 0.0
    table.update(HTML(_tables(scored)))
    try:
        for done, group in enumerate(groups, start=1):
            scored += score_candidates(policy, group)
            now = time.monotonic()
            left = (now - began) * (len(groups) - done) / done
            words = f"question {done} of {len(groups)}, about {left:.0f} s left"
            line.update(HTML(f'<progress max="{len(groups)}" value="{done}"></progress> {words}'))
            if now - drawn > _REDRAW_SECONDS:
                table.update(HTML(_tables(scored)))
                drawn = now
        closing = ""
    except KeyboardInterrupt:
        closing = " Interrupted: the workbench scores the others when their question opens."
    table.update(HTML(_tables(scored)))
    seconds = time.monotonic() - began
    questions = len({c.question for c in scored})
    source = f", {stored} of them stored" if stored else ""
    line.update(
        HTML(
            f"{len(scored)} answers to {questions} question{'' if questions == 1 else 's'} under "
            f"{plain(policy.reference)}{source}: {seconds:.1f} s.{closing}"
        )
    )
    return scored


def _tables(scored: Sequence[Candidate]) -> str:
    if not scored:
        return ""
    return labels_html(label_rows(scored)) + orderings_html(orderings(scored))
