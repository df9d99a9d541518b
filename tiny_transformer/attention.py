"""Scaled dot-product attention and its masks: who may look at whom, and what they see.

Left out: heads (`multi_head.py`), the memory of earlier keys and values (`kv_cache.py`).
Read before: `utils/shape_check.py`. Masks are boolean here and everywhere: True = may look.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from tiny_transformer import attention_products
from tiny_transformer.utils.reference import TraceableVar, is_reference

_recorder: TraceableVar[list[Tensor] | None] = TraceableVar("attention_weights", default=None)
MOST_COMPILED = 512
"""Up to this length torch.compile gets the plain formula on a CPU: it fuses all but the products. `python -m benchmarks.products compiled`,
two cores, 2026-11-21: a compiled step at 4 × 192, context 128 is 1.33 times as fast with it as with the fused kernel in bfloat16 (quartiles
1.31 to 1.37), and in float32 no faster (0.92 and 0.95). Above, the weights take much memory."""


def create_causal_mask(seq_len: int, device: torch.device | str | None = None) -> Tensor:
    """The mask of a model that reads left to right: (seq, seq) bool, True on and below the diagonal.

    >>> create_causal_mask(3).int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return torch.ones(seq_len, seq_len, dtype=torch.bool, device=device).tril()


def structure_mask(
    query_len: int, key_len: int, *, causal: bool, window: int | None, device: torch.device | str | None = None
) -> Tensor | None:
    """What a model's architecture allows: (query, key) bool, or None where everything is allowed.

    The queries stand at the last `query_len` of the `key_len` positions, as they do in cached generation.
    `window` is how many positions a query sees on each side it may look at, its own included
    (Beltagy et al. 2020, "Longformer", section 3.1).
    """
    if not causal and window is None:
        return None
    keys = torch.arange(key_len, device=device)
    queries = torch.arange(key_len - query_len, key_len, device=device)
    distance = queries[:, None] - keys[None, :]  # (query, key), how far back the key lies
    allowed = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        allowed &= distance >= 0
    if window is not None:
        allowed &= distance.abs() < window
    return allowed


def check_mask(mask: Tensor) -> None:
    """Raise ValueError unless `mask` is boolean: zeros and ones *added* to scores hide nothing, and no shape test sees it."""
    if mask.dtype != torch.bool:
        raise ValueError(
            f"the attention mask has dtype {mask.dtype}: it must be torch.bool with True = may look. "
            "Pass mask.bool() if 1 meant 'may look', or (mask == 0) if it held 0 and -inf"
        )


def fit_mask(mask: Tensor, scores: tuple[int, ...]) -> Tensor:
    """`mask`, made to broadcast to scores of shape (batch, heads, query, key): (batch, query, key) gets its heads dimension.

    Raises ValueError for a mask that is not boolean or does not fit.
    """
    check_mask(mask)
    shape = tuple(mask.shape)
    if mask.dim() == 3 and len(scores) == 4:
        mask = mask[:, None]  # (batch, 1, query, key): the same for every head
    if mask.dim() > len(scores) or any(size not in (1, must) for size, must in zip(mask.shape[::-1], scores[::-1], strict=False)):
        raise ValueError(
            f"the attention mask has shape {shape}: it must be (query, key) = {tuple(scores[-2:])}, or have (batch, query, key) and "
            f"broadcast to the scores {tuple(scores)}. A padding mask (batch, key) fits as mask[:, None, :]"
        )
    return mask


def join_masks(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Where both allow it. Shapes broadcast; (batch, query, key) masks get their heads dimension here."""
    if second is not None:
        check_mask(second)
    first, second = (m[:, None] if m is not None and m.dim() == 3 else m for m in (first, second))
    if first is None or second is None:
        return second if first is None else first
    return first & second


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention(Q, K, V) = softmax(Q Kᵀ / √d_head) V (Vaswani et al. 2017, equation 1): the reference.

    Shapes: query (…, query, d_head), key (…, key, d_head), value (…, key, d_value).
    `mask` is boolean, True = may look: (query, key), (batch, query, key) or anything that broadcasts to the scores.
    `bias` is added to the scores before the softmax (ALiBi), and broadcasts to (…, query, key).
    Returns output (…, query, d_value) and weights (…, query, key). Each row of weights sums to 1; a row that may
    look nowhere is all zeros.

    Worked by hand: q = 1, keys (0, ln 2, ln 3), values (6, 12, 18) give scores (0, ln 2, ln 3),
    weights (1/6, 1/3, 1/2) and output 1 + 4 + 9 = 14.

    >>> key, value = torch.tensor([1.0, 2.0, 3.0]).log()[:, None], torch.tensor([[6.0], [12.0], [18.0]])
    >>> output, weights = scaled_dot_product_attention(torch.ones(1, 1), key, value)
    >>> round(output.item(), 4)
    14.0

    Raises ValueError for a mask that is not boolean, or whose shape does not fit.
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))  # (…, query, key)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if mask is None:
        weights = torch.softmax(scores, dim=-1)
        return weights @ value, weights
    mask = fit_mask(mask, scores.shape)
    # Before the softmax, so that what is hidden takes no share. The lowest finite number instead of -inf keeps a
    # row with nothing to see free of 0/0; such a row is set to zero afterwards.
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1).masked_fill(~mask, 0.0)
    return weights @ value, weights


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool,
    window: int | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Attention as the model runs it: the structure (causal, window) joined with an extra mask; fused where that is equal.

    Shapes as above with (batch, heads, seq, d_head); queries are the last of the keys' positions. Returns the output only.
    Inside `record_weights()` or `reference_path()` the readable function above does the work.
    """
    if mask is not None:
        mask = fit_mask(mask, (*query.shape[:-1], key.size(-2)))
    recorder = _recorder.get()
    if recorder is None and not is_reference():
        return _fused(query, key, value, causal=causal, window=window, mask=mask, bias=bias)
    structure = structure_mask(query.size(-2), key.size(-2), causal=causal, window=window, device=query.device)
    output, weights = scaled_dot_product_attention(query, key, value, join_masks(structure, mask), bias)
    if recorder is not None:
        recorder.append(weights.detach())
    return output


def attend_in_parts(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention; from some length on the first half of the queries meets the first half of the keys only, and a quarter of the
    products is left out (`attention_products.parts_of`).

    Shapes (…, seq, d_head) each, to the same.
    """
    outputs = []
    for begin, end in attention_products.parts_of(query.size(-2)):
        mask = structure_mask(end - begin, end, causal=True, window=None, device=query.device)
        outputs.append(scaled_dot_product_attention(query[..., begin:end, :], key[..., :end, :], value[..., :end, :], mask)[0])
    return torch.cat(outputs, dim=-2)


def _fused(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, window: int | None, mask: Tensor | None, bias: Tensor | None
) -> Tensor:
    """The same through PyTorch's fused kernel, with the cheapest description of the mask that says the same."""
    queries, keys = query.size(-2), key.size(-2)
    if window is not None and window >= keys:
        window = None
    plain = window is None and mask is None and bias is None
    if plain and (not causal or queries == 1):  # one query at the end of the keys sees all of them
        return F.scaled_dot_product_attention(query, key, value)
    if plain and queries == keys and keys <= MOST_COMPILED and torch.compiler.is_compiling() and query.device.type == "cpu":
        return attend_in_parts(query, key, value)
    if plain and queries == keys and attention_products.pay(query, key, value):
        return attention_products.attend_causal(query, key, value)
    if plain and queries == keys:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    structure = (
        None
        if causal and queries == 1 and window is None
        else structure_mask(queries, keys, causal=causal, window=window, device=query.device)
    )
    allowed = join_masks(structure, mask)
    if bias is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
    scores_bias = bias.to(query.dtype)
    if allowed is not None:
        scores_bias = scores_bias.masked_fill(~allowed, -math.inf)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=scores_bias)


@contextmanager
def record_weights() -> Iterator[list[Tensor]]:
    """Collect the attention weights of any model that runs inside, without changing the model.

    Yields a list that receives one (batch, heads, query, key) tensor per layer, first layer first.

    >>> with record_weights() as weights:                                   # doctest: +SKIP
    ...     model(ids)
    """
    weights: list[Tensor] = []
    token = _recorder.set(weights)
    try:
        yield weights
    finally:
        _recorder.reset(token)


def is_recording() -> bool:
    """True inside `with record_weights():`."""
    return _recorder.get() is not None


if __name__ == "__main__":
    query = torch.ones(1, 1)
    key = torch.tensor([1.0, 2.0, 3.0]).log()[:, None]
    value = torch.tensor([[6.0], [12.0], [18.0]])
    output, weights = scaled_dot_product_attention(query, key, value)
    print("query", tuple(query.shape), "key", tuple(key.shape), "value", tuple(value.shape))
    print("weights", weights.tolist(), "output", output.item())
    print("causal mask of 4:\n", create_causal_mask(4).int())
    x = torch.randn(2, 4, 8)
    output, weights = scaled_dot_product_attention(x, x, x, create_causal_mask(4))
    print("output", tuple(output.shape), "weights", tuple(weights.shape), "\n", weights[0].round(decimals=2))
