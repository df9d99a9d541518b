"""AdamW and clipping, in place and by weight name. Mirrors `tiny_transformer/training/optimizers.py` and the clipping of
`tiny_transformer/training/utils.py`.

Leaves out: the learning rate over time (`training/scheduler.py`, which both engines share). Read before: `linear.py`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from typing import Any

import numpy as np

from tiny_transformer.numpy_engine.linear import Array, Gradients

BLOCK = 32_768
"""Numbers updated at once: few enough that weight, gradient and both means stay in the processor's cache."""


def adamw_step(
    parameter: Array,
    gradient: Array,
    state: dict[str, Any],
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> None:
    """One step of AdamW on one parameter, in place (Loshchilov & Hutter 2019, algorithm 2).

        θ ← θ - lr · λ · θ                          decay, apart from the gradient
        m ← β1 · m + (1 - β1) · g                   a running mean of the gradient …
        v ← β2 · v + (1 - β2) · g²                  … and of its square, element by element
        θ ← θ - lr · m̂ / (√v̂ + ε)                   m̂ = m / (1 - β1ᵗ),  v̂ = v / (1 - β2ᵗ)

    `state` starts empty and is kept by the caller; it holds `step` (t), `exp_avg` (m) and `exp_avg_sq` (v).

    >>> weights, state = np.array([1.0, 1.0]), {}
    >>> adamw_step(weights, np.array([0.3, -50.0]), state, lr=0.1, weight_decay=0.0)
    >>> weights.round(4).tolist()
    [0.9, 1.1]
    """
    if not state:
        state.update(step=0, exp_avg=np.zeros_like(parameter), exp_avg_sq=np.zeros_like(parameter))
    state["step"] += 1
    correction1, correction2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
    for theta, g, mean, square in _blocks(parameter, gradient, state["exp_avg"], state["exp_avg_sq"]):
        theta *= 1 - lr * weight_decay
        mean *= beta1
        mean += (1 - beta1) * g
        square *= beta2
        square += (1 - beta2) * g * g
        root = np.sqrt(square)
        root *= 1 / math.sqrt(correction2)  # √v̂
        root += eps
        theta -= (lr / correction1) * mean / root


def _blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """The arrays (equal sizes) side by side in pieces of `BLOCK` numbers; a piece of a contiguous array is a view of it."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, BLOCK):
        yield tuple(array[start : start + BLOCK] for array in flat)


class AdamW:
    """`adamw_step` for every weight. Matrices and embeddings decay, vectors (biases, norms) do not, as in the PyTorch engine."""

    def __init__(
        self, weights: Mapping[str, Array], *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01
    ) -> None:
        """Take the model's own arrays: they are changed in place, so each must be contiguous."""
        if loose := [name for name, weight in weights.items() if not weight.flags.c_contiguous]:
            raise ValueError(f"{', '.join(loose)}: a weight must be contiguous, to be changed in place. Use np.ascontiguousarray")
        self.weights, self.betas, self.eps, self.weight_decay = weights, betas, eps, weight_decay
        self.state: dict[str, dict[str, Any]] = {name: {} for name in weights}

    def step(self, gradients: Gradients, lr: float) -> None:
        """Update every weight once by its gradient."""
        for name in self.weights:
            self._update(name, gradients[name], lr)

    def _update(self, name: str, gradient: Array, lr: float) -> None:
        weight, (beta1, beta2) = self.weights[name], self.betas
        decay = self.weight_decay if weight.ndim >= 2 else 0.0
        adamw_step(weight, gradient, self.state[name], lr=lr, beta1=beta1, beta2=beta2, eps=self.eps, weight_decay=decay)

    def state_names(self, name: str) -> set[str]:
        """What is remembered of the weight `name` once it has been updated."""
        return {"step", "exp_avg", "exp_avg_sq"}

    def load_state(self, saved: Mapping[str, Mapping[str, Any]]) -> None:
        """Put back what `state` was. Raises ValueError when it is that of another model, or of another kind of optimizer."""
        unknown, missing = sorted(set(saved) - set(self.weights)), sorted(set(self.weights) - set(saved))
        if unknown or missing:
            remedy = "Resume with the model's own run"
            raise ValueError(f"optimizer state: unknown {unknown}, missing {missing}: it must fit the model. {remedy}")
        for name, values in saved.items():
            if values and set(values) != self.state_names(name):
                holds, needed = ", ".join(sorted(values)), ", ".join(sorted(self.state_names(name)))
                remedy = "Resume with the run's own optimizer"
                raise ValueError(f"optimizer state: {name} has {holds}: this optimizer remembers {needed}. {remedy}")
        self.state = {name: {key: copy(value) for key, value in saved[name].items()} for name in self.weights}


# ---------------------------------------------------------------- clipping


def gradient_norm(gradients: Iterable[Array]) -> float:
    """√(Σ g²) over every element of every gradient, the squares of each array summed in its own type."""
    return math.sqrt(sum(float(np.vdot(gradient, gradient)) for gradient in gradients))


def scale_gradients(gradients: Iterable[Array], norm: float, max_norm: float) -> None:
    """Where `norm`, that of all gradients together, is above `max_norm`: scale them in place so that it becomes max_norm.

    At or below it nothing is touched, not by a bit; 0 switches clipping off; a norm that is not finite scales nothing
    (Pascanu et al. 2013, algorithm 1).
    """
    if 0 < max_norm < norm < math.inf:
        for gradient in gradients:
            gradient *= max_norm / norm


def clip_gradients(gradients: Mapping[str, Array], max_norm: float) -> float:
    """`gradient_norm` and `scale_gradients` in one: clip in place, return the norm before."""
    norm = gradient_norm(gradients.values())
    scale_gradients(gradients.values(), norm, max_norm)
    return norm


if __name__ == "__main__":
    weights = {"layer.weight": np.ones((3, 4)), "layer.bias": np.ones(3)}
    optimizer = AdamW(weights, weight_decay=0.1)
    gradients = {name: np.full_like(weight, 2.0) for name, weight in weights.items()}
    print(f"norm before clipping {clip_gradients(gradients, 1.0):.3f}, after {clip_gradients(gradients, 1.0):.3f}")
    for step in range(3):
        optimizer.step(gradients, lr=0.1)
        weight, bias = weights["layer.weight"][0, 0], weights["layer.bias"][0]
        print(f"after step {step + 1}: a weight {weight:.4f} (decays), a bias {bias:.4f} (does not)")
