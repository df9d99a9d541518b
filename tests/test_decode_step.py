"""The prepared step against the model's own: every architecture, padded rows, windows, groups, rounded weights; and when it steps aside."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.opinionated import opinionated
from tests.options import OPTIONS
from tests.rounded_inputs import sixteen_bits
from tiny_transformer.attention import record_weights
from tiny_transformer.config import SampleConfig
from tiny_transformer.kv_cache import KVCache
from tiny_transformer.quantized_layers import quantize_model
from tiny_transformer.sampling import decoder as decoder_module
from tiny_transformer.sampling.beam import beam_search
from tiny_transformer.sampling.decode_step import DecodeStep, fits
from tiny_transformer.sampling.decoder import Decoder, naive_logits
from tiny_transformer.sampling.generator import TextGenerator, naive_generate
from tiny_transformer.sampling.native_step import NativeStep
from tiny_transformer.sampling.packed import prepare
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.utils.reference import reference_path

SYMBOLS = "\n abcdefghijklmno"  # 17, as many as the small model has
GREEDY = SampleConfig(temperature=0, max_tokens=40)


@pytest.fixture(autouse=True, params=["C", "PyTorch"])
def engine(request, monkeypatch):
    """Every test here holds for both forms of the step; without a compiler both are PyTorch's."""
    if request.param == "PyTorch":
        monkeypatch.setattr("tiny_transformer.sampling.decode_step.native_step", lambda model, cache: None)
    return request.param


def with_biases(model):
    """Biases start as zeros, which would hide one that is forgotten."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            elif "norm" in name:
                parameter.copy_(1 + torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


@pytest.mark.parametrize("padding", [None, [0, 3, 4]], ids=["even", "padded"])
@pytest.mark.parametrize("option", OPTIONS)
@torch.inference_mode()
def test_the_step_equals_the_model(option, padding):
    model = with_biases(opinionated(option))
    ids = torch.randint(17, (3, 12), generator=torch.Generator().manual_seed(1))
    caches = [KVCache(model.config, 3, padding=padding) for _ in range(2)]
    for cache in caches:
        model.hidden(ids[:, :5], cache=cache)
    step = DecodeStep(model, caches[0])
    for column in range(5, 12):
        expected = model(ids[:, column : column + 1], cache=caches[1])[:, -1]
        torch.testing.assert_close(step(ids[:, column]), expected, atol=2e-5, rtol=1e-5)
    assert caches[0].length == caches[1].length == 12
    for ours, theirs in zip(caches[0].layers, caches[1].layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(ours.values, theirs.values, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("option", ["gpt2", "modern", "window rotary grouped", "swiglu", "qkv bias"])
@torch.inference_mode()
def test_the_step_of_a_rounded_model_equals_that_model(option, engine):
    model = quantize_model(with_biases(opinionated(option, d_model=32)))
    assert fits(model, 100)
    ids = torch.randint(17, (2, 12), generator=torch.Generator().manual_seed(1))
    caches = [KVCache(model.config, 2) for _ in range(2)]
    step = DecodeStep(model, caches[0])
    # C rounds x to sixteen bits; PyTorch's kernel to a bfloat16, as the model itself does, but maybe to the other side.
    fine = step.native is not None
    near = {"atol": 1e-3, "rtol": 1e-5} if fine else {"atol": 2e-2, "rtol": 2e-2}
    with reference_path() if fine else nullcontext(), sixteen_bits() if fine else nullcontext():
        for cache in caches:
            model.hidden(ids[:, :1], cache=cache)
        for column in range(1, 12):
            expected = model(ids[:, column : column + 1], cache=caches[1])[:, -1]
            torch.testing.assert_close(step(ids[:, column]), expected, **near)


@pytest.mark.parametrize("bits", [None, 8])
@torch.inference_mode()
def test_layers_side_by_side_are_one_product(bits):
    model = with_biases(opinionated("grouped", d_model=32))
    model = model if bits is None else quantize_model(model, bits)
    attention, x = model.blocks[0].attention, torch.randn(5, 32)
    layers = [attention.W_query, attention.W_key, attention.W_value]
    expected = torch.cat([layer(x) for layer in layers], dim=-1)
    torch.testing.assert_close(prepare(layers, 5)(x), expected, atol=1e-5, rtol=1e-5)
    without = nn.Linear(32, 7, bias=False)
    torch.testing.assert_close(prepare([without], 5)(x), without(x), atol=1e-5, rtol=1e-5)


def used(monkeypatch):
    """How many tokens the step chooses or prepares the choice of from now on."""
    counts = [0]
    step, write = DecodeStep.__call__, NativeStep.write

    def spy(self, tokens):
        counts[0] += 1
        return step(self, tokens)

    def other_spy(self, *arguments):
        made, logits = write(self, *arguments)
        counts[0] += made
        return made, logits

    monkeypatch.setattr(DecodeStep, "__call__", spy)
    monkeypatch.setattr(NativeStep, "write", other_spy)
    return counts


@pytest.mark.parametrize("option", ["gpt2", "rotary", "alibi", "window rotary grouped"])
def test_a_generator_uses_it_and_writes_the_same(option, monkeypatch):
    generator = TextGenerator(opinionated(option), CharTokenizer(SYMBOLS))
    counts = used(monkeypatch)
    text = generator.generate("abc", GREEDY)
    assert counts[0] == 34  # of 40 tokens; the others begin with a window of 3 tokens, or of 7 where the edge is reached
    assert text == "abc" + "".join(SYMBOLS[i] for i in naive_generate(generator.model, CharTokenizer(SYMBOLS).encode("abc"), GREEDY))
    generator.generate("abc", replace(GREEDY, max_tokens=10))
    assert counts[0] == 34  # too few tokens to prepare for


def test_readable_path_and_recordings_see_every_token(monkeypatch):
    generator = TextGenerator(opinionated(), CharTokenizer(SYMBOLS))
    text = generator.generate("abc", GREEDY)
    counts = used(monkeypatch)
    with reference_path():
        assert generator.generate("abc", GREEDY) == text
    with record_weights() as weights:
        assert generator.generate("abc", GREEDY) == text
    assert counts[0] == 0 and len(weights) == 40 * 2


def test_a_model_that_somebody_has_changed_is_run_as_it_is():
    assert fits(opinionated(), 100) and not fits(opinionated(), 3)
    assert not fits(opinionated().double(), 100)
    hooked = opinionated()
    hooked.blocks[0].register_forward_hook(lambda module, inputs, output: output * 0)
    assert not fits(hooked, 100)
    hooked = opinionated()
    hooked.blocks[1].norm2.register_forward_pre_hook(lambda module, inputs: None)
    assert not fits(hooked, 100)
    patched = opinionated()
    patched.blocks[0].attention.forward = lambda x, *rest, **more: x
    assert not fits(patched, 100)

    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    replaced = opinionated()
    replaced.blocks[0].feedforward.down = Doubled(96, 24)
    assert not fits(replaced, 100)
    logits = Decoder(replaced, [[1, 2, 3]], 100)
    first = logits.logits()
    logits.append(first.argmax(-1))
    torch.testing.assert_close(logits.logits(), naive_logits(replaced, logits.texts), atol=1e-5, rtol=1e-5)


def test_memory_is_taken_once_and_weights_are_those_of_today():
    model = opinionated("rotary")
    decoder = Decoder(model, [[1, 2, 3], [4]], 100)
    places = set()
    for _ in range(30):
        decoder.append(decoder.logits().argmax(-1))
        places.update((layer.keys.data_ptr(), layer.values.data_ptr()) for layer in decoder.cache.layers)
    assert len(places) == model.config.n_layers
    with torch.no_grad():
        model.blocks[0].attention.W_value.weight.mul_(-1)
    again = Decoder(model, [[1, 2, 3]], 100)
    again.append(again.logits().argmax(-1))
    torch.testing.assert_close(again.logits(), naive_logits(model, again.texts), atol=1e-5, rtol=1e-5)


def test_beams_take_their_cache_along(monkeypatch):
    counts = used(monkeypatch)
    model = opinionated("rotary")
    fast = beam_search(model, [1, 2, 3], beams=3, max_tokens=20)
    assert counts[0] > 10
    monkeypatch.setattr(decoder_module, "fits", lambda model, tokens: False)
    plain = beam_search(model, [1, 2, 3], beams=3, max_tokens=20)
    assert [found.tokens for found in fast] == [found.tokens for found in plain]


def test_rows_of_a_rounded_model_are_what_they_are_alone():
    generator = TextGenerator(quantize_model(opinionated("rotary", d_model=32)), CharTokenizer(SYMBOLS))
    config = SampleConfig(temperature=1, top_k=None, max_tokens=40, seed=3)
    together = generator.generate_batch(["abc", "nom", "l m"], config)
    assert together == [generator.generate(prompt, replace(config, seed=3 + i)) for i, prompt in enumerate(["abc", "nom", "l m"])]
