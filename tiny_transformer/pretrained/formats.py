"""The forms in which a model goes out: one table, a row for each, and what any of them is given.

Other programs' forms live in files of their own, which are loaded when their row is chosen. A new form is a function here and a row
below. Left out: the command (`cli/export_model.py`). Read before: `exporting.py`.
"""

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tiny_transformer.config import ConfigError, check, check_choice
from tiny_transformer.pretrained.chat_template import ChatTemplate
from tiny_transformer.run import tokenizer_of
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.utils.checkpoint import Checkpoint

if TYPE_CHECKING:
    from tiny_transformer.model import TinyTransformerLM


@dataclass
class Material:
    """What there is to write: a checkpoint, and from it the tokenizer, the chat template and, when it is asked for, the model."""

    checkpoint: Checkpoint

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The checkpoint's own."""
        return tokenizer_of(self.checkpoint)

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The one that was kept when the model came in."""
        values = self.checkpoint.lineage.get("chat_template")
        return None if values is None else ChatTemplate.from_dict(values)

    @cached_property
    def model(self) -> "TinyTransformerLM":
        """In evaluation mode, on the CPU."""
        from tiny_transformer.run import build

        return build(self.checkpoint)[0]


@dataclass(frozen=True)
class Wishes:
    """What may be asked of a form; each takes what concerns it."""

    dtype: str | None = None
    """float32, float16, bfloat16 or a form's own; None: as the model has them."""
    shard_size: int | None = None
    """The most bytes of numbers in one file, for a form of several; None: 5 GB."""
    tokenizer: bool = True
    """Whether the tokenizer goes along."""
    overwrite: bool = False
    """Whether what is in the way may be put aside."""


@dataclass(frozen=True)
class Written:
    """What was written."""

    files: list[Path]
    notes: list[str] = field(default_factory=list)
    """What a person should know, one line each."""
    family: str | None = None
    """The family's title, where a form has families."""


@dataclass(frozen=True)
class Format:
    """A form in which a model goes out."""

    title: str
    write: Callable[[Material, Path, Wishes], Written]
    """Writes to a path: a directory's where `suffix` is None, else a file's."""
    suffix: str | None
    """Of its one file; None where it is a directory."""
    opens: str
    """A line of Python that opens it; {path} stands for the path."""
    dtypes: tuple[str, ...] = ("float32",)
    """What its numbers can be."""
    shards: bool = False
    """Whether it can be several files."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Modules beyond our dependencies → how pip calls them."""


def _hugging_face(material: Material, path: Path, wishes: Wishes) -> Written:
    from tiny_transformer.pretrained.exporting import write_directory
    from tiny_transformer.pretrained.outgoing_model import Model

    one = material.checkpoint
    model = Model(one.config, one.weights, material.tokenizer if wishes.tokenizer else None, material.chat_template)
    family, files, notes = write_directory(model, path, wishes.dtype, wishes.shard_size, overwrite=wishes.overwrite)
    return Written(files, notes, family.title)


def _one_file(material: Material, path: Path, wishes: Wishes) -> Written:
    from tiny_transformer.pretrained.own_files import write_file

    return Written([path], write_file(material.checkpoint, path, wishes.dtype, tokenizer=wishes.tokenizer))


def _onnx(material: Material, path: Path, wishes: Wishes) -> Written:
    from tiny_transformer.pretrained.onnx_file import LARGEST_TOKENIZER, metadata_of, write_onnx

    tokenizer = material.tokenizer if wishes.tokenizer else None
    files = write_onnx(material.model, path, tokenizer)
    large = tokenizer is not None and "tokenizer" not in metadata_of(material.checkpoint.config, tokenizer)
    return Written(files, [f"the tokenizer's JSON is longer than {LARGEST_TOKENIZER:,} characters, and not in the file"] if large else [])


def _gguf(material: Material, path: Path, wishes: Wishes) -> Written:
    from tiny_transformer.pretrained.gguf_file import DTYPES, write_model
    from tiny_transformer.pretrained.outgoing_model import Model

    one = material.checkpoint
    stored = str(one.weights["embeddings.token.weight"].dtype).removeprefix("torch.")
    dtype = wishes.dtype or (stored if stored in DTYPES else "float32")
    words, template = (material.tokenizer, material.chat_template) if wishes.tokenizer else (None, None)
    family, notes = write_model(Model(one.config, one.weights, words, template, path.stem), path, dtype)
    return Written([path], notes, f"GGUF's {family}")


ALL_TYPES = ("float32", "float16", "bfloat16")

FORMATS: dict[str, Format] = {
    "hf": Format(
        "a Hugging Face directory, which transformers opens", _hugging_face, None,
        'transformers.AutoModelForCausalLM.from_pretrained("{path}")', ALL_TYPES, shards=True,
    ),
    "safetensors": Format(
        "one file of ours, config and tokenizer in it", _one_file, ".safetensors",
        'tiny_transformer.run.load("{path}")', ALL_TYPES,
    ),
    "npz": Format(
        "arrays by name for NumPy, config and tokenizer among them", _one_file, ".npz",
        'numpy.load("{path}")', ("float32", "float16"),
    ),
    "onnx": Format(
        "ONNX for onnxruntime and others: ids in, logits out, any batch and length", _onnx, ".onnx",
        'onnxruntime.InferenceSession("{path}")', needs={"onnx": "onnx", "onnxscript": "onnxscript"},
    ),
    "gguf": Format(
        "GGUF for llama.cpp and others: architectures gpt2, llama, qwen2, qwen3, bert", _gguf, ".gguf",
        'tiny_transformer.pretrained.load_pretrained("{path}")', (*ALL_TYPES, "q8_0"),
    ),
}  # fmt: skip
"""Every form, by the name that `--format` takes."""


def check_wishes(name: str, wishes: Wishes) -> Format:
    """The form called `name`. Raises ConfigError for an unknown one, for what it can't do, and where a package is missing."""
    check_choice("format", name, tuple(FORMATS))
    form = FORMATS[name]
    known = wishes.dtype is None or wishes.dtype in form.dtypes
    check(known, f"dtype={wishes.dtype!r} with format={name!r}", f"its numbers can be {', '.join(form.dtypes)}", "Pick one of these")
    check(wishes.shard_size is None or form.shards, f"shard_size with format={name!r}", "it is one file", "Leave it out")
    missing = [pip for module, pip in form.needs.items() if importlib.util.find_spec(module) is None]
    if missing:
        packages = "package" if len(missing) == 1 else "packages"
        raise ConfigError(f"format={name!r} needs the {packages} {', '.join(missing)}: not installed. Try: pip install {' '.join(missing)}")
    return form


def write(name: str, material: Material, path: Path, wishes: Wishes) -> Written:
    """Write a model in a form. A path without the form's suffix means a directory, and the file in it is called model.SUFFIX.

    Raises ConfigError in one line: for an unknown form, a package that is missing, what the form can't do, and where something is in
    the way. What was there before is there still.
    """
    form = check_wishes(name, wishes)
    if form.suffix is None:
        return form.write(material, path, wishes)
    file = file_for(path, form.suffix)
    check_free(file, overwrite=wishes.overwrite)
    new_folder = not file.parent.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        return form.write(material, file, wishes)
    except BaseException:
        if new_folder:
            with suppress(OSError):
                file.parent.rmdir()
        raise


def file_for(path: Path, suffix: str) -> Path:
    """The file that a path means."""
    return path if path.suffix == suffix and not path.is_dir() else path / f"model{suffix}"


def check_free(file: Path, *, overwrite: bool) -> None:
    """Raise ConfigError where the file is there already, unless it may be replaced."""
    free = overwrite or not file.exists()
    check(free, f"{file} is there already", "nothing is overwritten unasked", "Choose another place, or add --overwrite")
    check(not file.is_dir(), f"{file} is a folder", "a file of this name is to be written", "Choose another place")
    check(not file.parent.exists() or file.parent.is_dir(), f"{file.parent} is a file", "it must be a folder", "Choose another place")


if __name__ == "__main__":
    for name, form in FORMATS.items():
        print(f"{name:12} {form.title}; {', '.join(form.dtypes)}; opens with {form.opens}")
    try:
        check_wishes("docx", Wishes())
    except ConfigError as error:
        print("caught:", error)
