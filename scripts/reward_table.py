"""Write docs/REWARDS.md: every design of the table with its formula and what it needs.

python scripts/reward_table.py > docs/REWARDS.md
"""

from __future__ import annotations

import re

from sarlab.rewards import REWARDS

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


if __name__ == "__main__":
    main()
