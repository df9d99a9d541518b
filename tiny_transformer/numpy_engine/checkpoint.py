"""How this engine's model rests on disk: one safetensors file, written whole or not at all, and checked when it is read.

The weights are its tensors, under their public names, so any program that reads safetensors finds them. Everything else is
JSON in the file's metadata, with a SHA-256 of it all. Mirrors `tiny_transformer/utils/checkpoint.py`, whose `.pt` files
need PyTorch. Weights may lie there in eight or four bits (`rounded_weights.py`). Read before: `utils/atomic.py`.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from tiny_transformer.config import ModelConfig
from tiny_transformer.numpy_engine.linear import Array
from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.rounded_weights import Stored, collect
from tiny_transformer.utils.atomic import atomic_save
from tiny_transformer.utils.checkpoint import CheckpointError

FORMAT = 1
"""The newest format this version reads, and the one it writes."""
MARK = "tiny_transformer"
"""The metadata key by which our files are known; its value is the format."""
DIGEST = "sha256"
RECORD = ("config", "tokenizer", "step", "metrics", "lineage", "training")
"""The other metadata keys; each value is JSON."""
NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint64": "U64",
    "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""NumPy's names of types, and the format's."""
QUANTIZED = "quantized"
"""In the lineage of what `tiny quantize` wrote: how."""
STATE = "training/"
"""Before the name of every tensor that is no weight: what the optimizer remembers."""


@dataclass
class Checkpoint:
    """A model at one moment. `tokenizer` is a tokenizer's `to_dict()`; `metrics` and `lineage` hold JSON values.

    `training` is what the next step depends on: dicts, as deep as wanted, of arrays and JSON values.
    """

    config: ModelConfig
    tokenizer: dict[str, Any] | None
    weights: dict[str, Array]
    step: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    rounded: dict[str, Stored] = field(default_factory=dict)
    """Weights in few bits, by name; not in `weights` then."""

    def expanded(self) -> dict[str, Array]:
        """All weights as numbers."""
        return self.weights | {name: stored.expand() for name, stored in self.rounded.items()}


def save(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path`, whole or not at all: on any failure an older file there is untouched.

    Raises OSError naming `path` when the file system refuses, TypeError for content that is no JSON value.
    """
    tensors = {name: np.ascontiguousarray(weight) for name, weight in checkpoint.weights.items()}
    for name, stored in checkpoint.rounded.items():
        tensors |= {part: np.ascontiguousarray(array) for part, array in stored.tensors(name).items()}
    training = _take_out(checkpoint.training, STATE, tensors)
    values = {**vars(checkpoint), "config": checkpoint.config.to_dict(), "training": training}
    metadata = {MARK: str(FORMAT)} | {key: json.dumps(values[key]) for key in RECORD}  # ASCII: any reader can hold it
    metadata[DIGEST] = _digest(metadata, tensors)
    try:
        atomic_save(path, lambda file: file.writelines(_content(metadata, tensors)))
    except OSError as error:
        reason = f"{error.strerror or error}: the checkpoint was not written, an older one is unharmed"
        raise OSError(error.errno, reason, str(path)) from error


def load(path: str | os.PathLike[str], *, expand: bool = True) -> Checkpoint:
    """Read and verify a checkpoint: one that `save` wrote, or any safetensors file with our config as JSON in its metadata.

    Weights in few bits (`tiny quantize`, `tools/make_pocket.py`) come as the numbers they stand for, or as they are without `expand`.
    Raises CheckpointError naming the file when it is missing, not ours, from a newer version, or damaged anywhere.
    """
    path = Path(path)
    metadata, tensors = _read(path)
    if MARK in metadata and metadata[MARK] != str(FORMAT):
        raise CheckpointError(f"{path} has format {metadata[MARK]}: this version reads {FORMAT}. Install a newer Tiny Transformer")
    digest = metadata.pop(DIGEST, None)
    if (digest is not None or MARK in metadata) and digest != _digest(metadata, tensors):
        raise _damaged(path, "its content does not match its digest")
    if "config" not in metadata:
        raise CheckpointError(f"{path} has no config in its metadata: it must say which model the weights belong to. Add it")
    try:
        record = {key: json.loads(metadata[key]) for key in RECORD if key in metadata}
        training = _put_back(record.pop("training", None), STATE, tensors)
        record["config"] = ModelConfig.from_dict(record["config"])
        rounded = collect(tensors, weight_shapes(record["config"]))
        found = Checkpoint(**{"tokenizer": None, **record, "weights": tensors, "training": training, "rounded": rounded})
        return replace(found, weights=found.expanded(), rounded={}) if expand else found
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, str(error)) from error


def load_packed(path: str | os.PathLike[str]) -> Checkpoint:
    """The same, but what `tiny quantize` wrote keeps its weights in few bits (`rounded`); those of other files come as numbers."""
    found = load(path, expand=False)
    return found if QUANTIZED in found.lineage else replace(found, weights=found.expanded(), rounded={})


def _take_out(value: Any, place: str, tensors: dict[str, Array]) -> Any:
    """`value` with its arrays moved to `tensors`, under names that say where they were."""
    if isinstance(value, np.ndarray):
        tensors[place] = np.ascontiguousarray(value)
        return {"$tensor": True}
    if isinstance(value, dict):
        return {key: _take_out(inner, f"{place}{key}/", tensors) for key, inner in value.items()}
    return value


def _put_back(value: Any, place: str, tensors: dict[str, Array]) -> Any:
    """The opposite of `_take_out`; takes each array out of `tensors`, which then holds the weights alone."""
    if value == {"$tensor": True}:
        return tensors.pop(place)
    if isinstance(value, dict):
        return {key: _put_back(inner, f"{place}{key}/", tensors) for key, inner in value.items()}
    return value


def _content(metadata: dict[str, str], tensors: dict[str, Array]) -> Iterator[bytes | memoryview]:
    """A safetensors file piece by piece, so that it is never in memory beside the tensors: length, header, and every tensor's bytes.

    The widest numbers come first and the header is filled with blanks, so that each tensor begins at a multiple of its own width.
    """
    order, end, header = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)), 0, dict[str, Any](__metadata__=metadata)
    for name in order:
        array = tensors[name]
        header[name] = {"dtype": NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    yield from (_bytes(tensors[name]) for name in order)


def _bytes(array: Array) -> memoryview:
    """The numbers as they lie in memory."""
    return array.reshape(-1).view(np.uint8).data


def _read(path: Path) -> tuple[dict[str, str], dict[str, Array]]:
    """The metadata and the tensors of a safetensors file."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: a checkpoint is a file. Pass the .safetensors file inside it")
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist. `tiny runs` lists what there is") from None
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}") from error
    except (SafetensorError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise _damaged(path, " ".join(str(error).split()) or type(error).__name__) from None


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is no safetensors file of ours, or it is damaged ({what}). Take another checkpoint")


def _digest(metadata: dict[str, str], weights: dict[str, Array]) -> str:
    """SHA-256 of all metadata and of every tensor's name, type, shape and bytes, in the order of the names."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(weights):
        weight = weights[name]
        digest.update(f"\n{name}\n{weight.dtype}\n{list(weight.shape)}\n".encode("utf-8", "surrogatepass"))
        digest.update(_bytes(weight))
    return digest.hexdigest()


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(path, Checkpoint(ModelConfig(), None, {"weight": np.arange(6.0).reshape(2, 3)}, step=100, metrics={"val_loss": 1.5}))
        again = load(path)
        print(f"{path.stat().st_size:,} bytes: step", again.step, "metrics", again.metrics, "weight", again.weights["weight"].shape)
        content = bytearray(path.read_bytes())
        content[-5] ^= 1  # one bit
        path.write_bytes(content)
        try:
            load(path)
        except CheckpointError as error:
            print("caught:", error)
