"""safetensors files, written one tensor after the other: the header is known before the numbers are, so nothing is there twice.

One file, or several and an index that says which tensor lies where. `safetensors_file.py` has the format's picture.
Read before: `safetensors_file.py`, `utils/atomic.py`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tiny_transformer.utils.atomic import atomic_save
from tiny_transformer.utils.safetensors_file import STORED, Array, narrow, row_chunks

METADATA = {"format": "pt"}
"""What other programs expect in the header: (in, out) and the like are PyTorch's."""
ALIGNED = 8
"""The numbers begin at a multiple of this many bytes."""


@dataclass(frozen=True)
class Outgoing:
    """A tensor to write."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], Array]
    """Its numbers, made when they are written."""

    def nbytes(self, dtype: str) -> int:
        """How many bytes it takes as numbers of this type."""
        return prod(self.shape) * np.dtype(STORED[dtype]).itemsize


def write_file(path: Path, tensors: Sequence[Outgoing], dtype: str, metadata: Mapping[str, str] = METADATA) -> None:
    """One file, whole or not at all; `dtype` is F32, BF16, …"""
    atomic_save(path, lambda file: write_to(file, tensors, dtype, metadata))


def write_to(file: BinaryIO, tensors: Sequence[Outgoing], dtype: str, metadata: Mapping[str, str] = METADATA) -> None:
    """The whole content of a file."""
    ends = list(accumulate(tensor.nbytes(dtype) for tensor in tensors))
    described = {
        tensor.name: {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [end - tensor.nbytes(dtype), end]}
        for tensor, end in zip(tensors, ends, strict=True)
    }
    header = json.dumps({"__metadata__": dict(metadata), **described}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGNED)
    file.write(len(header).to_bytes(8, "little") + header)
    for tensor in tensors:
        for numbers in _pieces(tensor, dtype):
            file.write(np.ascontiguousarray(numbers).data)


def _pieces(tensor: Outgoing, dtype: str) -> Iterator[Array]:
    array = tensor.make()
    if array.shape != tensor.shape:
        raise AssertionError(f"{tensor.name} has shape {array.shape}, announced was {tensor.shape}")
    yield from (narrow(array[rows], dtype, tensor.name) for rows in row_chunks(array))


def write_files(folder: Path, tensors: Sequence[Outgoing], dtype: str, most: int) -> Iterator[Path]:
    """model.safetensors, or where that would hold more than `most` bytes of numbers several files and their index; each path when done.

    A tensor is never cut, so one that is larger than `most` has a file to itself.
    """
    groups = list(grouped(tensors, dtype, most))
    if len(groups) == 1:
        write_file(folder / "model.safetensors", tensors, dtype)
        yield folder / "model.safetensors"
        return
    names = [f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    for name, group in zip(names, groups, strict=True):
        write_file(folder / name, group, dtype)
        yield folder / name
    homes = {tensor.name: name for name, group in zip(names, groups, strict=True) for tensor in group}
    index = {"metadata": {"total_size": sum(tensor.nbytes(dtype) for tensor in tensors)}, "weight_map": homes}
    text = json.dumps(index, indent=2).encode() + b"\n"
    atomic_save(folder / "model.safetensors.index.json", lambda file: file.writelines([text]))
    yield folder / "model.safetensors.index.json"


def grouped(tensors: Iterable[Outgoing], dtype: str, most: int) -> Iterator[list[Outgoing]]:
    """The tensors in order, as many together as `most` bytes hold."""
    group: list[Outgoing] = []
    size = 0
    for tensor in tensors:
        if group and size + tensor.nbytes(dtype) > most:
            yield group
            group, size = [], 0
        group.append(tensor)
        size += tensor.nbytes(dtype)
    yield group


if __name__ == "__main__":
    import tempfile

    from tiny_transformer.utils.safetensors_file import SafetensorsFile

    tensors = [Outgoing(name, (2, 3), lambda: np.arange(6.0).reshape(2, 3)) for name in "abc"]
    with tempfile.TemporaryDirectory() as folder:
        for path in write_files(Path(folder), tensors, "BF16", most=24):
            entries = SafetensorsFile(path).entries if path.suffix == ".safetensors" else {}
            print(path.name, path.stat().st_size, "bytes", {name: (entry.dtype, entry.shape) for name, entry in entries.items()})
