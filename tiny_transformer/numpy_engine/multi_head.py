"""Heads, forward and backward. Mirrors `tiny_transformer/multi_head.py`.

Left out: where positions come from; the model prepares a rotation or a bias and hands it down.
Read before: `attention.py`, `normalization.py` (for QK-norm), `embeddings.py` (for the rotation).
"""

import numpy as np

from tiny_transformer.config import ModelConfig
from tiny_transformer.numpy_engine import attention
from tiny_transformer.numpy_engine.embeddings import rotate, rotate_backward
from tiny_transformer.numpy_engine.kv_cache import LayerCache
from tiny_transformer.numpy_engine.linear import Array, Cache, Gradients, Weights, linear, linear_backward
from tiny_transformer.numpy_engine.normalization import rms_norm, rms_norm_backward
from tiny_transformer.utils.shape_check import check_shape


def split_heads(x: Array, n_heads: int) -> Array:
    """(batch, seq, heads · d_head) to (batch, heads, seq, d_head): cut the width, then swap the two middle dimensions.

    It only moves numbers, so its backward pass moves them back: `merge_heads`.
    """
    batch, seq, width = x.shape
    return x.reshape(batch, seq, n_heads, width // n_heads).transpose(0, 2, 1, 3)


def split_heads_backward(dy: Array) -> Array:
    """dy (batch, heads, seq, d_head) to dx (batch, seq, heads · d_head)."""
    return merge_heads(dy)


def merge_heads(x: Array) -> Array:
    """(batch, heads, seq, d_head) to (batch, seq, heads · d_head): the inverse of `split_heads`."""
    batch, heads, seq, d_head = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, seq, heads * d_head)


def merge_heads_backward(dy: Array, n_heads: int) -> Array:
    """dy (batch, seq, heads · d_head) to dx (batch, heads, seq, d_head)."""
    return split_heads(dy, n_heads)


def expand_kv(x: Array, times: int) -> Array:
    """(batch, kv_heads, seq, d_head) to (batch, kv_heads · times, seq, d_head): query head h uses head h // times.

    Grouped-query attention (Ainslie et al. 2023): several query heads share one key-value head.
    """
    return x if times == 1 else np.repeat(x, times, axis=1)


def expand_kv_backward(dy: Array, times: int) -> Array:
    """dy (batch, kv_heads · times, seq, d_head) to dx (batch, kv_heads, seq, d_head)."""
    if times == 1:
        return dy
    batch, heads, seq, d_head = dy.shape
    # y_h = x_(h // times), so ∂L/∂x_g is the sum over the `times` heads h that read x_g
    dx: Array = dy.reshape(batch, heads // times, times, seq, d_head).sum(2)
    return dx


def multi_head_attention(
    x: Array,
    w: Weights,
    name: str,
    config: ModelConfig,
    mask: Array | None = None,
    *,
    bias: Array | None = None,
    rotation: tuple[Array, Array] | None = None,
    cache: LayerCache | None = None,
) -> tuple[Array, Cache]:
    """Concat(head_1, …, head_h) W_O with head_i = Attention(x W_Q_i, x W_K_i, x W_V_i) (Vaswani et al. 2017, 3.2.2).

    (batch, seq, d_model) to the same. The config's own structure (causal, window) always holds; `mask` can only hide
    more. `bias` is added to the scores, `rotation` (cosines, sines) turns queries and keys, `cache` holds the keys and values of
    earlier calls (writing text only: there is no way back through it).
    Kept: x, what attention keeps, the merged heads, and with QK-norm what its two norms keep.
    """
    check_shape(x, ("batch", "seq", config.d_model), "the input of attention")
    query_flat, query_cache = linear(x, w, f"{name}.W_query")
    key_flat, key_cache = linear(x, w, f"{name}.W_key")
    value_flat, value_cache = linear(x, w, f"{name}.W_value")
    query = split_heads(query_flat, config.n_heads)  # (batch, heads, seq, d_head)
    key = split_heads(key_flat, config.kv_heads)  # (batch, kv_heads, seq, d_head)
    value = split_heads(value_flat, config.kv_heads)  # (batch, kv_heads, seq, d_head)
    norm_caches = None
    if config.qk_norm:  # Dehghani et al. 2023
        query, q_norm_cache = rms_norm(query, w[f"{name}.q_norm.weight"], config.norm_eps)
        key, k_norm_cache = rms_norm(key, w[f"{name}.k_norm.weight"], config.norm_eps)
        norm_caches = q_norm_cache, k_norm_cache
    if rotation is not None:
        query, key = rotate(query, *rotation), rotate(key, *rotation)
    if cache is not None:
        key, value = cache.append(key, value)  # (batch, kv_heads, all so far, d_head)
    times = config.n_heads // config.kv_heads
    heads, heads_cache = attention.attend(
        query, expand_kv(key, times), expand_kv(value, times), causal=config.causal, window=config.window, mask=mask, bias=bias
    )  # (batch, heads, seq, d_head)
    y, out_cache = linear(merge_heads(heads), w, f"{name}.out_proj")  # (batch, seq, d_model)
    return y, (name, config, rotation, query_cache, key_cache, value_cache, norm_caches, heads_cache, out_cache)


def multi_head_attention_backward(dy: Array, cache: Cache) -> tuple[Array, Gradients]:
    """dy (batch, seq, d_model) to dx (batch, seq, d_model) and the gradients of the layer's weights: forward, from its end."""
    name, config, rotation, query_cache, key_cache, value_cache, norm_caches, heads_cache, out_cache = cache
    times = config.n_heads // config.kv_heads
    dmerged, gradients = linear_backward(dy, out_cache)  # (batch, seq, heads · d_head)
    dquery, dkey, dvalue = attention.attend_backward(merge_heads_backward(dmerged, config.n_heads), heads_cache)
    dkey, dvalue = expand_kv_backward(dkey, times), expand_kv_backward(dvalue, times)  # (batch, kv_heads, seq, d_head)
    if rotation is not None:
        dquery, dkey = rotate_backward(dquery, *rotation), rotate_backward(dkey, *rotation)
    if norm_caches is not None:
        dquery, gradients[f"{name}.q_norm.weight"] = rms_norm_backward(dquery, norm_caches[0])
        dkey, gradients[f"{name}.k_norm.weight"] = rms_norm_backward(dkey, norm_caches[1])
    # x goes into all three projections, so ∂L/∂x is the sum of what comes back from the three
    dx_query, query_gradients = linear_backward(split_heads_backward(dquery), query_cache)
    dx_key, key_gradients = linear_backward(split_heads_backward(dkey), key_cache)
    dx_value, value_gradients = linear_backward(split_heads_backward(dvalue), value_cache)
    return dx_query + dx_key + dx_value, gradients | query_gradients | key_gradients | value_gradients


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    config = ModelConfig(d_model=64, n_heads=4, n_kv_heads=2, bias="none")
    shapes = {"W_query": (64, 64), "W_key": (32, 64), "W_value": (32, 64), "out_proj": (64, 64)}
    w = {f"attention.{name}.weight": generator.standard_normal(shape) / 8 for name, shape in shapes.items()}
    x = generator.standard_normal((2, 5, 64))
    print("x", x.shape, "split", split_heads(x, 4).shape, "merged", merge_heads(split_heads(x, 4)).shape)
    y, cache = multi_head_attention(x, w, "attention", config)
    dx, gradients = multi_head_attention_backward(np.ones_like(y), cache)
    print("y", y.shape, "dx", dx.shape)
    for name, gradient in gradients.items():
        print(f"gradient of {name:26} {gradient.shape}  largest {np.abs(gradient).max():.3f}")
