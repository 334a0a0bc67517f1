"""The two-sided ledger as people see it: rows, share of filler, arcs, and its tabs."""

from __future__ import annotations

import re

import pytest
import torch
from test_widgets_text import fake_score

from sarlab import load_policy
from sarlab.display.ledger import (
    CLASS_VIEWS,
    against,
    arcs_svg,
    filler_text,
    ledger_html,
    ledger_order,
    ledger_rows,
    question_parts,
)
from sarlab.display.text import plain
from sarlab.prompts import conditioned_ids, encode_answer
from sarlab.rewards.answers import score_answers
from sarlab.rewards.dependence import (
    CLASSES,
    AnswerDependence,
    answer_dependence,
    question_dependence,
)
from sarlab.scoring import Prefix, answer_block, answer_logps
from sarlab.widgets.candidates import Draft
from sarlab.widgets.export import workbench_html
from sarlab.widgets.workbench import Workbench

QUESTION = "Ada has 384 coins and gets 297 more. How many coins does Ada have now?"
FILLER = "That was not too hard, I would say.\n"
ANSWER = f"384+297\n4+7=11\n8+9+1=18\n3+2+1=6\n384+297=681\n{FILLER}Answer: 681"
LIMITS = (2.0, 5.0)
PIECES = ["a ", "<b>\n", "c\n", "d\n", "e ", "f\n", "g"]
VALUES = [3.0, 1.0, 0.5, -0.5, 8.0, 1.0, 0.0]


@pytest.fixture(scope="module")
def policy():
    return load_policy("tiny")


@pytest.fixture
def made() -> AnswerDependence:
    """Five lines: read and used, worked out, filler, copied, and the last."""
    taken = torch.zeros(5, 5)
    taken[1, 0], taken[4, 0], taken[4, 1], taken[3, 2] = 20.0, 4.0, 12.0, 0.4
    return AnswerDependence(
        starts=(0, 2, 3, 4, 6),
        tokens=torch.tensor([2, 1, 1, 2, 1]),
        read_nats=torch.tensor([4.0, 0.5, -0.5, 9.0, 0.0]),
        fed_nats=taken.sum(0),
        rest_tokens=torch.tensor([5, 4, 3, 1, 0]),
        taken=taken,
        gold_nats=torch.tensor([1.0, 2.0, 0.0, -1.0, torch.nan]),
    )


def test_a_row_says_what_a_line_reads_feeds_and_takes(made) -> None:
    header, sides, rows = ledger_rows(fake_score(PIECES, VALUES), made, LIMITS)
    assert len(header) == len(sides) == len(rows[0])
    first, second, last = (dict(zip(header, rows[k], strict=True)) for k in (0, 1, 4))
    assert first["class"] == "◆ read and used" and first["v"] == "+4.0"
    assert (first["d"], first["d/token"]) == ("+24.0", "+4.80")
    assert first["of Σ v"] == "+31 %" and first["g"] == "+1.0"
    assert first["takes from"] == "–" and second["takes from"] == "1 (20)"
    assert last["takes from"] == "2 (12), 1 (4)"
    assert (last["class"], last["d"], last["g"]) == ("▪ last", "–", "–")
    assert first["text"] == "a <b>"


def test_the_filler_is_counted_in_tokens_and_lines_and_follows_the_thresholds(made) -> None:
    assert filler_text(made, LIMITS) == "Filler: 14% of 7 tokens, 1 of 5 lines."
    assert filler_text(made, (5.0, 30.0)).startswith("Filler: 57% of 7 tokens, 3 of 5")


def test_lines_are_sorted_by_either_side(made) -> None:
    assert ledger_order(made, "as written") == [0, 1, 2, 3, 4]
    assert ledger_order(made, "reads (v)") == [3, 0, 1, 4, 2]
    assert ledger_order(made, "feeds (d)") == [0, 1, 2, 3, 4]
    assert ledger_order(made, "tokens") == [0, 3, 1, 2, 4]


def test_every_class_has_a_glyph_a_word_and_a_ground_of_its_own() -> None:
    assert tuple(CLASS_VIEWS) == CLASSES
    assert all(len(set(column)) == 5 for column in zip(*CLASS_VIEWS.values(), strict=True))


def test_the_static_twin_escapes_the_answer_and_says_the_same(made) -> None:
    html = ledger_html(fake_score(PIECES, VALUES), made, LIMITS, "A: <i>")
    assert "a &lt;b&gt;" in html and "A: &lt;i&gt;" in html and "<script" not in html
    assert "Filler: 14%" in html and "v = 2 nats" in html and "d = 5 on" in html
    assert html.count("rgba(") >= 4


def test_arcs_run_from_the_question_and_from_earlier_lines(made) -> None:
    svg = arcs_svg(made, LIMITS)
    titles = re.findall("<title>(.*?)</title>", svg)
    # 0.4, 0.5 and what is negative are below a nat.
    assert sorted(titles) == [
        "line 1 → line 2: 20.0 nats",
        "line 1 → line 5: 4.0 nats",
        "line 2 → line 5: 12.0 nats",
        "the question → line 1: 4.0 nats",
        "the question → line 4: 9.0 nats",
    ]
    assert "1 to 2, 2 to 5, the question to 4" in svg and svg.count("<rect") == 6
    faint = re.findall(r'opacity="0.15"[^>]*><title>(.*?)<', arcs_svg(made, LIMITS, chosen=1))
    assert all("line 2" not in title for title in faint) and len(faint) == 3


def test_what_each_part_of_the_question_gives_agrees_with_plain_passes(policy) -> None:
    (score,) = score_answers(policy, QUESTION, [ANSWER])
    parts = question_parts(QUESTION, "sentence")
    assert [QUESTION[a:b].strip() for a, b in parts] == [
        "Ada has 384 coins and gets 297 more.",
        "How many coins does Ada have now?",
    ]
    assert [QUESTION[a:b] for a, b in question_parts(QUESTION, "number")] == ["384", "297"]
    logps = torch.tensor(score.logps_conditioned)
    given = question_dependence(policy, QUESTION, parts, score.token_ids, logps)
    block, mask = answer_block([encode_answer(policy.tokenizer, ANSWER, policy.end_id)])
    for row, rest in enumerate(("How many coins does Ada have now?", QUESTION[:36])):
        prefix = Prefix(tuple(conditioned_ids(policy.tokenizer, rest, policy.prompt)))
        expected = logps - answer_logps(policy, prefix, block, mask)[0]
        assert given[row].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    # The sentence with the numbers gives more than the one that asks.
    assert given[0].sum() > given[1].sum() + 5
    whole = question_dependence(policy, QUESTION, [(0, 70)], score.token_ids, logps)
    assert whole[0].tolist() == pytest.approx(score.values, abs=1e-4)


def test_an_answer_against_another_context_has_that_contexts_sar(policy) -> None:
    (score,) = score_answers(policy, QUESTION, [ANSWER], alternatives=True)
    assert against(score, score.logps_standalone).sar == pytest.approx(score.sar, abs=1e-6)
    other = against(score, score.logps_conditioned)
    assert other.sar == 0 and other.ppl_standalone == pytest.approx(score.ppl_conditioned)


# The tabs


@pytest.fixture
def bench(policy) -> Workbench:
    made = Workbench(policy, [Draft(QUESTION, text, "681") for text in (ANSWER, "Answer: 681")])
    made.wait()
    made.tabs.selected_index = made.tabs.titles.index("Ledger")
    made.wait()
    return made


def test_the_ledger_of_the_opened_answer_is_worked_out_when_its_tab_opens(bench) -> None:
    tab = bench.ledger
    lengths = [
        len(encode_answer(bench.policy.tokenizer, text, bench.policy.end_id))
        for text in (ANSWER, ANSWER.replace(FILLER, ""))
    ]
    share = (lengths[0] - lengths[1]) / lengths[0]
    said = f"Filler: {share:.0%} of {lengths[0]} tokens, 1 of 7 lines."
    assert tab.number.value == f"<b>{said}</b>"
    rows = tab.table.content["rows"]
    assert [row[0].split(" ", 1)[1] for row in rows] == [
        "read and used",
        *["worked out"] * 4,
        "filler",
        "last",
    ]
    assert tab.table.content["tints"][5] == CLASS_VIEWS["filler"][1]
    tab.limits[1].value = 30
    assert bench.thresholds == (2.0, 30.0)
    share = bench.ledgers[0][2].filler_share(2, 30)
    assert f"Filler: {share:.0%} of" in tab.number.value and share > 0.2


def test_it_follows_an_edit_and_rests_while_another_tab_is_open(bench) -> None:
    bench.edit(ANSWER.replace(FILLER, ""))
    bench.wait()
    assert "Filler: 0%" in bench.ledger.number.value and len(bench.ledgers[0][2].starts) == 6
    bench.tabs.selected_index = 0
    bench.undo_edit()
    bench.wait()
    assert bench.ledgers == ()


def test_a_chosen_line_is_selected_and_a_span_gets_a_ledger(bench) -> None:
    tab = bench.ledger
    starts = bench.ledgers[0][2].starts
    tab.table.opened = 2
    assert bench.selection == tuple(starts[2:4])
    tab.arcs.value = True
    assert "<svg" in tab.graph.value and 'opacity="0.15"' in tab.graph.value
    tab.by.value = "span"
    bench.wait()
    assert bench.ledgers[0][2].starts == (0, *starts[2:4])
    bench.selection = ()
    assert tab.hint.value.startswith("Select a span")


def test_the_pinned_pair_and_the_export_show_ledgers_too(bench) -> None:
    bench.pinned = (0, 1)
    bench.ledger.which.value = "pinned"
    bench.wait()
    assert bench.ledger.twins.value.count("sarlab-ledger") == 2
    assert workbench_html(bench).count("sarlab-ledger") == 2
    bench.ledger.which.value = "opened"
    bench.wait()
    assert workbench_html(bench).count("sarlab-ledger") == 1
    other = bench.answers[1].score
    bench.ledgers = (("", other, bench.ledgers[0][2]),)  # as after an edit, before the passes end
    assert other != bench.opened and "sarlab-ledger" not in workbench_html(bench)


def test_the_export_holds_what_was_worked_out_also_when_its_tab_is_closed(bench) -> None:
    titles = bench.tabs.titles
    bench.tabs.selected_index = titles.index("Question")
    bench.wait()
    (first, second) = bench.parts.table.content["rows"]
    bench.tabs.selected_index = titles.index("Export")
    document = workbench_html(bench)
    assert document.count("sarlab-ledger") == 1 and document.count("sarlab-parts") == 1
    assert f"{first[0]}</span>" in document and plain(second[2]) in document
    bench.answer = 1  # another answer: neither fits it, and nothing is worked out for it
    document = workbench_html(bench)
    assert "sarlab-ledger" not in document and "sarlab-parts" not in document
    bench.answer = 0
    assert "sarlab-parts" in workbench_html(bench)
    bench.edit(ANSWER + "0")
    assert "sarlab-parts" not in workbench_html(bench)


def test_right_answers_whose_lines_feed_nothing_are_listed_over_all_questions(bench) -> None:
    other, padded = "What is 31 + 11?", f"{FILLER * 3}31+11=42\nAnswer: 42"
    wrong = f"{FILLER * 3}Answer: 7"
    bench.add([Draft(other, padded, "42", "padded"), Draft(other, wrong, "42", "wrong")])
    bench.score_waiting()
    bench.wait()
    tab = bench.ledger
    tab.which.value = "right"
    bench.wait()
    rows = tab.table.content["rows"]
    assert [row[4] for row in rows] == ["padded"]  # not the wrong one, nor those with less filler
    ledger = answer_dependence(bench.policy, other, padded)
    assert rows[0][0] == f"{ledger.filler_share(2, 5):.0%}" and ledger.filler_share(2, 5) > 0.5
    assert "1 of 3 right answers" in tab.number.value and "at least 30%" in tab.number.value
    assert "v below 2 and d below 5 nats" in tab.number.value
    tab.share.value = 0.05
    shares = [int(row[0].rstrip("%")) for row in tab.table.content["rows"]]
    assert len(shares) == 2 and shares == sorted(shares, reverse=True)
    tab.limits[1].value = 0  # only the line without which the rest is likelier feeds nothing now
    assert [row[4] for row in tab.table.content["rows"]] == ["typed"]
    assert "1 of 3 right answers" in tab.number.value and "d below 0 nats" in tab.number.value
    tab.limits[1].value = 5
    tab.table.opened = tab.table.content["keys"][0]
    bench.wait()
    assert bench.question == other and bench.opened.answer == padded


def test_an_error_of_the_passes_is_shown_and_nothing_else(bench, monkeypatch) -> None:
    def refuse(*_, **__):
        raise ValueError("too <long>")

    monkeypatch.setattr("sarlab.widgets.ledger.dependence_of", refuse)
    bench.edit(ANSWER + "0")
    with pytest.raises(ValueError, match="too <long>"):
        bench.wait()
    assert bench.ledger.job.words.value == "ValueError: too &lt;long&gt;"


def test_the_question_tab_tells_what_each_sentence_gives(bench) -> None:
    bench.tabs.selected_index = bench.tabs.titles.index("Question")
    bench.wait()
    tab = bench.parts
    whole = [float(row[0].replace("−", "-")) for row in tab.table.content["rows"]]
    assert len(whole) == 2 and whole[0] > whole[1] + 5
    bench.selection = (0, 4)
    selected = [float(row[1].replace("−", "-")) for row in tab.table.content["rows"]]
    assert selected != whole
    tab.table.opened = 1
    assert "How many coins does Ada have now?" in tab.note.value
    tab.by.value = "number"
    bench.wait()
    assert [row[2] for row in tab.table.content["rows"]] == ["384", "297"]
    assert sum(tab.panel.score.values) == pytest.approx(bench.given[2][1].sum().item(), abs=1e-3)


def test_a_question_without_numbers_says_so(policy) -> None:
    made = Workbench(policy, [Draft("How many?", "Answer: 1", "1")])
    made.wait()
    made.tabs.selected_index = made.tabs.titles.index("Question")
    made.parts.by.value = "number"
    made.wait()
    assert made.parts.hint.value == "The question holds no number."
    assert made.parts.table.content["rows"] == []


def test_what_is_listed_of_right_answers_is_not_taken_for_the_pinned_one(bench, policy) -> None:
    bench.policy_b = load_policy("tiny")
    bench.policy_b.model.lm_head.weight.data.mul_(0.5)
    text = f"{FILLER * 3}31+11=42\nAnswer: 42"
    bench.add([Draft("What is 31 + 11?", text, "42", "B, padded")])  # a label like a pin's
    bench.score_waiting()
    bench.wait()
    before = bench.ledger.table.content["rows"]
    assert len(before) == 7
    bench.ledger.which.value = "right"  # lines of the mode before are gone at once
    assert bench.ledger.table.content["rows"] != before
    bench.wait()
    (shown,) = (ledger for label, _, ledger in bench.ledgers if label == "B, padded")
    expected = answer_dependence(policy, "What is 31 + 11?", text)
    assert shown.fed_nats.tolist() == pytest.approx(expected.fed_nats.tolist(), abs=1e-3)
    bench.ledger.by.value = "span"  # of the opened answer; it fits no other
    assert "one answer" in bench.ledger.hint.value and bench.ledgers == ()
