"""Look into a finished run: how answers changed, which correct ones are short with low SAR."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd

from sarlab.display.text import one_line, plain, signed
from sarlab.models import Policy, load_policy
from sarlab.runs.folder import find_runs
from sarlab.widgets import audit
from sarlab.widgets import live as ui
from sarlab.widgets.figures import history_figure
from sarlab.widgets.html import LOGGED, table_of

_AUDIT_ROWS = 50
_AUDIT_LIMITS = (30, 0.0)  # tokens and SAR that the audit begins with
_ALL = "all"

OnOpen = Callable[[list[Any], Any, Path, str], None]
"""Called with the answers to a question at a step and the opened one of them (rows of
:func:`read_audit`), the folder of their run, and the model that is to score them ("": any)."""


class RunBrowser(widgets.VBox):
    """Opens a run folder's rollouts; nothing is scored again, the logged numbers are shown.

    ``rows`` are the run's answers, ``shown`` those in the table. With ``on_open`` two buttons hand
    the opened answer on, with its group.
    """

    def __init__(
        self,
        folder: str | Path = "runs",
        *,
        tokenizer_of: Policy | None = None,
        on_open: OnOpen | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._tokenizers = {tokenizer_of.reference: tokenizer_of.tokenizer} if tokenizer_of else {}
        self._on_open = on_open
        self._names: list[audit.RunName] = []
        self.rows = pd.DataFrame()
        self.shown: tuple[Any, ...] = ()
        self.arm, self.seed = _dropdown("Arm", 190), _dropdown("Seed", 130)
        self.runs = _dropdown("Run", 300)
        self.mode = ui.choices(
            {"one question over time": "follow", "correct, short, low SAR": "audit"},
            *("How its answers changed", "Answers that may be guessed"),
        )
        words = "words of the question"
        self.search = widgets.Text(description="Search", placeholder=words, layout=_width(260))
        self.filter = _dropdown("Show", 190, list(audit.FILTERS))
        self.order = _dropdown("Sort", 190, list(audit.ORDERS))
        wide = {"flex": "1 1 300px", "width": "auto", "min_width": "0"}
        self.questions = widgets.Dropdown(description="Question", layout=wide)
        late = {"continuous_update": False}
        narrow = {"width": "auto", "max_width": "520px"}
        self.steps = widgets.SelectionSlider(options=[0], description="Step", layout=narrow, **late)
        self.length = widgets.IntSlider(30, 1, 200, description="tokens ≤", **late)
        self.sar = widgets.FloatSlider(0, min=-1, max=1, step=0.05, description="SAR ≤", **late)
        self._set_limits = _AUDIT_LIMITS  # by the run, not by the reader
        self.wider = ui.button("Widen", "arrows-h", self._widen)
        self.to_bench = ui.button("Open in the workbench", "external-link", self._hand_on)
        self.to_bench.tooltip = "All answers of this step; the workbench's model scores them"
        self.with_model = ui.button(
            "Open with the run's model", "external-link", lambda: self._hand_on(self.run)
        )
        self.with_model.tooltip = "The same; the model that this run trained scores them"
        self.message, self.note = ui.status(), ui.status()
        self.question_text, self.figure = widgets.HTML(), widgets.Output()
        self.table = ui.ChoiceTable(name="Logged answers")
        self.tokens = ui.TokenPanel()
        chosen = ui.row(self.search, self.filter, self.order)
        self._follow = widgets.VBox([chosen, ui.row(self.questions), self.figure, self.steps])
        self._audit = ui.row(self.length, self.sar, self.wider)
        parts = [ui.row(self.arm, self.seed, self.runs), self.mode, self._follow, self._audit]
        self._hand = ui.row(self.to_bench, self.with_model)
        parts += [self.message, self.table, self.question_text, self.note, self._hand]
        super().__init__([*parts, self.tokens, ui.Access()])
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
    def limits(self) -> tuple[int, float]:
        """The audit's thresholds: tokens and SAR."""
        return int(self.length.value), float(self.sar.value)

    @property
    def opened(self) -> Any:
        """The opened answer; None where there is none."""
        return self.shown[self.table.opened] if 0 <= self.table.opened < len(self.shown) else None

    def refresh(self) -> None:
        """Look for finished runs again."""
        self._names = audit.list_runs(find_runs(self.folder))
        for box, values in (
            (self.arm, {name.arm for name in self._names}),
            (self.seed, {name.seed for name in self._names}),
        ):
            ui.fill(box, [_ALL, *sorted(values)], _ALL, self._list_runs)
            ui.show(box, len(values) > 1)
        self._list_runs()
        if not self._names:
            self.message.value = (
                f"No finished runs under <code>{plain(str(self.folder))}</code>. "
                "Notebook 02 makes one."
            )

    def _list_runs(self, _: Any = None) -> None:
        names = [
            name
            for name in self._names
            if self.arm.value in (_ALL, name.arm) and self.seed.value in (_ALL, name.seed)
        ]
        options = [(n.path.name + " (tokens)" * n.has_tokens, str(n.path)) for n in names]
        ui.fill(self.runs, options, self.run, self._load)
        self._load()
        if self._names and not names:
            self.message.value = "No run of this arm has this seed. Choose another pair."

    def _load(self, _: Any = None) -> None:
        self.rows = pd.DataFrame()
        if self.run:
            ui.attempt(self.message, self._read)
        self._list_questions()

    def _read(self) -> None:
        rows = audit.read_audit(self.run)
        self.length.max = int(rows["length"].max())
        if self.limits == self._set_limits:  # the narrowest that list an answer of this run
            found = len(audit.short_with_low_sar(rows, *_AUDIT_LIMITS))
            wider = None if found else audit.next_wider(rows, *_AUDIT_LIMITS)
            self.length.value, self.sar.value = wider or _AUDIT_LIMITS
            self._set_limits = self.limits
        self.rows = rows

    def _list_questions(self, _: Any = None) -> None:
        """The questions that search and filter leave; the open one stays open where it can."""
        wishes = (self.search.value, self.filter.value, self.order.value)
        options = [
            (f"{one_line(text, 100)} ({len(audit.steps_of(self.rows, key))} steps)", key)
            for key, text in audit.choose_questions(self.rows, *wishes).items()
        ]
        # After sorting, the first is what is wanted.
        keep = self.question_id if self.order.value == "as logged" else ""
        ui.fill(self.questions, options, keep, self._follow_question)
        self._follow_question()

    def _follow_question(self, _: Any = None) -> None:
        rows = self.rows
        if self.question_id:
            ui.fill(self.steps, audit.steps_of(rows, self.question_id), None, self._filter)
            rows = rows[rows["question_id"] == self.question_id]
        drawn = bool(self.question_id) and rows["sar"].notna().all()
        ui.put_figure(self.figure, history_figure([*rows.itertuples()]) if drawn else None)
        self._filter()

    def _filter(self, _: Any = None) -> None:
        there, following = len(self.rows) > 0, self.mode.value == "follow"
        for part, visible in (
            (self.mode, there),
            (self._follow, there and following),
            (self._audit, there and not following),
        ):
            ui.show(part, visible)
        rows = self.rows
        if there and following:
            rows = rows[
                rows["question_id"].eq(self.question_id) & rows["step"].eq(self.steps.value)
            ]
            nothing = "No question of this run fits. Search for fewer words, or show all."
            self.message.value = nothing if rows.empty else ""
        elif there:
            rows = self._audited()
        self.shown = tuple(rows.itertuples())
        self.table.opened = -1
        self.table.show(*table_of(LOGGED if self.shown else (), self.shown))
        self.table.opened = 0 if self.shown else -1
        self._open()

    def _audited(self) -> pd.DataFrame:
        """The audit's rows; the message says what was looked for and in how many answers."""
        rows = audit.short_with_low_sar(self.rows, *self.limits)
        candidates, right = audit.auditable(self.rows), self.rows["correct"].sum()
        length, sar = self.limits
        text = (
            f"{len(rows)} of {right} correct answers ({len(self.rows)} logged) have at most "
            f"{length} tokens and a SAR of at most {signed(sar, 2)}"
        )
        text += f"; the first {_AUDIT_ROWS} are shown." if len(rows) > _AUDIT_ROWS else "."
        if candidates.empty and right:
            text += " None of them has a SAR: this run logged no log-probs without the question."
        elif rows.empty and right:
            text += (
                f" The shortest has {candidates['length'].min()} tokens, the lowest SAR is "
                f"{signed(candidates['sar'].min(), 2)}."
            )
        if self.limits == self._set_limits != _AUDIT_LIMITS:
            length, sar = _AUDIT_LIMITS
            text += f" None has ≤ {length} tokens and SAR ≤ {sar:.0f}, so the search begins here."
        self.message.value = text
        wider = audit.next_wider(self.rows, *self.limits)
        ui.show(self.wider, wider is not None)
        if wider:
            count = len(audit.short_with_low_sar(self.rows, *wider))
            limits = f"≤ {wider[0]} tokens, SAR ≤ {signed(wider[1], 2)}"
            self.wider.description = f"Widen to {limits}: {count}"
        return rows[:_AUDIT_ROWS]

    def _widen(self) -> None:
        wider = audit.next_wider(self.rows, *self.limits)
        if wider:
            self.length.value, self.sar.value = wider

    def _hand_on(self, model: str = "") -> None:
        on_open, opened, rows = self._on_open, self.opened, self.rows
        if on_open is not None and opened is not None:
            same = rows["question_id"].eq(opened.question_id) & rows["step"].eq(opened.step)
            group = [*rows[same].itertuples()]
            ui.attempt(self.note, lambda: on_open(group, opened, Path(self.run), model))

    def _open(self, _: Any = None) -> None:
        opened = self.opened
        ui.show(self._hand, opened is not None and self._on_open is not None)
        ui.show(self.with_model, (Path(self.run) / "adapter").is_dir())
        self.note.value = self.question_text.value = ""
        self.tokens.show(None)
        if opened is None:
            return
        self.question_text.value = (
            f'<div style="line-height: 1.5; white-space: pre-wrap">{plain(opened.question)} '
            f"<i>Right answer: {plain(opened.gold)}</i></div>"
        )
        try:
            score = audit.row_score(opened, self._tokenizer())
            self.tokens.show(score, 0, opened.correct, opened.truncated)
        except ValueError as error:
            self.note.value = plain(str(error))

    def _tokenizer(self) -> Any:
        reference = audit.run_model(self.run)
        if reference not in self._tokenizers:
            self._tokenizers[reference] = load_policy(reference).tokenizer
        return self._tokenizers[reference]


def _dropdown(description: str, pixels: int, options: Any = ()) -> widgets.Dropdown:
    return widgets.Dropdown(options=options, description=description, layout=_width(pixels))


def _width(pixels: int) -> dict[str, str]:
    return {"width": f"{pixels}px"}
