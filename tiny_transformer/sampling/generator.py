"""The one generator: prompts in, text out; for the command line, the trainer's samples, the API, rating and measuring.

Left out: choosing a token (`strategies.py`), cache and context edge (`decoder.py`), tokens to text (`incremental_text.py`),
beam search (`beam.py`). Read before: those, or just `SampleConfig` in `config.py`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tiny_transformer.config import SampleConfig, check
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.sampling.beam import beam_search
from tiny_transformer.sampling.decoder import Decoder, naive_logits, window_start
from tiny_transformer.sampling.incremental_text import IncrementalText, find_stop
from tiny_transformer.sampling.strategies import choose, next_token_distribution, pick
from tiny_transformer.tokenization.base import Tokenizer

__all__ = ["Step", "TextGenerator", "naive_generate", "naive_logits", "window_start"]

BALANCED = SampleConfig()
BLOCK = 64
"""Random numbers drawn at once per row."""


class Step(NamedTuple):
    """One new token in every row."""

    logits: Tensor
    """(batch, vocab), as the model gave them."""
    tokens: Tensor
    """(batch,), what was chosen."""


class TextGenerator:
    """A model and its tokenizer, writing.

    >>> generator = TextGenerator(model, tokenizer)                                       # doctest: +SKIP
    >>> generator.generate("ROMEO:", SampleConfig(temperature=0.8, seed=1))               # doctest: +SKIP
    >>> for piece in generator.stream("ROMEO:", SampleConfig(stop=("JULIET:",))):         # doctest: +SKIP
    ...     print(piece, end="", flush=True)

    All ways of writing give the same text for the same settings: `generate` is the prompt and the joined pieces of `stream`, and
    row i of `generate_batch` is `generate(prompts[i], replace(config, seed=config.seed + i))`.

    - A row ends with the tokenizer's end token (not part of the text), a stop string (neither it nor anything after it is part
      of the text; it is looked for in the new text only), or after `max_tokens`.
    - An empty prompt starts from a token that is not shown: the tokenizer's begin token, else a new line, else id 0.
    - A prompt longer than the context is read from where the window rule of `decoder.py` says.
    - The repetition penalty looks at the whole text, prompt included.
    - The seed belongs to the row, not to the batch: row i draws from `np.random.default_rng(seed + i)`, one number per token.
    - With `beams` above 1 there is nothing to draw: temperature, filters, penalty and seed are ignored, and `stream` gives the
      text in one piece.
    """

    def __init__(self, model: TinyTransformerLM, tokenizer: Tokenizer) -> None:
        """Take any causal model. Raises ConfigError for one that sees the future."""
        check(model.config.causal, "a model with causal=False", "writing goes from left to right", "Train one with causal=True")
        self.model = model
        self.tokenizer = tokenizer

    def generate(self, prompt: str, config: SampleConfig = BALANCED) -> str:
        """The prompt and its continuation. Raises the tokenizer's ValueError for a prompt it can't read."""
        return self.generate_batch([prompt], config)[0]

    def generate_batch(self, prompts: Sequence[str], config: SampleConfig = BALANCED) -> list[str]:
        """Every prompt and its continuation, all rows at once. Raises ConfigError for a single string."""
        check(not isinstance(prompts, str), "prompts is one string", "it must be a list of them", "Pass [prompt], or call generate")
        texts = [[prompt] for prompt in prompts]
        for row, _, piece in self._write([self._encode(prompt) for prompt in prompts], config):
            texts[row].append(piece)
        return ["".join(pieces) for pieces in texts]

    def stream(self, prompt: str, config: SampleConfig = BALANCED) -> Iterator[str]:
        """The continuation piece by piece, without the prompt; only whole characters, and never a piece of a stop string.

        A prompt that can't be read is an error at once, not with the first piece.
        """
        ids = self._encode(prompt)
        return (piece for _, _, piece in self._write([ids], config) if piece)

    def generate_ids(self, prompts: Sequence[Sequence[int]], config: SampleConfig = BALANCED) -> list[list[int]]:
        """The new ids of every row; an end token is left out, the token that completes a stop string is in."""
        ids: list[list[int]] = [[] for _ in prompts]
        for row, token, _ in self._write(prompts, config):
            if token is not None:
                ids[row].append(token)
        return ids

    def steps(self, prompts: Sequence[Sequence[int]], config: SampleConfig = BALANCED) -> Iterator[Step]:
        """`max_tokens` steps with logits and choices, for ids of any lengths; it knows nothing of ends and stop strings."""
        decoder = Decoder(self.model, prompts, config.max_tokens)
        uniform = _uniform(config, len(prompts), self.model.device)
        for _ in range(config.max_tokens):
            logits = decoder.logits()
            tokens = pick(logits[:, : self.tokenizer.vocab_size], decoder.texts, config, next(uniform))
            decoder.append(tokens)
            yield Step(logits, tokens)

    def _write(self, prompts: Sequence[Sequence[int]], config: SampleConfig) -> Iterator[tuple[int, int | None, str]]:
        """(row, its new token, the text that has become certain); at the end (row, None, what had been held back)."""
        if config.beams > 1:
            yield from self._write_beams(prompts, config)
            return
        texts = [IncrementalText(self.tokenizer, prompt, config.stop) for prompt in prompts]
        writing = list(range(len(prompts)))
        for step in self.steps(prompts, config) if prompts else ():
            tokens = step.tokens.tolist()
            for row in list(writing):
                if tokens[row] == self.tokenizer.special.eos:
                    writing.remove(row)
                    continue
                yield row, tokens[row], texts[row].push(tokens[row])
                if texts[row].stopped:
                    writing.remove(row)
            if not writing:
                break
        for row, text in enumerate(texts):
            yield row, None, text.finish()

    def _write_beams(self, prompts: Sequence[Sequence[int]], config: SampleConfig) -> Iterator[tuple[int, int | None, str]]:
        """The same by beam search, one row after the other."""
        eos = self.tokenizer.special.eos
        for row, prompt in enumerate(prompts):
            found = beam_search(
                self.model,
                prompt,
                beams=config.beams,
                max_tokens=config.max_tokens,
                length_penalty=config.length_penalty,
                is_end=lambda tokens: tokens[-1] == eos or (bool(config.stop) and self._stops(tokens, config)),
                vocab_size=self.tokenizer.vocab_size,
            )
            text = IncrementalText(self.tokenizer, prompt, config.stop)
            for token in found[0].tokens:
                if token != eos:
                    yield row, token, text.push(token)
            yield row, None, text.finish()

    def _stops(self, tokens: Sequence[int], config: SampleConfig) -> bool:
        return find_stop(self.tokenizer.decode(tokens), config.stop) is not None

    def _encode(self, prompt: str) -> list[int]:
        return self.tokenizer.encode(prompt) or self._start()

    def _start(self) -> list[int]:
        """What an empty prompt starts from."""
        if self.tokenizer.special.bos is not None:
            return [self.tokenizer.special.bos]
        try:
            return self.tokenizer.encode("\n") or [0]
        except ValueError:
            return [0]


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
    """One number in [0, 1) per row and step: (rows,) float64, drawn in blocks; each row has a generator of its own."""
    generators = [np.random.default_rng(None if config.seed is None else config.seed + row) for row in range(rows)]
    while True:
        block = torch.from_numpy(np.stack([generator.random(BLOCK) for generator in generators], axis=1))  # (BLOCK, rows)
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
