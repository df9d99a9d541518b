"""How repetitive a written text is, and how much of it stands in the training text: counted in words.

A share alone says little: people repeat themselves too, and a longer text has fewer distinct words. So `usual` measures passages of a
person's text of the same length. Left out: whether the text is any good. Read before: `sampling/measures.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check
from tiny_transformer.sampling.measures import distinct_n, repeated_share

REPEATED_N = 4
"""Runs of so many words count as repeated when they occur again."""


class Run(NamedTuple):
    """The longest run of words that two texts share."""

    length: int
    start: int
    """Where it begins in the sample, in words."""
    source_start: int
    """Where it first begins in the source; -1 for a run of no words."""


class Source:
    """A training text, ready to be searched for runs of words: words lie between white space."""

    def __init__(self, text: str) -> None:
        words = text.split()
        self.numbers: dict[str, int] = {}
        self.ids: NDArray[np.int32] = np.fromiter(
            (self.numbers.setdefault(word, len(self.numbers)) for word in words), dtype=np.int32, count=len(words)
        )

    def longest_run(self, sample: Sequence[str]) -> Run:
        """The longest run of `sample`'s words that stands in this text, the first of the longest; exact.

        A run that begins at i is looked for at every place of the text that has word i, and only lengths above the best so far are:
        a place is compared word for word as long as it agrees. Time: for each word of the sample one look at the whole text.

        >>> Source("a b c d").longest_run("x b c y".split())
        Run(length=2, start=1, source_start=1)
        """
        ids = np.array([self.numbers.get(word, -1) for word in sample], dtype=np.int32)
        best = Run(0, 0, -1)
        for start in range(len(ids)):
            if len(ids) - start <= best.length:
                break
            places = np.flatnonzero(self.ids == ids[start])
            length, alive = 0, places
            while len(alive):
                length, places = length + 1, alive
                if start + length == len(ids):
                    break
                alive = places[places + length < len(self.ids)]
                alive = alive[self.ids[alive + length] == ids[start + length]]
            if length > best.length:
                best = Run(length, start, int(places[0]))
        return best


@dataclass(frozen=True)
class Repetition:
    """What was counted in a text. All but the last two are shares, 0 to 1."""

    words: float
    """How many words it has."""
    distinct_1: float
    """Different words, of all (Li et al. 2016) …"""
    distinct_2: float
    """… different pairs …"""
    distinct_3: float
    """… and different triples."""
    repeated_4: float
    """Runs of four words that occurred before in the same text (Welleck et al. 2020 call this seq-rep-4)."""
    copied: float | None = None
    """Words in the longest run that stands in the training text; None where that is not here."""
    copy: str = ""
    """That run."""

    def __str__(self) -> str:
        shares = f"distinct words {self.distinct_1:.0%}, pairs {self.distinct_2:.0%}, triples {self.distinct_3:.0%}"
        text = f"{self.words:.0f} words: {shares}; repeated runs of four {self.repeated_4:.1%}"
        if self.copied is None:
            return f"{text}; the training text is not here, so copying is not measured"
        shown = repr(self.copy if len(self.copy) <= 60 else self.copy[:59] + "…")
        several = len(self.copy.split()) != self.copied  # a mean, and the longest one
        end = "" if not self.copy else f" on average, at most {len(self.copy.split())}: {shown}" if several else f": {shown}"
        return f"{text}; longest run from the training text {self.copied:.{int(several)}f} words{end}"


def repetition(text: str, source: Source | None = None) -> Repetition:
    """Count in one text.

    >>> repetition("a rose is a rose is a rose").repeated_4
    0.4
    """
    words = text.split()
    one, two, three = (distinct_n(words, n) for n in (1, 2, 3))
    counted = Repetition(len(words), one, two, three, repeated_share(words, REPEATED_N))
    if source is None:
        return counted
    run = source.longest_run(words)
    return replace(counted, copied=run.length, copy=" ".join(words[run.start : run.start + run.length]))


def average(found: Sequence[Repetition]) -> Repetition:
    """The mean of each count; the copy shown is the longest one. Raises ConfigError when there is nothing to average."""
    check(bool(found), "no texts", "there must be one to count in", "Write some")
    columns = zip(*((one.words, one.distinct_1, one.distinct_2, one.distinct_3, one.repeated_4) for one in found), strict=True)
    words, one_word, pairs, triples, repeated = map(mean, columns)
    means = Repetition(words, one_word, pairs, triples, repeated)
    copied = [one.copied for one in found if one.copied is not None]
    longest = max(found, key=lambda one: one.copied or 0)
    return replace(means, copied=mean(copied), copy=longest.copy) if len(copied) == len(found) else means


def usual(text: str, words: int, source: Source | None = None, passages: int = 20) -> Repetition | None:
    """The same counts of a person's text: the mean over `passages` evenly spaced passages of `words` words; None where it is shorter."""
    check(words >= 1 and passages >= 1, f"words={words}, passages={passages}", "each must be at least 1", "Try words=200")
    all_words = text.split()
    room = len(all_words) - words
    if room < 0:
        return None
    starts = sorted({room * i // max(1, passages - 1) for i in range(passages)})
    return average([repetition(" ".join(all_words[start : start + words]), source) for start in starts])


if __name__ == "__main__":
    source = Source("the king is dead , long live the king , and long may he reign")
    for text in ("the king the king the king the king the king is dead", "a queen said : long live the king of the hill"):
        print(repetition(text, source))
    print("usual:", usual("the king is dead , long live the king , and long may he reign", 5))
