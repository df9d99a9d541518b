"""Linear layers in the layout that the processor multiplies fastest, for as long as a text is written.

A product of one or a few rows with a large matrix, one per layer and token, is what generation consists of. PyTorch's usual
product reads the matrix as it lies; oneDNN's can read a copy that is rearranged once (that is what `torch.compile` does with
frozen weights): the same numbers up to rounding, in about three quarters of the time. It costs a second copy of the weights
while the text is written. Left out: GPUs, other number formats. Read before: nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

FEWEST_TOKENS = 16
"""Below this the rearranging costs more than it gains."""
MOST_WEIGHTS = 250_000_000
"""Above this a second copy takes too much memory."""

Forward = Callable[[Tensor], Tensor]


def pack(model: nn.Module, rows: int, tokens: int) -> dict[nn.Module, Forward]:
    """A quicker forward for every linear layer of `model`, for inputs of `rows` rows; empty where it would not be quicker."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    size = sum(module.weight.numel() for module in linears)
    plain = all(module.weight.device.type == "cpu" and module.weight.dtype == torch.float32 for module in linears)
    if tokens < FEWEST_TOKENS or size > MOST_WEIGHTS or not plain:
        return {}
    try:
        with torch.inference_mode():
            return {module: _packed_forward(module, rows) for module in linears}
    except (AttributeError, RuntimeError):  # a build of PyTorch without oneDNN
        return {}


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


def _packed_forward(layer: nn.Linear, rows: int) -> Forward:
    weight, bias = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows), layer.bias
    linear = torch.ops.mkldnn._linear_pointwise
    return lambda x: linear(x, weight, bias, "none", [], "")


if __name__ == "__main__":
    layer, x = nn.Linear(384, 1536), torch.randn(16, 1, 384)
    forwards = pack(nn.Sequential(layer), rows=16, tokens=100)
    with torch.inference_mode():
        plain = layer(x)
        with applied(forwards):
            packed = layer(x)
    print("x", tuple(x.shape), "out", tuple(packed.shape), "layers packed", len(forwards))
    print(f"the two differ by at most {(plain - packed).abs().max():.1e}")
