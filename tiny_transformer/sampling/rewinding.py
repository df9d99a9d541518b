"""One text and a cache that can go back: the logits behind any of its last tokens, with only what is new being read.

A guess that is rejected leaves keys and values of a text that never came to be. Nothing has to be undone for that: the reader
compares the text it is asked about with the text it has read, goes back to where they part, and reads the rest: by the step in C
where there is one (`native_step.py`), so that several guesses cost little more than one token. The edge of the
context is the usual one, so the logits are those of `decoder.naive_logits`.

Left out: batches (`decoder.py`); rows that accept different numbers of guesses would each need a length of their own.
Read before: `context_window.py`, `kv_cache.py`, `decoder.py`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tiny_transformer.context_window import RESERVE, window_start
from tiny_transformer.kv_cache import KVCache
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.sampling.decode_step import fits, is_plain
from tiny_transformer.sampling.decoder import evaluating
from tiny_transformer.sampling.native_step import MOST_ITEMS, native_step
from tiny_transformer.sampling.packed import applied, pack


def room(n: int, max_seq_len: int) -> int:
    """How many tokens can be added to a text of n before its window jumps: one pass can read them all.

    >>> [room(n, 8) for n in (1, 8, 9, 12)]
    [7, 0, 3, 0]
    """
    return window_start(n, max_seq_len) + max_seq_len - n


def common_start(first: list[int], second: list[int]) -> int:
    """How many items two lists have in common before they differ.

    >>> common_start([1, 2, 3, 4], [1, 2, 9])
    2
    """
    length = min(len(first), len(second))
    while first[:length] != second[:length]:  # they part near their ends, if at all: few rounds, each at C's speed
        length -= 1
    return length


class RewindingReader:
    """A model that reads one text as it grows, and shrinks again."""

    def __init__(self, model: TinyTransformerLM, *, at_once: int = 1, max_new: int = 0) -> None:
        """`at_once` tokens are read in a typical pass, `max_new` in all: both decide only how fast it is."""
        self.model = model
        self.limit = model.config.max_seq_len
        self._seen: list[int] = []  # the tokens that the cache holds, from the window's first
        self._cache = self._make_cache(min(self.limit, RESERVE))
        self._prepared = fits(model, max_new)
        self._step = native_step(model, self._cache) if self._prepared else None
        self._packed = {} if self._step is not None else pack(model, at_once, max_new)

    def logits(self, ids: Sequence[int], last: int = 1) -> Tensor:
        """The next token's logits behind each of the last `last` tokens of a text: (last, vocab); the last row is for the whole text.

        Raises ValueError where a jump of the window lies between them: `room` says how far one pass reaches.
        """
        start = window_start(len(ids), self.limit)
        if start != window_start(len(ids) - last + 1, self.limit):
            raise ValueError(f"the last {last} of {len(ids)} tokens have different windows of {self.limit}: ask for fewer at once")
        window = list(ids[start:])
        if len(window) > self._cache.max_len:
            self._cache, self._seen = self._make_cache(min(self.limit, 2 * len(window))), []
            self._step = native_step(self.model, self._cache) if self._prepared else None
        kept = self._rewind(window[: len(window) - last])  # the last ones are read again: their logits are wanted
        with evaluating(self.model):
            new = torch.tensor([window[kept:]], device=self.model.device)
            if self._step is not None and kept > 0 and new.size(1) <= MOST_ITEMS and not is_plain():
                logits: Tensor = self._step(new[0])[-last:]
                self._seen = window
                return logits
            with applied(self._packed if kept else {}):
                hidden = self.model.hidden(new, cache=self._cache)
            logits = self.model.unembed(hidden[:, -last:])[0]  # (last, vocab)
        self._seen = window
        return logits

    def _rewind(self, beginning: list[int]) -> int:
        """Keep of the cache what this beginning of a window shares with it; how many tokens that is.

        Positions count from the window's first token, so it makes no difference where in the text the window lies.
        """
        kept = common_start(self._seen, beginning)
        self._cache.rewind(kept)
        self._seen = beginning[:kept]  # now, and not after the pass: an interrupted one leaves layers of different lengths
        return kept

    def _make_cache(self, length: int) -> KVCache:
        weight = self.model.embeddings.token.weight
        return KVCache(self.model.config, 1, max_len=length, device=weight.device, dtype=weight.dtype)


if __name__ == "__main__":
    from tiny_transformer.config import ModelConfig
    from tiny_transformer.sampling.decoder import naive_logits

    model = TinyTransformerLM(ModelConfig(max_seq_len=8, d_model=32, n_layers=2, n_heads=2, position="rotary"), seed=0)
    reader = RewindingReader(model)
    for text, last in (([1, 2, 3], 1), ([1, 2, 3, 4, 5], 3), ([1, 2, 3, 9], 1), ([1, 2, 3, 9, 6, 6, 6, 6, 6], 1)):
        logits = reader.logits(text, last)
        difference = (logits[-1] - naive_logits(model, torch.tensor([text]))).abs().max()
        print(f"{text!s:28} logits {tuple(logits.shape)}, room for {room(len(text), 8)}, uncached differs by {difference:.0e}")
