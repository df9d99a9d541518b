"""What counting expects next: a distribution for every place of the training text, from counts of all its other places.

    target = (1 - share) · the token that came + share · what the counts say

A text shows one next token where many were possible; a network that reads it several times learns that one by heart, and becomes too
sure. Counts of the same text tell the others. A place's own token is left out of its counts (leaving-one-out: Ney, Essen & Kneser
1994), so they know no more of it than of a text they have not seen.

The counts are smoothed as Kneser and Ney (1995) do, in the form of Chen & Goodman (1999), "modified" and interpolated:

    P_k(v | last k tokens) = (c_k(v) - D(c_k(v))) / Σ c_k  +  (Σ D / Σ c_k) · P_(k-1)(v | last k - 1 tokens)

c_k counts how often v came after the k tokens; below the longest context it counts the different tokens that stood before all that. D is
one of three discounts, for counts of 1, of 2, and of more. Teaching by another model's distribution is distillation (Hinton, Vinyals &
Dean 2015); here the other model is a table that takes seconds. Read before: `dataset.py`, `objectives.py`.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check
from tiny_transformer.utils.shape_check import check_shape

MOST_BYTES = 1 << 30
"""The largest table of distributions; a larger one is refused before anything is counted."""
ROWS = 1 << 15
"""Rows computed at a time: their distributions stay in the cache."""

Ints = NDArray[np.int64]


class CountedTargets(NamedTuple):
    """A distribution for each place: `table[rows[i]]` for the token after place i."""

    rows: NDArray[np.int32]
    """(n,): the row of each place; the last place, which nothing follows, has row 0."""
    table: NDArray[np.float16]
    """(rows, vocab): probabilities; places with the same context and the same next token share a row."""


class Level(NamedTuple):
    """What is counted for contexts of one length. An entry is a context with a token that came after it; sorted by context."""

    entry: Ints
    """(places,): the entry of each place."""
    context: Ints
    """(entries,): the context of each entry."""
    token: Ints
    """(entries,): its token."""
    times: Ints
    """(entries,): how often it came."""


def counted_targets(ids: NDArray[np.integer[Any]], vocab_size: int, order: int = 7) -> CountedTargets:
    """The distributions of all places of `ids` (n,), from contexts of up to `order` tokens.

    Raises ConfigError for an order below 0, or a table that would be larger than MOST_BYTES; ValueError for fewer than two tokens.
    """
    check(order >= 0, f"counted_order={order}", "it must be at least 0", "Try 7")
    check_shape(ids, ("n",), "ids")
    if len(ids) < 2:
        raise ValueError(f"the text has {len(ids)} tokens: counting what follows what needs two at least. Use a longer text")
    levels = count(np.asarray(ids, dtype=np.int64), vocab_size, order)
    size = 2 * vocab_size * len(levels[-1].token)
    check(
        size <= MOST_BYTES, f"counted_order={order} over this text makes a table of {size / 1e9:.1f} GB",
        f"it may have {MOST_BYTES / 1e9:.1f} GB", "Try a smaller counted_order, a smaller vocabulary, or counted_share=0",
    )  # fmt: skip
    table = np.full((1, vocab_size), 1 / vocab_size, np.float16)
    before = np.zeros(1, np.int64)  # states of the level before, sorted: an entry, and whether its count loses one
    for k, level in enumerate(levels):
        longer = levels[k + 1] if k < order else None
        table, before = smooth(level, levels[k - 1] if k else None, longer, table, before)
    return CountedTargets(np.append(levels[-1].entry, 0).astype(np.int32), table)


def count(ids: Ints, vocab_size: int, order: int) -> list[Level]:
    """The levels 0 to `order`. A context that would begin before the text has a sign of its own for what is not there."""
    places, following = len(ids) - 1, ids[1:]
    context, levels = np.zeros(places, np.int64), []
    for k in range(order + 1):
        if k:  # one token further back
            older = np.concatenate((np.full(k - 1, vocab_size), ids))[:places]
            context = np.unique(context * (vocab_size + 1) + older, return_inverse=True)[1]
        entries, entry, times = np.unique(context * vocab_size + following, return_inverse=True, return_counts=True)
        levels.append(Level(entry, entries // vocab_size, entries % vocab_size, times))
    return levels


def smooth(
    level: Level, shorter: Level | None, longer: Level | None, table: NDArray[np.float16], before: Ints
) -> tuple[NDArray[np.float16], Ints]:
    """The distributions of one level's states from those of the level before, and the states: 2 · entry + 1 if its count loses one.

    Leaving a place out takes one from its entry's count at the longest context, and below it only where the longer entry came once.
    """
    entries = len(level.token)
    if longer is None:
        counts, states = level.times, 2 * np.arange(entries) + 1
    else:
        parent = parents(longer, level)
        counts = np.bincount(parent, minlength=entries)
        states = np.unique(2 * parent + (longer.times == 1))
    entry, loses = states >> 1, states & 1
    # where each state finds the level before
    back = np.zeros(len(states), np.int64) if shorter is None else 2 * parents(level, shorter)[entry] + (level.times[entry] == 1)
    back = np.searchsorted(before, back)
    discount = discounts(counts)
    first = np.searchsorted(level.context, np.arange(level.context[-1] + 2))  # the first entry of each context
    total = np.add.reduceat(counts, first[:-1])
    taken = np.add.reduceat(discount[np.minimum(counts, 3)], first[:-1])  # Σ D of each context
    result = np.empty((len(states), table.shape[1]), np.float16)
    for begin in range(0, len(states), ROWS):
        rows = slice(begin, begin + ROWS)
        own, lost, context = entry[rows], loses[rows], level.context[entry[rows]]
        kept = total[context] - lost  # Σ c without the place itself
        own_count = counts[own]
        rest = taken[context] - discount[np.minimum(own_count, 3)] + discount[np.minimum(own_count - lost, 3)]
        share = np.where(kept > 0, rest / np.maximum(kept, 1), 1.0)  # a context that came nowhere else says nothing
        values = table[back[rows]].astype(np.float32) * share[:, None].astype(np.float32)
        each, there = ranges(first[context], first[context + 1])  # all entries of each row's context
        number = counts[there] - np.where(there == own[each], lost[each], 0)
        gain = (number - discount[np.minimum(number, 3)]) / np.maximum(kept, 1)[each]
        values[each, level.token[there]] += gain.astype(np.float32)
        result[rows] = values
    return result, states


def parents(longer: Level, level: Level) -> Ints:
    """For each entry of the longer level, its entry in this one: the same token after a context that is one token shorter."""
    found = np.empty(len(longer.token), np.int64)
    found[longer.entry] = level.entry
    return found


def discounts(counts: Ints) -> NDArray[np.float64]:
    """D for counts of 0, 1, 2, and 3 or more (Chen & Goodman 1999, equation 26), from how many entries came once to four times.

    D lies between 0 and the count, whatever a tiny text says; where a text has too few entries for the estimate, it is 0.5.
    """
    n1, n2, n3, n4 = (int((counts == times).sum()) for times in (1, 2, 3, 4))
    if min(n1, n2, n3) == 0:
        return np.array([0, 0.5, 0.5, 0.5])
    y = n1 / (n1 + 2 * n2)
    return np.clip([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3], 0, [0, 1, 2, 3])


def ranges(begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """All whole numbers of several ranges, one after the other: which range each comes from, and the number.

    >>> [part.tolist() for part in ranges(np.array([3, 7]), np.array([5, 8]))]
    [[0, 0, 1], [3, 4, 7]]
    """
    lengths = end - begin
    each = np.repeat(np.arange(len(begin)), lengths)
    return each, np.arange(len(each)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + begin[each]


if __name__ == "__main__":
    text = "the cat sat on the mat. the rat sat on the cat. "
    letters = sorted(set(text))
    ids = np.array([letters.index(letter) for letter in text])
    found = counted_targets(ids, len(letters), order=3)
    for place in (3, 18):
        row = found.table[found.rows[place]]
        likely = ", ".join(f"{letters[v]!r} {row[v]:.2f}" for v in np.argsort(-row)[:4])
        print(f"after {text[: place + 1][-8:]!r} came {text[place + 1]!r}; all other places say {likely}")
