"""The training loop and its tools, held against plain PyTorch loops, brute force and planted mistakes."""

import copy
import math
import random
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tiny_transformer.config import ConfigError, ModelConfig, TrainConfig
from tiny_transformer.corpora.text_statistics import conditional_entropy
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.run import Run
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.training import loop as loop_module
from tiny_transformer.training import trainer as trainer_module
from tiny_transformer.training.dataset import IGNORE, Batch, batch_at
from tiny_transformer.training.listener import Listener, Result, TrainingError, is_sample_step
from tiny_transformer.training.loop import split_batch
from tiny_transformer.training.objectives import causal
from tiny_transformer.training.plausibility import parting, too_good
from tiny_transformer.training.rng import preserved_rng, restore_rng, rng_state, set_seed
from tiny_transformer.training.scheduler import lr_at
from tiny_transformer.training.signals import StopSignals
from tiny_transformer.training.throughput import Throughput
from tiny_transformer.training.trainer import Trainer
from tiny_transformer.training.utils import clip_gradients, evaluating, gradient_norm, pick_device, pick_precision, thread_count
from tiny_transformer.utils.checkpoint import load

VOCAB = 12
MODEL = ModelConfig(vocab_size=VOCAB, max_seq_len=8, d_model=16, n_layers=1, n_heads=2)
SETTINGS = TrainConfig(
    max_steps=6, batch_size=4, learning_rate=1e-2, warmup_steps=2, eval_every=3, eval_tokens=200, save_every=4, log_every=2, seed=5,
    device="cpu", precision="float32",
)  # fmt: skip


def markov_text(length, seed=0, vocab=VOCAB):
    """A text whose next token depends on the present one only, and that a model of pairs can learn fully."""
    generator = np.random.default_rng(seed)
    likely = np.random.default_rng(99).integers(vocab, size=(vocab, 2))
    ids = np.zeros(length, dtype=np.int64)
    for place in range(1, length):
        ids[place] = likely[ids[place - 1], generator.integers(2)] if generator.random() < 0.9 else generator.integers(vocab)
    return ids


TRAIN, VAL = markov_text(3000), markov_text(700, seed=1)


class Bigram(nn.Module):
    """The smallest language model: a table of logits. With the parts of TinyTransformerLM that the trainer uses."""

    def __init__(self, config=MODEL, dropout=0.0, dtype=torch.float32):
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocab_size, config.vocab_size, dtype=dtype)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size, dtype=dtype))
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            self.table.weight.copy_(torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, self.table.weight.shape)))

    def forward(self, ids):
        return self.dropout(self.table(ids)) + self.bias

    def weights(self):
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_weights(self, weights):
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(weights[name])


class Record(Listener):
    """Writes down every event."""

    def __init__(self):
        self.events = []

    def on_start(self, trainer):
        self.trainer = trainer
        self.events.append(("start", trainer.progress.step))

    def on_step(self, step, loss, lr, grad_norm, tokens_per_second):
        self.events.append(("step", step, loss, lr, grad_norm, tokens_per_second))

    def on_eval(self, step, train_loss, val_loss, is_best):
        self.events.append(("eval", step, train_loss, val_loss, is_best))

    def on_sample(self, step):
        self.events.append(("sample", step))

    def on_warning(self, text):
        self.events.append(("warning", text))

    def on_end(self, result):
        self.events.append(("end", result))

    def of(self, kind):
        return [event[1:] for event in self.events if event[0] == kind]


def make(model=None, settings=SETTINGS, train=TRAIN, val=VAL, **more):
    return Trainer(Bigram() if model is None else model, None, train, val, settings, **more)


def small_transformer(**changes):
    return TinyTransformerLM(replace(MODEL, **changes), seed=0)


# ---------------------------------------------------------------- clipping


def gradients(scale, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in ((3, 4), (5,), (2, 2, 2), ())]
    for parameter in parameters:
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    parameters.insert(2, nn.Parameter(torch.zeros(7)))  # one without a gradient
    return parameters


def grads_of(parameters):
    return [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]


def brute_norm(parameters):
    return math.sqrt(sum(float(value) ** 2 for grad in grads_of(parameters) for value in grad.flatten().double()))


def test_clipping_leaves_small_gradients_alone_bit_for_bit():
    parameters = gradients(0.01)
    before = grads_of(parameters)
    norm = clip_gradients(parameters, 1.0)
    assert norm == pytest.approx(brute_norm(parameters), rel=1e-6) and norm < 1
    assert all(torch.equal(a, b) for a, b in zip(before, grads_of(parameters), strict=True))


def test_clipping_at_exactly_the_norm_is_a_no_op():
    parameters = gradients(3.0)
    before = grads_of(parameters)
    clip_gradients(parameters, float(gradient_norm(parameters)))
    assert all(torch.equal(a, b) for a, b in zip(before, grads_of(parameters), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clipping_ends_at_exactly_the_norm_and_keeps_the_direction(dtype):
    parameters = gradients(50.0, dtype)
    before, whole = grads_of(parameters), brute_norm(parameters)
    assert clip_gradients(parameters, 0.7) == pytest.approx(whole, rel=1e-6)
    tolerance = 1e-6 if dtype is torch.float32 else 1e-14
    assert brute_norm(parameters) == pytest.approx(0.7, rel=tolerance)
    for old, new in zip(before, grads_of(parameters), strict=True):
        torch.testing.assert_close(new, old * (0.7 / whole), rtol=tolerance, atol=0)


def test_the_norm_is_torchs():
    parameters = gradients(2.0)
    theirs = torch.nn.utils.clip_grad_norm_(parameters, 1e9)  # a limit that does not bind
    assert clip_gradients(parameters, 1e9) == pytest.approx(float(theirs), rel=1e-6)


def test_clipping_switched_off_and_without_gradients():
    parameters = gradients(50.0)
    before = grads_of(parameters)
    assert clip_gradients(parameters, 0.0) > 50
    assert all(torch.equal(a, b) for a, b in zip(before, grads_of(parameters), strict=True))
    assert clip_gradients([nn.Parameter(torch.zeros(3))], 1.0) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_is_reported_and_nothing_is_scaled(bad):
    parameters = gradients(50.0)
    parameters[1].grad[2] = bad
    before = parameters[0].grad.clone()
    assert not math.isfinite(clip_gradients(parameters, 1.0))
    assert torch.equal(before, parameters[0].grad)


# ---------------------------------------------------------------- device, precision, threads


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device("auto").type == best
    for name in ("gpu", "cuda:99", "meta", "xyz:1"):
        with pytest.raises(ConfigError, match=f"device='{name}'"):
            pick_device(name)


def test_a_missing_gpu_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device='cuda'.*no such device. Try device=cpu"):
        pick_device("cuda")
    assert pick_device("auto") == torch.device("cpu")


def test_auto_takes_the_gpu_and_bfloat16_where_they_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto").type == "cuda"
    assert pick_device("cuda:1") == torch.device("cuda:1")
    for has, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, has=has: has)
        assert pick_precision("auto", torch.device("cuda")) is dtype
    assert pick_precision("auto", torch.device("cpu")) is torch.float32
    assert pick_precision("bfloat16", torch.device("cpu")) is torch.bfloat16
    assert pick_precision("float32", torch.device("cuda")) is torch.float32


def test_thread_count_is_put_back():
    before = torch.get_num_threads()
    seen = []

    class Look(Listener):
        def on_eval(self, *_):
            seen.append(torch.get_num_threads())

    make(settings=replace(SETTINGS, threads=before + 1, max_steps=1), listener=Look()).fit()
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    with thread_count(0):
        assert torch.get_num_threads() == before


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights():
    model = small_transformer()
    seen = set()
    model.blocks[0].feedforward.register_forward_hook(lambda _m, _i, output: seen.add(output.dtype))
    result = make(model, replace(SETTINGS, precision="bfloat16")).fit()
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert result.best_val_loss < math.log(VOCAB)


# ---------------------------------------------------------------- random numbers


def draw():
    return random.random(), random.gauss(0, 1), np.random.normal(), torch.rand(3).tolist()


def test_all_generators_are_saved_and_restored():
    set_seed(11)
    draw()  # leaves half a pair of normal numbers in Python's and NumPy's generators
    state = rng_state()
    first = draw(), draw()
    set_seed(12)
    assert (draw(), draw()) != first
    restore_rng(state)
    assert (draw(), draw()) == first


def test_same_seed_same_numbers_and_a_preserved_block():
    set_seed(3)
    first = draw()
    set_seed(3)
    with preserved_rng():
        draw()
    assert draw() == first


# ---------------------------------------------------------------- speed


def test_throughput_is_over_recent_steps():
    speed = Throughput(window=3)
    assert speed.recent == speed.overall == 0.0
    speed.add(100, 1000.0)
    for _ in range(3):
        speed.add(100, 0.5)
    assert speed.recent == pytest.approx(200)
    assert speed.overall == pytest.approx(400 / 1001.5)


def test_tokens_per_second_counts_steps_only(monkeypatch):
    """A clock that advances by 1 s in each forward pass, by 1,000 s in each evaluation, and does not begin at 0."""
    clock = [1.7e9]
    monkeypatch.setattr(loop_module.time, "perf_counter", lambda: clock[0])

    class Timed(Bigram):
        def forward(self, ids):
            clock[0] += 1.0 if self.training else 1000.0
            return super().forward(ids)

    record = Record()
    result = make(Timed(), listener=record).fit()
    tokens = SETTINGS.batch_size * MODEL.max_seq_len
    assert [event[-1] for event in record.of("step")] == pytest.approx([tokens] * 6)
    assert result.tokens_per_second == pytest.approx(tokens)
    assert result.seconds == pytest.approx(clock[0] - 1.7e9)


# ---------------------------------------------------------------- signals


def test_a_signal_sets_a_flag_and_the_second_one_ends_at_once():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals() as stop:
        assert stop.received is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGTERM)
        assert ended.value.code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_handlers_come_back_after_an_error_too():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), StopSignals():
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_training_works_outside_the_main_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(make().fit()))
    thread.start()
    thread.join()
    assert results[0].steps == 6


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 0)])
def test_a_signal_saves_at_the_next_step_boundary(tmp_path, name, code):
    number = getattr(signal, name)

    class Stop(Record):
        def on_step(self, step, *rest):
            super().on_step(step, *rest)
            if step == 2:
                signal.raise_signal(number)

    before, record = signal.getsignal(number), Stop()
    run = Run.create(tmp_path / "run", {})
    result = make(run=run, listener=record).fit()
    assert (result.stopped, result.signal, result.exit_code, result.steps) == ("signal", number, code, 2)
    assert result.final_val_loss is None
    assert [event[0] for event in record.of("step")] == [1, 2]
    saved = load(run.path / "last.pt")
    assert saved.step == 2
    assert all(torch.equal(tensor, record.trainer.model.weights()[key]) for key, tensor in saved.weights.items())
    assert signal.getsignal(number) is before


def test_a_second_signal_leaves_the_old_checkpoint(tmp_path):
    class Stop(Listener):
        def on_step(self, step, *_):
            if step == 5:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    run = Run.create(tmp_path / "run", {})
    with pytest.raises(KeyboardInterrupt):
        make(run=run, listener=Stop()).fit()
    assert load(run.path / "last.pt").step == 4


# ---------------------------------------------------------------- events


def test_sample_steps():
    assert [step for step in range(10_001) if is_sample_step(step)] == [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000]


def test_order_of_events():
    record = Record()
    result = make(listener=record).fit()
    assert [event[:2] for event in record.events[:-1]] == [
        ("start", 0), ("eval", 0), ("sample", 0),
        ("step", 1), ("sample", 1), ("step", 2), ("step", 3), ("eval", 3), ("sample", 3),
        ("step", 4), ("step", 5), ("step", 6), ("eval", 6), ("sample", 6),
    ]  # fmt: skip
    assert record.of("end") == [(result,)]
    assert [event[2] for event in record.of("step")] == [lr_at(step, max_steps=6, learning_rate=1e-2, warmup_steps=2) for step in range(6)]


def test_last_step_is_evaluated_and_sampled_once():
    record = Record()
    make(settings=replace(SETTINGS, max_steps=7, eval_every=5), listener=record).fit()
    assert [event[0] for event in record.of("eval")] == [0, 5, 7]
    assert [event[0] for event in record.of("sample")] == [0, 1, 3, 7]


def test_no_steps_at_all(tmp_path):
    run, record = Run.create(tmp_path / "run", {}), Record()
    model = Bigram()
    before = copy.deepcopy(model.weights())
    result = make(model, replace(SETTINGS, max_steps=0), run=run, listener=record).fit()
    assert (result.steps, result.best_step, result.stopped) == (0, 0, "finished")
    assert result.final_val_loss == pytest.approx(result.best_val_loss, abs=0.05)
    assert [event[0] for event in record.events] == ["start", "eval", "sample", "end"]
    assert load(run.path / "last.pt").step == load(run.path / "best.pt").step == 0
    assert all(torch.equal(before[name], value) for name, value in model.weights().items())


def test_what_is_logged(tmp_path):
    run, record = Run.create(tmp_path / "run", {}), Record()
    result = make(run=run, listener=record).fit()
    lines = run.metrics()
    losses = {event[0]: event[1] for event in record.of("step")}
    assert [(line["step"], line["loss"]) for line in lines if "loss" in line] == [(step, pytest.approx(losses[step])) for step in (2, 4, 6)]
    assert all({"lr", "grad_norm", "tokens_per_second"} <= set(line) for line in lines if "loss" in line)
    assert [(line["step"], line["val_loss"]) for line in lines if "val_loss" in line] == [
        (step, pytest.approx(val)) for step, _, val, _ in record.of("eval")
    ]
    assert [line["final_val_loss"] for line in lines if "final_val_loss" in line] == [pytest.approx(result.final_val_loss)]


def test_exit_codes():
    base = {
        "steps": 1, "best_val_loss": 1.0, "best_train_loss": 1.0, "best_step": 1, "val_loss": 1.0, "train_loss": 1.0, "final_val_loss": 1.0,
        "seconds": 1.0, "tokens_per_second": 1.0,
    }  # fmt: skip
    assert Result(**base, stopped="finished").exit_code == 0
    assert Result(**base, stopped="early").exit_code == 0


# ---------------------------------------------------------------- the loss and its gradients


def test_ten_rows_in_four_parts():
    batch = Batch(np.arange(20).reshape(10, 2), np.arange(20, 40).reshape(10, 2))
    parts = list(split_batch(batch, 4))
    assert [len(part.inputs) for part in parts] == [3, 3, 2, 2]
    for field in range(2):
        assert np.array_equal(np.concatenate([part[field] for part in parts]), batch[field])


def ignoring(ids):
    """The causal objective, but half of the targets, and all of row 3, are not asked for."""
    inputs, targets = causal(ids)
    hide = (ids[:, :-1] * 7 + np.arange(ids.shape[1] - 1)) % 2 == 0
    hide[3] = True
    return Batch(inputs, np.where(hide, IGNORE, targets))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("objective", [causal, ignoring])
@pytest.mark.parametrize("accumulate", [1, 3, 4, 10])
def test_accumulated_gradients_are_those_of_the_large_batch(accumulate, objective, dtype, tolerance):
    model = small_transformer().to(dtype)
    trainer = make(model, replace(SETTINGS, batch_size=10, accumulate=accumulate), objective=objective)
    loss, norm = trainer._gradients()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    plain = batch_at(TRAIN, 10, MODEL.max_seq_len, SETTINGS.seed, 0)
    inputs, targets = objective(np.concatenate((plain.inputs, plain.targets[:, -1:]), axis=1))
    model.zero_grad()
    logits = model(torch.from_numpy(inputs))
    expected = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten(), ignore_index=IGNORE)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=max(tolerance, 1e-12))
    whole = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert norm == pytest.approx(whole.norm().item(), rel=max(tolerance, 1e-12))
    difference = torch.cat([ours[name].flatten() for name, _ in model.named_parameters()]) - whole
    assert difference.norm() <= tolerance * whole.norm()


def test_training_equals_a_plain_loop():
    """Six steps against a loop that uses nothing of ours but the model, the order of the data and the schedule.

    Fails when targets are not shifted, the loss is detached, decay goes through the gradient or to vectors, or
    clipping is wrong: the norm lies on both sides of clip_norm here.
    """
    settings = replace(SETTINGS, weight_decay=0.5, clip_norm=1.1, accumulate=3, fused_optimizer=False)
    model = small_transformer().double()
    plain = copy.deepcopy(model)
    record = Record()
    make(model, settings, listener=record).fit()

    matrices = [p for p in plain.parameters() if p.dim() > 1]
    vectors = [p for p in plain.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.5}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(settings.beta1, settings.beta2), eps=settings.adam_eps)
    losses, norms = [], []
    for step in range(6):
        rows = batch_at(TRAIN, 4, 8, settings.seed, step)
        text = torch.from_numpy(np.concatenate((rows.inputs, rows.targets[:, -1:]), axis=1))
        loss = F.cross_entropy(plain(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(plain.parameters(), settings.clip_norm).item())
        losses.append(loss.item())
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, max_steps=6, learning_rate=1e-2, warmup_steps=2)
        optimizer.step()
    assert min(norms) < settings.clip_norm < max(norms)
    assert [event[1] for event in record.of("step")] == pytest.approx(losses, rel=1e-6)
    assert [event[3] for event in record.of("step")] == pytest.approx(norms, rel=1e-6)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


def test_the_first_loss_is_chance_and_learning_reaches_the_source():
    """From ln V at step 0 to nearly the entropy of the source, which a table of pairs can reach."""
    record = Record()
    settings = replace(SETTINGS, max_steps=400, batch_size=16, learning_rate=0.1, eval_every=200, weight_decay=0.0)
    result = make(settings=settings, train=markov_text(30_000, seed=3), val=markov_text(5000, seed=4), listener=record).fit()
    assert record.of("eval")[0][2] == pytest.approx(math.log(VOCAB), rel=0.03)
    assert result.final_val_loss == pytest.approx(conditional_entropy(markov_text(30_000, seed=3)), abs=0.06)
    assert result.best_step > 0
    assert not record.of("warning")


def test_dropout_only_while_training():
    modes = []

    class Spy(Bigram):
        def forward(self, ids):
            modes.append(self.training)
            return super().forward(ids)

    class Listen(Listener):
        def on_sample(self, step):
            modes.append(trainer.model.training)

    model = Spy(dropout=0.5).eval()  # as a loaded model comes
    trainer = make(model, replace(SETTINGS, max_steps=2), listener=Listen())
    trainer.fit()
    assert modes.count(True) == 2
    assert modes[0] is False and not model.training
    clean = Bigram()
    clean.load_weights(model.weights())
    assert trainer.evaluate(VAL) == make(clean).evaluate(VAL)


# ---------------------------------------------------------------- evaluation


def brute_loss(model, ids):
    """One target at a time: sum of -log p over non-overlapping windows, divided by the number of targets."""
    total, seq = 0.0, MODEL.max_seq_len
    model.eval()
    with torch.no_grad():
        for start in range(0, len(ids) - 1, seq):
            window = torch.from_numpy(np.asarray(ids[start : start + seq + 1]))
            logs = torch.log_softmax(model(window[None, :-1])[0].double(), dim=-1)
            total -= sum(logs[place, window[place + 1]].item() for place in range(len(window) - 1))
    return total / (len(ids) - 1)


@pytest.mark.parametrize("length", [2, 8, 9, 10, 17, 100])
def test_evaluation_counts_every_target_once(length):
    model = small_transformer()
    assert make(model).evaluate(VAL[:length]) == pytest.approx(brute_loss(model, VAL[:length]), rel=1e-5)


def test_evaluation_of_a_fixed_part():
    model = small_transformer()
    trainer = make(model)
    assert trainer.evaluate(VAL, max_tokens=50) == pytest.approx(brute_loss(model, VAL[:51]), rel=1e-5)
    assert trainer.evaluate(VAL, max_tokens=10**9) == trainer.evaluate(VAL)
    changed = VAL.copy()
    changed[51:] = 0
    assert trainer.evaluate(changed, max_tokens=50) == trainer.evaluate(VAL, max_tokens=50)
    with pytest.raises(ValueError, match="1 tokens to evaluate on: there must be 2 or more"):
        trainer.evaluate(VAL[:1])


def test_evaluation_is_the_same_for_every_batch_size_and_seed():
    model = small_transformer()
    values = {make(model, replace(SETTINGS, batch_size=size, seed=size)).evaluate(VAL) for size in (1, 3, 64)}
    assert len(values) == 1


def test_evaluation_restores_the_mode_and_leaves_no_trace():
    model = Bigram(dropout=0.5)
    trainer = make(model)
    for mode in (True, False):
        model.train(mode)
        state, first = rng_state(), trainer.evaluate(VAL)
        assert model.training is mode
        assert trainer.evaluate(VAL) == first
        assert torch.equal(state["torch"], torch.get_rng_state())
    with pytest.raises(RuntimeError), evaluating(model.train()):
        raise RuntimeError
    assert model.training
    assert model.bias.grad is None


def test_the_regular_evaluations_use_the_first_part_of_both_texts():
    record = Record()
    model = Bigram()
    trainer = make(model, replace(SETTINGS, max_steps=3, eval_tokens=120), listener=record)
    result = trainer.fit()
    step, train_loss, val_loss, _ = record.of("eval")[-1]
    assert step == 3
    assert train_loss == result.train_loss == pytest.approx(brute_loss(model, TRAIN[:121]), rel=1e-5)
    assert val_loss == result.val_loss == pytest.approx(brute_loss(model, VAL[:121]), rel=1e-5)
    assert result.final_val_loss == pytest.approx(brute_loss(model, VAL), rel=1e-5)


# ---------------------------------------------------------------- best, last, patience


class Scripted(Trainer):
    """A trainer whose regular evaluations follow a script."""

    script = (3.0, 2.0, 2.5, 1.5, 1.6, 1.7, 1.8, 1.4)

    def evaluate(self, ids, max_tokens=None):
        if max_tokens is None:
            return super().evaluate(ids)
        return self.script[self.progress.step] - (0.5 if ids is self.train_ids else 0.0)


def scripted(changes, **more):
    settings = replace(SETTINGS, **{"max_steps": 7, "eval_every": 1, **changes})
    return Scripted(Bigram(), None, TRAIN, VAL, settings, **more)


def test_best_is_kept_by_validation_loss(tmp_path):
    run, seen = Run.create(tmp_path / "run", {}), {}

    class Watch(Record):
        def on_eval(self, step, *rest):
            super().on_eval(step, *rest)
            seen[step] = copy.deepcopy(self.trainer.model.weights())

    record = Watch()
    trainer = scripted({"max_steps": 6}, run=run, listener=record)
    result = trainer.fit()
    assert [event[3] for event in record.of("eval")] == [True, True, False, True, False, False, False]
    assert (result.best_val_loss, result.best_train_loss, result.best_step) == (1.5, 1.0, 3)
    assert (result.val_loss, result.train_loss, result.stopped) == (1.8, 1.3, "finished")
    best, last = load(run.path / "best.pt"), load(run.path / "last.pt")
    assert (best.step, last.step) == (3, 6)
    assert all(torch.equal(best.weights[name], seen[3][name]) for name in best.weights)
    assert all(torch.equal(last.weights[name], seen[6][name]) for name in last.weights)
    assert best.training is None and last.training is not None
    assert best.metrics["val_loss"] == 1.5
    # the final figure is that of the weights which are kept, and the model has its last ones again
    kept = Bigram()
    kept.load_weights(best.weights)
    assert result.final_val_loss == pytest.approx(brute_loss(kept, VAL), rel=1e-5)
    assert all(torch.equal(trainer.model.weights()[name], seen[6][name]) for name in seen[6])


@pytest.mark.parametrize(("patience", "steps"), [(1, 2), (2, 5), (3, 6), (4, 7)])
def test_patience_counts_evaluations_without_a_better_loss(patience, steps):
    result = scripted({"patience": patience}).fit()
    assert result.steps == steps
    assert result.stopped == ("early" if steps < 7 else "finished")
    assert result.final_val_loss is not None


def test_checkpoints_hold_config_tokenizer_lineage_and_plain_names(tmp_path):
    run = Run.create(tmp_path / "run", {})
    tokenizer = CharTokenizer("abcdefghijkl")
    model = small_transformer()
    lineage = {"recipe": "test", "objective": "causal", "commit": "abc"}
    Trainer(model, tokenizer, TRAIN, VAL, replace(SETTINGS, max_steps=2), run=run, lineage=lineage).fit()
    for name in ("best", "last"):
        saved = load(run.path / f"{name}.pt")
        assert saved.config == model.config
        assert saved.tokenizer == tokenizer.to_dict()
        assert saved.lineage == lineage
        assert set(saved.weights) == {name for name, _ in model.named_parameters()}


class Wrapper(nn.Module):
    """What torch.compile returns, without the compiler: a module that holds the model under a name of its own."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod, self.config, self.calls = model, model.config, 0

    def forward(self, ids):
        self.calls += 1
        return self._orig_mod(ids)


def test_a_compiled_model_is_used_and_saved_without_its_wrapper(tmp_path, monkeypatch):
    wrappers = []
    monkeypatch.setattr(torch, "compile", lambda model: wrappers.append(Wrapper(model)) or wrappers[-1])
    plain, model = small_transformer(), small_transformer()
    make(plain, replace(SETTINGS, max_steps=2)).fit()
    assert not wrappers
    run = Run.create(tmp_path / "run", {})
    make(model, replace(SETTINGS, max_steps=2, compile=True), run=run).fit()
    assert len(wrappers) == 1 and wrappers[0].calls == 3  # a trial and two steps; evaluations use the plain one
    saved = load(run.path / "last.pt")
    assert set(saved.weights) == set(plain.weights()) == set(saved.training["optimizer"])
    assert all(torch.equal(saved.weights[name], tensor) for name, tensor in plain.weights().items())
    # a model that comes compiled is unwrapped
    assert set(make(Wrapper(small_transformer()), SETTINGS).checkpoint().weights) == set(plain.weights())


def test_a_compiler_that_does_not_work_is_a_warning(monkeypatch):
    def broken(model):
        def call(*_):
            raise RuntimeError("no working compiler\nand a long tail")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    record = Record()
    result = make(settings=replace(SETTINGS, compile=True), listener=record).fit()
    assert result.steps == 6
    assert record.of("warning") == [("compile did not work here, training goes on without it: no working compiler",)]


# ---------------------------------------------------------------- what must not happen


class Damaged(Bigram):
    """Goes wrong in the forward or the backward pass of one training step."""

    def __init__(self, step, kind):
        super().__init__()
        self.calls, self.step, self.kind = 0, step, kind

    def forward(self, ids):
        logits = super().forward(ids)
        if self.training:
            self.calls += 1
            if self.calls == self.step and self.kind == "gradient":
                logits.register_hook(lambda gradient: gradient * math.inf)
            elif self.calls == self.step:
                logits = logits * (math.nan if self.kind == "nan" else math.inf)
        return logits


@pytest.mark.parametrize("clip_norm", [1.0, 0.0])
@pytest.mark.parametrize(("kind", "says"), [("nan", "the loss is nan"), ("inf", "the loss is"), ("gradient", "the gradient norm is")])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_update(kind, says, clip_norm):
    good, bad = Bigram(), Damaged(4, kind)
    make(good, replace(SETTINGS, schedule="constant", max_steps=3)).fit()
    trainer = make(bad, replace(SETTINGS, schedule="constant", clip_norm=clip_norm))
    if clip_norm == 0.0:
        good = Bigram()
        make(good, replace(SETTINGS, schedule="constant", max_steps=3, clip_norm=0.0)).fit()
    with pytest.raises(TrainingError, match=rf"step 3: {says}.*learning rate 0.01.*Try a lower learning_rate"):
        trainer.fit()
    assert all(torch.equal(tensor, bad.weights()[name]) for name, tensor in good.weights().items())
    assert isinstance(TrainingError("x"), ValueError)


def test_a_loss_that_is_not_finite_stops_even_where_its_gradient_is(monkeypatch):
    honest = trainer_module.objectives.cross_entropy
    monkeypatch.setattr(trainer_module.objectives, "cross_entropy", lambda *a, **k: honest(*a, **k) + (math.inf if model.training else 0.0))
    model = Bigram()
    before = copy.deepcopy(model.weights())
    with pytest.raises(TrainingError, match="step 0: the loss is inf"):
        make(model).fit()
    assert all(torch.equal(before[name], value) for name, value in model.weights().items())


def test_a_validation_loss_that_is_not_finite_is_never_the_best(tmp_path):
    class Bad(Bigram):
        def forward(self, ids):
            return super().forward(ids) * (1.0 if self.training or self.bias.abs().sum() == 0 else math.nan)

    run = Run.create(tmp_path / "run", {})
    with pytest.raises(TrainingError, match="step 3: the validation loss is nan"):
        make(Bad(), run=run).fit()
    assert load(run.path / "best.pt").step == 0


def test_a_listener_that_draws_random_numbers_changes_nothing():
    class Noisy(Listener):
        def on_eval(self, *_):
            draw()

        def on_sample(self, step):
            torch.manual_seed(step)
            draw()

    quiet, noisy = Bigram(dropout=0.3), Bigram(dropout=0.3)
    make(quiet).fit()
    make(noisy, listener=Noisy()).fit()
    assert all(torch.equal(tensor, noisy.weights()[name]) for name, tensor in quiet.weights().items())


def test_how_often_is_evaluated_and_saved_changes_nothing(tmp_path):
    first, second = Bigram(dropout=0.3), Bigram(dropout=0.3)
    make(first).fit()
    settings = replace(SETTINGS, eval_every=1, save_every=1, log_every=1, eval_tokens=50)
    make(second, settings, run=Run.create(tmp_path / "run", {})).fit()
    assert all(torch.equal(tensor, second.weights()[name]) for name, tensor in first.weights().items())


def test_fit_called_again_goes_on():
    whole, parts = Bigram(dropout=0.3), Bigram(dropout=0.3)
    make(whole).fit()

    class Stop(Record):
        def on_step(self, step, *_):
            if step in (2, 3):
                signal.raise_signal(signal.SIGINT)

    trainer = make(parts, listener=Stop())
    results = []
    for _ in range(3):
        results.append(trainer.fit())
        draw()
    assert [result.steps for result in results] == [2, 3, 6]
    assert results[0].seconds < results[1].seconds < results[2].seconds
    assert not trainer.listener.of("warning")
    assert all(torch.equal(tensor, parts.weights()[name]) for name, tensor in whole.weights().items())


def test_the_seed_decides():
    def weights(seed):
        model = Bigram(dropout=0.3)
        make(model, replace(SETTINGS, seed=seed)).fit()
        return model.table.weight.detach().clone()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("train", "val", "says"),
    [
        (TRAIN[:8], VAL, "the text has 8 tokens: a window of max_seq_len=8 and what comes next need 9"),
        (TRAIN, VAL[:1], "the validation text has 1 tokens: it must have 2 or more"),
        (TRAIN[:0], VAL, "the text has 0 tokens"),
        (np.append(TRAIN, VOCAB), VAL, r"the training text holds token 12: ids must lie in 0 to 11"),
        (TRAIN, np.append(VAL, -1), "the validation text holds token -1"),
    ],
)
def test_texts_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, train, val, says):
    with pytest.raises(ValueError, match=says):
        make(train=train, val=val)


def test_smallest_texts_train():
    result = make(train=TRAIN[:9], val=VAL[:2], settings=replace(SETTINGS, max_steps=1)).fit()
    assert math.isfinite(result.final_val_loss)


# ---------------------------------------------------------------- plausibility


def test_parting_needs_a_gap_and_a_rise():
    assert parting(1.0, 1.6, 1.5).startswith("train and validation part: the training loss is 1.000, the validation loss 1.600")
    assert parting(1.55, 1.6, 1.5) is None  # no gap to speak of: noise
    assert parting(0.5, 1.5, 1.5) is None  # a gap, but still the best
    assert parting(2.5, 1.6, 1.5) is None


def test_too_good_rule():
    assert too_good(1.4, 2.45) is None
    assert too_good(0.6, 2.45) is None  # the best compressors known
    assert "implausibly low" in too_good(0.05, 2.45)
    assert too_good(0.05, 0.0) is None  # a text that is one pattern
    assert too_good(0.40, 2.45, floor=0.42) is None
    assert "its source's exact entropy" in too_good(0.30, 2.45, floor=0.42)


def test_a_mask_that_leaks_the_future_brings_a_warning():
    def warnings(causal_mask):
        model = TinyTransformerLM(replace(MODEL, causal=causal_mask, d_model=32, max_seq_len=16), seed=0)
        record = Record()
        settings = replace(SETTINGS, max_steps=250, batch_size=16, learning_rate=2e-2, eval_every=50, warmup_steps=10, weight_decay=0.0)
        make(model, settings, listener=record).fit()
        return [text for (text,) in record.of("warning") if "implausibly low" in text]

    assert len(warnings(causal_mask=False)) == 1
    assert warnings(causal_mask=True) == []


def test_memorising_brings_one_warning():
    """40 tokens of noise by heart: the training loss falls, the validation loss rises."""
    noise = np.random.default_rng(0).integers(VOCAB, size=400)
    model = small_transformer(d_model=32)
    record = Record()
    settings = replace(SETTINGS, max_steps=120, batch_size=8, learning_rate=1e-2, eval_every=30, weight_decay=0.0)
    make(model, settings, train=noise[:40], val=noise[40:], listener=record).fit()
    texts = [text for (text,) in record.of("warning")]
    assert len(texts) == 1 and texts[0].startswith("train and validation part")
