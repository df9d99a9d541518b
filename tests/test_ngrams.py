"""n-gram tables: which row belongs to which n-gram, what the model adds, and that nothing is seen that should not be."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.options import small_config
from tiny_transformer.config import ConfigError, ModelConfig
from tiny_transformer.growing import grow_vocabulary
from tiny_transformer.kv_cache import KVCache
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.ngrams import ngram_rows


@pytest.mark.parametrize("order", [2, 3])
def test_with_room_for_all_every_ngram_has_its_own_row(order):
    every = np.array(list(itertools.product(range(5), repeat=order)))
    rows = ngram_rows(list(every.T), 5**order, 5)
    assert sorted(rows.tolist()) == list(range(5**order))


def test_the_newest_token_is_the_last_digit():
    assert ngram_rows([np.array([3]), np.array([1]), np.array([2])], 1000, 10).tolist() == [213]


@given(st.integers(2, 4), st.integers(1, 100_000), st.integers(2, 200_000), st.integers(0, 2**32 - 1))
def test_rows_are_in_the_table_and_the_same_for_both_engines(order, rows, vocab_size, seed):
    tokens = np.random.default_rng(seed).integers(vocab_size, size=(order, 20))
    tokens[0, 0] = vocab_size - 1
    found = ngram_rows(list(tokens), rows, vocab_size)
    assert found.min() >= 0 and found.max() < rows
    assert ngram_rows(list(torch.from_numpy(tokens)), rows, vocab_size).tolist() == found.tolist()


@pytest.mark.parametrize("order", [2, 3])
def test_shared_rows_are_shared_evenly(order):
    every = np.array(list(itertools.product(range(40), repeat=order)))[: 40**2 * 8]
    counts = np.bincount(ngram_rows(list(every.T), 257, 40), minlength=257)
    expected = len(every) / 257
    assert ((counts - expected) ** 2 / expected).sum() < 2 * 257  # chi-square: 256 ± 23 for a random hash
    swapped = ngram_rows(list(every.T[::-1]), 257, 40)
    assert (swapped != ngram_rows(list(every.T), 257, 40)).mean() > 0.9  # the order counts


def fill(model: TinyTransformerLM) -> TinyTransformerLM:
    """First weights leave the tables at zero: give them values, so that a wrong row shows."""
    generator = torch.Generator().manual_seed(5)
    for name, weight in model.weights().items():
        if "ngram" in name:
            weight.normal_(generator=generator)
    return model.eval()


def test_embeddings_by_hand():
    config = small_config(ngram_rows=(289, 50))
    model = fill(TinyTransformerLM(config, seed=0))
    ids = [4, 16, 0, 9]
    tables = model.weights()
    out = model.embeddings(torch.tensor([ids]), torch.arange(4))[0]
    for place, token in enumerate(ids):
        want = tables["embeddings.token.weight"][token] + tables["embeddings.position.weight"][place]
        if place >= 1:
            want = want + tables["embeddings.ngram2.weight"][17 * ids[place - 1] + token]
        if place >= 2:
            triple = [torch.tensor(ids[place - back]) for back in range(3)]
            want = want + tables["embeddings.ngram3.weight"][ngram_rows(triple, 50, 17)]
        torch.testing.assert_close(out[place], want)


def test_a_table_starts_at_zero_and_learns():
    config = small_config(ngram_rows=(289,))
    with_table, without = TinyTransformerLM(config, seed=3), TinyTransformerLM(small_config(), seed=3)
    ids = torch.tensor([[1, 2, 3, 2, 3]])
    torch.testing.assert_close(with_table(ids), without(ids), rtol=0, atol=0)
    with_table(ids).square().sum().backward()
    touched = with_table.embeddings.get_submodule("ngram2").weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert touched == sorted({1 * 17 + 2, 2 * 17 + 3, 3 * 17 + 2})


def test_the_cache_remembers_the_tokens_before():
    config = small_config("rotary", ngram_rows=(289, 70))
    model = fill(TinyTransformerLM(config, seed=0))
    ids = torch.randint(17, (2, 12), generator=torch.Generator().manual_seed(1))
    whole = model(ids)
    for cuts in ([1] * 12, [5, 1, 1, 5], [2, 2, 8]):
        cache, parts, start = KVCache(config, 2), [], 0
        for cut in cuts:
            parts.append(model(ids[:, start : start + cut], cache=cache))
            start += cut
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)


def test_padded_rows_give_what_they_give_alone():
    config = small_config("rotary", ngram_rows=(289, 70))
    model = fill(TinyTransformerLM(config, seed=0))
    long, short = [3, 1, 4, 1, 5], [9, 2, 6]
    cache = KVCache(config, 2, padding=[0, 2])
    model(torch.tensor([long, [7, 7, *short]]), cache=cache)  # what lies in the padding must not matter
    after = model(torch.tensor([[8], [8]]), cache=cache)
    torch.testing.assert_close(after[0, -1], model(torch.tensor([[*long, 8]]))[0, -1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after[1, -1], model(torch.tensor([[*short, 8]]))[0, -1], rtol=1e-5, atol=1e-5)
    cache.select(torch.tensor([1, 1]))
    again = model(torch.tensor([[8], [11]]), cache=cache)
    torch.testing.assert_close(again[1, -1], model(torch.tensor([[*short, 8, 11]]))[0, -1], rtol=1e-5, atol=1e-5)


def test_settings_survive_json_and_bad_ones_are_named():
    config = ModelConfig(ngram_rows=(4225, 100))
    assert ModelConfig.from_dict({**config.to_dict(), "ngram_rows": [4225, 100]}) == config
    for bad in ((0,), (2.5,), (True,), (-4, 3)):
        with pytest.raises(ConfigError, match="ngram_rows"):
            ModelConfig(ngram_rows=bad)


def test_a_model_with_tables_does_not_grow():
    with pytest.raises(ConfigError, match="ngram_rows"):
        grow_vocabulary(small_config(ngram_rows=(289,)), {}, 20)
