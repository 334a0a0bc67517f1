"""Another trainer's run in the workbench: a path, then the step and the question to look at."""

from functools import partial
from itertools import islice
from typing import Any

import ipywidgets as widgets
import pandas as pd

from sarlab.display.tables import number_text
from sarlab.display.text import one_line, plain
from sarlab.runs.rollouts import open_rollouts
from sarlab.widgets.candidates import Draft
from sarlab.widgets.live import Report, attempt, button, fill, row, show, status
from sarlab.widgets.state import Bench, counted

_FORMATS = "a run folder or file of TRL, verl, OpenRLHF, prime-rl, tinker, Inspect, JSON lines"
_LISTED = 1000  # questions of a step in the list; a browser shows more of them slowly


class RolloutsBox(widgets.VBox):
    """Opens what TRL, verl, OpenRLHF and others logged (:func:`sarlab.open_rollouts`).

    ``frame`` holds its answers by step. The answers of a group come into the workbench, labelled
    with their step and logged reward.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench, self.frame = bench, pd.DataFrame()
        wide = {"flex": "1 1 300px", "min_width": "0"}
        self.path = widgets.Text(description="Rollouts", placeholder=_FORMATS, layout=wide)
        self.steps = widgets.Dropdown(description="Logged step", layout={"width": "190px"})
        self.questions = widgets.Dropdown(description="Logged question", layout=wide)
        self.note = status()
        open_it, take = (partial(attempt, self.note, do) for do in (self._open, self._take))
        self.open_button = button("Open rollouts", "folder-open", open_it)
        self.take_button = button("Open these answers", "external-link", take)
        self._found = row(self.steps, self.questions, self.take_button)
        super().__init__([row(self.path, self.open_button), self.note, self._found])
        show(self._found, False)

    def _open(self) -> None:
        path = self.path.value.strip()
        if not path:
            raise ValueError("The path is empty. Name a run folder or a file of answers.")
        self.frame = pd.DataFrame()

        def work(report: Report) -> None:
            frame = open_rollouts(path, tokenizer=self.bench.policy.tokenizer)
            at = frame["step"].astype("string").fillna("–")
            self.frame = frame.assign(at=at).sort_values("step", kind="stable")

        self.bench.job.start(f"Reading {path} …", work, then=self._list)

    def _list(self) -> None:
        show(self._found, not self.frame.empty)
        if not self.frame.empty:  # else the job says why
            fill(self.steps, [*self.frame["at"].unique()], None, self._list_questions)
            self._list_questions()

    def _list_questions(self, _: Any = None) -> None:
        frame = self.frame[self.frame["question"].notna()]
        groups = frame[frame["at"] == self.steps.value].groupby("group_id", sort=False)
        self.questions.options = [
            (
                f"{one_line(group['question'].iloc[0], 90)} ({counted(len(group), 'answer')}, "
                f"mean reward {number_text(group['reward'].mean(), 2, sign='+')})",
                int(number),
            )
            for number, group in islice(groups, _LISTED)
        ]
        more = f" The first {_LISTED:,} of {len(groups):,} questions are listed."
        self.note.value = plain(" ".join(frame.attrs["notes"]) + more * (len(groups) > _LISTED))

    def _take(self) -> None:
        group = self.frame[self.frame["group_id"] == self.questions.value]
        if group.empty:
            raise ValueError("No row of this step has a question, so nothing can be scored.")
        drafts = []
        for r in group.itertuples():
            label = f"step {r.at}, reward {number_text(r.reward, 2, sign='+')}"
            drafts.append(Draft(r.question, r.answer, r.gold or None, label))
        self.bench.add(drafts, repeats=True)
        self.bench.open_question(drafts[0].question, show=str(drafts[0].answer))
        self.note.value = plain(
            f"{counted(len(drafts), 'answer')}, labelled with the logged reward; scored by "
            f"{self.bench.policy.reference}, not by the model that wrote them."
        )
