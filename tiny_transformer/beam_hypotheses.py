"""Beam search without the model: which hypotheses are kept, which grow, and which is the best.

It counts in float64 NumPy for both engines, so that both find the same texts.
Left out: the model and its cache (`sampling/beam.py`, `numpy_engine/beam.py`). Read before: nothing.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.sampling_rules import check_finite


class Hypothesis(NamedTuple):
    """A possible continuation."""

    tokens: tuple[int, ...] = ()
    """The new tokens; where it has ended, the one that ended it is the last."""
    log_probability: float = 0.0
    """The sum over its tokens, in nats."""
    ended: bool = False
    """Whether an end was reached, before the most tokens were."""
    row: int = 0
    """Its row in the batch that is being decoded."""

    def score(self, length_penalty: float) -> float:
        """log-probability / length ** length_penalty: 0 sums, 1 averages, above 1 favours long texts (Wu et al. 2016, section 7)."""
        return float(self.log_probability / max(1, len(self.tokens)) ** length_penalty)


def never(tokens: Sequence[int]) -> bool:
    """No text ends before its last possible token."""
    return False


class Beam:
    """The hypotheses of one search: at every step the `size` best by score, ended ones among them; only the others grow.

    Use in turns: `extend(logits)` with one row of logits per live hypothesis, and where any are left `rows()` and `last_tokens()`
    to bring the batch in line with them. `found()` at the end.
    """

    def __init__(self, size: int, length_penalty: float, is_end: Callable[[Sequence[int]], bool]) -> None:
        self.size = size
        self.length_penalty = length_penalty
        self.is_end = is_end
        self.live, self.ended = [Hypothesis()], list[Hypothesis]()
        self._best: Hypothesis | None = None  # the best ended one, also when it has fallen out of the beam

    def extend(self, logits: NDArray[np.float64]) -> None:
        """Let every live hypothesis grow by every token, and keep the best. logits: (live, vocab)."""
        kept = self._sorted(self.ended + self._longer(logits))[: self.size]
        self.live, self.ended = [h for h in kept if not h.ended], [h for h in kept if h.ended]
        if self.ended and (self._best is None or self._score(self.ended[0]) > self._score(self._best)):
            self._best = self.ended[0]

    def rows(self) -> list[int]:
        """For each row of the batch, the row it must become a copy of; rows without a hypothesis repeat the first one's."""
        return [h.row for h in self._padded()]

    def last_tokens(self) -> list[int]:
        """For each row of the batch, the token that comes next."""
        return [h.tokens[-1] for h in self._padded()]

    def found(self) -> list[Hypothesis]:
        """The best continuations, best first: at most `size`."""
        found = self.live + self.ended
        if self._best is not None and self._best not in found:
            found.append(self._best)
        return self._sorted(found)[: self.size]

    def _longer(self, logits: NDArray[np.float64]) -> list[Hypothesis]:
        """The `size` likeliest one-token extensions of all live hypotheses, likeliest first; at ties the earlier place."""
        check_finite(float(logits.max()))
        totals = log_softmax(logits) + np.array([[h.log_probability] for h in self.live])
        flat = totals.ravel()  # (live · vocab)
        least = np.partition(flat, -self.size)[-self.size] if self.size < flat.size else -np.inf
        places = np.flatnonzero((flat >= least) & np.isfinite(flat))  # in ascending order, so that a stable sort settles ties
        places = places[np.argsort(-flat[places], kind="stable")][: self.size]
        longer = []
        for place in places.tolist():
            row, token = divmod(place, totals.shape[-1])
            tokens = (*self.live[row].tokens, token)
            longer.append(Hypothesis(tokens, float(flat[place]), self.is_end(tokens), row))
        return longer

    def _padded(self) -> list[Hypothesis]:
        return [*self.live, *[self.live[0]] * (self.size - len(self.live))]

    def _score(self, hypothesis: Hypothesis) -> float:
        return hypothesis.score(self.length_penalty)

    def _sorted(self, hypotheses: list[Hypothesis]) -> list[Hypothesis]:
        return sorted(hypotheses, key=lambda h: -self._score(h))  # a stable sort


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """logits - log Σ exp(logits) over the last dimension. (…, vocab) to the same.

    >>> np.exp(log_softmax(np.log([[1.0, 3.0]]))).round(12).tolist()
    [[0.25, 0.75]]
    """
    shifted = logits - logits.max(-1, keepdims=True)  # exp of these is at most 1: no overflow
    out: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return out


if __name__ == "__main__":
    # Greedy takes token 0 (0.5), after which nothing is likely; the best text begins with token 1 (0.4), which token 2 follows for sure.
    after = {0: [0.4, 0.3, 0.3], 1: [0.0, 0.0, 1.0], 2: [0.3, 0.3, 0.4]}
    for size in (1, 2):
        beam = Beam(size, length_penalty=1.0, is_end=never)
        beam.extend(np.log([[0.5, 0.4, 0.1]]))
        with np.errstate(divide="ignore"):
            beam.extend(np.log([after[h.tokens[-1]] for h in beam.live]))
        best = beam.found()[0]
        print(f"{size} beams: {best.tokens} with probability {np.exp(best.log_probability):.2f}")
