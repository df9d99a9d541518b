"""A matrix in eight bits: a quarter of the memory, and products that read a quarter of it.

    W ≈ scale · values        values: whole numbers from -127 to 127, one scale per row of W (one output of the layer), or per block

Writing a text one token at a time is reading all weights once per token, so smaller weights are faster ones. Nothing is calibrated
and no text is needed: symmetric, round to nearest (Dettmers et al. 2022, "LLM.int8()", section 2, on why each row gets a scale of
its own). On PCs the product reads x and gives y in bfloat16, because PyTorch's kernel is only fast so: 0.2 % of rounding beside the
1 % of the weights. Left out: four bits (`nf4.py`), layers and models (`quantized_layers.py`), files. Read before: `rounded_weights.py`.
"""

import platform
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tiny_transformer.config import check
from tiny_transformer.rounded_weights import Stored
from tiny_transformer.utils.reference import is_reference

STEP = 16
"""PyTorch's kernel takes numbers of inputs that this divides; other layers are unpacked for each product."""
CHUNK = 2**18
"""Numbers that are rounded or unpacked at a time: 1 MiB in float32."""
ALL = slice(None)


class Quantized(NamedTuple):
    """A matrix as whole numbers and scales."""

    values: Tensor
    """(out, in) int8."""
    scales: Tensor
    """(out, blocks): what a whole number stands for, for each row and each block of neighbouring columns."""

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self.values.nbytes + self.scales.nbytes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix: (out, in)."""
        return tuple(self.values.shape)

    def dequantize(self, dtype: torch.dtype = torch.float32, rows: slice = ALL) -> Tensor:
        """The numbers it stands for, or some rows of them: (rows, in).

        >>> quantize(torch.tensor([[3.0, -6.0]])).dequantize()[0, 1].item()
        -6.0
        """
        scales = self.scales[rows]
        return (self.values[rows].to(scales.dtype) * spread(scales, self.values.size(-1))).to(dtype)

    def stored(self) -> Stored:
        """As it lies in a file."""
        return Stored(self.shape, self.values.numpy(force=True), self.scales.float().numpy(force=True))


def quantize(weight: Tensor, bits: int = 8, block: int | None = None) -> Quantized:
    """Round a matrix (out, in) to whole numbers of `bits` bits, with one scale per row, or per block of at most `block` columns.

    The scale is the largest number of the row (or block) by 2^(bits-1) - 1, rounded up to a bfloat16, which every product can take
    as it is. No number is off by more than half a scale.

    >>> quantize(torch.tensor([[0.5, -127.0, 2.0]])).values.tolist()
    [[0, -127, 2]]

    Raises ConfigError for bits outside 2 to 8 or a block below 1, ValueError for anything but a finite matrix.
    """
    check(2 <= bits <= 8, f"bits={bits}", "it must be from 2 to 8", "Try bits=8")
    check_matrix(weight)
    out, columns = weight.shape
    block = columns if block is None else block
    scales = torch.empty(out, blocks_of(columns, block), device=weight.device)  # first of all: what stays does not lie between what goes
    made = Quantized(torch.empty(out, columns, dtype=torch.int8, device=weight.device), scales)
    for rows in chunks(out, columns):
        made.values[rows], made.scales[rows] = _quantize(weight[rows].detach().float(), bits, block)
    return made


def _quantize(weight: Tensor, bits: int, block: int) -> Quantized:
    columns, largest = weight.size(1), 2 ** (bits - 1) - 1
    scales = _up_to_bfloat16(largest_by_block(weight, block) / largest)  # (out, blocks)
    divisor = torch.where(scales > 0, scales, 1)  # a row of zeros stays one
    values = (weight / spread(divisor, columns)).round().clamp(-largest, largest)
    return Quantized(values.to(torch.int8), scales)


def chunks(rows: int, columns: int) -> list[slice]:
    """Rows to take at a time, so that what is worked out of them is never all in memory."""
    step = max(1, CHUNK // max(1, columns))
    return [slice(start, start + step) for start in range(0, rows, step)]


def check_matrix(weight: Tensor) -> None:
    """Raise ValueError for anything but a matrix of finite numbers."""
    if weight.dim() != 2 or weight.numel() == 0 or not bool(torch.isfinite(weight).all()):
        raise ValueError(f"a weight of shape {tuple(weight.shape)}: it must be a matrix (out, in) of finite numbers")


def blocks_of(columns: int, block: int) -> int:
    """How many blocks of at most `block` columns a row has. Raises ConfigError for a block below 1."""
    check(block >= 1, f"block={block}", "it must be at least 1", "Leave it out")
    return -(-columns // block)


def largest_by_block(weight: Tensor, block: int) -> Tensor:
    """The largest magnitude in each block of at most `block` columns: (out, in) to (out, blocks). Blocks are as equal as can be."""
    blocks = blocks_of(weight.size(1), block)
    width = -(-weight.size(1) // blocks)
    return F.pad(weight, (0, blocks * width - weight.size(1))).view(len(weight), blocks, width).abs().amax(-1)


def spread(scales: Tensor, columns: int) -> Tensor:
    """Each scale for every column of its block: (out, blocks) to (out, columns), or (out, 1) where a row has one."""
    return scales if scales.size(-1) == 1 else scales.repeat_interleave(-(-columns // scales.size(-1)), -1)[..., :columns]


def _up_to_bfloat16(x: Tensor) -> Tensor:
    """The next bfloat16 that is not below, for positive float32: what is cut off are the last 16 of the 32 binary digits."""
    return ((x.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)


def quantized_product(quantized: Quantized, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """x ↦ x Wᵀ + b for a matrix in whole numbers: (rows, in) to (rows, out).

    On a processor PyTorch's kernel unpacks each number where it is used, so that only a quarter is read; a row's result does not
    depend on the other rows, to the last bit. Elsewhere, and as the reference, the matrix is unpacked first.
    """
    values, scales = quantized
    fast = values.device.type == "cpu" and scales.size(1) == 1 and values.size(1) % STEP == 0
    if fast and (values.data_ptr() % STEP or not values.is_contiguous()):  # the kernel loads 16 numbers at once, from such places only
        values = values.clone(memory_format=torch.contiguous_format)
    kernel, flat = _kernel_dtype(), scales[:, 0].to(_kernel_dtype())

    def multiply(x: Tensor) -> Tensor:
        if not fast or x.dtype != torch.float32 or is_reference():
            return F.linear(x, quantized.dequantize(x.dtype), bias)
        x = x.contiguous() if kernel == torch.float32 else x.to(kernel, memory_format=torch.contiguous_format)
        y = torch._weight_int8pack_mm(x, values, flat)
        return y.float() if bias is None else bias + y

    return multiply


def _kernel_dtype() -> torch.dtype:
    """What PyTorch's kernel wants to multiply whole numbers with: elsewhere it goes number by number, five times slower."""
    return torch.float32 if platform.machine().lower() in ("aarch64", "arm64") else torch.bfloat16


if __name__ == "__main__":
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    for bits in (8, 4, 2):
        rounded = quantize(weight, bits)
        error = (rounded.dequantize() - weight).abs().max()
        print(f"{bits} bits: a row {rounded.values[0].tolist()}, largest error {error:.4f}, half a scale {rounded.scales.max() / 2:.4f}")
    x = torch.randn(2, 6)
    y = quantized_product(quantize(weight))(x)
    print(f"x (2, 6) to {tuple(y.shape)}, off by at most {(y - x @ weight.T).abs().max():.3f}")
