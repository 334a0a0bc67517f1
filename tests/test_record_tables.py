"""The tables of notebooks 03 and 04 on the data that ships are those of the record, to 1e-5."""

import json

from record_tables import RECORD, differences, plain_numbers

from sarlab.audit.claims import claim_table, claims_for, label_table
from sarlab.audit.failures import FAILURES
from sarlab.audit.scoring import read_scored
from sarlab.evaluation.compare import arm_table
from sarlab.evaluation.policies import recorded
from sarlab.models import DATA


def test_the_shipped_study_gives_the_recorded_table():
    old = json.loads(RECORD.read_text("utf-8"))
    new = plain_numbers({"arms against GRPO": arm_table(recorded(DATA / "study"), "GRPO")})
    assert differences({k: old[k] for k in new}, new) == []


def test_the_shipped_gsm8k_answers_give_the_recorded_labels_and_claims():
    old = json.loads(RECORD.read_text("utf-8"))
    table = read_scored(DATA / "validity" / "answers.parquet")
    answers = table[~table["group"].str.endswith(f"/{FAILURES}")]
    claims = claims_for(answers["label"].tolist())
    new = plain_numbers(
        {"labels": label_table(answers), "claims": claim_table(answers, claims[:1])}
    )
    rows = len(new["claims"]["claim"])
    first = {column: values[:rows] for column, values in old["claims"].items()}
    assert differences({"labels": old["labels"], "claims": first}, new) == []
