"""Another trainer's run in the workbench: a path, then the step and the question to look at."""

from functools import partial
from typing import Any

import ipywidgets as widgets
import pandas as pd

from sarlab.display.tables import number_text
from sarlab.display.text import one_line, plain
from sarlab.runs.rollouts import open_rollouts
from sarlab.widgets.candidates import Draft
from sarlab.widgets.live import Report, attempt, button, fill, row, show, status
from sarlab.widgets.state import Bench, counted

_LISTED = 1000  # questions of a step in the list; a browser shows more of them slowly


class RolloutsBox(widgets.VBox):
    """Opens what TRL, verl, OpenRLHF and others logged (:func:`sarlab.open_rollouts`).

    ``frame`` holds its answers. The answers of a group come into the workbench, labelled with
    their step and logged reward.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.frame = pd.DataFrame()
        wide = {"flex": "1 1 300px", "min_width": "0"}
        where = "a run folder or file of TRL, verl, OpenRLHF, prime-rl, tinker, Inspect, JSON lines"
        self.note = status()
        self.path = widgets.Text(description="Rollouts", placeholder=where, layout=wide)
        self.open_button = button(
            "Open rollouts", "folder-open", partial(attempt, self.note, self._open)
        )
        self.steps = widgets.Dropdown(description="Logged step", layout={"width": "190px"})
        self.questions = widgets.Dropdown(description="Logged question", layout=wide)
        self.take_button = button(
            "Open these answers", "external-link", partial(attempt, self.note, self._take)
        )
        self._found = row(self.steps, self.questions, self.take_button)
        super().__init__([row(self.path, self.open_button), self.note, self._found])
        show(self._found, False)

    def _open(self) -> None:
        path, tokenizer = self.path.value.strip(), self.bench.policy.tokenizer
        if not path:
            raise ValueError("The path is empty. Name a run folder or a file of answers.")
        self.frame = pd.DataFrame()

        def work(report: Report) -> None:
            report(0, 1, f"Reading {path} …")
            self.frame = open_rollouts(path, tokenizer=tokenizer)

        self.bench.job.start(f"Reading {path} …", work, then=self._list)

    def _list(self) -> None:
        frame = self.frame
        show(self._found, not frame.empty)
        if frame.empty:
            return  # the job says why
        at = frame.sort_values("step", kind="stable")["step"].astype("string")
        self.note.value = plain(" ".join(frame.attrs["notes"]))
        fill(self.steps, [*at.fillna("–").unique()], None, self._list_questions)
        self._list_questions()

    def _list_questions(self, _: Any = None) -> None:
        frame = self.frame[self.frame["question"].notna()]
        groups = frame[frame["step"].astype("string").fillna("–") == self.steps.value].groupby(
            "group_id", sort=False
        )
        table = groups.agg(
            question=("question", "first"), answers=("answer", "size"), reward=("reward", "mean")
        )
        self.questions.options = [
            (
                f"{one_line(r.question, 90)} ({counted(r.answers, 'answer')}, "
                f"mean reward {number_text(r.reward, 2, sign='+')})",
                int(r.Index),
            )
            for r in table[:_LISTED].itertuples()
        ]
        if len(table) > _LISTED:
            self.note.value += f" The first {_LISTED:,} of {len(table):,} questions are listed."

    def _take(self) -> None:
        if self.questions.value is None:
            raise ValueError("No row of this step has a question, so nothing can be scored.")
        group = self.frame[self.frame["group_id"] == self.questions.value]
        drafts = [
            Draft(
                r.question,
                r.answer,
                r.gold or None,
                f"step {self.steps.value}, reward {number_text(r.reward, 2, sign='+')}",
            )
            for r in group.itertuples()
        ]
        self.bench.add(drafts, repeats=True)
        self.bench.open_question(drafts[0].question, show=str(drafts[0].answer))
        self.note.value = plain(
            f"{counted(len(drafts), 'answer')}, labelled with the logged reward; scored by "
            f"{self.bench.policy.reference}, not by the model that wrote them."
        )
