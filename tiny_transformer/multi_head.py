"""Heads: several attentions side by side, each in a narrow space of its own.

Left out: where positions come from; the model prepares a rotation or a bias and hands it down.
Read before: `attention.py`, `kv_cache.py`, `linear.py`, `normalization.py` (for QK-norm).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tiny_transformer import attention
from tiny_transformer.config import ModelConfig
from tiny_transformer.kv_cache import LayerCache
from tiny_transformer.linear import Linear, side_by_side
from tiny_transformer.normalization import RMSNorm
from tiny_transformer.utils.shape_check import check_shape


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """(batch, seq, heads · d_head) to (batch, heads, seq, d_head).

    The width is cut first and the two middle dimensions are swapped after: a bare view to the result's shape would
    cut *time* into heads, with every shape right and every value wrong.
    """
    batch, seq, width = x.shape
    return x.view(batch, seq, n_heads, width // n_heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(batch, heads, seq, d_head) to (batch, seq, heads · d_head): the inverse of `split_heads`."""
    batch, heads, seq, d_head = x.shape
    return x.transpose(1, 2).reshape(batch, seq, heads * d_head)


def expand_kv(x: Tensor, times: int) -> Tensor:
    """(batch, kv_heads, seq, d_head) to (batch, kv_heads · times, seq, d_head): query head h uses head h // times.

    Grouped-query attention (Ainslie et al. 2023): several query heads share one key-value head.
    """
    if times == 1:
        return x
    batch, heads, seq, d_head = x.shape
    return x[:, :, None].expand(batch, heads, times, seq, d_head).reshape(batch, heads * times, seq, d_head)


class MultiHeadAttention(nn.Module):
    """Concat(head_1, …, head_h) W_O with head_i = Attention(x W_Q_i, x W_K_i, x W_V_i) (Vaswani et al. 2017, 3.2.2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, kv_width = config.n_heads * config.head_width, config.kv_heads * config.head_width
        qkv_bias = config.bias != "none"
        self.W_query = Linear(config.d_model, width, bias=qkv_bias)
        self.W_key = Linear(config.d_model, kv_width, bias=qkv_bias)
        self.W_value = Linear(config.d_model, kv_width, bias=qkv_bias)
        self.out_proj = Linear(width, config.d_model, bias=config.bias == "all")
        # Dehghani et al. 2023: bounded scores, so that no head can saturate its softmax.
        self.q_norm = RMSNorm(config.head_width, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_width, config.norm_eps) if config.qk_norm else None

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        rotate: Callable[[Tensor], Tensor] | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """(batch, seq, d_model) to (batch, seq, d_model).

        The config's own structure (causal, window) always holds; `mask` (bool, True = may look, (seq, key) or
        (batch, seq, key)) can only hide more. `bias` is added to the scores, `rotate` turns queries and keys (both hold
        positions), `cache` holds the keys and values of earlier calls.
        Raises ValueError for an x of another width, or a mask that is not boolean or does not fit.
        """
        check_shape(x, ("batch", "seq", self.config.d_model), "the input of attention")
        query, key, value = side_by_side(x, self.W_query, self.W_key, self.W_value)  # (batch, seq, heads · d_head)
        query = split_heads(query, self.config.n_heads)  # (batch, heads, seq, d_head)
        key = split_heads(key, self.config.kv_heads)  # (batch, kv_heads, seq, d_head)
        value = split_heads(value, self.config.kv_heads)  # (batch, kv_heads, seq, d_head)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        if rotate is not None:
            query, key = rotate(query), rotate(key)
        if cache is not None:
            key, value = cache.append(key, value)  # (batch, kv_heads, all so far, d_head)
        times = self.config.n_heads // self.config.kv_heads
        heads = attention.attend(
            query,
            expand_kv(key, times),
            expand_kv(value, times),
            causal=self.config.causal,
            window=self.config.window,
            mask=mask,
            bias=bias,
        )  # (batch, heads, seq, d_head)
        out: Tensor = self.out_proj(merge_heads(heads))  # (batch, seq, d_model)
        return out


if __name__ == "__main__":
    config = ModelConfig(d_model=64, n_heads=4, n_kv_heads=2)
    layer = MultiHeadAttention(config)
    x = torch.randn(2, 5, 64)
    print("x", tuple(x.shape), "split", tuple(split_heads(x, 4).shape), "merged", tuple(merge_heads(split_heads(x, 4)).shape))
    with attention.record_weights() as weights:
        print("out", tuple(layer(x).shape), "weights", tuple(weights[0].shape))
    print("head 0 of row 0:\n", weights[0][0, 0].round(decimals=2))
