"""Linear layers in the layout that the processor multiplies fastest, for as long as a text is written; several as one, if wished.

A product of one or a few rows with a large matrix, one per layer and token, is what generation consists of. PyTorch's usual
product reads the matrix as it lies; oneDNN's can read a copy that is rearranged once (that is what `torch.compile` does with
frozen weights): the same numbers up to rounding, in about three quarters of the time. It costs a second copy of the weights
while the text is written. Left out: GPUs, other number formats, the whole step in C (`native_step.py`). Read before: `quantized.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_transformer.feedforward import ACTIVATIONS
from tiny_transformer.linear import PLAIN
from tiny_transformer.quantized import Quantized, quantized_product
from tiny_transformer.quantized_layers import QuantizedLinear

FEWEST_TOKENS = 16
"""Below this the rearranging costs more than it gains."""
MOST_WEIGHTS = 250_000_000
"""Above this a second copy takes too much memory."""

FUSED = {"relu": ("relu", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh"), "swiglu": ("swish", ""), None: ("none", "")}
"""How oneDNN calls an activation that it can do on the way out."""

Forward = Callable[[Tensor], Tensor]
Onto = Callable[[Tensor, Tensor], Tensor]


def pack(model: nn.Module, rows: int, tokens: int) -> dict[nn.Module, Forward]:
    """A quicker forward for every linear layer of `model`, for inputs of `rows` rows; empty where it would not be quicker."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear) and type(module) in PLAIN]
    if not (worthwhile(model, tokens) and _packs()):
        return {}
    with torch.inference_mode():
        return {module: _packed_forward(module.weight, module.bias, rows) for module in linears}


def worthwhile(model: nn.Module, tokens: int) -> bool:
    """Whether preparing `model` pays for `tokens` tokens: many of them, not too many weights, and all in float32 on a processor."""
    modules = list(model.modules())
    size = sum(module.weight.numel() for module in modules if isinstance(module, nn.Linear) and type(module) in PLAIN)
    return tokens >= FEWEST_TOKENS and size <= MOST_WEIGHTS and all(
        weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in own_parameters(modules)
    )


def own_parameters(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """Those of these modules, but not of their parts: `parameters()` of a whole model walks through it again, at a token's price."""
    return (weight for module in modules for weight in module._parameters.values() if weight is not None)


def prepare(layers: Sequence[nn.Linear | QuantizedLinear], rows: int, activation: str | None = None) -> Forward:
    """What linear layers give for the same x, side by side, as one product: x (rows, in) to (rows, out of all together).

    `activation` is a name in `feedforward.ACTIVATIONS`; where oneDNN knows it, it costs no pass of its own.
    """
    matrix, bias = _join(layers)
    if isinstance(matrix, Tensor) and _packs():
        if activation in FUSED:
            return _packed_forward(matrix, bias, rows, *FUSED[activation])
        return _then(_packed_forward(matrix, bias, rows), activation)
    return _then(_unpacked(matrix, bias), activation)


def prepare_onto(layer: nn.Linear | QuantizedLinear, rows: int) -> Onto:
    """(x, stream) to stream + x Wᵀ + b, for a branch that ends in this layer: x (rows, in), stream and result (rows, out)."""
    matrix, bias = _join([layer])
    if isinstance(matrix, Tensor) and _packs():
        weight, linear = torch.ops.mkldnn._reorder_linear_weight(matrix, rows), torch.ops.mkldnn._linear_pointwise.binary
        return lambda x, stream: linear(x, stream, weight, bias, "add")
    forward = _unpacked(matrix, bias)
    return lambda x, stream: stream + forward(x)


@contextmanager
def applied(forwards: dict[nn.Module, Forward]) -> Iterator[None]:
    """Inside, the layers use these forwards instead of their own. Nothing of it is left in the layers afterwards."""
    for module, forward in forwards.items():
        module.__dict__["forward"] = forward  # an instance's own attribute goes before its class's method
    try:
        yield
    finally:
        for module in forwards:
            module.__dict__.pop("forward", None)


def _packed_forward(matrix: Tensor, bias: Tensor | None, rows: int, activation: str = "none", how: str = "") -> Forward:
    weight, linear = torch.ops.mkldnn._reorder_linear_weight(matrix.detach(), rows), torch.ops.mkldnn._linear_pointwise.default
    return lambda x: linear(x, weight, bias, activation, [], how)


def _join(layers: Sequence[nn.Linear | QuantizedLinear]) -> tuple[Tensor | Quantized, Tensor | None]:
    """The layers' matrices below each other, and their biases, if they have any."""
    biases: list[Tensor] = [layer.bias.detach() for layer in layers if layer.bias is not None]
    bias = torch.cat(biases) if biases else None
    rounded = [layer.quantized for layer in layers if isinstance(layer, QuantizedLinear)]
    if rounded:
        return Quantized(torch.cat([part.values for part in rounded]), torch.cat([part.scales for part in rounded])), bias
    return torch.cat([layer.weight.detach() for layer in layers if isinstance(layer, nn.Linear)]), bias


def _unpacked(matrix: Tensor | Quantized, bias: Tensor | None) -> Forward:
    return (lambda x: F.linear(x, matrix, bias)) if isinstance(matrix, Tensor) else quantized_product(matrix, bias)


def _then(forward: Forward, activation: str | None) -> Forward:
    bend = None if activation is None else ACTIVATIONS[activation]
    return forward if bend is None else lambda x: bend(forward(x))


@cache
def _packs() -> bool:
    """Whether this build of PyTorch has oneDNN, with the products used here."""
    try:
        with torch.inference_mode():
            return _packed_forward(torch.ones(1, 1), None, 1)(torch.ones(1, 1)).item() == 1
    except (AttributeError, RuntimeError):
        return False


if __name__ == "__main__":
    layer, x = nn.Linear(384, 1536), torch.randn(16, 1, 384)
    forwards = pack(nn.Sequential(layer), rows=16, tokens=100)
    with torch.inference_mode():
        plain = layer(x)
        with applied(forwards):
            packed = layer(x)
    print("x", tuple(x.shape), "out", tuple(packed.shape), "layers packed", len(forwards))
    print(f"the two differ by at most {(plain - packed).abs().max():.1e}")
