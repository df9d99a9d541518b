"""Memory that the C library has and nobody uses: give it back to the system. Read before: nothing."""

import ctypes
from collections.abc import Callable
from functools import cache


@cache
def _trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`; other libraries have none."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return found


def give_back() -> None:
    """Hand every unused page of the heap to the system; some milliseconds.

    Pieces that come and go between tensors that stay leave holes, and where they lie is chance: rounding 214 MB to 41 MB had peaks of 85
    to 104 MB, and has 75 to 87 MB with this. PyTorch's tensors on a processor lie in this heap.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    print("nothing to call" if _trim() is None else "malloc_trim")
    give_back()
