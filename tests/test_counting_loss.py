"""What counting reaches, held against the recursion written out with dictionaries, and against sources whose entropy is known."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_transformer.config import ConfigError
from tiny_transformer.corpora.counting_loss import ngram_loss


def by_hand(train, val, vocab_size, order):
    """Witten–Bell's recursion for one token at a time, from counts of tuples."""
    counts = defaultdict(Counter)
    for known in range(order):
        for i in range(known, len(train)):
            counts[tuple(train[i - known : i])][train[i]] += 1

    def chance(history, token):
        shorter = 1 / vocab_size if not history else chance(history[1:], token)
        seen = counts.get(history)
        if seen is None:
            return shorter
        total, kinds = sum(seen.values()), len(seen)
        return (seen[token] + kinds * shorter) / (total + kinds)

    values = [chance(tuple(val[max(0, i - order + 1) : i]), token) for i, token in enumerate(val)]
    return -sum(map(math.log, values)) / len(values)


@given(
    train=st.lists(st.integers(0, 4), min_size=2, max_size=60), val=st.lists(st.integers(0, 4), min_size=2, max_size=25),
    order=st.integers(1, 5), more=st.integers(0, 3),
)  # fmt: skip
def test_it_is_the_recursion_written_out(train, val, order, more):
    ours = ngram_loss(np.array(train), np.array(val), 5 + more, order)
    assert ours == pytest.approx(by_hand(train, val, 5 + more, order), rel=1e-12)


def test_sources_that_are_known():
    generator = np.random.default_rng(0)
    coins = generator.integers(2, size=20_000)
    assert ngram_loss(coins[:15_000], coins[15_000:], 2) == pytest.approx(math.log(2), abs=0.01)
    turns = np.arange(3000) % 7
    assert ngram_loss(turns[:2000], turns[2000:], 7) < 0.02
    steps = np.cumsum(generator.integers(1, 3, size=30_000)) % 11  # one of two comes next, and only the last token says which
    assert ngram_loss(steps[:25_000], steps[25_000:], 11, order=1) == pytest.approx(math.log(11), abs=0.01)
    assert ngram_loss(steps[:25_000], steps[25_000:], 11, order=2) == pytest.approx(math.log(2), abs=0.01)


def test_large_vocabularies_do_not_overflow():
    ids = np.random.default_rng(1).integers(50_000, size=4000)
    train, val = ids[:3000], ids[3000:]
    assert ngram_loss(train, val, 50_257, order=6) == pytest.approx(by_hand(train.tolist(), val.tolist(), 50_257, 6))


def test_what_is_refused():
    with pytest.raises(ConfigError, match="a training text of shape .* Give more text"):
        ngram_loss(np.array([1]), np.array([1, 2]), 3)
    with pytest.raises(ConfigError, match="ids 1 to 3: they must lie in 0 to 2"):
        ngram_loss(np.array([1, 2]), np.array([1, 3]), 3)
    with pytest.raises(ConfigError, match="ids -1 to 2"):
        ngram_loss(np.array([-1, 2]), np.array([1, 2]), 3)
