"""Write data/examples/scores.parquet: the example answers under smollm2-135m.

Run again when the examples, the prompt or the model change: python scripts/score_examples.py
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sarlab import Policy, load_policy
from sarlab.widgets.candidates import Candidate, read_examples, score_candidates
from sarlab.widgets.stored import EXAMPLE_SCORES, identity, text_key


def write_scores(policy: Policy, candidates: Sequence[Candidate], path: Path) -> None:
    """Write scores with the hashes by which ``stored_scores`` finds them again."""
    scores = [c.score for c in candidates]
    logs = pa.list_(pa.float32())
    table = pa.table(
        {
            "text_key": [text_key(c) for c in candidates],
            "token_ids": pa.array([s.token_ids for s in scores], pa.list_(pa.int32())),
            "tokens": [s.tokens for s in scores],
            "logps_conditioned": pa.array([s.logps_conditioned for s in scores], logs),
            "logps_standalone": pa.array([s.logps_standalone for s in scores], logs),
        }
    )
    table = table.replace_schema_metadata(dict(identity(policy)))
    pq.write_table(table, path, compression="zstd")


def main() -> None:
    """Score all example answers and write the file."""
    policy = load_policy("smollm2-135m")
    write_scores(policy, score_candidates(policy, read_examples()), EXAMPLE_SCORES)
    print(f"{EXAMPLE_SCORES}: {EXAMPLE_SCORES.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
