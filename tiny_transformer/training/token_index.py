"""index.json: the header of a folder of token files, and the hash that says which tokenizer they are from.

Left out: the files it describes (`token_files.py`). Read before: nothing.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from tiny_transformer.tokenization.base import Tokenizer

FORMAT = 1
INDEX, TOKENIZER = "index.json", "tokenizer.json"
STARTS_DTYPE = np.dtype("<u8")


class TokenFilesError(ValueError):
    """Token files that are not what was written; the message is one line and names the file."""


@dataclass(frozen=True)
class Shard:
    """One shard, as the index describes it."""

    name: str
    """The name without .bin and .docs.bin."""
    n_tokens: int
    n_documents: int
    """How many documents begin here."""
    sha256: str
    """Of the .bin file."""
    docs_sha256: str
    """Of the .docs.bin file."""


@dataclass(frozen=True)
class Index:
    """What index.json holds."""

    format: int
    dtype: str
    vocab_size: int
    eos: int | None
    """The id after every document; None where none was written."""
    n_tokens: int
    n_documents: int
    shard_tokens: int
    """Ids in every shard but the last."""
    tokenizer_sha256: str
    """Of the canonical JSON (`canonical_json`) of the tokenizer's `to_dict`, which is the file tokenizer.json."""
    shards: tuple[Shard, ...]

    def to_json(self) -> str:
        """For people too: one value a line."""
        return json.dumps(asdict(self), indent=2) + "\n"


def ids_dtype(vocab_size: int) -> "np.dtype[Any]":
    """The narrower type that holds every id: little-endian uint16 or uint32. Raises ValueError for a vocabulary beyond both."""
    if not 1 <= vocab_size <= 2**32:
        raise ValueError(f"vocab_size={vocab_size}: token files hold ids of at most 32 bits, 1 to {2**32}. Use another tokenizer")
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def canonical_json(values: dict[str, Any]) -> bytes:
    """The one JSON text of `values`: keys sorted, no spaces, ASCII. Its SHA-256 says whether two tokenizers are the same."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """SHA-256 of the tokenizer's `canonical_json`, in hexadecimal digits."""
    return hashlib.sha256(canonical_json(tokenizer.to_dict())).hexdigest()


def read_index(folder: Path) -> Index:
    """The index of a folder of token files. Raises TokenFilesError when there is none, or when it contradicts itself."""
    path = folder / INDEX
    if not path.is_file():
        remedy = f"it must be a folder with {INDEX}. Write one with write_token_files"
        raise TokenFilesError(f"{folder} holds no token files: {remedy}")
    try:
        values = json.loads(read_bytes(path))
        shards = tuple(Shard(**{field.name: shard[field.name] for field in fields(Shard)}) for shard in values["shards"])
        index = Index(**{field.name: values[field.name] for field in fields(Index)} | {"shards": shards})
        if index.format != FORMAT:
            raise TokenFilesError(f"{path} has format {index.format!r}: this program reads format {FORMAT}. Write the token files again")
        problem = _contradiction(index)
    except TokenFilesError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise TokenFilesError(f"{path} is damaged ({type(error).__name__}: {error}). Write the token files again") from None
    if problem:
        raise TokenFilesError(f"{path} is damaged: {problem}. Write the token files again")
    return index


def _contradiction(index: Index) -> str:
    """What in an index cannot be, or nothing."""
    shards, numbers = index.shards, [index.vocab_size, index.n_tokens, index.n_documents, index.shard_tokens]
    numbers += [number for shard in shards for number in (shard.n_tokens, shard.n_documents)]
    if not all(type(number) is int and number >= 0 for number in numbers):
        return "a count is no whole number of 0 or more"
    if index.eos is not None and not (type(index.eos) is int and 0 <= index.eos < index.vocab_size):
        return f"eos={index.eos!r} is no id of a vocabulary of {index.vocab_size}"
    if np.dtype(index.dtype) != ids_dtype(index.vocab_size):
        return f"dtype {index.dtype} does not belong to vocab_size={index.vocab_size}"
    if [shard.name for shard in shards] != [shard_name(i) for i in range(len(shards))]:
        return "the shards are not named in order"
    if [index.n_tokens, index.n_documents] != [sum(s.n_tokens for s in shards), sum(s.n_documents for s in shards)]:
        return "the shards' counts do not add up to the whole"
    full = all(shard.n_tokens == index.shard_tokens for shard in shards[:-1])
    if not shards or not full or not 1 <= shards[-1].n_tokens <= index.shard_tokens:
        return "a shard before the last is not full, or one holds nothing"
    return ""


def shard_name(number: int) -> str:
    """shard-00000, shard-00001, …"""
    return f"shard-{number:05}"


def read_bytes(path: Path) -> bytes:
    """A file's bytes. Raises TokenFilesError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise TokenFilesError(f"{path} cannot be read: {error.strerror}. Write the token files again") from None


if __name__ == "__main__":
    from tiny_transformer.tokenization.char import CharTokenizer

    tokenizer = CharTokenizer.train("banana")
    print(canonical_json(tokenizer.to_dict()).decode(), "->", tokenizer_hash(tokenizer)[:16], "…")
    digest = "0" * 64
    shards = (Shard("shard-00000", 100, 3, digest, digest), Shard("shard-00001", 20, 1, digest, digest))
    index = Index(FORMAT, ids_dtype(3).str, 3, None, 120, 4, 100, tokenizer_hash(tokenizer), shards)
    print(index.to_json()[:150], "…")
    print("contradictions:", _contradiction(index) or "none")
