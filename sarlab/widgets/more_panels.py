"""Panels for reward designs, sampling and export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from sarlab.display.text import plain
from sarlab.widgets.candidates import ranked
from sarlab.widgets.designs import compare_designs
from sarlab.widgets.export import write_html, write_png
from sarlab.widgets.figures import designs_figure
from sarlab.widgets.html import designs_html
from sarlab.widgets.outputs import put_figure
from sarlab.widgets.snapshot import workbench_html

if TYPE_CHECKING:
    from sarlab.widgets.workbench import Workbench


class DesignsPanel(widgets.VBox):
    """Reward designs on the answers to this question, or on all questions by kind of answer."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.alpha = widgets.FloatSlider(
            value=bench.alpha, min=0, max=1, step=0.01, description="α", continuous_update=False
        )
        self.measure = widgets.ToggleButtons(
            options=[("advantages", "advantage"), ("rewards", "reward")],
            style={"button_width": "110px"},
        )
        self.scope = widgets.ToggleButtons(
            options=[("this question", "one"), ("all questions, by kind", "all")],
            style={"button_width": "180px"},
        )
        self.message = widgets.HTML()
        self.table = widgets.HTML()
        self.figure = widgets.Output()
        top = widgets.HBox([self.alpha, self.measure, self.scope])
        top.layout.flex_flow = "row wrap"
        super().__init__([top, self.message, self.figure, self.table])
        self.add_class("sarlab-designs")
        self.alpha.observe(lambda c: setattr(bench, "alpha", c["new"]), "value")
        self.measure.observe(self._draw, "value")
        self.scope.observe(self._choose_scope, "value")
        bench.observe(self._draw, ["answers", "alpha"])
        bench.job.observe(self._finished, "busy")
        self._draw()

    def _choose_scope(self, _: Any) -> None:
        if self.scope.value == "all" and any(self.bench.drafts.values()):
            try:
                self.bench.score_waiting()  # one click: score what is missing, then draw
            except RuntimeError as error:
                self.message.value = plain(str(error))
        self._draw()

    def _finished(self, change: Any) -> None:
        if not change["new"] and self.scope.value == "all":
            self._draw()

    def _draw(self, _: Any = None) -> None:
        bench = self.bench
        self.alpha.value = bench.alpha
        everything = self.scope.value == "all"
        groups = bench.scored.values() if everything else [bench.answers]
        chosen = [c for group in groups if len(group) > 1 for c in group]
        if not chosen:
            self.message.value = "An advantage compares answers: a question needs two or more."
            self.table.value = ""
            put_figure(self.figure, None)
            return
        if not everything:
            chosen = [chosen[i] for i in ranked(chosen)]
        waiting = sum(bool(group) for group in bench.drafts.values()) if everything else 0
        self.message.value = f"{waiting} questions are not scored yet." if waiting else ""
        designs = compare_designs(chosen, bench.alpha)
        put_figure(self.figure, designs_figure(chosen, designs, self.measure.value))
        shown = "" if everything else designs_html(chosen, designs, self.measure.value)
        self.table.value = shown


class SamplePanel(widgets.VBox):
    """Sample answers from the policy; progress and the stop button stand above the table."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        narrow = widgets.Layout(width="190px")
        self.count = widgets.BoundedIntText(4, 1, 64, description="Answers", layout=narrow)
        self.limit = widgets.BoundedIntText(200, 1, 8192, description="Max tokens", layout=narrow)
        self.seed = widgets.IntText(0, description="Seed", layout=narrow)
        self.button = widgets.Button(description="Sample", icon="play", button_style="primary")
        self.message = widgets.HTML(
            "Sampled at temperature 1 from the whole distribution, as in training. Answers join "
            "the table as they come; a stop loses only those in flight."
        )
        super().__init__(
            [widgets.HBox([self.count, self.limit, self.seed, self.button]), self.message]
        )
        self.button.on_click(self._sample)
        bench.job.observe(lambda c: setattr(self.button, "disabled", c["new"]), "busy")

    def _sample(self, _: Any) -> None:
        try:
            self.bench.sample(self.count.value, self.limit.value, self.seed.value)
            self.seed.value += 1  # the next click draws other answers
        except (ValueError, RuntimeError) as error:
            self.message.value = plain(str(error))


class ExportPanel(widgets.VBox):
    """Write what is looked at into a file."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.name = widgets.Text("exports/answers", description="File")
        self.html = widgets.Button(description="HTML", icon="file-code-o")
        self.png = widgets.Button(description="PNG", icon="picture-o")
        self.message = widgets.HTML(
            "The ranking, the opened answer, the pinned pair and the reward designs: one HTML "
            "file without scripts, or a picture of it."
        )
        super().__init__([widgets.HBox([self.name, self.html, self.png]), self.message])
        self.html.on_click(lambda _: self._write(".html", write_html))
        self.png.on_click(lambda _: self._write(".png", write_png))

    def _write(self, suffix: str, write: Any) -> None:
        try:
            path = write(
                self.name.value.strip() + suffix, self.bench.question, workbench_html(self.bench)
            )
            self.message.value = f"Written: <code>{plain(str(path))}</code>"
        except (ValueError, RuntimeError, OSError) as error:
            self.message.value = f"<b>{type(error).__name__}</b>: {plain(str(error))}"
