"""Word vectors from a file (GloVe, or word2vec's text format) for the words of a vocabulary, and how many of them it knows.

The file is read line by line and only the rows that the vocabulary asks for are kept: a million lines cost time, not memory.
Left out: which words a tokenizer has (`words_of` asks it), keeping rows as they are while training (`training/frozen_rows.py`).
NumPy only: both engines begin with these rows. Read before: `initialization.py`, `tokenization/word.py`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.word import WordTokenizer

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all)."""

LONGEST_LINE = 1 << 20
"""Bytes; a file of vectors with a longer line is something else."""
TOLD_EVERY = 1 << 22
"""Bytes between two calls of `progress`."""
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


@dataclass(frozen=True)
class Coverage:
    """How much of a vocabulary, and of a text in it, a file of word vectors knows. Special tokens are no words and not counted."""

    words: int
    """Words of the vocabulary …"""
    as_written: int
    """… that stand in the file as they are written (cased), …"""
    lower_cased: int
    """… that stand in it when written in lower case, …"""
    either: int
    """… and one or the other: these get a vector."""
    text_words: int
    """Running words of the text, each as often as it occurs …"""
    text_as_written: int
    text_lower_cased: int
    text_either: int
    lacking: tuple[tuple[str, int], ...]
    """The words without a vector that occur most, with how often."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)


@dataclass(frozen=True)
class WordVectors:
    """The rows of a file that a vocabulary asked for."""

    path: str
    ids: NDArray[np.int64]
    """Tokens that have a vector, ascending: (found,)."""
    values: NDArray[np.float32]
    """Their vectors as the file has them: (found, width)."""
    coverage: Coverage
    in_file: int
    """Vectors in the whole file."""

    def sized(self, std: float) -> NDArray[np.float32]:
        """The vectors, all multiplied by one number, so that their root mean square is `std`: (found, width).

        GloVe's numbers are some twenty times the size of first weights; with sinusoidal positions, which have a fixed size, a
        model would hardly see where a word stands. Directions, and which word is longer than which, stay as they are.
        """
        size = float(np.sqrt(np.square(self.values, dtype=np.float64).mean()))
        check(size > 0, f"{self.path}: all vectors are zero", "they must say something", "Use another file")
        return (self.values * np.float32(std / size)).astype(np.float32)


def words_of(tokenizer: Tokenizer) -> list[str | None]:
    """For each id its word as a file of vectors would write it; None for special tokens and white space.

    Raises ConfigError for tokenizers whose tokens are no words.
    """
    kind = str(tokenizer.to_dict()["kind"])
    remedy = "Try --tokenizer word"
    if not isinstance(tokenizer, WordTokenizer):
        check(False, f"word vectors with a {kind} tokenizer", "its tokens must be words", remedy)
        raise AssertionError
    bare = [piece.strip() for piece in tokenizer.pieces]
    return [word if word and piece not in tokenizer.special_tokens else None for piece, word in zip(tokenizer.pieces, bare, strict=True)]


def read_word_vectors(
    path: str | os.PathLike[str],
    words: Sequence[str | None],
    *,
    width: int | None = None,
    counts: NDArray[np.integer[Any]] | None = None,
    progress: Progress | None = None,
    most: int = 10,
) -> WordVectors:
    """The vectors of `words` (one for each id, None where there is none to look for) from a text file.

    Each line is a word and its numbers, with single spaces between. word2vec's first line, "how many, how wide", may be there or not.
    A word takes the vector of its own spelling; where the file has none, that of its lower-case form. When a word stands in
    the file twice, the first one counts. `width` is what the model needs; `counts` says how often each id occurs in a text.

    Every line must have the right count of numbers; those of the lines that are kept must also be numbers, and finite.
    Memory: the rows that are kept, and one line.
    Raises ConfigError naming the file, and the number of the line where one is damaged; OSError when it can't be read.
    """
    path = Path(path)
    wanted = _Wanted(words)
    total, seen = path.stat().st_size, 0
    with path.open("rb") as file:
        rows = _Rows(path, file, width)
        for number, line in rows:
            word = rows.word(number, line)
            if word in wanted:
                wanted.take(word, rows.numbers(number, line))
            if progress is not None and file.tell() - seen >= TOLD_EVERY:
                seen = file.tell()
                progress(seen, total)
    if progress is not None:
        progress(total, total)
    ids, values = wanted.kept()
    check(
        len(ids) > 0, f"{path} has none of the vocabulary's {wanted.n_words:,} words", "some must be there",
        "Is it for another language, or the text not cut into words?",
    )  # fmt: skip
    return WordVectors(str(path), ids, values, wanted.coverage(counts, most), rows.count)


class _Wanted:
    """What is looked for, and what of it has been found."""

    def __init__(self, words: Sequence[str | None]) -> None:
        self.words = words
        self.exact: dict[bytes, list[int]] = {}
        self.lower: dict[bytes, list[int]] = {}
        for i, word in enumerate(words):
            if word is not None:
                self.exact.setdefault(_bytes(word), []).append(i)
                self.lower.setdefault(_bytes(word.lower()), []).append(i)
        self.as_written = np.zeros(len(words), dtype=bool)
        self.lower_cased = np.zeros(len(words), dtype=bool)
        self.rows: dict[int, NDArray[np.float32]] = {}

    @property
    def n_words(self) -> int:
        return sum(word is not None for word in self.words)

    def __contains__(self, word: bytes) -> bool:
        return word in self.exact or word in self.lower

    def take(self, word: bytes, row: NDArray[np.float32]) -> None:
        """A vector for all tokens that it can serve: the own spelling wins over lower case, the first over later ones."""
        for i in self.lower.get(word, ()):
            if not self.lower_cased[i]:
                self.lower_cased[i] = True
                self.rows.setdefault(i, row)
        for i in self.exact.get(word, ()):
            if not self.as_written[i]:
                self.as_written[i] = True
                self.rows[i] = row

    def kept(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        ids = np.array(sorted(self.rows), dtype=np.int64)
        values = np.stack([self.rows.pop(int(i)) for i in ids]) if len(ids) else np.zeros((0, 0), dtype=np.float32)
        return ids, values

    def coverage(self, counts: NDArray[np.integer[Any]] | None, most: int) -> Coverage:
        is_word = np.array([word is not None for word in self.words], dtype=bool)
        either = self.as_written | self.lower_cased
        often = np.zeros(len(self.words), dtype=np.int64) if counts is None else np.asarray(counts, dtype=np.int64)
        absent = sorted(np.flatnonzero(is_word & ~either).tolist(), key=lambda i: (-often[i], i))[:most]
        return Coverage(
            words=int(is_word.sum()), as_written=int(self.as_written.sum()), lower_cased=int(self.lower_cased.sum()),
            either=int(either.sum()), text_words=int(often[is_word].sum()), text_as_written=int(often[self.as_written].sum()),
            text_lower_cased=int(often[self.lower_cased].sum()), text_either=int(often[either].sum()),
            lacking=tuple((str(self.words[i]), int(often[i])) for i in absent),
        )  # fmt: skip


def _bytes(word: str) -> bytes:
    return word.encode("utf-8", "surrogatepass")


class _Rows:
    """The lines of a file that hold a vector, with their numbers, checked as far as that needs no arithmetic."""

    def __init__(self, path: Path, file: BinaryIO, width: int | None) -> None:
        self.path, self.file, self.needed = path, file, width
        self.width, self.promised, self.count = 0, -1, 0

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        last = blank = 0
        for last, line in self._lines():
            if not line:
                blank = blank or last
                continue
            self._check(blank == 0, blank, "it is empty")  # blank lines at the end are forgiven
            if last == 1 and self._begin(line):
                continue
            self.count += 1
            yield last, line
        check(self.count > 0, f"{self.path} holds no vectors", "each line must be a word and its numbers", "Use another file")
        if self.promised >= 0:
            text = f"the file ends after {self.count:,} vectors and its first line promises {self.promised:,}"
            self._check(self.count == self.promised, last, text)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        number = 0
        while line := self.file.readline(LONGEST_LINE):
            number += 1
            self._check(len(line) < LONGEST_LINE, number, f"it is longer than {LONGEST_LINE:,} bytes")
            yield number, line.rstrip(b" \t\r\n")

    def _begin(self, line: bytes) -> bool:
        """Learn the width from the first line; True when it is word2vec's, which holds no vector."""
        packed = next((name for magic, name in _PACKED.items() if line.startswith(magic)), None)
        check(packed is None, f"{self.path} is packed ({packed})", "it must be text", "Unpack it first and name the file inside")
        parts = line.split(b" ")
        header = len(parts) == 2 and all(part.isdigit() for part in parts)
        self.width = int(parts[1]) if header else self._numbers_at_end(parts)
        self._check(self.width > 0, 1, "it has no numbers")
        self.promised = int(parts[0]) if header else -1
        fits = self.needed in (None, self.width)
        check(
            fits, f"{self.path} has {self.width} numbers for each word and d_model={self.needed}", "they must agree",
            f"Try --d-model {self.width}, or another file",
        )  # fmt: skip
        return header

    def _numbers_at_end(self, parts: list[bytes]) -> int:
        """How many of a line's fields are numbers, the first field being a word, and perhaps more of them."""
        after = parts[1:]
        if len(after) == self.needed:
            return len(after)
        return next((count for count, part in enumerate(reversed(after)) if not _is_number(part)), len(after))

    def word(self, number: int, line: bytes) -> bytes:
        """The word of a line; a few words of GloVe's largest file have spaces inside."""
        spaces = line.count(b" ")
        if spaces == self.width:
            return line[: line.find(b" ")]
        self._check(spaces > self.width, number, f"it has {spaces} numbers and must have {self.width}")
        word = line.rsplit(b" ", self.width)[0]
        tail = word.split(b" ")[1:]
        self._check(not all(map(_is_number, tail)), number, f"it has {self.width + len(tail)} numbers and must have {self.width}")
        return word

    def numbers(self, number: int, line: bytes) -> NDArray[np.float32]:
        """The vector of a line: (width,)."""
        fields = line.rsplit(b" ", self.width)[1:]
        wrong = next((field for field in fields if not _is_number(field)), None)
        self._check(wrong is None, number, f"{(wrong or b'').decode('utf-8', 'replace')[:40]!r} is no number")
        with np.errstate(over="ignore"):
            row = np.array([float(field) for field in fields], dtype=np.float64).astype(np.float32)
        self._check(bool(np.isfinite(row).all()), number, "it holds a number that is not finite")
        return row

    def _check(self, holds: bool, number: int, what: str) -> None:
        check(holds, f"{self.path}, line {number}", f"{what}: the file is damaged or cut there", "Get it again")


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return b"_" not in field


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "vectors.txt"
        small.write_text("the 0.1 0.2\ncat 0.5 -0.5\nParis 1 0\nparis 0 1\n")
        tokenizer = WordTokenizer.train("the cat saw Paris . The cat slept", style="wikitext")
        found = read_word_vectors(small, words_of(tokenizer), counts=np.bincount(tokenizer.encode("the cat saw Paris"), minlength=9))
    print(tokenizer.pieces)
    for i, row in zip(found.ids.tolist(), found.values.tolist(), strict=True):
        print(f"{tokenizer.pieces[i]:6} {row}")
    print(found.coverage)
    print("as first weights:", found.sized(0.02).round(4).tolist())
