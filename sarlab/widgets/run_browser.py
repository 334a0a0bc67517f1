"""Look into a finished run: how answers changed, which correct ones are short with low SAR."""

from collections.abc import Callable
from functools import partial
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
from sarlab.widgets.html import LOGGED, Columns, table_of
from sarlab.widgets.state import counted

_AUDIT_ROWS = 50
_AUDIT_LIMITS = (30, 0.0)  # tokens and SAR that the audit begins with
_ALL = "all"
_NOTE = "on this answer; kept in the run's folder (annotations.jsonl)"
_FORMATS = "a run folder or file of TRL, verl, OpenRLHF, prime-rl, tinker, Inspect, JSON lines"

OnOpen = Callable[[list[Any], Any, Path, str], None]
"""Called with the answers to a question at a step and the opened one of them (rows of
:func:`read_audit`), the folder of their run, and the model that is to score them ("": any)."""


class RunBrowser(widgets.VBox):
    """Opens a run folder's rollouts; nothing is scored again, the logged numbers are shown.

    ``rows`` are the run's answers, ``shown`` those in the table. A path typed under Rollouts opens
    what another trainer logged (:func:`sarlab.open_rollouts`). With ``on_open`` two buttons hand
    the opened answer on, with its group. ``notes`` are those kept in the run's folder.
    """

    def __init__(
        self,
        folder: str | Path = "runs",
        *,
        tokenizer_of: Policy | None = None,
        on_open: OnOpen | None = None,
    ) -> None:
        self.folder, self._on_open = Path(folder), on_open
        self._tokenizers = {tokenizer_of.reference: tokenizer_of.tokenizer} if tokenizer_of else {}
        self._names: list[audit.RunName] = []
        self.rows = pd.DataFrame()
        self.shown: tuple[Any, ...] = ()
        self.shown_beside: tuple[Any, ...] = ()
        self.notes: dict[tuple[Any, ...], str] = {}
        self._set_limits = _AUDIT_LIMITS  # by the run, not by the reader
        self._wider: tuple[int, float] | None = None
        self._jumped: tuple[str, tuple[str, int]] | None = None  # kind, and question and step
        self.arm, self.seed = _dropdown("Arm", "190px"), _dropdown("Seed", "130px")
        self.runs = _dropdown("Run", "300px")
        grows = {"flex": "1 1 300px", "width": "auto", "min_width": "0"}
        late = {"continuous_update": False}
        self.other = widgets.Text(
            description="Rollouts", placeholder=_FORMATS, layout=grows, **late
        )
        self.mode = ui.choices(
            {"one question over time": "follow", "correct, short, low SAR": "audit"},
            *("How its answers changed", "Answers that may be guessed"),
        )
        self.search = widgets.Text(
            description="Search", placeholder="words of the question", layout={"width": "260px"}
        )
        self.filter = _dropdown("Show", "190px", list(audit.FILTERS))
        self.order = _dropdown("Sort", "190px", list(audit.ORDERS))
        self.questions = widgets.Dropdown(description="Question", layout=grows)
        half = {**grows, "max_width": "520px"}
        self.steps = widgets.SelectionSlider(options=[0], description="Step", layout=half, **late)
        self.beside = _dropdown("Beside step", "190px")
        self.jumps = [ui.button(kind, "", partial(self._jump, kind)) for kind in audit.JUMPS]
        self.length = widgets.IntSlider(30, 1, 200, description="tokens ≤", **late)
        self.sar = widgets.FloatSlider(0, min=-1, max=1, step=0.05, description="SAR ≤", **late)
        self.wider = ui.button("Widen", "arrows-h", self._widen)
        self.to_bench = ui.button("Open in the workbench", "external-link", self._hand_on)
        self.to_bench.tooltip = "All answers of this step; the workbench's model scores them"
        self.with_model = ui.button(
            "Open with the run's model", "external-link", lambda: self._hand_on(self.run)
        )
        self.with_model.tooltip = "The same; the model that this run trained scores them"
        self.message, self.note = ui.status(), ui.status()
        self.question_text, self.figure = widgets.HTML(), widgets.Output()
        self.remark = widgets.Text(description="Note", placeholder=_NOTE, layout=grows, **late)
        self.table = ui.ChoiceTable(name="Logged answers")
        self.table_beside = ui.ChoiceTable(name="Logged answers of the other step")
        self.tokens, self.tokens_beside = ui.TokenPanel(), ui.TokenPanel()
        pairs = [(self.table, self.table_beside), (self.tokens, self.tokens_beside)]
        for pair, width in zip(pairs, ("520px", "340px"), strict=True):  # below each other else
            for part in pair:
                part.layout = {"flex": f"1 1 {width}", "min_width": "0", "padding": "0 12px 0 0"}
        chosen = ui.row(self.search, self.filter, self.order)
        jump = ui.row(widgets.Label("Jump to a group:"), *self.jumps)
        steps = ui.row(self.steps, self.beside)
        self._follow = widgets.VBox([chosen, ui.row(self.questions), jump, self.figure, steps])
        self._audit = ui.row(self.length, self.sar, self.wider)
        self._hand = ui.row(self.to_bench, self.with_model)
        parts = [ui.row(self.arm, self.seed, self.runs, self.other), self.mode]
        parts += [self._follow, self._audit]
        parts += [self.message, ui.row(*pairs[0]), self.question_text, self.note, self._hand]
        super().__init__([*parts, ui.row(self.remark), ui.row(*pairs[1]), ui.Access()])
        self.add_class("sarlab-runs")
        for handler, *boxes in (
            (self._list_runs, self.arm, self.seed),
            (self._list_questions, self.search, self.filter, self.order),
            (self._filter, self.mode, self.length, self.sar),
        ):
            for box in boxes:
                box.observe(handler, "value")
        self.other.observe(self.refresh, "value")
        self.remark.observe(self._keep_note, "value")
        self.table.observe(self._open, "opened")
        self.table_beside.observe(self._open_beside, "opened")
        self._open()
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
    def following(self) -> bool:
        """Whether one question is looked at, and not the audit; other trainers' files have none."""
        return self.mode.value == "follow" or "about" in self.rows.attrs

    @property
    def limits(self) -> tuple[int, float]:
        """The audit's thresholds: tokens and SAR."""
        return int(self.length.value), float(self.sar.value)

    @property
    def opened(self) -> Any:
        """The opened answer; None where there is none."""
        return self.shown[self.table.opened] if 0 <= self.table.opened < len(self.shown) else None

    def refresh(self, _: Any = None) -> None:
        """Look for finished runs again, and open what the typed path names."""
        typed = self.other.value.strip()
        other = [Path(typed)] if typed else []
        self._names = audit.list_runs([*find_runs(self.folder), *other])
        for box, part in ((self.arm, "arm"), (self.seed, "seed")):
            values = sorted({getattr(name, part) for name in self._names})
            ui.fill(box, [_ALL, *values], _ALL, self._list_runs)
            ui.show(box, len(values) > 1)
        self._list_runs(chosen=str(other[0]) if other else "")

    def _list_runs(self, _: Any = None, chosen: str = "") -> None:
        options = [
            (name.path.name + " (tokens)" * name.has_tokens, str(name.path))
            for name in self._names
            if self.arm.value in (_ALL, name.arm) and self.seed.value in (_ALL, name.seed)
        ]
        ui.fill(self.runs, options, chosen or self.run, self._load)
        self._load()
        if not self._names:
            folder = f"<code>{plain(str(self.folder))}</code>"
            self.message.value = f"No finished runs under {folder}. Notebook 02 makes one."
        elif not options:
            self.message.value = "No run of this arm has this seed. Choose another pair."

    def _load(self, _: Any = None) -> None:
        self.rows = pd.DataFrame()
        if self.run:
            ui.attempt(self.message, self._read)
        self._list_questions()

    def _read(self) -> None:
        self.notes = audit.read_notes(self.run)
        rows = audit.read_audit(self.run, next(iter(self._tokenizers.values()), None))
        has_scores = "about" not in rows.attrs
        if has_scores:
            self.length.max = int(rows["length"].max())
        if has_scores and self.limits == self._set_limits:
            # The narrowest limits that list an answer of this run.
            listed = len(audit.short_with_low_sar(rows, *_AUDIT_LIMITS))
            wider = None if listed else audit.next_wider(rows, *_AUDIT_LIMITS)
            self.length.value, self.sar.value = wider or _AUDIT_LIMITS
            self._set_limits = self.limits
        self.rows = rows

    def _list_questions(self, _: Any = None) -> None:
        """The questions that search and filter leave; the open one stays open where it can."""
        wishes: tuple[Any, ...] = (self.search.value, self.filter.value, self.order.value)
        if "about" in self.rows.attrs:
            wishes = wishes[:1]
        steps = self.rows.groupby("question_id")["step"].nunique() if len(self.rows) else {}
        options = [
            (f"{one_line(text, 100)} ({counted(steps[key], 'step')})", key)
            for key, text in audit.choose_questions(self.rows, *wishes).items()
        ]
        # After sorting, the first is what is wanted.
        keep = self.question_id if self.order.value == "as logged" else ""
        ui.fill(self.questions, options, keep, self._follow_question)
        self._follow_question()

    def _follow_question(self, _: Any = None) -> None:
        drawn = None
        if self.question_id:
            steps = audit.steps_of(self.rows, self.question_id)
            ui.fill(self.steps, steps, None, self._filter)
            others = [("–", -1), *((str(step), step) for step in steps)]
            ui.fill(self.beside, others, self.beside.value, self._show_beside)
            answers = self.rows[self.rows["question_id"] == self.question_id]
            if answers["sar"].notna().all():
                drawn = history_figure([*answers.itertuples()])
        ui.put_figure(self.figure, drawn)
        self._filter()

    def _filter(self, _: Any = None) -> None:
        """Show the answers at one step, or those that the audit lists; open the first."""
        rows, there, about = self.rows, len(self.rows) > 0, self.rows.attrs.get("about", "")
        following = self.following
        for part in (self.mode, self.filter, self.order):  # need more than another trainer logs
            ui.show(part, there and not about)
        ui.show(self._follow, there and following)
        ui.show(self._audit, there and not following)
        if there and following:
            rows = self._answers_at(self.steps.value)
            nothing = "No question of this run fits. Search for fewer words, or show all."
            self.message.value = nothing if rows.empty else plain(about)
        elif there:
            rows = self._audited()
        self.shown = tuple(rows.itertuples())
        self.table.opened = -1
        self._show_beside()
        self.table.opened = 0 if self.shown else -1

    def _answers_at(self, step: int | None) -> pd.DataFrame:
        rows = self.rows
        return rows[rows["question_id"].eq(self.question_id) & rows["step"].eq(step)]

    def _draw_tables(self) -> None:
        """The answers, with what was noted on any of them, and those beside them."""
        noted = ("note", "t", lambda row: one_line(self.notes.get(audit.note_key(row), "")))
        for table, rows in ((self.table, self.shown), (self.table_beside, self.shown_beside)):
            columns: Columns = LOGGED if rows else ()
            if self.shown_beside:  # half as wide: the perplexities stand above the tokens too
                columns = [column for column in columns if not column[0].startswith("ppl")]
            if any(self.notes.get(audit.note_key(row)) for row in rows):
                columns = [*columns[:-1], noted, columns[-1]]
            table.show(*table_of(columns, rows))

    def _show_beside(self, _: Any = None) -> None:
        """The answers to the same question at another step."""
        following = self.following and len(self.rows) > 0
        rows = self._answers_at(self.beside.value) if following else pd.DataFrame()
        self.shown_beside = tuple(rows.itertuples())
        self.table_beside.opened = -1
        self._draw_tables()
        self.table_beside.opened = 0 if self.shown_beside else -1
        for part in (self.table_beside, self.tokens_beside):
            ui.show(part, bool(self.shown_beside))

    def _open_beside(self, _: Any = None) -> None:
        if 0 <= self.table_beside.opened < len(self.shown_beside):
            self._draw(self.tokens_beside, self.shown_beside[self.table_beside.opened])

    def _jump(self, kind: str) -> None:
        """Go to the first group of a kind; from there to the next, and round."""
        groups = audit.groups_like(self.rows, kind)
        if not groups:
            self.message.value = f"No group of two or more answers is {kind}."
            return
        here = (self.question_id, self.steps.value)
        goes_on = self._jumped == (kind, here) and here in groups
        at = (groups.index(here) + 1) % len(groups) if goes_on else 0
        question, step = groups[at]
        self._jumped = (kind, groups[at])
        if question not in [key for _, key in self.questions.options]:
            self.search.value, self.filter.value = "", "all"
        self.questions.value = question
        self.steps.value = step
        self.message.value = f"Group {at + 1} of {len(groups)}, {kind}: step {step}."

    def _keep_note(self, change: Any) -> None:
        opened, note = self.opened, change["new"].strip()
        if opened is None or note == self.notes.get(audit.note_key(opened), ""):
            return
        if ui.attempt(self.note, lambda: audit.write_note(self.run, opened, note)):
            self.notes[audit.note_key(opened)] = note
            self._draw_tables()

    def _audited(self) -> pd.DataFrame:
        """The audit's rows; the message says what was looked for and in how many answers."""
        listed = audit.short_with_low_sar(self.rows, *self.limits)
        right = self.rows["correct"].sum()
        text = (
            f"{len(listed)} of {right} correct answers ({len(self.rows)} logged) have at most "
            f"{self.length.value} tokens and a SAR of at most {signed(self.sar.value, 2)}"
        )
        text += f"; the first {_AUDIT_ROWS} are shown." if len(listed) > _AUDIT_ROWS else "."
        if right and audit.auditable(self.rows).empty:
            text += " None of them has a SAR: this run logged no log-probs without the question."
        if self.limits == self._set_limits != _AUDIT_LIMITS:
            length, sar = _AUDIT_LIMITS
            text += f" None has ≤ {length} tokens and SAR ≤ {sar:.0f}, so the search begins here."
        self.message.value = text
        self._wider = audit.next_wider(self.rows, *self.limits)
        ui.show(self.wider, self._wider is not None)
        if self._wider:
            length, sar = self._wider
            count = len(audit.short_with_low_sar(self.rows, length, sar))
            self.wider.description = f"Widen to ≤ {length} tokens, SAR ≤ {signed(sar, 2)}: {count}"
        return listed[:_AUDIT_ROWS]

    def _widen(self) -> None:
        if self._wider:
            self.length.value, self.sar.value = self._wider

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
        ui.show(self.remark, opened is not None and "about" not in self.rows.attrs)
        self.remark.value = self.notes.get(audit.note_key(opened), "") if opened else ""
        if opened is None:
            self.tokens.show(None)
            return
        gold = f" <i>Right answer: {plain(opened.gold)}</i>" if opened.gold else ""
        style = "line-height: 1.5; white-space: pre-wrap"
        self.question_text.value = f'<div style="{style}">{plain(opened.question)}{gold}</div>'
        self._draw(self.tokens, opened)

    def _draw(self, panel: ui.TokenPanel, row: Any) -> None:
        panel.show(None)
        try:
            reference = "" if pd.isna(row.sar) else audit.run_model(self.run)
            if reference and reference not in self._tokenizers:
                self._tokenizers[reference] = load_policy(reference).tokenizer
            score = audit.row_score(row, self._tokenizers.get(reference))
            panel.show(score, 0, row.correct, row.truncated, advantage=row.advantage)
        except ValueError as error:
            self.note.value = plain(str(error))


def _dropdown(description: str, width: str, options: Any = ()) -> widgets.Dropdown:
    return widgets.Dropdown(options=options, description=description, layout={"width": width})
