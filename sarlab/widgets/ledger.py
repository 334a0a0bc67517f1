"""Panels of the two-sided ledger: the lines of an answer, and the parts of its question."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import ipywidgets as widgets
import torch

from sarlab.display.ledger import (
    ABOUT,
    CLASS_VIEWS,
    ORDERS,
    against,
    arcs_svg,
    filler_found,
    filler_rows,
    filler_text,
    ledger_html,
    ledger_order,
    ledger_rows,
    parts_rows,
    question_parts,
)
from sarlab.display.text import one_line, plain
from sarlab.display.token_view import step_starts
from sarlab.rewards.answers import AnswerScore
from sarlab.rewards.dependence import AnswerDependence, dependence_of, question_dependence
from sarlab.widgets import live as ui
from sarlab.widgets.state import Bench, counting

_WORDS = "Scoring the rest"
_NOTHING = {
    "opened": "Open an answer above.",
    "pinned": "Pin one answer or two, with A and B in the table above.",
    "right": "No scored answer is known to be right.",
}


class LedgerTab(widgets.VBox):
    """The ledger of the opened answer, or of the pinned two, by line, sentence or chosen span."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.job, self.hint = bench, ui.JobBar(replaces=True), ui.status()
        self.which = ui.choices(
            {"opened answer": "opened", "pinned A and B": "pinned", "all right answers": "right"},
            *("Line by line", "Side by side", "Those with much filler, of all loaded questions"),
        )
        self.by = ui.choices({"lines": "line", "sentences": "sentence", "selected span": "span"})
        self.which.layout.margin = "0 16px 0 0"
        self.order = widgets.Dropdown(options=ORDERS, description="Sort lines")
        self.arcs = widgets.ToggleButton(
            description="Arcs from line to line", icon="share-alt", layout={"width": "auto"}
        )
        self.limits = [
            widgets.FloatSlider(value, min=0, max=most, step=0.5, description=name)
            for name, value, most in zip(("v ≥", "d ≥"), bench.thresholds, (10, 30), strict=True)
        ]
        self.share = widgets.FloatSlider(0.3, min=0, max=1, step=0.05, description="filler ≥")
        self.share.readout_format = ".0%"
        self.number, self.graph, self.twins = (widgets.HTML() for _ in range(3))
        self.table = ui.ChoiceTable(name="Lines of the opened answer")
        sliders = ui.row(self.order, self.arcs, *self.limits, self.share)
        controls = (ui.row(self.which, self.by), sliders)
        shown = (self.job, self.hint, self.number, self.table, self.graph, self.twins)
        super().__init__([*controls, *shown, widgets.HTML(f"<small>{ABOUT}</small>")])
        self.add_class("sarlab-ledger-tab")
        self._known: dict[Any, AnswerDependence] = {}
        self.which.observe(self._change_mode, "value")
        self.by.observe(self.refresh, "value")
        for part in (self.order, self.arcs, self.share):
            part.observe(self._draw, "value")
        for slider in self.limits:
            slider.observe(self._move, "value")
        self.table.observe(self._choose, "opened")
        bench.observe(self._draw, ["thresholds", "ledgers"])
        bench.observe(self.refresh, ["tab", "opened", "pinned", "policy", "policy_b", "gold"])
        bench.observe(self._follow_span, "selection")
        self._draw()

    def _change_mode(self, _: Any) -> None:
        # The rows of the mode before must not be read, or clicked, as those of this one.
        self.bench.ledgers, self.table.opened = (), -1
        self._draw()
        self.refresh()

    def refresh(self, change: Any = None) -> None:
        """Work out the ledgers that are looked at; those that are known are not run again."""
        bench, hint, which = self.bench, "", self.which.value
        if change is not None and change["name"] in ("policy", "policy_b"):
            self._known.clear()
        if bench.tab == "Ledger":
            looked_at: list[tuple[str, AnswerScore | None]] = [("", bench.opened)]
            if which == "pinned":
                looked_at = [*bench.pinned_scores()]
            elif which == "right":
                every = [c for group in bench.groups.values() for c in group.answers]
                looked_at = [(c.label, c.score) for c in every if c.correct]
            chosen = [(label, score) for label, score in looked_at if score is not None]
            if self.by.value == "span" and which == "right":
                hint = "A span belongs to one answer. Choose lines or sentences."
            elif self.by.value == "span" and not bench.selection:
                hint = "Select a span of the answer first, on the tab Tokens."
            elif not chosen:
                hint = _NOTHING[which]
            else:
                work = partial(self._work, which, chosen)
                self.job.start(f"{_WORDS} without each line …", work)
        if hint or bench.tab != "Ledger":
            self.job.stop()
            same = change is not None and change["name"] != "gold"  # of which g is made
            made = bench.ledgers if same and not hint else ()
            bench.ledgers = tuple(x for x in made if bench.looks_at(*x[:2]))
        self.hint.value = hint

    def _work(
        self, which: str, chosen: Sequence[tuple[str, AnswerScore]], report: ui.Report
    ) -> None:
        bench, made = self.bench, []
        for at, (label, score) in enumerate(chosen, 1):
            is_b = which == "pinned" and label[:1] == "B"  # a reader's label may begin with B too
            policy = (bench.policy_b if is_b else None) or bench.policy
            by: Any = {"sentence": tuple(step_starts(score.tokens)), "span": bench.selection}
            by = by.get(self.by.value, "line")
            # g costs a pass more, and no one looks at it where filler is looked for.
            is_open = which != "right" and score.question == bench.question
            gold = bench.gold if is_open else ""
            key = (id(policy), score.question, score.token_ids, by, gold)
            if key not in self._known:
                with bench.compute:
                    rescorer = bench.rescorer(score.question, policy)
                    rescorer.score(score.token_ids)  # no forward where it is the last answer still
                    answered = rescorer.answered
                logps = map(torch.tensor, (score.logps_conditioned, score.logps_standalone))

                def on_lines(done: int, total: int, at: int = at) -> None:
                    words = f"Answer {at} of {len(chosen)}: the rest" if chosen[1:] else _WORDS
                    all_done = (at - 1) * total + done  # the bar is that of all answers
                    words += f" without line {done} of {total}"
                    report(all_done, len(chosen) * total, words)

                options = {"by": by, "gold": gold or None, "on_lines": on_lines}
                self._known[key] = dependence_of(policy, answered, *logps, **options)
            made.append((label, score, self._known[key]))
        report(1, 1, "")  # not if it was stopped meanwhile
        bench.ledgers = tuple(made)

    def _follow_span(self, _: Any) -> None:
        if self.by.value == "span":
            self.refresh()

    def _move(self, _: Any) -> None:
        self.bench.thresholds = tuple(slider.value for slider in self.limits)

    def _choose(self, change: Any) -> None:
        shown, line = self.bench.ledgers, change["new"]
        if self.which.value == "right":
            if 0 <= line < len(shown):
                score = shown[line][1]
                self.bench.open_question(score.question, show=score.answer)
        elif shown and 0 <= line < len(shown[0][2].starts) and self.by.value != "span":
            _, score, ledger = shown[0]
            self.bench.selection = (*ledger.starts, score.length)[line : line + 2]
        self._draw()

    def _draw(self, _: Any = None) -> None:
        shown, limits, which = self.bench.ledgers, self.bench.thresholds, self.which.value
        one = which == "opened" and bool(shown)
        ui.show(self.share, which == "right")
        for part in (self.order, self.arcs):
            ui.show(part, which == "opened")
        ui.show(self.table, which != "pinned" and bool(shown))
        ui.show(self.graph, one)
        self.number.value = self.graph.value = self.twins.value = ""
        if which == "right":
            header, sides, rows, keys = filler_rows(shown, limits, self.share.value)
            self.table.show(header if rows else [], sides, rows, keys)
            if shown:
                waiting = len(self.bench.drafts)
                self.number.value = filler_found(
                    *(len(rows), len(shown), limits, self.share.value, waiting)
                )
            return
        if not one:
            twins = [ledger_html(score, ledger, limits, label) for label, score, ledger in shown]
            self.twins.value = "".join(twins)
            return
        _, score, ledger = shown[0]
        order, classes = ledger_order(ledger, self.order.value), ledger.classes(*limits)
        header, sides, rows = ledger_rows(score, ledger, limits)
        tints = [CLASS_VIEWS[classes[k]][1] for k in order]
        self.table.show(header, sides, [rows[k] for k in order], order, tints)
        self.number.value = f"<b>{filler_text(ledger, limits)}</b>"
        if self.arcs.value:
            self.graph.value = arcs_svg(ledger, limits, self.table.opened)


class QuestionTab(widgets.VBox):
    """What each sentence or number of the question gives: each is left out, the rest stays."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.job, self.hint = bench, ui.JobBar(replaces=True), ui.status()
        self.by = ui.choices({"sentences": "sentence", "numbers": "number"})
        self.table = ui.ChoiceTable(name="Parts of the question")
        self.note, self.panel = widgets.HTML(), ui.TokenPanel(compact=True)
        super().__init__([self.by, self.job, self.hint, self.table, self.note, self.panel])
        self.add_class("sarlab-question-tab")
        self.by.observe(self.refresh, "value")
        self.table.observe(self._draw, "opened")
        bench.observe(self._draw, ["selection", "given"])
        bench.observe(self.refresh, ["tab", "opened", "policy"])

    def refresh(self, _: Any = None) -> None:
        """Score the opened answer without each part of the question, while the tab is open."""
        score = self.bench.opened
        self.job.stop()
        self._draw()
        if self.bench.tab != "Question" or score is None:
            return
        parts = question_parts(score.question, self.by.value)
        self.hint.value = "" if parts else "The question holds no number."
        if not parts:
            self.bench.given = ()
        elif not self._shown() or self.bench.given[1] != parts:
            work = partial(self._work, score, parts)
            self.job.start("Scoring the answer without each part …", work)

    def _work(self, score: AnswerScore, parts: list[tuple[int, int]], report: ui.Report) -> None:
        logps = torch.tensor(score.logps_conditioned)
        on_spans = counting(report, "Scoring the answer without part")
        options = (self.bench.policy, score.question, parts, score.token_ids, logps)
        given = question_dependence(*options, on_spans=on_spans)
        report(1, 1, "")  # not if it was stopped meanwhile
        self.bench.given = (score, parts, given)

    def _shown(self) -> bool:
        """Whether what is known fits the opened answer."""
        return bool(self.bench.given) and self.bench.looks_at("", self.bench.given[0])

    def _draw(self, _: Any = None) -> None:
        if not self._shown():
            self.table.show([], "", [])
            self.note.value = ""
            self.panel.show(None)
            return
        score, parts, given = self.bench.given
        header, sides, rows, tints = parts_rows(score, parts, given, self.bench.selection)
        self.table.show(header, sides, rows, range(len(rows)), tints)
        row = self.table.opened
        row = row if 0 <= row < len(parts) else int(given.sum(dim=1).argmax())
        logps = torch.tensor(score.logps_conditioned) - given[row]
        self.note.value = (
            f"Tokens by what <b>{plain(one_line(score.question[slice(*parts[row])]))}</b> gives "
            "them (Δ log p, SAR and ppl(a) here compare with the question without that part):"
        )
        self.panel.show(against(score, logps.tolist()))
