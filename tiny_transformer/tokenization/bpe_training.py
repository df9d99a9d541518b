"""Byte-pair encoding learned quickly: the same merges as `bpe_plain.py`, a hundred times sooner.

Three ideas, each of which takes away work that the plain version repeats:

1. Equal pieces are merged alike, so only the distinct ones are looked at, each with its count (Sennrich et al. 2016).
2. A merge changes the counts of the neighbours only. So the counts are kept, and with each pair the places where it was seen.
3. The largest count is at the top of a heap. Counts fall all the time, so an entry can be out of date: that is noticed when it
   comes to the top, and then it goes back with its true count (lazy deletion).

The pieces lie behind each other in one list of ids, with EDGE between them. A token of several bytes has its id at its first
and at its last place, and INSIDE between, so both neighbours are one step away and no links are needed:

    bytes      t h e E t h e n E        E is EDGE, x is INSIDE
    merge t h  X X e E X X e n E        X = th
    merge th e Y x Y E Y x Y n E        Y = the

Left out: where the pieces come from (`bpe.py`). Read before: `bpe_plain.py`.
"""

import heapq
from collections.abc import Callable, Mapping

from tiny_transformer.tokenization.bpe_plain import Pair

EDGE, INSIDE = -1, -2

OnMerge = Callable[[int, Pair, int], None]
"""Called after each merge with its rank (from 0), the pair, and how often the pair occurred."""

Ids = tuple[int, int]


def order_key(token: bytes) -> str:
    """A text that sorts the other way round: the greater the bytes, the smaller the key.

    Each byte is mirrored, and an end mark above all of them makes a longer token smaller than its own beginning.

    >>> order_key(b"b") < order_key(b"ab") < order_key(b"a")
    True
    """
    return "".join(chr(255 - value) for value in token) + "\u0100"


class MergeLearner:
    """The state while merges are learned; `merges` so far."""

    def __init__(self, pieces: Mapping[bytes, int]) -> None:
        """Take the distinct pieces with their counts."""
        self.merges: dict[Pair, bytes] = {}
        self._tokens = [bytes([value]) for value in range(256)]
        self._ids = {token: i for i, token in enumerate(self._tokens)}
        self._keys = [order_key(token) for token in self._tokens]
        self._line: list[int] = [EDGE]
        self._weight: list[int] = [0]
        """How often the piece at this place occurs."""
        for piece, count in pieces.items():
            self._line += piece
            self._line.append(EDGE)
            self._weight += [count] * (len(piece) + 1)
        self._count: dict[Ids, int] = {}
        self._places: dict[Ids, list[int]] = {}
        """Where each pair was seen, by the place of its first token. Some are out of date: `_join` looks."""
        for i, pair in enumerate(zip(self._line, self._line[1:], strict=False)):
            if EDGE not in pair:
                self._add(pair, i, self._weight[i])
        self._heap = [self._entry(pair) for pair in self._count]
        heapq.heapify(self._heap)

    @property
    def new_tokens(self) -> int:
        """How many tokens there are besides the 256 bytes."""
        return len(self._tokens) - 256

    def step(self) -> tuple[Pair, int] | None:
        """One merge: the pair and its count, or None when no pair is left."""
        found = self._most_frequent()
        if found is None:
            return None
        (a, b), count = found
        pair = self._tokens[a], self._tokens[b]
        self.merges[pair] = pair[0] + pair[1]
        self._join(a, b, self._id_of(pair[0] + pair[1]))
        return pair, count

    def _entry(self, pair: Ids) -> tuple[int, str, str, Ids]:
        """A heap's smallest entry is the pair with the largest count, of these the lexicographically greatest."""
        return -self._count[pair], self._keys[pair[0]], self._keys[pair[1]], pair

    def _most_frequent(self) -> tuple[Ids, int] | None:
        while self._heap:
            entry = heapq.heappop(self._heap)
            pair, count = entry[-1], self._count.get(entry[-1], 0)
            if count == -entry[0]:
                return pair, count
            if count > 0:
                heapq.heappush(self._heap, self._entry(pair))
        return None

    def _id_of(self, token: bytes) -> int:
        """The token's id, a new one if need be: the same bytes can come about from other halves."""
        if token not in self._ids:
            self._ids[token] = len(self._tokens)
            self._tokens.append(token)
            self._keys.append(order_key(token))
        return self._ids[token]

    def _add(self, pair: Ids, place: int, weight: int) -> None:
        if pair in self._count:
            self._count[pair] += weight
            self._places[pair].append(place)
        else:
            self._count[pair] = weight
            self._places[pair] = [place]

    def _join(self, a: int, b: int, new: int) -> None:
        """Replace each a b by `new`, from left to right, and bring counts and places up to date."""
        line, weights, count, tokens = self._line, self._weight, self._count, self._tokens
        size_a, size = len(tokens[a]), len(tokens[new])
        changed: set[Ids] = set()
        for i in sorted(self._places.pop((a, b))):
            j, last = i + size_a, i + size - 1  # where b begins, and where it ends
            if line[i] != a or line[j] != b:
                continue
            weight, left, right = weights[i], line[i - 1], line[last + 1]
            line[j - 1] = line[j] = INSIDE
            line[i] = line[last] = new
            if left != EDGE:
                count[left, a] -= weight
                self._add((left, new), i - len(tokens[left]), weight)
                changed.add((left, new))
            if right != EDGE:
                count[b, right] -= weight
                self._add((new, right), i, weight)
                changed.add((new, right))
        del count[a, b]
        for pair in changed:
            if count[pair] > 0:
                heapq.heappush(self._heap, self._entry(pair))


def learn_merges(pieces: Mapping[bytes, int], new_tokens: int, on_merge: OnMerge | None = None) -> list[Pair]:
    """The merges that make `new_tokens` tokens besides the 256 bytes, in order; fewer when no pair is left.

    `pieces` maps each distinct piece to how often it occurs. Exactly `bpe_plain.train` of the pieces.

    >>> learn_merges({b"aaabdaaabac": 1}, 3)
    [(b'a', b'a'), (b'aa', b'a'), (b'aaa', b'b')]
    """
    learner = MergeLearner(pieces)
    while learner.new_tokens < new_tokens:
        made = learner.step()
        if made is None:
            break
        if on_merge is not None:
            on_merge(len(learner.merges) - 1, *made)
    return list(learner.merges)


if __name__ == "__main__":
    from collections import Counter

    words = Counter(b"the then there other mother weather the the".split())
    learn_merges(words, 8, lambda rank, pair, count: print(f"{rank}: {count} × {pair[0].decode():3} {pair[1].decode()}"))
