"""Frozen layers in few bits: products and gradients against full matrices and finite differences, and what such models keep."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.opinionated import opinionated
from tests.options import OPTIONS, small_config
from tiny_transformer import nf4, quantized
from tiny_transformer.config import ConfigError, ModelConfig, SampleConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.quantized import Quantized
from tiny_transformer.quantized_layers import (
    FrozenProduct,
    Nf4Linear,
    QuantizedLinear,
    RoundedLinear,
    assemble,
    from_stored,
    layer_of,
    linear_weights,
    pack,
    quantize_model,
    round_each,
    rounded_weights,
    weight_bytes,
)
from tiny_transformer.rounded_weights import Rounding
from tiny_transformer.sampling.generator import TextGenerator
from tiny_transformer.tokenization.char import CharTokenizer

ROUNDINGS = [
    Rounding(bits=8), Rounding(bits=8, block=10), Rounding(bits=4), Rounding(bits=4, block=7), Rounding(bits=4, block=7, double=True),
]  # fmt: skip
each_rounding = pytest.mark.parametrize("rounding", ROUNDINGS, ids=str)


def matrix(out, columns, seed=0):
    return torch.randn(out, columns, generator=torch.Generator().manual_seed(seed))


def few_rows(monkeypatch):
    """So that even small matrices are taken in several pieces."""
    monkeypatch.setattr(quantized, "CHUNK", 60)


# layers


@each_rounding
@pytest.mark.parametrize("with_bias", [True, False])
def test_forward_and_the_inputs_gradient_are_those_of_the_full_matrix(rounding, with_bias, monkeypatch):
    few_rows(monkeypatch)
    layer = layer_of(pack(matrix(13, 25), rounding), matrix(1, 13, 1)[0] if with_bias else None)
    x, full = matrix(12, 25, 2).view(3, 4, 25).requires_grad_(), layer.dequantize()
    again, direction = x.detach().clone().requires_grad_(), matrix(12, 13, 3).view(3, 4, 13)
    y, expected = layer(x), F.linear(again, full, layer.bias)
    torch.testing.assert_close(y, expected)
    (y * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(x.grad, again.grad)
    assert x.grad.abs().max() > 0.1


@each_rounding
def test_the_inputs_gradient_by_finite_differences_and_that_gradients_own(rounding, monkeypatch):
    few_rows(monkeypatch)
    packed = pack(matrix(9, 14), rounding)
    x = matrix(2, 14, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: FrozenProduct.apply(x, packed), (x,))
    assert torch.autograd.gradgradcheck(lambda x: FrozenProduct.apply(x, packed), (x,))


@each_rounding
def test_the_layer_is_frozen_and_small(rounding):
    linear = torch.nn.Linear(70, 40)
    layer = layer_of(pack(linear.weight, rounding), linear.bias)
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert (layer.in_features, layer.out_features) == (70, 40)
    assert weight_bytes(layer) - layer.bias.nbytes == layer.quantized.nbytes < linear.weight.nbytes * 0.45  # no other copy
    layer(matrix(2, 70).requires_grad_()).sum().backward()
    assert layer.bias.grad is None
    assert layer.quantized.nbytes == weight_bytes(layer) - layer.bias.nbytes  # nor after it was used
    assert "in_features=70" in repr(layer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@each_rounding
def test_the_product_is_in_the_type_of_its_input(rounding, dtype):
    layer = layer_of(pack(matrix(6, 32), rounding))
    x = matrix(3, 32, 1).to(dtype)
    assert layer(x).dtype == dtype
    torch.testing.assert_close(layer(x), F.linear(x, layer.dequantize(dtype)))


def test_something_small_beside_a_frozen_layer_can_be_trained():
    """A low-rank change (Hu et al. 2021) learns what rounding took away, through two frozen layers."""
    first, second = (layer_of(pack(matrix(16, 16, seed) / 4, Rounding(bits=4))) for seed in (1, 2))
    x, a, b = matrix(64, 16, 3), (matrix(2, 16, 4) / 4).requires_grad_(), torch.zeros(16, 2, requires_grad=True)
    goal = (x @ matrix(16, 16, 1).T / 4 + x @ matrix(16, 1, 5) @ matrix(1, 16, 6) / 4) @ matrix(16, 16, 2).T / 4
    optimizer, losses = torch.optim.Adam([a, b], lr=0.02), []
    for _ in range(150):
        loss = (second(first(x) + x @ a.T @ b.T) - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


def test_memory_is_taken_for_a_few_rows_at_a_time(monkeypatch):
    few_rows(monkeypatch)
    seen = []
    whole = nf4.unpacked
    monkeypatch.setattr(nf4, "unpacked", lambda pairs, columns: seen.append(len(pairs) * columns) or whole(pairs, columns))
    layer = layer_of(pack(matrix(50, 20), Rounding(bits=4)))
    layer(matrix(2, 20).requires_grad_()).sum().backward()
    assert max(seen) <= 60 and sum(seen) == 2 * 50 * 20


# models


@each_rounding
@pytest.mark.parametrize("option", OPTIONS)
def test_a_model_is_the_one_with_those_numbers(option, rounding):
    """Every architecture: logits with gradients (so without the kernel) as if full matrices held what the bits stand for."""
    model = TinyTransformerLM(small_config(option), seed=1).eval()
    small, by_hand = quantize_model(model, rounding), TinyTransformerLM(small_config(option), seed=1).eval()
    assert not [name for name, module in small.named_modules() if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for name, weight in by_hand.named_parameters():
            if name in dict(rounded_weights(small)):
                weight.copy_(dict(rounded_weights(small))[name].dequantize())
    assert set(linear_weights(model)) == set(dict(rounded_weights(small)))
    ids = torch.randint(model.config.vocab_size, (2, 12), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(small(ids), by_hand(ids), atol=2e-5, rtol=1e-4)
    F.cross_entropy(small(ids).flatten(0, 1), ids.flatten()).backward()
    F.cross_entropy(by_hand(ids).flatten(0, 1), ids.flatten()).backward()
    own = dict(by_hand.named_parameters())
    for name, parameter in small.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, own[name].grad, atol=2e-5, rtol=1e-3)


@each_rounding
def test_taken_apart_and_put_together(rounding):
    model = opinionated("modern")
    small = quantize_model(model, rounding)
    rounded = {name: from_stored(matrix.stored()) for name, matrix in rounded_weights(small)}
    again = assemble(model.config, small.weights(), rounded)
    assert again.state_dict().keys() == small.state_dict().keys()
    assert all(torch.equal(tensor, small.state_dict()[name]) for name, tensor in again.state_dict().items())
    assert not again.training and again.embeddings.token.weight.data_ptr() == small.embeddings.token.weight.data_ptr()  # no copy
    plain, told = {}, []
    plain, packed = round_each(model.weights().items(), linear_weights(model), rounding, lambda *seen: told.append(seen[0]))
    assert told == list(packed) == linear_weights(model) and plain.keys() == small.weights().keys()
    with torch.no_grad():
        assert torch.equal(assemble(model.config, plain, packed)(torch.arange(9)[None]), small(torch.arange(9)[None]))


def test_tied_outputs_stay_tied():
    config = ModelConfig(d_model=64, bias="all", tie_weights=True)
    model = TinyTransformerLM(config, seed=0)
    small = assemble(config, *round_each(model.weights().items(), linear_weights(model), Rounding(bits=4)))
    assert small.unembed.weight is small.embeddings.token.weight
    biases = [name for name, parameter in small.named_parameters() if name.endswith("W_query.bias") and not parameter.requires_grad]
    assert len(biases) == config.n_layers


def test_what_is_kept_is_left_as_it_is():
    model = opinionated("modern")
    small = quantize_model(model, Rounding(bits=4, keep=("blocks.0.*", "*.down.weight")))
    kept = [name for name, module in small.named_modules() if isinstance(module, torch.nn.Linear)]
    expected = [n.removesuffix(".weight") for n in linear_weights(model) if n.startswith("blocks.0.") or n.endswith("down.weight")]
    assert kept == expected and all(torch.equal(small.weights()[f"{n}.weight"], model.weights()[f"{n}.weight"]) for n in kept)
    with pytest.raises(ConfigError, match="it must match a linear layer's weight"):
        quantize_model(model, Rounding(keep=("unembed.weight",)))


def test_weights_that_do_not_fit_are_all_told():
    model = opinionated()
    plain, packed = round_each(model.weights().items(), linear_weights(model), Rounding(bits=4))
    moved = packed.pop("blocks.0.attention.W_query.weight")
    with pytest.raises(ValueError, match=r"2 differences\): missing blocks.0.attention.W_query.weight .* unexpected other.weight"):
        assemble(model.config, plain, {**packed, "other.weight": moved})
    packed["blocks.0.attention.W_query.weight"] = moved
    table = pack(plain.pop("embeddings.token.weight"), Rounding(bits=4))
    with pytest.raises(ValueError, match="only linear layers can be"):
        assemble(model.config, plain, {**packed, "embeddings.token.weight": table})
    with pytest.raises(ValueError, match="a: a weight of shape"):
        round_each([("a", torch.full((2, 2), torch.nan))], ["a"], Rounding())


@each_rounding
def test_moved_to_another_type_and_copied(rounding):
    small = quantize_model(opinionated("rotary", d_model=32), rounding)
    ids = torch.arange(9)[None]
    with torch.no_grad():
        expected = small(ids)
        half = quantize_model(opinionated("rotary", d_model=32), rounding).bfloat16()
        assert half(ids).dtype == torch.bfloat16 and (half(ids).float() - expected).abs().max() < 0.15 * expected.abs().max()
        assert all(layer.values.dtype in (torch.int8, torch.uint8) for layer in half.modules() if isinstance(layer, RoundedLinear))


@pytest.mark.parametrize("rounding", ROUNDINGS[2:], ids=str)
def test_it_writes_with_a_cache_what_it_writes_without(rounding):
    model = opinionated("modern", vocab_size=26)
    small = quantize_model(model, rounding)
    generator = TextGenerator(small, CharTokenizer("abcdefghijklmnopqrstuvwxyz"))
    text = generator.generate("abc", SampleConfig(temperature=0, max_tokens=8))
    ids = [generator.tokenizer.encode("abc")]
    with torch.no_grad():
        for _ in range(8):
            ids[0].append(int(small(torch.tensor(ids))[0, -1, :26].argmax()))
    assert text == generator.tokenizer.decode(ids[0])


def test_each_kind_of_matrix_has_its_layer():
    assert type(layer_of(pack(matrix(2, 3), Rounding(bits=8)))) is QuantizedLinear
    assert type(layer_of(pack(matrix(2, 3), Rounding(bits=4)))) is Nf4Linear
    assert isinstance(pack(matrix(2, 3), Rounding(bits=8)), Quantized)


@settings(max_examples=25)
@given(st.integers(1, 20), st.integers(1, 40), st.sampled_from(ROUNDINGS), st.integers(0, 99))
def test_to_a_file_and_back_without_a_bit_of_difference(out, columns, rounding, seed):
    packed = pack(matrix(out, columns, seed), rounding)
    again = from_stored(packed.stored())
    assert type(again) is type(packed) and again.shape == packed.shape == (out, columns)
    assert torch.equal(again.dequantize(), packed.dequantize())
