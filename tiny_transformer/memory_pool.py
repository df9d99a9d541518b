"""A pool of memory that is handed out again, in large pages: for what a training step writes anew every time.

Pieces of some megabytes go back to the system when they are freed, and come back as pages that it must find and clear one by one, 4 kB
each: an eighth of a step. Here they stay, and lie in pages of 2 MB where the system has them.
Left out: what they are for (`block_by_hand.py`). Read before: nothing.
"""

import ctypes
import mmap
import threading
import weakref
from contextlib import suppress

import torch
from torch import Tensor

NUMBER = 4
"""Bytes of a float32."""
WASTE = 2
"""How many times as large as asked for a piece may be."""
PATIENCE = 64
"""After how many loans a piece that nobody wanted goes back to the system."""


class MemoryPool:
    """Pieces that nobody uses now, and a way to lend one."""

    def __init__(self) -> None:
        self._idle: list[tuple[int, mmap.mmap]] = []  # the loan after which it came back, and the piece
        self._loans = 0
        self._lock = threading.Lock()

    def take(self, numbers: int) -> Tensor:
        """(numbers,) float32 of any content. The piece comes back by itself when nothing looks at this memory any more.

        Raises OSError where the system has no more.
        """
        size = max(numbers, 1) * NUMBER
        piece = self._fitting(size)
        lent = (ctypes.c_char * size).from_buffer(piece)  # every tensor that shares this memory keeps it alive
        weakref.finalize(lent, self._back, piece).atexit = False
        return torch.frombuffer(lent, dtype=torch.float32)[:numbers]

    def _fitting(self, size: int) -> mmap.mmap:
        with self._lock:
            self._loans += 1
            fitting = [entry for entry in self._idle if size <= len(entry[1]) <= WASTE * size]
            chosen = min(fitting, key=lambda entry: len(entry[1]), default=None)
            for entry in [*self._idle]:
                if entry is chosen or self._loans - entry[0] > PATIENCE:
                    self._idle.remove(entry)
        return _new(size) if chosen is None else chosen[1]

    def _back(self, piece: mmap.mmap) -> None:  # from any thread, at any moment: without the lock
        self._idle.append((self._loans, piece))


def _new(size: int) -> mmap.mmap:
    piece = mmap.mmap(-1, size)
    with suppress(AttributeError, OSError):  # systems without large pages
        piece.madvise(mmap.MADV_HUGEPAGE)
    return piece


if __name__ == "__main__":
    memory = MemoryPool()
    first = memory.take(1_000_000)
    place, view = first.data_ptr(), first[5:].detach()
    del first
    second = memory.take(1_000_000)
    print("still looked at, so not lent twice:", second.data_ptr() != place)
    del view
    print("lent again:", memory.take(1_000_000).data_ptr() == place)
