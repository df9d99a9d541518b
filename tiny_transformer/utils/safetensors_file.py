"""A safetensors file, read in place: which tensors are in it, and each of them as a view into the mapped file.

    8 bytes     n, the header's length, little-endian
    n bytes     JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …, "__metadata__": {…}}
    the rest    the tensors' numbers, little-endian, without gaps

NumPy only. NumPy has no bfloat16: such a tensor comes as whole numbers of 16 bits, and `widen` makes float32 of them. The
NumPy engine's own files are read by `numpy_engine/checkpoint.py`, which copies everything and checks a digest.
Read before: nothing.
"""

import json
import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import ConfigError
from tiny_transformer.utils.short_floats import from_bfloat16, to_bfloat16, to_float16

Array = NDArray[Any]

STORED: dict[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip
"""The file's name of a type, and NumPy's for its bytes."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""The types that weights may have; others (eight bits and fewer) need a rule of their own to become numbers again."""
LONGEST_HEADER = 100_000_000
"""In bytes, as the format's own library has it."""
CHUNK = 1 << 18
"""Numbers that are widened at a time: 1 MiB in float32."""


@dataclass(frozen=True)
class Entry:
    """A tensor as its file describes it."""

    dtype: str
    """F32, BF16, …"""
    shape: tuple[int, ...]
    file: Path

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def widen(stored: Array, dtype: str) -> Array:
    """Numbers as the file has them, as new float32 ones. bfloat16 is float32 without its last 16 bits: they are 0 again.

    >>> widen(np.array([0x3F80, 0xC000], np.uint16), "BF16").tolist()
    [1.0, -2.0]
    """
    return from_bfloat16(stored) if dtype == "BF16" else stored.astype(np.float32)


def narrow(numbers: Array, dtype: str, name: str) -> Array:
    """Numbers as a file of this type has them: the inverse of `widen`, rounded to the nearest. Raises ConfigError where float16 ends."""
    if dtype == "BF16":
        return to_bfloat16(numbers)
    return to_float16(numbers, name) if dtype == "F16" else numbers.astype(STORED[dtype])


def row_chunks(array: Array) -> Iterator[slice]:
    """Rows to copy at a time, so that a large tensor is never in memory twice."""
    rows = array.shape[0] if array.ndim else 1
    step = max(1, CHUNK // max(1, array.size // max(1, rows)))
    return (slice(start, start + step) for start in range(0, rows, step))


class SafetensorsFile:
    """One file, mapped into memory; nothing is read before it is asked for."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read the header. Raises ConfigError naming the file where it is missing, cut, or not what it says."""
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                self._check(size >= 8, "it is shorter than its own header")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ConfigError(f"{self.path} can't be read ({error.strerror or error}). Check the path") from error
        length = int.from_bytes(self._map[:8], "little")
        self._check(length <= min(LONGEST_HEADER, size - 8), f"its header should have {length:,} bytes, and the file has {size:,}")
        self._start = 8 + length
        self.metadata: dict[str, str] = {}
        self.entries: dict[str, Entry] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._read_header(self._map[8 : self._start], size - self._start)

    def array(self, name: str) -> Array:
        """The tensor as it is stored: a read-only view into the file."""
        begin, _ = self._places[name]
        entry = self.entries[name]
        return np.frombuffer(self._map, STORED[entry.dtype], entry.size, self._start + begin).reshape(entry.shape)

    def release(self, name: str) -> None:
        """Give back the memory that reading the tensor has taken; the next access reads the disk's cache again."""
        if not hasattr(mmap, "MADV_DONTNEED"):  # Windows does it by itself
            return
        begin, end = (self._start + place for place in self._places[name])
        begin -= begin % mmap.PAGESIZE  # a shared page of a neighbour is read again, that is all
        self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def _read_header(self, text: bytes, room: int) -> None:
        try:
            header = json.loads(text)
            self.metadata = dict(header.pop("__metadata__", None) or {})
            described = [(*map(int, v["data_offsets"]), name, str(v["dtype"]), tuple(map(int, v["shape"]))) for name, v in header.items()]
            order = sorted((begin, stop, name, dtype, shape) for begin, stop, name, dtype, shape in described)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged(f"its header can't be read: {type(error).__name__}") from error
        end = 0
        for begin, stop, name, dtype, shape in order:
            in_turn = begin == end <= stop and all(length >= 0 for length in shape)
            self._check(in_turn, f"{name} does not begin where the tensor before it ends")
            if dtype in STORED:
                must = math.prod(shape) * np.dtype(STORED[dtype]).itemsize
                self._check(stop - begin == must, f"{name} has {stop - begin:,} bytes, and {dtype} {shape} needs {must:,}")
            self.entries[name] = Entry(dtype, shape, self.path)
            self._places[name] = begin, stop
            end = stop
        self._check(end == room, f"its tensors need {end:,} bytes, and there are {room:,}")

    def _check(self, condition: bool, what: str) -> None:
        if not condition:
            raise self._damaged(what)

    def _damaged(self, what: str) -> ConfigError:
        return ConfigError(f"{self.path} is no safetensors file, or it was cut or damaged ({what}). Get it again")


if __name__ == "__main__":
    import tempfile

    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "two.safetensors"
        save_file({"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float16)}, path)
        file = SafetensorsFile(path)
        for name, entry in file.entries.items():
            print(name, entry.dtype, entry.shape, widen(file.array(name), entry.dtype).tolist())
        path.write_bytes(path.read_bytes()[:-1])
        try:
            SafetensorsFile(path)
        except ConfigError as error:
            print("caught:", str(error).replace(folder, "…"))
