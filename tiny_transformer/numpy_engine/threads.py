"""How many threads NumPy's matrix products use. Sums differ in the last digit between counts, so the count is part of a run.

Read before: nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_info, threadpool_limits


def blas_threads() -> int:
    """The number of threads that NumPy's linear algebra library uses now."""
    return max((int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Compute with `threads` threads inside this block; 0 leaves the number as it is."""
    with threadpool_limits(threads or None, user_api="blas"):
        yield


if __name__ == "__main__":
    import numpy as np

    print("threads now", blas_threads(), "for NumPy", np.__version__)
    with using_threads(1):
        print("inside the block", blas_threads())
