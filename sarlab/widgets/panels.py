"""The workbench's panels: each watches the workbench's state and draws a part of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from sarlab.display.text import number, plain, shortened, signed, visible
from sarlab.models import load_policy
from sarlab.runs.folder import find_runs
from sarlab.tasks import load_task
from sarlab.widgets.candidates import Draft, pasted_answers, ranked, read_answers
from sarlab.widgets.html import legend_html
from sarlab.widgets.jobs import Report
from sarlab.widgets.live import ChoiceTable, TokenPanel
from sarlab.widgets.more_panels import DesignsPanel, ExportPanel, SamplePanel
from sarlab.widgets.run_browser import RunBrowser

if TYPE_CHECKING:
    from sarlab.widgets.workbench import Workbench

_WIDE = widgets.Layout(width="100%")


class Panels:
    """All panels of a workbench, by name, and how they stand on the page."""

    def __init__(self, bench: Workbench) -> None:
        self.source = SourcePanel(bench)
        self.ranking = RankingPanel(bench)
        self.tokens = TokensTab(bench)
        self.pair = PairTab(bench)
        self.designs = DesignsPanel(bench)
        self.sampling = SamplePanel(bench)
        self.run_browser = RunBrowser(bench.runs, tokenizer_of=bench.policy)
        self.export = ExportPanel(bench)
        tabs = {
            "Tokens": self.tokens,
            "A/B": self.pair,
            "Reward designs": self.designs,
            "Sample": self.sampling,
            "Runs": self.run_browser,
            "Export": self.export,
        }
        self.tabs = widgets.Tab(list(tabs.values()), titles=list(tabs), selected_index=0)
        self.tabs.layout.min_width = "0"
        self.children = (self.source, bench.job, self.ranking, self.tabs)


def build_panels(bench: Workbench) -> Panels:
    """The panels of a workbench."""
    return Panels(bench)


class SourcePanel(widgets.VBox):
    """Which model, which question; and a fold to add more of both."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        known = ["tiny", "smollm2-135m", *(str(p) for p in find_runs(bench.runs))]
        self.model = widgets.Combobox(
            value=bench.policy.reference,
            options=list(dict.fromkeys([bench.policy.reference, *known])),
            description="Model",
            continuous_update=False,
            tooltip="tiny, smollm2-135m, a hub id, a folder, a .gguf file, or a run folder",
            layout=widgets.Layout(flex="0 0 280px"),
        )
        self.picker = widgets.Dropdown(
            description="Question", layout=widgets.Layout(flex="1 1 0", width="auto", min_width="0")
        )
        self.shown = widgets.HTML(layout=_WIDE)
        self.typed = widgets.Textarea(placeholder="Type a question", layout=_WIDE, rows=3)
        self.gold = widgets.Text(placeholder="right answer (optional)")
        self.pasted = widgets.Textarea(
            placeholder="Paste answers; a line of --- between two of them", layout=_WIDE, rows=4
        )
        self.open_button = widgets.Button(description="Open question", icon="check")
        self.add_button = widgets.Button(description="Add answers", icon="plus")
        self.upload = widgets.FileUpload(
            accept=".csv,.json,.jsonl,.parquet", description="Load a file"
        )
        self.task = widgets.Text(
            placeholder="task, such as gsm_symbolic", layout=widgets.Layout(width="240px")
        )
        self.task_button = widgets.Button(description="Load 20 questions", icon="download")
        self.message = widgets.HTML()
        more = widgets.Accordion(
            [
                widgets.VBox(
                    [
                        self.typed,
                        widgets.HBox([self.gold, self.open_button]),
                        self.pasted,
                        widgets.HBox([self.add_button, self.upload, self.task, self.task_button]),
                    ]
                )
            ],
            titles=["Type a question, paste answers, load a file or a task"],
            selected_index=None,
        )
        super().__init__(
            [widgets.HBox([self.model, self.picker]), self.shown, more, self.message],
            layout=widgets.Layout(overflow="hidden"),
        )
        self.model.observe(self._load_model, "value")
        self.picker.observe(self._pick, "value")
        self.open_button.on_click(lambda _: self._try(self._open_typed))
        self.add_button.on_click(lambda _: self._try(self._add_pasted))
        self.task_button.on_click(lambda _: self._try(self._load_task))
        self.upload.observe(lambda change: self._try(self._load_file), "value")
        bench.observe(self._draw, ["questions", "question", "gold"])
        self._draw()

    def _draw(self, _: Any = None) -> None:
        bench = self.bench
        questions = list(dict.fromkeys([*bench.questions, *filter(None, [bench.question])]))
        options = [(f"{i}. {visible_line(q)}", q) for i, q in enumerate(questions, start=1)]
        self.picker.unobserve(self._pick, "value")
        self.picker.options = options
        self.picker.value = bench.question if bench.question in questions else None
        self.picker.observe(self._pick, "value")
        gold = f" <i>Right answer: {plain(bench.gold)}</i>" if bench.gold else ""
        style = "line-height: 1.5; white-space: pre-wrap"
        self.shown.value = f'<div style="{style}">{plain(bench.question)}{gold}</div>'

    def _pick(self, change: Any) -> None:
        if change["new"] and change["new"] != self.bench.question:
            self._try(lambda: self.bench.open_question(change["new"]))

    def _load_model(self, change: Any) -> None:
        reference = change["new"].strip()
        if not reference or reference == self.bench.policy.reference:
            return

        def work(report: Report) -> None:
            report(0, 1, f"Loading {reference} …")
            loaded.append(load_policy(reference))

        loaded: list[Any] = []

        def then(_: Any) -> None:
            if not self.bench.job.busy:
                self.bench.job.unobserve(then, "busy")
                if loaded:
                    self.bench.policy = loaded[0]
                else:
                    self.model.value = self.bench.policy.reference

        def go() -> None:
            self.bench.job.start(f"Loading {reference} …", work)
            self.bench.job.observe(then, "busy")

        self._try(go)

    def _open_typed(self) -> None:
        question = self.typed.value.strip()
        if not question:
            raise ValueError("The question is empty. Type one.")
        self.bench.open_question(question, gold=self.gold.value.strip())
        self._draw()

    def _add_pasted(self) -> None:
        texts = pasted_answers(self.pasted.value)
        if not texts:
            raise ValueError("There is no answer in the box. Paste one.")
        self.bench.add_answers(texts, "pasted")
        self.pasted.value = ""

    def _load_file(self) -> None:
        for file in self.upload.value:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"upload{Path(file['name']).suffix}"
                path.write_bytes(bytes(file["content"]))
                self._add(read_answers(path))

    def _load_task(self) -> None:
        task = load_task(self.task.value.strip())
        for question in task.heldout(20):
            self.bench.drafts.setdefault(question.text, [])
            self.bench.golds[question.text] = question.gold
        self.bench.add([])
        self.message.value = (
            f"Questions of {plain(task.name)} are in the list; sample answers to one."
        )

    def _add(self, drafts: list[Draft]) -> None:
        self.bench.add(drafts)
        self.bench.open_question(drafts[0].question)

    def _try(self, action: Any) -> None:
        """Do it; what a reader did wrong is told beside the controls."""
        self.message.value = ""
        try:
            action()
        except (ValueError, RuntimeError, OSError) as error:
            self.message.value = f"<b>{type(error).__name__}</b>: {plain(str(error))}"


class RankingPanel(widgets.VBox):
    """The answers to the question, highest SAR first: open one, pin two."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.table = ChoiceTable(pinning=True)
        self.empty = widgets.HTML("No answers yet: paste some above, or sample below.")
        super().__init__([self.table, self.empty])
        self.add_class("sarlab-ranking")
        self.table.observe(lambda c: setattr(bench, "answer", c["new"]), "opened")
        self.table.observe(lambda c: setattr(bench, "pinned", tuple(c["new"])), "pinned")
        bench.observe(self._draw, "answers")
        bench.observe(self._mark, ["answer", "pinned"])
        self._draw()

    def _draw(self, _: Any = None) -> None:
        answers = self.bench.answers
        order = ranked(answers)
        rows = []
        for place, i in enumerate(order, start=1):
            score = answers[i].score
            rows.append(
                [
                    str(place),
                    visible_line(answers[i].kind),
                    signed(score.sar),
                    number(score.ppl_conditioned),
                    number(score.ppl_standalone),
                    str(score.length),
                    {True: "✓ right", False: "✗ wrong", None: "–"}[answers[i].correct],
                    visible_line(score.answer, 140),
                ]
            )
        header = ("", "kind", "SAR", "ppl(a|q)", "ppl(a)", "tokens", "", "answer")
        self.table.show(header, "rlrrrrlt", rows, order)
        self.empty.layout.display = "none" if rows else None
        self._mark()

    def _mark(self, _: Any = None) -> None:
        self.table.opened = self.bench.answer
        self.table.pinned = list(self.bench.pinned)


class TokensTab(widgets.VBox):
    """The opened answer: tokens, span, and the box to edit it."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.panel = TokenPanel(editable=True)
        self.keep = widgets.Button(description="Keep as new answer", icon="plus", layout=_auto())
        self.reset = widgets.Button(description="Undo edits", icon="undo", layout=_auto())
        super().__init__([self.panel, widgets.HBox([self.keep, self.reset])])
        self._seq = 0
        self.keep.on_click(lambda _: bench.keep_edit())
        self.reset.on_click(self._undo)
        self.panel.observe(self._draft, "draft")
        self.panel.observe(lambda c: setattr(bench, "selection", tuple(c["new"])), "selection")
        bench.observe(self._draw, "opened")
        bench.observe(self._mark, "selection")
        bench.observe(self._buttons, "edited")
        self._draw()
        self._buttons()

    def _draw(self, _: Any = None) -> None:
        score = self.bench.opened
        self.panel.message = ""
        self.panel.show(score, self._seq)
        if score is not None and not self.bench.edited:
            self.panel.text = score.answer

    def _draft(self, change: Any) -> None:
        draft = change["new"]
        self._seq = int(draft.get("seq", 0))
        try:
            if self.bench.question:
                self.bench.edit(str(draft.get("text", "")))
        except ValueError as error:
            self.panel.message = str(error)
        finally:
            self.panel.acknowledged = self._seq

    def _undo(self, _: Any) -> None:
        self.panel.text = ""  # so that the box takes the old text even where it was its last
        self.bench._show_answer(None)

    def _mark(self, _: Any = None) -> None:
        self.panel.selection = list(self.bench.selection)
        numbers = self.bench.span_numbers()
        if numbers is None:
            self.panel.span = []
            return
        assert self.bench.opened is not None
        start, stop = self.bench.selection
        sar, (left_out, deleted) = self.bench.opened.sar, numbers
        nats = sum(self.bench.opened.values[start:stop])
        count = stop - start
        self.panel.span = [
            [
                f"Selected: {count} token{'s' if count > 1 else ''} ({start + 1}–{stop}), Σ v",
                f"{signed(nats, 2)} nats",
                "",
            ],
            [
                "SAR with the span left out of the mean",
                signed(left_out),
                f"({signed(left_out - sar)})",
            ],
            [
                "SAR with the span deleted, the rest scored again",
                signed(deleted),
                f"({signed(deleted - sar)})",
            ],
        ]

    def _buttons(self, _: Any = None) -> None:
        self.keep.disabled = self.reset.disabled = not self.bench.edited


class PairTab(widgets.VBox):
    """Two answers, or one answer under two policies, side by side on one scale."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        runs = [str(path) for path in find_runs(bench.runs)]
        self.model = widgets.Combobox(
            options=["tiny", "smollm2-135m", *runs],
            placeholder="the same policy",
            description="B under",
            continuous_update=False,
            tooltip="A second policy: a run folder, or any model that shares the tokenizer",
            layout=widgets.Layout(width="320px"),
        )
        self.hint = widgets.HTML()
        self.labels = (widgets.HTML(), widgets.HTML())
        self.views = (TokenPanel(compact=True), TokenPanel(compact=True))
        half = widgets.Layout(width="50%", min_width="0", overflow="hidden", padding="0 12px 0 0")
        sides = [
            widgets.VBox([label, view], layout=half)
            for label, view in zip(self.labels, self.views, strict=True)
        ]
        scale = widgets.HTML(legend_html())
        super().__init__([widgets.HBox([self.model, self.hint]), widgets.HBox(sides), scale])
        self.model.observe(self._load, "value")
        bench.observe(self._draw, ["pinned", "answers", "policy_b", "policy"])
        self._draw()

    def _load(self, change: Any) -> None:
        reference = change["new"].strip()
        try:
            policy = load_policy(reference) if reference else None
            mine = self.bench.policy.tokenizer.get_vocab()
            if policy is not None and policy.tokenizer.get_vocab() != mine:
                raise ValueError(
                    f"{reference!r} has another tokenizer than {self.bench.policy.reference!r}, so "
                    "tokens can't be compared one by one. Choose a policy of the same family."
                )
            self.bench.policy_b = policy
        except ValueError as error:
            self.hint.value = plain(str(error))

    def _draw(self, _: Any = None) -> None:
        found = {label[0]: (label, score) for label, score in self.bench.pinned_scores()}
        for name, label, view in zip("AB", self.labels, self.views, strict=True):
            text, score = found.get(name, (f"{name}: pin an answer in the table above", None))
            label.value = f"<b>{plain(text)}</b>"
            view.show(score)
        self.hint.value = ""


def visible_line(text: str, limit: int = 110) -> str:
    """A model's text as one line of a table or a list."""
    line = shortened(text, limit)
    return "".join(c if c == " " else visible(c) for c in line)


def _auto() -> widgets.Layout:
    return widgets.Layout(width="auto")
