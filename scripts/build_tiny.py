"""Make the embedded policies `tiny` and `tiny-facts`: corpus, tokenizer and weights.

    python scripts/build_tiny.py --out data/models/tiny
    python scripts/build_tiny.py --corpus fact_stories --out data/models/tiny-facts

The corpora hold no wrong sentence. Each story is answered in one of two ways, with or without
filler: sentences that fit any question.

- `word_problems`: outright (``384+297=681``) or digit by digit with carries.
- `fact_stories`: by one sum per line, each of which reads one more number of the question, or by
  stating the total at once. Some solutions also mention the number that is not needed.

What makes steps worth their tokens is capability: a model of this size cannot carry, or add many
numbers, in its head. The shares below were fixed before any reinforcement learning was run.
A killed training goes on from its last checkpoint (every 250 steps) by the same command.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from story_account import solution_lines
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sarlab.tasks.generated import draw_problem, draw_story
from sarlab.train import load_optimizer, save_optimizer
from sarlab.types import Question

SHARE_EMPTY_QUESTION = 0.10  # user turn left empty, so that ppl(a) is in distribution
SHARE_BARE = 0.02  # the answer alone after the beginning-of-text token
SHARE_MENTION = 0.5  # full solutions that name the number that is not needed, where there is one

FILLER = (
    "Let me think about this carefully.",
    "This is a nice little problem.",
    "I will take my time with it.",
    "First, let me look at what is asked.",
    "It is good to be patient here.",
    "Now let me go on with the work.",
    "So far everything looks fine to me.",
    "I want to be sure that nothing is missed.",
    "Let me take a short breath before I go on.",
    "Problems like this one are good practice.",
    "There is no need to hurry at all.",
    "It always helps to stay calm and tidy.",
    "That was not too hard, I would say.",
    "Let me see where this leads us.",
    "I am quite happy with how this goes.",
    "With a bit of care it will come out right.",
)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}"
    "{% elif message['role'] == 'user' %}<|user|>{{ message['content'] }}<|assistant|>"
    "{% else %}{{ raise_exception('tiny knows the roles user and assistant only') }}{% endif %}"
    "{% endfor %}"
)


def column_sum(x: int, y: int) -> list[str]:
    """Spell out x + y from the last digit to the first, one line a column, carries included."""
    lines, carry = [f"{x}+{y}"], 0
    width = max(len(str(x)), len(str(y)))
    for a, b in zip(reversed(f"{x:0{width}}"), reversed(f"{y:0{width}}"), strict=True):
        total = int(a) + int(b) + carry
        lines.append(f"{a}+{b}" + ("+1" if carry else "") + f"={total}")
        carry = total // 10
    return [*lines, f"{x}+{y}={x + y}"]


def write_answer(problem: Question, rng: random.Random, *, steps: bool, filler: bool) -> str:
    """One right answer to the problem in the chosen manner."""
    blocks, total = [], problem.metadata["terms"][0]
    for term in problem.metadata["terms"][1:]:
        blocks.append(column_sum(total, term) if steps else [f"{total}+{term}={total + term}"])
        total += term
    return "\n".join([*pad(blocks, rng, (5, 9) if filler else None), f"Answer: {total}"])


def pad(
    blocks: list[list[str]], rng: random.Random, sentences: tuple[int, int] | None
) -> list[str]:
    """The blocks' lines with filler between them, where it cannot tear a calculation apart."""
    gaps: list[list[str]] = [[] for _ in range(len(blocks) + 1)]
    if sentences is not None:
        for sentence in rng.sample(FILLER, rng.randint(*sentences)):
            rng.choice(gaps).append(sentence)
    lines = [*gaps[0]]
    for block, gap in zip(blocks, gaps[1:], strict=True):
        lines += [*block, *gap]
    return lines


def write_fact_answer(story: Question, rng: random.Random, *, steps: bool, filler: bool) -> str:
    """One right answer to the story: a sum per line, or the total at once."""
    lines = solution_lines(story.metadata["terms"]) if steps else [f"Sum: {story.gold}"]
    blocks = [[line] for line in lines]
    if steps and story.metadata["unneeded"] is not None and rng.random() < SHARE_MENTION:
        blocks.insert(rng.randint(0, len(blocks)), [f"{story.metadata['unneeded']} is not needed."])
    return "\n".join([*pad(blocks, rng, (2, 7) if filler else None), f"Answer: {story.gold}"])


@dataclass(frozen=True)
class Corpus:
    """What a policy is taught: how its stories are drawn and answered, and in which shares."""

    draw: Callable[[random.Random], Any]
    write: Callable[..., str]
    share_steps: dict[int, float]  # answers that spell out their steps, by the number of terms
    share_filler: float  # answers that pad
    mean_answer_tokens: int


CORPORA = {
    "word_problems": Corpus(draw_problem, write_answer, {2: 0.60, 3: 0.60}, 0.85, 110),
    # Easy stories are answered at once more often, as real policies do.
    "fact_stories": Corpus(
        draw_story, write_fact_answer, {2: 0.35, 3: 0.40, 4: 0.60, 5: 0.60, 6: 0.60}, 0.80, 60
    ),
}


def write_text(corpus: Corpus, rng: random.Random) -> tuple[str, str]:
    """One (prefix, answer) pair of the corpus, special tokens written out."""
    problem = corpus.draw(rng)
    steps = rng.random() < corpus.share_steps[len(problem.metadata["terms"])]
    filler = rng.random() < corpus.share_filler
    answer = corpus.write(problem, rng, steps=steps, filler=filler)
    draw = rng.random()
    if draw < SHARE_BARE:
        prefix = "<|begin|>"
    elif draw < SHARE_BARE + SHARE_EMPTY_QUESTION:
        prefix = "<|begin|><|user|><|assistant|>"
    else:
        prefix = f"<|begin|><|user|>{problem.text}<|assistant|>"
    return prefix, answer + "<|end|>"


def train_tokenizer(corpus: Corpus, seed: int, vocab_size: int = 768) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits, trained on 20,000 texts of the corpus."""
    rng = random.Random(f"tokenizer {seed}")
    texts = []
    for _ in range(20_000):
        problem = corpus.draw(rng)
        texts += [problem.text, corpus.write(problem, rng, steps=True, filler=True)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d|[+=\n]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|begin|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_batches(corpus: Corpus, tokenizer, rng: random.Random, texts_per_step: int):
    """Endless (input_ids, labels); 16 steps' texts are sorted by length to save padding."""
    while True:
        rows = []
        for _ in range(16 * texts_per_step):
            prefix, answer = write_text(corpus, rng)
            prefix_ids = tokenizer(prefix, add_special_tokens=False).input_ids
            answer_ids = tokenizer(answer, add_special_tokens=False).input_ids
            rows.append((prefix_ids, answer_ids))
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        chunks = [rows[i : i + texts_per_step] for i in range(0, len(rows), texts_per_step)]
        rng.shuffle(chunks)
        for chunk in chunks:
            width = max(len(p) + len(a) for p, a in chunk)
            ids = torch.full((len(chunk), width), tokenizer.pad_token_id)
            labels = torch.full((len(chunk), width), -100)
            for row, (prefix_ids, answer_ids) in enumerate(chunk):
                end = len(prefix_ids) + len(answer_ids)
                ids[row, :end] = torch.tensor(prefix_ids + answer_ids)
                labels[row, len(prefix_ids) : end] = torch.tensor(answer_ids)
            yield ids, labels


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    corpus = CORPORA[args.corpus]
    tokenizer = train_tokenizer(corpus, args.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=args.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01
    )

    def rate(step: int) -> float:
        if step < 100:
            return (step + 1) / 100
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    # Batches are sorted by length. A mean over each batch's tokens would weigh the tokens of short
    # texts more and teach the wrong shares; the divisor is the same for all batches instead.
    divisor = args.texts_per_step * corpus.mean_answer_tokens
    rng = random.Random(f"corpus {args.seed}")
    batches = make_batches(corpus, tokenizer, rng, args.texts_per_step)
    log: list[dict[str, float]] = []
    done, seconds, state = 0, 0.0, args.out / "state"
    if (state / "progress.json").exists():
        progress = json.loads((state / "progress.json").read_text())
        done, seconds, log = progress["steps"], progress["seconds"], progress["loss"]
        load_model(model, str(state / "model.safetensors"))
        load_optimizer(optimizer, state / "optimizer.safetensors")
        for _ in range(done):
            next(batches)
            optimizer.step()  # without gradients: moves nothing, and the schedule wants it
            schedule.step()
        print(f"goes on from step {done}", flush=True)
    started = time.perf_counter() - seconds
    for step in tqdm(range(done, args.steps), mininterval=30):
        ids, labels = next(batches)
        # Right padding and a causal mask: no real token sees a padded one.
        loss = model(input_ids=ids, labels=labels, num_items_in_batch=divisor).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == args.steps - 1:
            log.append({"step": step, "loss_nats": round(loss.item(), 4)})
            print(json.dumps(log[-1]), f"{time.perf_counter() - started:.0f} s", flush=True)
        if step % 250 == 249 and step + 1 < args.steps:
            state.mkdir(parents=True, exist_ok=True)
            save_model(model, str(state / "model.safetensors"))
            save_optimizer(optimizer, state / "optimizer.safetensors")
            seconds = time.perf_counter() - started
            progress = {"steps": step + 1, "seconds": seconds, "loss": log}
            (state / "progress.json").write_text(json.dumps(progress))
    args.out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(state, ignore_errors=True)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    # The stories carry their own question; an instruction would be out of distribution.
    prompt = {"prompt": {"system": None, "instruction": ""}}
    (args.out / "sarlab.json").write_text(json.dumps(prompt, indent=1) + "\n")
    recipe = {
        "seed": args.seed,
        "steps": args.steps,
        "texts_per_step": args.texts_per_step,
        "learning_rate": args.lr,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": round(time.perf_counter() - started),
        "corpus": args.corpus,
        "share_steps": corpus.share_steps,
        "share_filler": corpus.share_filler,
        "share_empty_question": SHARE_EMPTY_QUESTION,
        "share_bare": SHARE_BARE,
        "loss": log,
    }
    (args.out / "training.json").write_text(json.dumps(recipe, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", choices=list(CORPORA), default="word_problems")
    parser.add_argument("--out", type=Path, default=Path("data/models/tiny"))
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--texts-per-step", type=int, default=48)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())
