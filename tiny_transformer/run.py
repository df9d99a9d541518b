"""A directory that holds one experiment, and the way from such a directory back to a model.

    checkpoints/shakespeare/
    ├── config.json               settings, versions, commit, hardware, command line, start time
    ├── best.pt  last.pt          checkpoints
    ├── metrics.jsonl  log.txt    one JSON object per logged step; what was printed
    └── samples/000500.txt        what the model wrote after 500 steps

The NumPy engine's runs hold best.safetensors and last.safetensors instead; everything else is the same, and PyTorch is loaded
only when a model is built. Leaves out: what is in a checkpoint (`utils/checkpoint.py`), training.
Read before: `checkpoint.py`, `model.py`.
"""

import difflib
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiny_transformer import __version__, hardware, tokenization
from tiny_transformer.numpy_engine import checkpoint as numpy_checkpoints
from tiny_transformer.numpy_engine.threads import blas_threads
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.utils import checkpoint as checkpoints
from tiny_transformer.utils.atomic import atomic_save
from tiny_transformer.utils.checkpoint import Checkpoint

if TYPE_CHECKING:
    from tiny_transformer.model import TinyTransformerLM

HOME = Path("checkpoints")
"""Where runs lie unless said otherwise: `shakespeare` may be said for `checkpoints/shakespeare`."""
POCKET = Path(__file__).with_name("pocket")
"""The model that comes with the package; `pocket` means it where nothing else has that name."""
NUMPY_SUFFIX = ".safetensors"
"""What the NumPy engine's checkpoints end in; PyTorch's end in .pt."""
NUMPY_SUFFIXES = (NUMPY_SUFFIX, numpy_checkpoints.NPZ)
"""And what it can read."""
PREFERRED = ("best.pt", "best.safetensors", "last.pt", "last.safetensors")
"""Which checkpoint of a run is meant when none is named."""
PATTERNS = ("*.pt", "*/*.pt", "*/*.safetensors")
"""Where checkpoints are looked for when a path leads nowhere."""


@dataclass
class Run:
    """One experiment on disk. `record` is its config.json; `moved_aside` is where `create` put an older run."""

    path: Path
    record: dict[str, Any]
    moved_aside: Path | None = None
    _mended: bool = field(default=False, repr=False)

    @classmethod
    def create(cls, path: str | os.PathLike[str], record: dict[str, Any]) -> "Run":
        """Begin a run at `path`; one that is there already is renamed to `path-<its start time>`, nothing is lost.

        config.json becomes `record` and `environment()`. Raises ValueError when `path` is a file, or a folder that holds
        something else.
        """
        path = Path(path)
        moved = _make_room(path)
        path.mkdir(parents=True, exist_ok=True)
        record = _strict({**record, "environment": environment()})
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        atomic_save(path / "config.json", lambda file: _write(file, text))
        return cls(path, record, moved)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Run":
        """The run at `path`. Raises ValueError when there is none, with the nearest one there is."""
        path = Path(path)
        if not is_run(path):
            raise ValueError(f"there is no run at {path}. {_suggestion(path, [run.path for run in cls.find(HOME)])}")
        file = path / "config.json"
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is damaged ({error}): a run's settings must be JSON. Restore it, or train again") from error
        return cls(path, record)

    @classmethod
    def find(cls, folder: str | os.PathLike[str]) -> "list[Run]":
        """All runs in `folder`, itself and subfolders included, by path. Other people's config.json files are passed over."""
        found = []
        for config in sorted(Path(folder).rglob("config.json")):
            with suppress(ValueError, OSError):
                found += [cls.open(config.parent)] if is_run(config.parent) else []
        return found

    # -------------------------------------------------------- writing

    def log(self, step: int, **numbers: Any) -> None:
        """Append {"step": step, …} to metrics.jsonl, at once. What is not a finite number becomes null: strict JSON."""
        self._mend()
        values = {"step": int(step), **{name: _json_number(value) for name, value in numbers.items()}}
        _append(self.path / "metrics.jsonl", json.dumps(values, allow_nan=False))

    def say(self, text: str) -> None:
        """Append a line to log.txt, at once."""
        _append(self.path / "log.txt", text)

    def save(self, checkpoint: Checkpoint | numpy_checkpoints.Checkpoint, name: str = "last") -> Path:
        """Write `checkpoint` to NAME.pt, or the NumPy engine's to NAME.safetensors: whole or not at all."""
        if isinstance(checkpoint, numpy_checkpoints.Checkpoint):
            file = self.path / f"{name}{NUMPY_SUFFIX}"
            numpy_checkpoints.save(file, checkpoint)
        else:
            file = self.path / f"{name}.pt"
            checkpoints.save(file, checkpoint)
        return file

    def sample(self, step: int, text: str) -> Path:
        """Keep what the model wrote after `step` steps: samples/000500.txt."""
        file = self.path / "samples" / f"{step:06d}.txt"
        file.parent.mkdir(exist_ok=True)
        atomic_save(file, lambda out: _write(out, text + "\n"))
        return file

    def truncate(self, step: int) -> None:
        """Before resuming after `step`: drop the metrics of later steps, and temporary files of processes that are gone."""
        lines = [line for line in self.metrics() if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        if (self.path / "metrics.jsonl").exists():
            atomic_save(self.path / "metrics.jsonl", lambda out: _write(out, text))
        for file in self.path.glob(".*.tmp"):
            owner = re.fullmatch(r"\..+\.(\d+)\.[0-9a-f]+\.tmp", file.name)
            if owner and not _is_alive(int(owner[1])):
                file.unlink(missing_ok=True)

    # -------------------------------------------------------- reading

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that a crash cut short is left out.

        Raises ValueError naming the line when any other is damaged.
        """
        file = self.path / "metrics.jsonl"
        if not file.exists():
            return []
        lines = file.read_bytes().splitlines()
        parsed = [_parse(line) for line in lines]
        if parsed and parsed[-1] is None:
            parsed.pop()
        if None in parsed:
            raise ValueError(f"{file} is damaged in line {parsed.index(None) + 1}: it must be a JSON object with a step. Mend or remove it")
        return [line for line in parsed if line is not None]

    def _mend(self) -> None:
        """Once, before the first line is added: take away a half-written last one."""
        file = self.path / "metrics.jsonl"
        if self._mended or not file.exists():
            self._mended = True
            return
        content = file.read_bytes()
        whole, _, rest = content.rpartition(b"\n")
        if rest:
            with file.open("r+b") as out:
                out.truncate(len(whole) + 1 if whole else 0)
            if _parse(rest) is not None:  # only the line's end was missing
                _append(file, rest.decode())
        self._mended = True


def is_run(path: Path) -> bool:
    """A folder with a config.json of ours, damaged or not: other programs write files of that name too, with a model_type in them."""
    file = path / "config.json"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    if '"environment"' not in text:
        return False
    try:
        record = json.loads(text)
    except ValueError:
        return True
    return not isinstance(record, dict) or ("environment" in record and "model_type" not in record)


def _make_room(path: Path) -> Path | None:
    """Rename a run that is at `path` to `path-<its start time>`, and return that."""
    if not path.is_dir():
        if path.exists():
            raise ValueError(f"{path} is a file: a run must be a folder. Name another one")
        return None
    if not is_run(path):
        if any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise ValueError(f"{path} holds files that are no run: a run must have a folder of its own. Name a new one")
        return None
    here, current = path.resolve(), Path.cwd()
    if here == current or here in current.parents:
        raise ValueError(f"{path} holds a run and is the current folder: it can't be moved aside. Name another one")
    try:
        started = datetime.fromisoformat(Run.open(path).record["environment"]["started"])
    except (ValueError, KeyError, TypeError):
        started = datetime.fromtimestamp(path.stat().st_mtime)
    name = f"{here.name}-{started:%Y%m%d-%H%M%S}"
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return path.rename(next(path.parent / name for name in names if not (path.parent / name).exists()))


def _strict(value: Any) -> Any:
    """`value` with null for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json_number(value: Any) -> Any:
    """Tensors and NumPy scalars become plain numbers; not finite ones None."""
    return _strict(value.item() if hasattr(value, "item") else value)


def _write(out: Any, text: str) -> None:
    out.write(text.encode("utf-8", "backslashreplace"))


def _append(file: Path, line: str) -> None:
    with file.open("ab") as out:
        _write(out, line + "\n")  # one write: a crash can cut a line short, but not mix two


def _parse(line: bytes) -> dict[str, Any] | None:
    """A line of metrics, or None for anything else."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("step"), int) else None


def _is_alive(process: int) -> bool:
    if os.name != "posix":
        return True  # asking on Windows would end it
    try:
        os.kill(process, 0)  # 0: only ask
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


# ------------------------------------------------------------ where and with what


def environment() -> dict[str, Any]:
    """What else a result depends on: start time, command line, versions, hardware in one line, threads, git commit.

    PyTorch is asked only where it has been loaded: the NumPy engine's results do not depend on it.
    """
    torch = sys.modules.get("torch")
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": list(sys.argv),
        "tiny_transformer": __version__,
        "python": platform.python_version(),
        "torch": None if torch is None else torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "hardware": hardware.describe(hardware.detect(look_for_gpu=torch is not None)),
        "threads": blas_threads() if torch is None else torch.get_num_threads(),
        "commit": commit(),
    }


def commit() -> str | None:
    """The git commit of this package's checkout, with -dirty after it where files were changed; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():  # not any repository that happens to lie around an installed package
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    return None


# ------------------------------------------------------------ from a path to a model


def resolve(path: str | os.PathLike[str]) -> Path:
    """The checkpoint file that `path` means: a file, or a run (its best checkpoint, else its last).

    What does not exist as it stands is looked for in ./checkpoints, and NAME_best.pt is read as NAME/best.pt. `pocket` is the model
    that comes with the package, unless there is a file or run of that name.
    Raises ValueError, with the nearest path there is, when nothing is found.
    """
    path = Path(path)
    for place in _readings(path):
        if place.is_file():
            return place
        for name in PREFERRED:
            if (place / name).is_file():
                return place / name
    if path.is_dir():
        raise ValueError(f"{path} holds no checkpoint: training must save one first. {_suggestion(path, _known(path))}")
    raise ValueError(f"there is no checkpoint at {path}. {_suggestion(path, _known(path))}")


def _readings(path: Path) -> Iterator[Path]:
    """What a path may mean, the likeliest first."""
    for place in [path] if path.is_absolute() else [path, HOME / path]:
        yield place
        if parts := re.fullmatch(r"(.+)_(best|last)\.(pt|safetensors)", place.name):
            yield place.with_name(parts[1]) / f"{parts[2]}.{parts[3]}"
    if path == Path(POCKET.name):
        yield POCKET


def _known(path: Path) -> list[Path]:
    """Runs with a checkpoint, and other checkpoint files, in ./checkpoints and beside `path`; not another program's weights."""
    folders = {folder.resolve(): folder for folder in (HOME, path, path.parent, path.parent.parent) if folder.is_dir()}
    files = sorted(file for folder in folders.values() for pattern in PATTERNS for file in folder.glob(pattern))
    files = [file for file in files if is_run(file.parent) or not (file.parent / "config.json").is_file()]
    return list(dict.fromkeys([*(file.parent for file in files if file.name in PREFERRED), *files]))


def _suggestion(path: Path, known: Iterable[Path]) -> str:
    """The likeliest of the paths that exist, as a sentence."""
    by_path = {str(place): place for place in known}
    by_name = {place.name: place for place in by_path.values() if place.name not in PREFERRED}
    near = [by_path[match] for match in difflib.get_close_matches(str(path), by_path, n=1)]
    near += [by_name[match] for match in difflib.get_close_matches(path.name, by_name, n=1)]
    if near:
        return f"Did you mean {near[0]}?"
    if not by_path:
        return "None was found nearby: train one first, for example with `tiny train --out checkpoints/first`"
    shown = [str(place) for place in by_path.values() if place.parent not in by_path.values()]
    return f"There is {', '.join(shown[:5])}" + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def read(file: Path) -> Checkpoint:
    """The checkpoint in a file of either engine, with PyTorch's tensors. Raises CheckpointError for a damaged one.

    What `tiny quantize` wrote keeps its weights in few bits (`rounded`); of other files, such as `pocket`, they come as numbers.
    """
    if file.suffix not in NUMPY_SUFFIXES:
        return checkpoints.load(file)
    import torch

    from tiny_transformer.quantized_layers import from_stored

    found = numpy_checkpoints.load_packed(file)
    weights = {name: torch.from_numpy(weight) for name, weight in found.weights.items()}
    rounded = {name: from_stored(stored) for name, stored in found.rounded.items()}
    return Checkpoint(found.config, found.tokenizer, weights, found.step, found.metrics, found.lineage, rounded=rounded)


def as_numpy(checkpoint: Checkpoint) -> numpy_checkpoints.Checkpoint:
    """A checkpoint for the NumPy engine: the same weights as arrays. What resuming needs stays behind, it is PyTorch's own."""
    weights = {name: tensor.numpy(force=True) for name, tensor in checkpoint.weights.items()}
    rounded = {name: matrix.stored() for name, matrix in checkpoint.rounded.items()}
    return numpy_checkpoints.Checkpoint(
        checkpoint.config, checkpoint.tokenizer, weights, checkpoint.step, checkpoint.metrics, checkpoint.lineage, rounded=rounded
    )


def expanded(checkpoint: Checkpoint) -> Checkpoint:
    """The same with all weights as numbers: for what knows nothing of few bits."""
    if not checkpoint.rounded:
        return checkpoint
    weights = checkpoint.weights | {name: matrix.dequantize() for name, matrix in checkpoint.rounded.items()}
    lineage = {key: value for key, value in checkpoint.lineage.items() if key != numpy_checkpoints.QUANTIZED}
    return replace(checkpoint, weights=weights, rounded={}, lineage=lineage)


def build(checkpoint: Checkpoint) -> "tuple[TinyTransformerLM, Tokenizer | None]":
    """The model (in evaluation mode, on the CPU) and the tokenizer of a checkpoint, None where it has none.

    Raises ValueError when weights, config and tokenizer do not belong together.
    """
    from tiny_transformer.model import TinyTransformerLM

    tokenizer = tokenizer_of(checkpoint)
    if checkpoint.rounded:
        from tiny_transformer.quantized_layers import assemble

        return assemble(checkpoint.config, checkpoint.weights, checkpoint.rounded), tokenizer
    return TinyTransformerLM(checkpoint.config, weights=checkpoint.weights).eval(), tokenizer


def tokenizer_of(checkpoint: Checkpoint | numpy_checkpoints.Checkpoint) -> Tokenizer | None:
    """The tokenizer of a checkpoint of either engine. Raises ValueError when it has more tokens than the model."""
    if checkpoint.tokenizer is None:
        return None
    tokenizer: Tokenizer = tokenization.from_dict(checkpoint.tokenizer)
    vocab_size = checkpoint.config.vocab_size
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model vocab_size={vocab_size}: every token must have "
            "a place in the model. Save the model with its own tokenizer"
        )
    return tokenizer


def load(path: str | os.PathLike[str]) -> "tuple[TinyTransformerLM, Tokenizer | None]":
    """The model and tokenizer at `path`, a checkpoint file or a run of either engine: `build` what `resolve` finds.

    Raises ValueError with the nearest path when there is nothing, CheckpointError for a damaged file.
    """
    return build(read(resolve(path)))


if __name__ == "__main__":
    import tempfile

    from tiny_transformer.config import ModelConfig
    from tiny_transformer.model import TinyTransformerLM
    from tiny_transformer.tokenization.char import CharTokenizer

    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "first", {"note": "a demonstration"})
        letters = CharTokenizer.train("to be or not to be")
        config = ModelConfig(vocab_size=letters.vocab_size, d_model=32, n_layers=1)
        run.save(Checkpoint(config, letters.to_dict(), TinyTransformerLM(config, seed=0).weights()))
        run.log(10, loss=2.5)
        run.log(20, loss=float("nan"))
        run.sample(20, "to be or be to be")
        print("files:", ", ".join(sorted(file.relative_to(run.path).as_posix() for file in run.path.rglob("*") if file.is_file())))
        print("metrics:", run.metrics())
        model, tokenizer = load(run.path)
        print(f"loaded {model.config.n_parameters:,} parameters and", tokenizer and tokenizer.vocab_size, "symbols")
        try:
            load(run.path.with_name("frist"))
        except ValueError as error:
            print("caught:", error)
