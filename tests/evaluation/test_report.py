"""The page of a run, the terminal summary, figures and notebook 03, on runs of known content."""

import html.parser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import plotly.graph_objects as go
import pytest

import sarlab.display.figures
import sarlab.evaluation.report
from sarlab.display.figures import BLUE, GREY, ORANGE, mimebundle, running_mean, training_figure
from sarlab.display.tables import html_table, markdown_table, p_text
from sarlab.evaluation.behaviours import tinted_answer
from sarlab.evaluation.compare import arm_table, run_table, values_table
from sarlab.evaluation.plots import crowd_floor, gains_figure, plane_figure
from sarlab.evaluation.policies import recorded
from sarlab.evaluation.report import EvaluationSettings, example_pairs, load_runs, write_report
from sarlab.summary import comparison_text, main, summary_text

ROOT = Path(__file__).resolve().parents[2]


class Page(html.parser.HTMLParser):
    """Tags and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def run(study, tmp_path):
    return Path(shutil.copytree(study / "sa-grpo-s0", tmp_path / "sa-grpo-s0"))


def test_the_page_needs_no_network_and_no_script_and_is_well_formed(run):
    text = write_report(run).read_text("utf-8")
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert all(a.startswith("data:image/png;base64,") for a in page.addresses)
    assert not re.search(r"url\(|@import", text)
    accuracy = json.loads((run / "summary.json").read_text())["trained"]["accuracy"]
    assert f"{accuracy * 100:.1f} [" in text
    assert f"{accuracy * 100:.1f} [" in (run / "report.md").read_text("utf-8")


def test_the_page_is_whole_without_a_browser(run, monkeypatch):
    monkeypatch.setattr(sarlab.evaluation.report, "draw", lambda figure: None)
    page = Page(write_report(run).read_text("utf-8"))
    assert "img" not in page.tags
    assert page.tags.count("table") > 3


def test_what_an_answer_contains_is_shown_and_never_run():
    row = {
        "question": "1+1?",
        "answer": "<script>alert(1)</script> & <b>2</b>\nAnswer: 2",
        "correct": True,
        "length": 9,
        "truncated": False,
    }
    found = tinted_answer(row)
    assert "<script>" not in found
    assert (
        "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;2&lt;/b&gt;<br>Answer: 2"
        in re.sub(r"</?span[^>]*>", "", found)
    )


def test_examples_are_sorted_into_what_happened_to_them():
    def row(question, correct, length):
        return {"question_id": question, "correct": correct, "length": length}

    base = [row("a", True, 50), row("b", False, 50), row("c", True, 50), row("d", True, 50)]
    other = [row("a", False, 20), row("b", True, 60), row("c", True, 40), row("d", True, 10)]
    found = example_pairs(base, other)
    by_kind = [[o["question_id"] for _, o in pairs] for pairs in found.values()]
    assert by_kind == [["a"], ["b"], ["d", "c"]]


def test_the_terminal_shows_what_the_summary_file_says(study, capsys):
    text = summary_text(study / "grpo-s0")
    found = json.loads((study / "grpo-s0" / "summary.json").read_text())
    low, high = found["base"]["accuracy_ci95"]
    assert f"{found['base']['accuracy'] * 100:.1f} [{low * 100:.1f}, {high * 100:.1f}]" in text
    assert f"{found['trained']['mean_length']:.1f} [" in text
    assert "GRPO, 20 steps on word_problems with tiny, seed 0" in text
    columns = [line.index("[") for line in text.splitlines() if line.startswith(("acc", "mean"))]
    assert main([str(study / "grpo-s0")]) == 0
    assert capsys.readouterr().out.strip() == text
    assert len(columns) == 2
    assert main([str(study / "nothing")]) == 2
    assert "not a finished run" in capsys.readouterr().err
    assert "SA-GRPO α=0.2" in comparison_text([study / "grpo-s0", study / "sa-grpo-s0"])


def test_tables_hold_a_cell_a_column_and_escape_what_would_break_them():
    import pandas as pd

    text = pd.DataFrame({"policy": ["a|b <i>"], "n": ["1\n2"]})
    lines = markdown_table(text).splitlines()
    assert lines == ["| policy | n |", "| --- | ---: |", "| a\\|b <i> | 1 2 |"]
    assert "a|b &lt;i&gt;" in html_table(text)
    assert [p_text(p) for p in (None, 0.00004, 0.0314, 1.0)] == ["–", "< 0.001", "0.031", "1.000"]


def test_values_are_in_the_units_that_the_head_names(study):
    table = arm_table(recorded(study))
    cell = values_table(table)["accuracy (%)"].iloc[1]
    assert float(cell.split()[0]) == pytest.approx(100 * table["accuracy"].iloc[1], abs=0.05)


# --- figures ------------------------------------------------------------------------------------


def test_the_training_figure_shows_steps_held_out_points_and_warnings():
    metrics = [
        {"step": s, "accuracy": s / 20, "mean_length": 50.0, "sar": None, "messages": []}
        for s in range(1, 16)
    ]
    metrics[9] |= {"heldout_accuracy": 0.9, "messages": ["no_signal: …"]}
    figure = training_figure(metrics, baseline={"accuracy": 0.3}, steps=60)
    first = [t for t in figure.data if t.xaxis in (None, "x")]
    each, trend, heldout = first[:3]
    assert list(each.y) == [s / 20 for s in range(1, 16)]
    assert trend.y[4] == pytest.approx(0.15)  # mean of 0.05 … 0.25
    assert (list(heldout.x), list(heldout.y)) == ([0, 10], [0.3, 0.9])
    assert figure.layout.xaxis.range[1] > 60
    assert len(figure.layout.shapes) == 6  # the warning, across six panels
    assert training_figure([]).data is not None  # before the first step


def test_a_running_mean_looks_back_and_keeps_gaps():
    assert running_mean([1.0, None, 3.0, 5.0], 3) == [1.0, None, 2.0, 4.0]


def test_the_plane_shows_each_arm_with_its_intervals_and_joins_the_front(study):
    found = recorded(study)
    arms = arm_table(found)
    figure = plane_figure(arms, runs=run_table(found))
    crosses = {t.name: t for t in figure.data if t.error_y.array is not None}
    assert set(crosses) == {"base (tiny)", "GRPO (3 seeds)", "SA-GRPO α=0.2 (2 seeds)"}
    row = arms[arms["label"] == "GRPO"].iloc[0]
    cross = crosses["GRPO (3 seeds)"]
    assert cross.x[0] - cross.error_x.arrayminus[0] == pytest.approx(row["mean_length_low"])
    assert cross.y[0] + cross.error_y.array[0] == pytest.approx(row["accuracy_high"])
    front = next(t for t in figure.data if t.name == "Pareto front")
    assert list(front.x) == sorted(front.x)
    assert list(front.y) == sorted(front.y)  # longer is only on the front if it is more accurate
    assert arms[arms["is_base"]]["mean_length"].iloc[0] not in front.x


def luminance(colour):
    """Relative luminance (WCAG 2) of a colour written #rrggbb."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted(map(luminance, (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_and_marks_stand_out_on_the_ground_of_figures_and_on_light_and_dark_pages(study):
    from sarlab.audit.notebook import _SCORES
    from sarlab.evaluation.plots import _COLOURS

    layout = plane_figure(arm_table(recorded(study))).layout
    assert contrast(layout.font.color, layout.paper_bgcolor) >= 4.5
    marks = {
        *_COLOURS,
        GREY,
        BLUE,
        ORANGE,
        *(colour for _, colour, _ in _SCORES.values() if colour),
    }
    for ground in (layout.paper_bgcolor, "#ffffff", "#111111"):  # the last two are JupyterLab's
        assert min(contrast(colour, ground) for colour in marks) >= 3.0


def test_on_a_page_every_text_of_a_figure_has_the_pages_colour(study):
    figure = plane_figure(arm_table(recorded(study)), accuracy_from=0.76)
    plot = mimebundle(figure, picture=False)["application/vnd.plotly.v1+json"]
    layout = plot["layout"]
    texts = [t["name"] for t in plot["data"] if "name" in t]
    texts += [a["text"] for a in layout["annotations"]] + [layout["title"]["text"]]
    for axis in (layout["xaxis"], layout["yaxis"]):
        texts += [axis["title"]["text"], axis["tickprefix"]]
        assert axis["ticksuffix"] == "</span>"
    assert len(texts) > 6
    assert all(t.startswith('<span style="color:var(--jp-content-font-color1') for t in texts)
    assert "width" not in layout  # as wide as the page
    assert figure.layout.title.text == "Accuracy and length on word_problems"  # the original stays


def test_a_policy_looks_the_same_in_both_of_two_stacked_planes(study):
    arms = arm_table(recorded(study))
    looks = [
        {t.name: (t.marker.color, t.marker.symbol) for t in f.data if t.error_y.array is not None}
        for f in (plane_figure(arms), plane_figure(arms, accuracy_from=0.76))
    ]
    assert set(looks[1]) < set(looks[0])
    assert all(looks[0][name] == look for name, look in looks[1].items())


def test_policies_below_the_frame_are_named(study):
    arms = arm_table(recorded(study))
    figure = plane_figure(arms, accuracy_from=0.76)
    assert "base (tiny)" in figure.layout.annotations[0].text


def test_the_axis_begins_below_the_crowd_only_where_somebody_is_far_off() -> None:
    # Best 0.97, so the crowd reaches down to 0.85; the floor is half of 0.12 below its lowest.
    assert crowd_floor([0.0, 0.61, 0.93, 0.95, 0.97]) == pytest.approx(0.87)
    assert crowd_floor([0.80, 0.93, 0.95, 0.97]) is None  # all within sight
    assert crowd_floor([0.1, 0.2, 0.61, 0.93, 0.95, 0.97]) is None  # no more than half
    assert crowd_floor([0.5, 0.97]) is None


def test_gains_are_the_tables_gains(study):
    arms = arm_table(recorded(study))
    figure = gains_figure(arms)
    row = arms[arms["label"] == "GRPO"].iloc[0]
    point = next(t for t in figure.data if t.name == "GRPO (3 seeds)")
    assert (point.x[0], point.y[0]) == (row["gain_length"], row["gain_accuracy"])
    with pytest.raises(ValueError, match="compared with the baseline"):
        gains_figure(arms[arms["is_base"]])


def test_a_figure_goes_out_as_json_and_as_a_picture_only_where_it_can_be_drawn(monkeypatch):
    figure = go.Figure(go.Scatter(y=[1, 2]), {"title": {"text": "Two points"}})
    monkeypatch.setattr(sarlab.display.figures, "draw", lambda figure, form: b"<svg/>")
    bundle = mimebundle(figure)
    assert bundle["image/svg+xml"] == "<svg/>"
    assert "image/png" not in bundle  # JupyterLab would show that instead of the figure
    assert list(bundle["application/vnd.plotly.v1+json"]["data"][0]["y"]) == [1, 2]
    assert bundle["text/plain"] == "Figure: Two points"
    assert "image/svg+xml" not in mimebundle(figure, picture=False)
    monkeypatch.setattr(sarlab.display.figures, "draw", lambda figure, form: None)
    assert "image/svg+xml" not in mimebundle(figure)


def test_without_a_browser_a_picture_is_given_up_at_once_and_said_once():
    code = (
        "import time; from choreographer.browsers.chromium import Chromium\n"
        "Chromium.find_browser = classmethod(lambda cls, **k: None)\n"
        "from sarlab.display.figures import draw; import plotly.graph_objects as go\n"
        "began = time.perf_counter(); print([draw(go.Figure()) for _ in range(3)])\n"
        "assert time.perf_counter() - began < 20"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[None, None, None]", done.stderr
    assert done.stderr.count("No Chrome or Chromium") == 1


# --- notebook 03 --------------------------------------------------------------------------------


def test_parameters_are_checked():
    for wrong, message in (
        ({"baselin": "x"}, "Did you mean 'baseline'"),
        ({"fresh": "true"}, "True or False"),
        ({"questions": 0}, "at least 1"),
        ({"tasks": "chain_sum"}, "Set fresh=True"),
    ):
        with pytest.raises(ValueError, match=message):
            EvaluationSettings.from_parameters(wrong)


def test_no_run_says_what_to_do(tmp_path, monkeypatch, study, capsys):
    with pytest.raises(ValueError, match="make train"):
        load_runs(EvaluationSettings(runs=str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()  # nothing was trained yet: the runs that ship are shown
    monkeypatch.setattr(sarlab.evaluation.report, "SHIPPED", study)
    assert len(load_runs(EvaluationSettings()).policies) == 6
    assert "make train" in capsys.readouterr().out


@pytest.mark.slow
def test_the_notebook_runs(study, tmp_path):
    import nbformat
    import papermill

    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(
        ROOT / "notebooks" / "03_evaluation.ipynb",
        out,
        {"runs": str(study)},
        cwd=ROOT,
        progress_bar=False,
        store_widget_state=False,
    )
    outputs = [o for c in nbformat.read(out, 4).cells for o in c.get("outputs", [])]
    text = "".join(o.get("data", {}).get("text/html", "") + o.get("text", "") for o in outputs)
    figures = [o for o in outputs if "application/vnd.plotly.v1+json" in o.get("data", {})]
    assert len(figures) == 3
    assert "SA-GRPO α=0.2" in text
    assert "<details>" in text
    assert out.stat().st_size < 500_000
