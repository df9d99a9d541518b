"""A tokenizer as a file of its own. Read before: `registry.py`."""

import json
import os
from pathlib import Path

from tiny_transformer.config import check
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.registry import from_dict
from tiny_transformer.utils.atomic import atomic_save


def save_tokenizer(tokenizer: Tokenizer, path: str | os.PathLike[str]) -> None:
    """Write `tokenizer.to_dict()` as JSON, whole or not at all."""
    content = json.dumps(tokenizer.to_dict(), ensure_ascii=True, indent=1).encode()
    atomic_save(path, lambda file: file.writelines([content]))


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in a file. Raises ConfigError naming a file that is missing or damaged."""
    path = Path(path)
    check(path.is_file(), f"there is no tokenizer file {path}", "it must be one that was saved", "Check the path")
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no tokenizer of ours, or it is damaged ({error}). Save the tokenizer again") from error


if __name__ == "__main__":
    import tempfile

    from tiny_transformer.tokenization.char import CharTokenizer

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "letters.json"
        save_tokenizer(CharTokenizer.train("banana"), file)
        print(file.read_text())
        print("banana ->", load_tokenizer(file).encode("banana"))
