"""The command `tiny`: a table of commands, and the one place where an error becomes one line.

Only the chosen command's module is imported, so `tiny --help` answers at once: no torch, NumPy, tyro or rich here.
Every command is a module with `main(argv) -> exit code`. Exit codes: 0 done, 2 something a person can mend,
130 and 143 stopped by a signal, 1 a bug of ours (with its traceback). Read before: nothing.
"""

import contextlib
import errno
import importlib
import os
import sys
import time
from difflib import get_close_matches

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("tiny_transformer.cli.demo", "train a small model in under five minutes and watch it learn to write"),
    "train": ("tiny_transformer.cli.train", "train a model on a built-in text or your own"),
    "generate": ("tiny_transformer.cli.generate", "let a trained model write; compare strategies; fill a gallery"),
    "chat": ("tiny_transformer.cli.chat", "type openings, the model continues them"),
    "download": ("tiny_transformer.cli.download_model", "fetch a published model, every file verified"),
    "import": ("tiny_transformer.cli.import_model", "make a run of GPT-2, Llama, Mistral, Qwen or BERT from a Hugging Face directory"),
    "export": ("tiny_transformer.cli.export_model", "write a trained model for transformers, NumPy and other programs"),
    "quantize": ("tiny_transformer.cli.quantization", "round a model's weights to 8 or 4 bits: size, error and loss before and after"),
    "inspect": ("tiny_transformer.cli.inspection", "what is in a checkpoint or a model's directory, and what memory it needs"),
    "plot": ("tiny_transformer.cli.plot", "draw a run's loss curve, compare runs, draw the timelapse"),
    "runs": ("tiny_transformer.cli.runs", "list and compare runs"),
    "recipes": ("tiny_transformer.cli.recipes", "list the named experiments"),
    "data": ("tiny_transformer.cli.data", "texts: list, show, download, report, clean, split, tokenize, view batches"),
    "tokenizer": ("tiny_transformer.cli.tokenizer", "tokenizers: train, encode, decode, inspect, compare, extend"),
    "profile": ("tiny_transformer.cli.profiles", "where a step's time goes, by part of the model, beside what each part costs"),
    "hardware": ("tiny_transformer.cli.hardware", "what this machine is, and how large a model suits it"),
    "law": ("tiny_transformer.cli.law", "what loss some minutes are worth: show, measure, fit and draw the law behind --minutes"),
    "verify": ("tiny_transformer.verify", "check the installation, with a self-test of five seconds"),
}

STARTED: dict[str, float] = {}
"""When a command of this process was called last, by time.perf_counter: `--minutes` counts from there."""

_START = """\
Start here:
  tiny demo                                     train, watch, read: under five minutes on two cores
  tiny train --corpus shakespeare --out runs/a  train a model that suits this machine
  tiny generate runs/a --prompt "ROMEO:"        let it write
  tiny COMMAND --help                           every flag of a command, explained"""


def main(argv: list[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if argv[0] == "--version":
        return _print_version()
    if argv[0] not in COMMANDS:
        return fail("tiny", unknown("command", argv[0], list(COMMANDS)))
    return run(argv[0], argv[1:])


def help_text() -> str:
    """What `tiny --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    head = ["tiny: train a transformer from scratch and let it write", "", "usage: tiny COMMAND [flags]", "", "Commands:"]
    return "\n".join([*head, *lines, "", _START])


def unknown(kind: str, name: str, known: list[str]) -> str:
    """One line for a name that does not exist: the nearest one if there is any, else all of them."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}?" if near else f"The known ones are {', '.join(known)}."
    return f"there is no {kind} {name!r}. {hint}"


def run(command: str, argv: list[str]) -> int:
    """Import a command's module and run it; turn what a person can mend into one line and exit code 2."""
    STARTED[command] = time.perf_counter()
    name = f"tiny {command}"
    _forgive_unprintable()
    try:
        return int(importlib.import_module(COMMANDS[command][0]).main(argv))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        print(f"\n{name}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return _close_pipe()
    except Exception as error:
        line = explain(error)
        if line is None or os.environ.get("TINY_DEBUG"):
            raise
        return fail(name, line)


def fail(name: str, line: str) -> int:
    """Print one line on standard error; the exit code for what a person can mend."""
    print(f"{name}: {' '.join(line.split())}", file=sys.stderr)
    return 2


def explain(error: BaseException) -> str | None:
    """The line for an error that a person can mend; None for a bug of ours, which deserves its traceback."""
    if isinstance(error, OSError):
        return _explain_system(error)
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("tiny_transformer"):
        return f"the Python package {error.name!r} is missing. Try: pip install -e ."
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower() or "can't allocate memory" in str(error):
        return "out of memory. Try a smaller --batch-size, a shorter --max-seq-len, or --accumulate 4"
    if isinstance(error, ValueError):
        return str(error) or type(error).__name__
    cause = error.__cause__ or error.__context__
    return _explain_system(cause) if isinstance(cause, OSError) else None


def _explain_system(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    remedies = {
        errno.ENOSPC: ("the disk is full", "Free some space, or choose another place with --out"),
        getattr(errno, "EDQUOT", -1): ("the disk quota is used up", "Free some space, or choose another place with --out"),
        errno.EACCES: ("permission denied", "Choose a place that you may write to and read from"),
        errno.EPERM: ("permission denied", "Choose a place that you may write to and read from"),
        errno.EROFS: ("the file system is read-only", "Choose another place with --out"),
        errno.ENOENT: ("no such file or directory", "Check the path"),
        errno.EISDIR: ("this is a directory, not a file", "Name a file inside it"),
        errno.ENOTDIR: ("a part of this path is a file, not a directory", "Check the path"),
        errno.EEXIST: ("a file of this name is in the way", "Choose another name"),
    }
    if error.errno not in remedies:
        return f"{error.strerror or str(error) or type(error).__name__}{where}"
    what, remedy = remedies[error.errno]
    return f"{what}{where}. {remedy}"


def _forgive_unprintable() -> None:
    """A terminal that cannot show a character shows a question mark: no run should end because of it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _close_pipe() -> int:
    """The reader went away (`tiny runs | head`): leave quietly with the code a shell gives for it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's last flush finds no broken pipe
    return 141


def _print_version() -> int:
    from tiny_transformer import __version__

    print(f"tiny {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
