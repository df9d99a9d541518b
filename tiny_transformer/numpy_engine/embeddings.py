"""Tokens and positions to vectors, forward and backward. Mirrors `tiny_transformer/embeddings.py`.

Learned and sinusoidal positions are *added* to the token vectors here; rotary turns queries and keys, ALiBi is added to
attention scores, and both are prepared here and handed down by the model. Read before: `linear.py` (the convention).
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from tiny_transformer.config import ModelConfig
from tiny_transformer.ngrams import ngram_rows
from tiny_transformer.numpy_engine.linear import Array, Cache, Gradients, Weights
from tiny_transformer.numpy_engine.normalization import norm, norm_backward


@lru_cache(maxsize=8)
def sinusoidal_positions(n: int, d_model: int, dtype: Any = np.float32) -> Array:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(the same) (Vaswani et al. 2017, 3.5). (n, d_model).

    Wavelengths grow from 2π to 10000 · 2π. Computed in float64 and rounded once, to `dtype`. A constant: no backward pass, made
    once, and not to be written to.

    >>> sinusoidal_positions(2, 4)[0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    angle = np.arange(n)[:, None] / 10_000.0 ** (np.arange(0, d_model, 2) / d_model)  # (n, ⌈d_model / 2⌉)
    out = np.empty((n, d_model))
    out[:, 0::2] = np.sin(angle)
    out[:, 1::2] = np.cos(angle)[:, : d_model // 2]
    table = out.astype(dtype)
    table.flags.writeable = False
    return table


def rotary_frequencies(d_head: int, theta: float, scaling: dict[str, Any] | None = None) -> Array:
    """How fast each pair of numbers turns, in radians per position: theta^(-2i/d_head) (Su et al. 2021). (d_head / 2,) float64.

    `scaling` slows the turning for longer texts: "linear" divides every frequency (Chen et al. 2023); "llama3" divides the
    slow ones only, with a smooth passage between (Llama 3.1's rule).
    """
    frequencies: Array = theta ** (-np.arange(0, d_head, 2) / d_head)
    if scaling is None:
        return frequencies
    slow: Array = frequencies / scaling["factor"]
    if scaling["type"] == "linear":
        return slow
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)  # in the original context
    keep = np.clip((turns - low) / (high - low), 0, 1)  # 1: fast, left alone; 0: slow, stretched
    stretched: Array = keep * frequencies + (1 - keep) * slow
    return stretched


def rotation(positions: Array, frequencies: Array, dtype: Any = np.float32) -> tuple[Array, Array]:
    """Cosine and sine of position · frequency, for every pair: each (…, seq, d_head / 2).

    positions (seq,), or (batch, seq) where rows begin at different places: those get a heads dimension, (batch, 1, seq, d_head / 2).
    Computed in float64 and rounded once, to `dtype`: a float32 angle of 1000 radians is wrong in the fifth digit already.
    """
    angle = positions[..., None] * frequencies
    if positions.ndim == 2:
        angle = angle[:, None]
    return np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turn the pairs (x_i, x_{i + d/2}) by their angles: x' = x cos - y sin, y' = x sin + y cos. (…, seq, d_head) to the same.

    Kept: the cosines and sines, which all layers share.
    """
    first, second = np.split(x, 2, axis=-1)
    cos, sin = cos.astype(x.dtype, copy=False), sin.astype(x.dtype, copy=False)
    return np.concatenate((first * cos - second * sin, first * sin + second * cos), axis=-1)


def rotate_backward(dy: Array, cos: Array, sin: Array) -> Array:
    """dy (…, seq, d_head) to dx."""
    # x' = x cos - y sin,  y' = x sin + y cos
    # ∂L/∂x = ∂L/∂x' cos + ∂L/∂y' sin,  ∂L/∂y = -∂L/∂x' sin + ∂L/∂y' cos: the same turn by the angle's opposite
    return rotate(dy, cos, -sin)


def apply_rotary(x: Array, positions: Array, theta: float = 10_000.0, scaling: dict[str, Any] | None = None) -> Array:
    """Rotary positions (Su et al. 2021, equation 34), pairing i with i + d/2 as Llama's weights do.

    Shapes: x (…, seq, d_head), positions (seq,) or (batch, seq). The product of a turned query and a turned key depends on
    the difference of their positions alone; lengths do not change.
    """
    return rotate(x, *rotation(positions, rotary_frequencies(x.shape[-1], theta, scaling), x.dtype))


def alibi_slopes(n_heads: int, dtype: Any = np.float32) -> Array:
    """One slope per head, a geometric sequence from 2^(-8/n) down to 2^-8 (Press et al. 2022, section 3). (heads,).

    Where n is no power of two: those of the next lower power, then every second one of the next higher.
    """

    def powers(n: int) -> list[float]:
        return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]

    lower = 2 ** math.floor(math.log2(n_heads))
    return np.array((powers(lower) + powers(2 * lower)[0::2])[:n_heads], dtype=dtype)


def alibi_bias(slopes: Array, query_len: int, key_len: int) -> Array:
    """-slope · distance, to be added to scores: (heads, query, key); the queries are the last of the keys' positions."""
    keys = np.arange(key_len)
    distance = np.abs(keys[key_len - query_len :, None] - keys[None, :]).astype(slopes.dtype)
    bias: Array = -slopes[:, None, None] * distance
    return bias


def lookup(ids: Array, table: Array) -> Array:
    """Row ids_n of the table for every n: ids (…) int, table (rows, d) to (…, d). Kept: the ids."""
    rows: Array = table[ids]
    return rows


def lookup_backward(dy: Array, ids: Array, rows: int) -> Array:
    """dy (…, d) to dtable (rows, d)."""
    # y_n = T_(ids_n), so ∂L/∂T_r = Σ ∂L/∂y_n over the places n with ids_n = r: a row that is read twice gets both.
    # (`dtable[ids] += dy` would keep only the last of them.)
    dtable = np.zeros((rows, dy.shape[-1]), dtype=dy.dtype)
    np.add.at(dtable, ids.reshape(-1), dy.reshape(-1, dy.shape[-1]))
    return dtable


def ngrams(ids: Array, positions: Array, config: ModelConfig, before: Array | None = None) -> list[tuple[str, Array, Array]]:
    """For every n-gram table its name, the row of the n-gram that ends at each token, and whether there is one: (batch, seq) each.

    `before` holds the tokens that stand before `ids`, (batch, len(ngram_rows)). At the beginning of a text there are none.
    """
    most, seq = len(config.ngram_rows), ids.shape[1]
    known = np.concatenate((np.zeros((len(ids), most), ids.dtype) if before is None else before, ids), axis=1)
    newest_first = [known[:, most - back : most - back + seq] for back in range(most + 1)]
    return [
        (
            f"embeddings.ngram{order}.weight",
            ngram_rows(newest_first[:order], rows, config.vocab_size),
            np.broadcast_to(positions >= order - 1, ids.shape),
        )
        for order, rows in enumerate(config.ngram_rows, start=2)
    ]


def embed(
    ids: Array, positions: Array, w: Weights, config: ModelConfig, token_types: Array | None = None, before: Array | None = None
) -> tuple[Array, Cache]:
    """ids (batch, seq) to vectors (batch, seq, d_model): token + n-grams + position (+ token type, norm). Dropout is the model's.

    ids and token_types (batch, seq); positions (seq,), or (batch, seq) in cached generation; `before` as in `ngrams`. Kept: the
    ids, the rows of the n-grams, and what the norm keeps where there is one.
    """
    x = lookup(ids, w["embeddings.token.weight"])
    tables = ngrams(ids, positions, config, before) if config.ngram_rows else []
    for name, rows, there in tables:
        x = x + lookup(rows, w[name]) * there[..., None]
    if config.position == "sinusoidal":
        table = sinusoidal_positions(config.max_seq_len, config.d_model, x.dtype)
        x = x * math.sqrt(config.d_model) + table[positions]  # Vaswani et al. 2017, 3.4: tokens scaled up to match
    elif config.position == "learned":
        x = x + lookup(positions, w["embeddings.position.weight"])
    types, norm_cache = np.zeros_like(ids) if token_types is None else token_types, None
    if config.n_token_types:
        x = x + lookup(types, w["embeddings.token_type.weight"])
        x, norm_cache = norm(x, w, "embeddings.norm", config)
    return x, (ids, positions, types, norm_cache, tables, config)


def embed_backward(dx: Array, cache: Cache) -> Gradients:
    """The gradient of the vectors, (batch, seq, d_model), to those of the tables. There is nothing before them."""
    ids, positions, types, norm_cache, tables, config = cache
    gradients: Gradients = {}
    if norm_cache is not None:
        dx, gradients = norm_backward(dx, norm_cache)
        gradients["embeddings.token_type.weight"] = lookup_backward(dx, types, config.n_token_types)
    if config.position == "learned":
        # every row of the batch read the same positions: the sum over the batch, then each to its place in the table
        gradients["embeddings.position.weight"] = lookup_backward(dx.sum(0), positions, config.max_seq_len)
    elif config.position == "sinusoidal":
        dx = dx * math.sqrt(config.d_model)
    for (name, rows, there), size in zip(tables, config.ngram_rows, strict=True):
        gradients[name] = lookup_backward(dx[there], rows[there], size)
    gradients["embeddings.token.weight"] = lookup_backward(dx, ids, config.vocab_size)
    return gradients


if __name__ == "__main__":
    table = sinusoidal_positions(50, 64)
    print("sinusoidal", table.shape, "size of each:", f"{np.linalg.norm(table, axis=-1).mean():.2f}")
    query, key = np.random.default_rng(0).standard_normal((2, 1, 8))
    for where in (0, 10):
        product = apply_rotary(query, np.array([where + 3])) @ apply_rotary(key, np.array([where])).T
        print(f"rotary: query at {where + 3}, key at {where}: product {product.item():.5f}")
    print("alibi slopes of 8 heads", alibi_slopes(8).tolist())
    ids = np.array([[2, 0, 2]])
    print("token 2 was read twice, so its row gets two ones:", lookup_backward(np.ones((1, 3, 4)), ids, 3).tolist())
