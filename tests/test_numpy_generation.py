"""Writing in NumPy: the cache changes nothing, and every text is the PyTorch generator's, token for token."""

import doctest
import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.opinionated import opinionated
from tests.options import OPTIONS, SMALL, small_config
from tiny_transformer.config import ConfigError, SampleConfig
from tiny_transformer.numpy_engine import beam, checkpoint, decoder, strategies
from tiny_transformer.numpy_engine.generator import TextGenerator, naive_generate
from tiny_transformer.numpy_engine.kv_cache import KVCache
from tiny_transformer.numpy_engine.model import TinyTransformerLM
from tiny_transformer.sampling import beam as torch_beam
from tiny_transformer.sampling import generator as torch_generator
from tiny_transformer.sampling import strategies as torch_strategies
from tiny_transformer.tokenization.base import SpecialTokens
from tiny_transformer.tokenization.char import CharTokenizer

ROOT = Path(__file__).resolve().parent.parent
SYMBOLS = "\n abcdefghijklmno"  # 17, as many as the small model has
EDGE = SMALL["max_seq_len"]
GREEDY = SampleConfig(temperature=0, max_tokens=30)
SAMPLED = SampleConfig(temperature=1, top_k=None, seed=7, max_tokens=30)
FILTERED = SampleConfig(temperature=1.3, top_k=9, top_p=0.95, min_p=0.01, repetition_penalty=1.3, seed=3, max_tokens=30)
SETTINGS = {
    "greedy": GREEDY,
    "sampled": SAMPLED,
    "filtered": FILTERED,
    "top-k": replace(SAMPLED, top_k=3),
    "top-p": replace(SAMPLED, top_p=0.6),
    "min-p": replace(SAMPLED, min_p=0.2, temperature=2.0),
    "penalty": replace(SAMPLED, repetition_penalty=4.0),
    "greedy penalty": replace(GREEDY, repetition_penalty=1.5),
    "beams": replace(GREEDY, beams=3, max_tokens=15),
    "short beams": replace(GREEDY, beams=4, length_penalty=0.0, max_tokens=15, stop=("a", "mn")),
    "stop": replace(SAMPLED, stop=("b", "no", "\n\n")),
    "hot": replace(SAMPLED, temperature=3.0, seed=0, max_tokens=100),  # more than one block of random numbers
}
PROMPTS = ["abc", "\n", "he made a long golf climb and a fake one", "moon"]


def twins(option="gpt2", seed=0, dtype=np.float64, **more):
    """(PyTorch's generator, NumPy's), with the same weights and tokenizer."""
    model = opinionated(option, seed, **more)
    model = model.double() if dtype == np.float64 else model
    weights = {name: weight.numpy() for name, weight in model.weights().items()}
    tokenizer = CharTokenizer(SYMBOLS[: model.config.vocab_size])
    return torch_generator.TextGenerator(model, tokenizer), TextGenerator(TinyTransformerLM(model.config, weights), tokenizer)


def ids_of(text):
    return [SYMBOLS.index(character) for character in text]


def text_of(ids):
    return "".join(SYMBOLS[i] for i in ids)


def random_ids(*shape, seed=0):
    return np.random.default_rng(seed).integers(SMALL["vocab_size"], size=shape)


# the cache


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("lumps", [[1] * 12, [5, 1, 1, 4, 1]], ids=str)
def test_cached_equals_uncached_equals_torch(option, lumps):
    theirs, ours = (writer.model for writer in twins(option))
    ids, start, pieces = random_ids(2, 12), 0, []
    cache = KVCache(ours.config, 2, dtype=np.float64)
    for size in lumps:
        pieces.append(ours.forward(ids[:, start : start + size], cache=cache))
        start += size
    assert cache.length == 12
    cached = np.concatenate(pieces, axis=1)
    np.testing.assert_allclose(cached, ours.forward(ids), rtol=0, atol=1e-10)
    with torch.no_grad():
        np.testing.assert_allclose(cached, theirs(torch.from_numpy(ids)).numpy(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("option", OPTIONS)
def test_left_padded_rows_equal_their_solo_runs(option):
    _, ours = twins(option)
    model = ours.model
    rows, padding = [random_ids(n, seed=n) for n in (7, 3, 1)], [0, 4, 6]
    batch = np.stack([np.concatenate([np.full(pad, 5), row]) for pad, row in zip(padding, rows, strict=True)])
    cache = KVCache(model.config, 3, padding=padding)  # float32: the cache takes the model's type
    more = random_ids(3, 4, seed=9)
    together = np.concatenate([model.forward(ids, cache=cache) for ids in (batch, *np.split(more, 4, axis=1))], axis=1)
    assert together.dtype == np.float64
    assert np.isfinite(together).all()
    for i, (pad, row) in enumerate(zip(padding, rows, strict=True)):
        alone = model.forward(np.concatenate([row, more[i]])[None])
        np.testing.assert_allclose(together[i, pad:], alone[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(7, 7), (3, 7, 7)])
def test_an_extra_mask_joins_the_padding(shape):
    """A mask of the caller's, with every key so far, beside the cache's own."""
    theirs, ours = (writer.model for writer in twins("window alibi"))
    ids, mask = random_ids(3, 7), np.random.default_rng(3).random(shape) < 0.6
    cache = KVCache(ours.config, 3, padding=[0, 2, 5])
    their_cache = torch_generator.Decoder(theirs, [[1]] * 3, 20).cache
    their_cache.reset([0, 2, 5])
    for part in (slice(0, 4), slice(4, 7)):
        rows = mask[..., part, : part.stop]
        logits = ours.forward(ids[:, part], rows, cache=cache)
        with torch.no_grad():
            expected = theirs(torch.from_numpy(ids[:, part]), torch.from_numpy(rows), cache=their_cache).numpy()
        for i, pad in enumerate([0, 2, 5]):  # what padding says is nobody's business
            np.testing.assert_allclose(logits[i, max(0, pad - part.start) :], expected[i, max(0, pad - part.start) :], atol=1e-9)


def test_a_full_cache_says_so_and_reset_reuses_the_memory():
    model = twins()[1].model
    cache = KVCache(model.config, 1, max_len=4, dtype=np.float64)
    memory, ids = cache.layers[0].keys, random_ids(1, 4)
    first = model.forward(ids, cache=cache)
    with pytest.raises(ValueError, match="holds 4 positions and has 4: 1 more do not fit"):
        model.forward(ids[:, :1], cache=cache)
    cache.reset()
    assert (model.forward(ids, cache=cache) == first).all()
    assert cache.layers[0].keys is memory


def test_what_does_not_fit_a_cache_is_refused():
    model = twins()[1].model
    with pytest.raises(ValueError, match="padding has 1 entries, must have one per row: 2"):
        KVCache(model.config, 2, padding=[1])
    with pytest.raises(ValueError, match="ids have 3 rows and the cache 2: they must agree"):
        model.forward(random_ids(3, 4), cache=KVCache(model.config, 2))
    cache = KVCache(model.config, 1, max_len=20)
    model.hidden(random_ids(1, 12), cache=cache)
    with pytest.raises(ValueError, match="13 tokens: the model has learned positions for max_seq_len=12"):
        model.hidden(random_ids(1, 1), cache=cache)


def test_select_copies_rows():
    model = twins("rotary")[1].model
    ids, cache = random_ids(3, 4), KVCache(model.config, 3, padding=[0, 1, 2])
    model.forward(ids, cache=cache)
    cache.select(np.array([2, 2, 0]))
    after = model.forward(ids[[0, 0, 0], :1], cache=cache)
    for row, source, pad in ((0, 2, 2), (1, 2, 2), (2, 0, 0)):
        alone = model.forward(np.concatenate([ids[source, pad:], ids[0, :1]])[None])
        np.testing.assert_allclose(after[row, -1], alone[0, -1], rtol=0, atol=1e-10)


def test_only_new_tokens_are_fed_and_memory_is_taken_once(monkeypatch):
    _, ours = twins()
    fed, places, hidden = [], set(), ours.model.hidden

    def spy(ids, mask=None, *, cache):
        fed.append(ids.shape[1])
        places.update(layer.keys.ctypes.data for layer in cache.layers)
        places.update(layer.values.ctypes.data for layer in cache.layers)
        return hidden(ids, mask, cache=cache)

    monkeypatch.setattr(ours.model, "hidden", spy)
    ours.generate("abc", replace(GREEDY, max_tokens=25))
    # The prompt; one by one up to 12; then 7 tokens are read again (12 + 1 - 6), five times one, and so on.
    assert fed == [3, *[1] * 9, 7, *[1] * 5, 7, *[1] * 5, 7, 1, 1]
    assert len(places) == 2 * ours.model.config.n_layers


def test_a_short_text_takes_a_short_cache_of_the_models_type():
    for dtype in (np.float32, np.float64):
        _, ours = twins("rotary", dtype=dtype, max_seq_len=10_000)
        cache = decoder.Decoder(ours.model, [[1, 2, 3]], max_new=7).cache
        assert cache.max_len == 10
        assert cache.layers[0].values.dtype == dtype


# the same text as PyTorch's


@pytest.mark.parametrize("option", OPTIONS)
def test_greedy_and_sampled_texts_of_every_architecture(option):
    theirs, ours = twins(option, seed=2)
    for config in (GREEDY, FILTERED):
        texts = ours.generate_batch(PROMPTS, config)
        assert texts == theirs.generate_batch(PROMPTS, config)
        assert all(len(text) == len(prompt) + 30 for text, prompt in zip(texts, PROMPTS, strict=True))
    assert len(set(texts[2][-30:])) > 5


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("option", ["one kv head"])
def test_texts_of_every_setting(option, name):
    theirs, ours = twins(option, seed=3)
    config = SETTINGS[name]
    assert ours.generate_batch(PROMPTS, config) == theirs.generate_batch(PROMPTS, config)


@pytest.mark.parametrize("option", ["gpt2", "sinusoidal", "alibi", "modern"])
def test_float32_texts(option):
    theirs, ours = twins(option, seed=4, dtype=np.float32)
    for config in (GREEDY, SAMPLED):
        assert ours.generate_batch(PROMPTS, config) == theirs.generate_batch(PROMPTS, config)
    (step,) = ours.steps([[1, 2]], replace(SAMPLED, max_tokens=1))
    assert step.logits.dtype == np.float32


@pytest.mark.parametrize("option", ["gpt2", "sinusoidal", "rotary", "alibi", "no positions", "window"])
def test_logits_past_the_edge_are_the_uncached_ones_and_torchs(option):
    theirs, ours = twins(option, seed=1)
    rows = [ids_of("abc"), ids_of("a long golf climb and a fake one")]
    config = replace(SAMPLED, max_tokens=40)
    for step, other in zip(ours.steps(rows, config), theirs.steps(rows, config), strict=True):
        np.testing.assert_allclose(step.logits, other.logits.numpy(), rtol=0, atol=1e-9)
        for row, logits, token in zip(rows, step.logits, step.tokens.tolist(), strict=True):
            alone = decoder.naive_logits(ours.model, np.array([row]))[0]
            np.testing.assert_allclose(logits, alone, rtol=0, atol=1e-10)
            row.append(token)
    assert len(rows[0]) > 3 * EDGE


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("option", ["gpt2", "rotary", "alibi"])
def test_tiny_contexts(option, limit):
    theirs, ours = twins(option, max_seq_len=limit)
    prompts, config = [ids_of("a"), ids_of("bcdef"), ids_of("no")], replace(SAMPLED, max_tokens=17)
    assert ours.generate_ids(prompts, config) == theirs.generate_ids(prompts, config)


@pytest.mark.parametrize("config", [GREEDY, SAMPLED, FILTERED], ids=["greedy", "sampled", "filtered"])
def test_every_way_of_writing_equals_the_naive_loop_of_both_engines(config):
    theirs, ours = twins("window rotary grouped", seed=2)
    batch = ours.generate_batch(PROMPTS, config)
    for i, (prompt, text) in list(enumerate(zip(PROMPTS, batch, strict=True)))[1:3]:
        alone = replace(config, seed=None if config.seed is None else config.seed + i)
        naive = naive_generate(ours.model, ids_of(prompt), alone)
        assert naive == torch_generator.naive_generate(theirs.model, ids_of(prompt), alone)
        assert text == prompt + text_of(naive) == ours.generate(prompt, alone) == prompt + "".join(ours.stream(prompt, alone))
        assert [naive] == ours.generate_ids([ids_of(prompt)], alone)


def test_texts_grow_beyond_the_reserve(monkeypatch):
    monkeypatch.setattr(decoder, "RESERVE", 8)
    theirs, ours = twins(max_seq_len=4)
    assert ours.generate("ab", replace(SAMPLED, max_tokens=50)) == theirs.generate("ab", replace(SAMPLED, max_tokens=50))


def test_ends_stops_and_empty_prompts():
    theirs, ours = twins(seed=4)
    free = ours.generate_batch(PROMPTS, SAMPLED)
    stop = tuple({text[len(prompt) + 9 :][:2] for text, prompt in zip(free, PROMPTS, strict=True)})
    config = replace(SAMPLED, stop=stop)
    cut = ours.generate_batch(PROMPTS, config)
    assert cut == theirs.generate_batch(PROMPTS, config)
    assert all(free[i].startswith(cut[i]) and len(cut[i]) < len(free[i]) for i in range(4))
    assert [*ours.stream("abc", config)] == [*theirs.stream("abc", config)]
    assert ours.generate("", SAMPLED) == theirs.generate("", SAMPLED) == ours.generate("\n", SAMPLED)[1:]
    for writer in (theirs, ours):
        writer.tokenizer.special = SpecialTokens(bos=5, eos=SYMBOLS.index("e"))
    ended = ours.generate_batch([*PROMPTS, ""], SAMPLED)
    assert ended == theirs.generate_batch([*PROMPTS, ""], SAMPLED)
    assert any(len(text) < len(prompt) + 30 for text, prompt in zip(ended, PROMPTS, strict=False))
    with_beams = replace(SAMPLED, beams=3)
    assert ours.generate_batch(PROMPTS, with_beams) == theirs.generate_batch(PROMPTS, with_beams)


@pytest.mark.parametrize("penalty", [-0.5, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("option", ["gpt2", "window rotary grouped"])
def test_beams_are_torchs_past_the_edge_too(option, penalty):
    theirs, ours = twins(option, seed=5, vocab_size=9)

    def is_end(tokens):
        return tokens[-1] == 2

    settings = {"beams": 5, "max_tokens": 25, "length_penalty": penalty, "is_end": is_end, "vocab_size": 8}
    found = beam.beam_search(ours.model, [2, 0, 5, 5], **settings)
    expected = torch_beam.beam_search(theirs.model, [2, 0, 5, 5], **settings)
    assert [(h.tokens, h.ended) for h in found] == [(h.tokens, h.ended) for h in expected]
    np.testing.assert_allclose([h.log_probability for h in found], [h.log_probability for h in expected], rtol=1e-10)
    ids, total = [2, 0, 5, 5], 0.0
    for token in found[0].tokens:
        logits = decoder.naive_logits(ours.model, np.array([ids]))[0, :8]
        total += logits[token] - np.log(np.exp(logits).sum())
        ids.append(token)
    assert total == pytest.approx(found[0].log_probability, rel=1e-10)


def test_one_beam_is_greedy():
    _, ours = twins(seed=3)
    (found,) = beam.beam_search(ours.model, [1, 5, 3], beams=1, max_tokens=30)
    assert list(found.tokens) == naive_generate(ours.model, [1, 5, 3], GREEDY)


# what can go wrong


def test_a_damaged_model_is_an_error():
    _, ours = twins()
    ours.model.weights()["norm.weight"][0] = np.nan
    for config in (GREEDY, SAMPLED, FILTERED, replace(SAMPLED, top_k=2), replace(GREEDY, beams=2)):
        with pytest.raises(ValueError, match="NaN"):
            ours.generate("abc", config)


def test_what_can_not_be_written_is_refused():
    _, ours = twins()
    with pytest.raises(ConfigError, match="causal=False"):
        twins(causal=False)
    with pytest.raises(ValueError, match=r"character 'é'.* at position 2"):
        ours.stream("abé")
    with pytest.raises(ConfigError, match="prompts is one string"):
        ours.generate_batch("abc")
    with pytest.raises(ValueError, match="an empty prompt"):
        decoder.Decoder(ours.model, [[1], []], 3)
    assert ours.generate_batch([], SAMPLED) == []
    assert ours.generate("abc", replace(SAMPLED, max_tokens=0)) == "abc"


def test_tokens_that_the_tokenizer_lacks_are_never_chosen():
    _, ours = twins()
    ours.tokenizer = CharTokenizer("abc")
    for config in (replace(SAMPLED, temperature=5, max_tokens=60), replace(GREEDY, beams=2)):
        assert set(ours.generate("a", config)) <= set("abc")


def test_it_writes_where_torch_cannot_be_imported(tmp_path):
    """From a file of weights to text, in a process of its own."""
    theirs, ours = twins("window rotary grouped", seed=6)
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, checkpoint.Checkpoint(ours.model.config, ours.tokenizer.to_dict(), ours.model.weights()))
    code = f"""
import sys
sys.modules["torch"] = None
import json
from tiny_transformer.config import SampleConfig
from tiny_transformer.numpy_engine import checkpoint
from tiny_transformer.numpy_engine.generator import TextGenerator
from tiny_transformer.numpy_engine.model import TinyTransformerLM
from tiny_transformer.tokenization.registry import from_dict
again = checkpoint.load({str(path)!r})
generator = TextGenerator(TinyTransformerLM(again.config, again.weights), from_dict(again.tokenizer))
config = SampleConfig(temperature=1.2, top_k=9, repetition_penalty=1.1, seed=3, max_tokens=40)
print(json.dumps([generator.generate("abc", config), generator.generate("abc", SampleConfig(beams=3, max_tokens=10))]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    config = SampleConfig(temperature=1.2, top_k=9, repetition_penalty=1.1, seed=3, max_tokens=40)
    assert json.loads(done.stdout) == [theirs.generate("abc", config), theirs.generate("abc", SampleConfig(beams=3, max_tokens=10))]


# strategies

random_logits = st.tuples(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([1, 2, 5, 40, 700]), st.booleans())
many = settings(max_examples=40, deadline=None, derandomize=True)


def logits_from(drawn):
    """Logits (rows, vocab), float64 or, tied, rounded to quarters, with the generator that made them."""
    seed, rows, vocab, tied = drawn
    generator = np.random.default_rng(seed)
    logits = generator.standard_normal((rows, vocab)) * 2
    return (np.round(logits * 4) / 4 if tied else logits), generator


def assert_same(ours, theirs):
    assert (np.isneginf(ours) == torch.isneginf(theirs).numpy()).all()
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-15)


@many
@given(random_logits, st.sampled_from([0, 1e-21, 0.3, 1, 2.5]), st.integers(1, 60), st.sampled_from([0.01, 0.25, 0.5, 0.9, 0.999, 1.0]))
def test_filters_are_torchs(drawn, temperature, k, p):
    logits, _ = logits_from(drawn)
    tensor = torch.from_numpy(logits)
    assert_same(strategies.apply_temperature(logits, temperature), torch_strategies.apply_temperature(tensor, temperature))
    kept = strategies.top_k(logits, k)
    assert_same(kept, torch_strategies.top_k(tensor, k))
    assert (np.isfinite(kept).sum(-1) == min(k, logits.shape[-1])).all()
    assert_same(strategies.top_p(logits, p), torch_strategies.top_p(tensor, p))
    assert_same(strategies.top_p(kept, p), torch_strategies.top_p(torch.from_numpy(kept), p))
    assert_same(strategies.min_p(logits, p), torch_strategies.min_p(tensor, p))
    narrow = logits.astype(np.float32)
    for name, value in (("top_k", k), ("top_p", p), ("min_p", p)):
        ours, theirs = getattr(strategies, name)(narrow, value), getattr(torch_strategies, name)(torch.from_numpy(narrow), value)
        assert ours.dtype == np.float32
        assert (ours == theirs.numpy()).all()


@many
@given(random_logits, st.sampled_from([0.5, 1.0, 1.3, 10.0]))
def test_the_repetition_penalty_is_torchs(drawn, penalty):
    logits, generator = logits_from(drawn)
    ids = generator.integers(-1, logits.shape[-1], size=(len(logits), 6))
    expected = torch_strategies.repetition_penalty(torch.from_numpy(logits), torch.from_numpy(ids), penalty)
    assert_same(strategies.repetition_penalty(logits, ids, penalty), expected)
    assert_same(strategies.repetition_penalty(logits, ids.tolist(), penalty), expected)
    assert_same(strategies.repetition_penalty(logits[0], ids[0], penalty), expected[0])


some_settings = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0, 0.5, 1, 1.7]),
        "top_k": st.sampled_from([None, 1, 3, 9, 100]),
        "top_p": st.sampled_from([None, 0.3, 0.8, 0.99]),
        "min_p": st.sampled_from([None, 0.02, 0.5]),
        "repetition_penalty": st.sampled_from([1.0, 1.4]),
    }
)


@many
@given(random_logits, some_settings)
def test_distributions_and_choices_are_torchs(drawn, chosen):
    logits, generator = logits_from(drawn)
    config, tensor = SampleConfig(**chosen), torch.from_numpy(logits)
    ids = generator.integers(-1, logits.shape[-1], size=(len(logits), 4))
    u = generator.choice([0.0, 0.5, generator.random(), generator.random(), 1 - 2**-53], size=len(logits))
    ours = strategies.next_token_distribution(logits, ids, config)
    theirs = torch_strategies.next_token_distribution(tensor, torch.from_numpy(ids), config)
    assert ((ours == 0) == (theirs == 0).numpy()).all()
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=0)
    tokens = strategies.choose(theirs.numpy(), u)
    assert (tokens == torch_strategies.choose(theirs, torch.from_numpy(u)).numpy()).all()
    assert (np.take_along_axis(theirs.numpy(), tokens[:, None], axis=-1) > 0).all()
    assert (strategies.pick(logits, ids, config, u) == strategies.choose(ours, u)).all()
    assert (strategies.pick(logits, ids, config, u) == torch_strategies.pick(tensor, torch.from_numpy(ids), config, u).numpy()).all()


def test_choose_adds_up_many_small_probabilities_in_float64():
    probabilities = np.full((1, 50_000), 1 / 50_000, dtype=np.float32)
    for u in (0.1, 0.5, 0.9999):
        assert strategies.choose(probabilities, np.array([u])) == int(u * 50_000)
        assert strategies.choose(probabilities[0], u) == torch_strategies.choose(torch.from_numpy(probabilities[0]), u).item()


def test_ties_go_to_the_lower_id():
    logits = np.array([[1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 2.0, 2.0]])
    assert strategies.pick(logits, None, GREEDY, 0.9).tolist() == [1, 0]
    assert strategies.apply_temperature(logits, 0).argmax(-1).tolist() == [1, 0]
    assert np.isfinite(strategies.top_k(logits, 2)).tolist() == [[False, True, True, False], [True, True, False, False]]
    assert np.isfinite(strategies.top_p(logits, 0.5)).tolist() == [[False, True, True, False], [True, True, False, False]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sum_that_reaches_p_but_for_rounding_has_reached_it(dtype):
    for shares, p, kept in (([0.5, 0.3, 0.2], 0.8, 2), ([0.1] * 10, 0.3, 3), ([0.7, 0.2, 0.1], 0.9, 2), ([1 / 3] * 3, 2 / 3, 2)):
        logits = np.log(np.array(shares, dtype=dtype))
        assert np.isfinite(strategies.top_p(logits, p)).sum() == kept


def test_top_p_of_a_flat_distribution_looks_beyond_the_first_candidates():
    logits = np.random.default_rng(0).standard_normal((2, 5000)) * 0.1
    kept = strategies.top_p(logits, 0.5)
    assert np.isfinite(kept).sum() > 2 * strategies.FIRST_LOOK
    assert_same(kept, torch_strategies.top_p(torch.from_numpy(logits), 0.5))


def test_bad_settings_and_ids_are_refused_like_torchs():
    logits = np.zeros((2, 5))
    for call in (
        lambda module, x: module.apply_temperature(x, -1),
        lambda module, x: module.top_k(x, 0),
        lambda module, x: module.top_p(x, 1.5),
        lambda module, x: module.min_p(x, 0),
        lambda module, x: module.repetition_penalty(x, [[0], [1]], -2.0),
        lambda module, x: module.repetition_penalty(x, [[0], [5]], 2.0),
        lambda module, x: module.repetition_penalty(x, [[0], [-2]], 2.0),
        lambda module, x: module.repetition_penalty(x, [0, 1, 2], 2.0),
        lambda module, x: module.choose(x * float("nan"), 0.5),
        lambda module, x: module.choose(x, 0.5),
    ):
        with pytest.raises(ValueError) as ours:
            call(strategies, logits)
        with pytest.raises(ValueError) as theirs:
            call(torch_strategies, torch.from_numpy(logits))
        assert str(ours.value) == str(theirs.value)


def test_docstring_examples():
    result = doctest.testmod(import_module("tiny_transformer.numpy_engine.strategies"), extraglobs={"np": np})
    assert result.attempted and not result.failed


def test_the_two_engines_offer_the_same_names():
    for name in ("kv_cache", "sampling/strategies", "sampling/decoder", "sampling/beam", "sampling/generator"):
        theirs = import_module("tiny_transformer." + name.replace("/", "."))
        ours = import_module("tiny_transformer.numpy_engine." + name.split("/")[-1])
        public = {key for key, value in vars(theirs).items() if getattr(value, "__module__", None) == theirs.__name__ and key[0] != "_"}
        assert public - set(vars(ours)) <= {"evaluating"}, name  # NumPy has no mode to leave


def test_options_cover_every_position_and_head_layout():
    configs = [small_config(option) for option in OPTIONS]
    assert {config.position for config in configs} == {"learned", "sinusoidal", "rotary", "alibi", "none"}
    assert {config.n_heads // config.kv_heads for config in configs} == {1, 2, 4}
