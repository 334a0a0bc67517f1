"""SA-GRPO on TRL's trainer: the same tasks, rewards and contexts, for several GPUs.

:class:`SARTrainer` is TRL's ``GRPOTrainer`` on sarlab's prompts, with two reward functions
(correctness, the bonus) and sarlab's warm-up. Sampling, reference, loss, gathering, vLLM, DeepSpeed
and FSDP are TRL's. A reward function of TRL sees neither prompt ids nor old log-probs, so both
scoring passes are paid for (docs/SCALE.md). Needs the extra: ``pip install sarlab[trl]``.
"""

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
from sarlab.prompts import conditioned_ids, standalone_ids
from sarlab.rewards import alpha_at, reward_named, total_reward
from sarlab.rollout import seed_of
from sarlab.tasks import judge_all, opens_thought
from sarlab.train import learning_rate
from sarlab.types import Question, Rollouts

PROMPT_TOKENS = 1024  # longest prompt that micro-batches are planned for, as in the paper
TOKEN_BUDGET = 16_384  # tokens in one micro-batch, where the run names none
_SAME = (  # fields of GRPOConfig, and of TrainConfig where the name is another
    "seed beta learning_rate weight_decay num_iterations=epochs num_generations=group_size "
    "max_completion_length=max_answer_tokens loss_type=loss epsilon=clip_low "
    "epsilon_high=clip_high delta=dual_clip max_grad_norm=grad_clip"
)


def grpo_config(
    config: TrainConfig, output_dir: str | Path, *, processes: int = 1, **changes: Any
) -> GRPOConfig:
    """TRL's settings that train what ``config`` describes, the authors' form of GRPO by default.

    ``processes``: how many share the work. ``changes`` are further fields of GRPOConfig
    (``use_vllm=True``); one that ``config`` decides is a ValueError, and so is a configuration that
    TRL cannot follow.
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
    answers, shares = config.questions * config.group_size, processes * config.mini_batches
    if answers % shares:
        raise ValueError(
            f"questions × group_size is {answers}; it must be a multiple of processes × "
            f"mini_batches ({processes} × {config.mini_batches}), so that every process has the "
            "same share of an update."
        )
    share = answers // shares  # answers of one process in one update
    budget = config.token_budget or TOKEN_BUDGET
    largest = max(1, budget // (PROMPT_TOKENS + config.max_answer_tokens))
    rows = max(d for d in range(1, min(share, largest) + 1) if share % d == 0)
    on_gpu = torch.cuda.is_available()
    updates = updates_per_step(config)
    pairs = (field.partition("=") for field in _SAME.split())
    settings: dict[str, Any] = {
        **{theirs: getattr(config, ours or theirs) for theirs, _, ours in pairs},
        **dict.fromkeys(("temperature", "top_p", "repetition_penalty"), 1.0),
        **dict.fromkeys(("use_bias_correction_kl", "shuffle_dataset"), False),
        "top_k": 0,
        "disable_dropout": True,
        "output_dir": str(output_dir),
        "max_steps": config.steps * updates,
        "save_steps": config.checkpoint_every * updates,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": share // rows,
        "steps_per_generation": share // rows * config.mini_batches,
        "scale_rewards": "group" if config.loss == "grpo" else "none",
        "bf16": config.dtype == "bfloat16" or (config.dtype == "auto" and on_gpu),
    }
    if clash := sorted(settings.keys() & changes.keys()):
        raise ValueError(
            f"{', '.join(clash)} of TRL are set from the run's own parameters. Change those "
            "(questions, group_size, max_answer_tokens, learning_rate, …) instead."
        )
    if unknown := sorted(changes.keys() - GRPOConfig.__dataclass_fields__.keys()):
        raise ValueError(f"TRL's GRPOConfig has no field {', '.join(map(repr, unknown))}.")
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

    batch: Batch
    rewards: Tensor

    def __init__(
        self, policy: Policy, questions: Sequence[Question], config: TrainConfig, args: GRPOConfig
    ) -> None:
        check_left_padding(policy)
        self.policy, self.questions, self.config = policy, list(questions), config
        self.reward = reward_named(config.reward)
        policy.model.generation_config.eos_token_id = list(policy.eos_ids)
        columns = {
            "prompt": [question.text for question in self.questions],
            "question_index": list(range(len(self.questions))),
        }

        def bonus(**columns: Any) -> list[float]:  # TRL calls `correct` first
            return self._of_this_process(self.reward.bonus(self.batch.inputs))

        bonus.__name__ = config.reward  # the column's name in TRL's log
        super().__init__(
            model=policy.model,
            reward_funcs=[self.correct, bonus],
            args=args,
            train_dataset=Dataset.from_dict(columns),
            processing_class=policy.tokenizer,
            peft_config=lora_config(config.lora_rank, config.lora_alpha),
        )
        self.add_callback(_SeedEachStep(config, self.accelerator.process_index))

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """sarlab's own prompts of questions, whatever TRL would make of their text."""
        policy = self.policy
        ids = [conditioned_ids(policy.tokenizer, text, policy.prompt) for text in prompts]
        return ids, None, {}

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """sarlab's warm-up: linear over steps, from the first update on above 0."""
        config, updates = self.config, updates_per_step(self.config)
        if getattr(self, "lr_scheduler", None) is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer,
                lambda done: learning_rate(config, done // updates + 1) / config.learning_rate,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

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
        rows = torch.arange(len(ids))
        groups = rows // config.group_size
        heads = order[:: config.group_size]
        if not torch.equal(heads[groups], order):
            raise RuntimeError(f"TRL parted the answers to one question: {order.tolist()[:16]}…")
        rollouts = Rollouts(
            answer_ids=ids,
            answer_mask=torch.arange(ids.shape[1])[None] < lengths[:, None],
            logps=conditioned,
            group_ids=groups,
            truncated=~torch.isin(ids[rows, lengths - 1], torch.tensor(policy.eos_ids)),
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

        def block(before: list[Tensor], after: list[Tensor], fill: int) -> Tensor:
            sides = pad(before, fill, padding_side="left"), pad(after, fill, padding_side="right")
            return torch.cat(sides, dim=1).to(self.accelerator.device)

        ids = block(before, after, self._tokenizer.pad_token_id)
        mask = block([torch.ones_like(x) for x in before], [torch.ones_like(x) for x in after], 0)
        width, size = max(map(len, answers)), self.args.per_device_train_batch_size
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad():
            logps, _, _ = self._get_per_token_logps_and_entropies(
                self.model, ids, mask, width, batch_size=size
            )
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
