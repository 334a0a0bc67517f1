"""Generators: the embedded stories and four data sets of reasoning-gym."""

import dataclasses
import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from sarlab.tasks.stories import draw_problem, draw_story
from sarlab.types import Question

Draw = Callable[[random.Random], Question]

# The verifier of each data set. Its own scorer serves where order and wording are free. The
# scorers of the number tasks are no judges of free text: gsm_symbolic's reads "288 or 3" as 288,
# "1,000" as 1 and gives its own negative answers 0; so plain numbers are compared exactly here.
REASONING_GYM = {
    "chain_sum": "auto",
    "gsm_symbolic": "auto",
    "knights_knaves": "reasoning_gym:knights_knaves",
    "syllogism": "auto",
}
REFUSED = {
    "propositional_logic": "reasoning-gym's own scorer gives its own answers 0, so every reward "
    "would be 0"
}
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}
_STORIES: dict[str, Draw] = {"word_problems": draw_problem, "fact_stories": draw_story}


def generator(name: str, parameters: Mapping[str, str]) -> Draw:
    """A function that draws one question, for the name of a generator and its parameters.

    Parameters are strings as they stand in a reference; an unknown one, one of the wrong type, or
    a value that reasoning-gym refuses is a ValueError. ``verifier`` names another judge.
    """
    others = {key: text for key, text in parameters.items() if key != "verifier"}
    draw = GENERATORS[name](name, others)
    if "verifier" not in parameters:
        return draw
    return lambda rng: dataclasses.replace(draw(rng), verifier=parameters["verifier"])


def _stories(name: str, parameters: Mapping[str, str]) -> Draw:
    if parameters:
        raise ValueError(
            f"Task {name!r} takes no parameters, got {', '.join(sorted(parameters))}. "
            f"Write {name!r} alone."
        )
    return _STORIES[name]


def _reasoning_gym(name: str, parameters: Mapping[str, str]) -> Draw:
    dataset_class, config_class = reasoning_gym_factory().DATASETS[name]
    # The task draws its own seeds, one problem each.
    defaults = {
        f.name: f.default
        for f in dataclasses.fields(config_class)
        if f.name not in ("seed", "size")
    }
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
        answer = str(entry["answer"])
        return Question(entry["question"], answer, name, REASONING_GYM[name], {"entry": entry})

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


GENERATORS: dict[str, Callable[[str, Mapping[str, str]], Draw]] = {
    **dict.fromkeys(_STORIES, _stories),
    **dict.fromkeys(REASONING_GYM, _reasoning_gym),
}
"""Name of a task, and what makes its drawing function from name and parameters: add yours here."""
