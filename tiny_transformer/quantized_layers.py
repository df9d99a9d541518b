"""Linear layers whose weights are in few bits, and models made of them: for writing, measuring, and training what lies upon them.

    y = x Wᵀ + b        W is kept in few bits only; some rows at a time are unpacked, used and forgotten
    dx = dy W           the gradient of the input; the frozen W has none

So a large model fits, and something small that is trained beside a layer (low-rank matrices: Hu et al. 2021, "LoRA"; on four bits:
Dettmers et al. 2023, "QLoRA") gets its gradient through it. Such a layer says `in_features`, `out_features`, `bias`, `dequantize()`.
What is looked up, or small, stays as it is: embeddings, output layer, norms and biases. Left out: files (`numpy_engine/checkpoint.py`,
`run.py`). Read before: `quantized.py`, `nf4.py`, `unfilled.py`.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tiny_transformer.config import ModelConfig
from tiny_transformer.linear import PLAIN
from tiny_transformer.model import TinyTransformerLM, check_weights
from tiny_transformer.nf4 import Nf4, quantize_nf4
from tiny_transformer.quantized import Quantized, chunks, quantize, quantized_product
from tiny_transformer.rounded_weights import BLOCK, Rounding, Stored
from tiny_transformer.unfilled import take, without_memory
from tiny_transformer.utils.given_back import give_back

Packed = Quantized | Nf4
"""A matrix in few bits: `shape`, `nbytes`, `dequantize(dtype, rows)`, `stored()`."""


def pack(weight: Tensor, rounding: Rounding) -> Packed:
    """Round a matrix (out, in). Raises ValueError for anything but a finite one."""
    if rounding.bits == 8:
        return quantize(weight, block=rounding.block)
    return quantize_nf4(weight, rounding.block or BLOCK, double=rounding.double)


def from_stored(stored: Stored) -> Packed:
    """What lay in a file, in the same memory."""
    parts = [None if part is None else torch.from_numpy(part) for part in (stored.values, stored.scales, stored.second, stored.mean)]
    values, scales, second, mean = parts
    assert values is not None and scales is not None
    return Quantized(values, scales) if stored.bits == 8 else Nf4(values, scales, stored.shape[1], second, mean)


# ------------------------------------------------------------ products


class FrozenProduct(torch.autograd.Function):
    """x Wᵀ with W in few bits: x (n, in) to (n, out). W is unpacked some rows at a time, forwards and again backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Packed) -> Tensor:
        """(n, in) to (n, out)."""
        ctx.matrix = matrix
        out, columns = matrix.shape
        y = x.new_empty(len(x), out)
        for rows in chunks(out, columns):
            y[:, rows] = x @ matrix.dequantize(x.dtype, rows).mT
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """dx = dy W, summed over the rows of W."""
        matrix: Packed = ctx.matrix
        parts = (gradient[:, rows] @ matrix.dequantize(gradient.dtype, rows) for rows in chunks(*matrix.shape))
        return sum(parts, start=gradient.new_zeros(len(gradient), matrix.shape[1])), None


class RoundedLinear(nn.Module):
    """y = x Wᵀ + b with W in few bits. (…, in) to (…, out). Frozen: neither W nor b gets a gradient, x does."""

    in_features: int
    out_features: int
    bias: nn.Parameter | None

    def __init__(self, matrix: Packed, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = matrix.shape
        for name, part in matrix._asdict().items():
            if name != "columns":
                self.register_buffer(name, part)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    @property
    def quantized(self) -> Packed:
        """The matrix."""
        raise NotImplementedError

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The whole matrix as numbers: (out, in)."""
        return self.quantized.dequantize(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        y = self.product(x.reshape(-1, self.in_features))
        return y.view(*x.shape[:-1], self.out_features)

    def product(self, x: Tensor) -> Tensor:
        """(n, in) to (n, out)."""
        y: Tensor = FrozenProduct.apply(x, self.quantized)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class QuantizedLinear(RoundedLinear):
    """In eight bits. Where no gradient is asked for, the product is PyTorch's own for whole numbers."""

    values: Tensor
    scales: Tensor

    @property
    def quantized(self) -> Quantized:
        """The matrix."""
        return Quantized(self.values, self.scales)

    def product(self, x: Tensor) -> Tensor:
        """(n, in) to (n, out)."""
        if torch.is_grad_enabled() and x.requires_grad:
            return super().product(x)
        return quantized_product(self.quantized, self.bias)(x)


class Nf4Linear(RoundedLinear):
    """In four bits."""

    values: Tensor
    scales: Tensor
    second: Tensor | None
    mean: Tensor | None

    @property
    def quantized(self) -> Nf4:
        """The matrix."""
        return Nf4(self.values, self.scales, self.in_features, self.second, self.mean)


def layer_of(matrix: Packed, bias: Tensor | None = None) -> QuantizedLinear | Nf4Linear:
    """The layer of a matrix."""
    return QuantizedLinear(matrix, bias) if isinstance(matrix, Quantized) else Nf4Linear(matrix, bias)


# ------------------------------------------------------------ models


def linear_weights(model: nn.Module) -> list[str]:
    """The public names of the weights that can be rounded: those of the linear layers, but not embeddings and output layer."""
    return [f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and type(layer) in PLAIN]


def quantize_model(model: TinyTransformerLM, rounding: Rounding | int = 8) -> TinyTransformerLM:
    """A copy of `model`, in evaluation mode, with its linear layers rounded, to so many bits or as `rounding` says.

    The model itself is left alone. The copy's `weights()` are those that were not rounded.

    >>> TextGenerator(quantize_model(model), tokenizer).generate("ROMEO:")                # doctest: +SKIP
    """
    rounding = Rounding(bits=rounding) if isinstance(rounding, int) else rounding
    small = copy.deepcopy(model).eval()
    for name in rounding.chosen(linear_weights(small)):
        layer = small.get_submodule(name.removesuffix(".weight"))
        assert isinstance(layer, nn.Linear)
        small.set_submodule(name.removesuffix(".weight"), layer_of(pack(layer.weight, rounding), layer.bias))
    return small


Seen = Callable[[str, Tensor, Packed], None]
"""Told of each rounded weight: its name, as it was, as it is."""


def round_each(
    weights: Iterable[tuple[str, Tensor]], chosen: Iterable[str], rounding: Rounding, seen: Seen | None = None
) -> tuple[dict[str, Tensor], dict[str, Packed]]:
    """Weights one after the other: those that stay as they are, and those of the `chosen` names, rounded.

    Raises ValueError, with the name, for one that holds no finite numbers.
    """
    plain: dict[str, Tensor] = {}
    small: dict[str, Packed] = {}
    names = set(chosen)
    for name, weight in weights:
        if name not in names:
            plain[name] = weight
            continue
        try:
            small[name] = pack(weight, rounding)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if seen is not None:
            seen(name, weight, small[name])
        give_back()
    return plain, small


def assemble(config: ModelConfig, weights: Mapping[str, Tensor], rounded: Mapping[str, Packed]) -> TinyTransformerLM:
    """The model (in evaluation mode) of weights and rounded weights: the tensors themselves, nothing is copied.

    Raises ValueError where they do not fit the config, with all differences.
    """
    model = without_memory(config)
    shapes = {**{name: tuple(t.shape) for name, t in weights.items()}, **{name: matrix.shape for name, matrix in rounded.items()}}
    check_weights({name: tuple(tensor.shape) for name, tensor in model.weights().items()}, shapes)
    for name, matrix in rounded.items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"{name} is in few bits: only linear layers can be. Take another checkpoint")
        model.set_submodule(name.removesuffix(".weight"), layer_of(matrix, layer.bias))
    parts = {name: part for name, part in model.state_dict().items() if not part.is_meta}
    take(model, {**parts, **weights})
    return model.eval()


def rounded_weights(model: nn.Module) -> Iterator[tuple[str, Packed]]:
    """What a model has in few bits, by public name."""
    for name, layer in model.named_modules():
        if isinstance(layer, RoundedLinear):
            yield f"{name}.weight", layer.quantized


def weight_bytes(model: nn.Module) -> int:
    """All that a model holds in memory, in bytes; what is used twice counts once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


if __name__ == "__main__":
    model = TinyTransformerLM(ModelConfig(d_model=64), seed=0)
    ids = torch.arange(12)[None]
    for rounding in (Rounding(bits=8), Rounding(bits=4), Rounding(bits=4, double=True), Rounding(bits=4, keep=("*.down.weight",))):
        small = quantize_model(model, rounding)
        error = (model(ids) - small(ids)).abs().max()
        print(f"{weight_bytes(model):,} -> {weight_bytes(small):,} bytes, logits differ by {error:.1e}: {rounding}")
    layer, x = layer_of(quantize_nf4(torch.randn(6, 64))), torch.randn(2, 64, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    print("x", tuple(x.shape), "its gradient is the sum of W's rows:", torch.allclose(x.grad[0], layer.dequantize().sum(0), atol=1e-5))
