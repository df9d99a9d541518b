"""What a training run reads: a text with the tokenizer made for it, or token files that bring their own.

Read before: texts.py, noise.py, training/token_files.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.cli.noise import Noise, fresh_ids
from tiny_transformer.cli.texts import Reading, encode_part, make_tokenizer, read
from tiny_transformer.config import DataConfig, check
from tiny_transformer.corpora.corpus import Corpus, Progress
from tiny_transformer.recipes import Recipe
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.training.dataset import split
from tiny_transformer.training.loop import Ids
from tiny_transformer.training.token_files import TokenFiles
from tiny_transformer.training.token_index import INDEX

SHOWN = 1_000_000
"""Ids of token files that are turned back into text, for prompts, overlap and bytes per token."""
COUNTED = 10_000_000
"""Ids that frequencies are counted in, at most."""


@dataclass(frozen=True)
class Material:
    """Ready to learn from."""

    reading: Reading
    tokenizer: Tokenizer
    train_ids: Ids
    val_ids: Ids
    fresh: Callable[[int], NDArray[np.int32]] | None
    """The training text with an epoch's noise, where there is any."""

    @property
    def bytes_per_token(self) -> float:
        """Of the validation text, in UTF-8."""
        tokens = min(len(self.val_ids), SHOWN) if self.reading.on_disk else len(self.val_ids)  # those that `val` says
        return len(self.reading.val.encode("utf-8")) / tokens

    def counted_ids(self) -> NDArray[np.integer[Any]]:
        """The ids of the whole text, or the first of them, for counting."""
        return np.concatenate((self.train_ids[:COUNTED], self.val_ids[:COUNTED]))

    def size(self) -> str:
        """How much there is, in words."""
        if self.reading.on_disk:
            return f"{len(self.train_ids):,} tokens to learn from, {len(self.val_ids):,} to measure on"
        return f"{len(self.reading.train):,} characters to learn from, {len(self.reading.val):,} to measure on"


def gather(
    data: DataConfig, noise: Noise, seed: int, base: Recipe | None = None, progress: Progress | None = None,
    tokenizer: Tokenizer | None = None,
) -> tuple[Material, list[str]]:  # fmt: skip
    """Read everything; `tokenizer` is that of a run that goes on. Returns the material and what to say about it.

    Raises ValueError or OSError when there is no text, or tokenizer and text do not fit.
    """
    if data.data is not None and (Path(data.data) / INDEX).is_file():
        return _from_token_files(data, noise), []
    reading, notes = read(data, base, progress)
    more: list[str] = []
    if tokenizer is None:
        tokenizer, more = make_tokenizer(reading)
    train_ids, val_ids = encode_part(tokenizer, reading.train, "training"), encode_part(tokenizer, reading.val, "validation")
    return Material(reading, tokenizer, train_ids, val_ids, fresh_ids(reading.train, tokenizer, noise, seed)), [*notes, *more]


def _from_token_files(data: DataConfig, noise: Noise) -> Material:
    files = TokenFiles(data.data or "")
    for name in ("tokenizer_file", "vocab_size", "size", "val_data"):
        value = getattr(data, name)
        check(value is None, f"{name}={value} with token files", "they have their own tokenizer and size", f"Leave {name} out")
    check(noise.is_identity, "noise with token files", "it changes the text before it becomes tokens", "Train on the text itself")
    tokenizer = files.tokenizer()
    train, val = split(files, data.val_share)
    seen, held = tokenizer.decode(train[:SHOWN]), tokenizer.decode(val[:SHOWN])
    documents = sum(shard.n_documents for shard in files.index.shards)
    source = f"token files: {len(files):,} tokens, {documents:,} documents in {len(files.index.shards)} shards, in {data.data}"
    corpus = Corpus(name=Path(data.data or "").name, text=seen + held, source=source)
    return Material(Reading(data, corpus, seen, held, on_disk=True), tokenizer, train, val, None)
