"""Which of two equal implementations runs: the readable one (the reference) or the fused one (the default).

Every fused shortcut in the package stands beside the formula it replaces, and a test holds the two equal.
The choice is made at run time and never stored in a model or its config. Read before: nothing.
"""

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
