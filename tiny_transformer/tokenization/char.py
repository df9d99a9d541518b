"""The simplest tokenizer: every character that occurs in the training text is a token.

Left out: anything smaller or larger than a character. Read before: `base.py`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.tokenization.base import SpecialTokens


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
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        """Take the characters in the order of their ids. Raises ValueError for repeated or longer symbols, or none."""
        if not symbols or any(len(symbol) != 1 for symbol in symbols) or len(set(symbols)) != len(symbols):
            raise ValueError(f"{len(symbols)} symbols: a character vocabulary must hold at least one, each a single character, none twice")
        self.symbols = list(symbols)
        self.special = SpecialTokens()
        self._codes = np.array([ord(symbol) for symbol in symbols], dtype=np.uint32)
        self._order = np.argsort(self._codes)

    @classmethod
    def train(cls, text: str) -> "CharTokenizer":
        """The characters of `text`, in code-point order. Raises ValueError for an empty text."""
        if not text:
            raise ValueError("the text is empty: a vocabulary must hold at least one character. Pass some text")
        return cls(sorted(set(text)))

    @property
    def vocab_size(self) -> int:
        """How many characters there are."""
        return len(self.symbols)

    def encode_array(self, text: str) -> NDArray[np.int32]:
        """Text to ids (n,) int32 without a Python loop. Raises UnknownCharacterError for the first unknown character."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        places = np.searchsorted(self._codes, codes, sorter=self._order)
        ids = self._order[np.minimum(places, self.vocab_size - 1)]
        wrong = np.flatnonzero(self._codes[ids] != codes)
        if wrong.size:
            raise UnknownCharacterError(text, int(wrong[0]), self.symbols)
        return ids.astype(np.int32)

    def encode(self, text: str) -> list[int]:
        """Text to ids. Raises UnknownCharacterError for the first unknown character."""
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text. Raises ValueError for an id outside the vocabulary."""
        ids = [int(i) for i in ids]
        outside = next((i for i in ids if not 0 <= i < self.vocab_size), None)
        if outside is not None:
            raise ValueError(f"id {outside} is not in the vocabulary: ids must lie in 0 to {self.vocab_size - 1}")
        return "".join(self.symbols[i] for i in ids)

    def to_dict(self) -> dict[str, Any]:
        """{"kind": "char", "symbols": the characters in the order of their ids}."""
        return {"kind": "char", "symbols": "".join(self.symbols)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CharTokenizer":
        """From `to_dict`'s values."""
        return cls(list(values["symbols"]))


if __name__ == "__main__":
    tokenizer = CharTokenizer.train("to be or not to be")
    ids = tokenizer.encode("to be")
    print("symbols", tokenizer.symbols, "vocab_size", tokenizer.vocab_size)
    print("to be ->", ids, "->", repr(tokenizer.decode(ids)))
    try:
        tokenizer.encode("to bé")
    except UnknownCharacterError as error:
        print("caught:", error)
