"""A text as documents and lines, cut so that joining the pieces gives the same text again.

A document is what stands between blank lines, or between separators of your own (`<|endoftext|>`). What stands between two
documents is kept with the one before, so that documents can be left out or dealt to several files and nothing else changes.
Read before: nothing.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from tiny_transformer.config import check

_BLANK_LINES = re.compile(r"(?<![^\S\n])(?:[^\S\n]*+\n){2,}")  # the look-behind starts each run of white space once: linear time


class Piece(NamedTuple):
    """A document, and what stands between it and the next one."""

    body: str
    gap: str

    @property
    def key(self) -> str:
        """What makes two documents the same: the body without white space around it. Empty: no document at all."""
        return self.body.strip()


def split_documents(text: str, separator: str | None = None) -> list[Piece]:
    r"""The documents of `text` in order, by blank lines or by `separator` (taken literally); `join_documents` is the inverse.

    >>> split_documents("one\ntwo\n\nthree\n")
    [Piece(body='one\ntwo', gap='\n\n'), Piece(body='three\n', gap='')]

    Raises ConfigError for an empty separator.
    """
    if separator is None:
        ends = [(found.start(), found.end()) for found in _BLANK_LINES.finditer(text)]
        starts = [0, *(end for _, end in ends)]
        pieces = [Piece(text[start:stop], text[stop:end]) for start, (stop, end) in zip(starts, ends, strict=False)]
        return [*pieces, Piece(text[starts[-1] :], "")] if starts[-1] < len(text) else pieces
    check(separator != "", "an empty document separator", "it must be a text", "Try '<|endoftext|>', or leave it out for blank lines")
    bodies = text.split(separator)
    return [*(Piece(body, separator) for body in bodies[:-1]), *([Piece(bodies[-1], "")] if bodies[-1] else [])]


def join_documents(pieces: Iterable[Piece]) -> str:
    """The text of some documents, with what stood after each."""
    return "".join(part for piece in pieces for part in piece)


def without(pieces: list[Piece], left_out: set[int]) -> list[Piece]:
    """The documents whose places are not in `left_out`; the text ends as it ended before.

    >>> join_documents(without(split_documents("one\\n\\ntwo\\n"), {1}))
    'one\\n'
    """
    kept = [piece for place, piece in enumerate(pieces) if place not in left_out]
    if kept and len(pieces) - 1 in left_out:
        body, end = pieces[-1]
        kept[-1] = Piece(kept[-1].body, end or body[len(body.rstrip()) :])
    return kept


def split_lines(text: str) -> list[str]:
    """The lines, each with its line feed; the last may have none. Joined, they are the text. (`splitlines` cuts at 11 characters.)"""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


if __name__ == "__main__":
    play = "ROMEO:\nIt is the east.\n\nJULIET:\nAy me!\n"
    for piece in split_documents(play):
        print(piece)
    print("joined again:", join_documents(split_documents(play)) == play)
