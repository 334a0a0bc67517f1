"""Judge rewards before they train: ``python -m sarlab.audit REWARD``, or ``pairs`` or ``groups``.

``pairs FILE`` and ``groups FILE`` show what every design pays on labelled answers, and on groups
that a policy sampled itself (:mod:`sarlab.audit.courts`).

REWARD is a name of the table (``sar``), or ``module:function`` of yours: a reward function in
TRL's form, or a :class:`sarlab.Reward`. The exit code is 1 where a fault was found, for CI.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

import pandas as pd

from sarlab.audit.courts import groups_court, groups_text, paid_answers, pairs_court, pairs_text
from sarlab.audit.reward_audit import TOLERATED, Audit, audit_reward, from_trl
from sarlab.display.tables import Column, aligned, text_table
from sarlab.models import load_policy
from sarlab.rewards import Reward
from sarlab.runs.parameters import print_or_refuse
from sarlab.tasks import load_task


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 nothing found, 1 a fault, 2 a message about the input."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words and words[0] in _COURTS:
        return _court(*words)
    parser = argparse.ArgumentParser(
        prog="python -m sarlab.audit",
        description="Attack a reward, search for wrong answers that it pays, train on it shortly.",
    )
    parser.add_argument("reward", help="a name of the table, or module:function")
    parser.add_argument("--model", default="tiny", help="whose answers are attacked and trained")
    parser.add_argument("--task", default="word_problems")
    for name, default, about in (
        ("alpha", 0.2, "weight of the bonus"),
        ("questions", 20, None),
        ("edits", 20, "edits per question; 0: no search"),
        ("steps", 40, "steps of training; 0: none"),
        ("seed", 0, None),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=about)
    options = vars(parser.parse_args(words))
    try:
        audit = audit_reward(
            named_reward(options.pop("reward")),
            load_policy(options.pop("model")),
            load_task(options.pop("task")),
            on_progress=lambda text: print(f"  {text}", file=sys.stderr, flush=True),
            **options,
        )
    except (ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    print(audit_text(audit))
    return int(audit.flagged)


def _court(name: str, *arguments: str) -> int:
    """One court on a file of answers, as a table."""
    parser = argparse.ArgumentParser(prog=f"python -m sarlab.audit {name}")
    parser.add_argument("file", help="a run folder, scored answers (.parquet), or labelled answers")
    parser.add_argument("--model", default="tiny", help="who scores answers that are texts")
    parser.add_argument("--budget", type=int, default=0, help="tokens, for designs that have one")
    given = parser.parse_args(arguments)
    court, text, remark = _COURTS[name]

    def shown() -> str:
        answers = paid_answers(given.file, given.model, budget=given.budget)
        return f"{aligned(text(court(*answers)))}\n{remark}"

    return print_or_refuse(shown)


_COURTS: dict[str, tuple[Callable[..., pd.DataFrame], Callable[..., pd.DataFrame], str]] = {
    "pairs": (
        pairs_court,
        pairs_text,
        "Pairs in order (%), [95% interval] over questions. °: not told apart from one half "
        "(Holm over the table).",
    ),
    "groups": (
        groups_court,
        groups_text,
        "[95% interval] over questions: of means, or a jackknife over 20 blocks of them. p: AUC "
        "against one half, Holm over the designs.",
    ),
}


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
