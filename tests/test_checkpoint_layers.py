"""Recomputing blocks in the backward pass: not a bit of any gradient differs, and the memory it saves is counted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.options import OPTIONS, small_config
from tiny_transformer import attention_products, gelu_by_hand, linear
from tiny_transformer.attention import record_weights
from tiny_transformer.config import ConfigError, ModelConfig, TrainConfig
from tiny_transformer.kv_cache import KVCache
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.numpy_engine.trainer import check_settings
from tiny_transformer.training.trainer import Trainer
from tiny_transformer.utils.reference import reference_path

SETTINGS = TrainConfig(
    max_steps=4, batch_size=4, accumulate=2, warmup_steps=1, eval_every=2, eval_tokens=64, device="cpu", precision="float32"
)


def by_hand_from(fewest, monkeypatch):
    """Gradients by hand from the first number on, or never."""
    for module in (attention_products, gelu_by_hand, linear):
        monkeypatch.setattr(module, "FEWEST", fewest)


def loss_and_gradients(model, ids, around=torch.enable_grad):
    torch.manual_seed(3)
    model.zero_grad()
    with around():
        loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def both_ways(model, ids, around=torch.enable_grad):
    results = []
    for again in (False, True):
        model.checkpoint_layers = again
        results.append(loss_and_gradients(model, ids, around))
    return results


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("fewest", [0, 2**30])
def test_not_a_bit_differs(option, fewest, monkeypatch):
    by_hand_from(fewest, monkeypatch)
    model = TinyTransformerLM(small_config(option, dropout=0.3), seed=0).train()
    ids = torch.randint(17, (3, 12), generator=torch.Generator().manual_seed(0))
    kept, again = both_ways(model, ids)
    assert len(kept) == len(again) and all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
    assert not torch.equal(kept[0], loss_and_gradients(model.eval(), ids)[0]), "dropout did nothing"


def test_the_generator_stands_where_it_would_have_stood():
    model = TinyTransformerLM(small_config(dropout=0.3), seed=0).train()
    ids, after = torch.randint(17, (3, 12)), []
    for again in (False, True):
        model.checkpoint_layers = again
        loss_and_gradients(model, ids)
        after.append(torch.rand(3))
    assert torch.equal(*after)


def test_in_reference_mode_the_second_time_is_readable_too(monkeypatch):
    by_hand_from(0, monkeypatch)
    model = TinyTransformerLM(small_config("gelu_tanh"), seed=0).train()
    kept, again = both_ways(model, torch.randint(17, (3, 12)), reference_path)  # the backward pass runs outside
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


def kept_bytes(model, ids):
    """Bytes of all distinct tensors that the forward pass keeps for the backward pass, the weights not counted."""
    weights, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(ids).sum()
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("fewest", [0, 2**30])
def test_memory_no_longer_grows_with_what_is_inside_a_block(fewest, monkeypatch):
    by_hand_from(fewest, monkeypatch)
    ids = torch.randint(17, (2, 32))
    config = ModelConfig(vocab_size=17, max_seq_len=32, d_model=32, n_heads=4, n_layers=2, activation="gelu_tanh")
    sizes = {}
    for again in (False, True):
        for layers in (2, 6):
            model = TinyTransformerLM(replace(config, n_layers=layers), seed=0).train()
            model.checkpoint_layers = again
            sizes[again, layers] = kept_bytes(model, ids)
    one_stream = 2 * 32 * 32 * 4
    assert sizes[True, 6] - sizes[True, 2] == 4 * one_stream, "a block keeps its input and nothing else"
    assert sizes[False, 6] - sizes[False, 2] > 4 * 10 * one_stream


def test_only_while_training():
    model = TinyTransformerLM(small_config(), seed=0)
    ids, calls = torch.randint(17, (1, 8)), []
    model.checkpoint_layers = True
    model._again_in_backward = lambda block: calls.append(block) or block
    model.eval()(ids)
    cache = KVCache(model.config, 1)
    model.train()(ids, cache=cache)
    assert not calls
    model(ids)
    assert len(calls) == 2


def test_recorded_weights_come_once():
    model = TinyTransformerLM(small_config(), seed=0).train()
    model.checkpoint_layers = True
    ids = torch.randint(17, (1, 8))
    with record_weights() as weights:
        model(ids).sum().backward()
    assert len(weights) == 2
    with torch.no_grad():
        model(ids)


def test_the_trainer_makes_the_same_model(tmp_path):
    ids = np.random.default_rng(0).integers(17, size=600)
    found = []
    for again in (False, True):
        model = TinyTransformerLM(small_config("gelu_tanh", dropout=0.1), seed=0)
        Trainer(model, None, ids[:500], ids[500:], replace(SETTINGS, checkpoint_layers=again)).fit()
        assert model.checkpoint_layers is again
        found.append(model.weights())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_numpy_engine_says_that_it_cannot():
    with pytest.raises(ConfigError, match=r"checkpoint_layers=True: the NumPy engine keeps every block's inside.*PyTorch"):
        check_settings(TrainConfig(checkpoint_layers=True))
