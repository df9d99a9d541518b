"""What can be measured on a tokenizer and a text: compression, fertility, whole words, unknown share, round trip, speed.

Fertility, tokens per word, and the share of words kept whole say how a tokenizer treats a language (Rust et al. 2021, "How good is your
tokenizer?"). Left out: how good a model becomes with it; bits per byte say that. Read before: tokenizer_pieces.py.
"""

import copy
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import regex

from tiny_transformer.cli.tokenizer_pieces import kind_of, token

WORD = regex.compile(r"[\p{L}\p{M}]+(?:['’][\p{L}\p{M}]+)*")
"""A word: letters and their marks, with apostrophes inside. Numbers and punctuation are none."""
REPEATS = 3
"""Encoding is timed this often, each time by a copy that has seen nothing; the median counts."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One tokenizer on one text. None: it can't read the text, and `problem` says why."""

    tokenizer: str
    kind: str
    corpus: str
    n_bytes: int
    vocab_size: int
    n_tokens: int | None = None
    bytes_per_token: float | None = None
    """Compression."""
    tokens_per_word: float | None = None
    """Fertility: tokens of a word, averaged over all words of the text; a token that is the space before it is not counted."""
    whole_words: float | None = None
    """Share of all words that are one token."""
    unknown: float | None = None
    """Share of the tokens that stand for something unknown."""
    exact: bool | None = None
    """Whether decoding gives the text back."""
    seconds_per_mb: float | None = None
    """Seconds to encode 10⁶ bytes."""
    problem: str = ""


def measure(tokenizer: Any, name: str, corpus: str, text: str) -> Measured:
    """All of it. `tokenizer` should not have been used before: what it remembers would make it quicker."""
    size = len(text.encode("utf-8", "replace"))
    known = {"tokenizer": name, "kind": kind_of(tokenizer), "corpus": corpus, "n_bytes": size, "vocab_size": tokenizer.vocab_size}
    try:
        seconds = encoding_time(tokenizer, text)
        ids = tokenizer.encode_array(text)
    except ValueError as error:  # a character that a vocabulary without unknown token lacks
        return Measured(**known, problem=str(error).partition(". ")[0])
    fertility, whole = words(tokenizer, text)
    unknown = tokenizer.special.unk
    return Measured(
        **known,
        n_tokens=len(ids),
        bytes_per_token=size / max(len(ids), 1),
        tokens_per_word=fertility,
        whole_words=whole,
        unknown=0.0 if unknown is None else float(np.mean(ids == unknown)) if len(ids) else 0.0,
        exact=tokenizer.decode(ids.tolist()) == text,
        seconds_per_mb=seconds / (size / 1e6),
    )


def encoding_time(tokenizer: Any, text: str) -> float:
    """Seconds to encode a text that the tokenizer has not seen: the median of a few times."""
    taken = []
    for fresh in [copy.deepcopy(tokenizer) for _ in range(REPEATS)]:
        start = time.perf_counter()
        fresh.encode_array(text)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def words(tokenizer: Any, text: str) -> tuple[float | None, float | None]:
    """Tokens per word, and the share of words that are one token; None for a text without words.

    Each word is encoded behind a space, as it mostly stands.
    """
    counts = Counter(WORD.findall(text))
    if not counts:
        return None, None
    tokens = whole = 0
    for word, times in counts.items():
        n, is_whole = parts_of(tokenizer, word)
        tokens += n * times
        whole += is_whole * times
    return tokens / counts.total(), whole / counts.total()


def parts_of(tokenizer: Any, word: str) -> tuple[int, bool]:
    """How many tokens a word behind a space is, and whether it is one, and known."""
    ids = [int(i) for i in tokenizer.encode(" " + word, "none")]
    if len(ids) > 1 and token(tokenizer, ids[0]) in (b" ", "▁".encode()):
        del ids[0]
    return len(ids), len(ids) == 1 and ids[0] != tokenizer.special.unk


if __name__ == "__main__":
    from tiny_transformer import tokenization

    text = "she sells sea shells by the sea shore; the shells she sells are sea shells for sure.\n" * 50
    for kind, vocab_size in (("char", None), ("bpe", 280), ("unigram", 40), ("word", None)):
        made = measure(tokenization.train(kind, text, vocab_size), kind, "shells", text)
        print(
            f"{kind:8} {made.bytes_per_token:.2f} bytes per token, {made.tokens_per_word:.2f} tokens per word, {made.whole_words:.0%} whole"
        )
