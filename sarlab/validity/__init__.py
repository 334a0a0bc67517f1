"""Does a score hold on answers of known quality? From labelled answers to tables with intervals.

``records`` reads answers, ``scoring`` scores them once in parts, ``measures`` and ``claims`` say
how far what is claimed holds; ``gsm8k`` and ``failures`` make answers of known quality.
"""

from sarlab.validity.claims import (
    KNOWN_CLAIMS,
    SCORES,
    Claim,
    claim_table,
    claims_for,
    group_table,
    label_table,
    option_table,
    score_columns,
)
from sarlab.validity.measures import Contrast, Estimate, contrast
from sarlab.validity.records import LabelledAnswer, by_question, judged, read_labelled
from sarlab.validity.scoring import (
    file_digest,
    is_scored,
    read_scored,
    sample_groups,
    score_question,
    scored_run,
    ship_scored,
    standalone_prefixes,
    write_parts,
)

__all__ = [
    "KNOWN_CLAIMS",
    "SCORES",
    "Claim",
    "Contrast",
    "Estimate",
    "LabelledAnswer",
    "by_question",
    "claim_table",
    "claims_for",
    "contrast",
    "file_digest",
    "group_table",
    "is_scored",
    "judged",
    "label_table",
    "option_table",
    "read_labelled",
    "read_scored",
    "sample_groups",
    "score_columns",
    "score_question",
    "scored_run",
    "ship_scored",
    "standalone_prefixes",
    "write_parts",
]
