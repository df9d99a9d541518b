"""What counting alone says about a text: how uncertain a character is, and how much of one text stands in another.

These are the landmarks beside a model's loss. A model that only knows how often each character occurs has a loss of
`symbol_entropy`; one that also sees the character before, `conditional_entropy`. On Tiny Shakespeare they are 3.31 and
2.45 nats per character, below the ln 65 = 4.17 of a blind guess (Shannon 1951, "Prediction and Entropy of Printed English").
Leaves out models. Read before: nothing.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tiny_transformer.config import check


def symbol_entropy(ids: ArrayLike) -> float:
    """H(X) = -sum p(x) ln p(x) of whole numbers (n,), in nats.

    >>> round(symbol_entropy([7, 9, 7, 9]), 4)      # a fair coin: ln 2
    0.6931
    """
    return _entropy_of_counts(np.unique(_symbols(ids, 1), return_counts=True)[1])


def conditional_entropy(ids: ArrayLike) -> float:
    """H(X' | X) = H(X, X') - H(X) over neighbours of whole numbers (n,), in nats: what is left when the one before is known.

    >>> conditional_entropy([7, 9, 7, 9, 7])        # each follows from the one before
    0.0
    """
    _, codes = np.unique(_symbols(ids, 2), return_inverse=True)
    pairs = codes[:-1] * (codes.max() + 1) + codes[1:]
    joint = _entropy_of_counts(np.unique(pairs, return_counts=True)[1])
    return max(0.0, joint - symbol_entropy(codes[:-1]))  # rounding must not give -1e-16


def _symbols(ids: ArrayLike, least: int) -> np.ndarray:
    array = np.asarray(ids)
    check(
        array.ndim == 1 and len(array) >= least, f"ids of shape {array.shape}", f"they must be a row of at least {least}", "Give more text"
    )
    check(np.issubdtype(array.dtype, np.integer), f"ids of type {array.dtype}", "they must be whole numbers", "Encode the text first")
    return array


def _entropy_of_counts(counts: np.ndarray) -> float:
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0  # -0.0 becomes 0.0


@dataclass(frozen=True)
class Overlap:
    """How much of a validation text also stands in the training text. `str()` of it is one line for people."""

    share: float
    """Share of the validation windows that occur in the training text, word for word: 0 to 1."""
    n: int
    """Characters in a window."""
    windows: int
    """How many windows were looked up."""
    example: str | None
    """The first one that was found."""

    def __str__(self) -> str:
        if self.example is None:
            return f"no {self.n} characters of the validation text stand in the training text"
        return (
            f"{self.share:.1%} of the validation text also stands in the training text, word for word ({self.n} characters and more): "
            f"its loss measures memory there. For example {self.example!r}"
        )


def overlap(train_text: str, val_text: str, n: int = 64) -> Overlap:
    """Cut `val_text` into windows of `n` characters and look each one up at every place of `train_text`; exact.

    A copied passage of 2 n - 1 characters or more always holds a whole window, so it is found wherever it begins.
    Time grows with the training text (about 0.2 s for a million characters), memory with the validation text.

    >>> overlap("to be or not to be", "or not he is", n=6).share
    0.5

    Raises ConfigError when `n` is not positive.
    """
    check(n >= 1, f"n={n}", "a window must hold at least one character", "Try n=64")
    windows = [val_text[start : start + n] for start in range(0, len(val_text) - n + 1, n)]
    wanted = set(windows)
    found = {window for start in range(len(train_text) - n + 1) if (window := train_text[start : start + n]) in wanted}
    copied = [window for window in windows if window in found]
    return Overlap(len(copied) / max(1, len(windows)), n, len(windows), copied[0] if copied else None)


if __name__ == "__main__":
    from tiny_transformer.corpora.pitches import entropy, text

    sample = text(200_000)
    codes = np.frombuffer(sample.encode("utf-32-le"), dtype="<u4")
    print("codes", codes.shape, "of the pitches, in nats per character:")
    print(f"  blind guess  {math.log(len(np.unique(codes))):.3f}")
    print(f"  a character  {symbol_entropy(codes):.3f}")
    print(f"  given the one before  {conditional_entropy(codes):.3f}")
    print(f"  the source itself  {entropy():.3f}")
    print(overlap(sample[:180_000], sample[180_000:], n=32))
