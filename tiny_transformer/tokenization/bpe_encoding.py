"""Byte-pair encoding applied: the ids of one piece, and where a text without split pattern can be cut all the same.

Of all neighbours that a merge joins, the one learned first goes first, of equal ones the leftmost; then again. A short piece is
searched through each time, which is quickest for the few bytes of a word. A long one (a run of 100,000 letters) would take
quadratic time so; there a heap holds the candidates.

Left out: text, special tokens, the cache (`bpe.py`). Read before: `bpe_plain.py`, whose `encode` this equals.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from tiny_transformer.config import check
from tiny_transformer.tokenization.bpe_plain import Pair

SHORT = 96
"""Bytes up to which searching through the piece beats the heap."""
NO_MERGE = 1 << 62
"""The rank of a pair that no merge joins: below all others."""


class PieceEncoder:
    """The merges as ids: which pairs join, in which order, to what.

    >>> encoder = PieceEncoder({b"a": 0, b"b": 1, b"aa": 2, b"aab": 3}, [(b"a", b"a"), (b"aa", b"b")])
    >>> encoder.encode(b"aaaab")
    [2, 3]
    """

    def __init__(self, ids: Mapping[bytes, int], merges: Sequence[Pair]) -> None:
        """Take each token's id and the merges in order. Raises ConfigError for a merge of, or to, a token without id."""
        self._byte_ids = [ids.get(bytes([value]), -1) for value in range(256)]
        self._ranks: dict[tuple[int, int], int] = {}
        self._results: list[int] = []
        for rank, (left, right) in enumerate(merges):
            for token in (left, right, left + right):
                missing = f"{token!r} is not in the vocabulary"
                check(token in ids, f"merge {rank} of {left!r} and {right!r}", missing, "Use the vocabulary that belongs to these merges")
            self._ranks[ids[left], ids[right]] = rank
            self._results.append(ids[left + right])

    def encode(self, piece: bytes) -> list[int]:
        """Bytes to ids. Raises ValueError for a byte that is not in the vocabulary."""
        ids = self.byte_ids(piece)
        return self._search(ids) if len(ids) <= SHORT else self._with_heap(ids)

    def byte_ids(self, piece: bytes) -> list[int]:
        """The ids of the single bytes. Raises ValueError for a byte that is not in the vocabulary."""
        ids = [self._byte_ids[value] for value in piece]
        if -1 in ids:
            raise ValueError(f"byte 0x{piece[ids.index(-1)]:02X} is not in the vocabulary: a byte-level one has all 256. Add it")
        return ids

    def merge(self, pair: tuple[int, int]) -> tuple[int, int] | None:
        """(rank, id of the result) of a pair of ids, None where no merge joins it."""
        rank = self._ranks.get(pair)
        return None if rank is None else (rank, self._results[rank])

    def _search(self, ids: list[int]) -> list[int]:
        """Look through all ranks for the smallest, join, and look again."""
        rank_of = self._ranks.get
        ranks = [rank_of(pair, NO_MERGE) for pair in pairwise(ids)]
        while ranks:
            rank = min(ranks)
            if rank == NO_MERGE:
                break
            i = ranks.index(rank)
            ids[i : i + 2] = [self._results[rank]]
            del ranks[i]
            if i > 0:
                ranks[i - 1] = rank_of((ids[i - 1], ids[i]), NO_MERGE)
            if i < len(ranks):
                ranks[i] = rank_of((ids[i], ids[i + 1]), NO_MERGE)
        return ids

    def _with_heap(self, ids: list[int]) -> list[int]:
        """The same in n log n steps: neighbours are linked, and a heap holds (rank, place); outdated entries are passed over."""
        rank_of, n = self._ranks.get, len(ids)
        before, after = list(range(-1, n - 1)), list(range(1, n + 1))
        ranks = [rank_of(pair, NO_MERGE) for pair in pairwise(ids)] + [NO_MERGE]  # of the pair that begins here
        heap = [(rank, i) for i, rank in enumerate(ranks) if rank != NO_MERGE]
        heapq.heapify(heap)
        while heap:
            rank, i = heapq.heappop(heap)
            if ranks[i] != rank:
                continue
            gone = after[i]
            ids[i], ids[gone] = self._results[rank], -1
            ranks[gone] = NO_MERGE
            after[i] = after[gone]
            if after[i] < n:
                before[after[i]] = i
            for left, right in ((before[i], i), (i, after[i])):
                if left >= 0:
                    ranks[left] = rank_of((ids[left], ids[right]), NO_MERGE) if right < n else NO_MERGE
                    if ranks[left] != NO_MERGE:
                        heapq.heappush(heap, (ranks[left], left))
        return [i for i in ids if i >= 0]


class SeamSplitter:
    """Cuts text where no merge can reach across: between two bytes that are neighbours in no token.

    With split="none" a whole text is one piece. Cutting it at such seams changes no id, and makes pieces that are short, occur
    again, and are settled before the text ends.

    >>> SeamSplitter([b"ab", b"bc"]).split("abcab")
    ['abc', 'ab']
    """

    def __init__(self, tokens: Iterable[bytes]) -> None:
        """Take the tokens that merges can make."""
        self._joined = np.zeros(1 << 16, dtype=bool)
        for token in tokens:
            for left, right in pairwise(token):
                self._joined[left << 8 | right] = True

    def split(self, text: str) -> list[str]:
        """All pieces; seams inside a character are left alone, so that each piece is text."""
        data = text.encode()
        values = np.frombuffer(data, dtype=np.uint8).astype(np.uint16)
        seams = ~self._joined[values[:-1] << 8 | values[1:]] & (values[1:] & 0xC0 != 0x80)
        ends = [*(np.flatnonzero(seams) + 1).tolist(), len(data)]
        return [data[begin:end].decode() for begin, end in zip([0, *ends], ends, strict=False)] if data else []

    def settled(self, text: str) -> tuple[list[str], str]:
        """The pieces that stay the same whatever follows, and the rest: the last seam is the limit."""
        pieces = self.split(text)
        return pieces[:-1], "".join(pieces[-1:])


if __name__ == "__main__":
    import time

    tokens = [b"a" * (1 << k) for k in range(8)]
    encoder = PieceEncoder({token: i for i, token in enumerate(tokens)}, [(token, token) for token in tokens[:-1]])
    for n in (1_000, 10_000, 100_000):
        start = time.perf_counter()
        ids = encoder.encode(b"a" * n)
        print(f"{n:7} letters -> {len(ids):4} tokens in {time.perf_counter() - start:.3f} s")
    print("seams:", SeamSplitter([b"th", b"he", b"the", b"in"]).split("the thing"))
