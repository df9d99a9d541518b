"""`tiny inspect`: what is in a checkpoint or a model's directory. Read before: pretrained/summary.py."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import tyro

from tiny_transformer.cli.screen import Screen, table
from tiny_transformer.cli.settings import parse
from tiny_transformer.config import ModelConfig, check
from tiny_transformer.numpy_engine.checkpoint import QUANTIZED

if TYPE_CHECKING:
    from tiny_transformer.pretrained.summary import Summary

DESCRIPTION = """\
What is in a checkpoint, a run, a Hugging Face directory, a .gguf or a .safetensors file:
the architecture, how many parameters each part has, names, types and shapes, SHA-256,
tokenizer, and the memory it needs. No model is built.

  tiny inspect checkpoints/demo
  tiny inspect path/to/directory --all
  tiny inspect checkpoints/demo/best.pt --json
"""


@dataclass(frozen=True, kw_only=True)
class InspectSettings:
    """What `tiny inspect` accepts."""

    path: tyro.conf.Positional[str | None] = None
    """A checkpoint or .gguf file, a run, a directory with config.json and weights, or a downloaded model's name."""
    all: bool = False
    """List every tensor; otherwise those of the blocks are shown once, with N for the block's number."""
    json: bool = False
    """Print everything as JSON."""


def main(argv: list[str]) -> int:
    """Look and show."""
    settings = parse(InspectSettings, argv, command="inspect", description=DESCRIPTION)
    check(settings.path is not None, "no path named", "a checkpoint, a run or a directory is needed", "Try: tiny inspect checkpoints/demo")
    from tiny_transformer.cli.import_model import others_directory
    from tiny_transformer.pretrained.summary import summarize

    found = summarize(others_directory(str(settings.path)) or str(settings.path))
    if settings.json:
        print(json.dumps(found.to_dict()))
        return 0
    screen = Screen()
    _show_facts(screen, found)
    _show_parts(screen, found)
    _show_tensors(screen, found, every=settings.all)
    return 0


def _show_facts(screen: Screen, found: "Summary") -> None:
    screen.say(f"{found.path}: {found.kind}", style="bold")
    for file in found.files:
        screen.say(f"file       {file.name}, {file.size:,} bytes, SHA-256 {file.sha256}")
    if found.config is not None:
        screen.say(f"config     {changed(found.config)}")
    screen.say(f"tokenizer  {found.tokenizer or 'none'}")
    if "step" in found.more:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in found.more["metrics"].items() if isinstance(value, int | float))
        screen.say(f"training   step {found.more['step']:,}{', ' + metrics if metrics else ''}"
                   f"{', can go on (--resume)' if found.more['can_resume'] else ''}")
    for line in origins(found.more.get("lineage", {})):
        screen.say(f"origin     {line}")
    for note in found.notes:
        screen.say(f"note       {note}")


def origins(lineage: Mapping[str, Any]) -> list[str]:
    """Where a checkpoint comes from, the last step last; files with their digests, so that nobody need believe a path."""
    said = []
    if lineage.get("corpus"):
        recipe = f" by the recipe {lineage['recipe']}" if lineage.get("recipe") else ""
        said.append(f"trained on {lineage['corpus']}{recipe}")
    if lineage.get("imported_from"):
        said.append(f"imported from {lineage['imported_from']} ({lineage.get('family')}){_digests(lineage)}")
    if lineage.get("parent"):
        said.append(f"made from {lineage['parent']}")
    if lineage.get(QUANTIZED):
        made = lineage[QUANTIZED]
        said.append(f"rounded to {made.get('bits')} bits from {made.get('from')}{_digests(made)}")
    return said


def _digests(made: Mapping[str, Any]) -> str:
    """Of one file; those of several are many words, and `--json` has them."""
    files = made.get("sha256", {})
    if len(files) > 1:
        return f", {len(files)} files"
    return "".join(f", {name} SHA-256 {digest[:16]}…" for name, digest in files.items())


def changed(config: ModelConfig) -> str:
    """The sizes, and every other setting that is not the default."""
    sizes = ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads")
    said = [f"{field.name} {getattr(config, field.name)}" for field in fields(config) if field.name in sizes
            or getattr(config, field.name) != field.default]  # fmt: skip
    return ", ".join(said)


def _show_parts(screen: Screen, found: "Summary") -> None:
    if not found.parts:
        return
    total = sum(found.parts.values())
    made = table("part", "parameters", "share")
    for part, count in found.parts.items():
        made.add_row(part, f"{count:,}", f"{count / total:.1%}")
    made.add_row("all", f"{total:,}", "", style="bold")
    screen.say(made)
    weights, cache, training = (_gib(found.memory[what]) for what in ("weights", "keys and values", "training"))
    screen.say(f"memory in float32: weights {weights}, a whole context of keys and values {cache}, training on one text {training}")


def _gib(size: float) -> str:
    """Small models in MiB: 0.00 GiB says nothing."""
    return f"{size:.2f} GiB" if size >= 0.1 or size == 0 else f"{1024 * size:.2f} MiB"


def _show_tensors(screen: Screen, found: "Summary", *, every: bool) -> None:
    from tiny_transformer.pretrained.summary import alike

    if every:
        made = table("tensor", "type", "shape", "here")
        for tensor in found.tensors:
            made.add_row(tensor.name, tensor.dtype, _shape(tensor.shape), tensor.ours or "")
    else:
        made = table("tensor", "type", "shape", "how many")
        for (name, dtype, shape), count in alike(found.tensors).items():
            made.add_row(name, dtype, _shape(shape), f"{count:,}")
    screen.say(made)


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "one number"
