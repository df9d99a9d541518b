"""Texts to try tokenizers on: emoji sequences, combining marks, both directions, mixed scripts, long runs, anything else."""

import random

from hypothesis import strategies as st

PARTS = [
    "the", "The", "THE", " ", "  ", "\n", "\t", "\r\n", "don't", ".", ",", "!?", "3.14", "$", "`", "##", "▁", "[UNK]", "<unk>", "a", "b",
    "ab", "é", "e\u0301", "\u0301", "\u0345\u0301\u0323", "ǖ", "Å", "Å", "ﬁ", "İ", "ẞ", "Σ", "ΣΑΣ", "Ǆ", "ᾳ", "ﷺ", "½",
    "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "1️⃣", "\ufe0f", "\u200d", "☃",
    "שלום", "שָׁל", "مرحبا", "\u200f", "\u202e", "ۀ", "नमस्ते", "क्षि", "தமிழ்", "ไทย", "가", "가", "東京", "タワー", "ｶﾞ", "中", "\u3000", "𠮷",
    "\u0000", "\x1c", "\x85", "\xa0", "\xad", "\u2028", "\ufeff", "\ufffd", "\u0378", "\ue000", "\U0010ffff", "𝔘", "\U000105d2\u0307",
]  # fmt: skip
"""Pieces that have gone wrong somewhere: case without a partner, marks without a letter, spaces that are none."""

_CHARACTERS = st.characters(exclude_categories=("Cs",))
_RUNS = st.tuples(st.sampled_from(PARTS) | _CHARACTERS, st.integers(1, 130)).map(lambda run: run[0] * run[1])
ANY_TEXT = st.one_of(
    st.lists(st.sampled_from(PARTS), max_size=12).map("".join),
    st.text(_CHARACTERS, max_size=25),
    st.lists(st.sampled_from(PARTS) | st.text(_CHARACTERS, max_size=4) | _RUNS, max_size=5).map("".join),
)
"""Any Unicode text without lone surrogates, which the libraries we compare with do not take."""


def many_texts(count: int, seed: int = 0, parts: int = 8) -> list[str]:
    """`count` texts of the same making without hypothesis: quicker by far, always the same."""
    choose = random.Random(seed)

    def part() -> str:
        kind = choose.random()
        if kind < 0.75:
            return choose.choice(PARTS)
        if kind < 0.97:
            code = choose.choice((choose.randrange(0x250), choose.randrange(0x3000), choose.randrange(0x110000)))
            return "" if 0xD800 <= code < 0xE000 else chr(code)
        return choose.choice(PARTS) * choose.randrange(60)

    return ["".join(part() for _ in range(choose.randrange(parts))) for _ in range(count)]


def chunks_of(text: str, sizes: list[int]) -> list[str]:
    """`text` cut after each of `sizes`, then the rest."""
    parts, at = [], 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    return [*parts, text[at:]]
