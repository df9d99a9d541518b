"""One layer in training on a CPU as one function with its backward pass by hand: `block_by_hand.c`, and when it stands in.

A small model's training step is some seven hundred operations, and on a CPU half of its time passes outside the matrix products. In C
a layer is one call forwards and one backwards. It knows causal layers with the norm before the branch, every activation, bias and norm,
shared keys, rotary positions and dropout, in float32; all else, and a machine without a C compiler, runs as `transformer_block.py` says.
Left out: embeddings, the last norm and the output layer. Read before: `by_hand.py`, `native.py`, `transformer_block.py`.
"""

import ctypes
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from tiny_transformer import attention, by_hand, embeddings, feedforward, multi_head
from tiny_transformer.config import ModelConfig
from tiny_transformer.feedforward import ACTIVATIONS, FeedForward
from tiny_transformer.linear import Linear
from tiny_transformer.multi_head import MultiHeadAttention
from tiny_transformer.native import DOUBLE, INTEGER, POINTER, declared, library
from tiny_transformer.normalization import LayerNorm, RMSNorm
from tiny_transformer.transformer_block import TransformerBlock
from tiny_transformer.utils.reference import TraceableVar

KNOWN = {nn.ModuleList, TransformerBlock, MultiHeadAttention, FeedForward, LayerNorm, RMSNorm, Linear}
"""The parts whose equations are written in C."""
FUNCTIONS = tuple(
    (where, name, getattr(where, name))
    for where, names in (
        (attention, ("attend",)), (multi_head, ("split_heads", "merge_heads", "expand_kv", "side_by_side")),
        (feedforward, ("feed_forward",)), (embeddings, ("rotate",)),
    )
    for name in names
)  # fmt: skip
"""What the parts call through their modules: a learner's own in the place of one of these is to run."""
ORDER = tuple(ACTIVATIONS)
"""The activations in the order of the C."""
NORMS = ("norm1", "norm2", "attention.q_norm", "attention.k_norm")
LAYERS = (
    "attention.W_query", "attention.W_key", "attention.W_value", "attention.out_proj", "feedforward.gate", "feedforward.up",
    "feedforward.down",
)  # fmt: skip
WEIGHTS = tuple(f"{part}.{kind}" for part in (*NORMS, *LAYERS) for kind in ("weight", "bias"))
"""A block's weights in the order of the C; a block need not have all of them."""
PARTS = (
    "norms", "q, k, v products", "q, k norms", "rotary", "attention (fused)", "output projection", "feed-forward up", "activation",
    "feed-forward down", "",
)  # fmt: skip
"""What the time of the C's first thread goes to, as `step_cost.py` calls the parts; the last is waiting for the others. Sums are timed with
the product before them."""
Listener = Callable[[str, float], None]
"""Told (part, moment) for the parts of each call: the moment it began, on `time.perf_counter`'s clock, as if each had run in one piece."""

FIELDS = ("norm1", "norm2", "q_norm", "k_norm", "query", "key", "value", "project", "gate", "up", "down")
"""What the C calls NORMS and LAYERS."""
PLACES = ("weight", "bias", "dweight", "dbias")
NOWHERE = (None,) * len(PLACES)
_listener: TraceableVar[Listener | None] = TraceableVar("block_listener", default=None)


class _Norm(ctypes.Structure):
    _fields_ = (*((name, POINTER) for name in PLACES), ("width", INTEGER), ("kind", INTEGER), ("eps", DOUBLE))


class _Linear(ctypes.Structure):
    _fields_ = (*((name, POINTER) for name in PLACES), ("outputs", INTEGER), ("inputs", INTEGER))


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, INTEGER) for name in ("batch", "seq", "d_model", "heads", "kv_heads", "d_head", "ff", "activation", "threads")),
        *((name, _Norm) for name in FIELDS[: len(NORMS)]),
        *((name, _Linear) for name in FIELDS[len(NORMS) :]),
        *((name, POINTER) for name in ("cosines", "sines", "drop1", "drop2")),
    )  # fmt: skip


_Places = POINTER * (2 * len(WEIGHTS) + 4)


class _Shape(NamedTuple):
    """A block's struct without its pointers, and how many numbers of memory it needs: kept, and to work in forwards and backwards."""

    struct: _Block
    kept: int
    forward: int
    backward: int


@cache
def _library() -> Any:
    """The C, or None where it can't be had."""
    c = library(Path(__file__).with_suffix(".c"))
    functions = {"sizes": (None, [POINTER] * 5), "forward": (None, [POINTER] * 7), "backward": (None, [POINTER] * 8)}
    return None if c is None else declared(c, functions)


# ------------------------------------------------------------ when


def fits(blocks: nn.ModuleList, x: Tensor, config: ModelConfig) -> bool:
    """Whether these blocks may run in C for this x (batch, seq, d_model): trained here in float32, and as they are written.

    Parts that somebody replaced, wrapped, or listens to, and functions in whose place somebody put their own, run as they are.
    """
    return (
        by_hand.allowed(x, fewest=1)
        and type(x) is Tensor
        and x.dtype == torch.float32
        and _get_current_dispatch_mode() is None  # whoever counts or replaces operations must see them
        and config.causal
        and config.window is None
        and config.norm_position == "pre"
        and config.position != "alibi"
        and not attention.is_recording()
        and all(_without_watchers(getattr(where, name)) is original for where, name, original in FUNCTIONS)
        and all(map(_is_plain, blocks.modules()))
        and _library() is not None
    )


def only_watches(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a hook or a wrapper that changes nothing, and may be left out where the C tells its own times (`told_to`)."""
    function.only_watches = True  # type: ignore[attr-defined]
    return function


def _without_watchers(function: Any) -> Any:
    while getattr(function, "only_watches", False):
        function = function.__wrapped__
    return function


def _is_plain(part: nn.Module) -> bool:
    """One of the parts that the C knows, whose weights it can read, and that nobody has changed or listens to."""
    inside = part.__dict__  # asked for every part of every step: without the detours of nn.Module
    if type(part) not in KNOWN or "forward" in inside or inside["_backward_hooks"] or inside["_backward_pre_hooks"]:
        return False
    for hooks in (inside["_forward_hooks"], inside["_forward_pre_hooks"]):
        if hooks and not all(getattr(hook, "only_watches", False) for hook in hooks.values()):
            return False
    for weight in inside["_parameters"].values():
        if weight is not None and not (
            type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.is_cpu and weight.is_contiguous()
        ):
            return False
    return True


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Inside, `listener` is told what the time of every call went to."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


# ------------------------------------------------------------ the function


def run(
    block: nn.Module, x: Tensor, mask: None = None, *, bias: None = None, rotate: Callable[[Tensor], Tensor] | None = None,
    cache: None = None,
) -> Tensor:  # fmt: skip
    """`block(x, rotate=rotate)` in C, for a block that `fits`: (batch, seq, d_model) to the same.

    `rotate` is the model's: `embeddings.rotate` with its cos and sin.
    """
    assert isinstance(block, TransformerBlock)
    angles = rotate.keywords if isinstance(rotate, partial) else {}
    drops = [block.dropout(torch.ones_like(x)) if block.training and block.dropout_rate else None for _ in range(2)]
    weights = [None if part is None else part._parameters.get(kind) for part in _parts(block) for kind in ("weight", "bias")]
    out: Tensor = BlockByHand.apply(block, x, angles.get("cos"), angles.get("sin"), *drops, *weights)  # type: ignore[no-untyped-call]
    return out


def _parts(block: TransformerBlock) -> tuple[nn.Module | None, ...]:
    """NORMS and LAYERS."""
    heads, network = block.attention, block.feedforward
    norms = (block.norm1, block.norm2, heads.q_norm, heads.k_norm)
    return (*norms, heads.W_query, heads.W_key, heads.W_value, heads.out_proj, network.gate, network.up, network.down)


class BlockByHand(torch.autograd.Function):
    """x (batch, seq, d_model) to the same, through a whole block.

    Its other inputs: the rotation's cosines and sines (seq, d_head / 2), what dropout multiplies each branch by (batch, seq, d_model),
    and the block's weights in the order of WEIGHTS; None for each that it does not have.
    """

    @staticmethod
    def forward(ctx: Any, block: TransformerBlock, x: Tensor, *others: Tensor | None) -> Tensor:
        """What the backward pass needs is kept in one piece of memory."""
        x, places = x.contiguous(), _places(others, (None,) * len(WEIGHTS))
        shape, out = _shape(block, x, places), torch.empty_like(x)
        kept = x.new_empty(shape.kept)
        _call(_library().forward, shape, places, x, out, kept, _scratch(shape.forward))
        ctx.block = block
        ctx.save_for_backward(x, kept, *others)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x and of the weights that want one."""
        x, kept, *others = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants to differentiate this once more
            return (None, *by_hand.twice(partial(_plain, ctx.block), (x, *others), gradient))
        gradient, dx, wanted = gradient.contiguous(), torch.empty_like(x), ctx.needs_input_grad[-len(WEIGHTS) :]
        grads = [torch.empty_like(weight) if want else None for weight, want in zip(others[-len(WEIGHTS) :], wanted, strict=True)]
        places = _places(others, grads)
        shape = _shape(ctx.block, x, places)
        _call(_library().backward, shape, places, x, gradient, dx, kept, _scratch(shape.backward))
        return (None, dx, *(None,) * (len(others) - len(WEIGHTS)), *grads)


def _plain(block: TransformerBlock, x: Tensor, *others: Tensor | None) -> Tensor:
    """The same in PyTorch's own operations."""
    cos, sin, *drops = others[: -len(WEIGHTS)]
    rotate = None if cos is None or sin is None else partial(embeddings.rotate, cos=cos, sin=sin)
    own = {name: weight for name, weight in zip(WEIGHTS, others[-len(WEIGHTS) :], strict=True) if weight is not None}

    def through(name: str, y: Tensor, **more: Any) -> Tensor:
        weights = {key.removeprefix(f"{name}."): weight for key, weight in own.items() if key.startswith(f"{name}.")}
        return torch.func.functional_call(block.get_submodule(name), weights, (y,), more)  # type: ignore[no-any-return]

    first, second = (1 if drop is None else drop for drop in drops)
    x = x + first * through("attention", through("norm1", x), rotate=rotate)
    return x + second * through("feedforward", through("norm2", x))


_shapes: WeakKeyDictionary[nn.Module, dict[Hashable, _Shape]] = WeakKeyDictionary()


def _shape(block: TransformerBlock, x: Tensor, places: Any) -> _Shape:
    """Made once for each size of batch: between two products that have swept the caches, making a struct takes as long as a norm."""
    parts, threads = _parts(block), torch.get_num_threads()
    key = (x.shape, threads, places[-1] is None, *(getattr(norm, "eps", None) for norm in parts[: len(NORMS)]))
    known = _shapes.setdefault(block, {})
    if key not in known:
        known[key] = _new_shape(block.attention.config, parts, x, threads, places)
    return known[key]


def _new_shape(config: ModelConfig, parts: Sequence[nn.Module | None], x: Tensor, threads: int, places: Any) -> _Shape:
    struct = _Block(
        *x.shape, config.n_heads, config.kv_heads, config.head_width, config.ff_width, ORDER.index(config.activation), threads
    )
    for name, part in zip(FIELDS, parts, strict=True):
        if isinstance(part, LayerNorm | RMSNorm):
            setattr(struct, name, _Norm(*NOWHERE, part.weight.numel(), 1 if isinstance(part, LayerNorm) else 2, part.eps))
        elif isinstance(part, Linear):
            setattr(struct, name, _Linear(*NOWHERE, part.out_features, part.in_features))
    sizes = [INTEGER() for _ in range(3)]
    _library().sizes(ctypes.addressof(struct), places, *map(ctypes.addressof, sizes))
    return _Shape(struct, *(size.value for size in sizes))


def _places(others: Sequence[Tensor | None], grads: Sequence[Tensor | None]) -> Any:
    """Where everything lies, in the order of the C. The tensors must outlive the call."""
    rest, weights = others[: -len(WEIGHTS)], others[-len(WEIGHTS) :]
    tensors: list[Tensor | None] = []
    for first in range(0, len(weights), 2):
        tensors += (*weights[first : first + 2], *grads[first : first + 2])
    return _Places(*(None if tensor is None else tensor.data_ptr() for tensor in (*tensors, *rest)))


def _call(function: Callable[..., None], shape: _Shape, places: Any, *tensors: Tensor) -> None:
    """Call the C, and tell the listener, if there is one, what its time went to."""
    listener = _listener.get()
    spent = None if listener is None else (DOUBLE * len(PARTS))()
    begun = time.perf_counter()
    function(ctypes.addressof(shape.struct), places, *(tensor.data_ptr() for tensor in tensors), spent)
    if listener is None or spent is None:
        return
    for part, seconds in zip(PARTS, spent, strict=True):
        if seconds:  # it has this part
            listener(part, begun)
            begun += seconds
    listener("", begun)


_memory = threading.local()


def _scratch(numbers: int) -> Tensor:
    """Memory for the length of one call, kept for this thread's next one: the system would have to clear new pages every time."""
    found: Tensor | None = getattr(_memory, "scratch", None)
    if found is None or found.numel() < numbers:
        found = _memory.scratch = torch.empty(numbers)
    return found


if __name__ == "__main__":
    config = ModelConfig(d_model=128, n_heads=4, activation="gelu_tanh")
    block, x = TransformerBlock(config), torch.randn(4, 64, 128, requires_grad=True)
    if not fits(nn.ModuleList([block]), x, config):
        print("no C compiler here: PyTorch's operations do it all")
    else:
        mine, plain = run(block, x), block(x)
        print(tuple(x.shape), "->", tuple(mine.shape), f"largest difference to the plain block: {(mine - plain).abs().max():.1e}")
        for name, y in (("in C", mine), ("plain", plain)):
            begun = time.perf_counter()
            (dx,) = torch.autograd.grad(y.sum(), x)
            print(f"backwards {name:6} {1e3 * (time.perf_counter() - begun):6.2f} ms, size of the gradient {dx.norm():.4f}")
