"""Characters that hardly anybody typed: controls, U+FFFD, private and unassigned code points, stray marks, mixed line ends.

Each kind has a name that `tiny data clean --remove` knows. Left out: misread UTF-8 (`mojibake.py`). Read before: nothing.
"""

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import regex

INVISIBLE = frozenset("\u00ad\u200b\u2060\u2061\u2062\u2063\u2064\u180e")
"""Soft hyphen, zero-width space, word joiner, invisible operators. The joiners U+200C and U+200D spell words and emoji: they may stay."""
REPLACEMENT, MARK = "\ufffd", "\ufeff"
_LINE_END = re.compile("\r\n|\r|\n|\u0085|\u2028|\u2029")
_UNASSIGNED = regex.compile(r"\p{Cn}")
LINE_ENDS = {"\n": "LF", "\r\n": "CRLF", "\r": "CR", "\u0085": "NEL", "\u2028": "U+2028", "\u2029": "U+2029"}


@dataclass(frozen=True)
class Finding:
    """Something that should not be in a text."""

    name: str
    """What `tiny data clean --remove` calls it."""
    what: str
    """In words."""
    count: int
    """How often it occurs."""
    line: int | None = None
    """The line of the first one, from 1."""
    example: str = ""
    """The first ones, escaped."""


def kind_of(character: str) -> str | None:
    r"""Why a character is suspicious, or None.

    >>> kind_of("\x07"), kind_of("\ufffd"), kind_of("é"), kind_of("\n")
    ('control characters', 'replacement characters', None, None)
    """
    if character in "\n\r\t\u0085\u2028\u2029":
        return None
    if character == REPLACEMENT:
        return "replacement characters"
    if character == MARK:
        return "byte order marks inside"
    if character in INVISIBLE:
        return "invisible characters"
    category = unicodedata.category(character)
    if category == "Cn" and not _UNASSIGNED.match(character):  # `regex` knows a newer Unicode than an older Python: nobody loses an emoji
        return None
    return {"Cc": "control characters", "Co": "private-use characters", "Cn": "unassigned code points"}.get(category)


_NAMES = {
    "control characters": "unprintable",
    "replacement characters": "unprintable",
    "private-use characters": "unprintable",
    "unassigned code points": "unprintable",
    "byte order marks inside": "byte-order-marks",
    "invisible characters": "invisible",
}


def suspicious_characters(text: str, counts: Mapping[str, int]) -> list[Finding]:
    """The suspicious kinds in a text, always all of them in the same order; `counts` says how often each character occurs in it."""
    kinds: dict[str, list[str]] = {kind: [] for kind in _NAMES}
    for character in sorted(counts):
        if (kind := kind_of(character)) is not None:
            kinds[kind].append(character)
    return [_finding(text, kind, found, sum(counts[c] for c in found)) for kind, found in kinds.items()]


def _finding(text: str, kind: str, characters: list[str], count: int) -> Finding:
    if not characters:
        return Finding(_NAMES[kind], kind, 0)
    first = min(text.index(character) for character in characters)
    return Finding(_NAMES[kind], kind, count, text.count("\n", 0, first) + 1, code_points(characters))


def code_points(characters: Collection[str], most: int = 4) -> str:
    """Characters by their numbers: "U+0007, U+FFFD and 3 more"."""
    shown = ", ".join(f"U+{ord(character):04X}" for character in sorted(characters)[:most])
    return shown + (f" and {len(characters) - most} more" if len(characters) > most else "")


def line_ends(text: str) -> dict[str, int]:
    r"""How often each way to end a line occurs; the usual text has one.

    >>> line_ends("a\nb\r\nc\n")
    {'LF': 2, 'CRLF': 1}
    """
    if not any(end in text for end in "\r\u0085\u2028\u2029"):
        return {"LF": text.count("\n")} if "\n" in text else {}
    counts = dict.fromkeys(LINE_ENDS, 0)
    for end in _LINE_END.finditer(text):
        counts[end.group()] += 1
    return {LINE_ENDS[end]: count for end, count in counts.items() if count}


def unify_line_ends(text: str) -> str:
    """Every line ends in a line feed."""
    return _LINE_END.sub("\n", text)


def not_normal(text: str) -> Finding:
    """Lines that are not in Unicode's composed form NFC: the same letters are then written in two ways (é, and e with an accent)."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return Finding("normalization", "lines that are not NFC", 0)
    lines = [number for number, line in enumerate(text.split("\n"), 1) if not unicodedata.is_normalized("NFC", line)]
    example = text.split("\n")[lines[0] - 1] if lines else ""
    return Finding("normalization", "lines that are not NFC", max(1, len(lines)), lines[0] if lines else 1, ascii(example[:40])[1:-1])


def remove_kind(text: str, name: str) -> str:
    """The text without the suspicious characters that have this `--remove` name."""
    gone = [c for c in set(text) if (kind := kind_of(c)) is not None and _NAMES[kind] == name]
    return text.translate(dict.fromkeys(map(ord, gone))) if gone else text


if __name__ == "__main__":
    from collections import Counter

    sample = "A bell \x07, a lost caf\ufffd,\r\na mark \ufeff inside,\na soft\u00adhyphen and e\u0301.\n"
    for finding in [*suspicious_characters(sample, Counter(sample)), not_normal(sample)]:
        print(f"{finding.count} {finding.what:34} {finding.example}")
    print(line_ends(sample))
