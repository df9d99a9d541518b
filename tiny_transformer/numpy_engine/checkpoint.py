"""How this engine's model rests on disk: one safetensors file, written whole or not at all, and checked when it is read.

The weights are its tensors, under their public names, so any program that reads safetensors finds them. Everything else is
JSON in the file's metadata, with a SHA-256 of it all. A name that ends in .npz means NumPy's own kind of file with the same in it:
every weight an array, and each part of the metadata an array of one text. Weights may lie there in eight or four bits. Mirrors
`tiny_transformer/utils/checkpoint.py`, whose `.pt` files need PyTorch. Read before: `utils/atomic.py`, `utils/short_floats.py`,
`rounded_weights.py`.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from tiny_transformer.config import ModelConfig
from tiny_transformer.numpy_engine.linear import Array
from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.rounded_weights import Stored, collect
from tiny_transformer.utils.atomic import atomic_save
from tiny_transformer.utils.checkpoint import CheckpointError
from tiny_transformer.utils.safetensors_file import SafetensorsFile
from tiny_transformer.utils.short_floats import from_bfloat16, to_bfloat16, to_float16

FORMAT = 1
"""The newest format this version reads, and the one it writes."""
MARK = "tiny_transformer"
"""The metadata key by which our files are known; its value is the format."""
DIGEST = "sha256"
RECORD = ("config", "tokenizer", "step", "metrics", "lineage", "training")
"""The other metadata keys; each value is JSON."""
NPZ = ".npz"
"""What the name of NumPy's own kind of file ends in."""
NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint64": "U64",
    "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""NumPy's names of types, and safetensors'."""
Writer = Callable[[BinaryIO], None]
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


def save(path: str | os.PathLike[str], checkpoint: Checkpoint, dtype: str | None = None) -> None:
    """Write `checkpoint` to `path`, whole or not at all: on any failure an older file there is untouched.

    `dtype` float16 or bfloat16 stores the weights in two bytes each, rounded; reading gives float32 again. .npz has no bfloat16, and
    a checkpoint with training state is stored as it is, and so are weights in few bits.
    Raises OSError naming `path` when the file system refuses, TypeError for content that is no JSON value, ConfigError for a weight
    that float16 cannot hold.
    """
    tensors = {name: _stored(np.ascontiguousarray(weight), dtype, name) for name, weight in checkpoint.weights.items()}
    short = frozenset(tensors) if dtype == "bfloat16" else frozenset[str]()
    for name, small in checkpoint.rounded.items():
        tensors |= {part: np.ascontiguousarray(array) for part, array in small.tensors(name).items()}
    training = _take_out(checkpoint.training, STATE, tensors)
    values = {**vars(checkpoint), "config": checkpoint.config.to_dict(), "training": training}
    metadata = {MARK: str(FORMAT)} | {key: json.dumps(values[key]) for key in RECORD}  # ASCII: any reader can hold it
    metadata[DIGEST] = _digest(metadata, tensors)
    write = _writer(Path(path), tensors, metadata, short)
    try:
        atomic_save(path, write)
    except OSError as error:
        reason = f"{error.strerror or error}: the checkpoint was not written, an older one is unharmed"
        raise OSError(error.errno, reason, str(path)) from error


def _stored(weight: Array, dtype: str | None, name: str) -> Array:
    """A weight as numbers of a type; bfloat16 as whole numbers of 16 bits."""
    if dtype == "bfloat16":
        return to_bfloat16(weight)
    return to_float16(weight, name) if dtype == "float16" else weight if dtype is None else weight.astype(dtype)


def _writer(path: Path, tensors: dict[str, Array], metadata: dict[str, str], short: Collection[str]) -> Writer:
    """What fills the file; `short`: the weights that are bfloat16, as whole numbers of 16 bits."""
    if path.suffix == NPZ:
        texts = {key: np.array(text.encode()) for key, text in metadata.items()}
        return lambda file: np.savez(file, allow_pickle=False, **texts, **tensors)
    return lambda file: file.writelines(_content(metadata, tensors, short))


def _content(metadata: dict[str, str], tensors: dict[str, Array], short: Collection[str]) -> Iterator[bytes | memoryview]:
    """A safetensors file piece by piece, so that it is never in memory beside the tensors: length, header, and every tensor's bytes.

    `utils/safetensors_writing.py` writes files of one type of numbers, and converts on the way; here each tensor has its own. The widest
    numbers come first and the header is filled with blanks, so that each tensor begins at a multiple of its own width.
    """
    order, end, header = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)), 0, dict[str, Any](__metadata__=metadata)
    for name in order:
        array = tensors[name]
        kind = "BF16" if name in short else NAMES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    yield from (_bytes(tensors[name]) for name in order)


def _bytes(array: Array) -> memoryview:
    """The numbers as they lie in memory."""
    return array.reshape(-1).view(np.uint8).data


def load(path: str | os.PathLike[str], *, expand: bool = True) -> Checkpoint:
    """Read and verify a checkpoint: one that `save` wrote, or any safetensors file with our config as JSON in its metadata.

    Weights in 16 bits come as float32. Those in few bits (`tiny quantize`, `tools/make_pocket.py`) come as the numbers they stand for,
    or as they are without `expand`.
    Raises CheckpointError naming the file when it is missing, not ours, from a newer version, or damaged anywhere.
    """
    path = Path(path)
    metadata, tensors, short = _read(path)
    if MARK in metadata and metadata[MARK] != str(FORMAT):
        raise CheckpointError(f"{path} has format {metadata[MARK]}: this version reads {FORMAT}. Install a newer Tiny Transformer")
    digest = metadata.pop(DIGEST, None)
    if (digest is not None or MARK in metadata) and digest != _digest(metadata, tensors):
        raise _damaged(path, "its content does not match its digest")
    if "config" not in metadata:
        raise CheckpointError(f"{path} has no config in its metadata: it must say which model the weights belong to. Add it")
    try:
        record = {key: json.loads(metadata[key]) for key in RECORD if key in metadata}
        tensors |= {name: from_bfloat16(tensors[name]) for name in short}
        training = _put_back(record.pop("training", None), STATE, tensors)
        record["config"] = ModelConfig.from_dict(record["config"])
        rounded = collect(tensors, weight_shapes(record["config"]))
        weights = {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in tensors.items()}
        found = Checkpoint(**{"tokenizer": None, **record, "weights": weights, "training": training, "rounded": rounded})
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


def _read(path: Path) -> tuple[dict[str, str], dict[str, Array], frozenset[str]]:
    """The metadata and the tensors of a file, and which of these are bfloat16: they come as whole numbers of 16 bits."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: a checkpoint is a file. Pass the .safetensors file inside it")
    try:
        return _read_npz(path) if path.suffix == NPZ else _read_safetensors(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist. `tiny runs` lists what there is") from None
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}") from error
    except (SafetensorError, EOFError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise _damaged(path, " ".join(str(error).split()) or type(error).__name__) from None


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Array], frozenset[str]]:
    with safe_open(path, framework="numpy") as file:
        metadata, names = dict(file.metadata() or {}), list(file.keys())
        short = frozenset(name for name in names if file.get_slice(name).get_dtype() == "BF16")
        tensors = {name: file.get_tensor(name) for name in names if name not in short}
    if short:  # the library has no bfloat16 for NumPy
        ours = SafetensorsFile(path)
        tensors |= {name: np.array(ours.array(name)) for name in short}
    return metadata, tensors, short


def _read_npz(path: Path) -> tuple[dict[str, str], dict[str, Array], frozenset[str]]:
    _check_parts(path)
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: np.array(file[name]) for name in file.files}
    metadata = {name: array.item().decode() for name, array in arrays.items() if array.dtype.kind == "S" and array.ndim == 0}
    return metadata, {name: array for name, array in arrays.items() if name not in metadata}, frozenset()


def _check_parts(path: Path) -> None:
    """Raise ValueError unless each part of the archive is stored as it is and matches its checksum: before a number in it is believed."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist())
            broken = "compressed parts" if packed else archive.testzip()
    except OSError:
        raise
    except Exception as error:  # a damaged archive can break anything
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if broken is not None:
        raise ValueError(broken if packed else f"the part {broken} does not match its checksum")


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is no {path.suffix[1:]} file of ours, or it is damaged ({what}). Take another checkpoint")


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
