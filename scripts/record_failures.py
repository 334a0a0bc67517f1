"""Write data/page/failures.json: answers made to trick SAR, scored by smollm2-135m.

    python scripts/record_failures.py

The gallery of the stand-alone page (scripts/build_page.py). Questions and right answers are those
of data/examples; the bad ones are made by sarlab.audit.failures. Log-probs in nats.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from sarlab import load_policy, score_answers
from sarlab.audit.failures import MODES, failure_answers, proof_answers
from sarlab.types import Question

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "data" / "examples" / "answers.jsonl"
TARGET = ROOT / "data" / "page" / "failures.json"
MODEL = "smollm2-135m"
QUESTIONS, LANGUAGES, PROOFS = 3, 2, 2  # how many questions of each
LANGUAGE_KINDS = ("english", "german", "english_wrong")


def chosen_answers() -> dict[str, list[Any]]:
    """Labelled answers by question, the kinds of language apart from the other tricks."""
    rows = [json.loads(line) for line in EXAMPLES.read_text("utf-8").splitlines()]
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        texts[row["kind"]][row["question"]] = row["answer"]
    questions = [Question(q, g) for q, g in {r["question"]: r["gold"] for r in rows}.items()]
    by_question: dict[str, list[Any]] = defaultdict(list)
    languages: dict[str, list[Any]] = defaultdict(list)
    for answer in failure_answers(questions, texts["concise"], texts["wrong"]):
        place = languages if answer.label in LANGUAGE_KINDS else by_question
        place[answer.question].append(answer)
    found = dict(list(by_question.items())[:: max(1, len(by_question) // QUESTIONS)][:QUESTIONS])
    found |= {f"{q}\0": a for q, a in list(languages.items())[:LANGUAGES]}
    for answer in proof_answers(PROOFS):
        found.setdefault(answer.question, []).append(answer)
    return found


def main() -> None:
    policy = load_policy(MODEL)
    about = {claim.split(" > ")[1]: mode for mode in MODES for claim in mode.claims}
    examples = []
    for key, answers in chosen_answers().items():
        question = key.rstrip("\0")
        scores = score_answers(policy, question, [a.answer for a in answers], alternatives=True)
        entries = []
        for answer, score in zip(answers, scores, strict=True):
            mode = about.get(answer.label)
            entries.append(
                {
                    "kind": answer.label.replace("_", " "),
                    "about": mode.about if mode else "",
                    "right": bool(answer.correct),
                    "text": answer.answer,
                    "tokens": list(score.tokens),
                    "with": [round(p, 4) for p in score.logps_conditioned],
                    "without": [round(p, 4) for p in score.logps_standalone],
                    "top_with": [_side(a) for a in score.alternatives_conditioned],
                    "top_without": [_side(a) for a in score.alternatives_standalone],
                    "sar": round(score.sar, 5),
                }
            )
        examples.append({"question": question, "answers": entries})
        print(f"{question[:60]}: {len(entries)} answers", flush=True)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(examples, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size:,} bytes")


def _side(alternatives: Any) -> dict[str, Any]:
    """What one context would rather have seen at a token."""
    return {
        "rank": alternatives.rank,
        "top": [[name, round(logp, 2)] for name, logp in alternatives.top],
    }


if __name__ == "__main__":
    main()
