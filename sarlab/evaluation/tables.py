"""Tables for reading: numbers with their intervals as text, in HTML and in Markdown.

The HTML is static, with inline styles only, so that it survives an untrusted notebook, and its
colours are transparent tints that fit light and dark pages.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import pandas as pd

from sarlab.evaluation.behaviours import FILLER, label_segments

_TINTS = {
    FILLER: "rgba(230,119,11,0.30)",
    "backtracking": "rgba(148,103,189,0.30)",
    "verification": "rgba(0,158,115,0.28)",
    "sub-goals": "rgba(49,130,189,0.26)",
    "enumeration": "rgba(184,150,12,0.32)",
}
SCORE_NAMES = {
    "sar": "SAR",
    "log_sar": "SAR, log form",
    "length": "short",
    "confidence": "confidence",
    "ppl_standalone": "ppl(a)",
    "correct": "correctness",
}
"""How the scores of :data:`sarlab.validity.SCORES` are called in tables and figures."""
_CELL = "padding:3px 10px;text-align:right;white-space:nowrap"
_TEXT_CELL = "padding:3px 10px;text-align:left;min-width:9em"


def values_table(table: pd.DataFrame) -> pd.DataFrame:
    """What each policy scores, as text; ``table`` is of ``compare.arm_table`` or ``run_table``."""
    found = {"policy": table["label"]}
    if table["task"].nunique() > 1:
        found["task"] = table["task"]
    if "seeds" in table:
        found["seeds"] = [str(s) if s else "–" for s in table["seeds"]]
    lines = table.to_dict("records")
    found["accuracy (%)"] = [_with_interval(r, "accuracy", 100, 1) for r in lines]
    found["mean length (tokens)"] = [_with_interval(r, "mean_length", 1, 1) for r in lines]
    found["median"] = [_number(r["median_length"], 1, 0) for r in lines]
    found["cut off (%)"] = [_number(r["truncated_share"], 100, 1) for r in lines]
    found["SAR"] = [_with_interval(r, "sar", 1, 3) for r in lines]
    found["tokens per right answer"] = [
        _with_interval(r, "tokens_per_right_answer", 1, 1) for r in lines
    ]
    found["intervals over"] = list(table["basis"])
    return pd.DataFrame(found)


def differences_table(table: pd.DataFrame) -> pd.DataFrame:
    """How each policy differs from the baseline, paired, as text; the baseline itself left out.

    A column that says the same of all policies and is not a number is left out (the baseline) or
    empty (the note).
    """
    rest = table[~table["is_baseline"]]
    lines = rest.to_dict("records")
    found = {"policy": rest["label"]}
    if table["task"].nunique() > 1:
        found["task"] = rest["task"]
    if rest["baseline"].nunique(dropna=False) > 1:
        found["baseline"] = [_text(r["baseline"]) for r in lines]
    found["Δ accuracy (points)"] = [_with_interval(r, "d_accuracy", 100, 1, "+") for r in lines]
    found["p (accuracy)"] = [p_text(r["d_accuracy_p"]) for r in lines]
    found["Δ length (tokens)"] = [_with_interval(r, "d_length", 1, 1, "+") for r in lines]
    found["p (length)"] = [p_text(r["d_length_p"]) for r in lines]
    found["Δ length (%)"] = [_with_interval(r, "gain_length", 100, 1, "+") for r in lines]
    found["Δ cut off (points)"] = [_number(r["d_truncated"], 100, 1, "+") for r in lines]
    found["AES"] = [_with_interval(r, "aes", 1, 2, "+") for r in lines]
    found["pairs"] = [_text(r["d_basis"]) for r in lines]
    if any(rest["note"]):
        found["note"] = list(rest["note"])
    return pd.DataFrame(found)


def pair_table(table: pd.DataFrame) -> pd.DataFrame:
    """Base against one trained policy, as text: a row a quantity. ``table``: two rows."""
    base, trained = ({str(k): v for k, v in r.items()} for r in table.to_dict("records"))
    lines = []
    for title, name, factor, digits, change in (
        ("accuracy (%)", "accuracy", 100, 1, "d_accuracy"),
        ("mean length (tokens)", "mean_length", 1, 1, "d_length"),
        ("cut off at the limit (%)", "truncated_share", 100, 1, "d_truncated"),
        ("self-aligned reward", "sar", 1, 3, ""),
        ("tokens per right answer", "tokens_per_right_answer", 1, 1, ""),
        ("AES", "", 1, 2, "aes"),
    ):
        lines.append(
            {
                "quantity": title,
                "base": _with_interval(base, name, factor, digits) if name else "0",
                "trained": _with_interval(trained, name, factor, digits) if name else "",
                "difference": _with_interval(trained, change, factor, digits, "+")
                if change
                else "",
                "p": p_text(trained[f"{change}_p"]) if f"{change}_p" in trained else "",
            }
        )
    median = (_number(r["median_length"], 1, 0) for r in (base, trained))
    names = ("quantity", "base", "trained", "difference", "p")
    lines.insert(2, dict(zip(names, ("median length (tokens)", *median, "", ""), strict=True)))
    return pd.DataFrame(lines)


def behaviour_text(change: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`sarlab.evaluation.behaviours.behaviour_change` as text."""
    lines = change.to_dict("records")
    return pd.DataFrame(
        {
            "per answer": [str(name).replace("_", " ") for name in change.index],
            "base": [_number(r["base"], 1, 2) for r in lines],
            "trained": [_number(r["other"], 1, 2) for r in lines],
            "difference": [_with_interval(r, "difference", 1, 2, "+", low="low") for r in lines],
        }
    )


def labels_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`sarlab.validity.label_table` as text."""
    lines = table.to_dict("records")
    return pd.DataFrame(
        {
            "label": [str(r["label"]).replace("_", " ") for r in lines],
            "answers": [str(r["answers"]) for r in lines],
            "right (%)": [_number(r["right"], 100, 0) for r in lines],
            "mean tokens": [_number(r["tokens"], 1, 0) for r in lines],
            "mean SAR": [_number(r["sar"], 1, 3, "+") for r in lines],
            "log form (nats)": [_number(r["log_sar"], 1, 2, "+") for r in lines],
            "log ppl(a|q)": [_number(-r["confidence"], 1, 2) for r in lines],
            "log ppl(a)": [_number(r["ppl_standalone"], 1, 2) for r in lines],
            "at the clip of −1 (%)": [_number(r["clipped"], 100, 0) for r in lines],
        }
    )


def claims_text(
    table: pd.DataFrame, score: str = "sar", *, equal_length: bool = False
) -> pd.DataFrame:
    """How one score does on every claim, as text: of :func:`sarlab.validity.claim_table`."""
    lines = table[table["score"] == score].to_dict("records")
    prefix = "equal_" if equal_length else ""
    found = {
        "claim": [str(r["claim"]).replace("_", " ") for r in lines],
        "number of pairs": [str(r[f"{prefix}pairs"]) for r in lines],
        "in order (%)": [_with_interval(r, f"{prefix}share", 100, 1) for r in lines],
        "AUC": [_with_interval(r, f"{prefix}auc", 1, 3) for r in lines],
    }
    if not equal_length:
        found["effect size d"] = [_with_interval(r, "effect", 1, 2, "+") for r in lines]
    return pd.DataFrame(found)


def scores_text(table: pd.DataFrame, name: str = "share") -> pd.DataFrame:
    """One measure of :func:`sarlab.validity.claim_table` as text, a column a score.

    ``name``: share, auc or effect, or with ``equal_`` before one of the first two; shares in
    percent.
    """
    factor, digits = (100.0, 0) if name.endswith("share") else (1.0, 2)
    found: dict[str, list[str]] = {"claim": []}
    for claim, part in table.groupby("claim", sort=False):
        found["claim"].append(str(claim).replace("_", " "))
        for row in part.to_dict("records"):
            text = _with_interval({str(k): v for k, v in row.items()}, name, factor, digits)
            found.setdefault(SCORE_NAMES[row["score"]], []).append(text)
    return pd.DataFrame(found)


def groups_text(table: pd.DataFrame) -> pd.DataFrame:
    """Right against wrong within groups, as text: of :func:`sarlab.validity.group_table`."""
    lines = table.to_dict("records")
    return pd.DataFrame(
        {
            "policy": list(table["model"]),
            "right (%)": [_number(r["accuracy"], 100, 1) for r in lines],
            "groups with both": [f"{r['mixed_groups']} of {r['groups']}" for r in lines],
            "score": [SCORE_NAMES[r["score"]] for r in lines],
            "AUC within groups": [_with_interval(r, "share", 1, 3) for r in lines],
            "effect size d": [_with_interval(r, "effect", 1, 2, "+") for r in lines],
            "number of pairs": [str(r["pairs"]) for r in lines],
            "of equal length": [str(r["equal_pairs"]) for r in lines],
            "AUC, equal length": [_with_interval(r, "equal_share", 1, 3) for r in lines],
        }
    )


def options_text(table: pd.DataFrame) -> pd.DataFrame:
    """Share in order (%) by option, as text: of :func:`sarlab.validity.option_table`."""
    several = table["model"].nunique() > 1
    found: dict[str, dict[str, str]] = {}
    for row in table.to_dict("records"):
        context = str(row["standalone"]).replace("_", " ")
        column = f"{context}, {'with' if row['end_token'] else 'no'} end token"
        column = f"{row['model']}: {column}" if several else column
        if row["score"] == "log_sar":
            if row["standalone"] != "empty_turn" or not row["end_token"]:
                continue
            column = f"{row['model']}: log form" if several else "log form"
        line = found.setdefault(str(row["claim"]), {"claim": str(row["claim"]).replace("_", " ")})
        line[column] = _with_interval({str(k): v for k, v in row.items()}, "share", 100, 0)
    return pd.DataFrame(list(found.values())).fillna("–")


def html_table(text: pd.DataFrame, caption: str = "") -> str:
    """A table of text as static HTML; everything in it is escaped."""
    wide = {"note", "policy", "task", "pairs", "intervals over", "definition", "patterns"}
    wide |= {"baseline", "per answer", "behaviour", "quantity", "score", "SAR prefers", "to"}
    style = [_TEXT_CELL if c in wide else _CELL for c in text.columns]
    style[0] = f"{_TEXT_CELL};white-space:nowrap"
    line = "border-bottom:1px solid rgba(128,128,128,0.35)"
    parts = ['<table style="border-collapse:collapse;font-size:13px;margin:8px 0">']
    if caption:
        parts.append(f"<caption style='text-align:left;padding:4px 10px'>{_esc(caption)}</caption>")
    head = "".join(
        f'<th style="{s};{line}">{_esc(c)}</th>' for c, s in zip(text.columns, style, strict=True)
    )
    parts.append(f"<thead><tr>{head}</tr></thead><tbody>")
    for row in text.itertuples(index=False):
        cells = "".join(f'<td style="{s}">{_esc(v)}</td>' for v, s in zip(row, style, strict=True))
        parts.append(f"<tr>{cells}</tr>")
    return "".join([*parts, "</tbody></table>"])


def markdown_table(text: pd.DataFrame) -> str:
    """A table of text as Markdown to paste, first column left, the others right."""
    width = len(text.columns)
    lines = [list(map(str, text.columns)), ["---", *["---:"] * (width - 1)]]
    lines += [[str(v) for v in row] for row in text.itertuples(index=False)]
    escaped = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped) + "\n"


def answer_html(row: Mapping[str, Any]) -> str:
    """One answer with its behaviours tinted; hovering names them."""
    answer, parts, last = str(row["answer"]), [], 0
    for start, end, names in label_segments(answer, str(row["question"])):
        parts.append(_lines(answer[last:start]))
        text = _lines(answer[start:end])
        if names:
            tint = _TINTS[names[0]]
            text = (
                f'<span title="{_esc(", ".join(names))}" style="background-color:{tint}">{text}'
                "</span>"
            )
        parts.append(text)
        last = end
    parts.append(_lines(answer[last:]))
    mark = "✓ right" if row["correct"] else "✗ wrong"
    cut = ", cut off" if row["truncated"] else ""
    return f"<p><b>{mark}</b>, {int(row['length'])} tokens{cut}</p><p>{''.join(parts)}</p>"


def pair_html(base: Mapping[str, Any], other: Mapping[str, Any], *, is_open: bool = False) -> str:
    """A question with the answers of two policies side by side, folded away."""
    marks = " → ".join("✓" if r["correct"] else "✗" for r in (base, other))
    summary = (
        f"{marks} &nbsp; {int(base['length'])} → {int(other['length'])} tokens: "
        f"{_esc(_short(str(base['question'])))}"
    )
    cell = 'style="vertical-align:top;text-align:left;padding:4px 14px;width:50%"'
    return (
        f"<details{' open' if is_open else ''}><summary>{summary}</summary>"
        f"<p>{_lines(str(base['question']))} <i>(gold: {_esc(base['gold'])})</i></p>"
        f'<table style="width:100%;table-layout:fixed"><tr><th {cell}>base</th>'
        f"<th {cell}>trained</th></tr><tr><td {cell}>{answer_html(base)}</td>"
        f"<td {cell}>{answer_html(other)}</td></tr></table></details>"
    )


def legend_html() -> str:
    """What the tints of :func:`answer_html` mean."""
    marks = (
        f'<span style="background-color:{tint};padding:1px 6px">{_esc(name)}</span>'
        for name, tint in _TINTS.items()
    )
    return f"<p>{' '.join(marks)}</p>"


def p_text(p: float | None) -> str:
    """A p-value in words that claim no more than 9,999 permutations can show."""
    if p is None or p != p:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _with_interval(
    line: Mapping[str, Any], name: str, factor: float, digits: int, sign: str = "", low: str = ""
) -> str:
    value = line[name]
    if value is None or value != value:
        return "–"
    ends = (line[low or f"{name}_low"], line["high" if low else f"{name}_high"])
    inner = ", ".join(_number(end, factor, digits, sign) for end in ends)
    return f"{_number(value, factor, digits, sign)} [{inner}]"


def _number(value: float | None, factor: float, digits: int, sign: str = "") -> str:
    if value is None or value != value:
        return "–"
    text = f"{value * factor:{sign}.{digits}f}"
    return text.replace("-", "−")


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else "–"


def _esc(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _lines(text: str) -> str:
    return _esc(text).replace("\n", "<br>")


def _short(text: str, length: int = 90) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
