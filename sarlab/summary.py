"""Base against trained in a terminal: ``python -m sarlab.summary runs/<name>``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sarlab.display.tables import aligned
from sarlab.evaluation import compare
from sarlab.evaluation.policies import recorded, run_facts
from sarlab.runs.parameters import print_or_refuse


def summary_text(folder: str | Path) -> str:
    """Base and trained policy of one finished run as an aligned table, with 95% intervals.

    Raises ValueError where the folder is not a finished run.
    """
    folder = Path(folder)
    table = compare.run_table(recorded([folder]))
    trained = table.iloc[1]
    lines = [
        f"{folder.name}: {trained['arm']}, {run_facts(folder)}",
        "",
        aligned(compare.pair_table(table)),
        "",
        f"{trained['questions']} test questions; [95% interval], paired p-values; "
        f"{compare.head_of(table)}.",
    ]
    return "\n".join([*lines, *(f"Note: {note}." for note in dict.fromkeys(table["note"]) if note)])


def comparison_text(runs: Sequence[str | Path], baseline: str = "") -> str:
    """Several runs as aligned tables: values, then differences to the baseline; seeds pooled."""
    table = compare.arm_table(recorded(runs), baseline)
    shown = [aligned(t) for t in (compare.values_table(table), compare.differences_table(table))]
    return "\n\n".join([*filter(None, [compare.head_of(table)]), *shown])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 with a message where the input is not right."""
    parser = argparse.ArgumentParser(
        prog="python -m sarlab.summary", description="Base against trained, with 95% intervals."
    )
    parser.add_argument("runs", nargs="+", help="a run folder, or several to compare")
    parser.add_argument("--baseline", default="", help="a run or an arm; default: the base policy")
    given = parser.parse_args(arguments)
    if len(given.runs) == 1 and not given.baseline:
        return print_or_refuse(lambda: summary_text(given.runs[0]))
    return print_or_refuse(lambda: comparison_text(given.runs, given.baseline))


if __name__ == "__main__":
    sys.exit(main())
