"""Weights in eight or four bits as they lie in a file, and the numbers that they stand for. NumPy, for both engines.

    eight bits   whole numbers from -127 to 127, one scale for each row or block:      weight = number · scale
    four bits    NF4: the places of sixteen levels, two places a byte, a scale a block:  weight = level[place] · scale

A block is some neighbouring columns of one row, so rows can be taken apart. Its size is not stored: n blocks are as equal as can be,
⌈columns / n⌉ columns each and the last one perhaps shorter. In a file the parts of a weight lie beside each other under its name:
NAME, NAME.scales, and for scales that are rounded themselves NAME.scales.scales and NAME.scales.mean.
Left out: rounding, which only PyTorch does (`quantized.py`, `nf4.py`), and products. Read before: nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check

Array = NDArray[Any]

SCALES, SECOND, MEAN = ".scales", ".scales.scales", ".scales.mean"
"""Behind a weight's name: its scales; with rounded scales, what those stand for, and what was taken away before."""
BITS = (8, 4)
BLOCK = 64
"""Columns that share a scale in four bits, at most: QLoRA's."""
GROUP = 256
"""Scales that share a scale of their own, at most: QLoRA's."""


@cache
def nf4_levels() -> tuple[float, ...]:
    """The sixteen levels of NF4, from -1 to 1 (Dettmers et al. 2023, "QLoRA", section 3 and appendix E).

    Trained weights are about normal, so levels are best spaced like a normal distribution's quantiles: each is then used about equally
    often. Sixteen of them, evenly spaced in probability, would leave 0 out. So both sides are taken apart: 8 levels from 0.5 up
    to the outermost probability and 7 of the other side, 0 once, and all divided by the largest. The outermost is not 1, whose
    quantile is infinite, but the middle between 1 - 1/32 and 1 - 1/30: half a step from the end for 16 levels and for 15.

    >>> [round(level, 4) for level in nf4_levels()[5:10]]
    [-0.1848, -0.0911, 0.0, 0.0796, 0.1609]
    """
    outermost, quantile = (1 - 1 / 32 + 1 - 1 / 30) / 2, NormalDist().inv_cdf
    above = [quantile(0.5 + (outermost - 0.5) * step / 8) for step in range(1, 9)]
    below = [-quantile(0.5 + (outermost - 0.5) * step / 7) for step in range(7, 0, -1)]
    return tuple(level / above[-1] for level in (*below, 0.0, *above))


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How linear layers are rounded, and which. Embeddings, the output layer, norms and biases never are."""

    bits: int = 8
    """8: whole numbers; 4: NF4."""
    block: int | None = None
    """Columns that share a scale, at most; None: 64 in four bits, a whole row in eight."""
    double: bool = False
    """Round the scales too: to eight bits, in groups of 256."""
    keep: tuple[str, ...] = ()
    """Leave these weights as they are: patterns for public names, such as "*.down.weight" or "blocks.0.*"."""

    def __post_init__(self) -> None:
        check(self.bits in BITS, f"bits={self.bits}", "it must be 8 or 4", "Try bits=4")
        check(self.block is None or self.block >= 1, f"block={self.block}", "it must be at least 1", f"Try block={BLOCK}, or leave it out")
        check(not self.double or self.bits == 4, f"double with bits={self.bits}", "only the scales of 4 bits are rounded", "Leave it out")

    def chosen(self, names: list[str]) -> list[str]:
        """Those of the linear weights' names that are rounded. Raises ConfigError for a pattern that matches none, or all kept."""
        for pattern in self.keep:
            matches = any(fnmatchcase(name, pattern) for name in names)
            check(matches, f"keep={pattern!r}", f"it must match a linear layer's weight, such as {names[0]}", "Try '*.down.weight'")
        chosen = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in self.keep)]
        check(bool(chosen), f"keep={', '.join(self.keep)}", "something must be left to round", "Keep fewer layers")
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**asdict(self), "keep": list(self.keep)}

    def __str__(self) -> str:
        kind = "8 bits" if self.bits == 8 else "4 bits (NF4)"
        size = BLOCK if self.block is None and self.bits == 4 else self.block
        return f"{kind}, a scale for {'each row' if size is None else f'every {size} columns'}{', scales in 8 bits' if self.double else ''}"


@dataclass(frozen=True)
class Stored:
    """A weight in few bits."""

    shape: tuple[int, ...]
    """Of the weight itself: (out, in)."""
    values: Array
    """int8 (out, in); or uint8 (out, ⌈in / 2⌉), the first place of each pair in the lower four bits."""
    scales: Array
    """float32 (out, blocks); or int8, with the next two."""
    second: Array | None = None
    """float32 (groups,): what a whole number of `scales` stands for, groups counted from the first row on."""
    mean: Array | None = None
    """float32 (1,): added to all scales."""

    @property
    def bits(self) -> int:
        """8 or 4."""
        return 8 if self.values.dtype == np.int8 else 4

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return sum(part.nbytes for part in self.tensors("").values())

    @property
    def kind(self) -> str:
        """In a word, for lists."""
        return "int8" if self.bits == 8 else "nf4" if self.second is None else "nf4, double"

    def tensors(self, name: str) -> dict[str, Array]:
        """Its parts under their names in a file."""
        parts = {name: self.values, name + SCALES: self.scales, name + SECOND: self.second, name + MEAN: self.mean}
        return {key: part for key, part in parts.items() if part is not None}

    def expand(self) -> Array:
        """The numbers it stands for: (out, in) float32."""
        scales = self.scales.astype(np.float32)  # (out, blocks)
        if self.second is not None and self.mean is not None:
            scales = (scales.ravel() * _spread(self.second, scales.size) + self.mean).reshape(scales.shape)
        numbers = self.values.astype(np.float32) if self.bits == 8 else unpacked(self.values, self.shape[-1])
        numbers *= _spread(scales, self.shape[-1])
        return numbers

    def check(self, name: str) -> None:
        """Raise ValueError where parts do not belong together."""
        *rows, columns = self.shape
        width = columns if self.bits == 8 else -(-columns // 2)
        right = self.values.shape == (*rows, width) and self.values.dtype in (np.int8, np.uint8)
        blocks = self.scales.shape[-1] if self.scales.ndim == len(self.shape) else 0
        right &= self.scales.shape[:-1] == tuple(rows) and 1 <= blocks <= columns
        doubled = self.second is not None
        right &= self.scales.dtype == (np.int8 if doubled else np.float32) and (self.mean is not None) == doubled
        if self.second is not None and self.mean is not None:
            right &= self.second.ndim == 1 and 1 <= self.second.size <= self.scales.size and self.mean.shape == (1,)
        if not right:
            raise ValueError(f"{name} and its scales do not belong together")


def unpacked(pairs: Array, columns: int) -> Array:
    """The levels of places that lie two to a byte: (…, ⌈columns / 2⌉) uint8 to (…, columns) float32."""
    levels = np.array(nf4_levels(), np.float32)
    places = np.stack((pairs & 15, pairs >> 4), -1).reshape(*pairs.shape[:-1], 2 * pairs.shape[-1])  # (…, 2 · bytes)
    return levels[places[..., :columns]]


def _spread(scales: Array, columns: int) -> Array:
    """Each scale for every column of its block: (…, blocks) to (…, columns)."""
    block = -(-columns // scales.shape[-1])
    return np.repeat(scales, block, axis=-1)[..., :columns]


def collect(tensors: dict[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Stored]:
    """Take the weights in few bits out of a file's tensors. `shapes` are those of all weights.

    Raises ValueError where parts are missing or do not fit.
    """
    found: dict[str, Stored] = {}
    for name in [name.removesuffix(SCALES) for name in tensors if name.endswith(SCALES) and not name.endswith(SECOND)]:
        if name not in tensors or name not in shapes:
            raise ValueError(f"{name}{SCALES} belongs to no weight of the model")
        values, scales = tensors.pop(name), tensors.pop(name + SCALES)
        found[name] = Stored(shapes[name], values, scales, tensors.pop(name + SECOND, None), tensors.pop(name + MEAN, None))
        found[name].check(name)
    return found


if __name__ == "__main__":
    print("levels", " ".join(f"{level:+.4f}" for level in nf4_levels()))
    eight = Stored((2, 3), np.array([[127, 0, -64], [1, 2, 3]], np.int8), np.array([[0.01], [1.0]], np.float32))
    print("eight bits", eight.expand().tolist())
    four = Stored((1, 3), np.array([[0xF0, 0x07]], np.uint8), np.array([[2.0, 4.0]], np.float32))
    print("four bits ", four.expand().tolist(), f"{four.values.nbytes} bytes and {four.scales.nbytes} of scales")
    print(Rounding(bits=4, double=True))
