"""Small tokenizers for tests of token files: each can do what its kind can, and nothing more."""

import zlib
from typing import ClassVar

import numpy as np
import regex

from tiny_transformer.tokenization.base import SpecialTokens

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # the published patterns of the two vocabularies


class Fake:
    """What all have in common."""

    vocab_size = 2**16
    special = SpecialTokens()

    def encode_array(self, text):
        return np.array(self.encode(text), dtype=np.int32)

    def to_dict(self):
        return self.values


class Bytes(Fake):
    """UTF-8 bytes, and an end token behind them."""

    vocab_size, special, values = 257, SpecialTokens(eos=256), {"kind": "byte", "special_tokens": []}

    def encode(self, text):
        return list(text.encode("utf-8", "surrogatepass"))

    def decode(self, ids):
        return bytes(i for i in ids if i < 256).decode("utf-8", "replace")


class Pieces(Fake):
    """The pieces that a byte-level BPE cuts a text into before it merges, each piece one number."""

    def __init__(self, split="gpt2", **more):
        self.pattern = regex.compile({"gpt2": GPT2, "gpt4": GPT4}[split])
        self.values = {"kind": "bpe", "split": split, "special_tokens": []} | more

    def encode(self, text):
        return [zlib.crc32(piece.encode("utf-8", "surrogatepass")) % self.vocab_size for piece in self.pattern.findall(text)]


class Pairs(Fake):
    """Two characters from the document's start on are a token: it can be cut nowhere, but read as a stream."""

    values: ClassVar = {"kind": "bpe", "split": "none", "special_tokens": []}
    longest = 0

    def encode(self, text):
        self.longest = max(self.longest, len(text))
        return [zlib.crc32(text[i : i + 2].encode("utf-8", "surrogatepass")) % self.vocab_size for i in range(0, len(text), 2)]

    def encode_iterable(self, chunks):
        held = ""
        for chunk in chunks:
            held += chunk
            even = len(held) - len(held) % 2
            yield from Pairs().encode(held[:even])
            held = held[even:]
        yield from Pairs().encode(held)
