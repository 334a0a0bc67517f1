"""The numbers behind the tables of notebooks 03 and 04 on the data that ships, as a record.

    python tests/record_tables.py            # compares with tests/record_tables.json
    python tests/record_tables.py --write    # makes that file anew

A change of code that is not meant to change numbers leaves all of them as they are, to 1e-5.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from sarlab.audit.courts import (
    label_table,
    option_table,
    pairs_court,
    policy_table,
    score_columns,
)
from sarlab.audit.failures import FAILURES
from sarlab.audit.labelled import claims_for, read_scored
from sarlab.evaluation.behaviours import behaviour_change
from sarlab.evaluation.compare import arm_table, run_table
from sarlab.evaluation.policies import recorded, token_texts
from sarlab.models import DATA

RECORD = Path(__file__).with_suffix(".json")
TOLERANCE = 1e-5


def study_tables() -> dict[str, pd.DataFrame]:
    """Notebook 03 on the shipped study, against the base and against GRPO."""
    policies = recorded(DATA / "study")
    base = policies[0]
    found = {
        "arms against the base": arm_table(policies),
        "arms against GRPO": arm_table(policies, "GRPO"),
        "runs against grpo-s0": run_table(policies, "grpo-s0"),
    }
    for arm in ("GRPO", "SA-GRPO α=0.2"):
        chosen = [e for e in policies if e.arm == arm]
        texts = token_texts(chosen[0])
        change = behaviour_change(base.rows, *(e.rows for e in chosen), token_text=texts)
        found[f"behaviours of {arm}"] = change.reset_index()
    return found


def validity_tables() -> dict[str, pd.DataFrame]:
    """Notebook 04 on the shipped GSM8K answers and sampled groups."""
    table = read_scored(DATA / "validity" / "answers.parquet")
    tricks = table["group"].str.endswith(f"/{FAILURES}")
    answers, failures = table[~tricks], table[tricks]
    claims = claims_for(answers["label"].tolist())
    shipped = sorted((DATA / "validity").glob("groups-*.parquet"))
    groups = pd.concat(map(read_scored, shipped), ignore_index=True)
    policies = policy_table(groups, score_columns(groups))
    return {
        "labels": label_table(answers, score_columns(answers)),
        "claims": claims_recorded(answers, claims),
        "options": option_table(answers, claims[:3]).rename(columns={"design": "score"}),
        "failures": label_table(failures, score_columns(failures)),
        "groups": policies.rename(columns={"design": "score"}),
    }


def claims_recorded(answers: pd.DataFrame, claims: list[str]) -> pd.DataFrame:
    """The court of pairs on SAR and what it is compared with, under the record's names."""
    scores = score_columns(answers)
    court = pairs_court(answers, scores, claims, tolerance=0.1)
    # Holm's p-value depends on how many claims there are, and the test takes one.
    return court.rename(columns={"design": "score"}).drop(columns="share_holm")


def plain_numbers(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Tables as lists of columns, numbers at eight digits, so that a file of them is small."""
    return {
        name: {str(c): [_short(v) for v in table[c].tolist()] for c in table}
        for name, table in tables.items()
    }


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Each value of the old record that the new one lacks or has otherwise."""
    found = []
    for name, columns in old.items():
        for column, values in columns.items():
            fresh = new.get(name, {}).get(column)
            if fresh is None or len(fresh) != len(values):
                found.append(f"{name}: no {column}")
                continue
            for row, (a, b) in enumerate(zip(values, fresh, strict=True)):
                if not _same(a, b):
                    found.append(f"{name}, row {row}: {column} was {a}, is {b}")
    return found


def _short(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.8g}") if math.isfinite(value) else None
    return value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float | int) and isinstance(b, float | int):
        return abs(a - b) <= TOLERANCE * max(1.0, abs(a))
    return bool(a == b)


if __name__ == "__main__":
    numbers = plain_numbers({**study_tables(), **validity_tables()})
    if "--write" in sys.argv:
        RECORD.write_text(json.dumps(numbers, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        print("\n".join(differences(json.loads(RECORD.read_text(encoding="utf-8")), numbers)))
