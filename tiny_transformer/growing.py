"""A trained model with more tokens: new rows in the embedding and output layers, everything else untouched.

NumPy only, so it serves both engines; `run.as_numpy` turns a PyTorch checkpoint's weights into arrays.
Left out: the tokenizer's side (`with_special_tokens` of each tokenizer). Read before: `config.py`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import ModelConfig, check

Array = NDArray[Any]
TABLES = ("embeddings.token.weight", "unembed.weight", "unembed.bias")
"""The weights with a row for each token, or a number."""


def grow_vocabulary(config: ModelConfig, weights: Mapping[str, Array], vocab_size: int) -> tuple[ModelConfig, dict[str, Array]]:
    """The config and weights of the same model with `vocab_size` tokens; the arrays that do not change are not copied.

    A new token's row is the mean of the old rows, in the embedding and in the output layer (Hewitt 2021, "Initializing new word
    embeddings for pretrained language models"). The logits of the old tokens are what they were. A mean row has the mean of
    the old logits, which is never above their log-mean-exp, so n old tokens keep at least n / (n + new) of the probability: a model
    does not suddenly write a token that it has never seen.
    Shapes: (old, d_model) to (vocab_size, d_model). Raises ConfigError for fewer tokens than there are.
    """
    old = config.vocab_size
    check(
        not config.ngram_rows,
        f"ngram_rows={config.ngram_rows}",
        "a model with n-gram tables can't get more tokens: a row's number depends on how many there are",
        "Train one without them",
    )
    check(vocab_size >= old, f"vocab_size={vocab_size}", f"the model has {old} tokens and can only grow", f"Try {old + 1} or more")
    grown = dict(weights)
    for name in TABLES:
        if name in weights:
            table = weights[name]
            mean = table.mean(0, keepdims=True, dtype=np.float64).astype(table.dtype)  # (1, d_model), or (1,)
            grown[name] = np.concatenate((table, np.repeat(mean, vocab_size - old, 0)))
    return replace(config, vocab_size=vocab_size), grown


if __name__ == "__main__":
    config = ModelConfig(vocab_size=4, d_model=8, n_heads=2)
    table = np.random.default_rng(0).standard_normal((4, 8))
    larger, weights = grow_vocabulary(config, {"embeddings.token.weight": table}, 6)
    grown = weights["embeddings.token.weight"]
    hidden = np.ones(8)
    print("rows", table.shape, "to", grown.shape, "for", larger.vocab_size, "tokens")
    print("logits before", (table @ hidden).round(2).tolist(), "after", (grown @ hidden).round(2).tolist())
