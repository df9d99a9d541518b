"""Weights in eight bits: a quarter of the memory, and products that read a quarter of it.

    W ≈ scale · values        values: whole numbers from -127 to 127, one scale per row of W (one output of the layer)

Writing a text one token at a time is reading all weights once per token, so smaller weights are faster ones. Nothing is calibrated
and no text is needed: symmetric, round to nearest (Dettmers et al. 2022, "LLM.int8()", section 2, on why each row gets a scale of
its own). What is looked up, or small, stays as it is: embeddings, output layer, norms and biases. On PCs the product reads x and
gives y in bfloat16, because PyTorch's kernel is only fast so: 0.2 % of rounding beside the 1 % of the weights.
Left out: training with rounded weights; two numbers in one byte. Read before: `model.py`.
"""

import copy
import platform
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_transformer.config import check
from tiny_transformer.linear import PLAIN
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.utils.reference import is_reference

STEP = 16
"""PyTorch's kernel takes numbers of inputs that this divides; other layers are unpacked for each product."""


class Quantized(NamedTuple):
    """A matrix as whole numbers and scales."""

    values: Tensor
    """(out, in) int8."""
    scales: Tensor
    """(out, groups): what a whole number stands for, for each row and each group of neighbouring columns."""

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self.values.nbytes + self.scales.nbytes


def quantize(weight: Tensor, bits: int = 8, group: int | None = None) -> Quantized:
    """Round a matrix (out, in) to whole numbers of `bits` bits, with one scale per row, or per `group` columns of a row.

    The scale is the largest number of the row (or group) by 2^(bits-1) - 1, rounded up to a bfloat16, which every product can take
    as it is. No number is off by more than half a scale.

    >>> quantize(torch.tensor([[0.5, -127.0, 2.0]])).values.tolist()
    [[0, -127, 2]]

    Raises ConfigError for bits outside 2 to 8 or a group that does not divide the columns, ValueError for anything but a finite matrix.
    """
    check(2 <= bits <= 8, f"bits={bits}", "it must be from 2 to 8", "Try bits=8")
    if weight.dim() != 2 or not bool(torch.isfinite(weight).all()):
        raise ValueError(f"a weight of shape {tuple(weight.shape)}: it must be a matrix (out, in) of finite numbers")
    out, columns = weight.shape
    group = columns if group is None else group
    check(group >= 1 and columns % group == 0, f"group={group}", f"it must divide the {columns} columns", "Leave it out")
    grouped = weight.detach().float().view(out, columns // group, group)
    largest = 2 ** (bits - 1) - 1
    scales = _up_to_bfloat16(grouped.abs().amax(-1) / largest)  # (out, groups)
    divisor = torch.where(scales > 0, scales, 1)  # a row of zeros stays one
    values = (grouped / divisor[..., None]).round().clamp(-largest, largest)
    return Quantized(values.view(out, columns).to(torch.int8), scales)


def _up_to_bfloat16(x: Tensor) -> Tensor:
    """The next bfloat16 that is not below, for positive float32: what is cut off are the last 16 of the 32 binary digits."""
    return ((x.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)


def dequantize(quantized: Quantized, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix that the whole numbers stand for: (out, in).

    >>> dequantize(quantize(torch.tensor([[3.0, -6.0]]))).tolist()[0][1]
    -6.0
    """
    out, columns = quantized.values.shape
    grouped = quantized.values.view(out, quantized.scales.size(1), -1).to(quantized.scales.dtype)
    return (grouped * quantized.scales[..., None]).view(out, columns).to(dtype)


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
            return F.linear(x, dequantize(quantized, x.dtype), bias)
        x = x.contiguous() if kernel == torch.float32 else x.to(kernel, memory_format=torch.contiguous_format)
        y = torch._weight_int8pack_mm(x, values, flat)
        return y.float() if bias is None else bias + y

    return multiply


def _kernel_dtype() -> torch.dtype:
    """What PyTorch's kernel wants to multiply whole numbers with: elsewhere it goes number by number, five times slower."""
    return torch.float32 if platform.machine().lower() in ("aarch64", "arm64") else torch.bfloat16


class QuantizedLinear(nn.Module):
    """y = x Wᵀ + b with W in whole numbers. (…, in) to (…, out). Not trained: what is rounded has no gradient."""

    values: Tensor
    scales: Tensor

    def __init__(self, quantized: Quantized, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = quantized.values.shape
        self.register_buffer("values", quantized.values)
        self.register_buffer("scales", quantized.scales)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @property
    def quantized(self) -> Quantized:
        """The matrix."""
        return Quantized(self.values, self.scales)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return quantized_product(self.quantized, self.bias)(x.reshape(-1, self.in_features)).view(*x.shape[:-1], self.out_features)


def quantize_model(model: TinyTransformerLM, bits: int = 8) -> TinyTransformerLM:
    """A copy of `model`, in evaluation mode, whose linear layers have weights of `bits` bits: for writing and measuring.

    The model itself is left alone. The copy's `weights()` are those that were not rounded.

    >>> TextGenerator(quantize_model(model), tokenizer).generate("ROMEO:")                # doctest: +SKIP
    """
    small = copy.deepcopy(model).eval()
    with torch.no_grad():
        for parent in list(small.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Linear) and type(layer) in PLAIN:
                    setattr(parent, name, QuantizedLinear(quantize(layer.weight, bits), layer.bias))
    return small


def weight_bytes(model: nn.Module) -> int:
    """All that a model holds in memory, in bytes; what is used twice counts once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


if __name__ == "__main__":
    from tiny_transformer.config import ModelConfig

    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    for bits in (8, 4, 2):
        rounded = quantize(weight, bits)
        error = (dequantize(rounded) - weight).abs().max()
        print(f"{bits} bits: a row {rounded.values[0].tolist()}, largest error {error:.4f}, half a scale {rounded.scales.max() / 2:.4f}")
    model = TinyTransformerLM(ModelConfig(d_model=64), seed=0)
    small = quantize_model(model)
    ids = torch.arange(12)[None]
    print(f"bytes {weight_bytes(model):,} -> {weight_bytes(small):,}; logits differ by {(model(ids) - small(ids)).abs().max():.1e}")
