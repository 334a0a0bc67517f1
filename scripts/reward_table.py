"""Write docs/REWARDS.md: every design with its formula, what it needs, and both courts' tables.

python scripts/reward_table.py > docs/REWARDS.md
"""

from __future__ import annotations

import json
import re
import statistics

from sarlab.audit.courts import (
    groups_court,
    groups_text,
    paid_answers,
    pairs_court,
    pairs_text,
    pivot_text,
    rank_agreement,
)
from sarlab.display.tables import Column, markdown_table
from sarlab.models import DATA, REPOSITORY
from sarlab.rewards import REWARDS

RESULTS = REPOSITORY / "benchmarks" / "results" / "design_cost.json"
NO_PASS = 0.005  # seconds below which nothing was scored
HEAD = """# Rewards

R = R_right + α·bonus, R_right = 1 for a right answer and 0 for any other; designs that *replace*
correctness are R themselves. n is an answer's length in tokens, c 1 for a right answer, p the
share of right answers in the group, V = log P(a|q) − log P(a). Numbers in brackets are arXiv
identifiers. Checked in `tests/test_rewards.py` and `tests/test_reward_zoo.py`: groups worked by
hand, and TRL's own code where it has the design. Strengths differ:
`sarlab.rewards.diagnostics.matched_alpha` gives the α at which a design shortens as SAR does at
0.2. Made by `python scripts/reward_table.py`.

| name | bonus per answer | replaces correctness | needs beyond the sampling pass |
| --- | --- | --- | --- |"""

GROUPS = """
## What each pays within a policy's own groups

    python -m sarlab.audit groups data/validity/{name}.parquet

{about}. AUC: chance that the bonus of a right answer is above that of a wrong one of its group; p
against one half, Holm over the designs. Length share: of the bonus's variance within groups, what a
monotone function of length explains. Slope: per 10 tokens, among right answers. Signal: groups
whose rewards differ at α = 0.2. Last column: the α at which a design shortens as SAR does at 0.2,
where it surely shortens. 95% intervals over questions.
"""
AGREEMENT = """
## How far they agree

Spearman's rank correlation of two designs within the groups of `tiny`, 95% intervals over
questions. Groups in which one of the two pays all answers the same are left out; `soft_overlong`
differs in few groups, by one answer each, so its intervals rest on little.

<details><summary>The table</summary>
"""
PAIRS = """
## What each pays on answers of known quality

    python -m sarlab.audit pairs data/validity/answers.parquet

4,049 answers to GSM8K questions, made by `scripts/gsm8k_validity.py`, scored by `smollm2-135m`.
Share of pairs (%) in which the bonus pays the first answer more, 95% intervals over questions; ties
count half. °: not told apart from one half (Holm over the table). Designs that read more than sums
of log-probs need a file of texts.
"""
COST = """
## What each adds to a step

    OMP_NUM_THREADS=1 BENCH_CLOCK=cpu python benchmarks/design_cost.py

A step of GRPO with the design over one with correctness alone, side by side on the same
{questions} × {group_size} answers of `tiny` to word problems ({tokens:.0f} tokens on average):
median of {rounds} rounds (smallest to largest). {machine}.
CPU time with one thread is wall time on a quiet machine; this one was busy, so differences below a
tenth say nothing. Extra passes: what scoring for this design alone takes, seconds.

| design | a step with it over one without | extra passes (s) |
| --- | --- | --- |"""
SAYS = """
**What the tables support.** Length in disguise on `tiny` (length share surely above 0.9):
{length}. Right above wrong on `tiny` by the bonus alone: {right}. Of these, `sar_right`, `laser`,
`l1_max`, `dast` and `cosine` judge the answer first, so they do it by construction. Paid more for a
copy of the question than for a right answer: {copied}. By these two
courts (training: EVIDENCE, plan G): who wants short answers takes a length design, which costs no
pass; who wants a signal where no answer can be judged takes `confidence` or `sar_lambda`, and keeps
correctness beside it against copies.
"""


def courts() -> None:
    """The tables of both courts on the answers that ship, and what they say."""
    groups = {}
    for name, about in (
        ("groups-tiny", "300 × 8 answers of `tiny`"),
        ("groups-model", "36 × 16 answers of `smollm2-135m` to sums (scripts/smollm2_study.py)"),
    ):
        groups[name] = groups_court(*paid_answers(DATA / "validity" / f"{name}.parquet"))
        print(GROUPS.format(name=name, about=about))
        print(markdown_table(groups_text(groups[name])))
    print(AGREEMENT)
    agreement = rank_agreement(*paid_answers(DATA / "validity" / "groups-tiny.parquet"))
    text = pivot_text(agreement, Column("", "agreement", 2, 1, "+"), "design", "other")
    print(markdown_table(text) + "\n</details>\n")
    pairs = pairs_court(*paid_answers(DATA / "validity" / "answers.parquet"))
    print(PAIRS)
    print(markdown_table(pairs_text(pairs)))
    tiny = groups["groups-tiny"]
    copied = pairs[(pairs["claim"] == "right > copied_question") & (pairs["share_high"] < 0.5)]
    chosen = {
        "length": tiny[tiny["length_share_low"] > 0.9]["design"],
        "right": tiny[(tiny["auc_holm"] < 0.05) & (tiny["auc"] > 0.5)]["design"],
        "copied": copied["design"],
    }
    print(SAYS.format(**{k: ", ".join(f"`{n}`" for n in v) for k, v in chosen.items()}).strip())


def said(found: dict[str, float], digits: int) -> str:
    """Median, smallest and largest of the rounds."""
    median, low, high = (f"{found[name]:.{digits}f}" for name in ("median", "min", "max"))
    return f"{median} ({low} to {high})"


def costs() -> None:
    """The table of benchmarks/design_cost.py; designs without a pass of their own in one line."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))
    designs = kept.pop("designs")
    tokens = statistics.mean(of["mean_length"] for of in designs.values())
    print(COST.format(**kept, tokens=tokens))
    free = {n: of for n, of in designs.items() if of["extra_seconds"]["median"] < NO_PASS}
    for name in sorted(designs.keys() - free, key=lambda n: designs[n]["step_ratio"]["median"]):
        ratio, passes = designs[name]["step_ratio"], designs[name]["extra_seconds"]
        print(f"| `{name}` | {said(ratio, 2)} | {said(passes, 2)} |")
    medians = [of["step_ratio"]["median"] for of in free.values()]
    print(
        f"| the {len(free)} others: {', '.join(f'`{n}`' for n in free)} | medians "
        f"{min(medians):.2f} to {max(medians):.2f} | none |\n"
    )


def main() -> None:
    """Print the page."""
    print(HEAD)
    for name, reward in REWARDS.items():
        needs = ["standalone pass"] if reward.needs_standalone else []
        needs += [n.replace("_", " ") for n in reward.needs]
        text = re.sub(r":\w+:`([^`]*)`", r"`\1`", reward.bonus.__doc__ or reward.about)
        text = " ".join(text.split()).replace("|", "\\|")
        alone = "" if reward.verifiable else "yes"
        print(f"| `{name}` | {text} | {alone} | {', '.join(needs)} |")
    costs()
    courts()


if __name__ == "__main__":
    main()
