"""Break a reward before it trains: ``python -m sarlab.audit REWARD``.

REWARD is a name of the table (``sar``), or ``module:function`` of yours: a reward function in
TRL's form, or a :class:`sarlab.Reward`. The exit code is 1 where a fault was found, for CI.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from sarlab.audit.reward_audit import TOLERATED, Audit, audit_reward, from_trl
from sarlab.display.tables import Column, aligned, text_table
from sarlab.models import load_policy
from sarlab.rewards import Reward
from sarlab.tasks import load_task


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 nothing found, 1 a fault, 2 a message about the input."""
    parser = argparse.ArgumentParser(
        prog="python -m sarlab.audit",
        description="Attack a reward, search for wrong answers that it pays, train on it shortly.",
    )
    parser.add_argument("reward", help="a name of the table, or module:function")
    parser.add_argument("--model", default="tiny", help="whose answers are attacked and trained")
    parser.add_argument("--task", default="word_problems")
    parser.add_argument("--alpha", type=float, default=0.2, help="weight of the bonus")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--edits", type=int, default=20, help="edits per question; 0: no search")
    parser.add_argument("--steps", type=int, default=40, help="steps of training; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        audit = audit_reward(
            named_reward(given.reward),
            load_policy(given.model),
            load_task(given.task),
            alpha=given.alpha,
            questions=given.questions,
            edits=given.edits,
            steps=given.steps,
            seed=given.seed,
            on_progress=lambda text: print(f"  {text}", file=sys.stderr, flush=True),
        )
    except (ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    print(audit_text(audit))
    return int(audit.flagged)


def named_reward(name: str) -> str | Reward:
    """A name of the table as it is; ``module:attribute`` imported, TRL's functions wrapped."""
    if ":" not in name:
        return name
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        value = getattr(importlib.import_module(module), attribute, None)
    finally:
        sys.path.remove("")
    if isinstance(value, Reward):
        return value
    if not callable(value):
        raise ValueError(
            f"{name} is {value!r}. Name a function in TRL's form, "
            "reward(prompts, completions, **columns), or a sarlab.Reward."
        )
    return from_trl(value)


def audit_text(audit: Audit) -> str:
    """The findings as a table, the worst answer of each fault, and a verdict."""
    verdicts = audit.findings["flagged"].map({True: "FAULT", False: "ok"})
    columns = (
        Column("attack", "attack"),
        Column("won (%)", "won", 0, 100),
        Column("led (%)", "led", 0, 100),
        Column("won after the remedy (%)", "remedied", 0, 100),
        Column("", "verdict"),
    )
    rows = [
        aligned(text_table(audit.findings.assign(verdict=verdicts), columns)),
        f"Of {audit.questions} questions. won: earns at least as much as a right "
        "answer. led: earns more than an\nhonest wrong one, which is what a group without a right "
        "answer learns. Remedy: correctness beside\nthe bonus, α ≤ 0.2.",
    ]
    for f in audit.findings[audit.findings["flagged"]].itertuples():
        answer = f.answer[:400].replace("\n", "\n     ")
        rows.append(
            f"\n{f.attack}, {f.margin:+.2f} above the right answer\n  Q: {f.question[:200]}\n"
            f"  A: {answer}"
        )
    if audit.training is not None:
        t = audit.training
        rows.append(
            f"\n{t.steps} steps of training on it: reward {t.reward[0]:.2f} → {t.reward[1]:.2f}, "
            f"accuracy {t.accuracy[0]:.0%} → {t.accuracy[1]:.0%}, length {t.length[0]:.0f} → "
            f"{t.length[1]:.0f} tokens ({t.answers} held-out answers)"
            f"{'  FAULT: the reward rose while accuracy fell' if t.flagged else ''}"
        )
    found = "FAULT" if audit.flagged else "nothing found"
    rows.append(f"\n{audit.reward} at α = {audit.alpha:g}: {found} (tolerated: {TOLERATED:.0%})")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
