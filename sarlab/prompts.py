"""Prompts: a question to the token ids of its two prefixes, with and without the question.

The instruction "end with `Answer: X`" belongs in the system turn (the default), so that it is part
of both contexts and only the question makes the difference. In the user turn it vanishes with the
question, and the reward then pays for obeying it: on smollm2-135m the bare line "Answer: 17" scores
+0.9 there, above every worked answer, and −0.7 with the default.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jinja2.exceptions import TemplateError

DEFAULT_INSTRUCTION = "Solve the problem step by step. End with a line of the form `Answer: X`."
_SENTINEL = "sarlab5entinel"  # one word that no template and no system prompt contains
# Templates such as Llama 3.2's print today's date, so that prompts of two days would differ. Their
# function for it is replaced by one that always says Llama's own fallback, Friday, 26 July 2024.
_DATE = {"%d": "26", "%m": "07", "%b": "Jul", "%B": "July", "%Y": "2024", "%y": "24"}
_DATE |= {"%a": "Fri", "%A": "Friday", "%H": "12", "%M": "00", "%S": "00"}
_FIXED_DATE = (
    "{%- macro strftime_now(form) -%}{{ form"
    + "".join(f" | replace('{sign}', '{text}')" for sign, text in _DATE.items())
    + " }}{%- endmacro -%}"
)


class StandaloneContext(StrEnum):
    """The context of an answer that is scored without its question."""

    EMPTY_TURN = "empty_turn"  # the whole template around an empty user turn, as the authors do
    BARE = "bare"  # the beginning-of-text token alone (the end token where there is none)


@dataclass(frozen=True)
class PromptFormat:
    """The system turn (in both contexts), and the instruction after the question."""

    system: str | None = DEFAULT_INSTRUCTION
    instruction: str = ""
    thinking: bool | None = None  # the template's enable_thinking; None leaves its default

    def template_options(self, template: str | None) -> dict[str, bool]:
        """Further arguments of a chat template. Raises ValueError where it knows no thinking."""
        if self.thinking is None:
            return {}
        if "enable_thinking" not in (template or ""):
            raise ValueError(
                f"thinking is {self.thinking}, but the model's chat template has no "
                "enable_thinking, so it would change nothing. Leave thinking at 'auto'."
            )
        return {"enable_thinking": self.thinking}

    def user_turn(self, question: str) -> str:
        """The question, then the instruction on a line of its own (if there is one)."""
        return f"{question}\n{self.instruction}" if self.instruction else question


def conditioned_ids(tokenizer: Any, question: str, prompt: PromptFormat) -> list[int]:
    """Ids of the prefix with the question, up to where the answer begins."""
    return _render(tokenizer, prompt.user_turn(question), prompt)


def standalone_ids(
    tokenizer: Any, prompt: PromptFormat, context: StandaloneContext = StandaloneContext.EMPTY_TURN
) -> list[int]:
    """Ids of the prefix without the question."""
    if context is StandaloneContext.EMPTY_TURN:
        return _render(tokenizer, "", prompt)
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
    ids = _text_ids(tokenizer, clean)
    return [*ids, end_id] if append_eos else ids


def end_token_id(tokenizer: Any, eos_ids: tuple[int, ...]) -> int:
    """The token with which this model ends a turn: what its template writes after an answer."""
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _SENTINEL}]
        rendered = tokenizer.apply_chat_template(turns, tokenize=False)
        tail = rendered.rsplit(_SENTINEL, 1)[1]
        for token_id in tokenizer(tail, add_special_tokens=False)["input_ids"][:2]:
            if token_id in eos_ids:
                return int(token_id)
    return tokenizer.eos_token_id if tokenizer.eos_token_id in eos_ids else eos_ids[0]


def fix_date(tokenizer: Any) -> None:
    """Let a chat template that prints the date print one and the same on every day."""
    template = tokenizer.chat_template or ""
    if "strftime_now" in template and not template.startswith(_FIXED_DATE):
        tokenizer.chat_template = _FIXED_DATE + template


def control_tokens(tokenizer: Any, text: str) -> list[str]:
    """The special tokens that are spelled out in a text, in their order."""
    known = sorted({str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}, key=len)
    return re.findall("|".join(map(re.escape, reversed(known))), text) if known else []


def _render(tokenizer: Any, user_text: str, form: PromptFormat) -> list[int]:
    options = form.template_options(tokenizer.chat_template)
    # A control token in a question is text: the template's pieces around it are encoded apart.
    spelled = control_tokens(tokenizer, user_text)
    for token in dict.fromkeys(spelled):
        user_text = user_text.replace(token, _SENTINEL)
    if tokenizer.chat_template:
        turns = chat_turns(tokenizer, user_text, form.system)
        prompt = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False, **options
        )
        start = []
    else:
        parts = [part for part in (form.system, f"User: {user_text}") if part]
        prompt = "\n\n".join(parts) + "\n\nAssistant:\n"
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    first, *rest = prompt.split(_SENTINEL)
    ids = [*start, *tokenizer(first, add_special_tokens=False)["input_ids"]]
    for token, piece in zip(spelled, rest, strict=True):
        ids += _text_ids(tokenizer, token)
        ids += _text_ids(tokenizer, piece, split=False) if piece else []
    return ids


def _text_ids(tokenizer: Any, text: str, *, split: bool = True) -> list[int]:
    """Ids of a text that continues another one; ``split``: special tokens in it are plain text.

    SentencePiece tokenizers put a blank before the first word of whatever they are given (Llama 2,
    Phi-3). Within a sequence no such blank stands, so there the text is encoded behind a line
    break, whose own ids are then dropped.
    """
    options = {"add_special_tokens": False, "split_special_tokens": split}
    ids = list(tokenizer(text, **options)["input_ids"])
    blank = "\u2581"  # SentencePiece's sign for a blank
    pieces = tokenizer.convert_ids_to_tokens(ids[:1])
    if not pieces or not pieces[0].startswith(blank) or text.startswith((" ", blank)):
        return ids
    before = list(tokenizer("\n", **options)["input_ids"])
    behind = list(tokenizer("\n" + text, **options)["input_ids"])
    return behind[len(before) :] if behind[: len(before)] == before else ids


def chat_turns(tokenizer: Any, user_text: str, system: str | None) -> list[dict[str, str]]:
    """The messages of a prompt; without a system role its text goes first in the user turn."""
    user = {"role": "user", "content": user_text}
    if not system:
        return [user]
    try:
        probe = [{"role": "system", "content": _SENTINEL}, {"role": "user", "content": "x"}]
        has_system_role = _SENTINEL in tokenizer.apply_chat_template(probe, tokenize=False)
    except TemplateError:
        has_system_role = False
    if has_system_role:
        return [{"role": "system", "content": system}, user]
    return [{"role": "user", "content": f"{system}\n\n{user_text}" if user_text else system}]
