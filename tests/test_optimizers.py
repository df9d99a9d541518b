"""AdamW, held against torch.optim.AdamW; decay groups; state that travels between the two."""

import copy

import pytest
import torch
from torch import nn

from tiny_transformer.config import TrainConfig
from tiny_transformer.training.optimizers import AdamW, adamw_step, load_optimizer_state, make_optimizer, optimizer_state, parameter_groups
from tiny_transformer.utils.reference import reference_path

SETTINGS = [
    {"lr": 1e-3},
    {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1},
    {"lr": 3e-2, "betas": (0.5, 0.999), "eps": 1e-3, "weight_decay": 0.0},
    {"lr": 1e-1, "betas": (0.0, 0.0), "eps": 1e-6, "weight_decay": 1.0},
]


class Small(nn.Module):
    """An embedding, a matrix, a bias and a norm: every kind of parameter."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(7, 4, dtype=dtype)
        self.linear = nn.Linear(4, 7, dtype=dtype)
        self.norm = nn.LayerNorm(4, dtype=dtype)

    def forward(self, ids):
        return self.linear(self.norm(self.embedding(ids)))


def twins(dtype):
    model = Small(dtype)
    return model, copy.deepcopy(model)


def learn(model, optimizer, steps=30, change_lr=False, first=0):
    """Steps whose gradients differ in size from step to step by 10⁵."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(7, (5, 6), generator=generator)
        if change_lr:
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 / (step + 1)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.roll(1).flatten())
        (loss * 10.0 ** (step % 6 - 3)).backward()
        optimizer.step()


def assert_close(model, other, dtype):
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype is torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(ours, theirs, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("change_lr", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_torch_over_30_steps(settings, change_lr, dtype):
    model, other = twins(dtype)
    before = copy.deepcopy(model)
    learn(model, AdamW(model.parameters(), **settings), change_lr=change_lr)
    learn(other, torch.optim.AdamW(other.parameters(), foreach=False, **settings), change_lr=change_lr)
    assert_close(model, other, dtype)
    assert any((p - q).abs().max() > 1e-3 for p, q in zip(model.parameters(), before.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_torch_with_groups_of_different_settings(dtype):
    model, other = twins(dtype)

    def groups(m):
        return [
            {"params": [m.embedding.weight], "weight_decay": 0.5, "lr": 1e-1},
            {"params": list(m.linear.parameters()), "betas": (0.8, 0.95)},
            {"params": list(m.norm.parameters()), "weight_decay": 0.0, "eps": 1e-4},
        ]

    learn(model, AdamW(groups(model), weight_decay=0.2))
    learn(other, torch.optim.AdamW(groups(other), weight_decay=0.2))
    assert_close(model, other, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_fused_one_makes_the_same_numbers(dtype):
    model, other = twins(dtype)
    settings = TrainConfig(learning_rate=1e-2, weight_decay=0.3)
    fused, readable = make_optimizer(model, settings), make_optimizer(other, TrainConfig(**{**vars(settings), "fused_optimizer": False}))
    assert isinstance(fused, torch.optim.AdamW) and fused.defaults["fused"]
    assert type(readable) is AdamW
    learn(model, fused)
    learn(other, readable)
    assert_close(model, other, dtype)


def test_reference_mode_takes_the_readable_one():
    with reference_path():
        assert type(make_optimizer(Small(), TrainConfig())) is AdamW


def test_settings_reach_both_optimizers():
    settings = TrainConfig(learning_rate=0.02, beta1=0.7, beta2=0.8, adam_eps=1e-5, weight_decay=0.4)
    with reference_path():
        readable = make_optimizer(Small(), settings)
    for optimizer in (make_optimizer(Small(), settings), readable):
        for group, decay in zip(optimizer.param_groups, (0.4, 0.0), strict=True):
            assert (group["lr"], tuple(group["betas"]), group["eps"], group["weight_decay"]) == (0.02, (0.7, 0.8), 1e-5, decay)


def test_decay_is_decoupled_from_the_gradient():
    """With a zero gradient the weights shrink by exactly (1 - lr λ); decay through the gradient would move them by ~lr each."""
    weights, state = torch.tensor([4.0, -0.5], dtype=torch.float64), {}
    for _ in range(3):
        adamw_step(weights, torch.zeros(2, dtype=torch.float64), state, lr=0.1, weight_decay=0.2)
    torch.testing.assert_close(weights, torch.tensor([4.0, -0.5], dtype=torch.float64) * 0.98**3, rtol=1e-15, atol=0)
    assert not state["exp_avg"].any() and not state["exp_avg_sq"].any()


def test_first_step_has_size_lr_whatever_the_gradient():
    weights = torch.zeros(3, dtype=torch.float64)
    adamw_step(weights, torch.tensor([1e-3, -7.0, 1e5], dtype=torch.float64), {}, lr=0.01, eps=1e-12, weight_decay=0.0)
    torch.testing.assert_close(weights, torch.tensor([-0.01, 0.01, -0.01], dtype=torch.float64), rtol=1e-8, atol=0)


def test_the_step_leaves_the_gradient_alone():
    gradient = torch.tensor([1.0, 2.0])
    adamw_step(torch.ones(2), gradient, {}, lr=0.1)
    assert gradient.tolist() == [1.0, 2.0]


def test_a_parameter_without_gradient_stays():
    model = Small()
    model.norm.requires_grad_(False)
    before = copy.deepcopy(model.norm.state_dict())
    optimizer = AdamW(model.parameters(), weight_decay=0.5)
    learn(model, optimizer, steps=2)
    assert all(torch.equal(before[name], value) for name, value in model.norm.state_dict().items())
    assert model.norm.weight not in optimizer.state


def test_a_closure_is_called_with_gradients_on():
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = AdamW([weight], lr=0.1, weight_decay=0.0)

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4.0
    assert weight.item() == pytest.approx(1.9)


@pytest.mark.parametrize("to_torch", [True, False])
def test_state_travels_between_ours_and_torch(to_torch):
    model, other = twins(torch.float64)
    settings = {"lr": 1e-2, "weight_decay": 0.1}
    ours, theirs = AdamW(model.parameters(), **settings), torch.optim.AdamW(other.parameters(), **settings)
    learn(model, ours, steps=5)
    learn(other, theirs, steps=5)
    source, target = (ours, theirs) if to_torch else (theirs, ours)
    assert set(source.state_dict()["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    target.load_state_dict(copy.deepcopy(source.state_dict()))
    learn(model, ours, steps=5, first=5)
    learn(other, theirs, steps=5, first=5)
    assert_close(model, other, torch.float64)


def test_decay_groups_take_each_parameter_once():
    model = Small()
    model.tied = nn.Linear(4, 7, bias=False)
    model.tied.weight = model.embedding.weight
    model.linear.bias.requires_grad_(False)
    decay, rest = parameter_groups(model, 0.3)
    assert {id(p) for p in decay["params"]} == {id(model.embedding.weight), id(model.linear.weight)}
    assert {id(p) for p in rest["params"]} == {id(model.norm.weight), id(model.norm.bias)}
    assert (len(decay["params"]), len(rest["params"])) == (2, 2)
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1


def test_vectors_do_not_decay():
    model = Small()
    optimizer = make_optimizer(model, TrainConfig(learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    after = model.state_dict()
    for name in ("norm.weight", "norm.bias", "linear.bias"):
        assert torch.equal(before[name], after[name])
    for name in ("embedding.weight", "linear.weight"):
        torch.testing.assert_close(after[name], before[name] * 0.95)


@pytest.mark.parametrize("fused", [True, False])
def test_state_by_name_restores_bitwise_and_keeps_the_settings(fused):
    model, settings = Small(), TrainConfig(fused_optimizer=fused, learning_rate=1e-2)
    optimizer = make_optimizer(model, settings)
    learn(model, optimizer, steps=4)
    saved, weights = copy.deepcopy(optimizer_state(optimizer, model)), copy.deepcopy(model.state_dict())
    assert set(saved) == {name for name, _ in model.named_parameters()}
    learn(model, optimizer, steps=4, first=4)

    other = Small()
    other.load_state_dict(weights)
    resumed = make_optimizer(other, settings)
    load_optimizer_state(resumed, other, saved)
    learn(other, resumed, steps=4, first=4)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    # the saved tensors are not shared with the optimizer that went on
    assert all(float(entry["step"]) == 4 for entry in saved.values())
    changed = make_optimizer(other, TrainConfig(weight_decay=0.7, fused_optimizer=fused))
    load_optimizer_state(changed, other, saved)
    assert [group["weight_decay"] for group in changed.param_groups] == [0.7, 0.0]


def test_state_of_another_model_is_refused():
    model = Small()
    optimizer = make_optimizer(model, TrainConfig())
    learn(model, optimizer, steps=1)
    saved = optimizer_state(optimizer, model)
    saved["other.weight"] = saved.pop("linear.weight")
    with pytest.raises(ValueError, match=r"unknown \['other.weight'\], missing \['linear.weight'\]"):
        load_optimizer_state(make_optimizer(model, TrainConfig()), model, saved)


def test_no_state_yet_can_be_restored():
    model = Small()
    optimizer = make_optimizer(model, TrainConfig())
    load_optimizer_state(optimizer, model, {})
    assert optimizer_state(optimizer, model) == {}
