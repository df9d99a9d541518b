"""Runs: what a directory holds, how it is found again, and that nothing in it is ever written over."""

import errno
import json
import math
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.options import OPTIONS, small_config
from tiny_transformer import run as runs
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.run import Run, resolve
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.utils.checkpoint import Checkpoint, CheckpointError

TOKENIZER = CharTokenizer.train("abcdefghijklmnopq")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def some_checkpoint(option="gpt2", seed=0):
    model = TinyTransformerLM(small_config(option), seed=seed)
    return model, Checkpoint(model.config, TOKENIZER.to_dict(), model.weights())


def not_json(constant):
    raise AssertionError(f"{constant} is no JSON")


def strict(text):
    """JSON as every other program reads it: without NaN and Infinity."""
    return json.loads(text, parse_constant=not_json)


# ---------------------------------------------------------------- create, open, find


def test_what_create_writes():
    run = Run.create("checkpoints/first", {"training": {"max_steps": 3}, "odd": math.inf, "odder": [math.nan, (1, 2)]})
    record = strict((run.path / "config.json").read_text())
    assert record == run.record == Run.open("checkpoints/first").record
    assert record["training"] == {"max_steps": 3}
    assert (record["odd"], record["odder"]) == (None, [None, [1, 2]])
    assert [file.name for file in run.path.iterdir()] == ["config.json"]
    assert run.moved_aside is None


def test_the_environment_is_recorded(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tiny", "train", "--seed", "1"])
    found = Run.create("r", {}).record["environment"]
    assert found["command"] == ["tiny", "train", "--seed", "1"]
    assert (found["torch"], found["numpy"]) == (torch.__version__, np.__version__)
    assert found["threads"] == torch.get_num_threads()
    assert "core" in found["hardware"]
    assert {"python", "platform", "tiny_transformer", "commit"} <= set(found)
    assert abs((datetime.now().astimezone() - datetime.fromisoformat(found["started"])).total_seconds()) < 3600


def test_the_commit_is_that_of_this_package():
    root = Path(runs.__file__).parent.parent
    if not (root / ".git").exists():
        pytest.skip("the tests run outside a git checkout")
    head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert re.fullmatch(head + "(-dirty)?", runs.commit())


def test_the_commit_is_not_that_of_a_repository_around_an_installed_package(monkeypatch, here):
    monkeypatch.setattr(runs, "__file__", str(here / "site-packages" / "tiny_transformer" / "run.py"))
    (here / "site-packages" / "tiny_transformer").mkdir(parents=True)
    git = ["git", "-C", str(here), "-c", "user.name=a", "-c", "user.email=b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "c"], check=True)
    assert runs.commit() is None


def test_an_earlier_run_is_moved_aside_with_everything_in_it():
    first = Run.create("r", {"number": 1})
    first.say("hello")
    first.log(1, loss=2.0)
    second = Run.create("r", {"number": 2})
    third = Run.create("r", {"number": 3})
    assert (second.moved_aside / "log.txt").read_text() == "hello\n"
    assert Run.open(second.moved_aside).metrics() == [{"step": 1, "loss": 2.0}]
    assert [Run.open(path).record["number"] for path in (second.moved_aside, third.moved_aside, "r")] == [1, 2, 3]
    assert [file.name for file in Path("r").iterdir()] == ["config.json"]


def test_it_is_moved_to_the_name_of_its_start():
    run = Run.create("deep/r", {})
    record = run.record | {"environment": {"started": "2024-02-29T13:14:15+01:00"}}
    (run.path / "config.json").write_text(json.dumps(record))
    assert Run.create("deep/r", {}).moved_aside == Path("deep/r-20240229-131415")


@pytest.mark.parametrize("text", ['{"environment": ', '{"environment": {}}', '{"environment": {"started": 7}}', '["environment"]'])
def test_a_run_with_a_damaged_record_is_moved_aside_all_the_same(text):
    Path("r").mkdir()
    Path("r/config.json").write_text(text)
    Path("r/best.pt").write_text("precious")
    moved = Run.create("r", {}).moved_aside
    assert (moved / "best.pt").read_text() == "precious"


@pytest.mark.parametrize("record", [{"model_type": "gpt2", "environment": {"started": "2024"}}, {"server": {"environment": "here"}}])
def test_another_programs_config_is_no_run_though_it_names_an_environment(record):
    Path("r").mkdir()
    Path("r/config.json").write_text(json.dumps(record))
    assert Run.find(".") == []
    with pytest.raises(ValueError, match="r holds files that are no run"):
        Run.create("r", {})
    assert json.loads(Path("r/config.json").read_text()) == record


def test_another_programs_weights_are_not_suggested(here):
    for folder, record in (("theirs", {"model_type": "llama"}), ("ours", {"environment": {}})):
        Path(folder).mkdir()
        Path(folder, "config.json").write_text(json.dumps(record))
        Path(folder, "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"no checkpoint at back\. There is ours/model\.safetensors$"):
        resolve("back")


def test_a_folder_of_something_else_is_left_alone(here):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("years of work")
    (here / "file").write_text("x")
    for path in ("mine", "file"):
        with pytest.raises(ValueError, match=f"{path}.*Name a"):
            Run.create(path, {})
    assert [file.name for file in (here / "mine").iterdir()] == ["thesis.txt"]
    (here / "empty").mkdir()
    (here / "empty" / ".DS_Store").touch()
    assert Run.create("empty", {}).moved_aside is None


def test_the_current_folder_is_not_moved_away_from_under_us(monkeypatch):
    Run.create("r", {})
    (Path("r") / "samples").mkdir()
    monkeypatch.chdir("r")
    for path in (".", "../r"):
        with pytest.raises(ValueError, match="is the current folder"):
            Run.create(path, {})
    monkeypatch.chdir("samples")
    with pytest.raises(ValueError, match="is the current folder"):
        Run.create("..", {})


def test_find_lists_runs_and_passes_over_the_rest(here):
    Run.create("checkpoints/b", {})
    Run.create("checkpoints/deep/a", {})
    for name, text in (("damaged", '{"environment": '), ("foreign", "{}"), ("bytes", "\udcff")):
        (here / "checkpoints" / name).mkdir()
        (here / "checkpoints" / name / "config.json").write_text(text, errors="surrogateescape")
    assert [run.path.as_posix() for run in Run.find("checkpoints")] == ["checkpoints/b", "checkpoints/deep/a"]
    assert [run.path.as_posix() for run in Run.find("checkpoints/b")] == ["checkpoints/b"]
    assert Run.find("nowhere") == []
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        Run.open("checkpoints/damaged")


def test_open_suggests_the_nearest_run():
    with pytest.raises(ValueError, match=r"no run at checkpoints/shakespeare.*train one first"):
        Run.open("checkpoints/shakespeare")
    Run.create("checkpoints/shakespeare", {})
    Run.create("checkpoints/other", {})
    with pytest.raises(ValueError, match=r"no run at checkpoints/shakespeer\. Did you mean checkpoints/shakespeare\?"):
        Run.open("checkpoints/shakespeer")


# ---------------------------------------------------------------- metrics, log, samples


def test_metrics_are_strict_json_lines():
    run = Run.create("r", {})
    run.log(0, loss=4.2, lr=1e-3)
    run.log(10, loss=math.nan, val_loss=math.inf, low=-math.inf)
    run.log(np.int64(20), loss=torch.tensor(1.5), lr=np.float32(0.5), count=np.int64(3), nan=torch.tensor(math.nan), note="text", none=None)
    lines = [strict(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 0, "loss": 4.2, "lr": 1e-3},
        {"step": 10, "loss": None, "val_loss": None, "low": None},
        {"step": 20, "loss": 1.5, "lr": 0.5, "count": 3, "nan": None, "note": "text", "none": None},
    ]
    assert run.metrics() == lines == Run.open("r").metrics()


def test_lines_are_on_disk_at_once_and_numbers_exact():
    run = Run.create("r", {})
    assert run.metrics() == []
    for step in range(3):
        run.log(step, loss=0.1 * step)
        run.say(f"step {step}")
        assert [line["loss"] for line in Run.open("r").metrics()] == [0.1 * i for i in range(step + 1)]
        assert (run.path / "log.txt").read_text().splitlines() == [f"step {i}" for i in range(step + 1)]


WHOLE = '{"step": 0, "loss": 4.25}\n{"step": 10, "loss": 3.5}\n'


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
def test_a_crash_in_the_middle_of_a_line(cut):
    """Wherever the file ends: whole lines count, the rest is left out, and the next line is added properly."""
    run = Run.create("r", {})
    (run.path / "metrics.jsonl").write_text(WHOLE[:cut])
    first, second = (json.loads(line) for line in WHOLE.splitlines())
    whole = [first] * (cut >= WHOLE.index("\n")) + [second] * (cut >= len(WHOLE) - 1)
    assert run.metrics() == whole
    run.log(20, loss=1.0)
    run.log(30, loss=0.5)
    assert Run.open("r").metrics() == [*whole, {"step": 20, "loss": 1.0}, {"step": 30, "loss": 0.5}]


def test_a_line_of_zeros_after_a_power_cut():
    run = Run.create("r", {})
    (run.path / "metrics.jsonl").write_bytes(WHOLE.encode() + bytes(100))
    assert len(run.metrics()) == 2
    run.log(20)
    assert [line["step"] for line in run.metrics()] == [0, 10, 20]


@pytest.mark.parametrize("line", ["{broken", "[1]", '{"loss": 1}', '{"step": "one"}', ""])
def test_damage_in_the_middle_is_named(line):
    run = Run.create("r", {})
    (run.path / "metrics.jsonl").write_text('{"step": 0}\n' + line + '\n{"step": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged in line 2"):
        run.metrics()


def test_truncate_drops_what_came_later():
    run = Run.create("r", {})
    run.truncate(5)  # nothing there
    for step in (0, 10, 10, 20):
        run.log(step, loss=step + 0.5)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3')
    Run.open("r").truncate(10)
    assert run.metrics() == [{"step": 0, "loss": 0.5}, {"step": 10, "loss": 10.5}, {"step": 10, "loss": 10.5}]
    run.log(11)
    assert run.metrics()[-1] == {"step": 11}


def test_truncate_removes_what_dead_processes_left(here):
    run = Run.create("r", {})
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale, ours, other = (
        run.path / name for name in (f".last.pt.{dead.pid}.0a1b2c3d.tmp", f".last.pt.{os.getpid()}.0a1b2c3d.tmp", ".editor.tmp")
    )
    for file in (stale, ours, other):
        file.touch()
    run.truncate(0)
    assert (stale.exists(), ours.exists(), other.exists()) == (False, True, True)


def test_samples():
    run = Run.create("r", {})
    file = run.sample(500, "O Romeo\u2028\ud800é")
    assert file == run.path / "samples" / "000500.txt"
    assert file.read_text(encoding="utf-8") == "O Romeo\u2028\\ud800é\n"
    run.sample(500, "again")
    assert file.read_text() == "again\n"
    assert [entry.name for entry in file.parent.iterdir()] == ["000500.txt"]


# ---------------------------------------------------------------- save, resolve, load


@pytest.mark.parametrize("option", OPTIONS)
def test_a_loaded_model_gives_the_same_logits(option):
    model, checkpoint = some_checkpoint(option)
    Run.create("r", {}).save(checkpoint, "best")
    loaded, tokenizer = runs.load("r")
    ids = torch.tensor([TOKENIZER.encode("deadbeef")])
    assert torch.equal(loaded(ids), model.eval()(ids))
    assert not loaded.training
    assert tokenizer.encode("face") == TOKENIZER.encode("face")


def test_parts_that_do_not_belong_together():
    model, checkpoint = some_checkpoint()
    checkpoint.tokenizer = CharTokenizer([chr(i) for i in range(model.config.vocab_size + 1)]).to_dict()
    with pytest.raises(ValueError, match=f"{model.config.vocab_size + 1} tokens.*vocab_size={model.config.vocab_size}"):
        runs.build(checkpoint)
    checkpoint.tokenizer = None
    assert runs.build(checkpoint)[1] is None
    del checkpoint.weights["norm.weight"]
    with pytest.raises(ValueError, match=r"missing norm\.weight"):
        runs.build(checkpoint)


def test_a_failed_save_names_the_file_and_keeps_the_old_one(monkeypatch):
    run = Run.create("r", {})
    run.save(some_checkpoint(seed=0)[1])

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space.*r/last\.pt"):
            run.save(some_checkpoint(seed=1)[1])
    assert torch.equal(runs.load("r")[0].weights()["norm.weight"], some_checkpoint(seed=0)[0].weights()["norm.weight"])


def test_resolve_finds_what_was_meant(here, monkeypatch):
    run = Run.create("checkpoints/shakespeare", {})
    _, checkpoint = some_checkpoint()
    last = run.save(checkpoint)
    assert last == Path("checkpoints/shakespeare/last.pt")
    assert resolve("checkpoints/shakespeare") == resolve("shakespeare") == resolve(last) == last
    best = run.save(checkpoint, "best")
    assert resolve("checkpoints/shakespeare") == resolve("shakespeare") == best
    assert resolve("checkpoints/shakespeare_best.pt") == resolve("shakespeare_best.pt") == best
    assert resolve("checkpoints/shakespeare_last.pt") == resolve("shakespeare/last.pt") == last
    assert resolve(here / "checkpoints" / "shakespeare") == here / best
    (here / "shakespeare").mkdir()  # a folder of that name that holds no checkpoint is not meant
    assert resolve("shakespeare") == best
    monkeypatch.chdir(run.path)
    assert resolve(".") == Path("best.pt")


def test_what_exists_comes_first():
    run = Run.create("checkpoints/shakespeare", {})
    best = run.save(some_checkpoint()[1], "best")
    real = Path("checkpoints/shakespeare_best.pt")
    real.write_bytes(best.read_bytes())
    assert resolve("checkpoints/shakespeare_best.pt") == real
    near = Run.create("shakespeare", {})
    near.save(some_checkpoint()[1], "last")
    assert resolve("shakespeare") == near.path / "last.pt"


def test_a_wrong_path_suggests_the_nearest(here):
    with pytest.raises(ValueError, match=r"no checkpoint at nothing_here.*train one first"):
        resolve("nothing_here")
    run = Run.create("checkpoints/shakespeare", {})
    with pytest.raises(ValueError, match=r"shakespeare holds no checkpoint.*train one first"):
        resolve("checkpoints/shakespeare")
    run.save(some_checkpoint()[1], "best")
    Run.create("checkpoints/wikitext", {}).save(some_checkpoint()[1], "best")
    run.save(some_checkpoint()[1], "step500")
    for wrong in ("checkpoints/shakespear", "shakespere", "elsewhere/shakespere"):
        with pytest.raises(ValueError, match=r"Did you mean checkpoints/shakespeare\?"):
            resolve(wrong)
    for wrong in ("checkpoints/shakespeare/bets.pt", "checkpoints/shakespear_best.pt"):
        with pytest.raises(ValueError, match=r"Did you mean checkpoints/shakespeare/best\.pt\?"):
            resolve(wrong)
    with pytest.raises(ValueError, match=r"Did you mean checkpoints/shakespeare/step500\.pt\?"):
        resolve("checkpoints/shakespeare/step5000.pt")
    with pytest.raises(ValueError, match=r"There is checkpoints/shakespeare, checkpoints/wikitext$"):
        resolve("zzz")
    with pytest.raises(ValueError, match=rf"Did you mean {here}/checkpoints/wikitext\?"):
        resolve(here / "checkpoints" / "wikitxt")


def test_a_damaged_checkpoint_is_named():
    run = Run.create("r", {})
    file = run.save(some_checkpoint()[1], "best")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"r/best\.pt is damaged.*last\.pt"):
        runs.load("r")
