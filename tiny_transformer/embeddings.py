"""Tokens and positions to vectors: learned, sinusoidal, rotary and ALiBi positions.

Learned and sinusoidal positions are *added* to the token vectors here; rotary turns queries and keys, ALiBi is added to
attention scores, and both are prepared here and handed down by the model. Read before: `config.py`.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from tiny_transformer.config import ModelConfig
from tiny_transformer.ngrams import ngram_rows
from tiny_transformer.normalization import make_norm


def sinusoidal_positions(n: int, d_model: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(the same) (Vaswani et al. 2017, 3.5). (n, d_model).

    Wavelengths grow from 2π to 10000 · 2π. Computed in float64 on the CPU, and rounded once, to `dtype`.

    >>> sinusoidal_positions(2, 4)[0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    position = torch.arange(n, dtype=torch.float64, device="cpu")[:, None]
    pair = torch.arange(0, d_model, 2, dtype=torch.float64, device="cpu")
    angle = position / 10_000.0 ** (pair / d_model)  # (n, ⌈d_model / 2⌉)
    out = torch.empty(n, d_model, dtype=torch.float64, device="cpu")
    out[:, 0::2] = angle.sin()
    out[:, 1::2] = angle.cos()[:, : d_model // 2]
    return out.to(dtype)


def rotary_frequencies(d_head: int, theta: float, scaling: dict[str, Any] | None = None) -> Tensor:
    """How fast each pair of numbers turns, in radians per position: theta^(-2i/d_head) (Su et al. 2021). (d_head / 2,) float64.

    `scaling` slows the turning for longer texts: "linear" divides every frequency (Chen et al. 2023); "llama3" divides the
    slow ones only, with a smooth passage between (Llama 3.1's rule).
    """
    pair = torch.arange(0, d_head, 2, dtype=torch.float64, device="cpu")
    frequencies: Tensor = theta ** (-pair / d_head)
    if scaling is None:
        return frequencies
    slow: Tensor = frequencies / scaling["factor"]
    if scaling["type"] == "linear":
        return slow
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)  # in the original context
    keep: Tensor = ((turns - low) / (high - low)).clamp(0, 1)  # 1: fast, left alone; 0: slow, stretched
    return keep * frequencies + (1 - keep) * slow


def rotation(positions: Tensor, frequencies: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position · frequency, for every pair: each (…, seq, d_head / 2), on the positions' device.

    positions (seq,), or (batch, seq) where rows begin at different places: those get a heads dimension, (batch, 1, seq, d_head / 2).
    Computed in float64 and rounded once, to `dtype`: a float32 angle of 1000 radians is wrong in the fifth digit already.
    """
    device = "cpu" if positions.device.type == "mps" else positions.device  # Apple's GPUs have no float64
    angle = positions[..., None].to(device, torch.float64) * frequencies.to(device)
    if positions.dim() == 2:
        angle = angle[:, None]
    return angle.cos().to(positions.device, dtype), angle.sin().to(positions.device, dtype)


def constants_dtype(weights: torch.dtype) -> torch.dtype:
    """The type of rotations and slopes: that of the weights, but at least float32 (bfloat16 has three digits)."""
    return torch.promote_types(weights, torch.float32)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i + d/2}) by their angles: x' = x cos - y sin, y' = x sin + y cos. (…, seq, d_head) to the same."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def apply_rotary(x: Tensor, positions: Tensor, theta: float = 10_000.0, scaling: dict[str, Any] | None = None) -> Tensor:
    """Rotary positions (Su et al. 2021, equation 34), pairing i with i + d/2 as Llama's weights do.

    Shapes: x (…, seq, d_head), positions (seq,), or (batch, seq) for an x of (batch, seq, d_head) or (batch, heads, seq, d_head).
    The product of a turned query and a turned key depends on the difference of their positions alone; lengths do not change.
    Raises ValueError for an odd d_head, or positions that do not belong to x.
    """
    positions = torch.as_tensor(positions, device=x.device)
    if x.size(-1) % 2:
        raise ValueError(f"d_head={x.size(-1)}: rotary positions turn pairs of numbers, so it must be even. Try d_head={x.size(-1) + 1}")
    one_each = positions.dim() in (1, 2) and positions.size(-1) == x.size(-2)
    if not one_each or (positions.dim() == 2 and (x.dim() < 3 or positions.size(0) not in (1, x.size(0)))):
        raise ValueError(
            f"positions have shape {tuple(positions.shape)} and x {tuple(x.shape)}: they must be ({x.size(-2)},) or (batch, {x.size(-2)}). "
            "Pass one position for each vector, torch.arange(seq) for a text from its start"
        )
    cos, sin = rotation(positions, rotary_frequencies(x.size(-1), theta, scaling), constants_dtype(x.dtype))
    if positions.dim() == 2 and x.dim() == 3:  # no heads
        cos, sin = cos[:, 0], sin[:, 0]
    return rotate(x, cos, sin)


def alibi_slopes(n_heads: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """One slope per head, a geometric sequence from 2^(-8/n) down to 2^-8 (Press et al. 2022, section 3). (heads,).

    Where n is no power of two: those of the next lower power, then every second one of the next higher.
    """

    def powers(n: int) -> list[float]:
        return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]

    lower = 2 ** math.floor(math.log2(n_heads))
    return torch.tensor((powers(lower) + powers(2 * lower)[0::2])[:n_heads], dtype=dtype)


def alibi_bias(slopes: Tensor, query_len: int, key_len: int) -> Tensor:
    """-slope · distance, to be added to scores: (heads, query, key); the queries are the last of the keys' positions."""
    keys = torch.arange(key_len, device=slopes.device)
    distance = (keys[key_len - query_len :, None] - keys[None, :]).abs()
    return -slopes[:, None, None] * distance


class Embeddings(nn.Module):
    """ids (batch, seq) to vectors (batch, seq, d_model): token + position (+ token type, norm), then dropout."""

    sinusoids: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocab_size, config.d_model)
        self.position = nn.Embedding(config.max_seq_len, config.d_model) if config.position == "learned" else None
        for order, rows in enumerate(config.ngram_rows, start=2):
            self.add_module(f"ngram{order}", nn.Embedding(rows, config.d_model))
        self.token_type = nn.Embedding(config.n_token_types, config.d_model) if config.n_token_types else None
        self.norm = make_norm(config) if config.n_token_types else None
        self.dropout = nn.Dropout(config.dropout)
        self.make_constants()

    def make_constants(self) -> None:
        """What the config alone determines, where the weights are and in their type."""
        if self.config.position == "sinusoidal":
            table = sinusoidal_positions(self.config.max_seq_len, self.config.d_model, self.token.weight.dtype)
            self.register_buffer("sinusoids", table.to(self.token.weight.device), persistent=False)

    def forward(self, ids: Tensor, positions: Tensor, token_types: Tensor | None = None, before: Tensor | None = None) -> Tensor:
        """ids and token_types (batch, seq); positions (seq,) or (batch, seq). Returns (batch, seq, d_model).

        `before` holds the tokens that stand before `ids`, (batch, len(ngram_rows)); without it nothing does.
        """
        x: Tensor = self.token(ids)
        if self.config.ngram_rows:
            x = x + self._ngrams(ids, positions, before)
        if self.config.position == "sinusoidal":
            x = x * math.sqrt(self.config.d_model) + self.sinusoids[positions]  # Vaswani et al. 2017, 3.4: tokens scaled up to match
        elif self.position is not None:
            x = x + self.position(positions)
        if self.token_type is not None:
            x = x + self.token_type(torch.zeros_like(ids) if token_types is None else token_types)
        if self.norm is not None:
            x = self.norm(x)
        out: Tensor = self.dropout(x)
        return out

    def _ngrams(self, ids: Tensor, positions: Tensor, before: Tensor | None) -> Tensor:
        """The vectors of the pairs, triples, … that end at each token: (batch, seq, d_model). Nothing where the text begins later."""
        most, seq = len(self.config.ngram_rows), ids.size(1)
        known = torch.cat((ids.new_zeros(ids.size(0), most) if before is None else before, ids), dim=1)
        newest_first = [known[:, most - back : most - back + seq] for back in range(most + 1)]
        total = torch.zeros((), dtype=self.token.weight.dtype, device=ids.device)
        for order, rows in enumerate(self.config.ngram_rows, start=2):
            vectors = self.get_submodule(f"ngram{order}")(ngram_rows(newest_first[:order], rows, self.config.vocab_size))
            total = total + vectors * (positions >= order - 1)[..., None]
        return total


if __name__ == "__main__":
    table = sinusoidal_positions(50, 64)
    print("sinusoidal", tuple(table.shape), "size of each:", f"{table.norm(dim=-1).mean():.2f}")
    query, key = torch.randn(8), torch.randn(8)
    for where in (0, 10):
        turned_query = apply_rotary(query[None], torch.tensor([where + 3]))
        turned_key = apply_rotary(key[None], torch.tensor([where]))
        print(f"rotary: query at {where + 3}, key at {where}: product {(turned_query @ turned_key.T).item():.5f}")
    print("alibi slopes of 8 heads", alibi_slopes(8).tolist())
    layer = Embeddings(ModelConfig(d_model=64))
    print("embeddings", tuple(layer(torch.zeros(2, 5, dtype=torch.long), torch.arange(5)).shape))
