"""A model as an ONNX file: its computation and its weights, which onnxruntime and others run without PyTorch and without us.

    ids (batch, seq) int64                                     → logits (batch, seq, vocab_size) float32
    attention_mask (batch, seq) int64, 1: a token, 0: padding    where the model looks both ways
    token_types (batch, seq) int64                               where the model has them

Any batch and any length from 1 to max_seq_len; a longer text is an error there, for every kind of position. Each call computes all
positions: keys and values of earlier calls are not kept. `torch.export` records the model's readable attention (whose masks
ask no question about lengths), `torch.onnx` translates that; both need the packages onnx and onnxscript.
Left out: the way back. Read before: `model.py`.
"""

import contextlib
import copy
import importlib.util
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from tiny_transformer import __version__, attention
from tiny_transformer.config import ConfigError, ModelConfig, check
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.quantized_layers import RoundedLinear
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.utils.atomic import atomic_save, rename_durably

NEEDED = ("onnx", "onnxscript")
OPSET = 20
LARGEST_FILE = 1_800_000_000
"""Bytes of weights above which they lie in a second file, NAME.onnx.data: one ONNX file holds at most 2 GiB."""
LARGEST_TOKENIZER = 4_000_000
"""Characters of JSON up to which the tokenizer is in the file too."""
Metadata = dict[str, str]


class Exported(nn.Module):
    """The model as ONNX sees it: numbers in, numbers out, no choice left to make."""

    within: Tensor

    def __init__(self, model: TinyTransformerLM) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("within", torch.zeros(model.config.max_seq_len, dtype=torch.int64))

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None, token_types: Tensor | None = None) -> Tensor:
        """ids and the others (batch, seq) to logits (batch, seq, vocab)."""
        ids = ids + self.within[torch.arange(ids.size(1))]  # adds 0; beyond the context there is none to add, and the look-up fails
        mask = None if attention_mask is None else (attention_mask != 0)[:, None, :]  # (batch, 1, key)
        with attention.record_weights():
            logits: Tensor = self.model(ids, mask, token_types=token_types)
        return logits


def inputs_of(config: ModelConfig) -> tuple[str, ...]:
    """The names of what goes in, in order."""
    mask, types = not config.causal, config.n_token_types > 0
    return ("ids", *(("attention_mask",) if mask else ()), *(("token_types",) if types else ()))


def write_onnx(model: TinyTransformerLM, path: str | os.PathLike[str], tokenizer: Tokenizer | None = None) -> list[Path]:
    """Write the model in float32; the files that were written, the .onnx first. They are there whole or not at all.

    The file's metadata hold the config and, where it is not too long, the tokenizer, as JSON (`metadata_of`). The model itself is left
    alone. Raises ConfigError where a package is missing, and for a model whose weights are in few bits.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    check(not missing, f"ONNX needs the package {' and '.join(missing)}", "it is not installed", f"Try: pip install {' '.join(missing)}")
    rounded = any(isinstance(layer, RoundedLinear) for layer in model.modules())
    check(not rounded, "a model with weights in few bits", "ONNX gets float32", "Export the model that it was made from")
    program = _translate(model)
    program.model.metadata_props.update(metadata_of(model.config, tokenizer))
    path = Path(path)
    if 4 * model.config.n_parameters <= LARGEST_FILE:
        data = program.model_proto.SerializeToString()

        def write(file: BinaryIO) -> None:
            file.write(data)

        atomic_save(path, write)
        return [path]
    return _write_two(program, path)


def metadata_of(config: ModelConfig, tokenizer: Tokenizer | None) -> Metadata:
    """What the file says about itself: name → text. The config and the tokenizer are the JSON of their `to_dict`."""
    said = {"producer": f"tiny-transformer {__version__}", "config": json.dumps(config.to_dict())}
    text = "" if tokenizer is None else json.dumps(tokenizer.to_dict(), ensure_ascii=False)
    return said | ({"tokenizer": text} if 0 < len(text) <= LARGEST_TOKENIZER else {})


def _translate(model: TinyTransformerLM) -> Any:
    """The model as an ONNX program."""
    config = model.config
    exported = Exported(copy.deepcopy(model).float().cpu()).eval()
    names = inputs_of(config)
    example = torch.zeros(2, min(3, config.max_seq_len), dtype=torch.int64)
    batch = torch.export.Dim("batch", min=1)
    length = torch.export.Dim("seq", min=1, max=config.max_seq_len) if config.max_seq_len > 1 else None
    values = {name: torch.full_like(example, int(name == "attention_mask")) for name in names}  # one each: the same one twice would be one
    with torch.no_grad(), _quietly():
        recorded = torch.export.export(
            exported,
            (),
            kwargs=values,
            dynamic_shapes={name: {0: batch, **({1: length} if length else {})} for name in names},
            strict=False,
        )
        program = torch.onnx.export(
            recorded, dynamo=True, opset_version=OPSET, input_names=list(names), output_names=["logits"], verbose=False
        )
    _name_dimensions(program)
    return program


def _name_dimensions(program: Any) -> None:
    """Call the free sizes batch and seq."""
    for value in (*program.model.graph.inputs, *program.model.graph.outputs):
        for place, name in enumerate(("batch", "seq")):
            if not isinstance(value.shape[place], int):
                value.shape[place] = name


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's remarks about packages that nobody needs here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _write_two(program: Any, path: Path) -> list[Path]:
    """A file with the computation and one with the weights, which gets its name first."""
    import onnx_ir

    data = path.with_name(path.name + ".data")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made = Path(folder) / path.name
        onnx_ir.save(program.model, made, external_data=data.name)
        for written, target in ((made.with_name(data.name), data), (made, path)):
            with written.open("rb") as file:
                os.fsync(file.fileno())
            rename_durably(written, target)
    return [path, data]


if __name__ == "__main__":
    small = TinyTransformerLM(ModelConfig(d_model=32, n_layers=1, position="rotary"), seed=0).eval()
    with tempfile.TemporaryDirectory() as folder:
        try:
            (written,) = write_onnx(small, Path(folder) / "small.onnx")
            import onnxruntime

            session = onnxruntime.InferenceSession(written)
            ids = torch.arange(20).view(2, 10)
            (logits,) = session.run(None, {"ids": ids.numpy()})
            print(
                f"{written.stat().st_size:,} bytes, logits {logits.shape}, off by {(torch.from_numpy(logits) - small(ids)).abs().max():.1e}"
            )
        except (ConfigError, ModuleNotFoundError) as error:
            print("caught:", error)
