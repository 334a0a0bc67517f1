"""Base against trained in a few lines of a terminal: ``python -m sarlab.summary runs/<name>``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sarlab.evaluation.compare import arm_table
from sarlab.evaluation.policies import arm_labels, recorded
from sarlab.evaluation.tables import differences_table, p_text, values_table


def summary_text(folder: str | Path) -> str:
    """Aligned lines on one finished run: accuracy and length of base and trained policy.

    With 95% bootstrap intervals over the held-out questions and the paired difference. Raises
    ValueError where the folder is not a finished run.
    """
    folder = Path(folder)
    path = folder / "summary.json"
    if not path.exists():
        raise ValueError(
            f"{folder} is not a finished run (it has no summary.json). Its run.json says how far "
            "it came; go on with resume=True."
        )
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = [_header(folder, found), ""]
    rows: list[tuple[str, ...]] = [("", "base", "trained", "difference")]
    for title, name, factor, unit, column in (
        ("accuracy", "accuracy", 100, "%", "accuracy"),
        ("mean length", "mean_length", 1, "tokens", "mean_length"),
    ):
        change = found["difference"][column]
        rows.append(
            (
                f"{title} ({unit})",
                *(_cell(found[who], name, factor) for who in ("base", "trained")),
                f"{_signed(change['difference'], factor)} [{_signed(change['ci95'][0], factor)}, "
                f"{_signed(change['ci95'][1], factor)}]  p {_p(change['p_value'])}",
            )
        )
    for title, name, factor, digits in (
        ("cut off at the limit (%)", "truncated_share", 100, 1),
        ("self-aligned reward", "sar", 1, 3),
    ):
        if found["base"][name] is not None and found["trained"][name] is not None:
            base, trained = found["base"][name], found["trained"][name]
            change = f"{(trained - base) * factor:+.{digits}f}"
            numbers = (f"{v * factor:.{digits}f}" for v in (base, trained))
            rows.append((title, *numbers, change))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    questions = found["trained"]["questions"]
    lines += [
        "",
        f"{questions} held-out questions; [95% interval over questions], paired p-values.",
    ]
    cut = found["trained"]["truncated_share"] - found["base"]["truncated_share"]
    if cut > 0 and found["difference"]["mean_length"]["difference"] < 0:
        lines.append(f"Note: {cut * 100:.1f} points more answers are cut off at the length limit.")
    return "\n".join(lines)


def comparison_text(runs: Sequence[str | Path], baseline: str = "") -> str:
    """Several runs as aligned tables: values, then differences to the baseline; seeds pooled."""
    table = arm_table(recorded(runs), baseline)
    return "\n\n".join(
        shown.to_string(index=False) for shown in (values_table(table), differences_table(table))
    )


def _header(folder: Path, found: Mapping[str, Any]) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    minutes = found["train_seconds"] / 60
    return (
        f"{folder.name}: {arm_labels([config], [found['steps']])[0]}, {found['steps']} steps on "
        f"{found['task']} with {found['model']}, seed {found['seed']}, {minutes:.1f} min "
        f"({found['hardware']})"
    )


def _cell(summary: Mapping[str, Any], name: str, factor: float) -> str:
    low, high = summary[f"{name}_ci95"]
    return f"{summary[name] * factor:.1f} [{low * factor:.1f}, {high * factor:.1f}]"


def _signed(value: float, factor: float) -> str:
    return f"{value * factor:+.1f}"


def _p(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 with a message where the input is not right."""
    parser = argparse.ArgumentParser(
        prog="python -m sarlab.summary", description="Base against trained, with 95%% intervals."
    )
    parser.add_argument("runs", nargs="+", help="a run folder, or several to compare")
    parser.add_argument("--baseline", default="", help="a run or an arm; default: the base policy")
    given = parser.parse_args(arguments)
    try:
        if len(given.runs) == 1 and not given.baseline:
            print(summary_text(given.runs[0]))
        else:
            print(comparison_text(given.runs, given.baseline))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
