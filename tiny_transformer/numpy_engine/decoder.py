"""A batch of texts and the logits of what comes next in each: the KV cache, the padding, and what happens past the context's edge.

Mirrors `tiny_transformer/sampling/decoder.py`. Left out: which token is taken (`strategies.py`).
Read before: `context_window.py`, `kv_cache.py`, `model.py`.
"""

from collections.abc import Sequence

import numpy as np

from tiny_transformer.context_window import PADDING, RESERVE, window_start
from tiny_transformer.numpy_engine.kv_cache import KVCache
from tiny_transformer.numpy_engine.linear import Array
from tiny_transformer.numpy_engine.model import TinyTransformerLM


def naive_logits(model: TinyTransformerLM, ids: Array) -> Array:
    """The next token's logits without any cache, by the same rule: ids (batch, n) to (batch, vocab). Slow, and the oracle of tests."""
    window = ids[:, window_start(ids.shape[1], model.config.max_seq_len) :]
    return model.forward(window)[:, -1]


class Decoder:
    """Texts of a batch, aligned at their ends, and a cache of what the model has seen of them.

    Shorter rows are padded on the left; the cache hides the padding and counts positions from each row's first token,
    so every row gets the logits it would get alone. Each row follows the window rule by its own length.

    Use in turns: `logits()` for the next token of every row, `append(tokens)` to decide it.
    """

    def __init__(self, model: TinyTransformerLM, prompts: Sequence[Sequence[int]], max_new: int) -> None:
        """Take prompts of at least one token each. `max_new` is the most tokens that may follow."""
        if not prompts or not all(prompts):
            raise ValueError("an empty prompt: every row needs at least one token to start from")
        self.model = model
        self.limit = model.config.max_seq_len
        self.end = max(len(prompt) for prompt in prompts)
        self.padding = [self.end - len(prompt) for prompt in prompts]
        self._origin = 0  # the column of `tokens` that the cache begins with
        self.tokens = np.full((len(prompts), self.end + min(max_new, RESERVE)), PADDING)
        for row, prompt in enumerate(prompts):
            self.tokens[row, self.padding[row] : self.end] = prompt
        width = min(self.limit, self.end + max_new)
        self.cache = KVCache(model.config, len(prompts), max_len=width, dtype=model.dtype)

    @property
    def texts(self) -> Array:
        """All tokens so far, prompts included: (batch, n), -1 on the left of shorter rows."""
        return self.tokens[:, : self.end]

    def logits(self) -> Array:
        """The next token's logits: (batch, vocab)."""
        seen = self.cache.length
        if seen == 0 or seen == self.limit:  # nothing read yet, or the longest row has reached the edge
            return self._read_windows()
        hidden = self.model.hidden(self.tokens[:, self._origin + seen : self.end], cache=self.cache)
        return self.model.unembed(hidden)[:, -1]

    def append(self, tokens: Array) -> None:
        """Put one token (batch,) at the end of each text."""
        if self.end == self.tokens.shape[1]:
            self.tokens = np.concatenate((self.tokens, np.full_like(self.tokens, PADDING)), axis=1)
        self.tokens[:, self.end] = tokens
        self.end += 1

    def select(self, rows: Array) -> None:
        """Make row i a copy of the row `rows[i]` (beam search). Rows must be equally long."""
        self.tokens[:, : self.end] = self.tokens[rows, : self.end]
        self.cache.select(rows)

    def _read_windows(self) -> Array:
        """Fill the cache with each row's window; the logits after its last token."""
        starts = [padding + window_start(self.end - padding, self.limit) for padding in self.padding]
        self._origin = min(starts)
        self.cache.reset([start - self._origin for start in starts])
        windows = np.maximum(self.tokens[:, self._origin : self.end], 0)  # the cache hides padding: any id will do there
        last = self.model.hidden(windows, cache=self.cache)[:, -1:]  # only the last position is turned into logits
        return self.model.unembed(last)[:, -1]


if __name__ == "__main__":
    from tiny_transformer.config import ModelConfig
    from tiny_transformer.numpy_engine.model import init_weights

    config = ModelConfig(max_seq_len=8, d_model=32, n_layers=2, n_heads=2, position="rotary")
    model = TinyTransformerLM(config, init_weights(config, seed=0))
    decoder = Decoder(model, [[1, 2, 3], [4]], max_new=12)
    for _ in range(12):
        logits = decoder.logits()
        decoder.append(logits.argmax(-1))
    print("texts", decoder.texts.shape, "the last logits", logits.shape, "cached columns", decoder.cache.length)
    alone = naive_logits(model, decoder.texts[:1, :-1])
    print(f"cached and uncached differ by at most {np.abs(alone - logits[:1]).max():.1e}")
