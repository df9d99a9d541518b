"""Whole words as tokens: short sequences, a large vocabulary, and words it has never seen.

Left out: anything smaller than a word; that is what BPE, WordPiece and Unigram are for. Read before: `pieces.py`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import regex

from tiny_transformer.config import check, check_choice
from tiny_transformer.tokenization.pieces import PieceTokenizer
from tiny_transformer.tokenization.special_tokens import split_special
from tiny_transformer.tokenization.splitting import NEWER, UNASSIGNED, cut

_LETTER = r"[\p{L}\p{M}\p{N}_]"
NATURAL = regex.compile(rf" ?{_LETTER}+(?:['’]{_LETTER}+)*| ?[^\s\p{{L}}\p{{M}}\p{{N}}_]|\s")
"""A word (don't is one) or one symbol, with the space before it if there is one; else one character of white space.

Every character belongs to exactly one token, so the tokens joined are the text."""
_LAST_SPACE = regex.compile(r"(?r)\s")
_NEWER = regex.compile("[" + "".join(chr(int(code, 16)) if code != "-" else "-" for code in regex.split("[ \n]+|(-)", NEWER) if code) + "]")
"""Characters that are letters to a newer `regex` package only: they are none here, so that ids never change."""
STYLES = ("natural", "wikitext")


@dataclass(frozen=True)
class Unknowns:
    """What a vocabulary lacks in a text."""

    words: int
    """How many tokens the text has."""
    unknown: int
    """How many of them the vocabulary lacks."""
    masked: int
    """How many were the unknown token already in the text, as in WikiText; not counted in `unknown`."""
    most: list[tuple[str, int]]
    """The unknown words that occur most, with how often."""

    @property
    def share(self) -> float:
        """`unknown` of `words`, 0 to 1."""
        return self.unknown / max(self.words, 1)


class WordTokenizer(PieceTokenizer):
    """A word that the vocabulary has is its id, any other is the id of `<unk>`.

    Two styles. "natural": words and symbols with the space before them, so that `decode(encode(text)) == text` when all words are
    known; "The" and " The" are two words. "wikitext" (Merity et al. 2016): the text is cut into words already, words lie
    between spaces, lines end in `<eos>`, rare words are `<unk>` in the text itself; the text comes back as WikiText writes it, each
    word after one space and each line end after another.

    By hand, natural, from the text "a cat, a dog": counted, " a" and "a" are two words of one each, so with the ties in code-point
    order the vocabulary is `<unk>`, " a", " cat", " dog", ",", "a". "a cow" is then "a", and " cow" unknown:

    >>> tokenizer = WordTokenizer.train("a cat, a dog")
    >>> tokenizer.pieces, tokenizer.encode("a cow")
    (['<unk>', ' a', ' cat', ' dog', ',', 'a'], [5, 0])
    >>> WordTokenizer.train(" the cat \\n", style="wikitext").encode(" the <unk> \\n")
    [3, 0, 1]
    """

    kind = "word"

    def __init__(
        self, pieces: Sequence[str], special_tokens: Sequence[str] = ("<unk>",), *, style: str = "natural", unknown: str = "<unk>",
        line_end: str = "<eos>",
    ) -> None:  # fmt: skip
        """Words in the order of their ids. `line_end` counts in style "wikitext" only; it and `unknown` must be special tokens."""
        check_choice("style", style, STYLES)
        super().__init__(pieces, special_tokens, unknown)
        self.style, self.line_end = style, line_end
        for token in (unknown, line_end)[: 1 + (style == "wikitext")]:
            check(token in self.special_tokens, f"{token!r}", "it must be among the special tokens", "Add it there")
        if style == "wikitext":
            self.special = replace(self.special, eos=self.ids[line_end])
        self._words = {piece: i for piece, i in self.ids.items() if piece not in self.special_tokens}
        if style == "wikitext":
            self._words["\n"] = self.ids[line_end]

    @classmethod
    def train(
        cls, text: str, vocab_size: int | None = None, special_tokens: Sequence[str] = (), *, style: str = "natural", min_count: int = 1
    ) -> "WordTokenizer":
        """The words that occur at least `min_count` times, the most frequent first, ties in code-point order; special tokens lead.

        `<unk>` (and `<eos>` in style "wikitext") are added where missing. Fewer words than `vocab_size` asks for are no error: all are in
        then. Raises ConfigError for an empty text and a size that leaves no room for a word.
        """
        check_choice("style", style, STYLES)
        needed = ("<unk>", "<eos>")[: 1 + (style == "wikitext")]
        special = [*(token for token in needed if token not in special_tokens), *special_tokens]
        room = None if vocab_size is None else vocab_size - len(special)
        remedy = f"Ask for at least {len(special) + 1}"
        check(room is None or room > 0, f"vocab_size={vocab_size}", f"there are {len(special)} special tokens, and words", remedy)
        parts = (part for part, is_special in split_special(text, special) if not is_special)
        counts = Counter(word for part in parts for word in _cut(part, style) if word != "\n" or style == "natural")
        check(bool(counts), "a text without words", "a vocabulary must hold at least one", "Pass some text")
        words = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        check(bool(words), f"min_count={min_count}", f"no word occurs more than {max(counts.values())} times", "Lower it")
        return cls([*special, *words[:room]], special, style=style)

    def unknowns(self, text: str, most: int = 10) -> Unknowns:
        """How many words of `text` this vocabulary lacks, and which `most` of all."""
        words, masked, lacking = 0, 0, Counter[str]()
        for part, is_special in split_special(text, self.special_tokens):
            masked += part == self.unknown
            found = [part] if is_special else _cut(part, self.style)
            words += len(found)
            if not is_special:
                lacking.update(word for word in found if word not in self._words)
        return Unknowns(words, lacking.total(), masked, sorted(lacking.items(), key=lambda item: (-item[1], item[0]))[:most])

    def unknown_share(self, text: str) -> float:
        """Share of words in `text` that the vocabulary lacks, 0 to 1."""
        return self.unknowns(text).share

    def _encode_segment(self, text: str, begins_text: bool, begins_segment: bool) -> list[int]:
        unknown = self.ids[str(self.unknown)]
        return [self._words.get(word, unknown) for word in _cut(text, self.style)]

    def _safe_cut(self, text: str) -> int:
        if self.style == "wikitext":
            return max(text.rfind(" "), text.rfind("\n"), 0)
        last = _LAST_SPACE.search(text)
        return last.start() if last else 0

    def _join(self, pieces: list[str]) -> str:
        if self.style == "natural":
            return "".join(pieces)
        return "".join(" \n" if piece == self.line_end else " " + piece for piece in pieces)

    def _options(self) -> dict[str, Any]:
        return {"style": self.style, "unknown": self.unknown, "line_end": self.line_end}


def _cut(text: str, style: str) -> list[str]:
    """Words of ordinary text in order; "\\n" for a line end."""
    if style == "natural":
        return cut(text, NATURAL.findall(text if text.isascii() else _NEWER.sub(UNASSIGNED, text)))
    return [word for word in text.replace("\n", " \n ").split(" ") if word]


if __name__ == "__main__":
    tokenizer = WordTokenizer.train("The cat sat on the mat; the dog didn't.\n", vocab_size=12)
    print(tokenizer.pieces)
    for sample in ("the dog sat.", "The bird sat on the dog."):
        ids = tokenizer.encode(sample)
        print(f"{sample!r} -> {ids} -> {tokenizer.decode(ids)!r}, unknown: {tokenizer.unknowns(sample).most}")
