"""Several documents in one row: less padding than a row each, and no document looks into another.

Two ways to fill rows:

- *sequential*: documents one after the other, cut wherever a row is full. No padding but at the very end, but many documents
  are cut, and the part in the next row has lost its beginning.
- *best-fit* (Ding et al. 2024, "Fewer Truncations Improve Language Modeling", section 3): only documents longer than a row are
  cut, into full rows and a rest; each rest and each short document goes, the longest first, into the row with the least
  room that still holds it. A little padding, and no document is cut that fits.

By hand, rows of 6, documents of 4, 3, 2, 3 tokens:

    sequential   A A A A B B | B C C D D D       B is cut, nothing is padded
    best-fit     A A A A C C | B B B D D D       nothing is cut

Rows can be used in two ways. Without a mask the model sees the documents before (as GPT-2 and GPT-3 were trained). With
`document_mask` each token sees its own document only, so that a packed row gives the logits of the documents alone: exactly so
with rotary, ALiBi or no positions, where distance is all that counts. Learned and sinusoidal positions count from the row's
start: there the model would need `positions` of its own for each document, which `hidden` does not take.

Left out: attention (`attention.py`). Read before: `dataset.py`.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check, check_choice
from tiny_transformer.training.dataset import IGNORE, Batch

Method = Literal["best-fit", "sequential"]
NO_DOCUMENT = -1
"""Where a row holds padding."""


class Documents(Protocol):
    """Ids of documents: a list of arrays, or `TokenFiles.documents()`, of which only the rows at hand are read."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


class Piece(NamedTuple):
    """`length` tokens of one document from `start`."""

    document: int
    start: int
    length: int


class Packed(NamedTuple):
    """Rows of several documents."""

    batch: Batch
    """inputs 0 and targets IGNORE where there is padding."""
    documents: NDArray[np.int64]
    """(batch, seq): the number of the document at each place, NO_DOCUMENT where there is padding."""


def plan_rows(lengths: Sequence[int] | NDArray[np.integer[Any]], seq_len: int, method: Method = "best-fit") -> list[list[Piece]]:
    """Which pieces of documents of these lengths make each row of `seq_len`. Every token is in exactly one piece.

    Rows are in the order of their first documents, and pieces in the order of the documents. Raises ConfigError for a
    seq_len below 1 and an unknown method.

    >>> [[(piece.document, piece.length) for piece in row] for row in plan_rows([4, 3, 2, 3], 6)]
    [[(0, 4), (2, 2)], [(1, 3), (3, 3)]]
    """
    check(seq_len >= 1, f"seq_len={seq_len}", "it must be at least 1", "Try 256")
    check_choice("method", method, get_args(Method))
    sizes = [int(length) for length in lengths]
    rows = _best_fit(sizes, seq_len) if method == "best-fit" else _sequential(sizes, seq_len)
    return sorted(sorted(row) for row in rows)


def _sequential(lengths: list[int], seq_len: int) -> list[list[Piece]]:
    rows: list[list[Piece]] = []
    room = 0
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            if room == 0:
                rows.append([])
                room = seq_len
            size = min(room, length - start)
            rows[-1].append(Piece(document, start, size))
            start, room = start + size, room - size
    return rows


def _best_fit(lengths: list[int], seq_len: int) -> list[list[Piece]]:
    """Best-fit decreasing. Rows wait in one list for each amount of room, so a piece finds its row in O(log seq_len)."""
    rows = [[Piece(document, start, seq_len)] for document, n in enumerate(lengths) for start in range(0, n - seq_len + 1, seq_len)]
    rests = [Piece(document, n - n % seq_len, n % seq_len) for document, n in enumerate(lengths) if n % seq_len]
    waiting: dict[int, list[list[Piece]]] = {}  # room → rows with exactly that much
    rooms: list[int] = []  # those that some row has, rising
    for piece in sorted(rests, key=lambda piece: -piece.length):  # a stable sort: of equal ones the first document leads
        place = bisect_left(rooms, piece.length)
        if place < len(rooms):
            room = rooms[place]
            row = waiting[room].pop()
            if not waiting[room]:
                del rooms[place]
        else:
            room, row = seq_len, []
            rows.append(row)
        row.append(piece)
        left = room - piece.length
        if left:
            if not waiting.setdefault(left, []):
                insort(rooms, left)
            waiting[left].append(row)
    return rows


def pack(documents: Documents, seq_len: int, method: Method = "best-fit", *, across: bool = False) -> Packed:
    """All rows of `documents` (each (n,) ids) at once; `packed_batches` gives them batch by batch.

    Each token is an input once. Its target is the next token of its document, also where that stands in another row, so no
    target is lost to a cut. At the end of a document the target is IGNORE; with `across` it is the first token of the next
    document in the row, if there is one (for rows without a mask, where that can be guessed at). No token is a target twice.

    >>> packed = pack([np.array([5, 6, 7]), np.array([8, 9])], 6)
    >>> packed.batch.inputs.tolist(), packed.batch.targets.tolist()
    ([[5, 6, 7, 8, 9, 0]], [[6, 7, -100, 9, -100, -100]])
    >>> packed.documents.tolist(), positions(packed.documents).tolist()
    ([[0, 0, 0, 1, 1, -1]], [[0, 1, 2, 0, 1, 0]])
    """
    return _fill(plan_rows(_lengths(documents), seq_len, method), documents, seq_len, across)


def packed_batches(
    documents: Documents, seq_len: int, batch_size: int, method: Method = "best-fit", *, across: bool = False, seed: int | None = None
) -> Iterator[Packed]:
    """The rows of `pack`, `batch_size` at a time; each document is read when its row comes, so token files stay on disk.

    In the order of the documents, or shuffled by `seed`. The last batch may hold fewer rows.
    """
    check(batch_size >= 1, f"batch_size={batch_size}", "it must be at least 1", "Try 32")
    rows = plan_rows(_lengths(documents), seq_len, method)
    order = np.arange(len(rows)) if seed is None else np.random.default_rng(seed).permutation(len(rows))
    for first in range(0, len(rows), batch_size):
        yield _fill([rows[i] for i in order[first : first + batch_size]], documents, seq_len, across)


def _lengths(documents: Documents) -> Any:
    lengths = getattr(documents, "lengths", None)
    return [len(documents[i]) for i in range(len(documents))] if lengths is None else lengths


def _fill(rows: list[list[Piece]], documents: Documents, seq_len: int, across: bool) -> Packed:
    inputs = np.zeros((len(rows), seq_len), dtype=np.int64)
    targets = np.full((len(rows), seq_len), IGNORE, dtype=np.int64)
    numbers = np.full((len(rows), seq_len), NO_DOCUMENT, dtype=np.int64)
    for row, pieces in enumerate(rows):
        end = 0
        for piece in pieces:
            begin, end = end, end + piece.length
            ids = np.asarray(documents[piece.document][piece.start : piece.start + piece.length + 1])  # and the next, if there is one
            inputs[row, begin:end] = ids[: piece.length]
            targets[row, begin : begin + len(ids) - 1] = ids[1:]
            numbers[row, begin:end] = piece.document
            if across and begin and piece.start == 0:
                targets[row, begin - 1] = ids[0]
    return Packed(Batch(inputs, targets), numbers)


def document_numbers(starts: Sequence[int] | NDArray[np.integer[Any]], places: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The number of the document at each of `places` (…), where document i begins at `starts[i]` (rising).

    For rows cut from a long text whose documents are known: `document_numbers(files.document_starts, row_starts + np.arange(seq))`.
    """
    return np.searchsorted(np.asarray(starts), places, side="right").astype(np.int64) - 1


def numbers_by_eos(inputs: NDArray[np.integer[Any]], eos: int) -> NDArray[np.int64]:
    """Documents counted from 0 in each row of inputs (batch, seq); the end token `eos` is the last of its document.

    >>> numbers_by_eos(np.array([[7, 8, 0, 5, 0, 6]]), eos=0).tolist()
    [[0, 0, 0, 1, 1, 2]]
    """
    ends = np.asarray(inputs) == eos
    numbers: NDArray[np.int64] = (np.cumsum(ends, axis=-1) - ends).astype(np.int64)
    return numbers


def document_mask(documents: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Who may look at whom, from the document's number at each place (batch, seq): (batch, seq, seq), True = may look.

    Blocks on the diagonal; the model's own mask (causal) comes on top. Padding sees padding only, so no row is without
    anything to look at. Pass it on as `model.hidden(ids, torch.from_numpy(mask))`.

    >>> document_mask(np.array([[0, 0, 1, -1]])).astype(int).tolist()
    [[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]
    """
    documents = np.asarray(documents)
    mask: NDArray[np.bool_] = documents[:, :, None] == documents[:, None, :]
    return mask


def positions(documents: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Places counted from 0 within each run of one document: (batch, seq) to (batch, seq)."""
    documents = np.asarray(documents)
    places = np.broadcast_to(np.arange(documents.shape[1]), documents.shape)
    begins = np.ones(documents.shape, dtype=bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return (places - np.maximum.accumulate(np.where(begins, places, 0), axis=1)).astype(np.int64)


if __name__ == "__main__":
    lengths = np.random.default_rng(0).geometric(1 / 60, size=2000)
    print(f"{len(lengths)} documents of {lengths.mean():.0f} tokens on average in rows of 256")
    for method in get_args(Method):
        rows = plan_rows(lengths, 256, method)
        cut = {piece.document for row in rows for piece in row if piece.length < lengths[piece.document] <= 256}
        padding = 1 - lengths.sum() / (256 * len(rows))
        print(f"{method:10} {len(rows)} rows, {padding:6.2%} padding, {len(cut)} documents cut that would fit a row")
    packed = pack([np.array([1, 2, 3]), np.array([4, 5])], 6)
    print("inputs", packed.batch.inputs[0], "targets", packed.batch.targets[0])
    print("documents", packed.documents[0], "positions", positions(packed.documents)[0])
    print(document_mask(packed.documents)[0].astype(int))
