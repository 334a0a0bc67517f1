"""What notebook 01 calls: its parameters, an answer to look at first, and tables that grow."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from IPython.display import HTML, DisplayHandle, display

from sarlab.display.text import plain
from sarlab.display.token_view import answer_view
from sarlab.models import REPOSITORY, Policy
from sarlab.runs.parameters import Settings
from sarlab.widgets.candidates import (
    Candidate,
    Draft,
    group_drafts,
    read_examples,
    score_candidates,
)
from sarlab.widgets.html import answer_html, labels_html
from sarlab.widgets.state import counted
from sarlab.widgets.stored import stored_example, stored_scores


@dataclass(frozen=True)
class InspectionSettings(Settings):
    """The parameters of notebook 01. Raises ValueError for a value of the wrong type or range."""

    model: str = "smollm2-135m"
    questions: int = 33
    alpha: float = 0.2
    runs: str = "data/study"
    patience: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}; the workbench takes 0 to 1.")

    @property
    def run_folder(self) -> Path:
        """The folder of the runs; a relative one counts from the repository."""
        return REPOSITORY / self.runs


def show_example() -> None:
    """Display one scored example answer, without loading a model."""
    candidate = stored_example(read_examples(1)[0])
    question = f'<div style="margin-top: 4px">{plain(candidate.score.question)}</div>'
    display(HTML(question + answer_html(answer_view(candidate.score, candidate.correct))))


def score_with_progress(
    policy: Policy, drafts: Sequence[Draft], patience_s: float = 60.0
) -> list[Candidate]:
    """Score drafts, question by question; progress and the tables of labels grow meanwhile.

    Stored scores are taken as they are. No question is begun after ``patience_s`` seconds, and an
    interrupt of the kernel ends the scoring too; the workbench scores the others when they open.
    """
    began = time.monotonic()
    line, table = DisplayHandle(), DisplayHandle()
    line.display(HTML("Looking for stored scores …"))
    table.display(HTML(""))
    mixed = stored_scores(policy, drafts)
    scored = [a for a in mixed if isinstance(a, Candidate)]
    stored = len(scored)
    groups = [*group_drafts(a for a in mixed if not isinstance(a, Candidate)).values()]

    left = len(groups)
    try:
        for done, group in enumerate(groups):
            seconds = time.monotonic() - began
            if done and seconds > patience_s:
                break
            about = f", about {seconds / done * left:.0f} s left" if done else ""
            bar = f'<progress max="{len(groups)}" value="{done}"></progress>'
            line.update(HTML(f"{bar} question {done + 1} of {len(groups)}{about}"))
            scored += score_candidates(policy, group)
            left -= 1
            table.update(HTML(labels_html(scored)))
    except KeyboardInterrupt:
        pass  # what is scored is shown, and the line says how much that is
    table.update(HTML(labels_html(scored)))
    answers = counted(len(scored), "answer")
    questions = counted(len({c.question for c in scored}), "question")
    text = f"{answers} to {questions} under {plain(policy.reference)}"
    text += f", {stored} of them stored" if stored else ""
    text += f": {time.monotonic() - began:.1f} s."
    if left:
        text += (
            f" {left} more questions are scored when they open in the workbench, or all at once "
            "under Designs; a larger <code>patience</code> scores them here."
        )
    line.update(HTML(text))
    return scored
