"""Does a model see what it is to predict? Change one token, and look for logits before it that change too.

This finds a mask that is shifted, added instead of applied, or forgotten, in any model that turns ids into logits, trained or not.
Left out: leaks between texts (`corpora/text_statistics.overlap`). Read before: `attention.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tiny_transformer.config import ModelConfig, check

TOLERANCE = 1e-5
"""Changes below this share of the largest logit are rounding."""


@dataclass(frozen=True)
class FutureLeak:
    """A place whose logits depend on a later token."""

    position: int
    """Its logits change …"""
    token: int
    """… when the token at this later position does. One after `position` is the very target."""
    size: float
    """By so much, the largest such change."""

    def __str__(self) -> str:
        target = ": that is its target" if self.token == self.position + 1 else ""
        return f"the logits at position {self.position} change by {self.size:.2g} when token {self.token} does{target}. Look at the mask"


def future_leak(model: Callable[[Tensor], Tensor], vocab_size: int, seq_len: int, seed: int = 0) -> FutureLeak | None:
    """The largest leak from a later token to earlier logits, on random ids; None where no place sees its future.

    Each of `seq_len` rows is the same ids with one token changed: one call of `model`, ids (seq + 1, seq) to logits (seq + 1, seq, vocab).
    A model with dropout must be in evaluation mode. Raises ConfigError for a vocabulary or a length in which nothing can be changed.
    """
    check(vocab_size >= 2 and seq_len >= 2, f"vocab_size={vocab_size}, seq_len={seq_len}", "each must be at least 2", "Try seq_len=16")
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (seq_len,), generator=generator)
    step = torch.randint(1, vocab_size, (seq_len,), generator=generator)  # to another token
    rows = ids.repeat(seq_len + 1, 1)
    rows[range(seq_len), range(seq_len)] = (ids + step) % vocab_size
    with torch.no_grad():
        logits = model(rows)
    change = (logits[:-1] - logits[-1]).abs().amax(-1).float()  # (changed token, position)
    before = torch.ones_like(change).tril(-1).bool()  # positions before the changed token
    worst = change.masked_fill(~before, 0)
    size = float(worst.max())
    if not size > TOLERANCE * float(logits.abs().max()):
        return None
    token, position = divmod(int(worst.argmax()), seq_len)
    return FutureLeak(position, token, size)


if __name__ == "__main__":
    from tiny_transformer.model import TinyTransformerLM

    for causal in (True, False):
        config = ModelConfig(vocab_size=50, max_seq_len=16, d_model=32, n_layers=2, n_heads=2, causal=causal)
        found = future_leak(TinyTransformerLM(config, seed=0).eval(), 50, 16)
        print(f"causal={causal}:", found or "no position sees its future")
