"""A tokenizer as a file of its own: ours, and the kinds that other programs write.

Read before: `registry.py`, `vocabulary_files.py`, `hugging_face.py`.
"""

import json
import os
import re
from pathlib import Path

from tiny_transformer.config import ConfigError, check
from tiny_transformer.tokenization import hugging_face
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.registry import from_dict
from tiny_transformer.tokenization.sentencepiece_model import load_sentencepiece
from tiny_transformer.tokenization.wordpiece import WordPieceTokenizer
from tiny_transformer.utils.atomic import atomic_save

KNOWN = "a tokenizer saved by us, tokenizer.json, tokenizer.model, vocab.json beside merges.txt, vocab.txt, or a .tiktoken rank file"


def save_tokenizer(tokenizer: Tokenizer, path: str | os.PathLike[str]) -> None:
    """Write `tokenizer.to_dict()` as JSON, whole or not at all."""
    content = json.dumps(tokenizer.to_dict(), ensure_ascii=True, indent=1).encode()
    atomic_save(path, lambda file: file.writelines([content]))


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in a file, or in a folder that holds one.

    Read are files of `save_tokenizer`, Hugging Face's tokenizer.json, SentencePiece's tokenizer.model, GPT-2's vocab.json (with
    merges.txt beside it), BERT's vocab.txt and tiktoken's rank files; what it is, its content says (of .model files the name).
    Raises ConfigError naming a file that is missing, damaged or none of these.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt") if (path / name).is_file()]
        check(bool(found), f"{path} holds no tokenizer", f"it must hold {KNOWN}", "Name the file")
        path = found[0]
    check(path.is_file(), f"there is no tokenizer file {path}", f"it must be {KNOWN}", "Check the path")
    if path.suffix == ".model":
        return load_sentencepiece(path)
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: it must be {KNOWN}. Choose another file") from error
    if content.lstrip()[:1] == "{":
        return _from_json(path, content)
    if re.match(r"[A-Za-z0-9+/]+=* \d+\s*$", content.partition("\n")[0]):
        return BPETokenizer.from_tiktoken(path)
    check(path.name == "vocab.txt", f"{path} is no tokenizer", f"it must be {KNOWN}", "Choose another file")
    return WordPieceTokenizer.from_vocab_file(path)


def _from_json(path: Path, content: str) -> Tokenizer:
    try:
        values = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: it must be JSON ({error}). Get the file again") from error
    if isinstance(values.get("kind"), str):  # GPT-2's vocabulary has the words "kind" and "model" too, with numbers
        try:
            return from_dict(values)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ConfigError(f"{path} is no tokenizer of ours, or it is damaged: {error}. Save the tokenizer again") from error
    if isinstance(values.get("model"), dict):
        return hugging_face.load_tokenizer_json(path)
    merges = path.with_name("merges.txt")
    check(merges.is_file(), f"{path} stands alone", "a vocabulary of BPE needs merges.txt beside it", "Put it there")
    return BPETokenizer.from_gpt2_files(path, merges)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pieces.json"
        save_tokenizer(BPETokenizer.train("the then there", 259), file)
        print(f"{file.stat().st_size:,} bytes; the other ->", load_tokenizer(file).encode("the other"))
        file.write_text('{"kind": "bpe"}')
        try:
            load_tokenizer(file)
        except ConfigError as error:
            print("caught:", str(error).replace(folder, "…"))
