"""Speculative decoding: a quick draft guesses a few tokens, the model checks them all in one pass.

A pass over five tokens takes a large model hardly longer than one over a single token, since its time goes into reading its weights.
So guesses that turn out right are almost free, and by the rule of `acceptance.py` the text has exactly the distribution that the
model alone would give it; at temperature 0 it is the very same text (Leviathan et al. 2023; Chen et al. 2023).

Left out: batches (rows are written one after the other: in a batch the weights are shared already), beam search.
Read before: `acceptance.py`, `rewinding.py`, `text_writer.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from tiny_transformer.config import SampleConfig, check
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.numpy_engine.strategies import choose, next_token_distribution
from tiny_transformer.sampling.acceptance import accept
from tiny_transformer.sampling.rewinding import RewindingReader, room
from tiny_transformer.sampling_rules import check_finite
from tiny_transformer.text_writer import TextWriter
from tiny_transformer.tokenization.base import Tokenizer

GUESSES = 4
"""Tokens guessed at a time, unless told."""

Rules = Callable[[Tensor, Sequence[Sequence[int]]], Tensor]
"""Logits (n, vocab) behind n texts to the probabilities that their next tokens are drawn from: (n, vocab) float64."""


class Draft(Protocol):
    """Anything that can guess: `RewindingReader` around a small model, `NgramDraft`, or your own."""

    def logits(self, ids: Sequence[int]) -> Tensor:
        """The next token's logits behind a text: (1, vocab)."""
        ...


class Target(Protocol):
    """What checks the guesses: `RewindingReader`."""

    def logits(self, ids: Sequence[int], last: int) -> Tensor:
        """The next token's logits behind each of the last `last` tokens: (last, vocab)."""
        ...


class Pass(NamedTuple):
    """What one pass of the target gave."""

    tokens: list[int]
    """The accepted guesses, and one token that the target drew itself."""
    accepted: int
    """How many of them were guesses."""
    guessed: int
    """How many guesses there had been."""


def speculative_step(
    ids: Sequence[int], guesses: int, draft: Draft, target: Target, rules: Rules, uniforms: Sequence[float]
) -> Pass:
    """One to `guesses` + 1 more tokens for a text, by one pass of the target (Leviathan et al. 2023, algorithm 1).

    `uniforms` are 2 · guesses + 1 numbers in [0, 1): for the guesses, for judging them, for the last token.
    """
    text, beliefs = list(ids), []
    for u in uniforms[:guesses]:  # 1. guess, one after the other
        q = rules(draft.logits(text), [text])[0]  # (vocab,)
        beliefs.append(q)
        text = [*text, int(choose(q.numpy(), u))]
    texts = [text[: len(ids) + place] for place in range(guesses + 1)]
    p = rules(target.logits(text, guesses + 1), texts)  # 2. check, all at once: (guesses + 1, vocab)
    new = text[len(ids) :]
    accepted, rest = accept(beliefs, p, new, uniforms[guesses : 2 * guesses])  # 3. keep what is right
    return Pass([*new[:accepted], int(choose(rest.numpy(), uniforms[2 * guesses]))], accepted, guesses)


@dataclass
class Tally:
    """How the guesses fared, over everything a generator has written."""

    passes: int = 0
    """Passes of the target."""
    guessed: int = 0
    """Guesses made."""
    accepted: int = 0
    """Guesses that became part of a text."""
    rejected: int = 0
    """Guesses judged wrong; those after a wrong one are not judged."""

    @property
    def rate(self) -> float:
        """The share of the judged guesses that was accepted; 0 where there were none."""
        return self.accepted / max(1, self.accepted + self.rejected)

    @property
    def tokens_per_pass(self) -> float:
        """What a pass of the target gave on average: 1 without any luck, draft_tokens + 1 at best."""
        return (self.accepted + self.passes) / max(1, self.passes)

    def add(self, step: Pass) -> None:
        """Count one more pass."""
        self.passes += 1
        self.guessed += step.guessed
        self.accepted += step.accepted
        self.rejected += step.accepted < step.guessed

    def __str__(self) -> str:
        return f"{self.rate:.0%} of the guesses accepted, {self.tokens_per_pass:.2f} tokens a pass"


class SpeculativeGenerator(TextWriter):
    """`TextGenerator` with a draft: the same ways of writing, ends and stop strings, the same distribution, in less time.

    >>> generator = SpeculativeGenerator(model, tokenizer, small_model)                   # doctest: +SKIP
    >>> generator.generate("ROMEO:", SampleConfig(seed=1)), generator.tally               # doctest: +SKIP

    Penalty, temperature and filters apply to draft and target alike. The same seed gives the same text again, but not the text that
    `TextGenerator` writes for it (except at temperature 0): the random numbers are used otherwise.
    """

    def __init__(
        self, model: TinyTransformerLM, tokenizer: Tokenizer, draft: TinyTransformerLM | Draft, draft_tokens: int = GUESSES
    ) -> None:
        """Take a model and a draft for the same tokens; a model as the draft gets a cache of its own.

        Raises ConfigError for a model that sees the future, a draft with too few tokens, or draft_tokens below 1.
        """
        super().__init__(tokenizer, causal=model.config.causal)
        check(draft_tokens >= 1, f"draft_tokens={draft_tokens}", "it must be at least 1", f"Try {GUESSES}")
        if isinstance(draft, TinyTransformerLM):
            check(draft.config.causal, "a draft with causal=False", "guessing goes from left to right", "Train one with causal=True")
            enough = draft.config.vocab_size >= tokenizer.vocab_size
            got = f"the draft has vocab_size={draft.config.vocab_size} and the tokenizer {tokenizer.vocab_size} tokens"
            check(enough, got, "every token must have a place in it", "Train the draft with the same tokenizer")
        self.model = model
        self.draft = draft
        self.draft_tokens = draft_tokens
        self.tally = Tally()

    def passes(self, prompt: Sequence[int], config: SampleConfig) -> Iterator[Pass]:
        """The passes of the target that continue one text by `max_tokens` tokens; it knows nothing of ends and stop strings."""
        target = RewindingReader(self.model, at_once=self.draft_tokens + 1, max_new=config.max_tokens)
        draft = RewindingReader(self.draft, max_new=config.max_tokens) if isinstance(self.draft, TinyTransformerLM) else self.draft
        random = np.random.default_rng(config.seed)
        ids, end = list(prompt), len(prompt) + config.max_tokens
        while len(ids) < end:
            # A pass reads within one window, and adds one token more than there are guesses.
            guesses = min(self.draft_tokens, end - len(ids) - 1, room(len(ids), target.limit))
            step = speculative_step(ids, guesses, draft, target, self._rules(config), random.random(2 * guesses + 1).tolist())
            self.tally.add(step)
            ids += step.tokens
            yield step

    def choices(self, prompts: Sequence[Sequence[int]], config: SampleConfig) -> Iterator[list[int]]:
        """The next token of every row, `max_tokens` times."""
        for tokens in zip(*(self._tokens(prompt, _of_row(config, row)) for row, prompt in enumerate(prompts)), strict=True):
            yield list(tokens)

    def best_beam(self, prompt: Sequence[int], config: SampleConfig, is_end: Callable[[Sequence[int]], bool]) -> Sequence[int]:
        """Refused: a beam search draws nothing that could be guessed."""
        check(False, f"beams={config.beams} with a draft", "beam search draws nothing that could be guessed", "Leave one of them out")
        return ()

    def _tokens(self, prompt: Sequence[int], config: SampleConfig) -> Iterator[int]:
        for step in self.passes(prompt, config):
            yield from step.tokens

    def _write(self, prompts: Sequence[Sequence[int]], config: SampleConfig) -> Iterator[tuple[int, int | None, str]]:
        """One row after the other, so that a finished one costs nothing."""
        for row, prompt in enumerate(prompts):
            for _, token, piece in super()._write([prompt], _of_row(config, row)):
                yield row, token, piece

    def _rules(self, config: SampleConfig) -> Rules:
        """The settings of one way of writing, for draft and target. In float64, so that p / q is a ratio of what is really drawn from;
        in NumPy, whose calls on a few numbers take a third of the time of PyTorch's."""

        def probabilities(logits: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
            exact = logits[:, : self.tokenizer.vocab_size].detach().cpu().double().numpy()
            check_finite(float(exact.max(-1).sum()))
            return torch.from_numpy(next_token_distribution(exact, texts if config.repetition_penalty != 1 else None, config))

        return probabilities


def _of_row(config: SampleConfig, row: int) -> SampleConfig:
    """The seed belongs to the row, as everywhere."""
    return config if config.seed is None else replace(config, seed=config.seed + row)


if __name__ == "__main__":
    from tiny_transformer.config import ModelConfig
    from tiny_transformer.sampling.generator import TextGenerator
    from tiny_transformer.sampling.ngram_draft import NgramDraft
    from tiny_transformer.tokenization.char import CharTokenizer

    tokenizer = CharTokenizer.train("First Citizen: before we proceed any further, hear me speak.\n")
    config = ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=32, d_model=64, n_layers=4)
    model, small = TinyTransformerLM(config, seed=0), TinyTransformerLM(replace(config, d_model=32, n_layers=1), seed=1)
    for name, draft in (("another model", small), ("itself", model), ("n-grams", NgramDraft(tokenizer.vocab_size))):
        generator = SpeculativeGenerator(model, tokenizer, draft)
        generator.generate("First", SampleConfig(max_tokens=60, seed=1))
        print(f"guessed by {name}: {generator.tally}")
    greedy = SampleConfig(max_tokens=60, temperature=0)
    print("greedy, with and without:", generator.generate("First", greedy) == TextGenerator(model, tokenizer).generate("First", greedy))
