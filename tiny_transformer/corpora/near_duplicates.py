"""Pieces that are nearly the same: an edited copy, a template filled twice. Found in time linear in the text.

Two texts are as similar as their sets of shingles (runs of n words) overlap: J = |A ∩ B| / |A ∪ B|. Comparing all pairs would
take n² steps, so there are three, all by hand:

1. MinHash (Broder 1997, "On the Resemblance and Containment of Documents"): under a random order of all shingles, two sets have the
   same smallest element with probability J. 128 orders give each text a row of 128 numbers; equal places estimate J.
2. LSH (Indyk & Motwani 1998): the row is cut into bands; texts that agree in a whole band are candidates. A band of r numbers agrees
   with probability J^r, one of b bands with 1 - (1 - J^r)^b: an S-shaped curve, nearly 0 for strangers and nearly 1 for copies.
3. Candidates are checked by their true sets, so nothing is ever called a near copy that is none. A few may be missed: at
   the threshold itself at most 1 in 100, above it far fewer.

A text is compared with the earlier texts that were kept, not with copies: every copy has an original that is really similar to it, no
chain leads away from it, and looking again at what was kept finds nothing. Left out: equal texts (`duplicates.py`).
Read before: `duplicates.py`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check, check_choice, check_kinds
from tiny_transformer.corpora.duplicates import Copy

Hashes = NDArray[np.uint64]
Progress = Callable[[int, int], None]
"""Called with (texts done, texts in all)."""

MOST_COMPARED = 16
"""How many kept texts of one bucket a text is compared with: a bound on the time for a text made of one template."""
_AT_ONCE = 1 << 17
"""Words hashed together: few enough for the processor's cache."""
_RECALL = 0.99
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Shingling:
    """What counts as nearly the same."""

    unit: Literal["words", "characters"] = "words"
    """Shingles of words, or of characters (for scripts without spaces)."""
    n: int = 3
    """Words (characters) in a shingle."""
    threshold: float = 0.8
    """Jaccard similarity from which on a text is a near copy."""
    hashes: int = 128
    """Random orders, that is numbers in a text's row."""

    def __post_init__(self) -> None:
        """Check. Raises ConfigError."""
        check_kinds(self)
        check_choice("unit", self.unit, ("words", "characters"))
        check(self.n >= 1, f"n={self.n}", "a shingle must have at least one word", "Try n=3")
        check(0 < self.threshold <= 1, f"threshold={self.threshold}", "it must be above 0 and at most 1", "Try threshold=0.8")
        check(8 <= self.hashes <= 4096, f"hashes={self.hashes}", "it must be 8 to 4096", "Try hashes=128")


def items(text: str, settings: Shingling) -> list[str]:
    """What shingles are made of: words in lower case without punctuation, or characters."""
    return _WORD.findall(text.lower()) if settings.unit == "words" else list(text.lower())


def shingles(text: str, settings: Shingling) -> frozenset[tuple[str, ...]]:
    """The set of runs of `n` items. A text with fewer has one run, filled up with empty items; one without words has none.

    >>> sorted(shingles("To be, or not", Shingling(n=3)))
    [('be', 'or', 'not'), ('to', 'be', 'or')]
    """
    found = items(text, settings)
    if found:
        found += [""] * (settings.n - len(found))
    return frozenset(zip(*(found[start:] for start in range(settings.n)), strict=False))


def jaccard(a: frozenset[Any], b: frozenset[Any]) -> float:
    """|A ∩ B| / |A ∪ B|: 1 for equal sets, 0 for two without a common element; 0 for two empty ones.

    >>> jaccard(frozenset("abc"), frozenset("bcd"))
    0.5
    """
    common = len(a & b)
    return common / max(1, len(a) + len(b) - common)


def banding(threshold: float, hashes: int) -> tuple[int, int]:
    """(bands, rows): the longest bands that still find 99 % of the pairs that are as similar as `threshold`.

    >>> banding(0.8, 128)        # 1 - (1 - 0.8**6)**21 = 0.998
    (21, 6)
    """
    rows = max(r for r in range(1, hashes + 1) if r == 1 or 1 - (1 - threshold**r) ** (hashes // r) >= _RECALL)
    return hashes // rows, rows


def near_copies(texts: Sequence[str], settings: Shingling | None = None, progress: Progress | None = None) -> list[Copy]:
    """Every text that is nearly the same as an earlier one that was kept, with the similarity, exact.

    >>> near_copies(["the cat sat on the mat", "a dog", "The cat sat on the mat!"])
    [Copy(copy=2, original=0, similarity=1.0)]
    """
    settings = settings or Shingling()
    buckets = _buckets(_band_keys(texts, settings, progress))
    kept: dict[int, list[int]] = defaultdict(list)
    compare = _Comparison(texts, settings)
    copies = []
    for place in sorted(buckets):
        match = compare.first(place, sorted({leader for bucket in buckets[place] for leader in kept[bucket]}))
        if match is not None:
            copies.append(match)
            continue
        for bucket in buckets[place]:
            if len(kept[bucket]) < MOST_COMPARED:
                kept[bucket].append(place)
    return copies


def near_matches(
    texts: Sequence[str], among: Sequence[str], settings: Shingling | None = None, progress: Progress | None = None
) -> list[Copy]:
    """Which of `texts` (`copy`) are nearly or exactly the same as one of `among` (`original`): what leaks between two parts."""
    settings = settings or Shingling()
    together = [*among, *texts]
    buckets = _buckets(_band_keys(together, settings, progress))
    known: dict[int, list[int]] = defaultdict(list)
    for place in sorted(place for place in buckets if place < len(among)):
        for bucket in buckets[place]:
            if len(known[bucket]) < MOST_COMPARED:
                known[bucket].append(place)
    compare = _Comparison(together, settings)
    found = []
    for place in sorted(place for place in buckets if place >= len(among)):
        match = compare.first(place, sorted({other for bucket in buckets[place] for other in known[bucket]}))
        if match is not None:
            found.append(Copy(match.copy - len(among), match.original, match.similarity))
    return found


# --- from texts to buckets ------------------------------------------------------------------------------------------------


class _Comparison:
    """Exact similarities of a few texts out of many; the sets of the last ones are kept."""

    def __init__(self, texts: Sequence[str], settings: Shingling) -> None:
        self.threshold = settings.threshold
        self.set_of = lru_cache(maxsize=2048)(lambda place: shingles(texts[place], settings))

    def first(self, place: int, candidates: Sequence[int]) -> Copy | None:
        """The first candidate that is similar enough."""
        own = self.set_of(place)
        for other in candidates:
            similarity = jaccard(own, self.set_of(other))
            if similarity >= self.threshold:
                return Copy(place, other, similarity)
        return None


def _band_keys(texts: Sequence[str], settings: Shingling, progress: Progress | None) -> tuple[NDArray[np.int64], Hashes]:
    """The places of the texts that have shingles (m,), and a number for each of their bands (m, bands)."""
    bands, rows = banding(settings.threshold, settings.hashes)
    generator = np.random.default_rng(1997)  # fixed: the same texts are found tomorrow
    factors = generator.integers(0, 2**63, bands * rows, dtype=np.uint64) * np.uint64(2) + np.uint64(1)  # odd: x → a x + b is one-to-one
    offsets = generator.integers(0, 2**63, bands * rows, dtype=np.uint64)
    places, keys = [], [np.empty((0, bands), np.uint64)]
    for part, hashed, starts in _hashed_shingles(texts, settings):
        key = np.zeros((len(starts), bands), np.uint64)
        for band in range(bands):
            for row in range(band * rows, (band + 1) * rows):
                smallest = np.minimum.reduceat(hashed * factors[row] + offsets[row], starts)
                key[:, band] = _mix(key[:, band] ^ smallest)
        places += part
        keys.append(key)
        if progress is not None:
            progress(part[-1] + 1, len(texts))
    return np.array(places, np.int64), np.concatenate(keys)


def _hashed_shingles(texts: Sequence[str], settings: Shingling) -> Iterator[tuple[list[int], Hashes, NDArray[np.int64]]]:
    """Parts of the texts that have items: (places, hashes of all their shingles in a row, where each text's begin)."""
    number = _Numbers()
    places: list[int] = []
    lengths: list[int] = []
    flat: list[int] = []
    for place, text in enumerate(texts):
        found = items(text, settings)
        if found:
            found += [""] * (settings.n - len(found))
            places.append(place)
            lengths.append(len(found))
            flat += map(number.__getitem__, found)
        if flat and (len(flat) >= _AT_ONCE or place == len(texts) - 1):
            yield places, *_combine(np.array(flat, np.uint64), np.array(lengths), settings.n)
            places, lengths, flat = [], [], []
    if flat:
        yield places, *_combine(np.array(flat, np.uint64), np.array(lengths), settings.n)


class _Numbers(dict[str, int]):
    """Item → 64 bits that depend on nothing but the item (Python's own `hash` changes from run to run)."""

    def __missing__(self, item: str) -> int:
        self[item] = number = int.from_bytes(blake2b(item.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        return number


def _combine(numbers: Hashes, lengths: NDArray[np.int64], n: int) -> tuple[Hashes, NDArray[np.int64]]:
    """One number for each run of `n` neighbours that does not cross from one text into the next."""
    size = len(numbers) - n + 1
    hashed = np.zeros(size, np.uint64)
    for shift in range(n):
        hashed = _mix(hashed + numbers[shift : shift + size])
    ends = np.cumsum(lengths)
    inside = np.ones(size, bool)
    for end in range(1, n):
        inside[(ends[:-1] - end)[ends[:-1] - end < size]] = False
    runs = lengths - n + 1
    return hashed[inside], np.concatenate([[0], np.cumsum(runs)[:-1]])


def _mix(numbers: Hashes) -> Hashes:
    """Every bit of the result depends on every bit of the number (the finaliser of SplitMix64, Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _buckets(keyed: tuple[NDArray[np.int64], Hashes]) -> dict[int, list[int]]:
    """Place → the buckets it shares with another text; texts that share none are left out."""
    places, keys = keyed
    buckets: dict[int, list[int]] = defaultdict(list)
    bucket = 0
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band], kind="stable")
        column = keys[order, band]
        begins = np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1], [True]]))
        for start in np.flatnonzero(np.diff(begins) > 1):
            for row in order[begins[start] : begins[start + 1]]:
                buckets[int(places[row])].append(bucket)
            bucket += 1
    return buckets


if __name__ == "__main__":
    proverbs = [
        "A bird in the hand is worth two in the bush, or so my grandmother used to say to us every spring.",
        "Too many cooks spoil the broth.",
        "A bird in the hand is worth two in the bush, or so my grandfather used to say to us every spring.",
    ]
    for settings in (Shingling(threshold=0.6), Shingling(threshold=0.6, unit="characters", n=8)):
        print(settings.unit, banding(settings.threshold, settings.hashes), near_copies(proverbs, settings))
