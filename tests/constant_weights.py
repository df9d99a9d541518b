"""A large model of Llama's kind as a Hugging Face directory. Every number in it is the same one: only its size matters."""

import json

import torch
from safetensors.torch import save_file

from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.pretrained.families import FAMILIES
from tiny_transformer.pretrained.family import to_hugging_face, to_model_config
from tiny_transformer.pretrained.names import rules_of

LLAMA = {
    "max_position_embeddings": 64, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 12,
    "num_key_value_heads": 4, "tie_word_embeddings": True,
}  # fmt: skip


def large_llama(folder, dtype, **values):
    """Write it; its config. 50 million parameters beside the token embedding, whose copy for the output is stored too."""
    family = FAMILIES["llama"]
    config = to_model_config(family, {**LLAMA, **values})
    shapes = weight_shapes(config)
    (folder / "config.json").write_text(json.dumps(to_hugging_face(family, config)))
    weights = {one.theirs: torch.full(one.their_shape(shapes), 0.5, dtype=dtype) for one in rules_of(family.table, config)}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors")
    return config
