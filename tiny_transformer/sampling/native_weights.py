"""A model's matrices as `whole_step.c` reads them: blocks of rows, from end to end; copied once, and kept until a weight changes.

Copying takes as long as writing some thirty tokens, so the copies stay with the model, from text to text, and go when it goes. A
number made of every bit of the weights (`fingerprint` in the C, as fast as reading them, so the price of a token) says whether they
are still the same. PyTorch's own count of changes would not do: it knows nothing of those made through `.data` or by NumPy.
The price is memory: the weights twice, while the model lives.
Left out: the step itself (`native_step.py`). Read before: `native.py`, `quantized.py`.
"""

import ctypes
import math
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.native import DOUBLE, INTEGER, POINTER, Functions, declared, library
from tiny_transformer.quantized_layers import QuantizedLinear
from tiny_transformer.transformer_block import TransformerBlock

PAGE, LINE = 1 << 21, 64
"""Bytes of a large page, and of a line of the cache."""
SOURCE = Path(__file__).with_name("whole_step.c")
FUNCTIONS: Functions = {
    "run": (ctypes.c_int, [POINTER, INTEGER, INTEGER, *[POINTER] * 6]),
    "write_on": (INTEGER, [POINTER, INTEGER, INTEGER, POINTER, POINTER, INTEGER, POINTER, POINTER, INTEGER, *[POINTER] * 3]),
    "draw": (INTEGER, [POINTER, POINTER, DOUBLE, POINTER]),
    "scratch": (INTEGER, [POINTER, INTEGER]),
    "width_for": (INTEGER, [INTEGER, INTEGER]),
    "fingerprint": (ctypes.c_uint64, [POINTER, POINTER, INTEGER, INTEGER]),
    "in_large_pages": (None, [POINTER, INTEGER]),
    "pack_floats": (None, [POINTER, POINTER, *[INTEGER] * 5]),
    "pack_bytes": (None, [POINTER, POINTER, *[INTEGER] * 5]),
}


def whole_step() -> Any:
    """The library of `whole_step.c`, or None where it can't be had."""
    c = library(SOURCE)
    return None if c is None else declared(c, FUNCTIONS)


class Matrix(ctypes.Structure):
    """The C's, with the same name. Without a field set it is no matrix."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "values", "scales", "bias")),
        *((name, ctypes.c_int64) for name in ("outputs", "inputs", "width")),
    )


class PackedBlock(NamedTuple):
    """One layer's matrices, in the order of the C's `Block`."""

    qkv: Matrix
    project: Matrix
    gate: Matrix
    up: Matrix
    down: Matrix


class PackedWeights(NamedTuple):
    """All of a model's matrices, and what their pointers point at."""

    key: Hashable
    blocks: list[PackedBlock]
    unembed: Matrix
    kept: list[Tensor]


class _Joined(NamedTuple):
    """Matrices that read the same x, to be one product: below each other, with the scales of rounded ones and the biases."""

    weights: list[Tensor]
    scales: list[Tensor]
    biases: list[Tensor]


_of: WeakKeyDictionary[nn.Module, PackedWeights] = WeakKeyDictionary()


def packed_weights(model: TinyTransformerLM, c: Any, threads: int) -> PackedWeights:
    """The model's matrices for `threads` threads: those of the last call, if no weight has changed since."""
    sources = list(_sources(model))
    tensors = [tensor.detach().contiguous() for tensor in chain.from_iterable(chain.from_iterable(sources))]
    key = (threads, tuple((tensor.shape, tensor.dtype) for tensor in tensors), _fingerprint(tensors, c, threads))
    found = _of.get(model)
    if found is not None and found.key == key:
        return found
    del found
    _of.pop(model, None)  # before the new copies are made: never three times the weights
    arena = _Arena(sum(_packed_bytes(joined, c, threads) for joined in sources), c)
    kept: list[Tensor] = [arena.memory]
    matrices = [_packed(joined, c, threads, arena, kept) for joined in sources]
    blocks = [PackedBlock(*matrices[first : first + 5]) for first in range(0, len(matrices) - 1, 5)]
    _of[model] = made = PackedWeights(key, blocks, matrices[-1], kept)
    return made


def _sources(model: TinyTransformerLM) -> Iterator[_Joined]:
    """Five for each layer, and the output layer's."""
    for block in cast(list[TransformerBlock], list(model.blocks)):
        attention, network = block.attention, block.feedforward
        yield _join([attention.W_query, attention.W_key, attention.W_value])
        yield _join([attention.out_proj])
        yield _join([] if network.gate is None else [network.gate])
        yield _join([network.up])
        yield _join([network.down])
    yield _Joined([model.unembed.weight], [], [])


def _join(layers: Sequence[nn.Linear | QuantizedLinear]) -> _Joined:
    return _Joined(
        [layer.values if isinstance(layer, QuantizedLinear) else layer.weight for layer in layers],
        [layer.scales for layer in layers if isinstance(layer, QuantizedLinear)],
        [layer.bias for layer in layers if layer.bias is not None],
    )


def _fingerprint(tensors: Sequence[Tensor], c: Any, threads: int) -> int:
    """Of all numbers, and of their order."""
    places = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
    sizes = (ctypes.c_int64 * len(tensors))(*(tensor.nbytes for tensor in tensors))
    return int(c.fingerprint(ctypes.addressof(places), ctypes.addressof(sizes), len(tensors), threads))


def _packed_bytes(joined: _Joined, c: Any, threads: int) -> int:
    """How much of the arena a matrix takes."""
    if not joined.weights:
        return 0
    weight = joined.weights[0]
    return _whole_lines(_padded_rows(joined, c, threads) * _padded_columns(weight) * weight.itemsize)


def _whole_lines(size: int) -> int:
    return -(-size // LINE) * LINE


def _padded_rows(joined: _Joined, c: Any, threads: int) -> int:
    """The matrix's rows, filled up to whole blocks."""
    out = sum(len(weight) for weight in joined.weights)
    width: int = c.width_for(out, threads)
    return -(-out // width) * width


def _padded_columns(weight: Tensor) -> int:
    """Weights in eight bits are read in pairs."""
    return weight.size(1) + (weight.size(1) % 2 if weight.dtype == torch.int8 else 0)


class _Arena:
    """One piece of memory for all matrices, in large pages: of many pieces, each only a little larger than a page, none would have one."""

    def __init__(self, size: int, c: Any) -> None:
        self.memory = torch.empty(size + PAGE, dtype=torch.uint8)
        self._next = -self.memory.data_ptr() % PAGE
        c.in_large_pages(self.memory.data_ptr() + self._next, size)

    def take(self, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Memory for numbers of this type, from the beginning of a cache line."""
        size = math.prod(shape) * dtype.itemsize
        part = self.memory[self._next : self._next + size].view(dtype).view(shape)
        self._next += _whole_lines(size)
        return part


def _packed(joined: _Joined, c: Any, threads: int, arena: _Arena, kept: list[Tensor]) -> Matrix:
    """One matrix for the C; what it points at lies in the arena, or is put into `kept`."""
    if not joined.weights:
        return Matrix()
    out, columns, kind = sum(len(weight) for weight in joined.weights), joined.weights[0].size(1), joined.weights[0].dtype
    width = c.width_for(out, threads)
    packed = arena.take((_padded_rows(joined, c, threads), _padded_columns(joined.weights[0])), kind)
    packed[out // width * width :] = 0
    pack, first = c.pack_floats if kind == torch.float32 else c.pack_bytes, 0
    for weight in joined.weights:
        dense = weight.detach().contiguous()
        pack(dense.data_ptr(), packed.data_ptr(), first, len(weight), columns, width, threads)
        first += len(weight)
    small = [torch.cat(parts).detach() if parts else None for parts in (joined.scales, joined.biases)]
    kept += [tensor for tensor in small if tensor is not None]
    scales, bias = (None if tensor is None else tensor.data_ptr() for tensor in small)
    values = packed.data_ptr()
    return Matrix(values if scales is None else None, None if scales is None else values, scales, bias, out, columns, width)


if __name__ == "__main__":
    from tiny_transformer.config import ModelConfig

    model, c = TinyTransformerLM(ModelConfig(d_model=64, n_layers=2), seed=0), whole_step()
    if c is None:
        print("no C compiler here: nothing is copied")
    else:
        first, second = (packed_weights(model, c, 2) for _ in range(2))
        model.unembed.weight.data[0, 0] += 1
        third = packed_weights(model, c, 2)
        print("layers", len(first.blocks), "copied again:", second is not first, "after a change:", third is not second)
        print("megabytes", sum(tensor.nbytes for tensor in first.kept) / 1e6)
