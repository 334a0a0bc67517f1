"""The embedded tasks: numbers told as small stories.

A question's metadata hold ``terms``, the numbers to be added in order, and ``unneeded``, the one
that is not (None where there is none).

- `word_problems`: sums of two or three three-digit numbers.
- `fact_stories`: two to six two-digit numbers, on which length and information come apart. Every
  fact stands in a sentence of its own: a solution that reads the facts one after the other is
  longer and says more about the question than one that states the total at once.

The embedded policies `tiny` and `tiny-facts` learnt them from ``scripts/build_tiny.py``.
"""

import random

from sarlab.types import Question

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
FACTS = {
    "people": (NAMES, "{s} has {x} {t}.", "How many {t} do they have together?"),
    "days": (
        ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
        "On {s} {n} sold {x} {t}.",
        "How many {t} did {n} sell?",
    ),
    "boxes": (
        ("red", "blue", "green", "white", "black", "grey", "brown", "pink"),
        "The {s} box holds {x} {t}.",
        "How many {t} are there in all?",
    ),
}
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
    subjects, fact, asks = FACTS[rng.choice(tuple(FACTS))]
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
