"""Linear layers, and several of them in one product.

`Linear` is PyTorch's, with a second form for training on a CPU: oneDNN's product instead of the usual one, forwards and for
the gradient of the input. Where the processor is not Intel's, the usual library does not use its widest instructions: on two cores of
an AMD EPYC oneDNN's product of a model's matrices is 1.11 to 1.23 times as fast (2026-11-21, `python -m benchmarks.products products`).
Left out: products that read packed weights (`sampling/packed.py`). Read before: `by_hand.py`.
"""

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_transformer import by_hand

FEWEST = 2**17
"""Numbers in x from which the product by hand may pay. `python -m benchmarks.products linear`, two cores, 2026-11-21, twice, with other
programs at work: a whole step is 0.95 and 0.94 times as fast with it at 98,304 numbers, 1.03 and 1.01 at 262,144, 1.05 and 1.05 at
393,216; only one of the quartile ranges (1.01 to 1.08, of the last) leaves 1 out."""


def _onednn() -> Any:
    """oneDNN's linear operation, or None in a build of PyTorch without it."""
    try:
        return torch.ops.mkldnn._linear_pointwise.default if torch.backends.mkldnn.is_available() else None  # type: ignore[no-untyped-call]
    except AttributeError:
        return None


_PRODUCT = _onednn()


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b. Shapes: x (n, width in), weight (width out, width in), bias (width out,). Not recorded for gradients."""
    if _PRODUCT is None or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    out: Tensor = _PRODUCT(x, weight, bias, "none", [], "")
    return out


def linears(x: Tensor, *parts: Tensor | None) -> Tensor:
    """x W₁ᵀ + b₁, x W₂ᵀ + b₂, … side by side, in PyTorch's own operations. `parts` are all weights, then all biases (None: none)."""
    half = len(parts) // 2
    return torch.cat([F.linear(x, weight, bias) for weight, bias in zip(parts[:half], parts[half:], strict=True) if weight is not None], -1)


class LinearsByHand(torch.autograd.Function):
    """`linears` as one product: y = x Wᵀ + b for the matrices on top of each other.

    With the gradient dy of y: dx = dy W, dW = dyᵀ x, db = sum of dy's rows; the parts of W and b get their own rows of them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parts: Tensor | None) -> Tensor:
        """(…, width in) to (…, all widths out)."""
        half = len(parts) // 2
        weights, biases = [w for w in parts[:half] if w is not None], [b for b in parts[half:] if b is not None]
        weight = weights[0] if half == 1 else torch.cat(weights)
        bias = None if not biases else biases[0] if half == 1 else torch.cat(biases)
        ctx.save_for_backward(weight, x, *parts)
        return product(x.reshape(-1, x.size(-1)), weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x and of each part."""
        weight, x, *parts = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants to differentiate this once more
            return by_hand.twice(linears, (x, *parts), gradient)
        half = len(parts) // 2
        weights, biases = parts[:half], parts[half:]
        rows = gradient.reshape(-1, gradient.size(-1))  # (n, all widths out)
        sizes = [w.size(0) for w in weights]
        dx = product(rows, weight.mT).view(x.shape) if ctx.needs_input_grad[0] else None
        dweights: tuple[Tensor | None, ...] = (None,) * half
        dbiases: tuple[Tensor | None, ...] = (None,) * half
        if any(ctx.needs_input_grad[1 : 1 + half]):
            dweight = rows.mT @ x.reshape(-1, x.size(-1))
            dweights = (dweight,) if half == 1 else torch.split(dweight, sizes)
        if any(b is not None for b in biases):
            dbias = rows.sum(0)
            dbiases = (dbias,) if half == 1 else torch.split(dbias, sizes)
        return (dx, *dweights, *dbiases)


class Linear(nn.Linear):
    """y = x Wᵀ + b: (…, in_features) to (…, out_features)."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if by_hand.allowed(x, FEWEST):
            return LinearsByHand.apply(x, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]
        return F.linear(x, self.weight, self.bias)


PLAIN = (nn.Linear, Linear)
"""The exact types whose equation is x Wᵀ + b; a class derived from them may compute anything."""


def side_by_side(x: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """What each of `layers` makes of the same x; in training or compiled on a CPU as one product, where they are plain linear layers.

    All of them have a bias, or none has.
    """
    plain = [layer for layer in layers if _is_plain(layer)]
    compiling = torch.compiler.is_compiling() and x.device.type == "cpu"
    if not (compiling or by_hand.allowed(x)) or len(plain) < len(layers):
        return tuple(layer(x) for layer in layers)
    weights, biases = [layer.weight for layer in plain], [layer.bias for layer in plain]
    if by_hand.allowed(x, FEWEST):
        together = LinearsByHand.apply(x, *weights, *biases)  # type: ignore[no-untyped-call]
    else:
        together = F.linear(x, torch.cat(weights), None if biases[0] is None else torch.cat(biases))  # type: ignore[arg-type]
    return tuple(torch.split(together, [weight.size(0) for weight in weights], -1))


def _is_plain(layer: nn.Module) -> TypeGuard[Linear]:
    """A `Linear` that nobody has changed or listens to."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is Linear and "forward" not in layer.__dict__ and not any(hooks)


if __name__ == "__main__":
    x = torch.randn(2, 5, 64)
    first, second = Linear(64, 32), Linear(64, 16)
    FEWEST = 0  # however small
    one, other = side_by_side(x, first, second)
    print("x", tuple(x.shape), "to", tuple(one.shape), "and", tuple(other.shape), "in one product")
    with torch.no_grad():
        print(f"apart they differ by at most {max((one - first(x)).abs().max(), (other - second(x)).abs().max()):.1e}")
