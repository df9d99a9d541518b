"""The NumPy engine as a whole: its logits and every gradient are PyTorch's, it runs without PyTorch, its files are whole or refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.options import OPTIONS, small_config
from tiny_transformer.config import ModelConfig
from tiny_transformer.numpy_engine import checkpoint
from tiny_transformer.numpy_engine.model import TinyTransformerLM, init_weights, weight_shapes
from tiny_transformer.training.dataset import IGNORE, Batch
from tiny_transformer.utils.checkpoint import CheckpointError

ROOT = Path(__file__).resolve().parent.parent


def random_weights(config, seed=0, dtype=np.float64):
    """Weights large enough that every part matters."""
    generator = np.random.default_rng(seed)
    weights = init_weights(config, seed)
    for weight in weights.values():
        weight += generator.standard_normal(weight.shape, dtype=np.float32) * (0.3 if weight.ndim == 1 else 0.2)
    return {name: weight.astype(dtype) for name, weight in weights.items()}


def random_batch(seed=0, batch=3, seq=12, vocab=17):
    generator = np.random.default_rng(seed)
    inputs, targets = generator.integers(vocab, size=(2, batch, seq))
    targets[generator.random(targets.shape) < 0.2] = IGNORE
    return Batch(inputs, targets)


def torch_twin(config, weights):
    """The PyTorch model with the same weights, in their type."""
    import torch

    from tiny_transformer import model

    twin = model.TinyTransformerLM(config, seed=0)
    twin = twin.double() if next(iter(weights.values())).dtype == np.float64 else twin
    twin.load_weights({name: torch.from_numpy(weight) for name, weight in weights.items()})
    return twin


def torch_answers(config, weights, batch, mask=None, token_types=None):
    """Logits, loss and gradients by autograd, along the readable path."""
    import torch

    from tiny_transformer.training.objectives import cross_entropy
    from tiny_transformer.utils.reference import reference_path

    twin = torch_twin(config, weights).train()
    mask, token_types = (None if array is None else torch.from_numpy(array) for array in (mask, token_types))
    with reference_path():
        logits = twin(torch.from_numpy(batch.inputs), mask, token_types=token_types)
        loss = cross_entropy(logits, torch.from_numpy(batch.targets))
    loss.backward()
    return logits.detach().numpy(), loss.item(), {name: weight.grad.numpy() for name, weight in twin.named_parameters()}


def assert_same(config, weights, batch, limit=1e-9, mask=None, token_types=None, dropout=None):
    """Logits, loss and every gradient by name agree, each relative to its own size. Returns the largest error."""
    logits, loss, gradients = torch_answers(config, weights, batch, mask, token_types)
    model = TinyTransformerLM(config, weights)
    ours = model.forward(batch.inputs, mask, token_types=token_types, dropout=dropout)
    our_loss, our_gradients = model.loss_and_gradients(batch, mask, token_types=token_types, dropout=dropout)
    assert list(our_gradients) == list(gradients)
    errors = {"logits": np.abs(ours - logits).max() / np.abs(logits).max(), "loss": abs(our_loss - loss) / abs(loss)}
    floor = 1e-3 * max(np.abs(gradient).max() for gradient in gradients.values())  # a key's bias has gradient 0 but for rounding
    for name, gradient in gradients.items():
        assert our_gradients[name].shape == gradient.shape
        assert our_gradients[name].dtype == gradient.dtype
        errors[name] = np.abs(our_gradients[name] - gradient).max() / max(np.abs(gradient).max(), floor)
    assert {name: error for name, error in errors.items() if not error < limit} == {}
    return max(errors.values())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("option", OPTIONS)
def test_logits_and_gradients_are_torchs(option, causal):
    config = small_config(option, causal=causal)
    types = np.random.default_rng(1).integers(config.n_token_types, size=(3, 12)) if config.n_token_types else None
    assert_same(config, random_weights(config), random_batch(), token_types=types)


PAIRS = [
    {"activation": "swiglu", "norm_position": "post", "position": "sinusoidal", "n_kv_heads": 2, "qk_norm": True, "tie_weights": False},
    {"activation": "relu", "norm": "rms", "norm_position": "post", "position": "alibi", "n_kv_heads": 1, "window": 3, "bias": "qkv"},
    {"activation": "swiglu", "norm": "rms", "position": "rotary", "n_kv_heads": 2, "qk_norm": True, "d_head": 8, "logit_softcap": 3.0},
    {"activation": "gelu_tanh", "position": "rotary", "norm_position": "post", "n_token_types": 2, "bias": "none", "window": 4},
    {"activation": "relu2", "position": "none", "d_head": 5, "bias": "qkv", "tie_weights": False, "logit_softcap": 1.5, "n_kv_heads": 2},
    {"activation": "gelu", "norm_position": "post", "position": "learned", "n_token_types": 3, "qk_norm": True, "norm_eps": 0.1},
]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("settings", PAIRS, ids=lambda settings: settings["activation"] + " " + settings["position"])
def test_options_together(settings, causal):
    config = small_config(causal=causal, **settings)
    assert_same(config, random_weights(config, 2), random_batch(2, batch=2, seq=9))


@pytest.mark.parametrize("option", OPTIONS)
def test_float32_stays_float32_and_agrees(option):
    config = small_config(option)
    assert_same(config, random_weights(config, dtype=np.float32), random_batch(), limit=5e-4)
    assert TinyTransformerLM(config, random_weights(config, dtype=np.float32)).hidden(random_batch().inputs).dtype == np.float32


@pytest.mark.parametrize("shape", [(12, 12), (3, 12, 12)])
def test_an_extra_mask(shape):
    mask = np.random.default_rng(3).random(shape) < 0.6
    mask[..., 4, :] = False  # a place that may look nowhere
    for option in ("gpt2", "window alibi"):
        config = small_config(option)
        assert_same(config, random_weights(config), random_batch(), mask=mask)


@pytest.mark.parametrize("option", ["gpt2", "post"])
def test_dropout_with_given_masks(option, monkeypatch):
    import torch
    import torch.nn.functional as F

    config = small_config(option, dropout=0.25)
    places = ["embeddings", *(f"blocks.{index}.{part}" for index in range(2) for part in ("attention", "feedforward"))]
    generator = np.random.default_rng(4)
    masks = {place: generator.random((3, 12, 24)) < 0.75 for place in places}
    order = iter(places)

    def dropout(x, p=0.5, training=True, inplace=False):
        return x * torch.from_numpy(masks[next(order)]) / (1 - p)

    monkeypatch.setattr(F, "dropout", dropout)
    assert_same(config, random_weights(config), random_batch(), dropout=masks)
    model = TinyTransformerLM(config, random_weights(config))
    loss, _ = model.loss_and_gradients(random_batch(), dropout=masks.get)
    assert loss == model.loss_and_gradients(random_batch(), dropout=masks)[0]
    assert loss != model.loss_and_gradients(random_batch())[0]
    first = {"embeddings": masks["embeddings"]}
    assert model.loss_and_gradients(random_batch(), dropout=first)[0] not in (loss, model.loss_and_gradients(random_batch())[0])


@pytest.mark.parametrize("option", ["gpt2", "modern", "token types"])
def test_gradients_by_nudging(option):
    """The whole model against central differences: no other library, along random directions."""
    config = small_config(option, activation="gelu")
    weights, batch, generator = random_weights(config), random_batch(), np.random.default_rng(5)
    _, gradients = TinyTransformerLM(config, weights).loss_and_gradients(batch)
    for name in weights:
        direction = generator.standard_normal(weights[name].shape)
        direction /= np.linalg.norm(direction)
        losses = []
        for nudge in (1e-3, -1e-3, 2e-3, -2e-3):
            nudged = {**weights, name: weights[name] + nudge * direction}
            losses.append(TinyTransformerLM(config, nudged).loss_and_gradients(batch)[0])
        slope = (8 * (losses[0] - losses[1]) - (losses[2] - losses[3])) / 12e-3
        assert abs(slope - (gradients[name] * direction).sum()) < 1e-6 * max(abs(slope), 1e-2), name


def test_micro_batches_sum_up_to_the_batch():
    config = small_config()
    model, batch = TinyTransformerLM(config, random_weights(config)), random_batch(batch=4)
    loss, gradients = model.loss_and_gradients(batch)
    parts = [model.loss_and_gradients(Batch(batch.inputs[s], batch.targets[s]), reduction="sum") for s in (slice(0, 1), slice(1, 4))]
    count = (batch.targets != IGNORE).sum()
    assert sum(part for part, _ in parts) / count == pytest.approx(loss, rel=1e-13)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(sum(part[name] for _, part in parts) / count, gradient, rtol=1e-9, atol=1e-14)


# --- the first weights, names, errors -------------------------------------------------------------------------------


@pytest.mark.parametrize("option", OPTIONS)
def test_first_weights_are_torchs_bit_for_bit(option):
    from tiny_transformer import model

    config = small_config(option)
    theirs = model.TinyTransformerLM(config, seed=11).weights()
    ours = init_weights(config, seed=11)
    assert list(ours) == list(theirs)
    for name, weight in theirs.items():
        assert ours[name].dtype == np.float32
        assert ours[name].tobytes() == weight.numpy().tobytes()
    assert sum(weight.size for weight in ours.values()) == config.n_parameters


def test_weights_are_loaded_strictly_and_copied():
    config = small_config()
    weights = random_weights(config)
    model = TinyTransformerLM(config, weights)
    weights["norm.weight"][:] = 0
    assert model.weights()["norm.weight"].all()
    broken = {**weights, "extra": np.zeros(2), "norm.bias": np.zeros(3)}
    del broken["norm.weight"]
    with pytest.raises(ValueError, match=r"3 differences.*missing norm.weight.*unexpected extra.*norm.bias has shape \(3,\)"):
        TinyTransformerLM(config, broken)
    with pytest.raises(ValueError, match="dtype float32, float64: all must be"):
        TinyTransformerLM(config, {**weights, "norm.bias": np.zeros(24, dtype=np.float32)})
    with pytest.raises(ValueError, match="dtype float16: all must be"):
        TinyTransformerLM(config, {name: weight.astype(np.float16) for name, weight in weights.items()})


def test_ids_that_do_not_fit_are_refused():
    config = small_config()
    model = TinyTransformerLM(config, random_weights(config))
    for ids, message in (
        (np.zeros(3, dtype=int), "must be \\(batch, seq\\)"),
        (np.array([[0, 17]]), "run from 0 to 17"),
        (np.array([[-1, 3]]), "run from -1 to 3"),
        (np.zeros((1, 13), dtype=int), "max_seq_len=12"),
    ):
        with pytest.raises(ValueError, match=message):
            model.forward(ids)
    long = small_config("rotary")
    assert TinyTransformerLM(long, random_weights(long)).forward(np.zeros((1, 13), dtype=int)).shape == (1, 13, 17)
    with pytest.raises(ValueError, match="must be bool"):
        model.forward(np.zeros((1, 3), dtype=int), np.ones((3, 3)))


def test_it_runs_where_torch_cannot_be_imported(tmp_path):
    """In a process of its own: loss, gradients, and a file written and read."""
    code = f"""
import sys
sys.modules["torch"] = None
import numpy as np
from tiny_transformer.config import PRESETS
from tiny_transformer.numpy_engine import checkpoint, model
from tiny_transformer.training.dataset import Batch
config = PRESETS["tiny"]
twin = model.TinyTransformerLM(config, model.init_weights(config, seed=0))
ids = np.arange(34).reshape(2, 17)
before, gradients = twin.loss_and_gradients(Batch(ids[:, :-1], ids[:, 1:]))
for name, gradient in gradients.items():
    twin.weights()[name] -= 0.1 * gradient
after, _ = twin.loss_and_gradients(Batch(ids[:, :-1], ids[:, 1:]))
path = {str(tmp_path / "m.safetensors")!r}
checkpoint.save(path, checkpoint.Checkpoint(config, None, twin.weights()))
again = checkpoint.load(path)
same = (model.TinyTransformerLM(again.config, again.weights).forward(ids) == twin.forward(ids)).all()
print(before > after > 0, bool(same))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "True True"), done.stderr


# --- files ----------------------------------------------------------------------------------------------------------

TOKENIZER = {"kind": "char", "symbols": "abcdefghijklmnopé\U0001f600"}


def test_a_file_comes_back_and_torch_reads_it(tmp_path):
    import torch
    from safetensors.torch import load_file

    config = small_config("modern")
    weights = random_weights(config, dtype=np.float32)
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, checkpoint.Checkpoint(config, TOKENIZER, weights, step=7, metrics={"val_loss": 1.25}, lineage={"seed": 3}))
    again = checkpoint.load(path)
    assert (again.config, again.tokenizer, again.step) == (config, TOKENIZER, 7)
    assert (again.metrics, again.lineage) == ({"val_loss": 1.25}, {"seed": 3})
    assert set(again.weights) == set(weights)
    assert all((again.weights[name] == weights[name]).all() for name in weights)
    theirs = torch_twin(config, {name: tensor.numpy() for name, tensor in load_file(path).items()})
    ids = random_batch().inputs
    ours = TinyTransformerLM(again.config, again.weights).forward(ids)
    np.testing.assert_allclose(theirs(torch.from_numpy(ids)).detach().numpy(), ours, rtol=1e-4, atol=1e-5)


def test_a_file_of_torch_is_read(tmp_path):
    from safetensors.torch import save_file

    from tiny_transformer import model

    config, path = small_config("one kv head"), tmp_path / "model.safetensors"
    theirs = model.TinyTransformerLM(config, seed=3)
    save_file(theirs.weights(), path, metadata={"config": json.dumps(config.to_dict())})
    again = checkpoint.load(path)
    assert (again.config, again.tokenizer, again.step) == (config, None, 0)
    ours = TinyTransformerLM(again.config, again.weights)
    assert all((ours.weights()[name] == weight.numpy()).all() for name, weight in theirs.weights().items())


@pytest.fixture
def small_file(tmp_path):
    path = tmp_path / "model.safetensors"
    config = ModelConfig(vocab_size=3, max_seq_len=2, d_model=2, n_layers=1, n_heads=1, d_ff=1, bias="none", norm="rms")
    checkpoint.save(path, checkpoint.Checkpoint(config, {"kind": "char", "symbols": "abc"}, init_weights(config, 0)))
    return path


def refusal(path):
    """The message with which a file is refused; None when it is taken."""
    try:
        checkpoint.load(path)
    except CheckpointError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        return str(error)
    return None


def test_every_flipped_bit_and_every_cut_is_refused(small_file, tmp_path):
    content, broken = small_file.read_bytes(), tmp_path / "broken.safetensors"
    whole = checkpoint.load(small_file)
    tensors = len(content) - sum(weight.nbytes for weight in whole.weights.values())
    for place in (*range(tensors), *range(tensors, len(content), 11)):
        bits = bytearray(content)
        bits[place] ^= 1 << place % 8
        broken.write_bytes(bits)
        if refusal(broken) is None:  # a changed blank: then nothing else may differ
            again = checkpoint.load(broken)
            assert (again.config, again.tokenizer, again.step) == (whole.config, whole.tokenizer, whole.step)
            assert all((again.weights[name] == weight).all() for name, weight in whole.weights.items())
    for length in range(0, len(content), 7):
        broken.write_bytes(content[:length])
        assert refusal(broken)


def test_files_that_are_not_ours_are_refused(small_file, tmp_path):
    from safetensors.numpy import load, save

    assert "does not exist" in refusal(tmp_path / "none.safetensors")
    assert "is a folder" in refusal(tmp_path)
    tensors = load(small_file.read_bytes())
    for metadata, message in (
        (None, "no config"),
        ({"config": "{"}, "damaged"),
        ({"config": '{"d_modle": 3}'}, "d_modle"),
        ({"config": "{}", "tiny_transformer": "2"}, "Install a newer"),
        ({"config": "{}", "tiny_transformer": "1"}, "digest"),
    ):
        path = tmp_path / "other.safetensors"
        path.write_bytes(save(tensors, metadata))
        assert message in refusal(path)


def test_a_failed_write_leaves_the_older_file(small_file, monkeypatch):
    before = small_file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device: the checkpoint was not written") as caught:
        checkpoint.save(small_file, checkpoint.load(small_file))
    assert caught.value.filename == str(small_file)
    assert small_file.read_bytes() == before
    assert list(small_file.parent.iterdir()) == [small_file]


def test_weight_shapes_have_no_torch_and_know_the_large_presets():
    from tiny_transformer.config import PRESETS

    for config in PRESETS.values():
        assert sum(int(np.prod(shape)) for shape in weight_shapes(config).values()) == config.n_parameters
