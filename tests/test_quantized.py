"""Weights in whole numbers: how far off they may be, products against float64, and a trained model that stays as good."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.opinionated import opinionated
from tests.options import OPTIONS, small_config
from tiny_transformer.config import ConfigError, ModelConfig, SampleConfig
from tiny_transformer.corpora.pitches import text as pitches
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.quantized import Quantized, quantize, quantized_product
from tiny_transformer.quantized_layers import QuantizedLinear, quantize_model, weight_bytes
from tiny_transformer.sampling.generator import TextGenerator
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.utils.reference import reference_path


def matrix(out, columns, seed=0, spread=1.0):
    return torch.randn(out, columns, generator=torch.Generator().manual_seed(seed)) * spread


# numbers


@given(st.integers(1, 9), st.integers(1, 6), st.integers(2, 8), st.sampled_from([1e-20, 1e-3, 1.0, 1e20]), st.integers(0, 1000))
def test_no_number_is_off_by_more_than_half_a_scale(out, columns, bits, spread, seed):
    weight = matrix(out, columns, seed, spread)
    values, scales = quantize(weight, bits)
    error = (Quantized(values, scales).dequantize().double() - weight.double()).abs()
    assert (error <= scales.double() * 0.5 * (1 + 1e-5)).all()
    largest = 2 ** (bits - 1) - 1
    assert values.dtype == torch.int8 and max(1, largest - 1) <= int(values.abs().max()) <= largest
    assert torch.equal(scales, scales.bfloat16().float())
    exact = weight.abs().amax(1, keepdim=True) / largest
    assert ((scales >= exact) & (scales <= exact * (1 + 2**-7))).all()


def test_each_row_has_its_own_scale():
    weight = torch.tensor([[1000.0, -500.0], [0.001, 0.0005]])
    values, scales = quantize(weight)
    assert all(126 <= value <= 127 for value in values[:, 0].tolist())
    assert torch.allclose(scales[:, 0] * 127, torch.tensor([1000.0, 0.001]), rtol=0.008)


def test_each_block_of_columns_has_its_own_scale():
    weight = matrix(3, 8)
    weight[:, :4] *= 1000
    blocked = quantize(weight, 8, block=4).dequantize()
    parts = [quantize(weight[:, start : start + 4]).dequantize() for start in (0, 4)]
    assert torch.equal(blocked, torch.cat(parts, 1))
    assert quantize(weight, 8, block=4).scales.shape == (3, 2)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 100))
def test_blocks_of_any_size_are_as_equal_as_can_be(columns, block, seed):
    weight = matrix(3, columns, seed)
    quantized = quantize(weight, 8, block=block)
    pieces = torch.split(weight, -(-columns // quantized.scales.size(1)), 1)
    assert len(pieces) == quantized.scales.size(1) == -(-columns // block) and max(piece.size(1) for piece in pieces) <= block
    assert torch.equal(quantized.dequantize(), torch.cat([quantize(piece).dequantize() for piece in pieces], 1))
    rows = slice(1, 3)
    assert torch.equal(quantized.dequantize(rows=rows), quantized.dequantize()[rows])


def test_zeros_stay_zeros():
    weight = matrix(3, 4)
    weight[1] = 0
    assert torch.equal(quantize(weight).dequantize()[1], torch.zeros(4))


def test_whole_numbers_come_back_exactly():
    weight = torch.tensor([[127.0, -3, 0, 64], [-127, 126, 1, -1]]) * 0.25
    assert torch.equal(quantize(weight).dequantize(), weight)


@pytest.mark.parametrize("bits", [1, 9, 0])
def test_bits_that_do_not_fit(bits):
    with pytest.raises(ConfigError, match=f"bits={bits}: it must be from 2 to 8"):
        quantize(matrix(2, 2), bits)


def test_what_can_not_be_rounded():
    with pytest.raises(ConfigError, match="block=0: it must be at least 1"):
        quantize(matrix(2, 4), 8, block=0)
    with pytest.raises(ValueError, match=r"shape \(4,\): it must be a matrix"):
        quantize(torch.zeros(4))
    with pytest.raises(ValueError, match="finite"):
        quantize(torch.tensor([[1.0, float("inf")]]))


# products


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 40])
@pytest.mark.parametrize(("out", "columns"), [(1, 32), (7, 24), (24, 10), (65, 48), (3, 1), (6, 16)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_product_against_float64(rows, out, columns, with_bias):
    quantized = quantize(matrix(out, columns))
    x, bias = matrix(rows, columns, 1), matrix(1, out, 2)[0] if with_bias else None
    expected = F.linear(x.double(), quantized.dequantize(torch.float64), None if bias is None else bias.double())
    size = x.double().abs() @ quantized.dequantize(torch.float64).abs().T + 1
    product = quantized_product(quantized, bias)(x)
    assert product.dtype == torch.float32
    assert ((product - expected).abs() <= size * 2**-8).all()  # the kernel reads x with bfloat16's eight binary digits
    with reference_path():
        assert ((quantized_product(quantized, bias)(x) - expected).abs() <= size * 1e-6).all()


def test_a_row_does_not_depend_on_the_others_to_the_last_bit():
    product = quantized_product(quantize(matrix(33, 64)))
    x = matrix(21, 64, 1)
    together = product(x)
    assert all(torch.equal(product(x[row : row + 1])[0], together[row]) for row in range(21))


def test_numbers_at_any_place_in_memory(monkeypatch):
    """The kernel gets them where its loads of 16 bytes are allowed on every processor; some forgive more."""
    kernel = torch._weight_int8pack_mm

    def strict(x, values, scales):
        assert values.data_ptr() % 16 == 0 and values.is_contiguous() and x.is_contiguous()
        return kernel(x, values, scales)

    monkeypatch.setattr(torch, "_weight_int8pack_mm", strict)
    values, scales = quantize(matrix(5, 32))
    expected = quantized_product(Quantized(values, scales))(torch.ones(2, 32))
    for offset in (1, 3, 8):
        moved = torch.zeros(values.numel() + offset, dtype=torch.int8)[offset:].view(5, 32).copy_(values)
        assert torch.equal(quantized_product(Quantized(moved, scales))(torch.ones(4, 32)[::2]), expected)
    striped = torch.zeros(5, 64, dtype=torch.int8)[:, ::2].copy_(values)
    assert torch.equal(quantized_product(Quantized(striped, scales))(torch.ones(2, 32)), expected)
    x = torch.ones(2, 33)[:, 1:]
    assert torch.equal(quantized_product(Quantized(values, scales))(x), expected)


def test_blocked_and_other_types_of_numbers_take_the_readable_way():
    quantized = quantize(matrix(6, 8), 4, block=2)
    x = matrix(2, 8, 1)
    assert torch.equal(quantized_product(quantized)(x), x @ quantized.dequantize().T)
    assert quantized_product(quantized)(x.bfloat16()).dtype == torch.bfloat16


def test_the_layer_takes_any_leading_dimensions():
    linear = torch.nn.Linear(12, 5)
    layer = QuantizedLinear(quantize(linear.weight), linear.bias)
    x = torch.randn(2, 3, 12)
    with torch.no_grad():
        assert (layer(x) - linear(x)).abs().max() < 0.05 * linear(x).abs().max()
        assert torch.equal(layer(x[0, 0]), layer(x[:1, :1])[0, 0])


# models


@pytest.mark.parametrize("option", OPTIONS)
@torch.no_grad()
def test_every_architecture_keeps_its_logits_about(option):
    model = TinyTransformerLM(small_config(option), seed=1).eval()
    ids = torch.randint(model.config.vocab_size, (2, 12), generator=torch.Generator().manual_seed(0))
    small = quantize_model(model)
    assert not [name for name, module in small.named_modules() if isinstance(module, torch.nn.Linear)]
    expected, spread = model(ids), model(ids).std()
    assert (small(ids) - expected).abs().max() < 0.06 * spread
    assert (small(ids) - expected).abs().max() > 0


@torch.no_grad()
def test_the_copy_is_the_model_with_rounded_weights():
    model = opinionated("modern")
    small, by_hand = quantize_model(model), opinionated("modern")
    for module in by_hand.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.copy_(quantize(module.weight).dequantize())
    ids = torch.arange(12)[None]
    with reference_path():
        torch.testing.assert_close(small(ids), by_hand(ids), atol=1e-5, rtol=1e-5)


def test_the_model_itself_is_left_alone():
    model = TinyTransformerLM(ModelConfig(d_model=64, dropout=0.1), seed=0).train()
    before = {name: weight.clone() for name, weight in model.weights().items()}
    small = quantize_model(model)
    assert model.training and not small.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.weights().items())
    assert weight_bytes(small) < 0.34 * weight_bytes(model)
    assert small.unembed.weight is small.embeddings.token.weight


def test_fewer_bits_are_further_off():
    model = opinionated()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        errors = [(quantize_model(model, bits)(ids) - model(ids)).abs().mean().item() for bits in (8, 4)]
    assert 0 < errors[0] < errors[1] / 8


@pytest.fixture(scope="module")
def trained():
    """A small model after some seconds of learning pitches; text it has not seen."""
    text = pitches(60_000)
    tokenizer = CharTokenizer.train(text)
    ids = torch.tensor(tokenizer.encode(text))
    model = TinyTransformerLM(ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=48, d_model=64, n_layers=2, n_heads=2), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    draw = np.random.default_rng(0)
    for _ in range(160):
        starts = torch.from_numpy(draw.integers(len(ids) * 9 // 10 - 49, size=16))
        windows = ids[starts[:, None] + torch.arange(49)]
        loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), tokenizer, ids[len(ids) * 9 // 10 :]


@torch.no_grad()
def loss_of(model, ids):
    windows = ids[: len(ids) // 48 * 48].view(-1, 48)
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten()).item()


def test_a_trained_model_stays_as_good(trained):
    model, _, unseen = trained
    loss = loss_of(model, unseen)
    assert loss < 2.5  # it has learned something
    assert abs(loss_of(quantize_model(model), unseen) / loss - 1) < 0.005
    assert abs(loss_of(quantize_model(model, 4), unseen) / loss - 1) < 0.04
    coarse = copy.deepcopy(model)
    for module in coarse.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data.copy_(quantize(module.weight, 2).dequantize())
    assert loss_of(coarse, unseen) > loss * 1.02  # and rounding is felt where it is coarse


def test_a_trained_model_writes_the_same_for_a_while(trained):
    model, tokenizer, _ = trained
    prompt, config = tokenizer.decode([5, 6, 7]), SampleConfig(temperature=0, max_tokens=30)
    small = TextGenerator(quantize_model(model), tokenizer)
    text = small.generate(prompt, config)
    assert text == small.generate(prompt, replace(config, seed=3))
    assert len(text) == len(prompt) + 30
    plain = TextGenerator(model, tokenizer).generate(prompt, config)
    assert text[: len(prompt) + 3] == plain[: len(prompt) + 3]
