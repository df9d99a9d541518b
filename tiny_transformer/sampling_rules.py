"""What choosing a token means in both engines, apart from the arithmetic: limits, checks, and the random numbers.

One place for each, so that PyTorch's generator and NumPy's choose the same token from the same logits.
Left out: the strategies (`sampling/strategies.py`, `numpy_engine/strategies.py`). Read before: `SampleConfig` in `config.py`.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import SampleConfig

SMALLEST_TEMPERATURE = 1e-20
"""Below this, logits / temperature may leave float32; the result would be greedy anyway."""
ROUNDING = 1e-6
"""Top-p: a sum this close to p (relatively) has reached it, so that 0.5 + 0.3 reaches 0.8 in any arithmetic."""
HIGHEST = 1 - 2**-52
"""The largest u that `choose` uses: times a sum it is below that sum, however the product is rounded."""
FIRST_LOOK = 256
"""Top-p on a large vocabulary sorts this many candidates first, and all of them only if those do not reach p."""
BLOCK = 64
"""Random numbers drawn at once per row."""


@lru_cache(maxsize=1024, typed=True)
def check_setting(name: str, value: Any) -> None:
    """Raise SampleConfig's own ConfigError for a bad value, also when a filter is called directly."""
    SampleConfig(**{name: value})


def check_finite(best: float) -> None:
    """Raise ValueError where the best of the logits, or the sum of the probabilities, is no number: a broken model's NaN."""
    if not math.isfinite(best):
        raise ValueError("no next token can be chosen: the logits hold NaN, or nothing but -inf. The model's weights are damaged")


def check_previous(ids: tuple[int, ...], logits: tuple[int, ...], lowest: int, highest: int) -> None:
    """Raise ValueError unless previous ids of this shape and range belong to logits of that shape, (…, vocab)."""
    if ids[:-1] != logits[:-1]:
        raise ValueError(f"previous ids have shape {ids}: they must be one row for each row of logits {logits}")
    if highest >= logits[-1] or lowest < -1:
        raise ValueError(f"previous ids run from {lowest} to {highest}: they must lie in 0 to {logits[-1] - 1}, -1 for padding")


def as_rows(ids: Sequence[Any]) -> NDArray[np.int64]:
    """Lists of different lengths to (…, n), filled up with -1; a flat list stays flat.

    >>> as_rows([[3, 1], [4]]).tolist()
    [[3, 1], [4, -1]]
    """
    ids = list(ids)
    if not any(np.ndim(row) for row in ids):
        return np.array(ids, dtype=np.int64)
    width = max(len(row) for row in ids)
    return np.array([[*row, *[-1] * (width - len(row))] for row in ids], dtype=np.int64)


def uniform(config: SampleConfig, rows: int) -> Iterator[NDArray[np.float64]]:
    """One number in [0, 1) per row and step: blocks of (BLOCK, rows); each row has a generator of its own, seeded seed + row."""
    generators = [np.random.default_rng(None if config.seed is None else config.seed + row) for row in range(rows)]
    while True:
        yield np.stack([generator.random(BLOCK) for generator in generators], axis=1)


if __name__ == "__main__":
    print("two texts of 3 and 1 tokens, as rows:", as_rows([[5, 2, 7], [4]]).tolist())
    print("the first numbers of two rows:", next(uniform(SampleConfig(seed=1), 2))[:3].round(3).tolist())
    print("row 1 of seed 1 is row 0 of seed 2:", next(uniform(SampleConfig(seed=2), 1))[:3].round(3).tolist())
