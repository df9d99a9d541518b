"""Norms against PyTorch's, and against what a norm promises."""

import pytest
import torch
import torch.nn.functional as F

from tiny_transformer.config import ModelConfig
from tiny_transformer.normalization import LayerNorm, RMSNorm, layer_norm, make_norm, rms_norm
from tiny_transformer.utils.reference import reference_path


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 5, 8)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_layer_norm_equals_pytorch(shape, with_bias):
    x, weight, bias = 3 * torch.randn(shape) + 2, torch.randn(8), torch.randn(8) if with_bias else None
    torch.testing.assert_close(layer_norm(x, weight, bias, 1e-5), F.layer_norm(x, (8,), weight, bias, 1e-5))


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 5, 8)])
def test_rms_norm_equals_pytorch(shape):
    x, weight = 3 * torch.randn(shape) + 2, torch.randn(8)
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), F.rms_norm(x, (8,), weight, 1e-5))


@pytest.mark.parametrize("make", [lambda: LayerNorm(8), lambda: LayerNorm(8, bias=False), lambda: RMSNorm(8)])
def test_both_paths_agree_in_values_and_gradients(make):
    norm = make()
    torch.nn.init.normal_(norm.weight)
    results = []
    for readable in (False, True):
        x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        norm.zero_grad()
        if readable:
            with reference_path():
                norm(x).pow(3).sum().backward()
        else:
            norm(x).pow(3).sum().backward()
        results.append([x.grad, *(p.grad for p in norm.parameters())])
    for fused, readable in zip(*results, strict=True):
        torch.testing.assert_close(fused, readable, rtol=1e-4, atol=1e-5)


def test_layer_norm_ignores_shift_and_scale_and_rms_norm_ignores_scale_only():
    x = torch.randn(4, 16, dtype=torch.float64)
    ones = torch.ones(16, dtype=torch.float64)
    torch.testing.assert_close(layer_norm(5 * x + 3, ones, None, 0.0), layer_norm(x, ones, None, 0.0))
    torch.testing.assert_close(rms_norm(5 * x, ones, 0.0), rms_norm(x, ones, 0.0))
    assert not torch.allclose(rms_norm(x + 3, ones, 0.0), rms_norm(x, ones, 0.0))


def test_eps_is_inside_the_root():
    """A vector of zeros stays zero, and a tiny one is bounded by 1/√eps."""
    tiny = torch.tensor([1e-4, -1e-4])
    torch.testing.assert_close(layer_norm(tiny, torch.ones(2), None, 1e-8), tiny / (1e-8 + 1e-8) ** 0.5)
    assert torch.equal(rms_norm(torch.zeros(4), torch.ones(4), 1e-5), torch.zeros(4))


@pytest.mark.parametrize(("bias", "has_bias"), [("all", True), ("qkv", False), ("none", False)])
def test_the_config_decides(bias, has_bias):
    norm = make_norm(ModelConfig(bias=bias, norm_eps=1e-3))
    assert isinstance(norm, LayerNorm)
    assert (norm.bias is not None) == has_bias
    assert norm.eps == 1e-3
    assert isinstance(make_norm(ModelConfig(norm="rms")), RMSNorm)


@pytest.mark.parametrize("bias", ["all", "none"])
def test_a_config_says_width_epsilon_and_bias(bias):
    config = ModelConfig(d_model=12, norm_eps=1e-3, bias=bias)
    layer, rms = LayerNorm(config), RMSNorm(config)
    assert (layer.weight.shape, layer.eps, layer.bias is not None) == ((12,), 1e-3, bias == "all")
    assert (rms.weight.shape, rms.eps) == ((12,), 1e-3)
