"""The generator: prompts in, text out, without PyTorch in the process. Mirrors `tiny_transformer/sampling/generator.py`.

For the same weights, settings and seed it writes the same text as PyTorch's, token for token. (In float32 the two engines' logits
differ in their last digits; a random number that falls into that gap between two tokens would choose differently.)
Left out: choosing a token (`strategies.py`), cache and context edge (`decoder.py`), beam search (`beam.py`), and what needs no
model: starting, ending, tokens to text (`text_writer.py`). Read before: those, or just `SampleConfig` in `config.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tiny_transformer.config import SampleConfig
from tiny_transformer.numpy_engine.beam import beam_search
from tiny_transformer.numpy_engine.decoder import Decoder, naive_logits
from tiny_transformer.numpy_engine.linear import Array
from tiny_transformer.numpy_engine.model import TinyTransformerLM
from tiny_transformer.numpy_engine.strategies import choose, next_token_distribution, pick
from tiny_transformer.sampling_rules import uniform
from tiny_transformer.text_writer import BALANCED, TextWriter
from tiny_transformer.tokenization.base import Tokenizer


class Step(NamedTuple):
    """One new token in every row."""

    logits: Array
    """(batch, vocab), as the model gave them."""
    tokens: Array
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
        numbers = (row for block in uniform(config, len(prompts)) for row in block)  # each (batch,)
        for _ in range(config.max_tokens):
            logits = decoder.logits()
            tokens = pick(logits[:, : self.tokenizer.vocab_size], decoder.texts, config, next(numbers))
            decoder.append(tokens)
            yield Step(logits, tokens)

    def choices(self, prompts: Sequence[Sequence[int]], config: SampleConfig) -> Iterator[list[int]]:
        """The next token of every row, `max_tokens` times."""
        for step in self.steps(prompts, config):
            yield step.tokens.tolist()

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


def naive_generate(model: TinyTransformerLM, prompt: Sequence[int], config: SampleConfig) -> list[int]:
    """The new ids of one row, with no cache, no batch and no shortcut: twelve lines to read first, and the oracle of tests."""
    generator = np.random.default_rng(config.seed)
    ids = np.array([list(prompt)])
    for _ in range(config.max_tokens):
        logits = naive_logits(model, ids)
        probabilities = next_token_distribution(logits, ids, config)
        token = choose(probabilities, generator.random(1))
        ids = np.concatenate((ids, token[:, None]), axis=1)
    new: list[int] = ids[0, len(prompt) :].tolist()
    return new


if __name__ == "__main__":
    from tiny_transformer.config import ModelConfig
    from tiny_transformer.numpy_engine.model import init_weights
    from tiny_transformer.tokenization.char import CharTokenizer

    tokenizer = CharTokenizer.train("First Citizen: before we proceed any further, hear me speak.\n")
    config = ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=32, d_model=64)
    model = TinyTransformerLM(config, init_weights(config, seed=0))
    generator = TextGenerator(model, tokenizer)
    settings = SampleConfig(max_tokens=40, seed=1)
    print("untrained:", repr(generator.generate("First", settings)))
    print("streamed: ", [*generator.stream("First", settings)][:6], "…")
    for step in generator.steps([tokenizer.encode("First")] * 2, SampleConfig(max_tokens=1)):
        print("logits", step.logits.shape, "tokens", step.tokens.shape)
    naive = tokenizer.decode(naive_generate(model, tokenizer.encode("First"), settings))
    print("the naive loop agrees:", generator.generate("First", settings) == "First" + naive)
