"""Open anybody's run: ``python -m sarlab.inspect PATH [--model M]``.

With ``--model`` scores are kept beside the run (``sarlab-scores``): a stopped call goes on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from sarlab.runs.parameters import print_or_refuse
from sarlab.runs.rescore import rewards_paid, score_rollouts, step_table
from sarlab.runs.rollouts import open_rollouts


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 with a message where the input is not right."""
    parser = argparse.ArgumentParser(
        prog="sarlab inspect",
        description="Open the answers that TRL, verl, OpenRLHF, verifiers, prime-rl, tinker, "
        "Inspect or sarlab left, or JSON lines, and see what each reward would have paid.",
    )
    parser.add_argument("path", help="a run folder or a file of answers")
    parser.add_argument("--model", default="", help="scores the answers under both contexts")
    parser.add_argument("--alpha", type=float, default=0.2, help="weight of the bonus")
    parser.add_argument("--limit", type=int, default=0, help="score only so many answers")
    parser.add_argument("--store", default="", help="folder of the scores; default beside PATH")
    given = parser.parse_args(arguments)
    return print_or_refuse(lambda: _inspect(given))


def _inspect(given: argparse.Namespace) -> str:
    """What is known at once is printed; the rewards, which take a while, come back."""
    policy = None
    if given.model:
        from sarlab.models import load_policy

        policy = load_policy(given.model)
    frame = open_rollouts(given.path, tokenizer=policy.tokenizer if policy else None)
    print(*frame.attrs["notes"], sep="\n")
    print("\n" + _text(step_table(frame)))
    if policy is None:
        return "\nWith --model NAME: both perplexities, SAR, and what each reward would have paid."
    path = Path(given.path)
    store = Path(given.store or (path if path.is_dir() else path.parent) / "sarlab-scores")
    if given.limit:
        sizes = frame.groupby("group_id", sort=False).size()
        sizes = sizes.sort_values(key=lambda n: n < 2, kind="stable").cumsum()  # real groups first
        frame = frame[frame["group_id"].isin(sizes[sizes <= given.limit].index)]
    print(f"\nScored by {given.model}. If another model wrote these answers, these numbers are not")
    print("those that it saw in training: SAR is of the model that scores.")
    with tqdm(total=len(frame), unit=" answers", mininterval=1) as bar:
        scored = score_rollouts(frame, policy, store, on_progress=bar.update)
    table, _ = rewards_paid(scored, alpha=given.alpha)
    names = {
        "bonus_sd_within": "SD in groups",
        "bonus_slope": "per 10 tokens",
        "bonus_length_share": "length share",
        "bonus_auc": "AUC right/wrong",
    }
    return _text(table[["reward", "mean", *names, "flips"]].rename(columns=names))


def _text(table: pd.DataFrame) -> str:
    return table.to_string(
        index=False, na_rep="–", float_format=lambda x: f"{x:.3f}", max_rows=40, line_width=100
    )


if __name__ == "__main__":
    sys.exit(main())
