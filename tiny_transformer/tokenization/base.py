"""What every tokenizer can do. Structural: a class that has these is one. Read before: nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids of tokens that are no text: begin, end, padding, unknown, mask; None where a tokenizer has none."""

    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    unk: int | None = None
    mask: int | None = None


class Tokenizer(Protocol):
    """Text to ids and back: `decode(encode(text)) == text`."""

    @property
    def vocab_size(self) -> int:
        """How many different ids there are; they run from 0."""
        ...

    @property
    def special(self) -> SpecialTokens:
        """The ids that are no text."""
        ...

    def encode(self, text: str) -> list[int]:
        """Text to ids."""
        ...

    def encode_array(self, text: str) -> NDArray[np.int32]:
        """Text to ids, as an array: quick on long texts."""
        ...

    def encode_iterable(self, chunks: Iterable[str]) -> Iterator[int]:
        """The ids of the joined chunks, wherever they are cut, without holding the whole text."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values with a "kind"; `tokenization.from_dict` is the inverse."""
        ...
