"""One block: its two equations, and equality with PyTorch's encoder layer."""

import pytest
import torch
from torch import nn

from tests.options import OPTIONS, small_config
from tiny_transformer.config import ModelConfig
from tiny_transformer.transformer_block import TransformerBlock


def test_pre_and_post_are_their_equations():
    x = torch.randn(2, 5, 24)
    for place in ("pre", "post"):
        block = TransformerBlock(small_config(norm_position=place))
        torch.nn.init.normal_(block.norm1.weight)
        torch.nn.init.normal_(block.norm2.weight)
        if place == "pre":
            middle = x + block.attention(block.norm1(x))
            expected = middle + block.feedforward(block.norm2(middle))
        else:
            middle = block.norm1(x + block.attention(x))
            expected = block.norm2(middle + block.feedforward(middle))
        torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_equals_torch_encoder_layer(place, activation):
    ours = TransformerBlock(ModelConfig(d_model=24, n_heads=4, causal=False, norm_position=place, activation=activation))
    theirs = nn.TransformerEncoderLayer(24, 4, 96, 0.0, activation, batch_first=True, norm_first=place == "pre")
    a, f = ours.attention, ours.feedforward
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([a.W_query.weight, a.W_key.weight, a.W_value.weight]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([a.W_query.bias, a.W_key.bias, a.W_value.bias]))
        for mine, other in ((a.out_proj, theirs.self_attn.out_proj), (f.up, theirs.linear1), (f.down, theirs.linear2)):
            other.load_state_dict(mine.state_dict())
        theirs.norm1.load_state_dict(ours.norm1.state_dict())
        theirs.norm2.load_state_dict(ours.norm2.state_dict())
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(ours(x), theirs(x))


def test_with_branches_at_zero_a_pre_norm_block_is_the_identity():
    block = TransformerBlock(small_config())
    for linear in (block.attention.out_proj, block.feedforward.down):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    x = torch.randn(2, 5, 24)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("option", OPTIONS)
def test_dropout_acts_on_both_branches_and_only_in_training(option):
    block = TransformerBlock(small_config(option, dropout=0.5))
    x = torch.randn(2, 5, 24)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_dropout_zeroes_the_stated_share_and_keeps_the_mean():
    block = TransformerBlock(ModelConfig(d_model=64, n_heads=4, dropout=0.3))
    branch = torch.ones(200, 64)
    dropped = block.dropout(branch)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert dropped.max().item() == pytest.approx(1 / 0.7)
