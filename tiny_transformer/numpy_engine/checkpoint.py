"""How this engine's model rests on disk: one safetensors file, written whole or not at all, and checked when it is read.

The weights are its tensors, under their public names, so any program that reads safetensors finds them. Everything else is
JSON in the file's metadata, with a SHA-256 of it all. Mirrors `tiny_transformer/utils/checkpoint.py`, whose `.pt` files
need PyTorch. Read before: `utils/atomic.py`.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from tiny_transformer.config import ModelConfig
from tiny_transformer.numpy_engine.linear import Array
from tiny_transformer.utils.atomic import atomic_save
from tiny_transformer.utils.checkpoint import CheckpointError

FORMAT = 1
"""The newest format this version reads, and the one it writes."""
MARK = "tiny_transformer"
"""The metadata key by which our files are known; its value is the format."""
DIGEST = "sha256"
RECORD = ("config", "tokenizer", "step", "metrics", "lineage", "training")
"""The other metadata keys; each value is JSON."""
SCALES = ".scales"
"""Behind the name of a weight that is stored as whole numbers from -127 to 127: what they stand for, one number per row."""
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


def save(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path`, whole or not at all: on any failure an older file there is untouched.

    Raises OSError naming `path` when the file system refuses, TypeError for content that is no JSON value.
    """
    tensors = {name: np.ascontiguousarray(weight) for name, weight in checkpoint.weights.items()}
    training = _take_out(checkpoint.training, STATE, tensors)
    values = {**vars(checkpoint), "config": checkpoint.config.to_dict(), "training": training}
    metadata = {MARK: str(FORMAT)} | {key: json.dumps(values[key]) for key in RECORD}  # ASCII: any reader can hold it
    content = to_bytes(tensors, {**metadata, DIGEST: _digest(metadata, tensors)})
    try:
        atomic_save(path, lambda file: file.writelines([content]))
    except OSError as error:
        reason = f"{error.strerror or error}: the checkpoint was not written, an older one is unharmed"
        raise OSError(error.errno, reason, str(path)) from error


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and verify a checkpoint: one that `save` wrote, or any safetensors file with our config as JSON in its metadata.

    Weights that are stored as whole numbers with scales (`tools/make_pocket.py`) come as the numbers they stand for.
    Raises CheckpointError naming the file when it is missing, not ours, from a newer version, or damaged anywhere.
    """
    path = Path(path)
    metadata, tensors = _read(path)
    if MARK in metadata and metadata[MARK] != str(FORMAT):
        raise CheckpointError(f"{path} has format {metadata[MARK]}: this version reads {FORMAT}. Install a newer Tiny Transformer")
    found = metadata.pop(DIGEST, None)
    if (found is not None or MARK in metadata) and found != _digest(metadata, tensors):
        raise _damaged(path, "its content does not match its digest")
    if "config" not in metadata:
        raise CheckpointError(f"{path} has no config in its metadata: it must say which model the weights belong to. Add it")
    try:
        record = {key: json.loads(metadata[key]) for key in RECORD if key in metadata}
        training = _put_back(record.pop("training", None), STATE, tensors)
        record["config"] = ModelConfig.from_dict(record["config"])
        return Checkpoint(**{"tokenizer": None, **record, "weights": _expanded(tensors), "training": training})
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, str(error)) from error


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


def _expanded(tensors: dict[str, Array]) -> dict[str, Array]:
    """The weights, those in eight bits as float32: values (rows, columns) times scales (rows, 1)."""
    scales = {name.removesuffix(SCALES): array for name, array in tensors.items() if name.endswith(SCALES)}
    stored = {name: array for name, array in tensors.items() if not name.endswith(SCALES)}
    return {name: array.astype(np.float32) * scales[name] if name in scales else array for name, array in stored.items()}


def _read(path: Path) -> tuple[dict[str, str], dict[str, Array]]:
    """The metadata and the tensors of a safetensors file."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: a checkpoint is a file. Pass the .safetensors file inside it")
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {}), {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
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
        digest.update(weight.tobytes())
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
