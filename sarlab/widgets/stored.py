"""Scores that ship with the example answers, so that the first table needs no forward pass.

A stored score counts only for the very model and tokens that it was computed with: the file names
a hash of all weights, and each row a hash of the ids of both contexts and of the answer. Whatever
does not match is scored anew. Pieces of text are stored too, so that an example can be shown before
any model is loaded.
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
    rows = _rows_of(policy, path, {text_key(d) for d in drafts if not isinstance(d, Candidate)})
    if not rows:
        return list(drafts)
    pairs = zip(drafts, token_keys(policy, drafts), strict=True)
    return [
        draft if isinstance(draft, Candidate) or key not in rows else _candidate(draft, rows[key])
        for draft, key in pairs
    ]


def stored_example(draft: Draft, path: Path = EXAMPLE_SCORES) -> Candidate:
    """A stored answer without its model. Raises ValueError where it is not stored."""
    rows = {row["text_key"]: row for row in pq.read_table(path).to_pylist()}
    key = text_key(draft)
    if key not in rows:
        raise ValueError(
            f"{path.name} holds no score of this answer to {draft.question[:60]!r}. Make it anew: "
            "python scripts/score_examples.py"
        )
    return _candidate(draft, rows[key])


def weights_hash(policy: Policy) -> str:
    """SHA-256 over names, types and bytes of all weights; 0.8 s for 135 million of them."""
    digest = hashlib.sha256()
    for name, weight in sorted(policy.model.named_parameters()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def identity(policy: Policy) -> Iterator[tuple[bytes, bytes]]:
    """What a file of scores says of its policy, the cheapest fact first."""
    yield b"parameters", str(sum(w.numel() for w in policy.model.parameters())).encode()
    yield b"weights_sha256", weights_hash(policy).encode()


def _rows_of(policy: Policy, path: Path, text_keys: set[str]) -> dict[str, dict[str, Any]]:
    """Rows of these texts by key; empty where the file is missing or of another model."""
    if not path.is_file():
        return {}
    table = pq.read_table(path)
    # Comparing texts and counting weights is free, hashing a large model is not.
    if text_keys.isdisjoint(table.column("text_key").to_pylist()):
        return {}
    metadata = table.schema.metadata or {}
    if any(metadata.get(name) != value for name, value in identity(policy)):
        return {}
    return {row["key"]: row for row in table.to_pylist()}


def text_key(draft: Draft) -> str:
    """A hash of question and answer."""
    return hashlib.sha256(f"{draft.question}\0{draft.answer}".encode()).hexdigest()


def token_keys(policy: Policy, drafts: Sequence[Draft]) -> list[str]:
    """One key per draft: a hash of the ids of both contexts and of the answer."""
    contexts = {
        question: [list(prefix.ids) for prefix in question_prefixes(policy, question)]
        for question in {draft.question for draft in drafts}
    }
    keys = []
    for draft in drafts:
        ids: Sequence[int] | str = draft.answer
        if isinstance(ids, str):
            ids = encode_answer(policy.tokenizer, ids, policy.end_id)
        first, second = contexts[draft.question]
        keys.append(hashlib.sha256(f"{first}/{second}/{list(ids)}".encode()).hexdigest())
    return keys


def _candidate(draft: Draft, row: Mapping[str, Any]) -> Candidate:
    conditioned, standalone = row["logps_conditioned"], row["logps_standalone"]
    both = torch.tensor([conditioned]), torch.tensor([standalone])
    mask = torch.ones(1, len(conditioned), dtype=torch.bool)
    text = draft.answer if isinstance(draft.answer, str) else "".join(row["tokens"])
    score = AnswerScore(
        question=draft.question,
        answer=text,
        token_ids=tuple(row["token_ids"]),
        tokens=tuple(row["tokens"]),
        logps_conditioned=tuple(conditioned),
        logps_standalone=tuple(standalone),
        sar=self_aligned_reward(*both, mask).item(),
        ppl_conditioned=perplexity(both[0], mask).item(),
        ppl_standalone=perplexity(both[1], mask).item(),
    )
    return draft.scored(score)
