"""Attention against PyTorch's, against loops, and against what must be true of any attention."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_transformer import attention
from tiny_transformer.attention import attend, create_causal_mask, scaled_dot_product_attention, structure_mask
from tiny_transformer.embeddings import alibi_bias, alibi_slopes
from tiny_transformer.utils.reference import reference_path


def random_qkv(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(3)]


def test_three_keys_by_hand():
    key = torch.tensor([1.0, 2.0, 3.0]).log()[:, None]
    output, weights = scaled_dot_product_attention(torch.ones(1, 1), key, torch.tensor([[6.0], [12.0], [18.0]]))
    torch.testing.assert_close(weights, torch.tensor([[1 / 6, 1 / 3, 1 / 2]]))
    torch.testing.assert_close(output, torch.tensor([[14.0]]))


def test_equals_a_loop_over_every_number():
    query, key, value = random_qkv(2, 3, 4, 5, dtype=torch.float64)
    mask = torch.rand(4, 4) > 0.3
    mask |= torch.eye(4, dtype=torch.bool)
    output, weights = scaled_dot_product_attention(query, key, value, mask)
    for b in range(2):
        for h in range(3):
            for i in range(4):
                scores = [sum(query[b, h, i, d] * key[b, h, j, d] for d in range(5)) / math.sqrt(5) for j in range(4)]
                shares = [math.exp(s) * bool(mask[i, j]) for j, s in enumerate(scores)]
                for j in range(4):
                    assert weights[b, h, i, j].item() == pytest.approx(shares[j] / sum(shares), rel=1e-12)
                for d in range(5):
                    expected = sum(shares[j] / sum(shares) * value[b, h, j, d].item() for j in range(4))
                    assert output[b, h, i, d].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("d_head", [1, 7, 64])
@pytest.mark.parametrize("causal", [True, False])
def test_equals_pytorch(d_head, causal):
    query, key, value = random_qkv(2, 3, 9, d_head)
    mask = create_causal_mask(9) if causal else None
    output, _ = scaled_dot_product_attention(query, key, value, mask)
    torch.testing.assert_close(output, F.scaled_dot_product_attention(query, key, value, is_causal=causal))


def test_causal_mask():
    mask = create_causal_mask(5)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[j <= i for j in range(5)] for i in range(5)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_a_mask_of_numbers_is_refused(dtype):
    query, key, value = random_qkv(1, 1, 3, 2)
    mask = create_causal_mask(3).to(dtype)
    for attempt in (
        lambda: scaled_dot_product_attention(query, key, value, mask),
        lambda: attend(query, key, value, causal=False, mask=mask),
    ):
        with pytest.raises(ValueError, match=r"torch\.bool.*mask\.bool\(\)"):
            attempt()


def test_the_mask_has_no_share_left_over():
    """Masking after the softmax keeps the order and breaks the sum: every row must sum to exactly 1 over what it may see."""
    query, key, value = random_qkv(2, 2, 6, 4)
    _, weights = scaled_dot_product_attention(query, key, value, create_causal_mask(6))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 6))
    assert (weights.triu(1) == 0).all()


def test_scores_are_scaled_by_the_root_of_the_width():
    query, key, value = random_qkv(1, 1, 2, 16)
    _, weights = scaled_dot_product_attention(query, key, value)
    ratio = torch.log(weights[0, 0, 0, 0] / weights[0, 0, 0, 1])
    torch.testing.assert_close(ratio, query[0, 0, 0] @ (key[0, 0, 0] - key[0, 0, 1]) / 4)


@pytest.mark.parametrize("shape", [(6, 6), (2, 6, 6), (2, 1, 6, 6), (2, 3, 6, 6), (2, 1, 6)])
def test_every_mask_shape_broadcasts_over_heads(shape):
    query, key, value = random_qkv(2, 3, 6, 4)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[..., 0] = True
    full = (mask[:, None] if mask.dim() == 3 else mask).expand(2, 3, 6, 6)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=full)
    torch.testing.assert_close(scaled_dot_product_attention(query, key, value, mask)[0], expected)
    torch.testing.assert_close(attend(query, key, value, causal=False, mask=mask), expected)


def test_a_row_that_may_look_nowhere_is_zero_and_has_a_gradient():
    query, key, value = (t.requires_grad_() for t in random_qkv(1, 1, 3, 4))
    mask = create_causal_mask(3)
    mask[1] = False
    for output in (scaled_dot_product_attention(query, key, value, mask)[0], attend(query, key, value, causal=False, mask=mask)):
        assert (output[0, 0, 1] == 0).all()
        output.sum().backward()
        assert all(torch.isfinite(t.grad).all() for t in (query, key, value))


@given(
    st.integers(1, 7),
    st.integers(0, 5),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 9)),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_fused_equals_readable_in_values_and_gradients(new, old, causal, window, with_mask, with_bias, seed):
    """Any number of new queries behind any number of old keys, any structure, mask and bias."""
    generator = torch.Generator().manual_seed(seed)
    keys = new + old
    query = torch.randn(2, 2, new, 4, generator=generator, dtype=torch.float64)
    key, value = torch.randn(2, 2, 2, keys, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, new, keys, generator=generator) > 0.3 if with_mask else None
    bias = alibi_bias(alibi_slopes(2), new, keys).double() if with_bias else None
    results = []
    for readable in (False, True):
        inputs = [t.clone().requires_grad_() for t in (query, key, value)]
        if readable:
            with reference_path():
                output = attend(*inputs, causal=causal, window=window, mask=mask, bias=bias)
        else:
            output = attend(*inputs, causal=causal, window=window, mask=mask, bias=bias)
        output.square().sum().backward()
        results.append([output, *(t.grad for t in inputs)])
    for fused, readable in zip(*results, strict=True):
        torch.testing.assert_close(fused, readable)


@given(st.integers(1, 8), st.integers(0, 5), st.booleans(), st.one_of(st.none(), st.integers(1, 9)))
@settings(max_examples=80, deadline=None)
def test_structure_mask_position_by_position(new, old, causal, window):
    mask = structure_mask(new, new + old, causal=causal, window=window)
    for i in range(new):
        for j in range(new + old):
            here = old + i
            allowed = (j <= here or not causal) and (window is None or abs(here - j) < window)
            assert (mask is None and allowed) or (mask is not None and mask[i, j].item() == allowed)


def test_permuting_keys_changes_nothing_and_permuting_queries_permutes_the_output():
    query, key, value = random_qkv(1, 2, 6, 4)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    output, weights = scaled_dot_product_attention(query, key, value)
    permuted, _ = scaled_dot_product_attention(query, key[:, :, order], value[:, :, order])
    torch.testing.assert_close(permuted, output)
    torch.testing.assert_close(scaled_dot_product_attention(query[:, :, order], key, value)[0], output[:, :, order])
    assert not torch.allclose(weights, weights.transpose(-1, -2), atol=1e-3)  # attention is not symmetric


def test_large_scores_do_not_overflow():
    query, key, value = (1e4 * t for t in random_qkv(1, 1, 4, 8))
    output, weights = scaled_dot_product_attention(query, key, value, create_causal_mask(4))
    assert torch.isfinite(output).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 1, 4))


def test_recording_leaves_no_trace():
    query, key, value = random_qkv(1, 2, 5, 4)
    before = attend(query, key, value, causal=True)
    with attention.record_weights() as weights:
        during = attend(query, key, value, causal=True)
    after = attend(query, key, value, causal=True)
    assert len(weights) == 1
    assert weights[0].shape == (1, 2, 5, 5)
    torch.testing.assert_close(weights[0] @ value, before)
    torch.testing.assert_close(during, before)
    assert torch.equal(after, before)


@pytest.mark.parametrize("shape", [(2, 5), (5, 4), (3, 5, 5), (2, 3, 5, 5), (1, 2, 4, 5, 5)])
@pytest.mark.parametrize("readable", [False, True])
def test_a_mask_that_does_not_fit_says_what_would(shape, readable):
    query, key, value = random_qkv(2, 4, 5, 8)
    mask = torch.ones(shape, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"mask has shape.*must be \(query, key\) = \(5, 5\)"):
        if readable:
            scaled_dot_product_attention(query, key, value, mask)
        else:
            attend(query, key, value, causal=True, mask=mask)


def test_a_padding_mask_as_the_message_says():
    query, key, value = random_qkv(2, 4, 5, 8)
    real = torch.arange(5) < torch.tensor([[5], [3]])  # (batch, key)
    _, weights = scaled_dot_product_attention(query, key, value, real[:, None, :])
    assert (weights[1, :, :, 3:] == 0).all() and (weights[1, :, :, :3] > 0).all() and (weights[0] > 0).all()
