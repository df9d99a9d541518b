"""How fast training goes, in tokens per second. Read before: nothing."""

from collections import deque


class Throughput:
    """Tokens per second over the most recent steps; time spent between steps (evaluating, saving) does not count."""

    def __init__(self, window: int = 50) -> None:
        self._recent: deque[tuple[int, float]] = deque(maxlen=window)
        self.tokens = 0
        self.seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Note a step that took `seconds` for `tokens`."""
        self._recent.append((tokens, seconds))
        self.tokens += tokens
        self.seconds += seconds

    @property
    def recent(self) -> float:
        """Tokens per second over the last `window` steps; 0 before the first."""
        return _rate(sum(tokens for tokens, _ in self._recent), sum(seconds for _, seconds in self._recent))

    @property
    def overall(self) -> float:
        """Tokens per second over all steps."""
        return _rate(self.tokens, self.seconds)


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if seconds > 0 else 0.0


if __name__ == "__main__":
    speed = Throughput(window=2)
    for seconds in (10.0, 1.0, 1.0):
        speed.add(tokens=1000, seconds=seconds)
    print(f"tokens per second: recent {speed.recent:.0f}, overall {speed.overall:.0f}")
