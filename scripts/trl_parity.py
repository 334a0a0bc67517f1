"""The same training by sarlab's own loop and by TRL, in one process and in two; curves beside.

    python scripts/trl_parity.py                 # train (a CPU core for some minutes), then draw
    python scripts/trl_parity.py --draw-only     # draw again from data/trl_parity

Same seed, same questions, same initial adapter; the answers are drawn by different samplers, so
the curves agree within noise, not number by number.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sarlab.config import TrainConfig
from sarlab.display.figures import BLUE, GREY, ORANGE, draw, running_mean, style
from sarlab.models import REPOSITORY
from sarlab.runs.folder import read_metrics

CONFIG = TrainConfig(
    steps=20,
    questions=8,
    group_size=4,
    max_answer_tokens=192,
    eval_questions=100,
    validation_questions=40,
    eval_every=5,
)
RUNS = {  # name: how it is shown, its colour, its dash, how it is trained
    "own": ("sarlab", BLUE, "solid", None),
    "trl_1": ("TRL, 1 process", ORANGE, "solid", 1),
    "trl_2": ("TRL, 2 processes", GREY, "dash", 2),
}
KEPT = ("config.json", "metrics.jsonl", "run.json", "summary.json")
PANELS = (
    ("Accuracy", "accuracy", ".0%"),
    ("Mean length (tokens)", "mean_length", None),
    ("Self-aligned reward", "sar", None),
    ("Reward", "reward", None),
    ("KL to the base (nats a token)", "kl", None),
    ("Gradient norm", "grad_norm", None),
)
PAGES = {"light": ("#ffffff", "#57606a"), "dark": ("#0d1117", "#9da7b1")}


def train(name: str, out: Path) -> None:
    """One of the three runs; a finished one is left alone."""
    folder = out / name
    if (folder / "summary.json").exists():
        return
    resume = (folder / "config.json").exists()
    processes = RUNS[name][3]
    if processes is None:
        from sarlab.job.training import run_training
        from sarlab.job.watchers import LineView

        run_training(CONFIG, folder, resume=resume, view=LineView())
        return
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    accelerate += [str(REPOSITORY / "configs" / "accelerate" / "cpu.yaml")]
    start = [*accelerate, "--num_processes", str(processes)] if processes > 1 else [sys.executable]
    usual, told = TrainConfig().to_dict(), CONFIG.to_dict()
    changed = {k: v for k, v in told.items() if v != usual[k]}
    words = {**changed, "name": name, "out": out.resolve(), "resume": resume}
    pairs = [word for key, value in words.items() for word in ("-p", key, str(value))]
    subprocess.run([*start, "-m", "sarlab.launch", *pairs], cwd=REPOSITORY, check=True)


def keep(name: str, out: Path, data: Path) -> None:
    """The small files of a run, for the repository."""
    (data / name).mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        shutil.copy(out / name / file, data / name / file)


def figure(data: Path, page: str) -> go.Figure:
    """A panel a number, a line a run: steps thin, their mean thick, validation as diamonds."""
    picture = make_subplots(
        rows=2,
        cols=3,
        subplot_titles=[title for title, _, _ in PANELS],
        vertical_spacing=0.19,
        horizontal_spacing=0.075,
    )
    for name, (label, colour, dash, _) in RUNS.items():
        metrics = read_metrics(data / name)
        x = [m["step"] for m in metrics]
        for index, (_, column, form) in enumerate(PANELS):
            place = {"row": index // 3 + 1, "col": index % 3 + 1}
            y = [m.get(column) for m in metrics]
            shared = {"legendgroup": name, "name": label}
            thin = {"color": colour, "width": 1}
            picture.add_scatter(
                x=x, y=y, mode="lines", line=thin, opacity=0.35, showlegend=False, **shared, **place
            )
            thick = {"color": colour, "width": 2.5, "dash": dash}
            picture.add_scatter(
                x=x,
                y=running_mean(y, 5),
                line=thick,
                mode="lines",
                showlegend=not index,
                **shared,
                **place,
            )
            heldout = "heldout_mean_reward" if column == "reward" else f"heldout_{column}"
            marks = [(m["step"], m[heldout]) for m in metrics if m.get(heldout) is not None]
            if marks:
                picture.add_scatter(
                    x=[m[0] for m in marks],
                    y=[m[1] for m in marks],
                    mode="markers",
                    marker={"color": colour, "size": 8, "symbol": "diamond"},
                    showlegend=False,
                    **shared,
                    **place,
                )
            picture.update_yaxes(tickformat=form, nticks=5, rangemode="tozero", **place)
            if place["row"] == 2:
                picture.update_xaxes(title_text="step", title_standoff=4, **place)
    diamond = {"color": GREY, "size": 8, "symbol": "diamond"}
    picture.add_scatter(
        x=[None], y=[None], mode="markers", marker=diamond, name="held-out questions"
    )
    picture.update_xaxes(range=[0.5, CONFIG.steps + 0.5], title_font_size=12)
    picture.update_annotations(font_size=13)
    ground, ink = PAGES[page]
    style(picture, width=960, height=430)
    return picture.update_layout(
        paper_bgcolor=ground, plot_bgcolor=ground, font_color=ink, legend={"y": 1.11}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/trl_parity"))
    parser.add_argument("--data", type=Path, default=REPOSITORY / "data" / "trl_parity")
    parser.add_argument("--draw-only", action="store_true")
    args = parser.parse_args()
    if not args.draw_only:
        for name in RUNS:
            train(name, args.out)
            keep(name, args.out, args.data)
    for page in PAGES:
        drawn = draw(figure(args.data, page))
        if drawn is None:
            sys.exit("There is no browser to draw with: scripts/setup_chromium.sh installs one.")
        (REPOSITORY / "docs" / "pictures" / f"trl_parity-{page}.png").write_bytes(drawn)
    for name, (label, *_) in RUNS.items():
        found = json.loads((args.data / name / "summary.json").read_text())["trained"]
        print(
            f"{label}: accuracy {found['accuracy']:.1%} {found['accuracy_ci95']}, "
            f"{found['mean_length']:.1f} tokens {found['mean_length_ci95']}"
        )


if __name__ == "__main__":
    main()
