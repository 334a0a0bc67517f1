"""Tasks: the same draws for the same seed, distinct questions, and sides that never meet."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarlab.tasks import check_disjoint, judge_all, load_task, split_of, task_names
from sarlab.tasks.base import GeneratedTask, Task, distinct
from sarlab.types import Question

GENERATORS = (
    *("word_problems", "fact_stories", "chain_sum", "gsm_symbolic", "knights_knaves", "syllogism"),
)


def ids(questions: list[Question]) -> list[str]:
    return [question.id for question in questions]


def side_of(text: str) -> str:
    return split_of(Question(text, "-"))


def numbered(count: int, first: int = 0) -> list[Question]:
    return [Question(f"What is {n}?", str(n)) for n in range(first, first + count)]


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("What is 1?", "train"),  # 7241b7...
        ("What is 2?", "train"),  # 408046...
        ("WHAT  is\n15?", "heldout"),  # 2910b6...
        ("What is 16?", "heldout"),  # 0c53f0...
    ],
)
def test_sides_worked_by_hand(text: str, side: str) -> None:
    # A text is held out where the SHA-256 of its folded form begins below 0x3333 = 0.2 * 0x10000.
    assert side_of(text) == side


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=40).filter(str.strip))
def test_copies_fall_on_one_side(text: str) -> None:
    for copy in (f"  {text}", f"{text}\n", text.replace(" ", "  \t")):
        assert side_of(copy) == side_of(text)


def test_a_fifth_is_held_out() -> None:
    share = sum(split_of(q) == "heldout" for q in numbered(20_000)) / 20_000
    assert share == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_repeat_themselves_and_do_not_leak(name: str) -> None:
    task, again = load_task(name), load_task(name)
    assert task.size is None
    batch = task.train_batch(step=3, count=16, seed=7)
    assert len(set(ids(batch))) == 16
    assert ids(batch) == ids(again.train_batch(step=3, count=16, seed=7))
    assert ids(batch) != ids(task.train_batch(step=4, count=16, seed=7))
    assert ids(batch) != ids(task.train_batch(step=3, count=16, seed=8))
    heldout = task.heldout(40)
    assert len(set(ids(heldout))) == 40
    assert ids(heldout) == ids(again.heldout(60))[:40] == ids(task.heldout(40))
    seen = [q for step in range(10) for q in task.train_batch(step, 16, 1)]
    check_disjoint(seen, heldout)
    assert all(split_of(q) == "heldout" for q in heldout)
    verdicts = judge_all([f"Answer: {q.gold}" for q in heldout + batch], heldout + batch)
    assert all(verdict.correct for verdict in verdicts)
    assert json.loads(json.dumps([dict(q.metadata) for q in batch])) == [q.metadata for q in batch]


def test_draws_do_not_depend_on_the_process() -> None:
    code = (
        "from sarlab.tasks import load_task; t = load_task('word_problems'); "
        "print([q.id for q in t.train_batch(5, 4, 11) + t.heldout(4)])"
    )
    task = load_task("word_problems")
    here = str(ids(task.train_batch(5, 4, 11) + task.heldout(4)))
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == here


def test_parameters_of_a_generator() -> None:
    task = load_task("chain_sum?max_terms=2&min_terms=2&max_digits=1")
    for question in task.train_batch(0, 20, 0):
        entry = question.metadata["entry"]["metadata"]
        assert (entry["num_terms"], entry["num_digits"]) == (2, 1)
    assert task.name == "chain_sum?max_digits=1&max_terms=2&min_terms=2"
    assert len(load_task("knights_knaves?n_people=3").train_batch(0, 2, 0)) == 2
    syllogisms = load_task("syllogism?allow_some_not=false&invalid_ratio=0.5")
    assert all("are not" not in q.text for q in syllogisms.train_batch(0, 5, 0))


def test_a_narrow_generator_says_that_it_is_exhausted() -> None:
    narrow = load_task("chain_sum?min_terms=1&max_terms=1&max_digits=1")  # ten questions
    found = narrow.heldout()
    assert 0 < len(found) < 10
    assert ids(narrow.heldout(500)) == ids(found)
    with pytest.raises(ValueError, match=r"only \d distinct training questions in a batch of 20"):
        narrow.train_batch(0, 20, 0)
    one = GeneratedTask("one", lambda rng: Question("What is 1?", "1"))
    side = "training" if side_of("What is 1?") == "heldout" else "held-out"
    with pytest.raises(ValueError, match=side):
        one.train_batch(0, 1, 0) if side == "training" else one.heldout(1)


def finite(count: int = 50) -> Task:
    return Task("some", numbered(count), numbered(10, first=1000))


@pytest.mark.parametrize("count", [1, 7, 10, 50])
def test_an_epoch_is_a_permutation_cut_into_whole_batches(count: int) -> None:
    task = finite()
    steps = 50 // count
    epoch = [q for step in range(1, steps + 1) for q in task.train_batch(step, count, 3)]
    assert len(set(ids(epoch))) == steps * count
    later = range(steps + 1, 2 * steps + 1)
    following = [q for step in later for q in task.train_batch(step, count, 3)]
    assert ids(following) != ids(epoch)
    assert ids(finite().train_batch(steps + 1, count, 3)) == ids(following[:count])
    assert ids(task.train_batch(1, count, 3)) == ids(epoch[:count])
    if count == 10:
        assert set(ids(epoch)) == set(ids(list(task.train)))
        assert ids(task.train_batch(1, count, 4)) != ids(epoch[:count])


def test_held_out_questions_come_in_a_fixed_order() -> None:
    task = finite()
    shuffled = numbered(10, first=1000)
    random.Random(0).shuffle(shuffled)
    same = Task("some", numbered(50), shuffled)
    assert ids(task.heldout()) == ids(same.heldout()) == sorted(ids(task.heldout()))
    assert ids(task.heldout(4)) == ids(task.heldout())[:4]
    assert len(task.heldout(1000)) == 10  # at most: a small file has what it has


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 0, 0), ValueError, "count is 0, expected at least 1"),
        ((-1, 1, 0), ValueError, "step is -1"),
        ((0, 1.5, 0), TypeError, "count is 1.5"),
        ((0, 1, None), TypeError, "seed is None"),
        ((0, True, 0), TypeError, "count is True"),
    ],
)
@pytest.mark.parametrize("task", [finite(), load_task("word_problems")])
def test_impossible_batches(
    task: Task, arguments: tuple[int, int, int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        task.train_batch(*arguments)


def test_too_large_batches_and_evaluation_sets() -> None:
    with pytest.raises(ValueError, match="has 50 training questions, a batch of 51"):
        finite().train_batch(0, 51, 0)
    with pytest.raises(ValueError, match=r"evaluation only.*'\?split=hash'"):
        Task("eval", [], numbered(3)).train_batch(0, 1, 0)
    with pytest.raises(ValueError, match="count is 0"):
        finite().heldout(0)


def test_sides_that_share_a_question_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^2 held-out.*the first is 'What is 3\?'.*overlap=drop"):
        Task("leaky", numbered(5), [*numbered(2, first=3), *numbered(3, first=100)])
    with pytest.raises(ValueError, match="1 held-out"):
        check_disjoint([Question("What is ONE?", "1")], [Question(" what  is one?\n", "1")])
    check_disjoint(numbered(5), numbered(5, first=5))


def test_copies_and_contradictions() -> None:
    copies = [
        Question("What is 1?", "1"),
        Question("what is  1?", "1"),
        Question("What is 2?", "2"),
    ]
    notes: list[str] = []
    kept = distinct(copies, "here", notes)
    assert kept == [copies[0], copies[2]]
    assert notes == ["here: 1 repeated row(s) left out."]
    conflict = [*copies, Question("What is 2?", "3")]
    with pytest.raises(ValueError, match=r"here: the question 'What is 2\?'.*'2' and '3'"):
        distinct(conflict, "here", [])
    notes.clear()
    kept = distinct(conflict, "here", notes, drop=True)
    assert kept == [copies[0]]
    assert "1 question(s) left out that occur with different answers" in notes[1]
    assert distinct([copies[0], copies[0]], "here", []) == [copies[0]]


def test_importing_the_tasks_stays_light() -> None:
    code = (
        "import sys, sarlab.tasks; heavy = {'reasoning_gym', 'datasets', 'math_verify'}; "
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    code = f"import sys, torch; before = set(sys.modules); {code}"
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "[]", done.stdout


def test_the_main_lock_needs_no_compiler_and_a_missing_reasoning_gym_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = (Path(__file__).parents[1] / "requirements.lock").read_text()
    assert "reasoning-gym==" not in lock
    assert "pycosat==" not in lock
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(ValueError, match=r"not installed.*make install-tasks.*sarlab\[tasks\]"):
        load_task("chain_sum")


def test_make_installs_reasoning_gym_from_its_lock(tmp_path: Path) -> None:
    command = ["make", "-n", f"VENV={tmp_path / 'venv'}", "install-tasks"]
    root = Path(__file__).parents[1]
    planned = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert "-r requirements-tasks.lock" in planned.stdout


def test_every_name_is_listed() -> None:
    assert set(GENERATORS) < set(task_names())
    assert len(task_names()) == len(set(task_names())) == 13


def lines(path: Path, numbers: range) -> str:
    path.write_text(
        "".join(json.dumps({"question": f"What is {n}?", "answer": str(n)}) + "\n" for n in numbers)
    )
    return str(path)


def test_several_sets_make_one_task_that_does_not_leak(tmp_path: Path) -> None:
    """Each part keeps its sides; a question that stands in both parts counts once."""
    one, other = lines(tmp_path / "a.jsonl", range(40)), lines(tmp_path / "b.jsonl", range(30, 80))
    both = load_task(f"{one}+{other}?limit=20")  # the option is the second one's: 30 to 49
    parts = load_task(one), load_task(f"{other}?limit=20")
    assert both.name == "a+b?limit=20"
    assert both.size == len({q.id for part in parts for q in part.train})
    assert set(ids(both.heldout())) == {q.id for part in parts for q in part.heldout()}
    assert both.size + len(both.heldout()) == 50


def test_held_out_questions_are_left_out_of_every_part(tmp_path: Path) -> None:
    """By its text 15 is held out and 2 is not; where a third file holds out, only that counts."""
    one, other = (
        lines(tmp_path / "a.jsonl", range(1, 9)),
        lines(tmp_path / "b.jsonl", range(9, 60)),
    )
    asked = lines(tmp_path / "c.jsonl", range(2, 3))
    task = load_task(f"{one}+{other}", heldout_ref=asked)
    assert [q.gold for q in task.heldout()] == ["2"]
    golds = {q.gold for q in task.train}
    assert "2" not in golds and "15" in golds and task.size == 58
    assert any("1 held-out question(s) left out" in note for note in task.notes)
    with pytest.raises(ValueError, match="generator without end"):
        load_task(f"{one}+word_problems")
