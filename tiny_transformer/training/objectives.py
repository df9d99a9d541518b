"""What is asked of a model: which targets belong to which inputs, and how wrong an answer is.

Every supervised objective is one cross-entropy over targets in which IGNORE means "not asked". Torch is imported only
inside `cross_entropy`. Read before: `dataset.py`.
"""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check_choice
from tiny_transformer.training.dataset import IGNORE, Batch
from tiny_transformer.utils.reference import is_reference

if TYPE_CHECKING:
    from torch import Tensor


def causal(ids: NDArray[np.integer[Any]]) -> Batch:
    """Predict the next token: ids (batch, seq + 1) to inputs and targets (batch, seq), the targets one step ahead."""
    if ids.ndim != 2 or ids.shape[1] < 2:
        raise ValueError(f"ids have shape {ids.shape}: they must be (batch, seq + 1) with at least two tokens a row")
    wide = ids.astype(np.int64)
    return Batch(wide[:, :-1], wide[:, 1:])


def count_targets(targets: NDArray[np.integer[Any]]) -> int:
    """How many targets are asked for."""
    return int((targets != IGNORE).sum())


def cross_entropy(logits: "Tensor", targets: "Tensor", reduction: Literal["mean", "sum"] = "mean") -> "Tensor":
    """-log softmax(logits)[target], in nats, over the asked-for targets: their mean (0 when there are none) or their sum.

    Shapes: logits (…, vocab), targets (…) of any whole-number type with IGNORE where nothing is asked; an array is taken too.
    Computed in float32 or wider.
    Over several micro-batches take sums and divide once by `count_targets` of them all: a mean of means weighs the
    targets of short rows more. Raises ValueError for shapes that do not belong together, and on the CPU for targets outside
    the vocabulary (a GPU's own error comes later: looking would make every step wait).
    """
    import torch
    import torch.nn.functional as F

    check_choice("reduction", reduction, ("mean", "sum"))
    targets = torch.as_tensor(targets, device=logits.device).long()
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and targets {tuple(targets.shape)}: targets must have the logits' shape "
            f"without the vocabulary, {tuple(logits.shape[:-1])}"
        )
    all_asked = targets.device.type == "cpu" and _all_asked(targets, logits.shape[-1])
    logits, targets = _wide(logits).reshape(-1, logits.shape[-1]), targets.reshape(-1)  # (n, vocab), (n,)
    if is_reference():
        asked = targets != IGNORE
        log_probabilities = logits - logits.logsumexp(-1, keepdim=True)  # (n, vocab)
        picked = log_probabilities.gather(1, targets.where(asked, 0)[:, None])[:, 0]  # (n,)
        total = -picked.where(asked, 0.0).sum()
    else:
        total = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    if reduction == "sum":
        return total
    return total / (targets.numel() if all_asked else (targets != IGNORE).sum().clamp(min=1))


class Expected(NamedTuple):
    """What else is right: a distribution over the vocabulary for each target, and the share it has in it."""

    probabilities: NDArray[np.float16]
    """(…, vocab)"""
    share: float
    """0: the token that came is all that counts; 1: the distribution is."""


def soft_cross_entropy(
    logits: "Tensor", targets: "Tensor", probabilities: "Tensor", share: float, reduction: Literal["mean", "sum"] = "mean"
) -> "Tensor":
    """The cross-entropy of targets that are not one token each but (1 - share) · the token + share · the probabilities.

    Shapes: logits and probabilities (…, vocab), targets (…). The mean is over the targets that are asked for, as in `cross_entropy`,
    which this is with share 0. Raises what `cross_entropy` raises.
    """
    import torch

    check_choice("reduction", reduction, ("mean", "sum"))
    asked = torch.as_tensor(targets, device=logits.device) != IGNORE
    log_probabilities = _wide(logits).log_softmax(-1)
    weights = torch.as_tensor(probabilities, device=logits.device).to(log_probabilities.dtype) * asked[..., None]
    counted = -(weights * log_probabilities).sum()
    total = (1 - share) * cross_entropy(log_probabilities, targets, "sum") + share * counted
    return total if reduction == "sum" else total / asked.sum().clamp(min=1)


def _wide(logits: "Tensor") -> "Tensor":
    return logits.float() if logits.element_size() < 4 else logits


def _all_asked(targets: "Tensor", vocab: int) -> bool:
    """Whether no target is IGNORE (False where there are none). Raises ValueError for targets outside the vocabulary."""
    if not targets.numel():
        return False
    lowest, highest = targets.aminmax()
    if lowest.item() >= 0 and highest.item() < vocab:
        return True
    wrong = targets[(targets >= vocab) | ((targets < 0) & (targets != IGNORE))]
    if wrong.numel():
        raise ValueError(
            f"a target is {wrong[0].item()}: targets must lie in 0 to {vocab - 1}, or be {IGNORE} where nothing is asked. "
            "Was another tokenizer used?"
        )
    return False


if __name__ == "__main__":
    import math

    import torch

    batch = causal(np.array([[3, 1, 4, 1, 5]]))
    print("inputs", batch.inputs.tolist(), "targets", batch.targets.tolist())
    logits = torch.zeros(1, 4, 10)
    print("logits", tuple(logits.shape), "loss of knowing nothing:", cross_entropy(logits, torch.from_numpy(batch.targets)).item())
    print("ln 10 =", math.log(10))
