"""What is done to a text before it is cut into words: accents off, small letters, normal forms.

A normalization is a list of steps, each a JSON object as Hugging Face's tokenizer.json writes it, so it travels as it is.
Left out: cutting into words (`wordpiece.py`, `unigram.py`), and steps that nobody here needs (they are refused by name).
Read before: nothing; `unicode_tables.py` holds lists of code points only.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from tiny_transformer.config import check
from tiny_transformer.tokenization import unicode_tables as tables

Step = dict[str, Any]

BERT: Step = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
"""Devlin et al. (2019), the uncased models: `strip_accents` None means: when `lowercase`."""

KEYS: dict[str, set[str]] = {
    "BertNormalizer": {"clean_text", "handle_chinese_chars", "strip_accents", "lowercase"},
    **{name: set() for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents")},
    "Strip": {"strip_left", "strip_right"},
    "Replace": {"pattern", "content"},
    "Prepend": {"prepend"},
}
"""The steps there are, with what each must say."""

WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""White space as Unicode defines it. Python's str.isspace() also counts U+001C to U+001F."""

CHINESE = [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)]
CHINESE += [(0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF)]
"""Characters that BERT makes words of their own. Blocks of Devlin et al.'s code; the last begins at U+2B920 as in `tokenizers`."""


class CharacterMap(dict[int, str]):
    """For str.translate: a function of one character, asked once for each and then remembered."""

    def __init__(self, change: Callable[[str], str]) -> None:
        super().__init__()
        self._change = change

    def __missing__(self, code: int) -> str:
        self[code] = self._change(chr(code))
        return self[code]


def _clean(character: str) -> str:
    """White space becomes a space; control, format and private characters go, and U+FFFD."""
    if character in "\t\n\r":
        return " "
    if unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs") and ord(character) not in tables.NEWER_CONTROLS:
        return ""
    return "" if character == "\ufffd" else " " if character in WHITE else character


def _space_chinese(character: str) -> str:
    return f" {character} " if any(first <= ord(character) <= last for first, last in CHINESE) else character


def _is_accent(character: str) -> bool:
    code = ord(character)
    return (unicodedata.category(character) == "Mn" and code not in tables.NEWER_ACCENTS) or code in tables.OLDER_ACCENTS


def _is_mark(character: str) -> bool:
    code = ord(character)
    return (unicodedata.category(character)[0] == "M" and code not in tables.NEWER_MARKS) or code in tables.OLDER_MARKS


def _lower(character: str) -> str:
    """One character at a time: a final Σ is σ like any other, where str.lower() makes it ς. İ becomes two characters."""
    return chr(tables.NEWER_CAPITALS[ord(character)]) if ord(character) in tables.NEWER_CAPITALS else character.lower()


CLEAN, SPACE_CHINESE, LOWER = CharacterMap(_clean), CharacterMap(_space_chinese), CharacterMap(_lower)
NO_ACCENT = CharacterMap(lambda character: "" if _is_accent(character) else character)
NO_MARK = CharacterMap(lambda character: "" if _is_mark(character) else character)
_NEWER_FORMS = re.compile("([" + "".join(map(chr, sorted(tables.NEWER_FORMS))) + "]+)")


def normal_form(form: str, text: str) -> str:
    """unicodedata.normalize with older tables: characters they do not know are left where they are."""
    if text.isascii():
        return text
    parts = _NEWER_FORMS.split(text)
    return "".join(part if i % 2 else unicodedata.normalize(form, part) for i, part in enumerate(parts))  # type: ignore[arg-type]


def bert_normalize(text: str, *, clean_text: bool, handle_chinese_chars: bool, strip_accents: bool | None, lowercase: bool) -> str:
    """Devlin et al. (2019), `BasicTokenizer` in their tokenization.py.

    >>> bert_normalize("Crème\\tBRÛLÉE中", clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
    'creme brulee 中 '
    """
    if clean_text:
        text = text.translate(CLEAN)
    if handle_chinese_chars and not text.isascii():
        text = text.translate(SPACE_CHINESE)
    if (lowercase if strip_accents is None else strip_accents) and not text.isascii():
        text = normal_form("NFD", text).translate(NO_ACCENT)
    return text.translate(LOWER) if lowercase else text


SPACES, FIRST_SPACES, LAST_SPACES = " {2,}", r"\A +", r"[ ▁]+\z"
"""The regular expressions that are honoured, as the library writes them: spaces in a row, at the beginning, at the end."""
_REGEX = {SPACES: re.compile(SPACES), FIRST_SPACES: re.compile(FIRST_SPACES), LAST_SPACES: re.compile(r"[ ▁]+\Z")}


def check_steps(steps: Sequence[Step]) -> list[Step]:
    """The steps, when each is one of KEYS with all it needs and no more. Raises ConfigError naming the first that is not."""
    for step in steps:
        kind = step.get("type") if isinstance(step, dict) else None
        check(kind in KEYS, f"normalizer {kind!r}", f"it must be one of {', '.join(KEYS)}", "Convert the tokenizer to one without it")
        check(set(step) - {"type"} == KEYS[str(kind)], f"normalizer {step}", f"{kind} must hold {sorted(KEYS[str(kind)])}", "Mend the file")
        if kind == "Replace":
            pattern = step["pattern"] if isinstance(step["pattern"], dict) else {}
            plain = isinstance(pattern.get("String"), str) and bool(pattern["String"])
            plain = plain or (list(pattern) == ["Regex"] and pattern["Regex"] in _REGEX)
            others = "Regex patterns are not honoured, but those for spaces in a row"
            check(plain, f"normalizer Replace with {step['pattern']}", 'it must be {"String": text}', others)
    return list(steps)


def normalize(text: str, steps: Sequence[Step], *, begins: bool = True) -> str:
    """All steps in order. `begins` False: `text` continues another piece, so Prepend adds nothing."""
    for step in steps:
        text = _apply(step, text, begins)
    return text


def _apply(step: Step, text: str, begins: bool) -> str:
    match step["type"]:
        case "BertNormalizer":
            return bert_normalize(text, **{key: step[key] for key in KEYS["BertNormalizer"]})
        case "Lowercase":
            return text.translate(LOWER)
        case "StripAccents":
            return text.translate(NO_MARK)
        case "Strip":
            text = text.lstrip(WHITE) if step["strip_left"] else text
            return text.rstrip(WHITE) if step["strip_right"] else text
        case "Replace" if "Regex" in step["pattern"]:
            return _REGEX[step["pattern"]["Regex"]].sub(lambda _: step["content"], text)
        case "Replace":
            return text.replace(step["pattern"]["String"], step["content"])
        case "Prepend":
            return step["prepend"] + text if text and begins else text
        case form:
            return normal_form(form, text)


def is_local(steps: Sequence[Step]) -> bool:
    """Whether a text may be cut before a space, the parts normalized one by one and joined, with the same result."""
    return all(
        step["type"] != "Strip" and not (step["type"] == "Replace" and len(step["pattern"].get("String", "  ")) > 1) for step in steps
    )


@lru_cache(maxsize=1)
def bert_boundaries() -> CharacterMap:
    """For str.translate: white space becomes a space, punctuation gets spaces around it (BERT's pre-tokenizer)."""

    def split(character: str) -> str:
        code = ord(character)
        if character in WHITE:
            return " "
        ascii_symbol = code < 128 and character.isprintable() and not character.isalnum() and character != " "
        punctuation = unicodedata.category(character)[0] == "P" and code not in tables.NEWER_PUNCTUATION
        return f" {character} " if ascii_symbol or punctuation or code in tables.OLDER_PUNCTUATION else character

    return CharacterMap(split)


def bert_words(text: str) -> list[str]:
    """Words at white space; each punctuation mark or ASCII symbol is a word of its own.

    >>> bert_words("don't, 5$!")
    ['don', "'", 't', ',', '5', '$', '!']
    """
    return [word for word in text.translate(bert_boundaries()).split(" ") if word]


if __name__ == "__main__":
    for sample in ("Crème\tBRÛLÉE", "ΣΊΣΥΦΟΣ", "東京tower", "e\u0301 = é", "zero\u200bwidth"):
        normal = normalize(sample, [BERT])
        print(f"{sample!r:24} -> {normal!r:24} -> {bert_words(normal)}")
