"""Token files: the ids of a text on disk, in shards that are read in place, never loaded as a whole.

    tokens/
    ├── index.json            what is here: types, counts, the SHA-256 of every other file; written last
    ├── tokenizer.json        the tokenizer's `to_dict`, so that the ids can be read without anything else
    ├── shard-00000.bin       ids, little-endian uint16 (vocabularies up to 65,536) or uint32, and nothing else
    ├── shard-00000.docs.bin  where documents begin: places in this shard, little-endian uint64
    └── shard-00001.bin …     all shards but the last are full, so place i lies in shard i // shard_tokens

The header is one file beside the shards, not the first bytes of each: a shard is then a plain array that NumPy maps from byte 0
(as nanoGPT's train.bin), and the digests in the header are known only after the last id. A document may go on in the next shard.

Left out: writing (`token_writer.py`), the index (`token_index.py`). Read before: `dataset.py`.
"""

import copy
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tiny_transformer import tokenization
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.training.dataset import IdStore
from tiny_transformer.training.token_index import INDEX, STARTS_DTYPE, TOKENIZER, TokenFilesError, read_bytes, read_index

_AT_ONCE = 1 << 20
"""How many ids are looked at at once when files are verified."""


class TokenFiles(IdStore):
    """The ids of a folder of token files as one sequence, read from disk where they are asked for.

    `files[i]`, `files[a:b]` and `files[array_of_places]` give what one long array would give, across the edges of shards. It
    serves as `ids` in `batch_at`, `get_batch`, `windows` and `split` of `dataset.py`, and as `documents` in `packing.pack` by
    way of `files.documents()`.

    >>> files = TokenFiles("tokens")                     # doctest: +SKIP
    >>> files.tokenizer().decode(files[:40])             # doctest: +SKIP
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open the folder. Sizes are compared with the index; `verify` reads everything. Raises TokenFilesError."""
        self.folder = Path(folder)
        self.index = read_index(self.folder)
        self.dtype = np.dtype(self.index.dtype)
        self._shards = [_map(self.folder / f"{shard.name}.bin", self.dtype, shard.n_tokens) for shard in self.index.shards]
        self._docs = [_map(self.folder / f"{shard.name}.docs.bin", STARTS_DTYPE, shard.n_documents) for shard in self.index.shards]
        self._start, self._stop = 0, self.index.n_tokens

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, where: Any) -> Any:
        """Ids as a new array of the files' type; for a whole number the id as an int. Raises IndexError beyond the ends."""
        if isinstance(where, slice):
            start, stop, step = where.indices(len(self))
            return self._read(start, max(start, stop)) if step == 1 else self[np.arange(start, stop, step)]
        places = np.asarray(where)
        if places.dtype.kind not in "iu":
            raise IndexError(f"token files were asked for {where!r}: they give ids at whole numbers and slices")
        if places.size and not -len(self) <= int(places.min()) <= int(places.max()) < len(self):
            raise IndexError(f"places {places.min()} to {places.max()}: these token files hold {len(self)} ids")
        ids = self._gather(np.where(places < 0, places + len(self), places).astype(np.int64) + self._start)
        return ids if ids.ndim else int(ids)

    def __iter__(self) -> Iterator[int]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self[start : start + _AT_ONCE].tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All ids in memory."""
        ids: NDArray[Any] = self._read(0, len(self))
        return ids if dtype is None else ids.astype(dtype)

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        """Neighbouring ids: pieces of one shard after the other."""
        start, stop, size = start + self._start, stop + self._start, self.index.shard_tokens
        out = np.empty(stop - start, dtype=self.dtype)
        for shard in range(start // size, -(-stop // size)):
            low, high = max(start, shard * size), min(stop, (shard + 1) * size)
            out[low - start : high - start] = self._shards[shard][low - shard * size : high - shard * size]
        return out

    def _gather(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Ids at any places (…) of the whole folder."""
        shards, inside = np.divmod(places, self.index.shard_tokens)
        out = np.empty(places.shape, dtype=self.dtype)
        for shard in np.unique(shards):
            here = shards == shard
            out[here] = self._shards[shard][inside[here]]
        return out

    def part(self, start: int, stop: int) -> Self:
        """The ids from `start` to `stop` as token files of their own; nothing is read. Raises ValueError beyond the ends."""
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"part({start}, {stop}): these token files hold {len(self)} ids, so it must be 0 ≤ start ≤ stop ≤ {len(self)}")
        part = copy.copy(self)
        part._start, part._stop = self._start + start, self._start + stop
        return part

    @property
    def document_starts(self) -> NDArray[np.int64]:
        """Where documents begin, rising. A part that begins inside a document begins with the rest of it."""
        firsts = [np.asarray(docs, dtype=np.int64) + i * self.index.shard_tokens for i, docs in enumerate(self._docs)]
        starts = np.concatenate(firsts) - self._start
        inside = starts[(starts > 0) & (starts < len(self))]
        return np.concatenate([np.zeros(int(len(self) > 0), dtype=np.int64), inside])

    def documents(self) -> "Documents":
        """The documents, each read when it is asked for."""
        return Documents(self)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the ids are from. Raises TokenFilesError where its file is damaged."""
        path = self.folder / TOKENIZER
        text = read_bytes(path)
        if hashlib.sha256(text).hexdigest() != self.index.tokenizer_sha256:
            raise TokenFilesError(f"{path} is damaged: its SHA-256 is not the index's. Write the token files again")
        return tokenization.from_dict(json.loads(text))  # type: ignore[no-any-return]


class Documents:
    """A sequence of documents: `documents[i]` is one, its end token included where there is one, and `documents[i][:]` its ids.

    A document can be larger than memory, so it stays on disk until ids of it are asked for.
    """

    def __init__(self, files: TokenFiles) -> None:
        self._files, self._edges = files, np.append(files.document_starts, len(files))

    def __len__(self) -> int:
        return len(self._edges) - 1

    def __getitem__(self, i: int) -> TokenFiles:
        if not -len(self) <= i < len(self):
            raise IndexError(f"document {i}: there are {len(self)}")
        i %= len(self)
        return self._files.part(int(self._edges[i]), int(self._edges[i + 1]))

    def __iter__(self) -> Iterator[TokenFiles]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many ids each has; nothing is read."""
        return np.diff(self._edges)


def verify(folder: str | os.PathLike[str]) -> TokenFiles:
    """Read every byte, in flat memory: digests, sizes, ids below vocab_size, document starts, the tokenizer. Returns the files.

    Raises TokenFilesError, one line with the name of the first file that is damaged.
    """
    files = TokenFiles(folder)
    for number, shard in enumerate(files.index.shards):
        path, docs_path = files.folder / f"{shard.name}.bin", files.folder / f"{shard.name}.docs.bin"
        for file, digest in ((path, shard.sha256), (docs_path, shard.docs_sha256)):
            if _digest(file) != digest:
                raise TokenFilesError(f"{file} is damaged: its SHA-256 is not the index's. Write the token files again")
        ids, starts = files._shards[number], np.asarray(files._docs[number], dtype=np.int64)
        largest = max(int(ids[i : i + _AT_ONCE].max()) for i in range(0, len(ids), _AT_ONCE))
        if largest >= files.index.vocab_size:
            must = f"the vocabulary has ids 0 to {files.index.vocab_size - 1}"
            raise TokenFilesError(f"{path} holds id {largest}: {must}. Write the token files again")
        rising = bool((np.diff(starts) > 0).all()) and (not len(starts) or 0 <= starts[0] <= starts[-1] < len(ids))
        if not rising or (number == 0 and (not len(starts) or starts[0] != 0)):
            raise TokenFilesError(f"{docs_path} is damaged: its places do not rise from 0 within the shard. Write the token files again")
    tokenizer = files.tokenizer()
    if tokenizer.vocab_size != files.index.vocab_size or files.index.eos not in (None, tokenizer.special.eos):
        raise TokenFilesError(f"{files.folder / TOKENIZER} does not belong to {INDEX}: another vocab_size or eos. Write them again")
    return files


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _map(path: Path, dtype: "np.dtype[Any]", n: int) -> NDArray[Any]:
    """A file of `n` numbers as a read-only array, in place. Raises TokenFilesError when it has another size."""
    try:
        size = path.stat().st_size
        if size != n * dtype.itemsize:
            raise TokenFilesError(f"{path} has {size} bytes: the index says {n * dtype.itemsize}. Write the token files again")
        return np.asarray(np.memmap(path, dtype=dtype, mode="r")) if n else np.zeros(0, dtype=dtype)  # an empty file cannot be mapped
    except OSError as error:
        raise TokenFilesError(f"{path} cannot be read: {error.strerror}. Write the token files again") from None


if __name__ == "__main__":
    import tempfile

    from tiny_transformer.tokenization.char import CharTokenizer
    from tiny_transformer.training.dataset import batch_at
    from tiny_transformer.training.shard_writer import ShardWriter

    text = "to be or not to be, that is the question"
    tokenizer = CharTokenizer.train(text)
    with tempfile.TemporaryDirectory() as name:
        with ShardWriter(Path(name), tokenizer, shard_tokens=12) as shards:
            for document in text.split(", "):
                shards.add(tokenizer.encode_array(document))
                shards.end_document()
            shards.finish()
        files = verify(name)
        print(len(files), "ids in shards of", [shard.n_tokens for shard in files.index.shards], "documents at", files.document_starts)
        print("across the edge:", repr(tokenizer.decode(files[8:18])), "documents:", [tokenizer.decode(d) for d in files.documents()])
        print("a batch:", [tokenizer.decode(row) for row in batch_at(files, 3, 10, seed=0, step=0).inputs])
