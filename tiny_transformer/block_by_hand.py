"""All layers in training on a CPU as one function with its backward pass by hand: `block_by_hand.c`, and when it stands in.

A small model's training step is some seven hundred operations, and on a CPU half of its time passes outside the matrix products. In C
all layers are one call forwards and one backwards. It knows causal layers with the norm before the branch, every activation, bias and norm,
shared keys, rotary positions and dropout, and the norm behind them, in float32; all else, and a machine without a C compiler, runs as
`transformer_block.py` says.
Left out: embeddings and the output layer. Read before: `by_hand.py`, `native.py`, `transformer_block.py`.
"""

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from itertools import chain
from pathlib import Path
from struct import pack
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from tiny_transformer import attention, by_hand, embeddings, feedforward, multi_head
from tiny_transformer.config import ModelConfig
from tiny_transformer.feedforward import ACTIVATIONS, FeedForward
from tiny_transformer.linear import Linear
from tiny_transformer.memory_pool import MemoryPool
from tiny_transformer.multi_head import MultiHeadAttention
from tiny_transformer.native import DOUBLE, INTEGER, POINTER, declared, library
from tiny_transformer.normalization import LayerNorm, RMSNorm
from tiny_transformer.transformer_block import TransformerBlock
from tiny_transformer.utils.reference import TraceableVar

KNOWN = {TransformerBlock, MultiHeadAttention, FeedForward, LayerNorm, RMSNorm, Linear}
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
POINTERS = ("weight", "bias", "dweight", "dbias")
NOWHERE = (None,) * len(POINTERS)
_listener: TraceableVar[Listener | None] = TraceableVar("block_listener", default=None)
_memory = MemoryPool()


class _Norm(ctypes.Structure):
    _fields_ = (*((name, POINTER) for name in POINTERS), ("width", INTEGER), ("kind", INTEGER), ("eps", DOUBLE))


class _Linear(ctypes.Structure):
    _fields_ = (*((name, POINTER) for name in POINTERS), ("outputs", INTEGER), ("inputs", INTEGER))


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, INTEGER) for name in ("batch", "seq", "d_model", "heads", "kv_heads", "d_head", "ff", "activation", "threads")),
        *((name, _Norm) for name in FIELDS[: len(NORMS)]),
        *((name, _Linear) for name in FIELDS[len(NORMS) :]),
        *((name, POINTER) for name in ("cosines", "sines", "drop1", "drop2")),
    )  # fmt: skip


FIRST, EACH = 4, len(WEIGHTS) + 2
"""Tensors of all: cosines, sines, the last norm's weight and bias; and of a block: its weights, what dropout multiplies each branch by."""


class _Plan(NamedTuple):
    """What is the same for every batch of a size: the blocks' structs without their pointers, and how many numbers of memory they need."""

    structs: Any
    norm: _Norm
    """The one behind the last block; empty without."""
    kept: int
    forward: int
    backward: int


@cache
def _library() -> Any:
    """The C, or None where it can't be had."""
    c = library(Path(__file__).with_suffix(".c"))
    pointers = {"sizes": 5, "forward": 8, "backward": 10}
    return None if c is None else declared(c, {name: (None, [INTEGER, *[POINTER] * n]) for name, n in pointers.items()})


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
        and all(map(_is_known, blocks))
        and _library() is not None
    )


def takes(norm: nn.Module) -> bool:
    """Whether `run` may do this norm behind the last of blocks that it `fits`."""
    return type(norm) in (LayerNorm, RMSNorm) and _is_plain(norm)


def only_watches(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a hook or a wrapper that changes nothing, and may be left out where the C tells its own times (`told_to`)."""
    function.only_watches = True  # type: ignore[attr-defined]
    return function


def _without_watchers(function: Any) -> Any:
    while getattr(function, "only_watches", False):
        function = function.__wrapped__
    return function


def _is_known(block: nn.Module) -> bool:
    """A block of parts that the C knows, with an activation that it knows."""
    if type(block) is not TransformerBlock or not all(map(_is_plain, (block, block._modules["attention"], block._modules["feedforward"]))):
        return False
    parts, activation = _parts(block), block.attention.config.activation
    norm1, norm2, q_norm, k_norm, *layers, gate, up, down = parts
    return (
        None not in (norm1, norm2, *layers, up, down)
        and (q_norm is None) == (k_norm is None)
        and (gate is None) == (activation != "swiglu")
        and block.feedforward.activation is ACTIVATIONS[activation]
        and all(part is None or _is_plain(part) for part in parts)
    )


def _is_plain(part: nn.Module | None) -> bool:
    """One of the parts that the C knows, whose weights it can read, and that nobody has changed or listens to."""
    if type(part) not in KNOWN:
        return False
    inside = part.__dict__  # asked for every part of every step: without the detours of nn.Module
    if "forward" in inside or inside["_backward_hooks"] or inside["_backward_pre_hooks"]:
        return False
    if inside["_forward_hooks"] or inside["_forward_pre_hooks"]:
        hooks = (*inside["_forward_hooks"].values(), *inside["_forward_pre_hooks"].values())
        if not all(getattr(hook, "only_watches", False) for hook in hooks):
            return False
    return all(weight is None or _is_read(weight) for weight in inside["_parameters"].values())


def _is_read(weight: Tensor) -> bool:
    return type(weight) is nn.Parameter and weight.dtype is torch.float32 and weight.is_cpu and weight.is_contiguous()


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
    blocks: Sequence[nn.Module], x: Tensor, mask: None = None, *, bias: None = None, rotate: Callable[[Tensor], Tensor] | None = None,
    cache: None = None, last: nn.Module | None = None,
) -> Tensor:  # fmt: skip
    """x through `block(x, rotate=rotate)` of one block after the other, in C, for blocks that `fits`: (batch, seq, d_model) to the same.

    `rotate` is the model's: `embeddings.rotate` with its cos and sin. `last` is a norm that `takes`, and comes after the blocks.
    Raises ValueError for weights whose shapes do not belong together.
    """
    angles = rotate.keywords if isinstance(rotate, partial) else {}
    given = [_given(block, x) for block in blocks]  # dropout draws its numbers in the order of the blocks
    learning = [x.requires_grad or any(tensor is not None and tensor.requires_grad for tensor in tensors) for tensors in given]
    first = learning.index(True) if True in learning else len(given)  # before it there is no gradient to find, and nothing to keep
    for some, norm in ((slice(first), None), (slice(first, None), last)):
        if given[some]:
            general = (angles.get("cos"), angles.get("sin"), *_weights(norm))
            x = BlocksByHand.apply(blocks[some], norm, x, *general, *chain(*given[some]))  # type: ignore[no-untyped-call]
    return x if last is None or first < len(given) else last(x)


def _given(block: nn.Module, x: Tensor) -> list[Tensor | None]:
    """A block's tensors: its weights in the order of WEIGHTS, and what dropout multiplies each branch by."""
    assert isinstance(block, TransformerBlock)
    tensors = chain.from_iterable(map(_weights, _parts(block)))
    drops = (block.dropout(torch.ones_like(x)) if block.training and block.dropout_rate else None for _ in range(2))
    return [*tensors, *drops]


def _weights(part: nn.Module | None) -> tuple[Tensor | None, Tensor | None]:
    own = {} if part is None else part._parameters
    return own.get("weight"), own.get("bias")


def _parts(block: nn.Module) -> tuple[nn.Module | None, ...]:
    """NORMS and LAYERS: without the detours of nn.Module, for they are asked for at every step."""
    own = block._modules
    heads, network = (cast(nn.Module, own[part])._modules for part in ("attention", "feedforward"))
    return (
        own["norm1"], own["norm2"], heads.get("q_norm"), heads.get("k_norm"), heads["W_query"], heads["W_key"], heads["W_value"],
        heads["out_proj"], network.get("gate"), network["up"], network["down"],
    )  # fmt: skip


class BlocksByHand(torch.autograd.Function):
    """x (batch, seq, d_model) to the same, through blocks and the norm behind them.

    Its other inputs: the rotation's cosines and sines (seq, d_head / 2), the norm's weight and bias, and of every block its weights in the
    order of WEIGHTS and what dropout multiplies each branch by (batch, seq, d_model); None for each that there is not.
    """

    @staticmethod
    def forward(ctx: Any, blocks: Sequence[nn.Module], norm: nn.Module | None, x: Tensor, *others: Tensor | None) -> Tensor:
        """What the backward pass needs is kept in one piece of memory."""
        x, plan = x.contiguous(), _plan(blocks, norm, x, others)
        out, kept = torch.empty_like(x), _memory.take(plan.kept)
        _call(_library().forward, plan, _places(others), x, out, kept, _memory.take(plan.forward))
        ctx.blocks, ctx.norm, ctx.plan = blocks, norm, plan
        ctx.save_for_backward(x, kept, *others)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x and of the weights that want one."""
        x, kept, *others = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants to differentiate this once more
            return (None, None, *by_hand.twice(partial(_plain, ctx.blocks, ctx.norm), (x, *others), gradient))
        gradient, dx, wanted = gradient.contiguous(), torch.empty_like(x), ctx.needs_input_grad[3:]
        grads = [torch.empty_like(tensor) if want else None for tensor, want in zip(others, wanted, strict=True)]
        _call(_library().backward, ctx.plan, _places(others), _places(grads), x, gradient, dx, kept, _memory.take(ctx.plan.backward))
        return (None, None, dx, *grads)


def _plain(blocks: Sequence[nn.Module], norm: nn.Module | None, x: Tensor, *others: Tensor | None) -> Tensor:
    """The same in PyTorch's own operations."""
    cos, sin, *of_norm = others[:FIRST]
    rotate = None if cos is None or sin is None else partial(embeddings.rotate, cos=cos, sin=sin)
    for first, block in zip(range(FIRST, len(others), EACH), blocks, strict=True):
        *weights, drop1, drop2 = others[first : first + EACH]
        own = {name: weight for name, weight in zip(WEIGHTS, weights, strict=True) if weight is not None}
        x = x + (1 if drop1 is None else drop1) * _through(block, own, "attention", _through(block, own, "norm1", x), rotate=rotate)
        x = x + (1 if drop2 is None else drop2) * _through(block, own, "feedforward", _through(block, own, "norm2", x))
    if norm is None:
        return x
    return _called(norm, {name: weight for name, weight in zip(("weight", "bias"), of_norm, strict=True) if weight is not None}, x)


def _through(block: nn.Module, weights: dict[str, Tensor], name: str, x: Tensor, **more: Any) -> Tensor:
    """x through a block's part, which takes these weights for its own."""
    own = {key.removeprefix(f"{name}."): weight for key, weight in weights.items() if key.startswith(f"{name}.")}
    return _called(block.get_submodule(name), own, x, **more)


def _called(part: nn.Module, weights: dict[str, Tensor], x: Tensor, **more: Any) -> Tensor:
    return torch.func.functional_call(part, weights, (x,), more)  # type: ignore[no-any-return]


# ------------------------------------------------------------ what the C is told


def _plan(blocks: Sequence[nn.Module], norm: nn.Module | None, x: Tensor, others: Sequence[Tensor | None]) -> _Plan:
    """The plan for the function's inputs."""
    shapes = tuple(None if tensor is None else tuple(tensor.shape) for tensor in others)
    configs = [cast(MultiHeadAttention, block._modules["attention"]).config for block in blocks]
    kinds = tuple((config.n_heads, config.kv_heads, config.head_width, config.activation) for config in configs)
    parts = (norm, *chain.from_iterable(_parts(block)[: len(NORMS)] for block in blocks))
    norms = tuple((type(part), part.eps) for part in parts if part is not None)
    return _new_plan(tuple(x.shape), torch.get_num_threads(), kinds, norms, shapes)


Shape = tuple[int, ...]
Norms = Sequence[tuple[type, float]]
"""Kinds and epsilons."""
Kind = tuple[int, int, int, str]
"""A block's heads, heads of keys, width of a head, activation."""


@lru_cache(maxsize=256)
def _new_plan(x: Shape, threads: int, kinds: Sequence[Kind], norms: Norms, shapes: Sequence[Shape | None]) -> _Plan:
    """Made once: between two products that have swept the caches, making structs takes as long as a norm.

    `norms` are those that there are, the one behind the blocks first; `shapes` those of the function's tensors. Raises ValueError for
    shapes that do not belong together.
    """
    remaining = iter(norms)
    _check("last norm", shapes[2], shapes[3], x[-1:])
    norm = _Norm() if shapes[2] is None else _norm(*next(remaining), x[-1])
    each = [_struct(x, threads, kind, remaining, shapes[FIRST + i * EACH : FIRST + (i + 1) * EACH]) for i, kind in enumerate(kinds)]
    structs, sizes = (_Block * len(each))(*each), [INTEGER() for _ in range(3)]
    there = pack(f"{len(shapes)}P", *(shape is not None for shape in shapes))
    _library().sizes(len(each), ctypes.addressof(structs), there, *map(ctypes.addressof, sizes))
    return _Plan(structs, norm, *(size.value for size in sizes))


def _struct(x: Shape, threads: int, kind: Kind, norms: Iterator[tuple[type, float]], shapes: Sequence[Shape | None]) -> _Block:
    """One block's. Takes as many of `norms` as it has."""
    heads, kv_heads, d_head, activation = kind
    weights, biases = (dict(zip(FIELDS, shapes[first : len(WEIGHTS) : 2], strict=True)) for first in (0, 1))
    d, ff = x[-1], (weights["up"] or (0,))[0]
    across, across_kv = heads * d_head, kv_heads * d_head
    expected = ((d,), (d,), (d_head,), (d_head,), (across, d), (across_kv, d), (across_kv, d), (d, across), (ff, d), (ff, d), (d, ff))
    struct = _Block(*x, heads, kv_heads, d_head, ff, ORDER.index(activation), threads)
    for name, shape in zip(FIELDS, expected, strict=True):
        _check(name, weights[name], biases[name], shape)
        if weights[name] is None:
            continue
        if len(shape) == 2:
            setattr(struct, name, _Linear(*NOWHERE, *shape))
        else:
            setattr(struct, name, _norm(*next(norms), *shape))
    return struct


def _check(name: str, weight: Shape | None, bias: Shape | None, expected: Shape) -> None:
    if weight not in (None, expected) or bias not in (None, expected[:1]):
        raise ValueError(
            f"the {name} has weights of shape {weight} and biases of {bias}: they must be {expected} and {expected[:1]}. "
            "Replace what is side by side together"
        )


def _norm(kind: type, eps: float, width: int) -> _Norm:
    return _Norm(*NOWHERE, width, 1 if kind is LayerNorm else 2, eps)


def _places(tensors: Sequence[Tensor | None]) -> bytes:
    """Where they lie. They must outlive the call."""
    return pack(f"{len(tensors)}P", *(0 if tensor is None else tensor.data_ptr() for tensor in tensors))


def _call(function: Callable[..., None], plan: _Plan, *given: bytes | Tensor) -> None:
    """Call the C, and tell the listener, if there is one, what its time went to."""
    listener = _listener.get()
    spent = None if listener is None else (DOUBLE * len(PARTS))()
    begun = time.perf_counter()
    pointers = (one if isinstance(one, bytes) else one.data_ptr() for one in given)
    function(len(plan.structs), ctypes.addressof(plan.structs), ctypes.addressof(plan.norm), *pointers, spent)
    if listener is None or spent is None:
        return
    for part, seconds in zip(PARTS, spent, strict=True):
        if seconds:  # it has this part
            listener(part, begun)
            begun += seconds
    listener("", begun)


if __name__ == "__main__":
    config = ModelConfig(d_model=128, n_heads=4, activation="gelu_tanh")
    block, x = TransformerBlock(config), torch.randn(4, 64, 128, requires_grad=True)
    if not fits(nn.ModuleList([block]), x, config):
        print("no C compiler here: PyTorch's operations do it all")
    else:
        mine, plain = run([block], x), block(x)
        print(tuple(x.shape), "->", tuple(mine.shape), f"largest difference to the plain block: {(mine - plain).abs().max():.1e}")
        for name, y in (("in C", mine), ("plain", plain)):
            begun = time.perf_counter()
            (dx,) = torch.autograd.grad(y.sum(), x)
            print(f"backwards {name:6} {1e3 * (time.perf_counter() - begun):6.2f} ms, size of the gradient {dx.norm():.4f}")
