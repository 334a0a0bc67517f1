"""Tasks drawn without end: two kinds of embedded stories, and four data sets of reasoning-gym.

A story's metadata hold ``terms``, the numbers to be added in order, and ``unneeded``, the one that
is not (None where there is none).

- `word_problems`: sums of two or three three-digit numbers.
- `fact_stories`: two to six two-digit numbers, on which length and information come apart. Every
  fact stands in a sentence of its own: a solution that reads the facts one after the other is
  longer and says more about the question than one that states the total at once.

The embedded policies `tiny` and `tiny-facts` learnt them from ``scripts/build_tiny.py``.
"""

import dataclasses
import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from sarlab.types import Question

Draw = Callable[[random.Random], Question]

NAMES = (
    *("Ada", "Ben", "Cleo", "Dan", "Elif", "Finn", "Gita", "Hana", "Ivan", "June"),
    *("Kofi", "Lena", "Mara", "Nils", "Omar", "Pia", "Rosa", "Sami", "Tova", "Yara"),
)
THINGS = (
    *("coins", "stamps", "shells", "beads", "cards", "books", "seeds", "pens", "nails", "bricks"),
    *("eggs", "pears", "plums", "roses", "candles", "buttons", "tickets", "marbles", "stickers"),
)

# {a}, {b}, {c} are the numbers; every story asks for their sum.
TWO_TERM_STORIES = (
    "{n} has {a} {t} and gets {b} more. How many {t} does {n} have now?",
    "{n} has {a} {t} and {m} has {b} {t}. How many {t} do they have together?",
    "There are {a} {t} in one box and {b} {t} in another. How many {t} are there in all?",
    "A shop sold {a} {t} on Monday and {b} on Tuesday. How many {t} did it sell?",
    "{n} packed {a} {t} in the morning and {b} after lunch. How many {t} did {n} pack?",
)
THREE_TERM_STORIES = (
    "{n} has {a} {t}, finds {b} and buys {c} more. How many {t} does {n} have now?",
    "{n} has {a} {t}, {m} has {b} and their aunt has {c}. How many {t} do they have together?",
    "There are {a} {t} in a red box, {b} in a blue one and {c} on a shelf. "
    "How many {t} are there in all?",
    "A shop sold {a} {t} on Monday, {b} on Tuesday and {c} on Friday. How many {t} did it sell?",
    "{n} packed {a} {t} in May, {b} in June and {c} in July. How many {t} did {n} pack?",
)
PROBLEM_RANGE, FACT_RANGE = (101, 799), (11, 29)  # of every number in a story, ends included
FACT_TERMS = {2: 0.30, 3: 0.25, 4: 0.15, 5: 0.15, 6: 0.15}  # numbers to be added, their shares
SHARE_UNNEEDED = 0.4  # fact stories that hold one number more than the sum needs

# Where each fact stands, the sentence of a fact, and the question.
FACTS = (
    (NAMES, "{s} has {x} {t}.", "How many {t} do they have together?"),
    (
        ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
        "On {s} {n} sold {x} {t}.",
        "How many {t} did {n} sell?",
    ),
    (
        ("red", "blue", "green", "white", "black", "grey", "brown", "pink"),
        "The {s} box holds {x} {t}.",
        "How many {t} are there in all?",
    ),
)
UNNEEDED = (
    "{m} is {x} years old.",
    "The walk takes {x} minutes.",
    "Each of the {t} costs {x} cents.",
    "{m} lives at number {x}.",
    "The bag weighs {x} grams.",
)


def draw_problem(rng: random.Random) -> Question:
    """Draw one word problem; half of them have two terms, half have three."""
    terms = [rng.randint(*PROBLEM_RANGE) for _ in range(rng.choice((2, 3)))]
    story = rng.choice(TWO_TERM_STORIES if len(terms) == 2 else THREE_TERM_STORIES)
    name, other = rng.sample(NAMES, 2)
    numbers = dict(zip("abc", terms, strict=False))
    text = story.format(n=name, m=other, t=rng.choice(THINGS), **numbers)
    metadata = {"terms": terms, "unneeded": None}
    return Question(text, str(sum(terms)), "word_problems", "auto", metadata)


def draw_story(rng: random.Random) -> Question:
    """Draw one fact story of two to six terms."""
    (count,) = rng.choices(list(FACT_TERMS), list(FACT_TERMS.values()))
    terms = [rng.randint(*FACT_RANGE) for _ in range(count)]
    thing, (name, other) = rng.choice(THINGS), rng.sample(NAMES, 2)
    subjects, fact, asks = rng.choice(FACTS)
    chosen = rng.sample(subjects, len(terms))
    facts = [fact.format(s=s, x=x, t=thing, n=name) for s, x in zip(chosen, terms, strict=True)]
    unneeded = None
    if rng.random() < SHARE_UNNEEDED:
        low, high = FACT_RANGE
        unneeded = rng.choice([x for x in range(low, high + 1) if x not in terms])
        sentence = rng.choice(UNNEEDED).format(m=other, t=thing, x=unneeded)
        facts.insert(rng.randint(0, len(facts)), sentence)
    text = " ".join([*facts, asks.format(t=thing, n=name)])
    metadata = {"terms": terms, "unneeded": unneeded}
    return Question(text, str(sum(terms)), "fact_stories", "auto", metadata)


STORIES: dict[str, Draw] = {"word_problems": draw_problem, "fact_stories": draw_story}
"""Name of a task, and what draws one of its questions: add yours here."""

# The verifier of each data set of reasoning-gym. Its own scorer serves where order and wording are
# free. The scorers of the number tasks are no judges of free text: gsm_symbolic's reads "288 or 3"
# as 288, "1,000" as 1 and gives its own negative answers 0; so plain numbers are compared exactly.
REASONING_GYM = {
    "chain_sum": "auto",
    "gsm_symbolic": "auto",
    "knights_knaves": "reasoning_gym:knights_knaves",
    "syllogism": "auto",
}
GENERATORS = (*STORIES, *REASONING_GYM)
REFUSED = {
    "propositional_logic": "reasoning-gym's own scorer gives its own answers 0, so every reward "
    "would be 0"
}
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def generator(name: str, parameters: Mapping[str, str]) -> Draw:
    """A function that draws one question, for the name of a generator and its parameters.

    Parameters are strings as they stand in a reference; an unknown one, one of the wrong type, or
    a value that reasoning-gym refuses is a ValueError. ``verifier`` names another judge.
    """
    others = {key: text for key, text in parameters.items() if key != "verifier"}
    draw = STORIES.get(name) or _reasoning_gym(name, others)
    if name in STORIES and others:
        raise ValueError(
            f"Task {name!r} takes no parameters, got {', '.join(sorted(others))}. "
            f"Write {name!r} alone."
        )
    if "verifier" not in parameters:
        return draw
    return lambda rng: dataclasses.replace(draw(rng), verifier=parameters["verifier"])


def _reasoning_gym(name: str, parameters: Mapping[str, str]) -> Draw:
    dataset_class, config_class = reasoning_gym_factory().DATASETS[name]
    # Without seed and size: the task draws its own seeds, one problem each.
    fields = [f for f in dataclasses.fields(config_class) if f.name not in ("seed", "size")]
    defaults = {field.name: field.default for field in fields}
    settings: dict[str, Any] = {}
    for key, text in parameters.items():
        if key not in defaults:
            known = ", ".join(f"{field}={default}" for field, default in defaults.items())
            raise ValueError(
                f"Task {name!r} has no parameter {key!r}. Known, with defaults: {known}."
            )
        kind: Any = type(defaults[key])
        try:
            settings[key] = _TRUTHS[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise ValueError(
                f"{name}?{key} is {text!r}, expected a {kind.__name__} such as {defaults[key]}."
            ) from None
    try:
        config_class(seed=0, size=1, **settings).validate()
    except AssertionError as error:
        given = "&".join(f"{key}={value}" for key, value in settings.items())
        raise ValueError(f"Task '{name}?{given}' is refused by reasoning-gym: {error}.") from error

    def draw(rng: random.Random) -> Question:
        dataset = dataset_class(config_class(seed=rng.getrandbits(31), size=1, **settings))
        # As JSON would bring it back: tuples as lists, fractions and the like as text.
        entry = json.loads(json.dumps(dataset[0], default=str))
        gold, verifier = str(entry["answer"]), REASONING_GYM[name]
        return Question(entry["question"], gold, name, verifier, {"entry": entry})

    return draw


def reasoning_gym_factory() -> Any:
    """reasoning-gym's table of data sets and scorers; ValueError where it is not installed."""
    try:
        import reasoning_gym.factory as factory
    except ImportError as error:
        raise ValueError(
            f"This task is one of reasoning-gym, which is not installed ({error}). In a clone: "
            "make install-tasks; elsewhere: pip install 'sarlab[tasks]'."
        ) from error
    return factory
