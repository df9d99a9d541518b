"""The feed-forward network against its formula, for every activation."""

import pytest
import torch
import torch.nn.functional as F

from tiny_transformer.config import ModelConfig
from tiny_transformer.feedforward import ACTIVATIONS, FeedForward

FORMULAS = {
    "relu": lambda x: x.clamp(min=0),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "relu2": lambda x: torch.where(x > 0, x * x, 0.0),
    "swiglu": lambda x: x / (1 + torch.exp(-x)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_their_formulas(name):
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name](x), FORMULAS[name](x))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("bias", ["all", "none"])
def test_network_is_down_of_activation_of_up(name, bias):
    layer = FeedForward(ModelConfig(d_model=12, activation=name, bias=bias))
    x = torch.randn(2, 5, 12)
    inside = F.linear(x, layer.up.weight, layer.up.bias)
    inside = FORMULAS[name](F.linear(x, layer.gate.weight, layer.gate.bias)) * inside if name == "swiglu" else FORMULAS[name](inside)
    torch.testing.assert_close(layer(x), F.linear(inside, layer.down.weight, layer.down.bias))
    assert (layer.up.bias is not None) == (bias == "all")


def test_each_position_is_on_its_own():
    layer = FeedForward(ModelConfig(d_model=12))
    x = torch.randn(2, 5, 12)
    changed = x.clone()
    changed[0, 3] += 1
    different = (layer(x) != layer(changed)).any(-1)
    assert different.nonzero().tolist() == [[0, 3]]
