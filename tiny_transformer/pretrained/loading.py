"""Other people's weights as our model: `load_pretrained(directory)`.

The files are mapped, and each tensor is widened to the model's type in pieces, so the peak is the model and a few MiB. Nothing is
made anew: the model is built without memory, and then takes the tensors. Left out: the way back to such a directory.
Read before: `accounting.py`, `tokenizer_files.py`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tiny_transformer.config import ConfigError, ModelConfig
from tiny_transformer.initialization import initial_weight
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.pretrained.accounting import Source, open_source
from tiny_transformer.pretrained.gguf_file import read_gguf
from tiny_transformer.pretrained.tokenizer_files import read_tokenizer
from tiny_transformer.pretrained.unfilled import take, without_memory
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.utils.safetensors_file import Array, row_chunks, widen


def load_pretrained(
    directory: str | os.PathLike[str], dtype: torch.dtype = torch.float32
) -> tuple[TinyTransformerLM, Tokenizer | None]:
    """The model (in evaluation mode, on the CPU) and the tokenizer, None where there is none, of a Hugging Face directory or a .gguf file.

    GPT-2, Llama 2 and 3, Mistral, Qwen 2, 2.5 and 3, BERT; one file or several, float32, float16 or bfloat16. `dtype` is what the
    weights become. Raises ConfigError in one line: for what a model asks for that we do not have, by name; for names and shapes
    that do not fit, all at once; for damaged files.
    """
    if Path(directory).suffix == ".gguf" and not Path(directory).is_dir():
        return read_gguf(directory, dtype)
    source = open_source(directory)
    tokenizer = read_tokenizer(source.directory, source.family.name, source.config.vocab_size)
    return build(source, dtype), tokenizer


def build(source: Source, dtype: torch.dtype = torch.float32) -> TinyTransformerLM:
    """The model of an accounted directory. Raises ConfigError where a tensor that should repeat another does not."""
    check_copies(source)
    model = without_memory(source.config)
    take(model, dict(tensors(source, dtype)))
    return model.eval()


def tensors(source: Source, dtype: torch.dtype = torch.float32) -> Iterator[tuple[str, Tensor]]:
    """Our names and tensors, one after the other; each is read when it is asked for."""
    shapes = weight_shapes(source.config)
    for name, rule in source.account.rules.items():
        entry = source.files.entries[name]
        for ours, part in rule.split(source.files.array(name), shapes).items():
            target = torch.empty(shapes[ours], dtype=dtype)
            for rows in row_chunks(part):
                target[rows] = torch.from_numpy(widen(part[rows], entry.dtype))
                source.files.release(name)
            yield ours, target
    for ours in source.account.new:
        yield ours, torch.from_numpy(initial_weight(ours, shapes[ours], source.config, seed=0)).to(dtype)


def check_copies(source: Source) -> None:
    """Raise ConfigError where a tensor that should say the same as another (tied layers) says something else."""
    files, differ = source.files, []
    for name, original in source.account.again.items():
        one, other = files.array(name), files.array(original)
        kinds = files.entries[name].dtype, files.entries[original].dtype
        for rows in row_chunks(one):
            same = _same(one[rows], other[rows], kinds)
            files.release(name)
            files.release(original)
            if not same:
                differ.append(f"{name} differs from {original}")
                break
    if differ:
        says = "config.json says that they are one (tie_word_embeddings)"
        raise ConfigError(f"{source.directory}: {'; '.join(differ)}: {says}. Set it to false there, or get the weights again")


def _same(one: Array, other: Array, kinds: tuple[str, str]) -> bool:
    return np.array_equal(widen(one, kinds[0]), widen(other, kinds[1]), equal_nan=True)


if __name__ == "__main__":
    import json
    import tempfile

    from safetensors.numpy import save_file

    from tiny_transformer.pretrained.family import to_hugging_face
    from tiny_transformer.pretrained.gpt2 import GPT2
    from tiny_transformer.pretrained.names import rules_of

    small = ModelConfig(vocab_size=50, max_seq_len=16, d_model=32, n_layers=2, activation="gelu_tanh")
    ours = TinyTransformerLM(small, seed=1)
    weights = {name: tensor.numpy() for name, tensor in ours.weights().items()}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(to_hugging_face(GPT2, small)))
        save_file({one.theirs: one.join(weights) for one in rules_of(GPT2.table, small)}, Path(folder) / "model.safetensors")
        model, tokenizer = load_pretrained(folder)
    ids = torch.arange(10)[None]
    print(f"{model.config.n_parameters:,} parameters, tokenizer {tokenizer}")
    print("there and back, the same logits:", torch.equal(model(ids), ours.eval()(ids)))
