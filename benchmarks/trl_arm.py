"""TRL's GRPOTrainer with self-aligned reward as its users would write it, for the comparisons.

The reward holds the model and makes two padded forward passes, over prompt + answer and over empty
turn + answer, in batches of the trainer's own size, takes the whole logits, their log-softmax and
gathers. The trainer is given the same model, prompts, lengths, adapter, type, coefficients and
number of optimiser steps as a step of this library, without gradient checkpointing. Where TRL
leaves a choice, it is the faster one.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import common
import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from sarlab.config import TrainConfig
from sarlab.models import load_policy
from sarlab.prompts import PromptFormat
from sarlab.tasks import judge_all
from sarlab.types import Question


class SelfAlignedReward:
    """A reward function for TRL. It keeps what it last saw, so that its values can be checked."""

    __name__ = "self_aligned_reward"

    def __init__(self, tokenizer: Any, prompt: PromptFormat, batch_size: int, alpha: float) -> None:
        self.tokenizer, self.prompt = tokenizer, prompt
        self.batch_size, self.alpha = batch_size, alpha
        self.model: Any = None
        self.seconds: list[float] = []
        self.last: dict[str, Any] = {}

    def __call__(
        self,
        prompts: list[Any],
        completions: list[Any],
        completion_ids: list[list[int]],
        gold: list[str],
        **_: Any,
    ) -> list[float]:
        """R = right + α·SAR for every completion."""
        began = common.now()
        asked = [self._ids(messages) for messages in prompts]
        alone = self._ids(messages_of("", self.prompt))
        conditioned = self._perplexities(asked, completion_ids)
        standalone = self._perplexities([alone] * len(prompts), completion_ids)
        sar = ((standalone - conditioned) / standalone).clamp(-1.0, 1.0)
        self.seconds.append(common.now() - began)
        self.last = {"prompts": asked, "answers": completion_ids, "sar": sar, "alone": alone}
        texts = [c[0]["content"] if isinstance(c, list) else c for c in completions]
        questions = [Question(p[-1]["content"], g) for p, g in zip(prompts, gold, strict=True)]
        right = torch.tensor([float(v.correct) for v in judge_all(texts, questions)])
        return (right + self.alpha * sar).tolist()

    def _ids(self, messages: list[dict[str, str]]) -> list[int]:
        return self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )

    def _perplexities(self, prompts: list[list[int]], answers: list[list[int]]) -> Tensor:
        found = []
        for start in range(0, len(prompts), self.batch_size):
            rows = [
                (p, a)
                for p, a in zip(
                    prompts[start : start + self.batch_size],
                    answers[start : start + self.batch_size],
                    strict=True,
                )
            ]
            width = max(len(p) + len(a) for p, a in rows)
            ids = torch.zeros(len(rows), width, dtype=torch.long, device=common.DEVICE)
            mask = torch.zeros(len(rows), width, dtype=torch.long, device=common.DEVICE)
            chosen = torch.zeros(len(rows), width, dtype=torch.bool, device=common.DEVICE)
            for row, (prompt, answer) in enumerate(rows):
                end = len(prompt) + len(answer)
                ids[row, :end] = torch.tensor([*prompt, *answer])
                mask[row, :end] = 1
                chosen[row, len(prompt) : end] = True
            with torch.no_grad():
                logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
                logps = torch.log_softmax(logits[:, :-1], dim=-1)
                own = logps.float().gather(-1, ids[:, 1:, None])[..., 0]
            kept = chosen[:, 1:]
            found.append(torch.exp(-(own * kept).sum(dim=1) / kept.sum(dim=1)).cpu())
        return torch.cat(found)


class Stopwatch(TrainerCallback):
    """Seconds of every generation with its optimiser steps; calls ``between`` after each."""

    def __init__(self, updates: int, between: Callable[[], None]) -> None:
        self.updates, self.between = updates, between
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An optimiser step begins; the first of a round samples as well."""
        if state.global_step % self.updates == 0:
            self._began = common.now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An optimiser step is done; the last of a round stops the watch."""
        if state.global_step % self.updates == 0:
            self.seconds.append(common.now() - self._began)
            self.between()


def messages_of(question: str, prompt: PromptFormat) -> list[dict[str, str]]:
    """A question as the turns that this library renders."""
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*system, {"role": "user", "content": prompt.user_turn(question) if question else ""}]


def trainer_of(
    config: TrainConfig,
    questions: Sequence[Question],
    batch_size: int,
    steps: int,
    between: Callable[[], None] = lambda: None,
) -> tuple[GRPOTrainer, SelfAlignedReward, Stopwatch]:
    """A trainer that does what ``steps`` steps of ``config`` do, at this per-device batch size."""
    policy = load_policy(config.model, dtype=common.DTYPE, device=common.DEVICE)
    rows = config.questions * config.group_size
    assert rows % (config.mini_batches * batch_size) == 0
    reward = SelfAlignedReward(policy.tokenizer, policy.prompt, batch_size, config.alpha)
    watch = Stopwatch(config.mini_batches, between)
    data = Dataset.from_list(
        [{"prompt": messages_of(q.text, policy.prompt), "gold": q.gold} for q in questions]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = GRPOConfig(
            output_dir=tempfile.mkdtemp(prefix="trl-"),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=rows // config.mini_batches // batch_size,
            steps_per_generation=rows // batch_size,
            num_generations=config.group_size,
            num_iterations=config.epochs,
            max_steps=steps * config.mini_batches,
            max_completion_length=config.max_answer_tokens,
            learning_rate=config.learning_rate,
            lr_scheduler_type="constant",
            beta=config.beta,
            epsilon=config.clip_low,
            epsilon_high=config.clip_high,
            delta=config.dual_clip,
            use_bias_correction_kl=False,
            loss_type=config.loss,
            scale_rewards="none",
            max_grad_norm=config.grad_clip,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            shuffle_dataset=False,
            gradient_checkpointing=False,
            bf16=common.DTYPE == "bfloat16",
            use_cpu=common.DEVICE == "cpu",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=0,
        )
        trainer = GRPOTrainer(
            model=policy.model,
            processing_class=policy.tokenizer,
            reward_funcs=[reward],
            train_dataset=data,
            args=arguments,
            peft_config=LoraConfig(
                r=config.lora_rank,
                lora_alpha=config.lora_alpha,
                lora_dropout=0.0,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
            callbacks=[watch],
        )
    reward.model = trainer.model
    # Answers of forced length, as in common.force_lengths: no token ends one, nothing else changes.
    trainer.generation_config.eos_token_id = None
    trainer.eos_token_ids = list(common.NO_TOKEN)
    return trainer, reward, watch
