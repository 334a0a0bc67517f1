"""Score GSM8K's solutions and answers spoilt on purpose, or groups sampled from the policy.

    python scripts/gsm8k_validity.py TEST.jsonl SOCRATIC.jsonl --questions 300 --out runs/validity
    python scripts/gsm8k_validity.py --task chain_sum --groups 8 --out runs/validity

The first makes up to seven kinds of answers to each question (sarlab/validity/gsm8k.py) and the
failure modes, and scores them with and without the question into OUT/answers; the second samples
groups, judges and scores them into OUT/groups-MODEL. Both keep a part a few questions: run the same
command again after a kill and it goes on. ``--ship data/validity`` then writes the numbers, without
the texts, for notebook 04:

    papermill notebooks/04_reward_validity.ipynb out.ipynb -p answers runs/validity/answers
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sarlab.evaluation.tables import claims_text, groups_text, scores_text
from tqdm import tqdm

from sarlab.models import load_policy
from sarlab.prompts import DEFAULT_INSTRUCTION
from sarlab.tasks import load_task
from sarlab.types import Question
from sarlab.validity import (
    FAILURES,
    LabelledAnswer,
    by_question,
    claim_table,
    claims_for,
    failure_answers,
    file_digest,
    group_table,
    gsm8k_answers,
    proof_answers,
    read_scored,
    read_solutions,
    sample_groups,
    score_question,
    ship_scored,
    standalone_prefixes,
    write_parts,
)


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
        {a.question: a.answer for a in answers if a.label == kind}
        for kind in ("solution", "operations_changed")
    )
    answers += failure_answers(list(asked.values()), right, wrong)
    groups = by_question([*answers, *proof_answers(min(30, max(2, args.questions)))])
    facts = {"files": [file_digest(path) for path in args.files], **common(args)}
    return groups, facts


def common(args: argparse.Namespace) -> dict[str, Any]:
    """What both modes are told."""
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
    alone = standalone_prefixes(policy)

    def make(chunk: Sequence[list[LabelledAnswer]]) -> list[dict[str, Any]]:
        return [row for answers in chunk for row in score_question(policy, answers, alone)]

    follow(write_parts(out, cut(groups, args.chunk), facts, make), len(groups), "question")
    table = read_scored(out)
    table = table[~table["group"].str.endswith(FAILURES)]
    found = claim_table(table, claims_for(table["label"]))
    for text in (claims_text(found), scores_text(found), scores_text(found, "equal_share")):
        print(text.to_string(index=False), end="\n\n")
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
    alone = standalone_prefixes(policy)

    def make(chunk: Sequence[Question]) -> list[dict[str, Any]]:
        groups = sample_groups(
            policy,
            chunk,
            group_size=args.groups,
            max_answer_tokens=args.max_answer_tokens,
            seed=args.seed,
        )
        return [row for answers in groups for row in score_question(policy, answers, alone)]

    steps = write_parts(out, cut(questions, args.chunk), facts, make)
    follow(steps, len(questions), "question")
    print(groups_text(group_table(read_scored(out))).to_string(index=False))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="GSM8K's test file, its Socratic twin")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/validity"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--seed", type=int, default=0, help="draws the questions and the slips")
    parser.add_argument("--chunk", type=int, default=5, help="questions a part")
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
