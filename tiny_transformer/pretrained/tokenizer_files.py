"""The tokenizer and the chat template that lie beside a model's weights.

tokenizer.json says everything, and tokenizer.model (SentencePiece's own file) nearly; vocab.json with merges.txt (GPT-2) and vocab.txt
(BERT) do not say how text is cut, so they are read for these two families only. Read before: `tokenization/files.py`, `chat_template.py`.
"""

import json
from pathlib import Path
from typing import Any

from tiny_transformer.config import ConfigError, check
from tiny_transformer.pretrained.chat_template import ChatTemplate
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.hugging_face import load_tokenizer_json
from tiny_transformer.tokenization.normalizing import BERT as BERT_NORMALIZER
from tiny_transformer.tokenization.sentencepiece_model import load_sentencepiece
from tiny_transformer.tokenization.wordpiece import WordPieceTokenizer


def read_tokenizer(directory: Path, family: str, vocab_size: int) -> Tokenizer | None:
    """The directory's tokenizer; None where there is no file of one.

    Raises ConfigError for one that we can't read, and where it has more tokens than the model.
    """
    tokenizer = _read(directory, family)
    if tokenizer is not None and tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size} tokens and the model vocab_size={vocab_size}: every token must have a "
            "place in the model. Get both of one model"
        )
    return tokenizer


def _read(directory: Path, family: str) -> Tokenizer | None:
    if (directory / "tokenizer.json").is_file():
        return load_tokenizer_json(directory / "tokenizer.json")
    if family == "gpt2" and (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        return BPETokenizer.from_gpt2_files(directory / "vocab.json", directory / "merges.txt")
    if family == "bert" and (directory / "vocab.txt").is_file():
        lower = bool(_settings(directory).get("do_lower_case", True))
        return WordPieceTokenizer.from_vocab_file(directory / "vocab.txt", normalizers=({**BERT_NORMALIZER, "lowercase": lower},))
    if (directory / "tokenizer.model").is_file():
        return load_sentencepiece(directory / "tokenizer.model")
    others = [name for name in ("vocab.json", "vocab.txt", "spiece.model") if (directory / name).is_file()]
    missing = f"{directory} has a tokenizer as {', '.join(others)} only"
    check(not others, missing, "for this family it must be tokenizer.json", "Get that file too, or leave the tokenizer out: --no-tokenizer")
    return None


def read_chat_template(directory: Path) -> ChatTemplate | None:
    """How a dialogue is written for this model: chat_template.jinja, or the entry of tokenizer_config.json; None where there is neither."""
    settings, file = _settings(directory), directory / "chat_template.jinja"
    text: Any = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    if isinstance(text, list):  # several by name
        named = {entry.get("name"): entry.get("template") for entry in text if isinstance(entry, dict)}
        text = named.get("default")
    if not isinstance(text, str) or not text:
        return None
    return ChatTemplate(text, _token(settings.get("bos_token")), _token(settings.get("eos_token")))


def _token(value: Any) -> str:
    """A special token's text; it may be an object with more about it."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def _settings(directory: Path) -> dict[str, Any]:
    file = directory / "tokenizer_config.json"
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{file} can't be read ({error}). Get it again") from error
    return values if isinstance(values, dict) else {}


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        print("nothing there:", read_tokenizer(where, "llama", 100), read_chat_template(where))
        (where / "vocab.txt").write_text("[UNK]\nto\nbe\n##er\n")
        (where / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}", "eos_token": "</s>"}))
        tokenizer = read_tokenizer(where, "bert", 100)
        print("BERT's vocab.txt:", tokenizer and tokenizer.encode("To be beer"), read_chat_template(where))
        try:
            read_tokenizer(where, "llama", 100)
        except ConfigError as error:
            print("caught:", str(error).replace(folder, "…"))
