"""Scaled dot-product attention and its masks, forward and backward. Mirrors `tiny_transformer/attention.py`.

Left out: heads (`multi_head.py`). Read before: `linear.py` (the convention), `tiny_transformer/attention.py`.
Masks are boolean here and everywhere: True = may look.

Letters: q queries, k keys, d the width of a head, v the width of a value; … is batch and heads.
"""

import math

import numpy as np

from tiny_transformer.numpy_engine.linear import Array, Cache


def create_causal_mask(seq_len: int) -> Array:
    """The mask of a model that reads left to right: (seq, seq) bool, True on and below the diagonal.

    >>> create_causal_mask(3).astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return np.tri(seq_len, dtype=bool)


def structure_mask(query_len: int, key_len: int, *, causal: bool, window: int | None) -> Array | None:
    """What a model's architecture allows: (query, key) bool, or None where everything is allowed.

    The queries stand at the last `query_len` of the `key_len` positions. `window` is how many positions a query sees on
    each side it may look at, its own included.
    """
    if not causal and window is None:
        return None
    keys = np.arange(key_len)
    distance = keys[key_len - query_len :, None] - keys[None, :]  # (query, key), how far back the key lies
    allowed = np.ones(distance.shape, dtype=bool)
    if causal:
        allowed &= distance >= 0
    if window is not None:
        allowed &= np.abs(distance) < window
    return allowed


def check_mask(mask: Array) -> None:
    """Raise ValueError unless `mask` is boolean: zeros and ones *added* to scores hide nothing, and no shape test sees it."""
    if mask.dtype != np.bool_:
        raise ValueError(
            f"the attention mask has dtype {mask.dtype}: it must be bool with True = may look. "
            "Pass mask.astype(bool) if 1 meant 'may look', or (mask == 0) if it held 0 and -inf"
        )


def join_masks(first: Array | None, second: Array | None) -> Array | None:
    """Where both allow it. Shapes broadcast; (batch, query, key) masks get their heads dimension here."""
    if second is not None:
        check_mask(second)
    first, second = (m[:, None] if m is not None and m.ndim == 3 else m for m in (first, second))  # (batch, 1, query, key)
    if first is None or second is None:
        return second if first is None else first
    return first & second


def softmax(scores: Array) -> tuple[Array, Array]:
    """weights = exp(scores) / Σ exp(scores) over the last dimension, and log Σ exp(scores) with that dimension left as 1.

    Scores may be -inf (hidden). A row of nothing but -inf gives weights of zero and a logarithm of 0.
    """
    highest = scores.max(-1, keepdims=True)
    highest[np.isneginf(highest)] = 0  # -inf - -inf would be no number
    weights = scores - highest  # exp of these is at most 1: no overflow
    np.exp(weights, out=weights)
    total = weights.sum(-1, keepdims=True)
    total[total == 0] = 1
    weights /= total
    return weights, highest + np.log(total)


def softmax_backward(dweights: Array, weights: Array) -> Array:
    """dweights (…, k) to dscores (…, k). Kept: the weights alone; the scores are not needed."""
    # w_k = exp(s_k) / Σ_j exp(s_j), so ∂w_j/∂s_k = w_j ([j = k] - w_k): raising one score lowers every other weight.
    # ∂L/∂s_k = Σ_j ∂L/∂w_j w_j ([j = k] - w_k) = w_k (∂L/∂w_k - Σ_j ∂L/∂w_j w_j)
    dscores: Array = weights * (dweights - np.einsum("...k,...k->...", dweights, weights)[..., None])
    return dscores


def _scores(query: Array, key: Array, mask: Array | None, bias: Array | None) -> Array:
    """Q Kᵀ / √d_head + bias, and -inf where the mask hides: (…, query, key)."""
    scores: Array = (query * (1 / math.sqrt(query.shape[-1]))) @ key.swapaxes(-2, -1)
    if bias is not None:
        scores += bias
    if mask is not None:
        np.copyto(scores, -np.inf, where=~mask)  # before the softmax, so that what is hidden takes no share
    return scores


def scaled_dot_product_attention(
    query: Array, key: Array, value: Array, mask: Array | None = None, bias: Array | None = None
) -> tuple[tuple[Array, Array], Cache]:
    """Attention(Q, K, V) = softmax(Q Kᵀ / √d_head) V (Vaswani et al. 2017, equation 1).

    Shapes: query (…, query, d_head), key (…, key, d_head), value (…, key, d_value); `mask` boolean, True = may look;
    `bias` added to the scores. Returns (output (…, query, d_value), weights (…, query, key)) and the cache.

    Kept: query, key, value, the mask, the bias, and one number per query, log Σ exp(scores). Neither scores nor weights
    are kept: they are the only things that grow with seq², and the backward pass makes the weights again from that number
    with one product and one exponential (Dao et al. 2022, "FlashAttention", section 3.1).

    Raises ValueError for a mask that is not boolean.
    """
    if mask is not None:
        check_mask(mask)
        mask = mask[:, None] if mask.ndim == 3 and query.ndim == 4 else mask  # (batch, 1, query, key)
    weights, log_sum = softmax(_scores(query, key, mask, bias))  # (…, query, key), (…, query, 1)
    return (weights @ value, weights), (query, key, value, mask, bias, log_sum)


def scaled_dot_product_attention_backward(doutput: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """doutput (…, query, d_value) to dquery, dkey, dvalue. The bias is a constant (ALiBi) and gets no gradient."""
    query, key, value, mask, bias, log_sum = cache
    # The weights once more: exp(s) / Σ exp(s) = exp(s - log Σ exp(s)). What the mask hides is exp(-inf) = 0 again.
    weights = _scores(query, key, mask, bias)
    weights -= log_sum
    np.exp(weights, out=weights)  # (…, query, key)
    # o_qv = Σ_k w_qk V_kv
    # ∂L/∂V_kv = Σ_q w_qk ∂L/∂o_qv                                            → dV = wᵀ do
    dvalue = weights.swapaxes(-2, -1) @ doutput
    # ∂L/∂w_qk = Σ_v ∂L/∂o_qv V_kv                                            → dw = do Vᵀ
    dweights = doutput @ value.swapaxes(-2, -1)
    # Through the softmax. A hidden place has weight 0, so its score gets gradient 0: the mask holds backwards by itself.
    dscores = softmax_backward(dweights, weights)
    # s_qk = Σ_d Q_qd K_kd / √d + bias_qk
    # ∂L/∂Q_qd = Σ_k ∂L/∂s_qk K_kd / √d                                       → dQ = ds K / √d
    scale = 1 / math.sqrt(query.shape[-1])
    dquery = dscores @ key * scale
    # ∂L/∂K_kd = Σ_q ∂L/∂s_qk Q_qd / √d                                       → dK = dsᵀ Q / √d
    dkey = dscores.swapaxes(-2, -1) @ query * scale
    return dquery, dkey, dvalue


def attend(
    query: Array, key: Array, value: Array, *, causal: bool, window: int | None = None, mask: Array | None = None, bias: Array | None = None
) -> tuple[Array, Cache]:
    """Attention as the model runs it: the structure (causal, window) joined with an extra mask. Returns the output only.

    Shapes as above with (batch, heads, seq, d_head); queries are the last of the keys' positions.
    """
    queries, keys = query.shape[-2], key.shape[-2]
    sees_all = queries == 1 and causal and (window is None or window >= keys)  # one query at the end of the keys
    structure = None if sees_all else structure_mask(queries, keys, causal=causal, window=window)
    (output, _), cache = scaled_dot_product_attention(query, key, value, join_masks(structure, mask), bias)
    return output, cache


def attend_backward(doutput: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """doutput (batch, heads, query, d_head) to dquery, dkey, dvalue: a mask is a constant, so nothing is added here."""
    return scaled_dot_product_attention_backward(doutput, cache)


if __name__ == "__main__":
    query = np.ones((1, 1))
    key, value = np.log([[1.0], [2.0], [3.0]]), np.array([[6.0], [12.0], [18.0]])
    (output, weights), cache = scaled_dot_product_attention(query, key, value)
    print("query", query.shape, "key", key.shape, "value", value.shape)
    print("weights", weights.round(4).tolist(), "output", output.round(4).tolist())
    dquery, dkey, dvalue = scaled_dot_product_attention_backward(np.ones_like(output), cache)
    (nudged, _), _kept = scaled_dot_product_attention(query + 1e-6, key, value)
    print(f"d output / d query: by nudging {((nudged - output) / 1e-6).item():.5f}, by hand {dquery.item():.5f}")
    print("d output / d value = the weights:", dvalue[:, 0].round(4).tolist())
