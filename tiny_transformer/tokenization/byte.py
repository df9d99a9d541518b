"""Bytes as tokens: nothing to learn, nothing unknown, 256 ids and the special tokens behind them.

What byte-level models read (ByT5, Xue et al. 2022), and the alphabet that byte-level BPE starts from. Left out: anything
larger than a byte (`bpe.py`). Read before: `special_tokens.py`.

A worked example. "né" is three bytes of UTF-8, for é takes two: 6E C3 A9, so its ids are 110, 195, 169. The first two ids
alone end in the middle of é, and are shown as "n\N{REPLACEMENT CHARACTER}".
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check
from tiny_transformer.tokenization.special_tokens import allowed, numbered, roles, split_special, split_special_stream
from tiny_transformer.tokenization.splitting import to_utf8, well_formed
from tiny_transformer.tokenization.text_stream import join_surrogates

BYTES = 256


class ByteTokenizer:
    """Ids 0 to 255 are the bytes of UTF-8, the special tokens follow.

    A lone surrogate is no character and has no UTF-8: it is encoded as U+FFFD. All else comes back as it was.

    >>> tokenizer = ByteTokenizer(["</s>"])
    >>> tokenizer.encode("né</s>"), tokenizer.decode([110, 195])
    ([110, 195, 169, 256], 'n\ufffd')
    """

    def __init__(self, special_tokens: Sequence[str] = ()) -> None:
        """The special tokens get ids 256, 257, … in order. Raises ConfigError for an empty or repeated one."""
        self.special_tokens: Mapping[str, int] = numbered(tuple(special_tokens), BYTES)
        self.special = roles(self.special_tokens)
        self._bytes = [bytes([value]) for value in range(BYTES)] + [to_utf8(token) for token in self.special_tokens]

    @classmethod
    def train(cls, text: str = "", vocab_size: int | None = None, special_tokens: Sequence[str] = ()) -> "ByteTokenizer":
        """Nothing is learned: `text` is not looked at. Raises ConfigError where `vocab_size` is below 256 and the special tokens."""
        tokenizer = cls(special_tokens)
        must = f"the byte tokenizer has {tokenizer.vocab_size} tokens: {BYTES} bytes and {len(tokenizer.special_tokens)} special tokens"
        check(vocab_size is None or vocab_size >= tokenizer.vocab_size, f"vocab_size={vocab_size}", must, "Leave vocab_size out")
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """256 and the special tokens."""
        return len(self._bytes)

    def encode_array(self, text: str, allowed_special: str | Collection[str] = "all") -> NDArray[np.int32]:
        """Text to ids (n,) int32. Raises ConfigError for an unknown special token in `allowed_special`."""
        special = allowed(self.special_tokens, allowed_special)
        parts = [
            np.array([special[piece]], dtype=np.int32) if is_special else np.frombuffer(to_utf8(piece), dtype=np.uint8).astype(np.int32)
            for piece, is_special in split_special(well_formed(text), special)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)

    def encode(self, text: str, allowed_special: str | Collection[str] = "all") -> list[int]:
        """Text to ids; special tokens that are not allowed are encoded as ordinary text."""
        ids: list[int] = self.encode_array(text, allowed_special).tolist()
        return ids

    def encode_iterable(self, chunks: Iterable[str], allowed_special: str | Collection[str] = "all") -> Iterator[int]:
        """The ids of the joined chunks, in constant memory, wherever the chunks are cut."""
        special = allowed(self.special_tokens, allowed_special)
        for piece, is_special in split_special_stream(join_surrogates(chunks), special):
            if is_special:
                yield special[piece]
            else:
                yield from to_utf8(piece)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids to bytes, exactly. Raises ValueError for an id outside the vocabulary."""
        ids = [int(i) for i in ids]
        outside = next((i for i in ids if not 0 <= i < self.vocab_size), None)
        if outside is not None:
            raise ValueError(f"id {outside} is not in the vocabulary: ids must lie in 0 to {self.vocab_size - 1}")
        return b"".join(self._bytes[i] for i in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text; bytes that are no UTF-8 are shown as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def with_special_tokens(self, tokens: Sequence[str]) -> "ByteTokenizer":
        """A tokenizer with more special tokens behind the present ones; no id changes."""
        return ByteTokenizer([*self.special_tokens, *(token for token in tokens if token not in self.special_tokens)])

    def to_dict(self) -> dict[str, Any]:
        """{"kind": "byte", "special_tokens": in the order of their ids}."""
        return {"kind": "byte", "special_tokens": list(self.special_tokens)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ByteTokenizer":
        """From `to_dict`'s values."""
        return cls(values["special_tokens"])


if __name__ == "__main__":
    tokenizer = ByteTokenizer(["<|endoftext|>"])
    for text in ("hi", "né", "😀", "hi<|endoftext|>"):
        print(f"{text!r:20} -> {tokenizer.encode(text)}")
    half = tokenizer.encode("😀")[:2]
    print("half a face:", half, "->", repr(tokenizer.decode(half)), "bytes", tokenizer.decode_bytes(half))
