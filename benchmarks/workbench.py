"""How long the library takes to score an edit, without a browser.

    python benchmarks/workbench.py [MODEL] [REPEATS]

Prints the median time of an edit of one word near the end of an answer of about 60 tokens, and of
a whole new answer of that length, both with ranks and the likeliest five under both contexts; and
what the same costs without the kept key-value cache.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch

from sarlab import load_policy, score_answers
from sarlab.display.token_view import answer_view, payload
from sarlab.rewards.answers import Rescorer
from sarlab.widgets.candidates import read_examples

WORDS = ("stay", "remain", "are left", "stand", "wait", "rest", "lie", "are hers")
STARTS = ("On Saturday", "Today", "First", "Look:", "Well,", "Now", "So", "Once")


def edits() -> list[str]:
    return [
        "The full boxes hold 14 * 6 = 84 muffins. With the 5 loose ones she has 84 + 5 = 89. After "
        f"giving 9 of them away to the shelter, 89 - 9 = 80 muffins {word}.\nAnswer: 80"
        for word in WORDS
    ]


def new_answers() -> list[str]:
    return [
        f"{start} she bakes {n} boxes of six, so that makes {6 * n} muffins in total, and 5 more "
        f"lie on the tray. We add them and get {6 * n + 5}. The shelter takes 9, so she keeps "
        f"{6 * n - 4} in the end.\nAnswer: {6 * n - 4}"
        for n, start in enumerate(STARTS, start=14)
    ]


def timed(work: Callable[[str], object], texts: list[str], repeats: int) -> list[float]:
    found = []
    for text in texts * repeats:
        began = time.perf_counter()
        work(text)
        found.append(time.perf_counter() - began)
    return found


def main(model: str = "smollm2-135m", repeats: str = "2") -> None:
    policy = load_policy(model)
    question = read_examples(1)[0].question
    rescorer = Rescorer(policy, question)

    def view(text: str) -> None:
        payload(answer_view(rescorer.score(text)))

    view(edits()[-1])
    count = len(rescorer.score(edits()[0]).token_ids)
    print(f"{model}, {policy.dtype}, {torch.get_num_threads()} threads, {platform.machine()}")
    print(f"answer of {count} tokens; seconds, median (worst)")
    for label, work, texts in (
        ("one word near the end", view, edits()),
        ("a whole new answer", view, new_answers()),
        ("without the kept cache", lambda t: fresh(policy, question, t), edits()),
    ):
        seconds = timed(work, texts, int(repeats))
        print(f"  {label:24} {statistics.median(seconds):.3f} ({max(seconds):.3f})")


def fresh(policy, question: str, text: str) -> None:  # type: ignore[no-untyped-def]
    payload(answer_view(score_answers(policy, question, [text], alternatives=True)[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
