"""The cache: the same logits as without it, for every option, one token at a time, in lumps and with padded rows."""

import pytest
import torch

from tests.options import OPTIONS, small_config
from tiny_transformer.kv_cache import KVCache
from tiny_transformer.model import TinyTransformerLM


def random_ids(config, *shape, seed=0):
    return torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("lumps", [[1] * 12, [5, 1, 1, 4, 1], [12], [3, 9]])
@torch.no_grad()
def test_cached_equals_uncached(option, lumps):
    config = small_config(option)
    model = TinyTransformerLM(config, seed=1).eval()
    ids = random_ids(config, 2, 12)
    cache, start, pieces = KVCache(config, 2), 0, []
    for size in lumps:
        pieces.append(model(ids[:, start : start + size], cache=cache))
        start += size
    assert cache.length == 12
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize("option", OPTIONS)
@torch.no_grad()
def test_left_padded_rows_equal_their_solo_runs(option):
    config = small_config(option)
    model = TinyTransformerLM(config, seed=2).eval()
    rows = [random_ids(config, n, seed=n) for n in (7, 3, 1)]
    padding = [0, 4, 6]
    batch = torch.stack([torch.cat([torch.full((pad,), 5), row]) for pad, row in zip(padding, rows, strict=True)])
    cache = KVCache(config, 3, padding=padding)
    more = random_ids(config, 3, 4, seed=9)
    outputs = [model(batch, cache=cache)] + [model(more[:, i : i + 1], cache=cache) for i in range(4)]
    together = torch.cat(outputs, 1)
    for i, (pad, row) in enumerate(zip(padding, rows, strict=True)):
        alone = model(torch.cat([row, more[i]])[None])
        torch.testing.assert_close(together[i, pad:], alone[0], atol=1e-5, rtol=0)
    assert torch.isfinite(together).all()


def test_a_full_cache_says_so_and_reset_reuses_the_memory():
    config = small_config()
    model = TinyTransformerLM(config, seed=0).eval()
    cache = KVCache(config, 1, max_len=4)
    memory = cache.layers[0].keys.data_ptr()
    ids = random_ids(config, 1, 4)
    with torch.no_grad():
        first = model(ids, cache=cache)
        with pytest.raises(ValueError, match="holds 4 positions and has 4: 1 more do not fit"):
            model(ids[:, :1], cache=cache)
        cache.reset()
        assert torch.equal(model(ids, cache=cache), first)
    assert cache.layers[0].keys.data_ptr() == memory


@torch.no_grad()
def test_select_copies_rows():
    config = small_config("rotary")
    model = TinyTransformerLM(config, seed=0).eval()
    ids = random_ids(config, 3, 4)
    cache = KVCache(config, 3, padding=[0, 1, 2])
    model(ids, cache=cache)
    cache.select(torch.tensor([2, 2, 0]))
    after = model(ids[[0, 0, 0], :1], cache=cache)
    torch.testing.assert_close(after[0], after[1])
    for row, source, pad in ((0, 2, 2), (2, 0, 0)):
        alone = model(torch.cat([ids[source, pad:], ids[0, :1]])[None])
        torch.testing.assert_close(after[row, -1], alone[0, -1], atol=1e-5, rtol=0)


def test_padding_needs_an_entry_per_row():
    with pytest.raises(ValueError, match="padding has 1 entries, must have one per row: 2"):
        KVCache(small_config(), 2, padding=[1])


@torch.no_grad()
def test_the_padding_of_a_cache_and_a_mask_of_ones_own_add_up():
    config = small_config("gpt2")  # as many rows as heads: a dimension in the wrong place would broadcast
    rows = config.n_heads
    model = TinyTransformerLM(config, seed=1).eval()
    ids = random_ids(config, rows, 6)
    padding = list(range(rows))
    own = torch.ones(rows, 6, 6, dtype=torch.bool)
    own[:, 5, 4] = False
    together = model(ids, mask=own, cache=KVCache(config, rows, padding=padding))
    for row, skip in enumerate(padding):
        alone = model(ids[row : row + 1, skip:], mask=own[row, skip:, skip:])
        torch.testing.assert_close(together[row, skip:], alone[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_cache_takes_the_models_type():
    config = small_config("gpt2")
    model = TinyTransformerLM(config, seed=1).bfloat16().eval()
    ids = random_ids(config, 2, 6)
    cache = KVCache(config, 2)
    cached = torch.cat([model(ids[:, :4], cache=cache), model(ids[:, 4:], cache=cache)], dim=1)
    torch.testing.assert_close(cached, model(ids), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("rows", [1, 2])
def test_another_number_of_rows_than_the_cache_has(rows):
    config = small_config("gpt2")
    with pytest.raises(ValueError, match=f"{rows} rows and the cache 3"):
        TinyTransformerLM(config, seed=1)(random_ids(config, rows, 4), cache=KVCache(config, 3))
