"""What the step in C does with weights in eight bits, said in PyTorch: x is rounded to sixteen bits before each product."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tiny_transformer.quantized_layers import QuantizedLinear


@contextmanager
def sixteen_bits() -> Iterator[None]:
    """Inside, layers in eight bits round each row of x to 65,535 whole numbers, of which the largest is its largest."""
    plain = QuantizedLinear.forward

    def forward(self: QuantizedLinear, x: Tensor) -> Tensor:
        steps = 32767 / x.abs().amax(-1, keepdim=True).double()
        return plain(self, torch.where(steps.isfinite(), (x * steps).round() / steps, 0.0).to(x.dtype))

    QuantizedLinear.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        QuantizedLinear.forward = plain  # type: ignore[method-assign]
