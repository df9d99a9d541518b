"""`tiny tokenizer extend`: more special tokens, in a tokenizer's own file or in a trained model, whose tables grow with it.

No id changes, and the logits of the old tokens stay what they were. Read before: growing.py, tokenizer_source.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from tiny_transformer.cli.screen import Screen, visible
from tiny_transformer.cli.settings import parse
from tiny_transformer.cli.tokenizer_files import check_targets, form_of, targets, write
from tiny_transformer.cli.tokenizer_source import Opened, open_tokenizer, spread
from tiny_transformer.config import check
from tiny_transformer.growing import TABLES, grow_vocabulary
from tiny_transformer.numpy_engine import checkpoint as numpy_checkpoints
from tiny_transformer.run import NUMPY_SUFFIXES
from tiny_transformer.utils import checkpoint as checkpoints

DESCRIPTION = """\
Add special tokens. Old ids stay; text without the new tokens is encoded as before.

  tiny tokenizer extend tok.json --special "<|user|>" "<|bot|>" --out more.json
  tiny tokenizer extend runs/a --special "<|user|>" --out runs/a-user.pt

A run or a checkpoint becomes a new checkpoint: its embedding and output tables get a row
for each new token, the mean of the old rows, and what it writes stays the same.
"""


@dataclass(frozen=True, kw_only=True)
class ExtendSettings:
    """What `tiny tokenizer extend` accepts."""

    tokenizer: tyro.conf.Positional[str | None] = None
    """A tokenizer's file or folder, a run, or a checkpoint."""
    special: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """The new special tokens."""
    out: str | None = None
    """The file to write."""
    format: str | None = None
    """tiny, huggingface, gpt2, tiktoken or wordpiece; default: huggingface for a tokenizer.json, else tiny."""
    overwrite: bool = False
    """Replace what is at --out; never the source itself."""
    json: bool = False
    """Print what was added as JSON."""


def main(argv: list[str]) -> int:
    """Extend, write, say so."""
    settings = parse(ExtendSettings, spread(argv, "--special"), command="tokenizer extend", description=DESCRIPTION)
    name = settings.tokenizer
    swallowed = "the tokenizer stands before the flags" if name is None and settings.special else "it needs a file, a run or a checkpoint"
    check(
        name is not None, "extend without a tokenizer", swallowed, 'Try: tiny tokenizer extend tok.json --special "<|user|>" --out new.json'
    )
    check(bool(settings.special), "no --special", "extend adds special tokens", 'Try --special "<|user|>"')
    opened = open_tokenizer(name, "extend")
    old, known = opened.tokenizer, set(getattr(opened.tokenizer, "special_tokens", ()))
    there = next((token for token in settings.special if token in known), None)
    check(there is None, f"special token {there!r}", "it is one already", "Leave it out")
    new = old.with_special_tokens(settings.special)
    in_model = opened.checkpoint is not None
    form = "checkpoint" if in_model else settings.format or form_of(opened.path)
    paths = _checkpoint_target(settings, opened.path) if in_model else targets(form, settings.out)
    check_targets(paths, overwrite=settings.overwrite, sources=[path for path in _sources(opened) if path.is_file()])
    added = {token: new.special_tokens[token] for token in settings.special}
    left_out = _save_model(opened, new, added, paths[0]) if in_model else write(new, form, paths)
    facts = {
        "tokenizer": opened.name, "added": added, "vocab_size": [old.vocab_size, new.vocab_size], "files": [str(path) for path in paths],
        "warnings": [left_out] if left_out else [],
    }  # fmt: skip
    if settings.json:
        print(json.dumps(facts))
        return 0
    screen = Screen()
    for token, i in added.items():
        screen.say(f"{visible(token)}  id {i}" + ("" if i >= old.vocab_size else ", which this text had before"))
    screen.say(f"tokens   {old.vocab_size:,} before, {new.vocab_size:,} now")
    if left_out:
        screen.warn(left_out)
    screen.say(f"written  {', '.join(map(str, paths))}", style="bold")
    return 0


def _sources(opened: Opened) -> list[Path]:
    """The files that must not be written over."""
    folder = opened.path if opened.path.is_dir() else opened.path.parent
    return [opened.path, *(folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"))]


def _checkpoint_target(settings: ExtendSettings, source: Path) -> list[Path]:
    """The new checkpoint's file. Raises ConfigError where its name does not fit the source's engine."""
    check(settings.format is None, "--format with a model", "its tokenizer travels in the checkpoint", "Leave it out")
    check(bool(settings.out), "no --out", "the checkpoint needs a file", f"Try --out new{source.suffix}")
    path = Path(settings.out or "")
    must = f"{source} is read by one engine, and the new file must end as it does"
    check(path.suffix == source.suffix, f"--out {path}", must, f"Try --out {path.with_suffix(source.suffix)}")
    return [path]


def _save_model(opened: Opened, tokenizer: Any, added: Mapping[str, int], target: Path) -> str:
    """The checkpoint with larger tables, written by its own engine. What resuming needs stays behind: it fits the old tables only."""
    old = opened.checkpoint
    config, weights = grow(old.config, old.weights, max(old.config.vocab_size, tokenizer.vocab_size))
    lineage = {**old.lineage, "parent": str(opened.path), "added_tokens": dict(added)}
    new = replace(old, config=config, weights=weights, tokenizer=tokenizer.to_dict(), lineage=lineage, training=None)
    target.parent.mkdir(parents=True, exist_ok=True)
    if opened.path.suffix in NUMPY_SUFFIXES:
        numpy_checkpoints.save(target, new)
    else:
        checkpoints.save(target, new)
    return "" if old.training is None else "the new checkpoint can write and be trained further, but training can't be resumed from it"


def grow(config: Any, weights: Mapping[str, Any], vocab_size: int) -> tuple[Any, dict[str, Any]]:
    """`growing.grow_vocabulary` for the weights of either engine: PyTorch's tables go through NumPy and come back in their own type."""
    tables: dict[str, NDArray[Any]] = {name: _to_numpy(weights[name]) for name in TABLES if name in weights}
    larger, grown = grow_vocabulary(config, tables, vocab_size)
    return larger, {**weights, **{name: _like(table, weights[name]) for name, table in grown.items()}}


def _to_numpy(table: Any) -> NDArray[Any]:
    return table if isinstance(table, np.ndarray) else table.detach().double().numpy(force=True)  # double: NumPy has no bfloat16


def _like(table: NDArray[Any], old: Any) -> Any:
    if isinstance(old, np.ndarray):
        return table
    import torch

    return torch.from_numpy(table).to(old.dtype)
