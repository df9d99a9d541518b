"""A model as one GGUF file, as llama.cpp and programs around it read it: `write_gguf`, and `read_gguf` back.

Architectures gpt2, llama, qwen2, qwen3 and bert; float32, float16, bfloat16, or eight bits in blocks (Q8_0). Vectors stay float32, and so
do matrices that are only added. What is written is read back the same: the weights to the bit in float32, else as rounded.
Read before: `gguf_format.py`, `gguf_names.py`, `gguf_tokenizer.py`.
"""

import base64
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiny_transformer.config import ConfigError, ModelConfig, check, check_choice
from tiny_transformer.initialization import initial_weight
from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.pretrained import gguf_names, gguf_tokenizer
from tiny_transformer.pretrained.chat_template import ChatTemplate
from tiny_transformer.pretrained.gguf_format import ALIGNMENT, GGUFFile, write_file
from tiny_transformer.pretrained.gguf_names import ARCHITECTURES, FULL_PRECISION, ROPE_FACTORS, WEIGHT_KEY, Architecture
from tiny_transformer.pretrained.gguf_numbers import BLOCK, Array
from tiny_transformer.pretrained.names import Rule
from tiny_transformer.pretrained.outgoing_model import Model
from tiny_transformer.tokenization.base import Tokenizer

if TYPE_CHECKING:
    import torch

    from tiny_transformer.model import TinyTransformerLM

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}
"""What `dtype` can be → the kind of the matrices."""
FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}
"""`general.file_type`."""
Tensors = dict[str, tuple[str, tuple[int, ...], Callable[[], Array]]]
Values = dict[str, Any]


# --- writing ----------------------------------------------------------------------------------------------------------


def write_gguf(
    model: "TinyTransformerLM", path: str | os.PathLike[str], tokenizer: Tokenizer | None = None, *, dtype: str = "float32",
    chat_template: ChatTemplate | None = None, name: str = "tiny-transformer",
) -> list[str]:  # fmt: skip
    """Write a model, with its tokenizer or without; what a person should know, one line each. The file is there whole or not at all.

    `dtype` is float32, float16, bfloat16 or q8_0. Raises ConfigError in one line where no architecture can say the model, for
    numbers that the type can't hold, and a tokenizer that is too large for the model.
    """
    return write_model(Model(model.config, model.weights(), tokenizer, chat_template, name), path, dtype)[1]


def write_model(model: Model, path: str | os.PathLike[str], dtype: str = "float32") -> tuple[str, list[str]]:
    """`write_gguf` for weights by name; the architecture's name, and the notes."""
    check_choice("dtype", dtype, tuple(DTYPES))
    kind = DTYPES[dtype]
    one, config, notes = gguf_names.architecture_of(model.config)
    weights = {name: partial(model.array, name, shape) for name, shape in weight_shapes(config).items()}
    values: Values = {
        "general.architecture": one.name, "general.type": "model", "general.name": model.name, "general.alignment": ALIGNMENT,
        "general.file_type": FILE_TYPES[kind], **({"general.quantization_version": 2} if kind == "Q8_0" else {}),
        **gguf_names.values_of(one, config),
    }  # fmt: skip
    tokenizer, more = _tokenizer_values(model, config)
    tensors = _tensors(one, config, weights, kind)
    head = {name: weights[name]() for name in gguf_names.head_of(one, config)}
    values |= tokenizer | {WEIGHT_KEY + name: base64.b64encode(array.astype("<f4").tobytes()).decode() for name, array in head.items()}
    write_file(path, values, tensors)
    if head:
        more.append(f"GGUF's {one.name} ends before the output head: it is in {WEIGHT_KEY}…, which is read here only")
    return one.name, [*notes, *more]


def _tensors(one: Architecture, config: ModelConfig, weights: Mapping[str, Callable[[], Array]], kind: str) -> Tensors:
    """Name → kind, shape, and what makes the numbers when it is their turn."""
    shapes, tensors = weight_shapes(config), Tensors()
    for rule in gguf_names.rules_for(one, config):
        shape = rule.their_shape(shapes)
        own = "F32" if len(shape) == 1 or rule.theirs in FULL_PRECISION else kind
        own = "F16" if own == "Q8_0" and shape[-1] % BLOCK else own
        tensors[rule.theirs] = own, shape, partial(_joined, rule, weights)
    if ROPE_FACTORS in gguf_names.tensor_names(one, config):
        tensors[ROPE_FACTORS] = "F32", (config.head_width // 2,), partial(rope_factors, config)
    return tensors


def _joined(rule: Rule, weights: Mapping[str, Callable[[], Array]]) -> Array:
    return rule.join({name: weights[name]() for name in rule.ours})


def rope_factors(config: ModelConfig) -> Array:
    """By how much each rotary frequency is divided: (d_head / 2,) float32; the rule is in `embeddings.rotary_frequencies`."""
    from tiny_transformer.embeddings import rotary_frequencies

    plain = rotary_frequencies(config.head_width, config.rope_theta)
    scaled = rotary_frequencies(config.head_width, config.rope_theta, config.rope_scaling)
    factors: Array = (plain / scaled).float().numpy()
    return factors


def _tokenizer_values(model: Model, config: ModelConfig) -> tuple[Values, list[str]]:
    values, notes = {"tokenizer.ggml.model": gguf_tokenizer.NO_MODEL}, list[str]()
    if model.tokenizer is not None:
        values, notes = gguf_tokenizer.to_values(model.tokenizer, config.vocab_size)
    if model.chat_template is not None:
        values["tokenizer.chat_template"] = model.chat_template.text
    return values, notes


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A file that can be loaded: nothing of it is read yet but names and values."""

    file: GGUFFile
    architecture: Architecture
    config: ModelConfig
    new: tuple[str, ...] = ()
    """Ours that are not in the file, and begin as in a new model."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the file has none. Raises ConfigError for one that we don't have."""
        try:
            tokenizer = gguf_tokenizer.from_values(self.file.values)
        except ConfigError as error:
            raise ConfigError(f"{self.file.path}: {error}") from error
        fits = tokenizer is None or tokenizer.vocab_size <= self.config.vocab_size
        must = f"the model has {self.config.vocab_size}"
        check(fits, f"{self.file.path}: a tokenizer of {tokenizer and tokenizer.vocab_size} tokens", must, "Get it again")
        return tokenizer

    @property
    def chat_template(self) -> ChatTemplate | None:
        """How a dialogue is written for this model; None where the file does not say it."""
        text, tokens = self.file.values.get("tokenizer.chat_template"), self.file.values.get("tokenizer.ggml.tokens") or []
        ids = [self.file.values.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos")]
        bos, eos = (tokens[i] if isinstance(i, int) and i < len(tokens) else "" for i in ids)
        return ChatTemplate(text, bos, eos) if isinstance(text, str) and text else None


def open_gguf(path: str | os.PathLike[str]) -> Source:
    """Read a file's names and values, and account for all of it. Raises ConfigError in one line: damage, what we lack, differences."""
    file = GGUFFile(path)
    name = file.values.get("general.architecture")
    known = f"it must be one of {', '.join(ARCHITECTURES)}"
    check(name in ARCHITECTURES, f"{file.path} asks for general.architecture={name!r}", known, "Choose another model")
    one = ARCHITECTURES[str(name)]
    check("token_embd.weight" in file.entries, f"{file.path} has no token_embd.weight", "every model needs it", "Get it again")
    rows = file.entries["token_embd.weight"].shape[0]
    types = file.entries["token_types.weight"].shape[0] if "token_types.weight" in file.entries else 0
    try:
        config = gguf_names.config_of(one, file.values, file.entries, rows, types)
    except ConfigError as error:
        raise ConfigError(f"{file.path}: {error}") from error
    rules, shapes = {r.theirs: r for r in gguf_names.rules_for(one, config)}, weight_shapes(config)
    problems = [f"unexpected {name} {entry.shape}" for name, entry in file.entries.items() if name not in rules and name != ROPE_FACTORS]
    problems += [f"missing {name} {rule.their_shape(shapes)}" for name, rule in rules.items() if name not in file.entries]
    problems += [
        f"{name} has shape {file.entries[name].shape}, must be {rule.their_shape(shapes)}"
        for name, rule in rules.items()
        if name in file.entries and file.entries[name].shape != rule.their_shape(shapes)
    ]
    if problems:
        count = f"{len(problems)} difference{'s' if len(problems) > 1 else ''}"
        raise ConfigError(f"{file.path}: values and tensors do not fit ({count}): {'; '.join(problems)}. Get the file again")
    lacking = tuple(name for name in gguf_names.head_of(one, config) if WEIGHT_KEY + name not in file.values)
    return Source(file, one, config, lacking)


def weights_of(source: Source) -> Iterator[tuple[str, Array]]:
    """Our names and float32 numbers, one after the other; each is read when it is asked for."""
    shapes = weight_shapes(source.config)
    for rule in gguf_names.rules_for(source.architecture, source.config):
        yield from rule.split(source.file.array(rule.theirs), shapes).items()
    for name in gguf_names.head_of(source.architecture, source.config):
        if name in source.new:
            yield name, initial_weight(name, shapes[name], source.config, seed=0)
            continue
        try:
            numbers = np.frombuffer(base64.b64decode(source.file.values[WEIGHT_KEY + name], validate=True), "<f4").reshape(shapes[name])
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{source.file.path}: {WEIGHT_KEY}{name} can't be read ({error}). Get the file again") from error
        yield name, numbers


def read_gguf(
    path: str | os.PathLike[str], dtype: "torch.dtype | None" = None, *, tokenizer: bool = True
) -> "tuple[TinyTransformerLM, Tokenizer | None]":
    """The model (in evaluation mode, on the CPU) and the tokenizer, None where there is none or none is wanted.

    `dtype` is what the weights become, float32 by default; eight bits become ordinary numbers again. Raises ConfigError in one line for
    damage (what and where), for what a file asks for that we don't have, and for names and shapes that do not fit, all at once.
    """
    import torch

    from tiny_transformer.unfilled import take, without_memory

    source = open_gguf(path)
    reader = source.tokenizer if tokenizer else None
    model = without_memory(source.config)
    kind = torch.float32 if dtype is None else dtype
    take(model, {name: torch.from_numpy(np.array(numbers)).to(kind) for name, numbers in weights_of(source)})
    return model.eval(), reader


if __name__ == "__main__":
    import tempfile

    from tiny_transformer import tokenization
    from tiny_transformer.model import TinyTransformerLM

    words = tokenization.train("bpe", "to be or not to be " * 9, 262)
    small = ModelConfig(
        vocab_size=264, d_model=64, n_layers=1, norm="rms", position="rotary", activation="swiglu", bias="none", n_kv_heads=2
    )
    ours = TinyTransformerLM(small, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        for dtype in DTYPES:
            notes = write_gguf(ours, Path(folder) / "small.gguf", words, dtype=dtype)
            model, tokenizer = read_gguf(Path(folder) / "small.gguf")
            largest = max(float((a - b).abs().max()) for a, b in zip(ours.weights().values(), model.weights().values(), strict=True))
            size = (Path(folder) / "small.gguf").stat().st_size
            print(f"{dtype:9} {size:9,} bytes, largest error {largest:.5f}, {tokenizer and tokenizer.encode('to be')}", *notes)
