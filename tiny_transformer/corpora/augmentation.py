"""Noise for training text: misspelt, miscased and misplaced, in exactly the amount that is asked for.

Seven functions take (text, rate, generator) and return a text; a rate is the chance of each character (or word) to be hit, and
rate 0 changes nothing. White space is neither touched nor made by the noise on characters, so words and lines keep their places. Words
move within their line only. New characters are drawn from the text itself, so a tokenizer of its characters knows them all.

Sources: Wei & Zou 2019, "EDA: Easy Data Augmentation", for the operations on words (its insertion draws synonyms; here it is another word
of the same line, as there is no thesaurus); Xie et al. 2017, "Data Noising as Smoothing in Neural Network Language Models", for
drawing replacements by frequency; Belinkov & Bisk 2018 for noise on characters.

For training text only: a validation loss on noise measures the noise. Left out: BPE-dropout, which is the tokenizer's.
Read before: nothing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import check, check_kinds

Codes = NDArray[np.uint32]
_WORD = re.compile(r"\S+")
_SPACES = re.compile(r"\s")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How much noise of each kind; 0 is none. Checked when made."""

    swap_characters: float = 0.0
    """Chance of a character to change places with its right neighbour."""
    drop_characters: float = 0.0
    """Chance of a character to be left out."""
    insert_characters: float = 0.0
    """Chance of a character to be followed by one more."""
    replace_characters: float = 0.0
    """Chance of a character to become another one of the text."""
    flip_case: float = 0.0
    """Chance of a letter to change between capital and small."""
    swap_words: float = 0.0
    """Chance of a word to change places with another word of its line."""
    delete_words: float = 0.0
    """Chance of a word to be left out; a line keeps at least one."""
    insert_words: float = 0.0
    """Chance of a word to bring about one more: a word of the line, at any place in it."""

    def __post_init__(self) -> None:
        """Check. Raises ConfigError."""
        check_kinds(self)
        for field in fields(self):
            rate = getattr(self, field.name)
            check(0 <= rate <= 1, f"{field.name}={rate}", "it is a chance, from 0 to 1", f"Try {field.name}=0.05")

    @property
    def is_identity(self) -> bool:
        """True when nothing would change."""
        return all(getattr(self, field.name) == 0 for field in fields(self))


def augment(text: str, settings: Augmentation, seed: int, epoch: int, *, alphabet: str | None = None) -> str:
    """The text as epoch `epoch` sees it: a pure function of all it is given.

    Every kind of noise has random numbers of its own, so switching one on leaves the draws of the others as they were. `alphabet`:
    the only characters that may be made (default: those of the text).

    >>> augment("to be or not to be", Augmentation(swap_words=0.3), seed=0, epoch=2)
    'not be or be to to'
    """
    check(seed >= 0 and epoch >= 0, f"seed={seed} and epoch={epoch}", "neither can be negative", "Try seed=0 and epoch=0")
    known = frozenset(text if alphabet is None else alphabet)
    for stream, (name, noise) in enumerate(_NOISES.items()):
        rate = getattr(settings, name)
        if rate > 0:
            text = noise(text, rate, np.random.default_rng([seed, epoch, stream]), known)
    return text


# --- characters -----------------------------------------------------------------------------------------------------------


def swap_characters(text: str, rate: float, generator: np.random.Generator) -> str:
    """Neighbours change places: "hte". Both must be characters of one word, and each moves at most once."""
    codes = _codes(text)
    visible = ~_is_space(codes)
    hit = np.zeros(len(codes), bool)
    hit[:-1] = visible[:-1] & visible[1:] & (generator.random(max(0, len(codes) - 1)) < rate)
    places = np.flatnonzero(hit)
    run_start = np.maximum.accumulate(np.where(np.diff(places, prepend=-2) > 1, places, 0)) if places.size else places
    left = places[(places - run_start) % 2 == 0]  # of overlapping pairs every other one
    codes[left], codes[left + 1] = codes[left + 1], codes[left]
    return _text(codes)


def drop_characters(text: str, rate: float, generator: np.random.Generator) -> str:
    """Characters are left out: "te"."""
    codes = _codes(text)
    return _text(codes[_is_space(codes) | (generator.random(len(codes)) >= rate)])


def insert_characters(text: str, rate: float, generator: np.random.Generator, alphabet: frozenset[str] | None = None) -> str:
    """Characters are followed by one more, drawn from the text by frequency: "thre"."""
    codes = _codes(text)
    pool = _pool(codes, alphabet)
    hit = np.flatnonzero(~_is_space(codes) & (generator.random(len(codes)) < rate))
    if not pool.size:
        return text
    return _text(np.insert(codes, hit + 1, pool[generator.integers(len(pool), size=len(hit))]))


def replace_characters(text: str, rate: float, generator: np.random.Generator, alphabet: frozenset[str] | None = None) -> str:
    """Characters become others, drawn from the text by frequency: "tke". One in a while is drawn again, and stays."""
    codes = _codes(text)
    pool = _pool(codes, alphabet)
    hit = np.flatnonzero(~_is_space(codes) & (generator.random(len(codes)) < rate))
    if pool.size:
        codes[hit] = pool[generator.integers(len(pool), size=len(hit))]
    return _text(codes)


def flip_case(text: str, rate: float, generator: np.random.Generator, alphabet: frozenset[str] | None = None) -> str:
    """Letters change between capital and small, where the other form is one character of the text (or of `alphabet`): "tHe"."""
    codes = _codes(text)
    kinds, which = np.unique(codes, return_inverse=True)
    known = frozenset(map(chr, kinds.tolist())) if alphabet is None else alphabet
    flipped = np.array([_other_case(chr(code), known) for code in kinds.tolist()], np.uint32)
    return _text(np.where(generator.random(len(codes)) < rate, flipped[which], codes) if codes.size else codes)


def _other_case(character: str, known: frozenset[str]) -> int:
    other = character.swapcase()
    return ord(other) if len(other) == 1 and other in known else ord(character)  # ß has no capital of one character


def _codes(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32)


def _text(codes: Codes) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _is_space(codes: Codes) -> NDArray[np.bool_]:
    return np.isin(codes, _spaces())


@cache
def _spaces() -> Codes:
    return np.array([code for code in range(0x3001) if _SPACES.match(chr(code))], np.uint32)


def _pool(codes: Codes, alphabet: frozenset[str] | None) -> Codes:
    """The visible characters of the text, as often as they occur; only those of `alphabet` when there is one."""
    visible = codes[~_is_space(codes)]
    return visible if alphabet is None else visible[np.isin(visible, np.array([ord(c) for c in alphabet], np.uint32))]


# --- words ----------------------------------------------------------------------------------------------------------------


def swap_words(text: str, rate: float, generator: np.random.Generator) -> str:
    """Words change places with another word of their line, wherever it stands: random swap of EDA."""

    def change(words: list[str], gaps: list[str], hit: list[int]) -> None:
        for place in hit:
            if len(words) > 1:
                other = int(generator.integers(len(words) - 1))
                other += other >= place  # any but itself
                words[place], words[other] = words[other], words[place]

    return _by_line(text, rate, generator, change)


def delete_words(text: str, rate: float, generator: np.random.Generator) -> str:
    """Words are left out, with the space after them (the last one: before it): random deletion of EDA. A line keeps one at least."""

    def change(words: list[str], gaps: list[str], hit: list[int]) -> None:
        if len(hit) == len(words):
            hit = hit[: (spared := int(generator.integers(len(words))))] + hit[spared + 1 :]
        for place in reversed(hit):
            del gaps[place + 1 if place + 1 < len(words) else place]
            del words[place]

    return _by_line(text, rate, generator, change)


def insert_words(text: str, rate: float, generator: np.random.Generator, alphabet: frozenset[str] | None = None) -> str:
    """For each hit a random word of the line stands at one more place of it: random insertion of EDA, without its synonyms.

    It is set off by a blank; a text (or an `alphabet`) without one is returned as it is.
    """
    if " " not in (text if alphabet is None else alphabet):
        return text

    def change(words: list[str], gaps: list[str], hit: list[int]) -> None:
        for _ in hit:
            word, place = words[int(generator.integers(len(words)))], int(generator.integers(len(words) + 1))
            words.insert(place, word)
            gaps.insert(max(1, place), " ")

    return _by_line(text, rate, generator, change)


def _by_line(text: str, rate: float, generator: np.random.Generator, change: Callable[[list[str], list[str], list[int]], None]) -> str:
    """Draw for every word whether it is hit, and let `change` rework the lines that hold such words.

    It gets the words of the line, the white space around them (one more: before the first, between, after the last), and which are hit.
    """
    lines = text.split("\n")
    sizes = [len(line.split()) for line in lines]
    hits = np.flatnonzero(generator.random(sum(sizes)) < rate)
    ends = np.cumsum(sizes)
    owners, firsts = np.unique(np.searchsorted(ends, hits, side="right"), return_index=True)
    for number, hit in zip(owners.tolist(), np.split(hits, firsts[1:]), strict=False):
        begin = int(ends[number]) - sizes[number]
        words, gaps = _WORD.findall(lines[number]), _WORD.split(lines[number])
        change(words, gaps, (hit - begin).tolist())
        lines[number] = gaps[0] + "".join(word + gap for word, gap in zip(words, gaps[1:], strict=True))
    return "\n".join(lines)


Noise = Callable[[str, float, np.random.Generator, frozenset[str]], str]
_NOISES: dict[str, Noise] = {
    "swap_words": lambda text, rate, generator, known: swap_words(text, rate, generator),
    "delete_words": lambda text, rate, generator, known: delete_words(text, rate, generator),
    "insert_words": insert_words,
    "swap_characters": lambda text, rate, generator, known: swap_characters(text, rate, generator),
    "drop_characters": lambda text, rate, generator, known: drop_characters(text, rate, generator),
    "insert_characters": insert_characters,
    "replace_characters": replace_characters,
    "flip_case": flip_case,
}
"""Words first, then their letters. The place in this table is the stream of random numbers: new kinds go to the end."""


if __name__ == "__main__":
    line = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate"
    for field in fields(Augmentation):
        print(f"{field.name:18} {augment(line, Augmentation(**{field.name: 0.15}), seed=1, epoch=0)!r}")
