"""Notebook 04 in batch: a user's own file goes through it, and nonsense stops it at once."""

from __future__ import annotations

import papermill
import pytest
from made_run import labelled_rows, write_rows

from sarlab.audit.notebook import ValiditySettings, load_validity
from sarlab.models import REPOSITORY

NOTEBOOK = REPOSITORY / "notebooks" / "04_reward_validity.ipynb"
ROWS = labelled_rows("good", "bad")


@pytest.fixture
def answers(tmp_path):
    return write_rows(tmp_path / "mine.jsonl", ROWS)


def test_a_users_file_goes_through_by_its_parameters(answers, tmp_path):
    told = {"answers": answers, "model": "tiny", "claims": "good > bad", "questions": 2}
    executed = papermill.execute_notebook(
        str(NOTEBOOK),
        str(tmp_path / "out.ipynb"),
        parameters=told,
        kernel_name="python3",
        progress_bar=False,
    )
    bundles = [o["data"] for c in executed.cells for o in c.get("outputs", []) if "data" in o]
    html = "".join(data.get("text/html", "") for data in bundles)
    assert "2 questions, 4 answers, scored by tiny" in html
    assert "good &gt; bad" in html and "copied question" in html and "What to do" in html
    assert any("application/vnd.plotly.v1+json" in data for data in bundles)
    assert "<script" not in html


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lenght_tolerance": 0.1}, "Did you mean 'length_tolerance'"),
        ({"end_token": "false"}, "must be True or False"),
        ({"standalone": "empty"}, "choose one of empty_turn, bare"),
        ({"length_tolerance": 1.0}, "at least 0 and below 1"),
        ({"questions": -1}, "0 .all. or more"),
        ({"model": " , "}, "model is empty"),
    ],
)
def test_nonsense_is_refused_before_anything_is_scored(wrong, message):
    with pytest.raises(ValueError, match=message):
        ValiditySettings.from_parameters(wrong)


def test_unknown_labels_are_refused_before_the_model_is_loaded(answers):
    with pytest.raises(ValueError, match="names 'best'; the labels are 'good', 'bad'"):
        load_validity(ValiditySettings(answers=answers, model="no such", claims="best > bad"))
    with pytest.raises(ValueError, match="claims = 'good > bad'"):
        load_validity(ValiditySettings(answers=answers, model="no such"))
    with pytest.raises(ValueError, match="does not exist"):
        load_validity(ValiditySettings(answers="missing.jsonl"))
