"""Write data/examples/scores.parquet: the example answers under smollm2-135m.

Run again when the examples, the prompt or the model change: python scripts/score_examples.py
"""

from sarlab import load_policy
from sarlab.widgets.candidates import read_examples, score_candidates
from sarlab.widgets.stored import EXAMPLE_SCORES, write_scores


def main() -> None:
    """Score all example answers and write the file."""
    policy = load_policy("smollm2-135m")

    def report(done: int, total: int) -> None:
        print(f"question {done} of {total}", flush=True)

    write_scores(
        policy, score_candidates(policy, read_examples(), on_question=report), EXAMPLE_SCORES
    )
    print(f"{EXAMPLE_SCORES}: {EXAMPLE_SCORES.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
