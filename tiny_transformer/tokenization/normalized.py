"""A tokenizer behind a normalization: Qwen's byte-level BPE, for one, reads text in normal form C.

Left out: the steps (`normalizing.py`) and the tokenizer behind them. Read before: `normalizing.py`, `special_tokens.py`.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.tokenization.base import SpecialTokens, Tokenizer
from tiny_transformer.tokenization.normalizing import Step, check_steps, is_local, normalize
from tiny_transformer.tokenization.special_tokens import allowed, split_special, split_special_stream


class Inner(Tokenizer, Protocol):
    """A tokenizer with special tokens that reads streams."""

    special_tokens: Any

    def encode(self, text: str, allowed_special: str | Collection[str] = "all") -> list[int]:
        """Text to ids."""
        ...

    def encode_iterable(self, chunks: Iterable[str], allowed_special: str | Collection[str] = "all") -> Iterator[int]:
        """Chunks to ids."""
        ...

    def with_special_tokens(self, tokens: Sequence[str]) -> Any:
        """One with more special tokens."""
        ...


class NormalizedTokenizer:
    """Special tokens are found in the text as it is; what lies between is normalized and goes to `inner`.

    >>> from tiny_transformer.tokenization.byte import ByteTokenizer
    >>> tokenizer = NormalizedTokenizer(ByteTokenizer(["<s>"]), [{"type": "Lowercase"}])
    >>> tokenizer.encode("A<s>B"), tokenizer.decode([97, 256, 98])
    ([97, 256, 98], 'a<s>b')
    """

    def __init__(self, inner: Inner, normalizers: Sequence[Step]) -> None:
        """Raises ConfigError for an unknown step."""
        self.inner, self.normalizers = inner, check_steps(normalizers)
        self.special_tokens = inner.special_tokens
        self.template: dict[str, list[str]] | None = None
        """What a tokenizer.json puts around a text: told, not done by `encode`."""

    @property
    def vocab_size(self) -> int:
        """How many different ids there are."""
        return self.inner.vocab_size

    @property
    def special(self) -> SpecialTokens:
        """The ids that are no text."""
        return self.inner.special

    def encode(self, text: str, allowed_special: str | Collection[str] = "all") -> list[int]:
        """Text to ids; special tokens that are not allowed are ordinary text."""
        ids: list[int] = []
        for part, is_special in split_special(text, allowed(self.special_tokens, allowed_special)):
            ids += [self.special_tokens[part]] if is_special else self.inner.encode(normalize(part, self.normalizers), "none")
        return ids

    def encode_array(self, text: str, allowed_special: str | Collection[str] = "all") -> NDArray[np.int32]:
        """Text to ids (n,) int32."""
        return np.array(self.encode(text, allowed_special), dtype=np.int32)

    def encode_iterable(self, chunks: Iterable[str], allowed_special: str | Collection[str] = "all") -> Iterator[int]:
        """The ids of the joined chunks, in constant memory where text has spaces and the steps look no further than one."""
        parts = split_special_stream(chunks, allowed(self.special_tokens, allowed_special))
        for is_special, run in groupby(parts, lambda part: part[1]):
            if is_special:
                yield from (self.special_tokens[part] for part, _ in run)
            else:
                yield from self.inner.encode_iterable(self._normalized(part for part, _ in run), "none")

    def _normalized(self, chunks: Iterable[str]) -> Iterator[str]:
        """The joined chunks normalized, in parts: cut before spaces, which nothing joins with what stands before."""
        held, begins = "", True
        for chunk in chunks:
            held += chunk
            cut = max(held.rfind(" "), 0) if is_local(self.normalizers) else 0
            if cut:
                yield normalize(held[:cut], self.normalizers, begins=begins)
                held, begins = held[cut:], False
        yield normalize(held, self.normalizers, begins=begins)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text, as normalized."""
        return self.inner.decode(ids)

    def with_special_tokens(self, tokens: Sequence[str]) -> "NormalizedTokenizer":
        """One with more special tokens; old ids stay."""
        more = NormalizedTokenizer(self.inner.with_special_tokens(tokens), self.normalizers)
        more.template = self.template
        return more

    def to_dict(self) -> dict[str, Any]:
        """{"kind": "normalized", "inner": the tokenizer's, "normalizers": the steps}."""
        template = {} if self.template is None else {"template": self.template}
        return {"kind": "normalized", "inner": self.inner.to_dict(), "normalizers": self.normalizers, **template}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NormalizedTokenizer":
        """From `to_dict`'s values."""
        from tiny_transformer.tokenization import from_dict

        tokenizer = cls(from_dict(values["inner"]), values["normalizers"])
        tokenizer.template = values.get("template")
        return tokenizer


if __name__ == "__main__":
    from tiny_transformer.tokenization.byte import ByteTokenizer

    tokenizer = NormalizedTokenizer(ByteTokenizer(), [{"type": "NFC"}])
    for text in ("é", "e\u0301"):
        print(ascii(text), "->", tokenizer.encode(text))
