"""The reward workbench: its panels, each of which watches the state and draws a part of it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from traitlets import dlink, link

from sarlab.display.figures import position_figure
from sarlab.display.tables import folded, html_table, number_text, views
from sarlab.display.text import TERMS, plain, signed
from sarlab.display.token_view import V_NAME, bonus_view, legend, out_of_depth, payload
from sarlab.models import Policy
from sarlab.widgets import live as ui
from sarlab.widgets.candidates import Draft, judged, ranked, verdict_text
from sarlab.widgets.designs import compare_designs, design_label, design_names
from sarlab.widgets.export import workbench_html, write_view
from sarlab.widgets.figures import designs_figure
from sarlab.widgets.html import RANKING, designs_html, table_of
from sarlab.widgets.ledger import LedgerTab, QuestionTab
from sarlab.widgets.run_browser import RunBrowser
from sarlab.widgets.source import SourcePanel, model_box
from sarlab.widgets.state import Bench, counted

_PROGRESS_FROM = 150  # tokens of an edit from which its progress is shown


class RankingPanel(widgets.VBox):
    """The answers to the question, highest SAR first: open one, pin two."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.table = ui.ChoiceTable(pinning=True, name="Answers, highest SAR first")
        self.note = ui.status()
        super().__init__([self.table, self.note])
        self.add_class("sarlab-ranking")
        link((bench, "answer"), (self.table, "opened"))
        link((bench, "pinned"), (self.table, "pinned"), transform=(list, tuple))
        bench.observe(self._draw, "answers")
        self._draw()

    def _draw(self, _: Any = None) -> None:
        answers = self.bench.answers
        order = ranked(answers)
        self.table.show(*table_of(RANKING, [answers[i] for i in order]), order)
        foreign = sum(out_of_depth(c.score) for c in answers)
        self.note.value = ""
        if not answers:
            self.note.value = "No answers yet: add some above, or draw some under Sample."
        elif foreign:
            self.note.value = (
                f"<b>{foreign} of {len(answers)} answers have perplexities in the thousands.</b> "
                f"{plain(self.bench.policy.reference)} was not trained on such text, so these "
                "SAR values and their order mean little. Choose another model."
            )


class TokensTab(widgets.VBox):
    """The opened answer: tokens, span, and the box to edit it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.panel = ui.TokenPanel(editable=True)
        self.keep = ui.button("Keep as new answer", "plus", bench.keep_edit)
        self.reset = ui.button("Undo edits", "undo", self._undo)
        super().__init__([self.panel, ui.row(self.keep, self.reset)])
        self._seq, self._text, self._drawn = 0, "", 0
        self.panel.observe(self._draft, "draft")
        link((bench, "selection"), (self.panel, "selection"), transform=(list, tuple))
        bench.observe(self._draw, ["opened", "edited", "gold"])
        bench.observe(self._show_span, "selection")
        self._draw()

    def _draw(self, _: Any = None) -> None:
        score = self.bench.opened
        self.panel.message = ""
        if not self.bench.edited:
            # Before its tokens: who sees them may type already.
            self.panel.text = score.answer if score else ""
        # Details of the answer before may come while a draft is scored; they do not answer it.
        if self.bench.edited and (score is None or score.answer == self._text):
            self._drawn = self._seq
        self.panel.show(score, self._drawn, *self.bench.verdict())
        self.reset.disabled = not self.bench.edited
        self.keep.disabled = not self.bench.edited or score is None

    def _draft(self, change: Any) -> None:
        draft = change["new"]
        self._seq, self._text = int(draft.get("seq", 0)), str(draft.get("text", ""))

        def on_tokens(done: int, total: int) -> None:
            if total >= _PROGRESS_FROM:
                self.panel.message = f"Scoring: token {done} of {total} …"

        message = ""
        try:
            text = self._text
            score = self.bench.edit(text, on_tokens=on_tokens) if self.bench.question else None
            if self.panel.view.get("seq") != self._seq:
                self._draw()  # nothing changed: the same text again
            if self.bench.question and score is None:
                message = "The answer is empty: there is nothing to score."
        except ValueError as error:
            message = str(error)
        finally:
            self.panel.message, self.panel.acknowledged = message, self._seq

    def _undo(self) -> None:
        self.panel.text = ""  # so that the box takes the old text even where it was its last
        self.bench.undo_edit()

    def _show_span(self, _: Any = None) -> None:
        pair, opened = self.bench.span_numbers(), self.bench.opened
        lines: list[list[str]] = []
        if pair is not None and opened is not None:
            start, stop = self.bench.selection
            which = f"{stop - start} token{'s' * (stop - start > 1)} ({start + 1}–{stop})"
            nats = signed(sum(opened.values[start:stop]), 2)
            lines = [[f"Selected: {which}: Δ log p", f"{nats} nats", ""]]
            names = ("left out of the mean", "deleted, the rest scored again")
            for name, sar in zip(names, pair, strict=True):
                change = f"({signed(sar - opened.sar)})"
                lines.append([f"SAR with the span {name}", signed(sar), change])
        self.panel.span = lines


class PairTab(widgets.VBox):
    """Two answers, or one answer under two policies, side by side on one scale."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.model = model_box(bench, "Model for B", "", "360px")
        self.model.placeholder = "the same as for A"
        self.model.tooltip = "A second model: a run folder, or any that shares the tokenizer"
        self.labels = (widgets.HTML(), widgets.HTML())
        self.views = (ui.TokenPanel(compact=True), ui.TokenPanel(compact=True))
        half = {"flex": "1 1 300px", "min_width": "0", "padding": "0 12px 0 0"}
        pairs = zip(self.labels, self.views, strict=True)
        sides = ui.row(*(widgets.VBox(pair, layout=half) for pair in pairs))
        self.hint = ui.status()
        scale = widgets.HTML(str(views().legend(legend())))
        super().__init__([widgets.HBox([self.model, self.hint]), sides, scale])
        self.model.observe(self._load, "value")
        bench.observe(self._draw, ["pinned", "answers", "policy_b", "policy"])
        self._draw()

    def _load(self, change: Any) -> None:
        reference = change["new"].strip()
        if reference:
            ui.attempt(self.hint, lambda: self.bench.load(reference, self._use))
        else:
            self.hint.value, self.bench.policy_b = "", None

    def _use(self, policy: Policy) -> None:
        if policy.tokenizer.get_vocab() != self.bench.policy.tokenizer.get_vocab():
            raise ValueError(
                f"{policy.reference} has another tokenizer than {self.bench.policy.reference}, so "
                "tokens can't be compared one by one. Choose a model of the same family."
            )
        self.bench.policy_b = policy

    def _draw(self, _: Any = None) -> None:
        scores = {label[0]: (label, score) for label, score in self.bench.pinned_scores()}
        others = dict(zip("BA", (scores.get(name, ("", None))[1] for name in "AB"), strict=True))
        for name, label, view in zip("AB", self.labels, self.views, strict=True):
            text, score = scores.get(name, (f"{name}: pin an answer in the table above", None))
            label.value = f"<b>{plain(text)}</b>"
            view.show(score, other=others[name])


class DesignsPanel(widgets.VBox):
    """Reward designs on the answers to this question, or on all questions by label."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.alpha = widgets.FloatSlider(
            value=bench.alpha, min=0, max=1, step=0.01, description="α", continuous_update=False
        )
        self.measure = ui.choices(
            {"advantages": "advantage", "rewards": "reward"},
            *("Reward minus the group's mean", "Correctness plus α times the bonus"),
        )
        self.scope = ui.choices({"this question": "one", "all questions, by label": "all"})
        self.designs = widgets.SelectMultiple(
            options=[(design_label(name), name) for name in design_names(every=True)],
            value=design_names(),
            description="Designs",
            rows=4,
            tooltip="Those shown; Ctrl or Shift with a click chooses several",
        )
        self.message = ui.status()
        self.table, self.dense_title = widgets.HTML(), widgets.HTML()
        self.dense = ui.TokenPanel(compact=True)
        self.figure = widgets.Output()
        top = ui.row(self.alpha, self.measure, self.scope, self.designs)
        parts = [top, self.message, self.figure, self.table, self.dense_title, self.dense]
        super().__init__(parts)
        self.add_class("sarlab-designs")
        link((bench, "alpha"), (self.alpha, "value"))
        self.scope.observe(self._choose_scope, "value")
        for box in (self.measure, self.designs):
            box.observe(self._draw, "value")
        bench.observe(self._draw, ["answers", "alpha"])
        bench.observe(self._draw_dense, "answer")
        self._draw()

    @property
    def _all(self) -> bool:
        """Whether all questions are looked at, not only the open one."""
        return bool(self.scope.value == "all")

    def _choose_scope(self, _: Any) -> None:
        self._draw()
        if self._all:  # one click: what is missing is scored, then drawn
            ui.attempt(self.message, lambda: self.bench.score_waiting(then=self._draw))

    def _draw(self, _: Any = None) -> None:
        bench, notes = self.bench, []
        groups = [g.answers for g in bench.groups.values()] if self._all else [bench.answers]
        unjudged = sum(len(group) - len(judged(group)) for group in groups)
        chosen = [c for group in map(judged, groups) if len(group) > 1 for c in group]
        if not self._all:
            chosen = [chosen[i] for i in ranked(chosen)]
        elif bench.drafts:
            notes.append(f"{len({a.question for a in bench.drafts})} questions are not scored yet.")
        if unjudged:
            notes.append(
                f"{unjudged} answers are left out: no right answer is known for their question. "
                "Type it above, beside the question."
            )
        if not self.designs.value:
            notes, chosen = ["No design is chosen."], []
        elif not chosen:
            notes.append("An advantage compares answers: a question needs two or more.")
        self.message.value = " ".join(notes)
        designs = compare_designs(chosen, bench.alpha, self.designs.value)
        # Of dense designs, by the score's id; the last one is shown.
        self._dense = {
            id(c.score): (design.name, values)
            for design in designs
            for c, values in zip(chosen, design.tokens, strict=False)
            if not self._all
        }
        self._draw_dense()
        # The table first: it is drawn at once, the figure takes the browser a moment.
        view = (chosen, designs, self.measure.value)
        self.table.value = designs_html(*view) if chosen and not self._all else ""
        ui.put_figure(self.figure, designs_figure(*view) if chosen else None)

    def _draw_dense(self, _: Any = None) -> None:
        """The opened answer with the colours of a dense design, where one is chosen."""
        bench, view = self.bench, {}
        if 0 <= bench.answer < len(bench.answers):
            score = bench.answers[bench.answer].score
            name, values = self._dense.get(id(score), ("", ()))
            if values:
                view = payload(bonus_view(score, values))
                self.dense_title.value = f"<b>{plain(name)}</b>, per token of the opened answer"
        self.dense.view = view
        for part in (self.dense_title, self.dense):
            ui.show(part, bool(view))


class PositionPanel(widgets.VBox):
    """What the answers to this question are like along their way: a quantity against the place."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        names = [V_NAME, "log p with the question", "entropy"]
        self.quantity = widgets.Dropdown(options=names, description="Quantity")
        self.place = ui.choices({"share of the answer": "relative", "token by token": "absolute"})
        self.place.layout.margin = "2px 0 0 16px"
        self.job, self.figure = ui.JobBar(replaces=True), widgets.Output()
        about = widgets.HTML(
            "<small>Lines: means over answers, their number in brackets. Bands: ± one standard "
            "deviation between them; none where only one answer reaches that far.</small>"
        )
        super().__init__([ui.row(self.quantity, self.place), self.job, self.figure, about])
        self.add_class("sarlab-position")
        for box in (self.quantity, self.place):
            box.observe(self._draw, "value")
        bench.observe(self._draw, ["answers", "tab"])

    def _draw(self, _: Any = None) -> None:
        if self.bench.tab == "Position":
            self.job.start("Scoring …", partial(self._work, self.quantity.value))

    def _work(self, name: str, report: ui.Report) -> None:
        answers = sorted(self.bench.answers, key=lambda c: not c.correct)  # right ones first
        groups: dict[str, list[Sequence[float]]] = {}
        for done, c in enumerate(answers, 1):
            score = c.score
            if name == "entropy":  # which the table's scores may lack
                score = self.bench.score(score.question, score.token_ids)
            known = {V_NAME: score.values, "entropy": score.entropy}
            values = known.get(name, score.logps_conditioned)
            groups.setdefault(verdict_text(c.correct), []).append(values)
            report(done, len(answers), f"Scoring answer {done} of {len(answers)}")
        relative = self.place.value == "relative"
        drawn = position_figure(groups, name, relative=relative) if groups else None
        with self.bench.compute:  # or a figure that was replaced could be put after the new one
            report(1, 1, "")  # not if other choices were made meanwhile
            ui.put_figure(self.figure, drawn)


class SamplePanel(widgets.VBox):
    """Sample answers from the policy; progress and the stop button stand above the table."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        narrow = {"width": "190px"}
        self.count = widgets.BoundedIntText(4, 1, 64, description="Answers", layout=narrow)
        self.limit = widgets.BoundedIntText(200, 1, 8192, description="Max tokens", layout=narrow)
        self.seed = widgets.IntText(0, description="Seed", layout=narrow)
        self.seed.tooltip = "The same seed draws the same answers; it counts up when a draw ends"
        self.button = ui.button("Sample", "play", self._sample, button_style="primary")
        self.message = ui.status()
        about = widgets.HTML(
            "Sampled at temperature 1 from the whole distribution, as in training. Answers join "
            "the table as they come; a stop loses only those in flight."
        )
        self.growing = widgets.HTML()
        fields = ui.row(self.count, self.limit, self.seed, self.button)
        super().__init__([fields, about, self.message, self.growing])
        dlink((bench.job, "busy"), (self.button, "disabled"))
        dlink((bench, "growing"), (self.growing, "value"), self._so_far)

    def _so_far(self, texts: Sequence[str]) -> str:
        return "".join(f'<div class="sarlab-growing">{plain(text)}</div>' for text in texts)

    def _sample(self) -> None:
        settings = (self.count.value, self.limit.value, self.seed.value)

        def count_up() -> None:  # so that the next click draws other answers
            if self.seed.value == settings[2]:
                self.seed.value += 1

        ui.attempt(self.message, lambda: self.bench.sample(*settings, then=count_up))


class ExportPanel(widgets.VBox):
    """Write what is looked at into a file."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.name = widgets.Text("exports/answers", description="File")
        self.message = ui.status(
            "The ranking, the opened answer, the pinned pair and the reward designs: one HTML "
            "file without scripts, or a picture of it."
        )
        html = ui.button("HTML", "file-code-o", partial(self._write, ".html"))
        html.tooltip = "Write an HTML file without scripts"
        png = ui.button("PNG", "picture-o", partial(self._write, ".png"))
        png.tooltip = "Write a picture; needs Chromium"
        super().__init__([ui.row(self.name, html, png), self.message])

    def _write(self, suffix: str) -> None:
        def work() -> None:
            self.message.value = "Writing …"
            view = (self.bench.question, workbench_html(self.bench))
            path = write_view(self.name.value.strip(), suffix, *view)
            self.message.value = f"Written: <code>{plain(str(path))}</code>"

        ui.attempt(self.message, work)


class Workbench(Bench):
    """The state of :class:`Bench` with its panels: a question, its answers, nine tabs."""

    def __init__(
        self, policy: Policy | str, answers: Sequence[Draft] = (), *, runs: str | Path = "runs"
    ) -> None:
        super().__init__(policy, runs)
        self.add_class("sarlab-workbench")
        self.add(answers)
        self.source, self.ranking = SourcePanel(self), RankingPanel(self)
        self.run_browser = RunBrowser(self.runs, tokenizer_of=self.policy, on_open=self.open_logged)
        tabs: dict[str, Any] = {
            "Tokens": TokensTab(self),
            "A/B": PairTab(self),
            "Ledger": LedgerTab(self),
            "Question": QuestionTab(self),
            "Designs": DesignsPanel(self),
            "Position": PositionPanel(self),
            "Sample": SamplePanel(self),
            "Runs": self.run_browser,
            "Export": ExportPanel(self),
        }
        self.tokens, self.pair, self.ledger, self.parts, *others = tabs.values()
        self.designs, self.position, self.sampling, *_ = others
        self.tabs = widgets.Tab(list(tabs.values()), titles=list(tabs), selected_index=0)
        dlink((self.tabs, "selected_index"), (self, "tab"), list(tabs).__getitem__)
        meanings = html_table(pd.DataFrame(TERMS, columns=["term", "meaning"]))
        terms = widgets.HTML(folded("What the terms mean", meanings)).add_class("sarlab-terms")
        self.children = (self.source, self.ranking, self.tabs, terms, ui.Access())
        if self.questions:
            self.open_question(self.questions[0])

    def __repr__(self) -> str:
        return "Reward workbench (live: it needs a running kernel; its static twin stands below)"

    def wait(self) -> None:
        """Wait for work in threads, that of the ledger included."""
        super().wait()
        self.ledger.job.wait()
        self.parts.job.wait()
        self.position.job.wait()

    def open_logged(self, rows: Sequence[Any], opened: Any, run: Path, model: str = "") -> None:
        """Open a group of logged answers at one of them; ``model``, if given, is loaded first."""
        step = opened.step
        drafts = []
        for r in rows:
            label = f"{run.name}, step {step}"
            if r.sar != r.sar:  # all that is known of it
                label += f", reward {number_text(r.reward, 2, sign='+')}"
            drafts.append(Draft(r.question, r.answer, r.gold or None, label, bool(r.truncated)))

        def use(policy: Policy) -> None:
            self.add(drafts, repeats=True)  # before answers that wait are ids of another model
            self.policy = policy
            self.open_question(opened.question, show=opened.answer)
            self.tabs.selected_index = 0
            self.ranking.table.send({"scroll": True})
            about = (
                f"The run's final model scores them here; the logged numbers are of step {step}."
                if policy.reference == str(run)
                else f"Here {policy.reference} scores them, so the numbers differ from the logged "
                "ones unless it wrote them."
            )
            self.source.message.value = plain(
                f"What {run.name} logged at step {step} for this question: "
                f"{counted(len(rows), 'answer')}. {about}"
            )

        if model in ("", self.policy.reference):
            use(self.policy)
        else:
            self.load(model, use)
