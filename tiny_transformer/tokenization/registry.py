"""Which class a saved tokenizer belongs to: one table. Read before: `base.py`."""

from typing import Any

from tiny_transformer.config import check_choice
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.tokenization.char import CharTokenizer

KINDS = {"char": CharTokenizer}


def from_dict(values: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `to_dict` described. Raises ConfigError for an unknown kind."""
    kind = values.get("kind")
    check_choice("tokenizer kind", kind, tuple(KINDS))
    return KINDS[str(kind)].from_dict(values)
