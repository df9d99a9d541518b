"""The simplest tokenizer: every character that occurs in the training text is a token.

Left out: anything smaller or larger than a character. Read before: `base.py`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check
from tiny_transformer.tokenization.special_tokens import allowed, numbered, roles, split_special, split_special_stream


class UnknownCharacterError(ValueError):
    """A character that the vocabulary does not have; `.character` and `.position` (from 0) say which and where."""

    def __init__(self, text: str, position: int, symbols: Sequence[str]) -> None:
        self.character, self.position = text[position], position
        line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
        shown = "".join(symbols[:60]) + ("…" if len(symbols) > 60 else "")
        super().__init__(
            f"character {self.character!r} (U+{ord(self.character):04X}) at position {position} (line {line}, column {column}) is not "
            f"among the {len(symbols)} characters this model knows: {shown!r}. Leave it out or replace it"
        )


class CharTokenizer:
    """Characters in code-point order are ids 0, 1, 2, …, so the vocabulary depends on nothing but the text.

    >>> tokenizer = CharTokenizer.train("banana")
    >>> tokenizer.encode("nab"), tokenizer.decode([2, 0, 1])
    ([2, 0, 1], 'nab')
    >>> CharTokenizer("abn", special_tokens=["</s>"]).encode("nab</s>")
    [2, 0, 1, 3]
    """

    def __init__(self, symbols: Sequence[str], special_tokens: Sequence[str] = ()) -> None:
        """Take the characters in the order of their ids; the special tokens follow.

        Raises ValueError for repeated or longer symbols, or none, and ConfigError for empty or repeated special tokens.
        """
        if not symbols or any(len(symbol) != 1 for symbol in symbols) or len(set(symbols)) != len(symbols):
            raise ValueError(f"{len(symbols)} symbols: a character vocabulary must hold at least one, each a single character, none twice")
        self.symbols = list(symbols)
        self.special_tokens: Mapping[str, int] = numbered(tuple(special_tokens), len(symbols))
        self.special = roles(self.special_tokens)
        self._shown = [*self.symbols, *self.special_tokens]
        self._codes = np.array([ord(symbol) for symbol in symbols], dtype=np.uint32)
        self._order = np.argsort(self._codes)

    @classmethod
    def train(cls, text: str, vocab_size: int | None = None, special_tokens: Sequence[str] = ()) -> "CharTokenizer":
        """The characters of `text` without its special tokens, in code-point order; `vocab_size` is at most a limit.

        Raises ValueError for an empty text, and ConfigError where `vocab_size` is below what the text needs.
        """
        symbols = set().union(*(set(piece) for piece, is_special in split_special(text, special_tokens) if not is_special))
        if not symbols:
            raise ValueError("the text is empty: a vocabulary must hold at least one character. Pass some text")
        tokenizer = cls(sorted(symbols), special_tokens)
        must = f"the text has {len(symbols)} different characters, and there are {len(special_tokens)} special tokens"
        check(vocab_size is None or vocab_size >= tokenizer.vocab_size, f"vocab_size={vocab_size}", must, "Leave vocab_size out")
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """How many characters and special tokens there are."""
        return len(self._shown)

    def encode_array(self, text: str, allowed_special: str | Collection[str] = "all") -> NDArray[np.int32]:
        """Text to ids (n,) int32. Raises UnknownCharacterError for the first unknown character."""
        special = allowed(self.special_tokens, allowed_special)
        if not special:
            return self._encode_ordinary(text)
        parts, done = [np.zeros(0, dtype=np.int32)], 0
        for piece, is_special in split_special(text, special):
            parts.append(np.array([special[piece]], dtype=np.int32) if is_special else self._encode_ordinary(text, done, done + len(piece)))
            done += len(piece)
        return np.concatenate(parts)

    def _encode_ordinary(self, whole: str, begin: int = 0, end: int | None = None) -> NDArray[np.int32]:
        """Ids of `whole[begin:end]` without a Python loop."""
        text = whole[begin:end]
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        places = np.searchsorted(self._codes, codes, sorter=self._order)
        ids = self._order[np.minimum(places, len(self.symbols) - 1)]
        wrong = np.flatnonzero(self._codes[ids] != codes)
        if wrong.size:
            raise UnknownCharacterError(whole, begin + int(wrong[0]), self.symbols)
        return ids.astype(np.int32)

    def encode(self, text: str, allowed_special: str | Collection[str] = "all") -> list[int]:
        """Text to ids; special tokens that are not allowed are ordinary text. Raises UnknownCharacterError for an unknown character."""
        ids: list[int] = self.encode_array(text, allowed_special).tolist()
        return ids

    def encode_iterable(self, chunks: Iterable[str], allowed_special: str | Collection[str] = "all") -> Iterator[int]:
        """The ids of the joined chunks, in constant memory. The position in an error counts from the last special token or chunk."""
        special = allowed(self.special_tokens, allowed_special)
        for piece, is_special in split_special_stream(chunks, special):
            if is_special:
                yield special[piece]
            else:
                yield from self._encode_ordinary(piece).tolist()

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text. Raises ValueError for an id outside the vocabulary."""
        ids = [int(i) for i in ids]
        outside = next((i for i in ids if not 0 <= i < self.vocab_size), None)
        if outside is not None:
            raise ValueError(f"id {outside} is not in the vocabulary: ids must lie in 0 to {self.vocab_size - 1}")
        return "".join(self._shown[i] for i in ids)

    def with_special_tokens(self, tokens: Sequence[str]) -> "CharTokenizer":
        """A tokenizer with more special tokens behind the present ones; no id changes."""
        return CharTokenizer(self.symbols, [*self.special_tokens, *(token for token in tokens if token not in self.special_tokens)])

    def to_dict(self) -> dict[str, Any]:
        """{"kind": "char", "symbols": the characters in the order of their ids}, and "special_tokens" where there are some."""
        special = {"special_tokens": list(self.special_tokens)} if self.special_tokens else {}
        return {"kind": "char", "symbols": "".join(self.symbols), **special}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CharTokenizer":
        """From `to_dict`'s values."""
        return cls(list(values["symbols"]), values.get("special_tokens", ()))


if __name__ == "__main__":
    tokenizer = CharTokenizer.train("to be or not to be")
    ids = tokenizer.encode("to be")
    print("symbols", tokenizer.symbols, "vocab_size", tokenizer.vocab_size)
    print("to be ->", ids, "->", repr(tokenizer.decode(ids)))
    try:
        tokenizer.encode("to bé")
    except UnknownCharacterError as error:
        print("caught:", error)
