"""The one generator: prompts in, text out; for the command line, the trainer's samples, the API, rating and measuring.

Left out: choosing a token (`strategies.py`), cache and context edge (`decoder.py`), beam search (`beam.py`), and what needs no
model: starting, ending, tokens to text (`text_writer.py`). Read before: those, or just `SampleConfig` in `config.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tiny_transformer.config import SampleConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.sampling.beam import beam_search
from tiny_transformer.sampling.decoder import Decoder, naive_logits, window_start
from tiny_transformer.sampling.native_step import draw_rule
from tiny_transformer.sampling.strategies import choose, next_token_distribution, pick
from tiny_transformer.sampling_rules import BLOCK, uniform
from tiny_transformer.text_writer import BALANCED, TextWriter
from tiny_transformer.tokenization.base import Tokenizer

__all__ = ["Step", "TextGenerator", "naive_generate", "naive_logits", "window_start"]

WEIGHTS_AT_ONCE = 400_000_000
"""So many are read within 40 ms, at 40 GB/s: as long as a picture of a film is shown."""
FIRST_BURST = 8
"""A text's first bursts, in tokens."""


class Step(NamedTuple):
    """One new token in every row."""

    logits: Tensor
    """(batch, vocab), as the model gave them."""
    tokens: Tensor
    """(batch,), what was chosen."""


class TextGenerator(TextWriter):
    """A model and its tokenizer, writing.

    >>> generator = TextGenerator(model, tokenizer)                                       # doctest: +SKIP
    >>> generator.generate("ROMEO:", SampleConfig(temperature=0.8, seed=1))               # doctest: +SKIP
    >>> for piece in generator.stream("ROMEO:", SampleConfig(stop=("JULIET:",))):         # doctest: +SKIP
    ...     print(piece, end="", flush=True)

    All ways of writing give the same text for the same settings; `text_writer.py` says how a text starts and ends, and where the
    random numbers come from.
    """

    def __init__(self, model: TinyTransformerLM, tokenizer: Tokenizer) -> None:
        """Take any causal model. Raises ConfigError for one that sees the future."""
        super().__init__(tokenizer, causal=model.config.causal)
        self.model = model

    def steps(self, prompts: Sequence[Sequence[int]], config: SampleConfig = BALANCED) -> Iterator[Step]:
        """`max_tokens` steps with logits and choices, for ids of any lengths; it knows nothing of ends and stop strings."""
        decoder = Decoder(self.model, prompts, config.max_tokens)
        numbers = _uniform(config, len(prompts), self.model.device)
        for _ in range(config.max_tokens):
            yield self._step(decoder, config, next(numbers))

    def choices(self, prompts: Sequence[Sequence[int]], config: SampleConfig) -> Iterator[list[int]]:
        """The next token of every row, `max_tokens` times: the same as those of `steps`.

        Where there is the step in C, one call writes a burst of tokens, which are then handed on one by one. A burst is at most as long
        as all that was handed on before it (and the first ones `FIRST_BURST`): little is written behind an end.
        """
        rule = draw_rule(config, self.tokenizer.vocab_size)
        if rule is None or self.model.device.type != "cpu":
            yield from (step.tokens.tolist() for step in self.steps(prompts, config))
            return
        decoder, most, written = Decoder(self.model, prompts, config.max_tokens), _longest_burst(self.model), 0
        for numbers in uniform(config, len(prompts)):
            block = torch.from_numpy(numbers)[: config.max_tokens - written]  # (BLOCK or what is left, rows)
            while len(block):
                tokens = decoder.write(rule, block[: min(most, max(FIRST_BURST, written))])
                tokens = tokens or [self._step(decoder, config, block[0]).tokens.tolist()]
                yield from tokens
                block, written = block[len(tokens) :], written + len(tokens)
            if written == config.max_tokens:
                return

    def _step(self, decoder: Decoder, config: SampleConfig, u: Tensor) -> Step:
        logits = decoder.logits()
        tokens = pick(logits[:, : self.tokenizer.vocab_size], decoder.texts, config, u)
        decoder.append(tokens)
        return Step(logits, tokens)

    def best_beam(self, prompt: Sequence[int], config: SampleConfig, is_end: Callable[[Sequence[int]], bool]) -> Sequence[int]:
        """The new tokens of the best text that a beam search finds."""
        found = beam_search(
            self.model,
            prompt,
            beams=config.beams,
            max_tokens=config.max_tokens,
            length_penalty=config.length_penalty,
            is_end=is_end,
            vocab_size=self.tokenizer.vocab_size,
        )
        return found[0].tokens


def _longest_burst(model: TinyTransformerLM) -> int:
    """How many tokens of a text may be written before the first of them is shown."""
    return min(BLOCK, max(1, WEIGHTS_AT_ONCE // model.config.n_parameters))


def naive_generate(model: TinyTransformerLM, prompt: Sequence[int], config: SampleConfig) -> list[int]:
    """The new ids of one row, with no cache, no batch and no shortcut: twelve lines to read first, and the oracle of tests."""
    generator = np.random.default_rng(config.seed)
    ids = torch.tensor([list(prompt)], device=model.device)
    for _ in range(config.max_tokens):
        logits = naive_logits(model, ids)
        probabilities = next_token_distribution(logits, ids, config)
        token = choose(probabilities, torch.from_numpy(generator.random(1)))
        ids = torch.cat((ids, token[:, None]), dim=1)
    new: list[int] = ids[0, len(prompt) :].tolist()
    return new


def _uniform(config: SampleConfig, rows: int, device: torch.device) -> Iterator[Tensor]:
    """One number in [0, 1) per row and step: (rows,) float64."""
    for numbers in uniform(config, rows):
        block = torch.from_numpy(numbers)  # (BLOCK, rows)
        yield from block if device.type == "mps" else block.to(device)


if __name__ == "__main__":
    from tiny_transformer.config import ModelConfig
    from tiny_transformer.tokenization.char import CharTokenizer

    tokenizer = CharTokenizer.train("First Citizen: before we proceed any further, hear me speak.\n")
    model = TinyTransformerLM(ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=32, d_model=64), seed=0)
    generator = TextGenerator(model, tokenizer)
    settings = SampleConfig(max_tokens=40, seed=1)
    print("untrained:", repr(generator.generate("First", settings)))
    print("streamed: ", [*generator.stream("First", settings)][:6], "…")
    for step in generator.steps([tokenizer.encode("First")] * 2, SampleConfig(max_tokens=1)):
        print("logits", tuple(step.logits.shape), "tokens", tuple(step.tokens.shape))
    naive = tokenizer.decode(naive_generate(model, tokenizer.encode("First"), settings))
    print("the naive loop agrees:", generator.generate("First", settings) == "First" + naive)
