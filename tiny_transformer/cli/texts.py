"""The text behind a run: read it, split it, make its tokenizer, find it again later, and say what a prompt has to do with it.

Read before: corpora/, training/dataset.py.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tiny_transformer import corpora, tokenization
from tiny_transformer.config import DataConfig, check
from tiny_transformer.corpora.corpus import Corpus, Progress
from tiny_transformer.recipes import PROMPTS, Recipe
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.files import load_tokenizer
from tiny_transformer.training.dataset import split
from tiny_transformer.utils.atomic import atomic_save


@dataclass(frozen=True)
class Reading:
    """A text, ready to learn from."""

    data: DataConfig
    """The settings that were really used: a fallback is written in here."""
    corpus: Corpus
    train: str
    val: str
    on_disk: bool = False
    """The ids lie in token files; `train` and `val` are the first part of what they say."""


def read(data: DataConfig, base: Recipe | None = None, progress: Progress | None = None) -> tuple[Reading, list[str]]:
    """Load and split a text. The recipe's own text, when it can't be had, is replaced by the recipe's fallback.

    Returns the reading and what to say about it. Raises ValueError or OSError when there is no text.
    """
    notes: list[str] = []
    try:
        corpus = _load(data, progress)
    except (ValueError, OSError) as error:
        fallback = base.fallback_corpus if base is not None and data.corpus == base.data.corpus else None
        if fallback is None:
            raise
        notes.append(f"{str(error).split('. ')[0]}. Reading the built-in text {fallback} instead")
        data = replace(data, corpus=fallback, val_data=None)
        corpus = _load(data, None)
    if data.val_data is None:
        train, val = split(corpus.text, data.val_share)
        return Reading(data, corpus, train, val), notes
    held = corpora.load(data.val_data, progress=progress)
    check(bool(held.text), f"val_data={data.val_data!r} is empty", "there must be text to measure on", "Name another file")
    source = f"{corpus.source}; measured on {held.source}"
    both = Corpus(corpus.name, corpus.text + held.text, source, held.entropy if held.name == corpus.name else None)
    return Reading(data, both, corpus.text, held.text), notes


def _load(data: DataConfig, progress: Progress | None) -> Corpus:
    if data.data == "-" and sys.stdin.isatty():
        print("reading the text from the keyboard; Ctrl-D on a new line ends it", file=sys.stderr)
    return corpora.load(data.corpus or data.data or "", size=data.size, progress=progress)


DEFAULT_PIECES = 2048
"""Tokens that a tokenizer learns unless told."""


def make_tokenizer(reading: Reading) -> tuple[Tokenizer, list[str]]:
    """The tokenizer that the settings ask for, and what to say about it. Learned ones see the training text only.

    Characters are those of the whole text: an alphabet is no knowledge about its use, and a letter that occurs in the validation
    text alone must have a token.
    """
    data = reading.data
    if data.tokenizer_file is not None:
        return load_tokenizer(data.tokenizer_file), []
    if data.tokenizer == "char":
        return tokenization.train("char", reading.corpus.text), []
    wanted = data.vocab_size if data.tokenizer in ("byte", "word") else data.vocab_size or DEFAULT_PIECES
    style = {"style": data.word_style} if data.tokenizer == "word" else {}
    tokenizer = tokenization.train(data.tokenizer, reading.train, wanted, **style)
    notes = []
    if wanted is not None and tokenizer.vocab_size < wanted:
        notes.append(f"the text gives {tokenizer.vocab_size:,} tokens instead of {wanted:,}: it has no more to offer")
    return tokenizer, notes


def encode_part(tokenizer: Tokenizer, text: str, name: str) -> NDArray[np.int32]:
    """A part of the text as ids. Raises ValueError, naming the part, for what the tokenizer can't read."""
    try:
        return tokenizer.encode_array(text)
    except ValueError as error:
        raise ValueError(f"the {name} text: {error}") from error


def training_text(record: Mapping[str, Any]) -> str | None:
    """The text a run learned from, found through its record; None when it can't be had any more, or only by a download."""
    try:
        data = _data_at_hand(record)
        return None if data is None else read(data)[0].train if data.val_data is None else _load(data, None).text
    except (KeyError, TypeError, ValueError, OSError):
        return None


def validation_text(record: Mapping[str, Any]) -> str | None:
    """The text a run was measured on, found in the same way."""
    try:
        data = _data_at_hand(record)
        return None if data is None or data.val_data in _downloads() else read(data)[0].val
    except (KeyError, TypeError, ValueError, OSError):
        return None


def _data_at_hand(record: Mapping[str, Any]) -> DataConfig | None:
    """What a run's record says about its text; None where that came by a pipe or would need a download."""
    data = DataConfig(**record["data"])
    return None if data.data == "-" or data.corpus in _downloads() else data


def _downloads() -> set[str]:
    return {info.name for info in corpora.describe() if not info.offline}


def choose_prompt(wanted: str | None, corpus: str, tokenizer: Tokenizer, text: str) -> str:
    """The opening of the samples: the wanted one (an unknown character is an error), else one that suits the text."""
    if wanted is not None:
        tokenizer.encode(wanted)
        return wanted
    fitting = [prompt for prompt in (*PROMPTS.get(corpus, ()), "\n") if prompt in text]
    return fitting[0] if fitting else text[:1]


def save_text(path: str | Path, text: str) -> None:
    """Write a text file, all of it or nothing; folders on the way are made. A link is followed; a device or a pipe is written to."""
    named, path = Path(path), Path(path).resolve()
    check(not path.is_dir(), f"{named} is a folder", "the text needs a file", "Name a file in it")
    if path.exists() and (not path.is_file() or named.is_relative_to("/dev")):  # a file put in the place of /dev/stdout would end it
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(target: BinaryIO) -> None:
        target.write(text.encode("utf-8"))

    atomic_save(path, write)


def prompt_note(prompt: str, text: str | None) -> str | None:
    """One line when a prompt does not occur in the training text: what follows it is then a guess at something never seen."""
    if text is None or not prompt.strip() or prompt in text:
        return None
    return f"{prompt!r} does not occur in the training text: the model has never seen it, and makes of it what it can"
