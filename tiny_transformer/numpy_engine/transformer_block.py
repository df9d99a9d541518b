"""One layer, forward and backward. Mirrors `tiny_transformer/transformer_block.py`.

Read before: `multi_head.py`, `normalization.py`, `feedforward.py`.
"""

from typing import get_args

import numpy as np

from tiny_transformer.config import ModelConfig, NormPosition
from tiny_transformer.numpy_engine.feedforward import feed_forward, feed_forward_backward
from tiny_transformer.numpy_engine.kv_cache import LayerCache
from tiny_transformer.numpy_engine.linear import Array, Cache, Gradients, Weights
from tiny_transformer.numpy_engine.multi_head import multi_head_attention, multi_head_attention_backward
from tiny_transformer.numpy_engine.normalization import norm, norm_backward


def dropout(x: Array, keep: Array | None, rate: float) -> Array:
    """x · keep / (1 - rate): zero what `keep` (bool, True = stays) leaves out and scale up the rest, so that the mean stays.

    `keep` is given, never drawn here: None drops nothing. Kept: `keep`.
    """
    if keep is None:
        return x
    y: Array = x * keep * (1 / (1 - rate))
    return y


def dropout_backward(dy: Array, keep: Array | None, rate: float) -> Array:
    """∂y/∂x = keep / (1 - rate), so the gradient goes the same way: what was zeroed gets none."""
    return dropout(dy, keep, rate)


def transformer_block(
    x: Array,
    w: Weights,
    name: str,
    config: ModelConfig,
    mask: Array | None = None,
    *,
    bias: Array | None = None,
    rotation: tuple[Array, Array] | None = None,
    keep: tuple[Array | None, Array | None] = (None, None),
    cache: LayerCache | None = None,
) -> tuple[Array, Cache]:
    """Two branches added to a residual stream. (batch, seq, d_model) to the same; `keep`: dropout of the two
    branches; `cache`: keys and values of earlier calls.

    pre:  x = x + attention(norm1(x));  x = x + feedforward(norm2(x))   (GPT-2; Xiong et al. 2020)
    post: x = norm1(x + attention(x));  x = norm2(x + feedforward(x))   (Vaswani et al. 2017)

    Kept: what its four parts keep. The sums keep nothing.
    """
    pre, rate = config.norm_position == "pre", config.dropout
    first, place, second = f"{name}.norm1", f"{name}.attention", f"{name}.norm2"
    if pre:
        read, norm1_cache = norm(x, w, first, config)
        branch, attention_cache = multi_head_attention(read, w, place, config, mask, bias=bias, rotation=rotation, cache=cache)
        x = x + dropout(branch, keep[0], rate)
        read, norm2_cache = norm(x, w, second, config)
        branch, feedforward_cache = feed_forward(read, w, f"{name}.feedforward", config)
        x = x + dropout(branch, keep[1], rate)
    else:
        branch, attention_cache = multi_head_attention(x, w, place, config, mask, bias=bias, rotation=rotation, cache=cache)
        x, norm1_cache = norm(x + dropout(branch, keep[0], rate), w, first, config)
        branch, feedforward_cache = feed_forward(x, w, f"{name}.feedforward", config)
        x, norm2_cache = norm(x + dropout(branch, keep[1], rate), w, second, config)
    return x, (pre, rate, keep, norm1_cache, attention_cache, norm2_cache, feedforward_cache)


def transformer_block_backward(dx: Array, cache: Cache) -> tuple[Array, Gradients]:
    """The gradient of the block's output to that of its input, (batch, seq, d_model) each, and the gradients of its weights.

    `dx` is the gradient of the stream at the place that the lines have come back to.
    """
    pre, rate, keep, norm1_cache, attention_cache, norm2_cache, feedforward_cache = cache
    if pre:
        # y = x + f(norm(x)): the stream's gradient passes untouched (∂y/∂x holds a 1), and the branch adds its own
        dbranch = dropout_backward(dx, keep[1], rate)
        dread, feedforward = feed_forward_backward(dbranch, feedforward_cache)
        dread, norm2 = norm_backward(dread, norm2_cache)
        dx = dx + dread
        dbranch = dropout_backward(dx, keep[0], rate)
        dread, attention = multi_head_attention_backward(dbranch, attention_cache)
        dread, norm1 = norm_backward(dread, norm1_cache)
        return dx + dread, norm1 | attention | norm2 | feedforward
    # y = norm(x + f(x)): first back through the norm, then to both terms of the sum
    dsum, norm2 = norm_backward(dx, norm2_cache)
    dread, feedforward = feed_forward_backward(dropout_backward(dsum, keep[1], rate), feedforward_cache)
    dx = dsum + dread
    dsum, norm1 = norm_backward(dx, norm1_cache)
    dread, attention = multi_head_attention_backward(dropout_backward(dsum, keep[0], rate), attention_cache)
    return dsum + dread, norm1 | attention | norm2 | feedforward


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    w = {f"block.attention.{name}.weight": generator.standard_normal((64, 64)) / 8 for name in ("W_query", "W_key", "W_value", "out_proj")}
    w |= {"block.feedforward.up.weight": generator.standard_normal((256, 64)) / 8}
    w |= {"block.feedforward.down.weight": generator.standard_normal((64, 256)) / 16}
    w |= {"block.norm1.weight": np.ones(64), "block.norm2.weight": np.ones(64)}
    x = generator.standard_normal((2, 5, 64)) * 3
    for place in get_args(NormPosition):
        y, cache = transformer_block(x, w, "block", ModelConfig(d_model=64, n_heads=4, bias="none", norm_position=place))
        dx, gradients = transformer_block_backward(generator.standard_normal(y.shape), cache)
        print(f"{place:4} {x.shape} -> {y.shape}  size of a vector {x.std():.2f} -> {y.std():.2f}, of its gradient 1.00 -> {dx.std():.2f}")
