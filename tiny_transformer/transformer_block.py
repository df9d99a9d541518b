"""One layer: attention gathers from other positions, the feed-forward network works on each.

Read before: `multi_head.py`, `normalization.py`, `feedforward.py`.
"""

from collections.abc import Callable
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_transformer.config import ModelConfig, NormPosition
from tiny_transformer.feedforward import FeedForward
from tiny_transformer.kv_cache import LayerCache
from tiny_transformer.multi_head import MultiHeadAttention
from tiny_transformer.normalization import make_norm


class TransformerBlock(nn.Module):
    """Two branches added to a residual stream.

    pre:  x = x + attention(norm1(x));  x = x + feedforward(norm2(x))   (GPT-2; Xiong et al. 2020)
    post: x = norm1(x + attention(x));  x = norm2(x + feedforward(x))   (Vaswani et al. 2017)

    Pre-norm leaves the stream itself untouched, so gradients reach the first layer unscaled and no warm-up is needed to
    survive the first steps; post-norm is what the 2017 paper and BERT did.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre = config.norm_position == "pre"
        self.norm1 = make_norm(config)
        self.attention = MultiHeadAttention(config)
        self.norm2 = make_norm(config)
        self.feedforward = FeedForward(config)
        self.dropout_rate = config.dropout

    def dropout(self, branch: Tensor) -> Tensor:
        """Zero the config's share of a branch while training, and scale up the rest so that the mean stays."""
        return F.dropout(branch, self.dropout_rate) if self.training and self.dropout_rate else branch

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        rotate: Callable[[Tensor], Tensor] | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """(batch, seq, d_model) to (batch, seq, d_model); the other arguments are `MultiHeadAttention`'s."""
        if self.pre:
            x = x + self.dropout(self.attention(self.norm1(x), mask, bias=bias, rotate=rotate, cache=cache))
            x = x + self.dropout(self.feedforward(self.norm2(x)))
            return x
        x = self.norm1(x + self.dropout(self.attention(x, mask, bias=bias, rotate=rotate, cache=cache)))
        x = self.norm2(x + self.dropout(self.feedforward(x)))
        return x


if __name__ == "__main__":
    for place in get_args(NormPosition):
        block = TransformerBlock(ModelConfig(d_model=64, n_heads=4, norm_position=place))
        x = torch.randn(2, 5, 64) * 3
        out = block(x)
        print(f"{place:4} {tuple(x.shape)} -> {tuple(out.shape)}  size of a vector: {x.std():.2f} -> {out.std():.2f}")
