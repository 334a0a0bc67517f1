"""Records, tables and designs of the workbench against numbers worked out by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import plotly.graph_objects as go
import pytest
import torch

from sarlab.display.figures import position_figure
from sarlab.display.text import signed, tint
from sarlab.display.token_view import answer_view, payload, split_steps
from sarlab.losses import group_advantages
from sarlab.prompts import conditioned_ids
from sarlab.rewards import REWARDS, Reward, total_reward
from sarlab.rewards.answers import AnswerScore, score_answers
from sarlab.types import RewardInputs
from sarlab.widgets.candidates import (
    Candidate,
    Draft,
    label_rows,
    orderings,
    pasted_answers,
    ranked,
    read_answers,
    read_examples,
    score_candidates,
)
from sarlab.widgets.designs import DESIGNS, compare_designs, label_means, reward_inputs
from sarlab.widgets.figures import designs_figure, labels_figure
from sarlab.widgets.html import RANKING, designs_html, labels_html, records_html
from sarlab.widgets.live import TokenPanel


def answer(
    values: list[float], text: str = "so Answer: 1", question: str = "q", own: float = -1.0
) -> AnswerScore:
    """An answer whose tokens have these v, each with log-prob ``own`` behind the question."""
    n = len(values)
    mean = sum(values) / n
    return AnswerScore(
        question=question,
        answer=text,
        token_ids=tuple(range(n)),
        tokens=tuple(f"t{i} " for i in range(n)),
        logps_conditioned=(own,) * n,
        logps_standalone=tuple(own - v for v in values),
        sar=max(-1.0, 1 - math.exp(-mean)),
        ppl_conditioned=math.exp(-own),
        ppl_standalone=math.exp(mean - own),
    )


def candidate(score: AnswerScore, correct: bool | None, gold: str, label: str) -> Candidate:
    """An answer that ends right, or wrong; where nothing is known ``gold`` is empty."""
    score = replace(score, answer=f"so Answer: {gold if correct else 'none'}")
    return Candidate(score.question, score.answer, gold, label, score=score)


def six(question: str, shift: float = 0.0) -> list[Candidate]:
    kinds = {
        "concise": ([1.0 + shift] * 4, True),
        "redundant": ([0.5] * 12, True),
        "partly right": ([0.9] * 4, False),
        "wrong": ([0.7] * 4, False),
        "no thought": ([-2.0] * 2, True),
        "off topic": ([-1.0] * 4, False),
    }
    return [
        candidate(answer(values, question=question), correct, "1", kind)
        for kind, (values, correct) in kinds.items()
    ]


def test_steps_cover_the_answer_and_add_up() -> None:
    pieces = ["Two", " and", " 3.5", ".", " Then", " more", "!\n", "\n", "Answer", ": 5", "<end>"]
    values = [float(i) for i in range(11)]
    steps = split_steps(pieces, values)
    assert [(s.start, s.stop) for s in steps] == [(0, 4), (4, 8), (8, 11)]
    assert [s.total_nats for s in steps] == [6.0, 22.0, 27.0]
    assert sum(s.share for s in steps) == pytest.approx(1.0)
    assert steps[1].opening == "Then more!"


def test_the_end_token_never_stands_alone() -> None:
    steps = split_steps(["Answer: 5", "\n", "<end>"], [1.0, 1.0, 1.0])
    assert [(s.start, s.stop) for s in steps] == [(0, 3)]


def test_steps_without_any_value_have_no_share() -> None:
    assert split_steps(["a", "b"], [1.0, -1.0])[0].share is None


def test_sar_without_each_token_is_the_librarys() -> None:
    score = answer([2.0, -1.0, 0.5, 0.25])
    for j, card in enumerate(answer_view(score).cards):
        assert f"SAR without this token: {signed(score.sar_without(j, j + 1))} " in card[2][2]
    (only,) = answer_view(answer([1.0])).cards
    assert not any("SAR without" in note for note in only[2])


def test_a_card_says_what_the_score_says() -> None:
    view = answer_view(answer([math.log(4), 0.0], own=math.log(0.5)))
    card = payload(view)["cards"][0]
    assert card[1] == [["log p (nats)", "−0.69", "−2.08"], ["p", "0.500", "0.125"]]
    assert card[2][0] == "Δ log p = +1.386 nats: likelier with the question"
    assert card[2][1] == "share of the mean: Δ log p / n = +0.6931 nats"
    assert card[2][2] == "SAR without this token: +0.000 (−0.500)"  # from 1 − 1/2 down to 0
    assert payload(view)["numbers"] == [
        ["SAR", "+0.500"],
        ["ppl(a|q)", "2.00"],
        ["ppl(a)", "4.00"],
        ["mean Δ log p", "+0.693 nats"],
        ["tokens", "2"],
    ]


def test_tokens_are_coloured_by_what_is_known_of_them() -> None:
    score = replace(answer([1.0, -2.0, 0.5]), entropy=(0.0, 2.0, 4.0))
    other = replace(score, logps_conditioned=tuple(p - 0.25 for p in score.logps_conditioned))
    panel = TokenPanel()
    panel.show(score, advantage=-0.5, other=other)
    assert [why for _, why in panel.colours] == [""] * 4 and panel.view["colour"] == "Δ log p"
    assert panel.view == {**payload(answer_view(score)), "seq": 0, "colour": "Δ log p"}
    expected = {
        # name: values, and their tints: full at 4 nats, at ±1, at the largest
        "entropy": ("+0.000 +2.000 +4.000", [tint(0), tint(2), tint(4)]),
        "advantage": ("−0.500 −0.500 −0.500", [tint(-2)] * 3),
        "log ratio": ("+0.250 +0.250 +0.250", [tint(4)] * 3),
    }
    for name, (values, tints) in expected.items():
        panel.colour = name
        assert panel.view["tints"] == tints and panel.view["colour"] == name
        notes = [card[2][0] for card in panel.view["cards"]]  # never colour alone
        assert notes == [f"{name} = {value}" for value in values.split()]
        assert panel.view["quantity"] == f"Σ {name}" and panel.view["numbers"][0][0] == "SAR"
        assert name != "log ratio" or panel.legend["cells"][-1][0] == "≥ +0.250"
    panel.show(replace(score, entropy=()), advantage=math.nan, other=answer([1.0]))
    assert dict(panel.colours)["entropy"].startswith("no entropies were logged")
    assert all(why for name, why in panel.colours[1:])
    # What can't be chosen here shows Δ log p; the choice comes back with its values.
    assert panel.view["colour"] == "Δ log p" and "cells" in panel.legend
    panel.show(score, other=other)
    assert panel.view["colour"] == "log ratio"


def test_the_entropy_of_a_score_is_that_of_the_forward_pass(frozen_tiny) -> None:
    question, text = "What is 1 + 2?", "1+2=3\nAnswer: 3"
    (score,) = score_answers(frozen_tiny, question, [text], alternatives=True)
    prefix = conditioned_ids(frozen_tiny.tokenizer, question, frozen_tiny.prompt)
    with torch.no_grad():
        logits = frozen_tiny.model(torch.tensor([[*prefix, *score.token_ids]])).logits
    every = torch.distributions.Categorical(logits=logits[0, len(prefix) - 1 : -1].float())
    assert score.entropy == pytest.approx(every.entropy().tolist(), abs=1e-4)
    assert score_answers(frozen_tiny, question, [text])[0].entropy == ()


def test_ranking_puts_the_highest_sar_first() -> None:
    group = six("q")
    assert [group[i].label for i in ranked(group)] == [
        *("concise", "partly right", "wrong", "redundant", "no thought", "off topic"),  # a tie
    ]
    html = records_html(RANKING, [group[i] for i in ranked(group)])
    assert html.index("concise") < html.index("partly right") < html.index("off topic")
    assert html.count("✓ right") == 3 and html.count("✗ wrong") == 3


def test_designs_are_the_rewards_and_advantages_of_training() -> None:
    group = six("q")
    inputs = reward_inputs(group)
    for design in compare_designs(group, 0.3):
        rewards = total_reward(inputs, design.name, 0.3)
        assert design.rewards == pytest.approx(rewards.tolist())
        expected = group_advantages(rewards, torch.zeros(6, dtype=torch.long))
        assert design.advantages == pytest.approx(expected.tolist())
        assert sum(design.advantages) == pytest.approx(0.0, abs=1e-5)


def test_designs_by_hand() -> None:
    designs = {d.name: d for d in compare_designs(six("q"), 0.5)}
    assert list(designs)[:6] == list(DESIGNS)
    assert designs["correct"].rewards == (1.0, 1.0, 0.0, 0.0, 1.0, 0.0)
    assert designs["correct"].advantages == (0.5, 0.5, -0.5, -0.5, 0.5, -0.5)
    sar = [1 - math.exp(-1), 1 - math.exp(-0.5), 1 - math.exp(-0.9), 1 - math.exp(-0.7), -1, -1]
    assert designs["sar_alone"].rewards == pytest.approx(sar)
    assert designs["sar"].rewards == pytest.approx(
        [c + 0.5 * s for c, s in zip((1, 1, 0, 0, 1, 0), sar, strict=True)]
    )
    assert designs["confidence"].rewards == pytest.approx([0.5, 0.5, -0.5, -0.5, 0.5, -0.5])


def test_a_users_design_joins_those_of_the_paper(monkeypatch) -> None:
    def short(inputs: RewardInputs) -> torch.Tensor:
        return -inputs.lengths / 100

    monkeypatch.setitem(REWARDS, "short", Reward(short, False, "fewer tokens"))
    monkeypatch.setitem(REWARDS, "budget", Reward(short, False, "x", needs=("budget",)))
    designs = {d.name: d for d in compare_designs(six("q"), 0.5)}
    assert list(designs) == [*DESIGNS, "short"]
    assert designs["short"].rewards == pytest.approx((0.98, 0.94, -0.02, -0.02, 0.99, -0.02))


def test_alpha_zero_makes_every_bonus_vanish() -> None:
    designs = compare_designs(six("q"), 0.0)
    plain = next(d for d in designs if d.name == "correct")
    for design in designs:
        if design.name != "sar_alone":
            assert design.rewards == plain.rewards


def test_means_by_kind_and_their_interval() -> None:
    both = [*six("q1"), *six("q2", shift=1.0)]
    (design,) = compare_designs(both, 0.0, ["sar_alone"])
    first = label_means(both, design, "reward")[0]
    values = [1 - math.exp(-1), 1 - math.exp(-2)]
    assert (first.label, first.answers) == ("concise", 2)
    assert first.mean == pytest.approx(sum(values) / 2)
    spread = (values[1] - values[0]) / math.sqrt(2)
    assert first.half_width == pytest.approx(1.96 * spread / math.sqrt(2))


def test_groups_are_questions() -> None:
    inputs = reward_inputs([*six("q1"), *six("q2")])
    assert inputs.group_ids.tolist() == [0] * 6 + [1] * 6
    assert inputs.lengths.tolist() == [4, 12, 4, 4, 2, 4] * 2


def test_kind_table_and_orderings_count_questions() -> None:
    both = [*six("q1"), *six("q2", shift=-0.8)]  # concise 0.2 < redundant 0.5 on the second
    rows = {row.label: row for row in label_rows(both).itertuples()}
    assert rows["redundant"].below_concise == "1 of 2"
    assert rows["concise"].below_concise == ""
    assert rows["no thought"].mean_length == 2
    assert rows["wrong"].share_correct == 0.0
    counts = {(o.better, o.worse): (o.holds, o.questions) for o in orderings(both).itertuples()}
    assert counts["concise", "redundant"] == (1, 2)
    assert counts["redundant", "no thought"] == (2, 2)
    html = labels_html(both)
    assert ">1 of 2<" in html and html.count("<table") == 2
    assert re.search(r"concise<.*?redundant<.*?>1<.*?>2<", html[html.rindex("<table") :], re.S)


def test_figures_hold_the_tables_numbers() -> None:
    both = [*six("q1"), *six("q2")]
    designs = compare_designs(both, 0.2)
    figure = designs_figure(both, designs)
    assert type(figure) is go.Figure
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert len(bars) == 6
    for trace, design in zip(bars, designs, strict=True):
        assert list(trace.x) == pytest.approx([m.mean for m in label_means(both, design)])
        assert trace.y[0] == "concise"
        hatched = [shape == "/" for shape in trace.marker.pattern.shape]
        assert hatched == [x < 0 for x in trace.x]
    kinds = labels_figure(label_rows(both)).data[0]
    assert list(kinds.x) == pytest.approx(label_rows(both)["mean_sar"])
    table = designs_html(six("q"), compare_designs(six("q"), 0.2), "advantage")
    assert table.count("+0.500") >= 3


def test_a_quantity_against_the_place_is_the_mean_over_answers() -> None:
    groups = {"✓ right": [[1.0, 3.0], [3.0, 5.0, 7.0]], "✗ wrong": [[-1.0] * 40]}
    band, line, _, other = position_figure(groups, "Δ log p", relative=False).data
    assert list(line.x) == [1, 2, 3] and list(line.y) == [2.0, 4.0, 7.0]
    sd = math.sqrt(2)  # of 1 and 3, and of 3 and 5; one answer alone has none
    assert list(band.y) == pytest.approx([2 + sd, 4 + sd, 7, 7, 4 - sd, 2 - sd])
    assert line.name == "✓ right (2)" and other.name == "✗ wrong (1)"
    assert line.line.dash != other.line.dash  # a second channel beside colour
    _, line, _, other = position_figure(groups, "Δ log p").data
    # By share: tokens 1, 2 of two begin at 0 and 50 %, those of three at 0, 33 and 66 %.
    assert list(line.x) == [2.5, 32.5, 52.5, 67.5] and list(line.y) == [2.0, 5.0, 3.0, 7.0]
    assert len(other.x) == 20 and set(other.y) == {-1.0}


def test_figures_treat_labels_as_text() -> None:
    group = [
        candidate(answer([1.0]), True, "1", "<b>x</b><a href='javascript:1'>"),
        candidate(answer([2.0]), False, "1", "b"),
    ]
    labels = designs_figure(group, compare_designs(group, 0.2)).data[0].y
    assert labels[0].startswith("&lt;b>")


def test_examples_are_six_kinds_for_each_question() -> None:
    drafts = read_examples()
    assert len(drafts) == 198 and len({d.question for d in drafts}) == 33
    assert len({d.question for d in read_examples(5)}) == 5
    with pytest.raises(ValueError, match="questions is 34; the file has 1 to 33"):
        read_examples(34)
    with pytest.raises(TypeError, match="questions is '3'"):
        read_examples("3")  # type: ignore[arg-type]


def test_answers_load_from_csv_and_json_lines(tmp_path) -> None:
    csv = tmp_path / "a.csv"
    csv.write_text(
        'question,answer,gold,kind\n1 + 1?,"It is 2.\nAnswer: 2",2,mine\n1 + 1?,Answer: 3,,\n'
    )
    first, second = read_answers(csv)
    assert first == Draft("1 + 1?", "It is 2.\nAnswer: 2", "2", "mine")
    assert second == Draft("1 + 1?", "Answer: 3", None, "file")
    lines = tmp_path / "a.jsonl"
    lines.write_text(
        '{"question": "1 + 1?", "response": "Answer: 2", "gold": 2}\n{"question": "x"}\n'
    )
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: no field 'answer'"):
        read_answers(lines)


def test_pasted_answers_are_parted_by_dashes() -> None:
    assert pasted_answers("one\ntwo\n---\n\n-----\nthree - 3\n") == ["one\ntwo", "three - 3"]
    assert pasted_answers(" \n") == []


def test_scoring_keeps_the_order_and_judges(frozen_tiny) -> None:
    drafts = [
        Draft("Ann has 2 pens and buys 3. How many?", "2 + 3 = 5. Answer: 5", "5", "a"),
        Draft("Bob has 1 pen. How many?", "Answer: 2", "1", "b"),
        Draft("Ann has 2 pens and buys 3. How many?", "Answer: 6", "5", "c"),
        Draft("Bob has 1 pen. How many?", "Answer: 1", None, "d"),
    ]
    found = score_candidates(frozen_tiny, drafts)
    assert [c.label for c in found] == ["a", "b", "c", "d"]
    assert [c.correct for c in found] == [True, False, False, None]
    again = replace(found[0], gold="6")
    assert again.correct is False and again.score is found[0].score
    assert score_candidates(frozen_tiny, found) == found  # judged ones can be scored again
