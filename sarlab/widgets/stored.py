"""Scores that ship with the example answers, so that the first table needs no forward pass.

A stored score counts only for the very weights, prompt and text that it was computed with, whose
hashes the file holds; whatever does not match is scored anew. Pieces of text are stored too, so
that an example can be shown before any model is loaded.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from sarlab.models import DATA, Policy
from sarlab.prompts import encode_answer
from sarlab.rewards.answers import AnswerScore, question_prefixes
from sarlab.sar import perplexity, self_aligned_reward
from sarlab.widgets.candidates import Candidate, Draft

EXAMPLE_SCORES = DATA / "examples" / "scores.parquet"


def stored_scores(
    policy: Policy, drafts: Sequence[Draft], path: Path = EXAMPLE_SCORES
) -> list[Draft]:
    """The answers in their order, those with a stored score of this policy as candidates."""
    if not path.is_file():
        return list(drafts)
    table = pq.read_table(path)
    texts = {text_key(draft) for draft in drafts if not isinstance(draft, Candidate)}
    facts = table.schema.metadata or {}
    # Comparing texts and counting weights is free, hashing a large model is not.
    if texts.isdisjoint(table.column("text_key").to_pylist()) or any(
        facts.get(name) != value for name, value in identity(policy)
    ):
        return list(drafts)
    rows = {row["text_key"]: row for row in table.to_pylist()}
    return [
        draft if isinstance(draft, Candidate) or key not in rows else _candidate(draft, rows[key])
        for draft, key in zip(drafts, map(text_key, drafts), strict=True)
    ]


def stored_example(draft: Draft, path: Path = EXAMPLE_SCORES) -> Candidate:
    """A stored answer without its model. Raises ValueError where it is not stored."""
    key = text_key(draft)
    for row in pq.read_table(path, filters=[("text_key", "==", key)]).to_pylist():
        return _candidate(draft, row)
    raise ValueError(
        f"{path.name} holds no score of this answer to {draft.question[:60]!r}. Make it anew: "
        "python scripts/score_examples.py"
    )


def identity(policy: Policy) -> Iterator[tuple[bytes, bytes]]:
    """What a file of scores says of its policy, the cheapest fact first.

    The number of weights; SHA-256 of the ids of an example under both contexts, then of all
    weights with their names, types and shapes (0.8 s for 135 million of them).
    """
    weights = sorted(policy.model.named_parameters())
    yield b"parameters", str(sum(weight.numel() for _, weight in weights)).encode()
    ids = [list(prefix.ids) for prefix in question_prefixes(policy, "What is 12 + 30?")]
    ids.append(encode_answer(policy.tokenizer, "12 + 30 = 42.\nAnswer: 42", policy.end_id))
    yield b"contexts_sha256", hashlib.sha256(str(ids).encode()).hexdigest().encode()
    digest = hashlib.sha256()
    for name, weight in weights:
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    yield b"weights_sha256", digest.hexdigest().encode()


def text_key(draft: Draft) -> str:
    """A hash of question and answer."""
    return hashlib.sha256(f"{draft.question}\0{draft.answer}".encode()).hexdigest()


def _candidate(draft: Draft, row: Mapping[str, Any]) -> Candidate:
    columns = ("token_ids", "tokens", "logps_conditioned", "logps_standalone")
    conditioned, standalone = (torch.tensor([row[name]]) for name in columns[2:])
    mask = torch.ones_like(conditioned).bool()
    score = AnswerScore(
        question=draft.question,
        answer=draft.answer if isinstance(draft.answer, str) else "".join(row["tokens"]),
        **{name: tuple(row[name]) for name in columns},
        sar=self_aligned_reward(conditioned, standalone, mask).item(),
        ppl_conditioned=perplexity(conditioned, mask).item(),
        ppl_standalone=perplexity(standalone, mask).item(),
    )
    return draft.scored(score)
