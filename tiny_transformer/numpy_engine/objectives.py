"""How wrong an answer is, forward and backward. Mirrors `cross_entropy` of `tiny_transformer/training/objectives.py`.

Read before: `linear.py` (the convention). Letters: n rows (targets), v the vocabulary.
"""

from typing import Literal

import numpy as np

from tiny_transformer.numpy_engine.linear import Array, Cache
from tiny_transformer.training.dataset import IGNORE


def cross_entropy(logits: Array, targets: Array, reduction: Literal["mean", "sum"] = "mean") -> tuple[float, Cache]:
    """-log softmax(logits)[target], in nats, over the asked-for targets: their mean (0 when there are none) or their sum.

    Shapes: logits (…, vocab), targets (…) int with IGNORE where nothing is asked. Kept: the logits, log Σ exp(logits) per
    row, the targets. Raises ValueError for shapes that do not belong together.
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits have shape {logits.shape} and targets {targets.shape}: targets must have the logits' shape "
            f"without the vocabulary, {logits.shape[:-1]}"
        )
    rows, flat = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)  # (n, vocab), (n,)
    asked = flat != IGNORE
    highest = rows.max(-1, keepdims=True)
    log_sum = highest + np.log(np.exp(rows - highest).sum(-1, keepdims=True))  # (n, 1)
    picked = rows[np.arange(len(rows)), np.where(asked, flat, 0)] - log_sum[:, 0]  # (n,), log-probabilities
    divisor = max(int(asked.sum()), 1) if reduction == "mean" else 1
    return -float(picked[asked].sum()) / divisor, (logits, log_sum, targets, divisor)


def cross_entropy_backward(cache: Cache) -> Array:
    """The gradient of the loss with respect to the logits: (…, vocab)."""
    logits, log_sum, targets, divisor = cache
    rows, flat = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    # L = 1/m Σ_n (log Σ_v exp(z_nv) - z_n,target), over the m asked-for rows
    # ∂L/∂z_nv = 1/m (exp(z_nv) / Σ exp(z_n) - [v = target]): what the model says, minus what is true
    dlogits: Array = np.exp(rows - log_sum)
    asked = np.flatnonzero(flat != IGNORE)
    dlogits[asked, flat[asked]] -= 1
    dlogits[flat == IGNORE] = 0
    dlogits *= 1 / divisor
    return dlogits.reshape(logits.shape)


def soft_cross_entropy(
    logits: Array, targets: Array, probabilities: Array, share: float, reduction: Literal["mean", "sum"] = "mean"
) -> tuple[float, Cache]:
    """The cross-entropy of targets that are (1 - share) · the token that came + share · the probabilities.

    Shapes: logits and probabilities (…, vocab), targets (…). The mean is over the targets that are asked for, as in `cross_entropy`.
    Kept: what `cross_entropy` keeps, the probabilities, the share.
    """
    hard, cache = cross_entropy(logits, targets, reduction)
    asked = (targets != IGNORE)[..., None]
    probabilities = probabilities.astype(logits.dtype) * asked  # nothing is expected where nothing is asked
    _, log_sum, _, divisor = cache
    counted = -float((probabilities * (logits - log_sum.reshape(*targets.shape, 1))).sum()) / divisor
    return (1 - share) * hard + share * counted, (cache, probabilities, share)


def soft_cross_entropy_backward(cache: Cache) -> Array:
    """The gradient of the loss with respect to the logits: (…, vocab)."""
    hard_cache, probabilities, share = cache
    logits, log_sum, targets, divisor = hard_cache
    # L = -1/m Σ_v q_v (z_v - log Σ exp(z));  ∂L/∂z_v = 1/m (p_v · Σ q - q_v)
    counted = np.exp(logits - log_sum.reshape(*targets.shape, 1)) * probabilities.sum(-1, keepdims=True) - probabilities
    dlogits: Array = (1 - share) * cross_entropy_backward(hard_cache) + share / divisor * counted
    return dlogits


if __name__ == "__main__":
    logits, targets = np.zeros((1, 4, 10)), np.array([[1, 4, 1, IGNORE]])
    loss, cache = cross_entropy(logits, targets)
    dlogits = cross_entropy_backward(cache)
    print("logits", logits.shape, f"loss of knowing nothing {loss:.6f}, ln 10 {np.log(10):.6f}")
    print("gradient", dlogits.shape, "of the first row", dlogits[0, 0].round(3).tolist())
    print("each row sums to", (dlogits.sum(-1).round(12) + 0.0).tolist(), "; where nothing is asked", dlogits[0, 3].tolist())
