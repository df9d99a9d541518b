"""A model with more tokens: what it knew before stays as it was, in both engines."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.options import small_config
from tiny_transformer.config import ConfigError
from tiny_transformer.growing import grow_vocabulary
from tiny_transformer.model import TinyTransformerLM as TorchModel
from tiny_transformer.numpy_engine.model import TinyTransformerLM, init_weights


@pytest.mark.parametrize("option", ["gpt2", "untied", "modern", "token types", "bert"])
@settings(deadline=None)
@given(more=st.integers(0, 9), seed=st.integers(0, 100))
def test_old_logits_stay_and_new_tokens_stay_rare(option, more, seed):
    config = small_config("token types", causal=False) if option == "bert" else small_config(option)
    draw = np.random.default_rng(seed)
    weights = {name: weight * 3 for name, weight in init_weights(config, seed).items()}
    weights |= {name: draw.standard_normal(weights[name].shape, np.float32) for name in weights if name == "unembed.bias"}
    larger, grown = grow_vocabulary(config, weights, config.vocab_size + more)
    ids = np.random.default_rng(seed).integers(config.vocab_size, size=(2, 7))
    before, after = TinyTransformerLM(config, weights).forward(ids), TinyTransformerLM(larger, grown).forward(ids)
    assert after.shape[-1] == config.vocab_size + more
    np.testing.assert_allclose(after[..., : config.vocab_size], before, atol=1e-4)
    if config.logit_softcap is None:
        shares = np.exp(after - after.max(-1, keepdims=True))
        old = shares[..., : config.vocab_size].sum(-1) / shares.sum(-1)
        assert (old >= config.vocab_size / (config.vocab_size + more) - 1e-5).all()
    twin = TorchModel(larger, weights={name: torch.from_numpy(weight) for name, weight in grown.items()}).eval()
    np.testing.assert_allclose(twin(torch.from_numpy(ids)).detach().numpy(), after, atol=1e-4)


def test_the_given_weights_are_not_changed_and_fewer_tokens_are_refused():
    config = small_config("untied")
    weights = init_weights(config, 0)
    _, grown = grow_vocabulary(config, weights, 20)
    assert weights["unembed.weight"].shape == (17, 24)
    assert grown["unembed.weight"].shape == grown["embeddings.token.weight"].shape == (20, 24)
    assert grown["blocks.0.norm1.weight"] is weights["blocks.0.norm1.weight"]
    with pytest.raises(ConfigError, match="vocab_size=16: the model has 17 tokens and can only grow"):
        grow_vocabulary(config, weights, 16)
