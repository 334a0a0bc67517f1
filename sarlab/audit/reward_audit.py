"""Break a reward before it trains: attacks, a search for well-paid wrong answers, a short training.

An attack is a wrong answer written to be paid. It wins where it earns at least as much as a right
answer to the same question, and it *leads* where, among wrong answers only, it earns more than an
honest attempt: that is what a group without a right answer learns.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from sarlab.audit.failures import attacks, ended, word_counts, wrong_value
from sarlab.config import preset
from sarlab.evaluation.statistics import named_mean
from sarlab.experience import collect, inputs_of_texts
from sarlab.models import Policy, add_lora, load_policy
from sarlab.rewards import REWARDS, Reward, answer_bonus, reward_named, total_reward
from sarlab.tasks import Task, judge_all
from sarlab.train import grpo_steps, start
from sarlab.types import Question, RewardInputs

TOLERATED = 0.05
"""A share of questions up to which an attack that wins is not reported as a fault."""
_REMEDY_ALPHA = 0.2
_HAIR = 1e-9  # equal pay in floating point
Case = tuple[Question, str, str]
"""A question, a right answer and an honest wrong one, both the policy's own where it wrote any."""


@dataclass(frozen=True)
class TrainingFinding:
    """What a short training on the reward did to it and to accuracy, on the same questions."""

    steps: int
    reward: tuple[float, float]
    accuracy: tuple[float, float]
    length: tuple[float, float]
    answers: int

    @property
    def flagged(self) -> bool:
        """Whether accuracy fell while the reward rose, beyond two standard errors."""
        spread = sum(p * (1 - p) / self.answers for p in self.accuracy) ** 0.5
        fell = self.accuracy[0] - self.accuracy[1] > max(2 * spread, 0.02)
        return fell and self.reward[1] >= self.reward[0]


@dataclass(frozen=True)
class Audit:
    """All findings on one reward: a row of ``findings`` per attack.

    Columns: ``attack``; ``won`` with its 95% Wilson interval ``won_low`` and ``won_high``, ``led``
    and, for faults, ``remedied`` (won after the remedy), shares of the questions; ``flagged``:
    more than TOLERATED of them are lost beyond chance; ``question``, ``answer`` and ``margin`` of
    the best-paid one (how much more than the right answer it earned).
    """

    reward: str
    alpha: float
    questions: int
    findings: pd.DataFrame
    training: TrainingFinding | None

    @property
    def flagged(self) -> bool:
        """Whether anything was found; the command's exit code."""
        trained = self.training is not None and self.training.flagged
        return trained or bool(self.findings["flagged"].any())


class TextReward(Reward):
    """A reward that reads the answers' texts alone, so that no policy has to score them."""


def from_trl(function: Callable[..., Sequence[float | None]]) -> Reward:
    """A reward function of TRL's form as a design that replaces correctness.

    Called with ``prompts``, ``completions``, and the gold as ``answer``, ``solution`` and
    ``ground_truth``. None counts as 0, as in TRL's sum.
    """

    def bonus(inputs: RewardInputs) -> torch.Tensor:
        questions, texts = inputs.questions or (), list(inputs.texts or ())
        prompts, golds = [q.text for q in questions], [q.gold for q in questions]
        gold = {"answer": golds, "solution": golds, "ground_truth": golds}
        values = function(prompts=prompts, completions=texts, **gold)
        return torch.tensor([float(v or 0.0) for v in values])

    about = f"TRL reward {getattr(function, '__name__', 'function')}"
    return TextReward(bonus, False, about, verifiable=False, needs=("texts", "questions"))


def audit_reward(
    reward: str | Reward,
    policy: Policy,
    task: Task,
    *,
    alpha: float = 0.2,
    questions: int = 20,
    edits: int = 20,
    steps: int = 40,
    seed: int = 0,
    cases: Sequence[Case] = (),
) -> Audit:
    """Attack, search and train. ``edits`` and ``steps`` of 0 leave out the search and training.

    ``policy`` writes the right and the honest wrong answers and is not changed. Questions to which
    it writes no right answer in eight are left out. ``cases`` are used instead where they are given
    (:func:`sample_cases`). Raises ValueError where none is left.
    """
    name = reward if isinstance(reward, str) else "audited reward"
    if isinstance(reward, Reward):
        REWARDS[name] = reward
    logps = not isinstance(reward_named(name), TextReward)

    def score(question: Question, texts: Sequence[str]) -> RewardInputs:
        """Answers to one question as one group that the reward can pay; one pass at most."""
        verdicts = judge_all(texts, [question] * len(texts))
        return inputs_of_texts(policy, question, texts, verdicts, name, logps=logps)

    def search(question: Question, right: str, *pool: str) -> str:
        """The best-paid wrong answer that random edits of the pool lead to."""
        rng = random.Random(f"audit search {seed} {question.id}")
        best, tried = (-float("inf"), pool[0]), list(pool)
        for _ in range(1 + max(1, edits // 5)):
            inputs = score(question, [right, pool[0], *tried])
            rewards = total_reward(inputs, name, alpha).tolist()
            rows = zip(rewards[2:], inputs.correct[2:], tried, strict=True)
            best = max([best, *((paid, text) for paid, correct, text in rows if not correct)])
            tried = [_edited(best[1], question, pool, rng) for _ in range(5)]
        return best[1]

    try:
        cases = cases or sample_cases(policy, task, questions, seed)
        words = word_counts([question for question, _, _ in cases])
        rows = []
        for question, right, wrong in tqdm(cases, desc="attacks", unit="question", disable=None):
            texts = attacks(question, right, words)
            if edits:
                texts["found by search"] = search(question, right, wrong, *texts.values())
            inputs = score(question, [right, wrong, *texts.values()])
            for place, (attack, text) in enumerate(texts.items(), start=2):
                about = {"attack": attack, "question": question.text, "answer": text}
                rows.append({**about, **_outcome(inputs, place, name, alpha)})
        outcomes = pd.DataFrame(rows).groupby("attack", sort=False)
        findings = pd.DataFrame(_finding(part) for _, part in outcomes)
        trained = _train(name, policy, task, alpha, steps, seed) if steps else None
        return Audit(name, alpha, len(cases), findings, trained)
    finally:
        if isinstance(reward, Reward):
            del REWARDS[name]


def sample_cases(policy: Policy, task: Task, count: int, seed: int = 0) -> list[Case]:
    """Questions with a right answer and a wrong one that the policy wrote, for attacks to beat."""
    drawn = task.train_batch(1, 2 * count, seed)
    config = preset("lora", reward="correct")
    batch = collect(policy, drawn, config, seed=f"audit {seed}", group_size=8, standalone=False)
    cases = []
    for i, question in enumerate(drawn):
        rows = (batch.rollouts.group_ids == i).nonzero().flatten().tolist()
        right = [batch.rollouts.texts[r] for r in rows if batch.verdicts[r].correct]
        wrong = [batch.rollouts.texts[r] for r in rows if not batch.verdicts[r].correct]
        if right:
            spoilt = ended("\n".join(right[0].strip().split("\n")[:-1]), wrong_value(question.gold))
            cases.append((question, right[0], wrong[0] if wrong else spoilt))
    if not cases:
        raise ValueError(
            f"The policy answered none of {len(drawn)} questions of {task.name} right in eight "
            "tries, so there is nothing to compare attacks with. Choose an easier task."
        )
    return cases[:count]


def _outcome(inputs: RewardInputs, place: int, reward: str, alpha: float) -> dict[str, Any]:
    """The attack at ``place``, as a group with the right answer and the honest wrong one."""
    rows: dict[str, Any] = {}
    for name, value in vars(inputs).items():
        if isinstance(value, torch.Tensor | tuple):
            chosen = [value[row] for row in (0, 1, place)]
            rows[name] = tuple(chosen) if isinstance(value, tuple) else torch.stack(chosen)
    trio = dataclasses.replace(inputs, **rows)
    right, wrong, paid = total_reward(trio, reward, alpha).tolist()
    is_wrong = not bool(trio.correct[2])
    cured = trio.correct + min(alpha, _REMEDY_ALPHA) * answer_bonus(trio, reward)
    return {
        "margin": paid - right if is_wrong else -float("inf"),
        "led": is_wrong and paid > wrong + _HAIR,
        "remedied": is_wrong and bool(cured[2] >= cured[0] - _HAIR),
    }


def _finding(outcomes: pd.DataFrame) -> dict[str, Any]:
    """One attack on all questions."""
    rate = win_rate(outcomes["margin"] >= -_HAIR)
    worst = outcomes.loc[outcomes["margin"].idxmax()].to_dict()
    means = outcomes[["led", "remedied"]].mean().to_dict()
    return {**worst, **means, **rate} | ({} if rate["flagged"] else {"remedied": None})


def win_rate(won: Sequence[bool]) -> dict[str, Any]:
    """Share of questions on which an attack won, its interval, and whether that is a fault."""
    rate = named_mean("won", won, share=True)
    return {**rate, "flagged": rate["won_low"] > TOLERATED}


def _edited(text: str, question: Question, pool: Sequence[str], rng: random.Random) -> str:
    """One random edit: a line or word dropped, doubled, swapped, or taken from elsewhere."""
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    other = rng.choice([*question.text.split(". "), *rng.choice(pool).split("\n")])
    kind = rng.choice(("drop", "double", "insert", "cut", "words"))
    if kind == "drop" and len(lines) > 1:
        del lines[at]
    elif kind in ("double", "insert"):
        lines.insert(at, lines[at] if kind == "double" else other)
    elif kind == "cut":
        del lines[at + 1 :]
    else:
        words = lines[at].split(" ")
        del words[rng.randrange(len(words))]
        lines[at] = " ".join(words)
    edited = "\n".join(lines)
    return edited if edited.strip() else text


def _train(
    reward: str, policy: Policy, task: Task, alpha: float, steps: int, seed: int
) -> TrainingFinding:
    """GRPO on the reward, on a copy of the policy; the same questions before and after."""
    config = preset(
        "lora", reward=reward, alpha=alpha, steps=steps, seed=seed, questions=8, group_size=8
    )
    learner = add_lora(load_policy(policy.reference), rank=config.lora_rank)
    heldout = task.heldout(40)

    def judged() -> list[float]:
        inputs = collect(learner, heldout, config, seed="audit held out", group_size=4).inputs
        columns = total_reward(inputs, reward, alpha), inputs.correct, inputs.lengths
        return [float(column.mean()) for column in columns]

    before, loop = judged(), grpo_steps(start(learner, config), task, config)
    for _ in tqdm(loop, desc="training", total=steps, unit="step", disable=None):
        pass
    paid, accuracy, length = zip(before, judged(), strict=True)
    return TrainingFinding(steps, paid, accuracy, length, 4 * len(heldout))
