"""Attention as a few batched matrix products, with the gradient by hand: for training on a CPU.

PyTorch's fused kernel walks over small tiles, and computes the weights a second time in its backward pass. On a CPU the
products of a matrix library can be faster than those tiles, and the weights of short texts fit beside everything else. So here the
weights are kept; what cannot be seen is left out in halves (the first half of the queries looks at the first half of the keys
only); and the work is done for as many rows of the batch at once as fit the processor's cache.
Left out: extra masks, windows, biases, caches, GPUs (the fused kernel does those). Read before: `by_hand.py`.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tiny_transformer import by_hand

FEWEST, MOST = 128, 512
"""Between these lengths products stand in for the fused kernel. `python -m benchmarks.products attention`, two cores, 2026-11-21, a busy
machine, twice: a whole step is 0.92 and 0.98 times as fast with them at 4 × 128, context 64; 0.99 and 1.01 at 4 × 256, context 128; 0.98
and 0.99 at 6 × 384, context 256: no difference beyond the noise. Decision 0009 has an earlier gain. Above, the weights take much memory."""
AT_ONCE = 2**19
"""Attention weights (2 MB in float32) that stay in the cache while they are worked on."""
HALVES = 128
"""From this length on, the queries are done in halves."""


def pay(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether these (batch, heads, seq, d_head) are trained here, and products are the faster way."""
    same = query.shape == key.shape == value.shape
    return same and FEWEST <= query.size(-2) <= MOST and (query.requires_grad or key.requires_grad) and by_hand.allowed(query)


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √d_head + causal mask) V in PyTorch's own operations."""
    scores = query @ key.mT / math.sqrt(query.size(-1))
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return torch.softmax(scores.masked_fill(hidden, -math.inf), -1) @ value


def attend_causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention: (batch, heads, seq, d_head) each, to the same shape."""
    out: Tensor = CausalProducts.apply(query, key, value)  # type: ignore[no-untyped-call]
    return out


class CausalProducts(torch.autograd.Function):
    """With weights P = softmax(S), S = Q Kᵀ / √d_head, out = P V and the gradient dO of out (as in `docs/backpropagation.md`):

    dV = Pᵀ dO,  dP = dO Vᵀ,  dS = P (dP - rows of P · dP),  dQ = dS K / √d_head,  dK = dSᵀ Q / √d_head.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Row by row of the batch, or several at once; within it, part by part of the queries."""
        batch, heads, seq, d_head = query.shape
        out = query.new_empty(batch, seq, heads, d_head)  # so that merging the heads is free
        parts = parts_of(seq)
        weights = [query.new_empty(batch * heads, end - begin, end) for begin, end in parts]
        hidden = query.new_full((seq, seq), -math.inf).triu_(1)
        for rows, items in _chunks(batch, heads, seq):
            q, k, v = (_flat(x[rows]) for x in (query, key, value))  # (rows · heads, seq, d_head)
            for (begin, end), kept in zip(parts, weights, strict=True):
                scores, mask = kept[items], hidden[begin:end, :end]
                torch.baddbmm(mask, q[:, begin:end], k[:, :end].mT, alpha=1 / math.sqrt(d_head), out=scores)
                share = torch._softmax(scores, -1, False, out=scores)
                seen = torch.bmm(share, v[:, :end]).view(-1, heads, end - begin, d_head)
                out[rows, begin:end] = seen.transpose(1, 2)
        ctx.save_for_backward(query, key, value, *weights)
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of query, key and value."""
        query, key, value, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            return by_hand.twice(plain, (query, key, value), gradient)
        batch, heads, seq, d_head = query.shape
        scale = 1 / math.sqrt(d_head)
        grads = [query.new_empty(batch, seq, heads, d_head) for _ in range(3)]
        for rows, items in _chunks(batch, heads, seq):
            q, k, v, dout = (_flat(x[rows]) for x in (query, key, value, gradient))
            dq, dk, dv = q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape)
            for (begin, end), kept in reversed(list(zip(parts_of(seq), weights, strict=True))):
                share, dpart = kept[items], dout[:, begin:end]
                dshare = torch.bmm(dpart, v[:, :end].mT)
                dscores = torch._softmax_backward_data(dshare, share, -1, share.dtype, grad_input=dshare)
                dk_part = _scaled(dscores.mT, q[:, begin:end], scale)
                dv_part = torch.bmm(share.mT, dpart)
                dq_part = _scaled(dscores, k[:, :end], scale)
                if end == seq:  # the last part sees all keys, and comes first here
                    dk, dv = dk_part, dv_part
                    dq = dq_part if begin == 0 else dq
                else:
                    dk[:, :end] += dk_part
                    dv[:, :end] += dv_part
                if begin or end < seq:
                    dq[:, begin:end] = dq_part
            for whole, part in zip(grads, (dq, dk, dv), strict=True):
                whole[rows] = part.view(-1, heads, seq, d_head).transpose(1, 2)
        return tuple(grad.transpose(1, 2) for grad in grads)


def parts_of(seq: int) -> list[tuple[int, int]]:
    """Which queries, (begin, end), are done together; those of a part look at no key behind its end."""
    return [(0, seq // 2), (seq // 2, seq)] if seq >= HALVES else [(0, seq)]


def _chunks(batch: int, heads: int, seq: int) -> Iterator[tuple[slice, slice]]:
    """Rows of the batch whose weights fit the cache together, and where they lie among all rows · heads."""
    step = max(1, AT_ONCE // (heads * seq * seq))
    for begin in range(0, batch, step):
        end = min(batch, begin + step)
        yield slice(begin, end), slice(begin * heads, end * heads)


def _flat(x: Tensor) -> Tensor:
    """(rows, heads, seq, d_head) to (rows · heads, seq, d_head); without a copy for one row."""
    return x[0] if len(x) == 1 else x.reshape(-1, *x.shape[2:])


def _scaled(first: Tensor, second: Tensor, scale: float) -> Tensor:
    """first @ second · scale, in one product."""
    out = first.new_empty(first.size(0), first.size(1), second.size(2))
    return torch.baddbmm(out, first, second, beta=0, alpha=scale, out=out)


if __name__ == "__main__":
    query, key, value = torch.randn(3, 2, 4, 160, 16, requires_grad=True).unbind(0)
    out = attend_causal(query, key, value)
    print("query", tuple(query.shape), "out", tuple(out.shape), "parts of the queries", parts_of(160))
    print(f"largest difference to the plain operations: {(out - plain(query, key, value)).abs().max():.1e}")
