"""Every option of a model together with every other: the NumPy engine's gradients against autograd, in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.options import SMALL
from tests.test_numpy_engine import assert_same, random_batch, random_weights
from tiny_transformer.config import ModelConfig

DIMENSIONS: dict[str, tuple] = {
    "activation": ("relu", "gelu", "gelu_tanh", "relu2", "swiglu"),
    "position": ("learned", "sinusoidal", "rotary", "alibi", "none"),
    "norm": ("layer", "rms"),
    "norm_position": ("pre", "post"),
    "qk_norm": (False, True),
    "n_kv_heads": (None, 2, 1),
    "d_head": (None, 10),
    "d_ff": (None, 7),
    "window": (None, 3),
    "causal": (True, False),
    "bias": ("all", "qkv", "none"),
    "tie_weights": (True, False),
    "logit_softcap": (None, 2.0),
    "n_token_types": (0, 2),
    "ngram_rows": ((), (200,), (61, 43)),
    "dropout": (0.0, 0.25),
    "extra mask": (False, True),
}
Pair = frozenset[tuple[str, object]]


def pairs_of(settings: dict) -> set[Pair]:
    """All pairs of two different settings."""
    return {frozenset(pair) for pair in itertools.combinations(settings.items(), 2)}


def all_pairs() -> set[Pair]:
    """Every value of every option with every value of every other."""
    return {
        frozenset(((a, x), (b, y))) for a, b in itertools.combinations(DIMENSIONS, 2) for x in DIMENSIONS[a] for y in DIMENSIONS[b]
    }  # fmt: skip


def covering() -> list[dict]:
    """A short list of settings that holds every pair: again and again the best of fifty random ones, each built around a missing pair."""
    draw, missing, chosen = np.random.default_rng(0), all_pairs(), []
    while missing:
        wanted = min(missing, key=lambda pair: sorted(map(str, pair)))
        candidates = []
        for _ in range(50):
            settings = {name: values[draw.integers(len(values))] for name, values in DIMENSIONS.items()}
            settings.update(dict(wanted))
            candidates.append(settings)
        best = max(candidates, key=lambda settings: len(pairs_of(settings) & missing))
        chosen.append(best)
        missing -= pairs_of(best)
    return chosen


CASES = covering()


def test_every_pair_is_there():
    assert all_pairs() <= set().union(*map(pairs_of, CASES))
    model_options = set(ModelConfig.__dataclass_fields__) - set(SMALL) - {"norm_eps", "rope_theta", "rope_scaling"}
    assert model_options == set(DIMENSIONS) - {"extra mask"}
    assert len(CASES) < 60


@pytest.mark.parametrize("number", range(len(CASES)))
def test_gradients_are_autograds(number, monkeypatch):
    settings = dict(CASES[number])
    extra = settings.pop("extra mask")
    config = ModelConfig(**{**SMALL, **settings})
    draw = np.random.default_rng(number)
    batch = random_batch(number, batch=2, seq=9)
    types = draw.integers(config.n_token_types, size=(2, 9)) if config.n_token_types else None
    mask = (draw.random((2, 9, 9)) < 0.7) | np.eye(9, dtype=bool) if extra else None
    masks = given_masks(config, draw, monkeypatch) if config.dropout else None
    error = assert_same(config, random_weights(config, number), batch, mask=mask, token_types=types, dropout=masks)
    assert math.isfinite(error)


def given_masks(config, draw, monkeypatch):
    """What stays, by place; PyTorch's dropout takes the same masks in the order in which it asks."""
    places = ["embeddings", *(f"blocks.{i}.{part}" for i in range(config.n_layers) for part in ("attention", "feedforward"))]
    masks = {place: draw.random((2, 9, config.d_model)) >= config.dropout for place in places}
    left = itertools.cycle(masks.values())

    def dropout(x, p=0.5, training=True, inplace=False):
        return x * torch.from_numpy(next(left)) / (1 - p) if training else x

    monkeypatch.setattr(F, "dropout", dropout)
    return masks
