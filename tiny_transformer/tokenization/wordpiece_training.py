"""Learning WordPiece's pieces: characters, then the best pair of neighbours again and again.

Two functions with one result: `merge_plain` counts everything anew for each merge and shows the idea; `merge_quick` keeps
the counts and changes what a merge touches. Left out: how the pieces are used (`wordpiece.py`). Read before: nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

Score = Literal["likelihood", "frequency"]
Pair = tuple[str, str]


def first_pieces(word: str, prefix: str = "##") -> list[str]:
    """Its characters; all but the first carry the prefix that says: inside a word.

    >>> first_pieces("hug")
    ['h', '##u', '##g']
    """
    return [word[:1], *(prefix + character for character in word[1:])]


def join(pair: Pair, prefix: str = "##") -> str:
    """Two neighbours as one piece: ('h', '##ug') is 'hug', ('##u', '##g') is '##ug'."""
    return pair[0] + pair[1].removeprefix(prefix)


def merge(pieces: Sequence[str], pair: Pair, prefix: str = "##") -> list[str]:
    """`pieces` with `pair` joined wherever it stands, from the left."""
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] = join(pair, prefix)
        else:
            merged.append(piece)
    return merged


def merge_plain(counts: Mapping[str, int], size: int, score: Score = "likelihood", min_count: int = 2, prefix: str = "##") -> list[str]:
    """`size` pieces for words with their `counts`: first the characters in code-point order, then one after another the joined pairs.

    Taken is the pair with the highest score; ties go to the more frequent pair, then to the greatest in code-point order. Pairs that occur
    fewer than `min_count` times are not taken, so there may be fewer pieces than `size`. The scores:

    - "likelihood" (Schuster & Nakajima 2012): count(ab) / (count(a) count(b)): by how much joining raises the likelihood of the text per
      occurrence. It prefers parts that are seldom apart, so rare words come early: mind `min_count`.
    - "frequency": count(ab), as the `tokenizers` library trains WordPiece.

    By hand, words tea ×4, ten ×6, stem ×2: the pieces are t 10, ##e 12, ##a 4, ##n 6, s 2, ##t 2, ##m 2; the pairs t ##e 10, ##e ##n 6,
    ##e ##a 4, s ##t 2, ##t ##e 2, ##e ##m 2. By frequency t ##e is first. By likelihood it is s ##t with 2/(2·2) = 1/2, for neither
    stands without the other; t ##e has 10/(10·12) = 1/12. Then all that is left has 1/12, and the most frequent wins: t ##e.

    >>> merge_plain({"tea": 4, "ten": 6, "stem": 2}, 9)
    ['##a', '##e', '##m', '##n', '##t', 's', 't', 'st', 'te']
    """
    words = {word: first_pieces(word, prefix) for word in counts}
    pieces = sorted({piece for parts in words.values() for piece in parts})
    while len(pieces) < size:
        singles, pairs = count(words, counts)
        kept = [pair for pair in pairs if pairs[pair] >= min_count]
        if not kept:
            break
        worth = {pair: pairs[pair] / (singles[pair[0]] * singles[pair[1]]) if score == "likelihood" else pairs[pair] for pair in kept}
        best = max(kept, key=lambda pair: (worth[pair], pairs[pair], pair))
        words = {word: merge(parts, best, prefix) for word, parts in words.items()}
        if join(best, prefix) not in pieces:
            pieces.append(join(best, prefix))
    return pieces


def count(words: Mapping[str, Sequence[str]], counts: Mapping[str, int]) -> tuple[Counter[str], Counter[Pair]]:
    """How often each piece stands, and each pair of neighbours."""
    singles, pairs = Counter[str](), Counter[Pair]()
    for word, parts in words.items():
        for piece in parts:
            singles[piece] += counts[word]
        for pair in pairwise(parts):
            pairs[pair] += counts[word]
    return singles, pairs


def merge_quick(counts: Mapping[str, int], size: int, score: Score = "likelihood", min_count: int = 2, prefix: str = "##") -> list[str]:
    """The same pieces as `merge_plain`. A merge touches only the words that hold the pair; finding the best is one look at arrays."""
    words = {word: first_pieces(word, prefix) for word in counts}
    pieces = dict.fromkeys(sorted({piece for parts in words.values() for piece in parts}))
    tally = _Tally()
    for word, parts in words.items():
        tally.add(word, parts, counts[word])
    while len(pieces) < size:
        best = tally.best(score, min_count)
        if best is None:
            break
        for word in sorted(tally.holders(best)):
            tally.add(word, words[word], -counts[word])
            words[word] = merge(words[word], best, prefix)
            tally.add(word, words[word], counts[word])
        pieces[join(best, prefix)] = None
    return list(pieces)


class _Tally:
    """Counts of pieces and pairs in arrays, and which words have held which pair."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}  # piece → its place in singles
        self.places: dict[Pair, int] = {}  # pair → its place in the three arrays below
        self.pairs: list[Pair] = []
        self.words: list[set[str]] = []
        self.singles = np.zeros(1024)
        self.counts, self.left, self.right = np.zeros(1024), np.zeros(1024, dtype=np.int64), np.zeros(1024, dtype=np.int64)

    def add(self, word: str, parts: Sequence[str], times: int) -> None:
        """Count `parts` of `word`; with `times` below 0: take them out."""
        for piece in parts:
            number = self._number(piece)
            self.singles[number] += times
        for pair in pairwise(parts):
            place = self._place(pair)
            self.counts[place] += times
            self.words[place].add(word)

    def holders(self, pair: Pair) -> Iterable[str]:
        """Words that hold the pair, or have held it."""
        return self.words[self.places[pair]]

    def best(self, score: Score, min_count: int) -> Pair | None:
        """The pair to join next; None when none occurs often enough."""
        n = len(self.pairs)
        counts = self.counts[:n]
        kept = np.flatnonzero(counts >= max(min_count, 1))
        if not kept.size:
            return None
        counts = counts[kept]
        worth = counts / (self.singles[self.left[kept]] * self.singles[self.right[kept]]) if score == "likelihood" else counts
        ties = np.flatnonzero(worth == worth.max())
        ties = ties[counts[ties] == counts[ties].max()]
        return max(self.pairs[int(place)] for place in kept[ties])

    def _number(self, piece: str) -> int:
        number = self.numbers.setdefault(piece, len(self.numbers))
        if number == len(self.singles):
            self.singles = np.concatenate((self.singles, np.zeros(number)))
        return number

    def _place(self, pair: Pair) -> int:
        place = self.places.setdefault(pair, len(self.pairs))
        if place == len(self.pairs):
            if place == len(self.counts):
                self.counts = np.concatenate((self.counts, np.zeros(place)))
                self.left, self.right = (np.concatenate((array, np.zeros_like(array))) for array in (self.left, self.right))
            self.left[place], self.right[place] = self._number(pair[0]), self._number(pair[1])
            self.pairs.append(pair)
            self.words.append(set())
        return place


if __name__ == "__main__":
    counts = {"hug": 10, "pug": 5, "hugs": 5, "bun": 4, "pun": 12}
    for score in ("likelihood", "frequency"):
        print(f"{score:10}", merge_plain(counts, 14, score), merge_plain(counts, 14, score) == merge_quick(counts, 14, score))
