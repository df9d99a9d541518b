"""Which of two equal implementations runs: the readable one (the reference) or the fused one (the default).

Every fused shortcut in the package stands beside the formula it replaces, and a test holds the two equal.
The choice is made at run time and never stored in a model or its config. Read before: nothing.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_reference: ContextVar[bool] = ContextVar("reference", default=False)


def is_reference() -> bool:
    """True inside `with reference_path():`."""
    return _reference.get()


@contextmanager
def reference_path() -> Iterator[None]:
    """Run the readable implementations inside this block (in this thread or task only)."""
    token = _reference.set(True)
    try:
        yield
    finally:
        _reference.reset(token)


if __name__ == "__main__":

    def mean(numbers: list[float]) -> float:
        """A mean in two equal ways."""
        print("  the readable one runs" if is_reference() else "  the fused one runs")
        return sum(numbers) / len(numbers) if is_reference() else math.fsum(numbers) / len(numbers)

    print("by default:", mean([1.0, 2.0, 6.0]))
    with reference_path():
        print("inside reference_path():", mean([1.0, 2.0, 6.0]))
    print("afterwards:", mean([1.0, 2.0, 6.0]))
