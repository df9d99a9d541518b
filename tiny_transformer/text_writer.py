"""Prompts in, text out, for any engine that can say which token comes next: the part of a generator that needs no model.

Encoding, starting, ending, stop strings, pieces of text: both generators (`sampling/generator.py`, `numpy_engine/generator.py`)
take this and add the steps. Left out: how a token is chosen. Read before: `tokenization/incremental_text.py`,
`SampleConfig` in `config.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from tiny_transformer.config import SampleConfig, check
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.incremental_text import IncrementalText, find_stop

BALANCED = SampleConfig()


class TextWriter(ABC):
    """The ways of writing. All give the same text for the same settings: `generate` is the prompt and the joined pieces of
    `stream`, and row i of `generate_batch` is `generate(prompts[i], replace(config, seed=config.seed + i))`.

    - A row ends with the tokenizer's end token (not part of the text), a stop string (neither it nor anything after it is part
      of the text; it is looked for in the new text only), or after `max_tokens`.
    - An empty prompt starts from a token that is not shown: the tokenizer's begin token, else a new line, else id 0.
    - A prompt longer than the context is read from where the rule of `context_window.py` says.
    - The repetition penalty looks at the whole text, prompt included.
    - The seed belongs to the row, not to the batch: row i draws from `np.random.default_rng(seed + i)`, one number per token.
    - With `beams` above 1 there is nothing to draw: temperature, filters, penalty and seed are ignored, and `stream` gives the
      text in one piece.
    """

    def __init__(self, tokenizer: Tokenizer, *, causal: bool) -> None:
        """Take the tokenizer of a causal model. Raises ConfigError for one that sees the future."""
        check(causal, "a model with causal=False", "writing goes from left to right", "Train one with causal=True")
        self.tokenizer = tokenizer

    @abstractmethod
    def choices(self, prompts: Sequence[Sequence[int]], config: SampleConfig) -> Iterator[list[int]]:
        """The next token of every row, `max_tokens` times, whatever ends and stop strings there are."""

    @abstractmethod
    def best_beam(self, prompt: Sequence[int], config: SampleConfig, is_end: Callable[[Sequence[int]], bool]) -> Sequence[int]:
        """The new tokens of the best text that a beam search finds."""

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

    def _write(self, prompts: Sequence[Sequence[int]], config: SampleConfig) -> Iterator[tuple[int, int | None, str]]:
        """(row, its new token, the text that has become certain); at the end (row, None, what had been held back)."""
        if config.beams > 1:
            yield from self._write_beams(prompts, config)
            return
        texts = [IncrementalText(self.tokenizer, prompt, config.stop) for prompt in prompts]
        writing = list(range(len(prompts)))
        for tokens in self.choices(prompts, config) if prompts else ():
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

        def is_end(tokens: Sequence[int]) -> bool:
            return tokens[-1] == eos or (bool(config.stop) and self._stops(tokens, config))

        for row, prompt in enumerate(prompts):
            text = IncrementalText(self.tokenizer, prompt, config.stop)
            for token in self.best_beam(prompt, config, is_end):
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


if __name__ == "__main__":
    from itertools import count

    from tiny_transformer.tokenization.char import CharTokenizer

    class Alphabet(TextWriter):
        """A writer whose every next token is the one after the last."""

        def choices(self, prompts: Sequence[Sequence[int]], config: SampleConfig) -> Iterator[list[int]]:  # noqa: D102
            for step in count(1):
                yield [(prompt[-1] + step) % self.tokenizer.vocab_size for prompt in prompts]

        def best_beam(  # noqa: D102
            self, prompt: Sequence[int], config: SampleConfig, is_end: Callable[[Sequence[int]], bool]
        ) -> Sequence[int]:
            return []

    writer = Alphabet(CharTokenizer("abcdefghijklmnopqrstuvwxyz"), causal=True)
    print(writer.generate_batch(["abc", "xy"], SampleConfig(stop=("mn",))))
    print("streamed:", [*writer.stream("h", SampleConfig(stop=("opq",)))])
