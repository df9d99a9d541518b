"""How a model rests on disk: one self-contained `.pt` file, written whole or not at all, and checked when it is read.

A file holds tensors and one JSON text, never code: it opens with `torch.load(weights_only=True)`. Flipped bits pass
silently through `torch.load`, so every tensor and the JSON text carry a SHA-256, and each part of the archive its
checksum. Torch is imported when a file is written or read. Leaves out: runs (`run.py`), other people's formats.
Read before: `atomic.py`.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tiny_transformer.config import ModelConfig
from tiny_transformer.utils.atomic import atomic_save

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FORMAT", "Checkpoint", "CheckpointError", "atomic_save", "load", "save"]

FORMAT = 1
"""The newest format this version reads, and the one it writes."""
MARK = "tiny_transformer"
"""The key by which our files are known; its value is the format."""
TENSOR = "$tensor"
"""In the JSON text {"$tensor": name} stands for that tensor."""


class CheckpointError(ValueError):
    """A file that is no checkpoint of ours, or a damaged one; the message names it and says what to do."""


@dataclass
class Checkpoint:
    """A model at one moment, and all that is needed to use it, trace it and go on training it.

    `tokenizer` is a tokenizer's `to_dict()`. `metrics` and `lineage` (parent, recipe, data, commit, …) hold JSON values.
    `training` is what the next step depends on: dicts and lists, as deep as wanted, of tensors and JSON values.
    """

    config: ModelConfig
    tokenizer: dict[str, Any] | None
    weights: dict[str, "Tensor"]
    step: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    format: int = FORMAT
    rounded: dict[str, Any] = field(default_factory=dict)
    """Weights in few bits (`quantized_layers.py`), by name; not in `weights` then. Only .safetensors files hold such."""


# ------------------------------------------------------------ writing


def save(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path`, whole or not at all: on any failure an older file there is untouched.

    Tuples come back as lists. Raises OSError naming `path` when the file system refuses (full disk, no permission),
    TypeError for content that is neither a tensor nor a JSON value, ValueError for weights in few bits.
    """
    import torch

    if checkpoint.rounded:
        raise ValueError(f"{path} would need weights in few bits: only .safetensors files hold such. Save it with run.as_numpy")

    content = _pack(checkpoint)
    try:
        atomic_save(path, lambda file: _write_through(file, lambda out: torch.save(content, out)))
    except OSError as error:
        reason = f"{error.strerror or error}: the checkpoint was not written, an older one is unharmed"
        raise OSError(error.errno, reason, str(path)) from error


def _pack(checkpoint: Checkpoint) -> dict[str, Any]:
    """What goes into the file: the mark, the JSON text, the tensors, and a digest of each."""
    tensors: dict[str, Tensor] = {}
    record = {
        "config": checkpoint.config.to_dict(),
        "tokenizer": checkpoint.tokenizer,
        "weights": checkpoint.weights,
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "lineage": checkpoint.lineage,
        "training": checkpoint.training,
    }
    # Not ASCII: as \u escapes two lone surrogates in a row would come back as one character.
    text = json.dumps({key: _take_out(value, key, tensors) for key, value in record.items()}, ensure_ascii=False)
    digests = {name: _tensor_digest(name, tensor) for name, tensor in tensors.items()}
    return {MARK: FORMAT, "record": text, "record_sha256": _text_digest(FORMAT, text), "tensors": tensors, "sha256": digests}


def _take_out(value: Any, place: str, tensors: dict[str, "Tensor"]) -> Any:
    """`value` with its tensors moved to `tensors` and their names left in their place. Raises TypeError naming a bad place."""
    import torch

    if isinstance(value, torch.Tensor):
        name = f"{len(tensors)}:{place}"  # the number keeps names apart
        tensors[name] = _at_rest(value)
        return {TENSOR: name}
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str) or key == TENSOR]
        if wrong:
            raise TypeError(f"{place} has the key {wrong[0]!r}: keys must be strings, and not {TENSOR!r}. Rename it")
        return {key: _take_out(inner, f"{place}/{key}", tensors) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_take_out(inner, f"{place}/{index}", tensors) for index, inner in enumerate(value)]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{place} is a {type(value).__name__}: a checkpoint must hold tensors and JSON values only. Convert it first")


def _at_rest(tensor: "Tensor") -> "Tensor":
    """On the CPU, in order, with memory of its own: a view would take everything it looks at into the file."""
    tensor = tensor.detach().cpu().contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def _write_through(file: BinaryIO, write: Any) -> None:
    """`write(file)`, but an error of the file system comes out as itself: torch hides it behind one of its own."""
    watched = _Watched(file)
    try:
        write(watched)
    except Exception:
        if watched.error is not None:
            raise watched.error from None
        raise
    if watched.error is not None:
        raise watched.error


class _Watched:
    """A file that remembers the first error of writing to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.file.flush()


# ------------------------------------------------------------ reading


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and verify a checkpoint; its tensors are on the CPU.

    Raises CheckpointError naming the file when it is missing, not ours, from a newer version, or damaged anywhere.
    """
    path = Path(path)
    content = _read(path)
    if not isinstance(content, dict) or MARK not in content:
        raise CheckpointError(f"{path} is a PyTorch file, but not a checkpoint of Tiny Transformer. Pass one that `tiny train` wrote")
    found = content[MARK]
    if not isinstance(found, int) or found > FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {found}: this version reads up to {FORMAT}. Install a newer Tiny Transformer")
    try:
        return _unpack(content)
    except _Damage as damage:
        raise _damaged(path, str(damage)) from None
    except Exception as error:  # a file made by hand can break anything
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _read(path: Path) -> Any:
    """The tensors and plain values in a `.pt` file, once each part of the archive has matched its checksum."""
    import torch

    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise CheckpointError(f"{path} is empty. It was not written by this program: take another checkpoint")
            if not zipfile.is_zipfile(file):
                raise CheckpointError(f"{path} is not a checkpoint, or it was cut or damaged. Pass one that `tiny train` wrote")
            _check_archive(file)  # first, so that damaged instructions are never followed
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist. `tiny runs` lists what there is") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder: a checkpoint is a file. Pass the best.pt or last.pt inside it") from None
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}") from error
    except CheckpointError:
        raise
    except _Damage as damage:
        raise _damaged(path, str(damage)) from None
    except Exception as error:
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise CheckpointError(f"{path} holds more than tensors and plain values, and could run code: refused") from error
        raise _damaged(path, type(error).__name__) from error


def _check_archive(file: BinaryIO) -> None:
    with zipfile.ZipFile(file) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise _Damage("compressed parts")
        if (broken := archive.testzip()) is not None:
            raise _Damage(f"the part {broken} does not match its checksum")


def _unpack(content: dict[str, Any]) -> Checkpoint:
    text, tensors, digests = content["record"], content["tensors"], content["sha256"]
    if content["record_sha256"] != _text_digest(content[MARK], text):
        raise _Damage("its description does not match its digest")
    for name, tensor in tensors.items():
        if digests[name] != _tensor_digest(name, tensor):
            raise _Damage(f"the tensor {name} does not match its digest")
    left = dict(tensors)
    record = _put_back(json.loads(text), left)
    if left:
        raise _Damage("it has tensors that belong nowhere")
    return Checkpoint(**{**record, "config": ModelConfig.from_dict(record["config"]), "format": content[MARK]})


def _put_back(value: Any, tensors: dict[str, "Tensor"]) -> Any:
    """The opposite of `_take_out`; takes each tensor out of `tensors`."""
    if isinstance(value, dict):
        if TENSOR in value:
            return tensors.pop(value[TENSOR])
        return {key: _put_back(inner, tensors) for key, inner in value.items()}
    if isinstance(value, list):
        return [_put_back(inner, tensors) for inner in value]
    return value


class _Damage(Exception):  # noqa: N818
    """What is wrong with a file, without its name."""


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged ({what}). Take another checkpoint: a run keeps best.pt and last.pt")


# ------------------------------------------------------------ digests


def _text_digest(version: int, text: str) -> str:
    return hashlib.sha256(f"{version}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()


def _tensor_digest(name: str, tensor: "Tensor") -> str:
    """SHA-256 of name, type, shape and bytes: the same numbers under another name are a swap."""
    import torch

    digest = hashlib.sha256(f"{name}\n{tensor.dtype}\n{list(tensor.shape)}\n".encode("utf-8", "surrogatepass"))
    digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


if __name__ == "__main__":
    import tempfile

    import torch

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt"
        save(file, Checkpoint(ModelConfig(), None, {"weight": torch.arange(6.0).view(2, 3)}, step=100, metrics={"val_loss": 1.5}))
        again = load(file)
        print(f"{file.stat().st_size:,} bytes: step", again.step, "metrics", again.metrics, "weight", tuple(again.weights["weight"].shape))
        content = bytearray(file.read_bytes())
        content[content.index(torch.arange(6.0).numpy().tobytes()) + 5] ^= 1  # one bit
        file.write_bytes(content)
        try:
            load(file)
        except CheckpointError as error:
            print("caught:", error)
