"""The documents are tests: the commands and code printed in README and QUICKSTART run, in order, at tiny sizes."""

import contextlib
import io
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from tiny_transformer.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", "QUICKSTART.md"]

SMALL_TRAINING = {
    "--max-steps": "3", "--batch-size": "2", "--d-model": "32", "--n-layers": "1", "--n-heads": "2", "--max-seq-len": "32",
    "--eval-tokens": "200", "--size": "6000", "--warmup-steps": "1",
}  # fmt: skip
STAND_IN = "ROMEO:\nBut soft, what light? To be or not to be, that is all.\n\nJULIET:\nThe night; I hear thee not, HAMLET!\n\n"


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[list[str]]:
    """Every command of the bash blocks, continuation lines joined, comments dropped, split into words."""
    lines = "\n".join(blocks(document, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def shrunk(words: list[str]) -> list[str]:
    """The same command at a size that takes a second: numbers of steps, sizes and tokens replaced or added."""
    training = "--train" in words or words[:2] == ["tiny", "train"] or words[1].endswith("train.py") or words[:2] == ["tiny", "demo"]
    if training and "--help" not in words:
        small = dict(SMALL_TRAINING)
        if "--resume" in words:
            small = {}
        if "--data tokens" in " ".join(words):
            del small["--size"]  # token files have the size they have
    elif "--generate" in words or words[1] == "generate" or words[1].endswith("generate.py"):
        small = {"--max-tokens": "6"}
    else:
        small = {}
    out, skip = [], False
    for word in words:
        name = "--max-steps" if word == "--steps" else word
        if skip or name in small:
            skip = not skip
            continue
        out.append(word)
    return out + [piece for pair in small.items() for piece in pair]


def run(words: list[str]) -> int:
    """Run `tiny …` or `python script …` in this process; its exit code."""
    if words[0] == "tiny":
        return main(words[1:])
    script, arguments = ROOT / words[1], words[2:]
    saved = sys.argv
    sys.argv = [str(script), *arguments]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = saved
    return 0


def check_only(words: list[str]) -> bool:
    """Commands that are checked by looking: set-up, other tests, files whose demos another test runs. True when it was one."""
    if words[0] in ("git", "cd", "pip", "source"):
        if words[0] == "pip":
            assert words[1] == "install"
            assert all((ROOT / word).exists() for word in words[2:] if not word.startswith("-"))
        return True
    if words[0] == "make":
        assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for target in words[1:])
        return True
    if words[0] == "pytest":
        path, _, name = words[1].partition("::")
        assert (ROOT / path).exists()
        assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")
        return True
    if (
        words[0] == "bash"
        or (words[0] == "python" and words[1].startswith("tiny_transformer/"))
        or words[-1].endswith("verify_environment.py")
    ):
        assert (ROOT / words[1]).exists()
        return True
    return words[:2] == ["tiny", "verify"]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty working directory with a text of one's own, and a stand-in for Tiny Shakespeare."""
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "shakespeare.txt").write_text(STAND_IN * 100, encoding="utf-8")
    (tmp_path / "my_text.txt").write_text(STAND_IN * 80, encoding="utf-8")
    monkeypatch.setenv("TINY_CORPORA", str(tmp_path / "corpora"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_printed_command_works(document, desk, monkeypatch):
    ran = 0
    for words in commands(document):
        if check_only(words):
            continue
        monkeypatch.setattr("sys.stdin", io.StringIO("ROMEO:\n/quit\n"))
        screen = io.StringIO()
        with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
            code = run(shrunk(words))
        assert code == 0, f"{' '.join(words)}\nexit code {code}\n{screen.getvalue()[-2000:]}"
        ran += 1
    assert ran >= 3
    if document == "QUICKSTART.md":  # where the guide says
        assert (desk / "checkpoints/demo/demo_model.pt").is_file()
        assert (desk / "checkpoints/shakespeare/best.pt").is_file()
        assert (desk / "experiments/shakespeare/logs.txt").read_text(encoding="utf-8")
        assert (desk / "samples/gallery.txt").read_text(encoding="utf-8").count("seed") >= 20


@pytest.mark.parametrize("document", [*DOCUMENTS, "docs/tokenizers.md"])
def test_every_printed_piece_of_python_works(document, capsys):
    for code in blocks(document, "python"):
        exec(compile(code, document, "exec"), {})


@pytest.mark.parametrize("document", [path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]])
def test_every_link_leads_somewhere(document):
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = {re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in text.splitlines() if line.startswith("#")}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("http"):
            assert (ROOT / document).parent.joinpath(target.split("#")[0]).exists(), target
