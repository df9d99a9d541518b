"""SentencePiece's own file, tokenizer.model, as one of our tokenizers: BPE and Unigram (Kudo & Richardson 2018).

The file is a message of Protocol Buffers: fields, each a number, a kind and a value, that may lie inside one another.

    1  piece (many)      1 text   2 score (float)   3 type: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    2  trainer           3 kind: 1 Unigram, 2 BPE   24 spaces behind words   35 byte fallback
    3  normalizer        1 name   2 table   3 a space before the text   4 spaces in a row are one   5 spaces as ▁

What would change ids and that we do not have is refused by name: tables of normalization first of all (models of Llama's and Mistral's
kind have none). Left out: writing such files; `hugging_face.py` writes tokenizer.json. Read before: `metaspace_bpe.py`, `unigram.py`.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_transformer.config import ConfigError, check
from tiny_transformer.tokenization.metaspace_bpe import MetaspaceBPE, Pair
from tiny_transformer.tokenization.normalizing import FIRST_SPACES, LAST_SPACES, SPACES, Step
from tiny_transformer.tokenization.unigram import UnigramTokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2
SPACE = "▁"
Value = int | bytes | float


@dataclass(frozen=True)
class Piece:
    """One token; its place is its id."""

    text: str
    score: float = 0.0
    type: int = NORMAL


@dataclass(frozen=True)
class SentencePieceModel:
    """What a file says, as far as it concerns ids and text."""

    pieces: list[Piece]
    kind: int = UNIGRAM
    byte_fallback: bool = False
    spaces_behind: bool = False
    rules: str = ""
    """The name of its normalization."""
    table: bool = False
    """Whether it has a table of normalization."""
    dummy_prefix: bool = True
    one_space: bool = True
    marks: bool = True

    def of_type(self, *types: int) -> list[str]:
        """The texts of some types of pieces."""
        return [piece.text for piece in self.pieces if piece.type in types]


def load_sentencepiece(path: str | os.PathLike[str]) -> MetaspaceBPE | UnigramTokenizer:
    """The tokenizer in a tokenizer.model: its ids for any text are SentencePiece's, but that control tokens are found in a text.

    `decode` gives SentencePiece's text, but for ids that begin with several "▁", where it may drop more of them.
    Raises ConfigError in one line for a damaged file, and for what it asks for that we do not have.
    """
    model = read_model(path)
    _check(path, model)
    texts = [piece.text for piece in model.pieces]
    special = model.of_type(UNKNOWN, CONTROL, USER_DEFINED)
    unknown = next(iter(model.of_type(UNKNOWN)), None)
    steps, settings = _spaces(model)
    settings |= {"unknown": unknown, "byte_fallback": model.byte_fallback, "normalizers": steps}
    if model.kind == UNIGRAM:
        return UnigramTokenizer(texts, [piece.score for piece in model.pieces], special, **settings)
    return MetaspaceBPE(texts, merges(model.pieces), special, fuse_unknown=True, **settings)


def _spaces(model: SentencePieceModel) -> tuple[list[Step], dict[str, Any]]:
    """What is done with spaces: normalizers, and the settings of a `MetaspaceTokenizer`."""
    reaching = any(SPACE in piece.text[1:] for piece in model.pieces if piece.type == NORMAL) or SPACE not in model.of_type(NORMAL)
    settings: dict[str, Any] = {"split": not reaching, "first_space": "one" if model.dummy_prefix else "keep"}
    steps: list[Step] = [{"type": "Replace", "pattern": {"Regex": r}, "content": new} for r, new in ONE_SPACE] if model.one_space else []
    steps += [{"type": "Prepend", "prepend": SPACE}] if model.dummy_prefix else []
    steps += [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    return steps, {**settings, "prepend": "never"}


ONE_SPACE = ((SPACES, " "), (FIRST_SPACES, ""), (LAST_SPACES, ""))
"""remove_extra_whitespaces: spaces in a row are one, and at the ends there are none (at the last, no "▁" either)."""


def merges(pieces: Sequence[Piece]) -> list[Pair]:
    """Pairs in the order of their ranks: SentencePiece always makes the piece with the highest score that two neighbours can make.

    >>> merges([Piece("a", -3), Piece("b", -4), Piece("ab", -1), Piece("aba", -2)])
    [('a', 'b'), ('ab', 'a')]
    """
    known = {piece.text: place for place, piece in enumerate(pieces) if piece.type == NORMAL}
    made = sorted((piece for piece in pieces if piece.type == NORMAL), key=lambda piece: -piece.score)
    return [
        (piece.text[:cut], piece.text[cut:])
        for piece in made
        for cut in range(len(piece.text) - 1, 0, -1)
        if piece.text[:cut] in known and piece.text[cut:] in known
    ]


def _check(path: str | os.PathLike[str], model: SentencePieceModel) -> None:
    """Raise ConfigError for what we cannot honour."""
    normal = model.of_type(NORMAL)
    long = [piece.score for piece in model.pieces if piece.type == NORMAL and len(piece.text) > 1]
    letters = set(normal)
    lacking = sorted({letter for text in normal if len(text) > 1 for letter in text} - letters) if model.kind == BPE else []
    user = model.of_type(USER_DEFINED)
    refused = (
        (model.kind not in (UNIGRAM, BPE), f"kind {model.kind}", "we have Unigram and BPE"),
        (model.table, f"the normalization rules {model.rules!r}", "we have those without a table (identity) only"),
        (not model.marks, "escape_whitespaces=False", "spaces must become ▁"),
        (model.spaces_behind, "treat_whitespace_as_suffix", "spaces must stand before words"),
        (bool(model.of_type(UNUSED)), f"the unused piece {next(iter(model.of_type(UNUSED)), '')!r}", "each piece must be in use"),
        (len(model.of_type(UNKNOWN)) != 1, f"{len(model.of_type(UNKNOWN))} unknown pieces", "there must be one"),
        (bool(user) and (model.dummy_prefix or model.one_space), f"the user-defined symbol {next(iter(user), '')!r} with "
         "add_dummy_prefix or remove_extra_whitespaces", "we have them without these two only"),
        (any(SPACE in text for text in user), f"the user-defined symbols {', '.join(text for text in user if SPACE in text)}",
         "they must hold no space"),
        (model.kind == BPE and len(set(long)) < len(long), "two pieces with the same score", "in BPE each must have a rank"),
        (bool(lacking), f"pieces with {''.join(lacking[:1])!r}", "in BPE each of a piece's characters must be a piece"),
    )  # fmt: skip
    for wrong, what, must in refused:
        check(not wrong, f"{path} asks for {what}", must, "Get the model's tokenizer.json, or choose another model")


# --- the file ---------------------------------------------------------------------------------------------------------


def read_model(path: str | os.PathLike[str]) -> SentencePieceModel:
    """What the file says. Raises ConfigError for one that is missing or damaged."""
    try:
        return _model(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror or error}). Check the path") from error
    except (ValueError, struct.error, IndexError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no tokenizer.model of SentencePiece, or it is damaged ({error}). Get it again") from error


def _model(data: bytes) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for number, value in fields(data):
        if number == 1:
            said = dict(fields(_bytes(value)))
            pieces.append(Piece(_text(said.get(1, b"")), float(said.get(2, 0.0)), int(said.get(3, NORMAL))))
        elif number == 2:
            trainer |= dict(fields(_bytes(value)))
        elif number == 3:
            normalizer |= dict(fields(_bytes(value)))
    if not pieces:
        raise ValueError("it holds no pieces")
    return SentencePieceModel(
        pieces, int(trainer.get(3, UNIGRAM)), bool(trainer.get(35, 0)), bool(trainer.get(24, 0)), _text(normalizer.get(1, b"")),
        bool(normalizer.get(2, b"")), bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1)), bool(normalizer.get(5, 1)),
    )  # fmt: skip


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """The fields of a message, in order: number and value. Raises ValueError for a message that breaks off, or is none.

    >>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69])))
    [(1, 150), (2, b'hi')]
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: Value
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            value, at = struct.unpack_from("<d" if kind == 1 else "<f", data, at)[0], at + width
        elif kind == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            raise ValueError(f"a field of kind {kind}")
        if at > len(data) or number == 0:
            raise ValueError("it breaks off")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number, seven bits a byte, the lowest first; and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without an end")


def _bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where a message should be")
    return value


def _text(value: Value) -> str:
    return _bytes(value).decode()


if __name__ == "__main__":
    import tempfile

    def field(number: int, value: bytes | float) -> bytes:
        """One field, written."""
        if isinstance(value, float):
            return bytes([number << 3 | 5]) + struct.pack("<f", value)
        return bytes([number << 3 | 2, len(value)]) + value if isinstance(value, bytes) else bytes([number << 3, value])

    words = [("<unk>", 0.0, UNKNOWN), ("▁", -1.0, NORMAL), ("h", -9.0, NORMAL), ("i", -9.0, NORMAL), ("▁hi", -3.0, NORMAL)]
    message = b"".join(field(1, field(1, text.encode()) + field(2, score) + bytes([3 << 3, kind])) for text, score, kind in words)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.model"
        file.write_bytes(message)
        tokenizer = load_sentencepiece(file)
        print(tokenizer.encode("hi  hi"), repr(tokenizer.decode([4, 4])))
        file.write_bytes(message[:-3])
        try:
            load_sentencepiece(file)
        except ConfigError as error:
            print("caught:", str(error).replace(folder, "…"))
