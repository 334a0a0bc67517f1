"""Training configuration and presets. Values that make no sense raise ValueError."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from sarlab.losses import KLEstimator, LossForm
from sarlab.prompts import StandaloneContext
from sarlab.rewards import AlphaSchedule, reward_named

Algorithm = Literal["grpo", "ppo"]
Tracker = Literal["none", "tensorboard", "wandb", "trackio"]
# What each algorithm takes where nothing else is said, tuned on `tiny` (docs/RELIABILITY.md).
_FIELDS = ("questions", "group_size", "mini_batches", "learning_rate", "loss", "beta")
DEFAULTS: dict[str, dict[str, Any]] = {
    "grpo": dict(zip(_FIELDS, (16, 8, 2, 1e-3, "dr_grpo", 0.001), strict=True)),
    "ppo": dict(zip(_FIELDS, (128, 1, 4, 5e-4, "dapo", 0.0), strict=True)),
}
_OF_ALGORITHM: Any = None  # stands for the value in DEFAULTS


@dataclass(frozen=True)
class TrainConfig:
    """One run of SA-GRPO or SA-PPO. The defaults are the `lora` preset, tuned for a LoRA.

    R = R_VR + α·bonus; ``alpha`` = 0 is plain GRPO or PPO. Fields that differ between the two take
    their algorithm's value from :data:`DEFAULTS`. Rates of the paper do not move a LoRA:
    see :data:`PRESETS`.
    """

    model: str = "tiny"
    task: str = "word_problems"
    heldout: str | None = None  # a second source for held-out questions; default: a split of task
    algorithm: Algorithm = "grpo"
    reward: str = "sar"
    alpha: float = 0.2
    alpha_schedule: AlphaSchedule = "constant"
    standalone: StandaloneContext = StandaloneContext.EMPTY_TURN
    thinking: Literal["auto", "on", "off"] = "auto"  # enable_thinking of a template that has it
    log_sar: bool = True  # score the standalone pass for the log even where no reward needs it
    seed: int = 0
    steps: int = 80
    questions: int = _OF_ALGORITHM  # per step
    group_size: int = _OF_ALGORITHM  # answers per question
    max_answer_tokens: int = 256
    length_budget: int = 0  # tokens that rewards with a budget aim at; 0: max_answer_tokens
    mini_batches: int = _OF_ALGORITHM  # optimiser updates per epoch
    epochs: int = 1  # passes over a step's answers
    learning_rate: float = _OF_ALGORITHM
    warmup_steps: int = 5
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    loss: LossForm = _OF_ALGORITHM  # how tokens add up (reduce_tokens); PPO was tuned with "dapo"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 3.0
    kl: KLEstimator = "k3"
    beta: float = _OF_ALGORITHM  # KL coefficient; 0 skips the reference pass
    lora_rank: int = 16
    lora_alpha: int = 32
    gamma: float = 1.0  # PPO: discount
    lam: float = 1.0  # PPO: GAE λ
    critic_learning_rate: float = 2e-3  # PPO
    value_clip: float = 0.5  # PPO
    eval_every: int = 10
    eval_questions: int = 300
    validation_questions: int = 100
    checkpoint_every: int = 10
    token_budget: int = 0  # tokens in one micro-batch, memory before speed; 0: what is fastest
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    tracker: Tracker = "none"  # a copy of the log for TensorBoard, Weights & Biases or trackio

    def __post_init__(self) -> None:
        for name, value in DEFAULTS.get(str(self.algorithm), {}).items():
            if getattr(self, name) is _OF_ALGORITHM:
                object.__setattr__(self, name, value)
        for name, kind in get_type_hints(TrainConfig).items():
            object.__setattr__(self, name, _typed(name, getattr(self, name), kind))
        reward_named(self.reward)
        for names, holds, rule in RULES:
            for name in names.split():
                if not holds(self, getattr(self, name)):
                    rule = rule.format(questions=self.questions)
                    raise ValueError(f"{name} is {getattr(self, name)!r}; it {rule}.")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """A configuration from notebook or file parameters; an unknown name is an error.

        Fields without a parameter take the algorithm's values in ``preset`` (default `lora`).
        """
        parameters = dict(parameters)
        refuse_unknown(parameters, [*(f.name for f in dataclasses.fields(cls)), "preset"])
        name = parameters.pop("preset", "lora")
        algorithm = parameters.get("algorithm", "grpo")
        if name not in PRESETS:
            raise ValueError(f"Unknown preset {name!r}; choose one of {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name].get(algorithm, {}), **parameters})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to config.json."""
        return {k: getattr(v, "value", v) for k, v in dataclasses.asdict(self).items()}


_COUNTS = (
    "steps questions group_size max_answer_tokens mini_batches epochs lora_rank lora_alpha "
    "eval_every eval_questions checkpoint_every"
)
_NOT_NEGATIVE = "warmup_steps seed validation_questions token_budget beta weight_decay"
_POSITIVE = "learning_rate critic_learning_rate grad_clip value_clip"
_K1 = "has an expected gradient of 0 in the loss and would hold nothing; use 'k3', 'k2' or beta=0"
_GROUP = "must be at least 2 for GRPO, which compares a group's answers; or use algorithm='ppo'"
_ONE = "must be 1 for PPO, which has a critic instead of a group"
_NO_GROUP = "compares the answers to one question, and PPO has one answer each; use GRPO"
# Which values make sense, in the order in which they are checked: fields, test, rule.
RULES: tuple[tuple[str, Callable[[TrainConfig, Any], bool], str], ...] = (
    (_COUNTS, lambda _, x: x >= 1, "must be at least 1"),
    (_NOT_NEGATIVE, lambda _, x: x >= 0, "must be 0 or more"),
    (_POSITIVE, lambda _, x: x > 0, "must be above 0"),
    ("alpha", lambda _, x: 0 <= x <= 5, "must lie in [0, 5]; the paper uses 0.05 to 0.3"),
    ("gamma lam", lambda _, x: 0 <= x <= 1, "must lie in [0, 1]"),
    ("clip_low", lambda _, x: 0 < x < 1, "must lie in (0, 1)"),
    ("clip_high", lambda c, x: x >= c.clip_low, "must not be below clip_low"),
    ("dual_clip", lambda c, x: x > 1 + c.clip_high, "must exceed 1 + clip_high"),
    ("kl", lambda c, x: x != "k1" or c.beta == 0, _K1),
    ("group_size", lambda c, x: c.algorithm == "ppo" or x >= 2, _GROUP),
    ("group_size", lambda c, x: c.algorithm == "grpo" or x == 1, _ONE),
    ("reward", lambda c, x: c.algorithm == "grpo" or not reward_named(x).needs_group, _NO_GROUP),
    ("mini_batches", lambda c, x: x <= c.questions, "must not exceed questions ({questions})"),
)

# The authors' settings, for full fine-tuning of models of 1B and more. Their code divides the loss
# by micro-batches instead of answers: 8 times ours, which only gradient clipping notices.
_FULL: dict[str, Any] = {"questions": 128, "mini_batches": 2, "steps": 500, "learning_rate": 1e-6}
_FULL |= {"warmup_steps": 0, "weight_decay": 0.01, "max_answer_tokens": 4096}
_PAPER: dict[str, dict[str, Any]] = {
    "grpo": {**_FULL, "group_size": 6},
    "ppo": {**_FULL, "critic_learning_rate": 2e-6},
}

# At most 10,000 questions of each source, as in the paper; copies of one question count once.
PAPER_DATA = "gsm8k+math+numinamath?limit=10000"


def _paper_model(model: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """One of the paper's models with the paper's data, lengths and α, as a LoRA.

    The rates are ten times those of full fine-tuning, the rule of thumb for a LoRA; none of the
    four has been trained here. The authors draw at random from each source and keep short
    numeric answers of NuminaMath only; here the first rows with a checkable answer are taken.
    """
    task = {"model": model, "task": PAPER_DATA, "alpha": 0.2, "learning_rate": 1e-5, **changes}
    return {
        "grpo": {**_PAPER["grpo"], **task},
        "ppo": {**_PAPER["ppo"], **task, "critic_learning_rate": 2e-5},
    }


PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": _PAPER,
    "lora": {"grpo": {}, "ppo": {}},  # DEFAULTS
    # The authors' scripts name Qwen3's -Base models. Phi-3.5-mini exists as -instruct only. Which
    # Gemma3-1B they took is written nowhere; -it is the one with a chat template.
    "qwen3-1.7b": _paper_model("Qwen/Qwen3-1.7B-Base"),
    "qwen3-4b": _paper_model("Qwen/Qwen3-4B-Base"),
    # Its position encoding changes at 4,096 tokens, prompt included; the paper allows 4,096 for the
    # answer alone, ten times what its answers take.
    "phi-3.5-mini": _paper_model("microsoft/Phi-3.5-mini-instruct", max_answer_tokens=3072),
    "gemma3-1b": _paper_model("google/gemma-3-1b-it"),
}


def preset(name: str, algorithm: Algorithm = "grpo", **changes: Any) -> TrainConfig:
    """A preset of :data:`PRESETS` for an algorithm, with changes on top."""
    return TrainConfig.from_parameters({"preset": name, "algorithm": algorithm, **changes})


def refuse_unknown(parameters: Iterable[str], known: Sequence[str]) -> None:
    """Raise ValueError for the first name that is not known, with the nearest one that is."""
    for name in parameters:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"Unknown parameter {name!r}.{hint} Known ones: {', '.join(sorted(known))}."
            )


def _typed(name: str, value: Any, kind: Any) -> Any:
    """The value as its field's type, or a ValueError; papermill passes words as strings."""
    if kind is StandaloneContext or get_origin(kind) is Literal:
        choices = get_args(kind) or tuple(c.value for c in StandaloneContext)
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")
        return StandaloneContext(value) if kind is StandaloneContext else value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    finite = number and math.isfinite(value)
    holds, rule = {
        bool: (
            isinstance(value, bool),
            f"True or False (papermill reads -p {name} True, capital first)",
        ),
        int: (number and isinstance(value, int), "a whole number"),
        float: (finite, "finite" if number else "a number"),
        str: (isinstance(value, str) and bool(value.strip()), "a non-empty text"),
    }.get(kind, (True, ""))
    if not holds:
        raise ValueError(f"{name} is {value!r}; it must be {rule}.")
    return float(value) if kind is float else value
