"""What `tiny quantize` does: find the model and a text, measure, round, measure again, write the run.

A run is read whole; a Hugging Face directory tensor by tensor, and where there is a text to measure on it is read twice.
Read before: quantized_layers.py, pretrained/loading.py, evaluation/{rounding_errors,validation_loss}.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer import run as runs
from tiny_transformer.cli import data_source
from tiny_transformer.cli.import_model import others_directory, provenance
from tiny_transformer.cli.texts import validation_text
from tiny_transformer.config import ModelConfig, check
from tiny_transformer.corpora.transfer import sha256
from tiny_transformer.evaluation.rounding_errors import RoundingErrors
from tiny_transformer.evaluation.validation_loss import Measured, mean_of_clusters, sums_in_windows
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.numpy_engine.checkpoint import QUANTIZED
from tiny_transformer.pretrained import loading
from tiny_transformer.pretrained.accounting import Source, open_source
from tiny_transformer.pretrained.tokenizer_files import read_chat_template, read_tokenizer
from tiny_transformer.quantized_layers import assemble, linear_weights, round_each, rounded_weights
from tiny_transformer.rounded_weights import Rounding
from tiny_transformer.run import Run, resolve, tokenizer_of
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.unfilled import without_memory
from tiny_transformer.utils.checkpoint import Checkpoint


@dataclass(frozen=True)
class Losses:
    """The loss on one text, in windows."""

    text: str
    before: Measured
    after: Measured
    difference: Measured
    """After less before, window by window: its error is far smaller than either's."""


@dataclass(frozen=True)
class Done:
    """What was made, and what it costs."""

    path: Path
    rounding: Rounding
    errors: RoundingErrors
    file_bytes: tuple[int, int]
    """Before and after."""
    memory_bytes: tuple[int, int]
    """Of all weights: in float32, and as they are now."""
    left_alone: int
    """Bytes of what was not rounded."""
    loss: Losses | None
    note: str | None
    """Why there is no loss."""
    writes: bool
    """Whether it can be let write."""


@dataclass
class Found:
    """A model that can be rounded: a checkpoint of ours, or a directory of others."""

    name: str
    config: ModelConfig
    tokenizer: Tokenizer | None
    files: list[Path]
    lineage: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    source: Source | None = None

    def whole(self) -> TinyTransformerLM:
        """As it is, in float32."""
        if self.source is not None:
            return loading.build(self.source)
        assert self.checkpoint is not None
        return runs.build(self.checkpoint)[0]

    def rounded(self, rounding: Rounding, errors: RoundingErrors) -> TinyTransformerLM:
        """Rounded; what it was is given up on the way."""
        if self.source is not None:
            return loading.build(self.source, rounding=rounding, seen=errors.add)
        assert self.checkpoint is not None
        weights = self.checkpoint.weights
        each = ((name, weights.pop(name).float()) for name in list(weights))
        names = rounding.chosen(linear_weights(without_memory(self.config)))
        return assemble(self.config, *round_each(each, names, rounding, errors.add))


def quantize(name: str, target: Path, rounding: Rounding, text: str | None, most: int) -> Done:
    """Round the model called `name` into a run at `target`. Nothing is written before all else has worked.

    Raises ValueError in one line where there is no such model, where it is rounded already, and for a text that can't be used.
    """
    found = look_for(name)
    rounding.chosen(linear_weights(without_memory(found.config)))  # before anything slow
    ids, title, note = _ids(found, text, most)
    before = None if ids is None else sums_in_windows(found.whole(), ids)
    errors = RoundingErrors()
    model = found.rounded(rounding, errors)
    loss = None
    if ids is not None and before is not None:
        after = sums_in_windows(model, ids)
        difference = mean_of_clusters(after[0] - before[0], before[1])
        loss = Losses(title, mean_of_clusters(*before), mean_of_clusters(*after), difference)
    file = _write(found, model, target, rounding)
    plain = sum(weight.nbytes for weight in model.weights().values())
    small = sum(matrix.nbytes for _, matrix in rounded_weights(model))
    sizes = sum(path.stat().st_size for path in found.files), file.stat().st_size
    writes = found.tokenizer is not None and found.config.causal
    return Done(target, rounding, errors, sizes, (4 * found.config.n_parameters, plain + small), plain, loss, note, writes)


def look_for(name: str) -> Found:
    """The model that a word on the command line means. Raises ValueError where there is none, or one that is rounded already."""
    path, directory = Path(name), others_directory(name)
    if directory is not None:
        return _theirs(directory)
    check(path.suffix != ".gguf" or path.is_dir(), f"{path} is a GGUF file", "it must be a run first", f"Try: tiny import {path} RUN")
    file = resolve(path)
    checkpoint = runs.read(file)
    done = checkpoint.lineage.get(QUANTIZED, {})
    check(not done, f"{file} is in {done.get('bits')} bits already", "rounding twice only loses more", _parent(done))
    record = _record_beside(file)
    return Found(name, checkpoint.config, tokenizer_of(checkpoint), [file], checkpoint.lineage, record, checkpoint)


def _parent(done: Mapping[str, Any]) -> str:
    return f"Take what it was made from: {done.get('from', 'the run it was made from')}"


def _record_beside(file: Path) -> dict[str, Any]:
    try:
        return {key: value for key, value in Run.open(file.parent).record.items() if key != "environment"}
    except (ValueError, OSError):
        return {}


def _theirs(directory: Path) -> Found:
    source = open_source(directory)
    tokenizer = read_tokenizer(directory, source.family.name, source.config.vocab_size)
    files = sorted({entry.file for entry in source.files.entries.values()})
    origin = {"imported_from": str(source.directory.resolve()), "family": source.family.name}
    record, lineage = provenance(origin, files, source.config, read_chat_template(directory))
    return Found(str(directory), source.config, tokenizer, files, lineage, record, source=source)


def _ids(found: Found, text: str | None, most: int) -> tuple[NDArray[np.int32] | None, str, str | None]:
    """The ids to measure on, what they are, and why there are none. Raises ConfigError for an asked-for text that can't be used."""
    needed = found.config.max_seq_len + 2  # two windows: one alone has no standard error
    if text is not None:
        check(found.tokenizer is not None, f"--text with {found.name}", "it holds no tokenizer to read it with", "Leave --text out")
        check(found.config.causal, f"--text with {found.name}", "it fills gaps and predicts no next token", "Leave --text out")
    elif found.tokenizer is None or not found.config.causal:
        return None, "", "the loss was not measured: " + ("it has no tokenizer" if found.tokenizer is None else "it predicts no next token")
    assert found.tokenizer is not None
    own = validation_text(found.record) if text is None else None
    if text is None and own is None:
        return None, "", "the loss was not measured: its validation text can't be had here. Name one with --text FILE"
    content, title = (own, "its validation text") if own is not None else (data_source.read(text, "quantize").text, text or "")
    try:
        ids = found.tokenizer.encode_array(_beginning(content or "", most))[:most]
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from error
    if text is None and len(ids) < needed:
        return None, "", f"the loss was not measured: its validation text has only {len(ids):,} tokens"
    remedy = "Name a longer text, or raise --tokens"
    check(len(ids) >= needed, f"{title} gives {len(ids):,} tokens", f"two windows of this model need {needed:,}", remedy)
    return ids, title, None


def _beginning(text: str, tokens: int) -> str:
    """As much of a text as can matter: no tokenizer here makes one token of more than 64 characters on average."""
    return text[: 64 * tokens]


def _write(found: Found, model: TinyTransformerLM, target: Path, rounding: Rounding) -> Path:
    made_from = {"from": found.name, "sha256": {file.name: sha256(file) for file in found.files}}
    about = {**rounding.to_dict(), **made_from}
    checkpoint = Checkpoint(
        found.config, None if found.tokenizer is None else found.tokenizer.to_dict(), model.weights(),
        lineage={**found.lineage, QUANTIZED: about}, rounded=dict(rounded_weights(model)),
    )  # fmt: skip
    if found.checkpoint is not None:
        checkpoint = replace(checkpoint, step=found.checkpoint.step, metrics=found.checkpoint.metrics)
    record = {**found.record, "model": found.config.to_dict(), "parameters": found.config.n_parameters, QUANTIZED: about}
    return Run.create(target, record).save(runs.as_numpy(checkpoint), "best")
