"""A verifier for a policy that has never seen `Answer:`, named in a task as `lenient:last_number`.

The embedded SmolLM2 writes the marker in one answer of ten, so with the built-in verifier nearly
every group would be all wrong. This one reads the last number of the answer, wherever it stands.
"""

from __future__ import annotations

import re

# A minus belongs to the number unless something is subtracted ("8 - 3", "8-3").
_NUMBER = re.compile(r"(?<!\d)(?<!\d )-?\d+(?:\.\d+)?", re.ASCII)


def last_number(text: str, gold: str) -> bool:
    """Whether the last number in ``text`` equals ``gold``; thousands separators do not matter."""
    found = _NUMBER.findall(text.replace(",", ""))
    return bool(found) and float(found[-1]) == float(gold)
