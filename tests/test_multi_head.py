"""Heads: split and merge, grouped keys, and equality with torch.nn.MultiheadAttention."""

import pytest
import torch
from torch import nn

from tests.options import small_config
from tiny_transformer.attention import create_causal_mask, record_weights
from tiny_transformer.config import ModelConfig
from tiny_transformer.embeddings import apply_rotary
from tiny_transformer.multi_head import MultiHeadAttention, expand_kv, merge_heads, split_heads


def test_split_keeps_time_and_cuts_width():
    x = torch.arange(2 * 3 * 8).view(2, 3, 8)
    heads = split_heads(x, 4)
    assert heads.shape == (2, 4, 3, 2)
    for b in range(2):
        for h in range(4):
            for t in range(3):
                assert heads[b, h, t].tolist() == x[b, t, 2 * h : 2 * h + 2].tolist()
    assert torch.equal(merge_heads(heads), x)


def test_expand_repeats_each_head_beside_itself():
    x = torch.randn(2, 3, 5, 4)
    assert torch.equal(expand_kv(x, 2), x.repeat_interleave(2, dim=1))
    assert expand_kv(x, 1) is x


@pytest.mark.parametrize("causal", [True, False])
def test_equals_torch_multihead_attention(causal):
    config = ModelConfig(d_model=24, n_heads=4, causal=causal)
    ours, theirs = MultiHeadAttention(config), nn.MultiheadAttention(24, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.W_query.weight, ours.W_key.weight, ours.W_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.W_query.bias, ours.W_key.bias, ours.W_value.bias]))
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    x = torch.randn(2, 7, 24)
    expected, weights = theirs(x, x, x, attn_mask=~create_causal_mask(7) if causal else None, average_attn_weights=False)
    with record_weights() as recorded:
        ours(x)
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(recorded[0], weights)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_grouped_heads_equal_full_heads_with_repeated_weights(kv_heads):
    grouped = MultiHeadAttention(ModelConfig(d_model=24, n_heads=4, n_kv_heads=kv_heads))
    full = MultiHeadAttention(ModelConfig(d_model=24, n_heads=4))
    with torch.no_grad():
        for name in ("W_query", "out_proj"):
            getattr(full, name).load_state_dict(getattr(grouped, name).state_dict())
        for name in ("W_key", "W_value"):
            for which in ("weight", "bias"):
                source = getattr(getattr(grouped, name), which)
                repeated = source.view(kv_heads, 6, -1).repeat_interleave(4 // kv_heads, dim=0).view(24, -1)
                target = getattr(getattr(full, name), which)
                target.copy_(repeated.view_as(target))
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(grouped(x), full(x))


def test_permuting_heads_changes_nothing():
    layer = MultiHeadAttention(ModelConfig(d_model=24, n_heads=4))
    x = torch.randn(2, 5, 24)
    before = layer(x)
    order = torch.tensor([2, 0, 3, 1])
    rows = (order[:, None] * 6 + torch.arange(6)).flatten()
    with torch.no_grad():
        for linear in (layer.W_query, layer.W_key, layer.W_value):
            linear.weight.copy_(linear.weight[rows])
            linear.bias.copy_(linear.bias[rows])
        layer.out_proj.weight.copy_(layer.out_proj.weight[:, rows])
    torch.testing.assert_close(layer(x), before)


def test_the_jacobian_is_exactly_lower_triangular():
    """Finds a head split that cuts time, which "a changed future leaves the past alone" can miss."""
    layer = MultiHeadAttention(ModelConfig(d_model=8, n_heads=2)).double()
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x).sum(-1)[0], x)[:, 0].abs().sum(-1)  # (out, in)
    assert torch.equal(jacobian > 0, create_causal_mask(6))


def test_an_extra_mask_can_only_hide():
    layer = MultiHeadAttention(ModelConfig(d_model=8, n_heads=2))
    x = torch.randn(2, 5, 8)
    assert torch.equal(layer(x, torch.ones(5, 5, dtype=torch.bool)), layer(x)) or torch.allclose(
        layer(x, torch.ones(5, 5, dtype=torch.bool)), layer(x), atol=1e-6
    )
    hidden = torch.ones(2, 5, 5, dtype=torch.bool)
    hidden[1, :, 0] = False
    hidden[1, 0, 0] = True
    changed = layer(x, hidden)
    torch.testing.assert_close(changed[0], layer(x)[0])
    assert not torch.allclose(changed[1, 1:], layer(x)[1, 1:])


def test_qk_norm_bounds_the_scores():
    """With gains of 1, a normalised query and key have length √d_head, so no score exceeds √d_head."""
    config = ModelConfig(d_model=24, n_heads=4, qk_norm=True)
    layer = MultiHeadAttention(config)
    seen = []
    x = 1000 * torch.randn(1, 5, 24)

    def watch(q):
        seen.append(q)
        return q

    layer(x, rotate=watch)
    for turned in seen:
        torch.testing.assert_close(turned.square().mean(-1), torch.ones(1, 4, 5), rtol=1e-3, atol=1e-3)


def test_rotation_turns_queries_and_keys_alike():
    """Only differences of positions matter: the same text a hundred positions later gives the same."""
    layer = MultiHeadAttention(ModelConfig(d_model=24, n_heads=4)).double()
    torch.nn.init.normal_(layer.W_query.weight)
    torch.nn.init.normal_(layer.W_key.weight)
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    here, later = (layer(x, rotate=lambda h, start=start: apply_rotary(h, torch.arange(start, start + 5))) for start in (0, 100))
    torch.testing.assert_close(here, later, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(here, layer(x), atol=1e-3)


def test_wrong_width_is_named():
    with pytest.raises(ValueError, match=r"input of attention.*\(2, 5, 23\).*must be 24"):
        MultiHeadAttention(small_config())(torch.zeros(2, 5, 23))
