"""Look into a finished run: how answers changed, which correct ones are short with low SAR."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from sarlab.display.tables import MISSING
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
from sarlab.widgets.live import (
    Access,
    ChoiceTable,
    TokenPanel,
    attempt,
    button,
    choices,
    fill,
    put_figure,
    row,
    show,
    status,
)

ROW_HEADER = ("step", "SAR", "ppl(a|q)", "ppl(a)", "tokens", "reward", "verdict", "answer")
_AUDIT_ROWS = 50
_ALL = "all"

OnOpen = Callable[[AuditRow, str], None]
"""Called with the opened answer and the name of its run."""


class RunBrowser(widgets.VBox):
    """Opens a run folder's rollouts; nothing is scored again, the logged numbers are shown.

    ``rows`` are the run's answers, ``shown`` those in the table. With ``on_open`` a button hands
    the opened answer on.
    """

    def __init__(
        self,
        folder: str | Path = "runs",
        *,
        tokenizer_of: Policy | None = None,
        on_open: OnOpen | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._tokenizers: dict[str, Any] = {}
        if tokenizer_of is not None:
            self._tokenizers[tokenizer_of.reference] = tokenizer_of.tokenizer
        self._on_open = on_open
        self._names: list[RunName] = []
        self.rows: list[AuditRow] = []
        self.shown: tuple[AuditRow, ...] = ()
        self._make_controls()
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
        parts += [self.message, self.table, self.question_text, self.note, self.to_bench]
        super().__init__([*parts, self.tokens, Access()])
        self.add_class("sarlab-runs")
        for boxes, handler in (
            ((self.arm, self.seed), self._list_runs),
            ((self.search, self.filter, self.order), self._list_questions),
            ((self.mode, self.length, self.sar), self._filter),
        ):
            for box in boxes:
                box.observe(handler, "value")
        self.table.observe(self._open, "opened")
        self.refresh()

    def __repr__(self) -> str:
        return "Run browser (live: it needs a running kernel; its static twin stands below)"

    @property
    def run(self) -> str:
        """The folder of the open run; "" where there is none."""
        return self.runs.value or ""

    @property
    def question_id(self) -> str:
        """The question that is looked at over time."""
        return self.questions.value or ""

    @property
    def max_length(self) -> int:
        """The audit's threshold in tokens."""
        return int(self.length.value)

    @property
    def max_sar(self) -> float:
        """The audit's threshold of SAR."""
        return float(self.sar.value)

    def refresh(self) -> None:
        """Look for finished runs again."""
        self._names = list_runs(find_runs(self.folder))
        for box, values in (
            (self.arm, {name.arm for name in self._names}),
            (self.seed, {name.seed for name in self._names}),
        ):
            fill(box, [_ALL, *sorted(values)], _ALL, self._list_runs)
            show(box, len(values) > 1)
        self._list_runs()
        if not self._names:
            self.message.value = (
                f"No finished runs under <code>{plain(str(self.folder))}</code>. "
                "Notebook 02 makes one."
            )

    def _make_controls(self) -> None:
        layout = widgets.Layout
        self.arm = widgets.Dropdown(description="Arm", layout=layout(width="190px"))
        self.seed = widgets.Dropdown(description="Seed", layout=layout(width="130px"))
        self.runs = widgets.Dropdown(description="Run", layout=layout(width="300px"))
        self.mode = choices(
            {"one question over time": "follow", "correct, short, low SAR": "audit"},
            *("How its answers changed", "Answers that may be guessed"),
        )
        self.search = widgets.Text(
            description="Search", placeholder="words of the question", layout=layout(width="260px")
        )
        self.filter = widgets.Dropdown(
            options=list(FILTERS), description="Show", layout=layout(width="190px")
        )
        self.order = widgets.Dropdown(
            options=list(ORDERS), description="Sort", layout=layout(width="190px")
        )
        self.questions = widgets.Dropdown(
            description="Question", layout=layout(flex="1 1 300px", width="auto", min_width="0")
        )
        self.steps = widgets.SelectionSlider(
            options=[0],
            description="Step",
            continuous_update=False,
            layout=layout(width="auto", max_width="520px"),
        )
        self.length = widgets.IntSlider(30, 1, 200, description="tokens ≤", continuous_update=False)
        self.sar = widgets.FloatSlider(
            0.0, min=-1, max=1, step=0.05, description="SAR ≤", continuous_update=False
        )
        self.wider = button("Widen", "arrows-h", self._widen)
        self.to_bench = button("Open in the workbench", "external-link", self._hand_on)
        self.message, self.note = status(), status()
        self.question_text = widgets.HTML()
        self.figure = widgets.Output()
        self.table = ChoiceTable(name="Logged answers")
        self.tokens = TokenPanel()

    def _list_runs(self, _: Any = None) -> None:
        names = [
            name
            for name in self._names
            if self.arm.value in (_ALL, name.arm) and self.seed.value in (_ALL, name.seed)
        ]
        options = [(n.path.name + " (tokens)" * n.has_tokens, str(n.path)) for n in names]
        fill(self.runs, options, self.run, self._load)
        self._load()
        if self._names and not names:
            self.message.value = "No run of this arm has this seed. Choose another pair."

    def _load(self, _: Any = None) -> None:
        self.rows = []

        def read() -> None:
            self.rows = read_audit(self.run)

        if self.run:
            attempt(self.message, read)
        if self.rows:
            self.length.max = max(row.length for row in self.rows)
        self._list_questions()

    def _list_questions(self, _: Any = None) -> None:
        """The questions that search and filter leave; the open one stays open where it can."""
        chosen = choose_questions(self.rows, self.search.value, self.filter.value, self.order.value)
        options = [
            (f"{one_line(text, 100)} ({len(steps_of(self.rows, key))} steps)", key)
            for key, text in chosen.items()
        ]
        # After sorting, the first is what is wanted.
        keep = self.question_id if self.order.value == "as logged" else ""
        fill(self.questions, options, keep, self._follow_question)
        self._follow_question()

    def _follow_question(self, _: Any = None) -> None:
        rows = [row for row in self.rows if row.question_id == self.question_id]
        fill(self.steps, steps_of(rows, self.question_id) or [0], None, self._filter)
        has_sar = bool(rows) and all(row.sar is not None for row in rows)
        put_figure(self.figure, history_figure(rows) if has_sar else None)
        self._filter()

    def _filter(self, _: Any = None) -> None:
        following = self.mode.value == "follow"
        show(self.mode, bool(self.rows))
        show(self._follow, bool(self.rows) and following)
        show(self._audit, bool(self.rows) and not following)
        rows: list[AuditRow] = []
        if self.rows and following:
            key = (self.question_id, self.steps.value)
            rows = [row for row in self.rows if (row.question_id, row.step) == key]
            self.message.value = (
                "" if rows else "No question of this run fits. Search for fewer words, or show all."
            )
        elif self.rows:
            rows = self._audited()
        self.shown = tuple(rows)
        self.table.opened = -1
        self.table.show(ROW_HEADER if rows else (), "rrrrrrlt", [cells_of(row) for row in rows])
        self.table.opened = 0 if rows else -1
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
        if not rows and candidates:
            text += (
                f" The shortest has {min(row.length for row in candidates)} tokens, the lowest SAR "
                f"is {signed(min(row.sar for row in candidates), 2)}."
            )
        self.message.value = text
        wider = next_wider(self.rows, self.max_length, self.max_sar)
        show(self.wider, wider is not None)
        if wider:
            count = len(short_with_low_sar(self.rows, *wider))
            what = f"≤ {wider[0]} tokens, SAR ≤ {signed(wider[1], 2)}: {count}"
            self.wider.description = f"Widen to {what}"
        return rows[:_AUDIT_ROWS]

    def _widen(self) -> None:
        wider = next_wider(self.rows, self.max_length, self.max_sar)
        if wider:
            self.length.value, self.sar.value = wider

    def _hand_on(self) -> None:
        on_open, row = self._on_open, self._opened
        if on_open is not None and row is not None:
            attempt(self.note, lambda: on_open(row, Path(self.run).name))

    @property
    def _opened(self) -> AuditRow | None:
        at = self.table.opened
        return self.shown[at] if 0 <= at < len(self.shown) else None

    def _open(self, _: Any = None) -> None:
        row = self._opened
        show(self.to_bench, row is not None and self._on_open is not None)
        self.note.value = self.question_text.value = ""
        self.tokens.show(None)
        if row is None:
            return
        self.question_text.value = (
            f'<div style="line-height: 1.5; white-space: pre-wrap">{plain(row.question)} '
            f"<i>Right answer: {plain(row.gold)}</i></div>"
        )
        try:
            score = row_score(row, self._tokenizer())
            self.tokens.show(score, 0, row.correct, row.truncated)
        except ValueError as error:
            self.note.value = plain(str(error))

    def _tokenizer(self) -> Any:
        reference = run_model(self.run)
        if reference not in self._tokenizers:
            self._tokenizers[reference] = load_policy(reference).tokenizer
        return self._tokenizers[reference]


def cells_of(row: AuditRow) -> list[str]:
    """A logged answer as a row of plain text under ``ROW_HEADER``."""
    return [
        str(row.step),
        MISSING if row.sar is None else signed(row.sar),
        number(row.ppl_conditioned),
        MISSING if row.sar is None else number(row.ppl_standalone),
        str(row.length),
        MISSING if row.reward is None else signed(row.reward, 2),
        verdict_text(row.correct, row.truncated),
        one_line(row.answer, 140),
    ]
