"""GELU by its tanh approximation, with the gradient by hand: a logistic function costs a third of PyTorch's tanh on a CPU.

    gelu(x) = x/2 (1 + tanh u),  u = √(2/π) (x + 0.044715 x³)      (Hendrycks & Gimpel 2016, section 2)
            = x σ(2u)                                                since (1 + tanh u) / 2 = σ(2u)

The derivative is σ + x σ (1 - σ) (2u)′, with (2u)′ = 2 √(2/π) (1 + 3 · 0.044715 x²).
Left out: GELU by the error function, which PyTorch does fast. Read before: `by_hand.py`.
"""

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tiny_transformer import by_hand

SCALE = 2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715
FEWEST = 2**17
"""Numbers in x from which it pays."""

_plain = partial(F.gelu, approximate="tanh")


class GeluTanh(torch.autograd.Function):
    """x σ(2u), element by element. Keeps x and σ for the backward pass; each line is one pass over one piece of memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(…) to the same shape."""
        share = x * x
        torch.addcmul(x, share, x, value=CUBIC, out=share)  # x + 0.044715 x³
        share.mul_(SCALE).sigmoid_()  # σ(2u)
        ctx.save_for_backward(x, share)
        return share * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor | None:
        """dy · (σ + σ (1 - σ) · x (2u)′)."""
        x, share = ctx.saved_tensors
        if torch.is_grad_enabled():
            return by_hand.twice(_plain, (x,), gradient)[0]
        slope = x * x
        torch.addcmul(x, slope, x, value=3 * CUBIC, out=slope)  # x (2u)′, but for the scale
        torch.ops.aten.sigmoid_backward.grad_input(slope, share, grad_input=slope)  # · σ (1 - σ)
        return torch.add(share, slope, alpha=SCALE, out=slope).mul_(gradient)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation, as in GPT-2; in the form above while training on a CPU."""
    if by_hand.allowed(x, FEWEST):
        return GeluTanh.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    return _plain(x)


if __name__ == "__main__":
    x = torch.linspace(-4, 4, 9, requires_grad=True)
    y: Tensor = GeluTanh.apply(x)  # type: ignore[no-untyped-call]
    (dx,) = torch.autograd.grad(y.sum(), x)
    for name, row in (("x", x), ("gelu", y), ("slope", dx)):
        print(f"{name:6}", " ".join(f"{value:7.4f}" for value in row.tolist()))
    print(f"largest difference to PyTorch's: {(y - F.gelu(x, approximate='tanh')).abs().max():.1e}")
