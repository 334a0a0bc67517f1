"""Look into a finished run: how answers changed, and which right answers look unthought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets as widgets
import traitlets

from sarlab.display.text import number, plain, shortened, signed, visible
from sarlab.models import Policy, load_policy
from sarlab.runs.folder import find_runs
from sarlab.widgets.audit import (
    AuditRow,
    questions_of,
    read_audit,
    right_without_a_thought,
    row_score,
    run_model,
    steps_of,
)
from sarlab.widgets.figures import history_figure
from sarlab.widgets.live import ChoiceTable, TokenPanel
from sarlab.widgets.outputs import put_figure

ROW_HEADER = ("step", "SAR", "ppl(a|q)", "ppl(a)", "tokens", "reward", "", "answer")
_AUDIT_ROWS = 50


class RunBrowser(widgets.VBox):
    """Opens a run folder's rollouts; nothing is scored again, the logged numbers are shown.

    ``run`` is the folder, ``question_id`` and ``step`` say what is looked at; ``max_length`` and
    ``max_sar`` are the audit's thresholds; ``found`` are the rows in the table.
    """

    run = traitlets.Unicode()
    question_id = traitlets.Unicode()
    step = traitlets.Int(-1)
    max_length = traitlets.Int(30)
    max_sar = traitlets.Float(0.0)
    found: Any = traitlets.Tuple()

    def __init__(self, folder: str | Path = "runs", *, tokenizer_of: Policy | None = None) -> None:
        self.folder = Path(folder)
        self._tokenizer_of = tokenizer_of
        self._tokenizers: dict[str, Any] = {}
        self.rows: list[AuditRow] = []
        self.runs = widgets.Dropdown(description="Run", layout=widgets.Layout(width="300px"))
        self.mode = widgets.ToggleButtons(
            options=[("one question over time", "follow"), ("right without a thought?", "audit")],
            style={"button_width": "210px"},
        )
        self.questions = widgets.Dropdown(
            description="Question", layout=widgets.Layout(width="auto")
        )
        self.steps = widgets.SelectionSlider(
            options=[0], description="Step", layout=widgets.Layout(width="520px")
        )
        self.length = widgets.IntSlider(30, 1, 200, description="tokens ≤", continuous_update=False)
        self.sar = widgets.FloatSlider(
            0.0, min=-1, max=1, step=0.05, description="SAR ≤", continuous_update=False
        )
        self.message = widgets.HTML()
        self.question_text = widgets.HTML()
        self.figure = widgets.Output()
        self.table = ChoiceTable()
        self.tokens = TokenPanel()
        self._follow = widgets.VBox([self.questions, self.figure, self.steps])
        self._audit = widgets.HBox([self.length, self.sar])
        super().__init__(
            [
                widgets.HBox([self.runs, self.mode]),
                self._follow,
                self._audit,
                self.message,
                self.table,
                self.question_text,
                self.tokens,
            ]
        )
        self.add_class("sarlab-runs")
        self.runs.observe(lambda c: setattr(self, "run", c["new"] or ""), "value")
        self.questions.observe(lambda c: setattr(self, "question_id", c["new"] or ""), "value")
        self.steps.observe(lambda c: setattr(self, "step", c["new"]), "value")
        traitlets.link((self, "max_length"), (self.length, "value"))
        traitlets.link((self, "max_sar"), (self.sar, "value"))
        self.mode.observe(self._filter, "value")
        self.table.observe(self._open, "opened")
        self.refresh()

    def __repr__(self) -> str:
        return "Run browser (live: it needs a running kernel; its static twin stands below)"

    def refresh(self) -> None:
        """Look for finished runs again."""
        paths = find_runs(self.folder)
        self.runs.options = [(path.name, str(path)) for path in paths]
        if not paths:
            self.message.value = (
                f"No finished runs under <code>{plain(str(self.folder))}</code>. "
                "Notebook 02 makes one."
            )
        elif not self.run:
            self.run = str(paths[0])
        self._filter()

    @traitlets.observe("run")
    def _load(self, _: Any) -> None:
        self.message.value = ""
        try:
            self.rows = read_audit(self.run) if self.run else []
        except ValueError as error:
            self.rows = []
            self.message.value = plain(str(error))
        questions = questions_of(self.rows)
        options = [
            (f"{_line(text, 100)} ({len(steps_of(self.rows, key))} steps)", key)
            for key, text in questions.items()
        ]
        if self.rows:
            self.length.max = max(row.length for row in self.rows)
        if self.runs.value != self.run and self.run in [value for _, value in self.runs.options]:
            self.runs.value = self.run
        self.questions.options = options
        self.question_id = options[0][1] if options else ""
        self._filter()

    @traitlets.observe("question_id")
    def _follow_question(self, _: Any) -> None:
        if self.question_id and self.questions.value != self.question_id:
            self.questions.value = self.question_id
        steps = steps_of(self.rows, self.question_id)
        self.steps.options = steps or [0]
        self.step = self.steps.value
        mine = [row for row in self.rows if row.question_id == self.question_id]
        has_sar = bool(mine) and all(row.sar is not None for row in mine)
        put_figure(self.figure, history_figure(mine) if has_sar else None)
        self._filter()

    @traitlets.observe("step", "max_length", "max_sar")
    def _filter(self, _: Any = None) -> None:
        following = self.mode.value == "follow"
        self.mode.layout.display = None if self.rows else "none"
        self._follow.layout.display = None if following and self.rows else "none"
        self._audit.layout.display = "none" if following or not self.rows else None
        if not self.rows:
            found = []
        elif following:
            if self.step in list(self.steps.options):
                self.steps.value = self.step
            found = [
                row
                for row in self.rows
                if row.question_id == self.question_id and row.step == self.step
            ]
        else:
            found = right_without_a_thought(self.rows, self.max_length, self.max_sar)
            right = sum(row.correct for row in self.rows)
            shown = f", the first {_AUDIT_ROWS} shown" if len(found) > _AUDIT_ROWS else ""
            self.message.value = (
                f"{len(found)} of {right} right answers are at most {self.max_length} tokens long "
                f"and have a SAR of at most {signed(self.max_sar, 2)}{shown}."
            )
            found = found[:_AUDIT_ROWS]
        if following and self.rows:
            self.message.value = ""
        self.found = tuple(found)
        self.table.opened = -1
        header = ROW_HEADER if found else ()
        self.table.show(header, "rrrrrrlt", [cells_of(row) for row in found])
        self.table.opened = 0 if found else -1
        if not found:
            self._open()

    def _open(self, _: Any = None) -> None:
        if not 0 <= self.table.opened < len(self.found):
            self.tokens.show(None)
            self.question_text.value = ""
            return
        row = self.found[self.table.opened]
        self.question_text.value = (
            f'<div style="line-height: 1.5; white-space: pre-wrap">{plain(row.question)} '
            f"<i>Right answer: {plain(row.gold)}</i></div>"
        )
        try:
            self.tokens.show(row_score(row, self._tokenizer()))
        except ValueError as error:
            self.tokens.show(None)
            self.message.value = plain(str(error))

    def _tokenizer(self) -> Any:
        reference = run_model(self.run)
        if self._tokenizer_of is not None and self._tokenizer_of.reference == reference:
            return self._tokenizer_of.tokenizer
        if reference not in self._tokenizers:
            self._tokenizers[reference] = load_policy(reference).tokenizer
        return self._tokenizers[reference]


def cells_of(row: AuditRow) -> list[str]:
    """A logged answer as a row of plain text under ``ROW_HEADER``."""
    return [
        str(row.step),
        "–" if row.sar is None else signed(row.sar),
        number(row.ppl_conditioned),
        "–" if row.sar is None else number(row.ppl_standalone),
        str(row.length),
        "–" if row.reward is None else signed(row.reward, 2),
        "✓ right" if row.correct else "✗ wrong",
        _line(row.answer, 140),
    ]


def _line(text: str, limit: int) -> str:
    return "".join(c if c == " " else visible(c) for c in shortened(text, limit))
