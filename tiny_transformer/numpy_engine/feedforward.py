"""The feed-forward network and its activations, forward and backward. Mirrors `tiny_transformer/feedforward.py`.

Read before: `linear.py` (the convention). Every activation works number by number, so its backward pass is
dx = dy · f'(x), and only f' has to be found.
"""

import math
from collections.abc import Callable
from functools import cache as remember
from typing import get_args

import numpy as np

from tiny_transformer.config import Activation, ModelConfig
from tiny_transformer.numpy_engine.linear import Array, Cache, Gradients, Weights, linear, linear_backward

REACH = 6.0
"""Beyond this erf(x) is 1 to the last digit: 1 - erf(6) = 2e-17."""


def relu(x: Array) -> tuple[Array, Cache]:
    """max(0, x). Kept: x."""
    return np.maximum(x, 0), (x,)


def relu_backward(dy: Array, cache: Cache) -> Array:
    """f'(x) = 1 for x > 0, else 0 (at 0 itself too, as PyTorch has it)."""
    (x,) = cache
    dx: Array = dy * (x > 0)
    return dx


def relu2(x: Array) -> tuple[Array, Cache]:
    """Squared ReLU: max(0, x)² (So et al. 2021, "Primer"). Kept: max(0, x)."""
    positive = np.maximum(x, 0)
    return positive * positive, (positive,)


def relu2_backward(dy: Array, cache: Cache) -> Array:
    """f'(x) = 2 max(0, x)."""
    (positive,) = cache
    dx: Array = dy * (2 * positive)
    return dx


@remember
def _erf_polynomial(terms: int) -> list[float]:
    """Coefficients, highest power first, of a polynomial in u that equals exp(x²) (1 - erf(x)) for x from 0 to REACH.

    That product falls smoothly from 1 towards 1 / (x √π). In t = 1 / (1 + x / 2) it is almost a straight line, so few
    powers are enough; u is t stretched to the interval from -1 to 1. The polynomial agrees with the product at Chebyshev's
    points, where an interpolation is as good as the best one but for a digit; Python's own `math.erfc` gives the values
    there, and a cosine sum the coefficients of Chebyshev's series.
    """
    least = 1 / (1 + REACH / 2)
    angles = np.pi * (np.arange(terms) + 0.5) / terms
    x = 2 / ((np.cos(angles) + 1) / 2 * (1 - least) + least) - 2
    values = np.array([math.exp(v * v) * math.erfc(v) for v in x])
    series = np.cos(np.outer(np.arange(terms), angles)) @ values * (2 / terms)
    series[0] /= 2
    return [float(c) for c in np.polynomial.chebyshev.cheb2poly(series)[::-1]]


def erf(x: Array) -> Array:
    """The error function 2/√π ∫ exp(-s²) ds from 0 to x, for arrays: NumPy has none. Error below 3e-15 (float32: 5e-7).

    erf(-x) = -erf(x), and for x ≥ 0: erf(x) = 1 - exp(-x²) p(t) with the polynomial above.
    """
    least = 1 / (1 + REACH / 2)
    size = np.minimum(np.abs(x), REACH)
    u = (1 / (1 + size / 2) - least) * (2 / (1 - least)) - 1
    coefficients = _erf_polynomial(20 if x.dtype == np.float64 else 9)
    p = np.full_like(u, coefficients[0])
    for coefficient in coefficients[1:]:  # Horner: ((c0 u + c1) u + c2) u + …
        p *= u
        p += coefficient
    p *= np.exp(-size * size)
    return np.copysign(1 - p, x)


def gelu(x: Array) -> tuple[Array, Cache]:
    """GELU: x Φ(x), with Φ the normal distribution's share below x (Hendrycks & Gimpel 2016). Kept: x and Φ(x)."""
    below = 0.5 * (1 + erf(x * math.sqrt(0.5)))
    return x * below, (x, below)


def gelu_backward(dy: Array, cache: Cache) -> Array:
    """f'(x) = Φ(x) + x φ(x), for Φ' = φ = exp(-x²/2) / √(2π)."""
    x, below = cache
    dx: Array = dy * (below + x * np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi)))
    return dx


def gelu_tanh(x: Array) -> tuple[Array, Cache]:
    """GELU by its tanh approximation, ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), as in GPT-2. Kept: x and the tanh."""
    bent = np.tanh(math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x))
    return 0.5 * x * (1 + bent), (x, bent)


def gelu_tanh_backward(dy: Array, cache: Cache) -> Array:
    """With t = tanh(u): f'(x) = ½ (1 + t) + ½ x (1 - t²) u', and u' = √(2/π) (1 + 3 · 0.044715 x²)."""
    x, bent = cache
    slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    dx: Array = dy * (0.5 * (1 + bent) + 0.5 * x * (1 - bent * bent) * slope)
    return dx


def silu(x: Array) -> tuple[Array, Cache]:
    """x σ(x) with σ(x) = 1 / (1 + exp(-x)), the non-linearity of SwiGLU's gate. Kept: x and σ(x)."""
    sigmoid = 0.5 * (1 + np.tanh(0.5 * x))  # the same number, and nothing overflows
    return x * sigmoid, (x, sigmoid)


def silu_backward(dy: Array, cache: Cache) -> Array:
    """σ' = σ (1 - σ), so f'(x) = σ + x σ (1 - σ)."""
    x, sigmoid = cache
    dx: Array = dy * (sigmoid + x * sigmoid * (1 - sigmoid))
    return dx


ACTIVATIONS: dict[str, tuple[Callable[[Array], tuple[Array, Cache]], Callable[[Array, Cache], Array]]] = {
    "relu": (relu, relu_backward),
    "gelu": (gelu, gelu_backward),
    "gelu_tanh": (gelu_tanh, gelu_tanh_backward),
    "relu2": (relu2, relu2_backward),
    "swiglu": (silu, silu_backward),
}


def feed_forward(x: Array, w: Weights, name: str, config: ModelConfig) -> tuple[Array, Cache]:
    """down(activation(up(x))), or with a gate down(activation(gate(x)) · up(x)) (Shazeer 2020, equation 5).

    Shapes: x (…, d_model) to the same; inside (…, d_ff). Kept: x, what the activation keeps, what `down` reads, and with
    a gate its two factors.
    """
    activation, _ = ACTIVATIONS[config.activation]
    up, up_cache = linear(x, w, f"{name}.up")  # (…, d_ff)
    if config.activation != "swiglu":
        bent, bent_cache = activation(up)
        y, down_cache = linear(bent, w, f"{name}.down")  # (…, d_model)
        return y, (config.activation, up_cache, bent_cache, down_cache, None)
    gate, gate_cache = linear(x, w, f"{name}.gate")
    bent, bent_cache = activation(gate)
    y, down_cache = linear(bent * up, w, f"{name}.down")
    return y, (config.activation, up_cache, bent_cache, down_cache, (gate_cache, bent, up))


def feed_forward_backward(dy: Array, cache: Cache) -> tuple[Array, Gradients]:
    """dy (…, d_model) to dx (…, d_model) and the gradients of `up`, `down` and, where there is one, `gate`."""
    activation, up_cache, bent_cache, down_cache, gated = cache
    _, activation_backward = ACTIVATIONS[activation]
    dinner, gradients = linear_backward(dy, down_cache)  # (…, d_ff)
    if gated is None:
        dup = activation_backward(dinner, bent_cache)
        dx, up_gradients = linear_backward(dup, up_cache)
        return dx, gradients | up_gradients
    gate_cache, bent, up = gated
    # inner = bent · up: each factor's gradient is the other factor
    dup, dgate = dinner * bent, activation_backward(dinner * up, bent_cache)
    # x goes into both `up` and `gate`, so what comes back from the two is added
    dx_up, up_gradients = linear_backward(dup, up_cache)
    dx_gate, gate_gradients = linear_backward(dgate, gate_cache)
    return dx_up + dx_gate, gradients | up_gradients | gate_gradients


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    x = generator.standard_normal(1000)
    for name in get_args(Activation):
        forward, backward = ACTIVATIONS[name]
        y, cache = forward(x)
        by_hand = backward(np.ones_like(x), cache)
        by_nudging = (forward(x + 1e-6)[0] - forward(x - 1e-6)[0]) / 2e-6
        print(f"{name:10} {x.shape} -> {y.shape}  largest slope {by_hand.max():.3f}, by nudging {by_nudging.max():.3f}")
    grid = np.linspace(-7, 7, 2001)
    print("erf: largest difference from math.erf", max(abs(float(a) - math.erf(v)) for a, v in zip(erf(grid), grid, strict=True)))
