"""SA-GRPO on TRL's trainer: the same tasks, rewards and contexts, for several GPUs.

:class:`SARTrainer` is TRL's ``GRPOTrainer`` with two reward functions, correctness and the bonus,
and the warm-up of sarlab's own loop. Sampling, reference, loss, gathering, vLLM, DeepSpeed and FSDP
are TRL's.

TRL hands a reward function neither prompt ids nor the log-probs of the old policy, so both scoring
passes are paid for: the standalone one, which any SAR needs, and the conditioned one, which
sarlab's own loop has for free from sampling. docs/SCALE.md has what they cost.

Needs the extra: ``pip install sarlab[trl]``.
"""

import os
from collections.abc import Sequence
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
from sarlab.experience import Batch, Clock, reward_inputs
from sarlab.models import Policy, check_left_padding, lora_config
from sarlab.prompts import chat_turns, conditioned_ids, control_tokens, standalone_ids
from sarlab.rewards import alpha_at, reward_named, total_reward
from sarlab.rollout import seed_of
from sarlab.tasks import judge_all, opens_thought
from sarlab.train import learning_rate
from sarlab.types import Question, Rollouts

PROMPT_TOKENS = 1024  # longest prompt that micro-batches are planned for, as in the paper
TOKEN_BUDGET = 16_384  # tokens in one micro-batch, where the run names none
# What `prompts` writes for a tokenizer without a chat template, as one that TRL can apply.
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

    ``processes``: how many share the work (default: the launcher's number). ``changes`` are further
    fields of GRPOConfig (``use_vllm=True``); one that ``config`` decides is a ValueError, and so is
    a configuration that TRL cannot follow.
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
    budget = config.token_budget or TOKEN_BUDGET
    largest = max(1, budget // (prompt_tokens + config.max_answer_tokens))
    rows = max(d for d in range(1, min(share, largest) + 1) if share % d == 0)
    on_gpu = torch.cuda.is_available()
    rough = config.dtype == "bfloat16" or (config.dtype == "auto" and on_gpu)
    updates = updates_per_step(config)
    settings: dict[str, Any] = {
        **{name: getattr(config, name) for name in ("seed", "beta", "learning_rate")},
        "output_dir": str(output_dir),
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
        "use_bias_correction_kl": False,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.grad_clip,
        "disable_dropout": True,
        "shuffle_dataset": False,
        "bf16": rough,
        "save_steps": config.checkpoint_every * updates,
    }
    clash = sorted(settings.keys() & changes.keys())
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
    return GRPOConfig(**{**settings, **usual, **changes})


def updates_per_step(config: TrainConfig) -> int:
    """Optimiser updates that one batch of answers is used for: TRL's steps in one of sarlab's."""
    return config.mini_batches * config.epochs


class SARTrainer(GRPOTrainer):
    """TRL's GRPO with any reward of :data:`sarlab.rewards.REWARDS`, on sarlab's own prompts.

    ``policy``: freshly loaded, without an adapter; it gets the LoRA that sarlab's own loop would
    give it. ``questions``: those of all steps in order, ``config.questions`` per step. After each
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
        self.reward = reward_named(config.reward)
        self.batch: Batch | None = None
        self.rewards: Tensor | None = None
        tokenizer = _with_template(policy)
        thinking = policy.prompt.template_options(tokenizer.chat_template)
        args.chat_template_kwargs = {**(args.chat_template_kwargs or {}), **thinking}
        policy.model.generation_config.eos_token_id = list(policy.eos_ids)
        prompts = [
            chat_turns(tokenizer, policy.prompt.user_turn(q.text), policy.prompt.system)
            for q in self.questions
        ]
        columns = {"prompt": prompts, "question_index": list(range(len(prompts)))}

        def bonus(**columns: Any) -> list[float]:
            assert self.batch is not None  # of `correct`, which TRL calls first
            return self._of_this_process(self.reward.bonus(self.batch.inputs))

        bonus.__name__ = config.reward  # the column's name in TRL's log
        super().__init__(
            model=policy.model,
            reward_funcs=[self.correct, bonus],
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

    def correct(
        self, completion_ids: Sequence[list[int]], question_index: Sequence[int], **_: Any
    ) -> list[float]:
        """TRL's first reward: score and judge this process's answers, then gather all."""
        config = self.config
        self.batch = self._collected(completion_ids, question_index)
        inputs = self.batch.inputs
        weight = alpha_at(config.alpha, config.alpha_schedule, inputs.progress)
        weights = [1.0, weight] if self.reward.verifiable else [0.0, 1.0]
        self.reward_weights = torch.tensor(weights, dtype=torch.float32)
        self.rewards = total_reward(inputs, config.reward, config.alpha, config.alpha_schedule)
        return self._of_this_process(inputs.correct)

    def _of_this_process(self, values: Tensor) -> list[float]:
        """This process's rows of a column of all."""
        each = len(values) // self.accelerator.num_processes
        return values[self.accelerator.process_index * each :][:each].tolist()

    def _collected(self, answers: Sequence[list[int]], index: Sequence[int]) -> Batch:
        """All processes' answers with their scores and verdicts, on each process."""
        clock, config, policy = Clock(), self.config, self.policy
        questions = [self.questions[i] for i in index]
        alone = standalone_ids(policy.tokenizer, policy.prompt, config.standalone)
        in_thought = opens_thought(policy.tokenizer.decode(alone[-8:]))
        texts = [policy.text(ids) for ids in answers]
        verdicts = gather_object(judge_all(texts, questions, in_thought=in_thought))
        clock.lap("verify")
        prompts = [conditioned_ids(policy.tokenizer, q.text, policy.prompt) for q in questions]
        conditioned = self._score(prompts, answers)
        clock.lap("score_conditioned")
        standalone = None
        if config.log_sar or self.reward.needs_standalone:
            standalone = self._score([alone] * len(answers), answers)
        clock.lap("score_standalone")
        ids = self._gathered(pad([torch.tensor(ids) for ids in answers], padding_side="right"))
        lengths = self._gathered(torch.tensor([len(ids) for ids in answers]))
        order = self._gathered(torch.tensor(index))
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
            texts=tuple(gather_object(texts)),
        )
        inputs = reward_inputs(
            rollouts,
            verdicts,
            conditioned,
            standalone,
            budget=config.length_budget or config.max_answer_tokens,
            progress=self.state.global_step // updates_per_step(config) / config.steps,
        )
        clock.lap("gather")
        of_groups = [self.questions[i] for i in heads.tolist()]
        return Batch(of_groups, (), rollouts, verdicts, inputs, clock.seconds)

    def _score(self, prefixes: Sequence[list[int]], answers: Sequence[list[int]]) -> Tensor:
        """All processes' log-probs [B, T] in TRL's own forward: dropout off, no gradient.

        Every process makes the same number of forwards, as ZeRO-3 and FSDP require.
        """
        before, after = ([torch.tensor(ids) for ids in rows] for rows in (prefixes, answers))
        device, fill = self.accelerator.device, self._tokenizer.pad_token_id

        def block(before: list[Tensor], after: list[Tensor], fill: int) -> Tensor:
            sides = pad(before, fill, padding_side="left"), pad(after, fill, padding_side="right")
            return torch.cat(sides, dim=1).to(device)

        ids = block(before, after, fill)
        mask = block([torch.ones_like(x) for x in before], [torch.ones_like(x) for x in after], 0)
        width = max(map(len, answers))
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                size = self.args.per_device_train_batch_size
                logps, _, _ = self._get_per_token_logps_and_entropies(
                    self.model, ids, mask, width, batch_size=size
                )
        finally:
            self.model.train(was_training)
        return self._gathered(logps.float().masked_fill(mask[:, -width:] == 0, 0.0))

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


def _with_template(policy: Policy) -> Any:
    """The tokenizer, with a template that writes sarlab's plain prompt where it has none."""
    tokenizer = policy.tokenizer
    if not tokenizer.chat_template:
        plain = conditioned_ids(tokenizer, "1 + 1 = ?", policy.prompt)
        tokenizer.chat_template = PLAIN_TEMPLATE
        if conditioned_ids(tokenizer, "1 + 1 = ?", policy.prompt) != plain:
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
    prompts, _, _ = trainer._tokenize_prompts(turns)
    for question, ids in zip(questions, prompts, strict=True):
        expected = conditioned_ids(policy.tokenizer, question.text, policy.prompt)
        if list(ids) != expected:
            raise ValueError(
                f"TRL's prompt for {question.text[:60]!r}… has other tokens than sarlab's "
                f"({list(ids)[:12]}… against {expected[:12]}…). The tokenizer's chat template is "
                "read in two ways; give it one that renders the same without options."
            )
