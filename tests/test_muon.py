"""Muon in both engines: near-orthogonal steps, the same numbers as plain float64, the right parameters, and runs that resume."""

import copy
import doctest
import json
import math
import re
import signal
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.options import OPTIONS, small_config
from tests.test_numpy_training import SETTINGS, TEN_STEPS, TRAIN, VAL, Record, by_numpy, by_torch
from tiny_transformer.cli.main import main
from tiny_transformer.config import ConfigError, TrainConfig
from tiny_transformer.model import TinyTransformerLM as TorchModel
from tiny_transformer.numpy_engine import checkpoint as numpy_checkpoints
from tiny_transformer.numpy_engine import muon as numpy_muon
from tiny_transformer.numpy_engine.model import TinyTransformerLM, init_weights
from tiny_transformer.numpy_engine.trainer import Trainer
from tiny_transformer.numpy_engine.trainer import make_optimizer as make_numpy_optimizer
from tiny_transformer.run import Run
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.training import muon
from tiny_transformer.training import trainer as torch_trainer
from tiny_transformer.training.optimizers import AdamW, load_optimizer_state, make_optimizer, optimizer_state
from tiny_transformer.utils.checkpoint import load
from tiny_transformer.utils.reference import reference_path

MUON = replace(SETTINGS, optimizer="muon", muon_learning_rate=0.03, muon_momentum=0.9)
HIDDEN = re.compile(r"blocks\.\d+\.(attention\.(W_query|W_key|W_value|out_proj)|feedforward\.(up|gate|down))\.weight")
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


def plain(matrix, steps=5):
    """Newton–Schulz in plain float64, one scalar at a time, from the formula φ(X) = a X + b X XᵀX + c X XᵀX XᵀX."""
    rows, columns = len(matrix), len(matrix[0])
    norm = math.sqrt(math.fsum(float(value) ** 2 for row in matrix for value in row))
    x = [[float(value) / norm for value in row] for row in matrix]
    for _ in range(steps):
        inner = [[math.fsum(x[k][i] * x[k][j] for k in range(rows)) for j in range(columns)] for i in range(columns)]  # XᵀX
        cubed = [[math.fsum(x[i][k] * inner[k][j] for k in range(columns)) for j in range(columns)] for i in range(rows)]
        fifth = [[math.fsum(cubed[i][k] * inner[k][j] for k in range(columns)) for j in range(columns)] for i in range(rows)]
        x = [[3.4445 * x[i][j] - 4.775 * cubed[i][j] + 2.0315 * fifth[i][j] for j in range(columns)] for i in range(rows)]
    return np.array(x)


def random_matrix(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


def with_values(values, rows, columns, seed=0):
    """A matrix with these singular values, and its U and Vᵀ."""
    u = np.linalg.qr(random_matrix(seed, (rows, rows)))[0][:, : len(values)]
    v = np.linalg.qr(random_matrix(seed + 1, (columns, columns)))[0][:, : len(values)]
    return u @ np.diag(values) @ v.T, u, v.T


def by_both(matrix, steps=5):
    """The result of the three implementations, as NumPy arrays."""
    tensor = torch.from_numpy(matrix)
    return (
        muon.newton_schulz(tensor, steps).numpy(),
        muon.newton_schulz_batch(tensor[None], steps)[0].numpy(),
        numpy_muon.newton_schulz(matrix, steps),
    )


# --- Newton–Schulz --------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), SHAPES, st.integers(0, 5), st.floats(1e-6, 1e6))
def test_equals_plain_float64(seed, shape, steps, size):
    matrix = size * random_matrix(seed, shape)
    expected = plain(matrix.tolist(), steps)
    for result in by_both(matrix, steps):
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


def phi(values, steps=5):
    for _ in range(steps):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    return values


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (9, 5), (1, 7), (7, 1), (48, 48), (32, 96)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_only_the_singular_values_change_and_each_by_the_quintic(shape, dtype):
    """U and Vᵀ stay, in float32 too; the SVD knows nothing of products of matrices."""
    matrix = random_matrix(1, shape).astype(dtype)
    u, values, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    expected = u @ np.diag(phi(values / np.linalg.norm(values))) @ vt
    for result in by_both(matrix):
        assert result.dtype == dtype
        np.testing.assert_allclose(result, expected, atol=1e-10 if dtype is np.float64 else 2e-4)


@pytest.mark.parametrize(
    ("rows", "columns", "values"),
    [
        (16, 16, np.ones(16)),
        (16, 40, np.linspace(1, 3, 16)),
        (40, 16, np.geomspace(1, 200, 16)),  # ill-conditioned
        (32, 32, np.geomspace(1, 300, 32)),
        (64, 64, np.geomspace(1e-9, 1e-7, 64)),  # and small
        (64, 8, np.geomspace(1e5, 1e7, 8)),
    ],
)
def test_near_orthogonal(rows, columns, values):
    """Every singular value above 0.0016 of the norm ends between 0.68 and 1.21, and the direction is that of U Vᵀ."""
    matrix, u, vt = with_values(values, rows, columns)
    assert values.min() / np.linalg.norm(values) > 0.0016
    for result in by_both(matrix):
        found = np.linalg.svd(result, compute_uv=False)
        assert 0.68 < found.min() <= found.max() < 1.21
        cosine = (result * (u @ vt)).sum() / np.linalg.norm(result) / math.sqrt(len(values))
        assert cosine > 0.97


def test_the_documented_range_is_that_of_the_quintic():
    values = phi(np.linspace(0, 1, 1_000_001))
    high = values[1600:]  # from 0.0016 on
    assert 0.68 < high.min() < 0.69
    assert 1.20 < high.max() < 1.21
    assert values[:1600].min() >= 0
    assert phi(1e-9) / 1e-9 == pytest.approx(3.4445**5)
    assert phi(1.0, 1) == pytest.approx(0.701)


def test_a_direction_that_is_not_there_is_not_invented():
    """Rank 3 stays rank 3: the other directions are noise of the last digits, raised 485 times at most."""
    matrix = with_values(np.array([3.0, 2.0, 1.0]), 12, 10)[0]
    for result in by_both(matrix):
        found = np.linalg.svd(result, compute_uv=False)
        assert found[:3].min() > 0.68
        assert found[3:].max() < 1e-10
    zeros = np.zeros((3, 4))
    assert all((result == 0).all() for result in by_both(zeros))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), SHAPES)
def test_transposed_and_turned_with_its_argument(seed, shape):
    matrix = random_matrix(seed, shape)
    turn = np.linalg.qr(random_matrix(seed + 1, (shape[0], shape[0])))[0]
    turned = by_both(turn @ matrix)
    for index, (result, transposed) in enumerate(zip(by_both(matrix), by_both(matrix.T.copy()), strict=True)):
        np.testing.assert_allclose(transposed, result.T, atol=1e-9)
        np.testing.assert_allclose(turned[index], turn @ result, atol=1e-9)
        np.testing.assert_allclose(by_both(-37.0 * matrix)[index], -result, atol=1e-9)  # size plays no part, sign does


@pytest.mark.parametrize("shape", [(5, 8, 8), (3, 4, 9), (3, 9, 4), (1, 6, 2)])
@pytest.mark.parametrize("function", [muon.newton_schulz, muon.newton_schulz_batch])
def test_a_batch_is_one_by_one(shape, function):
    batch = torch.from_numpy(random_matrix(2, shape)) * torch.logspace(-3, 3, shape[0], dtype=torch.float64)[:, None, None]
    one_by_one = torch.stack([muon.newton_schulz(matrix) for matrix in batch])
    torch.testing.assert_close(function(batch), one_by_one, rtol=1e-9, atol=1e-11)


def test_bfloat16_is_rough_but_orthogonal_enough():
    result = muon.newton_schulz_batch(torch.from_numpy(random_matrix(3, (2, 24, 96))).to(torch.bfloat16))
    assert result.dtype == torch.bfloat16
    found = torch.linalg.svdvals(result.float())
    assert 0.6 < found.min() <= found.max() < 1.3


def test_what_is_no_matrix_is_refused_in_one_line():
    for function, vector in ((muon.newton_schulz, torch.ones(3)), (numpy_muon.newton_schulz, np.ones(3))):
        with pytest.raises(ValueError, match=r"^shape \(3,\): newton_schulz needs .*rows, columns\)\. Leave .* to AdamW$"):
            function(vector)


# --- one step -------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), SHAPES, st.floats(1e-4, 1.0), st.floats(0, 0.99), st.floats(0, 0.5))
def test_steps_equal_a_plain_loop(seed, shape, lr, momentum, decay):
    """Four steps in float64, against the definition: heavy-ball momentum (Jordan et al. write it without 1 - μ), Nesterov, decay."""
    weight = random_matrix(seed, shape)
    ours, theirs, state, their_state = torch.from_numpy(weight.copy()), weight.copy(), {}, {}
    buffer = np.zeros(shape)
    for step in range(4):
        gradient = random_matrix(seed + 1 + step, shape)
        kept = gradient.copy()
        muon.muon_step(ours, torch.from_numpy(gradient), state, lr=lr, momentum=momentum, weight_decay=decay)
        numpy_muon.muon_step(theirs, gradient, their_state, lr=lr, momentum=momentum, weight_decay=decay)
        assert (gradient == kept).all()
        buffer = momentum * buffer + gradient
        update = plain((gradient + momentum * buffer).tolist())
        weight = weight - lr * decay * weight - lr * math.sqrt(max(1, shape[0] / shape[1])) * update
    np.testing.assert_allclose(theirs, weight, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(ours.numpy(), weight, rtol=1e-8, atol=1e-8)
    assert set(state) == set(their_state) == {"momentum_buffer"}
    np.testing.assert_allclose(state["momentum_buffer"].numpy(), (1 - momentum) * buffer, atol=1e-12)
    np.testing.assert_allclose(their_state["momentum_buffer"], (1 - momentum) * buffer, atol=1e-12)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has Muon from 2.9 on")
@pytest.mark.parametrize("shape", [(12, 12), (24, 8), (8, 24)])
def test_steps_are_torchs(shape):
    """PyTorch's computes in bfloat16, so the steps agree to about two digits."""
    weight = random_matrix(0, shape).astype(np.float32)
    ours, theirs, state = torch.from_numpy(weight.copy()), nn.Parameter(torch.from_numpy(weight.copy())), {}
    optimizer = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.2, momentum=0.8)
    for step in range(5):
        gradient = torch.from_numpy(random_matrix(step + 1, shape)).float()
        theirs.grad = gradient.clone()
        optimizer.step()
        muon.muon_step(ours, gradient, state, lr=0.1, momentum=0.8, weight_decay=0.2)
    change = theirs.detach() - torch.from_numpy(weight)
    assert (ours - theirs).norm() / change.norm() < 0.03


def test_decay_is_decoupled_and_the_step_scaled_for_tall_matrices():
    for shape, scale in (((8, 2), 2.0), ((2, 8), 1.0), ((4, 4), 1.0)):
        weight = torch.ones(shape, dtype=torch.float64)
        muon.muon_step(weight, torch.zeros_like(weight), {}, lr=0.1, weight_decay=0.5)
        torch.testing.assert_close(weight, torch.full_like(weight, 0.95))
        assert muon.step_scale(*shape) == numpy_muon.step_scale(*shape) == scale


# --- the optimizer as a whole ---------------------------------------------------------------------------------------


def names_of(model, parameters):
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return {name_of[id(parameter)] for parameter in parameters}


@pytest.mark.parametrize("option", OPTIONS)
def test_which_weights_go_where(option):
    config = small_config(option)
    model = TorchModel(config, seed=0)
    everything = {name for name, _ in model.named_parameters()}
    expected = {name for name in everything if HIDDEN.fullmatch(name)}
    per_block = 7 if config.activation == "swiglu" else 6
    assert len(expected) == per_block * config.n_layers
    optimizer = make_optimizer(model, MUON)
    matrices, *others = optimizer.param_groups
    assert names_of(model, matrices["params"]) == expected
    assert names_of(model, [p for group in others for p in group["params"]]) == everything - expected
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(everything)
    for group in others:
        assert all((group["weight_decay"] == MUON.weight_decay) == (parameter.dim() >= 2) for parameter in group["params"])
    theirs = make_numpy_optimizer(init_weights(config, 0), MUON)
    assert {name for name in theirs.weights if theirs.state_names(name) == {"momentum_buffer"}} == expected
    assert set(theirs.weights) == everything


def test_frozen_matrices_and_models_without_blocks():
    model = TorchModel(small_config(), seed=0)
    model.blocks[0].requires_grad_(False)
    names = names_of(model, make_optimizer(model, MUON).param_groups[0]["params"])
    assert names
    assert all(name.startswith("blocks.1.") for name in names)
    with pytest.raises(ValueError, match=r"^Linear has no blocks: .* Use optimizer=adamw$"):
        make_optimizer(nn.Linear(2, 2), MUON)


def test_settings_reach_both_optimizers():
    chosen = replace(MUON, beta1=0.7, beta2=0.8, adam_eps=1e-5, weight_decay=0.4)
    model = TorchModel(small_config(), seed=0)
    optimizer = make_optimizer(model, chosen)
    matrices, *others = optimizer.param_groups
    assert (matrices["lr"], matrices["momentum"], matrices["weight_decay"]) == (0.03, 0.9, 0.4)
    assert matrices["lr_ratio"] == pytest.approx(3.0)
    assert all((group["lr"], tuple(group["betas"]), group["eps"]) == (0.01, (0.7, 0.8), 1e-5) for group in others)
    assert isinstance(optimizer.others, torch.optim.AdamW)
    assert optimizer.batched
    assert optimizer.precision is None
    assert make_optimizer(model, replace(chosen, precision="bfloat16")).precision is torch.bfloat16
    with reference_path():
        readable = make_optimizer(model, chosen)
    for slow in (readable, make_optimizer(model, replace(chosen, fused_optimizer=False))):
        assert type(slow.others) is AdamW
        assert not slow.batched
    theirs = make_numpy_optimizer(init_weights(small_config(), 0), chosen)
    assert (theirs.lr_ratio, theirs.momentum, theirs.weight_decay) == (pytest.approx(3.0), 0.9, 0.4)
    assert (theirs.betas, theirs.eps) == ((0.7, 0.8), 1e-5)


def give_gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = 10.0 ** (step % 5 - 2) * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def learn(model, optimizer, steps, first=0):
    for step in range(first, first + steps):
        give_gradients(model, step)
        optimizer.step()


@pytest.mark.parametrize("option", ["gpt2", "swiglu", "window rotary grouped"])
def test_batched_equals_one_by_one_equals_adamw_elsewhere(option):
    """Nine steps: the fast way is the readable way, Muon's weights are `muon_step`'s, and all others are those of an AdamW run."""
    model = TorchModel(small_config(option), seed=0).double()
    slow_model, adam_model, before = (copy.deepcopy(model) for _ in range(3))
    fast, slow = make_optimizer(model, MUON), make_optimizer(slow_model, replace(MUON, fused_optimizer=False))
    adam = make_optimizer(adam_model, replace(MUON, optimizer="adamw"))
    for net, optimizer in ((model, fast), (slow_model, slow), (adam_model, adam)):
        learn(net, optimizer, 9)
    by_hand = dict(before.named_parameters())
    states = {name: {} for name in by_hand}
    for step in range(9):
        give_gradients(before, step)
        for name, parameter in by_hand.items():
            if HIDDEN.fullmatch(name):
                muon.muon_step(parameter, parameter.grad, states[name], lr=0.03, momentum=0.9, weight_decay=0.2)
    slow_ones, adam_ones = dict(slow_model.named_parameters()), dict(adam_model.named_parameters())
    for name, parameter in model.named_parameters():
        expected = by_hand if HIDDEN.fullmatch(name) else adam_ones
        torch.testing.assert_close(parameter, expected[name], rtol=1e-9, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
        torch.testing.assert_close(parameter, slow_ones[name], rtol=1e-9, atol=1e-10)


def test_a_matrix_without_gradient_stays_and_a_closure_is_called():
    model = TorchModel(small_config(), seed=0)
    optimizer = make_optimizer(model, MUON)
    still = model.blocks[1].attention.W_key.weight
    before = still.detach().clone()

    def closure():
        give_gradients(model, 0)
        still.grad = None
        assert torch.is_grad_enabled()
        return 2.5

    assert optimizer.step(closure) == 2.5
    assert torch.equal(still, before)
    assert "momentum_buffer" not in optimizer.state.get(still, {})


@pytest.mark.parametrize("fused", [True, False])
def test_state_by_name_restores_bitwise(fused):
    chosen = replace(MUON, fused_optimizer=fused)
    model = TorchModel(small_config(), seed=0)
    optimizer = make_optimizer(model, chosen)
    load_optimizer_state(optimizer, model, {})
    learn(model, optimizer, 4)
    saved, weights = copy.deepcopy(optimizer_state(optimizer, model)), copy.deepcopy(model.state_dict())
    assert {name for name, values in saved.items() if set(values) == {"momentum_buffer"}} == {n for n in saved if HIDDEN.fullmatch(n)}
    assert all(set(v) == {"step", "exp_avg", "exp_avg_sq"} for n, v in saved.items() if not HIDDEN.fullmatch(n))
    learn(model, optimizer, 4, first=4)
    other = TorchModel(small_config(), seed=5)
    other.load_state_dict(weights)
    resumed = make_optimizer(other, replace(chosen, weight_decay=0.0))
    load_optimizer_state(resumed, other, saved)
    assert resumed.param_groups[0]["weight_decay"] == 0
    resumed = make_optimizer(other, chosen)
    load_optimizer_state(resumed, other, saved)
    learn(other, resumed, 4, first=4)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(("kind", "holds", "remembers"), [("muon", "momentum_buffer", "exp_avg"), ("adamw", "exp_avg", "momentum_buffer")])
def test_another_optimizers_state_is_refused_in_one_line(kind, holds, remembers):
    """In both engines; the first weight that does not fit is named."""
    message = rf"^optimizer state: blocks\.0\.\S+ has {holds}.*: this optimizer remembers {remembers}.*\. Resume with the run's own opt\w+$"
    was, now = replace(MUON, optimizer=kind), replace(MUON, optimizer="adamw" if kind == "muon" else "muon")
    model = TorchModel(small_config(), seed=0)
    optimizer = make_optimizer(model, was)
    learn(model, optimizer, 1)
    with pytest.raises(ValueError, match=message):
        load_optimizer_state(make_optimizer(model, now), model, optimizer_state(optimizer, model))
    weights = init_weights(small_config(), 0)
    ours, other = make_numpy_optimizer(weights, was), make_numpy_optimizer(weights, now)
    ours.step({name: np.ones_like(weight) for name, weight in weights.items()}, lr=0.1)
    with pytest.raises(ValueError, match=message):
        other.load_state(ours.state)


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", TEN_STEPS)
def test_ten_steps_have_the_same_losses_in_both_engines(option):
    config = small_config(option)
    (ours, result, weights), (theirs, their_result, their_weights) = by_numpy(config, MUON), by_torch(config, MUON)
    losses, their_losses = (np.array([step[1] for step in record.steps]) for record in (ours, theirs))
    assert len(losses) == 10
    assert np.abs(losses - their_losses).max() < 1e-9
    np.testing.assert_allclose(ours.steps, theirs.steps, rtol=1e-7)
    assert abs(result.final_val_loss - their_result.final_val_loss) < 1e-9
    for name, weight in their_weights.items():
        np.testing.assert_allclose(weights[name], weight.numpy(), rtol=1e-6, atol=1e-8, err_msg=name)
    adam = by_numpy(config)[0]
    assert adam.steps[0][1] == ours.steps[0][1]
    assert adam.steps[5][1] != ours.steps[5][1]


def test_single_precision_follows_in_both_engines():
    config = small_config("modern")
    (ours, _, weights), (theirs, *_) = by_numpy(config, MUON, np.float32), by_torch(config, MUON, torch.float32)
    np.testing.assert_allclose([step[1] for step in ours.steps], [step[1] for step in theirs.steps], atol=1e-3)
    assert {weight.dtype for weight in weights.values()} == {np.dtype(np.float32)}
    steps = by_torch(config, replace(MUON, precision="bfloat16"), torch.float32)[0].steps
    np.testing.assert_allclose([step[1] for step in steps], [step[1] for step in theirs.steps], atol=0.1)


def test_muons_rate_follows_the_schedule():
    """Each step moves a square matrix by lr × muon_learning_rate / learning_rate, as the orthogonal step says."""
    model = TorchModel(small_config(), seed=0).double()
    trainer = torch_trainer.Trainer(model, None, TRAIN, VAL, replace(MUON, weight_decay=0.0))
    record, matrix, moved = Record(), model.blocks[0].attention.out_proj.weight, []

    def on_step(step, loss, lr, norm, speed):
        record.steps.append(lr)
        moved.append(matrix.detach().clone())

    record.on_step, trainer.listener = on_step, record
    moved.append(matrix.detach().clone())
    trainer.fit()
    assert len(set(record.steps)) > 4
    for lr, before, after in zip(record.steps, moved, moved[1:], strict=False):
        values = torch.linalg.svdvals(after - before) / (lr * 3)
        assert 0.68 < values.median() < values.max() < 1.21


def torch_run(path, chosen=MUON):
    model = TorchModel(small_config("modern", dropout=0.2), seed=1)
    tokenizer = CharTokenizer.train("abcdefghijklmnopq")
    return torch_trainer.Trainer(model, tokenizer, TRAIN, VAL, chosen, run=Run.create(path, {}), listener=Record())


def numpy_run(path, chosen=MUON):
    config = small_config("modern", dropout=0.2)
    tokenizer = CharTokenizer.train("abcdefghijklmnopq")
    model = TinyTransformerLM(config, init_weights(config, 1))
    return Trainer(model, tokenizer, TRAIN, VAL, chosen, run=Run.create(path, {}), listener=Record())


@pytest.mark.parametrize(
    ("start", "trainer", "read", "ending"),
    [(torch_run, torch_trainer.Trainer, load, "pt"), (numpy_run, Trainer, numpy_checkpoints.load, "safetensors")],
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, start, trainer, read, ending):
    result = start(tmp_path / "whole").fit()
    half = start(tmp_path / "half")
    half.listener.on_step = lambda step, *_: signal.raise_signal(signal.SIGINT) if step == 6 else None
    assert half.fit().stopped == "signal"
    record = Record()
    again = trainer.resume(Run.open(tmp_path / "half"), TRAIN, VAL, listener=record).fit()
    assert record.warnings == []
    assert (again.steps, again.final_val_loss, again.best_val_loss) == (10, result.final_val_loss, result.best_val_loss)
    whole, resumed = (read(tmp_path / folder / f"last.{ending}") for folder in ("whole", "half"))
    assert all(bool((whole.weights[name] == resumed.weights[name]).all()) for name in whole.weights)
    states = [checkpoint.training["optimizer"] for checkpoint in (whole, resumed)]
    assert states[0].keys() == states[1].keys() == set(whole.weights)
    for name, values in states[0].items():
        assert ("momentum_buffer" in values) == bool(HIDDEN.fullmatch(name))
        assert all(np.array_equal(np.asarray(value), np.asarray(states[1][name][key])) for key, value in values.items())


def test_threads_and_compiling_need_nothing_of_muon(monkeypatch):
    """A compiled model is a wrapper with the same parameters; here one that only counts its calls."""
    calls = []

    def compiled(model):
        def forward(ids):
            calls.append(ids.shape)
            return model(ids)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    config = small_config("modern")
    with_both = by_torch(config, replace(MUON, compile=True, threads=1))[0]
    assert len(calls) > 10
    assert with_both.steps == by_torch(config, MUON)[0].steps
    numpy_steps = [by_numpy(config, replace(MUON, threads=threads))[0].steps for threads in (0, 1)]
    np.testing.assert_allclose(numpy_steps[0], numpy_steps[1], rtol=1e-9)


# --- settings and the command line ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer='sgd': it must be one of adamw, muon"),
        ({"muon_learning_rate": 0.0}, "muon_learning_rate=0.0: it must be positive"),
        ({"muon_learning_rate": math.nan}, "muon_learning_rate=nan: it must be positive"),
        ({"muon_learning_rate": math.inf}, "muon_learning_rate=inf: it must be positive"),
        ({"muon_learning_rate": "fast"}, "muon_learning_rate='fast': it must be a number"),
        ({"muon_momentum": 1.0}, "muon_momentum=1.0: it must be at least 0 and below 1"),
        ({"muon_momentum": -0.1}, "muon_momentum=-0.1: it must be at least 0 and below 1"),
    ],
)
def test_bad_settings_are_refused_in_one_line(values, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        TrainConfig(**values)
    assert "\n" not in str(error.value)


def test_adamw_is_the_default():
    assert (TrainConfig().optimizer, TrainConfig().muon_learning_rate, TrainConfig().muon_momentum) == ("adamw", 0.02, 0.95)
    model = TorchModel(small_config(), seed=0)
    assert type(make_optimizer(model, TrainConfig())) is torch.optim.AdamW
    assert type(make_numpy_optimizer(init_weights(small_config(), 0), TrainConfig())).__name__ == "AdamW"


FLAGS = [
    "--preset", "tiny", "--d-model", "32", "--n-layers", "1", "--max-seq-len", "16", "--max-steps", "6", "--batch-size", "4",
    "--eval-every", "3", "--warmup-steps", "2", "--log-every", "1", "--threads", "1", "--data", "text.txt",
]  # fmt: skip


@pytest.fixture()
def folder(tmp_path, small_text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(small_text, encoding="utf-8")
    return tmp_path


def test_the_flag_works_in_both_engines_and_a_run_resumes(folder):
    for engine in ("torch", "numpy"):
        chosen = ["--optimizer", "muon", "--muon-learning-rate", "0.05", "--muon-momentum", "0.8"]
        assert main(["train", "--engine", engine, *chosen, "--out", engine, *FLAGS]) == 0
        assert main(["train", "--resume", engine, "--max-steps", "8"]) == 0
        record = json.loads((folder / engine / "config.json").read_text())
        assert '"optimizer": "muon"' in json.dumps(record)
    ours, theirs = Run.open("numpy").metrics(), Run.open("torch").metrics()
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        for name in mine.keys() - {"tokens_per_second"}:
            assert mine[name] == pytest.approx(other[name], abs=2e-3, rel=2e-3), name
    assert main(["train", "--out", "adam", *FLAGS]) == 0
    adam = [line["loss"] for line in Run.open("adam").metrics() if "loss" in line]
    muon_losses = [line["loss"] for line in theirs if "loss" in line]
    assert adam[0] == muon_losses[0]
    assert adam[5] != muon_losses[5]


def test_an_unknown_optimizer_is_one_line(folder, capsys):
    assert main(["train", "--optimizer", "sgd", "--out", "run", *FLAGS]) == 2
    error = capsys.readouterr().err
    assert "adamw" in error
    assert "muon" in error
    assert error.strip().count("\n") == 0
    assert not (folder / "run").exists()


@pytest.mark.parametrize("module", ["training.muon", "numpy_engine.muon"])
def test_doctests(module):
    result = doctest.testmod(import_module(f"tiny_transformer.{module}"))
    assert (result.failed, result.attempted > 3) == (0, True)
