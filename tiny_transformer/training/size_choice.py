"""Which model makes the best of some minutes: every size that may be chosen, its speed here, and the loss that the law expects of it.

    for every candidate:   seconds of a step here → steps in the time → tokens → expected loss        the lowest loss is taken

The speed of a candidate is estimated from a few that were timed on this machine (`Speed`): small models leave most of a machine idle,
so the share of it that they use is followed as it grows with the work in a step. Leaves out: timing (`cli/minutes.py`), the law
(`loss_law.py`), and what is decided without a time (`hardware.py`). Read before: `loss_law.py`, `config.py`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tiny_transformer.config import ModelConfig, TrainConfig, check
from tiny_transformer.training.loss_law import Law, Point, loss_at

WIDTHS = (64, 96, 128, 192, 256, 320, 384, 512, 640, 768)
LAYERS = (2, 3, 4, 5, 6, 8, 10, 12)
SLIMMEST, BROADEST = 20, 64
"""d_model / n_layers of a candidate: about what is in use from GPT-2 (64) down to small models."""
CONTEXTS = (64, 128, 256, 512)
BATCHES = (4, 8, 16, 32, 64, 128, 256)
LEAST_STEPS = 100
"""Below this many updates no schedule has room."""
BEYOND = 4.0
"""How many times larger than the largest measured model a candidate may be."""
EVALUATIONS = 6
"""Regular evaluations within the time …"""
EVAL_SHARE = 0.025
"""… and the share of the time that they may take together."""
SAMPLES_SECONDS = 2.5
"""About what the samples on the way take."""
SAVE_SECONDS = 120.0
"""Time between saves of last.pt."""
FORWARD = 1 / 3
"""Cost of a forward pass as a share of a training step's: backward is twice a forward."""
USUAL_GROWTH = 0.3
"""How fast the used share of a machine grows with the work of a step, as a power, where two timed sizes do not say otherwise."""
FIXABLE = ("d_model", "n_layers", "n_heads", "max_seq_len", "batch_size")
"""What a flag can take out of the choice."""


@dataclass(frozen=True)
class Candidate:
    """A model and how many sequences it learns from at a step."""

    model: ModelConfig
    batch_size: int

    @property
    def step_tokens(self) -> int:
        """Tokens of a step."""
        return self.batch_size * self.model.max_seq_len

    @cached_property
    def parameters(self) -> int:
        """Inside the blocks."""
        return block_parameters(self.model)

    @cached_property
    def flop(self) -> float:
        """Operations of a training step: 6 for each parameter and token, the attention's products, and the output layer's.

        Forward takes 2 for each parameter, backward 4 (Kaplan et al. 2020, 2.1); queries times keys and weights times values
        take 4 n_heads d_head T each token forward, half of them behind the mask.
        """
        model = self.model
        attention = 6 * model.n_layers * model.n_heads * model.head_width * model.max_seq_len
        return float(self.step_tokens * (6 * self.parameters + attention + 6 * model.d_model * model.vocab_size))


def block_parameters(model: ModelConfig) -> int:
    """Parameters inside the blocks: embeddings and the output layer left out, as in Kaplan et al. 2020."""
    more, one = replace(model, n_layers=2), replace(model, n_layers=1)
    return (more.n_parameters - one.n_parameters) * model.n_layers


# --- how fast ---------------------------------------------------------------------------------------------------------


class Speed:
    """Seconds of a step for any candidate, from those that were timed. One that was timed gets its own time back."""

    def __init__(self) -> None:
        self.timed: list[tuple[Candidate, float]] = []

    def add(self, candidate: Candidate, seconds: float) -> None:
        """A step of `candidate` took `seconds`."""
        self.timed.append((candidate, seconds))

    def knows(self, candidate: Candidate) -> bool:
        """Whether it was timed."""
        return any(known == candidate for known, _ in self.timed)

    def seconds(self, candidate: Candidate) -> float:
        """About how long a step of `candidate` takes: its operations over a rate that follows the timed ones.

        log rate = a straight line in log operations, and to it the mean of what the timed ones lie off that line, the nearest
        counting most. Raises ConfigError while nothing has been timed.
        """
        check(bool(self.timed), "no step was timed", "a speed needs one", "Time a step first")
        work, rate = zip(*((math.log(known.flop), math.log(known.flop / time)) for known, time in self.timed), strict=True)
        middle, level = sum(work) / len(work), sum(rate) / len(rate)
        growth = _growth([w - middle for w in work], [r - level for r in rate])
        off = total = 0.0
        for (known, time), w, r in zip(self.timed, work, rate, strict=True):
            if known == candidate:
                return time
            weight = 1 / (0.05 + _distance(known, candidate))
            off, total = off + weight * (r - level - growth * (w - middle)), total + weight
        wanted = math.log(candidate.flop)
        return math.exp(wanted - level - growth * (wanted - middle) - off / total)

    def tokens_per_second(self, candidate: Candidate) -> float:
        """Tokens learned from in a second."""
        return candidate.step_tokens / self.seconds(candidate)


def _growth(work: Sequence[float], rate: Sequence[float], pull: float = 0.5) -> float:
    """The slope of the rate over the work (both about their means), drawn towards the usual one by `pull`."""
    over = sum(w * r for w, r in zip(work, rate, strict=True)) + pull * USUAL_GROWTH
    return min(1.0, max(0.0, over / (sum(w * w for w in work) + pull)))


def _distance(one: Candidate, other: Candidate) -> float:
    """Squared, in the logarithms of width, depth, context and tokens of a step."""
    pairs = [(c.model.d_model, c.model.n_layers, c.model.max_seq_len, c.step_tokens) for c in (one, other)]
    return sum(math.log(a / b) ** 2 for a, b in zip(*pairs, strict=True))


# --- what may be chosen -----------------------------------------------------------------------------------------------


def candidates(base: ModelConfig, batch_size: int, fixed: frozenset[str]) -> Iterator[Candidate]:
    """Every model that differs from `base` in size only, with every batch size; what `fixed` names stays as it is in `base`.

    The heads keep their width where the number of heads is free.
    """
    for d_model in (base.d_model,) if "d_model" in fixed else WIDTHS:
        heads = base.n_heads if "n_heads" in fixed else d_model // base.head_width
        if base.d_head is None and (heads < 1 or d_model % heads or (d_model // heads) % 2):
            continue
        for n_layers in (base.n_layers,) if "n_layers" in fixed else LAYERS:
            if not {"d_model", "n_layers"} & fixed and not SLIMMEST <= d_model / n_layers <= BROADEST:
                continue
            for context in (base.max_seq_len,) if "max_seq_len" in fixed else CONTEXTS:
                model = resized(base, d_model, n_layers, max(1, heads), context)
                for batch in (batch_size,) if "batch_size" in fixed else BATCHES:
                    yield Candidate(model, batch)


def resized(base: ModelConfig, d_model: int, n_layers: int, n_heads: int, max_seq_len: int) -> ModelConfig:
    """`base` in another size; widths that were set apart from d_model keep their proportion to it."""
    changes: dict[str, Any] = {"d_model": d_model, "n_layers": n_layers, "n_heads": n_heads, "max_seq_len": max_seq_len}
    if base.d_ff is not None:
        changes["d_ff"] = max(8, round(base.d_ff * d_model / base.d_model / 8) * 8)
    if base.n_kv_heads is not None:
        group = base.n_heads // base.n_kv_heads
        changes["n_kv_heads"] = n_heads // group if n_heads % group == 0 else n_heads
    return replace(base, **changes)


# --- the choice -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What a choice is made for."""

    seconds: float
    """Left for learning, evaluations on the way included."""
    law: Law
    unique: int
    """Tokens of the training text."""
    yardstick: float | None = None
    """What counting reaches on it, in nats per token (`corpora/counting_loss.py`); None: the law's own text."""
    spread: float = 0.0
    """How much less sure the law is of this text, as a share of the loss."""
    compiled_gain: float = 1.0
    """How many times faster compiled steps are …"""
    compile_seconds: float = 0.0
    """… and how long compiling takes."""


@dataclass(frozen=True)
class Choice:
    """One candidate, and what will come of it."""

    candidate: Candidate
    tokens_per_second: float
    steps: int
    compiled: bool
    loss: float
    low: float
    high: float
    """The expected loss, and between which values it will lie nine times out of ten."""

    @property
    def tokens(self) -> int:
        """Learned from in all."""
        return self.steps * self.candidate.step_tokens


def judge(candidate: Candidate, speed: Speed, task: Task, compiled: bool = False) -> Choice:
    """What will come of a candidate in the time of `task`."""
    rate, steps, point = _outlook(candidate, speed, task, compiled)
    return Choice(candidate, rate, steps, compiled, *task.law.expect(point, task.yardstick, task.spread))


def _outlook(candidate: Candidate, speed: Speed, task: Task, compiled: bool) -> tuple[float, int, Point]:
    """Tokens per second, steps in the time, and where that is on the law."""
    rate = speed.tokens_per_second(candidate) * (task.compiled_gain if compiled else 1.0)
    left = (task.seconds - (task.compile_seconds if compiled else 0.0)) * (1 - EVAL_SHARE) - SAMPLES_SECONDS
    steps = max(1, int(max(0.0, left) * rate / candidate.step_tokens))
    tokens, context = steps * candidate.step_tokens, candidate.model.max_seq_len
    point = Point(parameters=candidate.parameters, tokens=tokens, context=context, batch=candidate.step_tokens, unique=task.unique)
    return rate, steps, point


def choose(options: Sequence[Candidate], speed: Speed, task: Task, compiling: Sequence[bool] = (False,)) -> Choice:
    """The option with the lowest expected loss; where none has room for LEAST_STEPS updates, the one with most updates.

    `compiling` says which ways are open: without, with, or either.
    """
    check(bool(options), "no size is left to choose", "the flags must leave one", "Take a size flag away")
    ways = [(option, compiled) for option in options for compiled in compiling]
    outlooks = [_outlook(option, speed, task, compiled) for option, compiled in ways]
    losses = [loss_at(point, task.law.constants) if steps >= LEAST_STEPS else math.inf for _, steps, point in outlooks]
    most = max(range(len(ways)), key=lambda way: outlooks[way][1])
    best = min(range(len(ways)), key=losses.__getitem__)
    option, compiled = ways[best if losses[best] < math.inf else most]
    return judge(option, speed, task, compiled)


def allowed(options: Sequence[Candidate], law: Law, longest: int, fits: Callable[[Candidate], bool]) -> list[Candidate]:
    """The options whose context is no longer than `longest`, that are not far larger than what the law has seen, and that `fits` accepts.

    Where flags leave only larger ones, those are what was asked for.
    """
    short = [option for option in options if option.model.max_seq_len <= longest]
    known = [option for option in short if option.parameters <= BEYOND * law.largest]
    return [option for option in known if fits(option)] or known or short or list(options)


def trained(base: TrainConfig, base_width: int, choice: Choice, fixed: frozenset[str]) -> TrainConfig:
    """`base` for the chosen candidate: batch, rates, and how often to evaluate and save. What `fixed` names stays.

    The learning rate falls with the width: twice as wide, half the rate (Yang et al. 2022, table 3, for Adam's matrices).
    """
    candidate, rate = choice.candidate, choice.tokens_per_second
    seconds = choice.tokens / rate
    evaluated = EVAL_SHARE / EVALUATIONS * seconds * rate / FORWARD / 2  # of either text
    wanted: dict[str, Any] = {
        "batch_size": candidate.batch_size,
        "accumulate": min(base.accumulate, candidate.batch_size),
        "learning_rate": float(f"{base.learning_rate * base_width / candidate.model.d_model:.3g}"),
        "warmup_steps": min(base.warmup_steps, max(1, choice.steps // 10)),
        "max_steps": choice.steps,
        "eval_every": max(1, math.ceil(choice.steps / EVALUATIONS)),
        "eval_tokens": int(min(base.eval_tokens, max(2048.0, evaluated))),
        "save_every": max(1, round(SAVE_SECONDS * rate / candidate.step_tokens)),
        "compile": choice.compiled,
    }
    return replace(base, **{name: value for name, value in wanted.items() if name not in fixed})


def afterwards_seconds(choice: Choice, training: TrainConfig, val_tokens: int) -> float:
    """About how long the last measurements take, after the last step: both texts once more, then the whole validation text."""
    return 1.0 + (2 * min(training.eval_tokens, val_tokens) + val_tokens) * FORWARD / choice.tokens_per_second


if __name__ == "__main__":
    from tiny_transformer.config import PRESETS
    from tiny_transformer.training.loss_law import law_for

    base, law, speed = PRESETS["cpu"], law_for(None, "quick")[0], Speed()
    for d_model, seconds in ((64, 0.03), (256, 0.35)):
        speed.add(Candidate(resized(base, d_model, 4, d_model // 32, 128), 16), seconds)
    options = allowed(list(candidates(base, 16, frozenset())), law, 10**6, lambda option: True)
    for minutes in (0.5, 2, 10, 60):
        best = choose(options, speed, Task(60.0 * minutes, law, unique=10**6))
        model = best.candidate.model
        size = f"{model.n_layers} × {model.d_model:3}, context {model.max_seq_len:3}, {best.candidate.batch_size:3} a batch"
        print(f"{minutes:4} minutes: {size}, {best.steps:6,} steps: loss {best.loss:.3f} ({best.low:.3f} to {best.high:.3f})")
