"""Text that was UTF-8 and was read as Windows-1252 or Latin-1 ("cafÃ©" for "café"): found, and repaired where that is certain.

UTF-8 writes a character beyond ASCII as a lead byte (C2–F4) and one to three more (80–BF). Read as Windows-1252 each byte becomes a
character of its own: a letter such as Ã, Â, â or Ð, and then signs such as ©, €, ™. Encoding such a run back and decoding it as
UTF-8 undoes the damage. But real text can look the same by chance: „MENÜ“ ends in Ü“, which are the bytes of a Syriac letter. So a
run is repaired only when nobody would have written it:

- two or more sequences stand side by side (Ð¿Ñ€Ð¸), or
- it begins with â€, â‚¬, â„¢, ï»¿ or ï¿½: quotation marks, dashes, €, ™, byte order mark and U+FFFD misread, or
- a capital such as Ã, Å or Ä stands after a small letter and before a sign (cafÃ©), or
- Â or Ã stands before a sign, but not as the last letter of a word in capitals before closing punctuation (MAÇÃ…), or
- all of the line's characters beyond ASCII are such sequences, and a certain one of them begins with the same letter (Ñ‚ Ñ‚Ð°Ð¼).

Text misread twice (ÃƒÂ©) is repaired twice: the repair goes on until it finds nothing. Read before: nothing.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple


class Misread(NamedTuple):
    """A run of a text that is UTF-8 read wrongly."""

    start: int
    wrong: str
    right: str


@dataclass(frozen=True)
class Repair:
    """A repaired text, and what was done to it."""

    text: str
    runs: int
    """How many runs were repaired."""
    characters: int
    """How many characters were in them."""
    examples: tuple[tuple[str, str], ...]
    """(wrong, right) of the first different ones."""


def _as_windows_1252(byte: int) -> str:
    return bytes([byte]).decode("cp1252", "ignore") or chr(byte)  # five bytes are not used by Windows-1252: it shows them as Latin-1


_BYTE_OF = {chr(byte): byte for byte in range(0x80, 0x100)} | {_as_windows_1252(byte): byte for byte in range(0x80, 0x100)}


def _any_of(low: int, high: int) -> str:
    return "[" + "".join(re.escape(character) for character, byte in _BYTE_OF.items() if low <= byte <= high) + "]"


_MORE = _any_of(0x80, 0xBF)
_SEQUENCE = f"(?:{_any_of(0xC2, 0xDF)}{_MORE}|{_any_of(0xE0, 0xEF)}{_MORE}{{2}}|{_any_of(0xF0, 0xF4)}{_MORE}{{3}})"
_ONE = re.compile(_SEQUENCE)
_RUN = re.compile(f"{_SEQUENCE}+")
_KNOWN = re.compile(r"â(?:€|\x80)|â(?:‚|\x82)¬|â(?:„|\x84)(?:¢|¦)|ï»¿|ï¿½")
_ENDS_A_WORD = frozenset("\xa0…‘’“”„‚«»‹›–—•·™®©°ªº¹²³")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")


def encode_back(text: str) -> bytes:
    """The bytes that a misreading turned into `text`. Raises KeyError for a character that Windows-1252 and Latin-1 do not have.

    >>> encode_back("Ã©").decode("utf-8")
    'é'
    """
    return bytes(ord(character) if ord(character) < 0x80 else _BYTE_OF[character] for character in text)


def misread(text: str) -> list[Misread]:
    """Every run that is certainly misread UTF-8, in order.

    >>> misread("a cafÃ© in „MENÜ“")
    [Misread(start=5, wrong='Ã©', right='é')]
    """
    found = []
    start = 0
    for run in _RUN.finditer(text):
        if run.start() < start:
            continue
        line_start, line_end = text.rfind("\n", 0, run.start()) + 1, text.find("\n", run.end())
        line_end = len(text) if line_end < 0 else line_end
        found += _in_line(text[line_start:line_end], line_start)
        start = line_end
    return found


def repair(text: str) -> Repair:
    """Undo every certain misreading, as often as there is one.

    >>> repair("cafÃ©, dÃƒÂ©jÃƒÂ\\xa0 vu, itâ€™s").text
    'café, déjà vu, it’s'
    """
    runs = characters = 0
    examples: dict[str, str] = {}
    while found := misread(text):
        parts, end = [], 0
        for start, wrong, right in found:
            parts += [text[end:start], right]
            end = start + len(wrong)
            if len(examples) < 5:
                examples.setdefault(wrong, right)
        text = "".join([*parts, text[end:]])
        runs, characters = runs + len(found), characters + sum(len(wrong) for _, wrong, _ in found)
    return Repair(text, runs, characters, tuple(examples.items()))


def _in_line(line: str, offset: int) -> list[Misread]:
    candidates = [(run.start(), run.group(), right) for run in _RUN.finditer(line) if (right := _decode(run.group())) is not None]
    certain = [_is_certain(line, start, wrong) for start, wrong, _ in candidates]
    if any(certain) and len(_BEYOND_ASCII.findall(line)) == sum(len(wrong) for _, wrong, _ in candidates):
        leads = {found[0] for (_, wrong, _), sure in zip(candidates, certain, strict=True) if sure for found in _ONE.findall(wrong)}
        certain = [wrong[0] in leads for _, wrong, _ in candidates]
    return [Misread(offset + start, wrong, right) for (start, wrong, right), sure in zip(candidates, certain, strict=True) if sure]


def _decode(run: str) -> str | None:
    try:
        return encode_back(run).decode("utf-8")
    except UnicodeDecodeError:  # an overlong form, half a surrogate pair, or a number beyond Unicode
        return None


def _is_certain(line: str, start: int, run: str) -> bool:
    before = line[start - 1] if start else " "
    if len(_ONE.findall(run)) > 1 or _KNOWN.match(run):
        return True
    lead, more = run[0], run[1]  # the leads of three and four bytes are small letters: one CJK character may be French, né…»
    return (lead.isupper() and before.islower()) or (lead in "ÂÃ" and not (before.isupper() and more in _ENDS_A_WORD))


if __name__ == "__main__":
    for sample in ("A cafÃ© isnâ€™t a â€œcafeteriaâ€\x9d", "ÐŸÑ€Ð¸Ð²ÐµÑ‚, Ð¼Ð¸Ñ€!", "dÃƒÂ©jÃƒÂ\xa0 vu", "„MENÜ“ and né…» are right"):
        print(f"{sample!r:58} {repair(sample).text!r}")
