"""Training that does not wait: the same decisions as with waiting, nothing read in the step, nothing reported wrongly or late."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tiny_transformer.config import ModelConfig, TrainConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.run import Run
from tiny_transformer.training import objectives, steps_ahead
from tiny_transformer.training.listener import Listener, TrainingError
from tiny_transformer.training.optimizers import make_optimizer
from tiny_transformer.training.steps_ahead import MOST_AHEAD, StepsAhead, can_run_ahead, guarded_step
from tiny_transformer.training.trainer import Trainer
from tiny_transformer.training.utils import clip_gradients
from tiny_transformer.utils.checkpoint import load

MODEL = ModelConfig(vocab_size=12, max_seq_len=8, d_model=16, n_layers=1, n_heads=2)
SETTINGS = TrainConfig(
    max_steps=23, batch_size=4, learning_rate=1e-2, warmup_steps=2, eval_every=9, eval_tokens=200, save_every=14, log_every=2, seed=5,
    clip_norm=0.0, device="cpu", precision="float32",
)  # fmt: skip
IDS = np.random.default_rng(0).integers(12, size=3000) // 2
CPU = torch.device("cpu")


class Ear(Listener):
    """Remembers everything, in order."""

    def __init__(self):
        self.heard = []

    def on_step(self, step, loss, lr, grad_norm, tokens_per_second):
        self.heard.append(("step", step, loss, lr, grad_norm))

    def on_eval(self, step, train_loss, val_loss, is_best):
        self.heard.append(("eval", step, train_loss, val_loss, is_best))

    def on_sample(self, step):
        self.heard.append(("sample", step))


def trainer_of(settings=SETTINGS, ahead=True, model=None, **more):
    trainer = Trainer(model or TinyTransformerLM(MODEL, seed=1), None, IDS[:2500], IDS[2500:], settings, **more)
    assert trainer._ahead is None  # on the CPU there is nothing to wait for
    if ahead:
        trainer._ahead = StepsAhead(CPU)
    return trainer


def weights_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.weights().items()}


def same(a, b, **close):
    return a.keys() == b.keys() and all(torch.allclose(a[n], b[n], **close) if close else torch.equal(a[n], b[n]) for n in a)


# ---------------------------------------------------------------- the guarded step


def twins(seed=0):
    torch.manual_seed(seed)
    one = nn.Linear(5, 3)
    other = copy.deepcopy(one)
    return [(layer, torch.optim.AdamW(layer.parameters(), lr=0.05, fused=True)) for layer in (one, other)]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.01, 30.0), min_size=1, max_size=6), st.sampled_from([0.0, 0.5, 3.0]), st.integers(0, 99))
def test_clipping_on_the_device_is_clipping(sizes, max_norm, seed):
    (one, waits), (other, runs) = twins(seed)
    bad, touched = torch.zeros(()), False
    for place, size in enumerate(sizes):
        for layer in (one, other):
            torch.manual_seed(place)
            for parameter in layer.parameters():
                parameter.grad = size * torch.randn_like(parameter)
        norm = clip_gradients(one.parameters(), max_norm)
        waits.step()
        guarded_step(runs, torch.tensor([1.0, norm]), bad, max_norm)
        touched = touched or 0 < max_norm < norm  # until then equal to the last bit
        assert same(dict(one.named_parameters()), dict(other.named_parameters()), **({"rtol": 1e-4, "atol": 1e-6} if touched else {}))
    assert bad.item() == 0 and not hasattr(runs, "found_inf") and not hasattr(runs, "grad_scale")


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
@pytest.mark.parametrize("numbers", [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_after_a_number_that_is_not_finite_no_step_changes_anything(numbers, max_norm):
    (layer, optimizer), _ = twins()
    bad = torch.zeros(())
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    guarded_step(optimizer, torch.tensor([1.0, 2.0]), bad, max_norm)
    before = copy.deepcopy(layer.state_dict())
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    guarded_step(optimizer, torch.tensor(numbers), bad, max_norm)
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    guarded_step(optimizer, torch.tensor([1.0, 2.0]), bad, max_norm)  # this one is fine, and comes too late
    assert same(before, layer.state_dict()) and bad.item() == 1
    assert {state["step"].item() for state in optimizer.state.values()} == {1.0}


def test_who_can_run_ahead():
    model, cuda = TinyTransformerLM(MODEL, seed=0), torch.device("cuda")
    fused = make_optimizer(model, SETTINGS)
    assert can_run_ahead(fused, cuda) and not can_run_ahead(fused, CPU)
    assert not can_run_ahead(make_optimizer(model, replace(SETTINGS, fused_optimizer=False)), cuda)
    assert not can_run_ahead(make_optimizer(model, replace(SETTINGS, optimizer="muon")), cuda)  # it has no veto


# ---------------------------------------------------------------- what is on its way


def test_numbers_come_in_order_and_as_late_as_asked(monkeypatch):
    now = iter([10.0, 11.0, 13.0, 16.0, 20.0])
    monkeypatch.setattr(steps_ahead.time, "perf_counter", lambda: next(now))
    ahead = StepsAhead(CPU)
    ahead.begin()
    for step in range(3):
        ahead.put(step, 0.1 * step, torch.tensor([step + 0.5, step + 0.25]))
    first = list(ahead.take(leave=2))
    ahead.begin()  # no pause: two steps are on their way
    rest = list(ahead.take())
    assert [tuple(known) for known in first + rest] == [(0, 0.0, 0.5, 0.25, 1.0), (1, 0.1, 1.5, 1.25, 2.0), (2, 0.2, 2.5, 2.25, 3.0)]
    assert list(ahead.take()) == []
    ahead.begin()  # after a pause time counts from here
    ahead.put(3, 0.0, torch.zeros(2))
    monkeypatch.setattr(steps_ahead.time, "perf_counter", lambda: 21.0)
    assert next(ahead.take()).seconds == 1.0


def test_numbers_are_those_of_their_step():
    ahead, numbers = StepsAhead(CPU), torch.zeros(2)
    for step in range(3):
        numbers.fill_(step)  # the memory of the step before, as on a device
        ahead.put(step, 0.0, numbers)
    assert [known.loss for known in ahead.take()] == [0.0, 1.0, 2.0]


# ---------------------------------------------------------------- the trainer


@pytest.mark.parametrize("accumulate", [1, 3])
def test_all_is_heard_as_if_it_had_waited(tmp_path, accumulate):
    heard, lines, weights = {}, {}, {}
    for ahead in (False, True):
        run = Run.create(tmp_path / str(ahead), {})
        trainer = trainer_of(replace(SETTINGS, accumulate=accumulate), ahead, listener=(ear := Ear()), run=run)
        result = trainer.fit()
        heard[ahead], weights[ahead] = ear.heard, weights_of(trainer)
        logged = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        lines[ahead] = [{k: v for k, v in line.items() if k not in ("tokens_per_second", "time", "seconds")} for line in logged]
        assert result.steps == 23 and len([1 for event in ear.heard if event[0] == "step"]) == 23
    assert heard[True] == heard[False] and lines[True] == lines[False] and same(weights[True], weights[False])


def test_with_clipping_the_same_but_for_the_last_digits():
    ends = []
    for ahead in (False, True):
        trainer = trainer_of(replace(SETTINGS, clip_norm=0.2), ahead)
        trainer.fit()
        ends.append(weights_of(trainer))
    assert same(*ends, rtol=1e-3, atol=1e-5)


def test_a_step_is_reported_at_most_so_many_steps_late():
    trainer = trainer_of(replace(SETTINGS, eval_every=1000, max_steps=40, save_every=1000), listener=(ear := Ear()))
    trainer._begin()
    for done in range(1, 12):
        trainer._step()
        assert [event[1] for event in ear.heard if event[0] == "step"] == list(range(1, done - MOST_AHEAD + 1))
    trainer._catch_up()
    assert [event[1] for event in ear.heard if event[0] == "step"] == list(range(1, 12)) and trainer.progress.step == 11


def test_a_save_in_between_resumes_exactly(tmp_path):
    run = Run.create(tmp_path / "run", {})
    whole = trainer_of(run=run)
    whole.fit()
    part = Run.create(tmp_path / "part", {})
    first = trainer_of(run=part)
    first._begin()
    for _ in range(6):
        first._step()
    first._save("last")
    assert load(part.path / "last.pt").training["progress"]["step"] == 6
    second = Trainer.resume(part, IDS[:2500], IDS[2500:])
    second._ahead = StepsAhead(CPU)
    second.fit()
    assert same(weights_of(whole), weights_of(second))


class Damaged(nn.Module):
    """A table of logits that gives a loss, or a gradient, that is not finite at training step `step`, and is fine afterwards."""

    def __init__(self, step, kind):
        super().__init__()
        self.config, self.step, self.kind, self.calls = MODEL, step, kind, 0
        self.table = nn.Parameter(torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (12, 12)).astype(np.float32)))

    def forward(self, ids):
        logits = self.table[ids]
        if self.training:
            if self.calls == self.step and self.kind == "gradient":
                logits.register_hook(lambda gradient: gradient * math.inf)
            elif self.calls == self.step:
                logits = logits * math.nan
            self.calls += 1
        return logits

    def weights(self):
        return {"table": self.table.detach()}


@pytest.mark.parametrize(("kind", "says"), [("nan", "the loss is nan"), ("gradient", "the gradient norm is")])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_weights_are_as_before_a_step_that_is_not_finite(kind, says, clip_norm):
    steady = replace(SETTINGS, schedule="constant", clip_norm=clip_norm, eval_every=1000)
    good = trainer_of(replace(steady, max_steps=5), model=Damaged(-1, kind))
    good.fit()
    bad = trainer_of(steady, model=Damaged(5, kind), listener=(ear := Ear()))
    with pytest.raises(TrainingError, match=rf"step 5: {says}.*learning rate 0.01"):
        bad.fit()
    assert bad.model.calls > 6  # it had gone on, and it did no harm
    assert same(good.model.weights(), bad.model.weights()) and bad.progress.step == 5
    assert [event[1] for event in ear.heard if event[0] == "step"] == [1, 2, 3, 4, 5]
    assert bad._ahead.bad.item() == 0 and list(bad._ahead.take()) == []


def test_nothing_is_saved_after_a_step_that_is_not_finite(tmp_path):
    run = Run.create(tmp_path / "run", {})
    trainer = trainer_of(replace(SETTINGS, eval_every=1000, save_every=7), model=Damaged(5, "nan"), run=run)
    with pytest.raises(TrainingError, match="step 5"):  # heard of when the save after the seventh step asks
        trainer.fit()
    assert trainer.model.calls == 7 and not (run.path / "last.pt").exists()


# ---------------------------------------------------------------- nothing waits


class Waits(TorchDispatchMode):
    """Counts what makes a host wait for its device: reading a scalar, or a shape that depends on values."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        by_mask = name.startswith("aten.index") and any(index is not None and index.dtype == torch.bool for index in args[1])
        if by_mask or any(word in name for word in ("_local_scalar_dense", "nonzero", "aten.equal.", "masked_select", "unique")):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def waits(monkeypatch):
    """The names of all reads of a tensor's values since the last look."""
    counter = Waits()
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__array__"):
        whole = getattr(torch.Tensor, name)

        def noted(self, *args, _whole=whole, _name=name, **more):
            counter.seen.append(_name)
            return _whole(self, *args, **more)

        monkeypatch.setattr(torch.Tensor, name, noted)
    monkeypatch.setattr(objectives, "_all_asked", lambda *_: False)  # on the CPU only: a GPU's targets are not looked at
    with counter:
        yield counter.seen


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_step_reads_nothing_back(waits, clip_norm):
    trainer = trainer_of(replace(SETTINGS, clip_norm=clip_norm, eval_every=1000, max_steps=100, save_every=1000))
    trainer._begin()
    waits.clear()
    for _ in range(MOST_AHEAD):
        trainer._step()
    assert waits == []
    trainer._step()
    assert waits == ["tolist"]  # the numbers of a step long past


def test_the_waiting_step_reads_once(waits):
    trainer = trainer_of(ahead=False)
    trainer._begin()
    waits.clear()
    trainer._step()
    assert waits == ["tolist"]


def test_reading_would_be_noticed(waits):
    for read in (lambda x: x.item(), lambda x: bool(x > 0), lambda x: float(x), lambda x: torch.nonzero(x), lambda x: x[x > 0]):
        waits.clear()
        read(torch.tensor([1.0]))
        assert waits
