"""The NumPy engine, function by function: every backward pass against central differences, in float64, at random shapes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.options import OPTIONS, small_config
from tiny_transformer.config import ModelConfig
from tiny_transformer.numpy_engine import attention, embeddings, feedforward, multi_head, normalization, objectives, transformer_block
from tiny_transformer.numpy_engine import model as whole
from tiny_transformer.numpy_engine.linear import linear, linear_backward, sum_rows
from tiny_transformer.training.dataset import IGNORE

SEEDS = st.integers(0, 10_000)
few = settings(max_examples=12, deadline=None, derandomize=True)


def by_nudging(loss, x, step=2e-4, most=60):
    """d loss / d x at up to `most` places of x, and these places: central differences of fourth order, x changed in place."""
    flat = x.reshape(-1)
    assert np.shares_memory(flat, x)
    places = np.random.default_rng(0).permutation(x.size)[:most]
    slopes = []
    for place in places:
        old, values = flat[place], []
        for nudge in (step, -step, 2 * step, -2 * step):
            flat[place] = old + nudge
            values.append(loss())
        flat[place] = old
        slopes.append((8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * step))
    return np.array(slopes), places


def check_gradient(loss, x, by_hand, limit=1e-6):
    """The relative error of `by_hand`, as a whole vector, is below `limit`."""
    assert by_hand.shape == x.shape
    slopes, places = by_nudging(loss, x)
    chosen = by_hand.reshape(-1)[places]
    assert np.linalg.norm(slopes - chosen) < limit * max(np.linalg.norm(slopes), 1e-3)


def shape_of(generator, dims, low=1, high=5):
    return tuple(int(n) for n in generator.integers(low, high + 1, size=dims))


# --- linear, norms, activations -------------------------------------------------------------------------------------


@few
@given(SEEDS, st.booleans())
def test_linear(seed, bias):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal(shape_of(generator, 3))
    w = {"a.weight": generator.standard_normal((shape_of(generator, 1)[0], x.shape[-1]))}
    if bias:
        w["a.bias"] = generator.standard_normal(len(w["a.weight"]))
    y, cache = linear(x, w, "a")
    dy = generator.standard_normal(y.shape)
    dx, gradients = linear_backward(dy, cache)

    def loss():
        return float((linear(x, w, "a")[0] * dy).sum())

    assert set(gradients) == set(w)
    check_gradient(loss, x, dx)
    for name in w:
        check_gradient(loss, w[name], gradients[name])


def test_sum_rows_is_exact_enough_in_float32():
    x = np.random.default_rng(0).random((64, 1024, 3)).astype(np.float32)
    np.testing.assert_allclose(sum_rows(x), x.astype(np.float64).sum((0, 1)), rtol=1e-5)


@few
@given(SEEDS, st.booleans(), st.sampled_from(["layer", "rms"]), st.sampled_from([1e-5, 0.3]))
def test_norms(seed, bias, kind, eps):
    generator = np.random.default_rng(seed)
    d = int(generator.integers(3, 9))
    x = generator.standard_normal((*shape_of(generator, 2, high=3), d)) * 2 + 0.5
    w = {"n.weight": generator.standard_normal(d)}
    if bias and kind == "layer":
        w["n.bias"] = generator.standard_normal(d)
    config = ModelConfig(norm=kind, norm_eps=eps)
    y, cache = normalization.norm(x, w, "n", config)
    dy = generator.standard_normal(y.shape)
    dx, gradients = normalization.norm_backward(dy, cache)

    def loss():
        return float((normalization.norm(x, w, "n", config)[0] * dy).sum())

    assert set(gradients) == set(w)
    check_gradient(loss, x, dx)
    for name in w:
        check_gradient(loss, w[name], gradients[name])


@pytest.mark.parametrize("name", feedforward.ACTIVATIONS)
def test_activations(name):
    forward, backward = feedforward.ACTIVATIONS[name]
    x = np.random.default_rng(1).standard_normal((4, 30)) * 2
    x = np.where(np.abs(x) < 0.01, 0.5, x)  # away from ReLU's corner, where there is no slope
    y, cache = forward(x)
    dy = np.random.default_rng(2).standard_normal(y.shape)
    check_gradient(lambda: float((forward(x)[0] * dy).sum()), x, backward(dy, cache))


@pytest.mark.parametrize("name", feedforward.ACTIVATIONS)
def test_activations_are_torchs(name):
    torch = pytest.importorskip("torch")
    from tiny_transformer.feedforward import ACTIVATIONS

    x = np.concatenate([np.linspace(-40, 40, 4001), np.linspace(-1, 1, 2001), [0.0]])
    tensor = torch.from_numpy(x.copy()).requires_grad_()
    theirs = ACTIVATIONS[name](tensor)
    theirs.sum().backward()
    forward, backward = feedforward.ACTIVATIONS[name]
    y, cache = forward(x)
    np.testing.assert_allclose(y, theirs.detach().numpy(), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(backward(np.ones_like(x), cache), tensor.grad.numpy(), rtol=1e-13, atol=1e-14)


def test_erf_is_exact():
    x = np.concatenate([np.linspace(-9, 9, 5001), np.linspace(-0.1, 0.1, 1001), [0.0, 1e-300, 50.0, -50.0]])
    true = np.array([math.erf(v) for v in x])
    assert np.abs(feedforward.erf(x) - true).max() < 3e-15
    narrow = feedforward.erf(x.astype(np.float32))
    assert narrow.dtype == np.float32
    assert np.abs(narrow - true).max() < 5e-7


@few
@given(SEEDS, st.sampled_from(sorted(feedforward.ACTIVATIONS)), st.booleans())
def test_feed_forward(seed, activation, bias):
    generator = np.random.default_rng(seed)
    d, ff = (int(n) for n in generator.integers(2, 6, size=2))
    config = ModelConfig(d_model=d, n_heads=1, d_ff=ff, activation=activation)
    shapes = {"f.up": (ff, d), "f.down": (d, ff)} | ({"f.gate": (ff, d)} if activation == "swiglu" else {})
    w = {f"{name}.weight": generator.standard_normal(shape) for name, shape in shapes.items()}
    if bias:
        w |= {f"{name}.bias": generator.standard_normal(shape[0]) for name, shape in shapes.items()}
    x = generator.standard_normal((2, 3, d))
    y, cache = feedforward.feed_forward(x, w, "f", config)
    dy = generator.standard_normal(y.shape)
    dx, gradients = feedforward.feed_forward_backward(dy, cache)

    def loss():
        return float((feedforward.feed_forward(x, w, "f", config)[0] * dy).sum())

    assert set(gradients) == set(w)
    near_corner = activation in ("relu", "relu2") and np.abs(linear(x, w, "f.up")[0]).min() < 5e-3
    for array, gradient in [] if near_corner else [(x, dx), *((w[name], gradients[name]) for name in w)]:
        check_gradient(loss, array, gradient)


# --- attention ------------------------------------------------------------------------------------------------------


def random_attention(seed, masked, biased):
    generator = np.random.default_rng(seed)
    batch, heads, queries, keys, d = shape_of(generator, 5, high=4)
    q, k = generator.standard_normal((batch, heads, queries, d)), generator.standard_normal((batch, heads, keys, d))
    v = generator.standard_normal((batch, heads, keys, d + 1))
    mask = None
    if masked:
        mask = generator.random((batch, queries, keys)) < 0.6
        mask[0, 0] = False  # a query that may look nowhere
    bias = -generator.random((heads, queries, keys)) if biased else None
    return q, k, v, mask, bias, generator.standard_normal((batch, heads, queries, d + 1))


@few
@given(SEEDS, st.booleans(), st.booleans())
def test_attention(seed, masked, biased):
    q, k, v, mask, bias, doutput = random_attention(seed, masked, biased)
    (output, weights), cache = attention.scaled_dot_product_attention(q, k, v, mask, bias)
    gradients = attention.scaled_dot_product_attention_backward(doutput, cache)

    def loss():
        return float((attention.scaled_dot_product_attention(q, k, v, mask, bias)[0][0] * doutput).sum())

    np.testing.assert_allclose(weights @ v, output)
    if masked:
        assert not weights[np.broadcast_to(~mask[:, None], weights.shape)].any()
        assert not output[0, :, 0].any()
    for array, gradient in zip((q, k, v), gradients, strict=True):
        check_gradient(loss, array, gradient)


@few
@given(SEEDS, st.booleans())
def test_attention_is_torchs(seed, masked):
    torch = pytest.importorskip("torch")
    from tiny_transformer.attention import scaled_dot_product_attention

    arrays = random_attention(seed, masked, True)
    q, k, v, mask, bias, doutput = (None if a is None else torch.from_numpy(a.copy()) for a in arrays)
    for tensor in (q, k, v):
        tensor.requires_grad_()
    theirs, their_weights = scaled_dot_product_attention(q, k, v, mask, bias)
    theirs.backward(doutput)
    (output, weights), cache = attention.scaled_dot_product_attention(*arrays[:5])
    np.testing.assert_allclose(output, theirs.detach().numpy(), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(weights, their_weights.detach().numpy(), rtol=1e-11, atol=1e-13)
    for tensor, gradient in zip((q, k, v), attention.scaled_dot_product_attention_backward(arrays[5], cache), strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-10, atol=1e-12)


def test_softmax():
    generator = np.random.default_rng(0)
    scores, dweights = generator.standard_normal((2, 3, 4, 5)) * 3, generator.standard_normal((2, 3, 4, 5))
    weights, log_sum = attention.softmax(scores)
    np.testing.assert_allclose(weights.sum(-1), 1)
    np.testing.assert_allclose(np.exp(scores - log_sum), weights)
    check_gradient(lambda: float((attention.softmax(scores)[0] * dweights).sum()), scores, attention.softmax_backward(dweights, weights))
    huge, _ = attention.softmax(np.array([[1e4, 1e4 - 1], [-np.inf, -np.inf]]))
    np.testing.assert_allclose(huge, [[1 / (1 + math.exp(-1)), 1 / (1 + math.e)], [0, 0]])


def test_what_a_mask_hides_gets_no_gradient():
    generator = np.random.default_rng(0)
    q, k, v = generator.standard_normal((3, 1, 2, 6, 4))
    _, cache = attention.attend(q, k, v, causal=True)
    doutput = np.zeros_like(q)
    doutput[:, :, 2] = 1  # the third query alone asks
    for gradient, seen in zip(attention.attend_backward(doutput, cache), (slice(2, 3), slice(0, 3), slice(0, 3)), strict=True):
        assert gradient[:, :, seen].any()
        gradient[:, :, seen] = 0
        assert not gradient.any()


def test_attention_keeps_nothing_that_grows_with_the_square_of_the_sequence():
    q = np.random.default_rng(0).standard_normal((2, 3, 50, 4))
    for causal in (True, False):
        _, cache = attention.attend(q, q, q, causal=causal)
        kept = [part for part in cache if part is not None]
        assert all(part.shape[-1] <= 4 or part.dtype == bool for part in kept)  # the mask is shared by rows and heads
        assert all(part.ndim == 2 for part in kept if part.dtype == bool)


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("causal", [True, False])
def test_masks_are_torchs(causal, window):
    torch = pytest.importorskip("torch")
    from tiny_transformer import attention as theirs

    for queries, keys in ((5, 5), (1, 4), (2, 6)):
        ours = attention.structure_mask(queries, keys, causal=causal, window=window)
        other = theirs.structure_mask(queries, keys, causal=causal, window=window)
        assert (ours is None) == (other is None)
        assert ours is None or (ours == other.numpy()).all()
    assert (attention.create_causal_mask(4) == theirs.create_causal_mask(4).numpy()).all()
    assert torch.equal(torch.from_numpy(attention.create_causal_mask(4)), theirs.create_causal_mask(4))


def test_a_mask_of_numbers_is_refused():
    x = np.zeros((1, 2, 3, 4))
    for call in (attention.scaled_dot_product_attention, lambda q, k, v, mask: attention.attend(q, k, v, causal=True, mask=mask)):
        with pytest.raises(ValueError, match="must be bool"):
            call(x, x, x, np.ones((3, 3)))


# --- heads ----------------------------------------------------------------------------------------------------------


@few
@given(SEEDS)
def test_heads_move_numbers_and_move_them_back(seed):
    generator = np.random.default_rng(seed)
    batch, seq, heads, d_head, times = shape_of(generator, 5, low=2)
    x = generator.standard_normal((batch, seq, heads * d_head))
    split = multi_head.split_heads(x, heads)
    for h in range(heads):
        assert (split[:, h] == x[:, :, h * d_head : (h + 1) * d_head]).all()
    assert (multi_head.merge_heads(split) == x).all()
    # a linear map and its backward pass: <f(x), dy> = <x, f_backward(dy)> for all x and dy
    wide = multi_head.expand_kv(split, times)
    for h in range(heads * times):
        assert (wide[:, h] == split[:, h // times]).all()
    for y, backward, before in (
        (split, multi_head.split_heads_backward, x),
        (multi_head.merge_heads(split), lambda dy: multi_head.merge_heads_backward(dy, heads), split),
        (wide, lambda dy: multi_head.expand_kv_backward(dy, times), split),
    ):
        dy = generator.standard_normal(y.shape)
        dx = backward(dy)
        assert dx.shape == before.shape
        assert np.isclose((y * dy).sum(), (before * dx).sum(), rtol=1e-12)


def random_weights(config, seed):
    """Weights large enough that every part matters."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.standard_normal(shape) * 0.3 + (name.endswith("weight") and len(shape) == 1)
        for name, shape in whole.weight_shapes(config).items()
    }


@pytest.mark.parametrize("option", OPTIONS)
def test_blocks(option):
    """One block with everything it can hold, dropout and an extra mask included."""
    config = small_config(option, n_layers=1, dropout=0.4)
    w = random_weights(config, 3)
    generator = np.random.default_rng(4)
    x = generator.standard_normal((2, 6, config.d_model))
    mask = generator.random((2, 6, 6)) < 0.8
    model = whole.TinyTransformerLM(config, w)
    more = {
        "bias": model._score_bias(6, 6), "rotation": model._rotation(np.arange(6)),
        "keep": tuple(generator.random((2, *x.shape)) < 0.6),
    }  # fmt: skip
    y, cache = transformer_block.transformer_block(x, w, "blocks.0", config, mask, **more)
    dy = generator.standard_normal(y.shape)
    dx, gradients = transformer_block.transformer_block_backward(dy, cache)

    def loss():
        return float((transformer_block.transformer_block(x, w, "blocks.0", config, mask, **more)[0] * dy).sum())

    assert set(gradients) == {name for name in w if name.startswith("blocks")}
    smooth = config.activation not in ("relu", "relu2")
    for array, gradient in [(x, dx), *((w[name], gradients[name]) for name in gradients)]:
        slopes, places = by_nudging(loss, array, step=2e-4 if smooth else 1e-6, most=12)
        error = np.linalg.norm(slopes - gradient.reshape(-1)[places])
        assert error < (1e-6 if smooth else 1e-5) * max(np.linalg.norm(slopes), 1)


# --- embeddings, positions ------------------------------------------------------------------------------------------


@few
@given(SEEDS)
def test_rotation_backward(seed):
    generator = np.random.default_rng(seed)
    batch, heads, seq, half = shape_of(generator, 4, high=4)
    x = generator.standard_normal((batch, heads, seq, 2 * half))
    cos, sin = embeddings.rotation(generator.integers(0, 50, size=(batch, seq)), embeddings.rotary_frequencies(2 * half, 100.0))
    dy = generator.standard_normal(x.shape)
    check_gradient(lambda: float((embeddings.rotate(x, cos, sin) * dy).sum()), x, embeddings.rotate_backward(dy, cos, sin))


def test_lookup_adds_up_what_is_read_twice():
    generator = np.random.default_rng(0)
    table, ids = generator.standard_normal((5, 3)), np.array([[0, 2, 2], [2, 4, 0]])
    dy = generator.standard_normal((2, 3, 3))
    check_gradient(lambda: float((embeddings.lookup(ids, table) * dy).sum()), table, embeddings.lookup_backward(dy, ids, 5))


@pytest.mark.parametrize("option", ["gpt2", "sinusoidal", "rotary", "token types", "token types rms"])
def test_embed(option):
    config = small_config(option)
    w = {name: weight for name, weight in random_weights(config, 5).items() if name.startswith("embeddings")}
    generator = np.random.default_rng(6)
    ids, types = generator.integers(17, size=(3, 5)), generator.integers(max(config.n_token_types, 1), size=(3, 5))
    positions = np.arange(5)
    x, cache = embeddings.embed(ids, positions, w, config, types)
    dx = generator.standard_normal(x.shape)
    gradients = embeddings.embed_backward(dx, cache)
    assert set(gradients) == set(w)
    for name in w:
        check_gradient(lambda: float((embeddings.embed(ids, positions, w, config, types)[0] * dx).sum()), w[name], gradients[name])


def test_positions_are_torchs():
    torch = pytest.importorskip("torch")
    from tiny_transformer import embeddings as theirs

    for n, d in ((7, 6), (130, 24), (3, 5)):
        np.testing.assert_allclose(embeddings.sinusoidal_positions(n, d), theirs.sinusoidal_positions(n, d).numpy(), rtol=0, atol=6e-8)
    for option in ("rotary", "linear rope", "llama3 rope"):
        config = small_config(option)
        ours = embeddings.rotary_frequencies(16, config.rope_theta, config.rope_scaling)
        other = theirs.rotary_frequencies(16, config.rope_theta, config.rope_scaling)
        np.testing.assert_allclose(ours, other.numpy(), rtol=1e-15)
        for positions in (np.arange(300), np.array([[3, 4, 5], [0, 1, 2]])):
            for a, b in zip(embeddings.rotation(positions, ours), theirs.rotation(torch.from_numpy(positions), other), strict=True):
                assert a.dtype == np.float32
                np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=1.3e-7)
    for heads in (1, 4, 6, 12):
        assert (embeddings.alibi_slopes(heads) == theirs.alibi_slopes(heads).numpy()).all()
        bias = theirs.alibi_bias(theirs.alibi_slopes(heads), 3, 5)
        assert (embeddings.alibi_bias(embeddings.alibi_slopes(heads), 3, 5) == bias.numpy()).all()


# --- the loss, the output -------------------------------------------------------------------------------------------


@few
@given(SEEDS, st.sampled_from(["mean", "sum"]))
def test_cross_entropy(seed, reduction):
    torch = pytest.importorskip("torch")
    from tiny_transformer.training.objectives import cross_entropy

    generator = np.random.default_rng(seed)
    logits = generator.standard_normal((*shape_of(generator, 2), 7)) * 3
    targets = generator.integers(7, size=logits.shape[:2])
    targets[generator.random(targets.shape) < 0.3] = IGNORE
    loss, cache = objectives.cross_entropy(logits, targets, reduction)
    dlogits = objectives.cross_entropy_backward(cache)
    assert loss == pytest.approx(cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets), reduction).item(), rel=1e-12)
    check_gradient(lambda: objectives.cross_entropy(logits, targets, reduction)[0], logits, dlogits)
    assert not dlogits[targets == IGNORE].any()


def test_cross_entropy_of_nothing_and_of_the_wrong_shape():
    loss, cache = objectives.cross_entropy(np.ones((1, 2, 3)), np.full((1, 2), IGNORE))
    assert loss == 0
    assert not objectives.cross_entropy_backward(cache).any()
    with pytest.raises(ValueError, match="targets must have the logits' shape"):
        objectives.cross_entropy(np.ones((1, 2, 3)), np.zeros((2, 1), dtype=int))


@pytest.mark.parametrize("option", ["gpt2", "untied", "softcap"])
def test_unembed(option):
    config = small_config(option)
    name = "embeddings.token.weight" if config.tie_weights else "unembed.weight"
    generator = np.random.default_rng(7)
    w, hidden = {name: generator.standard_normal((17, 24))}, generator.standard_normal((2, 3, 24))
    logits, cache = whole.unembed(hidden, w, config)
    dlogits = generator.standard_normal(logits.shape)
    dhidden, gradients = whole.unembed_backward(dlogits, cache)

    def loss():
        return float((whole.unembed(hidden, w, config)[0] * dlogits).sum())

    assert set(gradients) == {name}
    check_gradient(loss, hidden, dhidden)
    check_gradient(loss, w[name], gradients[name])


def test_dropout():
    generator = np.random.default_rng(8)
    x, dy, keep = generator.standard_normal((2, 3, 4)), generator.standard_normal((2, 3, 4)), generator.random((2, 3, 4)) < 0.7
    assert transformer_block.dropout(x, None, 0.3) is x
    assert transformer_block.dropout_backward(dy, None, 0.3) is dy
    gradient = transformer_block.dropout_backward(dy, keep, 0.3)
    check_gradient(lambda: float((transformer_block.dropout(x, keep, 0.3) * dy).sum()), x, gradient)
    np.testing.assert_allclose(transformer_block.dropout(np.ones((2, 3, 4)), keep, 0.3), keep / 0.7)
