"""Bad input: one line that says what came, what must be and what to do; exit code 2; nothing written."""

import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_transformer.cli.main import main

SMALL = ["--d-model", "16", "--n-layers", "1", "--n-heads", "2", "--max-seq-len", "16", "--batch-size", "2", "--threads", "1"]
SHORT = ["--max-steps", "2", "--warmup-steps", "0", "--eval-every", "2", "--eval-tokens", "64"]
TEXT = "the quick brown fox jumps over the lazy dog. " * 40


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Every test works in an empty folder of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TINY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(TEXT)


def files():
    return sorted(str(path) for path in Path().rglob("*"))


def refused(argv, capsys, *, left=()):
    """Run `tiny argv`, check that it was refused properly, and return its line."""
    capsys.readouterr()
    code = main(argv)
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert code == 2, err
    assert len(lines) == 1 and lines[0].startswith(f"tiny {argv[0]}: "), err
    assert "Traceback" not in err + out
    assert files() == sorted(left), "nothing may be written"
    return lines[0].removeprefix(f"tiny {argv[0]}: ")


def train(*argv):
    return ["train", "--out", "run", *SMALL, *SHORT, *argv]


# --- texts ------------------------------------------------------------------------------------------------------------


def test_an_empty_file(tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("")
    assert "empty" in refused(train("--data", str(tmp_path / "empty.txt")), capsys)


@pytest.mark.parametrize("length", [1, 5, 17, 18])
def test_a_text_shorter_than_a_window(tmp_path, capsys, length):
    (tmp_path / "short.txt").write_text("abcdefghijklmnopqrstuvwxyz"[:length])
    line = refused(train("--data", str(tmp_path / "short.txt")), capsys)
    assert re.search(r"\d+ (tokens|characters)", line)


def test_a_refusal_is_all_that_is_said(tmp_path, capsys):
    """Also where the machine decided the size, which is worth a line once training begins."""
    (tmp_path / "short.txt").write_text("abc")
    assert main(["train", "--data", str(tmp_path / "short.txt")]) == 2
    assert capsys.readouterr().out == ""


def test_a_file_that_is_not_utf8(tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes("déjà vu ".encode("latin-1") * 100)
    line = refused(train("--data", str(tmp_path / "latin.txt")), capsys)
    assert "UTF-8" in line and "latin.txt" in line


def test_a_file_that_is_not_there(capsys):
    assert "nowhere.txt" in refused(train("--data", "nowhere.txt"), capsys)


def test_no_other_text_is_read_instead_of_ones_own(capsys):
    line = refused(train("--recipe", "demo", "--data", "nowhere.txt"), capsys)
    assert "nowhere.txt" in line and "pitches" not in line


def test_a_folder_instead_of_a_file(tmp_path, capsys):
    refused(train("--data", str(tmp_path)), capsys)


def test_an_unknown_corpus(capsys):
    line = refused(train("--corpus", "shakespear"), capsys)
    assert "shakespeare" in line


def test_no_text_at_all(capsys):
    assert "Try --corpus" in refused(train(), capsys)


def test_an_empty_standard_input(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert "Pipe it in: cat FILE | tiny" in refused(train("--data", "-"), capsys)


def test_text_from_the_keyboard_is_asked_for(capsys, monkeypatch):
    from tiny_transformer.cli.texts import read
    from tiny_transformer.config import DataConfig

    keyboard = io.TextIOWrapper(io.BytesIO(b"typed by hand"))
    monkeypatch.setattr(keyboard, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", keyboard)
    read(DataConfig(data="-"))
    assert "reading the text from the keyboard; Ctrl-D" in capsys.readouterr().err


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--d-model", "18", "--n-heads", "4"], "d_model=18 is not divisible by n_heads=4"),
        (["--n-layers", "0"], "n_layers=0"),
        (["--dropout", "1"], "dropout=1"),
        (["--learning-rate", "-1"], "learning_rate=-1"),
        (["--learning-rate", "nan"], "learning_rate=nan"),
        (["--batch-size", "0"], "batch_size=0"),
        (["--accumulate", "3"], "accumulate=3 is larger than batch_size=2"),
        (["--val-share", "0"], "val_share=0"),
        (["--val-share", "1.5"], "val_share=1.5"),
        (["--max-steps", "-1"], "max_steps=-1"),
        (["--device", "abacus"], "abacus"),
        (["--size", "0"], "size=0"),
        (["--preset", "gargantua"], "preset='gargantua': it must be one of tiny"),
        (["--recipe", "soup"], "recipe='soup': it must be one of demo"),
        (["--config", "none.toml"], "there is no settings file none.toml"),
        (["--max-stepz", "3"], "Did you mean --max-steps?"),
        (["--prompt", "∞"], "'∞'"),
    ],
)
def test_impossible_settings(tmp_path, capsys, flags, words):
    assert words in refused(train("--data", str(tmp_path / "text.txt"), *flags), capsys)


def test_two_texts(tmp_path, capsys):
    assert "only one text can be read" in refused(train("--data", str(tmp_path / "text.txt"), "--corpus", "pitches"), capsys)


def test_a_validation_part_too_short_to_measure_on(tmp_path, capsys):
    assert "validation" in refused(train("--data", str(tmp_path / "text.txt"), "--val-share", "0.0001"), capsys)


@pytest.mark.parametrize("command", ["generate", "chat"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--temperature", "-0.5"], "temperature=-0.5: it must be 0 (greedy) or a positive number"),
        (["--temperature", "nan"], "temperature=nan"),
        (["--top-k", "0"], "top_k=0"),
        (["--top-p", "1.5"], "top_p=1.5"),
        (["--min-p", "0"], "min_p=0"),
        (["--repetition-penalty", "0"], "repetition_penalty=0"),
        (["--max-tokens", "-3"], "max_tokens=-3"),
        (["--beams", "0"], "beams=0"),
        (["--seed", "-1"], "seed=-1"),
        (["--preset", "drunk"], "preset='drunk': it must be one of focused, balanced, creative"),
        (["--temprature", "1"], "Did you mean --temperature?"),
    ],
)
def test_impossible_sampling(capsys, command, flags, words):
    assert words in refused([command, "run", *flags], capsys)


def test_zero_samples(capsys):
    assert "n=0" in refused(["generate", "run", "--batch", "--n", "0"], capsys)


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A very small run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT)
    assert main(["train", "--data", str(folder / "text.txt"), "--out", str(folder / "run"), *SMALL, *SHORT]) == 0
    return folder / "run"


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_a_missing_checkpoint(capsys, command):
    assert "nowhere" in refused([command, "nowhere"], capsys)


def test_a_missing_checkpoint_suggests_the_nearest(trained, capsys):
    line = refused(["generate", str(trained) + "n"], capsys)
    assert str(trained) in line.removeprefix(str(trained) + "n")


def test_no_checkpoint_named(capsys):
    assert "Try: tiny generate checkpoints/demo" in refused(["generate"], capsys)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text"])
def test_a_damaged_checkpoint(trained, tmp_path, capsys, damage):
    whole = (trained / "best.pt").read_bytes()
    half = len(whole) // 2
    contents = {
        "empty": b"",
        "cut": whole[:half],
        "flipped": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
        "text": b"this is not a checkpoint",
    }
    (tmp_path / "bad.pt").write_bytes(contents[damage])
    line = refused(["generate", str(tmp_path / "bad.pt"), "--max-tokens", "1"], capsys)
    assert "bad.pt" in line


def test_a_prompt_with_unknown_characters(trained, capsys):
    line = refused(["generate", str(trained), "--prompt", "the ☃"], capsys)
    assert "'☃'" in line and "position 4" in line


def test_an_output_that_cannot_be_written(trained, capsys):
    Path("file").write_text("")
    refused(["generate", str(trained), "--max-tokens", "2", "--output", "file/inside.txt"], capsys, left=["file"])
    Path("folder").mkdir()
    line = refused(["generate", str(trained), "--max-tokens", "2", "--output", "folder"], capsys, left=["file", "folder"])
    assert line.endswith("folder is a folder: the text needs a file. Name a file in it")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["plot"], "no run named"),
        (["plot", "nowhere"], "nowhere"),
        (["runs", "nowhere"], "there is no folder nowhere"),
        (["data", "show", "shakespear"], "shakespeare"),
        (["data", "frobnicate"], "frobnicate"),
        (["train", "--resume", "nowhere"], "nowhere"),
        (["demo", "--resume", "nowhere"], "a demo begins from nothing. Try: tiny train --resume nowhere"),
        (["train", "--corpus", "pitches", "--out", ""], "--out without a name"),
        (["data", "list", "pitches"], "Try: tiny data show pitches"),
        (["generate", "nowhere", "--compare", "--batch"], "--compare with --batch"),
        (["train", "--resume", "nowhere", "--d-model", "3"], "--resume with --d-model: a resumed run keeps its own settings"),
    ],
)
def test_other_commands(capsys, argv, words):
    assert words in refused(argv, capsys)


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_a_full_disk(tmp_path, capsys, monkeypatch):
    """Every fsync fails, as on a disk with no room left: one line, and no half file that looks like a whole one."""

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code = main(train("--data", str(tmp_path / "text.txt")))
    err = capsys.readouterr().err
    assert code == 2 and "the disk is full" in err.splitlines()[-1] and "Traceback" not in err
    assert not [name for name in files() if name.endswith((".pt", ".json", ".tmp"))]


def test_a_disk_that_fills_up_later_keeps_the_old_checkpoint(trained, tmp_path, capsys, monkeypatch):
    before = (trained / "best.pt").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code = main(["train", "--resume", str(trained), "--max-steps", "4"])
    assert code == 2 and "the disk is full" in capsys.readouterr().err.splitlines()[-1]
    assert (trained / "best.pt").read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_without_permission(tmp_path, capsys):
    Path("locked").mkdir(mode=0o500)
    line = refused([*train("--data", str(tmp_path / "text.txt")), "--out", "locked/run"], capsys, left=["locked"])
    assert "permission denied" in line


def test_a_file_where_the_run_should_be(tmp_path, capsys):
    Path("taken").write_text("mine")
    refused([*train("--data", str(tmp_path / "text.txt")), "--out", "taken/run"], capsys, left=["taken"])
    assert Path("taken").read_text() == "mine"


# --- for real ---------------------------------------------------------------------------------------------------------


def test_as_a_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tiny_transformer.cli.main", "train", "--data", "nowhere.txt", "--preset", "tiny"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("tiny train: ")
