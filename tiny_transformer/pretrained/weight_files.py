"""The weights of a Hugging Face directory, one file or several: which tensors there are, and each when it is asked for.

model.safetensors, or several files and model.safetensors.index.json that says which tensor lies where; older directories have
pytorch_model.bin, which PyTorch opens with `weights_only=True`: tensors, and never code. Torch is loaded for .bin files only.
Read before: `utils/safetensors_file.py`.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tiny_transformer.config import ConfigError, check
from tiny_transformer.utils.safetensors_file import Array, Entry, SafetensorsFile

NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""What the weights may be called, the best first."""
OTHERS = (".safetensors", ".bin", ".gguf", ".h5", ".msgpack")
"""What else weights may be in: named when none of the above is there."""
INDEX = ".index.json"
TORCH_TYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


class WeightFile(Protocol):
    """A file of tensors."""

    path: Path
    entries: dict[str, Entry]

    def array(self, name: str) -> Array:
        """The tensor as it is stored; bfloat16 as whole numbers of 16 bits."""
        ...

    def release(self, name: str) -> None:
        """Give back the memory that reading it has taken."""
        ...


class PickledFile:
    """A .bin file of PyTorch. Only tensors by name are accepted."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises ConfigError where it is damaged or holds anything else."""
        self.path = path
        self._tensors = _torch_load(path)
        self.entries = {name: Entry(_dtype_name(t), tuple(t.shape), path) for name, t in self._tensors.items()}

    def array(self, name: str) -> Array:
        """The tensor as it is stored."""
        import torch

        tensor = self._tensors[name].detach()
        stored: Array = tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()
        return stored

    def release(self, name: str) -> None:
        """Nothing to give back: the file's pages belong to the system, or all of it had to be read at once."""


def _dtype_name(tensor: Any) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    return TORCH_TYPES.get(name, name)


def _torch_load(path: Path) -> dict[str, Any]:
    import torch

    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the form from before 2020 can't be mapped
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror or error}). Check the path") from error
    except Exception as error:
        with path.open("rb") as file:
            pickled = zipfile.is_zipfile(file) or (file.seek(0) == 0 and file.read(1) == b"\x80")
        if pickled and ("weights_only" in str(error) or "Weights only" in str(error)):
            raise ConfigError(f"{path} holds more than tensors, and could run code: refused. Get the model as safetensors") from error
        raise ConfigError(f"{path} is no file of PyTorch tensors, or it is damaged ({type(error).__name__}). Get it again") from error
    tensors = isinstance(content, Mapping) and all(isinstance(v, torch.Tensor) for v in content.values())
    check(tensors, f"{path} holds something else", "it must hold tensors by name", "Get the model as safetensors")
    return dict(content)


class WeightFiles:
    """All tensors of a directory, by their own names."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Read the headers. Raises ConfigError where weights are missing, and for an index and files that do not fit: all differences."""
        directory = Path(directory)
        main = next((directory / name for name in NAMES if (directory / name).is_file()), None)
        if main is None:
            others = sorted(path.name for path in directory.glob("*") if path.suffix in OTHERS)
            found = f" (there is {', '.join(others[:4])})" if others else ""
            raise ConfigError(f"{directory} holds no weights{found}: they must be in {', '.join(NAMES)}. Get one of these too")
        self.main = main
        self.files: list[WeightFile] = []
        self._home: dict[str, WeightFile] = {}
        if main.name.endswith(INDEX):
            self._open_shards(main)
        else:
            self._add(main)
        self.entries: dict[str, Entry] = {name: file.entries[name] for name, file in self._home.items()}

    def array(self, name: str) -> Array:
        """The tensor as it is stored; bfloat16 as whole numbers of 16 bits."""
        return self._home[name].array(name)

    def release(self, name: str) -> None:
        """Give back the memory that reading the tensor has taken."""
        self._home[name].release(name)

    def _add(self, path: Path) -> WeightFile:
        file: WeightFile = SafetensorsFile(path) if path.suffix == ".safetensors" else PickledFile(path)
        self.files.append(file)
        self._home |= dict.fromkeys(file.entries, file)
        return file

    def _open_shards(self, index: Path) -> None:
        wanted = _read_index(index)
        missing = [name for name in dict.fromkeys(wanted.values()) if not (index.parent / name).is_file()]
        problems = [f"{name} is not there" for name in missing]
        files = {name: self._add(index.parent / name) for name in dict.fromkeys(wanted.values()) if name not in missing}
        problems += [f"{tensor} is not in {name}" for tensor, name in wanted.items() if name in files and tensor not in files[name].entries]
        problems += [
            f"{tensor} in {name} is not in the index" if tensor not in wanted else f"{tensor} is in {name} too"
            for name, file in files.items()
            for tensor in file.entries
            if wanted.get(tensor) != name
        ]
        if problems:
            raise ConfigError(f"{index} and its files do not fit ({len(problems)} differences): {'; '.join(problems)}. Get the files again")


def _read_index(index: Path) -> dict[str, str]:
    """Tensor → file. Raises ConfigError for anything but names of files that lie beside the index."""
    try:
        wanted = dict(json.loads(index.read_bytes())["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{index} is no index of weights ({type(error).__name__}). Get it again") from error
    for name in wanted.values():
        plain = isinstance(name, str) and name == Path(name).name and Path(name).suffix in (".safetensors", ".bin")
        check(plain, f"{index} names the file {name!r}", "weights must lie beside their index", "Get the model again")
    return wanted


if __name__ == "__main__":
    import tempfile

    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as folder:
        save_file({"a": np.ones((2, 3), np.float32)}, Path(folder) / "one.safetensors")
        save_file({"b": np.ones(4, np.float16)}, Path(folder) / "two.safetensors")
        index = Path(folder) / NAMES[1]
        index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
        print({name: (entry.dtype, entry.shape, entry.file.name) for name, entry in WeightFiles(folder).entries.items()})
        index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "c": "two.safetensors", "d": "three.safetensors"}}))
        try:
            WeightFiles(folder)
        except ConfigError as error:
            print("caught:", str(error).replace(folder, "…"))
