"""A GGUF file as such: named values of several types, then named tensors; written, and read in place.

    4 bytes     GGUF
    4, 8, 8     version (3), number of tensors, number of values
    values      name, type, value; a text is its length in 8 bytes and its UTF-8; a list has the type and number of its elements before it
    tensors     name, number of dimensions, sizes (the fastest one first), type, place after the padding
    padding     zeros, up to a multiple of the alignment (32, or what general.alignment says)
    the rest    the tensors' numbers; each begins at a multiple of the alignment

All numbers are little-endian. From the published specification (ggml, docs/gguf.md, version 3). NumPy only. Left out: what the names
mean (`gguf_names.py`), how numbers are rounded (`gguf_numbers.py`). Read before: `gguf_numbers.py`.
"""

import math
import mmap
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tiny_transformer.config import ConfigError
from tiny_transformer.pretrained.gguf_numbers import KINDS, NAMES, Array, pack, stored_bytes, unpack
from tiny_transformer.utils.atomic import atomic_save

MAGIC = b"GGUF"
VERSION = 3
READABLE = (2, 3)
"""Version 3 differs from 2 in allowing big-endian files only."""
ALIGNMENT = 32
SCALARS: dict[int, str] = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "<u1", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
"""Number of a type → NumPy's for its bytes. 7 is true or false."""
BOOL, TEXT, LIST = 7, 8, 9
UINT32, INT32, FLOAT32, UINT64 = 4, 5, 6, 10
LONGEST_NAME = 65_535
MOST_DIMENSIONS = 4

Value = bool | int | float | str | Sequence[int] | Sequence[float] | Sequence[str]
Values = Mapping[str, Value]


@dataclass(frozen=True)
class Entry:
    """A tensor as its file describes it."""

    kind: str
    """F32, F16, BF16 or Q8_0; or the number of a type that is not known here."""
    shape: tuple[int, ...]
    """As NumPy has it: the slowest dimension first, the other way round than in the file."""
    place: int
    """Where in the file its numbers begin."""


# --- writing ----------------------------------------------------------------------------------------------------------


def write_file(
    path: str | os.PathLike[str], values: Values, tensors: Mapping[str, tuple[str, tuple[int, ...], Callable[[], Array]]]
) -> None:
    """Write a file; it is there whole or not at all. `tensors`: name → (kind, shape, what makes its float32 numbers when it is its turn).

    Whole numbers become 32-bit ones without sign (64 where they are larger), in lists with sign; fractions become float32.
    """
    places, end = {}, 0
    for name, (kind, shape, _) in tensors.items():
        places[name] = end
        end += _padded(stored_bytes(kind, shape))

    def write(file: BinaryIO) -> None:
        file.write(MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(values)))
        for name, value in values.items():
            file.write(_text(name) + _value(value))
        for name, (kind, shape, _) in tensors.items():
            sizes = struct.pack(f"<{len(shape)}Q", *shape[::-1])
            file.write(_text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", KINDS[kind].number, places[name]))
        file.write(bytes(_padded(file.tell()) - file.tell()))
        for name, (kind, shape, make) in tensors.items():
            numbers = pack(make().reshape(shape), kind, name)
            file.write(numbers.data)
            file.write(bytes(_padded(numbers.nbytes) - numbers.nbytes))

    atomic_save(path, write)


def _padded(n: int) -> int:
    """The next multiple of the alignment."""
    return -(-n // ALIGNMENT) * ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    """Type and value."""
    if isinstance(value, bool):
        return struct.pack("<IB", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", UINT32, value) if value < 2**32 else struct.pack("<IQ", UINT64, value)
    if isinstance(value, float):
        return struct.pack("<If", FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + _text(value)
    head = struct.pack("<I", LIST)
    if not value or isinstance(value[0], str):
        return head + struct.pack("<IQ", TEXT, len(value)) + b"".join(_text(str(one)) for one in value)
    kind, stored = (INT32, "<i4") if isinstance(value[0], int) else (FLOAT32, "<f4")
    return head + struct.pack("<IQ", kind, len(value)) + np.asarray(value, stored).tobytes()


# --- reading ----------------------------------------------------------------------------------------------------------


class GGUFFile:
    """One file, mapped into memory; no tensor is read before it is asked for."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read names and values. Raises ConfigError naming the file, what is wrong and where, for one that is cut or damaged."""
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                self._check(self.size >= 24, "it has fewer bytes than its own header", 0)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ConfigError(f"{self.path} can't be read ({error.strerror or error}). Check the path") from error
        self._at = 0
        self.values: dict[str, Any] = {}
        self.entries: dict[str, Entry] = {}
        try:
            self._read_all()
        except RecursionError:
            raise self._damaged("lists within lists without end", self._at) from None

    def array(self, name: str) -> Array:
        """The tensor's numbers as new float32 ones. Raises ConfigError for a type that is not known here."""
        entry = self.entries[name]
        if entry.kind not in KINDS:
            known = f"it must be {', '.join(KINDS)}"
            raise ConfigError(f"{self.path}: tensor {name} has numbers of type {entry.kind}: {known}. Get the model in one of these")
        stored = np.frombuffer(self._map, np.uint8, stored_bytes(entry.kind, entry.shape), entry.place)
        return unpack(stored, entry.kind, entry.shape)

    def _read_all(self) -> None:
        self._check(self._take(4, "the first four letters") == MAGIC, "its first four letters are not GGUF", 0)
        version = self._number("<I", "the version")
        big = f"version {version}"
        self._check(version in READABLE, f"{big}: read are {' and '.join(map(str, READABLE))}, little-endian", 4)
        n_tensors, n_values = self._number("<Q", "the number of tensors"), self._number("<Q", "the number of values")
        for _ in range(n_values):
            self._read_value()
        described = [self._read_description() for _ in range(n_tensors)]
        alignment = self.values.get("general.alignment", ALIGNMENT)
        right = isinstance(alignment, int) and alignment > 0 and alignment % 8 == 0
        self._check(right, f"general.alignment is {alignment}, and must be a multiple of 8", self._at)
        start = -(-self._at // alignment) * alignment
        for name, number, shape, place in described:
            self._place(name, number, shape, place, start, alignment)

    def _read_value(self) -> None:
        where = self._at
        name = self._text("the name of a value", LONGEST_NAME)
        self._check(name not in self.values, f"the value {name} is there twice", where)
        self.values[name] = self._one(self._number("<I", f"the type of {name}"), name)

    def _one(self, kind: int, name: str) -> Any:
        where = self._at
        if kind == TEXT:
            return self._text(name)
        if kind == LIST:
            return self._list(name)
        self._check(kind in SCALARS, f"{name} has the unknown type {kind}", where - 4)
        value = np.frombuffer(self._take(np.dtype(SCALARS[kind]).itemsize, name), SCALARS[kind])[0].item()
        self._check(kind != BOOL or value in (0, 1), f"{name} is neither true nor false", where)
        return bool(value) if kind == BOOL else _short(value) if kind == FLOAT32 else value

    def _list(self, name: str) -> list[Any]:
        kind, length, where = self._number("<I", f"the type in the list {name}"), self._number("<Q", f"the length of {name}"), self._at
        if kind in SCALARS and kind != BOOL:
            size = np.dtype(SCALARS[kind]).itemsize
            numbers: list[Any] = np.frombuffer(self._take(length * size, name), SCALARS[kind]).tolist()
            return numbers
        self._check(kind in (TEXT, BOOL, LIST), f"the list {name} holds the unknown type {kind}", where)
        self._check(length <= self.size - self._at, f"the list {name} should have {length:,} elements", where)
        return [self._one(kind, name) for _ in range(length)]

    def _read_description(self) -> tuple[str, int, tuple[int, ...], int]:
        where = self._at
        name = self._text("the name of a tensor", LONGEST_NAME)
        dimensions = self._number("<I", f"the dimensions of {name}")
        self._check(dimensions <= MOST_DIMENSIONS, f"tensor {name} has {dimensions} dimensions", where)
        sizes = [self._number("<Q", f"the sizes of {name}") for _ in range(dimensions)]
        return name, self._number("<I", f"the type of {name}"), tuple(sizes[::-1]), self._number("<Q", f"the place of {name}")

    def _place(self, name: str, number: int, shape: tuple[int, ...], place: int, start: int, alignment: int) -> None:
        kind = NAMES.get(number, f"number {number}")
        self._check(name not in self.entries, f"the tensor {name} is there twice", self._at)
        self._check(place % alignment == 0, f"tensor {name} begins at {place:,}, no multiple of {alignment}", start)
        if kind in KINDS:
            whole = not shape or shape[-1] % KINDS[kind].block == 0
            self._check(whole, f"tensor {name} is {kind} and {shape}: rows must be blocks of {KINDS[kind].block}", self._at)
            end = start + place + stored_bytes(kind, shape)
            self._check(end <= self.size, f"tensor {name} ends at byte {end:,}, and the file at {self.size:,}", start + place)
        self.entries[name] = Entry(kind, shape, start + place)

    def _number(self, form: str, what: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form), what))[0])

    def _text(self, what: str, longest: int | None = None) -> str:
        length, where = self._number("<Q", what), self._at
        self._check(longest is None or length <= longest, f"{what} should have {length:,} bytes", where)
        try:
            return self._take(length, what).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise self._damaged(f"{what} is no UTF-8", where) from None

    def _take(self, length: int, what: str) -> bytes:
        self._check(length <= self.size - self._at, f"the file ends within {what}", self._at)
        data = self._map[self._at : self._at + length]
        self._at += length
        return data

    def _check(self, condition: bool, what: str, where: int) -> None:
        if not condition:
            raise self._damaged(what, where)

    def _damaged(self, what: str, where: int) -> ConfigError:
        return ConfigError(f"{self.path} is no GGUF file, or it was cut or damaged ({what}; byte {where:,}). Get it again")


def _short(value: float) -> float:
    """The shortest decimal number that is this float32: 1e-05, where float64 would say 9.999999747378752e-06."""
    return float(str(np.float32(value))) if math.isfinite(value) else value


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "two.gguf"
        numbers = np.arange(64, dtype=np.float32).reshape(2, 32)
        write_file(
            path, {"general.architecture": "toy", "toy.sizes": [1, 2], "toy.eps": 1e-5},
            {"a": ("F32", (2, 32), lambda: numbers), "b": ("Q8_0", (2, 32), lambda: numbers)},
        )  # fmt: skip
        file = GGUFFile(path)
        print(file.values, {name: (entry.kind, entry.shape, entry.place) for name, entry in file.entries.items()})
        print("largest error in eight bits:", abs(file.array("b") - numbers).max())
        path.write_bytes(path.read_bytes()[:-40])
        try:
            GGUFFile(path)
        except ConfigError as error:
            print("caught:", str(error).replace(folder, "…"))
