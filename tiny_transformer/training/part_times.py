"""Where the time of a running model goes, part by part, forward and backward, without changing the model.

Every moment belongs to exactly one part. A stopwatch is switched over when a module or one of a few named functions begins or
ends, so a part's time is its own, without what it calls: the block's own time is its residual adds, the feed-forward network's its
activation, the attention's the moving of heads. Backward, each node of the autograd graph belongs to the part that made it: nodes
are numbered as they are made, and the number says when that was. What a node triggers (adding up gradients, keeping a weight's)
counts as its own. Blocks that run in C (`block_by_hand.py`) tell what their time went to.

Leaves out: what is run meanwhile (`step_times.py`, `sampling/token_times.py`). Read before: `model.py`, `roofline.py`.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tiny_transformer import attention, embeddings, multi_head
from tiny_transformer.block_by_hand import only_watches, told_to
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.roofline import FUSED_ATTENTION
from tiny_transformer.step_cost import ATTENTION, Phase
from tiny_transformer.transformer_block import TransformerBlock
from tiny_transformer.utils.reference import is_reference

Key = tuple[str, Phase]
OTHER = "other"
PROFILER = "profiler"
"""The watching's own work, as far as it can be told apart; never part of a result."""
UPDATES = ("clipping", "optimizer")
Function = tuple[Any, str, str]
"""Where a function lives, its name there, and the part that it is."""


class Stopwatch:
    """Writes down what begins when; the sums are made afterwards, so that a mark costs next to nothing.

    On CUDA a mark is an event in the stream: work runs behind the program, and what counts is when it runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[tuple[Any, Key]] = []
        self.phase: Phase = "forward"
        self._open: list[str] = [OTHER]
        self._made: list[tuple[int, str]] = []  # (number of the next autograd node, part)

    def begin(self, part: str) -> None:
        """From now on time belongs to `part`, until its `end`."""
        self._open.append(part)
        self._switch()

    def end(self) -> None:
        """From now on time belongs to what was open before."""
        self._open.pop()
        self._switch()

    def become(self, part: str) -> None:
        """The innermost open part is another one from now on."""
        self._open[-1] = part
        self._switch()

    def became(self, part: str, moment: float) -> None:
        """`become`, told afterwards: from that moment on (`time.perf_counter`'s) time belonged to `part`; "" for what is open."""
        self.marks.append((moment, (part or self._open[-1], self.phase)))

    def start(self) -> None:
        """A new step: forget the last."""
        self.marks, self._made, self._open, self.phase = [], [], [OTHER], "forward"
        self._switch()

    def times(self) -> dict[Key, float]:
        """Seconds of every (part, phase) since `start`."""
        self._switch()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        sums: dict[Key, float] = {}
        for (begun, key), (ended, _) in pairwise(self.marks):
            seconds = 1e-3 * begun.elapsed_time(ended) if self.device.type == "cuda" else ended - begun
            sums[key] = sums.get(key, 0.0) + seconds
        return {key: seconds for key, seconds in sums.items() if key[0] != PROFILER}

    def part_of(self, node: Any) -> str:
        """The part that was open when an autograd node was made."""
        place = bisect_right(self._made, node._sequence_nr(), key=lambda made: made[0])
        return self._made[place - 1][1] if place else OTHER

    def _switch(self) -> None:
        part = self._open[-1]
        phase: Phase = "update" if part in UPDATES else self.phase
        if self.phase == "forward":
            self._made.append((torch._C._autograd._get_sequence_nr(), part))
        self.marks.append((self._now(), (part, phase)))

    def _now(self) -> Any:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            return event
        if self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()


# ---------------------------------------------------------------- watching


@contextmanager
def watched(watch: Stopwatch, model: TinyTransformerLM, functions: Sequence[Function] = (), *, inside: bool = True) -> Iterator[None]:
    """Inside this block the model and `functions` switch the stopwatch over; afterwards nothing of it is left.

    `inside` False leaves the model alone, and only watches what is around it: a compiled model would be compiled anew.
    """
    with ExitStack() as stack:
        for module, part in parts_of(model).items() if inside else ():
            begin, end = only_watches(lambda *_, part=part: watch.begin(part)), only_watches(lambda *_: watch.end())
            stack.callback(module.register_forward_pre_hook(begin).remove)
            stack.callback(module.register_forward_hook(end, always_call=True).remove)
        core = _readable_attention if is_reference() else _as_one(FUSED_ATTENTION)
        if inside:
            stack.enter_context(told_to(watch.became))
            stack.enter_context(replaced(attention, "attend", partial(core, watch)))
            stack.enter_context(replaced(embeddings, "rotate", partial(_as_one("rotary"), watch)))
            # Three layers in one product: hooks on the layers would part them, and something else would be timed than what runs.
            stack.enter_context(replaced(multi_head, "side_by_side", partial(_as_one("q, k, v products"), watch)))
        if inside and drops(model):
            stack.enter_context(replaced(TransformerBlock, "dropout", partial(_as_one("dropout"), watch)))
        for where, name, part in functions:
            stack.enter_context(replaced(where, name, partial(_as_one(part), watch)))
        stack.enter_context(replaced(Tensor, "backward", partial(_backward, watch)))
        yield


def parts_of(model: TinyTransformerLM) -> dict[nn.Module, str]:
    """Which part a module's own time belongs to. A module that is not named here belongs to the one it stands in."""
    named: dict[nn.Module | None, str] = {model.embeddings: "embeddings", model.embeddings.norm: "norms"}
    if drops(model):
        named[model.embeddings.dropout] = "dropout"
    for block in model.blocks:
        assert isinstance(block, TransformerBlock)
        heads, network = block.attention, block.feedforward
        named |= {block: "residual adds", block.norm1: "norms", block.norm2: "norms", heads: "heads", network: "activation"}
        named |= dict.fromkeys((heads.q_norm, heads.k_norm), "q, k norms")
        named |= {heads.out_proj: "output projection", network.down: "feed-forward down"}
        named |= dict.fromkeys((network.up, network.gate), "feed-forward up")
    named |= {model.norm: "norms", model.unembed: "unembed"}
    return {module: part for module, part in named.items() if module is not None}


def drops(model: TinyTransformerLM) -> bool:
    """Whether dropout does anything now."""
    return model.training and model.config.dropout > 0


Wrapper = Callable[..., Any]


@contextmanager
def replaced(where: Any, name: str, wrapper: Wrapper) -> Iterator[None]:
    """`where.name` is `wrapper(original, …)` inside this block."""
    original = getattr(where, name)
    own = name in vars(where)
    setattr(where, name, only_watches(wraps(original)(lambda *args, **more: wrapper(original, *args, **more))))
    try:
        yield
    finally:
        setattr(where, name, original) if own else delattr(where, name)


def _as_one(part: str) -> Wrapper:
    def run(watch: Stopwatch, original: Callable[..., Any], *args: Any, **more: Any) -> Any:
        watch.begin(part)
        try:
            return original(*args, **more)
        finally:
            watch.end()

    return run


def _readable_attention(watch: Stopwatch, original: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """The readable way can be told apart by its calls: everything to the softmax is scores, the product after it is values."""
    watch.begin(ATTENTION[0])
    try:
        with _AtSoftmax(watch):
            return original(*args, **more)
    finally:
        watch.end()


class _AtSoftmax(TorchFunctionMode):
    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self.watch, self.seen = watch, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.softmax:
            self.watch.become(ATTENTION[1])
            self.seen = True
        elif self.seen and func in (Tensor.matmul, Tensor.__matmul__):
            self.watch.become(ATTENTION[2])
        return func(*args, **(kwargs or {}))


def _backward(watch: Stopwatch, original: Callable[..., Any], loss: Tensor, *args: Any, **more: Any) -> Any:
    """Backward with a mark before each node. The engine runs nodes one after the other, the last made first."""
    watch.begin(PROFILER)
    handles = [node.register_prehook(partial(_at_node, watch, watch.part_of(node))) for node in nodes_below(loss.grad_fn)]
    watch.phase = "backward"
    watch.become(OTHER)
    try:
        return original(loss, *args, **more)
    finally:
        watch.become(PROFILER)
        for handle in handles:
            handle.remove()
        watch.phase = "forward"
        watch.end()


def _at_node(watch: Stopwatch, part: str, gradients: Any) -> None:
    watch.become(part)


def nodes_below(root: Any) -> Iterator[Any]:
    """Every node of the graph once, except those that only keep a weight's gradient: their time is that of the node before."""
    seen, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        if node is None or hasattr(node, "variable"):
            continue
        yield node
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                waiting.append(following)


if __name__ == "__main__":
    from tiny_transformer.config import PRESETS

    model = TinyTransformerLM(PRESETS["tiny"], seed=0)
    watch, ids = Stopwatch(torch.device("cpu")), torch.randint(65, (8, 64))
    for _ in range(3):
        with watched(watch, model):
            watch.start()
            model(ids).square().mean().backward()
            found = watch.times()
    print(f"forward and backward of {tuple(ids.shape)}: {1e3 * sum(found.values()):.2f} ms in {len(watch.marks)} pieces")
    for (part, phase), seconds in sorted(found.items(), key=lambda pair: -pair[1])[:8]:
        print(f"  {part:18} {phase:9} {1e3 * seconds:6.2f} ms")
