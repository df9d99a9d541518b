"""A text whose entropy is known exactly, for measuring how long a model takes to learn it: a Markov chain of the second order.

Each symbol depends on the two before it. Whoever knows only single symbols, or only pairs, has a loss that can be computed, and so
has whoever knows everything: the distance between them is what a model can learn. No file and no network. Read before: nothing.
"""

import numpy as np
from numpy.typing import NDArray


class MarkovSource:
    """`symbols` symbols; behind each pair of them `successors` may follow, their probabilities in the ratio 1 : 1/2 : 1/3 : …"""

    def __init__(self, symbols: int, successors: int = 4, seed: int = 0) -> None:
        chance = np.random.default_rng(seed)
        weights = 1 / np.arange(1, successors + 1)
        table = np.zeros((symbols, symbols, symbols))
        for row in table.reshape(-1, symbols):
            row[chance.choice(symbols, successors, replace=False)] = weights / weights.sum()
        self.symbols, self.table = symbols, table  # table[a, b, c]: the probability of c behind a, b
        self._of_pairs = self._stationary()

    def _stationary(self) -> NDArray[np.float64]:
        """How often each pair stands in a long text, (symbols, symbols): the distribution that one more symbol does not change."""
        pairs = np.full((self.symbols, self.symbols), 1 / self.symbols**2)
        for _ in range(10_000):
            after = np.einsum("ab,abc->bc", pairs, self.table)
            if np.abs(after - pairs).max() < 1e-13:
                break
            pairs = 0.5 * (pairs + after)  # half a step: a chain that goes in circles settles too
        return pairs

    @property
    def entropy(self) -> float:
        """Nats per symbol for one who knows the two before it: no model can do better."""
        return _entropy(self._of_pairs[:, :, None] * self.table) - _entropy(self._of_pairs)

    @property
    def entropy_of_pairs(self) -> float:
        """Nats per symbol for one who knows the one before it only."""
        return _entropy(self._of_pairs) - _entropy(self._of_pairs.sum(0))

    def text(self, length: int, seed: int, chains: int | None = None) -> NDArray[np.uint16]:
        """`length` symbols: `chains` texts that were drawn side by side, one behind the other.

        Where one begins the two symbols before say nothing. The default is as many as make each at least 4,096 long, up to 256.
        """
        chance = np.random.default_rng(seed)
        chains = chains or min(256, max(1, length // 4096))
        cumulative = self.table.cumsum(-1)
        steps = -(-length // chains)
        out = np.empty((chains, steps), dtype=np.uint16)
        first = chance.choice(self.symbols**2, chains, p=self._of_pairs.reshape(-1) / self._of_pairs.sum())
        a, b = np.divmod(first, self.symbols)
        for step in range(steps):
            c = (cumulative[a, b] < chance.random((chains, 1))).sum(-1).clip(max=self.symbols - 1)
            out[:, step] = c
            a, b = b, c
        return out.reshape(-1)[:length]


def _entropy(probabilities: NDArray[np.float64]) -> float:
    p = probabilities[probabilities > 0]
    return float(-(p * np.log(p)).sum())


if __name__ == "__main__":
    source = MarkovSource(32)
    text = source.text(200_000, seed=1)
    print(f"text {text.shape}: {' '.join(map(str, text[:24]))} …")
    print(f"knowing nothing {np.log(32):.3f}, one symbol {source.entropy_of_pairs:.3f}, everything {source.entropy:.3f} nats per symbol")
