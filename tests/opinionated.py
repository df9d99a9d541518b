"""Untrained models with opinions: logits that differ by whole units and depend on all that came before.

A freshly initialised model finds everything about equally likely, which hides mistakes in generation; this one does not.
"""

import torch

from tests.options import small_config
from tiny_transformer.model import TinyTransformerLM


def opinionated(option: str = "gpt2", seed: int = 0, **more: object) -> TinyTransformerLM:
    """The small model of `options.py` with large random weights, in evaluation mode."""
    model = TinyTransformerLM(small_config(option, tie_weights=False, **more), seed=0).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                scale = 0.4 if name.startswith("unembed") else 1.0 if "embed" in name else 1.5 / parameter.size(1) ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model
