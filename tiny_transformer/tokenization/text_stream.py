"""Text that comes in chunks, cut into the same pieces as if it had come whole, without ever holding all of it.

A chunk may end inside a character's surrogate pair, a special token or a word; each of these waits for its other half.
Left out: what a piece is (`splitting.py`), and what becomes of it. Read before: `special_tokens.py`, `splitting.py`.
"""

import codecs
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from tiny_transformer.tokenization.special_tokens import split_special_stream
from tiny_transformer.tokenization.splitting import well_formed

BLOCK = 1 << 16
"""Characters that are split at a time."""


def join_surrogates(chunks: Iterable[str]) -> Iterator[str]:
    """`well_formed` of the joined chunks, in chunks: the first half of a surrogate pair waits for the second."""
    held = ""
    for chunk in chunks:
        held += chunk
        if held and not "\ud800" <= held[-1] <= "\udbff":
            yield well_formed(held)
            held = ""
    if held:
        yield well_formed(held)


class CanSplit(Protocol):
    """What `split_stream` needs: `Splitter`, and others with their own idea of a piece."""

    def split(self, text: str) -> list[str]:
        """All pieces of a well-formed text."""
        ...

    def settled(self, text: str) -> tuple[list[str], str]:
        """The pieces that stay the same whatever follows, and the rest."""
        ...


def split_stream(chunks: Iterable[str], special: Collection[str], splitter: CanSplit) -> Iterator[list[str] | str]:
    """The pieces of the joined chunks in lists, and special tokens as strings, in order; wherever the chunks are cut.

    Memory: the longest piece, and a block. What is not settled waits until the text has doubled, so waiting stays cheap.
    """
    waiting: list[str] = []
    size, enough = 0, BLOCK
    for part, is_special in split_special_stream(join_surrogates(chunks), special):
        if is_special:
            yield splitter.split("".join(waiting))
            yield part
            waiting, size, enough = [], 0, BLOCK
            continue
        waiting.append(part)
        size += len(part)
        if size >= enough:
            pieces, rest = splitter.settled("".join(waiting))
            yield pieces
            waiting, size, enough = [rest], len(rest), max(BLOCK, 2 * len(rest))
    yield splitter.split("".join(waiting))


def slices(text: str, size: int = 1 << 18) -> Iterator[str]:
    """A long text in chunks, so that its pieces need not all be in memory at once."""
    return (text[begin : begin + size] for begin in range(0, len(text), size))


def text_chunks(path: str | os.PathLike[str], size: int = 1 << 20) -> Iterator[str]:
    """A UTF-8 file in chunks, line ends as they are. Raises ValueError where it is empty or not UTF-8, with the place."""
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with Path(path).open("rb") as file:
        while True:
            data = file.read(size)
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                place = done - held + error.start
                got = f"{path}: byte {place} (0x{error.object[error.start]:02X})"
                raise ValueError(f"{got} is not UTF-8: the text must be. Convert the file") from error
            done += len(data)
            if text:
                yield text
            if not data:
                break
    if done == 0:
        raise ValueError(f"{path}: the file is empty: there is nothing to learn from. Pass a file with some text")


if __name__ == "__main__":
    from tiny_transformer.tokenization.splitting import Splitter

    BLOCK = 8  # so small that something can be seen
    for part in split_stream(["To be, or n", "ot to be<", "|end|", ">That is"], ["<|end|>"], Splitter("gpt2")):
        print(part)
