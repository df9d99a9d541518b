"""`--minutes N`: time a few sizes on this machine, choose the one that makes the best of the time, say what loss to expect.

Timing is training: the real trainer takes a few steps of each size on the real text, and the weights are thrown away. What is chosen is
timed too before it counts as chosen, so a wrong estimate of the speed corrects itself. Left out: the law (training/loss_law.py),
the choice (training/size_choice.py), ending on time (training/time_budget.py). Read before: those three.
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

from tiny_transformer import hardware
from tiny_transformer.cli.display import duration
from tiny_transformer.cli.engines import Engine, engine
from tiny_transformer.cli.main import STARTED
from tiny_transformer.cli.material import Material
from tiny_transformer.cli.settings import MINUTES_RECIPE, Job
from tiny_transformer.config import ModelConfig, TrainConfig, check
from tiny_transformer.corpora.counting_loss import ngram_loss
from tiny_transformer.training import loss_law
from tiny_transformer.training.listener import Listener
from tiny_transformer.training.size_choice import (
    FIXABLE,
    Candidate,
    Choice,
    Speed,
    Task,
    afterwards_seconds,
    allowed,
    candidates,
    choose,
    trained,
)

PROBE_SHARE, PROBE_MOST = 0.008, 2.0
"""Timing one size takes this share of the time, or so many seconds at most."""
MOST_ROUNDS = 4
"""How often the best size so far is timed and the choice made anew."""
FIRST_TIMED = ((64, 2, 64, 16), (192, 4, 128, 16))
"""(d_model, n_layers, context, batch) of the two sizes that are timed first."""
TIMED_TOKENS = 100_000
"""Of the training text, for timing."""
COUNTED_TRAIN, COUNTED_VAL = 1_000_000, 100_000
"""Tokens that the yardstick is counted in and measured on."""
SAME = 0.02
"""Another text whose yardstick is this near to the law's own, as a share, is as good as the same."""
OTHER_TEXT = 0.10
"""How much less sure the law is of another text, as a share of the loss: a guess, as long as no runs on others say more."""


@dataclass(frozen=True)
class Plan:
    """What was measured, what was chosen, and what to expect."""

    minutes: float
    timed: list[dict[str, Any]]
    """Each size that was timed, with its tokens per second."""
    tokens_per_second: float
    tokens: int
    epochs: float
    loss: float
    low: float
    high: float
    smaller: float | None
    larger: float | None
    """What the best of the sizes at most half, and at least twice, as large would end at."""
    law: str
    """The recipe whose law it is …"""
    own_text: bool
    """… and whether it was measured on a text as hard as this one."""
    before: float
    """Seconds from the start of the command to the choice."""
    afterwards: float
    """Seconds that the last measurement will take."""
    chosen: bool
    """False where flags had fixed every size."""

    def to_dict(self) -> dict[str, Any]:
        """For config.json."""
        return asdict(self)


def chooses(job: Job) -> bool:
    """Whether sizes are to be chosen: minutes were asked for, and the recipe has no sizes of its own for them (or a law was named)."""
    own = job.base is not None and job.base.training.minutes is not None
    return "minutes" in job.asked and job.training.minutes is not None and (job.law is not None or not own)


def command_started(job: Job) -> float | None:
    """When the command began, by time.perf_counter; None when it was not called as a command."""
    return STARTED.get(job.command)


def plan(job: Job, material: Material) -> tuple[Job, Plan]:
    """The job with its sizes and schedule chosen, and why. Writes nothing. Raises ConfigError when no time is left to learn in."""
    minutes, begun = job.training.minutes or 0.0, command_started(job)
    begun = time.perf_counter() if begun is None else begun
    law, law_name = loss_law.law_for(job.base.name if job.base else None, MINUTES_RECIPE, job.law)
    yardstick, own_text = _yardstick(material, law)
    base = replace(job.model, vocab_size=material.tokenizer.vocab_size)
    fixed = job.asked | (frozenset(FIXABLE) - {"batch_size"} if "preset" in job.asked else frozenset())
    machine = hardware.detect(look_for_gpu=job.engine == "torch")
    longest = min(len(material.train_ids), len(material.val_ids)) - 1
    sizes = _dividing(list(candidates(base, job.training.batch_size, fixed)), job.training.short_context)
    options = allowed(sizes, law, longest, lambda option: _fits(machine, option))
    check(bool(options), f"d_model={base.d_model}", "its heads must be of equal, even width", "Try another d_model or n_heads")

    compiling = _ways(job, law_name)
    timer = _Timer(engine(job.engine), job.training, material, min(PROBE_MOST, PROBE_SHARE * 60 * minutes))
    _check_time_left(minutes, begun)
    for start in _first(options):
        timer.time(start)
    for _ in range(MOST_ROUNDS):
        task = _task(60 * minutes - (time.perf_counter() - begun), law, material, yardstick, own_text, job.law, law_name)
        best = choose(options, timer.speed, task, compiling)
        if timer.speed.knows(best.candidate):
            break
        timer.time(best.candidate)
    task = _task(60 * minutes - (time.perf_counter() - begun), law, material, yardstick, own_text, job.law, law_name)
    best = choose([option for option in options if timer.speed.knows(option)], timer.speed, task, compiling)
    _check_time_left(minutes, begun)
    training = trained(job.training, job.model.d_model, best, job.asked)
    made = Plan(
        minutes=minutes, timed=[_as_dict(known, known.step_tokens / seconds) for known, seconds in timer.speed.timed],
        tokens_per_second=best.tokens_per_second, tokens=best.tokens, epochs=best.tokens / len(material.train_ids), loss=best.loss,
        low=best.low, high=best.high, smaller=_rival(options, timer.speed, task, best, (0.0, 0.5)),
        larger=_rival(options, timer.speed, task, best, (2.0, math.inf)), law=law_name, own_text=own_text,
        before=time.perf_counter() - begun, afterwards=afterwards_seconds(best, training, len(material.val_ids)), chosen=len(options) > 1,
    )  # fmt: skip
    return replace(job, model=best.candidate.model, training=training), made


def _dividing(sizes: list[Candidate], short: int | None) -> list[Candidate]:
    """Those whose context the first, short one divides."""
    found = [size for size in sizes if short is None or size.model.max_seq_len % short == 0]
    contexts = " or ".join(str(seq) for seq in sorted({size.model.max_seq_len for size in sizes}))
    check(bool(found) or not sizes, f"short_context={short}", f"it must divide a context of {contexts} tokens", "Leave it out")
    return found


def _check_time_left(minutes: float, begun: float) -> None:
    used = time.perf_counter() - begun
    got = f"--minutes {minutes:g} is {60 * minutes:.1f} s, and starting took {used:.1f} s"
    check(used < 60 * minutes, got, "there must be time to learn", f"Try --minutes {math.ceil(used / 3) / 10:g}")


def _task(
    seconds: float, law: loss_law.Law, material: Material, yardstick: float, own_text: bool, law_file: str | None, law_name: str
) -> Task:
    gain, compile_seconds = _compiling(law_file, law_name)
    return Task(
        seconds, law, unique=len(material.train_ids), yardstick=None if own_text else yardstick, spread=0.0 if own_text else OTHER_TEXT,
        compiled_gain=gain, compile_seconds=compile_seconds,
    )  # fmt: skip


def _ways(job: Job, law_name: str) -> tuple[bool, ...]:
    """Whether to compile: as flag or recipe say, and open where the recipe compiles and it was measured what that gains."""
    measured = law_name in loss_law.read(job.law).get("compiling", {})
    return (False, True) if job.training.compile and measured and "compile" not in job.asked else (job.training.compile,)


def _compiling(law_file: str | None, law_name: str) -> tuple[float, float]:
    """How much compiling gains and how long it takes, as it was measured with the law; (1, 60) where it was not."""
    known = loss_law.read(law_file).get("compiling", {}).get(law_name, {})
    return float(known.get("gain", 1.0)), float(known.get("seconds", 60.0))


def _yardstick(material: Material, law: loss_law.Law) -> tuple[float, bool]:
    """(what counting reaches on this text, whether that is as good as the law's own text)."""
    train, val = material.train_ids[:COUNTED_TRAIN], material.val_ids[:COUNTED_VAL]
    reached = ngram_loss(train, val, material.tokenizer.vocab_size)
    return reached, abs(reached / law.yardstick - 1) < SAME


def _fits(machine: hardware.Hardware, option: Candidate) -> bool:
    memory = machine.gpu_memory_gb if machine.gpu_memory_gb is not None else machine.memory_gb
    needed = hardware.training_memory_gb(option.model, option.batch_size) + hardware.PROGRAM_GB
    return needed <= hardware.USABLE * memory


def _first(options: list[Candidate]) -> list[Candidate]:
    """The options nearest to FIRST_TIMED: one small, one larger."""
    found = []
    for d_model, n_layers, context, batch in FIRST_TIMED:
        wanted = (d_model, n_layers, context, batch)
        nearest = min(options, key=lambda option: _apart(option, wanted))
        found += [nearest] if nearest not in found else []
    return found


def _apart(option: Candidate, wanted: tuple[int, int, int, int]) -> float:
    sizes = (option.model.d_model, option.model.n_layers, option.model.max_seq_len, option.batch_size)
    return sum(math.log(a / b) ** 2 for a, b in zip(sizes, wanted, strict=True))


def _rival(options: list[Candidate], speed: Speed, task: Task, best: Choice, sizes: tuple[float, float]) -> float | None:
    """The expected loss of the best option whose size, as a multiple of the chosen one's, lies between two."""
    least, most = (share * best.candidate.parameters for share in sizes)
    others = [option for option in options if least <= option.parameters <= most]
    return choose(others, speed, task, (best.compiled,)).loss if others else None


class _Enough(Exception):  # noqa: N818 (it ends a timing, and is no error)
    """Raised by the listener of a timing when it has seen enough."""


class _Steps(Listener):
    """Notes when each step ended, and ends the training after `seconds`, but not before the third step."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.ended = seconds, list[float]()

    def on_step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_second: float) -> None:
        self.ended.append(time.perf_counter())
        if len(self.ended) >= 3 and self.ended[-1] - self.ended[0] >= self.seconds:
            raise _Enough


class _Timer:
    """Times training steps: `time(candidate)` adds what it found to `speed`."""

    def __init__(self, used: Engine, settings: TrainConfig, material: Material, seconds: float) -> None:
        self.used, self.material, self.seconds, self.speed = used, material, seconds, Speed()
        self.settings = replace(
            settings, minutes=None, max_steps=10**9, compile=False, accumulate=1, patience=None, eval_every=10**9, eval_tokens=1,
            save_every=10**9, log_every=10**9,
        )  # fmt: skip

    def time(self, candidate: Candidate) -> None:
        """Take steps for the agreed time, three at least; the median time from one to the next counts, with all that lies between."""
        ids = self.material.train_ids[: max(TIMED_TOKENS, candidate.model.max_seq_len + 1)]
        model = self.used.new_model(candidate.model, self.settings.seed)
        settings, steps = replace(self.settings, batch_size=candidate.batch_size), _Steps(self.seconds)
        try:
            self.used.trainer(model, self.material.tokenizer, ids, ids[:2], settings, listener=steps).fit()
        except _Enough:
            self.speed.add(candidate, median(later - earlier for earlier, later in pairwise(steps.ended)))
        else:  # only a signal ends it otherwise
            raise KeyboardInterrupt


def _as_dict(candidate: Candidate, rate: float) -> dict[str, Any]:
    model: ModelConfig = candidate.model
    return {
        "d_model": model.d_model, "n_layers": model.n_layers, "max_seq_len": model.max_seq_len, "batch_size": candidate.batch_size,
        "tokens_per_second": round(rate, 1),
    }  # fmt: skip


def lines(made: Plan, training: TrainConfig, model: ModelConfig, unit: str) -> tuple[str, str]:
    """The plan for people: what was measured and chosen, and what to expect when."""
    size = f"{model.n_layers} × {model.d_model}, batches of {training.batch_size} × {model.max_seq_len}"
    why = [f"{'half' if name == 'smaller' else 'twice'} the size would reach {loss:.3f}" for name in ("smaller", "larger")
           if (loss := getattr(made, name)) is not None]  # fmt: skip
    how = f"best of {len(made.timed)} timed sizes" if made.chosen else "as asked"
    chosen = f"{size} ({how}, {made.tokens_per_second:,.0f} {unit}s/s here): reads the text {made.epochs:.1f} times"
    rough = "" if made.own_text else ", roughly: the law was measured on another text"
    left = timedelta(seconds=60 * made.minutes - made.before)
    expected = (
        f"loss {made.loss:.3f} ({made.low:.3f} to {made.high:.3f}{rough}) by the law of recipe {made.law}; the last step at "
        f"{datetime.now() + left:%H:%M:%S}, {duration(60 * made.minutes)} after the start, then about {made.afterwards:.0f} s of measuring"
    )
    return "; ".join([chosen, *why]), expected


def closing_line(made: dict[str, Any], reached: float, trained_seconds: float | None) -> str:
    """At the end of a run: what was expected beside what was reached, and how well the time was kept."""
    inside = "better than expected" if reached < made["low"] else "worse than expected" if reached > made["high"] else "as expected"
    text = f"expected {made['loss']:.3f} ({made['low']:.3f} to {made['high']:.3f}), reached {reached:.3f}: {inside}"
    if trained_seconds is None:
        return text
    off = trained_seconds / (60 * made["minutes"]) - 1
    return f"{text}; the last step ended {trained_seconds:.1f} s after the start, {100 * off:+.1f} % of {duration(60 * made['minutes'])}"
