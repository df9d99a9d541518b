"""Muon in NumPy, in place and by weight name. Mirrors `tiny_transformer/training/muon.py`, where the method is explained.

Leaves out: AdamW and clipping. Read before: `optimizers.py`.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tiny_transformer.numpy_engine.linear import Array
from tiny_transformer.numpy_engine.optimizers import AdamW

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of φ(s) = a s + b s³ + c s⁵, what one Newton–Schulz step does to each singular value (Jordan et al. 2024)."""
SMALLEST_NORM = 1e-15
"""A gradient is divided by its norm or by this, so that one of zeros stays zeros."""


def newton_schulz(matrix: Array, steps: int = 5) -> Array:
    """About the nearest orthogonal matrix: `matrix` (rows, columns) = U S Vᵀ becomes nearly U Vᵀ.

        X ← M / ‖M‖                                 Frobenius norm: now every singular value is at most 1
        X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X          `steps` times: every singular value s becomes a s + b s³ + c s⁵

    >>> newton_schulz(np.array([[0.0, 5.0], [-5.0, 0.0]])).round(2).tolist()
    [[0.0, 1.11], [-1.11, 0.0]]
    """
    if matrix.ndim != 2:
        raise ValueError(f"shape {matrix.shape}: newton_schulz needs (rows, columns). Leave other weights to AdamW")
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix  # (r, c), r ≤ c
    x = x / max(float(np.linalg.norm(x)), SMALLEST_NORM)
    for _ in range(steps):
        gram = x @ x.T  # (r, r)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x


def step_scale(rows: int, columns: int) -> float:
    """√max(1, rows / columns): how large the orthogonal step of a (rows, columns) matrix shall be (Jordan et al. 2024)."""
    return math.sqrt(max(1.0, rows / columns))


def muon_step(
    parameter: Array,
    gradient: Array,
    state: dict[str, Any],
    *,
    lr: float,
    momentum: float = 0.95,
    weight_decay: float = 0.0,
) -> None:
    """One step of Muon on one matrix (rows, columns), in place (Jordan et al. 2024, algorithm 2, with Nesterov's momentum).

        m ← μ · m + (1 - μ) · g                     a running mean of the gradient
        d = μ · m + (1 - μ) · g                     Nesterov: where the mean will be, should the gradient stay as it is
        θ ← θ - lr · λ · θ                          decay, apart from the gradient, as in AdamW
        θ ← θ - lr · √max(1, rows / columns) · newton_schulz(d)

    `state` starts empty and is kept by the caller; it holds `momentum_buffer` (m).

    >>> weights, state = np.zeros((2, 2)), {}
    >>> muon_step(weights, np.array([[0.0, 7.0], [-7.0, 0.0]]), state, lr=0.1)
    >>> weights.round(3).tolist()
    [[0.0, -0.111], [0.111, 0.0]]
    """
    if not state:
        state["momentum_buffer"] = np.zeros_like(parameter)
    mean = state["momentum_buffer"]
    mean *= momentum
    mean += (1 - momentum) * gradient
    direction = momentum * mean + (1 - momentum) * gradient
    parameter *= 1 - lr * weight_decay
    parameter -= lr * step_scale(*parameter.shape) * newton_schulz(direction)


def is_hidden_matrix(name: str, weight: Array) -> bool:
    """Whether Muon updates it: the matrices inside the blocks, so neither embeddings and output layer, nor norms and biases.

    >>> is_hidden_matrix("blocks.0.feedforward.up.weight", np.ones((4, 2))), is_hidden_matrix("unembed.weight", np.ones((4, 2)))
    (True, False)
    """
    return name.split(".")[0] == "blocks" and weight.ndim == 2


class Muon(AdamW):
    """`muon_step` for the matrices inside the blocks, AdamW for every other weight."""

    def __init__(
        self,
        weights: Mapping[str, Array],
        *,
        momentum: float = 0.95,
        lr_ratio: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        """As AdamW's; Muon's learning rate is `lr_ratio` times the one that `step` is given."""
        super().__init__(weights, betas=betas, eps=eps, weight_decay=weight_decay)
        self.momentum, self.lr_ratio = momentum, lr_ratio

    def state_names(self, name: str) -> set[str]:
        """As AdamW's."""
        return {"momentum_buffer"} if is_hidden_matrix(name, self.weights[name]) else super().state_names(name)

    def _update(self, name: str, gradient: Array, lr: float) -> None:
        weight = self.weights[name]
        if is_hidden_matrix(name, weight):
            lr, decay = lr * self.lr_ratio, self.weight_decay
            muon_step(weight, gradient, self.state[name], lr=lr, momentum=self.momentum, weight_decay=decay)
        else:
            super()._update(name, gradient, lr)


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    weights = {"blocks.0.feedforward.up.weight": generator.standard_normal((8, 2)), "blocks.0.feedforward.up.bias": np.zeros(8)}
    optimizer = Muon(weights, lr_ratio=20.0)
    gradients = {name: generator.standard_normal(weight.shape) for name, weight in weights.items()}
    before = weights["blocks.0.feedforward.up.weight"].copy()
    optimizer.step(gradients, lr=1e-3)
    change = weights["blocks.0.feedforward.up.weight"] - before
    print("singular values of the gradient  ", np.linalg.svd(gradients["blocks.0.feedforward.up.weight"], compute_uv=False).round(3))
    print("singular values of the step      ", np.linalg.svd(change, compute_uv=False).round(4), "(about 0.02 × √(8 / 2))")
