"""Score GSM8K's solutions and answers spoilt on purpose, or groups sampled from the policy.

    python scripts/gsm8k_validity.py TEST.jsonl SOCRATIC.jsonl --questions 300 --out runs/validity
    python scripts/gsm8k_validity.py --task chain_sum --groups 8 --out runs/validity

The first makes up to seven labelled answers to each question (gsm8k_answers.py) and the failure
modes, and scores them with and without the question into OUT/answers; the second samples groups,
judges and scores them into OUT/groups-MODEL. Both keep a part for every few questions: run the same
command again after a kill and it goes on. ``--ship data/validity`` then writes the numbers, without
the texts, for notebook 04:

    papermill notebooks/04_reward_validity.ipynb out.ipynb -p answers runs/validity/answers
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gsm8k_answers import gsm8k_answers, read_solutions
from tqdm import tqdm

from sarlab.audit.__main__ import main as show_court
from sarlab.audit.failures import failure_answers, proof_answers
from sarlab.audit.labelled import (
    NUMBERS,
    LabelledAnswer,
    Rows,
    by_question,
    read_scored,
    score_question,
)
from sarlab.models import Policy, load_policy
from sarlab.prompts import DEFAULT_INSTRUCTION, conditioned_ids
from sarlab.rollout import sample
from sarlab.runs.atomic import read_json, write_json, write_text
from sarlab.scoring import Prefix
from sarlab.tasks import judge_all, load_task
from sarlab.types import Question

FACTS = "facts.json"  # what a folder of parts says about itself
Item = TypeVar("Item")


def write_parts(
    folder: Path,
    chunks: Sequence[Sequence[Item]],
    facts: Mapping[str, Any],
    make: Callable[[Sequence[Item]], Rows],
) -> Iterator[int]:
    """Make one part a chunk, each whole or absent; yields the items done so far, old ones first.

    ``facts`` describe what is scored and stand in the folder. A folder that was begun goes on where
    the facts are the same, and is refused with ValueError where they are not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = json.loads(json.dumps(facts))
    if (folder / FACTS).exists():
        before = read_json(folder / FACTS)
        changed = [k for k in {**before, **given} if before.get(k) != given.get(k)]
        if changed:
            name = changed[0]
            raise ValueError(
                f"{folder} was begun with {name} = {before.get(name)!r:.60}, now it is "
                f"{given.get(name)!r:.60}. Name another folder, or remove this one."
            )
    else:
        write_json(folder / FACTS, given)
    parts = [folder / f"part-{number:05d}.jsonl" for number in range(len(chunks))]
    done = sum(len(c) for c, p in zip(chunks, parts, strict=True) if p.exists())
    yield done
    for part, chunk in zip(parts, chunks, strict=True):
        if not part.exists():
            lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in make(chunk)]
            write_text(part, "".join(line + "\n" for line in lines))
            done += len(chunk)
            yield done


def sample_groups(
    policy: Policy,
    questions: Sequence[Question],
    *,
    group_size: int,
    max_answer_tokens: int,
    seed: int,
    on_token: Callable[[int, int], None] | None = None,
) -> list[list[LabelledAnswer]]:
    """``group_size`` sampled answers to each question, labelled ``right`` or ``wrong``.

    The draw depends on the seed and the questions alone, so a part that is made again is the same.
    """
    prefixes = [
        Prefix(tuple(conditioned_ids(policy.tokenizer, q.text, policy.prompt))) for q in questions
    ]
    rollouts = sample(
        policy,
        prefixes,
        group_size=group_size,
        max_answer_tokens=max_answer_tokens,
        seed=f"validity {seed} {' '.join(q.id for q in questions)}",
        on_token=on_token,
    )
    drawn = [questions[i] for i in rollouts.group_ids.tolist()]
    groups: list[list[LabelledAnswer]] = [[] for _ in questions]
    for row, verdict in enumerate(judge_all(rollouts.texts, drawn)):
        length = int(rollouts.lengths[row])
        groups[int(rollouts.group_ids[row])].append(
            LabelledAnswer(
                question=drawn[row].text,
                answer=rollouts.texts[row],
                label="right" if verdict.correct else "wrong",
                correct=verdict.correct,
                gold=drawn[row].gold,
                answer_ids=tuple(rollouts.answer_ids[row, :length].tolist()),
            )
        )
    return groups


def ship_scored(folder: Path, target: Path) -> None:
    """Write the numbers of scored answers, without their texts, as one parquet file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    read_scored(folder)[list(NUMBERS)].to_parquet(target, index=False, compression="zstd")


def file_digest(path: Path) -> str:
    """The first 16 hex digits of a file's SHA-256: which data were scored."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def corpus(args: argparse.Namespace) -> tuple[list[list[LabelledAnswer]], dict[str, Any]]:
    """Answers to score, by question, and the facts that say which they are."""
    if len(args.files) != 2:
        raise ValueError(
            f"{len(args.files)} files; give two, GSM8K's test file and its Socratic twin, or "
            "sample groups with --task and --groups."
        )
    solutions, socratic = (read_solutions(path) for path in args.files)
    answers = gsm8k_answers(solutions, socratic, args.questions, args.seed)
    asked = {a.question: Question(a.question, str(a.gold)) for a in answers}
    right, wrong = (
        {a.question: a.answer for a in answers if a.label == label}
        for label in ("solution", "operations_changed")
    )
    answers += failure_answers(list(asked.values()), right, wrong)
    groups = by_question([*answers, *proof_answers(min(30, max(2, args.questions)))])
    facts = {"files": [file_digest(path) for path in args.files], **common(args)}
    return groups, facts


def common(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of both modes."""
    return {
        "model": args.model,
        "questions": args.questions,
        "seed": args.seed,
        "chunk": args.chunk,
        "system_turn": DEFAULT_INSTRUCTION,
    }


def cut(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """The items in chunks of ``size``; the last may be smaller."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def follow(steps: Any, total: int, unit: str) -> None:
    """Go through a generator of counts with a bar that knows what was done before."""
    with tqdm(total=total, unit=unit, smoothing=0.05) as bar:
        for done in steps:
            if bar.n == 0:
                bar.initial = done  # so that the time left is that of this run
            bar.update(done - bar.n)


def score_answers(args: argparse.Namespace) -> Path:
    """The first mode."""
    groups, facts = corpus(args)
    out = args.out / "answers"
    policy = load_policy(args.model)

    def make(chunk: Sequence[list[LabelledAnswer]]) -> list[dict[str, Any]]:
        return [row for answers in chunk for row in score_question(policy, answers)]

    follow(write_parts(out, cut(groups, args.chunk), facts, make), len(groups), "question")
    show_court(["pairs", str(out)])
    return out


def score_groups(args: argparse.Namespace) -> Path:
    """The second mode: within the policy's own groups."""
    task = args.task or (f"gsm8k:{args.files[0]}?split=heldout" if args.files else "")
    if not task:
        raise ValueError("--groups needs --task, or GSM8K's test file, to take questions from.")
    questions = load_task(task).heldout(args.questions)
    facts = {
        **common(args),
        "task": args.task or f"gsm8k {file_digest(args.files[0])}",
        "group_size": args.groups,
        "max_answer_tokens": args.max_answer_tokens,
    }
    out = args.out / f"groups-{Path(args.model).name}"
    policy = load_policy(args.model)

    def make(chunk: Sequence[Question]) -> list[dict[str, Any]]:
        groups = sample_groups(
            policy,
            chunk,
            group_size=args.groups,
            max_answer_tokens=args.max_answer_tokens,
            seed=args.seed,
        )
        return [row for answers in groups for row in score_question(policy, answers)]

    steps = write_parts(out, cut(questions, args.chunk), facts, make)
    follow(steps, len(questions), "question")
    show_court(["groups", str(out)])
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="GSM8K's test file, its Socratic twin")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/validity"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--seed", type=int, default=0, help="draws the questions and the slips")
    parser.add_argument("--chunk", type=int, default=5, help="questions per part")
    parser.add_argument("--groups", type=int, default=0, help="sample groups of so many answers")
    parser.add_argument("--task", default="", help="where the questions of sampled groups are from")
    parser.add_argument("--max-answer-tokens", type=int, default=256, help="of a sampled answer")
    parser.add_argument("--ship", type=Path, help="write the numbers, no texts, into this folder")
    args = parser.parse_args()
    try:
        out = score_groups(args) if args.groups else score_answers(args)
        if args.ship:
            ship_scored(out, args.ship / f"{out.name}.parquet")
            print(args.ship / f"{out.name}.parquet")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
