"""BPE-dropout: the same text in other tokens each time, so that a model learns what tokens are made of.

While a piece is encoded, each merge that could happen now is left out with some chance; what is still possible is applied in the
usual order (Provilkov et al. 2020, "BPE-Dropout: Simple and Effective Subword Regularization", algorithm 1). For training text only.
Read before: `bpe_encoding.py`.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.bpe_encoding import PieceEncoder
from tiny_transformer.tokenization.special_tokens import split_special

DRAWN_AT_ONCE = 1 << 16


def encode_with_dropout(tokenizer: BPETokenizer, text: str, rate: float, generator: np.random.Generator) -> NDArray[np.int32]:
    """Text to ids (n,) int32; each possible merge is left out with chance `rate` at every step.

    Rate 0 is the tokenizer's own encoding, rate 1 single bytes. Special tokens stay whole, and whatever is drawn, the ids decode to
    the text. Raises ConfigError for a rate outside 0 to 1.

    >>> tokenizer = BPETokenizer.train("the then there", 259)
    >>> [encode_with_dropout(tokenizer, "the", 0.5, np.random.default_rng(seed)).tolist() for seed in (1, 2, 0)]
    [[257], [116, 104, 101], [256, 101]]
    """
    check(0 <= rate <= 1, f"BPE-dropout of {rate}", "it is a chance, from 0 to 1", "Try 0.1")
    if rate == 0:
        return tokenizer.encode_array(text)
    uniform = _uniform(generator)
    ids: list[int] = []
    for part, is_special in split_special(text, tokenizer.special_tokens):
        if is_special:
            ids.append(tokenizer.special_tokens[part])
            continue
        for piece in tokenizer.pieces(part):
            ids += _encode(tokenizer.encoder, piece.encode(), rate, uniform)
    return np.array(ids, dtype=np.int32)


def _encode(encoder: PieceEncoder, piece: bytes, rate: float, uniform: Iterator[float]) -> list[int]:
    """One piece: again and again the first of the merges that were not left out this time."""
    ids = encoder.byte_ids(piece)
    while True:
        possible = [(*merge, i) for i, pair in enumerate(pairwise(ids)) if (merge := encoder.merge(pair)) is not None]
        kept = [merge for merge in possible if next(uniform) >= rate]
        if not kept:
            return ids
        _, joined, i = min(kept)  # the lowest rank; of equal ones the leftmost
        ids[i : i + 2] = [joined]


def _uniform(generator: np.random.Generator) -> Iterator[float]:
    """Numbers in [0, 1), drawn in blocks: one at a time would take most of the time."""
    while True:
        yield from generator.random(DRAWN_AT_ONCE).tolist()


if __name__ == "__main__":
    text = "to be or not to be, that is the question: whether it is nobler"
    tokenizer = BPETokenizer.train(text, 290)
    for rate in (0.0, 0.1, 0.5):
        ids = encode_with_dropout(tokenizer, text, rate, np.random.default_rng(0))
        print(f"rate {rate}: {len(ids):2} tokens", "|".join(tokenizer.decode([i]) for i in ids[:12]))
