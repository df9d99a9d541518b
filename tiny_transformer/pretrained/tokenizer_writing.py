"""A tokenizer as the files that lie beside a model's weights: tokenizer.json, tokenizer_config.json, and the older ones where customary.

tokenizer.json says everything (`tokenization/hugging_face.py` writes it); tokenizer_config.json says which tokens begin, end and pad
a text, how long one may be, and that nothing is to be tidied when ids become text. Read before: `tokenizer_files.py`.
"""

import json
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tiny_transformer.config import ConfigError
from tiny_transformer.pretrained.chat_template import ChatTemplate
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.bpe import BPETokenizer
from tiny_transformer.tokenization.hugging_face import to_tokenizer_json
from tiny_transformer.tokenization.hugging_face_bpe import QWEN2
from tiny_transformer.tokenization.normalized import NormalizedTokenizer
from tiny_transformer.tokenization.wordpiece import WordPieceTokenizer


@dataclass(frozen=True)
class Special:
    """Tokens that are no text, by what they are for (bos, eos, pad, unk, mask)."""

    ids: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


def special_of(tokenizer: Tokenizer | None, chat_template: ChatTemplate | None = None) -> Special:
    """By the tokens' conventional names; where a chat template names its own beginning and end, these."""
    if tokenizer is None:
        return Special()
    tokens: dict[str, int] = dict(getattr(tokenizer, "special_tokens", None) or {})
    by_id = {i: token for token, i in tokens.items()}
    ids = {role: i for role, i in asdict(tokenizer.special).items() if i is not None}
    for role, text in (("bos", chat_template.bos), ("eos", chat_template.eos)) if chat_template else ():
        if text in tokens:
            ids[role] = tokens[text]
    return Special(ids, {role: by_id[i] for role, i in ids.items() if i in by_id})


def tokenizer_files(
    tokenizer: Tokenizer | None, chat_template: ChatTemplate | None, special: Special, family: str, max_seq_len: int
) -> dict[str, bytes]:
    """Name → content; nothing without a tokenizer. Raises ConfigError for one that tokenizer.json cannot express."""
    if tokenizer is None:
        return {}
    try:
        values = to_tokenizer_json(tokenizer)
    except ConfigError as error:
        raise ConfigError(f"the tokenizer does not fit into tokenizer.json: {error}; or leave it out: --no-tokenizer") from error
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_seq_len, "clean_up_tokenization_spaces": False,
        **{f"{role}_token": text for role, text in special.texts.items()},
    }  # fmt: skip
    files = {"tokenizer.json": _json(values), "tokenizer_config.json": _json(settings), **_older(tokenizer, family)}
    if chat_template is not None:
        files["chat_template.jinja"] = chat_template.text.encode("utf-8", "surrogatepass")
    return files


def misread_by(tokenizer: Tokenizer | None) -> tuple[str, ...]:
    """Families whose class transformers 5 puts in the place of this tokenizer, whatever tokenizer.json says: it cuts text its own way."""
    if tokenizer is None:
        return ()
    inner = tokenizer.inner if isinstance(tokenizer, NormalizedTokenizer) and tokenizer.normalizers == [{"type": "NFC"}] else None
    own = isinstance(inner, BPETokenizer) and inner.split == QWEN2
    return () if own else ("qwen2",)


def _older(tokenizer: Tokenizer, family: str) -> dict[str, bytes]:
    """What directories of GPT-2 and BERT also hold, where these older files can hold it."""
    with tempfile.TemporaryDirectory() as folder, suppress(ConfigError):
        place = Path(folder)
        if family == "gpt2" and isinstance(tokenizer, BPETokenizer) and tokenizer.split == "gpt2":
            tokenizer.write_gpt2_files(place / "vocab.json", place / "merges.txt")
        elif family == "bert" and isinstance(tokenizer, WordPieceTokenizer):
            tokenizer.save_vocab_file(place / "vocab.txt")
        return {path.name: path.read_bytes() for path in sorted(place.iterdir())}
    return {}


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, indent=1).encode("utf-8") + b"\n"


if __name__ == "__main__":
    from tiny_transformer.tokenization import train

    words = train("wordpiece", "to be or not to be " * 9, 40)
    special = special_of(words)
    for name, content in tokenizer_files(words, None, special, "bert", 128).items():
        print(f"{name:24} {len(content):6,} bytes", content.decode().replace("\n", " ")[:60])
    print(special)
