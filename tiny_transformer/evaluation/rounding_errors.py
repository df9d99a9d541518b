"""How far rounded weights are from what they were, by kind of layer. Read before: `quantized_layers.py`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from tiny_transformer.quantized import chunks
from tiny_transformer.quantized_layers import Packed


class KindError(NamedTuple):
    """All matrices of one kind together."""

    kind: str
    """The public name without the block's number: "attention.W_query"."""
    matrices: int
    weights: int
    nbytes: int
    """What they take in few bits, scales included."""
    relative: float
    """‖W - Ŵ‖ / ‖W‖ in the Frobenius norm, over all of them; 0 for matrices of zeros."""
    largest: float
    """The largest |w - ŵ|."""

    @property
    def bits(self) -> float:
        """Bits for each weight, scales included."""
        return 8 * self.nbytes / self.weights


@dataclass
class _Sums:
    matrices: int = 0
    weights: int = 0
    nbytes: int = 0
    error: float = 0.0
    size: float = 0.0
    largest: float = 0.0


class RoundingErrors:
    """Told of one matrix after the other, it keeps a few sums of each kind."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = {}

    def add(self, name: str, weight: Tensor, packed: Packed) -> None:
        """A weight (out, in) as it was and as it is. Unpacked some rows at a time."""
        sums = self._sums.setdefault(kind_of(name), _Sums())
        weight = weight.detach()
        sums.matrices += 1
        sums.weights += weight.numel()
        sums.nbytes += packed.nbytes
        for rows in chunks(*weight.shape):
            was = weight[rows].double()
            error = was - packed.dequantize(rows=rows)
            sums.error += float(error.square().sum())
            sums.size += float(was.square().sum())
            sums.largest = max(sums.largest, float(error.abs().max()))

    def kinds(self) -> Iterator[KindError]:
        """Each kind, by name."""
        yield from (_result(kind, self._sums[kind]) for kind in sorted(self._sums))

    def all(self) -> KindError:
        """All kinds as one."""
        whole, parts = _Sums(), self._sums.values()
        for name in ("matrices", "weights", "nbytes", "error", "size"):
            setattr(whole, name, sum(getattr(part, name) for part in parts))
        whole.largest = max((part.largest for part in parts), default=0.0)
        return _result("all", whole)


def kind_of(name: str) -> str:
    """What blocks share.

    >>> kind_of("blocks.11.attention.W_query.weight")
    'attention.W_query'
    """
    return ".".join(part for part in name.removeprefix("blocks.").removesuffix(".weight").split(".") if not part.isdigit())


def _result(kind: str, sums: _Sums) -> KindError:
    relative = math.sqrt(sums.error / sums.size) if sums.size else 0.0
    return KindError(kind, sums.matrices, sums.weights, sums.nbytes, relative, sums.largest)


if __name__ == "__main__":
    import torch

    from tiny_transformer.quantized_layers import pack
    from tiny_transformer.rounded_weights import Rounding

    for rounding in (Rounding(bits=8), Rounding(bits=4), Rounding(bits=4, block=32)):
        errors = RoundingErrors()
        for block in range(2):
            weight = torch.randn(64, 256) / 16
            errors.add(f"blocks.{block}.feedforward.down.weight", weight, pack(weight, rounding))
        for kind in errors.kinds():
            print(f"{kind.kind} × {kind.matrices}: {kind.bits:.2f} bits a weight, {kind.relative:.2%} off, at most {kind.largest:.4f}")
