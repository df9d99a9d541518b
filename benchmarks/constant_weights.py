"""A model as a Hugging Face directory in which every number is the same one, where only its size matters. Read before: nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tiny_transformer.config import ModelConfig
from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.pretrained.families import FAMILIES
from tiny_transformer.pretrained.family import to_hugging_face, to_model_config
from tiny_transformer.pretrained.names import rules_of

QWEN = {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "vocab_size": 151_936, "max_position_embeddings": 32_768, "tie_word_embeddings": True,
}  # fmt: skip
PUBLISHED: dict[str, tuple[str, dict[str, Any], torch.dtype]] = {
    "GPT-2, 124 M": ("gpt2", {}, torch.float32), "BERT base": ("bert", {}, torch.float32), "Qwen 2.5 0.5B": ("qwen2", QWEN, torch.bfloat16),
}  # fmt: skip
"""Title → family, its config.json where it differs from the family's own defaults, and the type its files come in."""


def write_constant(
    folder: Path, name: str, values: Mapping[str, Any], dtype: torch.dtype, *, again: Mapping[str, str] | None = None
) -> ModelConfig:
    """Write a model of the family `name`; its config. `again`: tensors that are stored once more, under which name."""
    family = FAMILIES[name]
    config = to_model_config(family, values)
    shapes = weight_shapes(config)
    (folder / "config.json").write_text(json.dumps(to_hugging_face(family, config)))
    weights = {one.theirs: torch.full(one.their_shape(shapes), 0.5, dtype=dtype) for one in rules_of(family.table, config)}
    weights |= {copy: weights[original].clone() for copy, original in (again or {}).items()}
    save_file(weights, folder / "model.safetensors")
    return config


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        made = write_constant(Path(scratch), "gpt2", {"n_layer": 1}, torch.bfloat16)
        size = (Path(scratch) / "model.safetensors").stat().st_size
        print(f"{made.n_parameters:,} parameters, {size:,} bytes")
