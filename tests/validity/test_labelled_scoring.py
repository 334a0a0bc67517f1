"""Rows of scored answers: against score_answers, kept in parts, sampled groups, runs."""

import json

import pytest
import torch
from gsm8k_validity import sample_groups, ship_scored, write_parts

from sarlab import StandaloneContext, score_answers
from sarlab.audit.courts import policy_table, score_columns
from sarlab.audit.labelled import (
    LabelledAnswer,
    read_scored,
    score_question,
)
from sarlab.tasks import load_task
from sarlab.types import Question

ASKED = "Ada has 12 apples and buys 5 more. How many apples does she have?"
TEXTS = ("12 + 5 = 17.\nAnswer: 17", "Answer: 17", "I do not know what this is about, at all.")


def labelled():
    return [
        LabelledAnswer(ASKED, text, label, gold="17")
        for text, label in zip(TEXTS, ("concise", "no_thought", "off_topic"), strict=True)
    ]


@pytest.mark.parametrize("context", list(StandaloneContext))
@pytest.mark.parametrize("end_token", [True, False])
def test_sar_of_every_option_is_that_of_score_answers(frozen_tiny, context, end_token):
    import pandas as pd

    table = pd.DataFrame(score_question(frozen_tiny, labelled()))
    found = score_columns(table, context.value, end_token=end_token)
    scores = score_answers(frozen_tiny, ASKED, TEXTS, standalone=context, append_eos=end_token)
    assert found["sar"].tolist() == pytest.approx([s.sar for s in scores], abs=2e-5)
    assert found["tokens"].tolist() == [s.length for s in scores]
    ppl = torch.tensor([s.ppl_conditioned for s in scores])
    assert found["confidence"].tolist() == pytest.approx((-ppl.log()).tolist(), abs=1e-4)
    assert table["correct"].tolist() == [True, True, False]


def test_answers_to_two_questions_at_once_are_refused(frozen_tiny):
    other = LabelledAnswer("Another question?", "Answer: 1", "x")
    with pytest.raises(ValueError, match="2 questions at once"):
        score_question(frozen_tiny, [*labelled(), other])


def rows_of(chunk):
    return [{"n": n, "half": n / 2} for n in chunk]


def test_parts_that_were_interrupted_end_as_if_they_had_not_been(tmp_path):
    chunks = [[1, 2], [3, 4], [5]]
    assert list(write_parts(tmp_path / "whole", chunks, {"a": 1}, rows_of)) == [0, 2, 4, 5]
    began = write_parts(tmp_path / "cut", chunks, {"a": 1}, rows_of)
    assert [next(began), next(began)] == [0, 2]
    began.close()

    def fails(chunk):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(write_parts(tmp_path / "cut", chunks, {"a": 1}, fails))
    assert list(write_parts(tmp_path / "cut", chunks, {"a": 1}, rows_of)) == [2, 4, 5]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()
    with pytest.raises(ValueError, match="begun with a = 1, now it is 2"):
        list(write_parts(tmp_path / "cut", chunks, {"a": 2}, rows_of))


def test_what_ships_has_every_number_and_no_text(frozen_tiny, tmp_path):
    answers = labelled()
    folder = tmp_path / "answers"
    list(write_parts(folder, [[answers]], {}, lambda chunk: score_question(frozen_tiny, chunk[0])))
    ship_scored(folder, tmp_path / "out" / "answers.parquet")
    whole, shipped = read_scored(folder), read_scored(tmp_path / "out" / "answers.parquet")
    assert "answer" in whole and not {"question", "answer", "gold"} & set(shipped)
    assert ASKED.encode() not in (tmp_path / "out" / "answers.parquet").read_bytes()
    assert score_columns(whole).equals(score_columns(shipped))
    with pytest.raises(ValueError, match="no scored answers"):
        read_scored(tmp_path)


def test_sampled_groups_keep_their_ids_and_are_judged(frozen_tiny):
    questions = load_task("word_problems").heldout(2)
    told = {"group_size": 3, "max_answer_tokens": 48, "seed": 1}
    groups = sample_groups(frozen_tiny, questions, **told)
    assert groups == sample_groups(frozen_tiny, questions, **told)
    assert [len(g) for g in groups] == [3, 3]
    for question, group in zip(questions, groups, strict=True):
        rows = score_question(frozen_tiny, group)
        for answer, row in zip(group, rows, strict=True):
            assert row["length"] == len(answer.answer_ids)
            ended = answer.answer_ids[-1] in frozen_tiny.eos_ids
            assert row["truncated"] is not ended
            assert (row["end_conditioned"] is None) is not ended
            assert answer.label == ("right" if answer.correct else "wrong")
            assert answer.question == question.text


def test_the_shipped_runs_probes_are_groups_with_the_runs_own_sar():
    from sarlab.models import DATA
    from sarlab.runs.folder import read_rollouts

    folder = next(
        path.parent
        for path in sorted(DATA.glob("*/*/summary.json"))
        if list(path.parent.glob("rollouts.parquet/probe-*"))
    )
    table = read_scored(folder)
    kept = read_rollouts(folder, "probe")
    assert score_columns(table)["sar"].tolist() == pytest.approx(kept["sar"].to_pylist(), abs=1e-5)
    assert json.loads((folder / "config.json").read_text())["model"] in table["model"].iloc[0]
    found = policy_table(table, score_columns(table))
    assert found["model"].nunique() == 4
    assert found.drop_duplicates("model")["groups"].sum() == len(
        {*zip(kept["step"].to_pylist(), kept["group_id"].to_pylist(), strict=True)}
    )


def test_ids_of_questions_are_the_projects_own():
    assert labelled()[0].question_id == Question(ASKED, "17").id
