"""Look into a finished run: how answers changed, which correct ones are short with low SAR."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import traitlets

from sarlab.display.text import number, one_line, plain, signed
from sarlab.models import Policy, load_policy
from sarlab.runs.folder import find_runs
from sarlab.widgets.audit import (
    FILTERS,
    ORDERS,
    AuditRow,
    RunName,
    auditable,
    choose_questions,
    list_runs,
    next_wider,
    read_audit,
    row_score,
    run_model,
    short_with_low_sar,
    steps_of,
)
from sarlab.widgets.candidates import verdict_text
from sarlab.widgets.figures import history_figure
from sarlab.widgets.live import Access, ChoiceTable, TokenPanel, status
from sarlab.widgets.outputs import put_figure

ROW_HEADER = ("step", "SAR", "ppl(a|q)", "ppl(a)", "tokens", "reward", "", "answer")
_AUDIT_ROWS = 50
_ALL = "all"

OnOpen = Callable[[str, str, str], None]
"""Called with question, right answer and answer."""


class RunBrowser(widgets.VBox):
    """Opens a run folder's rollouts; nothing is scored again, the logged numbers are shown.

    ``run`` is the folder, ``question_id`` and ``step`` say what is looked at; ``max_length`` and
    ``max_sar`` are the audit's thresholds; ``shown`` are the rows in the table. With ``on_open`` a
    button hands the opened answer on.
    """

    run = traitlets.Unicode()
    question_id = traitlets.Unicode()
    step = traitlets.Int(-1)
    max_length = traitlets.Int(30)
    max_sar = traitlets.Float(0.0)
    shown: Any = traitlets.Tuple()

    def __init__(
        self,
        folder: str | Path = "runs",
        *,
        tokenizer_of: Policy | None = None,
        on_open: OnOpen | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._tokenizer_of = tokenizer_of
        self._on_open = on_open
        self._tokenizers: dict[str, Any] = {}
        self._names: list[RunName] = []
        self.rows: list[AuditRow] = []
        self._make_controls()
        super().__init__(self._parts())
        self.add_class("sarlab-runs")
        self._watch()
        self.refresh()

    def __repr__(self) -> str:
        return "Run browser (live: it needs a running kernel; its static twin stands below)"

    def refresh(self) -> None:
        """Look for finished runs again."""
        self._names = list_runs(find_runs(self.folder))
        for box, values in (
            (self.arm, [name.arm for name in self._names]),
            (self.seed, [name.seed for name in self._names]),
        ):
            box.options = [_ALL, *sorted(dict.fromkeys(values))]
            box.value = _ALL
            box.layout.display = None if len(box.options) > 2 else "none"
        if not self._names:
            self.message.value = (
                f"No finished runs under <code>{plain(str(self.folder))}</code>. "
                "Notebook 02 makes one."
            )
        self._list_runs()

    def _make_controls(self) -> None:
        narrow = widgets.Layout(width="190px")
        wide = widgets.Layout(flex="1 1 300px", width="auto", min_width="0")
        self.arm = widgets.Dropdown(description="Arm", layout=narrow)
        self.seed = widgets.Dropdown(description="Seed", layout=widgets.Layout(width="130px"))
        self.runs = widgets.Dropdown(description="Run", layout=widgets.Layout(width="300px"))
        self.mode = widgets.ToggleButtons(
            options=[("one question over time", "follow"), ("correct, short, low SAR", "audit")],
            tooltips=["How its answers changed", "Answers that may be guessed"],
            style={"button_width": "auto"},
        )
        self.search = widgets.Text(
            description="Search",
            placeholder="words of the question",
            layout=widgets.Layout(width="260px"),
        )
        self.filter = widgets.Dropdown(options=list(FILTERS), description="Show", layout=narrow)
        self.order = widgets.Dropdown(options=list(ORDERS), description="Sort", layout=narrow)
        self.questions = widgets.Dropdown(description="Question", layout=wide)
        self.steps = widgets.SelectionSlider(
            options=[0],
            description="Step",
            continuous_update=False,
            layout=widgets.Layout(width="auto", max_width="520px"),
        )
        self.length = widgets.IntSlider(30, 1, 200, description="tokens ≤", continuous_update=False)
        self.sar = widgets.FloatSlider(
            0.0, min=-1, max=1, step=0.05, description="SAR ≤", continuous_update=False
        )
        self.wider = widgets.Button(description="Widen", icon="arrows-h", layout=_button_layout())
        self.to_bench = widgets.Button(
            description="Open in the workbench", icon="external-link", layout=_button_layout()
        )
        self.message, self.note = status(), status()
        self.question_text = widgets.HTML()
        self.figure = widgets.Output()
        self.table = ChoiceTable(name="Logged answers")
        self.tokens = TokenPanel()

    def _parts(self) -> list[widgets.Widget]:
        def row(*parts: widgets.Widget) -> widgets.HBox:
            return widgets.HBox(parts, layout=widgets.Layout(flex_flow="row wrap"))

        self._follow = widgets.VBox(
            [
                row(self.search, self.filter, self.order),
                row(self.questions),
                self.figure,
                self.steps,
            ]
        )
        self._audit = row(self.length, self.sar, self.wider)
        parts = [row(self.arm, self.seed, self.runs), self.mode, self._follow, self._audit]
        parts += [
            self.message,
            self.table,
            self.question_text,
            self.note,
            self.to_bench,
            self.tokens,
        ]
        return [*parts, Access()]

    def _watch(self) -> None:
        for box in (self.arm, self.seed):
            box.observe(self._list_runs, "value")
        for box in (self.search, self.filter, self.order):
            box.observe(self._list_questions, "value")
        self.runs.observe(lambda c: setattr(self, "run", c["new"] or ""), "value")
        self.questions.observe(lambda c: setattr(self, "question_id", c["new"] or ""), "value")
        self.steps.observe(lambda c: setattr(self, "step", c["new"]), "value")
        traitlets.link((self, "max_length"), (self.length, "value"))
        traitlets.link((self, "max_sar"), (self.sar, "value"))
        self.mode.observe(self._filter, "value")
        self.table.observe(self._open, "opened")
        self.wider.on_click(self._widen)
        self.to_bench.on_click(self._hand_on)

    def _list_runs(self, _: Any = None) -> None:
        names = [
            name
            for name in self._names
            if self.arm.value in (_ALL, None, name.arm)
            and self.seed.value in (_ALL, None, name.seed)
        ]
        keep = self.run
        self.runs.options = [
            (name.path.name + (" (tokens)" if name.has_tokens else ""), str(name.path))
            for name in names
        ]
        values = [value for _, value in self.runs.options]
        if values:
            self.runs.value = keep if keep in values else values[0]
            self.run = self.runs.value
        elif self._names:
            self.message.value = "No run of this arm has this seed. Choose another pair."
        self._filter()

    @traitlets.observe("run")
    def _load(self, _: Any) -> None:
        self.message.value = ""
        try:
            self.rows = read_audit(self.run) if self.run else []
        except ValueError as error:
            self.rows = []
            self.message.value = plain(str(error))
        if self.rows:
            self.length.max = max(row.length for row in self.rows)
        if self.runs.value != self.run and self.run in [value for _, value in self.runs.options]:
            self.runs.value = self.run
        self._list_questions()

    def _list_questions(self, _: Any = None) -> None:
        """The questions that search and filter leave; the open one stays open where it can."""
        chosen = choose_questions(self.rows, self.search.value, self.filter.value, self.order.value)
        options = [
            (f"{one_line(text, 100)} ({len(steps_of(self.rows, key))} steps)", key)
            for key, text in chosen.items()
        ]
        keep = self.question_id
        by_hand = self.order.value != "as logged"  # after sorting, the first is what is wanted
        self.questions.options = options
        if options:
            self.questions.value = keep if keep in chosen and not by_hand else options[0][1]
        self.question_id = self.questions.value or ""
        self._follow_question()

    @traitlets.observe("question_id")
    def _follow_question(self, _: Any = None) -> None:
        if self.question_id and self.questions.value != self.question_id:
            self.questions.value = self.question_id
        steps = steps_of(self.rows, self.question_id)
        self.steps.options = steps or [0]
        self.step = self.steps.value
        rows = [row for row in self.rows if row.question_id == self.question_id]
        has_sar = bool(rows) and all(row.sar is not None for row in rows)
        put_figure(self.figure, history_figure(rows) if has_sar else None)
        self._filter()

    @traitlets.observe("step", "max_length", "max_sar")
    def _filter(self, _: Any = None) -> None:
        following = self.mode.value == "follow"
        self.mode.layout.display = None if self.rows else "none"
        self._follow.layout.display = None if following and self.rows else "none"
        self._audit.layout.display = "none" if following or not self.rows else None
        rows: list[AuditRow] = []
        if self.rows and following:
            if self.step in list(self.steps.options):
                self.steps.value = self.step
            rows = [
                row
                for row in self.rows
                if row.question_id == self.question_id and row.step == self.step
            ]
            self.message.value = (
                "" if rows else "No question of this run fits. Search for fewer words, or show all."
            )
        elif self.rows:
            rows = self._audited()
        self.shown = tuple(rows)
        self.table.opened = -1
        header = ROW_HEADER if rows else ()
        self.table.show(header, "rrrrrrlt", [cells_of(row) for row in rows])
        self.table.opened = 0 if rows else -1
        if not rows:
            self._open()

    def _audited(self) -> list[AuditRow]:
        """The audit's rows; the message says what was looked for and in how many answers."""
        rows = short_with_low_sar(self.rows, self.max_length, self.max_sar)
        candidates = auditable(self.rows)
        right = sum(row.correct for row in self.rows)
        text = (
            f"{len(rows)} of {right} correct answers ({len(self.rows)} logged) have at most "
            f"{self.max_length} tokens and a SAR of at most {signed(self.max_sar, 2)}"
        )
        if len(rows) > _AUDIT_ROWS:
            text += f"; the first {_AUDIT_ROWS} are shown"
        text += "."
        if not candidates and right:
            text += " None of them has a SAR: this run logged no log-probs without the question."
        wider = next_wider(self.rows, self.max_length, self.max_sar)
        self.wider.layout.display = None if wider else "none"
        if wider:
            count = len(short_with_low_sar(self.rows, *wider))
            self.wider.description = (
                f"Widen to ≤ {wider[0]} tokens, SAR ≤ {signed(wider[1], 2)}: {count}"
            )
        if not rows and candidates:
            text += (
                f" The shortest has {min(row.length for row in candidates)} tokens, the lowest SAR "
                f"is {signed(min(row.sar for row in candidates), 2)}."
            )
        self.message.value = text
        return rows[:_AUDIT_ROWS]

    def _widen(self, _: Any) -> None:
        wider = next_wider(self.rows, self.max_length, self.max_sar)
        if wider:
            self.max_length, self.max_sar = wider

    def _hand_on(self, _: Any) -> None:
        if self._on_open is None or not 0 <= self.table.opened < len(self.shown):
            return
        row = self.shown[self.table.opened]
        try:
            self._on_open(row.question, row.gold, row.answer)
        except (ValueError, RuntimeError) as error:
            self.note.value = plain(str(error))

    def _open(self, _: Any = None) -> None:
        self.note.value = ""
        is_open = 0 <= self.table.opened < len(self.shown)
        self.to_bench.layout.display = None if is_open and self._on_open is not None else "none"
        if not is_open:
            self.tokens.show(None)
            self.question_text.value = ""
            return
        row = self.shown[self.table.opened]
        self.question_text.value = (
            f'<div style="line-height: 1.5; white-space: pre-wrap">{plain(row.question)} '
            f"<i>Right answer: {plain(row.gold)}</i></div>"
        )
        try:
            score = row_score(row, self._tokenizer())
            self.tokens.show(score, 0, row.correct, row.truncated)
        except ValueError as error:
            self.tokens.show(None)
            self.note.value = plain(str(error))

    def _tokenizer(self) -> Any:
        reference = run_model(self.run)
        if self._tokenizer_of is not None and self._tokenizer_of.reference == reference:
            return self._tokenizer_of.tokenizer
        if reference not in self._tokenizers:
            self._tokenizers[reference] = load_policy(reference).tokenizer
        return self._tokenizers[reference]


def _button_layout() -> widgets.Layout:
    return widgets.Layout(width="auto", align_self="flex-start", display="none")


def cells_of(row: AuditRow) -> list[str]:
    """A logged answer as a row of plain text under ``ROW_HEADER``."""
    return [
        str(row.step),
        "–" if row.sar is None else signed(row.sar),
        number(row.ppl_conditioned),
        "–" if row.sar is None else number(row.ppl_standalone),
        str(row.length),
        "–" if row.reward is None else signed(row.reward, 2),
        verdict_text(row.correct, row.truncated),
        one_line(row.answer, 140),
    ]
