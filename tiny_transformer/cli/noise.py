"""Noise on the training text: `augmentation.py`'s kinds and BPE-dropout, drawn anew for every epoch. Validation text is never touched.

Read before: corpora/augmentation.py, tokenization/bpe_dropout.py, training/loop.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check
from tiny_transformer.corpora.augmentation import Augmentation, augment
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.bpe_dropout import encode_with_dropout

DROPOUT_STREAM = len(fields(Augmentation))
"""The stream of random numbers behind those of the text's own noises."""


@dataclass(frozen=True, kw_only=True)
class Noise(Augmentation):
    """How the training text is changed from epoch to epoch; rates of 0 leave it as it is."""

    bpe_dropout: float = 0.0
    """Chance of each merge to be left out while the text becomes tokens (bpe only)."""


def fresh_ids(text: str, tokenizer: Tokenizer, noise: Noise, seed: int) -> Callable[[int], NDArray[np.int32]] | None:
    """epoch → the training text as ids with that epoch's noise; None when there is none. A pure function of seed and epoch.

    Raises ConfigError for BPE-dropout with another tokenizer.
    """
    if noise.is_identity:
        return None
    bpe = tokenizer if isinstance(tokenizer, BPETokenizer) else None
    wanted = f"bpe_dropout={noise.bpe_dropout}"
    check(noise.bpe_dropout == 0 or bpe is not None, wanted, "only a bpe tokenizer has merges to leave out", "Try --tokenizer bpe")

    def fresh(epoch: int) -> NDArray[np.int32]:
        changed = augment(text, noise, seed, epoch)
        if bpe is None or noise.bpe_dropout == 0:
            return tokenizer.encode_array(changed)
        return encode_with_dropout(bpe, changed, noise.bpe_dropout, np.random.default_rng([seed, epoch, DROPOUT_STREAM]))

    return fresh


def noise_of(record: dict[str, Any]) -> Noise:
    """The noise that a run's record holds."""
    return Noise(**record.get("noise", {}))
