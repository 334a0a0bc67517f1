"""The ``sarlab`` command: look at rewards, train, and open other trainers' runs.

Runs and copied notebooks go to the current folder.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  sarlab score "Ada has 12 apples and buys 5. How many?" "12 + 5 = 17\\nAnswer: 17" "Answer: 17"
  sarlab train -p steps 30 -p alpha 0.1 -p name first
  sarlab inspect runs/first
  sarlab audit sar_alone
  sarlab lab
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 with a message where the input is not right."""
    parser = argparse.ArgumentParser(
        prog="sarlab",
        description="A workbench for self-aligned reward: look at it, train with it, judge it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[..., int], text: str, **options: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__, help=text, description=run.__doc__, **options)
        added.set_defaults(run=run)
        return added

    lab_parser = command(lab, "open JupyterLab on the notebooks")
    lab_parser.add_argument("folder", nargs="?", default=".", help="default: the current folder")
    command(train, "train a model with SA-GRPO, SA-PPO or another reward")
    score_parser = command(score, "score answers to one question")
    score_parser.add_argument("question")
    score_parser.add_argument("answers", nargs="+", metavar="answer")
    score_parser.add_argument(
        "--model", default="tiny", help="tiny, smollm2-135m, a hub id or a folder"
    )
    command(inspect, "open the answers of any trainer's run", add_help=False)
    command(audit, "break a reward before it trains", add_help=False)
    given, rest = parser.parse_known_args(arguments)
    if rest and given.run is score:
        parser.error(f"unknown: {' '.join(rest)}")
    try:
        return given.run(given, rest)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


def lab(given: argparse.Namespace, rest: list[str]) -> int:
    """Copy the notebooks into FOLDER (those already there stay) and open JupyterLab on them.

    What follows FOLDER goes to JupyterLab, such as --no-browser or --port 8890.
    """
    from sarlab.models import REPOSITORY

    folder = Path(given.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for notebook in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        if not (folder / notebook.name).exists():
            shutil.copy2(notebook, folder / notebook.name)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--ip=127.0.0.1",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.default_url=/lab/tree/01_reward_inspection.ipynb",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    return subprocess.run([*command, *rest], cwd=folder, check=False).returncode


def train(given: argparse.Namespace, rest: list[str]) -> int:
    """Train, then print base against trained. Parameters as papermill takes them: -p NAME VALUE.

    Every field of sarlab.TrainConfig, and name, out (the folder of runs, ./runs) and resume.
    """
    from sarlab.job.training import run_training
    from sarlab.runs.parameters import command_parameters, run_request
    from sarlab.summary import summary_text

    parameters = {"out": str(Path("runs").resolve()), **command_parameters(rest)}
    config, folder, resume = run_request(parameters)
    run_training(config, folder, resume=resume)
    print(summary_text(folder))
    return 0


def score(given: argparse.Namespace, rest: list[str]) -> int:
    r"""Score answers to one question with it and without it. \n in an answer is a new line."""
    from sarlab.display.token_view import out_of_depth
    from sarlab.models import load_policy
    from sarlab.rewards.answers import score_answers

    answers = [answer.replace("\\n", "\n") for answer in given.answers]
    scores = score_answers(load_policy(given.model), given.question, answers)
    print(f"{'SAR':>6}  {'ppl(a|q)':>9}  {'ppl(a)':>9}  {'V, nats':>8}  {'tokens':>6}  answer")
    for answer, scored in zip(answers, scores, strict=True):
        nats = sum(scored.logps_conditioned) - sum(scored.logps_standalone)
        print(
            f"{scored.sar:+6.3f}  {scored.ppl_conditioned:9.3f}  {scored.ppl_standalone:9.3f}  "
            f"{nats:8.2f}  {len(scored.token_ids):6d}  {' '.join(answer.split())[:60]}"
        )
    if any(map(out_of_depth, scores)):
        print(
            f"\n{given.model} was never trained on texts like these (see the perplexities): SAR "
            "values and their order mean little. Name another model with --model."
        )
    return 0


def inspect(given: argparse.Namespace, rest: list[str]) -> int:
    """Open the answers that TRL, verl, OpenRLHF, verifiers, prime-rl and others leave."""
    from sarlab.inspect import main as inspect_main

    return inspect_main(rest)


def audit(given: argparse.Namespace, rest: list[str]) -> int:
    """Attack a reward and train on it shortly; the exit code is 1 where a fault was found."""
    return subprocess.run([sys.executable, "-m", "sarlab.audit", *rest], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
