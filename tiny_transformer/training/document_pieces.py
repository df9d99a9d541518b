r"""Text files and texts as a stream of documents, long ones in pieces that can be encoded apart.

Where may a document be cut, so that the ids of the parts, joined, are the ids of the whole? Not anywhere: "to|day" may be one token.
Between a letter or digit and the space or line end behind it nearly every tokenizer ends a token whatever comes before and after:

    character   anywhere                          every character is a token
    byte        such a place                      (anywhere but inside a character or a special token)
    word        such a place                      words end at white space
    WordPiece   such a place                      BERT splits at white space first
    BPE         such a place, with a pattern      GPT-2's and GPT-4's patterns end a run of letters or digits there, and let a space
                                                  only begin a piece; with no pattern a merge may reach over any place
    Unigram     such a place, if words begin      a piece never reaches over "▁" or a line end; but an extra "▁" that is put before
                at spaces and lines are apart     the text (SentencePiece's habit) would stand before every part

Left out: encoding (`token_writer.py`). Read before: `tokenization/base.py`.
"""

import codecs
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import regex

from tiny_transformer.config import ConfigError, check
from tiny_transformer.corpora.textfile import nearest_path
from tiny_transformer.tokenization.base import Tokenizer

Source = str | os.PathLike[str]
"""A path object is a UTF-8 file, a string is a text."""

_PLACE = regex.compile(r"(?r)(?<=[\p{L}\p{N}])(?=[ \n])")
_LOCAL = {"BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"}
"""Normalizations that change a character by what stands beside it at most, never across white space."""
_AROUND = 64
"""How many characters on each side of a place are looked at when it is tried."""
_LONGEST = 4
"""After so many times the piece's size without a safe place, a piece is cut anywhere and marked as not safe."""


class Segment(NamedTuple):
    """A document, or a part of one; the parts come in order."""

    text: str
    ends: bool
    """Whether the document ends here."""
    safe: bool
    """Whether the ids up to here and from here on, joined, are those of the whole."""
    source: str
    """Name of the file, or "text 3"."""
    start: int
    """Where in the source the text begins, in characters."""
    bytes_read: int
    """Of all sources together, so far."""


class SafeCut:
    """Finds places where a text may be cut for one tokenizer (the table above)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        values = tokenizer.to_dict()
        self.anywhere = values.get("kind") == "char"
        self.possible = self.anywhere or _ends_tokens_at_spaces(values)

    def __call__(self, text: str, limit: int | None = None) -> int:
        """The last safe place in `text` up to `limit` (default: its end), 0 when there is none: cut as text[:place], text[place:].

        The rule follows from the tokenizer's kind and settings. To be safe from a setting that this file does not know, the place
        is tried too: a place where the text around it gives other ids in two parts than in one is none.
        """
        limit = len(text) if limit is None else min(limit, len(text))
        if self.anywhere:
            return max(0, limit)
        found = _PLACE.search(text, 1, limit + 1) if self.possible and limit > 0 else None
        if found is None:
            return 0
        place: int = found.start()
        left, right = text[max(0, place - _AROUND) : place], text[place : place + _AROUND]
        encode = self._tokenizer.encode
        self.possible = encode(left + right) == encode(left) + encode(right)
        return place if self.possible else 0


def safe_cut(text: str, tokenizer: Tokenizer, limit: int | None = None) -> int:
    """`SafeCut(tokenizer)(text, limit)`, for a single cut.

    >>> from tiny_transformer.tokenization.char import CharTokenizer
    >>> safe_cut("banana", CharTokenizer.train("banana"), 4)
    4
    """
    return SafeCut(tokenizer)(text, limit)


def _ends_tokens_at_spaces(values: dict[str, Any]) -> bool:
    """Whether every token ends between a letter or digit and a space or line end, by the tokenizer's own description."""
    if any(character.isspace() for token in values.get("special_tokens", ()) for character in str(token)):
        return False
    local = all(step.get("type") in _LOCAL for step in values.get("normalizers", ()))
    match values.get("kind"):
        case "byte" | "word":
            return True
        case "wordpiece":
            return local
        case "bpe":
            return values.get("split") in ("gpt2", "gpt4")
        case "unigram":
            plain = not values.get("normalizers") and values.get("prepend") == "never"
            return plain and bool(values.get("split")) and bool(values.get("lines"))
    return False


def listed(sources: Source | Iterable[Source]) -> Iterable[Source]:
    """Any number of sources, checked as far as they are known. Raises ConfigError for a missing file, and a name given as a text."""
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    if not isinstance(sources, Sequence):
        return sources
    for source in sources:
        _check_kind(source)
        if isinstance(source, os.PathLike):
            _check_file(Path(source))
        else:
            named = os.path.isfile(source)  # noqa: PTH113 - False for what can be no name, where pathlib raises
            check(not named, f"the text {source!r} is the name of a file", "a string is taken as a text", f"Pass Path({source!r})")
    return sources


def total_bytes(sources: Iterable[Source]) -> int | None:
    """The size of all files together; None when some sources are texts, or come one by one."""
    if not isinstance(sources, Sequence) or not all(isinstance(source, os.PathLike) for source in sources):
        return None
    return sum(Path(source).stat().st_size for source in sources)


def _check_kind(source: object) -> None:
    check(isinstance(source, str | os.PathLike), f"a source is {source!r:.60}", "it must be a Path or a text", "Pass Path(…)")


def _check_file(path: Path) -> None:
    if not path.is_file():
        near = None if path.exists() else nearest_path(path)
        what = f"{path} is no file" if path.exists() else f"there is no file {path}"
        check(False, what, "it must be a UTF-8 text file", f"Did you mean {near}?" if near else "Mend the path")


def read_segments(sources: Iterable[Source], separator: str | None, piece_chars: int, cut: SafeCut) -> Iterator[Segment]:
    """All documents in order. `separator` cuts a source as `str.split` does; without one, each source is a document.

    A document is cut into parts of about `piece_chars`, at the last safe place; at most a few times that much is held.
    """
    bytes_before = 0
    for number, source in enumerate(sources):
        _check_kind(source)
        name = os.fspath(source) if isinstance(source, os.PathLike) else f"text {number + 1}"
        held, start = "", 0  # not handed on yet; where it begins
        keep = len(separator) - 1 if separator else 0  # of the end, which may be the beginning of a separator
        for chunk, size in _chunks(source, piece_chars):
            held, bytes_before = held + chunk, bytes_before + size
            *whole, held = held.split(separator) if separator else [held]
            for text in whole:
                yield Segment(text, True, True, name, start, bytes_before)
                start += len(text) + keep + 1
            while len(held) - keep > piece_chars:
                place = cut(held, max(piece_chars, len(held) - keep - _AROUND))
                safe = place > 0
                if not safe and len(held) - keep <= _LONGEST * piece_chars:
                    break
                place = place or len(held) - keep
                yield Segment(held[:place], False, safe, name, start, bytes_before)
                held, start = held[place:], start + place
        yield Segment(held, True, True, name, start, bytes_before)


def _chunks(source: Source, size: int) -> Iterator[tuple[str, int]]:
    """A source in chunks of about `size`, each with how many bytes it took."""
    if isinstance(source, str):
        for i in range(0, len(source), size):
            chunk = source[i : i + size]
            yield chunk, len(chunk.encode("utf-8", "surrogatepass"))
        return
    path = Path(source)
    _check_file(path)
    decode = codecs.getincrementaldecoder("utf-8")().decode
    done, begun = 0, False
    with path.open("rb") as file:
        while data := file.read(max(size, 4)):
            try:
                text = decode(data)
            except UnicodeDecodeError as error:
                _refuse(path, error.object, error.start, done - (len(error.object) - len(data)))
            done += len(data)
            if text and not begun:
                begun, text = True, text.removeprefix("\ufeff")
            yield text, len(data)
    try:
        decode(b"", final=True)
    except UnicodeDecodeError as error:
        _refuse(path, error.object, error.start, done - len(error.object))


def _refuse(path: Path, data: bytes, at: int, offset: int) -> None:
    wrong = f"{path} is not UTF-8: byte 0x{data[at]:02x} at offset {offset + at} cannot stand there"
    raise ConfigError(f"{wrong}. Save it as UTF-8, for example: iconv -f latin-1 -t utf-8 FILE > NEW") from None


if __name__ == "__main__":
    from tiny_transformer.tokenization.char import CharTokenizer

    text = "Once upon a time.<|end|>There was a king who had three daughters and no hat.<|end|>The end."
    for segment in read_segments([text], "<|end|>", 20, SafeCut(CharTokenizer.train(text))):
        print(f"{segment.start:3} {segment.text!r:26} {'the document ends' if segment.ends else 'it goes on'}")
