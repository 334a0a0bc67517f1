"""Prompts: a question to the token ids of its two prefixes, with and without the question.

"Without the question" is a choice (:class:`StandaloneContext`). The default keeps the chat
template and the system prompt and leaves the user turn empty, as the authors of self-aligned
reward do.

The instruction "end with `Answer: X`" belongs in the system turn (the default), so that it is part
of both contexts and only the question makes the difference. In the user turn it vanishes with the
question, and the reward then pays for obeying it: on smollm2-135m the bare line "Answer: 17" scores
+0.9 there, above every worked answer, and −0.7 with the default.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jinja2.exceptions import TemplateError

DEFAULT_INSTRUCTION = "Solve the problem step by step. End with a line of the form `Answer: X`."
_SENTINEL = "sarlab5entinel"  # one word that no template and no system prompt contains


class StandaloneContext(StrEnum):
    """The context of an answer that is scored without its question."""

    EMPTY_TURN = "empty_turn"  # the whole template around an empty user turn
    BARE = "bare"  # the beginning-of-text token alone (the end token where there is none)


@dataclass(frozen=True)
class PromptFormat:
    """The system turn (in both contexts), and the instruction after the question."""

    system: str | None = DEFAULT_INSTRUCTION
    instruction: str = ""

    def user_turn(self, question: str) -> str:
        """The question, then the instruction on a line of its own (if there is one)."""
        return f"{question}\n{self.instruction}" if self.instruction else question


def conditioned_ids(tokenizer: Any, question: str, prompt: PromptFormat) -> list[int]:
    """Ids of the prefix with the question, up to where the answer begins."""
    return _render(tokenizer, prompt.user_turn(question), prompt.system)


def standalone_ids(
    tokenizer: Any,
    prompt: PromptFormat,
    context: StandaloneContext = StandaloneContext.EMPTY_TURN,
) -> list[int]:
    """Ids of the prefix without the question."""
    if context is StandaloneContext.EMPTY_TURN:
        return _render(tokenizer, "", prompt.system)
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return [token_id]
    raise ValueError(
        "The tokenizer has neither a BOS nor an EOS token, so the bare standalone context would "
        "be empty. Use StandaloneContext.EMPTY_TURN."
    )


def encode_answer(tokenizer: Any, text: str, end_id: int, *, append_eos: bool = True) -> list[int]:
    """Ids of a typed answer, tokenised alone; ``end_id`` follows if ``append_eos``.

    Special tokens spelled out in the text are encoded as plain text: an answer that merely
    *mentions* an end token must not end there.
    """
    if not text.strip():
        raise ValueError(f"The answer is empty ({text!r}); perplexity needs at least one token.")
    # A lone surrogate has no UTF-8 form; it becomes U+FFFD here instead of an error in Rust.
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    ids = tokenizer(clean, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*ids, end_id] if append_eos else list(ids)


def end_token_id(tokenizer: Any, eos_ids: tuple[int, ...]) -> int:
    """The token with which this model ends a turn: what its template writes after an answer."""
    if tokenizer.chat_template:
        turns = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": _SENTINEL},
        ]
        rendered = tokenizer.apply_chat_template(turns, tokenize=False)
        tail = rendered.rsplit(_SENTINEL, 1)[1]
        for token_id in tokenizer(tail, add_special_tokens=False)["input_ids"][:2]:
            if token_id in eos_ids:
                return int(token_id)
    return tokenizer.eos_token_id if tokenizer.eos_token_id in eos_ids else eos_ids[0]


def _render(tokenizer: Any, user_text: str, system: str | None) -> list[int]:
    if not tokenizer.chat_template:
        parts = [part for part in (system, f"User: {user_text}") if part]
        ids = tokenizer("\n\n".join(parts) + "\n\nAssistant:\n", add_special_tokens=False)
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        return [*start, *ids["input_ids"]]
    turns = chat_turns(tokenizer, user_text, system)
    ids = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return list(ids)


def chat_turns(tokenizer: Any, user_text: str, system: str | None) -> list[dict[str, str]]:
    """The messages of a prompt; without a system role its text goes first in the user turn."""
    if system and not _has_system_role(tokenizer):
        user_text, system = f"{system}\n\n{user_text}" if user_text else system, None
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": user_text}]


def _has_system_role(tokenizer: Any) -> bool:
    turns = [{"role": "system", "content": _SENTINEL}, {"role": "user", "content": "x"}]
    try:
        return _SENTINEL in tokenizer.apply_chat_template(turns, tokenize=False)
    except TemplateError:
        return False
