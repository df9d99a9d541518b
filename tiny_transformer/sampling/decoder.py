"""A batch of texts and the logits of what comes next in each: the KV cache, the padding, and what happens past the context's edge.

Left out: which token is taken (`strategies.py`). Read before: `context_window.py`, `kv_cache.py`, `model.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from tiny_transformer.context_window import PADDING, RESERVE, window_start
from tiny_transformer.kv_cache import KVCache
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.sampling.decode_step import DecodeStep, fits, is_plain
from tiny_transformer.sampling.native_step import MOST_ITEMS, NativeStep, Rule
from tiny_transformer.sampling.packed import applied, pack

__all__ = ["PADDING", "RESERVE", "Decoder", "evaluating", "naive_logits", "window_start"]


def naive_logits(model: TinyTransformerLM, ids: Tensor) -> Tensor:
    """The next token's logits without any cache, by the same rule: ids (batch, n) to (batch, vocab). Slow, and the oracle of tests."""
    with evaluating(model):
        window = ids[:, window_start(ids.size(1), model.config.max_seq_len) :]
        return model(window)[:, -1]  # type: ignore[no-any-return]


@contextmanager
def evaluating(model: TinyTransformerLM) -> Iterator[None]:
    """No dropout and no gradients inside; afterwards the model is in the mode it was in."""
    training = model.training
    if training:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if training:
            model.train()


class Decoder:
    """Texts of a batch, aligned at their ends, and a cache of what the model has seen of them.

    Shorter rows are padded on the left; the cache hides the padding and counts positions from each row's first token,
    so every row gets the logits it would get alone. Each row follows the window rule by its own length.

    Use in turns: `logits()` for the next token of every row, `append(tokens)` to decide it. `write` does several turns at once.
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
        rows, device = len(prompts), model.device
        self.tokens = torch.full((rows, self.end + min(max_new, RESERVE)), PADDING, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            self.tokens[row, self.padding[row] : self.end] = torch.tensor(prompt)
        self.tokens = self.tokens.to(device)
        width = min(self.limit, self.end + max_new)
        self.cache = KVCache(model.config, rows, max_len=width, device=device, dtype=model.embeddings.token.weight.dtype)
        self.step = DecodeStep(model, self.cache) if fits(model, max_new) else None
        self._undecided: Tensor | None = None  # logits of a text that has been read to its end
        self._packed = {} if self.step is not None else pack(model, rows, max_new)

    @property
    def texts(self) -> Tensor:
        """All tokens so far, prompts included: (batch, n), -1 on the left of shorter rows."""
        return self.tokens[:, : self.end]

    def logits(self) -> Tensor:
        """The next token's logits: (batch, vocab)."""
        if self._undecided is not None:
            logits, self._undecided = self._undecided, None
            return logits
        with evaluating(self.model):
            seen = self.cache.length
            if seen == 0 or seen == self.limit:  # nothing read yet, or the longest row has reached the edge
                return self._read_windows()
            if self.step is not None and seen + 1 == self.end - self._origin and not is_plain():
                return self.step(self.tokens[:, self.end - 1])
            with applied(self._packed):
                hidden = self.model.hidden(self.tokens[:, self._origin + seen : self.end], cache=self.cache)
            return self.model.unembed(hidden)[:, -1]  # type: ignore[no-any-return]

    def write(self, rule: Rule, heights: Tensor) -> list[list[int]]:
        """Write at most as many tokens as there are rows of `heights` (count, batch), in one call: what `logits`, `pick` and `append`
        would do in turns. Returns the new tokens of every turn.

        There may be fewer, or none: at the context's edge, where a choice hangs on rounding, and where there is no step in C. The next
        token is then to be written in turns.
        """
        seen, native = self.cache.length, self._native()
        if native is None or not native.own_embeddings or not 0 < seen < self.limit or seen + 1 != self.end - self._origin:
            return []
        heights = heights[: self.limit - seen]
        self._make_room(len(heights))
        made, self._undecided = native.write(self.tokens, self.end, rule, heights)
        self.end += made
        return self.tokens[:, self.end - made : self.end].t().tolist()

    @torch.inference_mode()
    def append(self, tokens: Tensor) -> None:
        """Put one token (batch,) at the end of each text."""
        self._make_room(1)
        self.tokens[:, self.end] = tokens
        self.end += 1

    @torch.inference_mode()
    def select(self, rows: Tensor) -> None:
        """Make row i a copy of the row `rows[i]` (beam search). Rows must be equally long."""
        self.tokens[:, : self.end] = self.tokens[rows, : self.end]
        self.cache.select(rows)

    def _native(self) -> NativeStep | None:
        """The step in C, where it may be taken now."""
        return None if self.step is None or is_plain() else self.step.native

    def _make_room(self, count: int) -> None:
        """For so many more tokens in each text."""
        while self.end + count > self.tokens.size(1):
            self.tokens = torch.cat((self.tokens, torch.full_like(self.tokens, PADDING)), dim=1)

    def _read_windows(self) -> Tensor:
        """Fill the cache with each row's window; the logits after its last token."""
        starts = [padding + window_start(self.end - padding, self.limit) for padding in self.padding]
        self._origin = min(starts)
        self.cache.reset([start - self._origin for start in starts])
        windows = self.tokens[:, self._origin : self.end].clamp(min=0)  # the cache hides padding: any id will do there
        native = self._native()
        if native is not None and self.tokens.size(0) == 1 and windows.size(1) <= MOST_ITEMS:
            return native(windows[0])[-1:]
        last = self.model.hidden(windows, cache=self.cache)[:, -1:]  # only the last position is turned into logits
        return self.model.unembed(last)[:, -1]  # type: ignore[no-any-return]


if __name__ == "__main__":
    from tiny_transformer.config import ModelConfig

    model = TinyTransformerLM(ModelConfig(max_seq_len=8, d_model=32, n_layers=2, n_heads=2, position="rotary"), seed=0)
    decoder = Decoder(model, [[1, 2, 3], [4]], max_new=12)
    for _ in range(12):
        logits = decoder.logits()
        decoder.append(logits.argmax(-1))
    print("texts", tuple(decoder.texts.shape), "the last logits", tuple(logits.shape), "cached columns", decoder.cache.length)
    alone = naive_logits(model, decoder.texts[:1, :-1])
    print(f"cached and uncached differ by at most {(alone - logits[:1]).abs().max():.1e}")
