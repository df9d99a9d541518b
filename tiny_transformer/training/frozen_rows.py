"""Rows of the token table that stay as they are while everything else learns: word vectors that are trusted, for example.

Works on NumPy arrays and on PyTorch tensors alike, without importing PyTorch. Read before: nothing.
"""

from typing import Any

import numpy as np

TABLE = "embeddings.token.weight"


class FrozenRows:
    """Some rows of one weight, and what they hold.

    Two things keep a row: its gradient is set to zero *before* the gradients' norm is taken, so that clipping and the log speak of what
    learns; and it is written back after every update, because weight decay would shrink it without a gradient.
    With a tied output the same rows are frozen there too: it is one table.

    >>> weight, gradient = np.ones((3, 2)), np.ones((3, 2))
    >>> frozen = FrozenRows(np.array([0, 2]), weight)
    >>> frozen.clear(gradient); weight -= gradient; frozen.restore(weight)
    >>> weight.tolist()
    [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    """

    def __init__(self, rows: Any, weight: Any) -> None:
        """`rows` (k,) as whole numbers, of the same library and on the same device as `weight` (n, width)."""
        self.rows = rows
        self.kept = weight[rows]  # a copy, in both libraries

    def clear(self, gradient: Any) -> None:
        """Zero the rows of a gradient (n, width), in place."""
        gradient[self.rows] = 0

    def restore(self, weight: Any) -> None:
        """Put back what the rows held, in place."""
        weight[self.rows] = self.kept


if __name__ == "__main__":
    weight, gradient = np.arange(6.0).reshape(3, 2), np.ones((3, 2))
    frozen = FrozenRows(np.array([1]), weight)
    frozen.clear(gradient)
    weight -= 0.5 * gradient
    weight *= 0.9  # decay
    frozen.restore(weight)
    print("rows", weight.shape, "after a step:", weight.tolist())
