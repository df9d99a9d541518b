"""Training in the NumPy engine: the same steps, losses, files and decisions as in the PyTorch engine, and no PyTorch needed."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.options import small_config
from tiny_transformer import run as runs
from tiny_transformer.cli.main import main
from tiny_transformer.config import ConfigError, TrainConfig
from tiny_transformer.model import TinyTransformerLM as TorchModel
from tiny_transformer.numpy_engine import checkpoint as numpy_checkpoints
from tiny_transformer.numpy_engine import trainer as numpy_trainer
from tiny_transformer.numpy_engine.model import TinyTransformerLM, init_weights
from tiny_transformer.numpy_engine.optimizers import AdamW, adamw_step, clip_gradients, gradient_norm, scale_gradients
from tiny_transformer.numpy_engine.threads import blas_threads, using_threads
from tiny_transformer.numpy_engine.trainer import Trainer
from tiny_transformer.run import Run
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.training import trainer as torch_trainer
from tiny_transformer.training.listener import Listener, TrainingError
from tiny_transformer.utils.checkpoint import CheckpointError

ROOT = Path(__file__).resolve().parent.parent
IDS = np.random.default_rng(5).integers(17, size=4000)
IDS[1::2] = (IDS[::2] * 3 + 1) % 17  # half of the text can be learned
TRAIN, VAL = IDS[:3400], IDS[3400:]
SETTINGS = TrainConfig(
    max_steps=10, batch_size=6, accumulate=4, learning_rate=0.01, warmup_steps=3, schedule="wsd", decay_share=0.4, weight_decay=0.2,
    clip_norm=0.5, eval_every=5, eval_tokens=200, save_every=4, log_every=1, seed=3, device="cpu", precision="float32",
)  # fmt: skip


class Record(Listener):
    """Writes down what every step reports."""

    def __init__(self):
        self.steps, self.evaluations, self.warnings = [], [], []

    def on_step(self, step, loss, lr, grad_norm, tokens_per_second):
        self.steps.append((step, loss, lr, grad_norm))

    def on_eval(self, step, train_loss, val_loss, is_best):
        self.evaluations.append((step, train_loss, val_loss, is_best))

    def on_warning(self, text):
        self.warnings.append(text)


def by_numpy(config, settings=SETTINGS, dtype=np.float64, train=TRAIN, val=VAL, **more):
    """(record, result, weights) of a NumPy run."""
    weights = {name: weight.astype(dtype) for name, weight in init_weights(config, settings.seed).items()}
    record = Record()
    trainer = Trainer(TinyTransformerLM(config, weights), None, train, val, settings, listener=record, **more)
    return record, trainer.fit(), trainer.model.weights()


def by_torch(config, settings=SETTINGS, dtype=torch.float64, train=TRAIN, val=VAL, **more):
    """The same of a PyTorch run."""
    record = Record()
    model = TorchModel(config, seed=settings.seed).to(dtype)
    trainer = torch_trainer.Trainer(model, None, train, val, settings, listener=record, **more)
    return record, trainer.fit(), trainer.model.weights()


# --- the same steps -------------------------------------------------------------------------------------------------

TEN_STEPS = ["gpt2", "modern", "post", "swiglu", "sinusoidal", "alibi", "untied", "window rotary grouped", "softcap", "llama3 rope"]


@pytest.mark.parametrize("option", TEN_STEPS)
def test_ten_steps_have_the_same_losses_in_float64(option):
    config = small_config(option)
    (ours, result, weights), (theirs, their_result, their_weights) = by_numpy(config), by_torch(config)
    np.testing.assert_allclose(ours.steps, theirs.steps, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.evaluations, theirs.evaluations, rtol=1e-9)
    assert abs(result.final_val_loss - their_result.final_val_loss) < 1e-9
    assert any(norm > SETTINGS.clip_norm for *_, norm in ours.steps)  # clipping was at work
    for name, weight in their_weights.items():
        np.testing.assert_allclose(weights[name], weight.numpy(), rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("option", TEN_STEPS)
def test_ten_steps_have_the_same_losses_in_float32(option):
    config = small_config(option)
    (ours, result, weights), (theirs, *_) = by_numpy(config, dtype=np.float32), by_torch(config, dtype=torch.float32)
    assert {weight.dtype for weight in weights.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose([step[1] for step in ours.steps], [step[1] for step in theirs.steps], atol=1e-4, rtol=0)
    assert result.tokens_per_second > 0


def same_curves(text, steps, config):
    """Both engines on one text in float32; the largest difference of the losses of any step."""
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode_array(text)
    train, val = ids[: int(len(ids) * 0.9)], ids[int(len(ids) * 0.9) :]
    config = replace(config, vocab_size=tokenizer.vocab_size)
    settings = TrainConfig(
        max_steps=steps, batch_size=8, learning_rate=3e-3, warmup_steps=20, eval_every=100, eval_tokens=2000, seed=1,
        device="cpu", precision="float32",
    )  # fmt: skip
    ours, result, _ = by_numpy(config, settings, np.float32, train, val)
    theirs, their_result, _ = by_torch(config, settings, torch.float32, train, val)
    curves = np.array([[step[1] for step in record.steps] for record in (ours, theirs)])
    assert curves.shape == (2, steps)
    assert curves[:, -20:].mean() < curves[:, :5].mean() - 1  # it learned something
    assert abs(result.final_val_loss - their_result.final_val_loss) < 0.01
    return np.abs(curves[0] - curves[1]).max()


CURVES = small_config("modern", max_seq_len=32, d_model=48, n_layers=2)


def test_three_hundred_steps_on_real_text_lie_on_each_other(corpora_dir):
    text = (corpora_dir / "shakespeare.txt").read_text(encoding="utf-8")[:60_000]
    assert same_curves(text, 300, CURVES) < 1e-4


def test_three_hundred_steps_on_a_generated_text_lie_on_each_other(small_text):
    assert same_curves(small_text, 300, CURVES) < 1e-4


def test_accumulation_makes_the_step_of_the_whole_batch():
    config = small_config("modern")
    whole, parts = (by_numpy(config, replace(SETTINGS, accumulate=number))[0] for number in (1, 5))
    np.testing.assert_allclose(whole.steps, parts.steps, rtol=1e-9)


# --- dropout --------------------------------------------------------------------------------------------------------


def test_dropout_masks_depend_on_seed_step_micro_batch_and_place_only():
    config = small_config("gpt2", dropout=0.3)
    first, again, other = (by_numpy(config, replace(SETTINGS, seed=seed))[0] for seed in (3, 3, 4))
    without = by_numpy(small_config("gpt2"))[0]
    assert first.steps == again.steps != other.steps
    assert all(a[1] != b[1] for a, b in zip(first.steps, without.steps, strict=True))
    assert first.evaluations[0] == without.evaluations[0]  # evaluations drop nothing
    trainer = Trainer(TinyTransformerLM(config, init_weights(config, 0)), None, TRAIN, VAL, SETTINGS)
    batch = numpy_trainer.Batch(TRAIN[:24].reshape(2, 12), TRAIN[1:25].reshape(2, 12))
    masks = []
    for step, number in ((0, 0), (0, 0), (0, 1), (1, 0)):
        trainer.progress.step = step
        draw = trainer._dropout(batch, number)
        masks.append([draw("embeddings"), draw("blocks.0.attention")])
    assert masks[0][0].shape == (2, 12, config.d_model)
    assert (masks[0][0] == masks[1][0]).all()
    assert all((masks[0][0] != mask).any() for mask in (masks[0][1], masks[2][0], masks[3][0]))
    assert 0.6 < np.mean(masks) < 0.8


# --- AdamW and clipping ---------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(1e-5, 0.1), st.floats(0, 0.5), st.tuples(st.floats(0, 0.99), st.floats(0, 0.999)))
def test_adamw_is_torchs(seed, lr, decay, betas):
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(1, 5, size=generator.integers(1, 4)))
    weight, state = generator.standard_normal(shape), {}
    theirs = torch.nn.Parameter(torch.from_numpy(weight.copy()))
    optimizer = torch.optim.AdamW([theirs], lr=lr, betas=betas, eps=1e-8, weight_decay=decay)
    for _ in range(4):
        gradient = generator.standard_normal(shape)
        theirs.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        adamw_step(weight, gradient, state, lr=lr, beta1=betas[0], beta2=betas[1], eps=1e-8, weight_decay=decay)
    np.testing.assert_allclose(weight, theirs.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state["exp_avg_sq"], optimizer.state[theirs]["exp_avg_sq"].numpy(), rtol=1e-12)


def test_adamw_reaches_every_element_of_a_large_weight(monkeypatch):
    monkeypatch.setattr("tiny_transformer.numpy_engine.optimizers.BLOCK", 7)
    weight, whole = np.ones((5, 9)), np.ones((5, 9))
    gradient = np.random.default_rng(0).standard_normal((9, 5)).T  # not contiguous
    adamw_step(weight, gradient, {}, lr=0.1)
    monkeypatch.undo()
    adamw_step(whole, gradient, {}, lr=0.1)
    assert (weight == whole).all()
    assert (weight != 1).all()


def test_vectors_do_not_decay_and_loose_weights_are_refused():
    weights = {"matrix": np.ones((2, 2)), "vector": np.ones(2)}
    optimizer = AdamW(weights, weight_decay=0.5)
    optimizer.step({name: np.zeros_like(weight) for name, weight in weights.items()}, lr=0.1)
    assert weights["matrix"][0, 0] == pytest.approx(0.95)
    assert weights["vector"][0] == 1
    with pytest.raises(ValueError, match="matrix: a weight must be contiguous"):
        AdamW({"matrix": np.ones((2, 3)).T})
    with pytest.raises(ValueError, match=r"unknown \['other'\], missing \['matrix'\]"):
        optimizer.load_state({"vector": {}, "other": {}})


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 20))
def test_clipping_is_torchs(seed, max_norm):
    generator = np.random.default_rng(seed)
    gradients = {name: generator.standard_normal((3, 4)) * 3 for name in "ab"}
    parameters = [torch.nn.Parameter(torch.zeros(3, 4, dtype=torch.float64)) for _ in gradients]
    for parameter, gradient in zip(parameters, gradients.values(), strict=True):
        parameter.grad = torch.from_numpy(gradient.copy())
    before = {name: gradient.copy() for name, gradient in gradients.items()}
    norm = clip_gradients(gradients, max_norm)
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(parameters, max_norm)))
    for (name, gradient), parameter in zip(gradients.items(), parameters, strict=True):
        np.testing.assert_allclose(gradient, parameter.grad.numpy(), rtol=1e-5)
        assert norm > max_norm or (gradient == before[name]).all()  # not touched, not by a bit


@pytest.mark.parametrize("norm", [np.inf, np.nan])
def test_a_norm_that_is_not_finite_scales_nothing(norm):
    gradient = np.ones(3)
    scale_gradients([gradient], norm, 1.0)
    assert (gradient == 1).all()
    assert not np.isfinite(gradient_norm([np.array([1.0, norm])]))


# --- stopping, saving, going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stops_before_the_update(value, monkeypatch):
    config = small_config("gpt2")
    trainer = Trainer(TinyTransformerLM(config, init_weights(config, 0)), None, TRAIN, VAL, SETTINGS)
    honest = trainer.model.loss_and_gradients

    def broken(batch, **more):
        loss, gradients = honest(batch, **more)
        gradients["norm.weight"][0] = value
        return loss, gradients

    monkeypatch.setattr(trainer.model, "loss_and_gradients", broken)
    with pytest.raises(TrainingError, match="step 0: the gradient norm is"):
        trainer.fit()
    assert all((weight == trainer.model.weights()[name]).all() for name, weight in init_weights(config, 0).items())
    assert trainer.gradients == {}


def run_of(path, settings=SETTINGS, option="modern", **more):
    config = small_config(option, **more)
    record = Record()
    model = TinyTransformerLM(config, init_weights(config, 1))
    return Trainer(model, CharTokenizer.train("abcdefghijklmnopq"), TRAIN, VAL, settings, run=Run.create(path, {}), listener=record)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path, dropout):
    whole = run_of(tmp_path / "whole", dropout=dropout)
    result = whole.fit()
    half = run_of(tmp_path / "half", dropout=dropout)
    half.listener.on_step = lambda step, *_: signal.raise_signal(signal.SIGINT) if step == 6 else None
    assert half.fit().stopped == "signal"
    record = Record()
    resumed = Trainer.resume(Run.open(tmp_path / "half"), TRAIN, VAL, listener=record)
    again = resumed.fit()
    assert record.warnings == []
    assert (again.final_val_loss, again.best_val_loss, again.best_step) == (result.final_val_loss, result.best_val_loss, result.best_step)
    for name in ("best", "last"):
        files = [numpy_checkpoints.load(tmp_path / folder / f"{name}.safetensors") for folder in ("whole", "half")]
        assert all((files[0].weights[key] == files[1].weights[key]).all() for key in files[0].weights)
    states = [file.training["optimizer"] for file in files]
    assert all((states[0][key]["exp_avg"] == states[1][key]["exp_avg"]).all() for key in states[0])

    def metrics(folder):
        return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in Run.open(tmp_path / folder).metrics()]

    assert metrics("whole") == metrics("half")


def test_a_resumed_run_says_what_has_changed(tmp_path):
    run_of(tmp_path / "run", replace(SETTINGS, max_steps=4)).fit()
    record = Record()
    settings = replace(SETTINGS, max_steps=5, learning_rate=0.5)
    Trainer.resume(Run.open(tmp_path / "run"), TRAIN, VAL[:-1], settings, listener=record).fit()
    assert any("another text" in line for line in record.warnings)
    assert any("learning_rate 0.5 instead of 0.01" in line for line in record.warnings)


def test_weights_alone_cannot_be_resumed(tmp_path):
    trainer = run_of(tmp_path / "run")
    trainer.fit()
    with pytest.raises(ValueError, match="weights only"):
        trainer.load_state(numpy_checkpoints.load(tmp_path / "run" / "best.safetensors"))


def test_the_final_loss_is_that_of_the_best_weights(tmp_path):
    trainer = run_of(tmp_path / "run", replace(SETTINGS, learning_rate=1.0, schedule="constant", max_steps=20))
    result = trainer.fit()
    assert result.best_step < 20
    last = trainer.evaluate(VAL)
    best = numpy_checkpoints.load(tmp_path / "run" / "best.safetensors")
    trainer.model.load_weights(best.weights)
    assert trainer.evaluate(VAL) == result.final_val_loss < last


def test_a_flipped_bit_in_the_training_state_is_found(tmp_path):
    run_of(tmp_path / "run").fit()
    file = tmp_path / "run" / "last.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="last.safetensors"):
        numpy_checkpoints.load(file)


def test_torch_reads_a_numpy_run_and_the_other_way_round(tmp_path):
    trainer = run_of(tmp_path / "run")
    trainer.fit()
    assert runs.resolve(tmp_path / "run").name == "best.safetensors"
    model, tokenizer = runs.load(tmp_path / "run")
    ids = TRAIN[:24].reshape(2, 12)
    best = numpy_checkpoints.load(tmp_path / "run" / "best.safetensors")
    ours = TinyTransformerLM(best.config, best.weights).forward(ids)
    np.testing.assert_allclose(model(torch.from_numpy(ids)).detach().numpy(), ours, rtol=1e-4, atol=1e-5)
    assert tokenizer.symbols == trainer.tokenizer.symbols
    back = runs.as_numpy(runs.read(tmp_path / "run" / "best.safetensors"))
    numpy_checkpoints.save(tmp_path / "back.safetensors", back)
    again = numpy_checkpoints.load(tmp_path / "back.safetensors")
    assert (again.step, again.metrics, again.tokenizer) == (best.step, best.metrics, best.tokenizer)
    assert all((again.weights[name] == best.weights[name]).all() for name in best.weights)


def test_threads_can_be_chosen_and_come_back():
    before = blas_threads()
    with using_threads(1):
        assert blas_threads() == 1
    with using_threads(0):
        assert blas_threads() == before
    assert blas_threads() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cuda"}, "device='cuda': the NumPy engine computes on the CPU"),
        ({"precision": "bfloat16"}, "precision='bfloat16': the NumPy engine computes in float32"),
        ({"checkpoint_layers": True}, "checkpoint_layers=True: the NumPy engine keeps every block's inside"),
        ({"compile": True}, "compile=True: the NumPy engine has nothing to compile"),
    ],
)
def test_settings_for_torch_alone_are_refused(settings, message):
    config = small_config("gpt2")
    with pytest.raises(ConfigError, match=message):
        Trainer(TinyTransformerLM(config, init_weights(config, 0)), None, TRAIN, VAL, replace(SETTINGS, **settings))


# --- the command line -----------------------------------------------------------------------------------------------

FLAGS = [
    "--preset", "tiny", "--d-model", "32", "--n-layers", "1", "--max-seq-len", "16", "--max-steps", "12", "--batch-size", "4",
    "--eval-every", "6", "--warmup-steps", "3", "--learning-rate", "0.01", "--log-every", "1", "--threads", "1",
]  # fmt: skip


def without_torch(folder, *commands):
    """Run commands in a process in which `import torch` raises; returns its output."""
    code = (
        "import sys, json\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] == 'torch':\n            raise ImportError('torch must not be imported')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from tiny_transformer.cli.main import main\n"
        "for command in json.loads(sys.argv[1]):\n    code = main(command)\n    assert code == 0, (command, code)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, json.dumps(commands)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_training_and_writing_without_torch(tmp_path, small_text):
    (tmp_path / "text.txt").write_text(small_text, encoding="utf-8")
    train = ["train", "--engine", "numpy", "--data", "text.txt", "--out", "run", *FLAGS]
    generate = ["generate", "run", "--engine", "numpy", "--prompt", "The ", "--max-tokens", "30", "--seed", "1"]
    output = without_torch(tmp_path, train, ["train", "--resume", "run", "--max-steps", "16"], generate)
    assert "PyTorch is not loaded" in output
    assert "resuming after 12 of 16 steps" in output
    run = Run.open(tmp_path / "run")
    assert run.record["engine"] == "numpy"
    assert run.record["environment"]["torch"] is None
    names = {path.name for path in run.path.iterdir()}
    assert {"config.json", "best.safetensors", "last.safetensors", "metrics.jsonl", "log.txt", "samples", "loss.png", "loss.svg"} <= names
    assert not any(name.endswith(".pt") for name in names)
    assert run.metrics()[-1]["step"] == 16


def test_both_engines_leave_the_same_metrics_samples_and_text(tmp_path, small_text, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(small_text, encoding="utf-8")
    for engine in ("torch", "numpy"):
        assert main(["train", "--engine", engine, "--data", "text.txt", "--out", engine, *FLAGS]) == 0
    mine, other = Run.open("numpy"), Run.open("torch")
    assert [line.keys() for line in mine.metrics()] == [line.keys() for line in other.metrics()]
    for ours, theirs in zip(mine.metrics(), other.metrics(), strict=True):
        for name in ours.keys() - {"tokens_per_second"}:
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4, rel=1e-4), name
    names = sorted(path.name for path in (mine.path / "samples").iterdir())
    assert names == sorted(path.name for path in (other.path / "samples").iterdir())
    assert all((mine.path / "samples" / name).read_text() == (other.path / "samples" / name).read_text() for name in names)
    capsys.readouterr()
    texts = []
    for engine in ("torch", "numpy"):
        assert main(["generate", "numpy", "--engine", engine, "--prompt", "The ", "--seed", "4", "--json"]) == 0
        texts.append(json.loads(capsys.readouterr().out)["samples"][0]["text"])
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "cuda"], "the NumPy engine computes on the CPU"),
        (["--compile"], "the NumPy engine has nothing to compile"),
        (["--engine", "jax"], "--engine 'jax': it must be one of 'torch', 'numpy'"),
    ],
)
def test_what_the_engine_cannot_do_is_one_line_and_nothing_is_written(tmp_path, small_text, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(small_text, encoding="utf-8")
    assert main(["train", "--data", "text.txt", "--out", "run", *FLAGS, "--engine", "numpy", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_pt_file_is_refused_by_the_numpy_engine(tmp_path, small_text, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(small_text, encoding="utf-8")
    assert main(["train", "--data", "text.txt", "--out", "run", *FLAGS]) == 0
    capsys.readouterr()
    assert main(["generate", "run", "--engine", "numpy", "--prompt", "The "]) == 2
    assert "best.pt with --engine numpy: the NumPy engine reads .safetensors and .npz files" in capsys.readouterr().err
