"""What word, WordPiece, Unigram and metaspace-BPE tokenizers share: a list of pieces, special tokens, streams of text.

Left out: how a text becomes pieces; each subclass says that in `_encode_segment`. Read before: `base.py`, `special_tokens.py`.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check
from tiny_transformer.tokenization.base import SpecialTokens
from tiny_transformer.tokenization.special_tokens import allowed, check_special_tokens, roles, split_special, split_special_stream

Allowed = str | Collection[str]
Template = dict[str, list[str]]


class PieceTokenizer:
    """Pieces in the order of their ids; some of them are special: their text in the input is one id, whatever surrounds it.

    A text is first cut at special tokens, the longest first at each place; what lies between two of them is a segment. A subclass
    gives `_encode_segment` (a segment's ids) and `_safe_cut` (where a segment may be cut so that the parts' ids, joined, are the
    same), `_join` (pieces to text), and `_options` (its settings, JSON-able: keyword arguments of its `__init__`).
    """

    kind = ""

    def __init__(self, pieces: Sequence[str], special_tokens: Sequence[str] = (), unknown: str | None = None) -> None:
        """`unknown` names the piece for what the vocabulary lacks. Raises ConfigError for repeated pieces or names not among them."""
        check(bool(pieces) and all(isinstance(piece, str) and piece for piece in pieces), f"{len(pieces)} pieces",
              "a vocabulary must hold at least one, each of them text", "Look for an empty entry")  # fmt: skip
        self.pieces: list[str] = list(pieces)
        self.ids = {piece: i for i, piece in enumerate(self.pieces)}
        if len(self.ids) < len(self.pieces):
            twice = next(piece for i, piece in enumerate(self.pieces) if self.ids[piece] != i)
            check(False, f"piece {twice!r} twice", "each piece must have one id", "Remove one of the two")
        special_tokens = check_special_tokens(special_tokens)
        lacking = next((token for token in special_tokens if token not in self.ids), None)
        check(lacking is None, f"special token {lacking!r}", "it must be in the vocabulary", "Add it with with_special_tokens")
        check(unknown is None or unknown in self.ids, f"unknown token {unknown!r}", "it must be in the vocabulary", "Add or rename it")
        self.special_tokens = {token: self.ids[token] for token in special_tokens}
        self.unknown = unknown
        self.template: Template | None = None
        """What a tokenizer.json puts around a text, {"single": ["[CLS]", "$A", "[SEP]"], …}: told, not done by `encode`."""
        self.why_smaller = ""
        """After training: why the vocabulary is smaller than asked for; empty when it is not."""
        found = roles(self.special_tokens)
        self.special: SpecialTokens = found if unknown is None else replace(found, unk=self.ids[unknown])

    # --- what subclasses say ------------------------------------------------------------------------------------------

    def _encode_segment(self, text: str, begins_text: bool, begins_segment: bool) -> list[int]:
        """Ids of ordinary text. The flags: is it the very beginning; is it the beginning of a segment."""
        raise NotImplementedError

    def _safe_cut(self, text: str) -> int:
        """The last place where the ids before it depend on nothing behind it, and the other way round; 0 when there is none."""
        raise NotImplementedError

    def _join(self, pieces: list[str]) -> str:
        """Pieces to text."""
        raise NotImplementedError

    def _options(self) -> dict[str, Any]:
        """Keyword arguments of `__init__` beyond pieces and special tokens."""
        raise NotImplementedError

    def _more_pieces(self, tokens: Sequence[str]) -> dict[str, Any]:
        """`__init__`'s arguments that grow with the vocabulary."""
        return {"pieces": [*self.pieces, *tokens]}

    # --- what they get ------------------------------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """How many different ids there are."""
        return len(self.pieces)

    def encode(self, text: str, allowed_special: Allowed = "all") -> list[int]:
        """Text to ids. `allowed_special`: "all", "none", or the special tokens that count as such; the others are ordinary text."""
        ids: list[int] = []
        begins = True
        for part, is_special in split_special(text, allowed(self.special_tokens, allowed_special)):
            ids += [self.special_tokens[part]] if is_special else self._encode_segment(part, begins, True)
            begins = False
        return ids

    def encode_array(self, text: str, allowed_special: Allowed = "all") -> NDArray[np.int32]:
        """Text to ids (n,) int32."""
        return np.array(self.encode(text, allowed_special), dtype=np.int32)

    def encode_iterable(self, chunks: Iterable[str], allowed_special: Allowed = "all") -> Iterator[int]:
        """The ids of the joined text, wherever it is cut into chunks. Holds back no more than the text since the last safe cut."""
        held, begins_text, begins_segment = "", True, True
        for part, is_special in split_special_stream(chunks, allowed(self.special_tokens, allowed_special)):
            held += "" if is_special else part
            cut = len(held) if is_special else self._safe_cut(held)
            if cut:
                yield from self._encode_segment(held[:cut], begins_text, begins_segment)
                held, begins_text, begins_segment = held[cut:], False, False
            if is_special:
                yield self.special_tokens[part]
                begins_text, begins_segment = False, True
        yield from self._encode_segment(held, begins_text, begins_segment) if held else ()

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Ids to text, with or without special tokens. Raises ValueError for an id outside the vocabulary."""
        ids = [int(i) for i in ids]
        outside = next((i for i in ids if not 0 <= i < self.vocab_size), None)
        if outside is not None:
            raise ValueError(f"id {outside} is not in the vocabulary: ids must lie in 0 to {self.vocab_size - 1}")
        return self._join([self.pieces[i] for i in ids if not (skip_special and self.pieces[i] in self.special_tokens)])

    def with_special_tokens(self, tokens: Sequence[str]) -> Self:
        """A tokenizer with more special tokens. Old ids stay; a token that is a piece already keeps its id, others come last."""
        new = [token for token in check_special_tokens(tokens) if token not in self.ids]
        special = list(dict.fromkeys([*self.special_tokens, *tokens]))
        more = type(self)(**{**self._options(), **self._more_pieces(new), "special_tokens": special})
        more.template = self.template
        return more

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values; `from_dict` is the inverse."""
        template = {} if self.template is None else {"template": self.template}
        return {"kind": self.kind, **self._more_pieces(()), "special_tokens": list(self.special_tokens), **self._options(), **template}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From `to_dict`'s values. Raises ConfigError when they are no such tokenizer."""
        try:
            tokenizer = cls(**{key: value for key, value in values.items() if key not in ("kind", "template")})
            tokenizer.template = values.get("template")
            return tokenizer
        except (TypeError, KeyError, AttributeError) as error:
            remedy = "It is damaged, or of another version. Make the tokenizer again"
            raise ValueError(f"a saved {cls.kind} tokenizer that does not open ({error}). {remedy}") from error


if __name__ == "__main__":

    class Letters(PieceTokenizer):
        """The smallest subclass: each letter a piece, and a text can be cut anywhere."""

        def _encode_segment(self, text: str, begins_text: bool, begins_segment: bool) -> list[int]:
            return [self.ids[letter] for letter in text]

        def _safe_cut(self, text: str) -> int:
            return len(text)

    tokenizer = Letters([*"<|end> or", "<|end|>"], ["<|end|>"])
    text = "or<|end|> <|en"
    for size in (30, 7, 3):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        print(f"{chunks} -> {[tokenizer.pieces[i] for i in tokenizer.encode_iterable(chunks)]}")
