"""SA-GRPO on TRL's trainer: the same tasks, rewards and contexts, for several GPUs.

:class:`SARTrainer` is TRL's ``GRPOTrainer`` with two methods of its own: ``_calculate_rewards``
scores the answers under both contexts and puts sarlab's reward beside TRL's other rewards, and
``create_scheduler`` warms up as sarlab's own loop does. Sampling, reference, loss, gathering,
vLLM, DeepSpeed and FSDP are TRL's.

TRL hands ``_calculate_rewards`` neither prompt ids nor the log-probs that it has just computed for
the old policy, so both scoring passes are paid for there: the standalone one, which any SAR needs,
and the conditioned one, which sarlab's own loop has for free from sampling. docs/SCALE.md has
what they cost.

Needs the extra: ``pip install sarlab[trl]``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import pad

from sarlab.config import TrainConfig
from sarlab.experience import Batch, Clock
from sarlab.models import Policy, check_left_padding, lora_config
from sarlab.prompts import (
    chat_turns,
    conditioned_ids,
    control_tokens,
    standalone_ids,
)
from sarlab.rewards import alpha_at, reward_named, total_reward
from sarlab.rollout import seed_of
from sarlab.sar import self_aligned_reward
from sarlab.tasks import judge_all, opens_thought
from sarlab.types import Question, RewardInputs, Rollouts
from sarlab.update import learning_rate

PROMPT_TOKENS = 1024  # longest prompt that micro-batches are planned for, as in the paper
TOKEN_BUDGET = 16_384  # tokens in one micro-batch, where the run names none
# What `contexts` writes for a tokenizer without a chat template, as one that TRL can apply.
PLAIN_TEMPLATE = (
    "{% if bos_token %}{{ bos_token }}{% endif %}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'User: ' }}{% endif %}{{ message['content'] + '\n\n' }}"
    "{% endfor %}{{ 'Assistant:\n' }}"
)


def grpo_config(
    config: TrainConfig,
    output_dir: str | Path,
    *,
    processes: int | None = None,
    prompt_tokens: int = PROMPT_TOKENS,
    **changes: Any,
) -> GRPOConfig:
    """TRL's settings that train what ``config`` describes, the authors' form of GRPO by default.

    One *step* of sarlab (a batch of answers) is ``mini_batches · epochs`` of TRL's: it counts
    optimiser updates. ``processes``: how many share the work (default: the launcher's number).
    ``changes`` are further fields of GRPOConfig (``use_vllm=True``); one that ``config`` decides
    is a ValueError, and so is a configuration that TRL cannot follow.
    """
    if config.algorithm != "grpo":
        raise ValueError(
            f"algorithm is {config.algorithm!r}; TRL has no PPO. Use algorithm='grpo', or train "
            "with sarlab's own loop (notebook 02)."
        )
    if config.beta > 0 and config.kl != "k3":
        raise ValueError(f"kl is {config.kl!r}; TRL has k3 only. Use kl='k3', or beta=0.")
    if config.loss == "dapo" and config.mini_batches > 1:
        raise ValueError(
            f"loss is 'dapo' with mini_batches={config.mini_batches}; TRL divides each update by "
            "the mean tokens of all updates of a step, which is another loss. Use mini_batches=1, "
            "loss='dr_grpo', or sarlab's own loop (notebook 02)."
        )
    processes = processes or int(os.environ.get("WORLD_SIZE", "1"))
    answers, shares = config.questions * config.group_size, processes * config.mini_batches
    if answers % shares:
        raise ValueError(
            f"questions × group_size is {answers}; it must be a multiple of processes × "
            f"mini_batches ({processes} × {config.mini_batches}), so that every process has the "
            "same share of an update."
        )
    share = answers // shares  # answers of one process in one update
    largest = max(
        1, (config.token_budget or TOKEN_BUDGET) // (prompt_tokens + config.max_answer_tokens)
    )
    rows = max(d for d in range(1, min(share, largest) + 1) if share % d == 0)
    on_gpu = torch.cuda.is_available()
    rough = config.dtype == "bfloat16" or (config.dtype == "auto" and on_gpu)
    updates = updates_per_step(config)
    told: dict[str, Any] = {
        "output_dir": str(output_dir),
        "seed": config.seed,
        "max_steps": config.steps * updates,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": share // rows,
        "steps_per_generation": share // rows * config.mini_batches,
        "num_iterations": config.epochs,
        "num_generations": config.group_size,
        "max_completion_length": config.max_answer_tokens,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "loss_type": config.loss,
        "scale_rewards": "group" if config.loss == "grpo" else "none",
        "epsilon": config.clip_low,
        "epsilon_high": config.clip_high,
        "delta": config.dual_clip,
        "beta": config.beta,
        "use_bias_correction_kl": False,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.grad_clip,
        "disable_dropout": True,
        "shuffle_dataset": False,
        "bf16": rough,
        "save_steps": config.checkpoint_every * updates,
    }
    clash = sorted(told.keys() & changes.keys())
    if clash:
        raise ValueError(
            f"{', '.join(clash)} of TRL are set from the run's own parameters. Change those "
            "(questions, group_size, max_answer_tokens, learning_rate, …) instead."
        )
    usual = {
        "use_cpu": not on_gpu,
        # Long answers of a large model do not fit otherwise; a small one on a CPU has no need.
        "gradient_checkpointing": on_gpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is not finite must be seen
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
    }
    unknown = sorted(changes.keys() - GRPOConfig.__dataclass_fields__.keys())
    if unknown:
        raise ValueError(f"TRL's GRPOConfig has no field {', '.join(map(repr, unknown))}.")
    return GRPOConfig(**{**told, **usual, **changes})


def updates_per_step(config: TrainConfig) -> int:
    """Optimiser updates that one batch of answers is used for: TRL's steps in one of sarlab's."""
    return config.mini_batches * config.epochs


class SARTrainer(GRPOTrainer):
    """TRL's GRPO with any reward of :data:`sarlab.rewards.REWARDS`, on sarlab's own prompts.

    ``policy``: freshly loaded, without an adapter; it gets the LoRA that sarlab's own loop would
    give it. ``questions``: those of all steps in order, ``config.questions`` a step. After each
    batch ``batch`` and ``rewards`` hold what every process sampled and earned, in TRL's order.
    """

    def __init__(
        self,
        policy: Policy,
        questions: Sequence[Question],
        config: TrainConfig,
        args: GRPOConfig,
        **options: Any,
    ) -> None:
        check_left_padding(policy)
        _refuse_control_tokens(policy, questions)
        self.policy, self.questions, self.config = policy, list(questions), config
        self.bonus = reward_named(config.reward)
        self.batch: Batch | None = None
        self.rewards: Tensor | None = None
        tokenizer = _with_template(policy)
        policy.model.generation_config.eos_token_id = list(policy.eos_ids)
        self._alone = standalone_ids(tokenizer, policy.prompt, config.standalone)
        prompts = [
            chat_turns(tokenizer, policy.prompt.user_turn(q.text), policy.prompt.system)
            for q in self.questions
        ]
        columns = {"prompt": prompts, "question_index": list(range(len(prompts)))}
        super().__init__(
            model=policy.model,
            reward_funcs=[_column("correct"), _column(config.reward, "bonus")],
            args=args,
            train_dataset=Dataset.from_dict(columns),
            processing_class=tokenizer,
            peft_config=lora_config(config.lora_rank, config.lora_alpha),
            **options,
        )
        self.add_callback(_SeedEachStep(config, self.accelerator.process_index))
        _check_prompts(self, policy, self.questions[: config.questions])

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """sarlab's warm-up: linear over steps, from the first update on above 0."""
        scheduler = getattr(self, "lr_scheduler", None)
        if scheduler is None:
            updates = updates_per_step(self.config)
            scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer,
                lambda done: (
                    learning_rate(self.config, done // updates + 1) / self.config.learning_rate
                ),
            )
            self.lr_scheduler, self._created_lr_scheduler = scheduler, True
        return scheduler

    def _calculate_rewards(
        self,
        inputs: list[dict[str, Any]],
        prompts: list[Any],
        completions: list[Any],
        completion_ids_list: list[list[int]],
    ) -> Tensor:
        """Score and judge this process's answers, gather all, then let TRL do its own."""
        self.batch = self._look(inputs, completion_ids_list)
        found = self.batch.inputs
        weight = alpha_at(self.config.alpha, self.config.alpha_schedule, found.progress)
        self.reward_weights = torch.tensor(
            [1.0, weight] if self.bonus.verifiable else [0.0, 1.0], dtype=torch.float32
        )
        self.rewards = total_reward(
            found, self.config.reward, self.config.alpha, self.config.alpha_schedule
        )
        columns: dict[str, Tensor | None] = {
            "correct": found.correct,
            "bonus": self.bonus.bonus(found),
            "sar": None
            if found.logps_standalone is None
            else self_aligned_reward(
                found.logps_conditioned, found.logps_standalone, found.answer_mask
            ),
        }
        first = self.accelerator.process_index * len(inputs)
        for name, column in columns.items():
            for row, entry in enumerate(inputs):
                entry[name] = None if column is None else column[first + row].item()
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _look(self, inputs: Sequence[Mapping[str, Any]], answers: Sequence[list[int]]) -> Batch:
        """All processes' answers with their scores and verdicts, on each process."""
        clock = Clock()
        config, policy = self.config, self.policy
        index = [int(entry["question_index"]) for entry in inputs]
        asked = [self.questions[i] for i in index]
        texts = [policy.text(ids) for ids in answers]
        in_thought = opens_thought(policy.tokenizer.decode(self._alone[-8:]))
        verdicts = judge_all(texts, asked, in_thought=in_thought)
        clock.lap("verify")
        prompts = [conditioned_ids(policy.tokenizer, q.text, policy.prompt) for q in asked]
        conditioned = self._score(prompts, answers)
        clock.lap("score_conditioned")
        alone = None
        if config.log_sar or self.bonus.needs_standalone:
            alone = self._score([self._alone] * len(answers), answers)
        clock.lap("score_standalone")
        lengths = torch.tensor([len(ids) for ids in answers])
        ids = pad([torch.tensor(ids) for ids in answers], padding_side="right")
        ids, lengths = self._gathered(ids), self._gathered(lengths)
        order = self._gathered(torch.tensor(index))
        conditioned = self._gathered(conditioned)
        alone = None if alone is None else self._gathered(alone)
        verdicts = gather_object(verdicts)
        groups = torch.arange(len(ids)) // config.group_size
        heads = order[:: config.group_size]
        if not torch.equal(heads[groups], order):
            raise RuntimeError(
                f"Answers to one question do not stand together ({order.tolist()[:16]}…), so "
                "advantages would mix questions. This version of TRL orders batches otherwise."
            )
        mask = torch.arange(ids.shape[1])[None] < lengths[:, None]
        last = ids[torch.arange(len(ids)), lengths - 1]
        rollouts = Rollouts(
            answer_ids=ids,
            answer_mask=mask,
            logps=conditioned,
            group_ids=groups,
            truncated=~torch.isin(last, torch.tensor(policy.eos_ids)),
            texts=tuple(
                policy.text(row[:n].tolist()) for row, n in zip(ids, lengths.tolist(), strict=True)
            ),
        )
        step = self.state.global_step // updates_per_step(config)
        found = RewardInputs(
            correct=torch.tensor([float(v.correct) for v in verdicts]),
            group_ids=groups,
            answer_mask=mask,
            logps_conditioned=conditioned,
            logps_standalone=alone,
            progress=step / config.steps,
        )
        questions = [self.questions[i] for i in heads.tolist()]
        clock.lap("gather")
        return Batch(questions, (), rollouts, verdicts, found, clock.seconds)

    def _score(self, prefixes: Sequence[list[int]], answers: Sequence[list[int]]) -> Tensor:
        """Log-probs of the answers [B, T] in TRL's own forward: dropout off, no gradient.

        Every process makes the same number of forwards, as ZeRO-3 and FSDP require.
        """
        device = self.accelerator.device
        before = [torch.tensor(ids) for ids in prefixes]
        after = [torch.tensor(ids) for ids in answers]
        fill = self._tokenizer.pad_token_id
        ids = torch.cat(
            [pad(before, fill, padding_side="left"), pad(after, fill, padding_side="right")], dim=1
        )
        mask = torch.cat(
            [
                pad([torch.ones_like(x) for x in before], 0, padding_side="left"),
                pad([torch.ones_like(x) for x in after], 0, padding_side="right"),
            ],
            dim=1,
        )
        width = max(map(len, answers))
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                logps, _, _ = self._get_per_token_logps_and_entropies(
                    self.model,
                    ids.to(device),
                    mask.to(device),
                    width,
                    batch_size=self.args.per_device_train_batch_size,
                )
        finally:
            self.model.train(was_training)
        return logps.float().masked_fill(mask[:, -width:].to(device) == 0, 0.0).cpu()

    def _gathered(self, block: Tensor) -> Tensor:
        """Rows of all processes in their order, padded with 0 to one width, on the CPU."""
        block = block.to(self.accelerator.device)
        if block.dim() > 1:
            block = self.accelerator.pad_across_processes(block, dim=1, pad_index=0)
        return self.accelerator.gather(block).cpu()


class _SeedEachStep(TrainerCallback):
    """Random numbers from (seed, step, process), so that a resumed run draws the same answers."""

    def __init__(self, config: TrainConfig, process: int) -> None:
        self.config, self.process = config, process

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, rest = divmod(state.global_step, updates_per_step(self.config))
        if rest == 0:
            torch.manual_seed(seed_of(f"{self.config.seed} {step + 1} sample {self.process}"))


def _column(name: str, source: str = "") -> Any:
    """A reward function of TRL's form that hands out what stands in a column already."""

    def reward(**columns: Any) -> list[float]:
        return columns[source or name]

    reward.__name__ = name
    return reward


def _with_template(policy: Policy) -> Any:
    """The tokenizer, with a template that writes sarlab's plain prompt where it has none."""
    tokenizer = policy.tokenizer
    if not tokenizer.chat_template:
        asked = "1 + 1 = ?"
        wanted = conditioned_ids(tokenizer, asked, policy.prompt)
        tokenizer.chat_template = PLAIN_TEMPLATE
        if conditioned_ids(tokenizer, asked, policy.prompt) != wanted:
            raise ValueError(
                f"The tokenizer of {policy.reference!r} has no chat template, and splits the plain "
                "prompt otherwise when it comes from one. Give it a chat template of its own."
            )
    return tokenizer


def _refuse_control_tokens(policy: Policy, questions: Sequence[Question]) -> None:
    """Raise where a question spells out a special token, which TRL would take for a real one."""
    for question in questions:
        spelled = control_tokens(policy.tokenizer, question.text)
        if spelled:
            raise ValueError(
                f"The question {question.text[:60]!r}… spells out {spelled[0]!r}, which TRL "
                "encodes as the control token itself. Take it out of the task, or train with "
                "sarlab's own loop (notebook 02), where it stays text."
            )


def _check_prompts(trainer: SARTrainer, policy: Policy, questions: Sequence[Question]) -> None:
    """Raise where TRL would ask other token ids than sarlab does."""
    turns = trainer.train_dataset[: len(questions)]["prompt"]
    asked, _, _ = trainer._tokenize_prompts(turns)
    for question, ids in zip(questions, asked, strict=True):
        wanted = conditioned_ids(policy.tokenizer, question.text, policy.prompt)
        if list(ids) != wanted:
            raise ValueError(
                f"TRL's prompt for {question.text[:60]!r}… has other tokens than sarlab's "
                f"({list(ids)[:12]}… against {wanted[:12]}…). The tokenizer's chat template is "
                "read in two ways; give it one that renders the same without options."
            )
