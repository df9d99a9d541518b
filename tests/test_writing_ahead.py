"""Bursts: several tokens written by one call of the C, and the draw in C, against the same one by one, in both engines."""

import ctypes
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some_of

from tests.compiler import needs_compiler
from tests.opinionated import opinionated
from tests.options import OPTIONS
from tiny_transformer.config import SampleConfig
from tiny_transformer.numpy_engine import strategies as by_numpy
from tiny_transformer.quantized_layers import quantize_model
from tiny_transformer.sampling import generator as generator_module
from tiny_transformer.sampling import strategies
from tiny_transformer.sampling.decode_step import DecodeStep
from tiny_transformer.sampling.decoder import Decoder, naive_logits
from tiny_transformer.sampling.generator import FIRST_BURST, TextGenerator, naive_generate
from tiny_transformer.sampling.native_step import FEW, NativeStep, Rule, draw_rule
from tiny_transformer.sampling.native_weights import whole_step
from tiny_transformer.tokenization.base import SpecialTokens
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.utils.reference import reference_path

pytestmark = needs_compiler
SYMBOLS = "\n abcdefghijklmno"
SAMPLED = SampleConfig(temperature=1.2, top_k=9, max_tokens=45, seed=7)
CONFIGS = {
    "greedy": SampleConfig(temperature=0, max_tokens=45),
    "top-k": SAMPLED,
    "all": replace(SAMPLED, top_k=None, temperature=1),
    "top-p": replace(SAMPLED, top_k=None, top_p=0.8),
    "min-p": replace(SAMPLED, top_k=None, min_p=0.1),
    "everything": replace(SAMPLED, top_p=0.9, min_p=0.02),
    "penalty": replace(SAMPLED, repetition_penalty=1.3),
}


def make(option="gpt2", **more):
    return TextGenerator(opinionated(option, **more), CharTokenizer(SYMBOLS))


@pytest.fixture
def made(monkeypatch):
    """How many tokens each call of the C has written."""
    counts, write = [], NativeStep.write

    def spy(self, *arguments):
        count, logits = write(self, *arguments)
        counts.append(count)
        return count, logits

    monkeypatch.setattr(NativeStep, "write", spy)
    return counts


def one_by_one(generator, prompts, config):
    return [step.tokens.tolist() for step in generator.steps(prompts, config)]


# the draw


def draw(logits, config, u):
    """The C's choice: an id, or -1 where it leaves it open."""
    logits = np.ascontiguousarray(logits, dtype=np.float32)
    rule, work = draw_rule(config, logits.size), np.empty(3 * logits.size, dtype=np.float32)
    return whole_step().draw(ctypes.addressof(rule), logits.ctypes.data, u, work.ctypes.data)


def expected(logits, config, u):
    ids = {int(by_numpy.pick(np.asarray(logits, np.float32), None, config, u))}
    large = torch.tensor(logits, dtype=torch.float32)
    probabilities = strategies.next_token_distribution(large, None, config)
    ids.add(int(strategies.choose(probabilities, u)))
    assert len(ids) == 1
    return ids.pop()


rules = some_of.builds(
    SampleConfig,
    temperature=some_of.sampled_from([0.0, 0.3, 0.8, 1.0, 2.5, 1e30]),
    top_k=some_of.sampled_from([None, 1, 2, 3, 5, 8, 40, 1000]),
    top_p=some_of.sampled_from([None, 0.1, 0.5, 0.8, 0.99, 1.0]),
    min_p=some_of.sampled_from([None, 0.01, 0.3, 1.0]),
)


@settings(deadline=None, max_examples=400)
@given(rules, some_of.integers(1, 60), some_of.sampled_from([1, 4, 100]), some_of.integers(0, 2**32 - 1))
def test_the_draw_is_that_of_both_engines_or_left_to_them(config, vocab, levels, seed):
    chance = np.random.default_rng(seed)
    logits = (chance.normal(size=vocab) * 2).round(0 if levels == 1 else 6) if levels < 100 else chance.normal(size=vocab) * 20
    u = chance.random()
    found = draw(logits, config, u)
    assert found == -1 or found == expected(logits, config, u)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "penalty"])
def test_nearly_all_draws_are_decided(name):
    chance, config = np.random.default_rng(0), CONFIGS[name]
    drawn = [(logits := chance.normal(size=65) * 3, u := chance.random(), draw(logits, config, u)) for _ in range(400)]
    assert sum(found == -1 for *_, found in drawn) <= 4
    assert all(found in (-1, expected(logits, config, u)) for logits, u, found in drawn)


def test_a_height_near_a_border_is_left_open():
    logits = np.log(np.array([0.25, 0.25, 0.5]))
    sampled = SampleConfig(temperature=1, top_k=None)
    assert [draw(logits, sampled, u) for u in (0.1, 0.3, 0.7)] == [0, 1, 2]
    for border in (0.0, 0.25, 0.5, 1.0):
        for offset in (-5e-6, 0, 5e-6):
            assert draw(logits, sampled, min(max(border + offset, 0.0), 1 - 1e-16)) == -1


def test_a_sum_near_top_p_is_left_open():
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    for p in (0.5, 0.8, 0.8 + 4e-6, 0.8 - 4e-6):
        assert draw(logits, SampleConfig(temperature=1, top_k=None, top_p=p), 0.1) == -1
    assert draw(logits, SampleConfig(temperature=1, top_k=None, top_p=0.81), 0.99) == 2
    assert draw(logits, SampleConfig(temperature=1, top_k=None, top_p=0.79), 0.99) == 1


def test_ties_at_a_cut_and_damaged_logits_are_left_open():
    tied = [2.0, 1.0, 1.0, 0.0]
    assert draw(tied, SampleConfig(temperature=1, top_k=2), 0.1) == -1
    assert draw(tied, SampleConfig(temperature=1, top_k=3), 0.1) == 0
    assert draw(tied, SampleConfig(temperature=1, top_k=None, top_p=0.7), 0.1) == -1
    assert draw([0.0, -0.0, -1.0], SampleConfig(temperature=1, top_k=1), 0.1) == -1  # two zeros are a tie
    for bad in (float("nan"), float("inf")):
        for config in (SampleConfig(temperature=0), SampleConfig(temperature=1, top_k=None)):
            assert draw([0.0, bad, 1.0], config, 0.1) == -1
    assert draw([-np.inf] * 3, SampleConfig(temperature=0), 0.1) == -1
    assert draw([1e30, 0.0], SampleConfig(temperature=1e-19, top_k=None), 0.1) == -1  # divided, it is no number any more
    assert draw([3.0, 5.0, 5.0], SampleConfig(temperature=0), 0.1) == 1  # the first one of the likeliest
    assert draw([-np.inf, 0.0, -np.inf, 0.0], SampleConfig(temperature=1, top_k=None), 0.3) == 1  # hidden tokens are never chosen


def test_rules_that_the_c_does_not_know():
    assert draw_rule(CONFIGS["penalty"], 65) is None and draw_rule(SAMPLED, FEW + 1) is None
    assert isinstance(draw_rule(SAMPLED, FEW), Rule)


# bursts


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("option", OPTIONS)
def test_bursts_are_the_same_tokens_past_the_edge(option, bits, made):
    model = opinionated(option)
    writer = TextGenerator(model if bits is None else quantize_model(model, bits), CharTokenizer(SYMBOLS))
    for prompts in ([[3, 1, 4]], [[3, 1, 4, 1, 5], [2], [6, 5, 3]]):
        made.clear()
        assert list(writer.choices(prompts, SAMPLED)) == one_by_one(writer, prompts, SAMPLED)
        assert (sum(made) > 20) is (not writer.model.config.ngram_rows and not writer.model.config.n_token_types)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_way_of_choosing(name, made):
    writer, config = make("rotary", max_seq_len=64), CONFIGS[name]
    alone = list(writer.choices([[3, 1, 4]], config))
    assert alone == [[token] for token in naive_generate(writer.model, [3, 1, 4], config)]
    assert sum(made) >= (0 if name == "penalty" else 40)
    together = list(writer.choices([[3, 1, 4], [2, 2], [5]], replace(config, seed=7)))
    assert together == one_by_one(writer, [[3, 1, 4], [2, 2], [5]], replace(config, seed=7))
    assert [row[:1] for row in together] == alone  # each row has its own heights


def test_only_the_tokenizers_own_tokens_are_chosen():
    writer = TextGenerator(opinionated("rotary"), CharTokenizer(SYMBOLS[:9]))  # the model knows 17
    assert list(writer.choices([[3, 1]], SAMPLED)) == one_by_one(writer, [[3, 1]], SAMPLED)
    assert max(max(writer.choices([[3, 1]], replace(SAMPLED, temperature=9, top_k=None)))) < 9


def test_open_choices_are_made_by_the_engine(made):
    writer = make("rotary")
    with torch.no_grad():
        writer.model.unembed.weight[5:9] = writer.model.unembed.weight[5]  # four tokens always tie
    config = replace(SAMPLED, top_k=3, max_tokens=200)
    assert list(writer.choices([[3, 1, 4], [2]], config)) == one_by_one(writer, [[3, 1, 4], [2]], config)
    assert 0 in made and max(made) > 0


@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
def test_damaged_weights_are_an_error(damage):
    writer = make("rotary", max_seq_len=64)
    list(writer.choices([[3]], SAMPLED))
    with torch.no_grad():
        writer.model.unembed.weight[4] = damage
    with pytest.raises(ValueError, match="damaged"):
        list(writer.choices([[3]], SAMPLED))


def test_a_burst_is_never_longer_than_what_came_before(made):
    writer = make("rotary", max_seq_len=300)
    choices = writer.choices([[3]], replace(SAMPLED, max_tokens=200))
    for handed_on in range(1, 180):
        next(choices)
        assert 1 + sum(made) <= max(handed_on + FIRST_BURST, 2 * handed_on)
    assert max(made) > 30


def test_large_models_write_token_by_token():
    config = opinionated().config
    model = opinionated()
    for parameters, tokens in ((1_000, 64), (10_650_000, 37), (300_000_000, 1), (900_000_000, 1)):
        model.config = type("Config", (), {"n_parameters": parameters})
        assert generator_module._longest_burst(model) == tokens
    model.config = config


def test_ends_and_stop_strings_cut_a_burst():
    plain = make("rotary", max_seq_len=64)
    text = plain.generate("ab", SAMPLED)[2:]
    stopped = plain.generate("ab", replace(SAMPLED, stop=(text[9:11],)))[2:]
    assert stopped == text[: text.find(text[9:11])]
    ending = CharTokenizer(SYMBOLS)
    ending.special = SpecialTokens(eos=SYMBOLS.index(text[6]))
    ids = TextGenerator(plain.model, ending).generate_ids([plain.tokenizer.encode("ab")], SAMPLED)[0]
    assert ids == plain.tokenizer.encode(text[: text.index(text[6])])


def test_the_readable_path_writes_no_bursts(made):
    writer = make("rotary")
    fast = list(writer.choices([[3, 1]], SAMPLED))
    made.clear()
    with reference_path():
        assert list(writer.choices([[3, 1]], SAMPLED)) == fast
    assert not made


def test_a_short_prompt_is_read_by_the_c(monkeypatch):
    model, calls, step = opinionated("rotary", max_seq_len=100), [], NativeStep.__call__
    monkeypatch.setattr(NativeStep, "__call__", lambda self, ids: calls.append(len(ids)) or step(self, ids))
    for length, read in ((1, [1]), (64, [64]), (65, [])):
        calls.clear()
        prompt = [i % 17 for i in range(length)]
        logits = Decoder(model, [prompt], 30).logits()
        torch.testing.assert_close(logits, naive_logits(model, torch.tensor([prompt])), atol=2e-5, rtol=1e-5)
        assert calls == read and logits.shape == (1, 17)
    Decoder(model, [[1, 2], [3]], 30).logits()
    assert calls == []
    with reference_path():
        Decoder(model, [[1, 2]], 30).logits()
    assert calls == []


def test_texts_grow_beyond_their_memory(monkeypatch):
    monkeypatch.setattr("tiny_transformer.sampling.decoder.RESERVE", 5)
    writer = make("rotary", max_seq_len=64)
    assert list(writer.choices([[3, 1], [4]], SAMPLED)) == one_by_one(writer, [[3, 1], [4]], SAMPLED)


def test_what_does_not_fit_writes_nothing():
    model = opinionated("rotary", max_seq_len=20)
    decoder = Decoder(model, [[1, 2], [3]], 40)
    decoder.append(decoder.logits().argmax(-1))
    rule, native_step = draw_rule(SAMPLED, 17), decoder.step.native
    for heights in (torch.rand(19, 2), torch.rand(2, 1)):
        with pytest.raises(ValueError, match="do not fit"):
            native_step.write(decoder.tokens, decoder.end, rule, heights.double())
    with pytest.raises(ValueError, match="do not fit"):
        native_step.write(decoder.tokens[:, : decoder.end], decoder.end, rule, torch.rand(2, 2).double())
    decoder.tokens[1, decoder.end - 1] = 17
    with pytest.raises(ValueError, match="must lie in 0 to 16"):
        decoder.write(rule, torch.rand(2, 2).double())
    assert decoder.cache.length == 2


def test_what_choosing_costs_is_counted(monkeypatch):
    rules = []
    monkeypatch.setattr(generator_module, "draw_rule", lambda *settings: rules.append(draw_rule(*settings)) or rules[-1])
    list(make("rotary", max_seq_len=64).choices([[3]], SAMPLED))
    assert 0 < rules[0].seconds < 1


def test_without_the_c_there_are_no_bursts(monkeypatch, made):
    writer = make("rotary")
    expected = list(writer.choices([[3, 1]], SAMPLED))
    made.clear()
    monkeypatch.setattr("tiny_transformer.sampling.decode_step.native_step", lambda model, cache: None)
    assert DecodeStep(writer.model, Decoder(writer.model, [[1]], 1).cache).native is None
    assert list(writer.choices([[3, 1]], SAMPLED)) == expected and not made
