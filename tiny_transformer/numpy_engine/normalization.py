"""Norms, forward and backward. Mirrors `tiny_transformer/normalization.py`.

Read before: `linear.py` (the convention). Letters: n rows, d the dimension that is normalised.
"""

import numpy as np

from tiny_transformer.config import ModelConfig
from tiny_transformer.numpy_engine.linear import Array, Cache, Gradients, Weights, sum_rows


def layer_norm(x: Array, weight: Array, bias: Array | None, eps: float) -> tuple[Array, Cache]:
    """y = (x - mean) / √(variance + eps) · weight + bias over the last dimension (Ba et al. 2016). Shapes: (…, d) to (…, d).

    The variance divides by d, not d - 1. Kept: z = (x - mean) / √(variance + eps), and 1 / √(variance + eps) per row.

    >>> layer_norm(np.array([1.0, 3.0]), np.ones(2), None, eps=0.0)[0].tolist()
    [-1.0, 1.0]
    """
    centred = x - x.mean(-1, keepdims=True)
    rate = 1 / np.sqrt(_mean_of_product(centred, centred) + eps)  # (…, 1)
    z = centred * rate
    y = z * weight
    return y if bias is None else y + bias, (z, rate, weight, bias is not None)


def layer_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array | None]:
    """dy (…, d) to dx (…, d), dweight (d,) and dbias (d,) or None."""
    z, rate, weight, has_bias = cache
    # y_nd = z_nd g_d + b_d, and every row n uses the same g and b:
    # ∂L/∂g_d = Σ_n ∂L/∂y_nd z_nd,   ∂L/∂b_d = Σ_n ∂L/∂y_nd,   ∂L/∂z_nd = ∂L/∂y_nd g_d
    dweight = sum_rows(dy * z)
    dbias = sum_rows(dy) if has_bias else None
    dz = dy * weight
    # z = (x - μ) r with r = (σ² + ε)^(-½). x_j moves z_i in three ways:
    #   directly                     ∂z_i/∂x_j = r [i = j]
    #   through the mean             ∂μ/∂x_j = 1/d                 gives   -r / d
    #   through the variance         ∂σ²/∂x_j = 2 (x_j - μ) / d    gives   (x_i - μ) · -½ r³ · 2 (x_j - μ) / d = -r z_i z_j / d
    # ∂L/∂x_j = Σ_i ∂L/∂z_i ∂z_i/∂x_j = r (∂L/∂z_j - mean(∂L/∂z) - z_j mean(∂L/∂z · z))
    dx = rate * (dz - dz.mean(-1, keepdims=True) - z * _mean_of_product(dz, z))
    return dx, dweight, dbias


def rms_norm(x: Array, weight: Array, eps: float) -> tuple[Array, Cache]:
    """y = x / √(mean of x² + eps) · weight over the last dimension (Zhang & Sennrich 2019). Shapes: (…, d) to (…, d).

    Kept: z = x / √(mean of x² + eps), and 1 / √(mean of x² + eps) per row.

    >>> float((rms_norm(np.array([3.0, 4.0]), np.ones(2), eps=0.0)[0] ** 2).mean().round(12))
    1.0
    """
    rate = 1 / np.sqrt(_mean_of_product(x, x) + eps)  # (…, 1)
    z = x * rate
    return z * weight, (z, rate, weight)


def rms_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """dy (…, d) to dx (…, d) and dweight (d,)."""
    z, rate, weight = cache
    # As above without the mean: z = x r with r = (mean of x² + ε)^(-½), so
    # ∂z_i/∂x_j = r [i = j] - r z_i z_j / d     and     ∂L/∂x_j = r (∂L/∂z_j - z_j mean(∂L/∂z · z))
    dweight = sum_rows(dy * z)
    dz = dy * weight
    dx = rate * (dz - z * _mean_of_product(dz, z))
    return dx, dweight


def _mean_of_product(a: Array, b: Array) -> Array:
    """The mean of a · b over the last dimension, kept as 1, with no array of the products in between."""
    mean: Array = np.einsum("...d,...d->...", a, b)[..., None] / a.shape[-1]
    return mean


def norm(x: Array, w: Weights, name: str, config: ModelConfig) -> tuple[Array, Cache]:
    """The norm that `config` names, with the weights `name`.weight and perhaps `name`.bias. (…, d) to (…, d)."""
    weight = w[f"{name}.weight"]
    if config.norm == "rms":
        y, cache = rms_norm(x, weight, config.norm_eps)
    else:
        y, cache = layer_norm(x, weight, w.get(f"{name}.bias"), config.norm_eps)
    return y, (config.norm, name, cache)


def norm_backward(dy: Array, cache: Cache) -> tuple[Array, Gradients]:
    """dy (…, d) to dx (…, d) and the gradients of the norm's weights."""
    kind, name, inner = cache
    if kind == "rms":
        dx, dweight = rms_norm_backward(dy, inner)
        return dx, {f"{name}.weight": dweight}
    dx, dweight, dbias = layer_norm_backward(dy, inner)
    return dx, {f"{name}.weight": dweight} | ({} if dbias is None else {f"{name}.bias": dbias})


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    hidden = generator.standard_normal((2, 5, 64)) * 3 + 1
    dy = generator.standard_normal(hidden.shape)
    for kind, (out, cache) in (
        ("layer", layer_norm(hidden, np.ones(64), np.zeros(64), 1e-5)), ("rms", rms_norm(hidden, np.ones(64), 1e-5))
    ):  # fmt: skip
        dx = layer_norm_backward(dy, cache)[0] if kind == "layer" else rms_norm_backward(dy, cache)[0]
        print(f"{kind:5} {hidden.shape} -> {out.shape}  mean {out[0, 0].mean():+.3f}  size {(out[0, 0] ** 2).mean() ** 0.5:.3f}")
        print(f"      longer inputs give the same output, so no gradient points along the output: {(dx * out).sum(-1).max():+.1e}")
