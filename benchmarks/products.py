"""What the second ways of computing gain on this machine: each beside PyTorch's own way, in turns, in the same run.

    python -m benchmarks.products                            all of it, some two minutes
    python -m benchmarks.products block                      one of: products, block, linear, attention, compiled

The limits in `linear.py`, `attention_products.py` and `attention.py` say from which size to which a way is taken; they were chosen by
this table. A training step is that of `training.py`, the same model and batch both times, only the limit moved. `block` is whole layers
in C; the other steps are made without them, as where there is no C compiler. Nothing is kept: these are not comparisons with others.
Read before: `harness.py`, `training.py`.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.harness import Result, compare, machine, warn_if_busy
from benchmarks.training import SAME, VOCAB, ours
from benchmarks.watch import is_busy
from tiny_transformer import attention, attention_products, block_by_hand, linear
from tiny_transformer.config import ModelConfig

NEVER, ALWAYS = 2**62, 0
SAME_BFLOAT16 = 0.02
"""How far the first losses may lie apart under autocast, whose numbers have eight bits."""
OWN = "PyTorch's own way"
MATRICES = ((768, 128, 512), (1024, 256, 1024), (1024, 384, 384), (1024, 384, 1536), (1024, 1536, 384))
"""(rows, width in, width out): the batches and layers of the models below."""


@dataclass(frozen=True)
class Case:
    """A training step with a limit of a module where it makes the second way be taken, and where it never is."""

    name: str
    config: ModelConfig
    batch: int
    module: ModuleType
    limit: str
    taken: Any
    never: Any
    compiled: bool = False
    bfloat16: bool = False
    """Under autocast, as `precision="bfloat16"` trains."""


def gpt2(layers: int, width: int, context: int, heads: int) -> ModelConfig:
    """GPT-2's parts in another size."""
    return ModelConfig(vocab_size=VOCAB, max_seq_len=context, d_model=width, n_layers=layers, n_heads=heads, activation="gelu_tanh")


SIZES = {
    "4 × 128, context 64": (gpt2(4, 128, 64, 4), 12), "4 × 256, context 128": (gpt2(4, 256, 128, 4), 8),
    "6 × 384, context 256": (gpt2(6, 384, 256, 6), 4),
}  # fmt: skip
"""Models and batches: those of `training.py`."""
IN_C = ("_library", block_by_hand._library, lambda: None)
"""What decides about layers in C: its name in `block_by_hand`, as it is, and for a machine without a compiler."""
CASES = {
    "block": [Case(f"step, layers in C, {name}", c, b, block_by_hand, *IN_C) for name, (c, b) in SIZES.items()],
    "linear": [
        Case(f"step, oneDNN, x of {b * c.max_seq_len * c.d_model:,}, {name}", c, b, linear, "FEWEST", ALWAYS, NEVER)
        for name, (c, b) in SIZES.items()
    ],
    "attention": [
        Case(f"step, attention as products, {name}", c, b, attention_products, "FEWEST", ALWAYS, NEVER) for name, (c, b) in SIZES.items()
    ],
    "compiled": [
        Case(f"compiled step, {name}, 4 × 192, plain attention", gpt2(4, 192, 128, 4), 16, attention, "MOST_COMPILED", 512, 0, True, halved)
        for name, halved in (("float32", False), ("bfloat16", True))
    ],
}  # fmt: skip


@contextmanager
def limit_at(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """A module's limit, or what decides in its place, another one for a while."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def step_of(case: Case, limit: Any) -> Callable[[], float]:
    """One whole training step with the limit at `limit`; returns its loss."""
    step = ours(case.config, case.compiled)
    ids, targets = torch.randint(VOCAB, (2, case.batch, case.config.max_seq_len), generator=torch.Generator().manual_seed(0))

    def run() -> float:
        with ExitStack() as stack:
            stack.enter_context(limit_at(block_by_hand, IN_C[0], IN_C[2]))
            stack.enter_context(limit_at(case.module, case.limit, limit))
            stack.enter_context(torch.autocast("cpu", torch.bfloat16, enabled=case.bfloat16))
            return step(ids, targets).item()

    return run


def compare_steps(case: Case, rounds: int = 15) -> Result:
    """The two ways in turns. Raises ValueError when their first losses differ."""
    mine, other = step_of(case, case.taken), step_of(case, case.never)
    apart = abs(mine() - other())
    if apart > (SAME_BFLOAT16 if case.bfloat16 else SAME):
        raise ValueError(f"{case.name}: the first losses lie {apart:.1e} apart: not the same model")
    return compare(case.name, mine, other, work=1, unit="steps/s", peer_name=OWN, rounds=rounds, warm_up=2)


def compare_products(rows: int, width_in: int, width_out: int, rounds: int = 15, times: int = 20) -> Result:
    """x Wᵀ + b, `times` times a round: oneDNN's product and the usual one."""
    x, weight, bias = torch.randn(rows, width_in), torch.randn(width_out, width_in), torch.randn(width_out)

    def repeat(product: Callable[..., torch.Tensor]) -> None:
        for _ in range(times):
            product(x, weight, bias)

    name = f"product, ({rows}, {width_in}) to {width_out}"
    with torch.no_grad():
        return compare(
            name, lambda: repeat(linear.product), lambda: repeat(F.linear), work=times, unit="products/s", peer_name=OWN, rounds=rounds
        )


def row(result: Result) -> str:
    """Milliseconds of both, and how many times as fast the second way is."""
    own, second = 1e3 / result.peer, 1e3 / result.ours
    busy = "  others were busy" if is_busy(result.others) else ""
    return f"{result.name:52} {own:9.3f} ms {second:9.3f} ms   {result.ratio:5.2f} ({result.low:.2f} to {result.high:.2f}){busy}"


def run(kinds: Sequence[str]) -> list[Result]:
    """Measure and print the kinds that are named."""
    print(f"{'':52} {'own way':>12} {'second way':>12}   times as fast (quartiles)")
    results = []
    for kind in kinds:
        todo: list[Callable[[], Result]] = [partial(compare_steps, case) for case in CASES.get(kind, ())]
        if kind == "products":
            todo = [partial(compare_products, *sizes) for sizes in MATRICES]
        for work in todo:
            results.append(work())
            print(row(results[-1]), flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the second ways of computing with PyTorch's own, on this machine."""
    known = ("products", *CASES)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products", description=main.__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"which: {', '.join(known)}; default: all")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.kinds) - set(known))
    if unknown:
        parser.error(f"there is no kind {', '.join(unknown)}: it must be among {', '.join(known)}")
    warn_if_busy()
    print(" · ".join(f"{key} {value}" for key, value in machine().items()))
    run(chosen.kinds or known)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
