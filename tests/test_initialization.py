"""The first weights: the documented table, one seed on every device, and a first loss of ln V."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.options import OPTIONS, small_config
from tiny_transformer.config import PRESETS, ModelConfig
from tiny_transformer.initialization import initial_std, initial_weight
from tiny_transformer.model import TinyTransformerLM


def first_loss(config: ModelConfig, seed: int = 0) -> float:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(config.vocab_size, (8, min(config.max_seq_len, 64) + 1), generator=generator)
    with torch.no_grad():
        logits = TinyTransformerLM(config, seed=seed).eval()(ids[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()


@pytest.mark.parametrize("option", OPTIONS)
def test_first_loss_is_ln_v_for_every_option(option):
    config = small_config(option, d_model=128, max_seq_len=64, vocab_size=65)
    assert first_loss(config) == pytest.approx(math.log(65), rel=0.02)


@pytest.mark.parametrize("name", ["tiny", "cpu", "baby-gpt", "vaswani", "wikitext2-300d"])
def test_first_loss_is_ln_v_for_the_presets(name):
    assert first_loss(PRESETS[name]) == pytest.approx(math.log(PRESETS[name].vocab_size), rel=0.02)


@pytest.mark.parametrize("d_model", [16, 64, 256, 768])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("place", ["pre", "post"])
def test_first_loss_is_ln_v_at_any_width(d_model, tied, place):
    config = ModelConfig(d_model=d_model, n_layers=2, n_heads=4, tie_weights=tied, norm_position=place, max_seq_len=64)
    assert first_loss(config) == pytest.approx(math.log(65), rel=0.02)


def test_the_table():
    config = ModelConfig(d_model=128, n_layers=8)
    model = TinyTransformerLM(config, seed=1)
    for name, weight in model.weights().items():
        std = initial_std(name, config)
        if std is None:
            assert (weight == (0 if name.endswith("bias") else 1)).all(), name
        else:
            assert weight.std().item() == pytest.approx(std, rel=0.05), name
            assert abs(weight.mean().item()) < 4 * std / math.sqrt(weight.numel()), name
    assert initial_std("blocks.0.attention.out_proj.weight", config) == 0.02 / 4
    assert initial_std("blocks.0.feedforward.up.weight", config) == 0.02


def test_every_weight_has_numbers_of_its_own():
    config = ModelConfig()
    names = ("blocks.0.attention.W_key.weight", "blocks.0.attention.W_query.weight", "blocks.1.attention.W_key.weight")
    draws = [initial_weight(name, (128, 128), config, 0) for name in names] + [initial_weight(names[0], (128, 128), config, 1)]
    for i, first in enumerate(draws):
        for second in draws[i + 1 :]:
            assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
    assert np.array_equal(draws[0], initial_weight(names[0], (128, 128), config, 0))


def test_seeds():
    config = small_config()
    same = [TinyTransformerLM(config, seed=5).weights() for _ in range(2)]
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0])
    torch.manual_seed(0)
    drawn = [TinyTransformerLM(config) for _ in range(2)]
    assert not torch.equal(drawn[0].embeddings.token.weight, drawn[1].embeddings.token.weight)
    torch.manual_seed(0)
    assert torch.equal(TinyTransformerLM(config).embeddings.token.weight, drawn[0].embeddings.token.weight)
