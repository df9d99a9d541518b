"""What `tiny profile` measures: times by part, costs by part, and the machine's ceilings, in one run. Read before: roofline.py."""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime

import torch

from tiny_transformer import run as runs
from tiny_transformer.cli.profile_settings import ProfileSettings, Subject
from tiny_transformer.config import SAMPLING_PRESETS, ModelConfig
from tiny_transformer.hardware import describe, detect
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.roofline import Ceilings, Row, rows, sum_row
from tiny_transformer.sampling.token_times import time_tokens
from tiny_transformer.step_cost import Costs, step_cost, step_flop, token_cost
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.training.ceilings import measure_ceilings
from tiny_transformer.training.step_times import PartTimes, time_steps
from tiny_transformer.training.utils import pick_device, pick_precision, thread_count
from tiny_transformer.utils.reference import reference_path

PRIVATE = 0x100
"""Characters that a model without a text is said to write: from here on."""


@dataclass(frozen=True)
class Report:
    """Everything about one profile."""

    subject: Subject
    generate: bool
    compiled: bool
    times: PartTimes
    rows: list[Row]
    ceilings: Ceilings
    length: int
    """How many positions a token looks at (--generate), or those of a row of the batch."""
    usual_flop: int
    """A step's products by the usual count; 0 for a token."""
    machine: str
    device: str
    precision: str
    threads: int
    load: float | None
    """How many programs wanted a core in the minute before; None where the system does not say."""
    date: str

    @property
    def all_parts(self) -> Row:
        """Their sum."""
        return sum_row(self.rows)

    @property
    def tokens_per_second(self) -> float:
        """Trained on, or written, without watching."""
        tokens = self.subject.training.batch_size * (1 if self.generate else self.length)
        return tokens / self.times.undisturbed


def measure(subject: Subject, settings: ProfileSettings) -> Report:
    """Build the model, measure its steps or tokens, then the ceilings with the same threads and on the same device."""
    training, load = subject.training, os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    device = pick_device(training.device)
    precision = torch.float32 if settings.generate else pick_precision(training.precision, device)
    model, tokenizer = open_model(subject)
    with thread_count(training.threads), reference_path() if settings.reference else nullcontext():
        if settings.generate:
            sampling = SAMPLING_PRESETS[settings.sampler]
            times, length = time_tokens(model.to(device).eval(), tokenizer, sampling, rows=training.batch_size, tokens=settings.steps)
        else:
            times, length = time_steps(model, training, settings.steps), subject.config.max_seq_len
        threads = torch.get_num_threads()
        ceilings = measure_ceilings(device, precision)
    costs = costs_of(subject, settings, length, value=precision.itemsize)
    return Report(
        subject=subject, generate=settings.generate, compiled=training.compile, times=times, rows=rows(times.parts, costs, ceilings),
        ceilings=ceilings, length=length, usual_flop=0 if settings.generate else step_flop(subject.config, training.batch_size),
        machine=describe(detect()), device=str(device), precision=str(precision).removeprefix("torch."), threads=threads, load=load,
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
    )  # fmt: skip


def costs_of(subject: Subject, settings: ProfileSettings, length: int, *, value: int) -> Costs:
    """What is counted for what was measured."""
    training = subject.training
    if settings.generate:
        return token_cost(subject.config, training.batch_size, length, value=value)
    return step_cost(
        subject.config, training.batch_size, optimizer=training.optimizer, accumulate=training.accumulate,
        clip=True, value=value, fused=not settings.reference,
    )  # fmt: skip


def open_model(subject: Subject) -> tuple[TinyTransformerLM, Tokenizer]:
    """The run's model, or one with first weights; a stand-in where there is no tokenizer: only its size matters."""
    if subject.path is None:
        return TinyTransformerLM(subject.config, seed=subject.training.seed), letters(subject.config)
    model, tokenizer = runs.load(subject.path)
    return model, tokenizer or letters(model.config)


def letters(config: ModelConfig) -> Tokenizer:
    """As many characters as the model has tokens."""
    return CharTokenizer("".join(map(chr, range(PRIVATE, PRIVATE + config.vocab_size))))
