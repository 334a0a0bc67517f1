r"""What the verifier says to every row of GSM8K in many writings: the table of docs/VERIFIER.md.

    PYTHONPATH=tests python scripts/verifier_table.py PATH/gsm8k_test.jsonl PATH/gsm8k_train.jsonl \
        -o docs/VERIFIER.md

Every full solution of the first file is judged with its gold number in other writings (to be
accepted) and with other numbers and malformed answers (to be refused). The solutions of all files
give the authors' own endings.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from tqdm import tqdm
from writings import authors_ending, intermediate_values, right_writings, wrong_writings

from sarlab.tasks import judge, load_task
from sarlab.types import Question

HEAD = r"""# The verifier on every row of GSM8K

The full solution of each of the {rows:,} test questions, ending in `Answer: …` in another
writing each time; the examples are for the gold number 18 or 1000. Made by

    PYTHONPATH=tests python scripts/verifier_table.py PATH/gsm8k_test.jsonl PATH/gsm8k_train.jsonl \
        -o docs/VERIFIER.md

In all {right:,} right writings, {accepted:,} accepted; {wrong:,} wrong or malformed ones,
{refused:,} refused. The solution without an `Answer:` line was refused {bare:,} times of
{rows:,}. The same is asserted by `tests/test_tasks_real_files.py`. No text was right for two gold
answers in a search over 117,612 texts that join two numbers and 8,019 that join mathematics or
words (99 connectors, 9 wrappers): `tests/test_verify_findings.py`, which takes every tenth of them,
or all with `SARLAB_FULL_SEARCH=1`.
"""
ENDINGS = """## The authors' own endings

The last number of a solution with its unit of at most three words, as its author wrote it:
{count:,} in {files}.
Accepted: {accepted:,} ({share:.2%}), under `auto` and `math` alike.
Refused are:

{refused}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    seen: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    good: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    bare = 0
    questions = all_of(args.files[0])
    for question in tqdm(questions):
        solution = question.metadata["solution"].rpartition("####")[0]
        between = [
            ("intermediate value of the solution", value)
            for value in intermediate_values(solution, question.gold)
        ]
        for is_right, writings in (
            (True, right_writings(question.gold)),
            (False, [*wrong_writings(question.gold), *between]),
        ):
            for kind, writing in writings:
                verdict = judge(f"{solution}\nAnswer: {writing}", question.gold)
                seen[is_right][kind] += 1
                good[is_right][kind] += verdict.correct is is_right
        bare += not judge(solution, question.gold).correct
    text = [
        HEAD.format(
            rows=len(questions),
            right=seen[True].total(),
            accepted=good[True].total(),
            wrong=seen[False].total(),
            refused=good[False].total(),
            bare=bare,
        )
    ]
    for is_right, title in ((True, "accepted"), (False, "refused")):
        text += [f"## To be {title}\n", f"| writing | judged | {title} |", "| --- | ---: | ---: |"]
        text += [
            f"| {kind} | {count:,} | {good[is_right][kind]:,} |"
            for kind, count in seen[is_right].items()
        ]
        text.append("")
    text.append(endings(args.files))
    args.out.write_text("\n".join(text), encoding="utf-8")


def all_of(file: Path) -> list[Question]:
    return load_task(f"gsm8k:{file}?split=heldout").heldout()


def endings(files: list[Path]) -> str:
    """How the verifier judges what the authors wrote at the end of their solutions."""
    count, refused = 0, Counter[str]()
    for question in [question for file in files for question in all_of(file)]:
        ending = authors_ending(question.metadata["solution"].rpartition("####")[0], question.gold)
        if ending is None:
            continue
        count += 1
        if not judge(f"Answer: {ending}", question.gold).correct:
            refused[ending] += 1
    return ENDINGS.format(
        count=count,
        files=" and ".join(f"`{file.name}`" for file in files),
        accepted=count - refused.total(),
        share=1 - refused.total() / count,
        refused=", ".join(f"`{ending}`" for ending in sorted(refused)),
    )


if __name__ == "__main__":
    main()
