"""The numbers in a GGUF file: float32, float16, bfloat16, and eight bits in blocks of 32.

    Q8_0    each 32 neighbours of a row: a float16 scale d = largest / 127, then 32 whole numbers q in one byte each; x ≈ d q

The scale that is stored is rounded to float16, the whole numbers come from the one that is not, as in ggml's own program (so files are
the same to the bit). Left out: types of fewer bits. Read before: `utils/short_floats.py`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check
from tiny_transformer.utils.short_floats import from_bfloat16, to_bfloat16, to_float16

Array = NDArray[Any]
BLOCK = 32
LARGEST_SCALE = 65_504.0


@dataclass(frozen=True)
class Kind:
    """A type of numbers."""

    number: int
    """In the file."""
    block: int
    """How many numbers stand together."""
    size: int
    """Bytes of a block."""


KINDS: dict[str, Kind] = {"F32": Kind(0, 1, 4), "F16": Kind(1, 1, 2), "BF16": Kind(30, 1, 2), "Q8_0": Kind(8, BLOCK, 2 + BLOCK)}
"""Those that are written and read here."""
NAMES = {kind.number: name for name, kind in KINDS.items()}


def stored_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """How many bytes a tensor takes."""
    return math.prod(shape) // KINDS[kind].block * KINDS[kind].size


def pack(numbers: Array, kind: str, name: str = "a weight") -> Array:
    """float32 numbers as the bytes of a file, (n,) uint8. Raises ConfigError, with `name`, for numbers that the type can't hold."""
    numbers = np.ascontiguousarray(numbers, np.float32)
    if kind == "F32":
        return numbers.reshape(-1).view(np.uint8)
    if kind == "Q8_0":
        largest = float(np.abs(numbers).max(initial=0))
        fits = largest / 127 <= LARGEST_SCALE  # neither infinite nor NaN
        check(fits, f"{name} holds {largest:g}", f"eight bits hold numbers up to {127 * LARGEST_SCALE:g}", "Choose bfloat16 or float32")
        return pack_q8_0(numbers)
    half = to_bfloat16(numbers) if kind == "BF16" else to_float16(numbers, name)
    return half.reshape(-1).view(np.uint8)


def unpack(stored: Array, kind: str, shape: tuple[int, ...]) -> Array:
    """The inverse: bytes of a file to new float32 numbers of a shape."""
    if kind == "Q8_0":
        return unpack_q8_0(stored).reshape(shape)
    if kind == "BF16":
        return from_bfloat16(stored.view("<u2")).reshape(shape)
    return stored.view("<f4" if kind == "F32" else "<f2").astype(np.float32).reshape(shape)


def pack_q8_0(numbers: Array) -> Array:
    """Blocks of 32 in eight bits: (…, multiple of 32) to (n,) uint8.

    >>> pack_q8_0(np.arange(32, dtype=np.float32) * 127 / 31)[[2, 33]].tolist()
    [0, 127]
    """
    blocks = np.ascontiguousarray(numbers, np.float32).reshape(-1, BLOCK)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales >= np.finfo(np.float32).tiny)
    scaled = blocks * inverse
    size = np.abs(scaled)
    whole = np.floor(size)
    whole = np.copysign(whole + (size - whole >= 0.5), scaled)  # to the nearest, halves away from 0; size + 0.5 would itself be rounded
    parts = scales.astype("<f2").view(np.uint8), whole.astype(np.int8).view(np.uint8)
    return np.concatenate(parts, axis=1).reshape(-1)


def unpack_q8_0(stored: Array) -> Array:
    """The inverse, as far as there is one: (n,) uint8 to float32."""
    blocks = stored.reshape(-1, KINDS["Q8_0"].size)
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    numbers = np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)
    with np.errstate(invalid="ignore"):  # a scale that is no number makes numbers that are none, as in the other types
        return np.multiply(numbers, scales, out=numbers).reshape(-1)


if __name__ == "__main__":
    numbers = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    for name, kind in KINDS.items():
        packed = pack(numbers, name)
        error = np.abs(unpack(packed, name, numbers.shape) - numbers).max()
        print(f"{name:5} {8 * kind.size / kind.block:5.2f} bits a number, {packed.nbytes:5} bytes, largest error {error:.5f}")
