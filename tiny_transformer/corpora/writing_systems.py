"""Which scripts a text is written in: Latin, Cyrillic, Han, … by Unicode's property Script (UAX 24).

Left out: languages (many share a script). Read before: nothing.
"""

import re
from collections.abc import Mapping
from functools import cache

import regex

_SCRIPTS = re.findall(
    r"\w+",
    """
Latin Common Inherited Greek Cyrillic Armenian Hebrew Arabic Syriac Thaana Devanagari Bengali Gurmukhi Gujarati Oriya Tamil Telugu
Kannada Malayalam Sinhala Thai Lao Tibetan Myanmar Georgian Hangul Ethiopic Cherokee Canadian_Aboriginal Ogham Runic Khmer
Mongolian Hiragana Katakana Bopomofo Han Yi Old_Italic Gothic Deseret Tagalog Hanunoo Buhid Tagbanwa Limbu Tai_Le Linear_B
Ugaritic Shavian Osmanya Cypriot Braille Buginese Coptic New_Tai_Lue Glagolitic Tifinagh Syloti_Nagri Old_Persian Kharoshthi
Balinese Cuneiform Phoenician Phags_Pa Nko Sundanese Lepcha Ol_Chiki Vai Saurashtra Kayah_Li Rejang Lycian Carian Lydian Cham
Tai_Tham Tai_Viet Avestan Egyptian_Hieroglyphs Samaritan Lisu Bamum Javanese Meetei_Mayek Imperial_Aramaic Old_South_Arabian
Inscriptional_Parthian Inscriptional_Pahlavi Old_Turkic Kaithi Batak Brahmi Mandaic Chakma Meroitic_Cursive Meroitic_Hieroglyphs
Miao Sharada Sora_Sompeng Takri Caucasian_Albanian Bassa_Vah Duployan Elbasan Grantha Khojki Khudawadi Linear_A Mahajani
Manichaean Mende_Kikakui Modi Mro Nabataean Old_North_Arabian Old_Permic Pahawh_Hmong Palmyrene Pau_Cin_Hau Psalter_Pahlavi
Siddham Tirhuta Warang_Citi Ahom Anatolian_Hieroglyphs Hatran Multani Old_Hungarian SignWriting Adlam Bhaiksuki Marchen Newa Osage
Tangut Masaram_Gondi Nushu Soyombo Zanabazar_Square Dogra Gunjala_Gondi Hanifi_Rohingya Makasar Medefaidrin Old_Sogdian Sogdian
Elymaic Nandinagari Nyiakeng_Puachue_Hmong Wancho Chorasmian Dives_Akuru Khitan_Small_Script Yezidi Cypro_Minoan Old_Uyghur Tangsa
Toto Vithkuqi Kawi Nag_Mundari Garay Gurung_Khema Kirat_Rai Ol_Onal Sunuwar Todhri Tulu_Tigalari
Sidetic Beria_Erfe Tai_Yo Tolong_Siki Seal Jurchen Proto_Cuneiform
""",
)
_NOT_LATIN = re.compile(r"[\u0370-\u052f\u1c80-\u1c8f\u1f00-\u1fff\ua640-\ua69f]+")  # the blocks of Greek and Cyrillic: a quick first look
_MIXED = regex.compile(r"\p{Latin}[\p{Cyrillic}\p{Greek}]|[\p{Cyrillic}\p{Greek}]\p{Latin}")


def scripts_of(characters: str) -> dict[str, str]:
    """Character → its script ("Common": digits, punctuation, space; "Inherited": accents that combine;
    "Unknown": unassigned, private and surrogate code points).

    >>> scripts_of("aж語 ")
    {'a': 'Latin', 'ж': 'Cyrillic', '語': 'Han', ' ': 'Common'}
    """
    found = dict.fromkeys(characters, "Unknown")
    left = "".join(found)
    for script in _SCRIPTS:
        pattern = _pattern(script)
        if not left or pattern is None:
            continue
        found.update(dict.fromkeys(pattern.findall(left), script))
        left = pattern.sub("", left)
    return found


@cache
def _pattern(script: str) -> "regex.Pattern[str] | None":
    try:
        return regex.compile(rf"\p{{Script={script}}}")
    except regex.error:  # an older `regex` knows an older Unicode, and so no characters of this script
        return None


def script_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Script → how many characters are of it, the commonest first, from how often each character occurs."""
    script_of = scripts_of("".join(counts))
    totals: dict[str, int] = {}
    for character, count in counts.items():
        totals[script_of[character]] = totals.get(script_of[character], 0) + count
    return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


def mixed_words(text: str, scripts: Mapping[str, int], most: int = 5) -> tuple[int, tuple[str, ...]]:
    """How many words have a Latin letter beside a Cyrillic or Greek one (a look-alike, or a slip), and the first different ones.

    >>> mixed_words("a р\u0430ge of pаper", {"Latin": 8, "Cyrillic": 3})
    (2, ('раge', 'pаper'))
    """
    if "Latin" not in scripts or not {"Cyrillic", "Greek"} & set(scripts):
        return 0, ()
    count, examples = 0, dict[str, None]()
    end = 0
    for run in _NOT_LATIN.finditer(text):
        if run.start() < end or not _MIXED.search(text, max(0, run.start() - 1), run.end() + 1):
            continue
        end = _word_end(text, run.end())
        count += 1
        if len(examples) < most:
            examples[text[_word_start(text, run.start()) : end]] = None
    return count, tuple(examples)


def _word_start(text: str, place: int) -> int:
    while place and text[place - 1].isalnum():
        place -= 1
    return place


def _word_end(text: str, place: int) -> int:
    while place < len(text) and text[place].isalnum():
        place += 1
    return place


if __name__ == "__main__":
    from collections import Counter

    sample = "Tolstoy (Толстой) wrote Война и мир; 戦争と平和 in Japanese, πόλεμος in Greek."
    print(script_counts(Counter(sample)))
    print("mixed:", mixed_words("the pаypal of Tolstoy", {"Latin": 20, "Cyrillic": 1}))
