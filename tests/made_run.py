"""What a user brings, for the tests: a finished run without its training, labelled answers."""

from __future__ import annotations

import json
from pathlib import Path

from sarlab import score_answers
from sarlab.models import Policy
from sarlab.rewards.answers import question_prefixes
from sarlab.rollout import sample
from sarlab.runs.folder import Run, write_json
from sarlab.tasks import judge
from sarlab.types import Question


def make_run(
    folder: Path,
    policy: Policy,
    questions: list[Question],
    steps: int = 3,
    group: int = 4,
    limit: int = 60,
) -> Path:
    """Write a run whose probe questions were answered at every step."""
    run = Run.create(folder, {"model": policy.reference, "seed": 0})
    for step in range(steps):
        rows = []
        for index, question in enumerate(questions):
            prefix, _ = question_prefixes(policy, question.text)
            found = sample(
                policy, [prefix], group_size=group, max_answer_tokens=limit, seed=f"{step} {index}"
            )
            pairs = zip(found.answer_ids, found.lengths.tolist(), strict=True)
            ids = [row[:n].tolist() for row, n in pairs]
            for score, cut in zip(
                score_answers(policy, question.text, ids), found.truncated.tolist(), strict=True
            ):
                verdict = judge(score.answer, question.gold)
                rows.append(
                    {
                        "step": step,
                        "split": "probe",
                        "group_id": index,
                        "question_id": question.id,
                        "question": question.text,
                        "gold": question.gold,
                        "answer": score.answer,
                        "answer_ids": list(score.token_ids),
                        "logps_conditioned": list(score.logps_conditioned),
                        "logps_standalone": list(score.logps_standalone),
                        "length": score.length,
                        "truncated": cut,
                        "correct": verdict.correct,
                        "verdict": verdict.reason,
                        "ppl_conditioned": score.ppl_conditioned,
                        "ppl_standalone": score.ppl_standalone,
                        "sar": score.sar,
                        "reward": verdict.correct + 0.2 * score.sar,
                        "advantage": 0.0,
                    }
                )
        run.write_rollouts(step, "probe", rows)
    write_json(folder / "summary.json", {"base": {}, "trained": {}})
    run.close()
    return folder


def labelled_rows(better: str, worse: str) -> list[dict[str, str]]:
    """A right and a wrong answer to each of three questions, under these labels."""
    return [
        {
            "question": f"Ada has {n} pears and eats 2. How many are left?",
            "label": label,
            "answer": answer,
            "gold": str(n - 2),
        }
        for n in (7, 12, 30)
        for label, answer in (
            (better, f"{n} - 2 = {n - 2}.\nAnswer: {n - 2}"),
            (worse, f"Well, {n} it is.\nAnswer: {n}"),
        )
    ]


def write_rows(path: Path, rows: list[dict[str, str]]) -> str:
    """The rows as JSON lines; the path as a parameter."""
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)
