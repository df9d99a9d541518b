"""The feed-forward network: what each position works out for itself, after attention has gathered.

Read before: `linear.py`. It never mixes positions.
"""

from collections.abc import Callable
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_transformer.config import Activation, ModelConfig
from tiny_transformer.gelu_by_hand import gelu_tanh
from tiny_transformer.linear import Linear


def relu2(x: Tensor) -> Tensor:
    """Squared ReLU: max(0, x)² (So et al. 2021, "Primer")."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu2": relu2,
    "swiglu": F.silu,  # the gate's non-linearity
}


def feed_forward(
    x: Tensor,
    up: Callable[[Tensor], Tensor],
    down: Callable[[Tensor], Tensor],
    activation: Callable[[Tensor], Tensor],
    gate: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """down(activation(up(x))), or with a gate down(activation(gate(x)) · up(x)) (Shazeer 2020, equation 5).

    Shapes: x (…, d_model); up and gate lead to (…, d_ff); down leads back to (…, d_model).
    """
    if gate is None:
        return down(activation(up(x)))
    return down(activation(gate(x)) * up(x))


class FeedForward(nn.Module):
    """The per-position network of one block: widen, bend, narrow (Vaswani et al. 2017, 3.3). (batch, seq, d_model) to the same."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bias = config.bias == "all"
        self.activation = ACTIVATIONS[config.activation]
        self.up = Linear(config.d_model, config.ff_width, bias=bias)
        self.gate = Linear(config.d_model, config.ff_width, bias=bias) if config.activation == "swiglu" else None
        self.down = Linear(config.ff_width, config.d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return feed_forward(x, self.up, self.down, self.activation, self.gate)


if __name__ == "__main__":
    for activation in get_args(Activation):
        layer = FeedForward(ModelConfig(d_model=64, activation=activation))
        x = torch.randn(2, 5, 64)
        size = sum(p.numel() for p in layer.parameters())
        print(f"{activation:10} {tuple(x.shape)} -> {tuple(layer(x).shape)}  inside {layer.up.out_features}, {size:,} parameters")
