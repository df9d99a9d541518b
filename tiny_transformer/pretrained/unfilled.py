"""A model without memory, and the tensors that it takes as its own: so no weight is ever there twice. Read before: `model.py`."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tiny_transformer.config import ModelConfig
from tiny_transformer.model import TinyTransformerLM


def without_memory(config: ModelConfig) -> TinyTransformerLM:
    """The model with shapes only: no weight is there yet. The first time PyTorch loads 73 MB of code for it."""
    with torch.device("meta"):
        return TinyTransformerLM(config, seed=0)


def take(model: TinyTransformerLM, weights: Mapping[str, Tensor]) -> None:
    """Make `weights` themselves the model's: no copy. A tied output is the token embedding again."""
    output = {"unembed.weight": weights["embeddings.token.weight"]} if model.config.tie_weights else {}
    model.load_state_dict({**weights, **output}, strict=True, assign=True)


if __name__ == "__main__":
    small = ModelConfig(d_model=16, n_layers=1)
    model = without_memory(small)
    print("before", model.norm.weight.device)
    take(model, {name: torch.zeros(parameter.shape) for name, parameter in model.named_parameters()})
    print("after", model.norm.weight.device, "the output is the embedding:", model.unembed.weight is model.embeddings.token.weight)
