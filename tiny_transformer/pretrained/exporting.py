"""Our model as a Hugging Face directory: `export_pretrained(model, tokenizer, directory)`, the inverse of `load_pretrained`.

    config.json                 the architecture in a family's words, and the ids of the special tokens; written last
    generation_config.json      where a text ends
    model.safetensors           the weights under the family's names; several files and an index where one would be too large
    tokenizer.json  tokenizer_config.json  (chat_template.jinja, vocab.json and merges.txt, vocab.txt)

A directory without config.json opens nowhere, so what was cut off in the middle is never taken for a model.
Read before: `expressing.py`, `utils/safetensors_writing.py`, `tokenizer_writing.py`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import torch

from tiny_transformer.config import ConfigError, ModelConfig, check, check_choice
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.pretrained.chat_template import ChatTemplate
from tiny_transformer.pretrained.expressing import Expression, express
from tiny_transformer.pretrained.family import OWN, Family
from tiny_transformer.pretrained.names import Rule, rules_of
from tiny_transformer.pretrained.outgoing_model import Model
from tiny_transformer.pretrained.tokenizer_writing import Special, misread_by, special_of, tokenizer_files
from tiny_transformer.pretrained.weight_files import TORCH_TYPES
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.utils.atomic import atomic_save
from tiny_transformer.utils.safetensors_file import Array
from tiny_transformer.utils.safetensors_writing import Outgoing, write_files

SHARD_SIZE = 5 * 10**9
"""The most bytes of numbers in one file, unless asked otherwise."""
MOST_SPARE = 4096
"""Rows without a token are listed up to this many: vocabularies are rounded up by fewer."""
TYPES = {name: TORCH_TYPES[name] for name in ("float32", "float16", "bfloat16", "float64")}
"""PyTorch's names of the types, and the files'."""


def export_pretrained(
    model: TinyTransformerLM,
    tokenizer: Tokenizer | None,
    directory: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    shard_size: int | None = None,
    chat_template: ChatTemplate | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write a Hugging Face directory that transformers opens, with the same logits, and `load_pretrained` too. Gives the files.

    `dtype` is float32, float16 or bfloat16; None: as the model has them. No file of weights holds more than `shard_size` bytes of
    numbers (default 5 GB). A directory that holds anything is refused; with `overwrite` it is kept under another name.
    Raises ConfigError in one line for a model that no family can express, naming the settings, and for a tokenizer that its format
    cannot express; then nothing is written.
    """
    out = Model(model.config, model.weights(), tokenizer, chat_template)
    return write_directory(out, directory, dtype, shard_size, overwrite=overwrite)[1]


def write_directory(
    model: Model, directory: str | os.PathLike[str], dtype: str | None = None, shard_size: int | None = None, *, overwrite: bool = False
) -> tuple[Family, list[Path], list[str]]:
    """`export_pretrained`, for weights without a model around them. Gives the family, the files, and what a person should know."""
    expression = express(model.config, avoid=misread_by(model.tokenizer))
    dtype = dtype or str(model.weights["embeddings.token.weight"].dtype).removeprefix("torch.")
    most = SHARD_SIZE if shard_size is None else shard_size
    check_choice("dtype", dtype, tuple(TYPES))
    check(most >= 1, f"shard_size={most}", "it must be at least 1 byte", "Try 5GB")
    _check_parts(model)
    special = special_of(model.tokenizer, model.chat_template)
    beside = tokenizer_files(model.tokenizer, model.chat_template, special, expression.family.name, model.config.max_seq_len)
    beside |= config_files(expression, model, special, dtype)  # config.json is the last one
    folder, aside = Path(directory), _prepare(Path(directory), overwrite=overwrite)
    new, made = not folder.exists(), list[Path]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in write_files(folder, list(outgoing(expression, model)), TYPES[dtype], most):
            made.append(path)
        for name, content in beside.items():
            atomic_save(folder / name, partial(_write, content))
            made.append(folder / name)
    except BaseException:
        _undo(made, folder if new else None, aside, folder)
        raise
    kept = [] if aside is None else [f"what was at {folder} is now {aside}"]
    misread = expression.family.name in misread_by(model.tokenizer)
    said = [f"AutoTokenizer cuts text as {expression.family.title}'s does; take PreTrainedTokenizerFast instead"] if misread else []
    return expression.family, made, [*expression.notes, *said, *kept]


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _check_parts(model: Model) -> None:
    """Raise ConfigError unless config, weights and tokenizer belong together."""
    shapes = weight_shapes(model.config)
    found = {name: tuple(weight.shape) for name, weight in model.weights.items()}
    odd = [name for name in {**shapes, **found} if found.get(name) != shapes.get(name)]
    remedy = "Save the model again"
    check(not odd, f"{', '.join(odd)} missing, unexpected or misshapen", "config and weights must be one model's", remedy)
    rows, tokens = model.config.vocab_size, 0 if model.tokenizer is None else model.tokenizer.vocab_size
    got = f"the tokenizer has {tokens} tokens and the model vocab_size={rows}"
    check(tokens <= rows, got, "every token must have a place in the model", "Pass the model's own tokenizer")


def outgoing(expression: Expression, model: Model) -> Iterator[Outgoing]:
    """The family's tensors in the order of its table: ours joined and turned, with 0 for biases that the model lacks."""
    family, shapes = expression.family, weight_shapes(expression.config)
    rules = rules_of(family.table, expression.config)
    by_name = {rule.theirs: rule for rule in rules}
    # Where nothing is tied, what would be a copy has a name of its own, and must be there.
    copies = {} if expression.config.tie_weights else {name: by_name[o] for name, o in family.again.items() if name not in by_name}
    for name, rule in {**by_name, **copies}.items():
        yield Outgoing(name, rule.their_shape(shapes), partial(_joined, rule, model, shapes))


def _joined(rule: Rule, model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Array:
    return rule.join({name: model.array(name, shapes[name]) for name in rule.ours})


def config_files(expression: Expression, model: Model, special: Special, dtype: str) -> dict[str, bytes]:
    """config.json, and before it what concerns writing only. A token that is not there is said to be none: their defaults are ids.

    Rows that stand for no token are never written here, so they are not there either (`suppress_tokens`).
    """
    ids: dict[str, Any] = {f"{role}_token_id": special.ids.get(role) for role in ("bos", "eos", "pad")}
    files: dict[str, Any] = {}
    if expression.config.causal:
        spare = [] if model.tokenizer is None else [*range(model.tokenizer.vocab_size, model.config.vocab_size)]
        files["generation_config.json"] = ids | ({"suppress_tokens": spare} if 0 < len(spare) <= MOST_SPARE else {})
    files["config.json"] = {**expression.values, **ids, "dtype": dtype, "torch_dtype": dtype, OWN: model.config.to_dict()}
    return {name: json.dumps(values, indent=2).encode() + b"\n" for name, values in files.items()}


def _prepare(folder: Path, *, overwrite: bool) -> Path | None:
    """Room for a directory; where one that is there was moved to. Raises ConfigError where something is in the way."""
    check(not folder.exists() or folder.is_dir(), f"{folder} is a file", "a folder is to be written", "Choose another place")
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    remedy = "Choose another place, or add --overwrite to keep this one under another name"
    check(overwrite, f"{folder} is not empty", "nothing is overwritten unasked", remedy)
    folder = folder.resolve()
    aside = next(place for number in count(1) if not (place := folder.with_name(f"{folder.name}-{number}")).exists())
    folder.rename(aside)
    return aside


def _undo(made: list[Path], new: Path | None, aside: Path | None, folder: Path) -> None:
    """Take away the files that were written, and the folder where it is `new`; put back what was there."""
    with suppress(OSError):
        for file in made:
            file.unlink()
        if new is not None:
            new.rmdir()
    if aside is not None:
        with suppress(OSError):
            aside.rename(folder)


if __name__ == "__main__":
    import tempfile

    from tiny_transformer.pretrained.loading import load_pretrained

    config = ModelConfig(vocab_size=50, max_seq_len=16, d_model=32, n_layers=2, bias="none")
    ours = TinyTransformerLM(config, seed=1).eval()
    with tempfile.TemporaryDirectory() as folder:
        for path in export_pretrained(ours, None, folder):
            print(f"{path.name:24} {path.stat().st_size:8,} bytes")
        again, _ = load_pretrained(folder)
    ids = torch.arange(10)[None]
    print("there and back, the same logits:", torch.equal(again(ids), ours(ids)))
    try:
        export_pretrained(TinyTransformerLM(ModelConfig(logit_softcap=15.0), seed=0), None, "nowhere")
    except ConfigError as error:
        print("caught:", error)
