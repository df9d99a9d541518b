"""The loss on a text in two manners, each with its standard error.

A loss is a mean over a sample, and another sample would give another one: without its error nobody can tell a better model from
a luckier one. `loss_in_windows` reads every token once and is what we report; `loss_in_random_windows` is nanoGPT's manner, to
stand beside its figures. Left out: perplexity and bits per byte, which are other units of the same.
Read before: `training/dataset.py`, `training/objectives.py`.
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from tiny_transformer.config import ModelConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.training.dataset import IGNORE, Batch, Ids, IdStore, as_ids, batch_at, windows
from tiny_transformer.training.utils import evaluating

TOKENS_AT_ONCE, LOGITS_AT_ONCE = 8192, 2**25


class Measured(NamedTuple):
    """A mean loss in nats per token and how far it may be off."""

    loss: float
    error: float
    """Standard error of the mean: two of them on either side hold the truth about 19 times in 20."""
    tokens: int
    """How many targets were asked for."""

    def __str__(self) -> str:
        return f"{self.loss:.4f} ± {self.error:.4f}"


def loss_in_windows(model: TinyTransformerLM, ids: Ids | IdStore, stride: int | None = None) -> Measured:
    """The mean loss over the whole text, in windows of max_seq_len that do not overlap, or begin `stride` tokens apart.

    The error is that of a mean over windows, weighed by their targets: the tokens of one window share its scene and speaker, so they
    are no independent sample. Neighbouring windows are not quite independent either, and the true error is somewhat larger.
    """
    return mean_of_clusters(*sums_in_windows(model, ids, stride))


def sums_in_windows(
    model: TinyTransformerLM, ids: Ids | IdStore, stride: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The sum of losses (windows,) and the number of targets (windows,) of each window.

    Two models' sums over the same windows, one less the other, give how much the one is better: with a far smaller error
    than the difference of two means, for what makes a window hard is hard for both.
    """
    sums, counts = [], []
    rows = max(1, min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // model.config.vocab_size) // model.config.max_seq_len)
    for losses, asked in _losses(model, windows(ids, model.config.max_seq_len, rows, stride)):
        sums.append(losses)
        counts.append(asked)
    return np.concatenate(sums), np.concatenate(counts)


def loss_in_random_windows(
    model: TinyTransformerLM, ids: Ids | IdStore, *, batches: int = 200, batch_size: int = 64, seed: int = 1337
) -> Measured:
    """The mean loss over `batches` batches of windows that begin anywhere, as nanoGPT's train.py estimates it (eval_iters = 200).

    The error is that of a mean over batches: how far another draw of windows would lie from this one. It says nothing about another
    text, and on a small text it is far smaller than the error of `loss_in_windows`.
    """
    seq = model.config.max_seq_len
    draws = (batch_at(as_ids(ids), batch_size, seq, seed, number) for number in range(batches))
    losses = np.array([summed.sum() / asked.sum() for summed, asked in _losses(model, draws)])
    return Measured(float(losses.mean()), float(losses.std(ddof=1)) / math.sqrt(batches), batches * batch_size * seq)


def mean_of_clusters(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> Measured:
    """The mean of all tokens, from the sum of losses (clusters,) and the number of tokens (clusters,) of each cluster.

    Its standard error by the ratio estimator (Cochran 1977, "Sampling Techniques", section 6.4), infinite for a single cluster.

    >>> mean_of_clusters(np.array([2.0, 4.0]), np.array([1, 1]))
    Measured(loss=3.0, error=1.0, tokens=2)
    """
    n, total = len(sums), int(counts.sum())
    mean = math.fsum(sums.tolist()) / total
    if n < 2:
        return Measured(mean, math.inf, total)
    residuals = sums - mean * counts
    variance = n / (n - 1) * float(np.square(residuals).sum()) / total**2
    return Measured(mean, math.sqrt(variance), total)


def _losses(model: TinyTransformerLM, batches: Iterable[Batch]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """For each batch the sum of losses and the number of targets of every row: (batch,) each."""
    with evaluating(model), torch.inference_mode():
        for inputs, targets in batches:
            goal = torch.from_numpy(np.ascontiguousarray(targets)).to(model.device)
            logits = model(torch.from_numpy(np.ascontiguousarray(inputs)).to(model.device)).float()  # (batch, seq, vocab)
            losses = F.cross_entropy(logits.flatten(0, 1), goal.flatten(), ignore_index=IGNORE, reduction="none").view(goal.shape)
            yield losses.double().sum(1).cpu().numpy(), (goal != IGNORE).sum(1).cpu().numpy()


if __name__ == "__main__":
    ids = np.frombuffer(b"the rain in spain stays mainly in the plain. " * 60, dtype=np.uint8) % 64
    model = TinyTransformerLM(ModelConfig(vocab_size=64, max_seq_len=32, d_model=32, n_layers=1, n_heads=2), seed=0)
    print("ln 64 =", round(math.log(64), 4), "· an untrained model, whole text:", loss_in_windows(model, ids))
    print("random windows:", loss_in_random_windows(model, ids, batches=20, batch_size=8))
