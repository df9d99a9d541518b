"""What is in a model's file or directory, without building the model: architecture, tensors, digests, the memory it needs.

For checkpoints of ours (.pt, .safetensors, .npz, a run), and for directories and GGUF files of the families that we read; of what we can't
load it says what it can, and why not. Read before: `accounting.py`, `gguf_file.py`, `run.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tiny_transformer.config import ConfigError, ModelConfig
from tiny_transformer.corpora.transfer import sha256
from tiny_transformer.hardware import training_memory_gb
from tiny_transformer.numpy_engine import checkpoint as numpy_checkpoints
from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.pretrained.accounting import open_source
from tiny_transformer.pretrained.families import read_config
from tiny_transformer.pretrained.gguf_file import open_gguf
from tiny_transformer.pretrained.gguf_format import GGUFFile
from tiny_transformer.pretrained.gguf_names import rules_for
from tiny_transformer.pretrained.tokenizer_files import read_chat_template, read_tokenizer
from tiny_transformer.pretrained.weight_files import TORCH_TYPES, WeightFiles
from tiny_transformer.run import NUMPY_SUFFIX, NUMPY_SUFFIXES, PREFERRED, is_run, resolve, tokenizer_of
from tiny_transformer.utils import checkpoint as checkpoints
from tiny_transformer.utils.checkpoint import CheckpointError
from tiny_transformer.utils.safetensors_file import SafetensorsFile

GIB = 2**30


@dataclass(frozen=True)
class File:
    """One file with tensors."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class TensorFacts:
    """One tensor as it lies on disk."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    ours: str | None = None
    """What it is here, where another's name differs."""


@dataclass(frozen=True)
class Summary:
    """What was found at a path."""

    path: str
    kind: str
    """"checkpoint", or a family's title, or "tensors"."""
    files: list[File]
    tensors: list[TensorFacts]
    config: ModelConfig | None = None
    parts: dict[str, int] = field(default_factory=dict)
    """Parameters by part of the model; they add up to all of them."""
    memory: dict[str, float] = field(default_factory=dict)
    """GiB that it needs: the weights, the keys and values of a whole context, a training step."""
    tokenizer: str | None = None
    more: dict[str, Any] = field(default_factory=dict)
    """Step, metrics and lineage of a checkpoint."""
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**asdict(self), "config": None if self.config is None else self.config.to_dict()}


def summarize(path: str | Path) -> Summary:
    """Look at a checkpoint file, a run, a Hugging Face directory, a GGUF file or a file of tensors.

    Raises ConfigError or CheckpointError in one line where there is nothing, or what there is is damaged.
    """
    path = Path(path)
    if path.is_dir() and not is_run(path) and not any((path / name).is_file() for name in PREFERRED):
        return _directory(path)
    file = path if path.is_file() else resolve(path)
    if file.suffix == ".gguf":
        return _gguf(file)
    if file.suffix == NUMPY_SUFFIX and "config" not in SafetensorsFile(file).metadata:
        return _plain(file)
    return _checkpoint(file)


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """How many parameters each part has; the blocks' are added up.

    >>> parameters_by_part(ModelConfig(vocab_size=5, max_seq_len=3, d_model=4, n_layers=2, n_heads=1, bias="none"))
    {'token embedding': 20, 'position embedding': 12, 'norms': 20, 'attention': 128, 'feed-forward': 256}
    """
    parts: dict[str, int] = {}
    for name, shape in weight_shapes(config).items():
        part, size = _part(name.split(".")), 1
        for length in shape:
            size *= length
        parts[part] = parts.get(part, 0) + size
    return parts


def _part(names: list[str]) -> str:
    """The part that a weight belongs to, by its public name."""
    if names[0] == "embeddings":
        return "norms" if names[1] == "norm" else f"{names[1].replace('_', ' ')} embedding"
    if names[0] == "blocks":
        return {"attention": "attention", "feedforward": "feed-forward"}.get(names[2], "norms")
    return {"norm": "norms", "unembed": "output layer"}[names[0]]


def memory(config: ModelConfig) -> dict[str, float]:
    """GiB in float32: the weights, the keys and values of one text as long as the context, a training step of one such text."""
    cached = 2 * config.n_layers * config.kv_heads * config.head_width * min(config.max_seq_len, config.window or config.max_seq_len)
    return {
        "weights": 4 * config.n_parameters / GIB, "keys and values": 4 * cached * config.causal / GIB,
        "training": training_memory_gb(config, 1),
    }  # fmt: skip


def _directory(path: Path) -> Summary:
    try:
        source = open_source(path)
    except ConfigError as error:
        return _unloadable(path, str(error))
    rules, entries = source.account.rules, source.files.entries
    tensors = [TensorFacts(n, e.dtype, e.shape, ", ".join(rules[n].ours) if n in rules else None) for n, e in entries.items()]
    notes = source.notes
    try:
        tokenizer = read_tokenizer(path, source.family.name, source.config.vocab_size)
    except ConfigError as error:
        tokenizer, notes = None, [*notes, str(error)]
    template = read_chat_template(path)
    return Summary(
        str(path), source.family.title, _files(e.file for e in entries.values()), tensors, source.config, parameters_by_part(source.config),
        memory(source.config), _about(tokenizer), {} if template is None else {"chat_template": template.text}, notes,
    )  # fmt: skip


def _unloadable(path: Path, reason: str) -> Summary:
    """A directory that we can't load: its tensors, and the reason. Raises the reason where it has no tensors to show."""
    try:
        read_config(path)
        entries = WeightFiles(path).entries
    except ConfigError:
        raise ConfigError(reason) from None
    tensors = [TensorFacts(name, e.dtype, e.shape) for name, e in entries.items()]
    return Summary(str(path), "tensors", _files(e.file for e in entries.values()), tensors, notes=[f"it can't be loaded: {reason}"])


def _gguf(file: Path) -> Summary:
    """A GGUF file; of one that we can't load its tensors, and the reason. Raises ConfigError where it is damaged."""
    plain = GGUFFile(file)
    facts = [TensorFacts(name, entry.kind, entry.shape) for name, entry in plain.entries.items()]
    try:
        source = open_gguf(file)
    except ConfigError as error:
        return Summary(str(file), "tensors", _files([file]), facts, notes=[f"it can't be loaded: {error}"])
    ours = {rule.theirs: ", ".join(rule.ours) for rule in rules_for(source.architecture, source.config)}
    tensors = [replace(one, ours=ours.get(one.name)) for one in facts]
    notes = [f"not in the file, so they begin as in a new model: {', '.join(source.new)}"] if source.new else []
    try:
        tokenizer = source.tokenizer
    except ConfigError as error:
        tokenizer, notes = None, [*notes, str(error)]
    template = source.chat_template
    return Summary(
        str(file), f"GGUF's {source.architecture.name}", _files([file]), tensors, source.config, parameters_by_part(source.config),
        memory(source.config), _about(tokenizer), {} if template is None else {"chat_template": template.text}, notes,
    )  # fmt: skip


def _plain(file: Path) -> Summary:
    entries = SafetensorsFile(file).entries
    tensors = [TensorFacts(name, e.dtype, e.shape) for name, e in entries.items()]
    return Summary(str(file), "tensors", _files([file]), tensors, notes=["a file without a config: the directory it belongs to says more"])


def _checkpoint(file: Path) -> Summary:
    found: Any = numpy_checkpoints.load(file, expand=False) if file.suffix in NUMPY_SUFFIXES else checkpoints.load(file)
    config, small = found.config, found.rounded
    weights = {name: {**found.weights, **small}[name] for name in weight_shapes(config) if name in found.weights or name in small}
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != weight_shapes(config) or len(weights) < len(found.weights) + len(small):
        raise CheckpointError(f"{file}: its weights do not fit its config. Take another checkpoint")
    tensors = [TensorFacts(n, t.kind if n in small else _short(t.dtype), tuple(t.shape)) for n, t in weights.items()]
    kept = {"step": found.step, "metrics": found.metrics, "lineage": found.lineage, "can_resume": found.training is not None}
    return Summary(
        str(file), "checkpoint", _files([file]), tensors, config, parameters_by_part(config), memory(config), _about(tokenizer_of(found)),
        kept, ["every part matches its own SHA-256", *_about_rounded(weights, small)],
    )  # fmt: skip


def _about_rounded(weights: Mapping[str, Any], small: Mapping[str, Any]) -> list[str]:
    """A line about weights in few bits, where there are any."""
    if not small:
        return []
    size = sum(tensor.nbytes for tensor in weights.values())
    bits = " and ".join(map(str, sorted({stored.bits for stored in small.values()})))
    return [f"{len(small)} of {len(weights)} weights are in {bits} bits: with scales, all weights take {size / 1e6:,.2f} MB"]


def _short(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    return TORCH_TYPES.get(name, name)


def _about(tokenizer: Any) -> str | None:
    return None if tokenizer is None else f"{type(tokenizer).__name__}, {tokenizer.vocab_size:,} tokens"


def _files(paths: Iterable[Path]) -> list[File]:
    return [File(path.name, path.stat().st_size, sha256(path)) for path in sorted(set(paths))]


def alike(tensors: Iterable[TensorFacts]) -> Mapping[tuple[str, str, tuple[int, ...]], int]:
    """The tensors with block numbers as N: (name, type, shape) → how many there are."""
    counts: dict[tuple[str, str, tuple[int, ...]], int] = {}
    for tensor in tensors:
        name = ".".join("N" if part.isdigit() else part for part in tensor.name.split("."))
        key = name, tensor.dtype, tensor.shape
        counts[key] = counts.get(key, 0) + 1
    return counts


if __name__ == "__main__":
    config = ModelConfig(vocab_size=50257, max_seq_len=1024, d_model=768, n_layers=12, n_heads=12)
    for part, count in parameters_by_part(config).items():
        print(f"{part:20} {count:12,}")
    print({name: f"{gib:.2f} GiB" for name, gib in memory(config).items()})
    kinds = alike(TensorFacts(f"blocks.{block}.norm1.weight", "F32", (768,)) for block in range(12))
    print(kinds)
