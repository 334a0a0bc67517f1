"""The tables of notebooks 03 and 04 on the data that ships are those of the record, to 1e-5."""

import json

from record_tables import RECORD, claims_recorded, differences, plain_numbers

from sarlab.audit.courts import label_table, score_columns
from sarlab.audit.failures import FAILURES
from sarlab.audit.labelled import claims_for, read_scored
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
        {
            "labels": label_table(answers, score_columns(answers)),
            "claims": claims_recorded(answers, claims[:1]),
        }
    )
    rows = len(new["claims"]["claim"])
    first = {column: values[:rows] for column, values in old["claims"].items()}
    assert differences({"labels": old["labels"], "claims": first}, new) == []
