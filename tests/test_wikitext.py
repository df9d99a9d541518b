"""The WikiText-2 recipe: its model, its examples with the flags that were promised, and a small training that goes all the way."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tiny_transformer.cli import main as cli
from tiny_transformer.cli.settings import training_job
from tiny_transformer.cli.texts import make_tokenizer, read, training_text
from tiny_transformer.config import ConfigError, DataConfig
from tiny_transformer.evaluation.validation_loss import loss_in_windows
from tiny_transformer.recipes import recipe
from tiny_transformer.run import Run, build, resolve
from tiny_transformer.run import read as read_checkpoint

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples/wikitext"
TRAIN = "examples/wikitext/train.py --train_file data/train.txt --valid_file data/valid.txt"
GENERATE = 'examples/wikitext/generate.py --model_path checkpoints/best_model.pt --prompt "The history of"'
SMALL = shlex.split("--d-model 16 --n-heads 2 --n-layers 1 --d-ff 32 --max-seq-len 16 --batch-size 8 --max-steps 12 --eval-every 6")


def wiki(sentences: int, first: int = 0) -> str:
    """A text in WikiText's form: headings, blank lines, words between spaces, rare ones <unk>."""
    names, acts = ["king", "city", "river", "game"], ["was", "saw", "held"]
    lines = []
    for i in range(first, first + sentences):
        lines += [f" = {names[i % 4].title()} = \n", " \n"] if i % 10 == 0 else []
        lines.append(f" The history of the {names[i % 4]} {acts[i % 3]} <unk> , and the {names[(i * 7) % 4]} {acts[(i * 5) % 3]} it . \n")
    return "".join(lines)


# --- what it is -----------------------------------------------------------------------------------------------------


def test_the_recipe_is_the_model_of_27_million():
    made = recipe("wikitext2")
    model = replace(made.model, vocab_size=33_278)
    assert (model.d_model, model.n_heads, model.n_layers, model.position, model.tie_weights) == (300, 6, 4, "sinusoidal", False)
    assert round(model.n_parameters / 1e6, 1) == 27.2
    assert round(replace(model, tie_weights=True).n_parameters / 1e6, 1) == 17.2
    seen = made.training.max_steps * made.training.batch_size * model.max_seq_len
    assert made.training.max_steps == 8_500 and 86e6 < seen < 88e6, "86 million is what a run of 8,500 steps reads, 41 times the text"
    assert made.data == DataConfig(corpus="wikitext2", val_data="wikitext2-valid", tokenizer="word", word_style="wikitext")
    assert (made.out, made.also_save, made.prompt) == ("checkpoints/wikitext2", "best_model.pt", "The history of")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", ("wikitext2", None, "wikitext2-valid", "word", "wikitext")),
        ("--data a.txt", (None, "a.txt", None, "word", "wikitext")),
        ("--data a.txt --val-data b.txt", (None, "a.txt", "b.txt", "word", "wikitext")),
        ("--val-data b.txt", ("wikitext2", None, "b.txt", "word", "wikitext")),
        ("--corpus pitches", ("pitches", None, None, "word", "wikitext")),
        ("--tokenizer bpe", ("wikitext2", None, "wikitext2-valid", "bpe", "natural")),
        ("--tokenizer word", ("wikitext2", None, "wikitext2-valid", "word", "wikitext")),
        ("--tokenizer-file t.json", ("wikitext2", None, "wikitext2-valid", "word", "natural")),
    ],
)
def test_flags_beside_the_recipe(flags, expected):
    data = training_job(["--recipe", "wikitext2", *flags.split()]).data
    assert (data.corpus, data.data, data.val_data, data.tokenizer, data.word_style) == expected


# --- a validation text of its own ------------------------------------------------------------------------------------


def test_a_validation_text_of_its_own_is_what_is_measured_and_nothing_else(tmp_path):
    train, held = wiki(60), wiki(9, first=900) + " unheard words \n"
    (tmp_path / "a.txt").write_text(train)
    (tmp_path / "b.txt").write_text(held)
    data = DataConfig(data=str(tmp_path / "a.txt"), val_data=str(tmp_path / "b.txt"), tokenizer="word", word_style="wikitext")
    reading, notes = read(data)
    assert (reading.train, reading.val, notes) == (train, held, [])
    tokenizer, _ = make_tokenizer(reading)
    assert tokenizer.unknowns(held).most == [("unheard", 1), ("words", 1)], "the vocabulary is that of the training text"
    characters, _ = make_tokenizer(read(replace(data, tokenizer="char", word_style="natural"))[0])
    assert characters.decode(characters.encode(held)) == held, "an alphabet is that of both"
    assert training_text({"data": data.__dict__}) == train
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(ConfigError):
        read(data)
    with pytest.raises(ConfigError, match="no corpus and no file"):
        read(replace(data, val_data="nowhere"))


def test_the_entropy_of_a_made_text_holds_for_that_text_only(tmp_path):
    (tmp_path / "b.txt").write_text(wiki(5))
    assert read(DataConfig(corpus="pitches", size=5000))[0].corpus.entropy is not None
    assert read(DataConfig(corpus="pitches", size=5000, val_data=str(tmp_path / "b.txt")))[0].corpus.entropy is None


# --- the examples ---------------------------------------------------------------------------------------------------


def asked(monkeypatch, line: str) -> list[list[str]]:
    heard = []
    monkeypatch.setattr(cli, "main", lambda argv: heard.append(argv) or 7)
    script, *argv = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [script, *argv])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert stop.value.code == 7
    return heard


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (TRAIN, "train --recipe wikitext2 --data data/train.txt --val-data data/valid.txt"),
        (TRAIN.replace("_file ", "_file="), "train --recipe wikitext2 --data=data/train.txt --val-data=data/valid.txt"),
        ("examples/wikitext/train.py --embeddings g.txt", "train --recipe wikitext2 --embeddings g.txt"),
        ("examples/wikitext/train.py --resume runs/a", "train --resume runs/a"),
        (GENERATE, "generate --measure --checkpoint checkpoints/best_model.pt --prompt 'The history of'"),
        (GENERATE.replace("_path ", "_path="), "generate --measure --checkpoint=checkpoints/best_model.pt --prompt 'The history of'"),
    ],
)  # fmt: skip
def test_the_promised_command_lines(monkeypatch, tmp_path, line, expected):
    monkeypatch.chdir(tmp_path)
    assert asked(monkeypatch, line) == [shlex.split(expected)]


def test_best_model_is_found_in_its_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    inside = Path("checkpoints/wikitext2/best_model.pt")
    inside.parent.mkdir(parents=True)
    inside.touch()
    assert asked(monkeypatch, GENERATE)[0][3] == str(inside)
    assert asked(monkeypatch, GENERATE.replace("_path ", "_path="))[0][2] == f"--checkpoint={inside}"
    Path("checkpoints/best_model.pt").touch()
    assert asked(monkeypatch, GENERATE)[0][3] == "checkpoints/best_model.pt", "a file that is there is meant itself"


@pytest.mark.parametrize(("name", "own"), [("train", "--train_file"), ("generate", "--model_path"), ("evaluate", "--test_file")])
def test_help_names_the_flags_of_the_example_too(name, own, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert stop.value.code == 0 and own in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train", "generate", "evaluate"])
def test_without_the_package_one_line_says_what_to_do(name):
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-S", str(FOLDER / f"{name}.py")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/", env=bare)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"examples/wikitext/{name}.py: the package is not installed. Run: pip install -e .\n"


@pytest.mark.parametrize("flags", [["--out", "runs/mine"], ["--out=runs/mine"], ["--config", "c.toml"], ["--resume", "runs/mine"]])
def test_what_was_trained_is_what_is_measured(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text('out = "runs/mine"\n')
    monkeypatch.setattr(cli, "main", lambda argv: 0)
    assert run_example("train", "train", flags) == 2
    assert "there is no checkpoint at runs/mine" in capsys.readouterr().err


def run_example(name: str, function: str, argv: list[str]) -> int:
    return runpy.run_path(str(FOLDER / f"{name}.py"))[function](argv)


def test_from_two_files_to_a_measured_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/train.txt").write_text(wiki(300))
    Path("data/valid.txt").write_text(wiki(40, first=3001))
    Path("glove.txt").write_text("".join(f"{word} {' '.join(['0.25', '-0.5'] * 8)}\n" for word in ("the", "history", "king", ",")))
    argv = ["--train_file", "data/train.txt", "--valid_file", "data/valid.txt", "--embeddings", "glove.txt", *SMALL]
    assert run_example("train", "train", argv) == 0
    said = capsys.readouterr().out
    run = Run.open(Path("checkpoints/wikitext2"))
    assert (run.record["data"]["val_data"], run.record["coverage"]["as_written"]) == (str(tmp_path / "data/valid.txt"), 4)
    model, tokenizer = build(read_checkpoint(resolve("checkpoints/wikitext2/best_model.pt")))
    assert tokenizer.style == "wikitext" and not model.config.tie_weights and model.config.position == "sinusoidal"
    found = loss_in_windows(model, tokenizer.encode_array(Path("data/valid.txt").read_text()))
    assert f"loss           {found} nats per token, {found.tokens:,} tokens" in said
    assert re.search(r"perplexity     [\d.,]+ \(95 %: [\d.,]+ to [\d.,]+\)\n", said)
    masked = tokenizer.unknowns(Path("data/valid.txt").read_text())
    assert f"{masked.masked / masked.words:.1%} are <unk> in the text itself" in said
    assert "8 texts after 'The history of', temperature 0.8, top-k 40, seeds from 1" in said
    assert "longest run from the training text" in said
    assert "  people       " in said

    monkeypatch.setattr(sys, "argv", [*shlex.split(GENERATE), "--seed", "3"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(FOLDER / "generate.py"), run_name="__main__")
    assert stop.value.code == 0
    out, err = capsys.readouterr()
    words = len(out.removeprefix("The history of").split())
    assert out.startswith("The history of") and f"{words} words: distinct words" in err and "note" not in err

    argv = ["--model_path", "checkpoints/best_model.pt", "--test_file", "data/train.txt", "--samples", "0"]
    assert run_example("evaluate", "evaluate", argv) == 0
    out = capsys.readouterr().out
    assert f"{len(tokenizer.encode(wiki(300))) - 1:,} tokens" in out and "texts after" not in out


def test_with_json_only_the_results_are_on_the_standard_output(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("train.txt").write_text(wiki(100))
    Path("valid.txt").write_text(wiki(40, first=3001))
    assert run_example("train", "train", ["--train_file", "train.txt", "--valid_file", "valid.txt", *SMALL, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["steps"] > 0 and "perplexity" in err


def test_evaluate_says_what_is_wrong_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_example("evaluate", "evaluate", ["--model_path", "checkpoints/none.pt"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run_example("train", "train", ["--train_file", "none.txt", *SMALL]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not Path("checkpoints").exists()


def test_wikitexts_own_words_become_tokens(corpora_dir):
    """The published parts: 217,646 and 245,569 tokens with line ends, as the paper counts them."""
    valid, test = (str(corpora_dir / f"wikitext2-{part}.txt") for part in ("valid", "test"))
    data = DataConfig(data=valid, val_data=test, tokenizer="word", word_style="wikitext")
    reading, _ = read(data)
    tokenizer, _ = make_tokenizer(reading)
    assert (len(tokenizer.encode_array(reading.train)), len(tokenizer.encode_array(reading.val))) == (217_646, 245_569)
    assert tokenizer.decode(tokenizer.encode(reading.val[:2000])).count("<unk>") >= reading.val[:2000].count("<unk>")
