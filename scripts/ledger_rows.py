"""Both sides of the ledger of answers whose lines are known to be needed or not.

    python scripts/ledger_rows.py tiny
    python scripts/ledger_rows.py gsm8k --gsm8k TEST.jsonl --questions 300
    python scripts/ledger_rows.py --ship data/rewards      # afterwards: all sets, without texts

Sets: `tiny` and `tiny-facts` (right answers that the policy sampled; what a line is follows from
its form), `gsm8k` (GSM8K's solutions with filler written in, `smollm2-135m`), `copied` (the same
solutions behind a copy of their question), `redundant` (the padded examples of data/examples, each
sentence labelled by hand). A part for every few answers is kept: run a killed command again and it
goes on. `scripts/evidence.py` makes the tables.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from base_groups import line_kinds
from build_tiny import FILLER
from gsm8k_answers import plain, read_solutions
from gsm8k_validity import write_parts

from sarlab.audit.failures import ended
from sarlab.display.text import SENTENCE_END
from sarlab.display.token_view import step_starts
from sarlab.models import Policy, load_policy
from sarlab.prompts import encode_answer
from sarlab.rewards.answers import token_pieces
from sarlab.rewards.dependence import answer_dependence
from sarlab.rollout import sample
from sarlab.scoring import prefix_of
from sarlab.tasks import judge_all
from sarlab.tasks.generated import generator
from sarlab.widgets.candidates import read_examples

PADDING = (
    *FILLER,
    "Okay, on to the next part.",
    "I like questions of this kind.",
    "Right, that seems to be in order.",
    "We should keep going like this.",
    "Nothing about this is out of the ordinary.",
    "It is worth going slowly.",
    "Let us see what comes of it.",
    "So much for that.",
)
# The padded examples, sentence by sentence, labelled by hand before any was scored: n needed (the
# answer rests on it, said for the first time), c restates the question, r says again or checks what
# was said, f says nothing about the problem, a the answer line.
_LABELS = """
fcnnrcfnna fffnfnnfrncnra fccnrcnnfcra fcnrrffnnra cffnnncrnnrra fcncffnfnnrfnrra
fcnnnrffcnfnnna fcnrffnfnrfa fcnffcnnnrra fnnfnnnrfnfrfra fcnnnnffra cfcnfncncnffrra
fcfnnnnnfnrra fccccnrnnrnfa fnffnnnnfnfra fnnnfrrra nnnnnnnrffnrfffnra fnnnnnnnnnnfrrra
ffnnrnnnnnrfra cfnnnnnnnfa cnnrrnrra fnnnnnnnnrnrfnnrfa nnnnnnnfrra fffnfffnfnnnrrffa
fcnncfnffnnfrrrna fcrcnnfffna nnnffnnnnnfna cccffnnnnffrnrfa fffnnnnnnnnrfnnfna
fcnnnnnnnnnnnnnnnfna fccnfnnfnnffa cfcnffcnfnnnrna fnnffnnnnfrrrnna
"""
REDUNDANT = _LABELS.split()
NAMES = {"n": "needed", "c": "copied", "r": "repeated", "f": "filler", "a": "answer"}


@dataclass(frozen=True)
class Labelled:
    """An answer with what each of its lines (or sentences) is."""

    group: int
    question: str
    gold: str
    answer: str
    kinds: tuple[str, ...]
    sentences: bool = False


def padded(path: Path, questions: int) -> list[Labelled]:
    """GSM8K's solutions with two to five sentences of filler, each on a line of its own."""
    made = []
    for group, (question, solution, gold, rng) in enumerate(drawn(path, questions)):
        lines = [(plain(x), "needed" if "<<" in x else "other") for x in solution]
        for text in rng.sample(PADDING, rng.randint(2, 5)):
            lines.insert(rng.randint(0, len(lines)), (text, "filler"))
        made.append(labelled(group, question, gold, lines))
    return made


def copied(path: Path, questions: int) -> list[Labelled]:
    """The solutions behind a copy of their question, sentence by sentence."""
    made = []
    for group, (question, solution, gold, _) in enumerate(drawn(path, questions)):
        sentences = SENTENCE_END.sub(lambda end: end[0] + "\n", question).split("\n")
        lines = [(x.strip(), "copied") for x in sentences if x.strip()]
        lines += [(plain(x), "needed" if "<<" in x else "other") for x in solution]
        made.append(labelled(group, question, gold, lines))
    return made


def drawn(path: Path, questions: int) -> Iterator[tuple[str, list[str], str, random.Random]]:
    """Questions in an order by seed, each with its solution's lines and gold answer."""
    solutions = read_solutions(path)
    for name in random.Random("ledger").sample(list(solutions), questions):
        body, gold = solutions[name]
        yield name, [x for x in body.split("\n") if x.strip()], gold, random.Random(name)


def labelled(group: int, question: str, gold: str, lines: Sequence[tuple[str, str]]) -> Labelled:
    """Lines and their kinds, with the answer line behind them."""
    texts, kinds = zip(*lines, strict=True)
    return Labelled(group, question, gold, ended("\n".join(texts), gold), (*kinds, "answer"))


def redundant() -> list[Labelled]:
    """The padded examples with their labels."""
    examples = [d for d in read_examples() if d.label == "redundant"]
    return [
        Labelled(i, d.question, d.gold or "", str(d.answer), tuple(NAMES[x] for x in labels), True)
        for i, (d, labels) in enumerate(zip(examples, REDUNDANT, strict=True))
    ]


def sampled(policy: Policy, task: str, answers: int) -> list[Labelled]:
    """Right answers that the policy samples, one per question."""
    draw, rng = generator(task, {}), random.Random(f"ledger {task}")
    made: list[Labelled] = []
    for chunk in range(1_000):
        questions = [draw(rng) for _ in range(50)]
        prefixes = [prefix_of(policy, q.text) for q in questions]
        options = {"group_size": 1, "max_answer_tokens": 256, "seed": f"ledger {chunk}"}
        texts = sample(policy, prefixes, **options).texts
        for question, text, verdict in zip(
            questions, texts, judge_all(texts, questions), strict=True
        ):
            kinds = line_kinds(text, question)
            kinds = [{"carry": "needed", "statement": "needed"}.get(k, k) for k in kinds]
            kinds = ["needed" if k in ("result", "total") else k for k in kinds]
            if verdict.correct and len(kinds) > 1:
                made.append(Labelled(len(made), question.text, question.gold, text, tuple(kinds)))
        if len(made) >= answers:
            break
    return made[:answers]


def rows(policy: Policy, item: Labelled, name: str) -> list[dict[str, Any]]:
    """One row per line that another one follows; none where the labels do not fit the lines."""
    ids = encode_answer(policy.tokenizer, item.answer, policy.end_id)
    by: Any = "line"
    if item.sentences:
        by = step_starts(token_pieces(policy.tokenizer, ids))
    found = answer_dependence(policy, item.question, ids, by=by, gold=item.gold)
    if len(found.starts) != len(item.kinds):
        print(f"{name} {item.group}: {len(found.starts)} lines, {len(item.kinds)} labels")
        return []
    gold = found.gold_nats
    assert gold is not None
    columns = (found.tokens, found.rest_tokens, found.read_nats, found.fed_nats, gold)
    numbers = zip(*(x.tolist() for x in columns), strict=True)
    return [
        {
            "set": name,
            "group": item.group,
            "line": line,
            "kind": kind,
            "tokens": tokens,
            "rest_tokens": rest,
            "read_nats": v,
            "feed_nats": d,
            "gold_nats": g if g == g else None,
        }
        for line, (kind, (tokens, rest, v, d, g)) in enumerate(
            zip(item.kinds[:-1], list(numbers)[:-1], strict=True)
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sets = ("tiny", "tiny-facts", "gsm8k", "copied", "redundant")
    parser.add_argument("set", nargs="?", choices=sets)
    parser.add_argument("--gsm8k", type=Path, help="GSM8K's test.jsonl")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/ledger"))
    parser.add_argument("--ship", type=Path, help="write the rows of all sets into this folder")
    args = parser.parse_args()
    if args.ship:
        parts = sorted(args.out.glob("*/part-*.jsonl"))
        table = pd.concat([pd.read_json(p, lines=True) for p in parts if p.stat().st_size])
        floats = ["read_nats", "feed_nats", "gold_nats"]
        table[floats] = table[floats].astype("float32")
        table.to_parquet(args.ship / "ledger-lines.parquet", compression="zstd", index=False)
        print(table.groupby("set").group.nunique())
        return
    own = args.set in ("tiny", "tiny-facts")
    policy = load_policy(args.set if own else "smollm2-135m")
    tasks = {"tiny": "word_problems", "tiny-facts": "fact_stories"}
    if own:
        items = sampled(policy, tasks[args.set], args.questions)
    elif args.set == "redundant":
        items = redundant()
    else:
        items = {"gsm8k": padded, "copied": copied}[args.set](args.gsm8k, args.questions)
    chunks = [items[i : i + 5] for i in range(0, len(items), 5)]
    facts = {"set": args.set, "questions": args.questions, "policy": policy.reference}
    folder = args.out / args.set
    for done in write_parts(
        folder, chunks, facts, lambda chunk: [r for x in chunk for r in rows(policy, x, args.set)]
    ):
        print(f"{args.set}: {done} of {len(items)} answers", flush=True)


if __name__ == "__main__":
    main()
