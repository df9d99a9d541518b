"""Text of any size to token files: read in pieces, encoded in parallel, written in order, in memory that does not grow.

A piece is cut at document ends, or inside a document where `safe_cut` proves that the ids come out the same. Documents that
cannot be cut so go through the tokenizer's `encode_iterable`. So the files are those of encoding each document whole, byte for byte,
for any number of workers and any size of piece.

Left out: what the files look like (`token_index.py`, `token_files.py`). Read before: `document_pieces.py`,
`shard_writer.py`.
"""

import os
import secrets
import shutil
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiny_transformer import tokenization
from tiny_transformer.config import ConfigError, check
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.training.document_pieces import SafeCut, Segment, Source, listed, read_segments, total_bytes
from tiny_transformer.training.shard_writer import ShardWriter
from tiny_transformer.training.token_files import TokenFiles
from tiny_transformer.utils.atomic import rename_durably

PIECE_CHARS = 1 << 18
"""How much text is encoded at once: large enough that handing it to a process costs little, small enough to hold many."""
_IDS_AT_ONCE = 1 << 16


class Progress(NamedTuple):
    """How far writing has come; handed to `progress` after every piece."""

    bytes_read: int
    bytes_total: int | None
    """None where the texts come one by one."""
    n_tokens: int
    n_documents: int


def write_token_files(
    sources: Source | Iterable[Source], tokenizer: Tokenizer, folder: str | os.PathLike[str], *, shard_tokens: int = 100_000_000,
    workers: int = 1, document_separator: str | None = None, append_eos: bool = True, piece_chars: int = PIECE_CHARS,
    progress: Callable[[Progress], None] | None = None,
) -> TokenFiles:  # fmt: skip
    """Encode `sources` into a new `folder` of token files, and open it.

    `sources`: a `Path` (a UTF-8 file), a string (a text), or any number of these; nothing is changed in them but a byte order
    mark at a file's start, which goes. Each is one document, or with `document_separator` ("<|endoftext|>", "\\n\\n" for blank
    lines) as many as the separator cuts it into, as `str.split` does; the separator itself is no part of them. Documents without
    ids are left out. With `append_eos` the tokenizer's end token, if it has one, follows every document.

    `workers`: processes that encode; the tokenizer reaches them as its `to_dict`, so its kind must be a known one, and a
    script needs its `if __name__ == "__main__":`. `shard_tokens`: ids in a shard. `piece_chars` changes speed and memory, never a byte
    of the files. About 2 · workers + 2 pieces are held at once.

    The folder appears under its name when it is whole, and not at all on any failure or Ctrl-C. Raises ConfigError, one line, when
    the folder is there already, a file is missing or not UTF-8, there is no text, or the tokenizer cannot encode it; OSError when
    the disk is full or may not be written to.

    >>> write_token_files(Path("corpus.txt"), tokenizer, "tokens", document_separator="<|endoftext|>", workers=4)  # doctest: +SKIP
    """
    for name, value in (("shard_tokens", shard_tokens), ("workers", workers), ("piece_chars", piece_chars)):
        check(isinstance(value, int) and value >= 1, f"{name}={value}", "it must be a whole number of at least 1", f"Leave {name} out")
    check(document_separator != "", "document_separator=''", "it must be a text that stands between documents", "Use None for none")
    sources = listed(sources)
    target, total = Path(folder), total_bytes(sources)
    check(not os.path.lexists(target), f"{target} is there already", "token files are written to a new folder", "Choose another name")
    segments = read_segments(sources, document_separator, piece_chars, SafeCut(tokenizer))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        with ShardWriter(temporary, tokenizer, shard_tokens, append_eos=append_eos) as shards:
            with closing(_encode_all(segments, tokenizer, shards, workers, piece_chars)) as encoded:  # ends the processes on any error
                for bytes_read in encoded:
                    if progress is not None:
                        progress(Progress(bytes_read, total, shards.n_tokens, shards.n_documents))
            shards.finish()
        check(not os.path.lexists(target), f"{target} has appeared meanwhile", "it is not replaced", "Choose another name")
        rename_durably(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already when all went well
    return TokenFiles(target)


Encoded = tuple[NDArray[np.integer[Any]], list[int]]
"""The ids of several texts, joined, and how many each has."""


def _encode_all(
    segments: Iterator[Segment], tokenizer: Tokenizer, shards: ShardWriter, workers: int, piece_chars: int
) -> Generator[int, None, None]:
    """Encode all segments and add them to `shards` in order; after each piece yield how many bytes had been read for it."""
    pending: deque[tuple[list[Segment], Callable[[], Encoded]]] = deque()

    def write(most: int) -> Iterator[int]:
        """Write the oldest pieces, waiting for their ids, until `most` are left."""
        while len(pending) > most:
            piece, result = pending.popleft()
            ids, lengths = result()
            ends = np.cumsum(lengths).tolist()
            for segment, begin, end in zip(piece, [0, *ends], ends, strict=False):
                shards.add(ids[begin:end])
                if segment.ends:
                    shards.end_document()
            yield piece[-1].bytes_read

    with _Encoders(tokenizer, workers) as encoders:
        for piece in _bundle(segments, piece_chars):
            if piece[-1].safe:
                pending.append((piece, encoders.submit(piece)))
                yield from write(0 if workers == 1 else 2 * workers + 1)
            else:
                yield from write(0)
                yield from _stream(piece[0], segments, tokenizer, shards)
        yield from write(0)


def _bundle(segments: Iterator[Segment], piece_chars: int) -> Iterator[list[Segment]]:
    """Neighbouring segments, together about `piece_chars`. A segment that must not be encoded alone comes alone."""
    piece: list[Segment] = []
    size = 0
    for segment in segments:
        if piece and (size + len(segment.text) > piece_chars or not segment.safe):
            yield piece
            piece, size = [], 0
        piece.append(segment)
        size += len(segment.text)
        if not segment.safe:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _stream(first: Segment, segments: Iterator[Segment], tokenizer: Tokenizer, shards: ShardWriter) -> Iterator[int]:
    """A document that goes on where no safe place was found: encode it in order up to the next safe place, or to its end."""
    last = first

    def texts() -> Iterator[str]:
        nonlocal last
        yield first.text
        while not last.safe:
            last = next(segments)
            yield last.text

    stream = getattr(tokenizer, "encode_iterable", None)
    try:
        ids = iter(stream(texts()) if stream is not None else tokenizer.encode("".join(texts())))
        while batch := list(islice(ids, _IDS_AT_ONCE)):
            shards.add(np.array(batch, dtype=np.int64))
            yield last.bytes_read
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(_where(first, error)) from None
    if last.ends:
        shards.end_document()
    yield last.bytes_read


def _where(segment: Segment, error: ValueError) -> str:
    begin = f" (counted from character {segment.start} of the file)" if segment.start else ""
    return f"{segment.source}{begin}: {error}"


def _encode(tokenizer: Tokenizer, piece: Sequence[Segment]) -> Encoded:
    """Raises ConfigError naming the source of what cannot be encoded: it can travel between processes, unlike the tokenizer's own."""
    arrays = []
    for segment in piece:
        try:
            arrays.append(np.asarray(tokenizer.encode_array(segment.text)))
        except ValueError as error:
            raise ConfigError(_where(segment, error)) from None
    return np.concatenate(arrays), [len(array) for array in arrays]


class _Encoders:
    """`submit(piece)` gives a function that waits for the piece's ids: from other processes, or with one worker from this one."""

    def __init__(self, tokenizer: Tokenizer, workers: int) -> None:
        self._tokenizer = tokenizer
        self._pool: ProcessPoolExecutor | None = None
        if workers > 1:
            values = tokenizer.to_dict()
            tokenization.from_dict(values)  # an unknown kind is a line here, and a broken pool in a worker
            # spawn, not fork: a forked process inherits the threads' locks, held or not
            self._pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(values,))

    def __enter__(self) -> "_Encoders":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, piece: list[Segment]) -> Callable[[], Encoded]:
        """Begin to encode; the function that is returned waits for the result."""
        if self._pool is None:
            return lambda: _encode(self._tokenizer, piece)
        try:
            future: Future[Encoded] = self._pool.submit(_encode_in_worker, piece)
        except BrokenProcessPool:
            raise _broken() from None

        def result() -> Encoded:
            try:
                return future.result()
            except BrokenProcessPool:
                raise _broken() from None

        return result


def _broken() -> ConfigError:
    must = 'it must be able to start, and a script needs `if __name__ == "__main__":`'
    return ConfigError(f"a process that encodes has ended: {must}. Use workers=1 to do without")


_worker: list[Tokenizer] = []
"""The tokenizer of a worker process."""


def _start_worker(values: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's business
    _worker.append(tokenization.from_dict(values))


def _encode_in_worker(piece: list[Segment]) -> Encoded:
    return _encode(_worker[0], piece)


if __name__ == "__main__":
    import tempfile

    from tiny_transformer.tokenization.char import CharTokenizer
    from tiny_transformer.training.token_files import verify

    text = "Once upon a time.<|end|>There was a king who had three daughters and no hat.<|end|>The end."
    with tempfile.TemporaryDirectory() as name:
        files = write_token_files(
            text, CharTokenizer.train(text), Path(name) / "tokens", shard_tokens=40, document_separator="<|end|>", progress=print
        )
        print(*sorted(path.name for path in files.folder.iterdir()))
        for shard in files.index.shards:
            print(f"{shard.name}: {shard.n_tokens} ids, {shard.n_documents} documents begin, SHA-256 {shard.sha256[:12]}…")
        print("documents:", [files.tokenizer().decode(document) for document in files.documents()])
        print("verified:", len(verify(files.folder)), "ids")
