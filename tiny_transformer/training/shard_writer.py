"""Writing shards: ids come in order, and each file knows its digest when its last byte is written.

Left out: where the ids come from, and that a folder is there whole or not at all (`token_writer.py`). Read before: `token_index.py`.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.training.token_index import (
    FORMAT,
    INDEX,
    STARTS_DTYPE,
    TOKENIZER,
    Index,
    Shard,
    canonical_json,
    ids_dtype,
    shard_name,
    tokenizer_hash,
)


class ShardWriter:
    """The shards of one folder while they are written: ids come in order, a full shard is closed and the next one opened."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, shard_tokens: int, *, append_eos: bool = True) -> None:
        """Write into `folder`, which is there. With `append_eos` the tokenizer's end token, if it has one, follows every document."""
        self._folder, self._tokenizer, self._shard_tokens = folder, tokenizer, shard_tokens
        self._vocab_size, self._eos = tokenizer.vocab_size, tokenizer.special.eos if append_eos else None
        self._dtype = ids_dtype(tokenizer.vocab_size)
        self._ids: HashedFile | None = None
        self._docs: HashedFile | None = None
        self._in_document = False
        self._entries: list[Shard] = []
        self.n_tokens = self.n_documents = 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._ids, self._docs):
            if file is not None:
                file.close()

    def add(self, ids: NDArray[np.integer[Any]]) -> None:
        """Ids (n,) of the document that is open; the first open one. Raises ConfigError for ids outside the vocabulary."""
        if not len(ids):
            return
        low, high = int(ids.min()), int(ids.max())
        must = f"vocab_size={self._vocab_size} allows 0 to {self._vocab_size - 1}"
        check(0 <= low <= high < self._vocab_size, f"the tokenizer gave ids {low} to {high}", must, "Mend the tokenizer")
        if not self._in_document:
            self._in_document = True
            self.n_documents += 1
            _, docs, room = self._with_room()
            docs.write(np.array([self._shard_tokens - room], dtype=STARTS_DTYPE).tobytes())
        ids = ids.astype(self._dtype)
        while len(ids):
            file, _, room = self._with_room()
            file.write(ids[:room].tobytes())
            self.n_tokens += len(ids[:room])
            ids = ids[room:]

    def end_document(self) -> None:
        """The next ids are another document's. Without ids there was none."""
        if self._in_document and self._eos is not None:
            self.add(np.array([self._eos]))
        self._in_document = False

    def _with_room(self) -> "tuple[HashedFile, HashedFile, int]":
        """The files of a shard that is not full, and how many ids it still takes."""
        if self._ids is not None and self._ids.size == self._shard_tokens * self._dtype.itemsize:
            self._close_shard()
        if self._ids is None or self._docs is None:
            name = shard_name(len(self._entries))
            self._ids, self._docs = HashedFile(self._folder / f"{name}.bin"), HashedFile(self._folder / f"{name}.docs.bin")
        return self._ids, self._docs, self._shard_tokens - self._ids.size // self._dtype.itemsize

    def _close_shard(self) -> None:
        if self._ids is None or self._docs is None:
            return
        n_tokens, n_documents = self._ids.size // self._dtype.itemsize, self._docs.size // STARTS_DTYPE.itemsize
        self._entries.append(Shard(shard_name(len(self._entries)), n_tokens, n_documents, self._ids.finish(), self._docs.finish()))
        self._ids = self._docs = None

    def finish(self) -> Index:
        """Close the last shard, write the tokenizer and the index, bring all to the disk. Raises ConfigError where there are no ids."""
        self.end_document()
        self._close_shard()
        check(bool(self._entries), "the sources hold no text", "there must be at least one token", "Choose other sources")
        index = Index(
            FORMAT, self._dtype.str, self._vocab_size, self._eos, self.n_tokens, self.n_documents, self._shard_tokens,
            tokenizer_hash(self._tokenizer), tuple(self._entries),
        )  # fmt: skip
        for name, data in ((TOKENIZER, canonical_json(self._tokenizer.to_dict())), (INDEX, index.to_json().encode())):
            file = HashedFile(self._folder / name)
            file.write(data)
            file.finish()
        _sync_folder(self._folder)
        return index


class HashedFile:
    """A new file that knows its size and SHA-256."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("xb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def finish(self) -> str:
        """Bring it to the disk, close it; its SHA-256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        return self._hash.hexdigest()

    def close(self) -> None:
        """Close it, whole or not."""
        self._file.close()


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    if os.name == "posix":  # Windows cannot open a directory
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


if __name__ == "__main__":
    import tempfile

    from tiny_transformer.tokenization.char import CharTokenizer

    tokenizer = CharTokenizer.train("abcdefg")
    with tempfile.TemporaryDirectory() as folder, ShardWriter(Path(folder), tokenizer, shard_tokens=5) as shards:
        for document in ("abc", "defg"):
            shards.add(tokenizer.encode_array(document))
            shards.end_document()
        for shard in shards.finish().shards:
            ids, starts = (np.fromfile(Path(folder) / f"{shard.name}{end}", t) for end, t in ((".bin", "<u2"), (".docs.bin", "<u8")))
            print(f"{shard.name}: ids {ids.tolist()}, documents begin at {starts.tolist()}, SHA-256 {shard.sha256[:12]}…")
