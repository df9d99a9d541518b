r"""How a text is cut into pieces before BPE: no merge ever crosses a cut.

Without cuts the most frequent pairs are "e " and ", ", and half the vocabulary is spent on words glued to punctuation. GPT-2
(Radford et al. 2019, section 2.2) therefore splits by a regular expression first: a word with the space before it, a number,
punctuation, the rest of the white space. GPT-4's pattern (tiktoken's cl100k_base) gives numbers at most three digits, lets any
single mark stand before a word, and ends a piece at line ends.

    text   "I've  got 1234 tokens!\n"
    gpt2   I | 've | ␣ | ␣got | ␣1234 | ␣tokens | ! | ⏎
    gpt4   I | 've | ␣ | ␣got | ␣ | 123 | 4 | ␣tokens | !⏎

Left out: what happens inside a piece (`bpe.py`). Read before: `special_tokens.py`.
"""

import re
from collections.abc import Iterator
from functools import cache

import numpy as np
import regex
from numpy.typing import NDArray

from tiny_transformer.config import ConfigError, check

PATTERNS: dict[str, str] = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s++(?![\s\S])|\s*[\r\n]|\s+(?!\S)|\s+",
    "none": "",
}
"""The named patterns, in a form that the engines of `regex`, tiktoken and tokenizers read alike. No character is left out.

White space at the end of a text is one piece in "gpt4", as in tiktoken; older tokenizer.json files cut it behind a line end."""

LOOK_AHEAD = 4
"""How far a named pattern looks beyond the runs of characters it reads: the contraction 'll, and one more."""

NEWER = """
    558 58B-58C 5C8-5C9 88F B53-B54 C5C CDC 1ACF-1AF0 208F 209D-209F 20C1-20C4 2B96 2E60-2E63 A7CE-A7CF A7D2 A7D4 A7DD A7E2 A7F1
    AB6C-AB6D FBC3-FBD2 FD90-FD91 FDC8-FDCE 107BB-107BF 10940-10959 10EC5-10EC7 10EC9-10EEE 10EF0-10EFB 11B0A 11B60-11B67
    11DB0-11DDB 11DE0-11DE9 11DF0-11DF1 1246F 12475-1247F 12550-12686 16EA0-16EB8 16EBB-16ED3 16FF2-16FF6 187F8-187FF 18CD6-18CDA
    18D09-18D20 18D80-18DF2 18E00-19191 191A0-191D2 1B123-1B128 1B168 1CCFA-1CCFC 1CEBA-1CED0 1CED2-1CED4 1CEDD-1CEFD 1D127-1D128
    1D1EB-1D1FF 1D250-1D281 1D6A6 1DB00-1DB1C 1DF1F-1DF24 1DF2B-1DF81 1DF90-1DF96 1DFCD-1DFFF 1E6C0-1E6DE 1E6E0-1E6F5 1E6FE-1E6FF
    1F1AE 1F6D8-1F6D9 1F777-1F77A 1F7DA-1F7DB 1F7F1-1F7FF 1F8D0-1F8D8 1FA54-1FA57 1FA8A-1FA8E 1FAC8 1FACC-1FACD 1FADD 1FAEA-1FAEB
    1FAEF 1FAF9-1FAFA 1FBFA 2B73A-2B73F 2B81E 2CEA2-2CEAD 323B0-33479 3D000-3FC3F
"""
"""Code points that Unicode 16.0 left unassigned and the `regex` package has since learned. What is a letter must not change
with an upgrade, or saved tokenizers would give other ids; so these count as unassigned, as in tiktoken and tokenizers."""

UNASSIGNED = "\ufdd0"
"""A code point that will never be a character: it stands in for the newer ones while a pattern looks."""


def well_formed(text: str) -> str:
    """The text as UTF-8 can hold it: surrogate pairs become their character, lone surrogates U+FFFD (as in tiktoken)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def to_utf8(text: str) -> bytes:
    """The bytes of any text, lone surrogates as U+FFFD."""
    return well_formed(text).encode()


@cache
def _is_newer() -> NDArray[np.bool_]:
    """For each code point, whether it is one of NEWER."""
    table = np.zeros(0x110000, dtype=bool)
    for entry in NEWER.split():
        first, _, last = entry.partition("-")
        table[int(first, 16) : int(last or first, 16) + 1] = True
    return table


def as_of_unicode_16(text: str) -> str:
    """A well-formed text with the newer characters replaced by UNASSIGNED, one for one; most often the text itself."""
    if text.isascii():
        return text
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    newer = _is_newer()[codes]
    return np.where(newer, ord(UNASSIGNED), codes).astype("<u4").tobytes().decode("utf-32-le") if newer.any() else text


class Splitter:
    """Cuts text into pieces: by a named pattern, by none, or by a regular expression of one's own.

    With one's own expression each match is a piece, and so is what lies between two matches.

    >>> Splitter("gpt2").split("I've got 12 of them")
    ['I', "'ve", ' got', ' 12', ' of', ' them']
    >>> Splitter("[.!?]+").split("So? So it is...")
    ['So', '?', ' So it is', '...']
    """

    def __init__(self, split: str = "gpt2") -> None:
        """Take a pattern's name or an expression. Raises ConfigError for an unknown name and for an expression that is none."""
        names = ", ".join(PATTERNS)
        must = f"it must be one of {names}, or a regular expression"
        check(split in PATTERNS or not re.fullmatch(r"[\w-]*", split), f"split={split!r}", must, "Pick one of these")
        self.name = split
        try:
            self._pattern = regex.compile(PATTERNS.get(split, split))
        except regex.error as error:
            raise ConfigError(f"split={split!r}: this is no regular expression ({error}). Use one of {names}, or mend it") from error
        self._covers = split in PATTERNS
        self.is_none = split == "none"

    def split(self, text: str) -> list[str]:
        """All pieces of a well-formed text, in order; joined they are the text, and none is empty."""
        if self.is_none or not text:
            return [text] if text else []
        shown = as_of_unicode_16(text)
        if self._covers:
            pieces: list[str] = self._pattern.findall(shown)
        else:
            pieces = list(self._pieces_and_gaps(shown))
        return pieces if shown is text else cut(text, pieces)

    def _pieces_and_gaps(self, text: str) -> Iterator[str]:
        """What matches, and what lies between; a match of nothing is no piece."""
        end = 0
        for match in self._pattern.finditer(text):
            if match.start() > end:
                yield text[end : match.start()]
            if match.group():
                yield match.group()
            end = match.end()
        if end < len(text):
            yield text[end:]

    def settled(self, text: str) -> tuple[list[str], str]:
        """The pieces at the beginning of `text` that stay the same whatever follows it, and the rest of the text.

        A named pattern reads one run of characters of a kind, the white space behind it, and at most LOOK_AHEAD more. So a
        piece is settled once more characters than these, and one that is no white space, stand behind its end. An expression
        of one's own may look anywhere: nothing is settled before the end.
        """
        end = min(len(text) - LOOK_AHEAD, len(text.rstrip()) - 1)
        if not self._covers or self.is_none or end <= 0:
            return [], text
        pieces = self.split(text)
        begin = len(text)
        while pieces and begin > end:
            begin -= len(pieces.pop())
        return pieces, text[begin:]


def cut(text: str, like: list[str]) -> list[str]:
    """`text` in pieces as long as those of `like`."""
    ends = np.cumsum([len(piece) for piece in like]).tolist()
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


if __name__ == "__main__":
    example = "I've  got 1234 tokens!\n"
    for name in PATTERNS:
        print(f"{name:5}", " | ".join(piece.replace(" ", "␣").replace("\n", "⏎") for piece in Splitter(name).split(example)))
    pieces, rest = Splitter("gpt2").settled("Friends, Romans, count")
    print("settled before the text goes on:", pieces, "rest", repr(rest))
