"""How many and how different: characters, words and lines of a text, and how their frequencies fall (Zipf 1949).

Works piece by piece, so that a text of 100 MB needs little memory beside itself. Left out: what is repeated (`duplicates.py`).
Read before: nothing.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 20
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_POINTS = 60
"""How many points of a long curve are kept for drawing."""


@dataclass(frozen=True)
class WordCounts:
    """The words of a text: runs of letters and digits, apostrophes inside included; capitals count."""

    tokens: int
    """Words in all."""
    types: int
    """Different words."""
    once: int
    """Words that occur once (hapax legomena)."""
    entropy: float
    """Of a word, in nats: how uncertain the next one is when only frequencies are known."""
    slope: float | None
    """Zipf: log frequency falls by this much per log rank; about -1 in natural text. None with fewer than 10 different words."""
    commonest: tuple[tuple[str, int], ...]
    """The twenty commonest, with how often they occur."""
    curve: tuple[tuple[int, int], ...]
    """(rank, frequency) at ranks that are evenly spaced on a logarithmic axis."""


@dataclass(frozen=True)
class LineLengths:
    """How long the lines are, in characters without their ends."""

    lines: int
    blank: int
    mean: float
    median: int
    p95: int
    p99: int
    longest: int
    histogram: tuple[tuple[int, int, int], ...]
    """(from, below, how many lines) with borders 0, 1, 2, 3, 4, 6, 8, 12, 16, …"""


def pieces(text: str, size: int = _AT_ONCE) -> Iterator[str]:
    """The text in pieces of about `size` characters that end where a line ends (or a word, in endless lines)."""
    start = 0
    while start < len(text):
        end = start + size
        if end < len(text):
            cut = text.rfind("\n", start, end) + 1 or text.rfind(" ", start, end) + 1 or end
            end = cut
        yield text[start:end]
        start = end


def count_characters(text: str) -> dict[str, int]:
    """How often each character occurs, in the order of code points.

    >>> count_characters("banana")
    {'a': 3, 'b': 1, 'n': 2}
    """
    totals = np.zeros(0x110000, np.int64)
    for start in range(0, len(text), _AT_ONCE):
        codes = np.frombuffer(text[start : start + _AT_ONCE].encode("utf-32-le", "surrogatepass"), "<u4")
        part = np.bincount(codes)
        totals[: len(part)] += part
    return {chr(code): int(totals[code]) for code in np.flatnonzero(totals)}


def entropy_of(counts: Sequence[int] | NDArray[Any]) -> float:
    """-sum p ln p of frequencies, in nats.

    >>> round(entropy_of([1, 1]), 4)        # a fair coin: ln 2
    0.6931
    """
    shares = np.asarray(counts, float)
    shares = shares[shares > 0] / max(1.0, shares.sum())
    return float(-(shares * np.log(shares)).sum()) + 0.0


def count_words(text: str) -> WordCounts:
    """Count the words of a text."""
    counts: Counter[str] = Counter()
    for piece in pieces(text):
        counts.update(_WORD.findall(piece))
    falling = np.sort(np.fromiter(counts.values(), np.int64, len(counts)))[::-1]
    ranks = _spread(len(falling))
    return WordCounts(
        tokens=int(falling.sum()),
        types=len(counts),
        once=int((falling == 1).sum()),
        entropy=entropy_of(falling),
        slope=zipf_slope(falling),
        commonest=tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]),
        curve=tuple((int(rank), int(falling[rank - 1])) for rank in ranks),
    )


def zipf_slope(falling: NDArray[np.int64]) -> float | None:
    """The slope of a straight line through (log rank, log frequency), fitted at ranks that are evenly spaced on the axis.

    Fitting at every rank would let the thousands of words that occur once decide alone.

    >>> round(zipf_slope(np.array([1000 // rank for rank in range(1, 101)])), 1)
    -1.0
    """
    if len(falling) < 10:
        return None
    ranks = _spread(len(falling))
    slope, _ = np.polyfit(np.log(ranks), np.log(falling[ranks - 1]), 1)
    return float(slope)


def _spread(n: int) -> NDArray[np.int64]:
    """Up to `_POINTS` different ranks from 1 to n, evenly spaced on a logarithmic axis."""
    return np.unique(np.geomspace(1, n, _POINTS).round().astype(np.int64)) if n else np.zeros(0, np.int64)


def line_lengths(text: str) -> LineLengths:
    """How long the lines of a text are; what stands after the last line feed is a line when it is not empty."""
    parts = text.split("\n")
    if not parts[-1]:
        parts.pop()
    lengths = np.fromiter((len(line.rstrip("\r")) for line in parts), np.int64, len(parts))
    blank = sum(not line.strip() for line in parts)
    median, p95, p99 = (int(np.quantile(lengths, share, method="lower")) for share in (0.5, 0.95, 0.99)) if len(parts) else (0, 0, 0)
    longest = int(lengths.max(initial=0))
    borders = _borders(longest)
    counted = np.histogram(lengths, borders)[0]
    return LineLengths(
        lines=len(parts),
        blank=blank,
        mean=float(lengths.mean()) if len(parts) else 0.0,
        median=median,
        p95=p95,
        p99=p99,
        longest=longest,
        histogram=tuple((low, high, int(n)) for low, high, n in zip(borders, borders[1:], counted, strict=False)),
    )


def _borders(longest: int) -> list[int]:
    borders = [0, 1, 2, 3]
    while borders[-1] <= longest:
        borders.append(borders[-1] * 4 // 3 if borders[-1] % 3 == 0 else borders[-1] * 3 // 2)
    return borders


if __name__ == "__main__":
    from tiny_transformer.corpora.pitches import text as pitches

    sample = pitches(100_000)
    words = count_words(sample)
    print(len(count_characters(sample)), "different characters;", words.types, "different words of", words.tokens, "slope", words.slope)
    print(line_lengths(sample))
