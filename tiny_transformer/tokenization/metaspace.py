"""Spaces as "▁": what Unigram and SentencePiece's BPE do before and after they look at words.

Kudo & Richardson (2018): when spaces are written as a character of their own, pieces can hold them, and text comes back by joining pieces.
Left out: how a word becomes pieces (`unigram.py`, `metaspace_bpe.py`). Read before: `pieces.py`, `byte_pieces.py`.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

from tiny_transformer.config import check, check_choice
from tiny_transformer.tokenization.byte_pieces import BYTE_PIECES, fuse_bytes, to_byte_pieces
from tiny_transformer.tokenization.normalizing import Step, check_steps, is_local, normalize
from tiny_transformer.tokenization.pieces import PieceTokenizer

Prepend = Literal["never", "first", "always"]
PREPEND = ("never", "first", "always")
FIRST_SPACE = ("keep", "one", "all")
CACHE = 1 << 16
"""How many words are remembered with their ids."""


class MetaspaceTokenizer(PieceTokenizer):
    """Text is normalized, each space becomes `space`, and the text is cut into words before that. A subclass gives `_find_ids`.

    - `prepend`: a "▁" before the text ("first": once, "always": after each special token too), as SentencePiece does so that a first word
      is like the others.
    - `split`: words begin at each "▁". Without it the whole text is one word.
    - `lines`: each line end is a word of its own; with `prepend` "never" only.
    - `byte_fallback`: what is no piece becomes its bytes; without, it is the unknown token.
    - `first_space`: what `decode` does with spaces at the beginning: "keep" them, drop "one", or drop "all" of the first piece. None: "all"
      where `prepend` put one there, else "keep".
    """

    def __init__(
        self, pieces: Sequence[str], special_tokens: Sequence[str] = (), *, unknown: str | None = "<unk>", prepend: Prepend = "never",
        split: bool = True, lines: bool = False, byte_fallback: bool = False, space: str = "▁", normalizers: Sequence[Step] = (),
        first_space: str | None = None,
    ) -> None:  # fmt: skip
        """Pieces in the order of their ids. Raises ConfigError for settings that do not fit together."""
        super().__init__(pieces, special_tokens, unknown)
        check_choice("prepend", prepend, PREPEND)
        check_choice("first_space", first_space or "keep", FIRST_SPACE)
        check(isinstance(space, str) and len(space) == 1, f"space={space!r}", "it must be one character", 'SentencePiece\'s is "▁"')
        check(not lines or prepend == "never", f"lines with prepend={prepend!r}", "a line end would get a ▁ too", "Use 'never'")
        lacking = next((piece for piece in BYTE_PIECES if piece not in self.ids), None) if byte_fallback else None
        check(lacking is None, f"byte_fallback without {lacking!r}", "all of <0x00> to <0xFF> must be pieces", "Add them, or turn it off")
        self.prepend, self.split, self.lines, self.byte_fallback, self.space = prepend, split, lines, byte_fallback, space
        self.normalizers = check_steps(normalizers)
        self.first_space = first_space or ("keep" if prepend == "never" else "all")
        self._ordinary = {piece for piece in pieces if piece not in self.special_tokens}
        self._cache: dict[str, list[int]] = {}
        self._words = re.compile(self._word_pattern())
        self._places = self._safe_places()

    def _find_ids(self, word: str) -> list[int]:
        """Ids of a word, "▁" for its spaces."""
        raise NotImplementedError

    def _word_pattern(self) -> str:
        """A regular expression whose matches, joined, are the text."""
        mark, end = re.escape(self.space), "\n" if self.lines else ""
        whole = rf"{mark}[^{mark}{end}]*|[^{mark}{end}]+" if self.split else rf"[^{end}]+" if self.lines else r"(?s:.+)"
        return rf"\n|{whole}" if self.lines else whole

    def _marked(self, text: str, begins_text: bool = True, begins_segment: bool = True) -> list[str]:
        """Normalized, spaces as "▁", cut into words."""
        text = normalize(text, self.normalizers, begins=begins_segment).replace(" ", self.space)
        wanted = {"never": False, "first": begins_text, "always": begins_segment}[self.prepend]
        if text and wanted and not text.startswith(self.space):
            text = self.space + text
        return self._words.findall(text)

    def _encode_segment(self, text: str, begins_text: bool, begins_segment: bool) -> list[int]:
        words = self._marked(text, begins_text, begins_segment)
        return [i for word in words for i in self._cache.get(word) or self._remember(word)]

    def _remember(self, word: str) -> list[int]:
        if len(self._cache) >= CACHE:
            self._cache.clear()
        self._cache[word] = self._find_ids(word)
        return self._cache[word]

    def _unknown_ids(self, text: str) -> list[int]:
        """Ids of text that has no pieces. Raises ValueError where there is nothing to say so."""
        if self.byte_fallback and text != self.unknown:
            return [self.ids[piece] for piece in to_byte_pieces(text)]
        if self.unknown is None:
            remedy = "Give it one, or leave the character out"
            raise ValueError(f"{text[0]!r} (U+{ord(text[0]):04X}) is no piece, and this vocabulary has no unknown token. {remedy}")
        return [self.ids[self.unknown]]

    def _safe_places(self) -> str:
        """Characters of the raw text before which it may be cut, whatever stands around them."""
        if not is_local(self.normalizers):
            return ""
        places = (" " + self.space if self.split else "") + ("\n" if self.lines else "")
        for step in self.normalizers:
            if step["type"] == "Replace":
                became = {step["pattern"].get("String", ""): step["content"]}
                places = "".join(place for place in places if became.get(place, place) in (place, self.space))
            elif step["type"] == "BertNormalizer":
                places = places.replace("\n", "")
        return places

    def _safe_cut(self, text: str) -> int:
        return max(0, *(text.rfind(place) for place in self._places)) if self._places else 0

    def _join(self, pieces: list[str]) -> str:
        parts = [piece.replace(self.space, " ") for piece in pieces]
        if parts and self.first_space == "all":
            parts[0] = pieces[0].replace(self.space, "")
        text = "".join(fuse_bytes(parts) if self.byte_fallback else parts)
        return text.removeprefix(" ") if self.first_space == "one" else text

    def _options(self) -> dict[str, Any]:
        return {
            "unknown": self.unknown, "prepend": self.prepend, "split": self.split, "lines": self.lines, "byte_fallback": self.byte_fallback,
            "space": self.space, "normalizers": self.normalizers, "first_space": self.first_space,
        }  # fmt: skip


if __name__ == "__main__":

    class Words(MetaspaceTokenizer):
        """The smallest subclass: a word is a piece or unknown."""

        def _find_ids(self, word: str) -> list[int]:
            return [self.ids[word]] if word in self.ids else self._unknown_ids(word)

    choices: tuple[Prepend, ...] = ("never", "first", "always")
    for prepend in choices:
        tokenizer = Words(["<unk>", "▁a", "a", "<s>"], ["<unk>", "<s>"], prepend=prepend)
        ids = tokenizer.encode("a a<s>a")
        print(f"{prepend:6}", [tokenizer.pieces[i] for i in ids], repr(tokenizer.decode(ids)))
