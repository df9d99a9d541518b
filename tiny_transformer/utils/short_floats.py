"""Numbers in 16 bits, in NumPy: bfloat16, which NumPy does not have, as whole numbers of 16 bits, and float16 without surprises.

bfloat16 is the upper half of a float32: the same range, 8 bits of precision. float16 has 11 bits, and ends at 65,504.
Read before: nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check

Array = NDArray[Any]


def from_bfloat16(stored: Array) -> Array:
    """bfloat16's 16 bits as new float32 numbers: the last 16 bits are 0.

    >>> from_bfloat16(np.array([0x3F80, 0xC000], np.uint16)).tolist()
    [1.0, -2.0]
    """
    wide = stored.astype(np.uint32)
    wide <<= 16  # in place: this is done for every number of large models
    return wide.view(np.float32)


def to_bfloat16(numbers: Array) -> Array:
    """The nearest bfloat16 of each number, as 16 bits; of two equally near the one that ends in a 0 (IEEE 754).

    >>> [hex(bits) for bits in to_bfloat16(np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8], np.float32))]
    ['0x3f80', '0x3f80', '0x3f82']
    """
    single = np.ascontiguousarray(numbers, np.float32)
    bits = single.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    nan = (bits >> 16) | 0x40  # a NaN must not be rounded up into an infinity or a number
    return np.where(np.isnan(single), nan, rounded).astype(np.uint16)


def to_float16(numbers: Array, name: str) -> Array:
    """The nearest float16 of each number. Raises ConfigError, with `name`, where a finite number would become infinite."""
    with np.errstate(over="ignore"):
        half = numbers.astype(np.float16)
    lost = np.isinf(half) & np.isfinite(numbers)
    most = float(np.abs(numbers[lost]).max()) if lost.any() else 0.0
    check(not lost.any(), f"{name} holds {most:g}", "float16 ends at 65,504", "Choose bfloat16 or float32")
    return half


if __name__ == "__main__":
    numbers = np.array([1.0, 1 / 3, 70000.0, np.inf, np.nan], np.float32)
    print("float32 ", numbers.tolist())
    print("bfloat16", from_bfloat16(to_bfloat16(numbers)).tolist())
    try:
        to_float16(numbers, "a weight")
    except ValueError as error:
        print("caught:", error)
