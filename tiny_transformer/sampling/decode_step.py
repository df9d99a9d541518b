"""One more token of every row through the whole model: the same equations as `model.hidden`, with everything ready.

Writing a text is this step, once per token, and nothing else counts. What a step of `model.hidden` decides anew every time is
decided once here: queries, keys and values are one product, weights lie as the processor reads them fastest, a window is a slice
and not a mask, shared keys are not copied, and nothing is checked. A token then takes little more than reading the weights.
Where there is a C compiler, the same step as one call takes this one's place (`native_step.py`).
Left out: first readings of several tokens (`decoder.py`), GPUs. Read before: `transformer_block.py`, `multi_head.py`, `packed.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_transformer import embeddings
from tiny_transformer.attention import is_recording
from tiny_transformer.config import ModelConfig
from tiny_transformer.embeddings import Embeddings
from tiny_transformer.feedforward import FeedForward
from tiny_transformer.kv_cache import KVCache, LayerCache
from tiny_transformer.linear import Linear
from tiny_transformer.model import TinyTransformerLM, Unembedding
from tiny_transformer.multi_head import MultiHeadAttention
from tiny_transformer.normalization import LayerNorm, RMSNorm
from tiny_transformer.quantized_layers import QuantizedLinear
from tiny_transformer.roofline import FUSED_ATTENTION
from tiny_transformer.sampling.native_step import Listener, native_step
from tiny_transformer.sampling.packed import prepare, prepare_onto, worthwhile
from tiny_transformer.transformer_block import TransformerBlock
from tiny_transformer.utils.reference import is_reference

KNOWN = {
    TinyTransformerLM, Embeddings, TransformerBlock, MultiHeadAttention, FeedForward, Unembedding, LayerNorm, RMSNorm, QuantizedLinear,
    Linear, nn.Embedding, nn.Dropout, nn.Identity, nn.ModuleList,
}  # fmt: skip
"""The parts whose equations are written here."""


class Place(NamedTuple):
    """Where the new token stands, worked out once for all layers."""

    start: int
    """The first column of the cache that may be looked at."""
    mask: Tensor | None
    """Added to scores, or boolean with True = may look; broadcasts to (rows, kv_heads, query heads of each, columns)."""
    rotation: tuple[Tensor, Tensor] | None
    """Cosines and sines: (1 or rows, 1, d_head / 2)."""


class DecodeStep:
    """tokens (rows,) to logits (rows, vocab), with keys and values in the cache that was given."""

    def __init__(self, model: TinyTransformerLM, cache: KVCache) -> None:
        """Prepare for a model that `fits`."""
        self.model, self.cache, self.config = model, cache, model.config
        self.native = native_step(model, cache)
        if self.native is not None:
            return
        blocks = cast(list[TransformerBlock], list(model.blocks))
        self.blocks = [_Block(block, layer, cache.batch_size) for block, layer in zip(blocks, cache.layers, strict=True)]
        self.columns = torch.arange(cache.max_len)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Append one token to every row. The cache must hold at least one token and have room for one more."""
        if self.native is not None:
            return self.native(tokens)
        column = self.cache.length
        positions = self.columns[column : column + 1] if self.cache.padding is None else self.cache.positions(1)
        most = len(self.config.ngram_rows)
        before = self.cache.remember(tokens[:, None], most) if most else None
        x = self.model.embeddings(tokens[:, None], positions, before=before)[:, 0]  # (rows, d_model)
        place = self._place(positions)
        for block in self.blocks:
            x = block(x, place)
        return self.model.unembed(self.model.norm(x))  # type: ignore[no-any-return]

    def parts(self) -> Iterator[tuple[Any, str, str]]:
        """Where each function lives that is one part of a token, its name there, and the part as `step_cost.py` calls it.

        For whoever times them (`token_times.py`). What a product does on its way out, an activation or a sum, is timed with it.
        The step in C has no functions to name: it tells a listener (`told_to`).
        """
        if self.native is not None:
            return
        yield F, "scaled_dot_product_attention", FUSED_ATTENTION
        for block in self.blocks:
            yield block, "attend", "heads"
            yield block, "qkv", "q, k, v products"
            yield block, "out", "output projection"
            yield block, "up", "feed-forward up"
            yield block, "down", "feed-forward down"
            if block.gate is not None:
                yield block, "gate", "feed-forward up"

    @contextmanager
    def told_to(self, listener: Listener) -> Iterator[None]:
        """Inside, the step in C tells `listener` when each of its parts began; the step in PyTorch tells nothing."""
        if self.native is not None:
            self.native.listener = listener
        try:
            yield
        finally:
            if self.native is not None:
                self.native.listener = None

    def _place(self, positions: Tensor) -> Place:
        config, n = self.config, self.cache.length + 1
        start = 0 if config.window is None else max(0, n - config.window)
        mask = self.cache.mask(1)  # (rows, 1, columns), where rows are padded
        if mask is not None:
            mask = mask[:, :, None, start:]  # (rows, 1, 1, columns)
        if config.position == "alibi":
            bias = embeddings.alibi_bias(self.model.slopes, 1, n)[..., start:]  # (heads, 1, columns)
            bias = bias.view(1, config.kv_heads, -1, n - start)
            mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
        if config.position != "rotary":
            return Place(start, mask, None)
        cos, sin = self.model.cosines[positions], self.model.sines[positions]  # (1, d_head / 2), or (rows, 1, d_head / 2)
        return Place(start, mask, (cos.view(-1, 1, cos.size(-1)), sin.view(-1, 1, sin.size(-1))))


class _Block:
    """One layer: `TransformerBlock` and its parts."""

    def __init__(self, block: TransformerBlock, cache: LayerCache, rows: int) -> None:
        attention, feedforward = block.attention, block.feedforward
        self.config: ModelConfig = attention.config
        self.pre, self.cache = block.pre, cache
        self.split = [self.config.n_heads, self.config.kv_heads, self.config.kv_heads]
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        bend = self.config.activation
        self.qkv = prepare([attention.W_query, attention.W_key, attention.W_value], rows)
        self.out = prepare_onto(attention.out_proj, rows)
        self.gate = None if feedforward.gate is None else prepare([feedforward.gate], rows, bend)
        self.up = prepare([feedforward.up], rows, bend if feedforward.gate is None else None)
        self.down = prepare_onto(feedforward.down, rows)

    def __call__(self, x: Tensor, place: Place) -> Tensor:
        """(rows, d_model) to the same. What follows a product, a sum or an activation, is done on its way out."""
        if self.pre:
            x = self.out(self.attend(self.norm1(x), place), x)
            return self.down(self.bend(self.norm2(x)), x)
        x = self.norm1(self.out(self.attend(x, place), x))
        return self.norm2(self.down(self.bend(x), x))  # type: ignore[no-any-return]

    def attend(self, x: Tensor, place: Place) -> Tensor:
        config, rows = self.config, x.size(0)
        heads = self.qkv(x).view(rows, -1, config.head_width)  # (rows, n_heads + 2 kv_heads, d_head)
        query, key, value = torch.split(heads, self.split, dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        if place.rotation is not None:
            query, key = embeddings.rotate(query, *place.rotation), embeddings.rotate(key, *place.rotation)
        keys, values = self.cache.append(key[:, :, None], value[:, :, None])  # (rows, kv_heads, columns, d_head)
        # The query heads that share a key head stand where several queries would: all of them see the same columns.
        query = query.reshape(rows, config.kv_heads, -1, config.head_width)
        if place.start:
            keys, values = keys[:, :, place.start :], values[:, :, place.start :]
        seen = F.scaled_dot_product_attention(query, keys, values, attn_mask=place.mask)
        return seen.reshape(rows, -1)

    def bend(self, x: Tensor) -> Tensor:
        return self.up(x) if self.gate is None else self.gate(x) * self.up(x)


def fits(model: TinyTransformerLM, tokens: int) -> bool:
    """Whether the step pays for `tokens` tokens, and whether nobody has hooked into the model or put own parts in their places."""
    return worthwhile(model, tokens) and all(type(module) in KNOWN and not _changed(module) for module in model.modules())


def is_plain() -> bool:
    """Whether the readable path or a recording of attention weights is asked for now: then the step does not stand in."""
    return is_reference() or is_recording()


def _changed(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks) or not {"forward", "hidden"}.isdisjoint(module.__dict__)
