"""BPE vocabularies as files: GPT-2's pair of files, and tiktoken's list of ranks; in and out.

GPT-2's files hold text, so a token's bytes are spelled with 256 printable characters: bytes that are visible in Latin-1 stand
for themselves, the other 68 for U+0100 and up in order. A space (0x20) is the 33rd of these, Ġ; a line end (0x0A) is Ċ.

    vocab.json     {"!": 0, …, "Ġthe": 262, …}          token → id
    merges.txt     #version: 0.2 (or not), then lines "Ġ t", "Ġ a", "h e", …     in order of rank
    *.tiktoken     lines "IQ== 0", …                    base64 of the bytes, and the rank, which is the id

A list of ranks does not say which halves a token was merged from, but it follows: the token's own bytes, encoded with the
lower ranks only, end in exactly two parts.

Left out: Hugging Face's tokenizer.json. Read before: `bpe_plain.py`.
"""

import base64
import binascii
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from tiny_transformer.config import ConfigError, check
from tiny_transformer.tokenization.bpe_plain import Pair, single_bytes
from tiny_transformer.utils.atomic import atomic_save

FilePath = str | os.PathLike[str]


def _spelling() -> dict[int, str]:
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [value for value in range(256) if value not in visible]
    return {value: chr(value) for value in visible} | {value: chr(0x100 + i) for i, value in enumerate(hidden)}


BYTE_TO_CHARACTER = _spelling()
CHARACTER_TO_BYTE = {character: value for value, character in BYTE_TO_CHARACTER.items()}


def spell(token: bytes) -> str:
    """The bytes as printable characters.

    >>> spell(b" the\\n")
    'ĠtheĊ'
    """
    return "".join(BYTE_TO_CHARACTER[value] for value in token)


def unspell(token: str) -> bytes:
    """The bytes that the characters stand for. Raises ValueError for a character that stands for none."""
    unknown = next((c for c in token if c not in CHARACTER_TO_BYTE), None)
    if unknown is not None:
        raise ValueError(f"{token!r} holds {unknown!r}, which stands for no byte")
    return bytes(CHARACTER_TO_BYTE[c] for c in token)


def _damaged(path: FilePath, line: int, what: str) -> ConfigError:
    return ConfigError(f"{os.fspath(path)}, line {line}: {what}. The file is damaged or another kind: get it again")


def _read(path: FilePath) -> str:
    """The file's text. Raises ConfigError with the line where it is not UTF-8."""
    data = Path(path).read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, data.count(b"\n", 0, error.start) + 1, f"byte 0x{data[error.start]:02X} is not UTF-8") from error


def _write(path: FilePath, text: str) -> None:
    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    atomic_save(path, write)


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines that hold something, with their numbers from 1. Only line feeds end a line: tokens may hold the rarer line ends."""
    return [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def read_gpt2_vocab(path: FilePath, special_tokens: Collection[str] = ()) -> dict[int, bytes]:
    """vocab.json as id → bytes; special tokens stand in it as they are. Raises ConfigError naming file and line."""
    text = _read(path)
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise _damaged(path, getattr(error, "lineno", 1), f"no JSON ({error})") from error
    if not isinstance(entries, dict) or not entries:
        raise _damaged(path, 1, "it must be a JSON object of tokens and ids")
    vocab: dict[int, bytes] = {}
    for token, i in entries.items():
        try:
            if not isinstance(i, int) or isinstance(i, bool) or i < 0:
                raise ValueError(f"{token!r} has the id {i!r}, which is no whole number from 0")
            if i in vocab:
                raise ValueError(f"{token!r} has the id {i}, and so has another token")
            vocab[i] = token.encode() if token in special_tokens else unspell(token)
        except ValueError as error:
            spellings = (json.dumps(token), json.dumps(token, ensure_ascii=False))
            place = next((text.index(spelling) for spelling in spellings if spelling in text), 0)
            raise _damaged(path, text.count("\n", 0, place) + 1, str(error)) from error
    return vocab


def read_gpt2_merges(path: FilePath, vocab: Mapping[int, bytes]) -> list[Pair]:
    """merges.txt, with or without "#version" line. Raises ConfigError naming file and line, also for tokens not in `vocab`."""
    tokens = set(vocab.values())
    merges: list[Pair] = []
    for number, line in _lines(_read(path)):
        if number == 1 and line.startswith("#version"):
            continue
        halves = line.split(" ")
        if len(halves) != 2 or not all(halves):
            raise _damaged(path, number, f"{line[:60]!r} is not two tokens with a space between")
        try:
            left, right = (unspell(half) for half in halves)
        except ValueError as error:
            raise _damaged(path, number, str(error)) from error
        for token in (left, right, left + right):
            if token not in tokens:
                raise _damaged(path, number, f"{spell(token)!r} is not in the vocabulary beside it")
        merges.append((left, right))
    return merges


def write_gpt2_files(
    vocab_path: FilePath, merges_path: FilePath, vocab: Mapping[int, bytes], merges: Sequence[Pair], special: Mapping[str, int]
) -> None:
    """Write both files; special tokens as they are. Each is there whole or not at all.

    Raises ConfigError where a special token reads like the spelling of another.
    """
    plain = {i: token for token, i in special.items() if len(vocab[i]) > 1}
    entries = {plain.get(i) or spell(vocab[i]): i for i in sorted(vocab)}
    kept = set(entries.values())
    lost = next((i for i in vocab if i not in kept), None)
    check(lost is None, f"token {lost} is spelled like a special token", "vocab.json cannot hold both", "Rename the special token")
    lines = ["#version: 0.2", *(f"{spell(left)} {spell(right)}" for left, right in merges)]
    _write(vocab_path, json.dumps(entries, ensure_ascii=False))
    _write(merges_path, "".join(f"{line}\n" for line in lines))


def read_tiktoken(path: FilePath) -> dict[bytes, int]:
    """A rank file as token → rank. Raises ConfigError naming file and line."""
    ranks: dict[bytes, int] = {}
    seen: set[int] = set()
    for number, line in _lines(_read(path)):
        try:
            encoded, rank_text = line.split()
            token, rank = base64.b64decode(encoded, validate=True), int(rank_text)
        except (ValueError, binascii.Error) as error:
            raise _damaged(path, number, f"{line[:60]!r} is not base64 and a rank") from error
        if not token or rank < 0 or token in ranks or rank in seen:
            raise _damaged(path, number, f"{line[:60]!r}: each token and each rank must be there once, and none be empty or negative")
        ranks[token] = rank
        seen.add(rank)
    if not ranks:
        raise _damaged(path, 1, "there are no ranks in it")
    return ranks


def write_tiktoken(path: FilePath, ranks: Mapping[bytes, int]) -> None:
    """Write token → rank as a rank file, in order of rank."""
    _write(path, "".join(f"{base64.b64encode(token).decode()} {ranks[token]}\n" for token in sorted(ranks, key=ranks.__getitem__)))


def recover_merges(ranks: Mapping[bytes, int]) -> list[Pair]:
    """The merges that a list of ranks implies, in order. Raises ConfigError for a token that no two earlier ones make.

    >>> recover_merges({b"a": 0, b"b": 1, b"ab": 2, b"abab": 3})
    [(b'a', b'b'), (b'ab', b'ab')]
    """
    merges = []
    for token in sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__):
        parts = encode_below(token, ranks, ranks[token])
        must = f"lower ranks make {len(parts)} parts of it, and it takes two to merge"
        check(len(parts) == 2, f"token {spell(token)!r} (rank {ranks[token]})", must, "Use a list of ranks from BPE training")
        merges.append((parts[0], parts[1]))
    return merges


def encode_below(token: bytes, ranks: Mapping[bytes, int], limit: int) -> list[bytes]:
    """Join neighbours whose union has the lowest rank, as long as it is below `limit`."""
    parts = single_bytes(token)
    while len(parts) > 1:
        rank, i = min((ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1))
        if rank >= limit:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


if __name__ == "__main__":
    import tempfile

    print("spelled:", spell(b" the\n"), spell("é".encode()), "back:", unspell("Ġthe"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.tiktoken"
        write_tiktoken(path, {b"a": 0, b"b": 1, b"ab": 2, b"abab": 3})
        print(path.read_text(encoding="utf-8").split("\n"), "->", recover_merges(read_tiktoken(path)))
        path.write_text("YQ== 0\nYg==\n", encoding="utf-8")
        try:
            read_tiktoken(path)
        except ConfigError as error:
            print("caught:", str(error).replace(folder, "…"))
