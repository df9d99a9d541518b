"""What shape a thing has, and one clear line when it is not the shape that was promised.

Nine out of ten bugs in a transformer are a wrong shape that happens to broadcast. Read before: nothing.
"""

from collections.abc import Sequence
from typing import Any

Dimension = int | str | None
"""A number must match; a name ("batch") must be the same wherever it stands; None matches anything."""


def check_shape(tensor: Any, expected: Sequence[Dimension], name: str = "tensor") -> None:
    """Check that `tensor.shape` is `expected`; works for PyTorch and NumPy alike.

    `expected` holds one entry per dimension: an int (must be equal), a str (equal entries of the same
    name must agree with each other) or None (anything).

    >>> import numpy as np
    >>> check_shape(np.zeros((2, 5, 5)), ("batch", "seq", "seq"))
    >>> check_shape(np.zeros((2, 3)), (2, 4), "query")
    Traceback (most recent call last):
    ...
    ValueError: query has shape (2, 3), expected (2, 4): dimension 1 is 3, must be 4

    Raises ValueError naming the first dimension that differs.
    """
    shape = tuple(tensor.shape)
    wanted = "(" + ", ".join("any" if size is None else str(size) for size in expected) + ")"
    if len(shape) != len(expected):
        raise ValueError(f"{name} has shape {shape}, expected {wanted}: it has {len(shape)} dimensions, must have {len(expected)}")
    named: dict[str, int] = {}
    for index, (size, want) in enumerate(zip(shape, expected, strict=True)):
        must = named.setdefault(want, size) if isinstance(want, str) else want
        if must is not None and size != must:
            where = f"dimension {index}" + (f" ({want})" if isinstance(want, str) else "")
            raise ValueError(f"{name} has shape {shape}, expected {wanted}: {where} is {size}, must be {must}")


if __name__ == "__main__":
    import numpy as np

    hidden = np.zeros((2, 16, 64))
    check_shape(hidden, (2, 16, 64))
    check_shape(hidden, ("batch", "seq", 64))
    print("hidden", hidden.shape, "is (batch, seq, 64)")
    try:
        check_shape(hidden, (2, 64, 16), "hidden")
    except ValueError as error:
        print("caught:", error)
