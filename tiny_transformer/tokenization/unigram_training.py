"""Learning Unigram's pieces and their probabilities (Kudo 2018, section 3.2): begin with too many, drop what is missed least.

1. Seed: characters, and the substrings that occur most (times their length).
2. Expectation: with the current probabilities, how often is each piece expected, over all ways to cut each word.
   Maximization: those expectations, divided by their sum, are the new probabilities.
3. Pruning: drop the quarter of the pieces whose loss makes the text least less likely; characters stay. Back to 2 until the size fits.

Left out: the suffix array that finds seeds in large texts (words are counted here, and their substrings listed), and the Bayesian
M-step of SentencePiece. Read before: `unigram_lattice.py`; its `expected_plain` is the plain form of `Lattices.expect`.
"""

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.tokenization.unigram_lattice import best_path, build_trie

Floats = NDArray[np.float64]
SHRINK = 0.75
"""Share of the pieces that survives a pruning."""
ROUNDS = 2
"""Expectation and maximization this often between prunings."""
FLOOR = 1e-9
"""The least expected count: a character that longer pieces have made unnecessary keeps a probability above 0."""


def covered(words: Mapping[str, int], coverage: float) -> Counter[str]:
    """Words cut at the characters beyond `coverage`: the rarest, ties by code point, as long as the others make up that share.

    >>> covered({"abc": 2, "ab": 7}, 0.9)
    Counter({'ab': 9})
    """
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for character in word:
            counts[character] += times
    left, dropped = counts.total() * (1 - coverage) + 1e-6, set()
    for character in sorted(counts, key=lambda character: (counts[character], character)):
        left -= counts[character]
        if left < 0:
            break
        dropped.add(character)
    if not dropped:
        return Counter(words)
    parts: Counter[str] = Counter()
    for word, times in words.items():
        for rare, run in groupby(word, dropped.__contains__):
            if not rare:
                parts["".join(run)] += times
    return parts


def seed_pieces(words: Mapping[str, int], size: int, max_length: int = 16) -> list[str]:
    """All characters, and the `size` substrings of 2 to `max_length` characters with the highest count × length; each at least twice.

    >>> seed_pieces({"hug": 10, "hugs": 5}, 3)
    ['g', 'h', 's', 'u', 'hug', 'hu', 'ug']
    """
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for start in range(len(word)):
            for end in range(start + 1, min(len(word), start + max_length) + 1):
                counts[word[start:end]] += times
    characters = sorted(piece for piece in counts if len(piece) == 1)
    longer = ((-times * len(piece), piece) for piece, times in counts.items() if times > 1 and len(piece) > 1)
    return characters + [piece for _, piece in heapq.nsmallest(size, longer)]


class Lattices:
    """The lattices of all words in flat arrays, so that each step of the recursion is done for all words at once.

    Nodes of all words are numbered through: word w has the nodes first[w] to first[w + 1] - 1. An edge has a left and a right node, a
    piece, and the word it belongs to. Forward takes the edges that end at place 1 of their words, then those that end at place 2, …: when
    a step comes, all that it needs is there. Backward takes them by the place where they begin, the last first.
    """

    def __init__(self, words: Mapping[str, int], pieces: Sequence[str]) -> None:
        """Words with their counts; all their characters must be pieces."""
        number = {piece: i for i, piece in enumerate(pieces)}
        longest = max(map(len, pieces))
        self.counts = np.array(list(words.values()), dtype=np.float64)
        self.first = np.cumsum([0, *(len(word) + 1 for word in words)])
        self.n_pieces = len(pieces)
        edges: list[tuple[int, int, int, int]] = []
        for w, (word, node) in enumerate(zip(words, self.first.tolist(), strict=False)):
            for start in range(len(word)):
                ends = range(start + 1, min(len(word), start + longest) + 1)
                edges += [(w, node + start, node + end, i) for end in ends if (i := number.get(word[start:end])) is not None]
        self.word, self.left, self.right, self.piece = np.array(edges, dtype=np.int64).reshape(-1, 4).T.copy()
        self._plan()

    def keep(self, kept: NDArray[np.bool_]) -> None:
        """Leave out the edges of pieces that are not `kept` (pieces,), and number the others anew."""
        edges = kept[self.piece]
        self.word, self.left, self.right = self.word[edges], self.left[edges], self.right[edges]
        self.piece = (np.cumsum(kept) - 1)[self.piece[edges]]
        self.n_pieces = int(kept.sum())
        self._plan()

    def expect(self, scores: Floats) -> tuple[float, Floats]:
        """log P of all words, each as often as it occurs, and the expected count of each piece (pieces,)."""
        forward, backward = np.zeros(self.first[-1]), np.zeros(self.first[-1])  # log probabilities; 0 where words begin and end
        for edges, groups, nodes in self._forward:
            forward[nodes] = log_sums(forward[self.left[edges]] + scores[self.piece[edges]], groups)
        for edges, groups, nodes in reversed(self._backward):
            backward[nodes] = log_sums(backward[self.right[edges]] + scores[self.piece[edges]], groups)
        whole = forward[self.first[1:] - 1]
        shares = np.exp(forward[self.left] + scores[self.piece] + backward[self.right] - whole[self.word]) * self.counts[self.word]
        return float(self.counts @ whole), np.bincount(self.piece, shares, minlength=self.n_pieces).astype(np.float64)

    def _plan(self) -> None:
        self._forward = _steps(self.right, self.right - self.first[self.word])
        self._backward = _steps(self.left, self.left - self.first[self.word])


Step = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _steps(node: NDArray[np.int64], place: NDArray[np.int64]) -> list[Step]:
    """For each place, in order: its edges, sorted by node; where among them each node's begin; those nodes."""
    order = np.lexsort((node, place))
    bounds = np.flatnonzero(np.diff(place[order], prepend=-1, append=-1)).tolist()
    steps = []
    for begin, end in pairwise(bounds):
        edges = order[begin:end]
        groups = np.flatnonzero(np.diff(node[edges], prepend=-1))
        steps.append((edges, groups, node[edges[groups]]))
    return steps


def log_sums(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """log Σ exp of each group of values; `groups` says where each begins.

    >>> log_sums(np.log([1.0, 2.0, 5.0]), np.array([0, 2])).round(6).tolist() == np.log([3.0, 5.0]).round(6).tolist()
    True
    """
    highest = np.maximum.reduceat(values, groups)
    sizes = np.diff(groups, append=len(values))
    sums: Floats = highest + np.log(np.add.reduceat(np.exp(values - np.repeat(highest, sizes)), groups))
    return sums


def maximize(expected: Floats) -> Floats:
    """The scores that make expected counts most likely: log of each one's share.

    >>> np.exp(maximize(np.array([3.0, 1.0]))).round(6).tolist()
    [0.75, 0.25]
    """
    expected = np.maximum(expected, FLOOR)
    scores: Floats = np.log(expected / expected.sum())
    return scores


def losses(pieces: Sequence[str], scores: Floats, expected: Floats) -> Floats:
    """By how much log P of the text falls when each piece is dropped and its best replacement takes over (pieces,); inf for characters.

    A piece with the expected count f, replaced by the pieces r of its best way without itself: each of them is then expected f times
    more, and the sum of all counts grows by f × (number of replacements - 1). SentencePiece prunes by the same estimate.

    By hand: ab 6, a 3, b 1 of 10 in all. Without ab, a is 9 and b 7 of 16: 6 × (log 6/10 - log 9/16 - log 7/16) = 5.35.

    >>> losses(["ab", "a", "b"], np.log([0.6, 0.3, 0.1]), np.array([6.0, 3.0, 1.0])).round(2).tolist()
    [5.35, inf, inf]
    """
    trie = build_trie(dict(zip(pieces, scores.tolist(), strict=True)))
    number = {piece: i for i, piece in enumerate(pieces)}
    expected = np.maximum(expected, FLOOR)
    counts, total = expected.tolist(), float(expected.sum())
    result = np.full(len(pieces), np.inf)
    for i, piece in enumerate(pieces):
        if len(piece) > 1:
            node = trie
            for character in piece:
                node = node[character]
            score = node.pop("")
            replacement = [number[part] for part in best_path(piece, trie, -math.inf)]
            node[""] = score
            grown = math.log(total + counts[i] * (len(replacement) - 1))
            now, then = math.log(counts[i] / total), sum(math.log(counts[part] + counts[i]) - grown for part in replacement)
            result[i] = counts[i] * (now - then)
    return result


def train_pieces(words: Mapping[str, int], size: int, *, seed_size: int, max_length: int = 16) -> list[tuple[str, float]]:
    """`size` pieces with their scores, the highest first; fewer when the words have no more substrings that occur twice.

    `size` must be at least the number of characters: they all stay.
    """
    pieces = seed_pieces(words, seed_size, max_length)
    lattices = Lattices(words, pieces)
    # Where nothing is known yet: each substring by how often it occurs.
    expected = np.bincount(lattices.piece, minlength=len(pieces)).astype(np.float64)
    scores = maximize(expected)
    while True:
        for _ in range(ROUNDS):
            _, expected = lattices.expect(scores)
            scores = maximize(expected)
        if len(pieces) <= size:
            break
        loss = losses(pieces, scores, expected)
        order = np.lexsort((np.arange(len(pieces)), -loss))  # ties: the earlier seed stays
        kept = np.zeros(len(pieces), dtype=np.bool_)
        kept[order[: max(size, int(len(pieces) * SHRINK))]] = True
        lattices.keep(kept)
        pieces = [piece for piece, stays in zip(pieces, kept.tolist(), strict=True) if stays]
        scores = maximize(expected[kept])
    scores = maximize(np.maximum(expected, 0.1))  # a character that no best way needs: rare, but not as rare as the floor says
    return sorted(zip(pieces, scores.tolist(), strict=True), key=lambda entry: (-entry[1], entry[0]))


if __name__ == "__main__":
    words = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
    lattices = Lattices(words, seed_pieces(words, 50))
    scores = maximize(np.ones(lattices.n_pieces))
    for _ in range(4):
        log_likelihood, expected = lattices.expect(scores)
        scores = maximize(expected)
        print(f"log P of all words: {log_likelihood:8.3f}")
    print([(piece, round(score, 2)) for piece, score in train_pieces(words, 10, seed_size=50)])
