"""`tiny export`: a trained model for other programs. Read before: pretrained/formats.py."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tiny_transformer.cli.screen import Screen
from tiny_transformer.cli.settings import parse
from tiny_transformer.config import check

if TYPE_CHECKING:
    from tiny_transformer.pretrained.formats import Material, Written
    from tiny_transformer.utils.checkpoint import Checkpoint

DESCRIPTION = """\
Write a trained model for other programs. RUN is a run, a checkpoint file, `pocket` or a
Hugging Face directory; DIR is the folder to make. `tiny export --list` shows the formats.

  tiny export checkpoints/shakespeare out/shakespeare                    for transformers
  tiny export checkpoints/shakespeare out/shakespeare --dtype bfloat16
  tiny export checkpoints/shakespeare shakespeare.npz --format npz
  tiny export checkpoints/shakespeare shakespeare.onnx --format onnx
  tiny export checkpoints/llama llama.gguf --format gguf --dtype q8_0
"""


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What `tiny export` accepts."""

    run: tyro.conf.Positional[str | None] = None
    """A run, a checkpoint file, `pocket`, or a Hugging Face directory."""
    dir: tyro.conf.Positional[str | None] = None
    """The folder to write; for a format of one file its name will do too, if it ends like the format."""
    format: str = "hf"
    """The form to write: hf, safetensors, npz and others (see --list)."""
    dtype: str | None = None
    """float32, float16 or bfloat16, where the format has it, and q8_0 (eight bits) for gguf; default: as the model has them."""
    shard_size: str | None = None
    """hf: the most bytes in one file of weights, such as 5GB or 500MB; default: 5GB."""
    tokenizer: bool = True
    """Write the tokenizer too; --no-tokenizer leaves it out, for one that the format cannot express."""
    overwrite: bool = False
    """Replace what is there: a folder is kept under another name, a file is replaced when the new one is complete."""
    list: bool = False
    """List the formats."""


def main(argv: list[str]) -> int:
    """Read the model, write it, say what was written and how to open it."""
    settings = parse(ExportSettings, argv, command="export", description=DESCRIPTION)
    from tiny_transformer.pretrained import formats

    screen = Screen()
    if settings.list:
        for name, form in formats.FORMATS.items():
            screen.say(f"{name:12} {form.title} ({', '.join(form.dtypes)})")
        return 0
    check(settings.run is not None, "no model named", "a run or a checkpoint is needed", "Try: tiny export RUN DIR")
    check(settings.dir is not None, "no place named", "a folder to write is needed", "Try: tiny export RUN DIR")
    wishes = formats.Wishes(settings.dtype, _bytes(settings.shard_size), settings.tokenizer, settings.overwrite)
    formats.check_wishes(settings.format, wishes)  # before a large model is read
    material = read(str(settings.run))
    written = formats.write(settings.format, material, Path(str(settings.dir)), wishes)
    for line in report(settings.format, str(settings.dir), material, written):
        screen.say(line)
    return 0


def read(name: str) -> "Material":
    """The model that a word on the command line means: what every command reads, or a Hugging Face directory."""
    from tiny_transformer.cli.import_model import others_directory
    from tiny_transformer.pretrained.formats import Material
    from tiny_transformer.run import expanded, resolve
    from tiny_transformer.run import read as read_file

    theirs = others_directory(name)
    return Material(expanded(read_file(resolve(name))) if theirs is None else _foreign(theirs))


def _foreign(folder: Path) -> "Checkpoint":
    """A Hugging Face directory as a checkpoint."""
    from tiny_transformer.pretrained.accounting import open_source
    from tiny_transformer.pretrained.loading import build
    from tiny_transformer.pretrained.tokenizer_files import read_chat_template, read_tokenizer
    from tiny_transformer.utils.checkpoint import Checkpoint

    source = open_source(folder)
    tokenizer, template = read_tokenizer(folder, source.family.name, source.config.vocab_size), read_chat_template(folder)
    lineage = {} if template is None else {"chat_template": template.to_dict()}
    return Checkpoint(source.config, None if tokenizer is None else tokenizer.to_dict(), build(source).weights(), lineage=lineage)


def report(name: str, place: str, material: "Material", written: "Written") -> list[str]:
    """What was written, in a few lines."""
    from tiny_transformer.pretrained.formats import FORMATS

    config, form = material.checkpoint.config, FORMATS[name]
    head = f"model      {config.n_parameters:,} parameters"
    lines = [head + (f", as {written.family}" if written.family else "")]
    width = max(len(file.name) for file in written.files)
    lines += [f"file       {file.name:{width}} {file.stat().st_size:15,} bytes" for file in written.files]
    if material.tokenizer is None:
        lines.append("tokenizer  none in the checkpoint")
    lines += [f"note       {note}" for note in written.notes]
    path = place if form.suffix is None else str(written.files[0])
    opens = form.opens if config.causal else form.opens.replace("ForCausalLM", "ForMaskedLM")
    return [*lines, "Open it:   " + opens.replace("{path}", path)]


UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def _bytes(text: str | None) -> int | None:
    """A number of bytes from a word such as 500MB."""
    if text is None:
        return None
    parts = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]?B)?", text.strip(), re.IGNORECASE)
    unit = (parts[2] or "").upper() if parts else ""
    size = int(float(parts[1]) * UNITS[unit if unit != "B" else ""]) if parts else 0
    check(size >= 1, f"shard_size={text!r}", "it must be a size such as 5GB or 500MB", "Try --shard-size 5GB")
    return size
