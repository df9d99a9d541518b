"""All ways to cut a word into pieces at once: the best, the n best, one by chance, and how often each piece is expected.

The ways form a lattice: its nodes are the places between characters, 0 to n, and each piece that fits is an edge with a score, the
logarithm of its probability. A way is a path from 0 to n, its score the sum of its edges (Kudo 2018, section 3). A character that is no
piece gets an edge with the score `unknown`. Left out: where scores come from (`unigram_training.py`), words (`unigram.py`).
Read before: nothing.
"""

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Trie = dict[str, Any]
_SCORE = ""  # the key under which a node of a trie holds the score of the piece that ends there


def best_path_plain(word: str, scores: Mapping[str, float], unknown: float) -> list[str]:
    """The plain version: for each place the best way to get there, over all places it could have come from (Viterbi 1967).

    By hand, a -1, b -1, c -1, ab -1.5, bc -1.8: the best way to place 1 is a, -1; to place 2 ab, -1.5, better than a b, -2; to place 3 it
    is ab c, -2.5, better than a bc, -2.8, and a b c, -3. Of two equally good ways the one with the longer last piece wins.

    >>> best_path_plain("abc", {"a": -1, "b": -1, "c": -1, "ab": -1.5, "bc": -1.8}, unknown=-12)
    ['ab', 'c']
    """
    best: list[tuple[float, int]] = [(0.0, 0)]  # for each place: score, and where its last piece begins
    for end in range(1, len(word) + 1):
        ways = [(best[start][0] + score, start) for start in range(end) if (score := _score(word[start:end], scores, unknown)) is not None]
        best.append(max(ways, key=lambda way: way[0]))  # the first of several
    return _follow(word, [start for _, start in best])


def _score(piece: str, scores: Mapping[str, float], unknown: float) -> float | None:
    return scores.get(piece, unknown if len(piece) == 1 else None)


def _follow(word: str, starts: Sequence[int]) -> list[str]:
    """Pieces, from where the last piece before each place begins."""
    pieces, end = [], len(word)
    while end:
        pieces.append(word[starts[end] : end])
        end = starts[end]
    return pieces[::-1]


def build_trie(scores: Mapping[str, float]) -> Trie:
    """Pieces by their characters, one dict inside the other, so that all that begin at a place are found in one walk."""
    root: Trie = {}
    for piece, score in scores.items():
        node = root
        for character in piece:
            node = node.setdefault(character, {})
        node[_SCORE] = score
    return root


def edges(word: str, start: int, trie: Trie, unknown: float) -> Iterator[tuple[int, float]]:
    """The edges that leave `start`: (end, score), the shortest first; an unknown character's last."""
    node, known = trie, False
    for end in range(start, len(word)):
        if word[end] not in node:
            break
        node = node[word[end]]
        if _SCORE in node:
            known = known or end == start
            yield end + 1, node[_SCORE]
    if not known:
        yield start + 1, unknown


def best_path(word: str, trie: Trie, unknown: float) -> list[str]:
    """`best_path_plain` with a walk through the trie in place of all substrings."""
    best, starts = [-math.inf] * (len(word) + 1), [0] * (len(word) + 1)
    best[0] = 0.0
    for start in range(len(word)):
        here = best[start]
        for end, score in edges(word, start, trie, unknown):
            if here + score > best[end]:
                best[end], starts[end] = here + score, start
    return _follow(word, starts)


def n_best(word: str, trie: Trie, unknown: float, n: int) -> list[tuple[float, list[str]]]:
    """The `n` best ways with their scores, the best first; fewer where there are fewer.

    >>> n_best("abc", build_trie({"a": -1, "b": -1, "c": -1, "ab": -1.5, "bc": -1.8}), -12, 2)
    [(-2.5, ['ab', 'c']), (-2.8, ['a', 'bc'])]
    """
    ways: list[list[tuple[float, list[str]]]] = [[(0.0, [])], *([] for _ in word)]
    for start in range(len(word)):
        ways[start] = heapq.nlargest(n, ways[start], key=lambda way: way[0])
        for end, score in edges(word, start, trie, unknown):
            ways[end] += [(before + score, [*pieces, word[start:end]]) for before, pieces in ways[start]]
    return heapq.nlargest(n, ways[-1], key=lambda way: way[0])


def sample_path(word: str, trie: Trie, unknown: float, alpha: float, generator: np.random.Generator) -> list[str]:
    """One way by chance, with probability proportional to exp(alpha × score): forward filtering, backward sampling.

    Forward: how much probability arrives at each place. Backward, from the end: which edge it came by, in proportion to what it brought.
    `alpha` 0 takes all ways alike, a large one nearly always the best (Kudo 2018, section 3.3).
    """
    arriving: list[list[tuple[int, float]]] = [[] for _ in range(len(word) + 1)]  # for each place: (start, log probability)
    total = [0.0] * (len(word) + 1)
    for place in range(len(word) + 1):
        if place:
            total[place] = log_sum([log for _, log in arriving[place]])
        if place < len(word):
            for end, score in edges(word, place, trie, unknown):
                arriving[end].append((place, total[place] + alpha * score))
    starts, place = [0] * (len(word) + 1), len(word)
    while place:
        chance = generator.random()
        for start, log in arriving[place]:  # noqa: B007 - the last one is taken when rounding leaves a rest
            chance -= math.exp(log - total[place])
            if chance < 0:
                break
        starts[place] = start
        place = start
    return _follow(word, starts)


def log_sum(logs: Sequence[float]) -> float:
    """log Σ exp, without overflow."""
    highest = max(logs)
    return highest + math.log(sum(math.exp(log - highest) for log in logs))


def expected_plain(word: str, scores: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """log P(word) over all ways, and how often each piece is expected in it: forward–backward (Baum et al. 1970), plain.

    All characters of `word` must be pieces.

    A piece from place i to place j lies on a share forward[i] × p(piece) × backward[j] / P(word) of all ways.

    By hand, a 0.5, b 0.3, ab 0.2: the ways of "ab" are a b with 0.15 and ab with 0.2, so P = 0.35, and ab is expected 0.2/0.35 times.

    >>> scores = {"a": math.log(0.5), "b": math.log(0.3), "ab": math.log(0.2)}
    >>> logarithm, expected = expected_plain("ab", scores)
    >>> round(math.exp(logarithm), 6), {piece: round(times, 4) for piece, times in expected.items()}
    (0.35, {'a': 0.4286, 'ab': 0.5714, 'b': 0.4286})
    """
    n = len(word)
    found = [(i, j, scores[word[i:j]]) for i in range(n) for j in range(i + 1, n + 1) if word[i:j] in scores]
    forward, backward = [0.0] * (n + 1), [0.0] * (n + 1)
    for place in range(1, n + 1):
        forward[place] = log_sum([forward[i] + score for i, j, score in found if j == place])
    for place in range(n - 1, -1, -1):
        backward[place] = log_sum([score + backward[j] for i, j, score in found if i == place])
    expected: dict[str, float] = {}
    for i, j, score in found:
        expected[word[i:j]] = expected.get(word[i:j], 0.0) + math.exp(forward[i] + score + backward[j] - forward[n])
    return forward[n], expected


if __name__ == "__main__":
    scores = {"h": -4.0, "u": -4.0, "g": -4.0, "s": -3.0, "hu": -5.0, "ug": -4.5, "hug": -6.0, "gs": -6.0}
    trie = build_trie(scores)
    for score, pieces in n_best("hugs", trie, -16.0, 4):
        print(f"{score:6.1f} {' '.join(pieces)}")
    generator = np.random.default_rng(0)
    print("by chance, alpha 0.3:", [" ".join(sample_path("hugs", trie, -16.0, 0.3, generator)) for _ in range(4)])
    print("expected:", {piece: round(times, 3) for piece, times in expected_plain("hugs", scores)[1].items()})
