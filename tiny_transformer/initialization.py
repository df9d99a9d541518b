"""The first weights: one table, one seeded generator, both engines. No torch here.

Each weight has a generator of its own, made from the seed and the weight's name, so the numbers do not depend on the
order in which layers are made, on the engine, or on which other weights exist. Read before: `config.py`.
"""

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import ModelConfig


def initial_std(name: str, config: ModelConfig) -> float | None:
    """The standard deviation of a weight's first values, or None for a constant.

    | weight                                   | first values                                          |
    |------------------------------------------|-------------------------------------------------------|
    | norm gains                               | 1                                                     |
    | all biases, n-gram tables                | 0                                                     |
    | embeddings (token, position, token type) | normal, 0.02 (GPT-2); tied tokens as below            |
    | tied token embedding                     | normal, min(0.02, 1.7 / d_model)                      |
    | unembed                                  | normal, min(0.02, 0.2 / √d_model)                     |
    | out_proj, down (they end a branch)       | normal, 0.02 / √(2 n_layers) (GPT-2)                  |
    | all other matrices                       | normal, 0.02 (GPT-2)                                  |

    The two odd lines keep the first logits small, so that the first loss is ln(vocab_size) within 2 % at any width: a tied
    embedding also meets *itself* in the residual stream, and that product grows with d_model.
    """
    kind = name.split(".")[-2]
    if name.endswith(".bias") or "norm" in kind or kind.startswith("ngram"):
        return None
    if kind == "token" and config.tie_weights:
        return min(0.02, 1.7 / config.d_model)
    if kind == "unembed":
        return min(0.02, 0.2 / math.sqrt(config.d_model))
    if kind in ("out_proj", "down"):
        return 0.02 / math.sqrt(2 * config.n_layers)
    return 0.02


def initial_weight(name: str, shape: tuple[int, ...], config: ModelConfig, seed: int) -> NDArray[np.float32]:
    """The first values of the weight `name` (float32, `shape`), by the table above."""
    std = initial_std(name, config)
    if std is None:
        return np.full(shape, 1.0 if "norm" in name.split(".")[-2] and name.endswith(".weight") else 0.0, dtype=np.float32)
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = generator.standard_normal(shape, dtype=np.float32)
    values *= np.float32(std)
    return values


if __name__ == "__main__":
    config = ModelConfig()
    for name, shape in (("embeddings.token.weight", (65, 128)), ("blocks.0.feedforward.down.weight", (128, 512)), ("norm.weight", (128,))):
        values = initial_weight(name, shape, config, seed=0)
        print(f"{name:34} {values.shape!s:12} mean {values.mean():+.5f}  std {values.std():.5f}")
