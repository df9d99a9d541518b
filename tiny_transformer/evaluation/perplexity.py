"""A measured loss in the units that people compare: perplexity and bits per byte, each with its interval.

Perplexities compare only between models of the same tokens on the same text; bits per byte also between tokenizers.
Left out: measuring the loss (`validation_loss.py`). Read before: `validation_loss.py`.
"""

import math
from dataclasses import dataclass

from tiny_transformer.config import check
from tiny_transformer.evaluation.validation_loss import Measured

TWO_SIDED_95 = 1.959963984540054
"""A normal variable lies within so many standard errors of its mean 95 times in 100."""


@dataclass(frozen=True)
class Interval:
    """A value, and where the truth lies 95 times in 100."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 1 if self.value >= 10 else 3
        return f"{self.value:,.{digits}f} (95 %: {self.low:,.{digits}f} to {self.high:,.{digits}f})"


def perplexity(measured: Measured) -> Interval:
    """e^loss: as uncertain as a fair choice between so many tokens.

    The interval is that of the loss, exponentiated: exp(loss ± 1.96 error). It is not symmetric, and a single window gives none.

    >>> perplexity(Measured(loss=math.log(100), error=0.05, tokens=1000))
    Interval(value=100.00000000000004, low=90.66513820962416, high=110.29597713521498)
    """
    return Interval(*(_exp(loss) for loss in _ends(measured)))


def bits_per_byte(measured: Measured, n_bytes: int) -> Interval:
    """The loss of a text of `n_bytes` bytes, all its tokens together, in bits for each byte.

    >>> bits_per_byte(Measured(loss=math.log(2), error=0.0, tokens=8), n_bytes=4).value
    2.0

    Raises ConfigError for a text without bytes.
    """
    check(n_bytes >= 1, f"n_bytes={n_bytes}", "a text must have at least one", "Pass len(text.encode())")
    per_nat = measured.tokens / (n_bytes * math.log(2))
    return Interval(*(loss * per_nat for loss in _ends(measured)))


def _ends(measured: Measured) -> tuple[float, float, float]:
    off = TWO_SIDED_95 * measured.error
    return measured.loss, max(0.0, measured.loss - off), measured.loss + off


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


if __name__ == "__main__":
    measured = Measured(loss=4.6, error=0.02, tokens=217_645)
    print("loss", measured, "over", f"{measured.tokens:,} words")
    print("perplexity", perplexity(measured))
    print("bits per byte", bits_per_byte(measured, 1_121_681))
    print("claimed elsewhere: a loss of 0.384, which is a perplexity of", perplexity(Measured(0.384, 0.0, 1)).value)
