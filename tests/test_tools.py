"""The doors in tools/ and examples/: thin, and open for every command line that the learning guide prints."""

import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_transformer.cli import main as cli

ROOT = Path(__file__).parents[1]
TOOLS = ("train", "generate", "interactive", "shakespeare_train", "shakespeare_generate")
DOORS = [*(f"tools/{name}.py" for name in TOOLS), "examples/shakespeare_demo.py"]
DEMO = "examples/shakespeare_demo.py"
DEMO_MODEL = "checkpoints/demo/demo_model.pt"

GUIDE = {
    f"{DEMO} --train --steps 2000": ["train", "--recipe", "quick", "--max-steps", "2000"],
    f"{DEMO} --train --steps=1000": ["train", "--recipe", "quick", "--max-steps=1000"],
    f"{DEMO} --generate --checkpoint {DEMO_MODEL}": ["generate", "--checkpoint", DEMO_MODEL, "--checkpoint", DEMO_MODEL],
    f'{DEMO} --generate --checkpoint {DEMO_MODEL} --prompt "ROMEO:" --temperature 0.5 --max-tokens 500': [
        "generate", "--checkpoint", DEMO_MODEL, "--checkpoint", DEMO_MODEL,
        "--prompt", "ROMEO:", "--temperature", "0.5", "--max-tokens", "500",
    ],
    f"{DEMO} --interactive --checkpoint {DEMO_MODEL}": ["chat", "--checkpoint", DEMO_MODEL, "--checkpoint", DEMO_MODEL],
    "tools/shakespeare_train.py --max-steps 20000 --batch-size 64 --d-model 384": [
        "train", "--recipe", "shakespeare", "--max-steps", "20000", "--batch-size", "64", "--d-model", "384",
    ],
    "tools/shakespeare_train.py --batch-size 32": ["train", "--recipe", "shakespeare", "--batch-size", "32"],
    'tools/shakespeare_generate.py --checkpoint checkpoints/shakespeare/best.pt --prompt "JULIET:" --temperature 0.8 --max-tokens 200': [
        "generate", "--checkpoint", "checkpoints/shakespeare", "--checkpoint", "checkpoints/shakespeare/best.pt",
        "--prompt", "JULIET:", "--temperature", "0.8", "--max-tokens", "200",
    ],
    "tools/shakespeare_generate.py --checkpoint checkpoints/shakespeare/best.pt --compare": [
        "generate", "--checkpoint", "checkpoints/shakespeare", "--checkpoint", "checkpoints/shakespeare/best.pt", "--compare",
    ],
    "tools/shakespeare_generate.py --batch --output samples/gallery.txt": [
        "generate", "--checkpoint", "checkpoints/shakespeare", "--batch", "--output", "samples/gallery.txt",
    ],
    "tools/interactive.py --checkpoint checkpoints/shakespeare_best.pt": ["chat", "--checkpoint", "checkpoints/shakespeare_best.pt"],
    "tools/train.py --corpus pitches": ["train", "--corpus", "pitches"],
    "tools/generate.py runs/a": ["generate", "runs/a"],
}  # fmt: skip


def through_the_door(monkeypatch, line):
    """Run a script as `python` would, with `tiny` replaced by something that remembers what it was asked; returns that."""
    asked = []
    monkeypatch.setattr(cli, "main", lambda argv: asked.append(argv) or 7)
    script, *argv = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [script, *argv])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert stop.value.code == 7, "the exit code goes through"
    return asked


@pytest.mark.parametrize("line", GUIDE)
def test_the_guides_command_lines(monkeypatch, line):
    assert through_the_door(monkeypatch, line) == [GUIDE[line]]


@pytest.mark.parametrize("line", GUIDE)
def test_tiny_accepts_them(line):
    from tiny_transformer.cli import settings
    from tiny_transformer.cli.chat import ChatSettings
    from tiny_transformer.cli.generate import GenerateSettings, read_settings

    command, *argv = GUIDE[line]
    if command == "train":
        made = settings.training_job([*argv, "--preset", "tiny"])
        assert made.data.corpus in ("shakespeare", "pitches")
    else:
        made, sampling = read_settings(argv, GenerateSettings if command == "generate" else ChatSettings)
        assert (made.checkpoint or made.run) == [word for word in argv if word.startswith(("checkpoints/", "runs/"))][-1]
        assert sampling.max_tokens == (500 if "500" in argv else 200)


def test_what_the_guides_trainings_are():
    from tiny_transformer.cli.settings import training_job

    quick = training_job(["--recipe", "quick", "--max-steps", "2000"])
    assert (quick.out, quick.training.max_steps, quick.base.also_save) == ("checkpoints/demo", 2000, "demo_model.pt")
    full = training_job(GUIDE["tools/shakespeare_train.py --max-steps 20000 --batch-size 64 --d-model 384"][1:])
    assert (full.out, full.training.max_steps, full.training.batch_size, full.model.d_model) == ("checkpoints/shakespeare", 20000, 64, 384)
    assert full.base.log_too == "experiments/shakespeare/logs.txt"


@pytest.mark.parametrize("door", DOORS)
def test_doors_are_thin(door):
    source = (ROOT / door).read_text()
    assert len(source.splitlines()) <= (45 if door == DEMO else 12)
    assert source.startswith('"""') and "pip install -e ." in source


@pytest.mark.parametrize("door", DOORS)
def test_without_the_package_one_line_says_what_to_do(door):
    done = subprocess.run([sys.executable, "-S", str(ROOT / door)], check=False, capture_output=True, text=True, cwd="/", env=_bare())
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"{door}: the package is not installed. Run: pip install -e .\n"


def _bare():
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


@pytest.mark.parametrize("argv", [[], ["--train", "--generate"], ["--steps", "3"]])
def test_the_demo_wants_exactly_one_switch(argv):
    done = subprocess.run([sys.executable, str(ROOT / DEMO), *argv], check=False, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "exactly one is needed. Use one of --train, --generate, --interactive" in done.stderr


def test_the_demos_help_is_its_own(capsys):
    module = runpy.run_path(str(ROOT / DEMO))
    assert module["demo"](["--help"]) == 0
    assert "--train --steps 2000" in capsys.readouterr().out


def test_a_switchs_help_is_the_commands(monkeypatch):
    assert through_the_door(monkeypatch, f"{DEMO} --train --help") == [["train", "--recipe", "quick", "--help"]]
