"""What a batch is: windows of text and, one step ahead, what comes next. NumPy only: both engines use it.

Left out: what is asked of a batch (`objectives.py`). Read before: nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.utils.shape_check import check_shape

Ids = NDArray[np.integer[Any]]
Text = TypeVar("Text", str, Ids)

IGNORE = -100
"""A target that is not asked for (PyTorch's `ignore_index`)."""


class Batch(NamedTuple):
    """Inputs and targets, each (batch, seq) int64; targets hold IGNORE where nothing is asked."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]


def split(text: Text, val_share: float = 0.1) -> tuple[Text, Text]:
    """The first part to train on, the last `val_share` held back. Contiguous: shuffled windows would share letters.

    Works on text and on ids alike. Tiny Shakespeare: 1,003,854 and 111,540 characters.
    """
    n = int(len(text) * (1 - val_share))
    return text[:n], text[n:]


def check_length(ids: Ids, seq_len: int) -> None:
    """Raise ValueError when `ids` (n,) hold no window of `seq_len` and its successor."""
    check_shape(ids, ("n",), "ids")
    if len(ids) < seq_len + 1:
        raise ValueError(
            f"the text has {len(ids)} tokens: a window of max_seq_len={seq_len} and what comes next need {seq_len + 1}. "
            "Use a longer text" + (f" or max_seq_len={len(ids) - 1}" if len(ids) > 1 else "")
        )


def get_batch(ids: Ids, batch_size: int, seq_len: int, generator: np.random.Generator) -> Batch:
    """Windows from random places; the targets are the inputs, one step later. Shapes: (batch, seq) each.

    Every start from 0 to len(ids) - seq_len - 1 is equally likely, the last one included: its final target is the
    text's last token. Raises ValueError when the text is too short, for sizes below 1, or another kind of generator.
    """
    if min(batch_size, seq_len) < 1:
        raise ValueError(f"batch_size={batch_size} and seq_len={seq_len}: each must be at least 1. Try 1 or more")
    if not hasattr(generator, "integers"):
        kind = f"{type(generator).__module__}.{type(generator).__name__}"
        raise ValueError(f"generator is a {kind}: it must be a numpy.random.Generator. Pass np.random.default_rng(seed)")
    ids = np.asarray(ids)
    check_length(ids, seq_len)
    starts = generator.integers(0, len(ids) - seq_len, size=(batch_size, 1))  # the end is excluded
    chunk = ids[starts + np.arange(seq_len + 1)].astype(np.int64)  # (batch, seq + 1)
    return Batch(chunk[:, :-1], chunk[:, 1:])


def batch_at(ids: Ids, batch_size: int, seq_len: int, seed: int, step: int) -> Batch:
    """The batch of one step: a pure function of (seed, step), so resuming needs no memory and ranks take slices of it."""
    return get_batch(ids, batch_size, seq_len, np.random.default_rng([seed, step]))


def windows(ids: Ids, seq_len: int, batch_size: int) -> Iterator[Batch]:
    """The whole text in order, in windows that do not overlap, for measuring: every token but the first is a target once.

    The last window may be short: it is filled with zeros whose targets are IGNORE. The last batch may hold fewer rows.
    """
    ids = np.asarray(ids)
    check_shape(ids, ("n",), "ids")
    n = len(ids) - 1  # targets
    rows = -(-n // seq_len) if n > 0 else 0
    inputs = np.zeros(rows * seq_len, dtype=np.int64)
    targets = np.full(rows * seq_len, IGNORE, dtype=np.int64)
    if rows:
        inputs[:n], targets[:n] = ids[:-1], ids[1:]
    for start in range(0, rows, batch_size):
        part = slice(start * seq_len, min(start + batch_size, rows) * seq_len)
        yield Batch(inputs[part].reshape(-1, seq_len), targets[part].reshape(-1, seq_len))


def show(batch: Batch, symbols: Sequence[str]) -> str:
    """Inputs above targets, aligned, so that a person sees the shift; · where nothing is asked."""
    lines = []
    for row, (inputs, targets) in enumerate(zip(*batch, strict=True)):
        seen = [repr(symbols[i])[1:-1] for i in inputs]
        asked = ["·" if i == IGNORE else repr(symbols[i])[1:-1] for i in targets]
        width = [max(len(a), len(b)) for a, b in zip(seen, asked, strict=True)]
        for name, cells in (("inputs ", seen), ("targets", asked)):
            lines.append(f"{row} {name} " + " ".join(cell.ljust(w) for cell, w in zip(cells, width, strict=True)))
    return "\n".join(lines)


if __name__ == "__main__":
    text = "to be or not to be"
    symbols = sorted(set(text))
    ids = np.array([symbols.index(c) for c in text])
    batch = get_batch(ids, 2, 8, np.random.default_rng(0))
    print("text", len(text), "inputs", batch.inputs.shape, "targets", batch.targets.shape)
    print(show(batch, symbols))
