"""The reward workbench: see, token by token, what the reward sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ipywidgets as widgets

from sarlab.models import Policy
from sarlab.widgets.candidates import Candidate, Draft
from sarlab.widgets.html import terms_html
from sarlab.widgets.live import Access
from sarlab.widgets.panels import (
    DesignsPanel,
    ExportPanel,
    PairTab,
    RankingPanel,
    SamplePanel,
    TokensTab,
)
from sarlab.widgets.run_browser import RunBrowser
from sarlab.widgets.source import SourcePanel
from sarlab.widgets.state import Bench


class Workbench(Bench):
    """The state of :class:`Bench` with its panels: a question, its answers, six tabs."""

    def __init__(
        self,
        policy: Policy | str,
        answers: Sequence[Candidate | Draft] = (),
        *,
        runs: str | Path = "runs",
    ) -> None:
        super().__init__(policy, runs)
        self.add_class("sarlab-workbench")
        self.add(answers)
        self.source = SourcePanel(self)
        self.ranking = RankingPanel(self)
        self.tokens = TokensTab(self)
        self.pair = PairTab(self)
        self.designs = DesignsPanel(self)
        self.sampling = SamplePanel(self)
        self.run_browser = RunBrowser(self.runs, tokenizer_of=self.policy, on_open=self.open_logged)
        self.export = ExportPanel(self)
        tabs = {
            "Tokens": self.tokens,
            "A/B": self.pair,
            "Designs": self.designs,
            "Sample": self.sampling,
            "Runs": self.run_browser,
            "Export": self.export,
        }
        self.tabs = widgets.Tab(list(tabs.values()), titles=list(tabs), selected_index=0)
        terms = widgets.HTML(terms_html())
        self.children = (self.source, self.job, self.ranking, self.tabs, terms, Access())
        if self.questions:
            self.open_question(self.questions[0])

    def __repr__(self) -> str:
        return "Reward workbench (live: it needs a running kernel; its static twin stands below)"

    def open_logged(self, question: str, gold: str, answer: str) -> None:
        """Open an answer of a run: scored by the workbench's policy, alternatives included."""
        self.add([Draft(question, answer, gold, "from a run")])
        self.open_question(question)
        self.tabs.selected_index = 0
