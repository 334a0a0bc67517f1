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
from sarlab.validity.failures import FAILURES, MODES, Mode, failure_answers, proof_answers
from sarlab.validity.gsm8k import KINDS, gsm8k_answers, read_solutions
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
    "FAILURES",
    "KINDS",
    "KNOWN_CLAIMS",
    "MODES",
    "SCORES",
    "Claim",
    "Contrast",
    "Estimate",
    "LabelledAnswer",
    "Mode",
    "by_question",
    "claim_table",
    "claims_for",
    "contrast",
    "failure_answers",
    "file_digest",
    "group_table",
    "gsm8k_answers",
    "is_scored",
    "judged",
    "label_table",
    "option_table",
    "proof_answers",
    "read_labelled",
    "read_scored",
    "read_solutions",
    "sample_groups",
    "score_columns",
    "score_question",
    "scored_run",
    "ship_scored",
    "standalone_prefixes",
    "write_parts",
]
