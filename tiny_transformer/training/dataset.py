"""What a batch is: windows of text and, one step ahead, what comes next. NumPy only: both engines use it.

Left out: what is asked of a batch (`objectives.py`), ids on disk (`token_files.py`), several documents in a row (`packing.py`), and
pictures of a batch (`batch_views.py`). Read before: nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.utils.shape_check import check_shape

Ids = NDArray[np.integer[Any]]

IGNORE = -100
"""A target that is not asked for (PyTorch's `ignore_index`)."""


class IdStore(ABC):
    """Ids that are not in memory: whatever has a length and gives the ids at the places it is asked for.

    All functions of this file take one instead of an array, give the very same batches, and read no more than those need.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, where: Any) -> Any:
        """What an array gives: ids at a slice or at an array of places as an array of that shape, at one place a number."""

    @abstractmethod
    def part(self, start: int, stop: int) -> Self:
        """The ids from `start` to `stop` as a store; nothing is read."""

    @property
    def shape(self) -> tuple[int]:
        """(n,)."""
        return (len(self),)


Text = TypeVar("Text", str, Ids, IdStore)


class Batch(NamedTuple):
    """Inputs and targets, each (batch, seq) int64; targets hold IGNORE where nothing is asked."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]


def split(text: Text, val_share: float = 0.1) -> tuple[Text, Text]:
    """The first part to train on, the last `val_share` held back. Contiguous: shuffled windows would share letters.

    Works on text and on ids alike, on disk too. Tiny Shakespeare: 1,003,854 and 111,540 characters.
    """
    n = int(len(text) * (1 - val_share))
    if isinstance(text, IdStore):
        return text.part(0, n), text.part(n, len(text))
    return text[:n], text[n:]


def as_ids(ids: Any) -> Any:
    """An array from whatever can be one; a store stays where it is. Raises ValueError for another shape than (n,)."""
    ids = ids if isinstance(ids, IdStore) else np.asarray(ids)
    check_shape(ids, ("n",), "ids")
    return ids


def blocks(ids: Ids | IdStore, size: int = 1 << 20) -> Iterator[NDArray[np.integer[Any]]]:
    """The ids in order, in arrays of at most `size`: for looking at all of them without having all in memory."""
    yield from (ids[start : start + size] for start in range(0, len(ids), size))


def _check_sizes(batch_size: int, seq_len: int) -> None:
    if min(batch_size, seq_len) < 1:
        raise ValueError(f"batch_size={batch_size} and seq_len={seq_len}: each must be at least 1. Try 1 or more")


def check_length(ids: Ids | IdStore, seq_len: int) -> None:
    """Raise ValueError when `ids` (n,) hold no window of `seq_len` and its successor."""
    check_shape(ids, ("n",), "ids")
    if len(ids) < seq_len + 1:
        raise ValueError(
            f"the text has {len(ids)} tokens: a window of max_seq_len={seq_len} and what comes next need {seq_len + 1}. "
            "Use a longer text" + (f" or max_seq_len={len(ids) - 1}" if len(ids) > 1 else "")
        )


def get_batch(ids: Ids | IdStore, batch_size: int, seq_len: int, generator: np.random.Generator) -> Batch:
    """Windows from random places; the targets are the inputs, one step later. Shapes: (batch, seq) each.

    Every start from 0 to len(ids) - seq_len - 1 is equally likely, the last one included: its final target is the
    text's last token. Raises ValueError when the text is too short, for sizes below 1, or another kind of generator.
    """
    _check_sizes(batch_size, seq_len)
    if not hasattr(generator, "integers"):
        kind = f"{type(generator).__module__}.{type(generator).__name__}"
        raise ValueError(f"generator is a {kind}: it must be a numpy.random.Generator. Pass np.random.default_rng(seed)")
    ids = as_ids(ids)
    check_length(ids, seq_len)
    return _from(ids, generator.integers(0, len(ids) - seq_len, size=batch_size), seq_len)  # the end is excluded


def _from(ids: Ids | IdStore, starts: NDArray[np.int64], seq_len: int) -> Batch:
    chunk = ids[starts[:, None] + np.arange(seq_len + 1)].astype(np.int64)  # (batch, seq + 1)
    return Batch(chunk[:, :-1], chunk[:, 1:])


def batch_at(
    ids: Ids | IdStore, batch_size: int, seq_len: int, seed: int, step: int, order: Literal["random", "shuffled"] = "random"
) -> Batch:
    """The batch of one step: a pure function of (seed, step), so resuming needs no memory and ranks take slices of it.

    random: `get_batch`. shuffled: the text is cut into windows that do not overlap, at another place in each epoch, and all of them come
    in a random order before the next epoch's. So each token is asked for equally often, but for those at the ends; with random windows,
    after three epochs' work one token in twenty has not been seen at all.
    """
    if order == "random":
        return get_batch(ids, batch_size, seq_len, np.random.default_rng([seed, step]))
    _check_sizes(batch_size, seq_len)
    ids = as_ids(ids)
    check_length(ids, seq_len)
    first, per_epoch = step * batch_size, windows_per_epoch(len(ids), seq_len)
    numbers = np.arange(first, first + batch_size)
    epochs = range(first // per_epoch, (first + batch_size - 1) // per_epoch + 1)
    starts = np.concatenate([shuffled_starts(len(ids), seq_len, seed, epoch) for epoch in epochs])
    return _from(ids, starts[numbers - epochs[0] * per_epoch], seq_len)


def windows_per_epoch(length: int, seq_len: int) -> int:
    """How many shuffled windows with their successors fit behind one another, wherever the first begins: at least 1."""
    return max(1, (length - seq_len) // seq_len)


@lru_cache(maxsize=4)
def shuffled_starts(length: int, seq_len: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Where the windows of one epoch begin, (windows_per_epoch,), in the order in which they come."""
    generator = np.random.default_rng([seed, seq_len, epoch])
    number = windows_per_epoch(length, seq_len)
    spare = length - 1 - number * seq_len  # tokens that no window of this epoch asks for
    starts = generator.integers(0, spare + 1) + seq_len * generator.permutation(number)
    starts.setflags(write=False)
    return starts


def windows(ids: Ids | IdStore, seq_len: int, batch_size: int, stride: int | None = None) -> Iterator[Batch]:
    """The whole text in order, for measuring: every token but the first is a target exactly once, in order.

    Each window begins `stride` tokens after the one before. By default that is seq_len: windows do not overlap, and the first
    targets of each are predicted from almost nothing, so the loss is too high. With a smaller stride windows overlap; a target
    that an earlier window has asked for is IGNORE, and all others have at least seq_len - stride tokens of context before their
    own input. The price is seq_len / stride times the work. This is sliding-window evaluation (Baevski & Auli 2019;
    Press et al. 2021, "Shortformer"; Hugging Face's guide to perplexity).

    The last window may be short: it is filled with zeros whose targets are IGNORE. The last batch may hold fewer rows. The text is
    read batch by batch. Raises ValueError for sizes below 1 and a stride outside 1 to seq_len.

    >>> [batch.targets.tolist() for batch in windows(np.arange(8), 4, 8, stride=2)]
    [[[1, 2, 3, 4], [-100, -100, 5, 6], [-100, -100, 7, -100]]]
    """
    _check_sizes(batch_size, seq_len)
    stride = seq_len if stride is None else stride
    if not 1 <= stride <= seq_len:
        raise ValueError(f"stride={stride}: it must lie in 1 to seq_len={seq_len}, or targets are left out. Try {max(1, seq_len // 2)}")
    ids = as_ids(ids)
    n = len(ids) - 1  # targets
    rows = 1 + -(-max(0, n - seq_len) // stride) if n > 0 else 0
    for first in range(0, rows, batch_size):
        starts = np.arange(first, min(first + batch_size, rows))[:, None] * stride  # (batch, 1)
        begin, end = int(starts[0, 0]), int(starts[-1, 0]) + seq_len + 1
        piece = np.full(end - begin, IGNORE, dtype=np.int64)
        piece[: len(ids) - begin] = ids[begin : min(end, len(ids))]
        chunk = piece[starts - begin + np.arange(seq_len + 1)]  # (batch, seq + 1)
        inputs, targets = chunk[:, :-1].copy(), chunk[:, 1:].copy()
        inputs[targets == IGNORE] = 0  # behind the end: a valid id
        targets[int(first == 0) :, : seq_len - stride] = IGNORE  # asked for by the window before
        yield Batch(inputs, targets)


if __name__ == "__main__":
    text = "to be or not to be"
    symbols = sorted(set(text))
    ids = np.array([symbols.index(c) for c in text])
    batch = get_batch(ids, 2, 8, np.random.default_rng(0))
    print("text", len(text), "inputs", batch.inputs.shape, "targets", batch.targets.shape)
    for inputs, targets in zip(*batch, strict=True):
        print("inputs ", " ".join(symbols[i] for i in inputs))
        print("targets", " ".join(symbols[i] for i in targets))
    for stride in (8, 4):
        asked = [(batch.targets != IGNORE).sum(1).tolist() for batch in windows(ids, 8, 4, stride)]
        print(f"windows of 8 every {stride}: targets asked for in each row", asked)
