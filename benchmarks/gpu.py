"""Training on one CUDA GPU in under eight minutes, with random weights and a text made here: the lab's model (6 × 384), GPT-2 124M.

    python -m benchmarks.gpu               measure, append to history.jsonl, make docs/benchmarks.md anew
    python -m benchmarks.gpu --dry-run     every line of it on the CPU at toy sizes: nothing is kept

The project's own model, Trainer and settings: bfloat16 autocast, torch.compile, fused AdamW, PyTorch's fused attention
(flash attention there), steps that do not wait for the device. Read before: `harness.py`, `markov.py`, `gpu_peaks.py`.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu_peaks import peak_of
from benchmarks.harness import HISTORY, Result, keep, machine, peer_module
from benchmarks.markov import MarkovSource
from tiny_transformer.config import PRESETS, ModelConfig, TrainConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.step_cost import step_flop
from tiny_transformer.training.ceilings import measure_ceilings
from tiny_transformer.training.listener import Listener
from tiny_transformer.training.trainer import Trainer

AIM = 0.5
"""Share of the peak that GPT-2's training should reach."""
NEAR = 0.1
"""Time to loss: until this share is left of the distance from knowing one symbol to knowing all that can be known."""
PLAIN = {"precision": "float32", "compile": False}
"""How the peer trains: the same Trainer without the fast arithmetic and without the compiler."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long it may take."""

    device: str = "cuda"
    compile: bool = True
    lab: ModelConfig = field(default_factory=lambda: replace(PRESETS["baby-gpt"], dropout=0.0))
    lab_batch: int = 64
    lab_rate: float = 1e-3
    lab_steps: int = 300
    symbols: int = 32
    text: int = 4_000_000
    patience: float = 60.0
    """Seconds after which a training that should reach a loss is given up."""
    # 50,257 tokens, filled up to a multiple of 64: matrices of odd width are slow
    gpt2: ModelConfig = field(default_factory=lambda: replace(PRESETS["gpt2"], vocab_size=50_304, dropout=0.0))
    batches: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    gpt2_steps: int = 40
    limit: float = 450.0
    """Seconds for everything: no further batch size is tried when it would not fit."""
    ceiling_seconds: float = 2.0
    """For measuring the peak of a GPU that is not in the list."""


DRY = Plan(
    device="cpu", compile=False, lab=ModelConfig(vocab_size=8, max_seq_len=16, d_model=16, n_layers=1, n_heads=2), lab_batch=4,
    lab_rate=3e-3, lab_steps=8, symbols=6, text=4_000, patience=0.5,
    gpt2=ModelConfig(vocab_size=64, max_seq_len=32, d_model=16, n_layers=2, n_heads=2),
    batches=(1, 2), gpt2_steps=16, limit=1e6, ceiling_seconds=0.1,
)  # fmt: skip


class FullError(RuntimeError):
    """The GPU's memory does not hold this batch."""


class Done(Exception):  # noqa: N818  (no error: it is how a listener leaves a training that has done its work)
    """A training has shown what it should."""


class Clock(Listener):
    """Notes when each step's numbers arrived; with a `target`, stops when the validation loss has reached it or `patience` is over."""

    SKIP = 5
    """Steps at the beginning that do not count: the compiler works, memory is taken."""

    def __init__(self, target: float = -1.0, patience: float = float("inf")) -> None:
        self.target, self.patience = target, patience
        self.ticks: list[float] = []
        self.loss = float("inf")
        self.warnings: list[str] = []
        self.steps, self.seconds, self.reached = 0, 0.0, False

    def on_step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_second: float) -> None:
        self.ticks.append(time.perf_counter())

    def on_eval(self, step: int, train_loss: float, val_loss: float, is_best: bool) -> None:
        self.loss = min(self.loss, val_loss)
        if len(self.ticks) < self.SKIP:
            return
        self.steps, self.seconds, self.reached = step, time.perf_counter() - self.ticks[self.SKIP - 1], val_loss <= self.target
        if self.target > 0 and (self.reached or self.seconds > self.patience):
            raise Done

    def on_warning(self, text: str) -> None:
        if text.startswith("compile did not work"):
            if "out of memory" in text:
                raise FullError(text)
            print(text)
            self.warnings.append(text)

    def rates(self, tokens: int, block: int = 5) -> list[float]:
        """Tokens per second of each `block` steps, sorted; a step has `tokens`."""
        marks = self.ticks[self.SKIP - 1 :: block]
        return sorted(block * tokens / (after - before) for before, after in pairwise(marks))


def settings_of(plan: Plan, batch: int, steps: int, eval_every: int | None = None, **more: object) -> TrainConfig:
    """Settings of a measured training; without `eval_every` it is evaluated before and after only."""
    wanted = {
        "max_steps": steps, "batch_size": batch, "learning_rate": 1e-3, "warmup_steps": min(100, steps), "eval_every": eval_every or steps,
        "eval_tokens": 16_384 if eval_every else 64, "save_every": 10**6, "device": plan.device, "compile": plan.compile,
    }  # fmt: skip
    return TrainConfig(**(wanted | more))  # type: ignore[arg-type]


def train(config: ModelConfig, settings: TrainConfig, ids: NDArray[np.uint16], val: NDArray[np.uint16], clock: Clock) -> Trainer:
    """One training with the project's Trainer; raises FullError when the memory is too small."""
    trainer = Trainer(TinyTransformerLM(config, seed=0), None, ids, val, settings, listener=clock)
    try:
        trainer.fit()
    except Done:
        pass
    except torch.cuda.OutOfMemoryError as error:
        raise FullError(str(error).splitlines()[0]) from None
    return trainer


def clear(plan: Plan) -> None:
    """Give back what the training before has left: memory, and code that was compiled for its shapes."""
    gc.collect()
    if plan.compile:
        torch._dynamo.reset()
    if plan.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_gb(device: str) -> float:
    """The most memory that was in use, in GB of 2³⁰ bytes; 0 on the CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0


def peak_for(plan: Plan) -> tuple[float, str]:
    """FLOP/s that count as all, and what they are: the maker's figure, else the best matrix product that is measured here."""
    name = torch.cuda.get_device_name() if plan.device == "cuda" else "CPU"
    peak = peak_of(name)
    if peak is not None:
        return peak, f"peak of {name}"
    kind = torch.bfloat16 if plan.device == "cuda" else torch.float32
    ceilings = measure_ceilings(torch.device(plan.device), kind, seconds=plan.ceiling_seconds, megabytes=16)  # memory is not asked for
    return ceilings.flop_per_second, "matrix product"


def flop_per_token(config: ModelConfig) -> float:
    """What one token costs in training, forward and backward, by the field's usual count (`step_flop`)."""
    return step_flop(config, 1) / config.max_seq_len


def lab_speed(plan: Plan, ids: NDArray[np.uint16], val: NDArray[np.uint16], peak: float) -> Result:
    """Tokens per second of the lab's model, beside the plain way."""
    tokens, rates = plan.lab_batch * plan.lab.max_seq_len, {}
    for way, more in {"fast": {}, "plain": PLAIN}.items():
        clear(plan)
        clock = Clock()
        steps = plan.lab_steps if way == "fast" else max(plan.lab_steps // 4, 3 * Clock.SKIP)
        train(plan.lab, settings_of(plan, plan.lab_batch, steps + 2 * Clock.SKIP, **more), ids, val[: 4 * plan.lab.max_seq_len], clock)
        rates[way] = clock.rates(tokens)
    ours, peer = (statistics.median(rates[way]) for way in ("fast", "plain"))
    quarter = len(rates["fast"]) // 4
    share = ours * flop_per_token(plan.lab) / peak
    return Result(
        name="GPU, 6 × 384, training", unit="tokens/s", ours=ours, peer=peer, peer_name="float32, eager", ratio=ours / peer,
        low=rates["fast"][quarter] / peer, high=rates["fast"][-1 - quarter] / peer, group="gpu",
        notes=f"context {plan.lab.max_seq_len}, batch {plan.lab_batch}", extra={"share_of_peak": share},
    )  # fmt: skip


def target_of(source: MarkovSource, context: int) -> float:
    """The loss to reach: all but a tenth of the way from one symbol to everything. The first target of a window has one only."""
    distance = source.entropy_of_pairs - source.entropy
    return source.entropy + distance / context + NEAR * distance


def lab_time_to_loss(plan: Plan, source: MarkovSource, ids: NDArray[np.uint16], val: NDArray[np.uint16]) -> Result:
    """Seconds until the lab's model knows the source, beside the plain way; the first steps, while the compiler works, not counted."""
    target = target_of(source, plan.lab.max_seq_len)
    clocks = {}
    for way, more in {"fast": {}, "plain": PLAIN}.items():
        clear(plan)
        clocks[way] = Clock(target, plan.patience)
        settings = settings_of(plan, plan.lab_batch, 20_000, 20, learning_rate=plan.lab_rate, schedule="constant", **more)
        train(plan.lab, settings, ids, val, clocks[way])
    fast, plain = clocks["fast"], clocks["plain"]
    notes = f"to {target:.3f} nats (source {source.entropy:.3f}, pairs {source.entropy_of_pairs:.3f}) in {fast.steps} steps"
    notes += "".join(f"; {way} not there after {c.seconds:.0f} s: {c.loss:.3f}" for way, c in clocks.items() if not c.reached)
    ratio = plain.seconds / fast.seconds
    return Result(
        name="GPU, 6 × 384, time to loss", unit="s", ours=fast.seconds, peer=plain.seconds, peer_name="float32, eager", ratio=ratio,
        low=ratio, high=ratio, group="gpu", notes=notes, extra={"steps": fast.steps, "target": target, "reached": float(fast.reached)},
    )  # fmt: skip


def gpt2_rates(plan: Plan, ids: NDArray[np.uint16], deadline: float) -> Iterator[tuple[int, list[float], float]]:
    """(batch, sorted tokens per second, GB) for growing batches, until the memory is full or the time is up."""
    for batch in plan.batches:
        begun = time.perf_counter()
        clear(plan)
        clock = Clock()
        try:
            train(plan.gpt2, settings_of(plan, batch, plan.gpt2_steps, learning_rate=6e-4), ids, ids[: 2 * plan.gpt2.max_seq_len], clock)
        except FullError:
            print(f"GPT-2 124M, batch {batch}: more than the memory holds", flush=True)
            return
        rates = clock.rates(batch * plan.gpt2.max_seq_len)
        print(f"GPT-2 124M, batch {batch}: {statistics.median(rates):,.0f} tokens/s, {memory_gb(plan.device):.1f} GB", flush=True)
        yield batch, rates, memory_gb(plan.device)
        now = time.perf_counter()
        if now + 1.3 * (now - begun) > deadline:
            return


def gpt2_speed(plan: Plan, ids: NDArray[np.uint16], peak: float, peak_name: str, deadline: float) -> Result:
    """GPT-2's training as a share of the peak, at the fastest batch."""
    tried = list(gpt2_rates(plan, ids, deadline))
    if not tried:
        raise FullError(f"GPT-2 does not fit into this GPU's memory with {plan.batches[0]} rows")
    batch, rates, memory = max(tried, key=lambda trial: statistics.median(trial[1]))
    each, rate, quarter = flop_per_token(plan.gpt2), statistics.median(rates), len(rates) // 4
    notes = (
        f"{rate:,.0f} tokens/s at context {plan.gpt2.max_seq_len}, batch {batch} (tried: {', '.join(str(trial[0]) for trial in tried)}), "
        f"{memory:.0f} GB; {each / 1e6:.0f} MFLOP a token (PaLM, appendix B)"
    )
    return Result(
        name="GPU, GPT-2 124M, share of peak", unit="TFLOP/s", ours=rate * each / 1e12, peer=peak / 1e12, peer_name=peak_name,
        ratio=rate * each / peak, low=rates[quarter] * each / peak, high=rates[-1 - quarter] * each / peak, aim=AIM, group="gpu",
        notes=notes, extra={"tokens_per_second": rate, "batch": batch, "memory_gb": memory},
    )  # fmt: skip


def run(plan: Plan | None = None) -> list[Result]:
    """Measure everything the plan says, one line each."""
    plan = plan or Plan()
    deadline = time.perf_counter() + plan.limit
    peak, peak_name = peak_for(plan)
    source = MarkovSource(plan.symbols)
    ids, val = source.text(plan.text, seed=1), source.text(max(plan.text // 50, 2_000), seed=2)
    results = []
    for measure in (
        lambda: lab_speed(plan, ids, val, peak),
        lambda: lab_time_to_loss(plan, source, ids, val),
        lambda: gpt2_speed(plan, ids, peak, peak_name, deadline),
    ):
        results.append(measure())
        print(f"{results[-1].line()}\n{'':44} {results[-1].notes}", flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure training on one CUDA GPU; exit code 1 when an aim was missed, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=main.__doc__)
    parser.add_argument("--dry-run", action="store_true", help="toy sizes on the CPU, nothing is kept: does every line of it work?")
    parser.add_argument("--history", type=Path, default=HISTORY, metavar="FILE", help="append the results to this file")
    chosen = parser.parse_args(arguments)
    if chosen.dry_run:
        run(DRY)
        return 0
    if not torch.cuda.is_available():
        print("no GPU: PyTorch sees no CUDA device here. Try --dry-run, or another machine")
        return 2
    print(" · ".join(f"{key} {value}" for key, value in machine().items()))
    begun = time.perf_counter()
    results = run()
    keep(results, chosen.history, seconds={"gpu": round(time.perf_counter() - begun, 1)})
    if chosen.history == HISTORY and peer_module("matplotlib") is not None:
        from benchmarks import report

        report.write()
    return 0 if all(result.reached for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
