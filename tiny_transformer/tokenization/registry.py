"""Every kind of tokenizer by name: one table, and each module is loaded only when its kind is asked for. Read before: `base.py`."""

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

from tiny_transformer.config import check, check_choice
from tiny_transformer.tokenization.base import Tokenizer

KINDS: dict[str, tuple[str, str]] = {
    "char": ("tiny_transformer.tokenization.char", "CharTokenizer"),
    "byte": ("tiny_transformer.tokenization.byte", "ByteTokenizer"),
    "word": ("tiny_transformer.tokenization.word", "WordTokenizer"),
    "bpe": ("tiny_transformer.tokenization.bpe", "BPETokenizer"),
    "wordpiece": ("tiny_transformer.tokenization.wordpiece", "WordPieceTokenizer"),
    "unigram": ("tiny_transformer.tokenization.unigram", "UnigramTokenizer"),
    "metaspace_bpe": ("tiny_transformer.tokenization.metaspace_bpe", "MetaspaceBPE"),
    "normalized": ("tiny_transformer.tokenization.normalized", "NormalizedTokenizer"),
}
"""Kind → module and class. The last two are loaded from other people's files, not trained."""

TRAINED = tuple(kind for kind in KINDS if kind not in ("metaspace_bpe", "normalized"))
"""Kinds that are trained here."""
OWN_SIZE = ("char", "byte", "word")
"""Kinds whose vocabulary follows from the text or from nothing: for them `vocab_size` is at most a limit."""


def class_of(kind: object) -> Any:
    """The class of a kind. Raises ConfigError listing the known ones."""
    check_choice("tokenizer kind", kind, tuple(KINDS))
    module, name = KINDS[str(kind)]
    return getattr(importlib.import_module(module), name)


def from_dict(values: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `to_dict` described. Raises ConfigError for an unknown kind, and for values that describe none."""
    tokenizer_class = class_of(values.get("kind"))
    try:
        tokenizer: Tokenizer = tokenizer_class.from_dict(values)
    except KeyError as error:
        raise ValueError(f"a saved {values['kind']} tokenizer without {error}: the part is missing. Save the tokenizer again") from error
    return tokenizer


def train(kind: str, text: str, vocab_size: int | None = None, special_tokens: Sequence[str] | None = None, **options: Any) -> Tokenizer:
    """Train a tokenizer of the kind on `text`; `options` are those of its class's `train`.

    Without `special_tokens` it has those that its kind cannot do without.

    Raises ConfigError for an unknown kind or option, and where a kind that learns its vocabulary gets no `vocab_size`.

    >>> train("byte", "", special_tokens=["</s>"]).encode("hi</s>")
    [104, 105, 256]
    """
    check_choice("tokenizer kind", kind, TRAINED)
    train_class = class_of(kind).train
    known = [name for name in inspect.signature(train_class).parameters if name not in ("text", "vocab_size", "special_tokens")]
    for name in options:
        takes = f"the {kind} tokenizer is trained with {', '.join(known) or 'no options'}"
        check(name in known, f"option {name!r}", takes, "Use one of these" if known else "Leave it out")
    needed = f"the {kind} tokenizer learns its vocabulary, so it must know how large"
    check(vocab_size is not None or kind in OWN_SIZE, "vocab_size=None", needed, "Pass vocab_size, for example 2048")
    special = {} if special_tokens is None else {"special_tokens": special_tokens}
    tokenizer: Tokenizer = train_class(text, vocab_size, **special, **options)
    return tokenizer


if __name__ == "__main__":
    text = "to be or not to be, that is the question"
    for kind, size in (("char", None), ("byte", None), ("bpe", 270)):
        tokenizer = train(kind, text, size)
        print(f"{kind:5} {tokenizer.vocab_size:4} tokens, {len(tokenizer.encode(text)):3} for {len(text)} characters")
