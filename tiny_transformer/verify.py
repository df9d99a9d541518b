"""Is everything in its place? Named checks, a remedy for each that fails, and a small training to end with.

`tiny verify`, `make verify` and `tools/verify_environment.py` all run `main`. It must work where nothing is installed
yet, so only the standard library is imported at the top, and a missing package is a failed check, not a traceback.
Leaves out: what the tests prove; this asks about the machine. Read before: `hardware.py`, `training/trainer.py`.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import math
import os
import platform
import re
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

Status = Literal["ok", "warn", "fail"]
PROJECT = "tiny-transformer"
LEAST_PYTHON = (3, 11)
SELF_TEST_SECONDS = 5.0
SELF_TEST_STEPS = 300
INSTALL = "run `make verify` (it installs everything first), or: pip install -e ."


class Outcome(NamedTuple):
    """What a check found, and what to do about it unless it is "ok"."""

    status: Status
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    status: Status
    detail: str
    remedy: str


# --- what is installed ----------------------------------------------------------------------------------------------


def check_python() -> Outcome:
    """Python is new enough."""
    version = platform.python_version()
    if sys.version_info < LEAST_PYTHON:
        return Outcome("fail", f"{version}, must be 3.11 or newer", "install a newer Python, then: make PYTHON=/path/to/python3.11")
    return Outcome("ok", f"{version} at {sys.executable}")


def check_packages() -> Outcome:
    """Every package of the core is there, in a version of the range that the project asks for."""
    found, problems = [], []
    for name, wanted in requirements():
        version = installed_version(name)
        if version is None:
            problems.append(f"{name} is missing")
        elif not satisfies(version, wanted):
            problems.append(f"{name} {version}, must be {wanted}")
        else:
            found.append(f"{name} {version}")
    return Outcome("fail", "; ".join(problems), INSTALL) if problems else Outcome("ok", ", ".join(found))


def check_command() -> Outcome:
    """The command `tiny` is installed."""
    beside = shutil.which("tiny", path=sysconfig.get_path("scripts"))
    if beside is None:
        return Outcome("fail", "the command tiny is not installed for this Python", INSTALL)
    hint = "" if shutil.which("tiny") else f" (to call it by its name: source {Path(beside).parent / 'activate'})"
    return Outcome("ok", f"{beside}{hint}")


def check_torch() -> Outcome:
    """PyTorch loads and multiplies correctly."""
    import torch

    product = torch.arange(6.0).view(2, 3) @ torch.ones(3, 1)
    if product.flatten().tolist() != [3.0, 12.0]:
        return Outcome("fail", f"PyTorch {torch.__version__} multiplies wrongly: {product.flatten().tolist()}", "rm -rf .venv; make verify")
    threads = torch.get_num_threads()
    return Outcome("ok", f"{torch.__version__}, {threads} thread{'' if threads == 1 else 's'}")


def check_cuda_packages() -> Outcome:
    """No gigabytes of CUDA packages on a Linux machine without an NVIDIA GPU."""
    useless = cuda_packages()
    if not useless or platform.system() != "Linux":
        return Outcome("ok", "none" if not useless else f"{len(useless)} installed")
    import torch

    if torch.cuda.is_available():
        return Outcome("ok", f"{len(useless)} installed, for the GPU that is here")
    remedy = "rm -rf .venv; make verify (it takes PyTorch's CPU wheel)"
    return Outcome("warn", f"{len(useless)} CUDA packages, of no use without an NVIDIA GPU", remedy)


def requirements() -> list[tuple[str, str]]:
    """(name, range) of each core package: from the installed metadata, else from pyproject.toml beside the package."""
    try:
        lines = importlib.metadata.requires(PROJECT) or []
    except importlib.metadata.PackageNotFoundError:
        import tomllib

        file = Path(__file__).resolve().parent.parent / "pyproject.toml"
        lines = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
    core = [line.partition(";")[0].strip() for line in lines if "extra ==" not in line]
    parts = [re.fullmatch(r"([A-Za-z0-9._-]+)\s*(.*)", line) for line in core]
    return [(match.group(1), match.group(2)) for match in parts if match is not None]


def installed_version(name: str) -> str | None:
    """The version of an installed package; None when it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version lies in a range such as ">=2.6,<3", by its numbers (2.13.0+cpu counts as 2.13.0).

    >>> satisfies("2.13.0+cpu", ">=2.6"), satisfies("2.5.1", ">=2.6"), satisfies("3.0", ">=2.6,<3")
    (True, False, False)
    """
    compare: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
        ">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b, "==": lambda a, b: a == b,
        "!=": lambda a, b: a != b, ">": lambda a, b: a > b, "<": lambda a, b: a < b,
    }  # fmt: skip
    pairs = re.findall(r"(>=|<=|==|!=|>|<)\s*([0-9][^,\s]*)", wanted)
    return all(compare[sign](_numbers(version), _numbers(bound)) for sign, bound in pairs)


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in release.group().split(".")] if release else [0]
    while len(numbers) > 1 and numbers[-1] == 0:  # 3.0 is 3
        numbers.pop()
    return tuple(numbers)


def cuda_packages() -> list[str]:
    """Names of the installed packages that serve NVIDIA GPUs only."""
    names = {str(found.metadata["Name"]).lower() for found in importlib.metadata.distributions() if found.metadata["Name"]}
    return sorted(name for name in names if re.match(r"(nvidia-|cuda-|triton$|pytorch-triton$)", name))


# --- what the machine offers ----------------------------------------------------------------------------------------


def check_machine() -> Outcome:
    """Enough memory; which GPU there is."""
    from tiny_transformer.hardware import describe, detect

    here = detect()
    if here.memory_gb < 2:
        return Outcome("warn", describe(here), "2 GB are comfortable: close other programs, or train with --batch-size 8")
    return Outcome("ok", describe(here))


def check_disk() -> Outcome:
    """Room for checkpoints in the current folder."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    if free >= 1:
        return Outcome("ok", f"{free:.0f} GB free in {Path.cwd()}")
    remedy = "free some space, or work in another folder: a checkpoint of a small model takes 10 to 150 MB"
    return Outcome("warn" if free >= 0.1 else "fail", f"{free * 1000:.0f} MB free in {Path.cwd()}", remedy)


def check_cache() -> Outcome:
    """Downloaded texts can be kept."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Outcome("ok", str(folder))
    except OSError as error:
        return Outcome("fail", f"{folder}: {error.strerror}", "set TINY_CACHE to a folder that you may write to")


def cache_folder() -> Path:
    """Where downloads are kept: TINY_CACHE, else tiny-transformer in XDG_CACHE_HOME, else in ~/.cache."""
    if os.environ.get("TINY_CACHE"):
        return Path(os.environ["TINY_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tiny-transformer"


def check_texts() -> Outcome:
    """Which built-in texts can be had, and which of them without a network."""
    from tiny_transformer import corpora

    known = corpora.describe()
    here, there = ([info.name for info in known if info.offline == offline] for offline in (True, False))
    detail = f"without a network: {', '.join(here) or 'none'}" + (f"; by download: {', '.join(there)}" if there else "")
    remedy = "connect to a network once, or train on a text of your own: tiny train --data FILE"
    return Outcome("ok", detail) if here else Outcome("warn", detail, remedy)


def check_terminal() -> Outcome:
    """The terminal shows more than ASCII."""
    encoding = (getattr(sys.stdout, "encoding", None) or "unknown").lower()
    if encoding.replace("-", "") == "utf8":
        return Outcome("ok", "UTF-8")
    return Outcome("warn", f"{encoding}: some characters will show as ?", "set PYTHONUTF8=1 (on Windows also: chcp 65001)")


def check_drawing() -> Outcome:
    """matplotlib draws a picture without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure, picture = Figure(figsize=(1, 1)), io.BytesIO()
    FigureCanvasAgg(figure)
    figure.add_subplot().plot([0, 1], [1, 0])
    figure.savefig(picture, format="png")
    if not picture.getvalue().startswith(b"\x89PNG"):
        return Outcome("fail", "matplotlib wrote something that is not a PNG", INSTALL)
    return Outcome("ok", f"a PNG of {len(picture.getvalue()):,} bytes")


# --- what the library does here -------------------------------------------------------------------------------------


def check_attention() -> Outcome:
    """The fused attention of this machine equals the readable one, values and gradients."""
    import torch

    from tiny_transformer.attention import attend
    from tiny_transformer.utils.reference import reference_path

    generator = torch.Generator().manual_seed(0)
    query, key, value, weight = torch.randn(4, 2, 3, 33, 16, generator=generator)

    def run() -> list[torch.Tensor]:
        inputs = [x.clone().requires_grad_() for x in (query, key, value)]
        output = attend(*inputs, causal=True)
        return [output, *torch.autograd.grad((output * weight).sum(), inputs)]

    fused = run()
    with reference_path():
        readable = run()
    worst = max((a - b).abs().max().item() for a, b in zip(fused, readable, strict=True))
    if worst < 1e-4:
        return Outcome("ok", f"fused and readable differ by at most {worst:.0e}")
    remedy = "install the tested PyTorch: rm -rf .venv; make verify"
    return Outcome("fail", f"fused and readable attention differ by {worst:.2g}", remedy)


def check_checkpoint() -> Outcome:
    """A model saved is the model loaded, bit for bit."""
    import torch

    from tiny_transformer.config import PRESETS
    from tiny_transformer.model import TinyTransformerLM
    from tiny_transformer.utils.checkpoint import Checkpoint, load, save

    model = TinyTransformerLM(PRESETS["tiny"], seed=0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt"
        save(file, Checkpoint(config=model.config, tokenizer=None, weights=model.weights()))
        again, size = load(file), file.stat().st_size
    if again.config == model.config and all(torch.equal(tensor, again.weights[name]) for name, tensor in model.weights().items()):
        return Outcome("ok", f"{size / 1e6:.1f} MB written, read back, equal")
    return Outcome("fail", "the weights read back are not those written", "check the disk: `dmesg`, a full /tmp, another TMPDIR")


def check_learning() -> Outcome:
    """The real trainer lowers the loss of a small model on a small text, within five seconds."""
    import numpy as np

    from tiny_transformer.config import ModelConfig, TrainConfig
    from tiny_transformer.model import TinyTransformerLM
    from tiny_transformer.tokenization.char import CharTokenizer
    from tiny_transformer.training.listener import Listener
    from tiny_transformer.training.trainer import Trainer

    text = small_text(12_000)
    tokenizer = CharTokenizer.train(text)
    ids = np.asarray(tokenizer.encode(text))
    config = ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=32, d_model=48, n_layers=2, n_heads=4)
    settings = TrainConfig(
        max_steps=SELF_TEST_STEPS, eval_every=SELF_TEST_STEPS, eval_tokens=512,
        batch_size=16, learning_rate=5e-3, warmup_steps=10, device="cpu", threads=1,
    )  # fmt: skip
    started, steps = math.inf, 0

    class TimeUpError(Exception):
        """The five seconds are over."""

    class Watch(Listener):
        """Counts the steps and ends the training in time."""

        def on_start(self, trainer: Any) -> None:
            nonlocal started
            started = time.monotonic()

        def on_step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_second: float) -> None:
            nonlocal steps
            steps = step
            if time.monotonic() - started > SELF_TEST_SECONDS:
                raise TimeUpError

    trainer = Trainer(TinyTransformerLM(config, seed=0), tokenizer, ids[:10_800], ids[10_800:], settings, listener=Watch())
    with contextlib.suppress(TimeUpError):
        trainer.fit()
    seconds = time.monotonic() - started
    return judge_learning(trainer.evaluate(ids[10_800:]), tokenizer.vocab_size, steps, seconds)


def judge_learning(loss: float, vocab_size: int, steps: int, seconds: float) -> Outcome:
    """Whether a loss in nats per character after that many steps shows that something was learned."""
    start = math.log(vocab_size)
    told = f"{steps} steps in {seconds:.1f} s: validation loss from {start:.2f} (guessing) to {loss:.2f}"
    if loss < 0.7 * start:
        return Outcome("ok", told)
    if steps < 50 and math.isfinite(loss):
        return Outcome("warn", f"{told}, too few to tell", "the machine is very busy or very slow: try again with OMP_NUM_THREADS=1")
    return Outcome("fail", f"{told}: nothing was learned", "run `make test`: it shows which part is wrong")


def small_text(length: int) -> str:
    """Sentences of a toy language with some order in them: enough to learn from, always the same ones.

    >>> small_text(39)
    'a cat hears a tree. a tree hears a dog.'
    """
    import random

    words = random.Random(0)
    nouns, verbs = ["cat", "dog", "bird", "tree"], ["sees", "hears", "likes"]
    sentences, size = [], 0
    while size < length:
        first, second = words.choice(["the", "a", "my"]), words.choice(["the", "a", "my"])
        sentences.append(f"{first} {words.choice(nouns)} {words.choice(verbs)} {second} {words.choice(nouns)}.")
        size += len(sentences[-1]) + 1
    return " ".join(sentences)[:length]


# --- the report -----------------------------------------------------------------------------------------------------

CHECKS: dict[str, Callable[[], Outcome]] = {
    "Python": check_python,
    "packages": check_packages,
    "command": check_command,
    "PyTorch": check_torch,
    "CUDA packages": check_cuda_packages,
    "machine": check_machine,
    "disk": check_disk,
    "cache": check_cache,
    "texts": check_texts,
    "terminal": check_terminal,
    "drawing": check_drawing,
    "attention": check_attention,
    "checkpoint": check_checkpoint,
    "self-test": check_learning,
}


def run_checks(checks: dict[str, Callable[[], Outcome]]) -> Iterator[Check]:
    """Each check's result as soon as it is known. An exception is a failed check: the report goes on."""
    for name, check in checks.items():
        try:
            outcome = check()
        except ModuleNotFoundError as error:
            outcome = Outcome("fail", f"needs the package {error.name}, which is missing", INSTALL)
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            outcome = Outcome("fail", f"{type(error).__name__}: {first_line}", "install again: rm -rf .venv; make verify")
        yield Check(name, outcome.status, outcome.detail, outcome.remedy)


def summary(checks: list[Check]) -> str:
    """The last line of the report."""
    failed, warned = (sum(check.status == status for check in checks) for status in ("fail", "warn"))
    if failed:
        return f"{failed} of {len(checks)} checks failed; the lines with -> say what helps"
    return f"all {len(checks)} checks passed" + (f", {warned} with a remark" if warned else "")


def _printer() -> Callable[[str, Status | None], None]:
    """Prints a line, in colour where rich is there and the output is a terminal."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ModuleNotFoundError:
        return lambda line, status: print(line, flush=True)
    console, colours = Console(highlight=False, soft_wrap=True), {"ok": "green", "warn": "yellow", "fail": "bold red"}

    def show(line: str, status: Status | None) -> None:
        text = Text(line)
        if status is not None:
            text.stylize(colours[status], 0, 6)
        console.print(text)

    return show


def _report(checks: Iterator[Check]) -> list[Check]:
    show, seen = _printer(), []
    width = max(map(len, CHECKS))
    for check in checks:
        show(f"{'FAIL' if check.status == 'fail' else check.status:<6}{check.name:<{width}}  {check.detail}", check.status)
        if check.remedy:
            show(f"{'':6}{'':{width}}  -> {check.remedy}", None)
        seen.append(check)
    show(summary(seen), None)
    return seen


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a flag on one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help\n")


def main(argv: list[str] | None = None) -> int:
    """Run the checks and report. Returns 0 when none failed, else 1."""
    parser = _OneLineParser(prog="tiny verify", description="Check the installation and the machine; end with a small training.")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quick", action="store_true", help="leave out the self-test")
    options = parser.parse_args(argv)
    chosen = {name: check for name, check in CHECKS.items() if not (options.quick and name == "self-test")}
    if options.json:
        checks = list(run_checks(chosen))
        print(json.dumps({"ok": all(check.status != "fail" for check in checks), "checks": [asdict(check) for check in checks]}, indent=1))
    else:
        checks = _report(run_checks(chosen))
    return int(any(check.status == "fail" for check in checks))


if __name__ == "__main__":
    print(f"{len(CHECKS)} checks:", ", ".join(CHECKS))
    for check in run_checks({name: CHECKS[name] for name in ("Python", "packages", "disk", "terminal")}):
        print(f"{check.status:5} {check.name}: {check.detail}")
    print("a bad ending would read:", judge_learning(3.2, 27, 300, 4.0).detail)
