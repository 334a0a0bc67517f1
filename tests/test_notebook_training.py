"""Notebook 02 in batch: it trains as told, leaves a picture, and refuses a misspelt parameter."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import DisplayHandle

from sarlab.config import TrainConfig
from sarlab.job.training import run_training
from sarlab.job.watchers import RunStopped
from sarlab.models import REPOSITORY
from sarlab.runs.folder import read_metrics, read_rollouts, write_json
from sarlab.runs.parameters import record_failing_cells, run_request
from sarlab.types import StepRecord
from sarlab.widgets import training

NOTEBOOK = REPOSITORY / "notebooks" / "02_train_sa_grpo.ipynb"
QUICK = {
    "alpha": 0.1,
    "steps": 3,
    "seed": 7,
    "questions": 2,
    "group_size": 3,
    "max_answer_tokens": 64,
    "eval_questions": 6,
    "validation_questions": 4,
    "eval_every": 2,
}


def execute(tmp_path: Path, **parameters) -> dict:
    """Run the notebook as papermill's command line does; the executed notebook."""
    told = {"out": str(tmp_path), **parameters}
    out = tmp_path / "executed.ipynb"
    return papermill.execute_notebook(
        str(NOTEBOOK), str(out), parameters=told, kernel_name="python3", progress_bar=False
    )


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    execute(folder, name="first", **QUICK)
    return folder


def outputs(folder: Path) -> list[dict]:
    notebook = nbformat.read(folder / "executed.ipynb", as_version=4)
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


def test_it_trains_as_it_was_told(executed: Path) -> None:
    config = json.loads((executed / "first" / "config.json").read_text())
    assert (config["alpha"], config["steps"], config["seed"]) == (0.1, 3, 7)
    assert len(read_metrics(executed / "first")) == 3
    summary = json.loads((executed / "first" / "summary.json").read_text())
    assert summary["alpha"] == 0.1 and summary["trained"]["questions"] == 6


def test_what_it_shows_outlives_the_kernel(executed: Path) -> None:
    """The chart as a plotly figure, the tables as HTML: no widget is needed to see them."""
    bundles = [o["data"] for o in outputs(executed) if "data" in o]
    assert any("application/vnd.plotly.v1+json" in data for data in bundles)
    shown = "".join(data.get("text/html", "") for data in bundles)
    assert "3 of 3 steps" in shown
    assert "6 test questions" in shown
    text = html.unescape(re.sub("<[^>]+>", "", shown.replace("<br>", "\n")))  # tints are markup
    for split in ("heldout_base", "heldout_trained"):  # the examples, before and after
        rows = read_rollouts(executed / "first", split).to_pylist()
        assert sum(row["answer"] in text for row in rows) >= 3
    assert "<script" not in shown
    # Nor is one left that only a kernel could show.
    assert not [d for d in bundles if "application/vnd.jupyter.widget-view+json" in d]


def timeless(folder: Path) -> list[dict]:
    lines = read_metrics(folder)
    return [{k: v for k, v in m.items() if not k.startswith("seconds_")} for m in lines]


def test_the_same_seed_twice_gives_the_same_log(executed: Path, tmp_path: Path) -> None:
    execute(tmp_path, name="second", **QUICK)
    assert timeless(tmp_path / "second") == timeless(executed / "first")


def test_the_notebooks_thread_trains_to_the_same_bytes_as_a_plain_call(
    executed: Path, tmp_path: Path
) -> None:
    config, folder, _ = run_request({**QUICK, "out": str(tmp_path), "name": "plain"})
    run_training(config, folder)
    assert timeless(folder) == timeless(executed / "first")
    adapter = "adapter/adapter_model.safetensors"
    assert (folder / adapter).read_bytes() == (executed / "first" / adapter).read_bytes()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alhpa": 0.1}, "Did you mean 'alpha'"),
        ({"alpha": 7.0}, "must lie in"),
        ({"model": "tinny"}, "is not known"),
        ({"task": "word_problem"}, "word_problems"),
        ({"log_sar": "true"}, "must be True or False"),
    ],
    ids=["typo", "alpha", "model", "task", "string"],
)
def test_nonsense_stops_it_before_anything_is_made(wrong, message, tmp_path: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError, match=message):
        execute(tmp_path, name="bad", **{**QUICK, **wrong})
    assert not (tmp_path / "bad").exists()


def test_a_run_that_fails_says_so_by_exit_code_and_in_run_json(tmp_path: Path) -> None:
    """As `make train` runs it; a rate at which no policy survives the second mini-batch."""
    told = {**QUICK, "learning_rate": 1e4, "mini_batches": 2, "epochs": 4, "warmup_steps": 0}
    told |= {"name": "bad", "out": str(tmp_path)}
    options = ["-k", "python3", *(x for k, v in told.items() for x in ("-p", k, str(v)))]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(NOTEBOOK), str(tmp_path / "bad.ipynb"), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "TrainingError" in done.stderr
    run = json.loads((tmp_path / "bad" / "run.json").read_text())
    assert run["status"] == "failed"
    assert run["error"].split(":")[0] in ("exploding_ratio", "not_finite")
    failure = run["notebook_failure"]
    assert failure["first_line"].startswith("summary = await training.watch_training(")
    assert failure["error"] == f"TrainingError: {run['error'].split(': ', 1)[1]}"
    cells = nbformat.read(tmp_path / "bad.ipynb", as_version=4).cells
    (failed,) = [c for c in cells if c.metadata.get("papermill", {}).get("status") == "failed"]
    assert failure["cell"] == failed.execution_count


def test_a_cell_that_fails_after_training_is_named_too(tmp_path: Path, monkeypatch) -> None:
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    write_json(tmp_path / "run.json", {"status": "finished"})
    record_failing_cells(tmp_path)
    shell.run_cell("x = 1", store_history=True)
    assert json.loads((tmp_path / "run.json").read_text()) == {"status": "finished"}
    shell.run_cell("# the figure\n1 / 0", store_history=True)
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["status"] == "finished"
    assert run["notebook_failure"]["cell"] == 2
    assert run["notebook_failure"]["first_line"] == "# the figure"
    assert run["notebook_failure"]["error"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("asked", [False, True], ids=["before it is asked", "after"])
def test_a_button_says_the_step_after_which_the_run_really_ends(asked, monkeypatch) -> None:
    """The run asks once per step; a press just before or just after that ends other steps."""
    monkeypatch.setattr(training, "display", lambda *_, **__: DisplayHandle())
    monkeypatch.setattr(training, "show", lambda *_, **__: None)
    for press, words in (
        ("stop_and_test", ("Stopping after step 3", "Stopping after step 4")),
        ("stop", ("Stopping: after step 3", "Stopping: step 4 is dropped")),
    ):
        view = training.TrainingView()
        view.begin(TrainConfig(steps=5), 2)
        assert not view.wants_stop()
        view.phase("step 3", 8, 8)
        view.step(StepRecord(3, {"step": 3, "accuracy": 0.5, "mean_length": 9.0, "sar": None}))
        if asked:
            assert not view.wants_stop()
        getattr(view, press)()
        pressed = view.button if press == "stop" else view.button_test
        assert pressed.description == words[asked]
        assert view.wants_stop()
        if press == "stop":
            with pytest.raises(RunStopped):
                view.phase("step 4", 0, 8)
            view.finish({"steps": 3})
            assert f"3 of 5 steps · stopped, {words[asked][10:]}; no test" in view.news.value
