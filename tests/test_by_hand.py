"""Gradients by hand: each function equals the plain operations in values, gradients, second derivatives, and runs only where allowed."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.options import OPTIONS, small_config
from tiny_transformer import attention_products, by_hand, gelu_by_hand, linear
from tiny_transformer.attention import attend, create_causal_mask, record_weights, scaled_dot_product_attention
from tiny_transformer.gelu_by_hand import GeluTanh, gelu_tanh
from tiny_transformer.linear import Linear, LinearsByHand, linears, side_by_side
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.multi_head import MultiHeadAttention
from tiny_transformer.utils.reference import reference_path


@pytest.fixture(autouse=True)
def however_small(monkeypatch):
    """The models of tests are below the size from which it pays."""
    for module in (linear, gelu_by_hand):
        monkeypatch.setattr(module, "FEWEST", 0)
    monkeypatch.setattr(attention_products, "FEWEST", 1)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def gradients(function, inputs, seed=9):
    """Output, and the gradients of a random sum of it."""
    output = function(*inputs)
    wanted = [x for x in inputs if x is not None]
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed), dtype=output.dtype)
    return [output, *torch.autograd.grad(output, wanted, weight)]


def assert_equal(first, second, **tolerance):
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


class Counted:
    """Counts how often a function by hand runs."""

    def __init__(self, monkeypatch):
        self.calls = []
        for function in (LinearsByHand, GeluTanh, attention_products.CausalProducts):
            plain = function.apply
            monkeypatch.setattr(function, "apply", lambda *inputs, plain=plain, name=function.__name__: self.note(name, plain, inputs))

    def note(self, name, plain, inputs):
        self.calls.append(name)
        return plain(*inputs)


# ---------------------------------------------------------------- linear layers


@given(st.integers(1, 4), st.booleans(), st.integers(1, 3), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_linears_equal_their_own_products(layers, bias, dims, width, seed):
    x = randn(*range(2, 2 + dims), width, seed=seed)
    weights = [randn(3 + i, width, seed=seed + i) for i in range(layers)]
    biases = [randn(3 + i, seed=seed + 50 + i) if bias else None for i in range(layers)]

    def plain(x, *parts):
        return torch.cat([x @ w.mT + (0 if b is None else b) for w, b in zip(weights, biases, strict=True)], -1)

    found = gradients(LinearsByHand.apply, (x, *weights, *biases))
    assert_equal(found, gradients(plain, (x, *weights, *biases)))
    assert_equal(found, gradients(linears, (x, *weights, *biases)))


def test_linears_against_finite_differences():
    parts = [randn(3, 4, seed=1), randn(2, 4, seed=2), randn(3, seed=3), randn(2, seed=4)]
    assert torch.autograd.gradcheck(LinearsByHand.apply, (randn(5, 4), *parts))
    assert torch.autograd.gradgradcheck(LinearsByHand.apply, (randn(5, 4), *parts))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (128, 384), (65, 128)])
def test_onednns_product_is_the_product(shape):
    out, into = shape
    x, weight, bias = (randn(*size, seed=i).float() for i, size in enumerate([(20, into), (out, into), (out,)]))
    with torch.no_grad():
        exact = F.linear(x.double(), weight.double(), bias.double()).float()
        torch.testing.assert_close(linear.product(x, weight, bias), exact, rtol=1e-5, atol=1e-4)
        transposed = torch.randn(into, out).mT  # as for the gradient of x: the matrix as it lies, read the other way
        torch.testing.assert_close(linear.product(x, transposed), F.linear(x, transposed), rtol=1e-5, atol=1e-4)


def test_a_build_without_onednn_takes_the_usual_product(monkeypatch):
    x, weight = randn(7, 4, dtype=torch.float32), randn(3, 4, seed=1, dtype=torch.float32)
    with_it = gradients(LinearsByHand.apply, (x, weight, None))
    monkeypatch.setattr(linear, "_PRODUCT", None)
    assert_equal(with_it, gradients(LinearsByHand.apply, (x, weight, None)))


def test_frozen_parts_get_no_gradient():
    x, first, second = randn(5, 4), randn(3, 4, seed=1), randn(2, 4, seed=2)
    first.requires_grad_(False)
    LinearsByHand.apply(x, first, second, None, None).sum().backward()
    assert first.grad is None
    torch.testing.assert_close(second.grad, x.detach().sum(0).expand(2, 4))
    y = randn(5, 4).requires_grad_(False)
    LinearsByHand.apply(y, second, None).sum().backward()
    assert y.grad is None


def test_side_by_side_is_each_alone(monkeypatch):
    counted = Counted(monkeypatch)
    x, layers = torch.randn(2, 5, 6), [Linear(6, 4), Linear(6, 2), Linear(6, 2)]
    together = side_by_side(x, *layers)
    assert counted.calls == ["LinearsByHand"]
    assert_equal(together, [F.linear(x, layer.weight, layer.bias) for layer in layers])
    with torch.no_grad():
        assert_equal(side_by_side(x, *layers), together)
    assert counted.calls == ["LinearsByHand"]


@pytest.mark.parametrize("change", ["hook", "forward", "another kind"])
def test_a_layer_that_somebody_changed_is_called(change):
    layers, x = [Linear(6, 4), Linear(6, 4)], torch.randn(2, 5, 6)
    if change == "hook":
        layers[1].register_forward_hook(lambda module, inputs, output: 0 * output)
    elif change == "forward":
        layers[1].__dict__["forward"] = lambda x: 0 * x
    else:
        layers[1] = nn.Sequential(Linear(6, 4), nn.Threshold(1e9, 0.0))
    first, second = side_by_side(x, *layers)
    assert (second == 0).all() and not (first == 0).any()


# ---------------------------------------------------------------- GELU


def test_gelu_equals_pytorchs_with_its_slope():
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64).requires_grad_()
    assert_equal(gradients(GeluTanh.apply, [x]), gradients(lambda x: F.gelu(x, approximate="tanh"), [x]), rtol=1e-9, atol=1e-14)


def test_gelu_in_float32_is_as_exact_as_pytorchs():
    x = torch.linspace(-12, 12, 4001)
    exact = F.gelu(x.double(), approximate="tanh")
    ours, theirs = ((f(x) - exact).abs().max() for f in (GeluTanh.apply, lambda x: F.gelu(x, approximate="tanh")))
    assert ours <= 2 * theirs + 1e-7
    assert not GeluTanh.apply(torch.tensor([-1e30, 1e30])).isnan().any()


def test_gelu_against_finite_differences():
    assert torch.autograd.gradcheck(GeluTanh.apply, (randn(3, 5),))
    assert torch.autograd.gradgradcheck(GeluTanh.apply, (randn(3, 5),))


def test_gelu_leaves_what_it_is_given():
    x, gradient = randn(6), torch.ones(6, dtype=torch.float64)
    before = x.detach().clone()
    GeluTanh.apply(x).backward(gradient)
    assert torch.equal(x, before) and (gradient == 1).all()


# ---------------------------------------------------------------- attention


@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 19), st.integers(1, 6), st.integers(1, 40), st.integers(2, 40), st.integers(0, 99)
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_products_equal_the_reference(batch, heads, seq, d_head, at_once, halves, seed):
    """However many rows are done at once, in halves or not."""
    inputs = [randn(batch, heads, seq, d_head, seed=seed + i) for i in range(3)]
    before = attention_products.AT_ONCE, attention_products.HALVES
    attention_products.AT_ONCE, attention_products.HALVES = at_once * heads * seq, halves
    try:
        found = gradients(attention_products.attend_causal, inputs)
    finally:
        attention_products.AT_ONCE, attention_products.HALVES = before
    reference = gradients(lambda *qkv: scaled_dot_product_attention(*qkv, create_causal_mask(seq))[0], inputs)
    assert_equal(found, reference)
    assert_equal(found, gradients(lambda *qkv: F.scaled_dot_product_attention(*qkv, is_causal=True), inputs))
    assert_equal(found, gradients(attention_products.plain, inputs))


@pytest.mark.parametrize("halves", [2, 100])
def test_products_against_finite_differences(monkeypatch, halves):
    monkeypatch.setattr(attention_products, "HALVES", halves)
    inputs = tuple(randn(1, 2, 4, 2, seed=i) for i in range(3))
    assert torch.autograd.gradcheck(attention_products.attend_causal, inputs)
    assert torch.autograd.gradgradcheck(attention_products.attend_causal, inputs)


@pytest.mark.parametrize("seq", [64, 160])
def test_products_in_float32_with_heads_that_lie_side_by_side(seq):
    """As the model hands them over: three parts of one product, heads between positions and width."""
    packed = randn(3, seq, 3 * 4 * 8, dtype=torch.float32)
    weight = torch.randn(3, seq, 32, generator=torch.Generator().manual_seed(1))
    results = []
    for function in (attention_products.attend_causal, attention_products.plain):
        query, key, value = (part.view(3, seq, 4, 8).transpose(1, 2) for part in packed.split(32, -1))
        out = function(query, key, value).transpose(1, 2).reshape(3, seq, 32)
        results.append([out, *torch.autograd.grad(out, [packed], weight)])
    assert_equal(*results, rtol=1e-4, atol=1e-5)


def test_the_future_has_no_share_in_either_half(monkeypatch):
    monkeypatch.setattr(attention_products, "HALVES", 2)
    inputs = [randn(1, 1, 6, 3, seed=i) for i in range(3)]
    for position in range(6):
        out = attention_products.attend_causal(*inputs)[0, 0, position].sum()
        for gradient in torch.autograd.grad(out, inputs[1:]):
            assert (gradient[0, 0, position + 1 :] == 0).all()
        assert (gradient[0, 0, : position + 1].abs().sum(-1) > 0).all()  # that of the values


def test_large_scores_do_not_overflow():
    query, key, value = (1e4 * randn(1, 2, 5, 4, seed=i, dtype=torch.float32) for i in range(3))
    assert all(x.isfinite().all() for x in gradients(attention_products.attend_causal, [query, key, value]))


@pytest.mark.parametrize(
    ("case", "by_products"),
    [
        ("plain", True), ("not causal", False), ("mask", False), ("bias", False), ("window", False), ("wide window", True),
        ("cache", False), ("too long", False), ("evaluation", False), ("reference", False),
        ("recording", False), ("bfloat16", False), ("no gradient", False),
    ],
)  # fmt: skip
def test_which_attention_runs(monkeypatch, case, by_products):
    counted, more = Counted(monkeypatch), {"causal": True}
    query, key, value = (randn(2, 2, 6, 4, seed=i, dtype=torch.float32) for i in range(3))
    around = torch.enable_grad()
    if case == "not causal":
        more["causal"] = False
    elif case == "mask":
        more["mask"] = create_causal_mask(6)
    elif case == "bias":
        more["bias"] = torch.zeros(2, 6, 6)
    elif case in ("window", "wide window"):
        more["window"] = 3 if case == "window" else 6
    elif case == "cache":
        query = query[:, :, -2:]
    elif case == "too long":
        monkeypatch.setattr(attention_products, "MOST", 5)
    elif case == "bfloat16":
        query, key, value = (x.bfloat16() for x in (query, key, value))
    elif case == "no gradient":
        query, key, value = (x.detach() for x in (query, key, value))
    else:
        around = {"evaluation": torch.no_grad, "reference": reference_path, "recording": record_weights}.get(case, torch.enable_grad)()
    with around:
        attend(query, key, value, **more)
    assert counted.calls == (["CausalProducts"] if by_products else [])


def test_on_a_gpu_the_fused_kernel_does_attention(monkeypatch):
    """No GPU is needed to ask: what is on another device never goes the way that is for the CPU."""
    counted = Counted(monkeypatch)
    fused = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, **more: fused.append(more) or q)
    query = torch.empty(2, 2, 64, 4, device="meta", requires_grad=True)
    attend(query, query, query, causal=True)
    assert fused == [{"is_causal": True}] and not counted.calls


# ---------------------------------------------------------------- when


def test_where_it_is_allowed(monkeypatch):
    x = torch.randn(3, requires_grad=True)
    assert by_hand.allowed(x) and by_hand.allowed(x.double())
    for around in (torch.no_grad, torch.inference_mode, reference_path, lambda: torch.autocast("cpu", torch.bfloat16)):
        with around():
            assert not by_hand.allowed(x)
    assert not by_hand.allowed(x.bfloat16()) and not by_hand.allowed(x.to("meta"))
    seen = []
    torch.func.vmap(lambda row: seen.append(by_hand.allowed(row)) or row)(x.detach())
    assert seen == [False]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not by_hand.allowed(x)


def test_few_numbers_go_the_plain_way(monkeypatch):
    assert by_hand.allowed(torch.randn(3, 4), 12) and not by_hand.allowed(torch.randn(11), 12)
    counted = Counted(monkeypatch)
    for module in (linear, gelu_by_hand):
        monkeypatch.setattr(module, "FEWEST", 13)
    few = torch.randn(3, 4)
    gelu_tanh(Linear(4, 4)(few)), side_by_side(few, Linear(4, 4), Linear(4, 4))
    attention_products.FEWEST = 7  # put back by the fixture
    attend(*(randn(2, 2, 6, 4),) * 3, causal=True)
    assert not counted.calls


@pytest.mark.parametrize("bias", [True, False])
def test_below_the_limit_side_by_side_is_still_one_product(monkeypatch, bias):
    monkeypatch.setattr(linear, "FEWEST", 10**9)
    x, layers = torch.randn(2, 5, 6, requires_grad=True), [Linear(6, 4, bias=bias), Linear(6, 2, bias=bias)]
    alone, products = [F.linear(x, layer.weight, layer.bias) for layer in layers], []
    plain = F.linear
    monkeypatch.setattr(F, "linear", lambda *inputs: products.append(1) or plain(*inputs))
    assert_equal(side_by_side(x, *layers), alone)
    assert len(products) == 1


@pytest.mark.parametrize("option", OPTIONS)
def test_a_whole_model_has_the_reference_gradients(option, monkeypatch):
    model = TinyTransformerLM(small_config(option), seed=0).double()
    ids = torch.randint(17, (3, 12), generator=torch.Generator().manual_seed(0))
    results = []
    counted = Counted(monkeypatch)
    for readable in (False, True):
        model.zero_grad()
        if readable:
            counted.calls.clear()
            with reference_path():
                loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
                loss.backward()
        else:
            loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
            loss.backward()
            assert "LinearsByHand" in counted.calls
        results.append([loss, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert not counted.calls, "the reference must not run by hand"
    assert_equal(*results, rtol=1e-8, atol=1e-11)


def test_query_key_and_value_are_one_product(monkeypatch):
    counted = Counted(monkeypatch)
    layer = MultiHeadAttention(small_config("grouped"))
    layer(torch.randn(2, 5, 24))
    assert counted.calls.count("LinearsByHand") == 2  # and the output's


def test_under_autocast_and_torch_func_all_still_works():
    model = TinyTransformerLM(small_config("gelu_tanh"), seed=0)
    ids = torch.randint(17, (3, 12))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids)
    assert logits.dtype == torch.bfloat16
    x = torch.randn(4, 6)
    slope = torch.func.grad(lambda x: gelu_tanh(x).sum())(x)
    torch.testing.assert_close(slope, torch.autograd.grad(gelu_tanh(x.requires_grad_()).sum(), x)[0])


def test_second_derivatives_of_a_model():
    """Through every function by hand at once, against the reference."""
    model = TinyTransformerLM(small_config("gelu_tanh", n_layers=1), seed=0).double()
    ids, found = torch.randint(17, (2, 6), generator=torch.Generator().manual_seed(0)), []
    weights = list(model.parameters())
    for around in (torch.enable_grad, reference_path):
        with around():
            loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
            first = torch.autograd.grad(loss, weights, create_graph=True)
            size = sum(g.square().sum() for g in first)
            found.append([size, *torch.autograd.grad(size, weights)])
    assert_equal(*found, rtol=1e-7, atol=1e-11)
    assert math.isfinite(found[0][0].item())
