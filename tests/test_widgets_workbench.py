"""The workbench as a Python object: state in, library's numbers out."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest
from made_run import make_run
from nbconvert import HTMLExporter
from policies import random_policy

from sarlab import score_answers
from sarlab.display.text import signed
from sarlab.runs.folder import read_rollouts
from sarlab.types import Question
from sarlab.widgets import RunBrowser, Workbench, workbench_html
from sarlab.widgets.audit import choose_questions, read_audit, row_score, short_with_low_sar
from sarlab.widgets.candidates import Draft
from sarlab.widgets.export import picture, run_html, write_view
from sarlab.widgets.live import JobBar, Stopped

QUESTION = "Ann has 12 pens and buys 30 more. How many pens does she have?"
OTHER = "Bob has 7 apples and eats 2. How many are left?"
DRAFTS = [
    Draft(QUESTION, "12 + 30 = 42. So she has 42 pens.\nAnswer: 42", "42", "concise"),
    Draft(QUESTION, "Answer: 42", "42", "no_thought"),
    Draft(QUESTION, "30 - 12 = 18.\nAnswer: 18", "42", "wrong"),
    Draft(OTHER, "7 - 2 = 5.\nAnswer: 5", "5", "concise"),
    Draft(OTHER, "<script>alert(1)</script> <think>\nAnswer: 9", "5", "wrong"),
]


@pytest.fixture
def bench(frozen_tiny, tmp_path) -> Workbench:
    found = Workbench(frozen_tiny, DRAFTS, runs=tmp_path / "runs")
    found.wait()
    return found


def fresh(policy, text: str, question: str = QUESTION):
    return score_answers(policy, question, [text], alternatives=True)[0]


def test_it_opens_on_the_first_question_with_its_answers_ranked(bench, frozen_tiny) -> None:
    assert bench.question == QUESTION and bench.gold == "42"
    assert [c.correct for c in bench.answers] == [True, True, False]
    expected = fresh(frozen_tiny, DRAFTS[0].answer)
    assert bench.answer == 0
    assert bench.opened.sar == pytest.approx(expected.sar, abs=1e-4)
    assert bench.opened.answer == DRAFTS[0].answer
    table = bench.ranking.table
    sars = [row[2] for row in table.content["rows"]]
    assert sars == [signed(c.score.sar) for c in sorted(bench.answers, key=lambda c: -c.score.sar)]
    assert table.opened == 0 and table.content["keys"] == sorted(
        range(3), key=lambda i: -bench.answers[i].score.sar
    )


def test_choosing_a_row_opens_the_answer(bench) -> None:
    bench.ranking.table.opened = 2  # what a click sends
    assert bench.answer == 2 and bench.opened.answer == DRAFTS[2].answer
    panel = bench.tokens.panel
    assert panel.text == DRAFTS[2].answer
    assert panel.view["numbers"][0] == ["SAR", signed(bench.opened.sar)]


def test_a_draft_is_scored_and_acknowledged(bench, frozen_tiny) -> None:
    panel = bench.tokens.panel
    text = "12 + 30 = 42. So she has 42 pens!\nAnswer: 42"
    panel.draft = {"text": text, "seq": 7}  # what typing sends
    assert panel.acknowledged == 7 and panel.view["seq"] == 7
    assert bench.edited and bench.opened.sar == pytest.approx(
        fresh(frozen_tiny, text).sar, abs=1e-4
    )
    assert panel.text == DRAFTS[0].answer  # the box is the reader's, nothing is typed over
    panel.draft = {"text": "  ", "seq": 8}
    assert panel.acknowledged == 8 and "The answer is empty" in panel.message
    assert panel.view == {"seq": 8} and bench.opened is None and bench.tokens.keep.disabled
    for seq in (9, 10):  # the second time nothing changes, and the reader is answered all the same
        panel.draft = {"text": text, "seq": seq}
        assert panel.acknowledged == panel.view["seq"] == seq
    panel.draft = {"text": "a \ud83d b", "seq": 11}
    assert panel.message == "" and bench.opened.tokens[-1].strip() != ""
    bench.tokens.reset.click()
    assert not bench.edited and bench.opened.answer == DRAFTS[0].answer


def test_an_edit_can_be_kept(bench) -> None:
    bench.edit("12 + 30 = 42.\nAnswer: 42")
    bench.tokens.keep.click()
    assert len(bench.answers) == 4 and bench.answer == 3
    assert bench.answers[3].label == "edited" and bench.answers[3].correct
    assert not bench.edited


def test_a_span_gives_two_numbers(bench, frozen_tiny) -> None:
    bench.tokens.panel.selection = [2, 6]  # what brushing sends
    assert bench.selection == (2, 6)
    score = fresh(frozen_tiny, DRAFTS[0].answer)
    ids = score.token_ids
    (deleted,) = score_answers(frozen_tiny, QUESTION, [[*ids[:2], *ids[6:]]])
    left_out, scored_again = bench.span_numbers()
    assert left_out == pytest.approx(score.sar_without(2, 6), abs=1e-4)
    assert scored_again == pytest.approx(deleted.sar, abs=1e-4)
    shown = bench.tokens.panel.span
    assert [line[1] for line in shown[1:]] == [signed(left_out), signed(scored_again)]
    assert "left out of the mean" in shown[1][0] and "scored again" in shown[2][0]
    bench.selection = (0, bench.opened.length)
    assert bench.span_numbers() is None and bench.tokens.panel.span == []


def test_pins_show_two_answers_on_one_scale(bench) -> None:
    bench.ranking.table.pinned = [0, 2]
    assert bench.pinned == (0, 2)
    for view, index in zip(bench.pair.views, (0, 2), strict=True):
        assert view.view["numbers"][0] == ["SAR", signed(bench.answers[index].score.sar)]
    assert bench.pair.views[0].legend == bench.pair.views[1].legend


def test_one_answer_under_two_policies(bench) -> None:
    other = random_policy("llama")
    bench.pinned = (0, -1)
    bench.policy_b = other
    (_, a), (label, b) = bench.pinned_scores()
    assert a.token_ids == b.token_ids and label.endswith("llama")
    (expected,) = score_answers(other, QUESTION, [a.token_ids])
    assert b.sar == pytest.approx(expected.sar, abs=1e-4)


def test_the_group_is_drawn_against_the_place_in_the_answer(bench) -> None:
    bench.tabs.selected_index = bench.tabs.titles.index("Position")
    bench.wait()

    def lines() -> dict:
        (shown,) = bench.position.figure.outputs
        drawn = shown["data"]["application/vnd.plotly.v1+json"]["data"]
        return {re.sub("<.*?>", "", t["name"]): t["y"] for t in drawn if "name" in t}

    assert list(lines()) == ["✓ right (2)", "✗ wrong (1)"]
    bench.position.place.value = "absolute"
    bench.position.quantity.value = "entropy"
    bench.wait()
    wrong = fresh(bench.policy, DRAFTS[2].answer)
    assert lines()["✗ wrong (1)"] == pytest.approx(wrong.entropy, abs=1e-4)


def test_alpha_moves_the_designs(bench) -> None:
    panel = bench.designs
    before = panel.table.value
    panel.alpha.value = 0.5
    assert bench.alpha == 0.5 and panel.table.value != before
    data = panel.figure.outputs[0]["data"]["application/vnd.plotly.v1+json"]["data"]
    bars = [trace for trace in data if trace["type"] == "bar"]
    assert len(bars) == 6
    panel.scope.value = "all"  # one click scores what is missing and draws all questions
    bench.job.wait()
    assert not bench.drafts
    assert "Output" in type(panel.figure).__name__ and panel.figure.outputs


def test_sampling_adds_answers_and_can_be_stopped(bench) -> None:
    bench.sample(3, 12, seed=5)
    bench.wait()
    assert [c.label for c in bench.answers].count("sampled") == 3
    assert all(c.score.length <= 12 for c in bench.answers[3:])
    again = Workbench(bench.policy, DRAFTS[:1])
    again.job.wait()
    again.sample(3, 12, seed=5)
    again.wait()
    assert [c.score.token_ids for c in again.answers[1:]] == [
        c.score.token_ids for c in bench.answers[3:]
    ]
    bench.sample(64, 60)
    bench.job.stop_button.click()
    bench.job.wait()
    assert bench.job.words.value == "Stopped." and len(bench.answers) < 20


def test_work_that_fails_is_told_and_raised_for_who_waits() -> None:
    job = JobBar()
    with pytest.raises(ValueError, match="no luck"):
        job.start("…", lambda report: (_ for _ in ()).throw(ValueError("no luck")), wait=True)
    assert job.words.value == "ValueError: no luck" and not job.busy
    release = threading.Event()
    job.start("long work", lambda report: release.wait(10))
    with pytest.raises(RuntimeError, match="Other work is running"):
        job.start("more", lambda report: None)
    release.set()
    job.wait()


def test_work_that_is_replaced_says_and_does_nothing_more() -> None:
    job, release, done = JobBar(replaces=True), threading.Event(), []

    def first(report) -> None:
        release.wait(10)
        report(1, 2, "the first")

    job.start("the first", first, then=lambda: done.append("first"))
    replaced = job._thread
    job.start("the second", lambda report: replaced.join(), then=lambda: done.append("second"))
    release.set()
    job.wait()
    assert done == ["second"] and not replaced.is_alive()
    assert job.words.value == job.closing == "" and job.error is None and not job.busy


def test_an_interrupt_stops_the_work(monkeypatch) -> None:
    job = JobBar()
    seen = []

    def work(report) -> None:
        try:
            while True:
                report(0, 1, "…")
        except Stopped:
            seen.append("stopped")
            raise

    job.start("…", work)
    real, calls = job._thread.join, []

    def interrupted(*timeout: float) -> None:
        calls.append(timeout)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real(*timeout)

    monkeypatch.setattr(job._thread, "join", interrupted)
    job.wait()
    assert seen == ["stopped"] and not job.busy


def uploaded(name: str, content: bytes) -> dict:
    facts = {"type": "text/csv", "size": len(content), "last_modified": datetime.now(UTC)}
    return {"name": name, "content": content, **facts}


def test_typed_questions_pasted_answers_and_files(bench, tmp_path) -> None:
    source = bench.source
    source.typed.value, source.gold.value = "What is 2 + 2?", "4"
    source.open_button.click()
    assert bench.question == "What is 2 + 2?" and bench.answers == ()
    source.pasted.value = "2 + 2 = 4.\nAnswer: 4\n---\nAnswer: 5"
    source.add_button.click()
    bench.job.wait()
    assert [c.correct for c in bench.answers] == [True, False]
    content = b"question,answer\nWhat is 3 + 3?,Answer: 6\n"
    source.upload.value = (uploaded("a.csv", content),)
    bench.job.wait()
    assert bench.question == "What is 3 + 3?" and len(bench.answers) == 1
    source.upload.value = (uploaded("b.csv", b"x,y\n1,2\n"),)
    assert "no field" in source.message.value
    source.picker.value = OTHER
    bench.job.wait()
    assert bench.question == OTHER and len(bench.answers) == 2


def test_another_policy_scores_everything_anew(bench) -> None:
    other = random_policy("llama")
    ids = [c.score.token_ids for c in bench.answers]
    bench.policy = other
    bench.job.wait()
    assert [c.score.token_ids for c in bench.answers] == ids
    (expected,) = score_answers(other, QUESTION, [ids[0]])
    assert bench.answers[0].score.sar == pytest.approx(expected.sar, abs=1e-4)


def test_the_export_has_no_script(bench, tmp_path) -> None:
    bench.open_question(OTHER)
    bench.wait()
    bench.answer, bench.pinned = 1, (0, 1)
    path = write_view(tmp_path / "out" / "x", ".html", bench.question, workbench_html(bench))
    document = path.read_text()
    assert "<script" not in document and "&lt;script&gt;" in document
    assert signed(bench.opened.sar) in document
    with pytest.raises(ValueError, match=r"should end in \.html"):
        write_view(tmp_path / "x.txt", ".html", "t", "b")


def test_a_picture_where_there_is_a_browser(tmp_path, monkeypatch) -> None:
    try:
        png = picture("t", "<p>x</p>", width=300, scale=1)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert png.startswith(b"\x89PNG") and int.from_bytes(png[16:20], "big") == 300


def test_no_browser_is_an_error_that_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chromium")
    with pytest.raises(RuntimeError, match="Install it"):
        picture("t", "<p>x</p>")


@pytest.fixture(scope="module")
def run_folder(frozen_tiny, tmp_path_factory) -> Path:
    questions = [Question(QUESTION, "42"), Question(OTHER, "5")]
    return make_run(tmp_path_factory.mktemp("runs") / "one", frozen_tiny, questions)


def test_the_run_browser_shows_what_was_logged(run_folder, frozen_tiny) -> None:
    browser = RunBrowser(run_folder.parent, tokenizer_of=frozen_tiny)
    assert browser.run == str(run_folder) and len(browser.rows) == 2 * 3 * 4
    table = read_rollouts(run_folder).to_pylist()
    browser.steps.value = 2
    mine = [r for r in table if r["step"] == 2 and r["question_id"] == browser.question_id]
    assert [row.answer for row in browser.shown] == [r["answer"] for r in mine]
    assert browser.tokens.score.sar == pytest.approx(mine[0]["sar"])
    assert browser.tokens.score.values == pytest.approx(
        [
            a - b
            for a, b in zip(mine[0]["logps_conditioned"], mine[0]["logps_standalone"], strict=True)
        ],
        abs=1e-5,
    )
    assert mine[0]["answer"].split()[0] in run_html(browser).replace("␣", " ")


def test_the_audit_filters_as_it_says(run_folder, frozen_tiny) -> None:
    rows = read_audit(run_folder)
    n = range(len(rows))
    rows = rows.assign(correct=[i % 2 == 0 for i in n], truncated=[i == 4 for i in n])
    found = short_with_low_sar(rows, 40, 0.3)
    expected = [
        r.Index
        for r in rows.itertuples()
        if r.correct and not r.truncated and r.length <= 40 and r.sar <= 0.3
    ]
    assert expected and sorted(found.index) == expected
    assert list(found["sar"]) == sorted(found["sar"])
    assert list(choose_questions(rows).values()) == [QUESTION, OTHER]
    browser = RunBrowser(run_folder.parent, tokenizer_of=frozen_tiny)
    browser.mode.value = "audit"
    browser.length.value, browser.sar.value = 40, 0.3
    listed = short_with_low_sar(browser.rows, 40, 0.3)
    assert [row.Index for row in browser.shown] == list(listed.index)
    first = next(rows.itertuples())
    changed = first._replace(answer="another model's text")
    with pytest.raises(ValueError, match="spell another text"):
        row_score(changed, frozen_tiny.tokenizer)
    unlogged = first._replace(sar=float("nan"))
    with pytest.raises(ValueError, match="logged without"):
        row_score(unlogged, frozen_tiny.tokenizer)


def test_a_folder_without_runs_says_so(tmp_path) -> None:
    browser = RunBrowser(tmp_path)
    assert "No finished runs" in browser.message.value and browser.shown == ()


def test_nbconvert_shows_the_twin_and_runs_nothing(bench) -> None:
    bench.open_question(OTHER)
    bench.wait()
    bench.answer = 1
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("bench")
    live = bench._repr_mimebundle_()
    data = dict(live[0] if isinstance(live, tuple) else live)
    cell.outputs = [
        nbformat.v4.new_output("execute_result", data=data, execution_count=1),
        nbformat.v4.new_output("display_data", data={"text/html": workbench_html(bench)}),
    ]
    notebook.cells = [cell]
    document, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    assert "alert(1)" in document and "<script>alert(1)" not in document
    assert signed(bench.opened.sar) in document
    assert "its static twin stands below" in document
    assert "unpkg.com/@jupyter-widgets" not in document.split("</head>")[1]


def test_what_goes_to_the_browser_is_json_without_surrogates(bench) -> None:
    bench.edit("emoji 🙂 \ud83d and \u202e and \x00")
    json.dumps(bench.tokens.panel.view).encode("utf-8")
    text = json.dumps(bench.tokens.panel.view["runs"], ensure_ascii=False)
    assert "\u202e" not in text and "⟨U+202E⟩" in text and "␀" in text


def test_four_thousand_tokens_stay_small() -> None:
    from test_widgets_text import fake_score

    from sarlab.widgets.live import TokenPanel

    panel = TokenPanel()
    panel.show(fake_score([f" word{i}" + (".\n" if i % 12 == 11 else "") for i in range(4000)]))
    assert len(panel.view["steps"]) == 334
    assert len(json.dumps(panel.view)) < 4_000_000
