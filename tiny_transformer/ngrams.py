"""Which row of a table belongs to the last n tokens: one rule, for both engines. No torch here.

An n-gram table gives the model a vector for every pair (or triple, …) of tokens, as the token embedding does for single ones.
It costs memory and no products: what a small network would spend its first layers on, who stood before whom, is looked up
(Roy et al. 2022, "N-Grammer"; Pagnoni et al. 2024, "Byte Latent Transformer", section 3.2.1, for the hashing).
Left out: the tables themselves (`embeddings.py`). Read before: `config.py`.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

A = TypeVar("A")
"""Whole numbers of one engine: NumPy's array or PyTorch's tensor. The arithmetic is written the same for both."""

PRIME, FACTOR = 2**31 - 1, 48_271
"""Of Park & Miller's generator: multiplying by the factor, modulo the prime, runs through every number before one comes again."""


def ngram_rows(newest_first: Sequence[A], rows: int, vocab_size: int) -> A:
    """The row (0 to rows - 1) of each n-gram. `newest_first` holds n arrays of one shape: the tokens, those one before, two before, …

    With vocab_size^n rows or more every n-gram has a row of its own: the tokens are the digits of its number. With fewer, the row is
    a hash, and some n-grams share theirs.

    >>> now, before = np.array([1, 2, 0]), np.array([0, 1, 2])
    >>> ngram_rows([now, before], rows=9, vocab_size=3).tolist()
    [1, 5, 6]
    """
    order = len(newest_first)
    number: Any = newest_first[-1]
    if rows >= vocab_size**order:
        for tokens in newest_first[-2::-1]:
            number = number * vocab_size + tokens
        exact: A = number
        return exact
    for tokens in newest_first[-2::-1]:
        number = ((number + 1) * FACTOR + tokens) % PRIME  # below 2^31 · 2^16: no overflow in 64 bits
    hashed: A = (number * FACTOR % PRIME) % rows
    return hashed


if __name__ == "__main__":
    text = "the other"
    letters = sorted(set(text))
    ids = np.array([letters.index(letter) for letter in text])
    for rows in (len(letters) ** 2, 16):
        found = ngram_rows([ids[1:], ids[:-1]], rows, len(letters))
        print(f"{rows} rows:", ", ".join(f"{text[i : i + 2]!r} {row}" for i, row in enumerate(found.tolist())))
