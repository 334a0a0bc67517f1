"""What a reader once stumbled over in the workbench, each with the state that shows it mended."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_run import make_run
from policies import random_policy
from score_examples import write_scores
from test_widgets_text import fake_score
from test_widgets_views import candidate, six

from sarlab.display.text import signed
from sarlab.display.token_view import answer_view, bonus_view, payload
from sarlab.models import REPOSITORY, add_lora, export_policy, load_policy
from sarlab.rewards import REWARDS, Reward
from sarlab.runs.folder import ROLLOUT_SCHEMA, Run
from sarlab.types import Question
from sarlab.widgets import InspectionSettings, Workbench, workbench_html
from sarlab.widgets.audit import (
    choose_questions,
    groups_like,
    has_tokens,
    list_runs,
    next_wider,
    read_audit,
    short_with_low_sar,
)
from sarlab.widgets.candidates import Candidate, Draft, judged, read_answers, score_candidates
from sarlab.widgets.designs import compare_designs, design_names
from sarlab.widgets.figures import history_figure
from sarlab.widgets.html import answer_html
from sarlab.widgets.run_browser import RunBrowser
from sarlab.widgets.stored import stored_example, stored_scores

QUESTION = "Ann has 12 pens and buys 30 more. How many pens does she have?"
STUDY = REPOSITORY / "data" / "study"


@pytest.fixture
def bench(frozen_tiny, tmp_path) -> Workbench:
    drafts = [
        Draft(QUESTION, "12 + 30 = 42.\nAnswer: 42", "42", "concise"),
        Draft(QUESTION, "30 - 12 = 18.\nAnswer: 18", "42", "wrong"),
    ]
    made = Workbench(frozen_tiny, drafts, runs=tmp_path / "runs")
    made.wait()
    return made


def upload(bench: Workbench, name: str, rows: list[dict]) -> str:
    content = "\n".join(map(json.dumps, rows)).encode()
    facts = {"type": "", "size": len(content), "last_modified": datetime.now(UTC)}
    bench.source.upload.value = ({"name": name, "content": content, **facts},)
    bench.wait()
    return bench.source.message.value


def test_a_loaded_answer_is_judged_by_the_right_answer_that_is_known(bench) -> None:
    said = upload(bench, "mine.jsonl", [{"question": QUESTION, "answer": "So 42.\nAnswer: 42"}])
    assert [c.correct for c in bench.answers] == [True, False, True]
    assert "not judged" not in said


def test_a_right_answer_that_comes_later_judges_what_was_there(bench) -> None:
    other = "Bob has 7 apples and eats 2. How many are left?"
    bench.add([Draft(other, "7 - 2 = 5.\nAnswer: 5")])
    bench.open_question(other)
    bench.wait()
    assert [c.correct for c in bench.answers] == [None]
    bench.source.right.value = "5"  # typed beside the question
    assert [c.correct for c in bench.answers] == [True]
    bench.add([Draft("x?", "Answer: 1")])
    bench.add([Draft("x?", "Answer: 2", "2")])
    bench.open_question("x?")
    bench.wait()
    assert [c.correct for c in bench.answers] == [False, True]


def test_answers_that_nobody_judged_have_no_advantage(bench) -> None:
    group = six("q")
    mixed = [*group[:5], replace(group[5], gold=None)]
    with pytest.raises(ValueError, match="1 of 6 answers have no right answer"):
        compare_designs(mixed, 0.2)
    assert (
        compare_designs(judged(mixed), 0.2)[0].advantages
        == compare_designs([replace(c) for c in group[:5]], 0.2)[0].advantages
    )
    bench.open_question("What is 2 + 2?", gold="")
    bench.add([Draft("What is 2 + 2?", f"Answer: {n}") for n in (4, 5)])
    bench.wait()
    assert "2 answers are left out: no right answer is known" in bench.designs.message.value
    assert bench.designs.table.value == "" and bench.designs.figure.outputs == ()
    bench.source.right.value = "4"
    assert "+0.500" in bench.designs.table.value and "left out" not in bench.designs.message.value


def test_an_emptied_box_shows_no_score(bench) -> None:
    panel = bench.tokens.panel
    assert panel.view["numbers"][-1] == ["answer", "✓ right"]
    panel.draft = {"text": " \n", "seq": 1}
    assert panel.view == {"seq": 1} and bench.opened is None and "empty" in panel.message
    assert bench.tokens.keep.disabled and not bench.tokens.reset.disabled
    panel.draft = {"text": "12 + 30 = 43.\nAnswer: 43", "seq": 2}
    assert panel.view["numbers"][-1] == ["answer", "✗ wrong"] and panel.message == ""
    bench.tokens.reset.click()
    assert panel.view["numbers"][-1] == ["answer", "✓ right"]


def test_a_file_keeps_labels_and_order_and_says_what_came_in(bench, tmp_path) -> None:
    rows = [
        {"question": "a?", "answer": "Answer: 1", "gold": "1", "label": "short"},
        {"question": "a?", "answer": "Answer: 1", "gold": "1", "label": "short"},
        {"question": "b?", "answer": "Answer: 2", "label": "long"},
        {"question": "a?", "answer": "1.\nAnswer: 1", "label": "long"},
    ]
    said = upload(bench, "mine.jsonl", rows)
    assert said.startswith("mine.jsonl: 3 answers to 2 questions (long 2, short 1)")
    assert "1 duplicate left out" in said and "1 not judged" in said
    assert bench.questions == (QUESTION, "a?", "b?")
    assert bench.question == "a?" and [c.label for c in bench.answers] == ["short", "long"]
    path = tmp_path / "k.jsonl"
    path.write_text('{"question": "x", "answer": "y", "kind": "older name"}\n')
    assert read_answers(path)[0].label == "older name"


def test_a_file_without_right_answers_says_where_to_type_them(bench) -> None:
    rows = [
        {"question": "a?", "answer": "Answer: 1"},
        {"question": QUESTION, "answer": "So 42.\nAnswer: 42"},
        {"question": "b?", "answer": "Answer: 2"},
    ]
    said = upload(bench, "mine.jsonl", rows)
    assert "2 not judged" in said and "type it above, beside question 2, 3" in said
    assert bench.question == QUESTION and len(bench.answers) == 3  # the file has answers to it


def test_an_error_of_a_file_goes_when_a_good_one_is_chosen(bench) -> None:
    too_long = {"question": "a?", "answer": "one two " * 3000, "gold": "1"}
    with pytest.raises(ValueError, match="1061 tokens long"):
        upload(bench, "bad.jsonl", [too_long])
    assert "1 answer left out" in bench.job.words.value and bench.answers == ()
    said = upload(bench, "good.jsonl", [{"question": "a?", "answer": "Answer: 1", "gold": "1"}])
    assert said.startswith("good.jsonl: 1 answer to 1 question") and "Error" not in said
    assert bench.job.words.value == "" and [c.correct for c in bench.answers] == [True]
    assert "no field" in upload(bench, "bad.jsonl", [{"question": "a?"}])
    assert "Error" not in upload(bench, "good.jsonl", [{"question": "a?", "answer": "Answer: 1"}])


def test_a_file_chosen_during_other_work_is_scored_after_it(bench) -> None:
    release = threading.Event()
    bench.job.start("long work", lambda report: release.wait(30))
    content = json.dumps({"question": "a?", "answer": "Answer: 1", "gold": "1"}).encode()
    facts = {"type": "", "size": len(content), "last_modified": datetime.now(UTC)}
    bench.source.upload.value = ({"name": "mine.jsonl", "content": content, **facts},)
    assert bench.source.message.value.startswith("mine.jsonl: 1 answer") and bench.answers == ()
    release.set()
    for _ in range(400):
        time.sleep(0.05)
        if bench.answers:
            break
    assert [c.correct for c in bench.answers] == [True]


def test_an_error_names_the_readers_file(bench) -> None:
    said = upload(bench, "my answers.jsonl", [{"question": "a?"}])
    assert "my answers.jsonl, line 1: no field" in said and "/" not in said.split("<b>")[1][12:60]


def test_pins_survive_a_file_another_question_and_another_model(bench) -> None:
    bench.ranking.table.pinned = [0, 1]
    upload(bench, "mine.jsonl", [{"question": "a?", "answer": "Answer: 1"}])
    assert bench.question == "a?" and bench.pinned == (-1, -1)
    bench.open_question(QUESTION)
    assert bench.pinned == (0, 1)
    upload(bench, "more.jsonl", [{"question": QUESTION, "answer": "Answer: 7"}])
    assert bench.pinned == (0, 1) and len(bench.answers) == 3
    labels = [c.label for c in bench.answers]
    bench.policy = random_policy("llama")
    bench.wait()
    assert bench.pinned == (0, 1) and [c.label for c in bench.answers] == labels
    assert bench.ranking.table.pinned == [0, 1]
    assert bench.pair.views[0].view["numbers"][0][1] == signed(bench.answers[0].score.sar)


def test_each_answer_is_scored_once(frozen_tiny, monkeypatch) -> None:
    from sarlab.rewards.answers import Rescorer

    scored = []
    real = Rescorer.score
    monkeypatch.setattr(
        Rescorer, "score", lambda self, ids, **more: scored.append(tuple(ids)) or real(self, ids)
    )
    made = Workbench(
        frozen_tiny,
        [Draft(QUESTION, f"12 + 30 = {n}.\nAnswer: {n}", "42", "x") for n in (42, 43, 44)],
    )
    made.wait()
    made.pinned = (0, 1)
    for index in (1, 2, 0):
        made.answer = index
    made.wait()
    assert len(scored) == len(set(scored)) == 3


def test_a_long_edit_says_how_far_it_is(bench, monkeypatch) -> None:
    panel = bench.tokens.panel
    said = []
    panel.observe(lambda change: said.append(change["new"]), "message")
    panel.draft = {"text": "one two three " * 120 + "\nAnswer: 42", "seq": 3}
    assert any("token 96 of" in words for words in said) and panel.message == ""
    said.clear()
    panel.draft = {"text": "short\nAnswer: 42", "seq": 4}
    assert not [words for words in said if words]


def test_foreign_text_is_said_to_be_foreign(bench) -> None:
    foreign = replace(bench.opened, ppl_conditioned=14_072.0, ppl_standalone=14_014.0)
    assert "mean" not in answer_view(bench.opened).warning
    assert "not trained on such text" in answer_view(foreign).warning
    bench.answers = tuple(candidate(foreign, True, "42", "x") for _ in range(2))
    assert "2 of 2 answers have perplexities in the thousands" in bench.ranking.note.value
    assert "mean little" in bench.ranking.note.value


def test_truncated_samples_are_marked(bench) -> None:
    bench.sample(2, 5, seed=1)
    bench.wait()
    sampled = bench.answers[2:]
    assert [c.truncated for c in sampled] == [
        c.score.token_ids[-1] != bench.policy.end_id for c in sampled
    ]
    assert any(c.truncated for c in sampled)
    index = next(i for i, c in enumerate(bench.answers) if c.truncated)
    row = bench.ranking.table.content["keys"].index(index)
    assert "truncated" in bench.ranking.table.content["rows"][row][6]
    bench.answer = index
    assert "truncated at the limit" in bench.tokens.panel.view["numbers"][-1][1]


def test_the_export_names_the_model(bench) -> None:
    assert "Scored by tiny" in workbench_html(bench)


def test_the_run_browser_opens_on_a_run_with_tokens(frozen_tiny) -> None:
    browser = RunBrowser(STUDY, tokenizer_of=frozen_tiny)
    assert Path(browser.run).name == "sa_grpo_0.2-s0"
    assert browser.tokens.score is not None and browser.note.value == ""
    names = list_runs(sorted(STUDY.glob("*-s*")))
    with_tokens = [name.path.name for name in names if name.has_tokens]
    assert with_tokens == ["sa_grpo_0.2-s0", "grpo-s0"]
    part = next((STUDY / "grpo-s0" / "rollouts.parquet").glob("*.parquet"))
    logged = pq.read_table(part, columns=["logps_standalone"]).column(0).to_pylist()
    assert has_tokens(STUDY / "grpo-s0") is any(logged)
    browser.arm.value = "sar_alone"
    assert {Path(value).name for _, value in browser.runs.options} == {
        f"sar_alone-s{seed}" for seed in range(3)
    }
    assert "without the log-probs of each token" in browser.note.value
    browser.mode.value = "audit"
    assert "correct answers" in browser.message.value  # the note does not hide the count
    browser.seed.value = "2"
    assert Path(browser.run).name == "sar_alone-s2"


def test_an_audit_that_finds_nothing_says_what_to_try(frozen_tiny) -> None:
    browser = RunBrowser(STUDY, tokenizer_of=frozen_tiny)
    browser.mode.value = "audit"
    browser.length.value, browser.sar.value = 5, -0.9
    right = browser.rows["correct"].sum()
    assert f"0 of {right} correct answers ({len(browser.rows)} logged)" in browser.message.value
    assert "at most 5 tokens and a SAR of at most −0.90" in browser.message.value
    assert "begins here" not in browser.message.value
    wider = next_wider(browser.rows, 5, -0.9)
    assert wider is not None and len(short_with_low_sar(browser.rows, *wider))
    browser.wider.click()
    assert browser.limits == pytest.approx(wider)
    assert browser.shown


def test_the_audit_opens_where_it_finds_something_until_the_reader_chooses(frozen_tiny) -> None:
    browser = RunBrowser(STUDY, tokenizer_of=frozen_tiny)
    browser.mode.value = "audit"
    narrowest = next_wider(browser.rows, 30, 0.0)
    assert browser.limits == pytest.approx(narrowest) and browser.shown
    assert "None has ≤ 30 tokens and SAR ≤ 0, so the search begins here" in browser.message.value
    other = next(value for name, value in browser.runs.options if name.startswith("grpo-s0"))
    browser.runs.value = other
    assert browser.limits == pytest.approx(next_wider(browser.rows, 30, 0.0)) != narrowest
    browser.length.value = 40
    browser.runs.index = 0
    assert browser.limits[0] == 40  # the reader's own limit stays


def test_a_dense_design_gives_each_token_its_own_colour_and_sum(monkeypatch) -> None:
    first = Reward(lambda i: 2.0 * (i.answer_mask.cumsum(1) == 1), False, "the first token")
    monkeypatch.setitem(REWARDS, "first", first)
    group = six("q")
    (design,) = compare_designs(group, 0.5, ["first"])
    assert design.label == "+ α·first" and "first" in design_names(every=True)
    lengths = [c.score.length for c in group]
    assert design.tokens == tuple((2.0,) + (0.0,) * (n - 1) for n in lengths)
    right = [float(bool(c.correct)) for c in group]
    means = [r + 0.5 * 2.0 / n for r, n in zip(right, lengths, strict=True)]
    assert design.rewards == pytest.approx(means)
    score = group[0].score
    view = bonus_view(score, design.tokens[0])
    assert view.tints[0] == "rgba(0, 114, 178, 0.50)" and view.tints[1].endswith(" 0.00)")
    assert sum(step.total_nats for step in view.steps) == 2.0 and view.quantity == "Σ bonus"
    assert view.cards[0][2][0] == "bonus = +2.000"
    assert answer_view(score).quantity == "Σ Δ log p, nats"


def test_the_designs_shown_are_chosen(bench) -> None:
    panel = bench.designs
    assert panel.designs.value == tuple(design_names())
    assert "laser" not in dict(panel.designs.options).values()  # needs a budget
    panel.designs.value = ("pmi", "sar")
    assert "+ α·pmi" in panel.table.value and "O1-pruner" not in panel.table.value
    panel.designs.value = ()
    assert "No design is chosen" in panel.message.value and not panel.table.value


def test_another_trainers_answers_come_with_their_reward(bench, tmp_path) -> None:
    path = tmp_path / "answers.jsonl"
    rows = [
        {"prompt": f"What is {n} + 1?", "completion": f"Answer: {k}", "reward": float(k), "step": 3}
        for n in (1, 2)
        for k in (2, 2, 5)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    browser = bench.run_browser
    browser.other.value = str(tmp_path / "none")
    assert "none does not exist" in browser.message.value and browser.shown == ()
    browser.other.value = str(path)
    assert "6 answers in 2 groups" in browser.message.value and browser.steps.value == 3
    questions = [text for text, _ in browser.questions.options]
    assert questions == [f"What is {n} + 1? (1 step)" for n in (1, 2)]
    browser.questions.index = 1
    rows = browser.table.content["rows"]
    assert [row[5] for row in rows] == ["+2.00", "+2.00", "+5.00"]
    assert [row[1:5] + row[6:7] for row in rows] == [["–"] * 5] * 3  # not in the file
    assert "without the log-probs of each token" in browser.note.value
    browser.to_bench.click()
    bench.wait()
    assert bench.question == "What is 2 + 1?"
    labels = [f"answers.jsonl, step 3, reward +{k}.00" for k in (2, 2, 5)]
    assert [c.label for c in bench.answers] == labels
    assert "tiny scores them" in bench.source.message.value


def test_the_next_wider_thresholds_by_hand() -> None:
    rows = read_audit(STUDY / "sa_grpo_0.2-s0")[:3]
    rows = rows.assign(correct=True, truncated=False, length=[20, 60, 200], sar=[0.12, -0.2, 0.9])
    assert next_wider(rows, 30, 0.0) == (30, pytest.approx(0.15))  # 0.12, up to the slider's step
    assert next_wider(rows, 30, 0.15) == (60, pytest.approx(0.15))
    assert next_wider(rows, 200, 0.9) is None


def test_questions_are_searched_filtered_and_sorted(frozen_tiny) -> None:
    rows = read_audit(STUDY / "sa_grpo_0.2-s0")
    everything = choose_questions(rows)
    some = choose_questions(rows, search="STICKERS")
    assert some and len(some) < len(everything)
    assert all("stickers" in text.lower() for text in some.values())
    answers = [*rows.itertuples()]
    ends = {
        key: [
            r
            for r in answers
            if r.question_id == key
            and r.step == max(x.step for x in answers if x.question_id == key)
        ]
        for key in list(some)
    }
    order = list(choose_questions(rows, search="stickers", order="longest"))
    lengths = [sum(r.length for r in ends[key]) / len(ends[key]) for key in order]
    assert lengths == sorted(lengths, reverse=True)
    for key in choose_questions(rows, search="stickers", shown="wrong at the end"):
        assert sum(r.correct for r in ends[key]) / len(ends[key]) < 0.5
    browser = RunBrowser(STUDY, tokenizer_of=frozen_tiny)
    browser.search.value = "no such words"
    assert browser.shown == () and "No question" in browser.message.value


def test_widening_passes_few_answers_of_the_run() -> None:
    # 31 tokens at SAR 0.57 are the shortest of this run, and low they are not: half have less.
    rows = read_audit(STUDY / "sa_grpo_0.2-s0")
    wider = next_wider(rows, 30, 0.0)
    assert wider is not None and wider[1] <= 0.2
    assert len(short_with_low_sar(rows, *wider))
    assert wider[0] < rows["length"].median() and wider[1] < rows["sar"].median()


def test_colours_of_sar_fit_the_answers_shown() -> None:
    rows = read_audit(STUDY / "sa_grpo_0.2-s0")[:4]
    rows = rows.assign(sar=[0.1, 0.16, 0.2, -0.03])
    axis = history_figure([*rows.itertuples()]).layout.coloraxis
    assert (axis.cmin, axis.cmax) == pytest.approx((-0.2, 0.2))
    assert axis.colorbar.title.text == "SAR, ±0.20"


def test_a_logged_answer_goes_to_the_workbench(frozen_tiny) -> None:
    made = Workbench(frozen_tiny, runs=STUDY)
    browser = made.run_browser
    browser.table.opened = 2
    for _ in range(2):  # the group comes once
        browser.to_bench.click()
        made.wait()
    row, shown = browser.opened, browser.shown
    assert made.question == row.question and made.opened.answer == row.answer
    assert [c.score.answer for c in made.answers] == [r.answer for r in shown] and len(shown) == 4
    assert [c.correct for c in made.answers] == [r.correct for r in shown]
    assert made.tabs.selected_index == 0
    browser.steps.value = 60
    assert len({r.answer for r in browser.shown}) < 4  # equal answers are a group's answers too
    browser.to_bench.click()
    made.wait()
    at_60 = [c for c in made.answers if c.label.endswith("step 60")]
    assert [c.score.answer for c in at_60] == [r.answer for r in browser.shown]


def test_the_runs_own_model_scores_its_answers(tiny, tmp_path) -> None:
    runs = tmp_path / "runs"
    folder = make_run(runs / "one", tiny, [Question("What is 1 + 1?", "2")], steps=1)
    made = Workbench(tiny, runs=runs)
    made.run_browser.to_bench.click()
    made.wait()
    assert made.run_browser.with_model.layout.display == "none"  # nothing to load there
    assert "tiny scores them" in made.source.message.value
    export_policy(add_lora(load_policy("tiny"), rank=2), folder / "adapter")
    made.run_browser.refresh()
    assert made.run_browser.with_model.layout.display is None
    made.run_browser.with_model.click()
    while len(made.answers) < 4 or made.policy is tiny:  # loads first, then scores
        made.wait()
        time.sleep(0.01)
    assert made.policy.reference == str(folder) and len(made.answers) == 4
    assert "final model scores them here" in made.source.message.value


def test_a_logged_answer_says_where_it_is_from_and_who_scores_it(frozen_tiny) -> None:
    made = Workbench(frozen_tiny, runs=STUDY)
    row, run = made.run_browser.shown[0], Path(made.run_browser.run).name
    made.add([Draft(row.question, "Another.\nAnswer: 1", row.gold, "typed")])
    made.open_question(row.question)
    made.wait()
    made.tokens.panel.text = "what stood there"
    emptied = []
    made.tokens.panel.observe(lambda change: emptied.append(change["new"]), "text")
    made.run_browser.to_bench.click()
    made.wait()
    assert emptied == ["", row.answer] or emptied == [row.answer]
    assert len(made.answers) == 5  # four of the group
    assert made.answers[made.answer].label == f"{run}, step {row.step}"
    assert made.opened.answer == row.answer  # not the answer that the question had before
    said = made.source.message.value
    assert run in said and f"step {row.step}" in said and "tiny scores them" in said


def test_an_answer_that_waits_for_its_score_leaves_the_box_empty(bench) -> None:
    release = threading.Event()
    bench.job.start("long work", lambda report: release.wait(30))
    bench.add([Draft("a?", "Answer: 1", "1")])
    bench.open_question("a?")
    assert bench.tokens.panel.text == "" and bench.opened is None
    release.set()
    bench.wait()


def test_samples_in_progress_show_their_text(bench) -> None:
    seen: list[tuple[str, ...]] = []
    bench.observe(lambda change: seen.append(change["new"]), "growing")
    shown: list[str] = []
    bench.sampling.growing.observe(lambda change: shown.append(change["new"]), "value")
    bench.sample(2, 30, seed=1)
    bench.wait()
    texts = [c.score.answer for c in bench.answers[2:]]
    assert any(seen) and seen[-1] == () and bench.sampling.growing.value == ""
    for partial in filter(None, seen):
        assert all(t.startswith(p) for p, t in zip(partial, texts, strict=True))
    assert any("sarlab-growing" in html for html in shown)


def test_steps_have_no_share_where_ups_and_downs_cancel() -> None:
    pieces = ["One. ", "Two. ", "Answer: ", "1"]
    view = answer_view(fake_score(pieces, [3.0, -2.9, 0.1, 0.1]))  # 0.3 of 6.1 nats is left
    assert [step.share for step in view.steps] == [None] * 3
    html, sent = answer_html(view), payload(view)["steps"]
    assert html.count("ups and downs nearly cancel") == 3 and " %" not in html
    assert [step[3] for step in sent] == ["– (ups and downs nearly cancel)"] * 3
    view = answer_view(fake_score(pieces, [3.0, -0.5, 0.1, 0.1]))
    assert [step[3] for step in payload(view)["steps"]] == ["+111 %", "−19 %", "+7 %"]


def test_stored_scores_are_used_for_their_model_and_text_only(frozen_tiny, tmp_path) -> None:
    drafts = [Draft("1 + 1?", "Answer: 2", "2", "a"), Draft("1 + 1?", "2", "2", "b")]
    path = tmp_path / "scores.parquet"
    fresh = score_candidates(frozen_tiny, drafts)
    write_scores(frozen_tiny, fresh[:1], path)
    first, second = stored_scores(frozen_tiny, drafts, path)
    assert not isinstance(second, Candidate) and isinstance(first, Candidate)
    assert first.score == fresh[0].score and first.correct and first.label == "a"
    changed = [Draft("1 + 2?", "Answer: 2"), Draft("1 + 1?", "Answer: 3")]
    assert stored_scores(frozen_tiny, changed, path) == changed
    assert stored_scores(random_policy("llama"), drafts, path) == drafts
    assert stored_scores(frozen_tiny, drafts, tmp_path / "none") == drafts
    with pytest.raises(ValueError, match="score_examples"):
        stored_example(Draft("1 + 1?", "other"), path)


def test_a_changed_weight_makes_stored_scores_void(tiny, tmp_path) -> None:
    drafts = [Draft("1 + 1?", "Answer: 2", "2", "a")]
    write_scores(tiny, score_candidates(tiny, drafts), tmp_path / "s.parquet")
    next(tiny.model.parameters()).data.view(-1)[0] += 1e-3
    assert stored_scores(tiny, drafts, tmp_path / "s.parquet") == drafts


def test_parameters_of_notebook_01_are_checked() -> None:
    settings = InspectionSettings.from_parameters({"runs": "data/study", "questions": 2})
    assert settings.run_folder == STUDY
    with pytest.raises(ValueError, match="Unknown parameter 'modle'"):
        InspectionSettings.from_parameters({"modle": "tiny"})
    with pytest.raises(ValueError, match="questions is '3'"):
        InspectionSettings.from_parameters({"questions": "3"})
    with pytest.raises(ValueError, match="alpha is 2"):
        InspectionSettings.from_parameters({"alpha": 2.0})


@pytest.fixture
def browser(tmp_path) -> RunBrowser:
    """Two questions, three steps, two answers each; rewards by hand. No model, no tokens."""
    rights = {("a", 0): (0, 0), ("a", 1): (1, 0), ("a", 2): (1, 1)}
    rights |= {("b", 0): (0, 0), ("b", 1): (0, 0), ("b", 2): (1, 0)}
    run = Run.create(tmp_path / "one", {"model": "tiny"})
    for step in range(3):
        rows = [
            dict.fromkeys(ROLLOUT_SCHEMA.names)
            | {"step": step, "split": "train", "group_id": group, "question_id": name}
            | {"question": f"{name}?", "gold": "1", "answer": f"{name}{step}{k}", "length": 3}
            | {"truncated": False, "correct": bool(right), "reward": right * (1 + step / 10)}
            for group, name in enumerate("ab")
            for k, right in enumerate(rights[name, step])
        ]
        run.write_rollouts(step, "train", rows)
    (tmp_path / "one" / "summary.json").write_text("{}")
    run.close()
    return RunBrowser(tmp_path)


def test_jumps_go_to_groups_by_spread_and_by_what_is_right(browser) -> None:
    assert groups_like(browser.rows, "most spread") == [("b", 2), ("a", 1)]  # sd 0.85 and 0.78
    assert groups_like(browser.rows, "all wrong") == [("a", 0), ("b", 0), ("b", 1)]
    assert groups_like(browser.rows, "all right") == [("a", 2)]
    spread, wrong, right = browser.jumps
    browser.search.value = "a"  # what hides the group goes
    spread.click()
    assert (browser.question_id, browser.steps.value) == ("b", 2) and browser.search.value == ""
    assert browser.message.value == "Group 1 of 2, most spread: step 2."
    spread.click()
    assert (browser.question_id, browser.steps.value) == ("a", 1)
    spread.click()  # round
    assert [row.answer for row in browser.shown] == ["b20", "b21"]
    right.click()
    assert all(row.correct for row in browser.shown) and browser.steps.value == 2
    wrong.click()
    wrong.click()
    wrong.click()
    assert [row.answer for row in browser.shown] == ["b10", "b11"]
    browser.questions.value, browser.steps.value = "a", 1
    spread.click()  # from a group that is listed itself, but was not jumped to: the first
    assert browser.message.value == "Group 1 of 2, most spread: step 2."
    browser.rows = browser.rows[~browser.rows["correct"]]
    right.click()
    assert browser.message.value == "No group of two or more answers is all right."


def test_two_steps_of_a_question_stand_side_by_side(browser) -> None:
    assert browser.shown_beside == () and browser.table_beside.layout.display == "none"
    browser.beside.value = 2
    browser.steps.value = 1
    assert [row.answer for row in browser.shown] == ["a10", "a11"]
    assert [row.answer for row in browser.shown_beside] == ["a20", "a21"]
    assert browser.table_beside.layout.display is None
    browser.steps.value = 2  # the same answers on both sides: so are their notes
    browser.remark.value = "guessed"
    for table in (browser.table, browser.table_beside):
        assert "note" in table.content["header"] and "ppl(a)" not in table.content["header"]
    browser.questions.value = "b"  # the step stays
    assert [row.answer for row in browser.shown_beside] == ["b20", "b21"]
    browser.mode.value = "audit"
    assert browser.shown_beside == ()
    browser.mode.value = "follow"
    browser.beside.value = None
    assert browser.table_beside.content["rows"] == []


def test_two_steps_show_their_tokens_side_by_side(frozen_tiny) -> None:
    browser = RunBrowser(STUDY, tokenizer_of=frozen_tiny)
    steps = [step for _, step in browser.beside.options if step is not None]
    browser.beside.value = steps[-1]
    browser.table_beside.opened = 1
    assert browser.tokens_beside.score.answer == browser.shown_beside[1].answer
    assert browser.tokens.score.answer == browser.shown[0].answer


def test_a_note_that_cannot_be_written_is_not_shown_as_kept(browser) -> None:
    (Path(browser.run) / "annotations.jsonl").mkdir()
    browser.remark.value = "guessed"
    assert "IsADirectoryError" in browser.note.value
    assert "note" not in browser.table.content["header"]


def test_notes_are_kept_beside_the_run_and_can_be_taken_back(browser) -> None:
    assert "note" not in browser.table.content["header"]
    browser.table.opened = 1
    browser.remark.value = "guessed <b>"
    file = Path(browser.run) / "annotations.jsonl"
    (line,) = map(json.loads, file.read_text().splitlines())
    assert (line["step"], line["question_id"], line["answer"]) == (0, "a", "a01")
    assert line["note"] == "guessed <b>"
    header, rows = browser.table.content["header"], browser.table.content["rows"]
    assert [row[header.index("note")] for row in rows] == ["", "guessed <b>"]
    browser.table.opened = 0
    assert browser.remark.value == "" and len(file.read_text().splitlines()) == 1
    again = RunBrowser(browser.folder)
    again.table.opened = 1
    assert again.remark.value == "guessed <b>" and again.opened.answer == "a01"
    again.remark.value = " "
    assert "note" not in again.table.content["header"]
    assert "note" not in RunBrowser(browser.folder).table.content["header"]
    assert len(file.read_text().splitlines()) == 2  # what was said stays in the file
