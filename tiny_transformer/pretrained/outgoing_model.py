"""A model on its way out, in whatever form: its config, its weights by our names, and what turns text into ids.

Left out: the forms (`exporting.py`, `gguf_file.py`). Read before: `chat_template.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tiny_transformer.config import ModelConfig
from tiny_transformer.pretrained.chat_template import ChatTemplate
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.utils.safetensors_file import Array


@dataclass(frozen=True)
class Model:
    """What goes out."""

    config: ModelConfig
    weights: Mapping[str, Tensor]
    """Our names → tensors."""
    tokenizer: Tokenizer | None = None
    chat_template: ChatTemplate | None = None
    name: str = "tiny-transformer"
    """For people."""

    def array(self, name: str, shape: tuple[int, ...]) -> Array:
        """A weight as NumPy has it, which lacks bfloat16. A bias that the model does not have is 0."""
        if name not in self.weights:
            return np.zeros(shape, np.float32)
        tensor = self.weights[name].detach().cpu()
        array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        return array


if __name__ == "__main__":
    model = Model(ModelConfig(), {"norm.scale": torch.ones(3, dtype=torch.bfloat16)})
    print("norm.scale", model.array("norm.scale", (3,)), "norm.bias", model.array("norm.bias", (3,)))
