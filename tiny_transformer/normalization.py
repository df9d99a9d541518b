"""Norms: each position's vector brought to a standard size before the next part reads it.

Read before: nothing. Every norm here works on the last dimension, position by position; it never mixes positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_transformer.config import ModelConfig
from tiny_transformer.utils.reference import is_reference


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """y = (x - mean) / √(variance + eps) · weight + bias over the last dimension (Ba et al. 2016). Shapes: (…, d) to (…, d).

    The variance divides by d, not d - 1.

    >>> layer_norm(torch.tensor([1.0, 3.0]), torch.ones(2), None, eps=0.0).tolist()
    [-1.0, 1.0]
    """
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    normalised = (x - mean) / torch.sqrt(variance + eps) * weight
    return normalised if bias is None else normalised + bias


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """y = x / √(mean of x² + eps) · weight over the last dimension (Zhang & Sennrich 2019). Shapes: (…, d) to (…, d).

    >>> rms_norm(torch.tensor([3.0, 4.0]), torch.ones(2), eps=0.0).square().mean().item()
    1.0
    """
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * weight


class LayerNorm(nn.Module):
    """Layer norm with learned gain and, where `bias`, learned shift (Ba et al. 2016). (…, d_model) to (…, d_model).

    Made from a width, or from a config, which says all three.
    """

    def __init__(self, d_model: int | ModelConfig, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        if isinstance(d_model, ModelConfig):
            eps, bias, d_model = d_model.norm_eps, d_model.bias == "all", d_model.d_model
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if is_reference():
            return layer_norm(x, self.weight, self.bias, self.eps)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """RMS norm with learned gain (Zhang & Sennrich 2019). (…, d_model) to (…, d_model). Made from a width, or from a config."""

    def __init__(self, d_model: int | ModelConfig, eps: float = 1e-5) -> None:
        super().__init__()
        if isinstance(d_model, ModelConfig):
            eps, d_model = d_model.norm_eps, d_model.d_model
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if is_reference():
            return rms_norm(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)  # under autocast x may be a bfloat16


def make_norm(config: ModelConfig) -> nn.Module:
    """The norm that `config` names, over d_model."""
    return RMSNorm(config) if config.norm == "rms" else LayerNorm(config)


if __name__ == "__main__":
    hidden = torch.randn(2, 5, 64) * 3 + 1
    for norm in (LayerNorm(64), RMSNorm(64)):
        out = norm(hidden)
        print(
            f"{type(norm).__name__:9} {tuple(hidden.shape)} -> {tuple(out.shape)}",
            f"mean {out[0, 0].mean():+.3f}  root mean square {out[0, 0].square().mean().sqrt():.3f}",
        )
