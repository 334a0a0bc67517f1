"""Notebook 01 in batch, without a browser; its parameters are checked before anything is loaded."""

from __future__ import annotations

import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from sarlab.models import REPOSITORY
from sarlab.widgets import notebook
from sarlab.widgets.candidates import Draft, label_rows
from sarlab.widgets.designs import compare_designs
from sarlab.widgets.figures import designs_figure, labels_figure

NOTEBOOK = REPOSITORY / "notebooks" / "01_reward_inspection.ipynb"


def execute(tmp_path, **parameters):
    return papermill.execute_notebook(
        str(NOTEBOOK),
        str(tmp_path / "out.ipynb"),
        parameters=parameters,
        kernel_name="python3",
        progress_bar=False,
        cwd=str(tmp_path),  # the runs count from the repository, not from the kernel's folder
    )


def test_it_runs_from_any_folder_and_scores_what_is_not_stored(tmp_path) -> None:
    executed = execute(tmp_path, model="tiny", questions=1)
    bundles = [o["data"] for c in executed.cells for o in c.get("outputs", []) if "data" in o]
    html = "".join(data.get("text/html", "") for data in bundles)
    assert "+0.389" in html  # the stored example, shown before a model is loaded
    assert "6 answers to 1 question under tiny:" in html
    assert "Scored by tiny" in html and "sa_grpo_0.2-s0" in html
    assert "<script" not in html


def test_an_unknown_parameter_stops_it(tmp_path) -> None:
    with pytest.raises(PapermillExecutionError, match="Unknown parameter 'modell'"):
        execute(tmp_path, modell="tiny")


def test_an_interrupt_leaves_what_is_scored(frozen_tiny, monkeypatch) -> None:
    real, calls = notebook.score_candidates, []

    def interrupted(policy, drafts):
        calls.append(drafts)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(policy, drafts)

    monkeypatch.setattr(notebook, "score_candidates", interrupted)
    drafts = [Draft(f"What is {n} + 1?", f"Answer: {n + 1}", str(n + 1), "x") for n in (1, 2, 3)]
    scored = notebook.score_with_progress(frozen_tiny, drafts)
    assert [c.question for c in scored] == ["What is 1 + 1?"]


def test_scoring_ends_when_patience_does_and_says_what_is_left(frozen_tiny, monkeypatch) -> None:
    drafts = [Draft(f"What is {n} + 1?", f"Answer: {n + 1}", str(n + 1), "x") for n in (1, 2, 3)]
    lines = []
    monkeypatch.setattr(
        notebook.DisplayHandle, "update", lambda self, shown: lines.append(shown.data)
    )
    scored = notebook.score_with_progress(frozen_tiny, drafts, patience_s=0.0)
    assert [c.question for c in scored] == ["What is 1 + 1?"]
    assert "question 1 of 3" in lines[0] and "2 more questions are scored when" in lines[-1]
    assert len(notebook.score_with_progress(frozen_tiny, drafts, patience_s=900.0)) == 3
    assert "more questions" not in lines[-1]


def test_nothing_scored_yet_is_drawn_too() -> None:
    assert not labels_figure(label_rows([])).data[0].x
    assert not designs_figure([], compare_designs([], 0.2)).data
