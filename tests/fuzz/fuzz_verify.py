"""Coverage-guided fuzzing of the parser and the verifier with atheris, outside the test suite.

    python -m pip install atheris     # into an environment of its own, not among the locks
    python tests/fuzz/fuzz_verify.py -timeout=60 -max_total_time=300 [FOLDER OF INPUTS]

What must hold for every text is in :func:`check`, which test_fuzz.py runs on hypothesis' texts.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import atheris

with atheris.instrument_imports(include=["sarlab.tasks"]):
    from fuzz_rules import GOLDS, check

    from sarlab.tasks import warm_up


def one_input(data: bytes) -> None:
    """The first byte picks the gold answer, the rest is the text."""
    provider = atheris.FuzzedDataProvider(data)
    gold = GOLDS[provider.ConsumeIntInRange(0, len(GOLDS) - 1)]
    check(provider.ConsumeUnicode(4000), gold, limit_s=10.0)  # instrumented code is slower


if __name__ == "__main__":
    warm_up()  # a few seconds, once; the limit is for a judgement
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
