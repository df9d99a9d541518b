"""Unigram (Kudo 2018): pieces have probabilities, and a word is cut in the way that makes it most probable.

Left out: finding that way (`unigram_lattice.py`), learning pieces and probabilities (`unigram_training.py`). Read before: `pieces.py`.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from tiny_transformer.config import check
from tiny_transformer.tokenization import unigram_lattice as lattice
from tiny_transformer.tokenization.byte_pieces import BYTE_PIECES
from tiny_transformer.tokenization.metaspace import MetaspaceTokenizer, Prepend
from tiny_transformer.tokenization.normalizing import Step
from tiny_transformer.tokenization.special_tokens import split_special
from tiny_transformer.tokenization.unigram_training import covered, train_pieces

PENALTY = 10.0
"""An unknown character scores this much less than the least probable piece (SentencePiece's kUnkPenalty)."""
BYTE_SCORE = -1000.0
"""Score of byte pieces in a vocabulary of ours: so low that no text is taken for one whose characters are known."""


class UnigramTokenizer(MetaspaceTokenizer):
    """Spaces become "▁", words begin with it, and each word is cut in the most probable way (`unigram_lattice.best_path`).

    The ids are those of the `tokenizers` library with the same pieces, scores and settings; these are `MetaspaceTokenizer`'s. Unknown
    characters in a row are one `<unk>`, or their bytes. With `prepend` "never" and nothing unknown, `decode(encode(text)) == text` for
    every text without "▁" itself.

    By hand, scores: ▁ -2, h -4, u -4, g -4, ▁hu -4, hug -5: "▁hug" is best as ▁ hug, -7; ▁hu g would be -8, and ▁ h u g -14.

    >>> tokenizer = UnigramTokenizer(["<unk>", "▁", "h", "u", "g", "▁hu", "hug"], [0, -2, -4, -4, -4, -4, -5], ["<unk>"])
    >>> tokenizer.encode(" hug"), tokenizer.encode(" h日本"), tokenizer.decode([1, 6])
    ([1, 6], [1, 2, 0], ' hug')
    """

    kind = "unigram"

    def __init__(self, pieces: Sequence[str], scores: Sequence[float], special_tokens: Sequence[str] = (), **settings: Any) -> None:
        """Pieces in the order of their ids, with the logarithms of their probabilities. Special tokens are found in no other way."""
        super().__init__(pieces, special_tokens, **settings)
        right = len(scores) == len(pieces) and all(math.isfinite(score) for score in scores)
        check(right, f"{len(scores)} scores for {len(pieces)} pieces", "each piece needs one, a finite number", "Mend the vocabulary")
        self.scores = [float(score) for score in scores]
        self._trie = lattice.build_trie({piece: self.scores[i] for piece, i in self.ids.items() if piece in self._ordinary})
        self._penalty = min(self.scores) - PENALTY

    @classmethod
    def train(
        cls, text: str, vocab_size: int, special_tokens: Sequence[str] = (), *, prepend: Prepend = "never", lines: bool | None = None,
        byte_fallback: bool = False, character_coverage: float = 1.0, max_length: int = 16, seed_size: int | None = None,
        normalizers: Sequence[Step] = (), unknown: str = "<unk>",
    ) -> "UnigramTokenizer":  # fmt: skip
        """Learn from `text`: special tokens, `<unk>`, with `byte_fallback` 256 bytes, then pieces by falling score.

        `character_coverage`: the share of the text whose characters must be pieces; the rarest others are unknown or bytes.
        `max_length` and `seed_size` (default: 8 × `vocab_size`) bound the pieces that training begins with. `lines`: by default where
        `prepend` allows it. Where no more substrings occur twice the vocabulary stays smaller, and `why_smaller` says why. Raises
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
            tokenizer.why_smaller = f"{tokenizer.vocab_size} pieces, not {vocab_size}: no more substrings occur twice"
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

    def _find_ids(self, word: str) -> list[int]:
        return self._to_ids(lattice.best_path(word, self._trie, self._penalty))

    def _to_ids(self, pieces: Iterable[str]) -> list[int]:
        """Ids of pieces; unknown ones in a row are one, or their bytes."""
        ids: list[int] = []
        for known, run in groupby(pieces, lambda piece: piece in self._ordinary and piece != self.unknown):
            if known:
                ids += [self.ids[piece] for piece in run]
            else:
                ids += self._unknown_ids("".join(run))
        return ids

    def _count(self, text: str) -> Counter[str]:
        """Words of a text with how often they occur."""
        parts = (part for part, is_special in split_special(text, self.special_tokens) if not is_special)
        return Counter(word for i, part in enumerate(parts) for word in self._marked(part, i == 0))

    def _more_pieces(self, tokens: Sequence[str]) -> dict[str, Any]:
        return {"pieces": [*self.pieces, *tokens], "scores": [*self.scores, *(0.0 for _ in tokens)]}


if __name__ == "__main__":
    tokenizer = UnigramTokenizer.train("the hugs of a bug, the pun of a pug: hugging pugs, bugging puns. " * 9, vocab_size=40)
    for score, ids in tokenizer.nbest("hugging bugs", 3):
        print(f"{score:7.2f}", [tokenizer.pieces[i] for i in ids])
    generator = np.random.default_rng(0)
    print("by chance", [[tokenizer.pieces[i] for i in tokenizer.sample("hugs", 0.2, generator)] for _ in range(3)])
