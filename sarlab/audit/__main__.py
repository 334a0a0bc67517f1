"""Judge rewards before they train: ``python -m sarlab.audit REWARD``, or ``pairs`` or ``groups``.

``pairs FILE`` and ``groups FILE`` show what every design pays on labelled answers, and on groups
that a policy sampled itself (:mod:`sarlab.audit.courts`).

REWARD is a name of the table (``sar``), or ``module:function`` of yours: a reward function in
TRL's form, or a :class:`sarlab.Reward`. The exit code is 1 where a fault was found, for CI.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from sarlab.audit.courts import groups_court, groups_text, paid_answers, pairs_court, pairs_text
from sarlab.audit.reward_audit import TOLERATED, Audit, audit_reward, from_trl
from sarlab.display.tables import Column, aligned, text_table
from sarlab.models import load_policy
from sarlab.rewards import Reward
from sarlab.tasks import load_task

_REMARKS = {
    "pairs": "Pairs in order (%), [95% interval] over questions. °: not told apart from one half "
    "(Holm over the table).",
    "groups": "[95% interval] over questions: of means, or a jackknife over 20 blocks of them. p: "
    "AUC against one half, Holm over the designs.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 nothing found, 1 a fault, 2 a message about the input."""
    parser = argparse.ArgumentParser(
        prog="python -m sarlab.audit",
        description="Attack a reward, search for wrong answers that it pays, train on it shortly; "
        "or show what every design pays on a file of answers.",
    )
    parser.add_argument("reward", help="a name of the table, module:function, pairs, or groups")
    files = "of pairs and groups: a run, scored answers, or labelled answers"
    parser.add_argument("file", nargs="?", help=files)
    for name, default, about in (
        ("model", "tiny", "whose answers are attacked and trained, or who scores texts"),
        ("task", "word_problems", None),
        ("alpha", 0.2, "weight of the bonus"),
        ("questions", 20, None),
        ("edits", 20, "edits per question; 0: no search"),
        ("steps", 40, "steps of training; 0: none"),
        ("seed", 0, None),
        ("budget", 0, "of pairs and groups: tokens, for designs that have one"),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=about)
    options = vars(parser.parse_args(arguments))
    name, file, model, task, budget = (
        options.pop(option) for option in ("reward", "file", "model", "task", "budget")
    )
    if (name in _REMARKS) is not bool(file):
        parser.error("pairs and groups take one file of answers, and a reward takes none.")
    try:
        if file:
            paid, is_pairs = paid_answers(file, model, budget=budget), name == "pairs"
            text = pairs_text(pairs_court(*paid)) if is_pairs else groups_text(groups_court(*paid))
            print(aligned(text), _REMARKS[name], sep="\n")
            return 0
        audit = audit_reward(named_reward(name), load_policy(model), load_task(task), **options)
    except (ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    print(audit_text(audit))
    return int(audit.flagged)


def named_reward(name: str) -> str | Reward:
    """A name of the table as it is; ``module:attribute`` imported, TRL's functions wrapped."""
    module, is_path, attribute = name.partition(":")
    if not is_path:
        return name
    value = getattr(importlib.import_module(module), attribute, None)
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
    text = aligned(text_table(audit.findings.assign(verdict=verdicts), columns))
    text += (
        f"\nOf {audit.questions} questions. won: earns at least as much as a right answer. led: "
        "earns more than an\nhonest wrong one, which is what a group without a right answer "
        "learns. Remedy: correctness beside\nthe bonus, α ≤ 0.2.\n"
    )
    for fault in audit.findings[audit.findings["flagged"]].itertuples():
        answer = fault.answer[:400].replace("\n", "\n     ")
        text += f"\n{fault.attack}, {fault.margin:+.2f} above the right answer\n"
        text += f"  Q: {fault.question[:200]}\n  A: {answer}\n"
    if t := audit.training:
        text += (
            f"\n{t.steps} steps of training on it: reward {t.reward[0]:.2f} → {t.reward[1]:.2f}, "
            f"accuracy {t.accuracy[0]:.0%} → {t.accuracy[1]:.0%}, length {t.length[0]:.0f} → "
            f"{t.length[1]:.0f} tokens ({t.answers} held-out answers)"
            f"{'  FAULT: the reward rose while accuracy fell' if t.flagged else ''}\n"
        )
    verdict = "FAULT" if audit.flagged else "nothing found"
    return f"{text}\n{audit.reward} at α = {audit.alpha:g}: {verdict} (tolerated: {TOLERATED:.0%})"


if __name__ == "__main__":
    sys.exit(main())
