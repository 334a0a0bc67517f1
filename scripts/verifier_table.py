"""What the verifier says to every row of GSM8K in many writings: the table of docs/VERIFIER.md.

    PYTHONPATH=tests python scripts/verifier_table.py PATH/gsm8k_test.jsonl -o docs/VERIFIER.md

Every full solution is judged with its gold number in other writings (to be accepted) and with other
numbers and malformed answers (to be refused).
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from tqdm import tqdm
from writings import intermediate_values, right_writings, wrong_writings

from sarlab.tasks import judge, load_task

HEAD = """# The verifier on every row of GSM8K

The full solution of each of the {rows:,} test questions, ending in `Answer: …` in another
writing each time; the examples are for the gold number 18 or 1000. Made by

    PYTHONPATH=tests python scripts/verifier_table.py PATH/gsm8k_test.jsonl -o docs/VERIFIER.md

In all {right:,} right writings, {accepted:,} accepted; {wrong:,} wrong or malformed ones,
{refused:,} refused. The solution without an `Answer:` line was refused {bare:,} times of {rows:,}.
The same is asserted by `tests/test_tasks_real_files.py`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    seen: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    good: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    bare = 0
    questions = load_task(f"gsm8k:{args.file}?split=heldout").heldout()
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
    args.out.write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
