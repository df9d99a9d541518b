"""Keys and values already seen, so that each new token costs one position instead of all of them.

All memory is taken once and written in place: nothing is allocated per token.
Left out: what to do when the cache is full (`sampling/generator.py` says). Read before: `attention.py`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tiny_transformer.config import ModelConfig


class LayerCache:
    """One layer's keys and values: (batch, kv_heads, max_len, d_head), the first `length` columns filled."""

    def __init__(self, shape: tuple[int, int, int, int], device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write (batch, kv_heads, seq, d_head) behind what is there; return views of everything so far."""
        end = self.length + key.size(2)
        if end > self.keys.size(2):
            raise ValueError(
                f"the KV cache holds {self.keys.size(2)} positions and has {self.length}: {key.size(2)} more do not fit. "
                "Make it with a larger max_len, or reset it and feed the last part of the text again"
            )
        if self.length == 0 and self.keys.dtype != key.dtype:  # take the model's type, whatever the cache was made with
            self.keys, self.values = self.keys.to(key.dtype), self.values.to(key.dtype)
        self.keys[:, :, self.length : end] = key
        self.values[:, :, self.length : end] = value
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """Every layer's cache, and where each row of the batch begins.

    Rows of different lengths are padded on the LEFT to one length: `padding[row]` says by how many columns. The cache
    then hides those columns and counts that row's positions from its first real token, so a row gives what it would give alone.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        *,
        max_len: int | None = None,
        padding: Sequence[int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.max_len = config.max_seq_len if max_len is None else max_len
        self.batch_size = batch_size
        shape = (batch_size, config.kv_heads, self.max_len, config.head_width)
        self.layers = [LayerCache(shape, device, dtype) for _ in range(config.n_layers)]
        self.device = self.layers[0].keys.device
        self.ids = torch.zeros((batch_size, self.max_len), dtype=torch.int64, device=device)
        """The tokens behind the keys, for models with n-gram tables; others leave it as it is."""
        self.reset(padding)

    @property
    def length(self) -> int:
        """How many columns are filled."""
        return self.layers[-1].length

    def reset(self, padding: Sequence[int] | None = None) -> None:
        """Forget everything, keep the memory."""
        for layer in self.layers:
            layer.length = 0
        if padding is not None and len(padding) != self.batch_size:
            raise ValueError(f"padding has {len(padding)} entries, must have one per row: {self.batch_size}")
        self.padding = torch.tensor(padding, device=self.device) if padding is not None and any(padding) else None

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` columns, keep the memory: what comes next is written over the rest."""
        if not 0 <= length <= self.length:
            raise ValueError(f"the KV cache holds {self.length} positions: it can't go back to {length}. Pass 0 to {self.length}")
        for layer in self.layers:
            layer.length = length

    def select(self, rows: Tensor) -> None:
        """Make row i a copy of the row `rows[i]` (beam search)."""
        for layer in self.layers:
            layer.keys[:, :, : layer.length] = layer.keys[rows, :, : layer.length]
            layer.values[:, :, : layer.length] = layer.values[rows, :, : layer.length]
        self.ids[:, : self.length] = self.ids[rows, : self.length]
        if self.padding is not None:
            self.padding = self.padding[rows]

    def remember(self, ids: Tensor, count: int) -> Tensor:
        """Write the new ids (batch, seq) behind those of earlier calls; return the `count` before them, zeros where there are none."""
        start = self.length
        if start + ids.size(1) <= self.max_len:  # else the layers say that it is full
            self.ids[:, start : start + ids.size(1)] = ids
        return F.pad(self.ids[:, max(0, start - count) : start], (max(0, count - start), 0))

    def positions(self, seq_len: int) -> Tensor:
        """Where the next `seq_len` tokens stand: (seq,), or (batch, seq) where rows begin at different columns."""
        columns = torch.arange(self.length, self.length + seq_len, device=self.device)
        if self.padding is None:
            return columns
        return (columns - self.padding[:, None]).clamp(min=0)

    def mask(self, seq_len: int) -> Tensor | None:
        """Which columns hold real tokens, for the next `seq_len`: (batch, seq, key) bool, or None when all do.

        A padding column may look at itself, so that no row of attention is empty; nobody looks at it.
        """
        if self.padding is None:
            return None
        columns = torch.arange(self.length + seq_len, device=self.device)
        real = columns[None, :] >= self.padding[:, None]  # (batch, key)
        itself = columns[-seq_len:, None] == columns[None, :]  # (seq, key)
        return real[:, None, :] | itself


if __name__ == "__main__":
    config = ModelConfig(d_model=16, n_heads=2, n_layers=1, max_seq_len=8)
    cache = KVCache(config, batch_size=2, padding=[0, 2])
    new = torch.randn(2, 2, 5, 8)
    print("positions", cache.positions(5).tolist())
    keys, values = cache.layers[0].append(new, new)
    print("keys", tuple(keys.shape), "length", cache.length, "of", cache.max_len)
    mask = cache.mask(1)
    print("the next token may look at\n", None if mask is None else mask[:, 0].int())
