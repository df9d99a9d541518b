"""Byte-pair encoding, the plain version: count pairs, merge the most frequent, repeat.

Gage (1994, "A New Algorithm for Data Compression") replaced the most frequent pair of bytes by an unused byte. Sennrich et al.
(2016, arXiv:1508.07909) made the merges a vocabulary for translation, and Radford et al. (2019, GPT-2) went back to bytes, so
that nothing is unknown.

A worked example, by hand. The text "aaabdaaabac" is the bytes a a a b d a a a b a c.

    count aa 4, ab 2, ba 1, …    merge a a   aa a b d aa a b a c
    count aa+a 2, a+b 2, …       merge aa a  aaa b d aaa b a c       (a tie: of (aa, a) and (a, b) the greater comes first)
    count aaa+b 2, …             merge aaa b aaab d aaab a c

A tie goes to the pair that is lexicographically greatest as (bytes, bytes). To encode a new text, apply the merges to it in the
order in which they were learned: "aab" becomes aa b and stays so, for no merge joins these two.

This is the oracle of `bpe_training.py` and `bpe.py`: slow, and hard to get wrong. Left out: how a text is cut into pieces that
no merge crosses (`splitting.py`), special tokens (`bpe.py`), speed. Read before: nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

Pair = tuple[bytes, bytes]


def count_pairs(pieces: Iterable[list[bytes]]) -> Counter[Pair]:
    """How often each pair of neighbours occurs: all places count, so a a a holds (a, a) twice."""
    return Counter(pair for piece in pieces for pair in pairwise(piece))


def merge(piece: list[bytes], pair: Pair) -> list[bytes]:
    """`piece` with each occurrence of the pair joined, from left to right.

    >>> merge([b"a", b"a", b"a", b"b"], (b"a", b"a"))
    [b'aa', b'a', b'b']
    """
    (left, right), merged, i = pair, [], 0
    while i < len(piece):
        if piece[i] == left and i + 1 < len(piece) and piece[i + 1] == right:
            merged.append(left + right)
            i += 2
        else:
            merged.append(piece[i])
            i += 1
    return merged


def single_bytes(piece: bytes) -> list[bytes]:
    """The bytes one by one: where training and encoding start."""
    return [bytes([value]) for value in piece]


def train(pieces: Iterable[bytes], new_tokens: int) -> list[Pair]:
    """The merges that make `new_tokens` tokens besides the 256 bytes, in order; fewer when no pair is left.

    A merge whose result is a token already (by other halves) counts as a merge, but makes no new token.

    >>> train([b"aaabdaaabac"], 3)
    [(b'a', b'a'), (b'aa', b'a'), (b'aaa', b'b')]
    """
    parts = [single_bytes(piece) for piece in pieces]
    merges: dict[Pair, bytes] = {}
    while len(set(merges.values())) < new_tokens:
        counts = count_pairs(parts)
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        parts = [merge(piece, best) for piece in parts]
        merges[best] = best[0] + best[1]
    return list(merges)


def encode(piece: bytes, merges: Sequence[Pair]) -> list[bytes]:
    """The tokens of one piece: of all pairs present, join the one that was learned first; repeat.

    >>> encode(b"aab", [(b"a", b"a"), (b"aa", b"a"), (b"aaa", b"b")])
    [b'aa', b'b']
    """
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    parts = single_bytes(piece)
    while True:
        pairs = [pair for pair in pairwise(parts) if pair in ranks]
        if not pairs:
            return parts
        parts = merge(parts, min(pairs, key=ranks.__getitem__))


if __name__ == "__main__":
    text = b"aaabdaaabac"
    parts = [single_bytes(text)]
    print(b" ".join(parts[0]).decode())
    for pair in train([text], 4):
        count = count_pairs(parts)[pair]
        parts = [merge(piece, pair) for piece in parts]
        print(f"{count} × {pair[0].decode():4} {pair[1].decode():4} -> {b' '.join(parts[0]).decode()}")
    print("aab ->", encode(b"aab", train([text], 4)))
