"""The check for a mask that shows the future: silent on every causal model, loud on each way to break one."""

import pytest
import torch
from torch import Tensor

from tests.options import small_config
from tiny_transformer import attention
from tiny_transformer.config import ConfigError
from tiny_transformer.evaluation.future_leak import FutureLeak, future_leak
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.utils.reference import reference_path


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "alibi", "none"])
@pytest.mark.parametrize("window", [None, 3])
def test_causal_models_are_silent(position, window):
    model = TinyTransformerLM(small_config(position=position, window=window), seed=0).eval()
    assert future_leak(model, model.config.vocab_size, 12) is None


def test_a_model_that_may_look_anywhere_is_found():
    model = TinyTransformerLM(small_config(causal=False), seed=0).eval()
    found = future_leak(model, model.config.vocab_size, 12)
    assert found is not None and found.token > found.position


@pytest.mark.parametrize("shift", [1, 3])
def test_a_shifted_triangle_is_found_however_untrained_the_model(shift):
    model = TinyTransformerLM(small_config(causal=False, n_layers=1), seed=0).eval()
    mask = torch.ones(12, 12, dtype=torch.bool).tril(shift)
    found = future_leak(lambda ids: model(ids, mask), model.config.vocab_size, 12)
    assert found is not None and 1 <= found.token - found.position <= shift
    mask = mask.tril(0)
    assert future_leak(lambda ids: model(ids, mask), model.config.vocab_size, 12) is None


def test_a_mask_of_zeros_and_ones_added_to_the_scores_is_found(monkeypatch):
    model = TinyTransformerLM(small_config(), seed=0).eval()

    def added(query, key, value, mask=None, bias=None):
        scores = query @ key.transpose(-2, -1) / query.size(-1) ** 0.5
        weights = (scores + mask.float()).softmax(-1)
        return weights @ value, weights

    with reference_path():
        assert future_leak(model, model.config.vocab_size, 12) is None
        monkeypatch.setattr(attention, "scaled_dot_product_attention", added)
        assert future_leak(model, model.config.vocab_size, 12) is not None


def test_the_leak_is_the_one_that_was_made():
    weights = torch.zeros(6, 6)
    weights[2, 5], weights[1, 2] = 3.0, 1.0  # position 2 sees token 5, and position 1 a little of token 2
    one_hot = torch.eye(7)

    def model(ids: Tensor) -> Tensor:
        return one_hot[ids] + torch.einsum("pt,btv->bpv", weights, one_hot[ids])

    assert future_leak(model, 7, 6) == FutureLeak(2, 5, 3.0)
    weights[2, 5] = 0
    found = future_leak(model, 7, 6)
    assert found == FutureLeak(1, 2, 1.0)
    assert str(found) == "the logits at position 1 change by 1 when token 2 does: that is its target. Look at the mask"
    weights[1, 2] = 1e-7  # rounding
    assert future_leak(model, 7, 6) is None


def test_there_must_be_something_to_change():
    for sizes in ((1, 8), (8, 1)):
        with pytest.raises(ConfigError, match="each must be at least 2"):
            future_leak(lambda ids: ids, *sizes)
