"""Hugging Face's tokenizer.json, in and out.

What we load gives the ids of `tokenizers` with add_special_tokens=False, and what we write opens there and gives ours. The tokens that a
template puts around a text are kept in `.template` and reported, never added by `encode`. Anything else in a file that would change ids
and that we do not have is refused in one line. Left out: what each part means. Read before: `hugging_face_parts.py`, then
`hugging_face_models.py` or `hugging_face_bpe.py`.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from tiny_transformer.config import ConfigError
from tiny_transformer.tokenization import hugging_face_bpe as bpe
from tiny_transformer.tokenization import hugging_face_models as models
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.byte import ByteTokenizer
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.tokenization.hugging_face_parts import Part, read_template, refuse, sequence, write_added, write_template
from tiny_transformer.tokenization.metaspace_bpe import MetaspaceBPE
from tiny_transformer.tokenization.normalized import NormalizedTokenizer
from tiny_transformer.tokenization.unigram import UnigramTokenizer
from tiny_transformer.tokenization.word import WordTokenizer
from tiny_transformer.tokenization.wordpiece import WordPieceTokenizer
from tiny_transformer.utils.atomic import atomic_save

READERS: dict[str, Callable[[Part], Any]] = {
    "BPE": bpe.read_bpe,
    "WordPiece": models.read_wordpiece,
    "Unigram": models.read_unigram,
    "WordLevel": models.read_word_level,
}
WRITERS: dict[type, Callable[[Any], Part]] = {
    BPETokenizer: bpe.write_bpe,
    ByteTokenizer: bpe.write_byte,
    CharTokenizer: models.write_char,
    MetaspaceBPE: bpe.write_metaspace_bpe,
    UnigramTokenizer: models.write_unigram,
    WordPieceTokenizer: models.write_wordpiece,
    WordTokenizer: models.write_word,
}
KEYS = ("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model")


def load_tokenizer_json(source: str | os.PathLike[str] | dict[str, Any]) -> Tokenizer:
    """A tokenizer.json, as a path or as its values, as one of our classes.

    Added tokens, special or not, become special tokens. Raises ConfigError for a damaged file, and for one that we cannot honour,
    naming the part.
    """
    file = source if isinstance(source, dict) else _parse(Path(source))
    for key in file:
        refuse(key not in KEYS, f"{key!r}", f"known are {', '.join(KEYS)}")
    for key in ("truncation", "padding"):
        refuse(file.get(key) is not None, f"{key} is set", "it would change ids", "Set it to null")
    model = file.get("model")
    refuse(not isinstance(model, dict), "no model", "it must be an object", "The file is damaged: get it again")
    kind = _kind(file["model"])
    refuse(kind not in READERS, f"model {kind!r}", f"it must be one of {', '.join(READERS)}")
    try:
        tokenizer = READERS[str(kind)](file)
        template = read_template(file)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ConfigError(f"tokenizer.json: a part is missing or of the wrong kind ({error!r}). Get the file again") from error
    if template is not None:
        tokenizer.template = template
    return tokenizer  # type: ignore[no-any-return]


def to_tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The values of a tokenizer.json that gives the same ids. Raises ConfigError for a tokenizer that the format cannot express."""
    inner = tokenizer.inner if isinstance(tokenizer, NormalizedTokenizer) else tokenizer
    write = WRITERS.get(type(inner))
    must = f"written are {', '.join(known.__name__ for known in WRITERS)}"
    refuse(write is None, f"a {type(inner).__name__}", must, "Keep to_dict's JSON")
    parts = WRITERS[type(inner)](inner)
    if isinstance(tokenizer, NormalizedTokenizer):
        parts["normalizer"] = sequence(tokenizer.normalizers, "normalizers")
    special = dict(getattr(inner, "special_tokens", {}))
    template = write_template(getattr(tokenizer, "template", None), special)
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": write_added(special)}
    return {**head, **parts, "post_processor": template}


def save_tokenizer_json(tokenizer: Tokenizer, path: str | os.PathLike[str]) -> None:
    """Write tokenizer.json; it is there whole or not at all."""
    data = json.dumps(to_tokenizer_json(tokenizer), ensure_ascii=False, indent=1).encode()

    def write(file: BinaryIO) -> None:
        file.write(data)

    atomic_save(path, write)


def _kind(model: Part) -> Any:
    """The model's type; the oldest files do not say it."""
    if "type" in model:
        return model["type"]
    return "BPE" if "merges" in model else "Unigram" if "unk_id" in model else "WordPiece" if "max_input_chars_per_word" in model else None


def _parse(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8. The file is damaged or another kind: get it again") from error
    except (json.JSONDecodeError, RecursionError) as error:
        where = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigError(f"{path}{where}: this is no JSON. The file is damaged or another kind: get it again") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: it holds {type(values).__name__}, and must hold an object. Is this a tokenizer.json?")
    return values


if __name__ == "__main__":
    tokenizer = WordPieceTokenizer.train("the pun of a pug, the hug of a bug " * 9, vocab_size=30)
    values = to_tokenizer_json(tokenizer)
    print({key: value if key != "model" else f"{value['type']}, {len(value['vocab'])} pieces" for key, value in values.items() if value})
    again = load_tokenizer_json(values)
    print(tokenizer.encode("the bug hugs"), again.encode("the bug hugs"))
    values["pre_tokenizer"] = {"type": "Whitespace"}
    try:
        load_tokenizer_json(values)
    except ConfigError as error:
        print("caught:", error)
