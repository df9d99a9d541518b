"""A stopped and resumed run is the uninterrupted one, bit for bit: in fresh processes, after signals and after kill -9."""

import random
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_transformer.config import ModelConfig, TrainConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.run import Run
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.training.listener import Listener
from tiny_transformer.training.trainer import Trainer
from tiny_transformer.utils.checkpoint import Checkpoint, load, save

MODEL = ModelConfig(vocab_size=10, max_seq_len=8, d_model=16, n_layers=1, n_heads=2, dropout=0.3)
SETTINGS = TrainConfig(
    max_steps=12, batch_size=7, accumulate=3, learning_rate=1e-2, warmup_steps=3, weight_decay=0.2, clip_norm=0.5, eval_every=4,
    eval_tokens=100, save_every=100, log_every=1, patience=50, seed=5, device="cpu", precision="float32",
)  # fmt: skip
TOKENIZER = CharTokenizer("0123456789")
_GENERATOR = np.random.default_rng(0)
TRAIN, VAL = _GENERATOR.integers(10, size=500), _GENERATOR.integers(10, size=150)


class StopAt(Listener):
    """Sends this process a signal after `step`; draws random numbers on the way, as a listener that samples does."""

    def __init__(self, step=None, number=signal.SIGTERM):
        self.step, self.number, self.warnings = step, number, []

    def on_sample(self, step):
        torch.rand(3)
        random.random()

    def on_step(self, step, *_):
        if step == self.step:
            signal.raise_signal(self.number)

    def on_warning(self, text):
        self.warnings.append(text)


def start(path, listener=None, settings=SETTINGS):
    model = TinyTransformerLM(MODEL, seed=1)
    return Trainer(model, TOKENIZER, TRAIN, VAL, settings, run=Run.create(path, {}), listener=listener, lineage={"recipe": "test"})


def resume(path, listener=None, settings=None):
    return Trainer.resume(Run.open(path), TRAIN, VAL, settings, listener=listener)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run: its directory."""
    path = tmp_path_factory.mktemp("whole") / "run"
    start(path, StopAt()).fit()
    return path


def losses(path):
    """What was logged, times and speeds apart."""
    keep = ("step", "loss", "lr", "grad_norm", "train_loss", "val_loss", "final_val_loss")
    return [{name: line[name] for name in keep if name in line} for line in Run.open(path).metrics()]


def flatten(value, name=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}")
    else:
        yield name, value


def assert_same_checkpoint(path, other, name="last"):
    ours, theirs = load(path / f"{name}.pt"), load(other / f"{name}.pt")
    assert (ours.step, ours.metrics, ours.lineage, ours.config, ours.tokenizer) == (
        theirs.step, theirs.metrics, theirs.lineage, theirs.config, theirs.tokenizer,
    )  # fmt: skip
    for one, two in ((ours.weights, theirs.weights), (ours.training or {}, theirs.training or {})):
        left, right = dict(flatten(one)), dict(flatten(two))
        assert left.keys() == right.keys()
        for key in left.keys() - {".progress.seconds"}:
            same = torch.equal(left[key], right[key]) if isinstance(left[key], torch.Tensor) else left[key] == right[key]
            assert same, f"{name}.pt: {key} differs"


def scramble():
    """Leave every generator of this process somewhere else."""
    random.seed(123)
    np.random.seed(321)
    torch.manual_seed(999)
    torch.rand(17)


# ---------------------------------------------------------------- the same bits


@pytest.mark.parametrize("stop", range(1, 12))
def test_resumed_at_any_step_in_this_process(whole, tmp_path, stop):
    first = start(tmp_path / "run", StopAt(stop)).fit()
    assert (first.steps, first.stopped, first.exit_code) == (stop, "signal", 143)
    scramble()
    listener = StopAt()
    trainer = resume(tmp_path / "run", listener)
    scramble()
    result = trainer.fit()
    assert (result.steps, result.stopped, listener.warnings) == (12, "finished", [])
    assert_same_checkpoint(tmp_path / "run", whole)
    assert_same_checkpoint(tmp_path / "run", whole, "best")
    assert losses(tmp_path / "run") == losses(whole)


CHILD = """
import signal, sys
sys.path.insert(0, {tests!r})
signal.signal(signal.SIGINT, signal.default_int_handler)
import test_resume as t
path, step, name, mode, save_every = sys.argv[1:]
listener = t.StopAt(int(step), getattr(signal, name))
settings = t.replace(t.SETTINGS, save_every=int(save_every))
trainer = t.start(path, listener, settings) if mode == "start" else t.resume(path, listener)
result = trainer.fit()
for line in listener.warnings:
    print(line)
sys.exit(result.exit_code)
"""


def process(path, step, name, mode, save_every=100):
    code = CHILD.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", code, str(path), str(step), name, mode, str(save_every)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_fresh_processes_make_the_same_run(whole, tmp_path):
    """Stopped by SIGTERM at step 3 and, in a second process, by SIGINT at step 8 where an evaluation is due; ended in this one."""
    path = tmp_path / "run"
    for step, name, mode, code in ((3, "SIGTERM", "start", 143), (8, "SIGINT", "go on", 130)):
        ended = process(path, step, name, mode)
        assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
        assert load(path / "last.pt").step == step
    scramble()
    resume(path).fit()
    assert_same_checkpoint(path, whole)
    assert_same_checkpoint(path, whole, "best")
    assert losses(path) == losses(whole)


def test_killed_without_warning_goes_on_from_the_last_save(whole, tmp_path):
    path = tmp_path / "run"
    ended = process(path, 9, "SIGKILL", "start", save_every=2)
    assert ended.returncode == -signal.SIGKILL
    assert load(path / "last.pt").step == 8
    assert losses(path)[-1]["step"] == 9
    scramble()
    resume(path, settings=SETTINGS).fit()
    assert_same_checkpoint(path, whole)
    assert_same_checkpoint(path, whole, "best")
    assert losses(path) == losses(whole)  # the line of step 9 stands once


def test_best_so_far_and_patience_are_part_of_the_state(tmp_path):
    settings = replace(SETTINGS, eval_every=1, patience=4, max_steps=60, learning_rate=0.1)
    start(tmp_path / "whole", settings=settings).fit()
    straight = load(tmp_path / "whole" / "last.pt")
    assert straight.step < 60
    start(tmp_path / "run", StopAt(straight.step - 2), settings).fit()
    result = resume(tmp_path / "run").fit()
    assert (result.steps, result.stopped, result.best_step) == (straight.step, "early", straight.metrics["best_step"])
    assert_same_checkpoint(tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_resumed_changes_nothing(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    result = resume(tmp_path / "run").fit()
    assert (result.steps, result.stopped) == (12, "finished")
    assert_same_checkpoint(tmp_path / "run", whole)


def test_wall_clock_time_adds_up(tmp_path):
    first = start(tmp_path / "run", StopAt(6)).fit()
    saved = load(tmp_path / "run" / "last.pt").training["progress"]["seconds"]
    result = resume(tmp_path / "run").fit()
    assert 0 < saved <= first.seconds < result.seconds


def test_the_fused_and_the_readable_optimizer_can_take_over_from_each_other(whole, tmp_path):
    start(tmp_path / "run", StopAt(6)).fit()
    trainer = resume(tmp_path / "run", settings=replace(SETTINGS, fused_optimizer=False))
    trainer.fit()
    theirs = load(whole / "last.pt").weights
    for name, tensor in trainer.model.weights().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- where it cannot be the same, it says so


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    path = tmp_path_factory.mktemp("stopped") / "run"
    start(path, StopAt(6)).fit()
    return path


def warnings_of(path, tmp_path, settings=None, **texts):
    shutil.copytree(path, tmp_path / "run")
    listener = StopAt()
    texts = {"train_ids": TRAIN, "val_ids": VAL, **texts}
    Trainer.resume(Run.open(tmp_path / "run"), texts["train_ids"], texts["val_ids"], settings, listener=listener).fit()
    return listener.warnings


def test_another_thread_count_is_said(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "elsewhere")
    saved = load(stopped / "last.pt")
    saved.training["circumstances"]["threads"] = 64
    save(tmp_path / "elsewhere" / "last.pt", saved)
    warnings = warnings_of(tmp_path / "elsewhere", tmp_path)
    now = torch.get_num_threads()
    assert warnings == [f"resumed with threads {now} instead of 64: the run goes on, but not bit for bit as if never stopped"]


def test_another_version_is_said(stopped, tmp_path, monkeypatch):
    before = torch.__version__
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    warnings = warnings_of(stopped, tmp_path)
    assert warnings == [f"resumed with torch 9.9.9 instead of {before}: the run goes on, but not bit for bit as if never stopped"]


def test_another_text_is_said(stopped, tmp_path):
    changed = TRAIN.copy()
    changed[7] = (changed[7] + 1) % 10
    assert warnings_of(stopped, tmp_path, train_ids=changed) == [
        "resumed with another text: the run goes on, but not bit for bit as if never stopped"
    ]


def test_other_settings_are_said(stopped, tmp_path):
    warnings = warnings_of(stopped, tmp_path, replace(SETTINGS, max_steps=14, learning_rate=0.02))
    assert warnings == [
        "resumed with max_steps 14 instead of 12, learning_rate 0.02 instead of 0.01: the run goes on, but not as if never stopped"
    ]


def test_weights_alone_cannot_be_resumed(whole):
    trainer = Trainer(TinyTransformerLM(MODEL, seed=1), TOKENIZER, TRAIN, VAL, SETTINGS)
    with pytest.raises(ValueError, match="weights only: resuming needs the training state. Use the run's last checkpoint"):
        trainer.load_state(load(whole / "best.pt"))


def test_another_model_cannot_be_resumed(whole):
    trainer = Trainer(TinyTransformerLM(replace(MODEL, n_layers=2), seed=1), TOKENIZER, TRAIN, VAL, SETTINGS)
    with pytest.raises(ValueError, match="do not fit"):
        trainer.load_state(load(whole / "last.pt"))


def test_the_state_is_plain_values_and_tensors(whole):
    saved = load(whole / "last.pt")
    assert isinstance(saved, Checkpoint)
    allowed = (torch.Tensor, int, float, str, bool, type(None), list)
    assert all(isinstance(value, allowed) for _, value in flatten(saved.training))


def test_settings_that_have_come_since_a_run_are_no_difference():
    from tiny_transformer.training.resume import differences

    older = {name: value for name, value in asdict(SETTINGS).items() if name not in ("optimizer", "muon_momentum")}
    assert list(differences({"circumstances": {}, "settings": older}, {}, SETTINGS)) == []
    changed = list(differences({"circumstances": {}, "settings": older}, {}, replace(SETTINGS, optimizer="muon")))
    assert len(changed) == 1 and "optimizer muon instead of adamw" in changed[0]
