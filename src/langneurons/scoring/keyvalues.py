"""Keys and values of tokens that were already read, in a form that rows can share.

A cache for the models of the adapters' table. New tokens are written into memory that was set aside
for them, where the library's own cache copies everything at every token. Every layer keeps all
tokens, those with a sliding window too (they show attention the window only), so that rows can be
copied (a prefix that several continue), dropped (finished ones) and shifted (after padding at
the right).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


class _Layer(DynamicLayer):
    """Keys and values of one layer, (row, head, pos, head_dim), with room for more positions."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, room: int):
        super().__init__()
        self.room = room
        self._stored: tuple[torch.Tensor, torch.Tensor] | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Start without any position."""
        super().lazy_initialization(key_states, value_states)
        self.keys = key_states.new_empty((*key_states.shape[:2], 0, key_states.shape[3]))
        self.values = value_states.new_empty((*value_states.shape[:2], 0, value_states.shape[3]))

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_arguments: Any,
        **_named: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add positions; return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        past, new = self.keys.shape[2], key_states.shape[2]
        if not past:
            self.keys, self.values, self._stored = key_states, value_states, None
            return self.keys, self.values
        if self._stored is None or self._stored[0].shape[2] < past + new:
            self._stored = self._enlarged(self.keys, new), self._enlarged(self.values, new)
        for stored, states in zip(self._stored, (key_states, value_states), strict=True):
            stored[:, :, past : past + new] = states
        self.keys, self.values = (stored[:, :, : past + new] for stored in self._stored)
        return self.keys, self.values

    def _enlarged(self, states: torch.Tensor, new: int) -> torch.Tensor:
        rows, heads, past, width = states.shape
        result = states.new_empty((rows, heads, past + max(new, self.room), width))
        result[:, :, :past] = states
        return result

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, any of them several times, in this order."""
        rows = rows.to(self.keys.device)
        length = self.keys.shape[2]
        if self._stored is None:
            self.keys, self.values = (x.index_select(0, rows) for x in (self.keys, self.values))
            return
        keys, values = (stored.index_select(0, rows) for stored in self._stored)
        self._stored = keys, values
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]

    def shift(self, by: torch.Tensor) -> None:
        """Move each row's positions to the right, what leaves comes in at the left; by: (row,)."""
        length = self.keys.shape[2]
        index = torch.arange(length, device=self.keys.device) - by.to(self.keys.device)[:, None]
        index = (index % length)[:, None, :, None]
        for states in (self.keys, self.values):
            states.copy_(states.gather(2, index.expand(states.shape)))


class _SlidingLayer(_Layer):
    """The same for a layer that sees the last `sliding_window` positions only."""

    is_sliding = True

    def __init__(self, room: int, sliding_window: int):
        super().__init__(room)
        self.sliding_window = sliding_window

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_arguments: Any,
        **_named: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add positions; return those that the new ones see."""
        keys, values = super().update(key_states, value_states)
        seen = self.sliding_window - 1 + key_states.shape[2]
        return keys[:, :, -seen:], values[:, :, -seen:]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many positions attention is shown, and the first of them."""
        past = self.get_seq_length()
        first = max(past - self.sliding_window + 1, 0)
        return past + query_length - first, first


class KeyValues(DynamicCache):
    """A cache for `past_key_values`, of a model with full or sliding attention in each layer.

    room: positions to set aside memory for when the first are added to a prefix.
    """

    def __init__(self, config: Any, room: int = 0):
        """Make a layer of each kind that the config names."""
        layers: list[Any] = []
        for layer in DynamicCache(config=config).layers:
            if type(layer) is DynamicSlidingWindowLayer:
                layers.append(_SlidingLayer(room, layer.sliding_window))
            else:
                layers.append(_Layer(room))
        Cache.__init__(self, layers=layers)

    @property
    def _own(self) -> Sequence[_Layer]:
        return cast("Sequence[_Layer]", self.layers)  # the library's list holds any kind of layer

    def select(self, rows: torch.Tensor, of: int) -> None:
        """Keep these of `of` rows; a layer that holds them in several blocks, those of each."""
        for layer in self._own:
            blocks = layer.keys.shape[0] // of
            starts = torch.arange(blocks, device=rows.device)[:, None] * of
            layer.select((starts + rows).reshape(-1))

    def shift(self, by: torch.Tensor) -> None:
        """Move each row's positions to the right in all layers; by: int64 (row,)."""
        for layer in self._own:
            layer.shift(by.repeat(layer.keys.shape[0] // len(by)))


def shareable(config: Any) -> bool:
    """Return whether the model's cache can be shared by rows: attention is full or sliding."""
    kinds = {type(layer) for layer in DynamicCache(config=config).layers}
    return kinds <= {DynamicLayer, DynamicSlidingWindowLayer}
