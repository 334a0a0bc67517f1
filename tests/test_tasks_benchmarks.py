"""The benchmarks' own formats, on small files of our writing and on the real ones."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sarlab.tasks import judge, judge_all, load_task
from sarlab.tasks.benchmarks import BENCHMARKS, last_boxed
from sarlab.types import Question


def write_lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def all_of(ref: str) -> list[Question]:
    return load_task(f"{ref}{'&' if '?' in ref else '?'}split=heldout").heldout()


def check_gold_against_itself(questions: list[Question]) -> None:
    verdicts = judge_all([f"so\nAnswer: {q.gold}" for q in questions], questions)
    assert Counter(v.reason for v in verdicts) == {"right": len(questions)}


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} then $\boxed{x^{2}}$", "x^{2}"),
        (r"$\boxed 5$.", "5"),
        (r"\fbox{3}", "3"),
        ("none", None),
        (r"\boxed{open", None),
        (r"\boxed", None),
    ],
)
def test_the_last_box_of_a_solution(solution: str, gold: str | None) -> None:
    assert last_boxed(solution) == gold


def test_gsm8k_and_apples_symbolic_rows(tmp_path: Path) -> None:
    row = {"question": "2 + 2?", "answer": "It is <<2+2=4>>4.\n#### 4"}
    path = write_lines(tmp_path / "some.jsonl", row)
    (question,) = all_of(f"gsm8k:{path}")
    assert (question.gold, question.task, question.verifier) == ("4", "gsm8k", "auto")
    write_lines(path, {**row, "id": 0, "instance": 3, "original_id": 12, "canary": "x"})
    task = load_task(f"gsm_symbolic_apple:{path}")
    assert task.size == 0  # for evaluation only, unless it is asked to be split
    assert task.heldout()[0].metadata == {"id": 0, "instance": 3, "original_id": 12}


def test_a_folder_with_splits_of_its_own(tmp_path: Path) -> None:
    rows = [{"question": f"{n} + 2?", "answer": f"#### {n + 2}"} for n in range(30)]
    write_lines(tmp_path / "gsm8k_train.jsonl", *rows[:20])
    write_lines(tmp_path / "gsm8k_test.jsonl", *rows[20:])
    write_lines(tmp_path / "gsm8k_test_socratic.jsonl", *rows[20:])  # no side: left alone
    task = load_task(f"gsm8k:{tmp_path}")
    assert (task.size, len(task.heldout())) == (20, 10)
    assert load_task(f"gsm8k:{tmp_path}?split=hash").size != 20
    assert len(load_task(f"gsm8k:{tmp_path}?split=heldout").heldout()) == 30
    write_lines(tmp_path / "gsm8k_test.jsonl", *rows[15:])
    with pytest.raises(ValueError, match="5 held-out question"):
        load_task(f"gsm8k:{tmp_path}")
    assert load_task(f"gsm8k:{tmp_path}?overlap=drop").size == 15
    other = write_lines(tmp_path / "elsewhere" / "other.jsonl", {"question": "9?", "answer": "9"})
    assert load_task(f"gsm8k:{tmp_path}/gsm8k_train.jsonl", heldout_ref=str(other)).size == 20


def test_math_as_a_folder_of_files(tmp_path: Path) -> None:
    problems = {
        "train/algebra/1.json": ("Solve x.", r"So $x=\boxed{\frac{3}{2}}$."),
        "train/geometry/2.json": ("Find the angle.", r"$\boxed{90^\circ}$"),
        "test/algebra/3.json": ("Find f(x).", r"It is \boxed{x^2 + 1}."),
        "test/algebra/4.json": ("Which day?", r"\boxed{\text{Monday}}"),
        "test/algebra/5.json": ("Prove it.", "Clear."),
    }
    for name, (problem, solution) in problems.items():
        row = {"problem": problem, "solution": solution, "level": "Level 1", "type": "Algebra"}
        write_lines(tmp_path / name, row)
    task = load_task(f"math:{tmp_path}")
    assert {q.gold for q in task.train_batch(0, 2, 0)} == {r"\frac{3}{2}", r"90^\circ"}
    assert {q.gold for q in task.heldout()} == {"x^2 + 1", r"\text{Monday}"}
    assert task.notes == (f"math:{tmp_path.stem}: 1 of 5 rows have no answer to check.",)
    check_gold_against_itself(all_of(f"math:{tmp_path}"))
    by_name = {q.text: q for q in all_of(f"math:{tmp_path}")}
    assert judge("Answer: 1+x^2", by_name["Find f(x)."].gold, "math").correct
    assert judge("Answer: 1.5", by_name["Solve x."].gold, "math").correct


def test_math_rows_with_an_answer_field(tmp_path: Path) -> None:
    row = {"problem": "a?", "solution": r"\boxed{2}", "answer": r"\sqrt{2}", "subject": "Algebra"}
    (question,) = all_of(f"math:{write_lines(tmp_path / 'm.jsonl', row)}")
    assert (question.gold, question.verifier) == (r"\sqrt{2}", "math")


def test_numinamath_leaves_out_what_cannot_be_checked(tmp_path: Path) -> None:
    good = {
        "problem": "a?",
        "solution": "so",
        "answer": r"\frac{1}{3}",
        "source": "olympiads",
        "question_type": "math-word-problem",
        "problem_type": "Algebra",
        "synthetic": False,
        "problem_is_valid": "Yes",
        "solution_is_valid": "Yes",
    }
    rows = [
        good,
        {**good, "problem": "b?", "answer": "C", "question_type": "MCQ"},
        {**good, "problem": "c?", "answer": "proof"},
        {**good, "problem": "d?", "answer": "notfound"},
        {**good, "problem": "e?", "question_type": "proof"},
        {**good, "problem": "f?", "problem_is_valid": "Incomplete"},
        {**good, "problem": "g?", "solution_is_valid": "Problem not solved"},
        {**good, "problem": "h?", "answer": None},
        {**good, "problem": "i?", "answer": "1"},
        {**good, "problem": "i?", "answer": "2"},
    ]
    ref = f"numinamath:{write_lines(tmp_path / 'n.jsonl', *rows)}?split=heldout"
    task = load_task(ref)
    assert {q.text for q in task.heldout()} == {"a?", "b?"}
    assert "6 of 10 rows have no answer to check" in task.notes[0]
    assert "1 question(s) left out that occur with different answers" in task.notes[1]
    check_gold_against_itself(task.heldout())


def test_numinamath_from_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "train-00000-of-00001.parquet"
    table = pyarrow.Table.from_pylist(
        [{"problem": "a?", "answer": "5"}, {"problem": "b?", "answer": "6"}]
    )
    parquet.write_table(table, path)
    assert {q.gold for q in all_of(f"numinamath:{tmp_path}")} == {"5", "6"}
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        all_of(f"numinamath:{path}")


def test_aime_from_csv(tmp_path: Path) -> None:
    path = tmp_path / "AIME_Dataset_1983_2024.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "Year", "Problem Number", "Question", "Answer", "Part"])
        writer.writerow(["1983-1", 1983, 1, "Find\nw, please.", "60", ""])
        writer.writerow(["2024-I-2", 2024, 2, "Find x.", "025", "I"])
    questions = {q.text: q for q in load_task(f"aime:{path}").heldout()}
    assert questions["Find x."].gold == "025"
    assert judge("Answer: 25", "025").correct
    assert questions["Find\nw, please."].metadata == {"ID": "1983-1", "Year": "1983"}


def logic_document(*samples: Any) -> dict[str, Any]:
    return {"type": "propositional_logic", "axiom": "modus_tollens", "samples": list(samples)}


def test_logicbench_yes_or_no(tmp_path: Path) -> None:
    pairs = [
        {"question": "Is it wet?", "answer": "yes"},
        {"question": "Is it dry?", "answer": "no"},
    ]
    path = tmp_path / "data_instances.json"
    path.write_text(
        json.dumps(logic_document({"id": 1, "context": "It rains. ", "qa_pairs": pairs}), indent=2)
    )
    found = {q.text: q.gold for q in load_task(f"logicbench:{path}").heldout()}
    assert found == {
        "It rains.\n\nIs it wet? Answer yes or no.": "yes",
        "It rains.\n\nIs it dry? Answer yes or no.": "no",
    }


def test_logicbench_choices_get_letters_and_empty_ones_none(tmp_path: Path) -> None:
    sample = {
        "id": 1,
        "context": "It rains.",
        "question": "What follows?",
        "answer": "choice_3",
        "choices": {"choice_1": "", "choice_2": "it is dry", "choice_3": "it is wet"},
    }
    path = tmp_path / "data_instances.json"
    path.write_text(json.dumps(logic_document(sample)))
    (question,) = load_task(f"logicbench:{path}").heldout()
    assert question.text == (
        "It rains.\n\nWhat follows?\nA) it is dry\nB) it is wet\n"
        "Answer with the letter of the right option."
    )
    assert question.gold == "B"
    assert question.metadata["choices"] == {"A": "it is dry", "B": "it is wet"}
    for answer, right in (
        ("B", True),
        ("B) it is wet", True),
        ("A) it is wet", False),
        ("A", False),
    ):
        (verdict,) = judge_all([f"Answer: {answer}"], [question])
        assert verdict.correct is right
    path.write_text(json.dumps(logic_document({**sample, "answer": "choice_1"})))
    with pytest.raises(ValueError, match="sample 1: answer 'choice_1' is none of the choices"):
        load_task(f"logicbench:{path}")


def test_prontoqa_rows_and_documents(tmp_path: Path) -> None:
    row = {
        "id": "ProntoQA_1",
        "context": "Max is a cat.",
        "options": ["A) True", "B) False"],
        "question": "Is the following statement true or false? Max is a dog.",
        "answer": "B",
    }
    path = tmp_path / "dev.json"
    path.write_text(json.dumps([row]))
    (question,) = load_task(f"prontoqa:{path}").heldout()
    assert question.gold == "False"
    assert (
        question.text == "Max is a cat.\n\nIs the following statement true or false? Max is a dog."
    )
    own = {"question": "Max is a cat.", "query": "True or false: Max is a cat.", "answer": "True"}
    path.write_text(json.dumps({"example1": {"in_context_example0": {}, "test_example": own}}))
    (question,) = load_task(f"prontoqa:{path}").heldout()
    assert (question.gold, question.text) == (
        "True",
        "Max is a cat.\n\nTrue or false: Max is a cat.",
    )
    path.write_text(json.dumps([{**row, "answer": "C"}]))
    with pytest.raises(ValueError, match="answer 'C' is none of the options"):
        load_task(f"prontoqa:{path}")


@pytest.mark.parametrize(
    ("ref", "document", "message"),
    [
        ("logicbench", {"samples": []}, "no list 'samples'"),
        ("logicbench", [1], "entry 1: a int, expected an object"),
        ("logicbench", logic_document({"context": ""}), "sample 1: field 'context' is empty"),
        ("prontoqa", {"example1": {"no": 1}}, "example1, test_example: a NoneType"),
        ("math", {"problem": "a?"}, "no field 'solution'"),
        ("aime", {"Question": "a?"}, "no field 'Answer' or 'answer'"),
        ("numinamath", {"answer": "1"}, "no field 'problem'"),
        ("math", {"problem": "a?", "solution": "none"}, "has no question with an answer to check"),
    ],
)
def test_bad_benchmark_files(ref: str, document: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        load_task(f"{ref}:{path}")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no \.jsonl.*gsm8k's own files"):
        load_task(f"gsm8k:{tmp_path}")


def test_the_hub_is_asked_for_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked = []

    def fake(repository: str, configuration: str | None, split: str) -> list[dict[str, str]]:
        asked.append((repository, configuration, split))
        first = 0 if split == "train" else 100
        return [{"question": f"{n}?", "answer": f"#### {n}"} for n in range(first, first + 5)]

    monkeypatch.setattr(datasets, "load_dataset", fake)
    task = load_task("gsm8k")
    assert asked == [("openai/gsm8k", "main", "train"), ("openai/gsm8k", "main", "test")]
    assert (task.size, len(task.heldout())) == (5, 5)

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ValueError, match=r"'gsm8k'.*hub.*no route to host.*'gsm8k:PATH'"):
        load_task("gsm8k")


def test_the_paper_has_seven_benchmarks() -> None:
    assert len(BENCHMARKS) == 7
