"""Unigram (Kudo 2018): pieces have probabilities, and a word is cut in the way that makes it most probable.

Left out: finding that way (`unigram_lattice.py`), learning pieces and probabilities (`unigram_training.py`). Read before: `pieces.py`.
"""

import heapq
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Literal

import numpy as np

from tiny_transformer.config import check, check_choice
from tiny_transformer.tokenization import unigram_lattice as lattice
from tiny_transformer.tokenization.byte_pieces import BYTE_PIECES, fuse_bytes, to_byte_pieces
from tiny_transformer.tokenization.normalizing import Step, check_steps, is_local, normalize
from tiny_transformer.tokenization.pieces import PieceTokenizer
from tiny_transformer.tokenization.special_tokens import split_special
from tiny_transformer.tokenization.unigram_training import covered, train_pieces

Prepend = Literal["never", "first", "always"]
PREPEND = ("never", "first", "always")
PENALTY = 10.0
"""An unknown character scores this much less than the least probable piece (SentencePiece's kUnkPenalty)."""
BYTE_SCORE = -1000.0
"""Score of byte pieces in a vocabulary of ours: so low that the text "<0x41>" is never taken for one."""
CACHE = 1 << 16
"""How many words are remembered with their ids."""


class UnigramTokenizer(PieceTokenizer):
    """Spaces become "▁", words begin with it, and each word is cut in the most probable way (`unigram_lattice.best_path`).

    The ids are those of the `tokenizers` library with the same pieces, scores and settings. With `prepend` "never" and nothing unknown,
    `decode(encode(text)) == text` for every text without "▁" itself. Settings:

    - `prepend`: a "▁" before the text ("first": once, "always": after each special token too), as SentencePiece does so that a first word
      is like the others. It comes off again in `decode`, but so does a space that was there before.
    - `split`: pieces never reach over a "▁". Without it the whole text is one lattice.
    - `lines`: each line end is a word of its own, so no piece reaches over one; with `prepend` "never" only.
    - `byte_fallback`: unknown text becomes its bytes; without, unknown characters in a row become one `<unk>`.

    By hand, scores: ▁ -2, h -4, u -4, g -4, ▁hu -4, hug -5: "▁hug" is best as ▁ hug, -7; ▁hu g would be -8, and ▁ h u g -14.

    >>> tokenizer = UnigramTokenizer(["<unk>", "▁", "h", "u", "g", "▁hu", "hug"], [0, -2, -4, -4, -4, -4, -5], ["<unk>"])
    >>> tokenizer.encode(" hug"), tokenizer.encode(" h日本"), tokenizer.decode([1, 6])
    ([1, 6], [1, 2, 0], ' hug')
    """

    kind = "unigram"

    def __init__(
        self, pieces: Sequence[str], scores: Sequence[float], special_tokens: Sequence[str] = (), *, unknown: str | None = "<unk>",
        prepend: Prepend = "never", split: bool = True, lines: bool = False, byte_fallback: bool = False, space: str = "▁",
        normalizers: Sequence[Step] = (),
    ) -> None:  # fmt: skip
        """Pieces in the order of their ids, with the logarithms of their probabilities. Special tokens are found in no other way."""
        super().__init__(pieces, special_tokens, unknown)
        right = len(scores) == len(pieces) and all(math.isfinite(score) for score in scores)
        check(right, f"{len(scores)} scores for {len(pieces)} pieces", "each piece needs one, a finite number", "Mend the vocabulary")
        check_choice("prepend", prepend, PREPEND)
        check(len(space) == 1, f"space={space!r}", "it must be one character", 'SentencePiece\'s is "▁"')
        check(not lines or prepend == "never", f"lines with prepend={prepend!r}", "a line end would get a ▁ too", "Use 'never'")
        lacking = next((piece for piece in BYTE_PIECES if piece not in self.ids), None) if byte_fallback else None
        check(lacking is None, f"byte_fallback without {lacking!r}", "all of <0x00> to <0xFF> must be pieces", "Add them, or turn it off")
        self.scores, self.normalizers = [float(score) for score in scores], check_steps(normalizers)
        self.prepend, self.split, self.lines, self.byte_fallback, self.space = prepend, split, lines, byte_fallback, space
        ordinary = {piece: score for piece, score in zip(pieces, self.scores, strict=True) if piece not in self.special_tokens}
        self._ordinary, self._trie, self._penalty = ordinary, lattice.build_trie(ordinary), min(self.scores) - PENALTY
        self._cache: dict[str, list[int]] = {}
        mark, end = re.escape(space), "\n" if lines else ""
        whole = rf"{mark}[^{mark}{end}]*|[^{mark}{end}]+" if split else rf"[^{end}]+" if lines else r"(?s:.+)"
        self._words = re.compile(rf"\n|{whole}" if lines else whole)
        self._cuts = self._safe_places()

    @classmethod
    def train(
        cls, text: str, vocab_size: int, special_tokens: Sequence[str] = (), *, prepend: Prepend = "never", lines: bool | None = None,
        byte_fallback: bool = False, character_coverage: float = 1.0, max_length: int = 16, seed_size: int | None = None,
        normalizers: Sequence[Step] = (), unknown: str = "<unk>",
    ) -> "UnigramTokenizer":  # fmt: skip
        """Learn from `text`: special tokens, `<unk>`, with `byte_fallback` 256 bytes, then pieces by falling score.

        `character_coverage`: the share of the text whose characters must be pieces; the rarest others are unknown or bytes.
        `max_length` and `seed_size` (default: 8 × `vocab_size`) bound the pieces that training begins with. `lines`: by default where
        `prepend` allows it. Where no more substrings occur twice the vocabulary stays smaller, and `shortfall` says why. Raises
        ConfigError for an empty text or a `vocab_size` below what must be in.
        """
        check(0 < character_coverage <= 1, f"character_coverage={character_coverage}", "it must be above 0 and at most 1", "Try 0.9995")
        special = [*special_tokens, *(token for token in (unknown,) if token not in special_tokens)]
        fixed = [*special, *(BYTE_PIECES if byte_fallback else ())]
        scores = [0.0] * len(special) + [BYTE_SCORE] * (len(fixed) - len(special))
        lines = prepend == "never" if lines is None else lines
        options: dict[str, Any] = {"prepend": prepend, "lines": lines, "byte_fallback": byte_fallback}
        options |= {"normalizers": normalizers, "unknown": unknown}
        empty = cls(fixed, scores, special, **options)
        words = covered(empty._count(text), character_coverage)
        check(bool(words), "an empty text", "there must be some to learn pieces from", "Pass some text")
        alphabet = set("".join(words))
        least = len(fixed) + len(alphabet - set(fixed))
        must = f"{len(fixed)} special and byte pieces and {len(alphabet)} characters need {least}"
        check(vocab_size >= least, f"vocab_size={vocab_size}", must, f"Ask for {least} or more, or cover fewer characters")
        found = train_pieces(words, vocab_size - len(fixed), seed_size=seed_size or 8 * vocab_size, max_length=max_length)
        found = [(piece, score) for piece, score in found if piece not in fixed]
        tokenizer = cls([*fixed, *(p for p, _ in found)], [*scores, *(s for _, s in found)], special, **options)
        if tokenizer.vocab_size < vocab_size:
            tokenizer.shortfall = f"{tokenizer.vocab_size} pieces, not {vocab_size}: no more substrings occur twice"
        return tokenizer

    def sample(self, text: str, alpha: float, generator: np.random.Generator) -> list[int]:
        """Ids of one way by chance, with probability ∝ exp(alpha × score): subword regularisation (Kudo 2018), for training text only."""
        words = self._marked(text)
        return [i for word in words for i in self._to_ids(lattice.sample_path(word, self._trie, self._penalty, alpha, generator))]

    def nbest(self, text: str, n: int) -> list[tuple[float, list[int]]]:
        """The `n` best ways to encode `text`, (score, ids), the best first. Special tokens are ordinary text here and in `sample`."""
        ways: list[tuple[float, list[str]]] = [(0.0, [])]
        for word in self._marked(text):
            more = lattice.n_best(word, self._trie, self._penalty, n)
            ways = heapq.nlargest(n, ((a + b, before + then) for a, before in ways for b, then in more), key=lambda way: way[0])
        return [(score, self._to_ids(pieces)) for score, pieces in ways]

    def _encode_segment(self, text: str, begins_text: bool, begins_segment: bool) -> list[int]:
        words = self._marked(text, begins_text, begins_segment)
        return [i for word in words for i in self._cache.get(word) or self._word(word)]

    def _word(self, word: str) -> list[int]:
        """Ids of the best way, remembered."""
        ids = self._to_ids(lattice.best_path(word, self._trie, self._penalty))
        if len(self._cache) >= CACHE:
            self._cache.clear()
        self._cache[word] = ids
        return ids

    def _marked(self, text: str, begins_text: bool = True, begins_segment: bool = True) -> list[str]:
        """Normalized, spaces as "▁", cut into words."""
        text = normalize(text, self.normalizers, begins=begins_segment).replace(" ", self.space)
        wanted = {"never": False, "first": begins_text, "always": begins_segment}[self.prepend]
        if text and wanted and not text.startswith(self.space):
            text = self.space + text
        words: list[str] = self._words.findall(text)
        return words

    def _to_ids(self, pieces: Iterable[str]) -> list[int]:
        """Ids of pieces; unknown ones in a row are one, or their bytes."""
        ids: list[int] = []
        for known, run in groupby(pieces, lambda piece: piece in self._ordinary and piece != self.unknown):
            if known:
                ids += [self.ids[piece] for piece in run]
            else:
                ids += self._unknown_ids("".join(run))
        return ids

    def _unknown_ids(self, text: str) -> list[int]:
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
                became = {step["pattern"]["String"]: step["content"]}
                places = "".join(place for place in places if became.get(place, place) in (place, self.space))
            elif step["type"] == "BertNormalizer":
                places = places.replace("\n", "")
        return places

    def _safe_cut(self, text: str) -> int:
        return max(0, *(text.rfind(place) for place in self._cuts)) if self._cuts else 0

    def _join(self, pieces: list[str]) -> str:
        parts = [piece.replace(self.space, " ") for piece in pieces]
        if parts and self.prepend != "never":
            parts[0] = pieces[0].replace(self.space, "")
        return "".join(fuse_bytes(parts) if self.byte_fallback else parts)

    def _count(self, text: str) -> Counter[str]:
        """Words of a text with how often they occur."""
        parts = (part for part, is_special in split_special(text, self.special_tokens) if not is_special)
        return Counter(word for i, part in enumerate(parts) for word in self._marked(part, i == 0))

    def _more_pieces(self, tokens: Sequence[str]) -> dict[str, Any]:
        return {"pieces": [*self.pieces, *tokens], "scores": [*self.scores, *(0.0 for _ in tokens)]}

    def _options(self) -> dict[str, Any]:
        return {
            "unknown": self.unknown, "prepend": self.prepend, "split": self.split, "lines": self.lines,
            "byte_fallback": self.byte_fallback, "space": self.space, "normalizers": self.normalizers,
        }  # fmt: skip


if __name__ == "__main__":
    tokenizer = UnigramTokenizer.train("the hugs of a bug, the pun of a pug: hugging pugs, bugging puns. " * 9, vocab_size=40)
    for score, ids in tokenizer.nbest("hugging bugs", 3):
        print(f"{score:7.2f}", [tokenizer.pieces[i] for i in ids])
    generator = np.random.default_rng(0)
    print("by chance", [[tokenizer.pieces[i] for i in tokenizer.sample("hugs", 0.2, generator)] for _ in range(3)])
