"""The parts of writing a token, measured: the generator writes token by token (`steps`), and every second token is watched.

Leaves out: the watching itself (`training/part_times.py`), and reading the prompt, which happens once. Read before: `generator.py`,
`training/step_times.py`.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from tiny_transformer.config import SampleConfig, check
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.sampling import generator
from tiny_transformer.sampling.decoder import Decoder
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.training.ceilings import wait_for
from tiny_transformer.training.part_times import Function, Key, Stopwatch, replaced, watched
from tiny_transformer.training.step_times import PartTimes, middle

WARM_UP = 4
"""Tokens that are not counted; the first one reads the prompt."""
AROUND: tuple[Function, ...] = ((generator, "pick", "sampling"),)
"""Functions of a token outside the model."""


def time_tokens(
    model: TinyTransformerLM, tokenizer: Tokenizer, sampling: SampleConfig, *, rows: int = 1, tokens: int = 20
) -> tuple[PartTimes, int]:
    """Write `tokens` watched and as many undisturbed tokens, in turn, in each of `rows` texts that end where the context is full.

    Returns the times, and how many positions the middle one of these tokens looked at. Raises ConfigError for a context too short.
    """
    written = WARM_UP + 2 * max(1, tokens)
    room = model.config.max_seq_len - written
    check(
        room >= 0, f"{tokens} tokens, watched and not, with a context of {model.config.max_seq_len}",
        "they must fit without moving the window", f"Try --steps {max(1, (model.config.max_seq_len - WARM_UP) // 2)}",
    )  # fmt: skip
    prompt = [int(token) for token in np.random.default_rng(0).integers(tokenizer.vocab_size, size=max(1, room))]
    steps, decoders = generator.TextGenerator(model, tokenizer).steps([prompt] * rows, sampling_for(sampling, written)), list[Decoder]()
    watch, pieces = Stopwatch(model.device), list[dict[Key, float]]()
    times: dict[bool, list[float]] = {True: [], False: []}
    for index in range(written):
        watching = index % 2 == 1
        with ExitStack() as stack:
            if index == 0:  # the generator makes its decoder now
                stack.enter_context(replaced(generator, "Decoder", partial(_kept, decoders)))
            if watching:
                step = decoders[0].step
                stack.enter_context(watched(watch, model, (*AROUND, *(step.parts() if step is not None else ()))))
                if step is not None:
                    stack.enter_context(step.told_to(watch.became))
            wait_for(model.device)
            begun = time.perf_counter()
            if watching:
                watch.start()
            next(steps)
            wait_for(model.device)
            took = time.perf_counter() - begun
            piece = watch.times() if watching else {}
        if index >= WARM_UP:
            times[watching].append(took)
            pieces += [piece] * watching
    return middle(pieces, times[True], times[False]), len(prompt) + WARM_UP + len(pieces)


def _kept(decoders: list[Decoder], original: Callable[..., Decoder], *args: Any) -> Decoder:
    decoders.append(original(*args))
    return decoders[-1]


def sampling_for(sampling: SampleConfig, tokens: int) -> SampleConfig:
    """The same rules for `tokens` tokens. Raises ConfigError for beam search, which does not choose token by token."""
    check(sampling.beams == 1, f"beams={sampling.beams}", "only sampling is profiled", "Leave --beams out")
    settings = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")}
    return SampleConfig(**settings, max_tokens=tokens, seed=sampling.seed or 0)


if __name__ == "__main__":
    from tiny_transformer.config import PRESETS
    from tiny_transformer.tokenization.char import CharTokenizer

    letters = CharTokenizer("".join(chr(0x100 + i) for i in range(65)))
    found, length = time_tokens(TinyTransformerLM(PRESETS["tiny"], seed=0).eval(), letters, SampleConfig(), tokens=10)
    print(f"a token {1e3 * found.undisturbed:.2f} ms, watched {1e3 * found.watched:.2f} ms, looking at {length} positions")
    for (part, _), seconds in sorted(found.parts.items(), key=lambda pair: -pair[1]):
        print(f"  {part:18} {1e3 * seconds:6.3f} ms")
