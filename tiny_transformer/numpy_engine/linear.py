"""Linear layers, and how weights and gradients are named. PyTorch has these built in; here they are spelled out.

The convention of this folder: `y, cache = f(x, …)`, and right below it `dx, … = f_backward(dy, cache)`. `dx` is short for
d loss / d x and has the shape of `x`. The derivation is the comment that ends in the line of code. A function that owns
weights takes all of them by public name (`w`) and its own place among them (`name`), and its backward pass gives their
gradients under the same names. Read before: nothing.

Letters: n rows (all batch and sequence positions together), i inputs, o outputs of a layer.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Weights = Mapping[str, Array]
Gradients = dict[str, Array]
Cache = tuple[Any, ...]
"""What a forward pass keeps for its backward pass; only its own backward pass looks inside."""


def sum_rows(x: Array) -> Array:
    """The sum over every dimension but the last: (…, d) to (d,), as a product with ones, which is exact enough and fast.

    The gradient of whatever was broadcast over those dimensions: y_nd = x_nd + b_d touches every row n with the same b_d,
    so ∂L/∂b_d = Σ_n ∂L/∂y_nd.
    """
    rows = x.reshape(-1, x.shape[-1])
    total: Array = np.ones(len(rows), dtype=x.dtype) @ rows
    return total


def linear(x: Array, w: Weights, name: str) -> tuple[Array, Cache]:
    """y = x Wᵀ + b, with `name`.weight (o, i) and, where there is one, `name`.bias (o,). Shapes: (…, i) to (…, o).

    Kept: x. (W is the model's own.)
    """
    weight, bias = w[f"{name}.weight"], w.get(f"{name}.bias")
    y = x.reshape(-1, x.shape[-1]) @ weight.T  # (n, o)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], len(weight)), (x, weight, bias is not None, name)


def linear_backward(dy: Array, cache: Cache) -> tuple[Array, Gradients]:
    """dy (…, o) to dx (…, i) and the gradients of the weight and the bias."""
    x, weight, has_bias, name = cache
    dy_rows, x_rows = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])  # (n, o), (n, i)
    # y_no = Σ_i x_ni W_oi + b_o
    # ∂L/∂x_ni = Σ_o ∂L/∂y_no W_oi                                            → dx = dy W
    dx = (dy_rows @ weight).reshape(x.shape)
    # ∂L/∂W_oi = Σ_n ∂L/∂y_no x_ni: every row used the same W                  → dW = dyᵀ x
    gradients = {f"{name}.weight": dy_rows.T @ x_rows}
    # ∂L/∂b_o = Σ_n ∂L/∂y_no                                                  → db = the sum of dy's rows
    if has_bias:
        gradients[f"{name}.bias"] = sum_rows(dy)
    return dx, gradients


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    w = {"layer.weight": generator.standard_normal((4, 3)), "layer.bias": np.zeros(4)}
    x = generator.standard_normal((2, 5, 3))
    y, cache = linear(x, w, "layer")
    dx, gradients = linear_backward(np.ones_like(y), cache)
    print("x", x.shape, "y", y.shape, "dx", dx.shape, "gradients", {name: g.shape for name, g in gradients.items()})
    nudged, _ = linear(x, {**w, "layer.weight": w["layer.weight"] + 1e-6 * np.eye(4, 3)}, "layer")
    print(f"by nudging the weight {(nudged - y).sum() / 1e-6:.6f}, by hand {(gradients['layer.weight'] * np.eye(4, 3)).sum():.6f}")
