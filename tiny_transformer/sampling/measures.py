"""What can be counted in a text that a model wrote: variety, repetition, and how much of it is copied.

Left out: whether it is any good. Read before: nothing; needs no torch.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple


def distinct_n(items: Sequence[Hashable], n: int) -> float:
    """Different n-grams as a share of all: 1 where none occurs twice; 0 where there are none (Li et al. 2016, section 5).

    `items` are words, tokens, or the characters of a string.

    >>> distinct_n("a rose is a rose".split(), 2)
    0.75

    Raises ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"n={n}: an n-gram must have at least 1 item. Try n=2")
    grams = [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repeated_share(items: Sequence[Hashable], n: int) -> float:
    """N-grams that occurred before in the same text, as a share of all: near 1 when a text goes in circles; 0 where there are none.

    >>> repeated_share("a rose is a rose".split(), 2)
    0.25
    """
    return 1 - distinct_n(items, n) if len(items) >= n else 0.0


class Overlap(NamedTuple):
    """The longest run that two texts share."""

    text: str
    """The run itself."""
    start: int
    """Where it begins in the sample, in characters."""
    source_start: int
    """Where it first begins in the source."""

    @property
    def length(self) -> int:
        """In characters."""
        return len(self.text)


def longest_overlap(sample: str, source: str) -> Overlap:
    """The longest run of characters of `sample` that stands in `source` word for word; the first one where there are several.

    The best length only ever grows, so every place of the sample costs one failed search, and every character of the result one
    that succeeds: len(sample) + length searches in all, each as fast as Python's `in`.

    >>> longest_overlap("the moon shone", "a moon shines")
    Overlap(text=' moon sh', start=3, source_start=1)
    """
    best, at = 0, 0
    for start in range(len(sample)):
        while start + best < len(sample) and sample[start : start + best + 1] in source:
            best, at = best + 1, start
    run = sample[at : at + best]
    return Overlap(run, at, source.find(run))


if __name__ == "__main__":
    text = "the king the king the king is dead"
    print("distinct words", round(distinct_n(text.split(), 1), 3), "distinct pairs", round(distinct_n(text.split(), 2), 3))
    print("repeated runs of 8 characters", round(repeated_share(text, 8), 3))
    print(longest_overlap(text, "the king is dead, long live the king"))
