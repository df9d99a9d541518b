"""Which of two equal implementations runs: the readable one (the reference) or the fused one (the default).

Every fused shortcut in the package stands beside the formula it replaces, and a test holds the two equal.
The choice is made at run time and never stored in a model or its config. Read before: nothing.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class TraceableVar(Generic[T]):
    """A ContextVar that `torch.compile` can look through while nobody has set it: a plain number says so.

    The compiler cannot read a ContextVar, and would cut the model into pieces wherever one is asked.
    """

    def __init__(self, name: str, default: T) -> None:
        self._variable: ContextVar[T] = ContextVar(name, default=default)
        self._default, self._lock = default, Lock()
        self._times_set = 0  # in any thread or task; which one's turn it is, only the variable knows

    def get(self) -> T:
        """The value in this thread or task."""
        return self._variable.get() if self._times_set else self._default

    def set(self, value: T) -> Token[T]:
        """Set it until `reset` is called with what this returns."""
        with self._lock:
            self._times_set += 1
        return self._variable.set(value)

    def reset(self, token: Token[T]) -> None:
        """As it was before."""
        self._variable.reset(token)
        with self._lock:
            self._times_set -= 1


_reference: TraceableVar[bool] = TraceableVar("reference", default=False)


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
