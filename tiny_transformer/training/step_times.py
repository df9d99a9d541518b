"""The parts of real training steps, measured: the trainer runs as always, and every second step is watched.

The steps in between are undisturbed: beside their time one sees what the watching costs, and a machine that slows down for a
while slows both. Leaves out: the watching itself (`part_times.py`). Read before: `trainer.py`, `part_times.py`.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tiny_transformer.config import TrainConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.roofline import FORWARD
from tiny_transformer.step_cost import Phase
from tiny_transformer.training import loop, objectives, trainer
from tiny_transformer.training.ceilings import wait_for
from tiny_transformer.training.listener import Listener
from tiny_transformer.training.part_times import OTHER, Function, Key, Stopwatch, watched

WARM_UP = 4
"""Steps that are not counted: memory is taken, kernels are chosen, the optimizer makes its state."""
AROUND: tuple[Function, ...] = (
    (loop, "batch_at", "batch"),
    (objectives, "cross_entropy", "loss"),
    (trainer, "gradient_norm", "clipping"),
    (trainer, "scale_gradients", "clipping"),
)
"""Functions of the training step outside the model."""


@dataclass(frozen=True)
class PartTimes:
    """What was measured. Each figure is a median over the measured steps (or tokens)."""

    parts: Mapping[Key, float]
    """(part, phase) → seconds, in watched steps."""
    watched: float
    """Seconds of a whole watched step."""
    undisturbed: float
    """Seconds of a whole step that nobody watches."""
    low: float
    """Its lower quartile."""
    high: float
    """Its upper quartile."""
    count: int
    """Steps of either kind."""
    warnings: tuple[str, ...] = ()

    @property
    def sum_of_parts(self) -> float:
        """Seconds of all parts together."""
        return sum(self.parts.values())

    @property
    def overhead(self) -> float:
        """How much longer a watched step takes, as a share of an undisturbed one."""
        return self.watched / self.undisturbed - 1


def middle(
    pieces: Sequence[Mapping[Key, float]], watched: Sequence[float], plain: Sequence[float], warnings: Sequence[str] = ()
) -> PartTimes:
    """The medians of what several steps took; a part that a step did not have took no time in it."""
    keys = dict.fromkeys(key for piece in pieces for key in piece)
    parts = {key: statistics.median(piece.get(key, 0.0) for piece in pieces) for key in keys}
    low, middle_one, high = (float(np.quantile(plain, share)) for share in (0.25, 0.5, 0.75))
    return PartTimes(parts, statistics.median(watched), middle_one, low, high, len(pieces), tuple(warnings))


def time_steps(model: TinyTransformerLM, settings: TrainConfig, steps: int = 10) -> PartTimes:
    """Train `model` on random ids for `steps` watched and as many undisturbed steps, in turn. Its weights change.

    With `settings.compile` the model is one part: what is inside it is no longer made of the parts' own calls.
    Raises ValueError as the trainer does.
    """
    steps = max(1, steps)
    watcher = _Watcher(model, settings, steps)
    enough = settings.batch_size * (model.config.max_seq_len + 1) + 2
    ids = np.random.default_rng(settings.seed).integers(model.config.vocab_size, size=enough)
    last = WARM_UP + 2 * steps
    short = replace(settings, max_steps=last, eval_every=last + 1, eval_tokens=1, patience=None, save_every=last + 1)
    trainer.Trainer(model, None, ids, ids[:2], short, listener=watcher).fit()
    return middle(watcher.pieces, watcher.times[True], watcher.times[False], watcher.warnings)


class _Watcher(Listener):
    """Told of every step; watches every second one."""

    def __init__(self, model: TinyTransformerLM, settings: TrainConfig, steps: int) -> None:
        self.model, self.settings, self.steps = model, settings, steps
        self.pieces: list[dict[Key, float]] = []
        self.times: dict[bool, list[float]] = {True: [], False: []}
        self.warnings: list[str] = []
        self._hooks = ExitStack()
        self._watching: bool | None = None
        self._begun = 0.0

    def on_start(self, trainer: Any) -> None:
        self.trainer, self.device = trainer, trainer.device
        self.watch = Stopwatch(self.device)

    def on_warning(self, text: str) -> None:
        self.warnings.append(text)

    def on_step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_second: float) -> None:
        self._finish()
        if WARM_UP <= step < WARM_UP + 2 * self.steps:
            self._begin(watching=(step - WARM_UP) % 2 == 1)

    def on_sample(self, step: int) -> None:
        """Nothing is written here: there is no text."""

    def _begin(self, *, watching: bool) -> None:
        self._watching = watching
        if watching:
            whole = self.settings.compile
            functions = (*AROUND, (self.trainer, "_loss_sum", FORWARD if whole else OTHER))
            self._hooks.enter_context(watched(self.watch, self.model, functions, inside=not whole))
            self._hooks.callback(self.trainer.optimizer.register_step_pre_hook(lambda *_: self.watch.begin("optimizer")).remove)
            self._hooks.callback(self.trainer.optimizer.register_step_post_hook(lambda *_: self.watch.end()).remove)
        wait_for(self.device)
        self._begun = time.perf_counter()
        if watching:
            self.watch.start()

    def _finish(self) -> None:
        if self._watching is None:
            return
        wait_for(self.device)
        self.times[self._watching].append(time.perf_counter() - self._begun)
        if self._watching:
            self.pieces.append(self.watch.times())
        self._hooks.close()
        self._watching = None


def phases(parts: Mapping[Key, float]) -> dict[Phase, float]:
    """Seconds of each phase."""
    sums: dict[Phase, float] = {}
    for (_, phase), seconds in parts.items():
        sums[phase] = sums.get(phase, 0.0) + seconds
    return sums


if __name__ == "__main__":
    from tiny_transformer.config import PRESETS

    torch.set_num_threads(1)
    found = time_steps(TinyTransformerLM(PRESETS["tiny"], seed=0), TrainConfig(batch_size=8), steps=5)
    print(f"a step {1e3 * found.undisturbed:.2f} ms, watched {1e3 * found.watched:.2f} ms, sum of parts {1e3 * found.sum_of_parts:.2f} ms")
    for phase, seconds in phases(found.parts).items():
        print(f"  {phase:9} {1e3 * seconds:6.2f} ms")
