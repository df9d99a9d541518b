"""What the actions of `tiny tokenizer` share: opening a tokenizer wherever it lies, reading a text, flags with several values.

Left out: what a token looks like (tokenizer_pieces.py). Read before: tokenization/files.py, run.py, data_source.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_transformer.cli import data_source
from tiny_transformer.config import ConfigError, check
from tiny_transformer.corpora.corpus import Corpus
from tiny_transformer.corpora.textfile import nearest_path
from tiny_transformer.numpy_engine import checkpoint as numpy_checkpoints
from tiny_transformer.run import NUMPY_SUFFIXES, PREFERRED, is_run, resolve, tokenizer_of
from tiny_transformer.tokenization.files import load_tokenizer
from tiny_transformer.utils import checkpoint as checkpoints

SUFFIXES = (".pt", *NUMPY_SUFFIXES)


@dataclass(frozen=True)
class Opened:
    """A tokenizer and where it was found."""

    name: str
    """As it was asked for."""
    path: Path
    """The file or folder that holds it."""
    tokenizer: Any
    checkpoint: Any = None
    """The checkpoint that it travels in, of either engine; None for a tokenizer of its own."""


def open_tokenizer(name: str | None, action: str) -> Opened:
    """The tokenizer that a word on the command line means. PyTorch is loaded for a .pt file only.

    Raises ConfigError when there is none, CheckpointError for a damaged checkpoint.
    """
    check(bool(name), f"{action} without a tokenizer", "it needs a file, a run or a checkpoint", f"Try: tiny tokenizer {action} tok.json")
    path = Path(name or "")
    file = _checkpoint_file(path)
    if file is None:
        return Opened(str(name), path, load_tokenizer(path))
    checkpoint: Any = numpy_checkpoints.load_packed(file) if file.suffix in NUMPY_SUFFIXES else checkpoints.load(file)
    tokenizer = tokenizer_of(checkpoint)
    check(tokenizer is not None, f"{file} holds no tokenizer", "tiny train puts it in", "Name a tokenizer's own file")
    return Opened(str(name), file, tokenizer, checkpoint)


def _checkpoint_file(path: Path) -> Path | None:
    """The checkpoint that `path` means; None where it is a tokenizer's own file or folder. Raises ConfigError where there is nothing."""
    try:
        if path.is_file():
            return path if path.suffix in SUFFIXES else None
        if path.is_dir() and not is_run(path) and not any((path / name).is_file() for name in PREFERRED):
            return None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise ConfigError(f"{str(path)[:60]!r} can't be a tokenizer: it must be a path ({error}). Check it") from None
    try:
        return resolve(path)
    except ValueError as error:
        if path.is_dir():
            raise
        near = nearest_path(path)
        hint = f"Did you mean {near}?" if near and near.exists() else str(error).partition(". ")[2]
        raise ConfigError(
            f"there is no tokenizer at {path}: it must be a tokenizer's file or folder, a run or a checkpoint. {hint}"
        ) from None


def read_text(corpus: str | None, data: str | None, action: str, size: int | None = None) -> Corpus:
    """The text of --corpus or --data, whole and unchanged. Raises ConfigError for none, both, and a text that can't be used."""
    remedy = "Try --corpus shakespeare, or --data FILE"
    check(corpus is not None or data is not None, f"{action} without a text", "it needs one", remedy)
    check(corpus is None or data is None, "--corpus and --data", "one text is enough", "Leave one out")
    return data_source.read(corpus if data is None else data, action, size)


def spread(argv: Sequence[str], flag: str) -> list[str]:
    """`--special A B` as `--special=A --special=B`, so that a flag may have several values and may also be given again."""
    spelled: list[str] = []
    taking = seen = False
    for token in argv:
        if token == flag:
            taking, seen = True, False
        elif taking and not token.startswith("--"):
            spelled.append(f"{flag}={token}")
            seen = True
        else:
            spelled += [flag] if taking and not seen else []
            taking = False
            spelled.append(token)
    return spelled + ([flag] if taking and not seen else [])


def check_target(target: Path, *, overwrite: bool, sources: Sequence[Path | None] = ()) -> None:
    """Raise ConfigError where writing `target` would replace a file unasked, or change a source."""
    for source in sources:
        both = source is not None and source.exists() and target.exists()
        same = source is not None and (target.resolve() == source.resolve() or (both and target.samefile(source)))
        check(not same, f"{target} is the source itself", "the source is never changed", "Choose another name")
    check(not target.is_dir(), f"{target} is a folder", "a file is written", "Name a file in it")
    check(
        overwrite or not target.exists(), f"{target} is there already", "it is replaced only on demand", "Add --overwrite, or change --out"
    )
