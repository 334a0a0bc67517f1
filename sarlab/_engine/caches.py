"""Key-value caches: filled by a forward, stacked for a batch, grown without copying.

A cache is a tuple of (keys, values) per layer, each [rows, heads, length, head_dim].
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

Cache = tuple[tuple[Tensor, Tensor], ...]
_BLOCK = 64  # slots by which a growing cache is enlarged
_CHUNK = 1_024  # tokens run at once without gradients: an attention mask has chunk × length entries


def stack_caches(caches: Sequence[Cache], width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Keys and values per layer of caches of one row each, right-padded to ``width`` slots."""

    def stack(blocks: Sequence[Tensor]) -> Tensor:
        wide = [pad(x, (0, 0, 0, width - x.shape[2])) if x.shape[2] < width else x for x in blocks]
        return wide[0] if len(wide) == 1 else torch.cat(wide)

    for layer in zip(*caches, strict=True):
        keys, values = zip(*layer, strict=True)
        yield stack(keys), stack(values)


def run_trunk(
    trunk: nn.Module, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache
) -> tuple[Tensor, Cache]:
    """One forward of a model's trunk: final hidden states [rows, length, H] and the grown cache.

    Without gradients long rows run in chunks, so that memory grows with their length and not with
    its square.
    """
    # Without a config every layer keeps its whole past; masks still apply sliding windows.
    past = DynamicCache(ddp_cache_data=cache) if cache else DynamicCache()
    length = ids.shape[1]
    before, chunk = mask.shape[1] - length, length if torch.is_grad_enabled() else _CHUNK
    states = [
        trunk(
            input_ids=ids[:, start : start + chunk],
            attention_mask=mask[:, : before + start + chunk],
            position_ids=positions[:, start : start + chunk],
            past_key_values=past,
            use_cache=True,
        ).last_hidden_state
        for start in range(0, length, chunk)
    ]
    hidden = states[0] if len(states) == 1 else torch.cat(states, dim=1)
    return hidden, tuple((layer.keys, layer.values) for layer in past.layers)


def cache_of_row(cache: Cache, row: int, length: int, width: int | None = None) -> Cache:
    """One row's slots [0, length), and those from ``width`` on where one is given."""

    def cut(block: Tensor) -> Tensor:
        one = block[row : row + 1]
        if width == length:
            return one
        head = one[:, :, :length]
        return head if width is None else torch.cat([head, one[:, :, width:]], dim=2)

    return tuple((cut(keys), cut(values)) for keys, values in cache)


class GrowingLayer(DynamicLayer):
    """A cache layer with free slots ahead, so that a new token does not copy the whole past."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.length = 0
        self._room: tuple[Tensor, ...] = (keys[:, :, :0], values[:, :, :0])
        self.update(keys, values)

    def update(self, key_states, value_states, *args, **kwargs):  # type: ignore[no-untyped-def]
        end = self.length + key_states.shape[2]
        if self._room[0].shape[2] < end:
            more = (0, 0, 0, end + _BLOCK - self.length)
            self._room = tuple(pad(x[:, :, : self.length], more) for x in self._room)
        self._room[0][:, :, self.length : end] = key_states
        self._room[1][:, :, self.length : end] = value_states
        self.length = end
        self.keys, self.values = (x[:, :, :end] for x in self._room)
        return self.keys, self.values

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self._room = tuple(x[rows] for x in self._room)
        self.keys, self.values = (x[:, :, : self.length] for x in self._room)


def growing_cache(caches: Sequence[Cache], width: int) -> DynamicCache:
    """The stacked caches with room for new tokens; ``layer.keep(rows)`` drops finished rows."""
    cache = DynamicCache()
    cache.layers = [GrowingLayer(keys, values) for keys, values in stack_caches(caches, width)]
    return cache
