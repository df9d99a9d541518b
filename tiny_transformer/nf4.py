"""A matrix in four bits, NF4: an eighth of the memory. Rounding, packing two places into a byte, and the way back.

    W ≈ level[place] · scale      sixteen levels spaced like a normal distribution, one scale for a block of columns

Dettmers et al. 2023, "QLoRA", section 3. The scale of a block is its largest magnitude. Double quantisation rounds the scales as
well, less their mean, to eight bits in groups of 256: half a bit per weight becomes an eighth. The place is chosen last, so it is
the nearest one for the scale that is kept. Left out: products with such a matrix (`quantized_layers.py`).
Read before: `rounded_weights.py`, `quantized.py`.
"""

from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tiny_transformer.quantized import ALL, Quantized, blocks_of, check_matrix, chunks, largest_by_block, quantize, spread
from tiny_transformer.rounded_weights import BLOCK, GROUP, Stored, nf4_levels


class Nf4(NamedTuple):
    """A matrix in four bits."""

    values: Tensor
    """(out, ⌈in / 2⌉) uint8: two places a byte, the first in the lower four bits."""
    scales: Tensor
    """(out, blocks) float32; or int8, with the next two."""
    columns: int
    """`in`: with an odd one the last place of a row stands for nothing."""
    second: Tensor | None = None
    """(groups,) float32: what a whole number of `scales` stands for."""
    mean: Tensor | None = None
    """(1,) float32: added to all scales."""

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return sum(part.nbytes for part in (self.values, self.scales, self.second, self.mean) if part is not None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix: (out, in)."""
        return len(self.values), self.columns

    def float_scales(self) -> Tensor:
        """(out, blocks), as numbers."""
        if self.second is None or self.mean is None:
            return self.scales
        flat = Quantized(self.scales.view(1, -1), self.second.view(1, -1)).dequantize(self.second.dtype) + self.mean
        return flat.view(self.scales.shape)

    def dequantize(self, dtype: torch.dtype = torch.float32, rows: slice = ALL) -> Tensor:
        """The numbers it stands for, or some rows of them: (rows, in)."""
        numbers = unpacked(self.values[rows], self.columns)
        return numbers.mul_(spread(self.float_scales()[rows].float(), self.columns)).to(dtype)

    def stored(self) -> Stored:
        """As it lies in a file."""
        scales = self.scales if self.second is not None else self.scales.float()
        parts = (None if part is None else part.float().numpy(force=True) for part in (self.second, self.mean))
        return Stored(self.shape, self.values.numpy(force=True), scales.numpy(force=True), *parts)


def quantize_nf4(weight: Tensor, block: int = BLOCK, *, double: bool = False) -> Nf4:
    """Round a matrix (out, in) to four bits: one scale per block of at most `block` columns, each number to the nearest level.

    No number is off by more than half the widest gap between levels (0.152) times its block's scale; with `double` the scale itself
    may be off by 1/254 of the largest difference from their mean in its group.

    >>> quantize_nf4(torch.tensor([[0.5, -2.0, 0.0, 1.4]])).dequantize().tolist()
    [[0.4922248125076294, -2.0, 0.0, 1.445913553237915]]

    Raises ConfigError for a block below 1, ValueError for anything but a finite matrix.
    """
    check_matrix(weight)
    weight = weight.detach()
    out, columns = weight.shape
    values = torch.empty(out, -(-columns // 2), dtype=torch.uint8, device=weight.device)  # first, and filled: what stays lies together
    scales = torch.empty(out, blocks_of(columns, block), device=weight.device)
    for rows in chunks(out, columns):
        scales[rows] = largest_by_block(weight[rows].float(), block)
    made = Nf4(values, scales, columns)
    if double:
        mean = scales.mean().view(1)
        rounded = quantize((scales - mean).view(1, -1), block=GROUP)
        made = made._replace(scales=rounded.values.view(scales.shape), second=rounded.scales.view(-1), mean=mean)
    kept = made.float_scales()
    for rows in chunks(out, columns):
        values[rows] = packed(nearest(weight[rows].float(), kept[rows]))
    return made


def nearest(weight: Tensor, scales: Tensor) -> Tensor:
    """The place of the nearest level: weight (rows, in) and scales (rows, blocks) to (rows, in), whole numbers from 0 to 15."""
    divisor = torch.where(scales == 0, 1, scales)  # whatever is taken there stands for 0
    return torch.bucketize(weight / spread(divisor, weight.size(1)), _middles(weight.device), out_int32=True)


def packed(places: Tensor) -> Tensor:
    """Two places a byte: (…, n) to (…, ⌈n / 2⌉) uint8. An odd one is joined by a 0.

    >>> packed(torch.tensor([3, 15, 7])).tolist()
    [243, 7]
    """
    even = F.pad(places.to(torch.uint8), (0, places.size(-1) % 2))
    return even[..., ::2] | even[..., 1::2] << 4


def unpacked(pairs: Tensor, columns: int) -> Tensor:
    """The levels of places that lie two to a byte: (rows, ⌈columns / 2⌉) uint8 to (rows, columns) float32.

    One look-up a byte, of two float32 that are handed on as one number of 64 bits: twice as fast as rows of two.
    """
    both = _pairs(pairs.device).index_select(0, pairs.flatten().int())  # (bytes,)
    return both.view(torch.float32).view(len(pairs), 2 * pairs.size(1))[:, :columns]


@cache
def _middles(device: torch.device) -> Tensor:
    """Where one level ends and the next begins: (15,)."""
    return torch.tensor([(low + high) / 2 for low, high in pairwise(nf4_levels())], device=device)


@cache
def _pairs(device: torch.device) -> Tensor:
    """The two levels of each byte, side by side in 64 bits: (256,)."""
    levels = nf4_levels()
    pairs = torch.tensor([[levels[byte & 15], levels[byte >> 4]] for byte in range(256)], device=device)
    return pairs.view(torch.int64).view(256)


if __name__ == "__main__":
    weight = torch.randn(256, 300, generator=torch.Generator().manual_seed(0)) * 0.02
    for block in (32, 64, 300):
        for double in (False, True):
            small = quantize_nf4(weight, block, double=double)
            error, bits = (small.dequantize() - weight).norm() / weight.norm(), 8 * small.nbytes / weight.numel()
            print(f"blocks of {block:3}{', scales in 8 bits' if double else '':18} {bits:.3f} bits a weight, {error:.2%} off")
