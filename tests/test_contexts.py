"""Prefixes: what stands before an answer, with and without its question."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from sarlab.models import DATA
from sarlab.prompts import (
    PromptFormat,
    StandaloneContext,
    conditioned_ids,
    encode_answer,
    end_token_id,
    standalone_ids,
)

PLAIN = PromptFormat(None, "")


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(DATA / "models" / "tiny")


def text(tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False)


def test_the_two_prefixes_differ_by_the_question_alone(tokenizer) -> None:
    asked = conditioned_ids(tokenizer, "How many?", PLAIN)
    alone = standalone_ids(tokenizer, PLAIN)
    assert text(tokenizer, asked) == "<|begin|><|user|>How many?<|assistant|>"
    assert text(tokenizer, alone) == "<|begin|><|user|><|assistant|>"


def test_an_instruction_in_the_user_turn_goes_with_the_question(tokenizer) -> None:
    prompt = PromptFormat(None, "End with Answer: X.")
    asked = text(tokenizer, conditioned_ids(tokenizer, "How many?", prompt))
    assert asked == "<|begin|><|user|>How many?\nEnd with Answer: X.<|assistant|>"
    assert "Answer" not in text(tokenizer, standalone_ids(tokenizer, prompt))


def test_without_a_system_role_the_system_text_is_folded_into_the_user_turn(tokenizer) -> None:
    prompt = PromptFormat("Be brief.", "")
    asked = text(tokenizer, conditioned_ids(tokenizer, "How many?", prompt))
    assert asked == "<|begin|><|user|>Be brief.\n\nHow many?<|assistant|>"
    alone = text(tokenizer, standalone_ids(tokenizer, prompt))
    assert alone == "<|begin|><|user|>Be brief.<|assistant|>"


def test_with_a_system_role_it_has_a_turn_of_its_own(tokenizer) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[assistant]"
    )
    asked = text(tokenizer, conditioned_ids(tokenizer, "How many?", PromptFormat("Be brief.", "")))
    assert asked == "[system]Be brief.[user]How many?[assistant]"


def test_without_a_template_a_plain_one_serves(tokenizer) -> None:
    tokenizer.chat_template = None
    asked = text(tokenizer, conditioned_ids(tokenizer, "How many?", PromptFormat("Be brief.", "")))
    assert asked == "<|begin|>Be brief.\n\nUser: How many?\n\nAssistant:\n"


def test_the_bare_context_is_the_begin_token_or_else_the_end_token(tokenizer) -> None:
    bare = StandaloneContext.BARE
    assert standalone_ids(tokenizer, PLAIN, bare) == [tokenizer.bos_token_id]
    tokenizer.bos_token = None
    assert standalone_ids(tokenizer, PLAIN, bare) == [tokenizer.eos_token_id]
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="neither a BOS nor an EOS"):
        standalone_ids(tokenizer, PLAIN, bare)


def test_typed_answers_get_the_end_token_once(tokenizer) -> None:
    end = tokenizer.eos_token_id
    ids = encode_answer(tokenizer, "Answer: 5", end)
    assert ids[-1] == end and ids.count(end) == 1
    assert encode_answer(tokenizer, "Answer: 5", end, append_eos=False) == ids[:-1]


def test_an_end_token_spelled_out_in_an_answer_is_text(tokenizer) -> None:
    ids = encode_answer(tokenizer, "write <|end|> here", tokenizer.eos_token_id, append_eos=False)
    assert tokenizer.eos_token_id not in ids
    assert text(tokenizer, ids) == "write <|end|> here"


def test_an_empty_answer_is_refused(tokenizer) -> None:
    with pytest.raises(ValueError, match="answer is empty"):
        encode_answer(tokenizer, " \n", 2)


def test_the_end_of_a_turn_is_what_the_template_writes_after_an_answer(tokenizer) -> None:
    user = tokenizer.convert_tokens_to_ids("<|user|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}<|user|>{% endif %}{% endfor %}"
    )
    assert end_token_id(tokenizer, (tokenizer.eos_token_id, user)) == user
    assert end_token_id(tokenizer, (tokenizer.eos_token_id,)) == tokenizer.eos_token_id
