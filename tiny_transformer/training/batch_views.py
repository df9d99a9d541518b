"""Looking at training data, as plain text: a batch, how often each token occurs, what part of the text has been seen.

Left out: printing (`tiny data batch`). Read before: `dataset.py`.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len

from tiny_transformer.config import check
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.training.dataset import IGNORE, Batch, Ids, IdStore, batch_at

NOT_ASKED = "·"
SHADES = " ▁▂▃▄▅▆▇█"
_AT_ONCE = 1 << 20


def token_text(tokenizer: Tokenizer) -> Callable[[int], str]:
    r"""A function that says what a token is, in signs that can be seen: a space is ␣, a line end \n, a byte that is no character �."""
    return lambda token: repr(tokenizer.decode([token]))[1:-1].replace(" ", "␣")


def show(batch: Batch, text_of: Callable[[int], str], width: int = 100) -> str:
    r"""Inputs above targets, each above the one that is asked for, · where nothing is asked; long rows go on further down.

    `text_of` says what a token is (`token_text(tokenizer)`). Columns fit their widest text, in cells of a terminal (a Chinese
    character takes two). No line is wider than `width`, unless a single token is.

    >>> print(show(Batch(np.array([[0, 1, 1]]), np.array([[1, 1, IGNORE]])), ["a", r"\n"].__getitem__))
    0 inputs  a  \n \n
    0 targets \n \n ·
    """
    lines = []
    for row, pair in enumerate(zip(*batch, strict=True)):
        cells = [[NOT_ASKED if i == IGNORE else text_of(int(i)) for i in ids] for ids in pair]
        sizes = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
        names = [f"{row} {name} " for name in ("inputs ", "targets")]
        for begin, end in _blocks(sizes, width - len(names[0])):
            for name, texts in zip(names, cells, strict=True):
                padded = (text + " " * (size - cell_len(text)) for text, size in zip(texts[begin:end], sizes[begin:end], strict=True))
                lines.append((name + " ".join(padded)).rstrip(" "))
    return "\n".join(lines)


def _blocks(sizes: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Columns of these widths, one space between, in blocks that fit into `room`."""
    begins, used = [0], -1
    for column, size in enumerate(sizes):
        if used >= 0 and used + 1 + size > room:
            begins.append(column)
            used = -1
        used += 1 + size
    return list(pairwise([*begins, len(sizes)]))


# ---------------------------------------------------------------- how often tokens occur


def token_counts(ids: Ids | IdStore, vocab_size: int) -> NDArray[np.int64]:
    """How often each id occurs: (vocab_size,). Token files are read bit by bit. Raises ConfigError for an id outside."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(ids), _AT_ONCE):
        piece = np.asarray(ids[start : start + _AT_ONCE])
        low, high = int(piece.min()), int(piece.max())
        check(low >= 0 and high < vocab_size, f"ids {low} to {high}", f"they must lie in 0 to {vocab_size - 1}", "Use their tokenizer")
        counts += np.bincount(piece, minlength=vocab_size)
    return counts


def frequency_table(counts: NDArray[np.integer[Any]], text_of: Callable[[int], str], top: int = 20) -> str:
    """The `top` most frequent tokens with their share, the rarest of those that occur, and which ids never occur.

    A token that never occurs is never learned: its embedding keeps its first random values (Land & Bartolo 2024, "Fishing for
    Magikarp", call such tokens under-trained).
    """
    order = np.lexsort((np.arange(len(counts)), -counts))  # falling counts, ties by id
    seen = order[counts[order] > 0].tolist()
    shown, rest = seen[:top], seen[top:]
    rare = rest[-min(len(rest), max(1, top // 4)) :] if rest else []
    total, so_far = max(1, int(counts.sum())), 0
    lines = [f"{'id':>7} {'count':>12} {'share':>8} {'together':>9}  token"]
    for token in shown:
        so_far += int(counts[token])
        lines.append(f"{token:7} {counts[token]:12,} {counts[token] / total:8.3%} {so_far / total:9.2%}  {text_of(token)}")
    if len(rest) > len(rare):
        lines.append(f"{'…':>7} {len(rest) - len(rare):,} more")
    lines += [f"{token:7} {counts[token]:12,} {counts[token] / total:8.3%} {'':9}  {text_of(token)}" for token in rare]
    never = np.flatnonzero(counts == 0)
    lines.append(f"never seen: {len(never):,} of {len(counts):,} ids" + (f": {_ranges(never.tolist())}" if len(never) else ""))
    return "\n".join(lines)


def _ranges(numbers: Sequence[int], most: int = 12) -> str:
    """Rising numbers in words: 3, 7-9, 12."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:most]]
    return ", ".join(words) + (", …" if len(runs) > most else "")


# ---------------------------------------------------------------- what has been seen


class Coverage(NamedTuple):
    """How often each token was a target. The first token of a text never is."""

    visits: NDArray[np.int32]
    """(n_tokens - 1,): of the second token, the third, …"""
    expected: float
    """The share that is seen at least once, on average over all seeds."""
    steps: int
    asked: int
    """Targets of all batches together."""

    @property
    def share(self) -> float:
        """The share of tokens that were a target at least once."""
        return float((self.visits > 0).mean())

    @property
    def epochs(self) -> float:
        """Targets asked for, in lengths of the text: 1.0 has done the work of one pass."""
        return self.asked / len(self.visits)

    @property
    def histogram(self) -> NDArray[np.int64]:
        """How many tokens were a target 0, 1, 2, … times."""
        return np.bincount(self.visits)


class _Places(IdStore):
    """Ids that are their own places, so a batch of them says where it was cut."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, where: Any) -> Any:
        return where

    def part(self, start: int, stop: int) -> "_Places":
        raise NotImplementedError


def coverage(n_tokens: int, batch_size: int, seq_len: int, seed: int, steps: int) -> Coverage:
    """What the first `steps` batches of `batch_at` with these settings ask for: the very windows that training sees.

    Windows begin at random places, so after the work of one epoch about 1 - 1/e = 63 % of the text has been seen, not all of it.
    A token is missed by one window with probability 1 - p, by all n = steps · batch_size with (1 - p)^n, where p = seq_len / starts
    (less near the ends, which fewer windows reach; `expected` takes that into account). Raises ValueError when the text is too short.
    """
    check(steps >= 0, f"steps={steps}", "it must be 0 or more", "Try 1000")
    changes = np.zeros(n_tokens + 1, dtype=np.int32)  # +1 where a window's targets begin, -1 behind its last
    for step in range(steps):
        starts = batch_at(_Places(n_tokens), batch_size, seq_len, seed, step).inputs[:, 0]
        np.add.at(changes, starts + 1, 1)
        np.add.at(changes, starts + 1 + seq_len, -1)
    np.cumsum(changes, out=changes)  # in place: 4 bytes a token in all
    return Coverage(changes[1:n_tokens], expected_share(n_tokens, seq_len, batch_size * steps), steps, batch_size * steps * seq_len)


def expected_share(n_tokens: int, seq_len: int, n_windows: int) -> float:
    """The mean over all tokens but the first of 1 - (1 - p)^n_windows, where p is the share of starts whose window asks for the token.

    >>> round(expected_share(1_000_000, 100, 10_000), 3), 1 - round(1 / np.e, 3)
    (0.632, 0.632)
    """
    starts = n_tokens - seq_len
    check(seq_len >= 1 and starts >= 1, f"{n_tokens} tokens and seq_len={seq_len}", "one window must fit", "Use a longer text")
    # The token at place j is a target of the windows that begin at j - seq_len … j - 1, as far as these are starts. Towards both
    # ends there are fewer: 1, 2, 3, …; the middle has `most` everywhere.
    most = min(seq_len, starts)
    ramp = 1.0 - (1.0 - np.arange(1, most) / starts) ** n_windows
    middle = 1.0 - (1.0 - most / starts) ** n_windows
    return float((2 * ramp.sum() + (n_tokens - 1 - 2 * (most - 1)) * middle) / (n_tokens - 1))


def coverage_report(seen: Coverage, width: int = 72) -> str:
    """Shares, a histogram of visits, and the text from left to right as a line of bars: the higher, the more of it has been seen."""
    lines = [
        f"{seen.steps:,} steps ask for {seen.asked:,} targets: {seen.epochs:.2f} epochs",
        f"seen at least once: {seen.share:.2%} of {len(seen.visits):,} tokens (expected {seen.expected:.2%})",
    ]
    histogram, bars = seen.histogram.tolist(), width - 24
    shown = histogram if len(histogram) <= 10 else [*histogram[:9], sum(histogram[9:])]
    for times, count in enumerate(shown):
        name = f"{times}+" if times == 9 and len(histogram) > 10 else str(times)
        lines.append(f"{name:>3} times {count:13,} {'█' * round(bars * count / max(1, *shown))}".rstrip())
    edges = np.linspace(0, len(seen.visits), min(width, len(seen.visits)) + 1).astype(int)
    shares = [float((seen.visits[a:b] > 0).mean()) for a, b in pairwise(edges.tolist())]
    lines.append("".join(SHADES[_shade(share)] for share in shares))
    lines.append("start" + " " * max(1, len(shares) - 8) + "end")
    return "\n".join(lines)


def _shade(share: float) -> int:
    """0 for nothing seen, the last for all, and neither for anything between."""
    last = len(SHADES) - 1
    return 0 if share == 0 else last if share == 1 else 1 + int(share * (last - 1))


if __name__ == "__main__":
    from tiny_transformer.tokenization.char import CharTokenizer

    text = "to be or not to be, that is the question\n" * 50
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode_array(text)
    print(show(batch_at(ids, 2, 36, seed=0, step=0), token_text(tokenizer)))
    print(frequency_table(token_counts(ids, tokenizer.vocab_size), token_text(tokenizer), top=5))
    print(coverage_report(coverage(len(ids), batch_size=4, seq_len=36, seed=0, steps=14)))
