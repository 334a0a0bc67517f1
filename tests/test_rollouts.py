"""Answers of any trainer: what is read, what stays null, and what a broken file is told."""

from __future__ import annotations

import copy
import json
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sarlab.runs.rollouts import open_rollouts
from sarlab.runs.trainer_formats import COLUMNS, FORMATS
from sarlab.tasks.rows import MAX_LINE_BYTES

USER = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "1 + 1?"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def node(tag: str, *children: Any, data: Any = None) -> dict[str, Any]:
    built = {"tag": tag, "attrs": {}, "children": list(children)}
    return built if data is None else {**built, "data": data}


def attempt(answer: str, reward: str) -> list[dict[str, Any]]:
    """One attempt as tinker's problem environment logs it."""
    cells = [("key", "value"), ("reference_answer", "2"), ("correct", "True"), ("reward", reward)]
    rows = [node("tr", node("td", k), node("td", v)) for k, v in cells[1:]]
    return [
        node("div", data={"type": "conversation", "messages": USER}),
        node("div", data={"type": "conversation", "messages": said(answer)}),
        node("table", node("tbody", *rows)),
    ]


def episode(answer: str, score: float, step: int = 7) -> dict[str, Any]:
    messages = [{"parent": None, "message": m} for m in USER]
    return {
        "id": "e",
        "task": {"type": "Sum", "data": {"answer": "2"}, "key": "k"},
        "run": {"type": "train", "id": "r", "work": {"type": "train", "step": step}},
        "traces": [
            {
                "nodes": [*messages, {"parent": 1, "message": said(answer)[0], "sampled": True}],
                "rewards": {"right": {"score": score, "weight": 2.0}, "short": {"score": 0.5}},
            }
        ],
    }


def sample(answer: str, value: str, epoch: int) -> dict[str, Any]:
    return {
        "id": 3,
        "epoch": epoch,
        "input": USER,
        "target": "2",
        "output": {"choices": [{"message": said(answer)[0]}]},
        "scores": {"match": {"value": value}},
    }


def write_trl(folder: Path) -> None:
    (folder / "completions").mkdir(parents=True)
    for step in (2, 10):
        pd.DataFrame(
            {
                "step": [step] * 2,
                "prompt": [USER] * 2,
                "completion": [said("2"), said("3")],
                "right": [1.0, 0.0],
                "short": [0.25, 0.5],
                "solution": ["2", "2"],
                "note": ["a", "b"],
                "advantage": [0.5, -0.5],
            }
        ).to_parquet(folder / "completions" / f"completions_{step:05d}.parquet")


def write_verl(folder: Path) -> None:
    for step in (2, 10):
        record = {"input": "1 + 1?", "gts": "2", "step": step}
        rows = [
            {**record, "output": "2", "score": 1.0, "acc": True},
            {**record, "output": "3", "score": 0.0, "acc": False},
        ]
        (folder / f"{step}.jsonl").write_text(lines(*rows))


def write_openrlhf(folder: Path) -> None:
    table = {"columns": ["global_step", "text", "reward"], "data": [[2, "2", 1.0], [10, "3", 0.0]]}
    (folder / "generated_samples.table.json").write_text(json.dumps(table))


def write_verifiers(folder: Path) -> None:
    record = {"example_id": 0, "prompt": USER, "answer": "2", "is_truncated": False}
    rows = [
        {**record, "completion": said("2"), "reward": 1.0, "metrics": {"right": 1.0}},
        {**record, "completion": said("3"), "reward": 0.0, "metrics": {"right": 0.0}},
    ]
    (folder / "results.jsonl").write_text(lines(*rows))


def write_prime(folder: Path) -> None:
    for subset, answers in (("effective", ("2", "2")), ("all", ("2", "3", "2"))):
        place = folder / "rollouts" / "step_7" / "train" / subset
        place.mkdir(parents=True)
        (place / "traces.jsonl").write_text(lines(*(episode(a, 1.0) for a in answers)))


def write_tinker(folder: Path) -> None:
    (folder / "iteration_000004").mkdir()
    group = node(
        "section", node("h2", "Group Rollout"), *attempt("2", "1.000"), *attempt("3", "-0.100")
    )
    tree = {"title": "t", "root": node("body", group)}
    (folder / "iteration_000004" / "train_logtree.json").write_text(json.dumps(tree))


def write_inspect(folder: Path) -> None:
    with zipfile.ZipFile(folder / "log.eval", "w") as archive:
        archive.writestr("header.json", "{}")
        for epoch, (answer, value) in enumerate((("2", "C"), ("3", "I")), start=1):
            archive.writestr(
                f"samples/3_epoch_{epoch}.json", json.dumps(sample(answer, value, epoch))
            )


def write_plain(folder: Path) -> None:
    rows = [
        {"messages": [*USER, *said("2")], "gold": 2, "reward": 1.0, "step": 1},
        {"messages": [*USER, *said("3")], "gold": 2, "reward": 0.0, "step": 1},
    ]
    (folder / "answers.jsonl").write_text(lines(*rows))


WRITERS: dict[str, Callable[[Path], None]] = {
    "TRL completions": write_trl,
    "verl rollout data": write_verl,
    "OpenRLHF samples (W&B table)": write_openrlhf,
    "verifiers results": write_verifiers,
    "prime-rl or verifiers traces": write_prime,
    "tinker logtree": write_tinker,
    "Inspect log": write_inspect,
    "plain rows": write_plain,
}

# step, group_id, question, answer, gold, reward of every row, worked out by hand.
TRUTH: dict[str, list[tuple[Any, ...]]] = {
    "TRL completions": [
        (2, 0, "1 + 1?", "2", "2", 1.25),
        (2, 0, "1 + 1?", "3", "2", 0.5),
        (10, 1, "1 + 1?", "2", "2", 1.25),
        (10, 1, "1 + 1?", "3", "2", 0.5),
    ],
    "verl rollout data": [
        (2, 0, "1 + 1?", "2", "2", 1.0),
        (2, 0, "1 + 1?", "3", "2", 0.0),
        (10, 1, "1 + 1?", "2", "2", 1.0),
        (10, 1, "1 + 1?", "3", "2", 0.0),
    ],
    "OpenRLHF samples (W&B table)": [
        (2, None, None, "2", None, 1.0),
        (10, None, None, "3", None, 0.0),
    ],
    "verifiers results": [
        (None, 0, "1 + 1?", "2", "2", 1.0),
        (None, 0, "1 + 1?", "3", "2", 0.0),
    ],
    "prime-rl or verifiers traces": [(7, 0, "1 + 1?", "2", "2", 2.5)] * 2,  # 2 · 1 + 0.5
    "tinker logtree": [(4, 0, "1 + 1?", "2", "2", 1.0), (4, 0, "1 + 1?", "3", "2", -0.1)],
    "Inspect log": [(None, 0, "1 + 1?", "2", "2", 1.0), (None, 0, "1 + 1?", "3", "2", 0.0)],
    "plain rows": [(1, 0, "1 + 1?", "2", "2", 1.0), (1, 0, "1 + 1?", "3", "2", 0.0)],
}


def table(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    columns = [c for c in COLUMNS if c != "source"]
    rows = frame[columns].astype(object)
    return [tuple(None if pd.isna(x) else x for x in row) for row in rows.itertuples(index=False)]


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_is_recognised_and_read(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    frame = open_rollouts(tmp_path)
    assert frame.attrs["format"] == name
    assert table(frame) == TRUTH[name]
    assert frame["source"].is_unique and frame.attrs["notes"][0].startswith(name)


def test_every_format_has_a_test() -> None:
    assert {form.name for form in FORMATS} == {*WRITERS, "sarlab"}


def test_what_else_a_trainer_logged_is_kept(tmp_path: Path) -> None:
    write_trl(tmp_path)
    frame = open_rollouts(tmp_path)
    assert frame["short"].tolist() == [0.25, 0.5] * 2 and frame["note"].tolist() == ["a", "b"] * 2
    assert any("right, short" in note for note in frame.attrs["notes"])
    assert open_rollouts(tmp_path, rewards=["right"])["reward"].tolist() == [1.0, 0.0] * 2


def test_a_reward_function_of_trl_that_is_called_reward_is_one_of_several(tmp_path: Path) -> None:
    row = {"step": 1, "prompt": "1 + 1?", "completion": "2", "advantage": 0.0}
    file = tmp_path / "completions_1.parquet"
    pd.DataFrame([{**row, "reward": 1.0, "format": 0.5}]).to_parquet(file)
    frame = open_rollouts(file)
    assert frame["reward"].tolist() == [1.5]
    assert frame["reward_logged"].tolist() == [1.0]


def test_a_shipped_run_opens_with_its_own_groups_and_rewards() -> None:
    run = Path(__file__).resolve().parents[1] / "data" / "study" / "grpo-s0"
    frame = open_rollouts(run)
    parts = sorted((run / "rollouts.parquet").glob("*.parquet"))
    assert len(frame) == sum(len(pd.read_parquet(p, columns=["step"])) for p in parts)
    assert frame.attrs["format"] == "sarlab" and frame["reward"].notna().any()
    train = frame[frame["split"] == "train"]
    assert (train.groupby("group_id")["question"].nunique() == 1).all()


def test_what_is_missing_is_null_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines({"prompt": "1 + 1?", "completion": "2"}))
    frame = open_rollouts(tmp_path / "a.jsonl")
    assert frame[["step", "gold", "reward"]].isna().all(axis=None)
    assert "Not in the file: step, gold, reward." in frame.attrs["notes"]


@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize("skip_special", [True, False])
def test_a_rendered_prompt_is_taken_apart_by_the_template(
    tiny, tmp_path, system, skip_special
) -> None:
    """verl decodes without special tokens, others with them; with and without a system turn."""
    tokenizer = copy.deepcopy(tiny.tokenizer)
    mark = tokenizer.eos_token
    tokenizer.chat_template = (
        f"{{% for m in messages %}}{mark}{{{{ m.role }}}}\n"
        f"{{{{ m.content }}}}{mark}\n{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{mark}assistant\n{{% endif %}}"
    )
    turns = [USER[0], {"role": "user", "content": "1 + 1?\nSay."}]
    if not system:
        turns = turns[1:]
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    if skip_special:
        prompt = prompt.replace(mark, "")
    foreign = "### Instruction: 1 + 1?"
    (tmp_path / "1.jsonl").write_text(
        lines(*({"input": p, "output": "2", "score": 1.0} for p in (prompt, foreign)))
    )
    frame = open_rollouts(tmp_path, tokenizer=tokenizer)
    assert frame["question"].tolist() == ["1 + 1?\nSay.", foreign]
    assert any("took 1 of 2 prompts apart" in note for note in frame.attrs["notes"])


def test_files_of_steps_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_verl(tmp_path)
    assert open_rollouts(tmp_path)["step"].tolist() == [2, 2, 10, 10]


def test_a_line_cut_off_in_the_middle_ends_the_file_and_is_said(tmp_path: Path) -> None:
    write_verl(tmp_path)
    path = tmp_path / "10.jsonl"
    path.write_text(path.read_text()[:-20])
    frame = open_rollouts(tmp_path)
    assert len(frame) == 3
    assert "10.jsonl is cut off in line 2; the lines before it were read." in frame.attrs["notes"]


def test_ten_thousand_answers_open_in_five_seconds(tmp_path: Path) -> None:
    record = {"input": "1 + 1?", "output": "word " * 200, "gts": "2", "score": 1.0}
    for step in range(20):
        (tmp_path / f"{step}.jsonl").write_text(lines(*[record] * 500))
    start = time.perf_counter()
    assert len(open_rollouts(tmp_path)) == 10_000
    assert time.perf_counter() - start < 5


def test_names_inside_an_archive_never_reach_the_disk(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.eval", "w") as archive:
        archive.writestr("samples/../../../escaped.json", json.dumps(sample("2", "C", 1)))
    before = set(tmp_path.parent.rglob("*"))
    open_rollouts(tmp_path / "log.eval")
    assert set(tmp_path.parent.rglob("*")) == before


def test_one_line_of_a_hundred_megabytes_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"prompt": "')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    start = time.perf_counter()
    with pytest.raises(ValueError, match=f"a.jsonl:1: longer than {MAX_LINE_BYTES >> 20} MiB"):
        open_rollouts(path)
    assert time.perf_counter() - start < 5


# --- broken files -------------------------------------------------------------------------------


def only_file(folder: Path) -> Path:
    return sorted(p for p in folder.rglob("*") if p.is_file())[-1]  # effective after all


def damaged(raw: bytes) -> dict[str, bytes]:
    """Ten ways in which a file of answers may be broken."""
    return {
        "empty": b"",
        "cut off": raw[: len(raw) * 3 // 4],
        "first ten bytes": raw[:10],
        "noise": bytes(range(256)) * 8,
        "text": b"these are my answers\n",
        "null": b"null",
        "a number": b"17",
        "a list of numbers": b"[1, 2, 3]",
        "an empty object": b"{}",
        "other fields": b'{"loss": 0.5, "lr": 0.001}',
    }


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("how", damaged(b""))
def test_a_broken_file_is_named_and_explained(name: str, how: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    path = only_file(tmp_path)
    path.write_bytes(damaged(path.read_bytes())[how])
    if how == "cut off" and path.suffix == ".jsonl":  # whole lines can be read
        notes = open_rollouts(path).attrs["notes"]
        assert any(f"{path.name} is cut off in line" in note for note in notes)
        return
    with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
        open_rollouts(path)
    assert len(str(caught.value)) > 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": None}, "2.jsonl:2: answer is None"),
        ({"output": ["a"]}, "2.jsonl:2: answer is"),
        ({"score": "good"}, "2.jsonl:2: reward is 'good'"),
        ({"step": "two"}, "2.jsonl:2: step is 'two'"),
        ({"step": 2.5}, "2.jsonl:2: step is 2.5"),
        ({"input": 7}, "2.jsonl:2: question is 7"),
    ],
)
def test_a_row_that_does_not_fit_is_named_by_file_and_line(change, message, tmp_path) -> None:
    good = {"input": "1 + 1?", "output": "2", "gts": "2", "score": 1.0, "step": 2}
    (tmp_path / "2.jsonl").write_text(lines(good, {**good, **change}))
    with pytest.raises(ValueError, match=message):
        open_rollouts(tmp_path)


def test_a_folder_without_answers_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "loss.csv").write_text("1,2\n")
    with pytest.raises(ValueError, match=r"it holds loss\.csv.*Looked for sarlab, TRL"):
        open_rollouts(tmp_path)


def test_two_kinds_of_files_in_one_folder_are_not_mixed(tmp_path: Path) -> None:
    write_verl(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(lines({"loss": 1.0}))
    with pytest.raises(ValueError, match=r"metrics\.jsonl:1: not a record of verl"):
        open_rollouts(tmp_path)
